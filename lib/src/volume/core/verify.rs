//! Verify: the content of all legs in sync is compared, block by block, while clients work.
//!
//! Two looks, so that clients are not held up and nothing is told that is none:
//!
//! 1. *First look*, up to [`limits::COPY_LEN`] at once: enters the set of ranges in flight (invariant 5), waits for the
//!    writes that are under way there, then reads every leg. Client writes go past it, as they go past a copy.
//! 2. *Second look*, only at blocks that differed, or whose reading did not end: alone with its range, so that no
//!    write runs beside it. Client writes of that range wait for its reads, at most a leg's timeout. What differs now
//!    does differ. So a verify always ends, whatever clients write.
//!
//! A block that a leg misses is not read there. A leg that leaves the set is not compared any further: the verify is
//! partial, as it is when a leg could not be read. A leg that is merely away is waited for.
//!
//! # Repair
//!
//! The blocks that differ become *missing* on all legs that do not have what the named leg has, those that are out
//! included, and an ordinary resync copies them:
//!
//! 1. Legs in sync that differ leave the set, durably. Marked before that, a crash could elect one of them, and its
//!    marks would spread the wrong content.
//! 2. The blocks are marked on them, on all that were not compared, and in all trackers; then they are reached again.
//!    Whoever is in sync now has the right content, so that any source of the resync is right.
//! 3. The answer waits until the marks are as durable as they have to be: they precede the state that is persisted.
//!
//! Recovery: (a) before 2 nothing is repaired and nothing was answered; (b) after it the resync goes on.

use super::api::{Action, Fault, IoId, LegIx};
use super::op::{Kind, Mask, Phase, bit, legs_of};
use super::start::Stage;
use super::{Core, LegState, Rule};
use crate::base::{ByteRange, limits};
use crate::map::BlockSet;
use std::ops::Range;

/// Legs in classes of equal content.
pub type Classes = Vec<(LegIx, u8)>;

/// A range in which legs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where; whole blocks.
    pub range: ByteRange,
    /// Legs with the same number hold the same. Legs that could not be read there are absent.
    pub classes: Classes,
}

/// What a verify says of one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifiedLeg {
    /// Bytes that were compared.
    pub compared: u64,
    /// Bytes that could not be read.
    pub unread: u64,
    /// Bytes in which more than half of the legs that were compared agree, without this one.
    pub outvoted: u64,
    /// It left the set before the end.
    pub left: bool,
    /// Bytes that become missing there by the repair.
    pub repaired: u64,
}

/// How far a verify has come, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// When it began, milliseconds of the tick clock.
    pub since_ms: u64,
    /// Bytes of the volume when it began.
    pub total: u64,
    /// Bytes that are settled.
    pub done: u64,
    /// Bytes in blocks that differ.
    pub differing: u64,
    /// Where, at most [`limits::VERIFY_RANGES`].
    pub ranges: Vec<Difference>,
    /// The legs that were in sync at the start.
    pub legs: Vec<(LegIx, VerifiedLeg)>,
}

impl VerifyReport {
    /// Some of it was not compared, on some leg.
    pub fn is_partial(&self) -> bool {
        self.done < self.total || self.legs.iter().any(|(_, leg)| leg.left || leg.unread > 0)
    }
}

/// A verify that runs.
#[derive(Debug)]
pub(super) struct Verify {
    id: u64,
    /// Names its looks.
    run: u32,
    only: Option<LegIx>,
    from: Option<LegIx>,
    members: Mask,
    blocks: u64,
    cursor: u64,
    /// To be looked at a second time.
    again: BlockSet,
    looks: usize,
    /// By leg: blocks that are not what `from` holds; and all of them.
    wrong: Vec<BlockSet>,
    differ: BlockSet,
    /// Legs leave before they are marked: the state that says so.
    leaving: Option<u64>,
    report: VerifyReport,
}

impl Core {
    /// The last verify that ended, or the one that runs.
    pub fn verify_report(&self) -> Option<&VerifyReport> {
        self.verify.as_ref().map(|verify| &verify.report).or(self.verified.as_ref())
    }

