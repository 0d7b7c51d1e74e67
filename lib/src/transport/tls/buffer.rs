//! Bytes on their way, in a buffer that never grows.

use crate::base::limits;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty one of [`limits::TLS_BUFFER`] bytes.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; limits::TLS_BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is in it.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room behind what is in it; all of it if it is empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes of the room were filled.
    pub(super) fn add(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// So many of the first bytes are done with.
    pub(super) fn take(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Nobody wants what is in it.
    pub(super) const fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}
