//! What an administrator may ask for.

use super::api::{Action, Answer, Command, Fault, LegIx};
use super::start::Stage;
use super::{Core, LegState};
use crate::base::limits;

impl Core {
    pub(super) fn command(&mut self, id: u64, command: Command) {
        let result = match command {
            Command::Stop => return self.stop(id),
            Command::Tune { min_legs, read_policy } => {
                (self.config.min_legs, self.config.read_policy) = (min_legs, read_policy);
                Ok(())
            }
            // Also before the volume serves: a resync that must not begin.
            Command::Pause(leg) => self.pause(leg, true),
            Command::Resume(leg) => self.pause(leg, false),
            Command::EndBarrier { barrier } => self.end_barrier(barrier),
            Command::EndVerify => {
                self.cancel_verify(false);
                Ok(())
            }
            Command::Tracker { tracker, ask } => self.ask_tracker(tracker, ask),
            _ if !matches!(self.stage, Stage::Serving) => Err("the volume is starting or stopping"),
            Command::Detach(leg) => self.take_out(leg, LegState::Detached),
            Command::Fail(leg) => self.take_out(leg, LegState::Failed),
            Command::Attach(leg) => self.attach(leg),
            Command::Retire(leg) => match self.retire(id, leg) {
                Ok(()) => return,
                refused => refused,
            },
            Command::Grow { size, source } => match self.grow(id, size, source) {
                Ok(()) => return,
                refused => refused,
            },
            Command::Retain(leg) => self.retain(leg),
            Command::Barrier { for_ms } => match self.begin_barrier(id, for_ms) {
                Ok(()) => return,
                refused => refused,
            },
            Command::Verify { only, from } => match self.verify(id, only, from) {
                Ok(()) => return,
                refused => refused,
            },
            Command::Forget(leg) => self.forget(leg),
            Command::Enlist { leg, config } => self.enlist(leg, config),
            Command::Set { leg, config, moved } => self.set(leg, config, moved),
            Command::Reset(leg) => self.reset(leg),
            Command::Resync { leg, full } => self.resync(leg, full),
        };
        self.out.push(Action::Answer { id, result });
    }

