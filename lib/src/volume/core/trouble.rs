//! Lost connections, failures, time: who leaves the set, what becomes *missing*, what is held.

use super::api::{Action, Caps, Fault, LegIx, Note};
use super::leg::Waiter;
use super::op::{Class, Kind, Mask, Phase, bit, legs_of};
use super::start::Stage;
use super::{Core, LegState, Rule};
use crate::base::limits;

impl Core {
    /// Whether it is the only member of the in-sync set: it never leaves.
    pub(super) fn is_last(&self, ix: LegIx) -> bool {
        self.legs[ix].up_to_date() && self.in_sync() == 1
    }

    pub(super) fn up(&mut self, ix: LegIx, session: u32, caps: Caps) {
        let Some(leg) = self.legs.get_mut(ix) else { return };
        leg.connecting = false;
        let unwanted = leg.out() || leg.connected();
        if unwanted || !(caps.flush || leg.config.flush_unsafe) {
            self.out.push(Action::Disconnect { leg: ix, session });
            if !unwanted {
                self.unreachable(ix);
            }
            return;
        }
        leg.session = Some(session);
        leg.caps = caps;
        leg.attempts = 0;
        leg.in_flight = 0;
        self.note(Some(ix), Note::Connected);
        match self.stage {
            Stage::Starting { .. } => self.check_start(),
            Stage::Serving => self.engage(ix),
            _ => {}
        }
    }

    /// Puts a connected leg to use.
    pub(super) fn engage(&mut self, ix: LegIx) {
        if self.legs[ix].up_to_date() {
            self.resume(ix);
            self.kick_flush(ix);
            self.pump(ix);
        } else {
            self.begin_sync(ix);
        }
    }

    /// A good leg can be reached: requests that waited for one go on.
    pub(super) fn resume(&mut self, ix: LegIx) {
        if std::mem::take(&mut self.suspended) {
            self.note(Some(ix), Note::Resumed);
        }
        self.unpark();
    }

    pub(super) fn unreachable(&mut self, ix: LegIx) {
        let Some(leg) = self.legs.get_mut(ix) else { return };
        leg.connecting = false;
        leg.attempts += 1;
        let gone = leg.up_to_date() && leg.attempts >= leg.config.retries;
        match self.stage {
            Stage::Starting { .. } => self.check_start(),
            _ if gone && !self.is_last(ix) => self.leave_set(ix, LegState::Outdated),
            _ if gone && !std::mem::replace(&mut self.suspended, true) => {
                self.note(Some(ix), Note::Suspended);
            }
            _ => {}
        }
        self.reach(ix);
    }

    /// Asks for a connection, after a pause that doubles.
    pub(super) fn reach(&mut self, ix: LegIx) {
        let stopping = matches!(self.stage, Stage::Stopping { .. } | Stage::Stopped);
        let leg = &mut self.legs[ix];
        if leg.out() || stopping || leg.connected() || leg.connecting {
            return;
        }
        let pause = (limits::RECONNECT_MIN_MS << leg.attempts.min(10)).min(limits::RECONNECT_MAX_MS);
        leg.connecting = true;
        let at_ms = self.now_ms + pause;
        self.out.push(Action::Connect { leg: ix, at_ms });
    }

    /// Ends a session ourselves.
    pub(super) fn drop_session(&mut self, ix: LegIx) {
        if let Some(session) = self.legs[ix].session {
            self.out.push(Action::Disconnect { leg: ix, session });
            self.lose(ix);
        }
    }

    /// A session has ended: its cache may be gone, and what was not answered may yet be done.
    pub(super) fn lose(&mut self, ix: LegIx) {
        self.note(Some(ix), Note::Lost);
        let idle = self.legs[ix].unflushed.count() == 0
            || (!self.rules.on(Rule::LossVoidsCache) && !self.unresolved(ix));
        match self.legs[ix].state {
            LegState::UpToDate if self.is_last(ix) => {
                self.cut_session(ix);
                self.park_on_last(ix);
                self.last_lost_cache(ix);
            }
            LegState::UpToDate if idle => {
                // Nothing can be lost: it may come back within its retries.
                let waiters = self.legs[ix].flush_void();
                self.legs[ix].flush_next.extend(waiters);
                self.cut_session(ix);
                self.cut_requests(ix);
            }
            LegState::UpToDate => self.leave_set(ix, LegState::Outdated),
            _ => {
                self.cut_session(ix);
                self.cut_leg(ix);
            }
        }
        self.reach(ix);
    }

