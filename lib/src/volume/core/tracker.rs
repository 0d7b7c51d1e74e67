//! Trackers: what changed since a moment, whoever it is for. Legs never clear them.
//!
//! A tracker holds every block whose contents a reader may see changed since the tracker was made or rotated:
//!
//! * blocks of client writes, marked before any leg is written;
//! * blocks that went back to something older: the last leg lost its cache, or an unclean start elected a source;
//! * at a rotation, blocks whose contents are not settled yet: those of writes in flight, and those that wait to be
//!   rewritten in place. They are in both, the marks that are taken and those that go on.
//!
//! Copies of a resync and repairs change nothing that a reader sees. On disk stand the marks and those that were
//! taken and are not confirmed; so a crash gives back what nobody confirmed.

use super::api::{Action, TrackerAsk, TrackerIx};
use super::op::{Class, Phase};
use super::{Core, Rule};
use crate::base::ByteRange;
use crate::map::BlockSet;
use std::ops::Range;

/// See the module.
#[derive(Debug)]
pub(super) struct Tracker {
    marks: BlockSet,
    /// Closed by a rotation, and not confirmed.
    taken: Option<BlockSet>,
}

/// Figures of one tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerStatus {
    /// Bytes that changed, those taken included.
    pub dirty_bytes: u64,
    /// Bytes that were taken and not confirmed.
    pub taken_bytes: Option<u64>,
}

impl Tracker {
    fn new(marks: BlockSet) -> Self {
        Self { marks, taken: None }
    }

    /// Adds a block; whether it was not on disk.
    fn insert(&mut self, block: u64) -> bool {
        self.marks.insert(block) && !self.taken.as_ref().is_some_and(|taken| taken.contains(block))
    }

    /// The volume has so many blocks from now on.
    pub(super) fn grow(&mut self, blocks: u64) {
        self.marks.grow(blocks);
        if let Some(taken) = &mut self.taken {
            taken.grow(blocks);
        }
    }

    fn give_back(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.marks.union_with(&taken);
        }
    }

    /// What stands on disk.
    fn all(&self) -> BlockSet {
        let mut all = self.marks.clone();
        if let Some(taken) = &self.taken {
            all.union_with(taken);
        }
        all
    }
}

impl Core {
    /// With the trackers that were found, each with its marks, or all blocks where its map is not believed.
    #[must_use]
    pub fn with_trackers(mut self, found: Vec<BlockSet>) -> Self {
        self.trackers = found.into_iter().map(|marks| Some(Tracker::new(marks))).collect();
        self
    }

