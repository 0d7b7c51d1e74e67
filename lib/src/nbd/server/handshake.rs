//! The handshake as a state machine: bytes of the client in, bytes for the client out (`proto.md`, "Fixed
//! newstyle negotiation"). No clock: the caller bounds its time by [`limits::NBD_HANDSHAKE_MS`].

use super::options;
use super::reply::Style;
use crate::base::limits;
use crate::nbd::fields::{Fields, fill};
use crate::nbd::wire::{self, Request, TransmissionFlags, handshake, option, reply};

/// What the handshake tells about one export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes; a multiple of `min_block`, or the last block is shorter.
    pub size: u64,
    /// What the export can do without structured replies; the handshake adds `HAS_FLAGS`, and `SEND_DF` when
    /// structured replies were negotiated, and takes out what contradicts itself.
    pub flags: TransmissionFlags,
    /// For people; may be empty.
    pub description: String,
    /// Power of two, 1 to 65536 ("Size constraints").
    pub min_block: u32,
    /// Power of two, at least 512 and `min_block`.
    pub preferred_block: u32,
    /// Longest payload taken; at least `preferred_block`. Offered up to [`limits::NBD_PAYLOAD`].
    pub max_block: u32,
}

/// The exports of a server, asked during the handshake. Must be cheap: a client that only knocks must not make
/// the server open anything (CVE-2019-14850).
pub trait Exports {
    /// The names that LIST tells.
    fn list(&self) -> Vec<String>;
    /// An export by its name, listed or not; "" is the default export.
    fn find(&self, name: &str) -> Option<ExportInfo>;
    /// All metadata contexts of an export: `base:allocation`, `x-mirror:dirty/far`, ….
    fn contexts(&self, name: &str) -> Vec<String>;
}

/// How far a handshake is after some input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All input was consumed; more is needed.
    More,
    /// The client opened an export. What was not consumed belongs to the transmission phase.
    Transmission(Session),
    /// Send what was written, then begin TLS and go on over it. What was not consumed was sent in the clear by
    /// nobody knows whom: a caller that finds anything closes.
    StartTls,
    /// Send what was written, then close.
    Close,
}

/// What there is of TLS ("TLS support").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// None is offered (NOTLS).
    None,
    /// Nothing else is talked about before it (FORCEDTLS).
    Forced,
    /// It is there.
    Up,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The name that the client asked for.
    pub export: String,
    /// The export; `flags` are those that were advertised.
    pub info: ExportInfo,
    /// READ is answered by structured replies.
    pub structured: bool,
    /// Requests and replies have extended headers; `structured` is set too.
    pub extended: bool,
    /// Id and name of the contexts that `BLOCK_STATUS` must answer, in ascending order of ids.
    pub contexts: Vec<(u32, String)>,
    /// The client asked for the block sizes and so obeys them; others may send up to 32 MiB.
    pub enforce_block: bool,
}

impl Session {
    /// How replies look.
    pub const fn style(&self) -> Style {
        match (self.extended, self.structured) {
            (true, _) => Style::Extended,
            (false, true) => Style::Structured,
            (false, false) => Style::Simple,
        }
    }

    /// Bytes of a request's header.
    pub const fn header_len(&self) -> usize {
        if self.extended { Request::EXTENDED_LEN } else { Request::LEN }
    }

    /// Reads a header of that many bytes; `None` if its magic is wrong, after which nothing can be believed.
    pub fn parse(&self, header: &[u8]) -> Option<Request> {
        if self.extended {
            Request::parse_extended(header.first_chunk()?)
        } else {
            Request::parse(header.first_chunk()?)
        }
    }

    /// The longest payload of one READ or WRITE ("Size constraints").
    pub fn max_payload(&self) -> u32 {
        if self.enforce_block { self.info.max_block.min(limits::NBD_PAYLOAD) } else { limits::NBD_PAYLOAD }
    }
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Four bytes of client flags.
    Flags,
    /// The 16 bytes before an option's data.
    Header,
    /// All data of an option that is understood.
    Data { option: u32, len: u32 },
    /// Data that nobody wants, then the answer.
    Drain { option: u32, left: u32, answer: Answer },
    /// Nothing: the handshake is over.
    Over,
}

/// An answer that needs no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To be worked out from the (empty) data.
    Handle,
    /// This error.
    Error(u32, &'static str),
}

/// A handshake under way. Its buffer never holds more than one option ([`limits::NBD_OPTION_LEN`]).
#[derive(Debug)]
pub struct Handshake {
    state: State,
    tls: Tls,
    buffer: Vec<u8>,
    count: u32,
    drained: u64,
    pub(super) no_zeroes: bool,
    pub(super) structured: bool,
    pub(super) extended: bool,
    /// The export for which contexts were selected, and the selection.
    pub(super) selected: Option<(String, Vec<(u32, String)>)>,
}

impl Handshake {
    /// A new handshake, and the bytes to send first. TLS is refused.
    pub fn new() -> (Self, Vec<u8>) {
        Self::with(Tls::None)
    }

    /// The same with TLS: until it is there every other option is refused, but for ABORT.
    pub fn forced_tls() -> (Self, Vec<u8>) {
        Self::with(Tls::Forced)
    }