    fn unresolved(&self, ix: LegIx) -> bool {
        self.ops.iter().any(|op| op.phase == Phase::Writing && (op.pending | op.parked) & bit(ix) != 0)
    }

    /// Input or output on the leg failed for good: it leaves; after several times it stays out.
    pub(super) fn trouble(&mut self, ix: LegIx) {
        if self.is_last(ix) {
            return;
        }
        self.legs[ix].troubles += 1;
        let leg = &self.legs[ix];
        let failed = leg.troubles > leg.config.retries;
        let state = if failed {
            LegState::Failed
        } else if leg.up_to_date() {
            LegState::Outdated
        } else {
            LegState::SyncTarget
        };
        if failed {
            self.note(Some(ix), Note::Failed);
        }
        // The pause before it is connected again grows with its failures.
        self.legs[ix].attempts = self.legs[ix].troubles;
        self.leave_set(ix, state);
        self.reach(ix);
    }

    /// Takes a leg out of the in-sync set, or out of its resync, into `state`.
    ///
    /// 1. The new state is asked to be durable; from now on no success is told before it is.
    /// 2. The connection ends; what is *unflushed* becomes *missing*; blocks with unresolved writes are held.
    /// 3. Requests and flushes that waited for it go on without it.
    pub(super) fn leave_set(&mut self, ix: LegIx, state: LegState) {
        let leg = &mut self.legs[ix];
        let was_in = leg.up_to_date();
        leg.state = state;
        leg.sync = None;
        leg.open_after = None;
        if was_in {
            leg.last_in_sync_ms = Some(self.now_ms);
            self.note(Some(ix), Note::Left);
            self.verify_left(ix);
            self.want_state_left();
        } else {
            self.want_state();
        }
        if let Some(session) = self.legs[ix].session {
            self.out.push(Action::Disconnect { leg: ix, session });
        }
        self.cut_session(ix);
        self.cut_leg(ix);
    }

    fn cut_session(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        leg.session = None;
        leg.era += 1;
        leg.in_flight = 0;
        leg.open = false;
        leg.finishing = false;
        self.spoil_looks(ix);
    }

    /// The bookkeeping of a leg that is not in the set any more and has lost its session.
    fn cut_leg(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        let mut waiters = leg.flush.as_mut().map(|run| std::mem::take(&mut run.waiters)).unwrap_or_default();
        waiters.append(&mut leg.flush_next);
        leg.unflushed_to_missing();
        leg.flush_wanted = false;
        leg.suspect.clear();
        self.cut_requests(ix);
        self.tell_waiters(ix, waiters, false);
    }

    /// Requests under way go on without the leg; unresolved writes leave held blocks.
    fn cut_requests(&mut self, ix: LegIx) {
        let hold_ms = self.hold_ms(ix);
        for slot in self.ops.slots() {
            let Some(op) = self.ops.get_mut(slot) else { continue };
            let asked = op.pending & bit(ix) != 0;
            let unresolved = asked && op.flushing & bit(ix) == 0 && op.phase == Phase::Writing;
            let concerned = asked || op.parked & bit(ix) != 0;
            if !concerned {
                continue;
            }
            let up_to_date = self.legs[ix].up_to_date();
            let (phase, class) = (op.phase, op.kind.class());
            if up_to_date && class == Class::Client && phase == Phase::Writing {
                // Only when idle: it had nothing in flight but writes that wait for it anyway.
                op.pending &= !bit(ix);
                op.parked |= bit(ix);
                continue;
            }
            op.pending &= !bit(ix);
            op.parked &= !bit(ix);
            op.flushing &= !bit(ix);
            let blocks = op.blocks.clone();
            if unresolved && hold_ms > 0 {
                self.legs[ix].hold(blocks, self.now_ms + hold_ms);
            }
            match (phase, class) {
                (Phase::Reading, Class::Shared) => self.start_read(slot),
                (Phase::Reading, Class::Copy) => self.abandon(slot),
                (Phase::Reading, _) => self.start_internal(slot),
                (Phase::Writing, Class::Client) => self.settle_write(slot),
                (Phase::Writing, _) => self.abandon(slot),
                _ => {}
            }
        }
    }

