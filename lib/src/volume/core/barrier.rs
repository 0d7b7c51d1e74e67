//! A barrier: for a moment nothing is written to any leg, and all that was answered is on stable storage of all of
//! them, so that whoever asked can take a snapshot of each by whatever means.
//!
//! 1. *Draining*: new writes, zeroes and flushes wait; those under way end, copies of a resync too. Reads go on.
//! 2. *Flushing*: every leg that takes writes is flushed; a leg that leaves is not waited for. If a flush of a leg
//!    in the set fails, or a loss has not been told yet, the barrier fails.
//! 3. *Held*: whoever asked is told. Nothing is written: no client's write, no copy, no repair.
//! 4. It ends when whoever asked says so or has gone, at the latest at its deadline, which counts from 1: then it is
//!    *broken*, and whoever asked is told at the end.
//!
//! What a lost connection to a dumb leg left behind may still land there meanwhile; such a leg is not in the set.

use super::api::{Action, Ask, LegIx, Note};
use super::leg::Waiter;
use super::op::{Class, Mask, bit, legs_of};
use super::start::Stage;
use super::{Core, Rule};

/// Why a barrier that was not reached in time was not.
pub const LATE: &str = "what is under way did not end in time, nothing is held";
/// Why a barrier failed.
pub const UNFLUSHED: &str = "a leg could not be flushed, nothing is held";
/// Why its end is no success.
pub const BROKEN: &str = "writes were let go before the end: its time was over";

#[derive(Debug)]
enum Step {
    Draining,
    /// These have not been flushed.
    Flushing(Mask),
    Held,
    Broken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Barrier {
    id: u64,
    deadline_ms: u64,
    step: Step,
}

impl Core {
    /// Begins; answered when it is held.
    pub(super) fn begin_barrier(&mut self, id: u64, for_ms: u64) -> Result<(), &'static str> {
        if self.barrier_holds() {
            return Err("another barrier holds writes already");
        }
        let deadline_ms = self.now_ms.saturating_add(for_ms);
        self.barrier = Some(Barrier { id, deadline_ms, step: Step::Draining });
        Ok(())
    }

    /// Whoever asked is done with it, or has gone.
    pub(super) fn end_barrier(&mut self, id: u64) -> Result<(), &'static str> {
        match self.barrier.take_if(|barrier| barrier.id == id).map(|barrier| barrier.step) {
            None => Err("there is no such barrier"),
            Some(Step::Broken) => Err(BROKEN),
            Some(Step::Held) => {
                self.let_go();
                Ok(())
            }
            Some(Step::Draining | Step::Flushing(_)) => {
                self.out.push(Action::Answer { id, result: Err("it was called off") });
                self.let_go();
                Ok(())
            }
        }
    }

    /// The volume stops.
    pub(super) fn drop_barrier(&mut self) {
        if let Some(barrier) = self.barrier.take()
            && matches!(barrier.step, Step::Draining | Step::Flushing(_))
        {
            self.out.push(Action::Answer { id: barrier.id, result: Err("the volume is stopping") });
        }
    }

    /// Whether nothing new is written.
    pub(super) fn barrier_holds(&self) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| !matches!(barrier.step, Step::Broken))
            && self.rules.on(Rule::BarrierHolds)
    }

    /// Whether a client has to wait with this.
    pub(super) fn barrier_stops(&self, ask: Ask) -> bool {
        self.barrier_holds() && !matches!(ask, Ask::Read | Ask::Extents)
    }

    /// Whether blocks may be rewritten in place: a flush waits for that.
    pub(super) fn barrier_drains(&self) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| matches!(barrier.step, Step::Draining))
    }

    /// For the status: milliseconds until its deadline.
    pub(super) fn barrier_left_ms(&self) -> Option<u64> {
        let barrier = self.barrier.as_ref().filter(|_| self.barrier_holds())?;
        Some(barrier.deadline_ms.saturating_sub(self.now_ms))
    }

    /// Goes on as far as it can. Called after every event.
    pub(super) fn step_barrier(&mut self) {
        let Some(barrier) = &self.barrier else { return };
        let late = barrier.deadline_ms <= self.now_ms;
        match barrier.step {
            Step::Draining | Step::Flushing(_) if late => self.fail_barrier(LATE),
            Step::Draining => self.drained(),
            Step::Flushing(0) if !self.must_wait() => {
                let id = barrier.id;
                self.barrier_step(Step::Held);
                self.note(None, Note::BarrierHeld);
                self.out.push(Action::Answer { id, result: Ok(()) });
            }
            Step::Held if late => {
                self.barrier_step(Step::Broken);
                self.note(None, Note::BarrierBroken);
                self.admit_waiting();
                self.pump_all();
            }
            Step::Flushing(_) | Step::Held | Step::Broken => {}
        }
    }

    fn barrier_step(&mut self, step: Step) {
        if let Some(barrier) = &mut self.barrier {
            barrier.step = step;
        }
    }

    /// Step 2, if step 1 is done.
    fn drained(&mut self) {
        let writes = |class| matches!(class, Class::Client | Class::Copy | Class::Internal);
        if self.ops.iter().any(|op| writes(op.kind.class())) || self.flushes_waiting() > 0 {
            return;
        }
        if self.legs.iter().any(|leg| leg.up_to_date() && leg.suspect.count() > 0) {
            // They are being rewritten in place.
            return;
        }
        let owed = self.legs.iter().any(|leg| leg.owes_error);
        if owed || !self.legs.iter().any(|leg| leg.up_to_date() && leg.durable()) {
            return self.fail_barrier(UNFLUSHED);
        }
        let legs = (0..self.legs.len())
            .filter(|&ix| self.legs[ix].takes_writes() && self.legs[ix].durable())
            .fold(0, |mask, ix| mask | bit(ix));
        if !self.rules.on(Rule::BarrierFlushes) {
            return self.barrier_step(Step::Flushing(0));
        }
        self.barrier_step(Step::Flushing(legs));
        let Some(id) = self.barrier.as_ref().map(|barrier| barrier.id) else { return };
        for ix in legs_of(legs) {
            self.want_flush(ix, Waiter::Barrier(id));
        }
    }

    /// A leg was flushed, or not.
    pub(super) fn barrier_flushed(&mut self, id: u64, ix: LegIx, ok: bool) {
        let in_set = self.legs[ix].up_to_date();
        if let Some(barrier) = self.barrier.as_mut().filter(|barrier| barrier.id == id)
            && let Step::Flushing(pending) = &mut barrier.step
        {
            *pending &= !bit(ix);
            if !ok && in_set {
                self.fail_barrier(UNFLUSHED);
            }
        }
    }

    fn fail_barrier(&mut self, why: &'static str) {
        if let Some(barrier) = self.barrier.take() {
            self.out.push(Action::Answer { id: barrier.id, result: Err(why) });
            self.let_go();
        }
    }

    /// Everything goes on.
    fn let_go(&mut self) {
        self.note(None, Note::BarrierEnded);
        self.admit_waiting();
        self.pump_all();
    }

    fn pump_all(&mut self) {
        (0..self.legs.len()).for_each(|ix| self.pump(ix));
    }

    /// Requests that waited are admitted, unless a barrier holds them.
    pub(super) fn admit_waiting(&mut self) {
        while matches!(self.stage, Stage::Serving)
            && !self.barrier_holds()
            && self.ops.has_room()
            && let Some((token, ask, range)) = self.front.pop_front()
        {
            self.admit(token, ask, range);
        }
    }
}

#[cfg(test)]
#[path = "barrier_tests.rs"]
mod tests;
