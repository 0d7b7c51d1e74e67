//! A client that many threads share: each call is one request, and waits for its own answer only. One thread of
//! the client receives; whoever asks sends.

mod table;

use super::assembly::{Assembly, PlainAssembly, ReadAssembly};
use super::blocking::stream::Tunnelled;
use super::extents::StatusAssembly;
use super::handshake::{ClientOptions, ServerInfo};
use super::replies::{Reply, ReplyParser};
use super::{Blocking, violation};
use crate::base::{Class, Error, Result, error::plain, limits};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::{Command, CommandFlags, Errno, Request, TransmissionFlags};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use table::{Answer, Asked, Table};

/// Bytes received at once besides payload.
const CHUNK: usize = 64 << 10;
/// Deadlines are looked at so often.
const TICK: Duration = Duration::from_millis(250);

/// An open export whose requests may come from many threads. After a time-out, a closed connection or a violation
/// of the protocol every call fails: the cause of the first is kept, and nothing is connected again.
#[derive(Debug)]
pub struct Pipelined {
    shared: Arc<Shared>,
    receiver: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stream: Tunnelled,
    name: String,
    info: ServerInfo,
    timeout: Duration,
    table: Table,
    /// Held while one request is sent: header and payload are not mixed with another's.
    sending: Mutex<()>,
}

/// What follows the header of a request.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Bytes(&'a [u8]),
    /// From a place of a file; why it could not be read to its end, if so.
    File {
        file: BorrowedFd<'a>,
        from: u64,
        unread: &'a OnceLock<Error>,
    },
}

impl Payload<'_> {
    const NONE: Self = Self::Bytes(&[]);
}

impl Pipelined {
    /// Connects and opens the export. `deadline` bounds connecting and handshake together, and later each request
    /// ([`limits::FLUSH_PATIENCE`] times as long for a flush). At most `depth` requests are in flight, further
    /// calls wait. Errors: `Connect`, `Timeout`.
    pub fn connect(uri: &NbdUri, options: ClientOptions, deadline: Duration, depth: usize) -> Result<Self> {
        Self::over(Blocking::connect(uri, options, deadline)?, deadline, depth)
    }

    /// The same over a connection that was just made.
    pub fn over(connection: Blocking, deadline: Duration, depth: usize) -> Result<Self> {
        let (stream, early, name, info) = connection.into_parts();
        stream.set_timeouts(TICK, deadline).map_err(|e| Error::io(&name, "setting a deadline", e))?;
        let table = Table::new(depth);
        let shared =
            Arc::new(Shared { stream, name, info, timeout: deadline, table, sending: Mutex::new(()) });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("nbd-receive".into())
            .spawn(move || {
                let error = Receiver::new(&inner, early).run();
                inner.fail(&error);
                inner.table.receiver_ended();
            })
            .map_err(|e| Error::io(&shared.name, "starting a thread", e))?;
        Ok(Self { shared, receiver: Some(thread) })
    }

    /// What the server offers.
    pub fn info(&self) -> &ServerInfo {
        &self.shared.info
    }

    /// Why every call fails; `None` while the connection works.
    pub fn broken(&self) -> Option<Error> {
        self.shared.table.broken()
    }

