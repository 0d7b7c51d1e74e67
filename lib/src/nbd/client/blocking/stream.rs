//! A stream every wait of which is bounded.

use crate::base::{Address, Class, Error, Result};
use crate::nbd::client::secure::{Ending, Secure, Secured};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes received at once besides payload.
const CHUNK: usize = 16 << 10;

/// Pause before a Unix socket whose backlog is full is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A connected stream socket.
#[derive(Debug)]
pub(in crate::nbd::client) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream, and what becomes of the TLS over it; dropped in this order.
#[derive(Debug)]
pub(in crate::nbd::client) struct Tunnelled {
    stream: Stream,
    ending: Option<Box<dyn Ending>>,
}

/// A stream, its name for messages, what was received and not yet used, and until when to wait.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Tunnelled,
    pub(super) name: String,
    pub(super) received: Vec<u8>,
    timeout: Duration,
    until: Instant,
}

/// Opens a stream, trying the addresses of a name in turn.
fn open(address: &Address, until: Instant) -> Result<Stream> {
    let failed = |why: std::io::Error| {
        let class = if timed_out(&why) { Class::Timeout } else { Class::Connect };
        Error::os(class, address, "connecting", why)
    };
    match address {
        Address::Unix(path) => open_unix(path, until).map(Stream::Unix).map_err(failed),
        Address::Tcp { host, port } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let found =
                found.map_err(|e| Error::os(Class::Connect, address, "resolving the host's name", e))?;
            let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
            for candidate in found {
                let left = left(until).map_err(failed)?;
                match TcpStream::connect_timeout(&candidate, left) {
                    Ok(stream) => {
                        stream.set_nodelay(true).map_err(failed)?;
                        return Ok(Stream::Tcp(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(failed(last))
        }
    }
}

/// A Unix socket never waits in connecting, so a full backlog is waited for here.
fn open_unix(path: &Path, until: Instant) -> std::io::Result<UnixStream> {
    let address = match Address::abstract_name(path) {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path.as_os_str().as_bytes())?,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&fd, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(RETRY.min(left(until)?)),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn timed_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
}

fn left(until: Instant) -> std::io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Wire {
    /// The stream, and what was received and not yet used.
    pub(in crate::nbd::client) fn into_parts(self) -> (Tunnelled, Vec<u8>, String) {
        (self.stream, self.received, self.name)
    }

    /// Connects within `timeout`, which then bounds each exchange that begins with [`Wire::begin`].
    pub(super) fn open(address: &Address, name: String, timeout: Duration) -> Result<Self> {
        let until = Instant::now() + timeout;
        let stream = Tunnelled { stream: open(address, until)?, ending: None };
        Ok(Self { stream, name, received: Vec::new(), timeout, until })
    }

    /// Puts TLS over it, within what is left of the time. What came behind the server's consent may be anybody's, and
    /// is the end (CVE-2021-3716).
    pub(super) fn secure(&mut self, tls: &dyn Secure) -> Result<()> {
        if !self.received.is_empty() {
            return Err(Error::new(
                Class::Connect,
                "TLS: something was sent in the clear behind the consent",
            ));
        }
        let failed = |e: std::io::Error| Error::os(Class::Connect, "TLS", "beginning it", e);
        let patience = left(self.until).map_err(failed)?;
        let socket = match &self.stream.stream {
            Stream::Tcp(stream) => stream.try_clone().map(OwnedFd::from),
            Stream::Unix(stream) => stream.try_clone().map(OwnedFd::from),
        };
        let Secured { socket, ending } = tls.secure(socket.map_err(failed)?, patience)?;
        let near = UnixStream::from(socket);
        near.set_nonblocking(false).map_err(failed)?;
        self.stream = Tunnelled { stream: Stream::Unix(near), ending: Some(ending) };
        Ok(())
    }

    /// Begins an exchange: its deadline.
    pub(super) fn begin(&mut self) {
        self.until = Instant::now() + self.timeout;
    }

    fn failed(&self, doing: &str, error: &std::io::Error) -> Error {
        if timed_out(error) {
            let seconds = self.timeout.as_secs_f64();
            return Error::new(Class::Timeout, format!("{doing}: no answer within {seconds} s"));
        }
        Error::new(Class::Io, format!("{doing}: {}", self.stream.why(&crate::base::error::plain(error))))
    }

    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.stream.write_some(bytes, self.until) {
                Ok(0) => return Err(self.failed("sending", &std::io::ErrorKind::WriteZero.into())),
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("sending", &error)),
            }
        }
        Ok(())
    }

    /// Receives at least one byte, up to [`CHUNK`].
    pub(super) fn receive(&mut self) -> Result<()> {
        let before = self.received.len();
        self.received.resize(before + CHUNK, 0);
        let mut buffer = std::mem::take(&mut self.received);
        let got = self.some(&mut buffer[before..]);
        buffer.truncate(before + got.as_ref().map_or(0, |got| *got));
        self.received = buffer;
        got.map(|_| ())
    }

    /// Receives exactly the length of `buf`: first what is here already.
    pub(super) fn receive_into(&mut self, buf: &mut [u8]) -> Result<()> {
        let here = self.received.len().min(buf.len());
        buf[..here].copy_from_slice(&self.received[..here]);
        self.received.drain(..here);
        let mut filled = here;
        while filled < buf.len() {
            filled += self.some(&mut buf[filled..])?;
        }
        Ok(())
    }

    fn some(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.stream.stream.read_some(buf, self.until) {
                Ok(0) => {
                    let why = self.stream.why("the server closed the connection");
                    return Err(Error::new(Class::Io, format!("receiving: {why}")));
                }
                Ok(got) => return Ok(got),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("receiving", &error)),
            }
        }
    }
}

