//! Client writes: mark all legs, issue to all at once, answer when all have acknowledged.

use super::api::{Action, Answer, Fault, LegIx, Source};
use super::leg::{Leg, Waiter};
use super::op::{Class, Kind, Mask, Meet, Op, Phase, bit, legs_of};
use super::{Core, LegState, Rule, Rules};
use crate::base::limits;
use std::ops::Range;

/// What a new request does about an earlier one on its range (invariants 5 and 6).
///
/// Client writes go past a copy of a resync: they are not sent to its target, and the copy does not clear what
/// they touched. After [`limits::COPY_BYPASSES`] of them on one block they wait, so that a resync always ends.
pub(super) fn meet(
    rules: Rules,
    legs: &mut [Leg],
    earlier: &mut Op,
    met: Class,
    later: Class,
    blocks: &Range<u64>,
) -> Meet {
    let wait = |rule| if rules.on(rule) { Meet::Wait } else { Meet::Ignore };
    match (met, later) {
        (
            Class::Shared | Class::Copy | Class::Look | Class::Exact,
            Class::Shared | Class::Copy | Class::Look | Class::Exact,
        )
        // A first look that writes go past finds differences that are none: the second one decides.
        | (Class::Look, Class::Client | Class::Internal) => Meet::Ignore,
        (Class::Exact, Class::Client | Class::Internal)
        | (Class::Client | Class::Internal, Class::Look | Class::Exact) => wait(Rule::VerifyLocks),
        (Class::Client | Class::Internal, Class::Shared)
        | (Class::Shared, Class::Client | Class::Internal) => wait(Rule::ReadsWait),
        (Class::Client | Class::Internal, Class::Copy) => wait(Rule::CopyWaits),
        (Class::Copy, Class::Client) => pass_copy(rules, legs, earlier, blocks),
        (Class::Copy, Class::Internal) => Meet::Wait,
        (Class::Client | Class::Internal, Class::Client | Class::Internal) => wait(Rule::OneOrder),
    }
}

fn pass_copy(rules: Rules, legs: &mut [Leg], copy: &mut Op, blocks: &Range<u64>) -> Meet {
    let Kind::Copy { target } = copy.kind else { return Meet::Wait };
    let Some(leg) = legs.get_mut(target) else { return Meet::Wait };
    let common = copy.blocks.start.max(blocks.start)..copy.blocks.end.min(blocks.end);
    let worn = |b| leg.bypasses.get(&b).is_some_and(|&n| n >= limits::COPY_BYPASSES);
    if common.clone().any(worn) {
        return Meet::Wait;
    }
    for block in common {
        *leg.bypasses.entry(block).or_insert(0) += 1;
        if rules.on(Rule::CopyOvertaken) {
            copy.overtaken |= 1 << (block - copy.blocks.start);
        }
    }
    Meet::Ignore
}

impl Core {
    pub(super) fn in_sync(&self) -> usize {
        self.legs.iter().filter(|leg| leg.up_to_date()).count()
    }

    fn enough_legs(&self) -> bool {
        let floor = if self.rules.on(Rule::MinLegs) { self.config.min_legs.max(1) } else { 1 };
        // A leg that has come back counts once its record says so: until then a crash would forget it.
        let counts = |(ix, leg): &(usize, &Leg)| leg.up_to_date() && self.persist.durably_in_sync(*ix);
        self.legs.iter().enumerate().filter(counts).count() >= floor
    }

