//! How far long work has come, and whether somebody wants it to end: shared between the work and its face, which
//! looks at it from another thread.

use crate::base::{Class, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing yet.
    #[default]
    Begin,
    /// Names and metadata are looked at; nobody knows how many there are.
    Look,
    /// What may have changed is read: bytes of the files that are.
    Read,
    /// A dump comes in: bytes of it, whose number nobody knows.
    Spool,
    /// The tree is changed: bytes of data of the dump.
    Apply,
    /// The result is made durable.
    Commit,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Begin, Self::Look, Self::Read, Self::Spool, Self::Apply, Self::Commit];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "beginning",
            Self::Look => "looking at the tree",
            Self::Read => "reading what may have changed",
            Self::Spool => "taking the dump in",
            Self::Apply => "changing the standby",
            Self::Commit => "making it durable",
        }
    }
}

/// One piece of work, watched. Its clones are the same piece.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicI32,
}

/// How far it has come at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that are done: read by a dump, durable on a standby.
    pub done: u64,
    /// Bytes altogether; 0 if nobody knows.
    pub total: u64,
}

impl Watch {
    /// The work enters a phase of so many bytes.
    pub fn enter(&self, phase: Phase, total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Called by the work wherever it may end and be taken up again. Errors: class `Partial` once it is to stop.
    pub fn check(&self) -> Result<()> {
        match self.stopped() {
            None => Ok(()),
            Some(signal) => Err(Error::new(Class::Partial, format!("stopped by signal {signal}"))),
        }
    }

    /// The work is to end at the next point where it can be taken up again, because of this signal.
    pub fn stop(&self, signal: i32) {
        self.0.stop.store(signal, Ordering::Relaxed);
    }

    /// The signal that is to end it.
    pub fn stopped(&self) -> Option<i32> {
        Some(self.0.stop.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// How far it has come.
    pub fn seen(&self) -> Seen {
        let phase = usize::from(self.0.phase.load(Ordering::Relaxed));
        Seen {
            phase: Phase::ALL.get(phase).copied().unwrap_or_default(),
            done: self.0.done.load(Ordering::Relaxed),
            total: self.0.total.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_seen_and_stopped_from_elsewhere() {
        let work = Watch::default();
        let face = work.clone();
        work.enter(Phase::Read, 100);
        work.add(30);
        assert_eq!(face.seen(), Seen { phase: Phase::Read, done: 30, total: 100 });
        work.check().expect("goes on");
        face.stop(15);
        let error = work.check().expect_err("stopped");
        assert_eq!((error.class, error.message.as_str()), (Class::Partial, "stopped by signal 15"));
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
        }
    }
}
