//! What the server answers in the transmission phase, header by header; payload is never copied (`proto.md`,
//! "Simple reply message", "Structured reply chunk message", "Extended reply chunk message", "Structured reply
//! types").

use super::handshake::ServerInfo;
use super::violation;
use crate::base::{Result, limits};
use crate::nbd::fields::Fields;
use crate::nbd::text;
use crate::nbd::wire::{Errno, MAGIC_CHUNK, MAGIC_EXTENDED_REPLY, MAGIC_SIMPLE, chunk};

/// One simple reply or one chunk. `done`: no further chunk for this cookie follows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the protocol: cookie, offset, length in bytes, done
pub enum Reply {
    /// A simple reply. If it answers a READ without error, the payload follows; only the caller knows its length.
    Simple { cookie: u64, error: Option<Errno> },
    /// The header of `len` (at least 1) bytes of payload at `offset`, which follow.
    Data { cookie: u64, offset: u64, len: u32, done: bool },
    /// `len` (at least 1) zeroes at `offset`; nothing follows.
    Hole { cookie: u64, offset: u64, len: u32, done: bool },
    /// Success, or the end of a reply; always the last chunk.
    None { cookie: u64 },
    /// The request failed; the message is fit for a terminal.
    Error { cookie: u64, error: Errno, offset: Option<u64>, message: String, done: bool },
    /// Length (at least 1) and flags of the extents of one context, at least one.
    BlockStatus { cookie: u64, context: u32, extents: Vec<(u64, u64)>, done: bool },
}

impl Reply {
    /// Whose reply it is.
    pub const fn cookie(&self) -> u64 {
        match self {
            Self::Simple { cookie, .. }
            | Self::Data { cookie, .. }
            | Self::Hole { cookie, .. }
            | Self::None { cookie }
            | Self::Error { cookie, .. }
            | Self::BlockStatus { cookie, .. } => *cookie,
        }
    }

    /// Whether it is the last for its cookie.
    pub const fn done(&self) -> bool {
        match self {
            Self::Simple { .. } | Self::None { .. } => true,
            Self::Data { done, .. }
            | Self::Hole { done, .. }
            | Self::Error { done, .. }
            | Self::BlockStatus { done, .. } => *done,
        }
    }
}

const SIMPLE_LEN: usize = 16;
const CHUNK_LEN: usize = 20;
const EXTENDED_LEN: usize = 32;
const STATUS_EXT_LEN_MAX: u32 = 8 + 16 * limits::NBD_EXTENTS_IN as u32;
const STATUS_LEN_MAX: u32 = 4 + 8 * limits::NBD_EXTENTS_IN as u32;

/// Finds replies in what was received. Holds nothing back: what is not complete stays with the caller.
#[derive(Clone, Copy, Debug)]
pub struct ReplyParser {
    structured: bool,
    extended: bool,
    echo: Option<u64>,
}

/// The header of a chunk, checked as far as its type and length go.
struct Chunk {
    done: bool,
    kind: u16,
    cookie: u64,
    len: u32,
    /// Bytes from the chunk's first that are needed, and consumed, besides payload.
    need: usize,
    /// The offset of the request, where it is repeated.
    echo: Option<u64>,
}

impl ReplyParser {
    /// `structured` as negotiated.
    pub const fn new(structured: bool) -> Self {
        Self { structured, extended: false, echo: None }
    }

    /// For the headers that were agreed on.
    pub const fn of(info: &ServerInfo) -> Self {
        Self { structured: info.structured, extended: info.extended, echo: None }
    }

    /// The offset that the last reply repeated of its request, where replies do: one that differs is a violation.
    pub const fn echo(&self) -> Option<u64> {
        self.echo
    }

