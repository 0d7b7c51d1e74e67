//! Requests out of a client's bytes. What small requests carry stays in the buffer it was received into; the
//! payload of a large one is received straight into a buffer of its own.

use super::buffers::{Chunk, Pool, Slice};
use crate::base::limits;
use crate::nbd::server::{Session, check, payload_len, request::drainable};
use crate::nbd::{Command, CommandFlags, Errno, Request};
use rustix::io::{Errno as OsError, readv};
use rustix::net::{RecvFlags, recv};
use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A receive buffer as long as little comes at a time: each write that is in flight may keep one alive.
const SMALL: usize = 64 << 10;
/// A receive buffer when the small one was filled.
const LARGE: usize = 256 << 10;
/// After a payload of this size only the next header is received, so that a payload that follows it lands in
/// its own buffer.
const LEAN: u32 = 64 << 10;
/// Room for the longer of the two headers.
const HEAD: usize = Request::EXTENDED_LEN;

/// See the module.
#[derive(Debug)]
pub(super) struct Input {
    pool: Pool,
    chunk: Option<Arc<Chunk>>,
    /// Bytes of the chunk that are not parsed yet.
    start: usize,
    end: usize,
    /// The beginning of a header that was cut off, or received by itself.
    head: [u8; HEAD],
    head_len: usize,
    /// Bytes of a header on this connection.
    head_size: usize,
    /// A payload that has not come in full.
    filling: Option<Filling>,
    /// A payload that is thrown away, its length, and the request to refuse after it.
    draining: Option<(u64, Request, Errno)>,
    /// A request for which there was no room, and what is wrong with it.
    waiting: Option<(Request, Result<(), Errno>)>,
    /// What the last receive filled; decides the size of the next buffer.
    size: usize,
    lean: bool,
    received: u64,
}

#[derive(Debug)]
struct Filling {
    request: Request,
    chunk: Arc<Chunk>,
    filled: usize,
}

/// What a connection brought.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A legal request; with its payload if it is a write of at least one byte.
    Request(Request, Option<Slice>),
    /// A request to refuse; its payload is gone.
    Refused(Request, Errno),
    /// Bytes that cannot be a request: close.
    Garbage,
    /// The header of a request has come for which there is no room now. Nothing is read until there is.
    NoRoom,
}

/// How receiving went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Some bytes came.
    Some,
    /// None for now.
    Blocked,
    /// The other side has ended the stream, or is gone.
    End,
}