    /// The one that runs.
    pub fn verify_running(&self) -> Option<&VerifyReport> {
        self.verify.as_ref().map(|verify| &verify.report)
    }

    /// Begins; answered at its end.
    pub(super) fn verify(
        &mut self,
        id: u64,
        only: Option<LegIx>,
        from: Option<LegIx>,
    ) -> Result<(), &'static str> {
        if self.verify.is_some() {
            return Err("a verify is running already");
        }
        let good = |ix: LegIx| self.leg_state(ix) == Some(LegState::UpToDate);
        if only.is_some_and(|ix| !good(ix)) || from.is_some_and(|ix| !good(ix)) {
            return Err("that leg is not UpToDate: only such legs are compared");
        }
        if only.is_some() && only == from {
            return Err("a leg is not repaired from itself");
        }
        let members = (0..self.legs.len()).filter(|&ix| good(ix)).fold(0, |mask, ix| mask | bit(ix));
        if members.count_ones() < 2 {
            return Err("fewer than two legs are UpToDate: there is nothing to compare");
        }
        if from.is_some() && self.config.min_legs > 1 {
            return Err("a leg that is repaired leaves the set for a while, and with min-legs above 1 \
                        writes would be refused");
        }
        self.serial = self.serial.wrapping_add(1);
        let blocks = self.config.block.count(self.config.size);
        let sets = if from.is_some() { self.legs.len() } else { 0 };
        let report = VerifyReport {
            since_ms: self.now_ms,
            total: self.config.size,
            done: 0,
            differing: 0,
            ranges: Vec::new(),
            legs: legs_of(members).map(|ix| (ix, VerifiedLeg::default())).collect(),
        };
        self.verify = Some(Verify {
            id,
            run: self.serial,
            only,
            from,
            members,
            blocks,
            cursor: 0,
            again: BlockSet::new(blocks),
            looks: 0,
            wrong: vec![BlockSet::new(blocks); sets],
            differ: BlockSet::new(blocks),
            leaving: None,
            report,
        });
        self.pump_verify();
        Ok(())
    }

    /// Whoever asked has gone, or the volume stops. A repair whose legs are leaving goes on to its end.
    pub(super) fn cancel_verify(&mut self, stopping: bool) {
        if let Some(verify) = self.verify.take_if(|verify| stopping || verify.leaving.is_none()) {
            self.out.push(Action::Answer { id: verify.id, result: Err("the verify was stopped") });
        }
    }

    /// Starts as many looks as may be in flight; ends the verify when nothing is left.
    pub(super) fn pump_verify(&mut self) {
        if !matches!(self.stage, Stage::Serving) {
            return;
        }
        let Some(verify) = self.verify.as_mut().filter(|verify| verify.leaving.is_none()) else { return };
        if verify.members.count_ones() < 2 {
            return self.looked_through();
        }
        if legs_of(verify.members).any(|ix| !self.legs[ix].connected()) {
            // It comes back, or leaves.
            return;
        }
        let busy = self.client_ms + limits::YIELD_MS > self.now_ms;
        let limit = if busy { limits::LOOKS_YIELDING } else { limits::LOOKS };
        let max = (limits::COPY_LEN / self.config.block.bytes()).clamp(1, 64);
        while let Some(verify) = self.verify.as_mut().filter(|verify| verify.looks < limit)
            && self.ops.has_room()
        {
            let (exact, blocks) = match verify.again.next_run(0, max) {
                Some(blocks) => (true, blocks),
                None if verify.cursor < verify.blocks => {
                    (false, verify.cursor..verify.blocks.min(verify.cursor + max))
                }
                None => break,
            };
            if exact {
                verify.again.remove_range(blocks.clone());
            } else {
                verify.cursor = blocks.end;
            }
            verify.looks += 1;
            let (run, total) = (verify.run, verify.report.total);
            self.enter(Kind::Look { exact, run }, self.config.block.range(&blocks, total));
        }
        let over = |verify: &Verify| {
            verify.looks == 0 && verify.cursor == verify.blocks && verify.again.count() == 0
        };
        if self.verify.as_ref().is_some_and(over) {
            self.looked_through();
        }
    }

    /// Nothing is in the way: every leg is read that has these blocks.
    pub(super) fn start_look(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        let Kind::Look { run, .. } = op.kind else { return };
        let (range, blocks) = (op.range, op.blocks.clone());
        let Some(verify) = self.verify.as_ref().filter(|verify| verify.run == run) else {
            return self.end(slot);
        };
        let good: Vec<LegIx> = legs_of(verify.members).filter(|&ix| self.legs[ix].up_to_date()).collect();
        if good.len() < 2 || good.iter().any(|&ix| !self.legs[ix].connected()) {
            return self.look_again(slot);
        }
        let now_ms = self.now_ms;
        let Some(op) = self.ops.get_mut(slot) else { return };
        op.phase = Phase::Reading;
        op.issued_ms = now_ms;
        for ix in good {
            let leg = &mut self.legs[ix];
            if leg.missing.any_in(blocks.clone()) {
                op.tried |= bit(ix);
                continue;
            }
            op.pending |= bit(ix);
            let io = op.next_io(slot, ix);
            leg.in_flight += 1;
            leg.read_bytes += range.len;
            self.out.push(Action::Read { leg: ix, io, range });
        }
        if op.pending == 0 {
            self.look_read(slot);
        }
    }

    /// One leg has been read, or could not be.
    pub(super) fn look_done(&mut self, slot: u16, ix: LegIx, result: Result<(), Fault>) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        match result {
            Ok(()) => op.acked |= bit(ix),
            Err(Fault::Shutdown) => {
                op.pending |= bit(ix);
                return self.drop_session(ix);
            }
            Err(_) => op.tried |= bit(ix),
        }
        if op.pending == 0 {
            self.look_read(slot);
        }
    }

    /// All that were asked have answered: the driver compares.
    fn look_read(&mut self, slot: u16) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        let Kind::Look { exact, run } = op.kind else { return };
        let known = self.verify.as_ref().is_some_and(|verify| verify.run == run);
        if !known {
            return self.drop_look(slot);
        }
        if op.failed.is_some() || (op.tried != 0 && !exact) {
            return self.look_again(slot);
        }
        if op.acked.count_ones() < 2 {
            self.settle_look(slot, &[]);
            return;
        }
        op.phase = Phase::Comparing;
        let reads = legs_of(op.acked).map(|ix| (ix, op.io(slot, ix))).collect();
        self.out.push(Action::Compare { range: op.range, reads });
    }

    /// The driver has compared what these reads brought: the blocks that differ, each with the class of each read.
    pub(super) fn compared(&mut self, io: IoId, differ: &[(u64, Vec<u8>)]) {
        let slot = (io.0 & 0xffff) as u16;
        let Some(op) = self.ops.get(slot).filter(|op| op.phase == Phase::Comparing) else { return };
        if legs_of(op.acked).next().is_some_and(|ix| op.io(slot, ix) == io) {
            self.settle_look(slot, differ);
            self.pump_verify();
        }
    }

    fn settle_look(&mut self, slot: u16, differ: &[(u64, Vec<u8>)]) {
        let Some(op) = self.ops.get(slot) else { return };
        let Kind::Look { exact, run } = op.kind else { return };
        let (blocks, acked, tried) = (op.blocks.clone(), op.acked, op.tried);
        let second = exact || !self.rules.on(Rule::VerifySecondLook);
        let size = self.config.size;
        let bytes = |block: u64| self.config.block.range(&(block..block + 1), size);
        if let Some(verify) = self.verify.as_mut().filter(|verify| verify.run == run) {
            for block in blocks {
                let found = differ.iter().find(|(at, _)| *at == block).map(|(_, classes)| classes);
                if found.is_some() && !second {
                    verify.again.insert(block);
                    continue;
                }
                let classes = found.map(|classes| legs_of(acked).zip(classes.iter().copied()).collect());
                verify.settle(block, bytes(block), acked, tried, classes);
            }
        }
        self.drop_look(slot);
    }

    /// All of it is looked at again, alone with its range.
    fn look_again(&mut self, slot: u16) {
        if let Some(op) = self.ops.get(slot)
            && let Kind::Look { run, .. } = op.kind
            && let Some(verify) = self.verify.as_mut().filter(|verify| verify.run == run)
        {
            verify.again.insert_range(op.blocks.clone());
        }
        self.drop_look(slot);
    }

    fn drop_look(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        let Kind::Look { run, .. } = op.kind else { return };
        for ix in legs_of(op.acked) {
            self.out.push(Action::Release { io: op.io(slot, ix) });
        }
        if let Some(verify) = self.verify.as_mut().filter(|verify| verify.run == run) {
            verify.looks -= 1;
        }
        self.end(slot);
    }

    /// A session of a leg has ended: looks that wait for it, or have read it, are of no use.
    pub(super) fn spoil_looks(&mut self, ix: LegIx) {
        for slot in self.ops.slots() {
            let Some(op) = self.ops.get_mut(slot) else { continue };
            let concerned = (op.pending | op.acked) & bit(ix) != 0 && op.phase == Phase::Reading;
            if !concerned || !matches!(op.kind, Kind::Look { .. }) {
                continue;
            }
            if op.acked & bit(ix) != 0 {
                let io = op.io(slot, ix);
                self.out.push(Action::Release { io });
            }
            op.pending &= !bit(ix);
            op.acked &= !bit(ix);
            op.failed = Some(Fault::Io);
            if op.pending == 0 {
                self.look_read(slot);
            }
        }
    }

    /// A leg has left the set: it is not compared any further.
    pub(super) fn verify_left(&mut self, ix: LegIx) {
        if let Some(verify) = self.verify.as_mut().filter(|verify| verify.leaving.is_none()) {
            verify.members &= !bit(ix);
            verify.report.legs.iter_mut().filter(|leg| leg.0 == ix).for_each(|leg| leg.1.left = true);
        }
    }

    /// Every block is settled, or no two legs are left.
    fn looked_through(&mut self) {
        let Some(verify) = &mut self.verify else { return };
        let from = verify.from.filter(|from| verify.members & bit(*from) != 0);
        let Some(from) = from.filter(|_| verify.differ.count() > 0) else { return self.end_verify(false) };
        let leaves: Vec<LegIx> = legs_of(verify.members & !bit(from))
            .filter(|&ix| verify.wrong[ix].count() > 0 && self.legs[ix].up_to_date())
            .collect();
        if !self.legs[from].up_to_date() {
            return self.end_verify(false);
        }
        // Step 1. From now on whoever leaves stays a member.
        verify.leaving = Some(u64::MAX);
        if self.rules.on(Rule::VerifyLeavesFirst) {
            for ix in leaves {
                self.leave_set(ix, LegState::Outdated);
            }
        } else {
            self.mark_wrong(from);
        }
        if let Some(verify) = &mut self.verify {
            verify.leaving = Some(self.persist.wanted());
        }
        self.verify_persisted();
    }

    /// The state that was waited for may be durable: step 2.
    pub(super) fn verify_persisted(&mut self) {
        let Some(verify) = &self.verify else { return };
        let (Some(seq), Some(from)) = (verify.leaving, verify.from) else { return };
        if !self.persist.is_durable(seq) {
            return;
        }
        if verify.wrong.is_empty() {
            // Done already, in a simulation without the rule.
        } else if self.legs[from].up_to_date() {
            self.mark_wrong(from);
        } else {
            self.back_again();
        }
        // Step 3.
        self.want_state();
        self.end_verify(true);
    }

    /// The leg that was to be copied from is not good any more: whoever left comes back as it is.
    fn back_again(&mut self) {
        for ix in (0..self.legs.len()).filter(|&ix| !self.legs[ix].up_to_date()).collect::<Vec<_>>() {
            self.reach_now(ix);
        }
    }

    fn mark_wrong(&mut self, from: LegIx) {
        let Some(verify) = &mut self.verify else { return };
        let (members, differ) = (verify.members, verify.differ.clone());
        let wrong = std::mem::take(&mut verify.wrong);
        self.mark_trackers_all(&differ);
        for ix in (0..self.legs.len()).filter(|&ix| ix != from) {
            if self.legs[ix].state == LegState::Gone {
                continue;
            }
            let member = members & bit(ix) != 0;
            let set = wrong.get(ix).filter(|_| member).unwrap_or(&differ);
            if set.count() == 0 {
                continue;
            }
            for run in set.runs(u64::MAX) {
                self.mark_missing(ix, run);
            }
            let bytes = self.set_bytes(set);
            if let Some(verify) = &mut self.verify {
                verify
                    .report
                    .legs
                    .iter_mut()
                    .filter(|leg| leg.0 == ix)
                    .for_each(|leg| leg.1.repaired = bytes);
            }
            if self.legs[ix].up_to_date() {
                // It came back while the others left.
                self.leave_set(ix, LegState::Outdated);
            }
            self.legs[ix].attempts = 0;
            self.reach_now(ix);
            self.pump(ix);
        }
    }

    /// The answer; with `durable` when the present state is so.
    fn end_verify(&mut self, durable: bool) {
        let Some(verify) = self.verify.take() else { return };
        self.verified = Some(verify.report);
        if durable {
            self.answer_when_durable(verify.id);
        } else {
            self.out.push(Action::Answer { id: verify.id, result: Ok(()) });
        }
    }
}

