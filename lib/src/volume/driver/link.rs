//! A connection to a remote leg that is up: requests are pipelined under cookies that are never used again, on
//! this connection or a later one, replies come in any order and also while requests are still being sent. What a read brings is received into
//! the buffer from which it is sent on.

use super::IoHasher;
use super::buffers::{Chunk, Pool, Slice, ZERO_LEN};
use super::exports::ALLOCATION;
use super::local::EXTENTS;
use super::output::{Output, Sent};
use super::slab::Slab;
use crate::base::{ByteRange, Class, Error, Result};
use crate::device::Extent;
use crate::nbd::client::{
    Assembly, PlainAssembly, ReadAssembly, Reply, ReplyParser, ServerInfo, StatusAssembly,
};
use crate::nbd::{Command, CommandFlags, Errno, Request, TransmissionFlags};
use crate::volume::core::{Fault, IoId};
use rustix::event::epoll::EventFlags;
use rustix::io::{Errno as OsError, readv};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes received at a time besides payloads: many small replies.
const BUFFER: usize = 64 << 10;
/// After a payload of this size only the next header is received, so that the payload behind it lands in its
/// own buffer.
const LEAN: usize = 32 << 10;
/// Requests under way of one operation that had to be split.
const PIECES: u32 = 8;
/// Longest `WRITE_ZEROES` of one request: what every server takes, and still 32 bits.
const ZEROES_MAX: u64 = 1 << 30;

/// Longest `BLOCK_STATUS`: a client that wants more asks again, and no server searches long for one answer.
const EXTENTS_MAX: u64 = 1 << 30;

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    pool: Pool,
    out: Output,
    blocked: bool,
    interest: EventFlags,
    flags: TransmissionFlags,
    structured: bool,
    extended: bool,
    max_payload: u64,
    min_block: u64,
    /// The id of `base:allocation`, where it was negotiated.
    allocation: Option<u32>,
    parser: ReplyParser,
    ops: Slab<Op>,
    /// Requests that were sent and not answered, by cookie. One that stays unanswered keeps nothing of others.
    asked: HashMap<u64, Asked, BuildHasherDefault<IoHasher>>,
    next_cookie: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    filling: Option<Filling>,
    lean: bool,
    received: u64,
    in_flight_bytes: u64,
}

/// One action of the core.
#[derive(Debug)]
struct Op {
    io: IoId,
    what: What,
    range: ByteRange,
    /// Where the part begins that has not been asked for.
    next: u64,
    /// Requests under way.
    pieces: u32,
    fault: Option<Errno>,
}

#[derive(Debug)]
enum What {
    Read(Arc<Chunk>),
    Write(Slice, CommandFlags),
    Zero(CommandFlags),
    /// Zeroes for a server that has none.
    ZeroByWriting(CommandFlags),
    Flush,
    /// `BLOCK_STATUS`, and what it brought.
    Extents(Vec<(u64, u64)>),
}

impl What {
    /// Bytes in flight; a question has none.
    const fn weight(&self, range: ByteRange) -> u64 {
        if matches!(self, Self::Extents(_)) { 0 } else { range.len }
    }
}

/// One request on the wire.
#[derive(Debug)]
struct Asked {
    op: u64,
    /// As it was asked.
    offset: u64,
    expect: Expect,
}

#[derive(Debug)]
enum Expect {
    Plain(PlainAssembly),
    Read { assembly: ReadAssembly, len: u32, at: usize },
    Status(StatusAssembly),
}

/// Payload that is being received into its buffer.
#[derive(Debug)]
struct Filling {
    op: u64,
    at: usize,
    left: usize,
    /// The request it belongs to ends with it.
    ends: Option<Assembly>,
}

/// An operation that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) io: IoId,
    pub(super) result: std::result::Result<(), Fault>,
    /// What a read brought.
    pub(super) data: Option<Slice>,
    /// What a question about holes brought.
    pub(super) extents: Option<Vec<Extent>>,
}

/// The io of replies that nobody waits for; the core counts it.
pub(super) const STRAY: IoId = IoId(u64::MAX);

impl Link {
    /// A link over a negotiated connection; `rest` came behind the handshake. Cookies below `next_cookie` may be
    /// known to the server from earlier connections.
    pub(super) fn new(fd: OwnedFd, info: &ServerInfo, rest: &[u8], pool: &Pool, next_cookie: u64) -> Self {
        let mut buffer = vec![0; BUFFER];
        let end = rest.len().min(BUFFER);
        buffer[..end].copy_from_slice(&rest[..end]);
        Self {
            fd,
            pool: pool.clone(),
            out: Output::default(),
            blocked: false,
            interest: EventFlags::empty(),
            flags: info.flags,
            structured: info.structured,
            extended: info.extended,
            max_payload: u64::from(info.max_payload.max(1)),
            min_block: u64::from(info.min_block.max(1)),
            allocation: info.contexts.iter().find(|(_, name)| name == ALLOCATION).map(|(id, _)| *id),
            parser: ReplyParser::of(info),
            ops: Slab::default(),
            asked: HashMap::default(),
            next_cookie,
            buffer,
            start: 0,
            end,
            filling: None,
            lean: false,
            received: 0,
            in_flight_bytes: 0,
        }
    }

