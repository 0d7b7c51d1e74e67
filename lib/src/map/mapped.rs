//! The bits of a map file, mapped into memory. The only unsafe code of this room.
#![allow(unsafe_code)]

use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;
use memmap2::{MmapMut, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::Range;

/// No page of any system is smaller.
const PAGE: usize = 4096;

/// A shared, writable mapping of the bits: a store into it is in the page cache at once, and so survives the
/// death of the process.
#[derive(Debug)]
pub(super) struct Mapping(MmapMut);

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`. The file must be that long, with its space allocated (a store
    /// into a hole of a full file system is SIGBUS), and locked by the caller for as long as the mapping lives.
    pub(super) fn new(file: &File, offset: u64, len: u64) -> io::Result<Self> {
        // SAFETY: a mapping is undefined behaviour if others change the file underneath. The caller holds an
        // exclusive lock that every program of the toolkit takes before it changes a map; the mapping is
        // shared with the kernel only, which reads it for write-back. Shrinking the file (by a program that
        // ignores the lock) is SIGBUS, not a wrong bit. The descriptor is open for as long as this call lasts,
        // and the mapping does not need it afterwards.
        let map = unsafe { MmapOptions::new().offset(offset).len(len as usize).map_mut(file) }?;
        Ok(Self(map))
    }

    /// The bits as bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bits as bytes, to be stored into.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Stores into every page what stands there.
    pub(super) fn redirty(&mut self) {
        for byte in self.0.iter_mut().step_by(PAGE) {
            let place = std::ptr::from_mut(byte);
            // SAFETY: the pointer comes from a live, exclusive reference. Volatile, because a store of what is there
            // already would be left out, and it is the store that makes the page dirty.
            unsafe { std::ptr::write_volatile(place, std::ptr::read_volatile(place)) };
        }
    }

    /// Sets or clears the bits of a range. A bit that is right already is not stored, so that its page stays
    /// clean.
    #[inline]
    pub(super) fn set(&mut self, blocks: Range<u64>, value: bool) {
        if blocks.end.wrapping_sub(blocks.start) == 1 {
            let byte = &mut self.0[(blocks.start / 8) as usize];
            let bit = 1u8 << (blocks.start % 8);
            if (*byte & bit != 0) != value {
                *byte ^= bit;
            }
            return;
        }
        let bits = BitSlice::<u8, Lsb0>::from_slice_mut(&mut self.0);
        bits[blocks.start as usize..blocks.end as usize].fill(value);
    }
}
