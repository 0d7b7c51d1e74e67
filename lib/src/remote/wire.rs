//! The bytes between the two ends: a hello each way, then frames. Little-endian; the layout is described in
//! `mirror-protocol(7)` and nowhere else.

use crate::base::{Class, Error, Result, limits};
use crate::device::fields::{get_u32, get_u64, put_u32, put_u64};
use std::io::{ErrorKind, Read};

/// What a hello begins with. It holds a byte that no shell prints, and a line end that a text mode would change.
pub const MAGIC: [u8; 8] = *b"MIRSRV\0\n";
/// The versions spoken here, lowest and highest. 1: the first.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Bytes of a hello.
pub const HELLO_LEN: usize = 24;
/// Feature: frames may be compressed.
pub const FEATURE_ZSTD: u32 = 1;
/// Bytes of the header of a frame.
pub const HEADER_LEN: usize = 32;
/// Flag of a frame: its payload is a zstd frame.
pub const FLAG_ZSTD: u8 = 1;
/// Payloads below this size are not worth compressing: the header of a zstd frame, and little to find.
const COMPRESS_FROM: usize = 512;
/// Fast enough for a network of 1 Gbit/s on one core.
const COMPRESS_LEVEL: i32 = 1;

const AT_LOW: usize = 8;
const AT_HIGH: usize = AT_LOW + 2;
const AT_FEATURES: usize = AT_HIGH + 2;
const AT_PAYLOAD: usize = AT_FEATURES + 4;
const AT_RESERVED: usize = AT_PAYLOAD + 4;
const _: () = assert!(AT_RESERVED + 4 == HELLO_LEN);

const AT_LEN: usize = 0;
const AT_KIND: usize = 4;
const AT_FLAGS: usize = 5;
const AT_OBJECT: usize = 6;
const AT_ID: usize = 8;
const AT_OFFSET: usize = 16;
const AT_EXTENT: usize = 24;
const _: () = assert!(AT_EXTENT + 8 == HEADER_LEN);

/// What one side says of itself before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version that it speaks.
    pub low: u16,
    /// Highest version that it speaks.
    pub high: u16,
    /// What it can ([`FEATURE_ZSTD`]); unknown bits mean nothing.
    pub features: u32,
    /// Largest payload that it takes, in bytes.
    pub payload: u32,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version spoken.
    pub version: u16,
    /// Whether frames may be compressed.
    pub zstd: bool,
    /// Largest payload that the other side takes, in bytes.
    pub payload: u32,
}

/// An error of class `Connect`: the other side does not speak as it should.
pub fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(Class::Connect, format!("the other end: reading what it says: {what}"))
}

impl Hello {
    /// What this program says.
    pub const fn ours(zstd: bool) -> Self {
        let features = if zstd { FEATURE_ZSTD } else { 0 };
        Self { low: VERSIONS.0, high: VERSIONS.1, features, payload: limits::REMOTE_PAYLOAD }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut out = [0; HELLO_LEN];
        out[..AT_LOW].copy_from_slice(&MAGIC);
        out[AT_LOW..AT_HIGH].copy_from_slice(&self.low.to_le_bytes());
        out[AT_HIGH..AT_FEATURES].copy_from_slice(&self.high.to_le_bytes());
        put_u32(&mut out, AT_FEATURES, self.features);
        put_u32(&mut out, AT_PAYLOAD, self.payload);
        out
    }

    /// Reads one. Class `Connect` if it is none.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self> {
        if bytes[..AT_LOW] != MAGIC {
            return Err(broken("it does not begin with a hello"));
        }
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let hello = Self {
            low: word(AT_LOW),
            high: word(AT_HIGH),
            features: get_u32(bytes, AT_FEATURES),
            payload: get_u32(bytes, AT_PAYLOAD),
        };
        // Requests for digests and opened paths must fit whatever happens.
        if hello.low == 0 || hello.low > hello.high || hello.payload < 1 << 16 {
            let Self { low, high, payload, .. } = hello;
            return Err(broken(format_args!("a hello of versions {low} to {high}, payloads of {payload}")));
        }
        Ok(hello)
    }

    /// What two sides agree on: the highest version that both speak. Names both ranges if there is none.
    pub fn agree(&self, theirs: &Self) -> Result<Agreed> {
        let version = self.high.min(theirs.high);
        if version < self.low.max(theirs.low) {
            let (us, them) = ((self.low, self.high), (theirs.low, theirs.high));
            let text =
                format_args!("it speaks versions {} to {}, this side {} to {}", them.0, them.1, us.0, us.1);
            return Err(broken(text).hint("the same release of mirror-sync on both sides"));
        }
        let zstd = self.features & theirs.features & FEATURE_ZSTD != 0;
        Ok(Agreed { version, zstd, payload: self.payload.min(theirs.payload) })
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// What it is; [`super::message`] gives it a meaning.
    pub kind: u8,
    /// Which open device or tree.
    pub object: u16,
    /// Which request; an answer has that of its request.
    pub id: u64,
    /// First argument, mostly a place in bytes.
    pub offset: u64,
    /// Second argument, mostly a number of bytes.
    pub extent: u64,
}