impl Verify {
    /// A block of which all is known; `classes` where legs differ.
    fn settle(&mut self, block: u64, range: ByteRange, acked: Mask, tried: Mask, classes: Option<Classes>) {
        self.report.done += range.len;
        for (ix, leg) in &mut self.report.legs {
            if tried & bit(*ix) != 0 {
                leg.unread += range.len;
            } else if acked & bit(*ix) != 0 {
                leg.compared += range.len;
            }
        }
        let Some(classes) = classes else { return };
        let class_of = |ix: LegIx| classes.iter().find(|(leg, _)| *leg == ix).map(|(_, class)| *class);
        if let Some(only) = self.only {
            let own = class_of(only);
            if classes.iter().all(|(_, class)| Some(*class) == own) || own.is_none() {
                return;
            }
        }
        self.report.differing += range.len;
        let most = classes.iter().find(|(_, class)| {
            classes.iter().filter(|(_, other)| other == class).count() * 2 > classes.len()
        });
        if let Some((_, most)) = most {
            for (ix, leg) in &mut self.report.legs {
                leg.outvoted += if class_of(*ix).is_some_and(|class| class != *most) { range.len } else { 0 };
            }
        }
        if let Some(own) = self.from.and_then(class_of) {
            self.differ.insert(block);
            for (ix, wrong) in self.wrong.iter_mut().enumerate() {
                if class_of(ix) != Some(own) {
                    wrong.insert(block);
                }
            }
        }
        self.list(range, classes);
    }