    /// The first reply in `input` and the bytes to consume, which are the header's only where payload follows
    /// ([`Reply::Data`], or a successful [`Reply::Simple`] to a READ). `None` if more input is needed: up to
    /// [`ReplyParser::wanted`] bytes. An error is a violation of the protocol: the connection must die.
    pub fn parse(&mut self, input: &[u8]) -> Result<Option<(usize, Reply)>> {
        let mut fields = Fields::new(input);
        match fields.u32() {
            None => Ok(None),
            Some(MAGIC_EXTENDED_REPLY) if self.extended => {
                let Some(head) = Self::extended_chunk(fields)? else { return Ok(None) };
                let Some(body) = input.get(EXTENDED_LEN..head.need) else { return Ok(None) };
                self.echo = head.echo;
                Ok(Some((head.need, Self::content(&head, body)?)))
            }
            Some(magic) if self.extended => {
                Err(violation(format_args!("wrong magic {magic:#010x} of an extended reply")))
            }
            Some(MAGIC_SIMPLE) => {
                let (Some(error), Some(cookie)) = (fields.u32(), fields.u64()) else {
                    return Ok(None);
                };
                let error = (error != 0).then(|| Errno::from_wire(error));
                Ok(Some((SIMPLE_LEN, Reply::Simple { cookie, error })))
            }
            Some(MAGIC_CHUNK) if self.structured => {
                let Some(head) = Self::chunk(fields)? else { return Ok(None) };
                let Some(body) = input.get(CHUNK_LEN..head.need) else { return Ok(None) };
                Ok(Some((head.need, Self::content(&head, body)?)))
            }
            Some(MAGIC_CHUNK) => Err(violation("a structured reply, which was not negotiated")),
            Some(magic) => Err(violation(format_args!("wrong magic {magic:#010x} of a reply"))),
        }
    }

    /// How many bytes the first reply of `input` takes without payload, as far as can be told: the size to
    /// which the caller's buffer must grow. At most about 8 MiB (extents), usually 28. Garbage wants nothing.
    pub fn wanted(&self, input: &[u8]) -> usize {
        let mut fields = Fields::new(input);
        match fields.u32() {
            _ if self.extended => match Self::extended_chunk(fields) {
                Ok(Some(head)) => head.need,
                _ => EXTENDED_LEN,
            },
            Some(MAGIC_CHUNK) => match Self::chunk(fields) {
                Ok(Some(head)) => head.need,
                _ => CHUNK_LEN,
            },
            _ => SIMPLE_LEN,
        }
    }

    /// Reads and checks a chunk's header, before anything is buffered for it.
    fn chunk(mut fields: Fields<'_>) -> Result<Option<Chunk>> {
        let (Some(flags), Some(kind), Some(cookie), Some(len)) =
            (fields.u16(), fields.u16(), fields.u64(), fields.u32())
        else {
            return Ok(None);
        };
        Self::checked(flags, kind, cookie, len, CHUNK_LEN).map(Some)
    }

    /// The same for an extended header.
    fn extended_chunk(mut fields: Fields<'_>) -> Result<Option<Chunk>> {
        let (Some(flags), Some(kind), Some(cookie), Some(offset), Some(len)) =
            (fields.u16(), fields.u16(), fields.u64(), fields.u64(), fields.u64())
        else {
            return Ok(None);
        };
        let len = u32::try_from(len).map_err(|_| violation(format_args!("a chunk of {len} bytes")))?;
        let head = Self::checked(flags, kind, cookie, len, EXTENDED_LEN)?;
        Ok(Some(Chunk { echo: Some(offset), ..head }))
    }