    /// How long unresolved blocks of a leg stay held; 0 where nothing can land late.
    fn hold_ms(&self, ix: LegIx) -> u64 {
        if self.legs[ix].config.remote && self.rules.on(Rule::Hold) { self.config.hold_ms } else { 0 }
    }

    /// The last leg's session ended: requests wait for it. Unresolved writes keep their ranges until no late one
    /// can land any more; acknowledgements not yet passed on are void.
    fn park_on_last(&mut self, ix: LegIx) {
        let hold_ms = self.hold_ms(ix);
        let now_ms = self.now_ms;
        let timeout_ms = self.legs[ix].config.timeout_ms;
        for slot in self.ops.slots() {
            let Some(op) = self.ops.get_mut(slot) else { continue };
            let asked = op.pending & bit(ix) != 0;
            let unresolved = asked && op.flushing & bit(ix) == 0;
            let class = op.kind.class();
            match (op.phase, class) {
                (Phase::Reading, Class::Shared) if asked => {
                    op.pending = 0;
                    self.start_read(slot);
                }
                (Phase::Reading, Class::Copy) if asked => self.abandon(slot),
                (Phase::Reading, Class::Internal) if asked => {
                    op.pending = 0;
                    self.start_internal(slot);
                }
                (Phase::Writing | Phase::Gated, Class::Client) if asked || op.acked & bit(ix) != 0 => {
                    op.phase = Phase::Writing;
                    op.pending &= !bit(ix);
                    op.flushing &= !bit(ix);
                    op.acked &= !bit(ix);
                    op.parked |= bit(ix);
                    if unresolved {
                        op.not_before_ms = op.not_before_ms.max(now_ms + hold_ms);
                    }
                    op.deadline_ms = now_ms + timeout_ms + hold_ms;
                }
                (Phase::Writing, Class::Internal) if asked => {
                    op.phase = Phase::Parked;
                    op.pending = 0;
                    op.not_before_ms = now_ms + hold_ms;
                    if let Some(io) = op.data.take() {
                        self.out.push(Action::Release { io });
                    }
                }
                _ => {}
            }
        }
    }

    /// The last leg may have lost what was not flushed. Nobody else has it for certain: its blocks become
    /// *missing* on every other leg, they are read and written back in place before a flush of it is believed,
    /// and at least one client flush fails.
    pub(super) fn last_lost_cache(&mut self, ix: LegIx) {
        let connected = self.legs[ix].connected();
        let waiters = self.legs[ix].flush_void();
        if connected {
            self.legs[ix].era += 1;
            self.fail_forced(ix);
        }
        if self.legs[ix].unflushed.count() == 0 || !self.rules.on(Rule::LastLegOwesError) {
            let fine = waiters.into_iter().filter(|w| !matches!(w, Waiter::Fua(..)));
            self.legs[ix].flush_next.extend(fine);
            return;
        }
        let lost = self.legs[ix].dirty.clone();
        for &block in &lost {
            self.legs[ix].suspect.insert(block);
            if self.rules.on(Rule::TrackerReverts) {
                self.mark_trackers(block..block + 1);
            }
        }
        if self.rules.on(Rule::LastLegSpreads) {
            for other in (0..self.legs.len()).filter(|&other| other != ix) {
                for &block in &lost {
                    self.mark_missing(other, block..block + 1);
                }
            }
        }
        let mut all = waiters;
        all.append(&mut self.legs[ix].flush_next);
        let told = all.iter().any(|w| matches!(w, Waiter::Client(..)));
        if !connected {
            // FUA writes that waited for the flush are written again.
            all.retain(|w| !matches!(w, Waiter::Fua(..)));
        }
        self.legs[ix].owes_error |= !told;
        self.tell_waiters(ix, all, false);
        self.pump(ix);
    }

