//! What the frames mean. Everything foreign is checked here, before anybody acts on it.

use super::wire::{Head, broken};
use crate::base::{ByteRange, Class, Error, Result, limits};
use crate::device::fields::{get_u32, get_u64};

/// A BLAKE3 digest.
pub type Digest = [u8; 32];
/// Smallest piece whose digest may be asked for: below it digests are no less than what they stand for.
pub const STEP_MIN: u64 = 4096;

/// Kinds of frames. Requests are even, what answers them is odd.
mod kind {
    pub const PING: u8 = 0;
    pub const OPEN: u8 = 2;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 6;
    pub const WRITE: u8 = 8;
    pub const ZERO: u8 = 10;
    pub const FLUSH: u8 = 12;
    pub const EXTENTS: u8 = 14;
    pub const DIGESTS: u8 = 16;
    pub const APPLY: u8 = 32;
    pub const PUSH: u8 = 34;
    pub const FINISH: u8 = 36;
    pub const SCAN: u8 = 38;
    pub const NODE: u8 = 40;
    pub const ROUND: u8 = 42;

    pub const DONE: u8 = 1;
    pub const OPENED: u8 = 3;
    pub const DATA: u8 = 5;
    pub const ZEROES: u8 = 7;
    pub const EXTENT_LIST: u8 = 9;
    pub const DIGEST_LIST: u8 = 11;
    pub const BYTES: u8 = 13;
    pub const ERROR: u8 = 15;
    pub const DEVICE: u8 = 17;
}

/// The frame that says only that a side lives. It has no answer.
pub const PING: Head = Head { kind: kind::PING, object: 0, id: 0, offset: 0, extent: 0 };

const OPEN_WRITE: u8 = 1;
const OPEN_MOUNTED: u8 = 2;
const OPEN_LIVE: u8 = 4;
const ZERO_HOLES: u8 = 1;
const ZERO_FAST: u8 = 2;
const CALL_PRIVILEGED: u8 = 1;
const CALL_ATIME: u8 = 2;
const FACT_READ_ONLY: u8 = 1;
const FACT_LIVE: u8 = 2;
const FACT_FLUSHES: u8 = 4;
const FACT_ZEROES: u8 = 8;
const FACT_TELLS_ZEROES: u8 = 16;
const FACT_IN_USE: u8 = 32;
const FACTS: u8 = 63;

/// A request about a tree of files: what its path is, and where the standby there remembers its round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The root of the tree on the far side.
    pub root: Vec<u8>,
    /// The directory of the standby; empty for the usual one.
    pub log: Vec<u8>,
    /// Device nodes, set-uid, `trusted.*` and `security.*` are meant too.
    pub privileged: bool,
    /// Times of last access are meant too.
    pub atime: bool,
}

/// What is true of a device over there, as of opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Bytes.
    pub size: u64,
    /// Every write will be refused.
    pub read_only: bool,
    /// Somebody else may write to it.
    pub live: bool,
    /// A flush means something.
    pub flushes: bool,
    /// Making zeroes costs less than writing them.
    pub zeroes: bool,
    /// Extents tell zeroes from data.
    pub tells_zeroes: bool,
    /// Offsets and lengths of reads and writes are multiples of this.
    pub align: u32,
    /// Equal for two names of one device; empty where it is not known.
    pub identity: String,
    /// What else uses it, in words that follow "it is".
    pub in_use: Option<String>,
}

