//! How replies look: encoders that append to a buffer and allocate nothing of their own (`proto.md`, "Simple
//! reply message", "Structured reply chunk message").

use crate::base::limits;
use crate::nbd::text;
use crate::nbd::wire::{Errno, MAGIC_CHUNK, MAGIC_EXTENDED_REPLY, MAGIC_SIMPLE, chunk};

/// Bytes of a simple reply, and of what precedes the payload of a simple READ.
pub const SIMPLE_LEN: usize = 16;
/// Bytes of a chunk's header.
pub const CHUNK_LEN: usize = 20;
/// Bytes of an extended chunk's header.
pub const EXTENDED_LEN: usize = 32;

/// A simple reply without payload.
pub fn simple(out: &mut Vec<u8>, cookie: u64, result: Result<(), Errno>) {
    let error = result.map_or_else(Errno::to_wire, |()| 0);
    out.extend_from_slice(&MAGIC_SIMPLE.to_be_bytes());
    out.extend_from_slice(&error.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
}

/// The header of a chunk with `len` bytes behind it.
pub fn chunk_header(out: &mut Vec<u8>, flags: u16, kind: u16, cookie: u64, len: u32) {
    out.extend_from_slice(&MAGIC_CHUNK.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// The header of an extended chunk with `len` bytes behind it; `offset` is the request's.
pub fn extended_header(out: &mut Vec<u8>, flags: u16, kind: u16, cookie: u64, offset: u64, len: u64) {
    out.extend_from_slice(&MAGIC_EXTENDED_REPLY.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// How the replies of a connection look, as it was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A header and, after a READ, its bytes.
    Simple,
    /// Chunks where there is content; simple ones are legal elsewhere.
    Structured,
    /// Chunks with long headers, for everything.
    Extended,
}

/// What a reply repeats of its request, and its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// As agreed.
    pub style: Style,
    /// The request's.
    pub cookie: u64,
    /// The request's.
    pub offset: u64,
}

impl To {
    /// The header of a chunk; not with simple replies.
    fn chunk(self, out: &mut Vec<u8>, flags: u16, kind: u16, len: u32) {
        match self.style {
            Style::Extended => {
                extended_header(out, flags, kind, self.cookie, self.offset, u64::from(len));
            }
            Style::Simple | Style::Structured => chunk_header(out, flags, kind, self.cookie, len),
        }
    }
}

/// What precedes the `len` bytes of a READ that succeeded: a simple reply, or the only chunk of another one. After
/// it no error can be reported. A READ of length zero is answered in full by this.
pub fn read_ok_header(out: &mut Vec<u8>, to: To, len: u32) {
    if to.style == Style::Simple {
        simple(out, to.cookie, Ok(()));
    } else if len == 0 {
        // A data chunk holds at least one byte.
        to.chunk(out, chunk::DONE, chunk::NONE, 0);
    } else {
        // `len` is at most the largest payload; the sum is too.
        to.chunk(out, chunk::DONE, chunk::OFFSET_DATA, len.saturating_add(8));
        out.extend_from_slice(&to.offset.to_be_bytes());
    }
}

/// A READ of zeroes as the only chunk; not with simple replies, `len` at least 1, and not if the request had DF
/// unless it covers all of it.
pub fn read_hole(out: &mut Vec<u8>, to: To, len: u32) {
    to.chunk(out, chunk::DONE, chunk::OFFSET_HOLE, 12);
    out.extend_from_slice(&to.offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// An error. With structured replies that is a chunk, whatever the command; the message then travels, cut to 4096
/// bytes.
pub fn error(out: &mut Vec<u8>, to: To, errno: Errno, message: Option<&str>) {
    if to.style == Style::Simple {
        return simple(out, to.cookie, Err(errno));
    }
    let message = text::cut(message.unwrap_or_default(), limits::NBD_STRING).as_bytes();
    to.chunk(out, chunk::DONE, chunk::ERROR, 6 + message.len() as u32);
    out.extend_from_slice(&errno.to_wire().to_be_bytes());
    out.extend_from_slice(&(message.len() as u16).to_be_bytes());
    out.extend_from_slice(message);
}

/// The extents (length, flags) of one context, consecutive from the request's offset. `done` on the last of
/// the negotiated contexts. Extents of length zero, which clients take for a protocol error, are left out, as
/// is what exceeds [`limits::NBD_EXTENTS`]; the caller gives at least one that is neither, and none past the end of
/// the request, so that without extended headers their lengths fit.
pub fn block_status(out: &mut Vec<u8>, to: To, context_id: u32, extents: &[(u64, u32)], done: bool) {
    let kept = || extents.iter().filter(|(len, _)| *len > 0).take(limits::NBD_EXTENTS);
    let (flags, count) = (if done { chunk::DONE } else { 0 }, kept().count() as u32);
    if to.style == Style::Extended {
        to.chunk(out, flags, chunk::BLOCK_STATUS_EXT, 8 + 16 * count);
        out.extend_from_slice(&context_id.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        for (len, status) in kept() {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&u64::from(*status).to_be_bytes());
        }
        return;
    }
    to.chunk(out, flags, chunk::BLOCK_STATUS, 4 + 8 * count);
    out.extend_from_slice(&context_id.to_be_bytes());
    for (len, status) in kept() {
        out.extend_from_slice(&u32::try_from(*len).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&status.to_be_bytes());
    }
}

/// Success without content: a simple reply where that is legal, as it is shorter, or an empty last chunk.
pub fn done(out: &mut Vec<u8>, to: To) {
    match to.style {
        Style::Extended => to.chunk(out, chunk::DONE, chunk::NONE, 0),
        Style::Simple | Style::Structured => simple(out, to.cookie, Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: u64 = 0x0102_0304_0506_0708;

    fn to(style: Style, offset: u64) -> To {
        To { style, cookie: COOKIE, offset }
    }

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn simple_replies_are_pinned() {
        let head = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(bytes(|o| simple(o, COOKIE, Ok(()))), head);
        assert_eq!(bytes(|o| done(o, to(Style::Simple, 0))), head);
        assert_eq!(bytes(|o| read_ok_header(o, to(Style::Simple, 9), 512)), head);
        let mut failed = head;
        failed[7] = 28;
        assert_eq!(bytes(|o| simple(o, COOKIE, Err(Errno::NoSpc))), failed);
        assert_eq!(bytes(|o| error(o, to(Style::Simple, 0), Errno::NoSpc, Some("full"))), failed);
    }

    #[test]
    fn chunks_are_pinned() {
        let chunked = to(Style::Structured, 4096);
        let head = |flags: u8, kind: [u8; 2], len: [u8; 4]| {
            let mut head = vec![0x66, 0x8e, 0x33, 0xef, 0, flags, kind[0], kind[1], 1, 2, 3, 4, 5, 6, 7, 8];
            head.extend(len);
            head
        };
        let mut data = head(1, [0, 1], [0, 0, 2, 8]);
        data.extend([0, 0, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!(bytes(|o| read_ok_header(o, chunked, 512)), data);
        let mut hole = head(1, [0, 2], [0, 0, 0, 12]);
        hole.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]);
        assert_eq!(bytes(|o| read_hole(o, chunked, 512)), hole);
        assert_eq!(bytes(|o| read_ok_header(o, chunked, 0)), head(1, [0, 0], [0; 4]));
        let mut failed = head(1, [0x80, 1], [0, 0, 0, 9]);
        failed.extend([0, 0, 0, 5, 0, 3, b'b', b'a', b'd']);
        assert_eq!(bytes(|o| error(o, chunked, Errno::Io, Some("bad"))), failed);
        let mut status = head(0, [0, 5], [0, 0, 0, 20]);
        status.extend([0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0]);
        let extents = [(65536, 3), (0, 9), (131_072, 0)];
        assert_eq!(bytes(|o| block_status(o, chunked, 2, &extents, false)), status);
    }

    #[test]
    fn extended_chunks_are_pinned_and_repeat_the_offset_of_the_request() {
        let long = to(Style::Extended, 0x1112_1314_1516_1718);
        let head = |flags: u8, kind: [u8; 2], len: u64| {
            let mut head = vec![0x6e, 0x8a, 0x27, 0x8c, 0, flags, kind[0], kind[1], 1, 2, 3, 4, 5, 6, 7, 8];
            head.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
            head.extend(len.to_be_bytes());
            head
        };
        assert_eq!(bytes(|o| done(o, long)), head(1, [0, 0], 0));
        assert_eq!(bytes(|o| read_ok_header(o, long, 0)), head(1, [0, 0], 0));
        let mut data = head(1, [0, 1], 520);
        data.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        assert_eq!(bytes(|o| read_ok_header(o, long, 512)), data);
        let mut failed = head(1, [0x80, 1], 9);
        failed.extend([0, 0, 0, 5, 0, 3, b'b', b'a', b'd']);
        assert_eq!(bytes(|o| error(o, long, Errno::Io, Some("bad"))), failed);
        let mut status = head(1, [0, 6], 40);
        status.extend([0, 0, 0, 2, 0, 0, 0, 2]);
        status.extend([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        status.extend([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(|o| block_status(o, long, 2, &[(1 << 40, 3), (0, 9), (512, 0)], true)), status);
    }

    #[test]
    fn messages_and_extents_are_cut_to_their_limits() {
        let long = bytes(|o| error(o, to(Style::Structured, 0), Errno::Io, Some(&"é".repeat(4000))));
        assert_eq!(long.len(), CHUNK_LEN + 6 + limits::NBD_STRING);
        let many = bytes(|o| {
            block_status(o, to(Style::Structured, 0), 1, &vec![(1, 0); limits::NBD_EXTENTS + 1], true);
        });
        assert_eq!(many.len(), CHUNK_LEN + 4 + 8 * limits::NBD_EXTENTS);
    }
}
