//! The volume grows while it serves.
//!
//! The new area has the contents that it has on one leg, the source; on all others it is *missing*, so that they leave
//! the set and come back by a resync of just that. On disk the maps say so already
//! ([`super::Command::Grow`]); here they are marked again, because a flush may have cleared a block that lies on both
//! sides of the old end.

use super::api::LegIx;
use super::op::Kind;
use super::{Core, LegState, Rule};

impl Core {
    /// 1. Sets and size grow; the new area is marked missing on all legs but the source, and changed in all trackers.
    /// 2. Legs in sync, except the source, leave; the answer waits until that is durable.
    ///
    /// Nobody asks for the new area before: the driver offers it to clients only after the answer.
    pub(super) fn grow(&mut self, id: u64, size: u64, source: LegIx) -> Result<(), &'static str> {
        let old = self.config.size;
        if size < old {
            return Err("a volume does not shrink");
        }
        if self.leg_state(source) != Some(LegState::UpToDate) {
            return Err("the source is not up to date");
        }
        self.config.size = size;
        let blocks = self.config.block.count(size);
        // A block that was cut by the old end has an old and a new part.
        let first = self.config.block.index(old);
        if self.rules.on(Rule::GrowSpoils) {
            self.spoil_copies(first);
        }
        if let Some(heat) = &mut self.heat {
            heat.grow(blocks);
        }
        for ix in 0..self.legs.len() {
            self.legs[ix].grow(blocks);
            if ix == source || first == blocks || !self.rules.on(Rule::GrowMissing) {
                continue;
            }
            self.mark_missing(ix, first..blocks);
            if let Some(sync) = &mut self.legs[ix].sync {
                sync.total_blocks += blocks - first;
            }
            if self.legs[ix].up_to_date() {
                self.leave_set(ix, LegState::Outdated);
                self.legs[ix].attempts = 0;
                self.reach_now(ix);
            }
        }
        for tracker in self.trackers.iter_mut().flatten() {
            tracker.grow(blocks);
        }
        if self.rules.on(Rule::GrowTracks) {
            self.mark_trackers(first..blocks);
        }
        // Marks of the block that the old end cuts may have been made just now: with every state they are made durable,
        // also where nobody leaves.
        self.want_state();
        self.answer_when_durable(id);
        Ok(())
    }

    /// A copy under way of the block that was the last one brings only its old part: it does not clear it.
    fn spoil_copies(&mut self, block: u64) {
        for slot in self.ops.slots() {
            if let Some(op) = self.ops.get_mut(slot)
                && matches!(op.kind, Kind::Copy { .. })
                && op.blocks.contains(&block)
            {
                op.overtaken |= 1 << (block - op.blocks.start);
            }
        }
    }
}
