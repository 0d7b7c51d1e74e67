//! A client for command lines: one request at a time, every wait bounded. The only part of this room that
//! does I/O.

pub(super) mod stream;

use super::assembly::{Assembly, PlainAssembly, ReadAssembly};
use super::extents::StatusAssembly;
use super::handshake::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
use super::replies::{Reply, ReplyParser};
use super::secure::Secure;
use super::violation;
use crate::base::{ByteRange, Class, Error, Result};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::{Command, CommandFlags, Errno, Request, TransmissionFlags};
use std::time::Duration;
use stream::Wire;

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

impl Blocking {
    /// Connects and opens the export. `deadline` bounds connecting and handshake together (not the resolving of
    /// a name, for which the system has its own limit), and later each request of its own. Errors: `Connect`,
    /// `Timeout`.
    pub fn connect(uri: &NbdUri, options: ClientOptions, deadline: Duration) -> Result<Self> {
        Self::connect_over(uri, options, None, deadline)
    }

    /// The same; a URI that wants TLS needs somebody who has it.
    pub fn connect_over(
        uri: &NbdUri,
        options: ClientOptions,
        tls: Option<&dyn Secure>,
        deadline: Duration,
    ) -> Result<Self> {
        if uri.tls.is_some() && tls.is_none() {
            return Err(Error::new(Class::Connect, format!("{uri}: connecting: TLS is not possible here")));
        }
        let mut wire = Wire::open(&uri.address, uri.to_string(), deadline)?;
        let info = negotiate(&mut wire, options, tls.filter(|_| uri.tls.is_some()))?;
        let parser = ReplyParser::new(info.structured);
        Ok(Self { wire, info, parser, cookie: 0, broken: false })
    }

    /// The open connection, with nothing in flight: its stream, what was received already, its name, what the
    /// server offers.
    pub(super) fn into_parts(self) -> (stream::Tunnelled, Vec<u8>, String, ServerInfo) {
        let (stream, received, name) = self.wire.into_parts();
        (stream, received, name, self.info)
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
        let header = Request { flags, command, cookie: self.cookie, offset, length: length.into() }.encode();
        self.wire.begin();
        let sent = self.wire.send(&header).and_then(|()| self.wire.send(payload));
        sent.map_err(|error| {
            self.broken = true;
            self.error(error.class, doing, error.message)
        })
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
        let mut assembly = StatusAssembly::whole(id, &self.info, length);
        loop {
            let reply = self.reply()?;
            match assembly.accept(&reply)? {
                Assembly::More => {}
                Assembly::Complete => return Ok(Ok(assembly.into_compact())),
                Assembly::Incomplete => return Ok(Err(Errno::Io)),
                Assembly::Failed(errno) => return Ok(Err(errno)),
            }
        }
    }
}

fn negotiate(wire: &mut Wire, options: ClientOptions, tls: Option<&dyn Secure>) -> Result<ServerInfo> {
    let mut shake = ClientHandshake::new(options);
    if tls.is_some() {
        shake = shake.over_tls();
    }
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
            ClientProgress::StartTls => {
                let begun = tls.map_or(Ok(()), |tls| wire.secure(tls));
                begun.map_err(|e| connect_class(&wire.name, e))?;
                shake.secured(&mut out);
                wire.send(&out).map_err(|e| connect_class(&wire.name, e))?;
                out.clear();
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