impl Input {
    /// Nothing received yet.
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            chunk: None,
            start: 0,
            end: 0,
            head: [0; HEAD],
            head_len: 0,
            head_size: Request::LEN,
            filling: None,
            draining: None,
            waiting: None,
            size: SMALL,
            lean: false,
            received: 0,
        }
    }

    /// From now on headers have so many bytes.
    pub(super) fn expect_headers(&mut self, len: usize) {
        self.head_size = len.min(HEAD);
    }

    /// Bytes received and not parsed, for the handshake.
    pub(super) fn unparsed(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.start..self.end])
    }

    /// Takes bytes of [`Input::unparsed`].
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Whether another receive may be asked for: everything was parsed.
    pub(super) fn is_hungry(&self) -> bool {
        self.start == self.end
    }

    /// Bytes received since the beginning.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Whether the rest of a payload is awaited: more is likely to be there already.
    pub(super) const fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// The same, where waiting would cost more than the rest of it.
    pub(super) fn is_filling_little(&self) -> bool {
        self.filling.as_ref().is_some_and(|f| f.request.length < u64::from(LEAN))
    }

    /// One receive. Only when [`Input::is_hungry`].
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>) -> Received {
        let result = if self.filling.is_some() {
            self.receive_payload(fd)
        } else if self.lean {
            recv(fd, &mut self.head[self.head_len..self.head_size], RecvFlags::empty()).map(|(n, _)| {
                self.head_len += n;
                n
            })
        } else {
            self.receive_chunk(fd)
        };
        match result {
            Ok(0) => Received::End,
            Ok(n) => {
                self.received += n as u64;
                Received::Some
            }
            Err(OsError::AGAIN | OsError::INTR) => Received::Blocked,
            Err(_) => Received::End,
        }
    }

    /// The rest of a payload into its own buffer, and behind it the next header, if it is there already.
    fn receive_payload(&mut self, fd: BorrowedFd<'_>) -> Result<usize, OsError> {
        let Some(filling) = &mut self.filling else { return Ok(0) };
        let len = filling.request.length as usize;
        let Some(bytes) = Chunk::alone(&mut filling.chunk) else { return Ok(0) };
        let head = &mut self.head[..self.head_size];
        let mut pieces = [IoSliceMut::new(&mut bytes[filling.filled..len]), IoSliceMut::new(head)];
        let n = readv(fd, &mut pieces)?;
        let of_payload = n.min(len - filling.filled);
        filling.filled += of_payload;
        self.head_len = n - of_payload;
        Ok(n)
    }

    /// Whatever comes, into a buffer that nobody reads any more.
    fn receive_chunk(&mut self, fd: BorrowedFd<'_>) -> Result<usize, OsError> {
        let mut kept = self.chunk.take().filter(|chunk| chunk.bytes().len() == self.size);
        let alone = kept.as_mut().is_some_and(|chunk| Chunk::alone(chunk).is_some());
        let mut chunk = kept.filter(|_| alone).unwrap_or_else(|| self.pool.take(self.size));
        let Some(bytes) = Chunk::alone(&mut chunk) else { return Ok(0) };
        let n = if self.head_len > 0 {
            let rest = self.head_size - self.head_len;
            let head = &mut self.head[self.head_len..self.head_size];
            let mut pieces = [IoSliceMut::new(head), IoSliceMut::new(bytes)];
            let n = readv(fd, &mut pieces)?;
            self.head_len += n.min(rest);
            self.end = n.saturating_sub(rest);
            n
        } else {
            let (n, _) = recv(fd, &mut *bytes, RecvFlags::empty())?;
            self.end = n;
            n
        };
        self.size = if self.end >= SMALL { LARGE } else { SMALL };
        self.start = 0;
        self.chunk = Some(chunk);
        Ok(n)
    }

    /// The next request that has come in full. Before memory is taken for one, `room` is asked, once: it gets the
    /// bytes that the request and its reply take.
    pub(super) fn next(&mut self, session: &Session, room: impl FnOnce(u32) -> bool) -> Option<Incoming> {
        if self.draining.is_some() {
            return self.drain();
        }
        if let Some(filling) = &self.filling {
            if filling.filled < filling.request.length as usize {
                return None;
            }
            let Filling { request, chunk, filled } = self.filling.take()?;
            return Some(Incoming::Request(request, Some(Chunk::into_slice(chunk, filled))));
        }
        let (request, legal) = if let Some(waiting) = self.waiting.take() {
            waiting
        } else {
            let header = self.header()?;
            let Some(request) = session.parse(&header) else { return Some(Incoming::Garbage) };
            if !drainable(&request, session.extended) {
                return Some(Incoming::Garbage);
            }
            (request, check(&request, session))
        };
        let cost = if legal.is_ok() { cost(&request, session) } else { 0 };
        if request.command != Command::Disc && !room(cost) {
            self.waiting = Some((request, legal));
            return Some(Incoming::NoRoom);
        }
        let payload = payload_len(&request, session.extended);
        self.lean = payload >= u64::from(LEAN);
        match legal {
            Err(errno) => {
                self.lean = false;
                self.draining = Some((payload, request, errno));
                self.drain()
            }
            Ok(()) if payload > 0 => self.payload(request),
            Ok(()) => Some(Incoming::Request(request, None)),
        }
    }

    /// A whole header, from the buffer or put together; behind a short one stands nothing of meaning.
    fn header(&mut self) -> Option<[u8; HEAD]> {
        let chunk = self.chunk.as_ref().map_or(&[][..], |chunk| &chunk.bytes()[self.start..self.end]);
        let size = self.head_size;
        if self.head_len == 0 && chunk.len() >= size {
            let mut header = [0; HEAD];
            header[..size].copy_from_slice(&chunk[..size]);
            self.start += size;
            return Some(header);
        }
        let taken = chunk.len().min(size - self.head_len);
        self.head[self.head_len..self.head_len + taken].copy_from_slice(&chunk[..taken]);
        self.head_len += taken;
        self.start += taken;
        if self.head_len < size {
            return None;
        }
        self.head_len = 0;
        Some(self.head)
    }

    /// The payload of a write: where it is, or the beginning of it into its own buffer.
    fn payload(&mut self, request: Request) -> Option<Incoming> {
        let len = request.length as usize;
        let there = self.end - self.start;
        if there >= len
            && let Some(chunk) = &self.chunk
        {
            let range = self.start..self.start + len;
            // Shared it costs nothing, and keeps everything alive that came with it.
            let copy =
                if self.pool.is_crowded() { self.pool.copy(&chunk.bytes()[range.clone()]) } else { None };
            let slice = copy.unwrap_or_else(|| Chunk::slice(chunk, range));
            self.start += len;
            return Some(Incoming::Request(request, Some(slice)));
        }
        let mut chunk = self.pool.take(len);
        let from = self.unparsed();
        Chunk::alone(&mut chunk)?[..there].copy_from_slice(from);
        self.start = self.end;
        self.filling = Some(Filling { request, chunk, filled: there });
        None
    }

    fn drain(&mut self) -> Option<Incoming> {
        let (left, request, errno) = self.draining.take()?;
        let there = (self.end - self.start) as u64;
        let taken = left.min(there);
        self.start += taken as usize;
        if taken < left {
            self.draining = Some((left - taken, request, errno));
            return None;
        }
        Some(Incoming::Refused(request, errno))
    }
}

/// Bytes that a legal request and its reply take: buffers are powers of two.
fn cost(request: &Request, session: &Session) -> u32 {
    match request.command {
        // Both are legal: at most the largest payload.
        Command::Read | Command::Write => (request.length as u32).next_power_of_two(),
        Command::BlockStatus if !request.flags.has(CommandFlags::REQ_ONE) => {
            let each = if session.extended { 16 } else { 8 };
            each * limits::NBD_EXTENTS as u32 * session.contexts.len() as u32
        }
        _ => 0,
    }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
