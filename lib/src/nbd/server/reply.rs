//! How replies look: encoders that append to a buffer and allocate nothing of their own (`proto.md`, "Simple
//! reply message", "Structured reply chunk message").

use crate::base::limits;
use crate::nbd::text;
use crate::nbd::wire::{Errno, MAGIC_CHUNK, MAGIC_SIMPLE, chunk};

/// Bytes of a simple reply, and of what precedes the payload of a simple READ.
pub const SIMPLE_LEN: usize = 16;
/// Bytes of a chunk's header.
pub const CHUNK_LEN: usize = 20;

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

/// What precedes the `len` bytes of a READ that succeeded: a simple reply, or the only chunk of a structured
/// one. After it no error can be reported. A READ of length zero is answered in full by this.
pub fn read_ok_header(out: &mut Vec<u8>, session_structured: bool, cookie: u64, offset: u64, len: u32) {
    if !session_structured {
        simple(out, cookie, Ok(()));
    } else if len == 0 {
        // A data chunk holds at least one byte.
        chunk_header(out, chunk::DONE, chunk::NONE, cookie, 0);
    } else {
        // `len` is at most the largest payload; the sum is too.
        chunk_header(out, chunk::DONE, chunk::OFFSET_DATA, cookie, len.saturating_add(8));
        out.extend_from_slice(&offset.to_be_bytes());
    }
}

/// A READ of zeroes as the only chunk; only with structured replies, `len` at least 1, and not if the request
/// had DF unless it covers all of it.
pub fn read_hole(out: &mut Vec<u8>, cookie: u64, offset: u64, len: u32) {
    chunk_header(out, chunk::DONE, chunk::OFFSET_HOLE, cookie, 12);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// An error. `structured` must be true for a READ (and may be for any command) once structured replies were
/// negotiated; only then does the message travel, cut to 4096 bytes.
pub fn error(out: &mut Vec<u8>, structured: bool, cookie: u64, errno: Errno, message: Option<&str>) {
    if !structured {
        return simple(out, cookie, Err(errno));
    }
    let message = text::cut(message.unwrap_or_default(), limits::NBD_STRING).as_bytes();
    chunk_header(out, chunk::DONE, chunk::ERROR, cookie, 6 + message.len() as u32);
    out.extend_from_slice(&errno.to_wire().to_be_bytes());
    out.extend_from_slice(&(message.len() as u16).to_be_bytes());
    out.extend_from_slice(message);
}

/// The extents (length, flags) of one context, consecutive from the request's offset. `done` on the last of
/// the negotiated contexts. Extents of length zero, which clients take for a protocol error, are left out, as
/// is what exceeds [`limits::NBD_EXTENTS`]; the caller gives at least one that is neither.
pub fn block_status(out: &mut Vec<u8>, cookie: u64, context_id: u32, extents: &[(u32, u32)], done: bool) {
    let kept = || extents.iter().filter(|(len, _)| *len > 0).take(limits::NBD_EXTENTS);
    let flags = if done { chunk::DONE } else { 0 };
    chunk_header(out, flags, chunk::BLOCK_STATUS, cookie, 4 + 8 * kept().count() as u32);
    out.extend_from_slice(&context_id.to_be_bytes());
    for (len, status) in kept() {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&status.to_be_bytes());
    }
}

/// Success without content: a simple reply, or an empty last chunk.
pub fn done(out: &mut Vec<u8>, structured: bool, cookie: u64) {
    if structured {
        chunk_header(out, chunk::DONE, chunk::NONE, cookie, 0);
    } else {
        simple(out, cookie, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: u64 = 0x0102_0304_0506_0708;

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn simple_replies_are_pinned() {
        let head = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(bytes(|o| simple(o, COOKIE, Ok(()))), head);
        assert_eq!(bytes(|o| done(o, false, COOKIE)), head);
        assert_eq!(bytes(|o| read_ok_header(o, false, COOKIE, 9, 512)), head);
        let mut failed = head;
        failed[7] = 28;
        assert_eq!(bytes(|o| simple(o, COOKIE, Err(Errno::NoSpc))), failed);
        assert_eq!(bytes(|o| error(o, false, COOKIE, Errno::NoSpc, Some("full"))), failed);
    }

    #[test]
    fn chunks_are_pinned() {
        let head = |flags: u8, kind: [u8; 2], len: [u8; 4]| {
            let mut head = vec![0x66, 0x8e, 0x33, 0xef, 0, flags, kind[0], kind[1], 1, 2, 3, 4, 5, 6, 7, 8];
            head.extend(len);
            head
        };
        let mut data = head(1, [0, 1], [0, 0, 2, 8]);
        data.extend([0, 0, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!(bytes(|o| read_ok_header(o, true, COOKIE, 4096, 512)), data);
        let mut hole = head(1, [0, 2], [0, 0, 0, 12]);
        hole.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]);
        assert_eq!(bytes(|o| read_hole(o, COOKIE, 4096, 512)), hole);
        assert_eq!(bytes(|o| done(o, true, COOKIE)), head(1, [0, 0], [0; 4]));
        assert_eq!(bytes(|o| read_ok_header(o, true, COOKIE, 4096, 0)), head(1, [0, 0], [0; 4]));
        let mut failed = head(1, [0x80, 1], [0, 0, 0, 9]);
        failed.extend([0, 0, 0, 5, 0, 3, b'b', b'a', b'd']);
        assert_eq!(bytes(|o| error(o, true, COOKIE, Errno::Io, Some("bad"))), failed);
        let mut status = head(0, [0, 5], [0, 0, 0, 20]);
        status.extend([0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0]);
        let extents = [(65536, 3), (0, 9), (131_072, 0)];
        assert_eq!(bytes(|o| block_status(o, COOKIE, 2, &extents, false)), status);
    }

    #[test]
    fn messages_and_extents_are_cut_to_their_limits() {
        let long = bytes(|o| error(o, true, COOKIE, Errno::Io, Some(&"é".repeat(4000))));
        assert_eq!(long.len(), CHUNK_LEN + 6 + limits::NBD_STRING);
        let many = bytes(|o| block_status(o, COOKIE, 1, &vec![(1, 0); limits::NBD_EXTENTS + 1], true));
        assert_eq!(many.len(), CHUNK_LEN + 4 + 8 * limits::NBD_EXTENTS);
    }
}
