//! Flushes: one at a time for each leg, covering what was complete when it was issued.
//!
//! Three races (invariant 3), each with a rule and a test: a write in flight when the flush is issued is not
//! covered; a block written again while it runs stays; a request that comes while it runs waits for the next.

use super::api::{Action, Answer, Fault, IoId, LegIx, Note, Token};
use super::leg::{FlushRun, Leg, Waiter};
use super::op::{Mask, Phase, bit, legs_of};
use super::{Core, LegState, Rule};
use crate::base::limits;

/// A client's flush.
#[derive(Debug)]
pub(super) struct FlushOp {
    serial: u32,
    token: Token,
    pending: Mask,
    failed: bool,
    gated: bool,
    /// The sync of maps that it needs, once its legs are flushed.
    pub(super) maps: Option<u64>,
    pub(super) waits_for_maps: bool,
    deadline_ms: u64,
}

impl FlushOp {
    /// It is going to be answered with an error.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }
}

/// Flushes of legs are told from other requests by this slot.
const FLUSH_SLOT: u64 = 0xffff;

impl Core {
    pub(super) fn client_flush(&mut self, token: Token) {
        // The loss is one of the volume: it is told even if the leg that had it has left since.
        if self.legs.iter().any(|leg| leg.owes_error) {
            self.legs.iter_mut().for_each(|leg| leg.owes_error = false);
            return self.reply(token, Answer::Failed(Fault::Io));
        }
        // Nothing unflushed anywhere that counts: a leg without a way to flush can promise nothing.
        if !self.legs.iter().any(|leg| leg.up_to_date() && leg.durable()) {
            return self.reply(token, Answer::Failed(Fault::Io));
        }
        let mut pending = self
            .legs
            .iter()
            .enumerate()
            .filter(|(_, leg)| leg.takes_writes() && leg.durable())
            .fold(0, |mask, (ix, _)| mask | bit(ix));
        if !self.rules.on(Rule::FlushAllLegs) {
            pending &= pending.wrapping_neg();
        }
        self.serial = self.serial.wrapping_add(1);
        let deadline_ms = self.now_ms + self.longest_wait(pending) * limits::FLUSH_PATIENCE;
        let op = FlushOp {
            serial: self.serial,
            token,
            pending,
            failed: false,
            gated: false,
            maps: None,
            waits_for_maps: false,
            deadline_ms,
        };
        let slot = self.flushes.iter().position(Option::is_none).unwrap_or(self.flushes.len());
        if slot == self.flushes.len() {
            self.flushes.push(None);
        }
        self.flushes[slot] = Some(op);
        let waiter = Waiter::Client(slot as u16, self.serial);
        for leg in legs_of(pending) {
            self.want_flush(leg, waiter);
        }
        self.settle_flush(slot);
    }

    /// The waiter joins the next flush of the leg.
    pub(super) fn want_flush(&mut self, ix: LegIx, waiter: Waiter) {
        let leg = &mut self.legs[ix];
        match &mut leg.flush {
            Some(run) if !self.rules.on(Rule::FlushJoinsNext) => run.waiters.push(waiter),
            _ => leg.flush_next.push(waiter),
        }
        self.kick_flush(ix);
    }