    /// Fills `buf` from `offset`; it may be exchanged for another of the same length. At most
    /// [`ServerInfo::max_payload`] bytes.
    pub fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        let len = buf.len() as u32;
        let assembly = ReadAssembly::new(self.shared.info.structured, offset, len);
        let asked = Asked::Read { buf: std::mem::take(buf), offset, assembly };
        let (outcome, asked) =
            self.shared.ask("reading", Command::Read, CommandFlags::NONE, offset, len, Payload::NONE, asked);
        if let Asked::Read { buf: filled, .. } = asked {
            *buf = filled;
        }
        buf.resize(len as usize, 0);
        outcome
    }

    /// Writes `data` at `offset`; at most [`ServerInfo::max_payload`] bytes.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let asked = Asked::Plain(PlainAssembly::default());
        let (command, none) = (Command::Write, CommandFlags::NONE);
        self.shared.ask("writing", command, none, offset, data.len() as u32, Payload::Bytes(data), asked).0
    }

    /// Writes `len` bytes of `file`, from `from` on, at `offset`, without copying them here: what the server receives
    /// is what the file holds when the server reads its socket. Meant for what is in memory: while the file is waited
    /// for no other request is sent. At most [`ServerInfo::max_payload`] bytes. If the file cannot be read to there,
    /// zeroes are sent for the rest, so that the connection lives, and the error says so.
    pub fn write_file(&self, offset: u64, file: BorrowedFd<'_>, from: u64, len: u32) -> Result<()> {
        let asked = Asked::Plain(PlainAssembly::default());
        let unread = OnceLock::new();
        let payload = Payload::File { file, from, unread: &unread };
        let (outcome, _) =
            self.shared.ask("writing", Command::Write, CommandFlags::NONE, offset, len, payload, asked);
        match unread.into_inner() {
            Some(error) if outcome.is_ok() => Err(error),
            _ => outcome,
        }
    }

    /// Writes zeroes; `punch`: they need not stay allocated. Refused if the server has no `WRITE_ZEROES`.
    pub fn zeroes(&self, offset: u64, len: u32, punch: bool) -> Result<()> {
        self.needs("zeroing", TransmissionFlags::SEND_WRITE_ZEROES)?;
        let flags = if punch { CommandFlags::NONE } else { CommandFlags::NO_HOLE };
        let asked = Asked::Plain(PlainAssembly::default());
        self.shared.ask("zeroing", Command::WriteZeroes, flags, offset, len, Payload::NONE, asked).0
    }

    /// Makes everything durable that was acknowledged before this call, on this connection; on all connections
    /// to the export if the server says that it may be written to over several.
    pub fn flush(&self) -> Result<()> {
        self.needs("flushing", TransmissionFlags::SEND_FLUSH)?;
        let asked = Asked::Plain(PlainAssembly::default());
        self.shared.ask("flushing", Command::Flush, CommandFlags::NONE, 0, 0, Payload::NONE, asked).0
    }

    /// The extents (length, flags) of one negotiated context from `offset` on, at least one and cut to `len`;
    /// servers may describe less than was asked.
    pub fn block_status(&self, context: &str, offset: u64, len: u32) -> Result<Vec<(u32, u32)>> {
        let doing = "asking for extents";
        let id = self.shared.info.contexts.iter().find(|(_, name)| name == context).map(|(id, _)| *id);
        let id = id.ok_or_else(|| {
            let text = format!("{}: {doing}: the server has no '{context}'", self.shared.name);
            Error::new(Class::Refused, text)
        })?;
        let asked = Asked::Status(StatusAssembly::whole(id, &self.shared.info, len));
        let (outcome, asked) = self.shared.ask(
            doing,
            Command::BlockStatus,
            CommandFlags::NONE,
            offset,
            len,
            Payload::NONE,
            asked,
        );
        outcome?;
        match asked {
            Asked::Status(assembly) => Ok(assembly.into_compact()),
            _ => Err(self.shared.said(doing, offset, len, Errno::Io)),
        }
    }

    fn needs(&self, doing: &str, flag: TransmissionFlags) -> Result<()> {
        if self.shared.info.flags.has(flag) {
            return Ok(());
        }
        let text = format!("{}: {doing}: the server does not offer it", self.shared.name);
        Err(Error::new(Class::Refused, text))
    }
}

impl Drop for Pipelined {
    fn drop(&mut self) {
        if self.broken().is_none() {
            // A goodbye: nothing is in flight. Whether it is heard changes nothing.
            let header = Request {
                flags: CommandFlags::NONE,
                command: Command::Disc,
                cookie: 0,
                offset: 0,
                length: 0,
            };
            let _ = self.shared.send(&header.encode(), Payload::NONE, 0);
        }
        self.shared.stream.shutdown();
        if let Some(receiver) = self.receiver.take() {
            // It ends with the stream; a panic of it was told already.
            let _ = receiver.join();
        }
    }
}

