//! A small store under fixed headers and records, and its twin for crash tests: durability freezes at the Nth
//! sync, and what was written but not yet synced survives in pieces of 512 bytes, any of them or none.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that media write whole; nothing larger is assumed (design.md section 5).
pub const PIECE: usize = 512;
/// With at most so many pieces unsynced, every subset of them is tried; with more, prefixes and single holes.
const ALL_SUBSETS: usize = 10;

/// A store with fixed places: what records and map headers are written through.
pub trait SlotStore {
    /// Fills `buf` from `offset`; an end of file inside is an error (`UnexpectedEof`).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`. Not durable before [`SlotStore::sync`] has returned.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes every write that returned before this call durable.
    fn sync(&self) -> io::Result<()>;
}

impl<S: SlotStore> SlotStore for &S {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }
}

/// The store over a real file.
#[derive(Debug)]
pub struct FileSlots(pub File);

impl SlotStore for FileSlots {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A store in memory whose power fails at a chosen sync.
#[derive(Debug)]
pub struct FrozenStore {
    inner: RefCell<Frozen>,
}

#[derive(Debug)]
struct Frozen {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Offsets and contents of pieces written since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
    /// Pieces of a sync that failed: on the media or not, and never again unless they are written again.
    limbo: Vec<(usize, Vec<u8>)>,
    syncs: usize,
    fail_at: usize,
    hiccup_at: Option<usize>,
}

impl FrozenStore {
    /// A store that holds `bytes` durably and whose power fails *during* sync number `fail_at` (from 0): that
    /// sync and everything after it returns an error.
    pub fn new(bytes: Vec<u8>, fail_at: usize) -> Self {
        let (pending, limbo) = (Vec::new(), Vec::new());
        let durable = bytes.clone();
        let inner = Frozen { durable, current: bytes, pending, limbo, syncs: 0, fail_at, hiccup_at: None };
        Self { inner: RefCell::new(inner) }
    }

    /// Sync number `at` fails once, with the power on: as Linux does it, what it should have written may be on
    /// the media or not, and a later success says nothing about it.
    #[must_use]
    pub fn hiccup(mut self, at: usize) -> Self {
        self.inner.get_mut().hiccup_at = Some(at);
        self
    }

    /// What may be on the media now: the durable bytes with every subset of the unsynced pieces (with more than
    /// ten of them: every prefix, every suffix, and everything but one).
    pub fn after_crash(&self) -> Vec<Vec<u8>> {
        let inner = self.inner.borrow();
        // A piece that changes nothing makes no difference, unless it undoes an earlier one.
        let mut unsure: Vec<&(usize, Vec<u8>)> = Vec::new();
        for piece in inner.limbo.iter().chain(&inner.pending) {
            let (at, bytes) = piece;
            if inner.durable[*at..*at + bytes.len()] != **bytes || unsure.iter().any(|(u, _)| u == at) {
                unsure.push(piece);
            }
        }
        let n = unsure.len();
        let apply = |keep: &dyn Fn(usize) -> bool| {
            let mut image = inner.durable.clone();
            for (_, (at, piece)) in unsure.iter().enumerate().filter(|(i, _)| keep(*i)) {
                image[*at..*at + piece.len()].copy_from_slice(piece);
            }
            image
        };
        if n <= ALL_SUBSETS {
            return (0..1usize << n).map(|subset| apply(&|i| subset >> i & 1 == 1)).collect();
        }
        let prefixes = (0..=n).map(|end| apply(&|i| i < end));
        let suffixes = (0..n).map(|start| apply(&|i| i >= start));
        prefixes.chain(suffixes).chain((0..n).map(|hole| apply(&|i| i != hole))).collect()
    }

    /// What a reader in the same boot sees.
    pub fn current(&self) -> Vec<u8> {
        self.inner.borrow().current.clone()
    }

    /// Syncs that were asked for so far.
    pub fn syncs(&self) -> usize {
        self.inner.borrow().syncs
    }
}

impl SlotStore for FrozenStore {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.borrow();
        let at = offset as usize;
        match inner.current.get(at..at + buf.len()) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.syncs > inner.fail_at {
            return Err(io::Error::other("the power is off"));
        }
        let mut at = offset as usize;
        let Some(place) = inner.current.get_mut(at..at + data.len()) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        place.copy_from_slice(data);
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(PIECE - at % PIECE));
            inner.pending.push((at, piece.to_vec()));
            at += piece.len();
            rest = tail;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.inner.borrow_mut();
        let number = inner.syncs;
        inner.syncs += 1;
        if number >= inner.fail_at {
            return Err(io::Error::other("the power failed"));
        }
        if inner.hiccup_at == Some(number) {
            inner.limbo.append(&mut inner.pending);
            return Err(io::Error::other("a sync failed"));
        }
        for (at, piece) in inner.pending.drain(..) {
            inner.limbo.retain(|(limbo, _)| *limbo != at);
            inner.durable[at..at + piece.len()].copy_from_slice(&piece);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_synced_bytes_are_sure_to_survive() {
        let store = FrozenStore::new(vec![0; 2048], 1);
        store.write_at(0, &[1; 512]).expect("write");
        store.sync().expect("sync");
        store.write_at(512, &[2; 1024]).expect("write");
        let images = store.after_crash();
        assert_eq!(images.len(), 4);
        assert!(images.iter().all(|i| i[..512] == [1; 512]));
        assert!(images.iter().any(|i| i[512] == 0 && i[1024] == 2), "the second piece without the first");
        assert!(store.sync().is_err());
        assert!(store.write_at(0, &[3]).is_err(), "nothing is written after the power failed");
        assert_eq!(store.current()[512], 2);
        assert_eq!(store.syncs(), 2);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_later_one() {
        let store = FrozenStore::new(vec![0; 1024], 9).hiccup(0);
        store.write_at(0, &[1; 512]).expect("write");
        assert!(store.sync().is_err());
        store.write_at(512, &[2; 512]).expect("write");
        store.sync().expect("the second");
        let mut images = store.after_crash();
        images.sort();
        assert_eq!(images.iter().map(|i| (i[0], i[512])).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
        store.write_at(0, &[1; 512]).expect("write");
        store.sync().expect("the third");
        assert_eq!(store.after_crash(), [store.current()]);
    }
}