    /// Joins a neighbour with the same classes; second looks come in any order.
    fn list(&mut self, range: ByteRange, classes: Classes) {
        let ranges = &mut self.report.ranges;
        if let Some(before) =
            ranges.iter_mut().find(|d| d.range.end() == range.offset && d.classes == classes)
        {
            before.range.len += range.len;
        } else if let Some(after) =
            ranges.iter_mut().find(|d| range.end() == d.range.offset && d.classes == classes)
        {
            after.range = ByteRange { offset: range.offset, len: range.len + after.range.len };
        } else if ranges.len() < limits::VERIFY_RANGES {
            ranges.push(Difference { range, classes });
        }
    }
}

/// Which of these are equal, block by block: for each block that is not the same everywhere, its number and a class
/// for each. `block_of` gives the ranges of the blocks inside the contents. For the driver.
pub fn compare<T: PartialEq>(
    contents: &[&[T]],
    blocks: impl Iterator<Item = (u64, Range<usize>)>,
) -> Vec<(u64, Vec<u8>)> {
    let mut differ = Vec::new();
    for (block, range) in blocks {
        let parts: Vec<Option<&[T]>> = contents.iter().map(|all| all.get(range.clone())).collect();
        if parts.iter().all(|part| *part == parts[0]) {
            continue;
        }
        let class = |at: usize| parts.iter().position(|part| *part == parts[at]).unwrap_or(at) as u8;
        differ.push((block, (0..parts.len()).map(class).collect()));
    }
    differ
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