/// What the near end asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Open a device. Answer: [`Reply::Device`].
    Open {
        /// Where it is on the far side.
        path: Vec<u8>,
        /// To write it too.
        write: bool,
        /// Even if it is mounted or otherwise in use there.
        mounted: bool,
        /// Even if somebody writes to it.
        live: bool,
    },
    /// Close an object. Answer: [`Reply::Done`].
    Close,
    /// Read. Answer: [`Reply::Data`] or [`Reply::Zeroes`].
    Read(ByteRange),
    /// Write. Answer: [`Reply::Done`].
    Write {
        /// First byte.
        offset: u64,
        /// What goes there.
        data: Vec<u8>,
    },
    /// Make a range read as zeroes. Answer: [`Reply::Done`].
    Zero {
        /// Which.
        range: ByteRange,
        /// Whether a hole will do.
        holes: bool,
        /// At once or not at all.
        fast: bool,
    },
    /// Make everything that was answered before this was sent durable. Answer: [`Reply::Done`].
    Flush,
    /// Where data and holes are. Answer: [`Reply::Extents`], which may end before the range does.
    Extents(ByteRange),
    /// Digests of each `step` bytes of a range, and of what is left at its end. Answer: [`Reply::Digests`].
    Digests {
        /// It begins anywhere.
        range: ByteRange,
        /// Bytes that are hashed together, at least [`STEP_MIN`].
        step: u64,
    },
    /// Begin to apply a dump. Answer: [`Reply::Opened`].
    Apply(Call),
    /// The next bytes of it. Answer: [`Reply::Done`].
    Push(Vec<u8>),
    /// It was all: apply it. Answer: [`Reply::Bytes`], a report in JSON.
    Finish,
    /// Read a whole tree. Answer: [`Reply::Opened`].
    Scan(Call),
    /// One object of a tree that was read. Answer: [`Reply::Bytes`].
    Node {
        /// Which; 0 for the groups of hard links.
        id: u64,
        /// The first of its entries that the answer holds.
        from: u64,
    },
    /// The round that a standby is at. Answer: [`Reply::Bytes`], text, empty before the first.
    Round(Call),
}

/// What the far end answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// A device is open.
    Device {
        /// Its number, until it is closed.
        object: u16,
        /// What is true of it.
        facts: DeviceFacts,
    },
    /// A tree was read, or a dump may come.
    Opened {
        /// Its number, until it is closed.
        object: u16,
        /// Objects of the tree; 0 for a dump.
        count: u64,
        /// Digest of the tree; zeroes for a dump.
        digest: Digest,
    },
    /// What was read.
    Data(Vec<u8>),
    /// What was read is nothing but zeroes.
    Zeroes,
    /// Data and holes in order from the start of the range: bytes, and whether it is a hole.
    Extents(Vec<(u64, bool)>),
    /// Digests in order.
    Digests(Vec<Digest>),
    /// Anything else.
    Bytes(Vec<u8>),
    /// It failed. Whatever the text holds, it is one line here.
    Error(Error),
}

/// The header of a request to write, for bytes that stay where they are.
pub(super) const fn write_head(object: u16, offset: u64, len: usize) -> Head {
    Head { kind: kind::WRITE, object, id: 0, offset, extent: len as u64 }
}

fn flag(bits: &[(bool, u8)]) -> u8 {
    bits.iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit)
}

/// The flags in front of a payload; unknown ones are refused.
fn flags(payload: &[u8], known: u8) -> Result<(u8, &[u8])> {
    match payload.split_first() {
        Some((flags, rest)) if flags & !known == 0 => Ok((*flags, rest)),
        Some((flags, _)) => Err(broken(format_args!("the unknown flags {:#x}", flags & !known))),
        None => Err(broken("a request without its flags")),
    }
}

fn path(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.len() >= limits::REMOTE_TEXT || bytes.contains(&0) {
        return Err(broken(format_args!("a path of {} bytes, or with a zero in it", bytes.len())));
    }
    Ok(bytes.to_vec())
}

/// A range within what a volume can be, and within `most`.
fn range(head: &Head, most: u64) -> Result<ByteRange> {
    match ByteRange::new(head.offset, head.extent) {
        Some(range) if range.end() <= limits::VOLUME_SIZE && range.len <= most && range.len > 0 => Ok(range),
        _ => Err(broken(format_args!("the range {}+{}, at most {most} long", head.offset, head.extent))),
    }
}

fn no_payload<T>(payload: &[u8], request: T) -> Result<T> {
    if payload.is_empty() { Ok(request) } else { Err(broken("a payload where there is none")) }
}