    /// W1: bits durable, then the legs.
    pub(super) fn start_write(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        let (kind, blocks) = (op.kind, op.blocks.clone());
        let durable = self.legs.iter().any(|leg| leg.up_to_date() && leg.durable());
        if !self.enough_legs() || (kind.fua() && !durable) {
            return self.refuse(slot, Fault::Io);
        }
        let mut send: Mask = 0;
        for (ix, leg) in self.legs.iter().enumerate() {
            // A block that the target lacks is not sent there: only its copy brings it.
            if leg.takes_writes() && (leg.up_to_date() || !leg.missing.any_in(blocks.clone())) {
                send |= bit(ix);
            }
        }
        let deadline_ms = self.now_ms + self.longest_wait(send);
        if let Some(op) = self.ops.get_mut(slot) {
            op.phase = Phase::Writing;
            op.deadline_ms = deadline_ms;
        }
        if self.heat.is_some() {
            let before = self.pending_maps();
            self.mark_trackers(blocks.clone());
            self.mark_all(send, &blocks);
            let limit_ms = self.longest_wait(send);
            if self.wait_for_maps(slot, &blocks, before, limit_ms) {
                return;
            }
        }
        let trackers_first = self.rules.on(Rule::TrackerFirst);
        if trackers_first {
            self.mark_trackers(blocks.clone());
        }
        if self.rules.on(Rule::MarkFirst) {
            self.mark_all(send, &blocks);
            self.send_write(slot, send);
        } else {
            self.send_write(slot, send);
            self.mark_all(send, &blocks);
        }
        if !trackers_first {
            self.mark_trackers(blocks);
        }
        self.settle_write(slot);
    }

    fn mark_all(&mut self, send: Mask, blocks: &Range<u64>) {
        for leg in 0..self.legs.len() {
            if send & bit(leg) != 0 {
                self.mark_unflushed(leg, blocks.clone());
            } else if self.rules.on(Rule::MarkSkipped) {
                self.mark_missing(leg, blocks.clone());
            }
        }
    }

    /// Longest time that a request may be parked for these legs.
    pub(super) fn longest_wait(&self, legs: Mask) -> u64 {
        legs_of(legs).filter_map(|leg| self.legs.get(leg)).map(|leg| leg.config.timeout_ms).max().unwrap_or(0)
    }

    fn send_write(&mut self, slot: u16, legs: Mask) {
        for leg in legs_of(legs) {
            if self.legs[leg].connected() {
                self.issue_write(slot, leg);
            } else if let Some(op) = self.ops.get_mut(slot) {
                op.parked |= bit(leg);
            }
        }
    }

    /// Sends a client write to one leg; its blocks are marked.
    pub(super) fn issue_write(&mut self, slot: u16, ix: LegIx) {
        let (now_ms, rules) = (self.now_ms, self.rules);
        let Some(op) = self.ops.get_mut(slot) else { return };
        let Some(leg) = self.legs.get_mut(ix) else { return };
        op.parked &= !bit(ix);
        if matches!(op.kind, Kind::Zero { fast: true, .. }) && !leg.caps.fast_zero {
            op.refused |= bit(ix);
            return;
        }
        op.pending |= bit(ix);
        op.issued_ms = now_ms;
        let io = op.next_io(slot, ix);
        if rules.on(Rule::FlushTouched) {
            leg.touch(op.blocks.clone());
        }
        leg.in_flight += 1;
        leg.written_bytes += op.range.len;
        let (range, leg) = (op.range, ix);
        let fua = op.kind.fua() && self.legs[ix].caps.fua;
        self.out.push(match op.kind {
            Kind::Zero { no_hole, fast, .. } => Action::Zero { leg, io, range, no_hole, fast, fua },
            Kind::Write { token, .. } => Action::Write { leg, io, range, source: Source::Client(token), fua },
            _ => return,
        });
    }

