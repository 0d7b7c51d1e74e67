//! Why a resync does not move: one answer out of facts, and the detector of stalls behind one of them.

use super::Core;
use super::api::{LegIx, Note};
use super::op::{Kind, Phase};
use super::start::Stage;
use crate::base::limits;

/// Why nothing is being copied to a leg that misses something. Milliseconds are those that are left, or, of a
/// stall, those that have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// An administrator paused it.
    Paused,
    /// The volume does not serve yet: late writes to its source may still land.
    WaitingForHold(u64),
    /// The record of the leg does not say durably that it is written.
    Record,
    /// No good leg is connected to copy from.
    NoSource,
    /// A copy failed a moment ago; tried again then.
    Retry(u64),
    /// Requests of the resync were sent to the leg, and nothing is answered.
    TargetStalled(u64),
    /// The same of the leg that is copied from.
    SourceStalled(u64),
    /// Late writes to all blocks that are left may still land.
    Held(u64),
    /// All blocks that are left wait to be rewritten on the source.
    Rewrite,
    /// Its ceiling is reached for now.
    Rate,
}

/// What is known of a target of a resync.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(PartialEq, Eq))]
struct Facts {
    paused: bool,
    /// The volume waits so long before it serves.
    holding_ms: Option<u64>,
    /// It may be written.
    open: bool,
    source: bool,
    retry_ms: Option<u64>,
    /// The detector has spoken: so long ago something moved; and whether the source is what is waited for.
    stalled: Option<(u64, bool)>,
    /// Requests of the resync are under way.
    busy: bool,
    /// Some block could be copied at once.
    free: bool,
    /// None is free because of holds: the last of them ends then.
    held_ms: Option<u64>,
    over_rate: bool,
}

/// The first reason that applies; what a person can change comes before what passes by itself.
fn decide(facts: Facts) -> Option<Halt> {
    if let Some(ms) = facts.holding_ms {
        return Some(Halt::WaitingForHold(ms));
    }
    if facts.paused {
        return Some(Halt::Paused);
    }
    if !facts.source {
        return Some(Halt::NoSource);
    }
    if !facts.open {
        return Some(Halt::Record);
    }
    if let Some((ms, source)) = facts.stalled {
        return Some(if source { Halt::SourceStalled(ms) } else { Halt::TargetStalled(ms) });
    }
    if facts.busy {
        return None;
    }
    if let Some(ms) = facts.retry_ms {
        return Some(Halt::Retry(ms));
    }
    match (facts.free, facts.held_ms) {
        (true, _) => facts.over_rate.then_some(Halt::Rate),
        (false, Some(ms)) => Some(Halt::Held(ms)),
        (false, None) => Some(Halt::Rewrite),
    }
}

/// The detector of stalls of one resync.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Motion {
    /// When something was last answered, or when there was nothing to wait for.
    at_ms: u64,
    stalled: bool,
    /// A stalled one moves since then.
    since_ms: Option<u64>,
}

/// What the detector found worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Stalled,
    Moving,
}

impl Motion {
    /// A copy or the last flush of a resync was answered.
    pub(super) fn moved(&mut self, now_ms: u64) {
        self.at_ms = now_ms;
        if self.stalled {
            self.since_ms.get_or_insert(now_ms);
        }
    }

    /// Time passes; `waiting`: requests of the resync are unanswered.
    fn watch(&mut self, waiting: bool, now_ms: u64) -> Option<Change> {
        if !waiting && !self.stalled {
            self.at_ms = now_ms;
            return None;
        }
        let silent = now_ms.saturating_sub(self.at_ms);
        if !self.stalled {
            self.stalled = silent >= limits::STALL_MS;
            return self.stalled.then_some(Change::Stalled);
        }
        if silent >= limits::STALL_CALM_MS {
            self.since_ms = None;
        }
        let calm = self.since_ms.is_some_and(|since| since + limits::STALL_CALM_MS <= now_ms);
        if calm {
            *self = Self { at_ms: now_ms, ..Self::default() };
        }
        calm.then_some(Change::Moving)
    }
}

impl super::leg::Leg {
    /// A copy of so many bytes has begun: with a ceiling the next one waits for its time. Copies begin at ticks and as
    /// others end; what was due since the tick before last is made up for, or a ceiling would be lower than it says.
    pub(super) fn spend(&mut self, len: u64, now_ms: u64) {
        if let Some(rate) = self.config.rate {
            let from_us = self.rate_free_us.max(now_ms.saturating_sub(2 * super::api::TICK_MS) * 1000);
            self.rate_free_us = from_us + len.saturating_mul(1_000_000) / rate.max(1);
        }
    }
}

impl Core {
    /// Whether an administrator and the ceiling allow a copy to this leg now.
    pub(super) fn may_copy(&self, ix: LegIx) -> bool {
        let leg = &self.legs[ix];
        !leg.paused && (leg.config.rate.is_none() || leg.rate_free_us <= self.now_ms * 1000)
    }

