//! The bytes of a file as digests of blocks. Blocks of zeroes have no entry: a file of a terabyte that is all hole
//! costs nothing, and a hole equals written zeroes.

use super::{Digest, Ranges};
use crate::base::limits::CONTENT_BLOCK;

/// The digests of the blocks of a file that are not all zero, in order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(Vec<(u64, Digest)>);

/// The digest of a block, or `None` if it is all zero.
pub fn digest(block: &[u8]) -> Option<Digest> {
    (!is_zero(block)).then(|| Digest(*blake3::hash(block).as_bytes()))
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A first byte that differs is the usual case; the rest is compared with itself, shifted by one.
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

impl Content {
    /// Appends the next block; numbers ascend.
    pub fn push(&mut self, number: u64, digest: Digest) {
        debug_assert!(self.0.last().is_none_or(|(last, _)| *last < number));
        self.0.push((number, digest));
    }

    /// The blocks that are not all zero.
    pub fn blocks(&self) -> &[(u64, Digest)] {
        &self.0
    }

    /// The digest of a block; `None` if it is all zero.
    pub fn get(&self, number: u64) -> Option<Digest> {
        self.0.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| self.0[at].1)
    }

    /// Replaces what is known of some blocks (in order of their numbers), and forgets those past `size`.
    pub fn update(&mut self, changes: &[(u64, Option<Digest>)], size: u64) {
        let end = size.div_ceil(CONTENT_BLOCK);
        let mut merged = Vec::with_capacity(self.0.len() + changes.len());
        let mut old = self.0.drain(..).peekable();
        for (number, digest) in changes {
            while let Some(kept) = old.next_if(|(n, _)| n < number) {
                merged.push(kept);
            }
            let _ = old.next_if(|(n, _)| n == number);
            merged.extend(digest.map(|digest| (*number, digest)));
        }
        merged.extend(old);
        merged.retain(|(number, _)| *number < end);
        self.0 = merged;
    }

    /// The digest of the whole content of a file of this size.
    pub fn root(&self, size: u64) -> Digest {
        let mut hash = blake3::Hasher::new();
        hash.update(&size.to_le_bytes());
        for (number, digest) in &self.0 {
            hash.update(&number.to_le_bytes()).update(&digest.0);
        }
        Digest(*hash.finalize().as_bytes())
    }

    /// The ranges whose blocks differ, within a file of `size` bytes.
    pub fn changed_since(&self, base: &Self, size: u64) -> Ranges {
        let (mut a, mut b) = (self.0.iter().peekable(), base.0.iter().peekable());
        let mut ranges = Ranges::default();
        loop {
            let number = match (a.peek(), b.peek()) {
                (None, None) => return ranges,
                (Some((n, _)), None) | (None, Some((n, _))) => *n,
                (Some((n, _)), Some((m, _))) => *n.min(m),
            };
            let left = a.next_if(|(n, _)| *n == number);
            if left != b.next_if(|(n, _)| *n == number) {
                let start = number * CONTENT_BLOCK;
                ranges.insert(start..size.min(start + CONTENT_BLOCK));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(blocks: &[(u64, u8)]) -> Content {
        Content(blocks.iter().map(|(n, byte)| (*n, Digest([*byte; 32]))).collect())
    }

    #[test]
    fn blocks_of_zeroes_leave_no_trace() {
        assert_eq!(digest(&[0; 4096]), None);
        assert_eq!(digest(&[]), None);
        assert!(digest(&[0, 0, 1]).is_some() && digest(&[1, 1, 1]).is_some());
    }

    #[test]
    fn what_changed_is_found_and_made_up_for() {
        let (old, new) = (content(&[(0, 1), (2, 2), (5, 3)]), content(&[(0, 1), (2, 9), (3, 4)]));
        let size = 4 * CONTENT_BLOCK - 7;
        let changed = new.changed_since(&old, size);
        assert_eq!(changed.iter().next(), Some(2 * CONTENT_BLOCK..size));
        assert_eq!(changed.count(), 1, "block 5 is past the end");
        let mut patched = old;
        patched.update(&[(2, new.get(2)), (3, new.get(3))], size);
        assert_eq!((patched.root(size), &patched), (new.root(size), &new));
        patched.update(&[(2, None)], size);
        assert_eq!(patched, content(&[(0, 1), (3, 4)]));
        assert_ne!(content(&[]).root(1), content(&[]).root(2));
    }
}