    fn checked(flags: u16, kind: u16, cookie: u64, len: u32, header: usize) -> Result<Chunk> {
        let extended = header == EXTENDED_LEN;
        let done = flags & chunk::DONE != 0;
        let (name, legal) = match kind {
            chunk::NONE => ("empty", len == 0),
            chunk::OFFSET_DATA => ("data", len > 8 && len - 8 <= limits::NBD_PAYLOAD),
            chunk::OFFSET_HOLE => ("hole", len == 12),
            chunk::BLOCK_STATUS_EXT if extended => {
                ("long status", len >= 24 && len % 16 == 8 && len <= STATUS_EXT_LEN_MAX)
            }
            chunk::BLOCK_STATUS if !extended => {
                ("status", len >= 12 && len % 8 == 4 && len <= STATUS_LEN_MAX)
            }
            chunk::ERROR_OFFSET => ("error", (14..=limits::NBD_ERROR_CHUNK).contains(&len)),
            kind if kind & chunk::IS_ERROR != 0 => ("error", (6..=limits::NBD_ERROR_CHUNK).contains(&len)),
            kind => return Err(violation(format_args!("a chunk of the unknown type {kind}"))),
        };
        if !legal {
            return Err(violation(format_args!("a chunk of type {name} with {len} bytes")));
        }
        if kind == chunk::NONE && !done {
            return Err(violation("an empty chunk that is not the last"));
        }
        let body = if kind == chunk::OFFSET_DATA { 8 } else { len as usize };
        Ok(Chunk { done, kind, cookie, len, need: header + body, echo: None })
    }

    fn content(head: &Chunk, body: &[u8]) -> Result<Reply> {
        let &Chunk { done, kind, cookie, len, .. } = head;
        let short = || violation("a field is missing");
        let mut fields = Fields::new(body);
        match kind {
            chunk::NONE => Ok(Reply::None { cookie }),
            chunk::OFFSET_DATA => {
                let offset = fields.u64().ok_or_else(short)?;
                inside(offset, len - 8)?;
                Ok(Reply::Data { cookie, offset, len: len - 8, done })
            }
            chunk::OFFSET_HOLE => {
                let offset = fields.u64().ok_or_else(short)?;
                let len = fields.u32().ok_or_else(short)?;
                inside(offset, len)?;
                Ok(Reply::Hole { cookie, offset, len, done })
            }
            chunk::BLOCK_STATUS => {
                let context = fields.u32().ok_or_else(short)?;
                let mut extents = Vec::with_capacity(fields.rest().len() / 8);
                while let (Some(len), Some(status)) = (fields.u32(), fields.u32()) {
                    if len == 0 {
                        return Err(violation("an extent of length zero"));
                    }
                    extents.push((u64::from(len), u64::from(status)));
                }
                Ok(Reply::BlockStatus { cookie, context, extents, done })
            }
            chunk::BLOCK_STATUS_EXT => {
                let (context, count) = (fields.u32().ok_or_else(short)?, fields.u32().ok_or_else(short)?);
                if u64::from(count) * 16 != fields.rest().len() as u64 {
                    return Err(violation(format_args!("{count} extents in a chunk of {len} bytes")));
                }
                let mut extents = Vec::with_capacity(count as usize);
                while let (Some(len), Some(status)) = (fields.u64(), fields.u64()) {
                    if len == 0 {
                        return Err(violation("an extent of length zero"));
                    }
                    extents.push((len, status));
                }
                Ok(Reply::BlockStatus { cookie, context, extents, done })
            }
            _ => Self::error(head, fields),
        }
    }

    /// All error types, also those not known, begin with a number and a message.
    fn error(head: &Chunk, mut fields: Fields<'_>) -> Result<Reply> {
        let short = || violation("an error message longer than its chunk");
        let number = fields.u32().ok_or_else(short)?;
        let len = fields.u16().ok_or_else(short)?;
        let message = fields.bytes(u32::from(len)).ok_or_else(short)?;
        let offset = match head.kind {
            chunk::ERROR_OFFSET => Some(fields.u64().ok_or_else(short)?),
            _ => None,
        };
        if number == 0 {
            return Err(violation("an error chunk that reports success"));
        }
        Ok(Reply::Error {
            cookie: head.cookie,
            error: Errno::from_wire(number),
            offset,
            message: text::clean(message),
            done: head.done,
        })
    }
}

/// A range of at least one byte that does not wrap.
fn inside(offset: u64, len: u32) -> Result<()> {
    if len == 0 {
        return Err(violation("a hole of length zero"));
    }
    match offset.checked_add(u64::from(len)) {
        Some(_) => Ok(()),
        None => Err(violation(format_args!("data at {offset}+{len}, past the end of 64 bits"))),
    }
}
