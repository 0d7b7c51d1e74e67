//! Figures for people, metrics and metadata contexts.

use super::start::Stage;
use super::{Core, LegIx, LegState, LegStatus, ResyncStatus, Status};
use crate::base::{ByteRange, limits};
use crate::map::BlockSet;

impl Core {
    /// Bytes of a set; the last block may be short.
    pub(super) fn set_bytes(&self, set: &BlockSet) -> u64 {
        let bytes = set.count() << self.config.block.shift();
        let last = self.config.block.count(self.config.size).saturating_sub(1);
        let short = self.config.block.count(self.config.size) * self.config.block.bytes() - self.config.size;
        if set.contains(last) { bytes - short } else { bytes }
    }

    /// Figures for people and metrics.
    pub fn status(&self) -> Status {
        let legs = self
            .legs
            .iter()
            .enumerate()
            .map(|(ix, leg)| LegStatus {
                paused: leg.paused,
                halt: self.halt(ix),
                state: leg.state,
                connected: leg.connected(),
                connecting: leg.connecting,
                retiring: leg.retiring,
                in_flight: leg.in_flight,
                missing_bytes: self.set_bytes(&leg.missing),
                unflushed_bytes: self.set_bytes(&leg.unflushed),
                held_bytes: self.held_bytes(&leg.held, &leg.missing),
                rewrite_bytes: self.set_bytes(&leg.suspect),
                resync: leg.sync.map(|sync| ResyncStatus {
                    since_ms: sync.since_ms,
                    total: sync.total_blocks << self.config.block.shift(),
                    done: sync.total_blocks.saturating_sub(leg.missing.count()) << self.config.block.shift(),
                }),
                last_in_sync_ms: leg.last_in_sync_ms,
                strays: leg.strays,
                read_bytes: leg.read_bytes,
                written_bytes: leg.written_bytes,
                resync_bytes: leg.resync_bytes,
            })
            .collect();
        Status {
            legs,
            serving: matches!(self.stage, Stage::Serving),
            suspended: self.suspended,
            in_flight: (self.ops.len() + self.flushes_waiting()) as u64,
            flush_error_owed: self.legs.iter().any(|leg| leg.owes_error),
            state_durable: self.persist.settled(),
            maps_failing: self.heat.as_ref().is_some_and(super::heat::Heat::is_failing),
            barrier_left_ms: self.barrier_left_ms(),
            trackers: self.tracker_status(),
        }
    }

    fn held_bytes(&self, held: &[(std::ops::Range<u64>, u64)], missing: &BlockSet) -> u64 {
        let covered: u64 = held.iter().map(|(blocks, _)| blocks.end - blocks.start).sum();
        covered.min(missing.count()) << self.config.block.shift()
    }

    /// Whether a leg holds a block as a read of the volume returns it, durably: nothing of it is missing, unflushed, or
    /// to be rewritten. A late write can land only where something is missing.
    pub fn holds(&self, leg: LegIx, block: u64) -> bool {
        self.legs.get(leg).filter(|leg| leg.state != LegState::Gone).is_some_and(|leg| {
            let sets = [&leg.missing, &leg.unflushed, &leg.suspect];
            block < leg.missing.blocks() && sets.iter().all(|set| !set.contains(block))
        })
    }

    /// Whether nothing is missing on a leg, as far as is known.
    pub fn holds_all(&self, leg: LegIx) -> bool {
        self.legs.get(leg).is_some_and(|leg| leg.up_to_date() && leg.missing.is_empty())
    }

    /// The first block from `from` on that a leg holds, if it is found soon.
    pub fn next_held(&self, leg: LegIx, from: u64) -> Option<u64> {
        let mut at = from;
        for _ in 0..limits::VOUCH_BLOCKS {
            at = self.legs.get(leg)?.missing.next_clear(at)?;
            if self.holds(leg, at) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// What a leg misses inside a range, as runs of (bytes, missing), at most `max` of them; the first begins at
    /// the range's start. For the metadata context `x-mirror:dirty/LEG`.
    pub fn dirty_extents(&self, leg: LegIx, range: ByteRange, max: usize) -> Vec<(u64, bool)> {
        self.legs.get(leg).map_or_else(Vec::new, |leg| self.extents(&[&leg.missing], range, max))
    }

    /// What of a range is in one of the sets.
    pub(super) fn extents(&self, sets: &[&BlockSet], range: ByteRange, max: usize) -> Vec<(u64, bool)> {
        let mut runs: Vec<(u64, bool)> = Vec::new();
        let shift = self.config.block.shift();
        let past = self.config.block.count(self.config.size);
        let mut at = range.offset;
        while at < range.end() && runs.len() < max {
            let block = self.config.block.index(at);
            let dirty = sets.iter().any(|set| set.contains(block));
            let mut next = block;
            if dirty {
                while let Some(run) = sets.iter().find(|set| set.contains(next)) {
                    next = run.next_run(next, u64::MAX).map_or(next + 1, |run| run.end);
                }
            } else {
                next = sets.iter().filter_map(|set| set.next_set(block)).min().unwrap_or(past);
            }
            let end = (next << shift).min(range.end());
            runs.push((end - at, dirty));
            at = end;
        }
        runs
    }
}
