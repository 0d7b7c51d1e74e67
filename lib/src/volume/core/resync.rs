//! Copies inside the volume: resync of a leg, repair after a failed read, rewriting in place.
//!
//! All of them are reads of one leg and writes to another (or the same) under the range's lock. A copy of a resync
//! lets client writes go past; what they touched stays *missing*.

use super::api::{Action, Fault, IoId, LegIx, Note, Source};
use super::leg::Waiter;
use super::op::{Kind, Phase, bit, legs_of};
use super::read::NoLeg;
use super::start::Stage;
use super::{Core, LegState, Rule};
use crate::base::limits;
use std::ops::Range;

impl Core {
    /// A leg that is out is connected: S1, then copy.
    pub(super) fn begin_sync(&mut self, ix: LegIx) {
        let total_blocks = self.legs[ix].missing.count();
        let bytes = self.set_bytes(&self.legs[ix].missing);
        let leg = &mut self.legs[ix];
        leg.state = LegState::SyncTarget;
        leg.cursor = 0;
        leg.finishing = false;
        leg.sync = Some(super::leg::Sync { since_ms: self.now_ms, total_blocks });
        self.note(Some(ix), Note::SyncStarted(bytes));
        let ready = self.durably_inconsistent(ix) || !self.rules.on(Rule::InconsistentFirst);
        self.legs[ix].inconsistent = true;
        if ready {
            self.open_target(ix);
        } else {
            let seq = self.want_state();
            self.legs[ix].open_after = Some(seq);
        }
    }

    pub(super) fn open_target(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        if leg.state == LegState::SyncTarget && leg.connected() {
            leg.open = true;
            self.pump(ix);
        }
    }

    /// Starts as many copies or rewrites as may be in flight, and the end of the resync when nothing is missing.
    pub(super) fn pump(&mut self, ix: LegIx) {
        let rewriting = self.legs[ix].up_to_date() && self.legs[ix].suspect.count() > 0;
        let open = matches!(self.stage, Stage::Serving)
            || (rewriting && matches!(self.stage, Stage::Stopping { from_ms, .. } if from_ms <= self.now_ms));
        if !open || !self.legs[ix].connected() {
            return;
        }
        let target = self.legs[ix].state == LegState::SyncTarget && self.legs[ix].open;
        if (!rewriting && !target) || (self.barrier_holds() && !(rewriting && self.barrier_drains())) {
            return;
        }
        let busy = self.client_ms + limits::YIELD_MS > self.now_ms;
        let limit = if busy { limits::COPIES_YIELDING } else { limits::COPIES };
        if !rewriting && self.pick(bit(ix), false).is_err() {
            return;
        }
        while self.legs[ix].copies < limit
            && self.legs[ix].pause_until_ms <= self.now_ms
            && (rewriting || self.may_copy(ix))
            && self.ops.has_room()
        {
            let Some(blocks) = self.next_copy(ix, rewriting) else { break };
            let range = self.config.block.range(&blocks, self.config.size);
            let leg = &mut self.legs[ix];
            leg.cursor = blocks.end;
            leg.copies += 1;
            leg.spend(range.len, self.now_ms);
            leg.copying.insert_range(blocks);
            self.enter(
                if rewriting { Kind::Rewrite { target: ix } } else { Kind::Copy { target: ix } },
                range,
            );
        }
        if rewriting {
            return;
        }
        let leg = &mut self.legs[ix];
        if leg.missing.count() == 0 && leg.copies == 0 && !leg.finishing {
            leg.finishing = true;
            if leg.durable() && self.rules.on(Rule::FlushBeforeUpToDate) {
                self.want_flush(ix, Waiter::Finish);
            } else {
                self.finish_sync(ix);
            }
        }
    }

    /// The next run of blocks to copy, from the cursor on and once around.
    pub(super) fn next_copy(&self, ix: LegIx, rewriting: bool) -> Option<Range<u64>> {
        let leg = &self.legs[ix];
        let set = if rewriting { &leg.suspect } else { &leg.missing };
        let max = (limits::COPY_LEN / self.config.block.bytes()).clamp(1, 64);
        let mut from = leg.cursor;
        for _ in 0..2 {
            while let Some(start) = set.next_set(from) {
                if leg.copying.contains(start) {
                    from = start + 1;
                } else if let Some(end) = leg.is_held(start).filter(|_| !rewriting) {
                    from = end;
                } else if !rewriting && self.is_suspect(start) {
                    from = start + 1;
                } else {
                    let mut end = start + 1;
                    while end - start < max
                        && set.contains(end)
                        && !leg.copying.contains(end)
                        && (rewriting || (leg.is_held(end).is_none() && !self.is_suspect(end)))
                    {
                        end += 1;
                    }
                    return Some(start..end);
                }
            }
            from = 0;
        }
        None
    }

