//! The bytes of a file as pieces of other things: of files as the base has them, and of a stream. Writes, clones and
//! truncations are done to the pieces, so that nothing is copied before all of a stream is known to be good.

use super::{Content, ObjectId, Ranges};
use crate::base::limits::CONTENT_BLOCK;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a file of the base, at an offset.
    Base(ObjectId, u64),
    /// From a place of the stream.
    Stream(u64),
    /// From a packed extent of the stream, by its number, at an offset.
    Packed(u32, u32),
}

impl Source {
    /// The same, so many bytes further.
    const fn skip(self, by: u64) -> Self {
        match self {
            Self::Base(id, at) => Self::Base(id, at + by),
            Self::Stream(at) => Self::Stream(at + by),
            Self::Packed(extent, at) => Self::Packed(extent, at + by as u32),
        }
    }
}

/// Disjoint pieces by their offset; zeroes are between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patchwork(BTreeMap<u64, (u64, Source)>);

impl Patchwork {
    /// A file as the base has it. Its zeroes are no pieces, however large they are.
    pub fn of_base(id: ObjectId, content: &Content, size: u64) -> Self {
        let blocks = content.blocks().iter().map(|(number, _)| number * CONTENT_BLOCK);
        let ranges: Ranges = blocks.map(|at| at..size.min(at + CONTENT_BLOCK)).collect();
        Self(ranges.iter().map(|range| (range.start, (range.end, Source::Base(id, range.start)))).collect())
    }

