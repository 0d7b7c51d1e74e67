//! A set of blocks of a volume: one bit each in 64-bit words, its size always known.

use crate::base::BlockSize;
use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;
use std::ops::Range;

/// Blocks in one word; on disk a *run* (design.md section 5).
pub const WORD_BLOCKS: u64 = 64;

/// A set of block numbers below a fixed bound. One insertion is a load, a store and a few instructions; an
/// empty set of any size costs no memory before it is touched (the kernel's zero pages).
///
/// Bits of the last word beyond the bound are zero at all times. A block at or beyond the bound is never
/// contained; inserting one is a bug of the caller, and panics.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u64,
    count: u64,
}

/// The bits of word `index` that lie inside `range` (which must touch the word).
fn mask(index: u64, range: &Range<u64>) -> u64 {
    let base = index * WORD_BLOCKS;
    let low = u64::MAX << range.start.saturating_sub(base);
    let above = (base + WORD_BLOCKS).saturating_sub(range.end);
    low & (u64::MAX >> above)
}

/// The words that `range` touches.
fn touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / WORD_BLOCKS..(range.end - 1) / WORD_BLOCKS + 1 }
}

impl BlockSet {
    /// An empty set of a volume of `blocks` blocks.
    pub fn new(blocks: u64) -> Self {
        Self { words: vec![0; blocks.div_ceil(WORD_BLOCKS) as usize], blocks, count: 0 }
    }

    /// The set of all `blocks` blocks.
    pub fn full(blocks: u64) -> Self {
        let mut words = vec![u64::MAX; blocks.div_ceil(WORD_BLOCKS) as usize];
        if let Some(last) = words.last_mut() {
            *last &= mask(blocks.div_ceil(WORD_BLOCKS) - 1, &(0..blocks));
        }
        Self { words, blocks, count: blocks }
    }

    /// A set from words, least significant bit first. Missing words are empty; bits at or beyond `blocks` are
    /// ignored.
    pub fn from_words(mut words: Vec<u64>, blocks: u64) -> Self {
        let len = blocks.div_ceil(WORD_BLOCKS);
        words.resize(len as usize, 0);
        if let Some(last) = words.last_mut() {
            *last &= mask(len - 1, &(0..blocks));
        }
        let count = words.iter().map(|w| u64::from(w.count_ones())).sum();
        Self { words, blocks, count }
    }