    /// Looks whether the resync of this leg moves.
    pub(super) fn watch(&mut self, ix: LegIx) {
        let leg = &mut self.legs[ix];
        if leg.sync.is_none() {
            leg.motion = Motion { at_ms: self.now_ms, ..Motion::default() };
            return;
        }
        let waiting = leg.copies > 0 || leg.finishing;
        match leg.motion.watch(waiting, self.now_ms) {
            Some(Change::Stalled) => self.note(Some(ix), Note::Stalled),
            Some(Change::Moving) => self.note(Some(ix), Note::Moving),
            None => {}
        }
    }

    /// Why nothing is copied to this leg; `None` if something is, or if there is nothing to copy.
    pub(super) fn halt(&self, ix: LegIx) -> Option<Halt> {
        let leg = &self.legs[ix];
        if leg.up_to_date() || leg.out() || !leg.connected() {
            return None;
        }
        let left = |until: u64| until.checked_sub(self.now_ms).filter(|ms| *ms > 0);
        let reading = self
            .ops
            .iter()
            .any(|op| matches!(op.kind, Kind::Copy { target } if target == ix) && op.phase == Phase::Reading);
        let held = leg.missing.iter().take(64).filter_map(|block| leg.held_until(block)).max();
        decide(Facts {
            paused: leg.paused,
            holding_ms: match self.stage {
                Stage::Holding { until_ms } | Stage::Electing { until_ms, .. } => left(until_ms),
                _ => None,
            },
            open: leg.open,
            source: self.legs.iter().any(|leg| leg.up_to_date() && leg.connected()),
            retry_ms: left(leg.pause_until_ms),
            stalled: leg
                .motion
                .stalled
                .then(|| (self.now_ms.saturating_sub(leg.motion.at_ms), reading && !leg.finishing)),
            busy: leg.copies > 0 || leg.finishing,
            free: leg.missing.count() == 0 || self.next_copy(ix, false).is_some(),
            held_ms: held.and_then(left),
            over_rate: !self.may_copy(ix),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_that_applies_is_told() {
        let fine = Facts { open: true, source: true, free: true, ..Facts::default() };
        let table: [(Facts, Option<Halt>); 14] = [
            (fine, None),
            (Facts { busy: true, ..fine }, None),
            (Facts { busy: true, over_rate: true, ..fine }, None),
            (Facts { paused: true, source: false, ..fine }, Some(Halt::Paused)),
            (Facts { paused: true, busy: true, ..fine }, Some(Halt::Paused)),
            (Facts { holding_ms: Some(7), paused: true, ..fine }, Some(Halt::WaitingForHold(7))),
            (Facts { source: false, open: false, ..fine }, Some(Halt::NoSource)),
            (Facts { open: false, ..fine }, Some(Halt::Record)),
            (Facts { stalled: Some((9, false)), busy: true, ..fine }, Some(Halt::TargetStalled(9))),
            (Facts { stalled: Some((9, true)), busy: true, ..fine }, Some(Halt::SourceStalled(9))),
            (Facts { retry_ms: Some(5), ..fine }, Some(Halt::Retry(5))),
            (Facts { free: false, held_ms: Some(3), ..fine }, Some(Halt::Held(3))),
            (Facts { free: false, ..fine }, Some(Halt::Rewrite)),
            (Facts { over_rate: true, ..fine }, Some(Halt::Rate)),
        ];
        for (facts, halt) in table {
            assert_eq!(decide(facts), halt, "{facts:?}");
        }
    }

    #[test]
    fn a_stall_is_told_once_and_ends_only_after_it_has_moved_for_a_while() {
        let mut motion = Motion::default();
        let mut now = 0;
        let mut told = Vec::new();
        let mut pass = |motion: &mut Motion, ms: u64, moves: bool| {
            for _ in 0..ms / 50 {
                now += 50;
                if moves {
                    motion.moved(now);
                }
                told.extend(motion.watch(true, now).map(|change| (now, change)));
            }
        };
        pass(&mut motion, limits::STALL_MS + 1000, false);
        // Single answers do not end it.
        pass(&mut motion, 50, true);
        pass(&mut motion, limits::STALL_CALM_MS, false);
        pass(&mut motion, 50, true);
        pass(&mut motion, limits::STALL_CALM_MS + 1000, false);
        pass(&mut motion, limits::STALL_CALM_MS + 100, true);
        pass(&mut motion, limits::STALL_MS - 500, false);
        let changes: Vec<Change> = told.iter().map(|t| t.1).collect();
        assert_eq!(changes, [Change::Stalled, Change::Moving], "{told:?}");
        assert_eq!(told[0].0, limits::STALL_MS);
    }

    #[test]
    fn nothing_to_wait_for_is_no_stall() {
        let mut motion = Motion::default();
        assert!((1..1000).all(|at| motion.watch(false, at * 50).is_none()));
        assert_eq!(motion.watch(true, 50_000), None, "the clock begins with the first request");
    }
}