    /// How many pieces there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A range becomes zeroes.
    pub fn clear(&mut self, range: &Range<u64>) {
        if range.start >= range.end {
            return;
        }
        if let Some((&start, &(end, source))) = self.0.range(..range.start).next_back()
            && end > range.start
        {
            self.0.insert(start, (range.start, source));
            if end > range.end {
                self.0.insert(range.end, (end, source.skip(range.end - start)));
            }
        }
        while let Some((&start, &(end, source))) = self.0.range(range.clone()).next() {
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, (end, source.skip(range.end - start)));
            }
        }
    }

    /// A range comes from somewhere else.
    pub fn put(&mut self, range: &Range<u64>, source: Source) {
        self.clear(range);
        if range.start < range.end {
            self.0.insert(range.start, (range.end, source));
        }
    }

    /// Everything from `size` on is void.
    pub fn cut(&mut self, size: u64) {
        self.clear(&(size..u64::MAX));
    }

    /// The pieces of a range, clipped.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Source)> {
        let (from, to) = (range.start, range.end);
        let before = self.0.range(..from).next_back();
        let all = before.into_iter().chain(self.0.range(from..to.max(from)));
        all.filter_map(move |(&start, &(end, source))| {
            let (clipped, end) = (start.max(from), end.min(to));
            (clipped < end).then(|| (clipped..end, source.skip(clipped - start)))
        })
    }

    /// The pieces of a range, clipped, to keep.
    pub fn clone_within(&self, range: &Range<u64>) -> Vec<(Range<u64>, Source)> {
        self.within(range).collect()
    }

    /// The blocks, as ranges of their numbers, that may be others than in the base, where the file was `content` of
    /// `before` bytes; now it has `size`.
    pub fn changed(&self, id: ObjectId, content: &Content, before: u64, size: u64) -> Ranges {
        let mut blocks = Ranges::default();
        let same = |start: u64, source: Source| source == Source::Base(id, start);
        for (&start, &(end, source)) in &self.0 {
            if !same(start, source) {
                blocks.insert(start / CONTENT_BLOCK..end.div_ceil(CONTENT_BLOCK));
                continue;
            }
            let whole = end % CONTENT_BLOCK == 0 || end == size && before == size;
            for (at, whole) in [(start, start % CONTENT_BLOCK == 0), (end, whole)] {
                if !whole {
                    blocks.insert(at / CONTENT_BLOCK..at / CONTENT_BLOCK + 1);
                }
            }
        }
        for (number, _) in content.blocks() {
            let at = number * CONTENT_BLOCK;
            let piece = self.0.range(..=at).next_back();
            let kept = piece.is_some_and(|(&start, &(end, source))| {
                same(start, source) && end >= size.min(at + CONTENT_BLOCK)
            });
            if at < size && !kept {
                blocks.insert(*number..number + 1);
            }
        }
        blocks.clip(size.div_ceil(CONTENT_BLOCK));
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fslog::content::digest;
    use proptest::prelude::*;

    const B: u64 = CONTENT_BLOCK;
    const ID: ObjectId = ObjectId(7);

    type Change = fn(&mut Patchwork);

    /// The bytes of a source, each of them another.
    fn byte(source: Source) -> u64 {
        match source {
            Source::Base(id, at) => 1 + id.0 * 1000 + at,
            Source::Stream(at) => 1_000_000 + at,
            Source::Packed(extent, at) => 2_000_000 + u64::from(extent) * 1000 + u64::from(at),
        }
    }

    fn bytes(file: &Patchwork) -> Vec<u64> {
        let mut bytes = vec![0; 100];
        for (range, source) in file.within(&(0..100)) {
            for at in range.clone() {
                assert_eq!(bytes[at as usize], 0, "pieces overlap");
                bytes[at as usize] = byte(source.skip(at - range.start));
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn pieces_are_the_bytes_that_were_put(
            steps in prop::collection::vec((0u8..5, 0u64..90, 0u64..11, 0u64..90), 0..40),
        ) {
            let (mut file, mut model) = (Patchwork::default(), vec![0; 100]);
            file.put(&(0..60), Source::Base(ID, 0));
            (0..60).for_each(|at| model[at as usize] = byte(Source::Base(ID, at)));
            for (what, at, len, other) in steps {
                let range = at..at + len;
                let source = [Source::Stream(other), Source::Packed(3, other as u32)][usize::from(what & 1)];
                match what {
                    0 | 1 => {
                        file.put(&range, source);
                        range.for_each(|to| model[to as usize] = byte(source.skip(to - at)));
                    }
                    2 => {
                        file.clear(&range);
                        range.for_each(|to| model[to as usize] = 0);
                    }
                    3 => {
                        file.cut(at);
                        (at..100).for_each(|to| model[to as usize] = 0);
                    }
                    _ => {
                        let from = file.clone();
                        file.clear(&(other..other + len));
                        for (piece, source) in from.within(&range) {
                            file.put(&(other + piece.start - at..other + piece.end - at), source);
                        }
                        let copy = model[range.start as usize..range.end as usize].to_vec();
                        model[other as usize..(other + len) as usize].copy_from_slice(&copy);
                    }
                }
                prop_assert_eq!(&bytes(&file), &model);
            }
        }
    }

    #[test]
    fn blocks_that_may_have_changed_are_named_and_no_others() {
        let some = digest(b"x").expect("not zero");
        let mut content = Content::default();
        (0..8).filter(|number| *number != 3).for_each(|number| content.push(number, some));
        let size = 8 * B - 100;
        let base = Patchwork::of_base(ID, &content, size);
        assert_eq!(base.count(), 2, "the block of zeroes is none");
        let table: &[(Change, u64, &[u64])] = &[
            (|_| {}, size, &[]),
            (|file| file.put(&(B + 5..B + 6), Source::Stream(9)), size, &[1]),
            (|file| file.put(&(2 * B..4 * B), Source::Base(ID, 0)), size, &[2, 3]),
            (|file| file.put(&(2 * B..3 * B), Source::Base(ObjectId(8), 2 * B)), size, &[2]),
            (|file| file.clear(&(B..3 * B)), size, &[1, 2]),
            (|file| file.clear(&(B + 1..B + 2)), size, &[1]),
            (|file| file.cut(5 * B + 1), 5 * B + 1, &[5]),
            (|file| file.cut(5 * B), 5 * B, &[]),
            (|_| {}, 9 * B, &[7]),
            (|_| {}, size + 1, &[7]),
            (|file| file.cut(5 * B), size, &[5, 6, 7]),
        ];
        for (at, (change, size, expected)) in table.iter().enumerate() {
            let mut file = base.clone();
            change(&mut file);
            let found: Vec<_> = file.changed(ID, &content, 8 * B - 100, *size).iter().flatten().collect();
            assert_eq!(&found[..], *expected, "{at}");
        }
    }
}