    /// FUA writes in flight on a leg whose flush has failed: it may have tried them too, and the next flush would
    /// say nothing of it.
    fn fail_forced(&mut self, ix: LegIx) {
        if self.legs[ix].caps.fua || !self.rules.on(Rule::LastLegOwesError) {
            return;
        }
        for slot in self.ops.slots() {
            if let Some(op) = self.ops.get_mut(slot)
                && op.kind.fua()
                && op.phase == Phase::Writing
                && op.pending & bit(ix) != 0
            {
                op.failed.get_or_insert(Fault::Io);
            }
        }
    }

    pub(super) fn stray(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        leg.strays += 1;
        if leg.strays.is_multiple_of(u64::from(limits::STRAY_REPLIES)) {
            self.note(Some(ix), Note::Strays);
            self.drop_session(ix);
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now_ms: u64) {
        // The clock comes with every batch; what time alone brings about is looked for once a millisecond.
        if now_ms <= self.now_ms {
            return;
        }
        self.now_ms = now_ms;
        if let Stage::Starting { .. } = self.stage {
            self.begin();
        }
        self.time_out();
        self.unpark();
        self.expire_marking();
        self.expire_flushes();
        self.retry_state();
        self.sweep_maps();
        self.tick_stage();
        for ix in 0..self.legs.len() {
            let now_ms = self.now_ms;
            self.legs[ix].held.retain(|(_, until)| *until > now_ms);
            self.self_flush(ix);
            self.pump(ix);
            self.watch(ix);
        }
        self.pump_verify();
    }

    /// Connections with a request that stayed unanswered too long are ended.
    fn time_out(&mut self) {
        let mut late: Mask = 0;
        for op in self.ops.iter() {
            for ix in legs_of(op.pending & !op.flushing) {
                if op.issued_ms + self.legs[ix].config.timeout_ms <= self.now_ms {
                    late |= bit(ix);
                }
            }
        }
        for (ix, leg) in self.legs.iter().enumerate() {
            let patience = leg.config.timeout_ms * limits::FLUSH_PATIENCE;
            if leg.flush.as_ref().is_some_and(|run| run.issued_ms + patience <= self.now_ms) {
                late |= bit(ix);
            }
        }
        for ix in legs_of(late) {
            self.drop_session(ix);
        }
    }

    /// Requests that waited for a leg or for a time go on, or give up.
    pub(super) fn unpark(&mut self) {
        for slot in self.ops.slots() {
            let Some(op) = self.ops.get(slot) else { continue };
            let (now, late) = (op.not_before_ms <= self.now_ms, op.deadline_ms <= self.now_ms);
            match (op.phase, op.kind) {
                (Phase::Parked, Kind::Read { .. } | Kind::Extents { .. }) if now => {
                    if late {
                        self.refuse(slot, Fault::Io);
                    } else {
                        self.start_read(slot);
                    }
                }
                (Phase::Parked, _) if now => self.start_internal(slot),
                (Phase::Writing, Kind::Write { .. } | Kind::Zero { .. }) if op.parked != 0 && now => {
                    self.unpark_write(slot, late);
                }
                _ => {}
            }
        }
    }

    fn unpark_write(&mut self, slot: u16, late: bool) {
        let Some(op) = self.ops.get(slot) else { return };
        let blocks = op.blocks.clone();
        for ix in legs_of(op.parked) {
            if self.legs[ix].connected() {
                // What it acknowledged before may have been flushed, and the mark cleared.
                self.mark_unflushed(ix, blocks.clone());
                if !self.marks_are_durable(&blocks) {
                    continue;
                }
                self.issue_write(slot, ix);
            } else if late && self.is_last(ix) {
                if let Some(op) = self.ops.get_mut(slot) {
                    op.parked &= !bit(ix);
                    op.failed = Some(Fault::Io);
                }
            } else if late {
                self.leave_set(ix, LegState::Outdated);
                self.reach(ix);
            }
        }
        self.settle_write(slot);
    }
}