impl Call {
    fn encode(&self) -> Vec<u8> {
        let len = (self.root.len() as u16).to_le_bytes();
        let flags = [flag(&[(self.privileged, CALL_PRIVILEGED), (self.atime, CALL_ATIME)])];
        [&flags[..], &len, &self.root, &self.log].concat()
    }

    fn decode(payload: &[u8]) -> Result<Self> {
        let (flags, rest) = flags(payload, CALL_PRIVILEGED | CALL_ATIME)?;
        let split = rest.split_first_chunk::<2>();
        let split = split.and_then(|(len, rest)| rest.split_at_checked(u16::from_le_bytes(*len).into()));
        let (root, log) = split.ok_or_else(|| broken("a path that is longer than its frame"))?;
        let (privileged, atime) = (flags & CALL_PRIVILEGED != 0, flags & CALL_ATIME != 0);
        Ok(Self { root: path(root)?, log: path(log)?, privileged, atime })
    }
}

impl Request {
    /// The header, with its id and object, and the payload.
    pub fn encode(self, id: u64, object: u16) -> (Head, Vec<u8>) {
        let head =
            |kind, range: ByteRange| Head { kind, object, id, offset: range.offset, extent: range.len };
        let plain = |kind| head(kind, ByteRange::default());
        match self {
            Self::Open { path, write, mounted, live } => {
                let flags = [flag(&[(write, OPEN_WRITE), (mounted, OPEN_MOUNTED), (live, OPEN_LIVE)])];
                (plain(kind::OPEN), [&flags[..], &path].concat())
            }
            Self::Close => (plain(kind::CLOSE), Vec::new()),
            Self::Read(range) => (head(kind::READ, range), Vec::new()),
            Self::Write { offset, data } => {
                (head(kind::WRITE, ByteRange { offset, len: data.len() as u64 }), data)
            }
            Self::Zero { range, holes, fast } => {
                (head(kind::ZERO, range), vec![flag(&[(holes, ZERO_HOLES), (fast, ZERO_FAST)])])
            }
            Self::Flush => (plain(kind::FLUSH), Vec::new()),
            Self::Extents(range) => (head(kind::EXTENTS, range), Vec::new()),
            Self::Digests { range, step } => (head(kind::DIGESTS, range), step.to_le_bytes().to_vec()),
            Self::Apply(call) => (plain(kind::APPLY), call.encode()),
            Self::Push(data) => (plain(kind::PUSH), data),
            Self::Finish => (plain(kind::FINISH), Vec::new()),
            Self::Scan(call) => (plain(kind::SCAN), call.encode()),
            Self::Node { id, from } => (head(kind::NODE, ByteRange { offset: id, len: from }), Vec::new()),
            Self::Round(call) => (plain(kind::ROUND), call.encode()),
        }
    }