impl Tunnelled {
    /// Why it has ended: what TLS says, or what the system said.
    pub(in crate::nbd::client) fn why(&self, otherwise: &str) -> String {
        let why = self.ending.as_ref().and_then(|ending| ending.why());
        why.map_or_else(|| otherwise.to_owned(), |why| why.message)
    }
}

impl std::ops::Deref for Tunnelled {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl Stream {
    /// Bounds every wait on it.
    pub(in crate::nbd::client) fn set_timeouts(
        &self,
        read: Duration,
        write: Duration,
    ) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(read)).and_then(|()| stream.set_write_timeout(Some(write)))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(read)).and_then(|()| stream.set_write_timeout(Some(write)))
            }
        }
    }

    /// Receives what there is, from any thread.
    pub(in crate::nbd::client) fn receive(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).read(buf),
            Self::Unix(stream) => (&mut &*stream).read(buf),
        }
    }

    /// Sends some of two pieces, from any thread.
    pub(in crate::nbd::client) fn send(&self, bufs: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).write_vectored(bufs),
            Self::Unix(stream) => (&mut &*stream).write_vectored(bufs),
        }
    }

    /// Sends some of a file from its place in memory, from any thread; moves `at` on. 0 at the end of the file.
    pub(in crate::nbd::client) fn send_file(
        &self,
        file: BorrowedFd<'_>,
        at: &mut u64,
        len: usize,
    ) -> std::io::Result<usize> {
        let socket = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        Ok(rustix::fs::sendfile(socket, file, Some(at), len)?)
    }

    /// Ends both directions: whoever waits is woken.
    pub(in crate::nbd::client) fn shutdown(&self) {
        // It may be over already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn read_some(&mut self, buf: &mut [u8], until: Instant) -> std::io::Result<usize> {
        let left = Some(left(until)?);
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buf)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buf)
            }
        }
    }

    fn write_some(&mut self, buf: &[u8], until: Instant) -> std::io::Result<usize> {
        let left = Some(left(until)?);
        match self {
            Self::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(buf)
            }
            Self::Unix(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(buf)
            }
        }
    }
}
