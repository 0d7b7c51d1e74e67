//! The client's handshake as a state machine: bytes of the server in, bytes for the server out (`proto.md`,
//! "Handshake phase"). No clock: the caller bounds its time by [`limits::NBD_HANDSHAKE_MS`].

use super::negotiate::{Negotiation, Step};
use crate::base::{Class, Error, Result, limits, units};
use crate::nbd::fields::{Fields, fill};
use crate::nbd::text;
use crate::nbd::wire::{self, TransmissionFlags, handshake};

/// What the client wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientOptions {
    /// The export; "" is the default one.
    pub export: String,
    /// Metadata contexts for `BLOCK_STATUS`; those that the server lacks are left out. Need `structured`.
    pub contexts: Vec<String>,
    /// Ask for structured replies; without them if the server lacks them.
    pub structured: bool,
}

/// What the server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Bytes, at most [`limits::VOLUME_SIZE`].
    pub size: u64,
    /// What the export can do.
    pub flags: TransmissionFlags,
    /// READ is answered by structured replies.
    pub structured: bool,
    /// Requests and replies have extended headers; `structured` is set too.
    pub extended: bool,
    /// Id and name of the contexts that `BLOCK_STATUS` will answer.
    pub contexts: Vec<(u32, String)>,
    /// All offsets and lengths are multiples of this; 1 if not told.
    pub min_block: u32,
    /// What is fast; 4096 if not told.
    pub preferred_block: u32,
    /// Longest payload of a READ or WRITE: 32 MiB if not told, never more.
    pub max_payload: u32,
}

/// How far the handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProgress {
    /// All input was consumed; more is needed.
    More,
    /// The server agrees to TLS: it begins now, and then [`ClientHandshake::secured`]. What was not consumed was sent
    /// in the clear by nobody knows whom: a caller that finds anything gives up.
    StartTls,
    /// What was not consumed belongs to the transmission phase.
    Ready(ServerInfo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The two magics.
    Magic,
    /// Handshake flags of a newstyle server.
    Flags,
    /// Size, flags and zeroes of an oldstyle server.
    Old,
    /// The header of an option reply.
    Header,
    /// The data of an option reply.
    Data { option: u32, kind: u32, len: u32 },
    /// The headerless answer to `EXPORT_NAME`.
    Export { len: usize },
    /// Nothing: it is over.
    Over,
}

/// How one state's work ended.
enum Turn {
    /// Input is wanting.
    Wait,
    /// The next state can begin.
    Again,
    /// TLS begins.
    StartTls,
    /// The export is open.
    Ready(ServerInfo),
}

/// A handshake under way. The server speaks first. Its buffer never holds more than one option reply
/// ([`limits::NBD_OPTION_LEN`]).
#[derive(Debug)]
pub struct ClientHandshake {
    state: State,
    buffer: Vec<u8>,
    /// Bytes that came so far.
    heard: u64,
    no_zeroes: bool,
    /// Nothing is asked for before TLS is there.
    tls: bool,
    negotiation: Negotiation,
}

/// A failure of the handshake, on one line.
pub(super) fn refused(what: impl std::fmt::Display) -> Error {
    Error::new(Class::Connect, format!("NBD handshake: {what}"))
}

impl ClientHandshake {
    /// A new handshake.
    pub fn new(options: ClientOptions) -> Self {
        Self {
            state: State::Magic,
            buffer: Vec::new(),
            heard: 0,
            no_zeroes: false,
            tls: false,
            negotiation: Negotiation::new(options),
        }
    }

    /// The same, asking for extended headers first; without them if the server lacks them.
    pub fn extended(options: ClientOptions) -> Self {
        let mut shake = Self::new(options);
        shake.negotiation.try_extended = true;
        shake
    }

