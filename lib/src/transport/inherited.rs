//! Sockets that somebody else opened: by socket activation (`sd_listen_fds(3)`), or as standard input and output.

// A number in the environment becomes a descriptor we own; see `activated`.
#![allow(unsafe_code)]

use crate::base::{Class, Error, Result, limits};
use rustix::fs::FileType;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How many sockets this process was given by socket activation. An error is of class `Usage`.
pub fn activation() -> Result<usize> {
    numbers().map(|numbers| numbers.len())
}

/// The sockets of socket activation, in the order of `LISTEN_FDS`; none if `LISTEN_PID` names another process.
/// Each is checked to be a listening stream socket, made non-blocking and close-on-exec.
///
/// To be called once: the descriptors belong to the caller afterwards. Errors are of class `Usage`.
pub fn activated() -> Result<Vec<OwnedFd>> {
    let bad = |why: String| Error::new(Class::Usage, format!("socket activation: taking the sockets: {why}"));
    let numbers = numbers()?;
    if numbers.len() > limits::LISTENERS {
        return Err(bad(format!("{} of them, at most {} are possible", numbers.len(), limits::LISTENERS)));
    }
    let mut sockets = Vec::with_capacity(numbers.len());
    for number in numbers {
        // SAFETY: whoever started this process opened the descriptor for it and says so by LISTEN_PID and
        // LISTEN_FDS; nothing in this process has it, because nothing else reads these variables. That it is
        // open was seen when it was made close-on-exec.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        listener(&fd).map_err(|why| bad(format!("descriptor {number}: {why}")))?;
        sockets.push(fd);
    }
    Ok(sockets)
}

fn numbers() -> Result<impl ExactSizeIterator<Item = i32>> {
    sd_notify::listen_fds().map_err(|e| Error::os(Class::Usage, "socket activation", "reading LISTEN_FDS", e))
}

/// Makes an inherited descriptor a listener like our own, or says why it cannot be.
fn listener(fd: &OwnedFd) -> std::result::Result<(), String> {
    let family = sockopt::socket_domain(fd).map_err(|_| "not a socket".to_owned())?;
    let stream = sockopt::socket_type(fd) == Ok(SocketType::STREAM);
    let known = [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6].contains(&family);
    if !stream || !known || !sockopt::socket_acceptconn(fd).unwrap_or(false) {
        return Err("not a listening TCP or Unix socket (in a unit: ListenStream=, Accept=no)".to_owned());
    }
    rustix::io::ioctl_fionbio(fd, true)
        .and_then(|()| rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC))
        .map_err(|e| e.to_string())
}

/// One client on standard input and output.
#[derive(Debug)]
pub struct Stdio {
    /// What the server talks to.
    pub socket: OwnedFd,
    /// Ends when everything that was written to the socket is on standard output; only where that is not the
    /// same socket.
    drained: Option<Receiver<()>>,
}

impl Stdio {
    /// Standard input and output as one non-blocking stream. Where both are the same socket, as inetd(8) and libnbd
    /// give them, it is used as it is; two pipes (ssh(1)) are joined by two threads.
    pub fn take() -> Result<Self> {
        let (input, output) = (std::io::stdin(), std::io::stdout());
        let failed = |e: std::io::Error| Error::io("standard input", "taking it as a connection", e);
        if same_socket(input.as_fd(), output.as_fd()) {
            let socket = input.as_fd().try_clone_to_owned().map_err(failed)?;
            rustix::io::ioctl_fionbio(&socket, true).map_err(|e| failed(e.into()))?;
            return Ok(Self { socket, drained: None });
        }
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let from = std::fs::File::from(input.as_fd().try_clone_to_owned().map_err(failed)?);
        let to = std::fs::File::from(output.as_fd().try_clone_to_owned().map_err(failed)?);
        let writer = theirs.try_clone().map_err(failed)?;
        std::thread::spawn(move || {
            pump(from, &writer);
            // Nobody reads any more: the peer knows already.
            let _ = writer.shutdown(Shutdown::Write);
        });
        let (done, drained) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            pump(&theirs, to);
            let _ = theirs.shutdown(Shutdown::Both);
            let _ = done.send(());
        });
        Ok(Self { socket: ours.into(), drained: Some(drained) })
    }

    /// Splits off the waiting for the end of the output.
    pub fn into_parts(self) -> (OwnedFd, Drained) {
        (self.socket, Drained(self.drained))
    }
}

/// Waits for the last bytes of a [`Stdio`] whose socket was closed.
#[derive(Debug)]
pub struct Drained(Option<Receiver<()>>);

impl Drained {
    /// Waits until they are written, at most so long: a reader that stands still is not waited for.
    pub fn wait(self, limit: Duration) {
        if let Some(drained) = self.0 {
            // An error says that the thread is gone: nothing is left to wait for either.
            let _ = drained.recv_timeout(limit);
        }
    }
}

/// Whether both are one and the same socket.
fn same_socket(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let (Ok(a), Ok(b)) = (rustix::fs::fstat(a), rustix::fs::fstat(b)) else { return false };
    FileType::from_raw_mode(a.st_mode) == FileType::Socket && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Copies until either side ends.
fn pump(mut from: impl Read, mut to: impl Write) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(n) if to.write_all(&bytes[..n]).and_then(|()| to.flush()).is_err() => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
