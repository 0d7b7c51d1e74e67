//! A map file that is held for a while by one program, which takes marks out as their blocks are copied.
//!
//! While it is held nobody can mark it (the lock), so that every mark stands for a write from before. Words of 64
//! blocks are changed in place, whole or not at all, and only towards clean and only for blocks that are durable
//! on the target: a crash at any moment leaves marks that are right or too many.

use super::BlockSet;
use super::file::read_header;
use super::format::{BITS_AT, Durability, Header, KNOWN_RO_COMPAT};
use super::stream::{MapReader, load};
use crate::base::{Class, Error, Result};
use crate::device::boot_id;
use crate::device::lock::open_locked;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Words between two that are written with them: a page of a disk is written as a whole anyway.
const NEAR: usize = 512;

/// A map file that is held, and its marks.
#[derive(Debug)]
pub struct HeldMap {
    file: File,
    name: String,
    header: Header,
    marks: BlockSet,
    /// Its bits are all there, so that a clear one means something.
    believed: bool,
}

impl HeldMap {
    /// Opens and locks a map file. Classes: `Busy` if somebody has it in use, `Damaged` if it is not a whole map,
    /// `Refused` if it is the map of a leg, whose marks only its mirrord may take out.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = open_locked(path, true)?;
        let header = read_header(&file, &name)?;
        header.features.check_writable(&name, KNOWN_RO_COMPAT)?;
        if !header.identity.leg.is_none() {
            let leg = header.identity.leg;
            let text = format!("{name}: taking marks out of it: it is the map of leg {leg}");
            return Err(Error::new(Class::Refused, text).hint("the same with --keep-map"));
        }
        let believed = header.clean
            || header.durability == Durability::Power
            || (header.boot == boot_id() && !header.boot.is_none());
        let marks = if believed {
            load(&mut MapReader::open_held(&file, &name)?)?
        } else {
            BlockSet::full(header.identity.blocks())
        };
        Ok(Self { file, name, header, marks, believed })
    }

    /// What it is a map of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether its bits count; otherwise every block is dirty.
    pub fn is_believed(&self) -> bool {
        self.believed
    }

    /// The blocks that are dirty.
    pub fn marks(&self) -> &BlockSet {
        &self.marks
    }

    /// Makes a map that is not believed one that is: all dirty.
    ///
    /// 1. All bits are set and synced.
    /// 2. The header is written: clean. It is synced with the first marks that are taken out.
    ///
    /// Recovery: a crash before 2 leaves a map that is not believed, afterwards one that is all dirty.
    fn believe(&mut self) -> Result<()> {
        if self.believed {
            return Ok(());
        }
        let fail = |e| Error::io(&self.name, "making it all dirty", e);
        self.write(0..self.marks.words().len())?;
        self.file.sync_data().map_err(fail)?;
        self.header.clean = true;
        self.file.write_all_at(&self.header.encode(), 0).map_err(fail)?;
        self.believed = true;
        Ok(())
    }

    /// Takes marks out, durably; the caller has flushed the target (invariant 3).
    pub fn clear(&mut self, blocks: &[Range<u64>]) -> Result<()> {
        self.believe()?;
        for range in blocks.iter().filter(|range| !range.is_empty()) {
            self.marks.remove_range(range.clone());
        }
        let words = blocks.iter().filter(|range| !range.is_empty());
        let words = words.map(|range| (range.start / 64) as usize..range.end.div_ceil(64) as usize);
        for words in gather(words.collect()) {
            self.write(words)?;
        }
        self.file.sync_data().map_err(|e| Error::io(&self.name, "syncing it", e))
    }

    /// Writes words as they are in memory.
    fn write(&self, words: Range<usize>) -> Result<()> {
        let mut at = BITS_AT + words.start as u64 * 8;
        for chunk in self.marks.words()[words].chunks(1 << 15) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.file.write_all_at(&bytes, at).map_err(|e| Error::io(&self.name, "taking marks out", e))?;
            at += bytes.len() as u64;
        }
        Ok(())
    }
}

/// The same words, and those between two that are near each other, in as few ranges as that takes.
fn gather(mut words: Vec<Range<usize>>) -> Vec<Range<usize>> {
    words.sort_unstable_by_key(|range| range.start);
    let mut gathered: Vec<Range<usize>> = Vec::new();
    for range in words {
        match gathered.last_mut() {
            Some(last) if range.start <= last.end + NEAR => last.end = last.end.max(range.end),
            _ => gathered.push(range),
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockSize, Id};
    use crate::map::file::{Fill, MapFile};
    use crate::map::format::Identity;
    use crate::map::seal::Expect;

    fn identity(leg: Id) -> Identity {
        Identity { volume: Id([1; 16]), leg, size: 200 * 65536, block: BlockSize::DEFAULT }
    }

    #[test]
    fn marks_are_taken_out_one_by_one_and_nobody_else_may_touch_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("m");
        drop(MapFile::create(&path, &identity(Id::NONE), Id::NONE, Fill::Dirty).expect("create"));
        let mut held = HeldMap::open(&path).expect("hold");
        assert_eq!(HeldMap::open(&path).expect_err("second").class, Class::Busy);
        held.clear(&[3..5, 60..130, 9..9, 199..200]).expect("clear");
        let left = held.marks().clone();
        drop(held);
        let (header, marks) = MapFile::read(&path).expect("read");
        assert!(header.clean);
        assert_eq!(marks, left);
        assert_eq!((marks.count(), marks.contains(2), marks.contains(3)), (200 - 73, true, false));
    }

    #[test]
    fn a_map_that_is_not_believed_is_all_dirty_and_stays_so_until_something_is_taken_out() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("m");
        let mut map = MapFile::create(&path, &identity(Id::NONE), Id::NONE, Fill::Clear).expect("create");
        let (volume, boot) = (Id([1; 16]), Id([9; 16]));
        let durability = Durability::Process;
        let expect = Expect { volume, leg: Id::NONE, generation: Id::NONE, boot, durability };
        map.begin_use(&expect).expect("use");
        map.mark(5..6);
        // In use when the machine of another boot went down.
        drop(map);
        let held = HeldMap::open(&path).expect("hold");
        assert!(!held.is_believed() && held.marks().is_full());
        drop(held);
        let mut held = HeldMap::open(&path).expect("hold");
        held.clear(std::slice::from_ref(&(0..10))).expect("clear");
        drop(held);
        let held = HeldMap::open(&path).expect("hold");
        assert!(held.is_believed());
        assert_eq!(held.marks().count(), 190);
    }

    #[test]
    fn the_map_of_a_leg_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("m");
        drop(MapFile::create(&path, &identity(Id([2; 16])), Id::NONE, Fill::Dirty).expect("create"));
        assert_eq!(HeldMap::open(&path).expect_err("leg").class, Class::Refused);
    }

    #[test]
    fn words_that_are_near_each_other_are_written_at_once() {
        let far = 10 + NEAR + 1;
        let ranges =
            |ends: &[(usize, usize)]| ends.iter().map(|&(start, end)| start..end).collect::<Vec<_>>();
        let check = |words: &[(usize, usize)], gathered: &[(usize, usize)]| {
            assert_eq!(gather(ranges(words)), ranges(gathered));
        };
        check(&[], &[]);
        check(&[(5, 6), (1, 2), (4, 9)], &[(1, 9)]);
        check(&[(8, 10), (9 + NEAR, 10 + NEAR)], &[(8, 10 + NEAR)]);
        check(&[(far, far + 1), (8, 10)], &[(8, 10), (far, far + 1)]);
    }
}