    pub(super) fn take_out(&mut self, ix: LegIx, state: LegState) -> Result<(), &'static str> {
        let Some(leg) = self.legs.get(ix) else { return Err("no such leg") };
        if leg.state == LegState::Gone {
            return Err("no such leg");
        }
        if self.is_last(ix) {
            return Err("it is the last good leg");
        }
        if self.legs[ix].state != state {
            self.leave_set(ix, state);
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, ix: LegIx) -> Result<(), &'static str> {
        let leg = self.legs.get_mut(ix).filter(|leg| leg.state != LegState::Gone);
        let Some(leg) = leg else { return Err("no such leg") };
        if leg.retiring {
            return Err("it is being removed");
        }
        if matches!(leg.state, LegState::Detached | LegState::Failed) {
            leg.state = if leg.inconsistent { LegState::Inconsistent } else { LegState::Outdated };
            leg.troubles = 0;
            self.want_state();
        }
        self.legs[ix].attempts = 0;
        self.reach_now(ix);
        Ok(())
    }

    fn resync(&mut self, leg: Option<LegIx>, full: bool) -> Result<(), &'static str> {
        let Some(ix) = leg else {
            if full {
                return Err("a full copy needs the name of a leg");
            }
            (0..self.legs.len()).for_each(|ix| self.reach_now(ix));
            return Ok(());
        };
        let Some(leg) = self.legs.get(ix) else { return Err("no such leg") };
        if leg.out() {
            return Err("it is out by an administrator's word or failed: attach it first");
        }
        if full {
            if self.is_last(ix) {
                return Err("it is the last good leg");
            }
            let blocks = 0..self.legs[ix].missing.blocks();
            self.leave_set(ix, LegState::Outdated);
            self.mark_missing(ix, blocks);
            self.legs[ix].attempts = 0;
        }
        self.reach_now(ix);
        Ok(())
    }

    fn pause(&mut self, leg: Option<LegIx>, paused: bool) -> Result<(), &'static str> {
        if leg.is_some_and(|ix| ix >= self.legs.len()) {
            return Err("no such leg");
        }
        for ix in (0..self.legs.len()).filter(|&ix| leg.is_none_or(|leg| leg == ix)) {
            self.legs[ix].paused = paused;
            self.pump(ix);
        }
        Ok(())
    }

    /// Connects without the pause.
    pub(super) fn reach_now(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        if !leg.connected() && !leg.out() {
            leg.connecting = true;
            self.out.push(Action::Connect { leg: ix, at_ms: self.now_ms });
        }
    }

    /// Drain, flush, make the state durable, end. Each step is taken again on every tick until it is done.
    fn stop(&mut self, id: u64) {
        if let Stage::Starting { facts, .. } = &self.stage {
            // Nothing has been written: what was clean is clean.
            let clean = facts.iter().map(|f| f.clean).collect();
            self.stage = Stage::Stopped;
            self.refuse_front();
            self.out.push(Action::Answer { id, result: Ok(()) });
            self.out.push(Action::Stopped { clean });
            return;
        }
        if matches!(self.stage, Stage::Stopped | Stage::Stopping { .. }) {
            return self.out.push(Action::Answer { id, result: Err("it is stopping already") });
        }
        let from_ms = match self.stage {
            Stage::Electing { until_ms, .. } | Stage::Holding { until_ms } => until_ms,
            _ => self.now_ms,
        };
        self.stage = Stage::Stopping { id, deadline_ms: self.now_ms + limits::STOP_MS, from_ms };
        self.refuse_front();
        self.cancel_verify(true);
        self.drop_barrier();
        self.tick_stage();
    }

    fn refuse_front(&mut self) {
        while let Some((token, ..)) = self.front.pop_front() {
            self.reply(token, Answer::Failed(Fault::Shutdown));
        }
    }

    pub(super) fn try_stop(&mut self, id: u64, deadline_ms: u64, from_ms: u64) {
        let late = deadline_ms <= self.now_ms;
        let mut busy = self.ops.len() > 0 || self.flushes_waiting() > 0 || !self.persist.settled();
        busy |= self.now_ms < from_ms;
        busy |= self.heat.as_ref().is_some_and(|heat| !heat.settled());
        // What is to be rewritten in place can still be: the driver goes on until the end.
        busy |= self.legs.iter().any(|leg| leg.connected() && leg.suspect.count() > 0);
        if self.ops.len() == 0 {
            for ix in 0..self.legs.len() {
                let leg = &mut self.legs[ix];
                if leg.connected() && leg.takes_writes() && leg.durable() && leg.suspect.count() == 0 {
                    if leg.unflushed.count() > 0 {
                        leg.flush_wanted = true;
                        busy = true;
                    }
                    busy |= leg.flush.is_some();
                    self.kick_flush(ix);
                }
                // A late write after the end would not be known to the next start.
                busy |= !self.legs[ix].held.is_empty();
            }
        }
        if busy && !late {
            return;
        }
        let clean = self
            .legs
            .iter()
            .map(|leg| {
                let drained = leg.unflushed.count() == 0 || !leg.durable();
                drained && leg.suspect.count() == 0 && leg.held.is_empty() && self.ops.len() == 0
            })
            .collect();
        if self.heat.as_ref().is_some_and(super::heat::Heat::settled) {
            self.cool(true);
        }
        for ix in 0..self.legs.len() {
            if let Some(session) = self.legs[ix].session.take() {
                self.out.push(Action::Disconnect { leg: ix, session });
            }
        }
        self.stage = Stage::Stopped;
        self.out.push(Action::Answer { id, result: Ok(()) });
        self.out.push(Action::Stopped { clean });
    }
}