impl Shared {
    /// One request from its sending to its answer.
    #[allow(clippy::too_many_arguments)]
    fn ask(
        &self,
        doing: &str,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        length: u32,
        payload: Payload<'_>,
        asked: Asked,
    ) -> (Result<()>, Asked) {
        let patience = if command == Command::Flush { limits::FLUSH_PATIENCE as u32 } else { 1 };
        let (at, cookie) = match self.table.enter(asked, Instant::now() + self.timeout * patience) {
            Ok(entered) => entered,
            Err(broken) => return (Err(self.named(doing, &broken.0)), broken.1),
        };
        let header = Request { flags, command, cookie, offset, length: length.into() }.encode();
        if let Err(error) = self.send(&header, payload, length) {
            self.fail(&error);
        }
        let (outcome, asked) = self.table.wait(at);
        let outcome = match outcome {
            Ok(Answer::Success) => Ok(()),
            Ok(Answer::Error(errno)) => Err(self.said(doing, offset, length, errno)),
            Err(error) => Err(self.named(doing, &error)),
        };
        (outcome, asked)
    }

    fn named(&self, doing: &str, error: &Error) -> Error {
        Error::new(error.class, format!("{}: {doing}: {}", self.name, error.message))
    }

    fn said(&self, doing: &str, offset: u64, len: u32, errno: Errno) -> Error {
        let why = errno.text();
        Error::new(Class::Io, format!("{}: {doing} {offset}+{len}: the server says: {why}", self.name))
    }

    fn fail(&self, error: &Error) {
        self.table.fail(error);
        self.stream.shutdown();
    }

    /// Sends a header and its payload of `len` bytes. An error ends the connection.
    fn send(&self, header: &[u8], payload: Payload<'_>, len: u32) -> Result<()> {
        let _one = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        match payload {
            Payload::Bytes(bytes) => self.send_bytes(header, bytes),
            Payload::File { file, from, unread } => {
                self.send_bytes(header, &[])?;
                self.send_file(file, from, len as usize, unread)
            }
        }
    }

    fn send_bytes(&self, header: &[u8], payload: &[u8]) -> Result<()> {
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let head = &header[sent.min(header.len())..];
            let body = &payload[sent.saturating_sub(header.len())..];
            sent += self.sent(self.stream.send(&[IoSlice::new(head), IoSlice::new(body)]))?;
        }
        Ok(())
    }

    fn send_file(&self, file: BorrowedFd<'_>, from: u64, len: usize, unread: &OnceLock<Error>) -> Result<()> {
        let (mut at, end) = (from, from + len as u64);
        while at < end {
            let left = (end - at) as usize;
            match self.stream.send_file(file, &mut at, left) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_late(&error) => return Err(self.late("sending")),
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    return self.sent(Err(error)).map(drop);
                }
                // The file's fault, or nobody's: the server is told nothing of it but gets what it waits for.
                other => {
                    let why = other.map_or_else(|e| plain(&e), |_| "it ends there".to_owned());
                    let _ = unread.set(Error::new(Class::Io, format!("reading at {at}: {why}")));
                    return self.send_bytes(&vec![0; (end - at) as usize], &[]);
                }
            }
        }
        Ok(())
    }

    /// How many bytes went out; 0 to try again.
    fn sent(&self, outcome: std::io::Result<usize>) -> Result<usize> {
        match outcome {
            Ok(0) => Err(Error::new(Class::Io, "sending: the connection is closed")),
            Ok(some) => Ok(some),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) if is_late(&error) => Err(self.late("sending")),
            Err(error) => {
                let why = self.stream.why(&plain(&error));
                Err(Error::new(Class::Connect, format!("sending: {why}")))
            }
        }
    }

    fn late(&self, doing: &str) -> Error {
        let seconds = self.timeout.as_secs_f64();
        Error::new(Class::Timeout, format!("{doing}: no answer within {seconds} s"))
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Receives replies and hands them to those who wait.
struct Receiver<'s> {
    shared: &'s Shared,
    parser: ReplyParser,
    received: Vec<u8>,
    /// What was received and used already.
    used: usize,
    looked: Instant,
}

