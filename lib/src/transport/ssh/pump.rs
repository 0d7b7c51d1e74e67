//! Carries bytes between a channel of libssh2 and a socket. libssh2 knows one lock for a whole session: a thread
//! that waits in a read keeps every writer out. So one thread owns the session and never waits in it; everybody
//! else has a plain socket.

use super::{Ending, failed};
use crate::base::{Result, limits};
use crate::transport::stream::timespec;
use rustix::event::{PollFd, PollFlags, poll};
use ssh2::{BlockDirections, Channel, Session};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes on their way in one direction, at most.
const BUFFER: usize = 256 << 10;
/// Longest wait for the far side to close a channel whose both directions have ended.
const CLOSING: Duration = Duration::from_secs(5);

/// Bytes on their way.
struct Flow {
    buf: Vec<u8>,
    from: usize,
    until: usize,
    /// The source has said that nothing more comes.
    ended: bool,
    /// And the sink has been told.
    told: bool,
}

impl Flow {
    fn new() -> Self {
        Self { buf: vec![0; BUFFER], from: 0, until: 0, ended: false, told: false }
    }

    const fn is_empty(&self) -> bool {
        self.from == self.until
    }

    /// Takes what there is, if there is room. True if something happened.
    fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        if self.ended || !self.is_empty() {
            return Ok(false);
        }
        match read(&mut self.buf) {
            Ok(len) => {
                (self.from, self.until, self.ended) = (0, len, len == 0);
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Hands on what it can. True if something happened.
    fn drain(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        match write(&self.buf[self.from..self.until]) {
            Ok(len) => {
                self.from += len;
                Ok(len > 0)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// What a pump owns.
pub(super) struct Pump {
    pub(super) session: Session,
    /// The socket that the session talks on, too.
    pub(super) fd: OwnedFd,
    pub(super) channel: Channel,
    pub(super) socket: UnixStream,
    pub(super) name: String,
    pub(super) ending: Ending,
}

impl Pump {
    /// Begins to carry, in a thread of its own.
    pub(super) fn start(self) -> Result<()> {
        let fail = |e: io::Error| failed(&self.name, "making a socket", e);
        self.socket.set_nonblocking(true).map_err(fail)?;
        self.session.set_blocking(false);
        let name = self.name.clone();
        std::thread::Builder::new()
            .name("ssh".into())
            .spawn(move || self.run())
            .map_err(|e| failed(name, "starting a thread", e))?;
        Ok(())
    }

    fn run(mut self) {
        let carried = self.carry();
        // Nobody waits for bytes that will not come.
        let _ = self.socket.shutdown(Shutdown::Both);
        let status = match carried {
            Ok(()) => self.status(),
            Err(e) => Err(failed(&self.name, "talking to it over SSH", e)),
        };
        self.ending.over(status);
    }

    /// Until both directions have ended, or the near one alone can take no more.
    fn carry(&mut self) -> io::Result<()> {
        let (mut out, mut back) = (Flow::new(), Flow::new());
        loop {
            let mut moved = false;
            moved |= out.fill(|buf| (&self.socket).read(buf)).or_else(gone(&mut out))?;
            moved |= out.drain(|bytes| self.channel.write(bytes))?;
            if out.ended && out.is_empty() && !out.told {
                match self.channel.send_eof() {
                    Ok(()) => (out.told, moved) = (true, true),
                    Err(e) => would_block(e.into())?,
                }
            }
            moved |= back.fill(|buf| self.channel.read(buf))?;
            moved |= match back.drain(|bytes| (&self.socket).write(bytes)) {
                // The near end listens no more; what it said before still goes out.
                Err(_) => {
                    back.from = back.until;
                    true
                }
                done => done?,
            };
            moved |= self.listen();
            if back.ended && back.is_empty() && !back.told {
                let _ = self.socket.shutdown(Shutdown::Write);
                back.told = true;
            }
            if back.told {
                return Ok(());
            }
            if !moved {
                self.wait(&out, &back)?;
            }
        }
    }

    /// What is said on standard error.
    fn listen(&mut self) -> bool {
        let mut buf = [0; 1024];
        match self.channel.stderr().read(&mut buf) {
            Ok(len) if len > 0 => {
                self.ending.said(&buf[..len]);
                true
            }
            _ => false,
        }
    }

    /// Waits until one of the two sockets is ready. Signs of life come from those who talk on the channel.
    fn wait(&self, out: &Flow, back: &Flow) -> io::Result<()> {
        let mut ssh = PollFlags::IN;
        if matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both) {
            ssh |= PollFlags::OUT;
        }
        let mut near = PollFlags::empty();
        if !out.ended && out.is_empty() {
            near |= PollFlags::IN;
        }
        if !back.is_empty() {
            near |= PollFlags::OUT;
        }
        let mut fds = [
            PollFd::from_borrowed_fd(self.fd.as_fd(), ssh),
            PollFd::from_borrowed_fd(self.socket.as_fd(), near),
        ];
        // A socket whose other side has gone is always ready; without a wish it is not asked.
        let count = if near.is_empty() { 1 } else { 2 };
        let patience = Duration::from_millis(limits::REMOTE_PING_MS);
        match poll(&mut fds[..count], Some(&timespec(patience))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The exit status over there.
    fn status(&mut self) -> Result<i32> {
        let end = Instant::now() + CLOSING;
        let fail = |e: ssh2::Error| failed(&self.name, "waiting for its end", e.message());
        let mut buf = [0; 1024];
        loop {
            while let Ok(len) = self.channel.stderr().read(&mut buf) {
                if len == 0 {
                    break;
                }
                self.ending.said(&buf[..len]);
            }
            match self.channel.wait_close() {
                Ok(()) => break,
                Err(e) if Instant::now() > end => return Err(fail(e)),
                Err(e) => would_block(e.into()).map_err(|e| failed(&self.name, "waiting for its end", e))?,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Ok(signal) = self.channel.exit_signal()
            && let Some(signal) = signal.exit_signal
        {
            return Err(failed(&self.name, "the far end", format_args!("it was ended by SIG{signal}")));
        }
        self.channel.exit_status().map_err(fail)
    }
}

/// A near end that has gone says nothing more.
fn gone(flow: &mut Flow) -> impl FnOnce(io::Error) -> io::Result<bool> + '_ {
    |_| {
        flow.ended = true;
        Ok(true)
    }
}

fn would_block(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}
