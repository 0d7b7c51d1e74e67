//! Payload buffers: taken from a pool, filled once, then shared without copying by clients, legs and workers.
//!
//! A [`Chunk`] is written by whoever holds it alone and read through [`Slice`]s, which count references. The
//! last one gives the memory back to the pool, from whichever thread. Memory is zeroed once, when it is first
//! allocated, never again.

use crate::base::limits;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The smallest buffer: a page.
const SMALLEST: u32 = 12;
/// Sizes are powers of two up to the largest payload.
const SHELVES: usize = (limits::NBD_PAYLOAD.trailing_zeros() - SMALLEST + 1) as usize;
/// Zeroes that are written where a leg cannot make them by itself, in one piece.
pub(super) const ZERO_LEN: usize = 1 << 20;

/// Where buffers come from and go back to.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    store: Arc<Mutex<Store>>,
    zeroes: Slice,
}

#[derive(Debug, Default)]
struct Store {
    shelves: [Vec<Vec<u8>>; SHELVES],
    idle: usize,
}

/// One buffer. Its length is a power of two; how much of it means something is its user's affair.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    home: Arc<Mutex<Store>>,
}

/// A part of a chunk that is not written any more.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    chunk: Arc<Chunk>,
    start: usize,
    end: usize,
}

impl Pool {
    /// An empty pool.
    pub(super) fn new() -> Self {
        let store = Arc::new(Mutex::new(Store::default()));
        let zeroes = Arc::new(Chunk { bytes: vec![0; ZERO_LEN], home: Arc::clone(&store) });
        let zeroes = Slice { chunk: zeroes, start: 0, end: ZERO_LEN };
        Self { store, zeroes }
    }

    /// A buffer of at least `len` bytes with arbitrary contents.
    pub(super) fn take(&self, len: usize) -> Arc<Chunk> {
        let at = shelf_of(len);
        let size = if at < SHELVES { 1 << (SMALLEST as usize + at) } else { len };
        let kept = {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = store.shelves.get_mut(at).and_then(Vec::pop);
            if let Some(bytes) = &kept {
                store.idle -= bytes.len();
            }
            kept
        };
        let bytes = kept.unwrap_or_else(|| vec![0; size]);
        Arc::new(Chunk { bytes, home: Arc::clone(&self.store) })
    }

    /// `len` zeroes, at most [`ZERO_LEN`].
    pub(super) fn zeroes(&self, len: usize) -> Slice {
        self.zeroes.part(0..len)
    }
}

/// The shelf for buffers of at least `len` bytes.
fn shelf_of(len: usize) -> usize {
    let bits = usize::BITS - len.max(1).saturating_sub(1).leading_zeros();
    bits.saturating_sub(SMALLEST) as usize
}

impl Chunk {
    /// All of it, to read.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it, to fill; only while nobody else holds it.
    pub(super) fn alone(chunk: &mut Arc<Self>) -> Option<&mut [u8]> {
        Arc::get_mut(chunk).map(|chunk| chunk.bytes.as_mut_slice())
    }

    /// A part of it that is complete.
    pub(super) fn slice(chunk: &Arc<Self>, range: Range<usize>) -> Slice {
        Slice { chunk: Arc::clone(chunk), start: range.start, end: range.end }
    }

    /// The first `len` bytes, complete.
    pub(super) fn into_slice(chunk: Arc<Self>, len: usize) -> Slice {
        Slice { chunk, start: 0, end: len }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let at = shelf_of(bytes.len());
        let mut store = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if store.idle + bytes.len() <= limits::POOL_IDLE {
            let len = bytes.len();
            if let Some(place) = store.shelves.get_mut(at) {
                place.push(bytes);
                store.idle += len;
            }
        }
    }
}

impl Slice {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.chunk.bytes[self.start..self.end]
    }

    /// How many.
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// A part of it.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let end = (self.start + range.end).min(self.end);
        Self { chunk: Arc::clone(&self.chunk), start: (self.start + range.start).min(end), end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_last_slice_is_gone() {
        let pool = Pool::new();
        let mut chunk = pool.take(5000);
        assert_eq!(chunk.bytes().len(), 8192);
        Chunk::alone(&mut chunk).expect("alone")[0] = 7;
        let slice = Chunk::slice(&chunk, 0..4);
        assert!(Chunk::alone(&mut chunk).is_none(), "somebody reads it");
        drop(chunk);
        assert_eq!(slice.part(0..1).bytes(), [7]);
        drop(slice);
        let again = pool.take(8192);
        assert_eq!(again.bytes()[0], 7, "the same memory");
        assert_eq!(pool.take(8192).bytes()[0], 0, "fresh memory");
    }

    #[test]
    fn every_length_has_a_shelf() {
        let largest = limits::NBD_PAYLOAD as usize;
        for (len, size) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (largest, largest)] {
            assert_eq!(Pool::new().take(len).bytes().len(), size, "{len}");
        }
        assert_eq!(Pool::new().take(largest + 1).bytes().len(), largest + 1);
        assert_eq!(Pool::new().zeroes(10).bytes(), [0; 10]);
    }
}
