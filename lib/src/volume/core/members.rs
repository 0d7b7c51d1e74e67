//! Legs come, go, and are set anew while the volume serves.
//!
//! What stands on disk is the driver's: it makes a new leg's record and map *before* [`super::Command::Enlist`], and removes
//! those of an old one *after* [`super::Command::Retire`] was answered. Numbers of legs never shift: requests under way
//! name them.

use super::api::{Action, LegIx, LegRecord};
use super::leg::Leg;
use super::op::{Kind, bit};
use super::{Core, LegConfig, LegState, Rule};
use crate::base::limits;
use crate::map::BlockSet;

impl Core {
    /// Step 1 of a removal: out, durably. Whoever asked is answered then; an error leaves the leg detached.
    pub(super) fn retire(&mut self, id: u64, ix: LegIx) -> Result<(), &'static str> {
        self.take_out(ix, LegState::Detached)?;
        self.legs[ix].retiring = true;
        self.answer_when_durable(id);
        Ok(())
    }

    /// The removal could not be finished: the leg stays out, and may come back.
    pub(super) fn retain(&mut self, ix: LegIx) -> Result<(), &'static str> {
        self.legs.get_mut(ix).ok_or("no such leg")?.retiring = false;
        Ok(())
    }

    /// A command is answered when the present state is durable.
    pub(super) fn answer_when_durable(&mut self, id: u64) {
        if self.persist.settled() {
            self.out.push(Action::Answer { id, result: Ok(()) });
        } else {
            let seq = self.persist.wanted();
            self.persist.owed.push((id, seq));
        }
    }

    /// The last step: nothing is marked for it any more. Only for a leg that was retired.
    pub(super) fn forget(&mut self, ix: LegIx) -> Result<(), &'static str> {
        let Some(leg) = self.legs.get(ix) else { return Err("no such leg") };
        if leg.state != LegState::Detached {
            return Err("it is not detached");
        }
        let record = LegRecord { gone: true, ..LegRecord::default() };
        let gone = Leg::new(leg.config, record, BlockSet::new(leg.missing.blocks()));
        self.succeed(ix, gone);
        if let Some(heat) = &mut self.heat {
            heat.enlist(ix);
        }
        for slot in self.ops.slots() {
            // What a look has read is let go of by its own end.
            if let Some(op) = self.ops.get_mut(slot).filter(|op| !matches!(op.kind, Kind::Look { .. })) {
                op.acked &= !bit(ix);
                op.refused &= !bit(ix);
                op.tried &= !bit(ix);
            }
        }
        Ok(())
    }

    /// A leg takes the number of another one. Copies to the old one whose source is still being read end under the
    /// new one: their places stay taken until then. What was connected before counts for nothing.
    fn succeed(&mut self, ix: LegIx, mut leg: Leg) {
        let old = &mut self.legs[ix];
        leg.era = old.era + 1;
        leg.copies = old.copies;
        std::mem::swap(&mut leg.copying, &mut old.copying);
        *old = leg;
    }

    /// A new leg lacks everything; it is reached at once, and a resync follows.
    pub(super) fn enlist(&mut self, ix: LegIx, config: LegConfig) -> Result<(), &'static str> {
        let free = self.legs.get(ix).map_or(ix == self.legs.len(), |leg| leg.state == LegState::Gone);
        if !free || ix >= limits::LEGS {
            return Err("its number is taken");
        }
        let record = LegRecord { inconsistent: true, ..LegRecord::default() };
        let blocks = self.config.block.count(self.config.size);
        let mut leg = Leg::new(config, record, BlockSet::full(blocks));
        if let Some(heat) = &mut self.heat {
            heat.enlist(ix);
        }
        leg.since_seq = self.persist.enlist(ix, record);
        // It may have been a leg a moment ago, of this volume or another: what was sent to it then may still land.
        if config.remote && self.rules.on(Rule::Hold) {
            leg.hold(0..blocks, self.now_ms + self.config.hold_ms);
        }
        if ix == self.legs.len() {
            self.legs.push(leg);
        } else {
            self.succeed(ix, leg);
        }
        self.reach_now(ix);
        Ok(())
    }

    /// New settings. A leg that moves leaves the set first: what it may not have is *missing*, and what was sent to
    /// the old address and not answered is *held* by the old rules.
    pub(super) fn set(&mut self, ix: LegIx, config: LegConfig, moved: bool) -> Result<(), &'static str> {
        let Some(leg) = self.legs.get(ix).filter(|leg| leg.state != LegState::Gone) else {
            return Err("no such leg");
        };
        if moved {
            if self.is_last(ix) {
                return Err("it is the last good leg");
            }
            match leg.state {
                LegState::UpToDate => self.leave_set(ix, LegState::Outdated),
                _ => self.drop_session(ix),
            }
        }
        self.legs[ix].config = config;
        self.legs[ix].rate_free_us = 0;
        if moved {
            self.legs[ix].attempts = 0;
            self.reach_now(ix);
        }
        self.pump(ix);
        Ok(())
    }

    /// Nothing is believed of it any more: marked first, then out, then back as the target of a full copy.
    pub(super) fn reset(&mut self, ix: LegIx) -> Result<(), &'static str> {
        let Some(leg) = self.legs.get(ix).filter(|leg| leg.state != LegState::Gone) else {
            return Err("no such leg");
        };
        if leg.retiring {
            return Err("it is being removed");
        }
        if self.is_last(ix) {
            return Err("it is the last good leg");
        }
        let blocks = 0..leg.missing.blocks();
        let state = if leg.inconsistent { LegState::Inconsistent } else { LegState::Outdated };
        self.mark_missing(ix, blocks);
        self.leave_set(ix, state);
        let leg = &mut self.legs[ix];
        (leg.troubles, leg.attempts, leg.strays) = (0, 0, 0);
        self.reach_now(ix);
        Ok(())
    }
}
