//! Ranges of bytes as foreign formats name them, and the way from them to words.

use super::format::Header;
use super::stream::{Source, set_bits};
use crate::base::{ByteRange, Class, Error, Result, limits};
use std::ops::Range;

/// Byte ranges on their way in: in any order, overlapping or not. Neighbours melt into one as they come, so that
/// memory follows the number of separate runs, at most [`limits::MAP_RUNS`].
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    list: Vec<ByteRange>,
    unsorted: bool,
}

impl Ranges {
    /// Adds a range. Class `Damaged` when there are too many separate ones.
    pub fn push(&mut self, range: ByteRange) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if let Some(last) = self.list.last_mut() {
            if range.offset >= last.offset && range.offset <= last.end() {
                last.len = last.end().max(range.end()) - last.offset;
                return Ok(());
            }
            self.unsorted |= range.offset < last.offset;
        }
        if self.list.len() >= limits::MAP_RUNS {
            self.compact();
            if self.list.len() >= limits::MAP_RUNS {
                let why = format!("more than {} separate ranges", limits::MAP_RUNS);
                return Err(Error::new(Class::Damaged, why));
            }
        }
        self.list.push(range);
        Ok(())
    }

    fn compact(&mut self) {
        self.list.sort_unstable_by_key(|range| range.offset);
        self.list.dedup_by(|next, last| {
            let joined = next.offset <= last.end();
            if joined {
                last.len = last.end().max(next.end()) - last.offset;
            }
            joined
        });
        self.unsorted = false;
    }

    /// The ranges in order, none touching another.
    pub fn into_sorted(mut self) -> Vec<ByteRange> {
        if self.unsorted {
            self.compact();
        }
        self.list
    }
}

/// A map made of ranges in order: every block that one of them touches is dirty.
#[derive(Debug)]
pub struct RangeSource {
    header: Header,
    ranges: std::vec::IntoIter<ByteRange>,
    pending: Range<u64>,
    word: u64,
}

impl RangeSource {
    /// A map of `ranges`, which are in order. Class `Damaged` if one reaches past the size of the map: nothing
    /// is cut off silently.
    pub fn new(object: &str, header: Header, ranges: Vec<ByteRange>) -> Result<Self> {
        let size = header.identity.size;
        if let Some(last) = ranges.last().filter(|last| last.end() > size) {
            return Err(Error::new(
                Class::Damaged,
                format!("{object}: making a map of {size} bytes: the range {last} reaches past it"),
            ));
        }
        Ok(Self { header, ranges: ranges.into_iter(), pending: 0..0, word: 0 })
    }
}

impl Source for RangeSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        words.fill(0);
        let base = self.word * 64;
        let end = base + words.len() as u64 * 64;
        self.word += words.len() as u64;
        loop {
            if self.pending.is_empty() {
                match self.ranges.next() {
                    Some(range) => self.pending = self.header.identity.block.cover(&range),
                    None => return Ok(()),
                }
            }
            if self.pending.start >= end {
                return Ok(());
            }
            // The block before may have been in the chunk before: a range can begin in it.
            let start = self.pending.start.max(base);
            let stop = self.pending.end.min(end);
            if start < stop {
                set_bits(words, start - base..stop - base);
            }
            self.pending.start = stop.max(self.pending.start).min(self.pending.end);
            if self.pending.end > end {
                return Ok(());
            }
            self.pending = 0..0;
        }
    }
}