/// A frame as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub head: Head,
    /// Its payload, not compressed any more.
    pub payload: Vec<u8>,
}

/// The header of a frame, and the payload to send where that is not the given one.
pub fn encode(head: &Head, payload: &[u8], zstd: bool) -> ([u8; HEADER_LEN], Option<Vec<u8>>) {
    let small = if zstd && payload.len() >= COMPRESS_FROM {
        zstd::bulk::compress(payload, COMPRESS_LEVEL).ok().filter(|small| small.len() < payload.len())
    } else {
        None
    };
    let mut out = [0; HEADER_LEN];
    put_u32(&mut out, AT_LEN, small.as_ref().map_or(payload.len(), Vec::len) as u32);
    out[AT_KIND] = head.kind;
    out[AT_FLAGS] = if small.is_some() { FLAG_ZSTD } else { 0 };
    out[AT_OBJECT..AT_ID].copy_from_slice(&head.object.to_le_bytes());
    put_u64(&mut out, AT_ID, head.id);
    put_u64(&mut out, AT_OFFSET, head.offset);
    put_u64(&mut out, AT_EXTENT, head.extent);
    (out, small)
}

/// Reads the next frame. `None` if the other side ended the connection between two frames. Nothing is believed
/// beyond the limits: a length is checked before a byte of it is allocated, compressed or not. The error of a
/// deadline is of class `Timeout`, everything else of class `Connect`.
pub fn read_frame(from: &mut impl Read, zstd: bool) -> Result<Option<Frame>> {
    let mut head = [0; HEADER_LEN];
    let mut got = 0;
    while got < HEADER_LEN {
        match from.read(&mut head[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(broken("it ended in the middle of a frame")),
            Ok(len) => got += len,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(lost(&e)),
        }
    }
    let len = get_u32(&head, AT_LEN);
    if len > limits::REMOTE_PAYLOAD {
        let most = limits::REMOTE_PAYLOAD;
        return Err(broken(format_args!("a frame of {len} bytes, at most {most} are allowed")));
    }
    let flags = head[AT_FLAGS];
    if flags & !FLAG_ZSTD != 0 || flags != 0 && !zstd {
        return Err(broken(format_args!("a frame with the flags {flags:#x}, which were not agreed on")));
    }
    let mut payload = vec![0; len as usize];
    from.read_exact(&mut payload).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => broken("it ended in the middle of a frame"),
        _ => lost(&e),
    })?;
    if flags & FLAG_ZSTD != 0 {
        payload = zstd::bulk::decompress(&payload, limits::REMOTE_PAYLOAD as usize)
            .map_err(|_| broken("a compressed frame that is damaged or too large"))?;
        // It was taken for the largest one.
        payload.shrink_to_fit();
    }
    let head = Head {
        kind: head[AT_KIND],
        object: u16::from_le_bytes([head[AT_OBJECT], head[AT_OBJECT + 1]]),
        id: get_u64(&head, AT_ID),
        offset: get_u64(&head, AT_OFFSET),
        extent: get_u64(&head, AT_EXTENT),
    };
    Ok(Some(Frame { head, payload }))
}

/// The connection failed while it was read or written.
pub fn lost(error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            let seconds = limits::REMOTE_SILENCE_MS / 1000;
            Error::new(Class::Timeout, format!("the other end: waiting for it: silent for {seconds} s"))
        }
        _ => Error::os(Class::Connect, "the other end", "talking to it", std::io::Error::from(error.kind())),
    }
}

/// Everything that a byte stream can mean to a reader of frames: for fuzzing. Never panics, and never takes more
/// memory than one frame and what it expands to.
pub fn read_all(mut bytes: &[u8], zstd: bool) -> (Vec<Frame>, Option<Error>) {
    let mut frames = Vec::new();
    loop {
        match read_frame(&mut bytes, zstd) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}
