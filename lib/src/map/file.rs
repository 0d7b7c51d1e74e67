//! A map file in use: locked, its bits mapped into memory.

use super::format::{BITS_AT, Durability, HEADER_LEN, Header, Identity, KNOWN_RO_COMPAT};
use super::mapped::Mapping;
use super::seal::{self, Belief, Doubt, Expect};
use super::set::BlockSet;
use crate::base::{Class, Error, Id, Result};
use crate::device::durable::Draft;
use crate::device::lock::open_locked;
use crate::device::{FileSlots, SlotStore};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bits are written in pieces of so many bytes where a map is filled: bounds the buffer.
const FILL_CHUNK: usize = 1 << 20;

/// The owner's handle of a map file. Marks are plain stores into the page cache.
///
/// Life: [`MapFile::open`], [`MapFile::verify`], [`MapFile::load`], [`MapFile::begin_use`], marks,
/// [`MapFile::close_clean`]. Dropped without the last, it was not closed cleanly.
#[derive(Debug)]
pub struct MapFile {
    seal: Seal,
    marks: Marks,
}

/// The bits of a map in use, apart from its header: whoever marks never waits for a header being written.
#[derive(Debug)]
pub struct Marks {
    bits: Mapping,
    blocks: u64,
}

/// The header of a map in use, apart from its bits ([`MapFile::split`]).
#[derive(Debug)]
pub struct Seal {
    path: PathBuf,
    store: SyncedFile,
    header: Header,
}

impl Marks {
    /// See [`MapFile::mark`].
    #[inline]
    pub fn mark(&mut self, blocks: Range<u64>) {
        self.store_bits(blocks, true);
    }

    /// See [`MapFile::clear`].
    #[inline]
    pub fn clear(&mut self, blocks: Range<u64>) {
        self.store_bits(blocks, false);
    }

    /// Makes the bits those of a set of the same volume. Words that are right already are not stored, so that
    /// their pages stay clean. While the volume grows the map may be the longer one: the rest of it stays as it is.
    pub fn store(&mut self, set: &BlockSet) {
        assert!(set.blocks() <= self.blocks, "the set of another volume");
        let ours = set.words().len() as u64 * 64;
        for (at, (bytes, word)) in (0u64..).zip(self.bits.bytes_mut().chunks_exact_mut(8).zip(set.words())) {
            let mut word = word.to_le_bytes();
            let last = (at + 1) * 64 == ours;
            if last && !set.blocks().is_multiple_of(64) {
                // Blocks of this word that the set does not know.
                let known = (1u64 << (set.blocks() % 64)) - 1;
                for ((new, old), known) in word.iter_mut().zip(&*bytes).zip(known.to_le_bytes()) {
                    *new = *new & known | *old & !known;
                }
            }
            if *bytes != word {
                bytes.copy_from_slice(&word);
            }
        }
    }

    /// Every page counts as changed, so that the next sync writes all of them: after one that failed the kernel may
    /// hold pages for clean that never got to the disk.
    pub fn redirty(&mut self) {
        self.bits.redirty();
    }

    #[inline]
    fn store_bits(&mut self, blocks: Range<u64>, value: bool) {
        assert!(blocks.end <= self.blocks, "block {} is past the volume", blocks.end);
        if !blocks.is_empty() {
            self.bits.set(blocks, value);
        }
    }
}

impl Seal {
    /// The path of the map.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Before the record changes its generation from `current` to `next` ([`seal::prepare_relabel`]).
    pub fn prepare_relabel(&mut self, current: Id, next: Id) -> Result<()> {
        seal::prepare_relabel(&self.store, &mut self.header, current, next)
            .map_err(|e| Error::io(self.path.display(), "preparing it for a new generation", e))
    }

    /// After the record has changed its generation to `current` ([`seal::finish_relabel`]).
    pub fn finish_relabel(&mut self, current: Id) -> Result<()> {
        seal::finish_relabel(&self.store, &mut self.header, current)
            .map_err(|e| Error::io(self.path.display(), "giving it a new generation", e))
    }