    /// Whether a good leg may yet turn out to hold something else there: a block that waits to be rewritten in
    /// place is not copied from. What a read shows after a failed flush may be gone a moment later.
    fn is_suspect(&self, block: u64) -> bool {
        self.legs.iter().any(|leg| leg.up_to_date() && leg.suspect.contains(block))
    }

    /// The flush after the last copy has worked (S3): the leg is UpToDate, unless something came in between.
    pub(super) fn finish_sync(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        leg.finishing = false;
        // An error for a client can have made blocks missing, and they were copied, while the last flush ran.
        let late = leg.copied_since_flush && leg.durable() && self.rules.on(Rule::FlushBeforeUpToDate);
        let done = leg.state == LegState::SyncTarget && leg.connected() && leg.open;
        if !done || late || leg.missing.count() > 0 || leg.copies > 0 {
            return self.pump(ix);
        }
        leg.state = LegState::UpToDate;
        leg.inconsistent = false;
        leg.open = false;
        leg.sync = None;
        leg.troubles = 0;
        leg.last_in_sync_ms = None;
        leg.bypasses.clear();
        self.want_state();
        self.note(Some(ix), Note::SyncDone);
        self.drop_absent();
        if self.suspended {
            self.resume(ix);
        }
    }

    pub(super) fn start_internal(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        let (kind, tried) = (op.kind, op.tried);
        let source = match kind {
            Kind::Copy { target } => {
                let leg = &self.legs[target];
                let suspect = op.blocks.clone().any(|block| self.is_suspect(block));
                if leg.state != LegState::SyncTarget || !leg.open || !leg.connected() || suspect {
                    return self.abandon(slot);
                }
                self.pick(tried | bit(target), false)
            }
            Kind::Repair { target } => {
                if !self.legs[target].up_to_date() || !self.legs[target].connected() {
                    return self.abandon(slot);
                }
                self.pick(tried | bit(target), false)
            }
            Kind::Rewrite { target } => {
                if !self.legs[target].up_to_date() {
                    return self.abandon(slot);
                }
                if self.legs[target].connected() { Ok(target) } else { Err(NoLeg::Away) }
            }
            _ => return,
        };
        match (source, kind) {
            (Ok(leg), _) => self.read_internal(slot, leg),
            (Err(_), Kind::Rewrite { .. }) => {
                let now_ms = self.now_ms;
                if let Some(op) = self.ops.get_mut(slot) {
                    op.phase = Phase::Parked;
                    op.not_before_ms = now_ms + limits::RECONNECT_MIN_MS;
                }
            }
            (Err(_), kind) => {
                if let Kind::Copy { target } = kind {
                    self.legs[target].pause_until_ms = self.now_ms + limits::COPY_PAUSE_MS;
                }
                self.abandon(slot);
            }
        }
    }

    fn read_internal(&mut self, slot: u16, leg: LegIx) {
        let (now_ms, era) = (self.now_ms, self.legs[leg].era);
        let Some(op) = self.ops.get_mut(slot) else { return };
        op.phase = Phase::Reading;
        op.pending = bit(leg);
        op.issued_ms = now_ms;
        op.source = Some((leg, era));
        let io = op.next_io(slot, leg);
        let range = op.range;
        self.legs[leg].in_flight += 1;
        self.legs[leg].read_bytes += range.len;
        self.out.push(Action::Read { leg, io, range });
    }

