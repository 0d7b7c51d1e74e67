//! The answer to `BLOCK_STATUS`, of which one context is wanted (`proto.md`, "`NBD_REPLY_TYPE_BLOCK_STATUS`"; cases C8,
//! C9, C12, C18). All clients have it from here: legs, and those of the command lines.

use super::assembly::Assembly;
use super::handshake::ServerInfo;
use super::replies::Reply;
use super::violation;
use crate::base::Result;
use crate::nbd::wire::Errno;

/// Keeps the extents of one request. Bounded by what the parser takes in one chunk, of which there is one for each
/// context, and by `most`.
#[derive(Clone, Debug)]
pub struct StatusAssembly {
    context: u32,
    /// Other contexts that were negotiated, and have not been answered.
    others: Vec<u32>,
    len: u64,
    most: usize,
    found: Option<Vec<(u64, u64)>>,
    error: Option<Errno>,
}

impl StatusAssembly {
    /// For a request of `len` bytes, answered for `context` and the `others` that were negotiated; at most the first
    /// `most` extents of `context` are kept.
    pub const fn new(context: u32, others: Vec<u32>, len: u64, most: usize) -> Self {
        Self { context, others, len, most, found: None, error: None }
    }

    /// The same where all of them are wanted, and all contexts are those of `info`.
    pub(super) fn whole(context: u32, info: &ServerInfo, len: u32) -> Self {
        let ids = info.contexts.iter().map(|(id, _)| *id);
        Self::new(context, ids.filter(|id| *id != context).collect(), len.into(), usize::MAX)
    }

    /// Takes one reply with this request's cookie. An error is a violation: the connection must die.
    pub fn accept(&mut self, reply: &Reply) -> Result<Assembly> {
        match reply {
            Reply::BlockStatus { context, extents, .. } => {
                let found = self.clip(extents)?;
                if *context == self.context && self.found.is_none() {
                    self.found = Some(found);
                } else if let Some(at) = self.others.iter().position(|other| other == context) {
                    self.others.swap_remove(at);
                } else {
                    return Err(violation(format_args!("extents of context {context}")));
                }
            }
            Reply::Error { error, .. } | Reply::Simple { error: Some(error), .. } => {
                self.error.get_or_insert(*error);
            }
            Reply::None { .. } => {}
            Reply::Simple { error: None, .. } | Reply::Data { .. } | Reply::Hole { .. } => {
                return Err(violation("no extents in reply to BLOCK_STATUS"));
            }
        }
        Ok(match (reply.done(), self.error) {
            (false, _) => Assembly::More,
            (true, Some(error)) => Assembly::Failed(error),
            (true, None) if self.found.is_some() => Assembly::Complete,
            (true, None) => Assembly::Incomplete,
        })
    }

    /// Length and flags of what was found: at least one, none empty, all inside the request.
    pub fn into_extents(self) -> Vec<(u64, u64)> {
        self.found.unwrap_or_default()
    }

    /// The same of a connection without extended headers, where length and flags have 32 bits.
    pub(super) fn into_compact(self) -> Vec<(u32, u32)> {
        self.into_extents().into_iter().map(|(len, flags)| (len as u32, flags as u32)).collect()
    }

    /// The last one may run past the request; one that begins past its end may not be.
    fn clip(&self, extents: &[(u64, u64)]) -> Result<Vec<(u64, u64)>> {
        let mut kept = Vec::with_capacity(extents.len().min(self.most));
        let mut left = self.len;
        for &(len, flags) in extents {
            if left == 0 {
                return Err(violation("extents that begin past the end of the request"));
            }
            if len == 0 {
                return Err(violation("an extent of length zero"));
            }
            let inside = len.min(left);
            left -= inside;
            if kept.len() < self.most {
                kept.push((inside, flags));
            }
        }
        if kept.is_empty() {
            return Err(violation("no extent in reply to BLOCK_STATUS"));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(context: u32, extents: &[(u64, u64)], done: bool) -> Reply {
        Reply::BlockStatus { cookie: 1, context, extents: extents.to_vec(), done }
    }

    #[test]
    fn c9_c12_c18_extents_are_taken_once_cut_to_the_request_and_not_past_it() {
        let ask = || StatusAssembly::new(7, vec![9], 1000, 3);
        let mut whole = ask();
        let reply = status(7, &[(100, 3), (200, 0), (4000, 3)], true);
        assert_eq!(whole.accept(&reply).expect("taken"), Assembly::Complete);
        assert_eq!(whole.into_extents(), [(100, 3), (200, 0), (700, 3)]);
        let mut many = ask();
        many.accept(&status(7, &[(1, 0), (1, 3), (1, 0), (1, 3)], false)).expect("taken");
        assert_eq!(many.accept(&Reply::None { cookie: 1 }).expect("end"), Assembly::Complete);
        assert_eq!(many.into_extents().len(), 3);
        // The other context that was negotiated is let pass, once.
        let mut both = ask();
        both.accept(&status(9, &[(1, 1)], false)).expect("taken");
        assert_eq!(both.accept(&status(7, &[(600, 3)], true)).expect("taken"), Assembly::Complete);
        assert_eq!(both.into_extents(), [(600, 3)]);
        let mut other = ask();
        assert_eq!(other.accept(&status(9, &[(1, 1)], true)).expect("taken"), Assembly::Incomplete);
        for lie in [
            vec![status(9, &[(10, 0)], false), status(9, &[(10, 0)], true)],
            vec![status(9, &[(1000, 0), (1, 0)], true)],
            vec![status(7, &[], true)],
            vec![status(7, &[(0, 0)], true)],
            vec![status(7, &[(10, 0), (0, 3), (10, 0)], true)],
            vec![status(7, &[(1000, 0), (1, 0)], true)],
            vec![status(8, &[(10, 0)], true)],
            vec![status(7, &[(10, 0)], false), status(7, &[(10, 0)], true)],
            vec![Reply::Simple { cookie: 1, error: None }],
            vec![Reply::Hole { cookie: 1, offset: 0, len: 10, done: true }],
        ] {
            let mut assembly = ask();
            let taken: Result<Vec<_>> = lie.iter().map(|reply| assembly.accept(reply)).collect();
            assert!(taken.is_err(), "{lie:?}");
        }
        assert_eq!(ask().accept(&Reply::None { cookie: 1 }).expect("end"), Assembly::Incomplete);
        let failed = ask().accept(&Reply::Simple { cookie: 1, error: Some(Errno::Inval) }).expect("end");
        assert_eq!(failed, Assembly::Failed(Errno::Inval));
    }
}
