//! The noting process ([`super::noter`]) from the recorder's side: started, asked, ended.
//!
//! A question is [`QUESTION`] bytes: what (1), the number of an object (8), the number of an access (8), with a descriptor
//! where it is about a file. An answer is a length (4) and as many bytes. Every question has one answer, in order.

use crate::base::{Class, Error, Result, limits};
use crate::device::fields::put_u64;
use crate::fslog::ObjectId;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Bytes of a question.
pub const QUESTION: usize = 17;

/// What the recorder asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Question {
    /// Whether files of the file system of a directory can be marked: an error number, or 0.
    Probe = b'p',
    /// Mark a file: an error number, or 0.
    Mark = b'm',
    /// A file is gone: 0.
    Forget = b'f',
    /// The generation ends: records, then the number of the last access.
    Take = b't',
    /// Nobody could write a file after an access: 0.
    Settle = b's',
}

impl Question {
    /// The question that begins with a byte.
    pub fn of(byte: u8) -> Option<Self> {
        [Self::Probe, Self::Mark, Self::Forget, Self::Take, Self::Settle]
            .into_iter()
            .find(|q| *q as u8 == byte)
    }
}

/// The process, and the socket that is its standard input.
#[derive(Debug)]
pub struct Noting {
    child: Child,
    socket: UnixStream,
}

impl Noting {
    /// Starts it. Errors: class `Internal`.
    pub fn start(mut command: Command) -> Result<Self> {
        let fail = |doing: &'static str| move |e| Error::os(Class::Internal, "byte ranges", doing, e);
        let (socket, other) = UnixStream::pair().map_err(fail("making a socket"))?;
        let limit = Some(Duration::from_millis(limits::RANGES_STALL_MS));
        socket
            .set_read_timeout(limit)
            .and_then(|()| socket.set_write_timeout(limit))
            .map_err(fail("preparing a socket"))?;
        let child = command
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(fail("starting a process"))?;
        Ok(Self { child, socket })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is gone.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, and waits for that.
    pub fn end(&mut self) {
        // It may have ended, and then there is nothing to kill; it is reaped in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks, and waits for the answer as long as the socket says.
    pub fn ask(
        &self,
        question: Question,
        number: ObjectId,
        access: u64,
        file: Option<BorrowedFd<'_>>,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = [0; QUESTION];
        bytes[0] = question as u8;
        put_u64(&mut bytes, 1, number.0);
        put_u64(&mut bytes, 9, access);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = file.map(|file| [file]);
        if let Some(files) = &files {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        let sent = sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        if sent < QUESTION {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        let mut len = [0; 4];
        let mut from = &self.socket;
        from.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > limits::RANGES_ANSWER {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; len];
        from.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.end();
    }
}
