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
    syncs: usize,
    fail_at: usize,
}

impl FrozenStore {
    /// A store that holds `bytes` durably and whose power fails *during* sync number `fail_at` (from 0): that
    /// sync and everything after it returns an error.
    pub fn new(bytes: Vec<u8>, fail_at: usize) -> Self {
        let inner = Frozen { durable: bytes.clone(), current: bytes, pending: Vec::new(), syncs: 0, fail_at };
        Self { inner: RefCell::new(inner) }
    }

    /// What may be on the media now: the durable bytes with every subset of the unsynced pieces (with more than
    /// ten of them: every prefix, and everything but one).
    pub fn after_crash(&self) -> Vec<Vec<u8>> {
        let inner = self.inner.borrow();
        let n = inner.pending.len();
        let apply = |keep: &dyn Fn(usize) -> bool| {
            let mut image = inner.durable.clone();
            for (_, (at, piece)) in inner.pending.iter().enumerate().filter(|(i, _)| keep(*i)) {
                image[*at..*at + piece.len()].copy_from_slice(piece);
            }
            image
        };
        if n <= ALL_SUBSETS {
            return (0..1usize << n).map(|subset| apply(&|i| subset >> i & 1 == 1)).collect();
        }
        let prefixes = (0..=n).map(|end| apply(&|i| i < end));
        prefixes.chain((0..n).map(|hole| apply(&|i| i != hole))).collect()
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
        inner.durable.copy_from_slice(&inner.current);
        inner.pending.clear();
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
}