    /// The volume grows to `size` bytes, steps 1 and 2.
    ///
    /// 1. The file is made longer, its space allocated.
    /// 2. The bits are mapped anew: whoever marks uses these marks from now on.
    /// 3. The caller sets or clears the bits of the new area.
    /// 4. [`Seal::finish_grow`]: bits synced, the header names the new size, synced.
    ///
    /// Recovery: before 4 the header names the old size, and what stands behind it is ignored; done again from 1.
    pub fn begin_grow(&mut self, size: u64) -> Result<Marks> {
        let object = self.path.display().to_string();
        let identity = Identity { size, ..self.header.identity };
        identity.check(&object)?;
        let fail = |e: io::Error| Error::io(&object, "growing it", e);
        let file = &self.store.slots.0;
        allocate(file, identity.file_len().max(self.header.identity.file_len())).map_err(fail)?;
        let bits = Mapping::new(file, BITS_AT, identity.bits_len()).map_err(fail)?;
        Ok(Marks { bits, blocks: identity.blocks() })
    }

    /// Step 4 of [`Seal::begin_grow`].
    pub fn finish_grow(&mut self, size: u64) -> Result<()> {
        seal::finish_grow(&self.store, &mut self.header, size)
            .map_err(|e| Error::io(self.path.display(), "growing it", e))
    }

    /// Bytes of the volume, as the header names them.
    pub fn size(&self) -> u64 {
        self.header.identity.size
    }

    /// Ends the use: the map is closed cleanly ([`seal::close_clean`]). The marks are no longer used. On an
    /// error it stays as after a crash.
    pub fn close_clean(mut self) -> Result<()> {
        seal::close_clean(&self.store, &mut self.header)
            .map_err(|e| Error::io(self.path.display(), "closing it", e))
    }
}

/// Makes marks durable from another thread, while the owner goes on marking: a sync covers the marks that were
/// made before it was called.
#[derive(Clone, Debug)]
pub struct MapSync(Arc<SyncedFile>);

/// The file, and whether a sync of it ever failed: then the kernel may have dropped marks, and no later success
/// says anything about them, until every bit has been written again.
#[derive(Debug)]
struct SyncedFile {
    slots: FileSlots,
    failed: Arc<AtomicBool>,
}

impl SlotStore for SyncedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.slots.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.slots.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync failed, marks may be lost"));
        }
        self.slots.sync().inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl MapSync {
    /// Makes every mark durable that was made before this call. After a failure every later call fails, until
    /// [`MapFile::rewrite`] or [`MapSync::forgive`].
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    /// The owner has written all bits again ([`Marks::redirty`]) after a failure: syncs are believed again.
    pub fn forgive(&self) {
        self.0.failed.store(false, Ordering::Release);
    }
}

/// With what a new map begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing is missing: only for legs that are known to be equal, or known to be zero.
    Clear,
    /// Everything is missing.
    Dirty,
}

impl MapFile {
    /// Makes a map file, clean, with all its space allocated (a full disk is an error here, never SIGBUS
    /// later), opens and locks it. Class `Refused` if the path exists. Crash-safe as [`Draft`] is.
    pub fn create(path: &Path, identity: &Identity, generation: Id, fill: Fill) -> Result<Self> {
        let object = path.display().to_string();
        identity.check(&object)?;
        let draft = Draft::new(path)?;
        let fail = |e: io::Error| Error::io(&object, "allocating the map", e);
        allocate(draft.file(), identity.file_len()).map_err(fail)?;
        if fill == Fill::Dirty {
            write_full(draft.file(), identity).map_err(fail)?;
        }
        let header = Header::new(*identity, generation);
        draft.file().write_all_at(&header.encode(), 0).map_err(fail)?;
        drop(draft.publish(false)?);
        Self::open(path)
    }

    /// Opens a map file and locks it for as long as the handle lives. Classes: `Busy` if another process holds
    /// it, `Damaged` if it is not a whole map, `Refused` if it is of a version or has features that this
    /// program does not know.
    pub fn open(path: &Path) -> Result<Self> {
        let object = path.display().to_string();
        let file = open_locked(path, true)?;
        let header = read_header(&file, &object)?;
        header.features.check_writable(&object, KNOWN_RO_COMPAT)?;
        let fail = |e: io::Error| Error::io(&object, "mapping it", e);
        allocate(&file, header.identity.file_len()).map_err(fail)?;
        let bits = Mapping::new(&file, BITS_AT, header.identity.bits_len()).map_err(fail)?;
        let store = SyncedFile { slots: FileSlots(file), failed: Arc::default() };
        let blocks = header.identity.blocks();
        Ok(Self { seal: Seal { path: path.to_owned(), store, header }, marks: Marks { bits, blocks } })
    }

