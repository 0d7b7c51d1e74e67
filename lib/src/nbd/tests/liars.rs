//! C-cases against both clients of the command lines, the one that sends one request at a time and the one that many
//! threads share: every lie is told to each of them, and each has a deadline for finding out.

mod ends;
mod replies;

use super::{Shelf, options, unix};
use crate::base::Result;
use crate::nbd::client::{Blocking, Pipelined};
use crate::nbd::server::{Handshake, Progress};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::{Command, MAGIC_CHUNK, MAGIC_SIMPLE, Request};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// For a reply that must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a reply that will not come.
const SHORT: Duration = Duration::from_millis(400);
/// For a whole test.
const LIMIT: Duration = Duration::from_secs(60);
/// What is asked for.
const AT: u64 = 4096;
const LEN: u32 = 2048;
/// The number of `base:allocation`; that of the other context is one more.
const ALLOCATION: u32 = 1;

/// Does a job that must end.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || tell.send(job()).is_ok());
    match told.recv_timeout(limit) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("{what}: no end within {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().expect_err(what)),
    }
}

/// What both clients do.
trait Asks {
    fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>>;
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()>;
    fn status(&mut self, offset: u64, len: u32) -> Result<Vec<(u32, u32)>>;
}

impl Asks for Blocking {
    fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>> {
        let mut buf = vec![0xaa; len as usize];
        Self::read(self, offset, &mut buf).map(|()| buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Self::write(self, offset, data, false)
    }

    fn status(&mut self, offset: u64, len: u32) -> Result<Vec<(u32, u32)>> {
        self.block_status("base:allocation", offset, len)
    }
}

impl Asks for Pipelined {
    fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>> {
        let mut buf = vec![0xaa; len as usize];
        Self::read(self, offset, &mut buf).map(|()| buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Self::write(self, offset, data)
    }

    fn status(&mut self, offset: u64, len: u32) -> Result<Vec<(u32, u32)>> {
        self.block_status("base:allocation", offset, len)
    }
}

fn connect(pipelined: bool, uri: &NbdUri, structured: bool, patience: Duration) -> Result<Box<dyn Asks>> {
    let options = options("vol", structured);
    Ok(if pipelined {
        Box::new(Pipelined::connect(uri, options, patience, 4)?)
    } else {
        Box::new(Blocking::connect(uri, options, patience)?)
    })
}

/// The other end of one connection.
struct Peer {
    stream: UnixStream,
    structured: bool,
    /// Cookies of earlier requests.
    seen: HashSet<u64>,
    /// That of the request before this one.
    before: u64,
    now: u64,
    /// Bytes that it may still send.
    left: usize,
}

/// The bytes of the disk.
fn bytes(offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(|at| (at % 251) as u8 + 1).collect()
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = bytes.len().min(self.left);
        self.left -= now;
        self.stream.write_all(&bytes[..now])?;
        if now < bytes.len() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// The honest handshake; keeps to what it may send.
    fn open(&mut self) -> io::Result<()> {
        let (mut shake, mut out) = Handshake::new();
        loop {
            self.send(&std::mem::take(&mut out))?;
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            if let (_, Progress::Transmission(session)) = shake.feed(&byte, &Shelf, &mut out) {
                self.structured = session.structured;
                return self.send(&out);
            }
        }
    }

    /// The header of the next request. Two with one cookie end the connection.
    fn head(&mut self) -> io::Result<Request> {
        let mut header = [0; Request::LEN];
        self.stream.read_exact(&mut header)?;
        let request = Request::parse(&header).expect("a request");
        if !self.seen.insert(request.cookie) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        (self.before, self.now) = (self.now, request.cookie);
        Ok(request)
    }

    fn request(&mut self) -> io::Result<Request> {
        let request = self.head()?;
        if request.command == Command::Write {
            self.stream.read_exact(&mut vec![0; request.length as usize])?;
        }
        Ok(request)
    }

    fn simple(&mut self, cookie: u64, error: u32) -> io::Result<()> {
        self.send(&[&MAGIC_SIMPLE.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat())
    }

    fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, body: &[u8]) -> io::Result<()> {
        self.chunk_of(flags, kind, cookie, body.len() as u32, body)
    }

    /// A chunk whose length is a lie.
    fn chunk_of(&mut self, flags: u16, kind: u16, cookie: u64, len: u32, body: &[u8]) -> io::Result<()> {
        let head = [&MAGIC_CHUNK.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes()].concat();
        self.send(&[&head[..], &cookie.to_be_bytes(), &len.to_be_bytes(), body].concat())
    }

    /// The honest answer.
    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let (cookie, offset, len) = (request.cookie, request.offset, request.length as usize);
        match request.command {
            Command::Disc => Err(io::ErrorKind::ConnectionAborted.into()),
            Command::Read if self.structured => {
                self.chunk(1, 1, cookie, &[&offset.to_be_bytes()[..], &bytes(offset, len)].concat())
            }
            Command::Read => self.simple(cookie, 0).and_then(|()| self.send(&bytes(offset, len))),
            Command::BlockStatus => self.chunk(1, 5, cookie, &extents(ALLOCATION, &[(LEN, 0)])),
            _ => self.simple(cookie, 0),
        }
    }

    /// Answers until the client goes away.
    fn honest(&mut self) -> io::Result<()> {
        loop {
            let request = self.request()?;
            self.answer(&request)?;
        }
    }

    /// Listens until the client goes away.
    fn silent(&mut self) -> io::Result<()> {
        io::copy(&mut self.stream, &mut io::sink()).map(drop)
    }
}

/// Serves one connection; what it says is not believed for long, so how it ends does not matter.
fn serve(path: &Path, left: usize, script: impl FnOnce(&mut Peer) -> io::Result<()> + Send + 'static) {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        let seen = HashSet::new();
        script(&mut Peer { stream, structured: false, seen, before: 0, now: 0, left }).is_ok()
    });
}

/// Lets each client talk to a server that is honest in its handshake and then follows the script.
fn each(
    what: &str,
    (structured, patience): (bool, Duration),
    script: impl FnOnce(&mut Peer) -> io::Result<()> + Clone + Send + 'static,
    check: impl FnOnce(&str, &mut dyn Asks) + Clone + Send + 'static,
) {
    for pipelined in [false, true] {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("s");
        let script = script.clone();
        serve(&path, usize::MAX, move |peer| peer.open().and_then(|()| script(peer)));
        let (uri, check) = (unix(&path, "vol"), check.clone());
        let what = format!("{what}, {}", if pipelined { "pipelined" } else { "one at a time" });
        let name = what.clone();
        within(LIMIT, &what, move || {
            let mut client = connect(pipelined, &uri, structured, patience).expect(&name);
            check(&name, client.as_mut());
        });
    }
}

fn data(at: u64, len: usize) -> Vec<u8> {
    [&at.to_be_bytes()[..], &vec![0xee; len]].concat()
}

fn hole(at: u64, len: u32) -> Vec<u8> {
    [&at.to_be_bytes()[..], &len.to_be_bytes()].concat()
}

fn error(number: u32, message_len: u16, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &message_len.to_be_bytes(), rest].concat()
}

fn extents(context: u32, list: &[(u32, u32)]) -> Vec<u8> {
    let list = list.iter().flat_map(|(len, status)| [len.to_be_bytes(), status.to_be_bytes()]);
    std::iter::once(context.to_be_bytes()).chain(list).flatten().collect()
}
