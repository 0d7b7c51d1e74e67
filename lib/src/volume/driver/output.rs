//! What waits to be sent on one socket: headers, written one behind the other, and payloads, sent from where
//! they are.

use super::buffers::Slice;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

/// Pieces handed to one `sendmsg(2)`.
const PIECES: usize = 64;
/// Sent headers are forgotten when they take so many bytes, so that a queue that never runs empty stays small.
const FORGET: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Headers; those before `head` are sent.
    heads: Vec<u8>,
    head: usize,
    parts: VecDeque<Part>,
    queued: u64,
    sent: u64,
}

#[derive(Debug)]
enum Part {
    /// So many bytes of the headers.
    Head(usize),
    Data(Slice),
}

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing is left.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The other side is gone.
    Broken,
}

impl Output {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes queued since the beginning: the place in the stream where the next byte goes.
    pub(super) const fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes sent since the beginning.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Appends what `write` appends to the headers.
    pub(super) fn head<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let before = self.heads.len();
        let result = write(&mut self.heads);
        let len = self.heads.len() - before;
        if len > 0 {
            self.queued += len as u64;
            match self.parts.back_mut() {
                Some(Part::Head(last)) => *last += len,
                _ => self.parts.push_back(Part::Head(len)),
            }
        }
        result
    }

    /// Appends a payload.
    pub(super) fn data(&mut self, data: Slice) {
        if data.len() > 0 {
            self.queued += data.len() as u64;
            self.parts.push_back(Part::Data(data));
        }
    }

    /// Sends until nothing is left or the socket takes no more.
    pub(super) fn flush(&mut self, fd: BorrowedFd<'_>) -> Sent {
        while !self.parts.is_empty() {
            let (offered, result) = self.send_once(fd);
            match result {
                Ok(n) => {
                    self.advance(n);
                    if n < offered {
                        return Sent::Blocked;
                    }
                }
                Err(Errno::AGAIN) => return Sent::Blocked,
                Err(Errno::INTR) => {}
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }

    /// One system call: how much was offered, and how it ended.
    fn send_once(&self, fd: BorrowedFd<'_>) -> (usize, Result<usize, Errno>) {
        if let (1, Some(Part::Head(len))) = (self.parts.len(), self.parts.front()) {
            return (*len, send(fd, &self.heads[self.head..self.head + len], SendFlags::NOSIGNAL));
        }
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let (mut head, mut offered) = (self.head, 0);
        let count = self.parts.len().min(PIECES);
        for (piece, part) in pieces.iter_mut().zip(&self.parts) {
            let bytes = match part {
                Part::Head(len) => {
                    head += len;
                    &self.heads[head - len..head]
                }
                Part::Data(data) => data.bytes(),
            };
            offered += bytes.len();
            *piece = IoSlice::new(bytes);
        }
        let mut none = SendAncillaryBuffer::default();
        (offered, sendmsg(fd, &pieces[..count], &mut none, SendFlags::NOSIGNAL))
    }

    /// Takes `n` sent bytes off the front.
    fn advance(&mut self, mut n: usize) {
        self.sent += n as u64;
        while n > 0 {
            let Some(part) = self.parts.front_mut() else { break };
            let len = match part {
                Part::Head(len) => *len,
                Part::Data(data) => data.len(),
            };
            let taken = n.min(len);
            n -= taken;
            if let Part::Head(_) = part {
                self.head += taken;
            }
            if taken == len {
                self.parts.pop_front();
                continue;
            }
            match part {
                Part::Head(len) => *len -= taken,
                Part::Data(data) => *data = data.part(taken..len),
            }
        }
        if self.parts.is_empty() {
            self.heads.clear();
            self.head = 0;
        } else if self.head > FORGET {
            self.heads.drain(..self.head);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::{Chunk, Pool};
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn headers_and_payloads_arrive_in_order_through_a_socket_that_blocks() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        ours.set_nonblocking(true).expect("nonblocking");
        let pool = Pool::new();
        let mut out = Output::default();
        let mut expected = Vec::new();
        for i in 0..200u32 {
            let head = i.to_be_bytes();
            out.head(|heads| heads.extend_from_slice(&head));
            expected.extend_from_slice(&head);
            if i % 3 == 0 {
                let mut chunk = pool.take(10_000);
                Chunk::alone(&mut chunk).expect("alone")[..10_000].fill(i as u8);
                expected.extend_from_slice(&chunk.bytes()[..10_000]);
                out.data(Chunk::into_slice(chunk, 10_000));
            }
        }
        assert_eq!(out.queued(), expected.len() as u64);
        let mut got = Vec::new();
        let mut piece = vec![0; 7777];
        loop {
            let sent = out.flush(ours.as_fd());
            if sent == Sent::All {
                break;
            }
            assert_eq!(sent, Sent::Blocked);
            let n = theirs.read(&mut piece).expect("read");
            got.extend_from_slice(&piece[..n]);
        }
        drop(ours);
        theirs.read_to_end(&mut got).expect("rest");
        assert!(got == expected);
        assert_eq!((out.sent(), out.is_empty()), (expected.len() as u64, true));
    }

    /// A client that is always a little behind: headers that were sent must not stay until it has caught up.
    #[test]
    fn s28_a_queue_that_never_runs_empty_stays_small() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        ours.set_nonblocking(true).expect("nonblocking");
        let mut out = Output::default();
        let mut piece = vec![0; 1 << 20];
        while out.flush(ours.as_fd()) == Sent::All {
            out.head(|heads| heads.resize(heads.len() + (1 << 20), 1));
        }
        for _ in 0..64 {
            out.head(|heads| heads.resize(heads.len() + (1 << 20), 2));
            let mut left = 1 << 20;
            while left > 0 {
                left -= theirs.read(&mut piece[..left]).expect("read");
                assert_eq!(out.flush(ours.as_fd()), Sent::Blocked, "it is never empty");
            }
        }
        assert!(out.heads.capacity() < 8 << 20, "{} bytes", out.heads.capacity());
    }

    #[test]
    fn a_peer_that_is_gone_is_noticed_without_a_signal() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        drop(theirs);
        let mut out = Output::default();
        out.head(|heads| heads.push(1));
        assert_eq!(out.flush(ours.as_fd()), Sent::Broken);
    }
}
