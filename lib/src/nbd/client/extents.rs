//! The answer to `BLOCK_STATUS` for one context (`proto.md`, "`NBD_REPLY_TYPE_BLOCK_STATUS`"; cases C8, C9, C12, C18).

use super::assembly::Assembly;
use super::replies::Reply;
use super::violation;
use crate::base::Result;
use crate::nbd::wire::Errno;

/// Keeps the extents of one request for which one context was negotiated. Bounded by what the parser takes in one
/// chunk, of which there is one, and by `most`.
#[derive(Clone, Debug)]
pub struct StatusAssembly {
    context: u32,
    len: u64,
    most: usize,
    found: Option<Vec<(u64, u64)>>,
    error: Option<Errno>,
}

impl StatusAssembly {
    /// For a request of `len` bytes; at most the first `most` extents are kept.
    pub const fn new(context: u32, len: u64, most: usize) -> Self {
        Self { context, len, most, found: None, error: None }
    }

    /// Takes one reply with this request's cookie. An error is a violation: the connection must die.
    pub fn accept(&mut self, reply: &Reply) -> Result<Assembly> {
        match reply {
            Reply::BlockStatus { context, extents, .. } => {
                if *context != self.context || self.found.is_some() {
                    return Err(violation(format_args!("extents of context {context}")));
                }
                self.found = Some(self.clip(extents)?);
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
    fn c9_c18_extents_are_taken_once_cut_to_the_request_and_not_past_it() {
        let ask = || StatusAssembly::new(7, 1000, 3);
        let mut whole = ask();
        let reply = status(7, &[(100, 3), (200, 0), (4000, 3)], true);
        assert_eq!(whole.accept(&reply).expect("taken"), Assembly::Complete);
        assert_eq!(whole.into_extents(), [(100, 3), (200, 0), (700, 3)]);
        let mut many = ask();
        many.accept(&status(7, &[(1, 0), (1, 3), (1, 0), (1, 3)], false)).expect("taken");
        assert_eq!(many.accept(&Reply::None { cookie: 1 }).expect("end"), Assembly::Complete);
        assert_eq!(many.into_extents().len(), 3);
        for lie in [
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
