//! A set of byte ranges of one file.

use crate::base::limits;
use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range; an empty one changes nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        // The last range that begins at or before our end may swallow us, or be swallowed; so may those before it.
        while let Some((&s, &e)) = self.0.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(start, end);
    }

    /// Adds all ranges of another set.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// Keeps what lies below `limit`.
    pub fn clip(&mut self, limit: u64) {
        self.0.split_off(&limit);
        if let Some(mut last) = self.0.last_entry() {
            let end = last.get_mut();
            *end = limit.min(*end);
        }
    }

    /// With more than [`limits::FSLOG_RANGES`] ranges the smallest gaps close: never less than before.
    pub fn bound(&mut self) {
        let surplus = self.0.len().saturating_sub(limits::FSLOG_RANGES);
        if surplus == 0 {
            return;
        }
        // Half of the room is made at once, so that a file written at random is not sorted again at every write.
        let close = surplus + limits::FSLOG_RANGES / 2;
        let ends = self.0.values();
        let mut gaps: Vec<_> =
            self.0.keys().skip(1).zip(ends).map(|(next, end)| (next - end, *end)).collect();
        gaps.sort_unstable();
        for (gap, end) in gaps.into_iter().take(close) {
            self.insert(end..end + gap);
        }
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Bytes in them.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether every byte of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .iter()
            .all(|range| self.0.range(..=range.start).next_back().is_some_and(|(_, end)| *end >= range.end))
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_the_set_of_its_bytes(
            list in prop::collection::vec((0u64..60, 0u64..9), 0..20),
            limit in 0u64..70,
        ) {
            let mut set: Ranges = list.iter().map(|(at, len)| *at..at + len).collect();
            set.clip(limit);
            let model: Vec<u64> =
                (0..limit).filter(|b| list.iter().any(|(at, len)| (*at..at + len).contains(b))).collect();
            let bytes: Vec<u64> = set.iter().flatten().collect();
            prop_assert_eq!(bytes, model);
            let list: Vec<_> = set.iter().collect();
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start), "touching: {:?}", list);
        }
    }

    #[test]
    fn too_many_ranges_close_the_smallest_gaps_first() {
        let mut set: Ranges = (0..=limits::FSLOG_RANGES as u64).map(|at| at * 100..at * 100 + 50).collect();
        set.insert(1_000_000_000..1_000_000_001);
        let before = set.clone();
        set.bound();
        assert!(set.count() <= limits::FSLOG_RANGES && set.covers(&before));
        assert!(!set.covers(&std::iter::once(500_000_000..500_000_001).collect()), "the widest gap stays");
    }
}