    /// To wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes over the network so far.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// See above.
    pub(super) const fn sent(&self) -> u64 {
        self.out.sent()
    }

    /// The first cookie that was not used.
    pub(super) const fn next_cookie(&self) -> u64 {
        self.next_cookie
    }

    /// Bytes of operations not ended, and bytes that wait to be sent.
    pub(super) const fn load(&self) -> (u64, u64) {
        (self.in_flight_bytes, self.out.queued() - self.out.sent())
    }

    /// Asks for bytes.
    pub(super) fn read(&mut self, io: IoId, range: ByteRange) {
        let chunk = self.pool.take(range.len as usize);
        self.begin(io, range, What::Read(chunk));
    }

    /// Sends bytes.
    pub(super) fn write(&mut self, io: IoId, range: ByteRange, data: Slice, fua: bool) {
        self.begin(io, range, What::Write(data, fua_flag(fua)));
    }

    /// Asks for zeroes. `false`: the server cannot do it fast, nothing was sent.
    pub(super) fn zero(&mut self, io: IoId, range: ByteRange, no_hole: bool, fast: bool, fua: bool) -> bool {
        let mut flags = fua_flag(fua);
        let offered = self.flags.has(TransmissionFlags::SEND_WRITE_ZEROES);
        if fast && !(offered && self.flags.has(TransmissionFlags::SEND_FAST_ZERO)) {
            return false;
        }
        if !offered {
            self.begin(io, range, What::ZeroByWriting(flags));
            return true;
        }
        if no_hole {
            flags = flags.with(CommandFlags::NO_HOLE);
        }
        if fast {
            flags = flags.with(CommandFlags::FAST_ZERO);
        }
        self.begin(io, range, What::Zero(flags));
        true
    }

    /// Asks for everything answered so far to be made durable.
    pub(super) fn flush_leg(&mut self, io: IoId) {
        self.begin(io, ByteRange::default(), What::Flush);
    }

    /// Asks which parts of a range are holes; the server may answer for its beginning only.
    pub(super) fn extents(&mut self, io: IoId, range: ByteRange) {
        let len = range.len.min(EXTENTS_MAX);
        self.begin(io, ByteRange { len, ..range }, What::Extents(Vec::new()));
    }