    pub(super) fn internal_read_done(&mut self, slot: u16, from: LegIx, io: IoId, result: Result<(), Fault>) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        let kind = op.kind;
        match (result, kind) {
            (Ok(()), _) => {
                op.data = Some(io);
                self.write_internal(slot, io);
            }
            (Err(Fault::Shutdown), _) => {
                op.pending |= bit(from);
                self.drop_session(from);
            }
            (Err(_), Kind::Rewrite { target }) => self.retry_rewrite(slot, target),
            (Err(_), _) => {
                op.tried |= bit(from);
                self.start_internal(slot);
            }
        }
    }

    pub(super) fn write_internal(&mut self, slot: u16, data: IoId) {
        let Some(op) = self.ops.get(slot) else { return };
        let (blocks, range, kind) = (op.blocks.clone(), op.range, op.kind);
        let (Kind::Copy { target } | Kind::Repair { target } | Kind::Rewrite { target }) = kind else {
            return;
        };
        let leg = &self.legs[target];
        let ready = match kind {
            Kind::Copy { .. } => leg.state == LegState::SyncTarget && leg.open,
            _ => leg.up_to_date(),
        };
        if !ready || !leg.connected() {
            return self.abandon(slot);
        }
        if !matches!(kind, Kind::Copy { .. }) {
            self.mark_unflushed(target, blocks.clone());
        }
        let limit_ms = self.legs[target].config.timeout_ms;
        if self.wait_for_maps(slot, &blocks, 0, limit_ms) {
            return;
        }
        let (now_ms, era) = (self.now_ms, self.legs[target].era);
        let Some(op) = self.ops.get_mut(slot) else { return };
        op.phase = Phase::Writing;
        op.pending = bit(target);
        op.issued_ms = now_ms;
        op.target_era = era;
        let io = op.next_io(slot, target);
        let leg = &mut self.legs[target];
        leg.touch(blocks);
        leg.in_flight += 1;
        leg.written_bytes += range.len;
        self.out.push(Action::Write { leg: target, io, range, source: Source::Read(data), fua: false });
    }

    pub(super) fn internal_write_done(&mut self, slot: u16, ix: LegIx, result: Result<(), Fault>) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        let kind = op.kind;
        match (result, kind) {
            (Ok(()), Kind::Copy { target }) => self.copied(slot, target),
            (Ok(()), Kind::Rewrite { target }) => {
                let (blocks, same, len) =
                    (op.blocks.clone(), op.target_era == self.legs[target].era, op.range.len);
                self.legs[target].bytes_since_flush += len;
                if same {
                    self.legs[target].suspect.remove_range(blocks);
                }
                self.abandon(slot);
                if self.legs[target].suspect.count() == 0 {
                    self.legs[target].flush_wanted = true;
                    self.kick_flush(target);
                }
            }
            (Ok(()), _) => self.abandon(slot),
            (Err(Fault::Shutdown), _) => {
                op.pending |= bit(ix);
                self.drop_session(ix);
            }
            (Err(_), Kind::Rewrite { target }) => self.retry_rewrite(slot, target),
            (Err(_), _) => {
                op.pending |= bit(ix);
                if self.is_last(ix) {
                    self.abandon(slot);
                } else {
                    self.trouble(ix);
                }
            }
        }
    }

    /// A finished copy moves its blocks from *missing* to *unflushed*, except those that were overtaken by a client
    /// write, and none at all if source or target may have lost its cache meanwhile.
    fn copied(&mut self, slot: u16, target: LegIx) {
        let Some(op) = self.ops.get(slot) else { return };
        let (blocks, overtaken, len) = (op.blocks.clone(), op.overtaken, op.range.len);
        let source_same = op.source.is_none_or(|(leg, era)| self.legs[leg].era == era);
        let same = (source_same && op.target_era == self.legs[target].era) || !self.rules.on(Rule::CopyEra);
        let now_ms = self.now_ms;
        let leg = &mut self.legs[target];
        leg.resync_bytes += len;
        leg.bytes_since_flush += len;
        leg.copied_since_flush = true;
        leg.motion.moved(now_ms);
        for block in blocks.clone().filter(|b| same && overtaken >> (b - blocks.start) & 1 == 0) {
            leg.mark_unflushed(block..block + 1, now_ms, |_| {});
            leg.missing.remove(block);
            leg.bypasses.remove(&block);
        }
        self.abandon(slot);
        self.pump(target);
    }

    /// A block that cannot be read or rewritten in place: after some tries the flushes that wait for it fail. It
    /// stays suspect, and is tried again after a pause; meanwhile the range is free for clients.
    pub(super) fn retry_rewrite(&mut self, slot: u16, target: LegIx) {
        let retries = self.legs[target].config.retries;
        let again_ms = self.now_ms + limits::RECONNECT_MIN_MS;
        let Some(op) = self.ops.get_mut(slot) else { return };
        op.rounds += 1;
        if op.rounds <= retries {
            op.phase = Phase::Parked;
            op.pending = 0;
            op.not_before_ms = again_ms;
            if let Some(io) = op.data.take() {
                self.out.push(Action::Release { io });
            }
            return;
        }
        self.abandon(slot);
        let leg = &mut self.legs[target];
        leg.pause_until_ms = self.now_ms + limits::COPY_PAUSE_MS;
        let waiters = std::mem::take(&mut leg.flush_next);
        leg.owes_error |= !waiters.iter().any(|w| matches!(w, Waiter::Client(..)));
        self.tell_waiters(target, waiters, false);
    }

    /// Ends an internal request; what it did not achieve stays marked.
    pub(super) fn abandon(&mut self, slot: u16) {
        if let Some(op) = self.ops.get(slot)
            && let Kind::Copy { target } | Kind::Rewrite { target } = op.kind
        {
            let blocks = op.blocks.clone();
            self.legs[target].copying.remove_range(blocks);
            self.legs[target].copies -= 1;
        }
        self.end(slot);
    }

    /// Good legs that cannot be reached leave as soon as another one is good.
    pub(super) fn drop_absent(&mut self) {
        for ix in legs_of((1u64 << self.legs.len()).wrapping_sub(1) as u32) {
            let leg = &self.legs[ix];
            if leg.up_to_date() && !leg.connected() && leg.attempts >= leg.config.retries && !self.is_last(ix)
            {
                self.leave_set(ix, LegState::Outdated);
            }
        }
    }
}
