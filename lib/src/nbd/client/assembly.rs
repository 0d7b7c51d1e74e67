//! When a request that may be answered in several chunks is answered (`proto.md`, "Structured reply types";
//! `nbd.md` section 2.5, cases C1, C11 to C14).

use super::replies::Reply;
use super::violation;
use crate::base::{Result, limits};
use crate::nbd::wire::Errno;

/// How far a reply is after one more chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assembly {
    /// More chunks follow.
    More,
    /// Answered in full; once the payload of the last header has been received too.
    Complete,
    /// The server says that it is done, but bytes are missing: the request failed as with EIO, and nothing of
    /// its buffer may be shown. The connection is still in step.
    Incomplete,
    /// The request failed; nothing of its buffer may be shown.
    Failed(Errno),
}

/// Keeps track of which bytes of one READ have been answered. Allocates only when chunks are scattered.
#[derive(Clone, Debug)]
pub struct ReadAssembly {
    structured: bool,
    offset: u64,
    end: u64,
    /// What has come in ascending order from the offset: the usual case.
    until: u64,
    /// Other pieces, disjoint, in order, none touching `until` or each other.
    scattered: Vec<(u64, u64)>,
    error: Option<Errno>,
}

impl ReadAssembly {
    /// For a READ of `len` bytes at `offset`, which lie in the export.
    pub const fn new(structured: bool, offset: u64, len: u32) -> Self {
        let end = offset.saturating_add(len as u64);
        Self { structured, offset, end, until: offset, scattered: Vec::new(), error: None }
    }

    /// Takes one reply with this READ's cookie. An error is a violation: the connection must die. A header of
    /// data is judged before its payload has come: the payload lies inside the request and nothing overlaps
    /// it, so it may be received straight into the caller's buffer at `offset` minus the request's.
    pub fn accept(&mut self, reply: &Reply) -> Result<Assembly> {
        match reply {
            Reply::Simple { .. } if self.structured => {
                return Err(violation("a simple reply to READ although structured ones were negotiated"));
            }
            Reply::Simple { error: None, .. } => return Ok(Assembly::Complete),
            Reply::Simple { error: Some(error), .. } => self.fail(*error),
            Reply::Data { offset, len, .. } | Reply::Hole { offset, len, .. } => self.cover(*offset, *len)?,
            Reply::None { .. } => {}
            Reply::Error { error, offset, .. } => {
                if let Some(at) = offset.filter(|at| !(self.offset..self.end).contains(at)) {
                    return Err(violation(format_args!("an error at {at}, outside of the request")));
                }
                self.fail(*error);
            }
            Reply::BlockStatus { .. } => return Err(violation("extents in reply to READ")),
        }
        Ok(match (reply.done(), self.error) {
            (false, _) => Assembly::More,
            (true, Some(error)) => Assembly::Failed(error),
            (true, None) if self.until == self.end => Assembly::Complete,
            (true, None) => Assembly::Incomplete,
        })
    }

    /// The first error is the one to report.
    fn fail(&mut self, error: Errno) {
        self.error.get_or_insert(error);
    }

    fn cover(&mut self, start: u64, len: u32) -> Result<()> {
        let outside = || violation(format_args!("data at {start}+{len}, outside of the request"));
        let end = start.checked_add(u64::from(len)).ok_or_else(outside)?;
        if start < self.offset || end > self.end {
            return Err(outside());
        }
        let twice = || violation(format_args!("data at {start}+{len}, which was sent before"));
        if start < self.until {
            return Err(twice());
        }
        let at = self.scattered.partition_point(|piece| piece.0 < start);
        let before = at.checked_sub(1).and_then(|i| self.scattered.get(i)).copied();
        let after = self.scattered.get(at).copied();
        if before.is_some_and(|piece| piece.1 > start) || after.is_some_and(|piece| piece.0 < end) {
            return Err(twice());
        }
        if start == self.until {
            self.until = end;
            if after.is_some_and(|piece| piece.0 == end) {
                self.until = self.scattered.remove(at).1;
            }
            return Ok(());
        }
        match (before.filter(|p| p.1 == start), after.filter(|p| p.0 == end)) {
            (Some(_), Some(next)) => {
                self.scattered.remove(at);
                self.scattered[at - 1].1 = next.1;
            }
            (Some(_), None) => self.scattered[at - 1].1 = end,
            (None, Some(_)) => self.scattered[at].0 = start,
            (None, None) if self.scattered.len() >= limits::NBD_FRAGMENTS => {
                return Err(violation(format_args!(
                    "a read in more than {} scattered pieces",
                    limits::NBD_FRAGMENTS
                )));
            }
            (None, None) => self.scattered.insert(at, (start, end)),
        }
        Ok(())
    }
}

/// The same for a request whose reply has no content: WRITE, FLUSH, TRIM, CACHE, `WRITE_ZEROES`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainAssembly {
    error: Option<Errno>,
}

impl PlainAssembly {
    /// Takes one reply with this request's cookie; simple and structured ones are legal. An error is a
    /// violation: the connection must die.
    pub fn accept(&mut self, reply: &Reply) -> Result<Assembly> {
        match reply {
            Reply::Simple { error: Some(error), .. } | Reply::Error { error, .. } => {
                self.error.get_or_insert(*error);
            }
            Reply::Simple { error: None, .. } | Reply::None { .. } => {}
            Reply::Data { .. } | Reply::Hole { .. } | Reply::BlockStatus { .. } => {
                return Err(violation("content in reply to a request that has none"));
            }
        }
        Ok(match (reply.done(), self.error) {
            (false, _) => Assembly::More,
            (true, Some(error)) => Assembly::Failed(error),
            (true, None) => Assembly::Complete,
        })
    }
}
