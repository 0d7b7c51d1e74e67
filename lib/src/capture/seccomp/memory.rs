//! What outlives a recorder: memory that the keeper shares with it and its successors.
//!
//! Unsafe code: the memory is shared between processes, of which one at a time uses it.
#![allow(unsafe_code)]

use super::notify::Notification;
use crate::base::{Class, Error, Result};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What outlives a recorder. One recorder at a time uses it; the keeper does not.
#[derive(Debug)]
#[repr(C)]
struct Inner {
    /// The notification that is being answered; none if its process is 0.
    pending: Notification,
    /// How many recorders began to answer it.
    attempts: AtomicU32,
    /// The round whose log is written.
    round: AtomicU64,
}

/// Memory that a recorder shares with the one after it.
#[derive(Debug)]
pub struct Memory(NonNull<Inner>);

impl Memory {
    pub fn new() -> Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let (len, prot) = (size_of::<Inner>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping, at an address of the kernel's choice; it is never unmapped.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::SHARED) };
        let at = at.map_err(|e| Error::os(Class::Internal, "seccomp", "sharing memory", e))?;
        // All zero is a value of `Inner`, and a page is aligned for it.
        NonNull::new(at.cast())
            .map(Self)
            .ok_or_else(|| Error::new(Class::Internal, "seccomp: sharing memory: none"))
    }

    fn inner(&self) -> &Inner {
        // SAFETY: it lives as long as the process; whoever else has it mapped and writes to it died before we began
        // (recorders follow each other) or writes nothing (the keeper).
        unsafe { self.0.as_ref() }
    }

    /// The notification that is being answered.
    pub fn pending(&mut self) -> &mut Notification {
        // SAFETY: as above, and `self` is borrowed for as long as the reference lives.
        unsafe { &mut self.0.as_mut().pending }
    }

    /// Whether there is one.
    pub fn is_pending(&self) -> bool {
        self.inner().pending != Notification::default()
    }

    /// Counts a beginning to answer it.
    pub fn attempt(&self) -> u32 {
        self.inner().attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It is answered.
    pub fn clear(&mut self) {
        *self.pending() = Notification::default();
        self.inner().attempts.store(0, Ordering::Relaxed);
    }

    /// The round whose log is written.
    pub fn round(&self) -> u64 {
        self.inner().round.load(Ordering::Relaxed)
    }

    /// Another one is, from now on.
    pub fn set_round(&self, round: u64) {
        self.inner().round.store(round, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recorder_was_at_outlives_it() {
        let mut memory = Memory::new().expect("memory");
        assert!(!memory.is_pending());
        memory.pending().id = 7;
        memory.set_round(3);
        assert_eq!((memory.attempt(), memory.attempt()), (1, 2));
        // The next recorder finds it where the kernel put it.
        let next = Memory(memory.0);
        assert!(next.is_pending() && next.round() == 3 && next.attempt() == 3);
        memory.clear();
        assert!(!next.is_pending() && next.attempt() == 1 && next.round() == 3);
    }
}