    /// Reads a request. Class `Connect` for one that no honest near end sends.
    pub fn decode(head: &Head, payload: Vec<u8>) -> Result<Self> {
        let one = u64::from(limits::REMOTE_PAYLOAD);
        Ok(match head.kind {
            kind::OPEN => {
                let (flags, rest) = flags(&payload, OPEN_WRITE | OPEN_MOUNTED | OPEN_LIVE)?;
                let (write, mounted) = (flags & OPEN_WRITE != 0, flags & OPEN_MOUNTED != 0);
                Self::Open { path: path(rest)?, write, mounted, live: flags & OPEN_LIVE != 0 }
            }
            kind::CLOSE => no_payload(&payload, Self::Close)?,
            kind::READ => no_payload(&payload, Self::Read(range(head, one)?))?,
            kind::WRITE => {
                let range = range(head, one)?;
                if range.len != payload.len() as u64 {
                    let is = payload.len();
                    return Err(broken(format_args!("a write of {} bytes with {is} bytes", range.len)));
                }
                Self::Write { offset: range.offset, data: payload }
            }
            kind::ZERO => {
                let range = range(head, limits::VOLUME_SIZE)?;
                let (flags, rest) = flags(&payload, ZERO_HOLES | ZERO_FAST)?;
                let (holes, fast) = (flags & ZERO_HOLES != 0, flags & ZERO_FAST != 0);
                no_payload(rest, Self::Zero { range, holes, fast })?
            }
            kind::FLUSH => no_payload(&payload, Self::Flush)?,
            kind::EXTENTS => no_payload(&payload, Self::Extents(range(head, limits::VOLUME_SIZE)?))?,
            kind::DIGESTS => {
                let range = range(head, limits::REMOTE_DIGEST)?;
                let step = payload
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| broken("digests without a step"))?;
                let most = u64::from(limits::REMOTE_PAYLOAD) / 32;
                if step < STEP_MIN || range.len.div_ceil(step) > most {
                    return Err(broken(format_args!("digests of each {step} bytes of {range}")));
                }
                Self::Digests { range, step }
            }
            kind::APPLY => Self::Apply(Call::decode(&payload)?),
            kind::PUSH => Self::Push(payload),
            kind::FINISH => no_payload(&payload, Self::Finish)?,
            kind::SCAN => Self::Scan(Call::decode(&payload)?),
            kind::NODE => no_payload(&payload, Self::Node { id: head.offset, from: head.extent })?,
            kind::ROUND => Self::Round(Call::decode(&payload)?),
            other => return Err(broken(format_args!("the unknown request {other}"))),
        })
    }

    /// Bytes that it and its answer hold in memory, at most.
    pub fn weight(&self) -> usize {
        match self {
            Self::Read(range) => range.len as usize,
            Self::Write { data, .. } | Self::Push(data) => data.len(),
            Self::Extents(_) => EXTENTS * 8,
            Self::Node { .. } => limits::REMOTE_PAYLOAD as usize,
            Self::Digests { range, step } => range.len.div_ceil(*step) as usize * 32,
            _ => limits::REMOTE_TEXT,
        }
    }

    /// The longest that an answer may take, in milliseconds.
    pub const fn patience_ms(&self) -> u64 {
        match self {
            Self::Read(_) | Self::Write { .. } | Self::Extents(_) | Self::Open { .. } | Self::Close => {
                limits::REMOTE_ANSWER_MS
            }
            // Zeroes may have to be written one by one; a dump is spooled to a disk that may be slow.
            Self::Zero { .. } | Self::Flush | Self::Digests { .. } | Self::Push(_) => limits::REMOTE_LONG_MS,
            _ => limits::REMOTE_TREE_MS,
        }
    }
}

/// Most extents in one answer: eight bytes each.
pub const EXTENTS: usize = 8192;

impl DeviceFacts {
    fn encode(&self) -> Vec<u8> {
        let flags = flag(&[
            (self.read_only, FACT_READ_ONLY),
            (self.live, FACT_LIVE),
            (self.flushes, FACT_FLUSHES),
            (self.zeroes, FACT_ZEROES),
            (self.tells_zeroes, FACT_TELLS_ZEROES),
            (self.in_use.is_some(), FACT_IN_USE),
        ]);
        let len = (self.identity.len() as u16).to_le_bytes();
        let in_use = self.in_use.as_deref().unwrap_or_default();
        let texts = [self.identity.as_bytes(), in_use.as_bytes()].concat();
        [&[flags][..], &self.align.to_le_bytes(), &len, &texts].concat()
    }

    fn decode(size: u64, payload: &[u8]) -> Result<Self> {
        let (flags, rest) = flags(payload, FACTS)?;
        let split = rest.split_first_chunk::<6>();
        let split = split.and_then(|(fixed, rest)| {
            let len = u16::from_le_bytes([fixed[4], fixed[5]]);
            Some((get_u32(fixed, 0), rest.split_at_checked(len.into())?))
        });
        let (align, (identity, in_use)) = split.ok_or_else(|| broken("a device without its facts"))?;
        if size > limits::VOLUME_SIZE || !align.is_power_of_two() || rest.len() > limits::REMOTE_TEXT {
            return Err(broken(format_args!("a device of {size} bytes, aligned to {align}")));
        }
        Ok(Self {
            size,
            read_only: flags & FACT_READ_ONLY != 0,
            live: flags & FACT_LIVE != 0,
            flushes: flags & FACT_FLUSHES != 0,
            zeroes: flags & FACT_ZEROES != 0,
            tells_zeroes: flags & FACT_TELLS_ZEROES != 0,
            align,
            identity: text(identity),
            in_use: (flags & FACT_IN_USE != 0).then(|| text(in_use)),
        })
    }
}