    fn with(tls: Tls) -> (Self, Vec<u8>) {
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&wire::MAGIC.to_be_bytes());
        greeting.extend_from_slice(&wire::MAGIC_OPTION.to_be_bytes());
        greeting.extend_from_slice(&(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).to_be_bytes());
        let fresh = Self {
            state: State::Flags,
            tls,
            buffer: Vec::new(),
            count: 0,
            drained: 0,
            no_zeroes: false,
            structured: false,
            extended: false,
            selected: None,
        };
        (fresh, greeting)
    }

    /// Takes what the client sent, in pieces of any size, and appends the answers to `out`, which should hold
    /// only what is not yet sent. Says how many bytes of `input` were taken: all of them, unless the handshake
    /// is over.
    pub fn feed(&mut self, input: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> (usize, Progress) {
        let mut rest = input;
        let progress = loop {
            match self.step(&mut rest, exports, out) {
                Some(Progress::More) => {}
                Some(Progress::StartTls) => break Progress::StartTls,
                Some(end) => {
                    self.state = State::Over;
                    self.buffer = Vec::new();
                    break end;
                }
                None => break Progress::More,
            }
        };
        (input.len() - rest.len(), progress)
    }

    /// One state's work; `None` if input is wanting.
    fn step(&mut self, rest: &mut &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Option<Progress> {
        match self.state {
            State::Flags => {
                fill(&mut self.buffer, 4, rest).then_some(())?;
                Some(self.flags())
            }
            State::Header => {
                fill(&mut self.buffer, 16, rest).then_some(())?;
                Some(self.header(out.len()))
            }
            State::Data { option, len } => {
                fill(&mut self.buffer, len as usize, rest).then_some(())?;
                let data = std::mem::take(&mut self.buffer);
                self.state = State::Header;
                Some(options::answer(self, option, &data, exports, out))
            }
            State::Drain { option, left, answer } => {
                let skipped = rest.len().min(left as usize);
                *rest = &rest[skipped..];
                let left = left - skipped as u32;
                if left > 0 {
                    self.state = State::Drain { option, left, answer };
                    return None;
                }
                self.state = State::Header;
                Some(match answer {
                    Answer::Handle => options::answer(self, option, &[], exports, out),
                    Answer::Error(kind, message) => options::refuse(out, option, kind, message),
                })
            }
            State::Over => Some(Progress::Close),
        }
    }

    /// The client's flags: one that is unknown ends it ("Handshake flags"). Clients that do not say
    /// `C_FIXED_NEWSTYLE` are honoured like the others, as the specification allows.
    fn flags(&mut self) -> Progress {
        let flags = Fields::new(&self.buffer).u32().unwrap_or(u32::MAX);
        self.buffer.clear();
        if flags & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
            return Progress::Close;
        }
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        self.state = State::Header;
        Progress::More
    }

    /// An option's header. Decides what happens to its data before any of it is read.
    fn header(&mut self, unsent: usize) -> Progress {
        let mut fields = Fields::new(&self.buffer);
        let (Some(magic), Some(option), Some(len)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return Progress::Close;
        };
        self.buffer.clear();
        self.count += 1;
        if magic != wire::MAGIC_OPTION || self.count > limits::NBD_OPTIONS || unsent > limits::NBD_OPTION_OUT
        {
            return Progress::Close;
        }
        let drain = |answer| State::Drain { option, left: len, answer };
        self.state = match option {
            option::STARTTLS if self.tls == Tls::Forced && len == 0 => drain(Answer::Handle),
            option::STARTTLS if self.tls == Tls::Forced => {
                drain(Answer::Error(reply::ERR_INVALID, "the option takes no data"))
            }
            option::STARTTLS if self.tls == Tls::Up => {
                drain(Answer::Error(reply::ERR_INVALID, "TLS is there already"))
            }
            // It cannot be refused but by closing.
            option::EXPORT_NAME if self.tls == Tls::Forced => return Progress::Close,
            _ if self.tls == Tls::Forced && option != option::ABORT => {
                drain(Answer::Error(reply::ERR_TLS_REQD, "this server talks over TLS only"))
            }
            // It cannot be refused but by closing; with extended headers it MUST NOT be sent.
            option::EXPORT_NAME if len as usize > limits::NBD_STRING || self.extended => {
                return Progress::Close;
            }
            option::EXPORT_NAME => State::Data { option, len },
            option::INFO | option::GO | option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                if len <= limits::NBD_OPTION_LEN {
                    State::Data { option, len }
                } else {
                    if option == option::SET_META_CONTEXT {
                        // A selection that fails is gone nevertheless.
                        self.selected = None;
                    }
                    drain(Answer::Error(reply::ERR_TOO_BIG, "the option's data is too long"))
                }
            }
            option::ABORT => drain(Answer::Handle),
            option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS if len == 0 => {
                drain(Answer::Handle)
            }
            option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => {
                drain(Answer::Error(reply::ERR_INVALID, "the option takes no data"))
            }
            option::STARTTLS => drain(Answer::Error(reply::ERR_UNSUP, "no TLS on this server")),
            _ => drain(Answer::Error(reply::ERR_UNSUP, "the option is not known")),
        };
        if matches!(self.state, State::Drain { .. }) {
            self.drained += u64::from(len);
            if self.drained > limits::NBD_OPTION_DRAIN {
                return Progress::Close;
            }
        }
        Progress::More
    }

    /// TLS is agreed upon: what was said before it may have been said by somebody else, and is forgotten
    /// (CVE-2021-3716). Only the counts of options and of their bytes go on.
    pub(super) fn secure(&mut self) {
        let (count, drained, no_zeroes) = (self.count, self.drained, self.no_zeroes);
        let (fresh, _) = Self::with(Tls::Up);
        // The client's flags are sent once, before TLS.
        *self = Self { state: State::Header, count, drained, no_zeroes, ..fresh };
    }

    /// Bytes that the handshake holds in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }
}
