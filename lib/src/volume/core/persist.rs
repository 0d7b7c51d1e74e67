//! The state that must be on stable storage: who is in sync, who is half overwritten.

use super::api::{Action, Fault, LegIx, LegRecord, Note};
use super::op::Phase;
use super::start::Stage;
use super::{Core, Rule};
use crate::base::limits;

/// One write of the state at a time; newer wishes join the next.
#[derive(Debug, Default)]
pub(super) struct Persist {
    /// The newest state wished for.
    want_seq: u64,
    /// The newest state that is durable.
    durable_seq: u64,
    running: Option<(u64, Vec<LegRecord>)>,
    /// The state in which the last leg to leave is recorded as out: answers wait for it (invariant 4).
    pub(super) leave_seq: u64,
    mint: bool,
    retry_ms: u64,
    /// What is known to be durable: where a state may or may not have got there, only what both say.
    durable: Vec<LegRecord>,
    /// Commands whose answer waits for a state: the command, and the state.
    pub(super) owed: Vec<(u64, u64)>,
}

impl Persist {
    pub(super) fn found(&mut self, records: Vec<LegRecord>) {
        self.durable = records;
    }

    /// The record of a new leg, known to be durable. States up to the one returned say nothing of it.
    pub(super) fn enlist(&mut self, leg: LegIx, record: LegRecord) -> u64 {
        self.durable.resize(self.durable.len().max(leg + 1), LegRecord::default());
        self.durable[leg] = record;
        self.want_seq
    }

    /// The newest state wished for.
    pub(super) fn wanted(&self) -> u64 {
        self.want_seq
    }

    pub(super) fn is_durable(&self, seq: u64) -> bool {
        self.durable_seq >= seq
    }

    /// Whether the record of a leg is known to say that it is in sync.
    pub(super) fn durably_in_sync(&self, leg: LegIx) -> bool {
        self.durable.get(leg).is_some_and(|record| record.in_sync)
    }

    pub(super) fn settled(&self) -> bool {
        self.durable_seq >= self.want_seq
    }
}

impl Core {
    /// Whether answers must wait for the state.
    pub(super) fn must_wait(&self) -> bool {
        self.persist.leave_seq > self.persist.durable_seq && self.rules.on(Rule::LeaveDurableFirst)
    }

    /// Whether the record of a leg says, durably, that a resync may write it.
    pub(super) fn durably_inconsistent(&self, leg: LegIx) -> bool {
        let since = self.legs[leg].since_seq;
        let running = self.persist.running.as_ref();
        let running = running.is_none_or(|(seq, legs)| *seq <= since || legs[leg].inconsistent);
        running && self.persist.durable.get(leg).is_some_and(|r| r.inconsistent && !r.in_sync)
    }

    /// Wishes the present state to be durable; the sequence that will say so.
    pub(super) fn want_state(&mut self) -> u64 {
        self.persist.want_seq += 1;
        self.write_state();
        self.persist.want_seq
    }

    /// The same after a leg left the in-sync set: no success is told before it is durable, and the contents
    /// need a new generation (W2).
    pub(super) fn want_state_left(&mut self) {
        self.persist.mint = true;
        self.persist.leave_seq = self.persist.want_seq + 1;
        self.want_state();
    }

    fn write_state(&mut self) {
        if self.persist.running.is_some() || self.persist.settled() {
            return;
        }
        let legs: Vec<LegRecord> = self.legs.iter().map(super::leg::Leg::record).collect();
        let seq = self.persist.want_seq;
        self.persist.running = Some((seq, legs.clone()));
        let mint = self.persist.mint;
        self.out.push(Action::Persist { seq, legs, mint });
    }

    pub(super) fn retry_state(&mut self) {
        if self.now_ms >= self.persist.retry_ms {
            self.write_state();
        }
    }

    pub(super) fn persisted(&mut self, seq: u64, ok: bool) {
        let Some((running, legs)) = self.persist.running.take() else { return };
        if running != seq {
            self.persist.running = Some((running, legs));
            return;
        }
        if ok {
            self.persist.durable_seq = seq;
            for (ix, record) in legs.into_iter().enumerate() {
                if self.legs[ix].since_seq < seq {
                    self.persist.durable[ix] = record;
                }
            }
            if self.persist.settled() {
                self.persist.mint = false;
            }
            self.write_state();
        } else {
            for (ix, tried) in legs.iter().enumerate().filter(|(ix, _)| self.legs[*ix].since_seq < seq) {
                let known = &mut self.persist.durable[ix];
                known.in_sync &= tried.in_sync;
                known.inconsistent &= tried.inconsistent;
            }
            self.persist.retry_ms = self.now_ms + limits::PERSIST_RETRY_MS;
            self.note(None, Note::PersistFailed);
        }
        self.release_gated(seq, ok);
        self.answer_owed(seq, ok);
        self.verify_persisted();
        if let Stage::Electing { seq: wanted, .. } = self.stage
            && self.persist.is_durable(wanted)
        {
            self.elected();
        }
        for leg in 0..self.legs.len() {
            if self.legs[leg].open_after.is_some_and(|wanted| self.persist.is_durable(wanted)) {
                self.legs[leg].open_after = None;
                self.open_target(leg);
            }
        }
    }

    /// Commands that waited for the state are answered.
    fn answer_owed(&mut self, seq: u64, ok: bool) {
        let owed = std::mem::take(&mut self.persist.owed);
        for (id, wanted) in owed {
            if wanted > seq {
                self.persist.owed.push((id, wanted));
            } else {
                let result = if ok { Ok(()) } else { Err("the state could not be made durable") };
                // What was to be removed stays out, and may come back.
                self.legs.iter_mut().filter(|_| !ok).for_each(|leg| leg.retiring = false);
                self.out.push(Action::Answer { id, result });
            }
        }
    }

    /// Answers that waited for the state are given: success if it is durable, an error if it could not be made so.
    fn release_gated(&mut self, seq: u64, ok: bool) {
        let mut waiting = std::mem::take(&mut self.gated);
        waiting.retain(|&(slot, serial)| {
            let Some(op) = self.ops.get(slot) else { return false };
            if op.serial != serial || op.phase != Phase::Gated {
                return false;
            }
            if ok && self.persist.is_durable(op.gate) {
                self.pass_write(slot);
                return false;
            }
            if !ok && op.gate <= seq {
                self.fail_write(slot, Fault::Io);
                return false;
            }
            true
        });
        self.gated.append(&mut waiting);
        if !self.must_wait() || !ok {
            self.release_flushes(ok);
        }
    }
}