    /// The bound: blocks of the volume.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks in the set; kept, not counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every block is in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.blocks
    }

    /// Whether `block` is in the set.
    #[inline]
    pub fn contains(&self, block: u64) -> bool {
        block < self.blocks && self.words[(block / WORD_BLOCKS) as usize] >> (block % WORD_BLOCKS) & 1 == 1
    }

    /// Adds a block; whether it is new.
    #[inline]
    pub fn insert(&mut self, block: u64) -> bool {
        assert!(block < self.blocks, "block {block} of {}", self.blocks);
        let word = &mut self.words[(block / WORD_BLOCKS) as usize];
        let bit = 1 << (block % WORD_BLOCKS);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    /// Takes a block out; whether it was in.
    #[inline]
    pub fn remove(&mut self, block: u64) -> bool {
        if !self.contains(block) {
            return false;
        }
        self.words[(block / WORD_BLOCKS) as usize] &= !(1 << (block % WORD_BLOCKS));
        self.count -= 1;
        true
    }

    /// Adds the blocks of a range; how many are new.
    pub fn insert_range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.end <= self.blocks || range.is_empty(), "block {} of {}", range.end, self.blocks);
        let mut new = 0;
        for index in touched(&range) {
            let mask = mask(index, &range);
            let word = &mut self.words[index as usize];
            new += u64::from((mask & !*word).count_ones());
            *word |= mask;
        }
        self.count += new;
        new
    }

    /// Takes the blocks of a range out; how many were in.
    pub fn remove_range(&mut self, range: Range<u64>) -> u64 {
        let range = range.start..range.end.min(self.blocks);
        let mut gone = 0;
        for index in touched(&range) {
            let mask = mask(index, &range);
            let word = &mut self.words[index as usize];
            gone += u64::from((mask & *word).count_ones());
            *word &= !mask;
        }
        self.count -= gone;
        gone
    }

    /// Whether any block of a range is in the set.
    pub fn any_in(&self, range: Range<u64>) -> bool {
        let range = range.start..range.end.min(self.blocks);
        touched(&range).any(|index| self.words[index as usize] & mask(index, &range) != 0)
    }

    /// The first block of the set at or after `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.scan(from, 0)
    }

    /// The first block at or after `from` that is not in the set.
    pub fn next_clear(&self, from: u64) -> Option<u64> {
        self.scan(from, u64::MAX).filter(|block| *block < self.blocks)
    }

    /// The first bit at or after `from` that differs from those of `flip`.
    fn scan(&self, from: u64, flip: u64) -> Option<u64> {
        if from >= self.blocks {
            return None;
        }
        let first = (from / WORD_BLOCKS) as usize;
        let word = (self.words[first] ^ flip) & (u64::MAX << (from % WORD_BLOCKS));
        if word != 0 {
            return Some(first as u64 * WORD_BLOCKS + u64::from(word.trailing_zeros()));
        }
        let rest = &self.words[first + 1..];
        let at = rest.iter().position(|w| *w != flip)?;
        let bit = (rest[at] ^ flip).trailing_zeros();
        Some((first + 1 + at) as u64 * WORD_BLOCKS + u64::from(bit))
    }

    /// The first run of neighbouring blocks at or after `from`, cut at `max_len` blocks.
    pub fn next_run(&self, from: u64, max_len: u64) -> Option<Range<u64>> {
        let start = self.next_set(from)?;
        let limit = start.saturating_add(max_len.max(1)).min(self.blocks);
        // A short run is not searched to the end of the volume: words beyond the limit are not looked at.
        let mut end = start + 1;
        while end < limit {
            let word = self.words[(end / WORD_BLOCKS) as usize] >> (end % WORD_BLOCKS);
            let ones = u64::from((!word).trailing_zeros()).min(WORD_BLOCKS - end % WORD_BLOCKS);
            end += ones;
            if end % WORD_BLOCKS != 0 || ones == 0 {
                break;
            }
        }
        Some(start..end.min(limit))
    }

    /// Adds all blocks of a set of the same volume; how many are new.
    pub fn union_with(&mut self, other: &Self) -> u64 {
        assert_eq!(self.blocks, other.blocks, "sets of different volumes");
        let mut count = 0;
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
            count += u64::from(word.count_ones());
        }
        let new = count - self.count;
        self.count = count;
        new
    }

    /// Grows the volume to `blocks` blocks; the new ones are not in the set.
    pub fn grow(&mut self, blocks: u64) {
        assert!(blocks >= self.blocks, "a volume of {} blocks shrinks to {blocks}", self.blocks);
        self.words.resize(blocks.div_ceil(WORD_BLOCKS) as usize, 0);
        self.blocks = blocks;
    }

    /// Takes all blocks out.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }

    /// The blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let block = self.next_set(from)?;
            from = block + 1;
            Some(block)
        })
    }

    /// The runs of neighbouring blocks in order, each at most `max_len` blocks.
    pub fn runs(&self, max_len: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let run = self.next_run(from, max_len)?;
            from = run.end;
            Some(run)
        })
    }

    /// The words, least significant bit first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The bits as a slice of the `bitvec` crate.
    pub fn bits(&self) -> &BitSlice<u64, Lsb0> {
        &BitSlice::from_slice(&self.words)[..self.blocks as usize]
    }

    /// Exactly how many bytes of a volume of `volume_size` bytes the set covers; the last block may be short.
    pub fn bytes(&self, volume_size: u64, block: BlockSize) -> u64 {
        let Some(last) = self.blocks.checked_sub(1).filter(|last| self.contains(*last)) else {
            return self.count * block.bytes();
        };
        (self.count - 1) * block.bytes() + block.range(&(last..last + 1), volume_size).len
    }
}

impl std::fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockSet({} of {} blocks)", self.count, self.blocks)
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
