//! A client for command lines: one request at a time, every wait bounded. The only file of this room that
//! does I/O.

use super::assembly::{Assembly, PlainAssembly, ReadAssembly, clip_extents};
use super::handshake::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
use super::replies::{Reply, ReplyParser};
use super::violation;
use crate::base::{Address, ByteRange, Class, Error, Result};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::{Command, CommandFlags, Errno, Request, TransmissionFlags, option, put_option};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes received at once besides payload.
const CHUNK: usize = 16 << 10;

/// Pause before a Unix socket whose backlog is full is tried again.
const RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An open export. After a time-out or a violation of the protocol every further call fails: a late reply must
/// never be taken for that of a newer request (`nbd.md` case C22).
#[derive(Debug)]
pub struct Blocking {
    wire: Wire,
    info: ServerInfo,
    parser: ReplyParser,
    cookie: u64,
    broken: bool,
}

/// A stream, its name for messages, what was received and not yet used, and until when to wait.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    name: String,
    received: Vec<u8>,
    timeout: Duration,
    until: Instant,
}

impl Blocking {
    /// Connects and opens the export. `deadline` bounds connecting and handshake together (not the resolving of
    /// a name, for which the system has its own limit), and later each request of its own. Errors: `Connect`,
    /// `Timeout`.
    pub fn connect(uri: &NbdUri, options: ClientOptions, deadline: Duration) -> Result<Self> {
        if uri.tls {
            return Err(Error::new(Class::Connect, format!("{uri}: TLS is not supported by this version")));
        }
        let until = Instant::now() + deadline;
        let stream = open(&uri.address, until)?;
        let mut wire = Wire { stream, name: uri.to_string(), received: Vec::new(), timeout: deadline, until };
        let info = negotiate(&mut wire, options)?;
        let parser = ReplyParser::new(info.structured);
        Ok(Self { wire, info, parser, cookie: 0, broken: false })
    }

