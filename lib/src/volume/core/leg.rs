//! What the core keeps of one leg: its state, its two sets, its flush, its resync.

use super::api::{Caps, IoId, LegRecord};
use super::{LegConfig, LegState};
use crate::base::limits;
use crate::map::BlockSet;
use std::collections::HashMap;
use std::ops::Range;

/// Who waits for a flush of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A client flush, by slot and serial.
    Client(u16, u32),
    /// A FUA write, by slot and serial.
    Fua(u16, u32),
    /// A barrier, by its command.
    Barrier(u64),
    /// The end of the leg's resync.
    Finish,
}

/// A flush under way.
#[derive(Debug)]
pub(super) struct FlushRun {
    pub(super) io: IoId,
    pub(super) issued_ms: u64,
    pub(super) waiters: Vec<Waiter>,
    /// Members of *unflushed* that it may clear.
    pub(super) blocks: Vec<u64>,
}

/// A resync that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync {
    pub(super) since_ms: u64,
    pub(super) total_blocks: u64,
}

/// One leg.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) config: LegConfig,
    pub(super) state: LegState,
    /// States up to this one were of another leg of this number, or of none.
    pub(super) since_seq: u64,
    pub(super) session: Option<u32>,
    /// Asked the driver to connect.
    pub(super) connecting: bool,
    pub(super) attempts: u32,
    pub(super) caps: Caps,
    /// Part old, part new, as the record says or will say.
    pub(super) inconsistent: bool,
    /// It is being removed: it does not come back, or it would be written after its record is gone.
    pub(super) retiring: bool,
    /// A sync target may be written: its record says INCONSISTENT durably.
    pub(super) open: bool,
    /// The state (sequence) that must be durable before it opens.
    pub(super) open_after: Option<u64>,

    pub(super) missing: BlockSet,
    pub(super) unflushed: BlockSet,
    /// Members of *unflushed* that no running flush covers; no order.
    pub(super) dirty: Vec<u64>,
    /// Blocks with a write in flight at some time since the running flush was issued.
    pub(super) touched: BlockSet,
    pub(super) touched_list: Vec<u64>,
    pub(super) unflushed_since_ms: Option<u64>,
    pub(super) bytes_since_flush: u64,

    pub(super) flush: Option<FlushRun>,
    pub(super) flush_next: Vec<Waiter>,
    /// Flush without anybody waiting.
    pub(super) flush_wanted: bool,
    /// A client flush must fail: the leg lost its cache and nobody has been told.
    pub(super) owes_error: bool,
    /// Grows with every lost connection and failed flush.
    pub(super) era: u32,

    /// To be read and written back in place before a flush is believed.
    pub(super) suspect: BlockSet,
    /// Blocks with a copy or a rewrite in flight.
    pub(super) copying: BlockSet,
    pub(super) copies: usize,
    pub(super) cursor: u64,
    pub(super) bypasses: HashMap<u64, u8>,
    /// Blocks whose late writes may still land, and until when.
    pub(super) held: Vec<(Range<u64>, u64)>,
    pub(super) sync: Option<Sync>,
    pub(super) finishing: bool,
    /// A copy has ended since the last flush was issued.
    pub(super) copied_since_flush: bool,
    /// No copy is begun: an administrator said so.
    pub(super) paused: bool,
    /// With a ceiling: no copy before this moment, in microseconds of the ticks' clock.
    pub(super) rate_free_us: u64,
    /// How its resync moves.
    pub(super) motion: super::halt::Motion,
    /// After an error, copies pause until then.
    pub(super) pause_until_ms: u64,
    /// Failures since it was last UpToDate.
    pub(super) troubles: u32,

    pub(super) last_in_sync_ms: Option<u64>,
    pub(super) strays: u64,
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) resync_bytes: u64,
    pub(super) in_flight: u64,
}

impl Leg {
    pub(super) fn new(config: LegConfig, record: LegRecord, missing: BlockSet) -> Self {
        let blocks = missing.blocks();
        let state = if record.gone {
            LegState::Gone
        } else if record.detached {
            LegState::Detached
        } else if record.failed {
            LegState::Failed
        } else if record.in_sync {
            LegState::UpToDate
        } else if record.inconsistent {
            LegState::Inconsistent
        } else {
            LegState::Outdated
        };
        Self {
            config,
            state,
            since_seq: 0,
            session: None,
            connecting: false,
            attempts: 0,
            caps: Caps::default(),
            inconsistent: record.inconsistent,
            retiring: false,
            open: false,
            open_after: None,
            missing,
            unflushed: BlockSet::new(blocks),
            dirty: Vec::new(),
            touched: BlockSet::new(blocks),
            touched_list: Vec::new(),
            unflushed_since_ms: None,
            bytes_since_flush: 0,
            flush: None,
            flush_next: Vec::new(),
            flush_wanted: false,
            owes_error: false,
            era: 0,
            suspect: BlockSet::new(blocks),
            copying: BlockSet::new(blocks),
            copies: 0,
            cursor: 0,
            bypasses: HashMap::new(),
            held: Vec::new(),
            sync: None,
            finishing: false,
            copied_since_flush: false,
            paused: false,
            rate_free_us: 0,
            motion: super::halt::Motion::default(),
            pause_until_ms: 0,
            troubles: 0,
            last_in_sync_ms: None,
            strays: 0,
            read_bytes: 0,
            written_bytes: 0,
            resync_bytes: 0,
            in_flight: 0,
        }
    }

