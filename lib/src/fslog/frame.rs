//! The header and the frame that logs, indexes and dumps share; the bytes are in mirror-formats(5), "FILE LOGS".

use super::Digest;
use crate::base::{Class, Error, Id, Result, limits};
use crate::device::Features;
use crate::device::fields::{self, get_id, get_u32, get_u64, put_id, put_u32, put_u64};
use std::fmt;
use std::io::{ErrorKind, Read, Write};

/// Bytes of a header.
pub const HEADER_LEN: usize = 192;
/// The version that this program writes and reads.
pub const VERSION: u32 = 1;
/// Bytes before the payload of a frame: its length, its kind, three zero bytes.
pub const FRAME_HEAD: usize = 8;
/// The kind of the last frame of an index or a dump; the digest of all bytes before follows it.
pub const END: u8 = 0xff;

const VERSION_AT: usize = 8;
const OPTIONS_AT: usize = 12;
const FEATURES_AT: usize = 16;
const TREE_AT: usize = FEATURES_AT + fields::FEATURES_LEN;
const BASE_AT: usize = TREE_AT + 16;
const ROOT_AT: usize = BASE_AT + 8;
const ROUND_AT: usize = ROOT_AT + 32;
const TIME_AT: usize = ROUND_AT + 8;
const CHECKSUM_AT: usize = HEADER_LEN - 8;
const _: () = assert!(TIME_AT + 8 <= CHECKSUM_AT);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// A log of changes.
    Log,
    /// An index of a tree.
    Index,
    /// A dump of what changed, with its data.
    Dump,
}

impl Magic {
    /// The first eight bytes of the file.
    pub const fn bytes(self) -> &'static [u8; 8] {
        match self {
            Self::Log => b"MIRRLOG\0",
            Self::Index => b"MIRRIDX\0",
            Self::Dump => b"MIRRDMP\0",
        }
    }

    /// What begins with these bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        [Self::Log, Self::Index, Self::Dump].into_iter().find(|magic| bytes.starts_with(magic.bytes()))
    }

    /// An input that begins with something else, with whole magics of ours known by name.
    fn missing(self, object: &str, bytes: &[u8]) -> Error {
        let found = Self::of(bytes).map_or("something else", Self::name);
        fields::differs(object, "magic", found, self.name())
    }

    /// An input of less than a header: empty, the beginning of one that was cut, or something else. Where a dump is
    /// taken a stream of `btrfs send` is too.
    pub(super) fn cut(self, object: &str, bytes: &[u8]) -> Error {
        let begins = |magic: &[u8]| bytes.iter().zip(magic).all(|(byte, expected)| byte == expected);
        let what = match self {
            _ if bytes.is_empty() => "it is empty",
            _ if begins(self.bytes()) => "it ends early",
            Self::Dump if begins(super::sent::MAGIC) => "it ends early",
            _ => return self.missing(object, bytes),
        };
        Error::new(Class::Damaged, format!("{object}: reading it: {what}"))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Log => "a log",
            Self::Index => "an index",
            Self::Dump => "a dump",
        }
    }
}

/// Names one state of one tree: a counter that never repeats, and the Merkle root. Round 0 is the empty tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Counts the dumps of the source.
    pub number: u64,
    /// The Merkle root of the tree.
    pub root: Digest,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.root)
    }
}

impl std::str::FromStr for Round {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let shown: String = text.chars().take(100).collect();
            let text = format!("{}: reading a round: not NUMBER:DIGEST", shown.escape_debug());
            Error::new(Class::Usage, text)
        };
        let (number, hex) = text.split_once(':').ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut root = Digest::default();
        for (at, byte) in root.0.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self { number: number.parse().map_err(|_| bad())?, root })
    }
}

/// The first bytes of a log, an index or a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub magic: Magic,
    /// What was looked at beyond the usual ([`super::index::PRIVILEGED`]).
    pub options: u32,
    /// The tree: an identity that its first round gets, and that source and standbys share.
    pub tree: Id,
    /// The state that a log or dump begins at.
    pub base: Round,
    /// The number of the state that it leads to; of a log 0 as long as it is open.
    pub round: u64,
    /// When it was begun, in nanoseconds since 1970; for people only.
    pub time: i64,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(self.magic.bytes());
        put_u32(&mut bytes, VERSION_AT, VERSION);
        put_u32(&mut bytes, OPTIONS_AT, self.options);
        Features::default().put(&mut bytes, FEATURES_AT);
        put_id(&mut bytes, TREE_AT, self.tree);
        put_u64(&mut bytes, BASE_AT, self.base.number);
        bytes[ROOT_AT..ROUND_AT].copy_from_slice(&self.base.root.0);
        put_u64(&mut bytes, ROUND_AT, self.round);
        put_u64(&mut bytes, TIME_AT, self.time.cast_unsigned());
        let checksum = fields::checksum(&bytes[..CHECKSUM_AT]);
        put_u64(&mut bytes, CHECKSUM_AT, checksum);
        bytes
    }

    /// Reads it, in the order of trust: magic, version, features, checksum.
    pub fn decode(object: &str, magic: Magic, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if !bytes.starts_with(magic.bytes()) {
            return Err(magic.missing(object, bytes));
        }
        fields::check_version(object, get_u32(bytes, VERSION_AT), VERSION)?;
        Features::get(bytes, FEATURES_AT).check_readable(object, 0)?;
        let (found, expected) = (get_u64(bytes, CHECKSUM_AT), fields::checksum(&bytes[..CHECKSUM_AT]));
        if found != expected {
            return Err(fields::differs(
                object,
                "header's checksum",
                format!("{found:#x}"),
                format!("{expected:#x}"),
            ));
        }
        let mut root = Digest::default();
        root.0.copy_from_slice(&bytes[ROOT_AT..ROUND_AT]);
        Ok(Self {
            magic,
            options: get_u32(bytes, OPTIONS_AT),
            tree: get_id(bytes, TREE_AT),
            base: Round { number: get_u64(bytes, BASE_AT), root },
            round: get_u64(bytes, ROUND_AT),
            time: get_u64(bytes, TIME_AT).cast_signed(),
        })
    }

    /// Reads it from the beginning of a stream.
    pub fn read(object: &str, magic: Magic, from: &mut impl Read) -> Result<Self> {
        Self::decode(object, magic, &head_of(object, magic, from)?)
    }
}