    /// What the server offers.
    pub const fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// Reads `buf.len()` bytes at `offset`; in several requests if need be. On an error the contents of `buf`
    /// are undefined.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inside("reading", offset, buf.len() as u64)?;
        let mut at = offset;
        for part in buf.chunks_mut(self.step()) {
            self.request("reading", Command::Read, CommandFlags::NONE, at, part.len() as u32, &[])?;
            let outcome = self.receive_read(at, part);
            self.conclude("reading", at, part.len() as u64, outcome)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes `data` at `offset`; `fua`: answered only when durable, refused if the server lacks it.
    pub fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<()> {
        self.inside("writing", offset, data.len() as u64)?;
        let flags = self.fua("writing", fua)?;
        let mut at = offset;
        for part in data.chunks(self.step()) {
            self.plain("writing", Command::Write, flags, at, part.len() as u32, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes everything written so far durable. Refused if the server has no FLUSH: nothing can be claimed.
    pub fn flush(&mut self) -> Result<()> {
        self.needs("flushing", TransmissionFlags::SEND_FLUSH)?;
        self.plain("flushing", Command::Flush, CommandFlags::NONE, 0, 0, &[])
    }

    /// Writes zeroes; `punch`: they need not stay allocated. Refused if the server has no `WRITE_ZEROES`.
    pub fn zeroes(&mut self, offset: u64, len: u64, punch: bool, fua: bool) -> Result<()> {
        self.inside("zeroing", offset, len)?;
        self.needs("zeroing", TransmissionFlags::SEND_WRITE_ZEROES)?;
        let mut flags = self.fua("zeroing", fua)?;
        if !punch {
            flags = flags.with(CommandFlags::NO_HOLE);
        }
        // Some servers bound effects like payloads (qemu): a step that all take.
        let step = self.step() as u64;
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part = step.min(end - at);
            self.plain("zeroing", Command::WriteZeroes, flags, at, part as u32, &[])?;
            at += part;
        }
        Ok(())
    }

    /// The extents (length, flags) of one negotiated context from `offset` on, at least one and cut to `len`;
    /// servers may describe less than was asked.
    pub fn block_status(&mut self, context: &str, offset: u64, len: u32) -> Result<Vec<(u32, u32)>> {
        self.inside("asking for extents", offset, u64::from(len))?;
        let id = self.info.contexts.iter().find(|(_, name)| name == context).map(|(id, _)| *id);
        let id = id.ok_or_else(|| {
            self.error(Class::Refused, "asking for extents", format_args!("the server has no '{context}'"))
        })?;
        self.request("asking for extents", Command::BlockStatus, CommandFlags::NONE, offset, len, &[])?;
        let outcome = self.receive_status(id, len);
        self.conclude("asking for extents", offset, u64::from(len), outcome)
    }

    /// Says goodbye; nothing is in flight, so nothing is lost. Does not flush.
    pub fn disconnect(mut self) -> Result<()> {
        if self.broken {
            return Err(self.error(Class::Io, "disconnecting", "the connection has failed before"));
        }
        self.request("disconnecting", Command::Disc, CommandFlags::NONE, 0, 0, &[])
    }

    /// Bytes of one request: aligned to what the server wants, at most what it takes.
    fn step(&self) -> usize {
        let max = self.info.max_payload;
        (max - max % self.info.min_block).max(1) as usize
    }

    fn error(&self, class: Class, doing: &str, why: impl std::fmt::Display) -> Error {
        Error::new(class, format!("{}: {doing}: {why}", self.wire.name))
    }

    fn inside(&self, doing: &str, offset: u64, len: u64) -> Result<()> {
        if ByteRange::new(offset, len).is_some_and(|range| range.end() <= self.info.size) {
            return Ok(());
        }
        let size = self.info.size;
        Err(self.error(Class::Io, doing, format_args!("{offset}+{len} is past the end at {size} bytes")))
    }

    fn needs(&self, doing: &str, flag: TransmissionFlags) -> Result<()> {
        if self.info.flags.has(flag) {
            return Ok(());
        }
        Err(self.error(Class::Refused, doing, "the server does not offer it"))
    }

    fn fua(&self, doing: &str, fua: bool) -> Result<CommandFlags> {
        if !fua {
            return Ok(CommandFlags::NONE);
        }
        self.needs(doing, TransmissionFlags::SEND_FUA)?;
        Ok(CommandFlags::FUA)
    }

    fn plain(
        &mut self,
        doing: &str,
        command: Command,
        flags: CommandFlags,
        at: u64,
        len: u32,
        payload: &[u8],
    ) -> Result<()> {
        self.request(doing, command, flags, at, len, payload)?;
        let outcome = self.receive_plain();
        self.conclude(doing, at, u64::from(len), outcome)
    }

    /// Sends one request and begins its deadline.
    fn request(
        &mut self,
        doing: &str,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        length: u32,
        payload: &[u8],
    ) -> Result<()> {
        if self.broken {
            return Err(self.error(Class::Io, doing, "the connection has failed before"));
        }
        self.cookie += 1;
        let header = Request { flags, command, cookie: self.cookie, offset, length }.encode();
        self.wire.until = Instant::now() + self.wire.timeout;
        let sent = self.wire.send(&header).and_then(|()| self.wire.send(payload));
        self.broken |= sent.is_err();
        sent
    }

    /// Turns the outcome of a request into a result that names it; remembers a broken connection.
    fn conclude<T>(
        &mut self,
        doing: &str,
        offset: u64,
        len: u64,
        outcome: Result<Result<T, Errno>>,
    ) -> Result<T> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(errno)) => {
                let why = errno.text();
                Err(self.error(Class::Io, doing, format_args!("{offset}+{len}: the server says: {why}")))
            }
            Err(error) => {
                self.broken = true;
                Err(self.error(error.class, doing, error.message))
            }
        }
    }

