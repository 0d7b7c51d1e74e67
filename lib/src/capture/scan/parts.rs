//! Which parts of a file are read again, where a log knows them: the blocks that a range touches, and everything from
//! the limit on. What the base has of the rest is taken over.

use super::contents::{Changes, Failed, read_block};
use crate::base::limits::CONTENT_BLOCK;
use crate::capture::watch::Watch;
use crate::fslog::state::{FileChange, NO_LIMIT};
use crate::fslog::{Content, ObjectId, Ranges, State};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::BorrowedFd;

/// What a log says of the bytes of a file: (L, R) as in [`crate::fslog::state`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    limit: Option<u64>,
    ranges: Ranges,
}

/// What is to be read of a file of some size: all of it, or blocks by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// These blocks.
    Blocks(BTreeSet<u64>),
}

impl Part {
    /// Whether it is as the base has it.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Blocks(blocks) if blocks.is_empty())
    }
}

/// Whether a log says that bytes of a file may have been written: such a file is read whatever its times are.
pub fn is_written(file: &FileChange) -> bool {
    file.why != 0 || file.limit != NO_LIMIT || !file.ranges.is_empty() || !file.maps.is_empty()
}

/// The files whose parts are known, of a log whose numbers are objects by `of`. With `whole` the log names every change
/// of every byte; otherwise only of files of which it has ranges.
pub fn known(
    state: &State,
    of: impl Fn(&ObjectId) -> Vec<ObjectId>,
    whole: bool,
) -> HashMap<ObjectId, Parts> {
    let mut known = HashMap::new();
    for (number, file) in &state.files {
        let says = whole || !file.ranges.is_empty() || file.limit != NO_LIMIT || !file.maps.is_empty();
        if file.why == 0 && says {
            let limit = Some(file.limit).filter(|limit| *limit != NO_LIMIT);
            let parts = Parts { limit, ranges: file.dirty() };
            known.extend(of(number).into_iter().map(|id| (id, parts.clone())));
        }
    }
    known
}

impl Parts {
    /// What is to be read of a file that had `before` bytes in the base and has `size` now. Where the size is another
    /// one, everything from the smaller one on.
    pub fn within(&self, before: u64, size: u64) -> Part {
        let mut limit = self.limit.unwrap_or(size).min(size);
        if before != size {
            limit = limit.min(before);
        }
        let mut blocks: BTreeSet<u64> =
            self.ranges.iter().flat_map(|range| blocks_of(range.start, range.end.min(size))).collect();
        blocks.extend(blocks_of(limit, size));
        // A block that ended with the file had another length, and so another digest.
        if before > size && !size.is_multiple_of(CONTENT_BLOCK) {
            blocks.insert(size / CONTENT_BLOCK);
        }
        if limit == 0 && size > 0 { Part::All } else { Part::Blocks(blocks) }
    }
}

fn blocks_of(start: u64, end: u64) -> std::ops::Range<u64> {
    if start >= end { 0..0 } else { start / CONTENT_BLOCK..end.div_ceil(CONTENT_BLOCK) }
}