    pub(super) fn record(&self) -> LegRecord {
        LegRecord {
            in_sync: self.state == LegState::UpToDate,
            inconsistent: self.inconsistent,
            detached: self.state == LegState::Detached,
            failed: self.state == LegState::Failed,
            gone: self.state == LegState::Gone,
        }
    }

    /// Out until an administrator acts.
    pub(super) fn out(&self) -> bool {
        matches!(self.state, LegState::Detached | LegState::Failed | LegState::Gone)
    }

    pub(super) fn up_to_date(&self) -> bool {
        self.state == LegState::UpToDate
    }

    pub(super) fn connected(&self) -> bool {
        self.session.is_some()
    }

    /// In the in-sync set, or a target that may be written.
    pub(super) fn takes_writes(&self) -> bool {
        self.up_to_date() || (self.state == LegState::SyncTarget && self.open && self.connected())
    }

    /// Its flushes count.
    pub(super) fn durable(&self) -> bool {
        !self.config.flush_unsafe
    }

    /// The volume has so many blocks from now on.
    pub(super) fn grow(&mut self, blocks: u64) {
        for set in
            [&mut self.missing, &mut self.unflushed, &mut self.touched, &mut self.suspect, &mut self.copying]
        {
            set.grow(blocks);
        }
    }

    /// Puts blocks into *unflushed*; calls `new` for those that had no mark.
    pub(super) fn mark_unflushed(&mut self, blocks: Range<u64>, now_ms: u64, mut new: impl FnMut(u64)) {
        for block in blocks {
            let marked = self.missing.contains(block);
            if self.unflushed.insert(block) {
                self.dirty.push(block);
                self.unflushed_since_ms.get_or_insert(now_ms);
                if !marked {
                    new(block);
                }
            }
        }
    }

    /// Notes blocks as being written while a flush runs: that flush must not clear them.
    pub(super) fn touch(&mut self, blocks: Range<u64>) {
        if self.flush.is_some() {
            for block in blocks {
                if self.touched.insert(block) {
                    self.touched_list.push(block);
                }
            }
        }
    }

    /// Ends the running flush's bookkeeping of blocks written meanwhile.
    pub(super) fn untouch(&mut self) {
        for block in self.touched_list.drain(..) {
            self.touched.remove(block);
        }
    }

    /// Puts blocks into *missing*; calls `new` for those that had no mark.
    pub(super) fn mark_missing(&mut self, blocks: Range<u64>, mut new: impl FnMut(u64)) {
        for block in blocks {
            if self.missing.insert(block) && !self.unflushed.contains(block) {
                new(block);
            }
        }
    }

    /// Moves all of *unflushed* to *missing*: its cache may be gone. Nothing changes on disk.
    pub(super) fn unflushed_to_missing(&mut self) {
        let run = self.flush.take().map(|run| run.blocks).unwrap_or_default();
        for block in run.into_iter().chain(self.dirty.drain(..)) {
            if self.unflushed.remove(block) {
                self.missing.insert(block);
            }
        }
        self.untouch();
        self.unflushed_since_ms = None;
        self.bytes_since_flush = 0;
    }

    /// Puts the blocks of an ended flush back: it cleared nothing.
    pub(super) fn flush_void(&mut self) -> Vec<Waiter> {
        self.untouch();
        let Some(run) = self.flush.take() else { return Vec::new() };
        self.dirty.extend(run.blocks);
        run.waiters
    }

    pub(super) fn is_held(&self, block: u64) -> Option<u64> {
        self.held.iter().find(|(blocks, _)| blocks.contains(&block)).map(|(blocks, _)| blocks.end)
    }

    /// When the last hold of a block ends.
    pub(super) fn held_until(&self, block: u64) -> Option<u64> {
        self.held.iter().filter(|(blocks, _)| blocks.contains(&block)).map(|(_, until)| *until).max()
    }

    pub(super) fn hold(&mut self, blocks: Range<u64>, until_ms: u64) {
        // Bounded by the requests that were in flight; many of them become one wide range.
        if self.held.len() >= limits::VOLUME_REQUESTS {
            let start = self.held.iter().map(|(b, _)| b.start).min().unwrap_or(0).min(blocks.start);
            let end = self.held.iter().map(|(b, _)| b.end).max().unwrap_or(0).max(blocks.end);
            self.held = vec![(start..end, until_ms)];
        } else {
            self.held.push((blocks, until_ms));
        }
    }
}
