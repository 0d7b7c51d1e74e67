//! Payload buffers: taken from a pool, filled once, then shared without copying by clients, legs and workers.
//!
//! A [`Chunk`] is written by whoever holds it alone and read through [`Slice`]s, which count references. The
//! last one gives the memory back to the pool, from whichever thread. Memory is zeroed once, when it is first
//! allocated, never again.

use crate::base::limits;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    home: Arc<Home>,
    zeroes: Slice,
}

#[derive(Debug, Default)]
struct Home {
    store: Mutex<Store>,
    /// Bytes of buffers that somebody has.
    taken: AtomicUsize,
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
    home: Arc<Home>,
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
        let home = Arc::new(Home::default());
        let zeroes = Chunk::new(vec![0; ZERO_LEN], &home);
        let zeroes = Slice { chunk: Arc::new(zeroes), start: 0, end: ZERO_LEN };
        Self { home, zeroes }
    }

    /// A buffer of at least `len` bytes with arbitrary contents.
    pub(super) fn take(&self, len: usize) -> Arc<Chunk> {
        let at = shelf_of(len);
        let size = if at < SHELVES { 1 << (SMALLEST as usize + at) } else { len };
        let kept = {
            let mut store = self.home.store.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = store.shelves.get_mut(at).and_then(Vec::pop);
            if let Some(bytes) = &kept {
                store.idle -= bytes.len();
            }
            kept
        };
        Arc::new(Chunk::new(kept.unwrap_or_else(|| vec![0; size]), &self.home))
    }

    /// A buffer with these bytes.
    pub(super) fn copy(&self, bytes: &[u8]) -> Option<Slice> {
        let mut chunk = self.take(bytes.len());
        Chunk::alone(&mut chunk)?[..bytes.len()].copy_from_slice(bytes);
        Some(Chunk::into_slice(chunk, bytes.len()))
    }

    /// Whether so much is in use that none of it should be kept alive for a small part ([`limits::POOL_CROWDED`]).
    pub(super) fn is_crowded(&self) -> bool {
        self.home.taken.load(Ordering::Relaxed) > limits::POOL_CROWDED
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
    fn new(bytes: Vec<u8>, home: &Arc<Home>) -> Self {
        home.taken.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, home: Arc::clone(home) }
    }

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
        self.home.taken.fetch_sub(bytes.len(), Ordering::Relaxed);
        let mut store = self.home.store.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_pool_is_crowded_as_long_as_too_much_is_in_use() {
        let pool = Pool::new();
        let copy = pool.copy(&[1, 2, 3]).expect("alone");
        assert_eq!((copy.bytes(), pool.is_crowded()), (&[1, 2, 3][..], false));
        let largest = limits::NBD_PAYLOAD as usize;
        let many: Vec<_> = (0..=limits::POOL_CROWDED / largest).map(|_| pool.take(largest)).collect();
        assert!(pool.is_crowded());
        drop(many);
        assert!(!pool.is_crowded(), "what is kept for the next is not in use");
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
