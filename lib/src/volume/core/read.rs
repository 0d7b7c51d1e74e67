//! Reads: from one good leg, from another when that one fails, and the repair of the one that failed.

use super::api::{Action, Answer, Fault, IoId, LegIx, Note};
use super::op::{Kind, Mask, Phase, bit, legs_of};
use super::{Core, LegState, ReadPolicy, ReadWish, Rule};
use crate::base::limits;

/// Why no leg can be read now.
pub(super) enum NoLeg {
    /// Some good leg is not connected: wait for it.
    Away,
    /// All have failed.
    Failed,
}

impl Core {
    /// Chooses a good, connected leg not in `not` by wish and policy.
    pub(super) fn pick(&mut self, not: Mask, extents: bool) -> Result<LegIx, NoLeg> {
        let mut best: Option<(LegIx, (u8, u8, u64, usize))> = None;
        let mut away = false;
        let count = self.legs.len();
        for ix in 0..count {
            let leg = &self.legs[ix];
            let loose = !self.rules.on(Rule::NoMissingRead) && leg.state == LegState::SyncTarget;
            if !(leg.up_to_date() || loose) || not & bit(ix) != 0 {
                continue;
            }
            if !leg.connected() {
                away = true;
                continue;
            }
            let wish = match leg.config.read {
                ReadWish::Prefer => 0,
                ReadWish::Allow => 1,
                ReadWish::Avoid => 2,
            };
            let blind = u8::from(extents && !leg.caps.extents);
            // Legs are read in turn where the policy calls them equal; `local` stays with one, whose server reads ahead.
            let turn = (ix + count - self.turn % count) % count;
            let (rank, turn) = match self.config.read_policy {
                ReadPolicy::Local => (u64::from(leg.config.remote), 0),
                ReadPolicy::LeastPending => (leg.in_flight, turn),
                ReadPolicy::RoundRobin => (0, turn),
            };
            let rank = if loose { 0 } else { rank + 1 };
            let rank = (blind, wish, rank, turn);
            if best.is_none_or(|(_, other)| rank < other) {
                best = Some((ix, rank));
            }
        }
        match best {
            Some((ix, _)) => {
                self.turn = ix + 1;
                Ok(ix)
            }
            None if away => Err(NoLeg::Away),
            None => Err(NoLeg::Failed),
        }
    }

    pub(super) fn start_read(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        let (kind, tried, range) = (op.kind, op.tried, op.range);
        let extents = matches!(kind, Kind::Extents { .. });
        match self.pick(tried, extents) {
            Ok(leg) if extents && !self.legs[leg].caps.extents => self.refuse(slot, Fault::NotSupported),
            Ok(leg) => {
                let (now_ms, era) = (self.now_ms, self.legs[leg].era);
                let Some(op) = self.ops.get_mut(slot) else { return };
                op.phase = Phase::Reading;
                op.pending = bit(leg);
                op.issued_ms = now_ms;
                op.source = Some((leg, era));
                let io = op.next_io(slot, leg);
                self.legs[leg].in_flight += 1;
                self.legs[leg].read_bytes += if extents { 0 } else { range.len };
                self.out.push(if extents {
                    Action::Extents { leg, io, range }
                } else {
                    Action::Read { leg, io, range }
                });
            }
            Err(NoLeg::Away) => self.park_read(slot, self.now_ms),
            // That everything is data is never wrong.
            Err(NoLeg::Failed) if extents => self.refuse(slot, Fault::NotSupported),
            Err(NoLeg::Failed) => {
                let retries = legs_of(tried).map(|ix| self.legs[ix].config.retries).max().unwrap_or(0);
                let retry_ms = self.now_ms + limits::RECONNECT_MIN_MS;
                let Some(op) = self.ops.get_mut(slot) else { return };
                op.rounds += 1;
                if op.rounds > retries || tried == 0 {
                    return self.refuse(slot, Fault::Io);
                }
                op.tried = 0;
                self.park_read(slot, retry_ms);
            }
        }
    }

    fn park_read(&mut self, slot: u16, not_before_ms: u64) {
        let wait =
            self.legs.iter().filter(|l| l.up_to_date()).map(|l| l.config.timeout_ms).max().unwrap_or(0);
        let now_ms = self.now_ms;
        let Some(op) = self.ops.get_mut(slot) else { return };
        if op.deadline_ms == 0 {
            op.deadline_ms = now_ms + wait.max(limits::RECONNECT_MIN_MS * 2);
        }
        op.phase = Phase::Parked;
        op.pending = 0;
        op.not_before_ms = not_before_ms;
    }

    pub(super) fn read_done(&mut self, slot: u16, leg: LegIx, io: IoId, result: Result<(), Fault>) {
        let Some(op) = self.ops.get_mut(slot) else { return };
        let (tried, range, kind) = (op.tried, op.range, op.kind);
        match result {
            Ok(()) => {
                if let Some(token) = kind.token() {
                    self.reply(token, Answer::Data(io));
                }
                self.end(slot);
                let read = matches!(kind, Kind::Read { .. });
                for bad in legs_of(tried).filter(|_| read) {
                    self.repair(bad, range);
                }
            }
            Err(Fault::Shutdown) => {
                op.pending |= bit(leg);
                self.drop_session(leg);
            }
            Err(Fault::NotSupported | Fault::Invalid) if matches!(kind, Kind::Extents { .. }) => {
                self.refuse(slot, Fault::NotSupported);
            }
            Err(_) => {
                op.tried |= bit(leg);
                self.start_read(slot);
            }
        }
    }

    /// Good data of another leg is written back to one that failed a read: an ordinary internal write.
    fn repair(&mut self, target: LegIx, range: crate::base::ByteRange) {
        let busy = self.ops.iter().filter(|op| matches!(op.kind, Kind::Repair { .. })).count();
        if self.legs[target].up_to_date()
            && self.legs[target].connected()
            && busy < limits::COPIES
            && !self.barrier_holds()
        {
            self.note(Some(target), Note::ReadRepair);
            self.enter(Kind::Repair { target }, range);
        }
    }
}