    /// What an administrator asks of a tracker.
    pub(super) fn ask_tracker(&mut self, ix: TrackerIx, ask: TrackerAsk) -> Result<(), &'static str> {
        if ask == TrackerAsk::Add {
            if self.trackers.len() <= ix {
                self.trackers.resize_with(ix + 1, || None);
            }
            self.trackers[ix] = Some(Tracker::new(self.unsettled()));
            self.out.push(Action::TrackerTidy { tracker: ix });
            return Ok(());
        }
        let unsettled = if ask == TrackerAsk::Take { Some(self.unsettled()) } else { None };
        let Some(tracker) = self.trackers.get_mut(ix).and_then(Option::as_mut) else {
            return Err("no such tracker");
        };
        match ask {
            TrackerAsk::Remove => self.trackers[ix] = None,
            TrackerAsk::Take if tracker.taken.is_some() => return Err("its marks are taken"),
            TrackerAsk::Take => {
                let rest = unsettled.unwrap_or_else(|| BlockSet::new(tracker.marks.blocks()));
                let closed = std::mem::replace(&mut tracker.marks, BlockSet::new(rest.blocks()));
                tracker.taken = Some(closed);
                for block in rest.iter() {
                    if tracker.insert(block) {
                        mark(&mut self.out, ix, block);
                    }
                }
            }
            TrackerAsk::Copied { from, to } => {
                let Some(taken) = &mut tracker.taken else { return Err("none of its marks are taken") };
                taken.remove_range(from..to);
            }
            TrackerAsk::Confirm if tracker.taken.is_none() => return Err("none of its marks are taken"),
            TrackerAsk::Confirm => {
                tracker.taken = None;
                self.out.push(Action::TrackerTidy { tracker: ix });
            }
            TrackerAsk::GiveBack if tracker.taken.is_some() => {
                tracker.give_back();
                self.out.push(Action::TrackerTidy { tracker: ix });
            }
            TrackerAsk::Add | TrackerAsk::GiveBack => {}
        }
        Ok(())
    }

    /// Blocks whose contents may still change without a further mark.
    fn unsettled(&self) -> BlockSet {
        let mut set = BlockSet::new(self.config.block.count(self.config.size));
        if self.rules.on(Rule::TrackerInFlight) {
            let started =
                |op: &&super::op::Op| op.kind.class() == Class::Client && op.phase != Phase::Waiting;
            for op in self.ops.iter().filter(started) {
                set.insert_range(op.blocks.clone());
            }
        }
        if self.rules.on(Rule::TrackerReverts) {
            for leg in self.legs.iter().filter(|leg| leg.up_to_date() && !leg.suspect.is_empty()) {
                set.union_with(&leg.suspect);
            }
        }
        set
    }

    /// These blocks change, or may have changed.
    pub(super) fn mark_trackers(&mut self, blocks: Range<u64>) {
        for (ix, tracker) in self.trackers.iter_mut().enumerate() {
            let Some(tracker) = tracker else { continue };
            for block in blocks.clone() {
                if tracker.insert(block) {
                    mark(&mut self.out, ix, block);
                }
            }
        }
    }

    /// All of a set.
    pub(super) fn mark_trackers_all(&mut self, set: &BlockSet) {
        if self.trackers.iter().any(Option::is_some) {
            for run in set.runs(u64::MAX) {
                self.mark_trackers(run);
            }
        }
    }

    /// Figures, by number; `None` where there is no tracker.
    pub(super) fn tracker_status(&self) -> Vec<Option<TrackerStatus>> {
        let figures = |tracker: &Tracker| TrackerStatus {
            dirty_bytes: self.set_bytes(&tracker.all()),
            taken_bytes: tracker.taken.as_ref().map(|taken| self.set_bytes(taken)),
        };
        self.trackers.iter().map(|tracker| tracker.as_ref().map(figures)).collect()
    }

    /// The blocks that stand in a tracker's map: what changed, taken or not. Empty where there is no tracker.
    pub fn tracker_marks(&self, tracker: TrackerIx) -> BlockSet {
        let found = self.trackers.get(tracker).and_then(Option::as_ref);
        found.map_or_else(|| BlockSet::new(self.config.block.count(self.config.size)), Tracker::all)
    }

    /// The marks of a tracker, and those that were taken and are not confirmed.
    pub fn tracker_sets(&self, tracker: TrackerIx) -> Option<(&BlockSet, Option<&BlockSet>)> {
        let tracker = self.trackers.get(tracker)?.as_ref()?;
        Some((&tracker.marks, tracker.taken.as_ref()))
    }

    /// What a leg misses.
    pub fn missing(&self, leg: super::LegIx) -> Option<&BlockSet> {
        self.legs.get(leg).map(|leg| &leg.missing)
    }

    /// What changed inside a range, as runs of (bytes, changed), at most `max` of them; the first begins at the
    /// range's start. For the metadata context `qemu:dirty-bitmap:TRACKER`. A tracker that is not there any more
    /// says that all has changed.
    pub fn tracker_extents(
        &self,
        tracker: Option<TrackerIx>,
        range: ByteRange,
        max: usize,
    ) -> Vec<(u64, bool)> {
        let Some(tracker) = tracker.and_then(|ix| self.trackers.get(ix)?.as_ref()) else {
            return vec![(range.len, true)];
        };
        match &tracker.taken {
            None => self.extents(&[&tracker.marks], range, max),
            Some(taken) => self.extents(&[&tracker.marks, taken], range, max),
        }
    }
}

/// Appends a `TrackerMark`, joined into ranges.
fn mark(out: &mut Vec<Action>, tracker: TrackerIx, block: u64) {
    if let Some(Action::TrackerMark { tracker: last, blocks }) = out.last_mut()
        && *last == tracker
        && blocks.end == block
    {
        blocks.end += 1;
    } else {
        out.push(Action::TrackerMark { tracker, blocks: block..block + 1 });
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