    /// Reads a map that nobody has in use: header and bits. Class `Busy` if somebody has.
    pub fn read(path: &Path) -> Result<(Header, BlockSet)> {
        let object = path.display().to_string();
        let file = open_locked(path, false)?;
        let header = read_header(&file, &object)?;
        let mut bytes = vec![0; header.identity.bits_len() as usize];
        file.read_exact_at(&mut bytes, BITS_AT).map_err(|e| Error::io(&object, "reading its bits", e))?;
        let set = set_of(&bytes, header.identity.blocks());
        Ok((header, set))
    }

    /// The header as it stands in the file.
    pub fn header(&self) -> &Header {
        &self.seal.header
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.seal.path
    }

    /// Whether the bits may be believed ([`seal::verify`] has the rule).
    pub fn verify(&self, expect: &Expect) -> Belief {
        seal::verify(&self.seal.header, expect)
    }

    /// The bits as they stand in the file, believed or not.
    pub fn load(&self) -> BlockSet {
        set_of(self.marks.bits.bytes(), self.seal.header.identity.blocks())
    }

    /// The bits if they are believed, otherwise all blocks; and by how many bytes that widened the map.
    pub fn load_believed(&self, expect: &Expect) -> (BlockSet, Belief, u64) {
        match self.verify(expect) {
            Belief::Believed => (self.load(), Belief::Believed, 0),
            doubt @ Belief::NotBelieved(_) => {
                (BlockSet::full(self.seal.header.identity.blocks()), doubt, self.widened_by())
            }
        }
    }

    /// By how many bytes the map would grow, or has just failed to be believed: the volume less its marks.
    fn widened_by(&self) -> u64 {
        let identity = &self.seal.header.identity;
        identity.size - self.load().bytes(identity.size, identity.block)
    }

    /// Begins the use, before the first write to the leg ([`seal::begin_use`] has the steps). A map that is not
    /// believed is set to all dirty first. Class `Damaged` if it is the map of another volume or leg: that one
    /// is not ours to change.
    pub fn begin_use(&mut self, expect: &Expect) -> Result<Belief> {
        let belief = self.verify(expect);
        match belief {
            Belief::Believed => {}
            Belief::NotBelieved(doubt @ (Doubt::Volume { .. } | Doubt::Leg { .. })) => {
                return Err(Error::new(
                    Class::Damaged,
                    format!("{}: beginning to use it: {doubt}", self.seal.path.display()),
                ));
            }
            Belief::NotBelieved(_) => self.set_all(),
        }
        seal::begin_use(&self.seal.store, &mut self.seal.header, expect)
            .map_err(|e| Error::io(self.seal.path.display(), "beginning to use it", e))?;
        Ok(belief)
    }

    /// Marks blocks: a few nanoseconds for one, no system call. Durable as `process` at once, as `power` after
    /// a [`MapSync::sync`] that began later.
    #[inline]
    pub fn mark(&mut self, blocks: Range<u64>) {
        self.store_bits(blocks, true);
    }

    /// Clears blocks. The caller has flushed the leg (invariant 3).
    #[inline]
    pub fn clear(&mut self, blocks: Range<u64>) {
        self.store_bits(blocks, false);
    }

    #[inline]
    fn store_bits(&mut self, blocks: Range<u64>, value: bool) {
        debug_assert!(!self.seal.header.clean, "a map is changed outside its use");
        self.marks.store_bits(blocks, value);
    }

    /// The volume grows to `size` bytes; the blocks of `area` are missing or not. Outside its use
    /// ([`Seal::begin_grow`] has the steps).
    pub fn grow(&mut self, size: u64, area: Range<u64>, missing: bool) -> Result<()> {
        self.marks = self.seal.begin_grow(size)?;
        self.marks.store_bits(area, missing);
        self.seal.finish_grow(size)
    }

    /// Parts a map in use: marks for the one who writes, the seal for the one who changes generations.
    pub fn split(self) -> (Marks, Seal) {
        debug_assert!(!self.seal.header.clean, "a map is parted outside its use");
        (self.marks, self.seal)
    }

    /// Marks every block.
    fn set_all(&mut self) {
        self.marks.bits.set(0..self.seal.header.identity.blocks(), true);
    }

