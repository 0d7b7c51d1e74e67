//! Sending, for both ends: one frame at a time, and a sign of life when there was nothing to send.

use super::message::PING;
use super::wire::{self, Head};
use crate::base::{Result, limits};
use std::io::{IoSlice, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A lock whose holder may have panicked: what it guards is whole between two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending half of a connection.
pub(super) struct Sender {
    /// Nothing once it is closed.
    out: Mutex<Option<Box<dyn Write + Send>>>,
    zstd: bool,
    /// Bytes sent.
    pub(super) sent: AtomicU64,
    /// Whether the connection has ended.
    over: Mutex<bool>,
    ended: Condvar,
}

impl Sender {
    pub(super) fn new(out: Box<dyn Write + Send>, zstd: bool, sent: u64) -> Self {
        let (over, ended) = (Mutex::new(false), Condvar::new());
        Self { out: Mutex::new(Some(out)), zstd, sent: AtomicU64::new(sent), over, ended }
    }

    /// Sends a frame. Compressing is done outside the lock.
    pub(super) fn send(&self, head: &Head, payload: &[u8]) -> Result<()> {
        let (head, small) = wire::encode(head, payload, self.zstd);
        let payload = small.as_deref().unwrap_or(payload);
        self.sent.fetch_add((head.len() + payload.len()) as u64, Ordering::Relaxed);
        let mut out = lock(&self.out);
        let Some(out) = &mut *out else {
            return Err(wire::lost(&std::io::ErrorKind::NotConnected.into()));
        };
        let mut parts = [IoSlice::new(&head), IoSlice::new(payload)];
        let mut parts = &mut parts[..];
        let done = loop {
            IoSlice::advance_slices(&mut parts, 0);
            if parts.is_empty() {
                break out.flush();
            }
            match out.write_vectored(parts) {
                Ok(0) => break Err(std::io::ErrorKind::WriteZero.into()),
                Ok(len) => IoSlice::advance_slices(&mut parts, len),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        done.map_err(|e| wire::lost(&e))
    }

    /// Says that this side lives, whenever it had nothing to say for a while; until [`Sender::end`].
    pub(super) fn keep_alive(&self) {
        let mut last = self.sent.load(Ordering::Relaxed);
        let mut over = lock(&self.over);
        while !*over {
            let pause = Duration::from_millis(limits::REMOTE_PING_MS);
            over = self.ended.wait_timeout(over, pause).unwrap_or_else(PoisonError::into_inner).0;
            if *over {
                return;
            }
            let now = self.sent.load(Ordering::Relaxed);
            if now == last {
                drop(over);
                // Whoever reads notices that the connection is lost.
                let _ = self.send(&PING, &[]);
                over = lock(&self.over);
            }
            last = self.sent.load(Ordering::Relaxed);
        }
    }

    /// Nothing more is sent, and the other side learns it.
    pub(super) fn close(&self) {
        self.end();
        *lock(&self.out) = None;
    }

    /// No more signs of life.
    pub(super) fn end(&self) {
        *lock(&self.over) = true;
        self.ended.notify_all();
    }
}