    /// The same over TLS: that is asked for first, and a server that does not agree is given up
    /// (CVE-2019-14842).
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// TLS is there: goes on with the first option, over it.
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        self.negotiation.start(out);
    }

    /// Takes what the server sent, in pieces of any size, and appends what is to be sent to `out`. Says how
    /// many bytes of `input` were taken: all of them, unless it is ready. An error (class `Connect`) is final;
    /// what is in `out` may still be sent, then the connection is closed.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, ClientProgress)> {
        self.heard += input.len() as u64;
        if self.heard > limits::NBD_HEARD {
            self.end();
            return Err(refused("the server's replies have no end"));
        }
        let mut rest = input;
        loop {
            match self.step(&mut rest, out) {
                Ok(Turn::Wait) => return Ok((input.len() - rest.len(), ClientProgress::More)),
                Ok(Turn::Again) => {}
                Ok(Turn::StartTls) => return Ok((input.len() - rest.len(), ClientProgress::StartTls)),
                Ok(Turn::Ready(info)) => {
                    self.end();
                    return Ok((input.len() - rest.len(), ClientProgress::Ready(info)));
                }
                Err(error) => {
                    self.end();
                    return Err(error);
                }
            }
        }
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.buffer = Vec::new();
    }

    /// One state's work.
    fn step(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Turn> {
        let need = match self.state {
            State::Magic => 16,
            State::Flags => 2,
            State::Old => 8 + 4 + wire::ZEROES,
            State::Header => 20,
            State::Data { len, .. } => len as usize,
            State::Export { len } => len,
            State::Over => return Err(refused("it is over")),
        };
        if !fill(&mut self.buffer, need, rest) {
            return Ok(Turn::Wait);
        }
        let data = std::mem::take(&mut self.buffer);
        let mut fields = Fields::new(&data);
        let short = || refused("a field is missing");
        match self.state {
            State::Magic => self.magic(&mut fields)?,
            State::Flags => {
                let flags = fields.u16().ok_or_else(short)?;
                self.flags(flags, out)?;
            }
            State::Header => self.header(&mut fields)?,
            State::Data { option, kind, .. } => {
                self.state = State::Header;
                match self.negotiation.reply(option, kind, &data, out)? {
                    Step::Wait => {}
                    Step::StartTls => return Ok(Turn::StartTls),
                    Step::ExportName => self.export_name(out),
                    Step::Ready(info) => return Ok(Turn::Ready(info)),
                }
            }
            State::Old | State::Export { .. } => {
                let size = fields.u64().ok_or_else(short)?;
                if self.state == State::Old {
                    // 32 bits of flags; the upper half are handshake flags, none of them defined.
                    fields.u16().ok_or_else(short)?;
                }
                let flags = TransmissionFlags(fields.u16().ok_or_else(short)?);
                return self.negotiation.info(size, flags).map(Turn::Ready);
            }
            State::Over => {}
        }
        Ok(Turn::Again)
    }

    fn magic(&mut self, fields: &mut Fields<'_>) -> Result<()> {
        if fields.u64() != Some(wire::MAGIC) {
            return Err(refused("this is not an NBD server (wrong magic)"));
        }
        self.state = match fields.u64() {
            Some(wire::MAGIC_OPTION) => State::Flags,
            Some(wire::MAGIC_OLDSTYLE) if self.tls => {
                return Err(refused("TLS is wanted, and an oldstyle server has none"));
            }
            Some(wire::MAGIC_OLDSTYLE) if self.negotiation.options.export.is_empty() => State::Old,
            Some(wire::MAGIC_OLDSTYLE) => {
                // It has one export without a name; a wrong disk would be worse than none.
                return Err(refused(format_args!(
                    "export '{}' asked for, but an oldstyle server has no names; ask for the default export",
                    text::shown(&self.negotiation.options.export)
                )));
            }
            _ => return Err(refused("the server speaks neither newstyle nor oldstyle (wrong magic)")),
        };
        Ok(())
    }

    /// Unknown flags of the server are ignored; only those that it offered are returned.
    fn flags(&mut self, offered: u16, out: &mut Vec<u8>) -> Result<()> {
        if self.tls && offered & handshake::FIXED_NEWSTYLE == 0 {
            return Err(refused("TLS is wanted, and a server without fixed newstyle negotiation has none"));
        }
        let flags = offered & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        self.no_zeroes = flags & handshake::NO_ZEROES != 0;
        out.extend_from_slice(&u32::from(flags).to_be_bytes());
        if flags & handshake::FIXED_NEWSTYLE == 0 {
            self.export_name(out);
        } else {
            self.state = State::Header;
            if self.tls {
                self.negotiation.start_tls(out);
            } else {
                self.negotiation.start(out);
            }
        }
        Ok(())
    }

    fn export_name(&mut self, out: &mut Vec<u8>) {
        wire::put_option(out, wire::option::EXPORT_NAME, self.negotiation.options.export.as_bytes());
        self.state = State::Export { len: 8 + 2 + if self.no_zeroes { 0 } else { wire::ZEROES } };
    }

    fn header(&mut self, fields: &mut Fields<'_>) -> Result<()> {
        let (Some(magic), Some(option), Some(kind), Some(len)) =
            (fields.u64(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(refused("a field is missing"));
        };
        if magic != wire::MAGIC_OPTION_REPLY {
            return Err(refused("wrong magic of an option reply"));
        }
        self.negotiation.expects(option)?;
        if len > limits::NBD_OPTION_LEN {
            return Err(refused(format_args!(
                "an option reply of {len} bytes, more than {}",
                limits::NBD_OPTION_LEN
            )));
        }
        self.state = State::Data { option, kind, len };
        Ok(())
    }

    /// Bytes that the handshake holds in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Refuses a size that no volume has (`nbd.md` case C7).
pub(super) fn check_size(size: u64) -> Result<u64> {
    if size > limits::VOLUME_SIZE {
        return Err(refused(format_args!(
            "export size {size} bytes ({}) is more than the largest volume of {} bytes ({})",
            units::show_size(size),
            limits::VOLUME_SIZE,
            units::show_size(limits::VOLUME_SIZE)
        )));
    }
    Ok(size)
}