    /// The next reply, which must be this request's.
    fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some((consumed, reply)) = self.parser.parse(&self.wire.received)? {
                self.wire.received.drain(..consumed);
                if reply.cookie() != self.cookie {
                    return Err(violation("a reply to a request that is not in flight"));
                }
                return Ok(reply);
            }
            self.wire.receive()?;
        }
    }

    fn receive_plain(&mut self) -> Result<Result<(), Errno>> {
        let mut assembly = PlainAssembly::default();
        loop {
            let reply = self.reply()?;
            match assembly.accept(&reply)? {
                Assembly::More => {}
                Assembly::Complete => return Ok(Ok(())),
                Assembly::Incomplete => return Ok(Err(Errno::Io)),
                Assembly::Failed(errno) => return Ok(Err(errno)),
            }
        }
    }

    fn receive_read(&mut self, offset: u64, buf: &mut [u8]) -> Result<Result<(), Errno>> {
        let mut assembly = ReadAssembly::new(self.info.structured, offset, buf.len() as u32);
        loop {
            let reply = self.reply()?;
            let state = assembly.accept(&reply)?;
            // The assembly has checked that the piece lies inside the request.
            let piece = |at: u64, len: u32| (at - offset) as usize..(at - offset) as usize + len as usize;
            match reply {
                Reply::Simple { error: None, .. } => self.wire.receive_into(buf)?,
                Reply::Data { offset, len, .. } => self.wire.receive_into(&mut buf[piece(offset, len)])?,
                Reply::Hole { offset, len, .. } => buf[piece(offset, len)].fill(0),
                _ => {}
            }
            match state {
                Assembly::More => {}
                Assembly::Complete => return Ok(Ok(())),
                Assembly::Incomplete => return Ok(Err(Errno::Io)),
                Assembly::Failed(errno) => return Ok(Err(errno)),
            }
        }
    }

    fn receive_status(&mut self, id: u32, length: u32) -> Result<Result<Vec<(u32, u32)>, Errno>> {
        let mut found: Option<Vec<(u32, u32)>> = None;
        let mut failed = None;
        let mut chunks = 0;
        loop {
            let reply = self.reply()?;
            let done = reply.done();
            match reply {
                Reply::BlockStatus { context, mut extents, .. } => {
                    chunks += 1;
                    let known = self.info.contexts.iter().any(|(id, _)| *id == context);
                    if !known || chunks > self.info.contexts.len() || (context == id && found.is_some()) {
                        return Err(violation(format_args!("extents of context {context}")));
                    }
                    clip_extents(&mut extents, length, false)?;
                    if context == id {
                        found = Some(extents);
                    }
                }
                Reply::Error { error, .. } | Reply::Simple { error: Some(error), .. } => failed = Some(error),
                Reply::None { .. } => {}
                _ => return Err(violation("data in reply to BLOCK_STATUS")),
            }
            if done {
                return Ok(match (failed, found) {
                    (Some(errno), _) => Err(errno),
                    (None, Some(extents)) => Ok(extents),
                    (None, None) => Err(Errno::Io),
                });
            }
        }
    }
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

fn negotiate(wire: &mut Wire, options: ClientOptions) -> Result<ServerInfo> {
    let mut shake = ClientHandshake::new(options);
    let mut out = Vec::new();
    loop {
        wire.receive().map_err(|e| connect_class(&wire.name, e))?;
        let fed = shake.feed(&wire.received, &mut out);
        // What is left of a failed handshake is a goodbye.
        let sent = wire.send(&out);
        out.clear();
        let (consumed, progress) = fed.map_err(|e| connect_class(&wire.name, e))?;
        wire.received.drain(..consumed);
        match progress {
            ClientProgress::More => sent.map_err(|e| connect_class(&wire.name, e))?,
            ClientProgress::Ready(info) if info.min_block > info.max_payload => {
                put_option(&mut out, option::ABORT, &[]);
                return Err(Error::new(Class::Connect, format!("{}: impossible block sizes", wire.name)));
            }
            ClientProgress::Ready(info) => return Ok(info),
        }
    }
}

/// Whatever fails before the export is open failed to connect, unless it took too long.
fn connect_class(name: &str, mut error: Error) -> Error {
    if error.class != Class::Timeout {
        error.class = Class::Connect;
    }
    error.message = format!("{name}: {}", error.message);
    error
}

fn timed_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
}

fn left(until: Instant) -> std::io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Wire {
    fn failed(&self, doing: &str, error: &std::io::Error) -> Error {
        if timed_out(error) {
            let seconds = self.timeout.as_secs_f64();
            return Error::new(Class::Timeout, format!("{doing}: no answer within {seconds} s"));
        }
        Error::new(Class::Io, format!("{doing}: {}", crate::base::error::plain(error)))
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write_some(bytes, self.until) {
                Ok(0) => return Err(self.failed("sending", &std::io::ErrorKind::WriteZero.into())),
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("sending", &error)),
            }
        }
        Ok(())
    }

    /// Receives at least one byte, up to [`CHUNK`].
    fn receive(&mut self) -> Result<()> {
        let before = self.received.len();
        self.received.resize(before + CHUNK, 0);
        let mut buffer = std::mem::take(&mut self.received);
        let got = self.some(&mut buffer[before..]);
        buffer.truncate(before + got.as_ref().map_or(0, |got| *got));
        self.received = buffer;
        got.map(|_| ())
    }

    /// Receives exactly the length of `buf`: first what is here already.
    fn receive_into(&mut self, buf: &mut [u8]) -> Result<()> {
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
            match self.stream.read_some(buf, self.until) {
                Ok(0) => {
                    return Err(Error::new(Class::Io, "receiving: the server closed the connection"));
                }
                Ok(got) => return Ok(got),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("receiving", &error)),
            }
        }
    }
}

impl Stream {
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