/// Reads these parts of a file as [`super::contents::read`] reads all of it.
pub fn read(
    file: BorrowedFd<'_>,
    size: u64,
    part: &Part,
    base: &Content,
    buffer: &mut Vec<u8>,
    to: &mut dyn Changes,
    watch: &Watch,
) -> Result<Content, Failed> {
    let Part::Blocks(blocks) = part else {
        return super::contents::read(file, size, base, buffer, to, watch);
    };
    let mut changes = Vec::with_capacity(blocks.len());
    for number in blocks {
        watch.check()?;
        let at = number * CONTENT_BLOCK;
        if at >= size {
            break;
        }
        let found = read_block(file, at, size, buffer).map_err(Failed::Read)?;
        match found {
            Some(_) if base.get(*number) != found => to.data(at, buffer)?,
            None if base.get(*number).is_some() => to.hole(at..size.min(at + CONTENT_BLOCK))?,
            _ => {}
        }
        changes.push((*number, found));
    }
    watch.add(size);
    let mut content = base.clone();
    content.update(&changes, size);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fslog::Record;

    const B: u64 = CONTENT_BLOCK;
    const ID: ObjectId = ObjectId(7);

    fn parts(records: &[Record], whole: bool) -> Option<Parts> {
        let mut state = State::default();
        for record in records {
            state.add(record);
        }
        known(&state, |number| vec![*number], whole).remove(&ID)
    }

    fn data(start: u64, end: u64) -> Record {
        Record::Data { id: ID, range: start..end }
    }

    #[test]
    fn what_is_read_is_what_the_log_names() {
        let limit = |at| Record::Limit { id: ID, at };
        let none: &[u64] = &[];
        let table: &[(&[Record], u64, u64, &[u64])] = &[
            (&[data(1, 2)], 9 * B, 9 * B, &[0]),
            (&[data(B - 1, B + 1), data(5 * B, 6 * B)], 9 * B, 9 * B, &[0, 1, 5]),
            (&[data(20 * B, 21 * B)], 9 * B, 9 * B, none),
            (&[limit(7 * B)], 9 * B, 9 * B, &[7, 8]),
            (&[limit(7 * B + 1), data(8 * B, 9 * B)], 9 * B, 9 * B, &[7, 8]),
            (&[data(0, 1)], 2 * B, 4 * B, &[0, 2, 3]),
            (&[data(0, 1)], 2 * B - 5, 4 * B, &[0, 1, 2, 3]),
            (&[data(0, 1)], 4 * B, 2 * B, &[0]),
            (&[data(0, 1)], 4 * B, 2 * B - 5, &[0, 1]),
        ];
        for (records, before, size, blocks) in table {
            let found = parts(records, false).expect("known").within(*before, *size);
            assert_eq!(found, Part::Blocks(blocks.iter().copied().collect()), "{records:?} {before} {size}");
        }
        assert_eq!(parts(&[limit(0)], false).expect("known").within(B, B), Part::All);
    }

    #[test]
    fn a_file_of_which_less_is_known_is_read_whole() {
        let meta = Record::Meta { id: ID, mask: 1 };
        assert_eq!(parts(&[Record::All { id: ID, why: 1 }, data(0, 1)], false), None);
        assert_eq!(parts(std::slice::from_ref(&meta), false), None, "a recorder may have missed a write");
        assert!(parts(&[meta], true).expect("compared").within(B, B).is_nothing());
    }

    #[test]
    fn parts_that_are_read_give_the_content_of_the_whole() {
        use std::os::unix::fs::FileExt as _;
        let file = tempfile::tempfile().expect("file");
        let size = 5 * B + 77;
        file.write_all_at(&vec![3; size as usize], 0).expect("write");
        let (mut buffer, watch) = (Vec::new(), Watch::default());
        let whole = |size, buffer: &mut Vec<u8>| {
            let fd = std::os::fd::AsFd::as_fd(&file);
            let none = Content::default();
            super::super::contents::read(fd, size, &none, buffer, &mut super::super::contents::Nobody, &watch)
        };
        let base = whole(size, &mut buffer).expect("read");
        file.write_all_at(b"other", 2 * B + 9).expect("write");
        file.write_all_at(&vec![0; B as usize], 4 * B).expect("zeroes");
        for (size, now) in [(size, size), (size, 6 * B), (size, 4 * B + 5)] {
            file.set_len(now).expect("size");
            let part = parts(&[data(2 * B + 9, 2 * B + 14), data(4 * B, 5 * B)], false).expect("known");
            let part = part.within(size, now);
            let fd = std::os::fd::AsFd::as_fd(&file);
            let nobody = &mut super::super::contents::Nobody;
            let found = read(fd, now, &part, &base, &mut buffer, nobody, &watch).expect("read");
            assert_eq!(found, whole(now, &mut buffer).expect("read"), "{now}");
        }
    }
}