    /// Whether a question about holes is not answered.
    pub(super) fn asks_for_holes(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked.expect, Expect::Status(_)))
    }

    /// The clean end, when nothing is under way.
    pub(super) fn say_goodbye(&mut self) {
        self.ask(Command::Disc, CommandFlags::NONE, ByteRange::default());
        self.out.flush(self.fd.as_fd());
    }

    fn begin(&mut self, io: IoId, range: ByteRange, what: What) {
        self.in_flight_bytes += what.weight(range);
        let op = Op { io, what, range, next: range.offset, pieces: 0, fault: None };
        let key = self.ops.insert(op);
        self.go_on(key);
    }

    /// Asks for what is left of an operation, as far as it may.
    fn go_on(&mut self, key: u64) {
        loop {
            let Some(op) = self.ops.get_mut(key) else { return };
            let flush = matches!(op.what, What::Flush);
            let left = op.range.end() - op.next;
            if op.pieces >= PIECES || op.fault.is_some() || (left == 0 && (!flush || op.pieces > 0)) {
                return;
            }
            let most = match op.what {
                What::Zero(_) => ZEROES_MAX,
                What::Extents(_) => EXTENTS_MAX,
                What::ZeroByWriting(_) => self.max_payload.min(ZERO_LEN as u64),
                _ => self.max_payload,
            };
            let most = (most / self.min_block * self.min_block).max(self.min_block);
            let range = ByteRange { offset: op.next, len: left.min(most) };
            op.next += range.len;
            op.pieces += 1;
            let at = (range.offset - op.range.offset) as usize;
            let mut expect = Expect::Plain(PlainAssembly::default());
            let mut payload = None;
            let (command, flags) = match &op.what {
                What::Read(_) => {
                    let len = range.len as u32;
                    let assembly = ReadAssembly::new(self.structured, range.offset, len);
                    expect = Expect::Read { assembly, len, at };
                    (Command::Read, CommandFlags::NONE)
                }
                What::Write(data, flags) => {
                    payload = Some(data.part(at..at + range.len as usize));
                    (Command::Write, *flags)
                }
                What::Zero(flags) => (Command::WriteZeroes, *flags),
                What::ZeroByWriting(flags) => {
                    payload = Some(self.pool.zeroes(range.len as usize));
                    (Command::Write, *flags)
                }
                What::Flush => (Command::Flush, CommandFlags::NONE),
                What::Extents(_) => {
                    let context = self.allocation.unwrap_or_default();
                    expect = Expect::Status(StatusAssembly::new(context, Vec::new(), range.len, EXTENTS));
                    (Command::BlockStatus, CommandFlags::NONE)
                }
            };
            let cookie = self.ask(command, flags, range);
            self.asked.insert(cookie, Asked { op: key, offset: range.offset, expect });
            if let Some(payload) = payload {
                self.out.data(payload);
            }
        }
    }

    fn ask(&mut self, command: Command, flags: CommandFlags, range: ByteRange) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut request = Request { flags, command, cookie, offset: range.offset, length: range.len };
        if self.extended {
            if command == Command::Write {
                request.flags = flags.with(CommandFlags::PAYLOAD_LEN);
            }
            self.out.head(|out| out.extend_from_slice(&request.encode_extended()));
        } else {
            self.out.head(|out| out.extend_from_slice(&request.encode()));
        }
        cookie
    }

    /// Sends what waits; `false`: the connection is lost.
    pub(super) fn flush(&mut self) -> bool {
        let sent = self.out.flush(self.fd.as_fd());
        self.blocked = sent == Sent::Blocked;
        sent != Sent::Broken
    }

    /// What epoll should wait for, if that is not what it was told last.
    pub(super) fn new_interest(&mut self) -> Option<EventFlags> {
        let mut wanted = EventFlags::IN;
        wanted.set(EventFlags::OUT, self.blocked);
        let changed = wanted != self.interest;
        self.interest = wanted;
        changed.then_some(wanted)
    }

    /// One receive, and what ended with it. An error: the connection is lost, or must be given up. Says whether
    /// more may be there already.
    pub(super) fn receive(&mut self, ended: &mut Vec<Ended>) -> Result<bool> {
        let n = match self.receive_once() {
            Ok(0) => return Err(lost("the server closed the connection")),
            Ok(n) => n,
            Err(OsError::AGAIN | OsError::INTR) => return Ok(false),
            Err(e) => return Err(Error::os(Class::Connect, "server", "receiving", e)),
        };
        self.received += n as u64;
        self.parse(ended)?;
        Ok(self.filling.is_some())
    }

    fn receive_once(&mut self) -> std::result::Result<usize, OsError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < BUFFER / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = self.parser.wanted(&self.buffer[self.start..self.end]);
        if self.buffer.len() < self.start + wanted {
            self.buffer.resize(self.start + wanted, 0);
        }
        // The header, and the offset of a data chunk.
        let header = wanted.max(match (self.extended, self.structured) {
            (true, _) => 40,
            (false, true) => 28,
            (false, false) => 16,
        });
        let until = if self.lean { (self.start + header).max(self.end + 1) } else { self.buffer.len() };
        let until = until.min(self.buffer.len());
        let buffer = &mut self.buffer[self.end..until];
        let Some(filling) = &mut self.filling else {
            let n = rustix::io::read(&self.fd, buffer)?;
            self.end += n;
            return Ok(n);
        };
        let op = self.ops.get_mut(filling.op);
        let Some(Op { what: What::Read(chunk), .. }) = op else { return Ok(0) };
        let Some(bytes) = Chunk::alone(chunk) else { return Ok(0) };
        let place = &mut bytes[filling.at..filling.at + filling.left];
        let n = readv(&self.fd, &mut [IoSliceMut::new(place), IoSliceMut::new(buffer)])?;
        let of_payload = n.min(filling.left);
        filling.at += of_payload;
        filling.left -= of_payload;
        self.end += n - of_payload;
        Ok(n)
    }

    fn parse(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
        loop {
            if let Some(filling) = self.filling.take_if(|f| f.left == 0) {
                if let Some(assembly) = filling.ends {
                    self.answered(filling.op, assembly, ended);
                }
            } else if self.filling.is_some() {
                return Ok(());
            }
            let Some((taken, reply)) = self.parser.parse(&self.buffer[self.start..self.end])? else {
                return Ok(());
            };
            self.start += taken;
            self.reply(&reply, ended)?;
        }
    }

    fn reply(&mut self, reply: &Reply, ended: &mut Vec<Ended>) -> Result<()> {
        let Some(asked) = self.asked.get_mut(&reply.cookie()) else {
            if matches!(reply, Reply::Data { .. }) {
                return Err(lost("the server answered a request that was not made"));
            }
            ended.push(Ended { io: STRAY, result: Ok(()), data: None, extents: None });
            return Ok(());
        };
        if self.parser.echo().is_some_and(|echo| echo != asked.offset) {
            return Err(lost("the server answered with another offset than it was asked"));
        }
        let op = asked.op;
        let (assembly, payload) = match &mut asked.expect {
            Expect::Plain(plain) => (plain.accept(reply)?, None),
            Expect::Status(status) => {
                let state = status.accept(reply)?;
                if state == Assembly::Complete
                    && let Some(Op { what: What::Extents(found), .. }) = self.ops.get_mut(op)
                {
                    *found = status.clone().into_extents();
                }
                (state, None)
            }
            Expect::Read { assembly, len, at } => {
                let start = |offset: u64, at: usize, first: u64| at + (offset - first) as usize;
                let first = self.ops.get(op).map_or(0, |o| o.range.offset + *at as u64);
                let state = assembly.accept(reply)?;
                let payload = match reply {
                    Reply::Simple { error: None, .. } => Some((*at, *len as usize, false)),
                    Reply::Data { offset, len, .. } => {
                        Some((start(*offset, *at, first), *len as usize, false))
                    }
                    Reply::Hole { offset, len, .. } => {
                        Some((start(*offset, *at, first), *len as usize, true))
                    }
                    _ => None,
                };
                (state, payload)
            }
        };
        let over = assembly != Assembly::More;
        if over {
            self.asked.remove(&reply.cookie());
        }
        match payload {
            Some((at, len, hole)) => self.take_payload(op, at, len, hole, over.then_some(assembly), ended),
            None if over => self.answered(op, assembly, ended),
            None => {}
        }
        Ok(())
    }

    /// Payload behind the header that was just parsed, or zeroes in its place.
    fn take_payload(
        &mut self,
        op: u64,
        at: usize,
        len: usize,
        hole: bool,
        ends: Option<Assembly>,
        ended: &mut Vec<Ended>,
    ) {
        if let Some(Op { what: What::Read(chunk), .. }) = self.ops.get_mut(op)
            && let Some(bytes) = Chunk::alone(chunk)
        {
            let place = &mut bytes[at..at + len];
            let there = if hole { len } else { len.min(self.end - self.start) };
            if hole {
                place.fill(0);
            } else {
                place[..there].copy_from_slice(&self.buffer[self.start..self.start + there]);
                self.start += there;
                self.lean = len >= LEAN;
            }
            if there < len {
                self.filling = Some(Filling { op, at: at + there, left: len - there, ends });
                return;
            }
        }
        if let Some(assembly) = ends {
            self.answered(op, assembly, ended);
        }
    }

    /// One request of an operation has been answered in full.
    fn answered(&mut self, key: u64, assembly: Assembly, ended: &mut Vec<Ended>) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.pieces -= 1;
        match assembly {
            Assembly::Failed(errno) => drop(op.fault.get_or_insert(errno)),
            Assembly::Incomplete => drop(op.fault.get_or_insert(Errno::Io)),
            Assembly::More | Assembly::Complete => {}
        }
        let over = op.next == op.range.end() || op.fault.is_some();
        if !over {
            return self.go_on(key);
        }
        if op.pieces > 0 {
            return;
        }
        let Some(op) = self.ops.remove(key) else { return };
        self.in_flight_bytes -= op.what.weight(op.range);
        let result = op.fault.map_or(Ok(()), |errno| Err(fault(errno)));
        let mut extents = None;
        let data = match op.what {
            What::Extents(found) if result.is_ok() => {
                extents = Some(found.into_iter().map(extent).collect());
                None
            }
            What::Read(chunk) if result.is_ok() => Some(Chunk::into_slice(chunk, op.range.len as usize)),
            _ => None,
        };
        ended.push(Ended { io: op.io, result, data, extents });
    }
}

/// `NBD_STATE_HOLE` and `NBD_STATE_ZERO` together: what only one of them says is not what we call a hole. Other bits are
/// other people's.
fn extent((len, flags): (u64, u64)) -> Extent {
    Extent { len, hole: flags & 3 == 3 }
}

const fn fua_flag(fua: bool) -> CommandFlags {
    if fua { CommandFlags::FUA } else { CommandFlags::NONE }
}

fn lost(what: &str) -> Error {
    Error::new(Class::Connect, what)
}

/// A server's error in the core's words.
const fn fault(errno: Errno) -> Fault {
    match errno {
        Errno::NoSpc => Fault::NoSpace,
        Errno::NotSup => Fault::NotSupported,
        Errno::Shutdown => Fault::Shutdown,
        Errno::Inval | Errno::Overflow => Fault::Invalid,
        Errno::Io | Errno::Perm | Errno::NoMem => Fault::Io,
    }
}
