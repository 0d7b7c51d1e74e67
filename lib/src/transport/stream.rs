//! A descriptor with a deadline: pipes and sockets that are read and written by threads which wait.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::Shutdown;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A pipe or socket, non-blocking, each of whose reads and writes waits at most so long: `TimedOut` after it.
#[derive(Debug)]
pub struct Timed {
    fd: OwnedFd,
    patience: Duration,
    /// Dropped, it tells the other side that no more comes, whoever else holds the same socket.
    ends: bool,
}

impl Timed {
    /// Takes a descriptor; it becomes non-blocking, also for whoever shares it.
    pub fn new(fd: OwnedFd, patience: Duration) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd, patience, ends: false })
    }

    /// The same, as the writing half of a socket whose reading half is another one.
    pub fn writer(fd: OwnedFd, patience: Duration) -> io::Result<Self> {
        let mut writer = Self::new(fd, patience)?;
        writer.ends = true;
        Ok(writer)
    }

    fn wait(&self, what: PollFlags) -> io::Result<()> {
        if ready(self.fd.as_fd(), what, self.patience)? { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
    }

    fn repeat(
        &self,
        what: PollFlags,
        mut call: impl FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match call() {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(what)?,
                done => return Ok(done?),
            }
        }
    }
}

/// Waits until a descriptor is ready, or the other side is gone. False if that took too long.
pub fn ready(fd: BorrowedFd<'_>, what: PollFlags, patience: Duration) -> io::Result<bool> {
    let end = std::time::Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(fd, what)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

/// For `poll(2)`.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.repeat(PollFlags::IN, || rustix::io::read(&self.fd, &mut *buf))
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, || rustix::io::write(&self.fd, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, || rustix::io::writev(&self.fd, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if self.ends {
            // A pipe, which is no socket, ends with its descriptor.
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn reading_and_writing_wait_no_longer_than_the_deadline() {
        let (near, far) = UnixStream::pair().expect("pair");
        let patience = Duration::from_millis(50);
        let mut reader = Timed::new(near.try_clone().expect("clone").into(), patience).expect("reader");
        let mut writer = Timed::writer(near.into(), patience).expect("writer");
        assert_eq!(reader.read(&mut [0; 8]).expect_err("silence").kind(), ErrorKind::TimedOut);
        let mut sent = 0;
        let stuck = loop {
            match writer.write(&[1; 8192]) {
                Ok(len) => sent += len,
                Err(e) => break e,
            }
        };
        assert_eq!((stuck.kind(), sent > 0), (ErrorKind::TimedOut, true));
        drop(writer);
        let mut all = Vec::new();
        let mut far = Timed::new(far.into(), patience).expect("far");
        assert_eq!(far.read_to_end(&mut all).expect("the end is seen"), sent);
    }
}