impl<'s> Receiver<'s> {
    fn new(shared: &'s Shared, received: Vec<u8>) -> Self {
        let parser = ReplyParser::new(shared.info.structured);
        Self { shared, parser, received, used: 0, looked: Instant::now() }
    }

    /// Receives until something fails; that is the end of the connection.
    fn run(&mut self) -> Error {
        loop {
            if let Err(error) = self.reply() {
                return error;
            }
        }
    }

    /// One reply.
    fn reply(&mut self) -> Result<()> {
        let reply = loop {
            if let Some((consumed, reply)) = self.parser.parse(&self.received[self.used..])? {
                self.used += consumed;
                break reply;
            }
            let missing = self.parser.wanted(&self.received[self.used..]);
            self.more(missing)?;
        };
        let Some(mut taken) = self.shared.table.take(reply.cookie()) else {
            return Err(violation("a reply to a request that is not in flight"));
        };
        let done = self.accept(&mut taken.asked, &reply)?;
        self.shared.table.put_back(taken, done);
        Ok(())
    }

    /// What one reply means for its request: `None` if more follows.
    fn accept(&mut self, asked: &mut Asked, reply: &Reply) -> Result<Option<Answer>> {
        let state = match asked {
            Asked::Plain(assembly) => assembly.accept(reply)?,
            Asked::Read { buf, offset, assembly } => {
                let state = assembly.accept(reply)?;
                // The assembly has checked that the piece lies inside the request.
                let first = *offset;
                let piece = |at: u64, len: u32| (at - first) as usize..(at - first) as usize + len as usize;
                match *reply {
                    Reply::Simple { error: None, .. } => self.payload(buf)?,
                    Reply::Data { offset, len, .. } => self.payload(&mut buf[piece(offset, len)])?,
                    Reply::Hole { offset, len, .. } => buf[piece(offset, len)].fill(0),
                    _ => {}
                }
                state
            }
            Asked::Status(assembly) => assembly.accept(reply)?,
        };
        Ok(match state {
            Assembly::More => None,
            Assembly::Complete => Some(Answer::Success),
            Assembly::Incomplete => Some(Answer::Error(Errno::Io)),
            Assembly::Failed(errno) => Some(Answer::Error(errno)),
        })
    }

    /// Receives until `wanted` unused bytes are here, and what comes with them.
    fn more(&mut self, wanted: usize) -> Result<()> {
        self.received.drain(..self.used);
        self.used = 0;
        let before = self.received.len();
        self.received.resize(before + CHUNK.max(wanted.saturating_sub(before)), 0);
        let mut buffer = std::mem::take(&mut self.received);
        let got = self.some(&mut buffer[before..]);
        buffer.truncate(before + got.as_ref().map_or(0, |got| *got));
        self.received = buffer;
        got.map(drop)
    }

    /// Receives payload straight to where it belongs.
    fn payload(&mut self, buf: &mut [u8]) -> Result<()> {
        let here = (self.received.len() - self.used).min(buf.len());
        buf[..here].copy_from_slice(&self.received[self.used..self.used + here]);
        self.used += here;
        let mut filled = here;
        while filled < buf.len() {
            filled += self.some(&mut buf[filled..])?;
        }
        Ok(())
    }

    fn some(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let got = self.shared.stream.receive(buf);
            let now = Instant::now();
            if now - self.looked >= TICK {
                self.looked = now;
                if self.shared.table.is_late(now) {
                    return Err(self.shared.late("receiving"));
                }
            }
            match got {
                Ok(0) => {
                    let why = self.shared.stream.why("the server closed the connection");
                    return Err(Error::new(Class::Connect, why));
                }
                Ok(got) => return Ok(got),
                Err(error) if error.kind() == ErrorKind::Interrupted || is_late(&error) => {}
                Err(error) => {
                    return Err(Error::new(Class::Connect, format!("receiving: {}", plain(&error))));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "pipelined_tests.rs"]
mod tests;