impl Reply {
    /// The header, with the id of its request, and the payload.
    pub fn encode(self, id: u64) -> (Head, Vec<u8>) {
        let head = |kind| Head { kind, id, ..Head::default() };
        match self {
            Self::Done => (head(kind::DONE), Vec::new()),
            Self::Device { object, facts } => {
                (Head { object, extent: facts.size, ..head(kind::DEVICE) }, facts.encode())
            }
            Self::Opened { object, count, digest } => {
                (Head { object, extent: count, ..head(kind::OPENED) }, digest.to_vec())
            }
            Self::Data(data) => (Head { extent: data.len() as u64, ..head(kind::DATA) }, data),
            Self::Zeroes => (head(kind::ZEROES), Vec::new()),
            Self::Extents(list) => {
                let words = list.iter().map(|(len, hole)| len << 1 | u64::from(*hole));
                (head(kind::EXTENT_LIST), words.flat_map(u64::to_le_bytes).collect())
            }
            Self::Digests(list) => (head(kind::DIGEST_LIST), list.into_flattened()),
            Self::Bytes(bytes) => (head(kind::BYTES), bytes),
            Self::Error(error) => {
                let mut message = error.message.into_bytes();
                message.truncate(limits::REMOTE_TEXT);
                let extent = u64::from(error.class.exit_code());
                (Head { extent, ..head(kind::ERROR) }, message)
            }
        }
    }

    /// Reads an answer. Class `Connect` for one that no honest far end gives.
    pub fn decode(head: &Head, payload: Vec<u8>) -> Result<Self> {
        Ok(match head.kind {
            kind::DONE => no_payload(&payload, Self::Done)?,
            kind::DEVICE => {
                Self::Device { object: head.object, facts: DeviceFacts::decode(head.extent, &payload)? }
            }
            kind::OPENED => {
                let digest = payload.try_into().map_err(|_| broken("an opened object without its digest"))?;
                Self::Opened { object: head.object, count: head.extent, digest }
            }
            kind::DATA => Self::Data(payload),
            kind::ZEROES => no_payload(&payload, Self::Zeroes)?,
            kind::EXTENT_LIST => {
                if !payload.len().is_multiple_of(8) || payload.len() > EXTENTS * 8 {
                    return Err(broken(format_args!("a list of extents of {} bytes", payload.len())));
                }
                let word = |bytes: &[u8]| get_u64(bytes, 0);
                Self::Extents(payload.chunks_exact(8).map(word).map(|w| (w >> 1, w & 1 != 0)).collect())
            }
            kind::DIGEST_LIST => {
                let (digests, rest) = payload.as_chunks::<32>();
                no_payload(rest, Self::Digests(digests.to_vec()))?
            }
            kind::BYTES => Self::Bytes(payload),
            kind::ERROR => Self::Error(error(head, &payload)?),
            other => return Err(broken(format_args!("the unknown answer {other}"))),
        })
    }
}

/// An error from the other side. Its text is foreign: control characters are taken out. It says no command to type
/// next: nobody should type what another machine says.
fn error(head: &Head, payload: &[u8]) -> Result<Error> {
    if payload.len() > limits::REMOTE_TEXT || payload.is_empty() {
        return Err(broken(format_args!("an error with a text of {} bytes", payload.len())));
    }
    Ok(Error::new(
        match Class::from_exit_code(u8::try_from(head.extent).unwrap_or(u8::MAX)) {
            // A bug over there is none of this program, and nothing over there is an answer to be silent about.
            Class::Internal | Class::Differs => Class::Connect,
            class => class,
        },
        text(payload),
    ))
}

/// Foreign text, harmless on a terminal and in a line.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