    /// A handle that makes marks durable from another thread. It shares the lock: the file stays locked until
    /// it is gone as well.
    pub fn syncer(&self) -> Result<MapSync> {
        let file = self.seal.store.slots.0.try_clone();
        let file = file.map_err(|e| Error::io(self.seal.path.display(), "opening it again", e))?;
        let failed = Arc::clone(&self.seal.store.failed);
        Ok(MapSync(Arc::new(SyncedFile { slots: FileSlots(file), failed })))
    }

    /// Makes every mark durable that was made before this call; see [`MapSync::sync`].
    pub fn sync(&self) -> io::Result<()> {
        self.seal.store.sync()
    }

    /// Writes every bit again from the exact set in memory, the only way back after a failed sync: the kernel
    /// may have dropped any page of the map.
    ///
    /// 1. All words are written (an error is returned, never SIGBUS).
    /// 2. Header and bits are synced; only if that succeeds are later syncs believed again.
    pub fn rewrite(&mut self, set: &BlockSet) -> Result<()> {
        assert_eq!(set.blocks(), self.seal.header.identity.blocks(), "the set of another volume");
        let fail = |e: io::Error| Error::io(self.seal.path.display(), "writing all of it again", e);
        let mut chunk = Vec::with_capacity(FILL_CHUNK);
        let mut at = BITS_AT;
        self.seal.store.write_at(0, &self.seal.header.encode()).map_err(fail)?;
        for words in set.words().chunks(FILL_CHUNK / 8) {
            chunk.clear();
            chunk.extend(words.iter().flat_map(|w| w.to_le_bytes()));
            self.seal.store.write_at(at, &chunk).map_err(fail)?;
            at += chunk.len() as u64;
        }
        self.seal.store.slots.sync().map_err(fail)?;
        self.seal.store.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// See [`Seal::prepare_relabel`].
    pub fn prepare_relabel(&mut self, current: Id, next: Id) -> Result<()> {
        self.seal.prepare_relabel(current, next)
    }

    /// See [`Seal::finish_relabel`].
    pub fn finish_relabel(&mut self, current: Id) -> Result<()> {
        self.seal.finish_relabel(current)
    }

    /// See [`Seal::close_clean`].
    pub fn close_clean(self) -> Result<()> {
        self.seal.close_clean()
    }

    /// How durable marks are in this use.
    pub fn durability(&self) -> Durability {
        self.seal.header.durability
    }
}

fn set_of(bytes: &[u8], blocks: u64) -> BlockSet {
    let word = |b: &[u8]| b.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    BlockSet::from_words(bytes.chunks_exact(8).map(word).collect(), blocks)
}

/// The header of an open map file that is as long as it says.
pub(super) fn read_header(file: &File, object: &str) -> Result<Header> {
    let mut bytes = [0; HEADER_LEN];
    let len = file.metadata().map_err(|e| Error::io(object, "reading its size", e))?.len();
    let short = |needed: u64| {
        let message = format!("{object}: checking its length: it has {len} bytes, expected {needed}");
        Error::new(Class::Damaged, message)
    };
    if len < HEADER_LEN as u64 {
        return Err(short(BITS_AT));
    }
    file.read_exact_at(&mut bytes, 0).map_err(|e| Error::io(object, "reading its header", e))?;
    let header = Header::decode(object, &bytes)?;
    if len < header.identity.file_len() {
        return Err(short(header.identity.file_len()));
    }
    Ok(header)
}

/// Gives a file its length and all its space, keeping what is there; writes zeroes into a new one where the file
/// system cannot allocate.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    let zeroes = vec![0; FILL_CHUNK];
    let mut at = file.metadata()?.len();
    while at < len {
        let piece = (len - at).min(FILL_CHUNK as u64);
        file.write_all_at(&zeroes[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

/// Writes the bits of a map that is all dirty.
fn write_full(file: &File, identity: &Identity) -> io::Result<()> {
    let ones = vec![0xff; FILL_CHUNK];
    let whole = identity.blocks() / 64 * 8;
    let mut at = 0;
    while at < whole {
        let piece = (whole - at).min(FILL_CHUNK as u64);
        file.write_all_at(&ones[..piece as usize], BITS_AT + at)?;
        at += piece;
    }
    let rest = identity.blocks() % 64;
    if rest == 0 { Ok(()) } else { file.write_all_at(&((1u64 << rest) - 1).to_le_bytes(), BITS_AT + whole) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