/// The bytes of a header, of whatever it is one.
fn head_of(object: &str, magic: Magic, from: &mut impl Read) -> Result<[u8; HEADER_LEN]> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    let read = from.by_ref().take(HEADER_LEN as u64).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(object, "reading it", e))?;
    bytes.first_chunk().copied().ok_or_else(|| magic.cut(object, &bytes))
}

/// An error while reading: an end of file is damage, everything else I/O.
fn short(object: &str, error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::UnexpectedEof {
        Error::new(Class::Damaged, format!("{object}: reading it: it ends early"))
    } else {
        Error::io(object, "reading it", error)
    }
}

/// The head and the checksum of a frame whose payload is these parts.
pub fn frame_ends(kind: u8, parts: &[&[u8]]) -> ([u8; FRAME_HEAD], [u8; 4]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut head = [0; FRAME_HEAD];
    put_u32(&mut head, 0, len as u32);
    head[4] = kind;
    let crc = parts.iter().fold(crc32c::crc32c(&head), |crc, part| crc32c::crc32c_append(crc, part));
    (head, crc.to_le_bytes())
}

/// Writes a header and frames, and in the end the digest of everything.
#[derive(Debug)]
pub struct FrameWriter<W> {
    out: W,
    object: String,
    hash: blake3::Hasher,
    written: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a stream to `object`.
    pub fn new(object: impl Into<String>, out: W, header: &Header) -> Result<Self> {
        let mut writer = Self { out, object: object.into(), hash: blake3::Hasher::new(), written: 0 };
        writer.write(&header.encode())?;
        Ok(writer)
    }

    /// One frame, its payload in parts.
    pub fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > limits::FSLOG_FRAME {
            let text = format!(
                "{}: writing a frame: {len} bytes, at most {}: too many extended attributes on one file",
                self.object,
                limits::FSLOG_FRAME
            );
            return Err(Error::new(Class::Io, text));
        }
        let (head, crc) = frame_ends(kind, parts);
        self.write(&head)?;
        parts.iter().try_for_each(|part| self.write(part))?;
        self.write(&crc)
    }

    /// Bytes written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The last frame and the digest; flushes.
    pub fn finish(mut self, end: &[u8]) -> Result<W> {
        self.frame(END, &[end])?;
        let digest = *self.hash.finalize().as_bytes();
        self.write(&digest)?;
        self.out.flush().map_err(|e| Error::io(&self.object, "writing it", e))?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| Error::io(&self.object, "writing it", e))
    }
}

/// Reads a header and frames, and checks each frame, and in the end the digest of everything.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    object: String,
    hash: blake3::Hasher,
    read: u64,
    frames: u64,
    /// What the stream says of itself.
    pub header: Header,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// Begins to read a stream from `object`.
    pub fn new(object: impl Into<String>, magic: Magic, mut from: R) -> Result<Self> {
        let object = object.into();
        let bytes = head_of(&object, magic, &mut from)?;
        let header = Header::decode(&object, magic, &bytes)?;
        let mut hash = blake3::Hasher::new();
        hash.update(&bytes);
        Ok(Self { from, object, hash, read: HEADER_LEN as u64, frames: 0, header, payload: Vec::new() })
    }

    /// What is read, for messages.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.read
    }

    /// The next frame: kind and payload. After the one of kind [`END`] comes [`FrameReader::finish`].
    pub fn take_frame(&mut self) -> Result<(u8, &[u8])> {
        let mut head = [0; FRAME_HEAD];
        self.take(&mut head)?;
        let len = get_u32(&head, 0) as usize;
        let number = self.frames;
        if len > limits::FSLOG_FRAME || head[5..] != [0; 3] {
            let text = format!("frame {number}: {len} bytes, at most {}", limits::FSLOG_FRAME);
            return Err(Error::new(Class::Damaged, format!("{}: reading {text}", self.object)));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(len, 0);
        self.take(&mut payload)?;
        let mut crc = [0; 4];
        self.take(&mut crc)?;
        self.frames += 1;
        self.payload = payload;
        let expected = crc32c::crc32c_append(crc32c::crc32c(&head), &self.payload);
        if u32::from_le_bytes(crc) != expected {
            let field = format!("checksum of frame {number}");
            let found = format!("{:#x}", u32::from_le_bytes(crc));
            return Err(fields::differs(&self.object, &field, found, format!("{expected:#x}")));
        }
        Ok((head[4], &self.payload))
    }

    /// Checks the digest behind the last frame, and that nothing follows; gives the digest.
    pub fn finish(mut self) -> Result<Digest> {
        let expected = Digest(*self.hash.finalize().as_bytes());
        let mut found = Digest::default();
        self.take(&mut found.0)?;
        if found != expected {
            return Err(fields::differs(&self.object, "digest", found, expected));
        }
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(found),
            Ok(_) => Err(Error::new(
                Class::Damaged,
                format!("{}: reading it: more bytes behind its end", self.object),
            )),
            Err(e) => Err(Error::io(&self.object, "reading it", e)),
        }
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from.read_exact(bytes).map_err(|e| short(&self.object, e))?;
        self.hash.update(bytes);
        self.read += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
