//! A set of blocks, a bit each.

use std::ops::Range;

/// A set of block numbers below a fixed bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u64,
    count: u64,
}

impl BlockSet {
    /// The empty set.
    pub fn new(blocks: u64) -> Self {
        Self { words: vec![0; blocks.div_ceil(64) as usize], blocks, count: 0 }
    }

    /// All blocks.
    pub fn full(blocks: u64) -> Self {
        let mut set = Self::new(blocks);
        set.insert_range(0..blocks);
        set
    }

    /// The bound.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether a block is in it.
    #[inline]
    pub fn contains(&self, block: u64) -> bool {
        self.words.get((block >> 6) as usize).is_some_and(|w| w >> (block & 63) & 1 == 1)
    }

    /// Adds a block; whether it was new.
    #[inline]
    pub fn insert(&mut self, block: u64) -> bool {
        let Some(word) = self.words.get_mut((block >> 6) as usize) else { return false };
        let bit = 1 << (block & 63);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    /// Takes a block out; whether it was in.
    #[inline]
    pub fn remove(&mut self, block: u64) -> bool {
        let Some(word) = self.words.get_mut((block >> 6) as usize) else { return false };
        let bit = 1 << (block & 63);
        let was = *word & bit != 0;
        *word &= !bit;
        self.count -= u64::from(was);
        was
    }

    /// Adds a range; how many were new.
    pub fn insert_range(&mut self, range: Range<u64>) -> u64 {
        range.filter(|&b| self.insert(b)).count() as u64
    }

    /// Takes a range out; how many were in.
    pub fn remove_range(&mut self, range: Range<u64>) -> u64 {
        range.filter(|&b| self.remove(b)).count() as u64
    }

    /// Whether any block of the range is in it.
    #[inline]
    pub fn any_in(&self, range: Range<u64>) -> bool {
        self.count > 0 && self.next_set(range.start).is_some_and(|b| b < range.end)
    }

    /// The first member not below `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let mut at = (from >> 6) as usize;
        let mut word = self.words.get(at)? & (!0 << (from & 63));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some((at as u64) << 6 | u64::from(word.trailing_zeros()))
    }

    /// The first run of members not below `from`, at most `max` long.
    pub fn next_run(&self, from: u64, max: u64) -> Option<Range<u64>> {
        let start = self.next_set(from)?;
        let mut end = start + 1;
        while end - start < max && self.contains(end) {
            end += 1;
        }
        Some(start..end)
    }

    /// Adds another set; how many were new.
    pub fn union_with(&mut self, other: &Self) -> u64 {
        let before = self.count;
        for block in other.iter() {
            self.insert(block);
        }
        self.count - before
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let next = self.next_set(from)?;
            from = next + 1;
            Some(next)
        })
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }
}