    pub(super) fn write_done(&mut self, slot: u16, ix: LegIx, result: Result<(), Fault>) {
        let now_ms = self.now_ms;
        let fua_flushes = self.rules.on(Rule::FuaFlushes);
        let last = self.legs.get(ix).is_some() && self.is_last(ix);
        let Some(op) = self.ops.get_mut(slot) else { return };
        let Some(leg) = self.legs.get_mut(ix) else { return };
        match result {
            Ok(()) => {
                op.acked |= bit(ix);
                leg.bytes_since_flush += op.range.len;
                if op.kind.fua() && !leg.caps.fua && leg.durable() && fua_flushes {
                    op.pending |= bit(ix);
                    op.flushing |= bit(ix);
                    let waiter = Waiter::Fua(slot, op.serial);
                    self.want_flush(ix, waiter);
                    return;
                }
            }
            Err(Fault::NotSupported) if matches!(op.kind, Kind::Zero { fast: true, .. }) => {
                op.refused |= bit(ix);
            }
            Err(Fault::Shutdown) => {
                // It is going away: what it did with this write is not known.
                op.pending |= bit(ix);
                return self.drop_session(ix);
            }
            Err(fault) if fault == Fault::Io && op.attempts(ix) <= leg.config.retries => {
                op.parked |= bit(ix);
                let pause = limits::RECONNECT_MIN_MS << op.attempts(ix).min(5);
                op.not_before_ms = op.not_before_ms.max(now_ms + pause);
                op.deadline_ms = op.deadline_ms.max(now_ms + pause + leg.config.timeout_ms);
            }
            Err(fault) => {
                if last {
                    op.failed = Some(fault);
                } else {
                    op.pending |= bit(ix);
                    return self.trouble(ix);
                }
            }
        }
        self.settle_write(slot);
    }

    /// Goes on with a client write when no leg is waited for any more.
    pub(super) fn settle_write(&mut self, slot: u16) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        if op.phase != Phase::Writing || op.pending | op.parked != 0 {
            return;
        }
        if op.refused != 0 {
            let once = legs_of(op.refused).all(|ix| op.attempts(ix) <= 1);
            if op.acked == 0 && op.failed.is_none() && once {
                // Nobody has changed anything.
                return self.refuse(slot, Fault::NotSupported);
            }
            // One leg has changed, or may have in a try that failed: the others follow the slow way (invariant 12).
            let rest = std::mem::take(&mut op.refused);
            if let Kind::Zero { fast, .. } = &mut op.kind {
                *fast = false;
            }
            self.send_write(slot, rest & self.takers());
            return self.settle_write(slot);
        }
        let failed = op.failed;
        if failed.is_some() || !self.enough_legs() {
            return self.fail_write(slot, failed.unwrap_or(Fault::Io));
        }
        if self.must_wait() {
            let gate = self.persist.leave_seq;
            let Some(op) = self.ops.get_mut(slot) else { return };
            op.phase = Phase::Gated;
            op.gate = gate;
            self.gated.push((slot, op.serial));
            return;
        }
        self.pass_write(slot);
    }

    fn takers(&self) -> Mask {
        self.legs
            .iter()
            .enumerate()
            .filter(|(_, leg)| leg.takes_writes())
            .fold(0, |mask, (ix, _)| mask | bit(ix))
    }

    /// Tells the client of success.
    pub(super) fn pass_write(&mut self, slot: u16) {
        if let Some(token) = self.ops.get(slot).and_then(|op| op.kind.token()) {
            self.reply(token, Answer::Done);
        }
        self.end(slot);
    }

    /// Tells the client of an error where nothing was written.
    pub(super) fn refuse(&mut self, slot: u16, fault: Fault) {
        if let Some(token) = self.ops.get(slot).and_then(|op| op.kind.token()) {
            self.reply(token, Answer::Failed(fault));
        }
        self.end(slot);
    }

    /// Tells the client of an error after something may have been written: at once the range is *missing* on
    /// every leg that may differ from the one that reads will be served from.
    pub(super) fn fail_write(&mut self, slot: u16, fault: Fault) {
        let Some(op) = self.ops.get(slot) else { return };
        let (blocks, acked) = (op.blocks.clone(), op.acked);
        if self.rules.on(Rule::ErrorPins) {
            let good = legs_of(acked).any(|ix| self.legs[ix].up_to_date());
            let keep: Mask =
                if good { acked } else { self.legs.iter().position(Leg::up_to_date).map_or(0, bit) };
            for ix in 0..self.legs.len() {
                if keep & bit(ix) == 0 {
                    self.mark_missing(ix, blocks.clone());
                    if self.legs[ix].up_to_date() {
                        self.leave_set(ix, LegState::Outdated);
                    }
                }
            }
        }
        self.refuse(slot, fault);
    }
}