    /// Issues a flush if one is wanted and none runs. While blocks must be rewritten only FUA writes get one: it
    /// says nothing of the past and clears nothing, and the rewriting may be waiting for just these writes.
    pub(super) fn kick_flush(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        let suspect = leg.suspect.count() > 0;
        let fua = leg.flush_next.iter().any(|w| matches!(w, Waiter::Fua(..)));
        let wanted = leg.flush_wanted || !leg.flush_next.is_empty();
        if !wanted || leg.flush.is_some() || !leg.connected() || (suspect && !fua) {
            return;
        }
        if !leg.caps.flush || !leg.takes_writes() {
            leg.flush_wanted = false;
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let io = IoId(FLUSH_SLOT | (ix as u64) << 16 | u64::from(self.serial) << 32);
        leg.in_flight += 1;
        let mut run = FlushRun { io, issued_ms: self.now_ms, waiters: Vec::new(), blocks: Vec::new() };
        let next = std::mem::take(&mut leg.flush_next);
        if suspect {
            (run.waiters, leg.flush_next) = next.into_iter().partition(|w| matches!(w, Waiter::Fua(..)));
        } else {
            leg.flush_wanted = false;
            leg.bytes_since_flush = 0;
            leg.copied_since_flush = false;
            (run.waiters, run.blocks) = (next, std::mem::take(&mut leg.dirty));
        }
        leg.flush = Some(run);
        if self.rules.on(Rule::FlushCoversComplete) {
            // Race 1: whatever is being written, or waits to be written again, is not covered.
            for op in self.ops.iter() {
                // A write that has failed somewhere leaves the legs different until its end says where.
                let concerned = (op.pending | op.parked | op.refused) & bit(ix) != 0 || op.failed.is_some();
                if concerned && matches!(op.phase, Phase::Writing | Phase::Parked) {
                    leg.touch(op.blocks.clone());
                }
            }
        }
        self.out.push(Action::Flush { leg: ix, io });
    }

    pub(super) fn flush_done(&mut self, ix: LegIx, result: Result<(), Fault>) {
        match result {
            Ok(()) => self.flush_worked(ix),
            Err(Fault::Shutdown) => self.drop_session(ix),
            Err(_) => self.flush_failed(ix),
        }
        self.kick_flush(ix);
    }

    fn flush_worked(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        let Some(run) = leg.flush.take() else { return };
        let mut clear: Option<std::ops::Range<u64>> = None;
        for block in run.blocks {
            // Race 2: written again meanwhile.
            if leg.touched.contains(block) {
                leg.dirty.push(block);
            } else if leg.unflushed.remove(block) && !leg.missing.contains(block) {
                if let Some(heat) = &mut self.heat {
                    heat.leave(ix, block);
                    continue;
                }
                match &mut clear {
                    Some(range) if range.end == block => range.end += 1,
                    _ => {
                        if let Some(blocks) = clear.replace(block..block + 1) {
                            self.out.push(Action::Clear { leg: ix, blocks });
                        }
                    }
                }
            }
        }
        if let Some(blocks) = clear {
            self.out.push(Action::Clear { leg: ix, blocks });
        }
        leg.untouch();
        leg.unflushed_since_ms = (!leg.dirty.is_empty()).then_some(run.issued_ms);
        self.tell_waiters(ix, run.waiters, true);
    }

    /// A flush that failed once is never believed when repeated: what it should have covered may be lost.
    fn flush_failed(&mut self, ix: LegIx) {
        self.note(Some(ix), Note::FlushFailed);
        if !self.rules.on(Rule::FailedFlushVoidsCache) {
            let waiters = self.legs[ix].flush_void();
            return self.tell_waiters(ix, waiters, false);
        }
        if self.is_last(ix) {
            self.last_lost_cache(ix);
        } else {
            self.trouble(ix);
        }
    }

    /// Tells waiters how a flush of the leg ended. `ok` false counts for the leg's own waiters as an error, unless
    /// the leg is no longer in the set: then it is simply not waited for.
    pub(super) fn tell_waiters(&mut self, ix: LegIx, waiters: Vec<Waiter>, ok: bool) {
        for waiter in waiters {
            match waiter {
                Waiter::Client(slot, serial) => {
                    if let Some(Some(op)) = self.flushes.get_mut(slot as usize)
                        && op.serial == serial
                    {
                        op.pending &= !bit(ix);
                        op.failed |= !ok && self.legs[ix].up_to_date();
                        self.settle_flush(slot as usize);
                    }
                }
                Waiter::Fua(slot, serial) => {
                    if let Some(op) = self.ops.get_mut(slot)
                        && op.serial == serial
                    {
                        op.pending &= !bit(ix);
                        op.flushing &= !bit(ix);
                        if !ok && self.legs[ix].up_to_date() {
                            op.failed.get_or_insert(Fault::Io);
                        }
                        self.settle_write(slot);
                    }
                }
                Waiter::Barrier(id) => self.barrier_flushed(id, ix, ok),
                Waiter::Finish => {
                    self.legs[ix].motion.moved(self.now_ms);
                    if ok {
                        self.finish_sync(ix);
                    } else {
                        self.legs[ix].finishing = false;
                    }
                }
            }
        }
    }

    pub(super) fn settle_flush(&mut self, slot: usize) {
        let wait = self.must_wait();
        let gate = self.flush_gate();
        let Some(Some(op)) = self.flushes.get_mut(slot) else { return };
        if op.pending != 0 || op.waits_for_maps {
            return;
        }
        let durable = self.legs.iter().any(|leg| leg.up_to_date() && leg.durable());
        let failed = op.failed || !durable;
        if !failed && wait {
            op.gated = true;
            return;
        }
        // Of the maps only what was marked by now.
        if !failed && op.maps.is_none() {
            op.maps = gate;
            op.waits_for_maps = gate.is_some();
            if op.waits_for_maps {
                return;
            }
        }
        let token = op.token;
        self.flushes[slot] = None;
        self.reply(token, if failed { Answer::Failed(Fault::Io) } else { Answer::Done });
    }

    /// The state became durable (or did not): flushes that waited for it go on.
    pub(super) fn release_flushes(&mut self, ok: bool) {
        for slot in 0..self.flushes.len() {
            if let Some(op) = &mut self.flushes[slot]
                && op.gated
            {
                op.gated = false;
                op.failed |= !ok;
                self.settle_flush(slot);
            }
        }
    }

    /// Flushes that waited too long for legs that are away fail.
    pub(super) fn expire_flushes(&mut self) {
        for slot in 0..self.flushes.len() {
            if let Some(op) = &mut self.flushes[slot]
                && op.deadline_ms <= self.now_ms
                && !op.gated
            {
                let (serial, pending) = (op.serial, op.pending);
                op.failed = true;
                op.waits_for_maps = false;
                op.pending = 0;
                for leg in legs_of(pending) {
                    self.legs[leg].flush_next.retain(|w| *w != Waiter::Client(slot as u16, serial));
                }
                self.settle_flush(slot);
            }
        }
    }

    pub(super) fn flushes_waiting(&self) -> usize {
        self.flushes.iter().flatten().count()
    }

    /// The volume flushes a leg by itself when what is unflushed is old or large.
    pub(super) fn self_flush(&mut self, ix: LegIx) {
        let leg: &mut Leg = &mut self.legs[ix];
        let old = leg.unflushed_since_ms.is_some_and(|since| since + limits::SELF_FLUSH_MS <= self.now_ms);
        if (old || leg.bytes_since_flush >= limits::SELF_FLUSH_BYTES)
            && leg.state != LegState::Detached
            && leg.durable()
        {
            leg.flush_wanted = true;
            self.kick_flush(ix);
        }
    }
}
