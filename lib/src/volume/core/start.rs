//! From nothing to serving: connect, elect a source if the last run did not end cleanly, make the election
//! durable, wait out late writes.

use super::api::{LegIx, LegRecord, Note};
use super::op::legs_of;
use super::{Core, LegStart, LegState, Rule};
use crate::map::BlockSet;

/// Where the volume stands between its start and its end.
#[derive(Debug)]
pub(super) enum Stage {
    /// Legs are being connected.
    Starting { facts: Vec<Facts>, deadline_ms: Option<u64> },
    /// The election is being recorded.
    Electing { seq: u64, until_ms: u64 },
    /// Late writes to the source may still land.
    Holding { until_ms: u64 },
    /// Requests are admitted.
    Serving,
    /// Draining; not before late writes to the source can have landed.
    Stopping { id: u64, deadline_ms: u64, from_ms: u64 },
    /// Over.
    Stopped,
}

/// What was found of a leg.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) clean: bool,
    cache_kept: bool,
    record: LegRecord,
}

impl Stage {
    pub(super) fn new(found: Vec<LegStart>) -> Self {
        let facts = found
            .into_iter()
            .map(|leg| Facts { clean: leg.clean, cache_kept: leg.cache_kept, record: leg.record })
            .collect();
        Self::Starting { facts, deadline_ms: None }
    }
}

/// Which of the connected in-sync legs is the source: first those that can flush, then those that kept their
/// cache, then the configured order. A pure choice.
fn elect(candidates: impl Iterator<Item = (LegIx, bool, bool)>) -> Option<LegIx> {
    candidates
        .min_by_key(|&(ix, unsafe_flush, cache_kept)| (unsafe_flush, !cache_kept, ix))
        .map(|(ix, ..)| ix)
}

impl Core {
    /// The first tick: ask for all connections.
    pub(super) fn begin(&mut self) {
        let wait_ms =
            self.legs.iter().filter(|l| l.up_to_date()).map(|l| l.config.timeout_ms).max().unwrap_or(0);
        let Stage::Starting { deadline_ms, facts } = &mut self.stage else { return };
        if deadline_ms.is_none() {
            *deadline_ms = Some(self.now_ms + wait_ms);
            let records = facts.iter().map(|f| f.record).collect();
            self.persist.found(records);
            let now_ms = self.now_ms;
            for (ix, leg) in self.legs.iter_mut().enumerate() {
                if !leg.out() {
                    leg.connecting = true;
                    self.out.push(super::Action::Connect { leg: ix, at_ms: now_ms });
                }
            }
        }
        self.check_start();
    }

    /// Goes on when every in-sync leg is connected or has been given up, and one of them is connected.
    pub(super) fn check_start(&mut self) {
        let Stage::Starting { facts, deadline_ms: Some(deadline_ms) } = &self.stage else { return };
        let late = *deadline_ms <= self.now_ms;
        let in_sync = || self.legs.iter().filter(|leg| leg.up_to_date());
        let waiting = in_sync().any(|leg| !leg.connected() && leg.attempts <= leg.config.retries);
        if in_sync().count() > 0 && ((waiting && !late) || !in_sync().any(super::leg::Leg::connected)) {
            return;
        }
        let source = elect(
            (0..self.legs.len())
                .filter(|&ix| self.legs[ix].up_to_date() && self.legs[ix].connected())
                .map(|ix| (ix, self.legs[ix].config.flush_unsafe, facts[ix].cache_kept)),
        );
        let unclean: Vec<LegIx> =
            (0..self.legs.len()).filter(|&ix| facts[ix].record.in_sync && !facts[ix].clean).collect();
        let crashed = facts.iter().any(|f| !f.clean);
        let before_ms = self.now_ms;
        if let Some(source) = source {
            self.install(source, &unclean);
        }
        let hold = crashed && self.rules.on(Rule::Hold);
        if hold {
            let until_ms = before_ms + self.config.hold_ms;
            for ix in 0..self.legs.len() {
                if Some(ix) != source && self.legs[ix].config.remote {
                    let blocks = self.legs[ix].missing.blocks();
                    self.legs[ix].held.push((0..blocks, until_ms));
                }
            }
        }
        let wait = hold && source.is_some_and(|ix| self.legs[ix].config.remote);
        let until_ms = if wait { before_ms + self.config.hold_ms } else { 0 };
        if !unclean.is_empty() {
            self.note(source, Note::Elected);
        }
        let seq = self.want_state();
        self.stage = Stage::Electing { seq, until_ms };
    }

    /// The source's own marks become its *unflushed*, to be rewritten; everybody's marks become *missing* on all
    /// others; members that differ or cannot be reached leave.
    fn install(&mut self, source: LegIx, unclean: &[LegIx]) {
        let mut union = BlockSet::new(self.legs[source].missing.blocks());
        if self.rules.on(Rule::ElectionUnion) {
            for &ix in unclean {
                union.union_with(&self.legs[ix].missing);
            }
        }
        if self.rules.on(Rule::TrackerElection) {
            // What was seen before the end may not be what is seen from now on.
            for ix in unclean.iter().copied().chain([source]) {
                let marks = self.legs[ix].missing.clone();
                self.mark_trackers_all(&marks);
            }
        }
        let rewrite = self.rules.on(Rule::SourceRewrite);
        let now_ms = self.now_ms;
        let leg = &mut self.legs[source];
        let own = std::mem::replace(&mut leg.missing, BlockSet::new(union.blocks()));
        for block in own.iter() {
            leg.mark_unflushed(block..block + 1, now_ms, |_| {});
            if rewrite {
                leg.suspect.insert(block);
            }
        }
        for ix in (0..self.legs.len()).filter(|&ix| ix != source) {
            let mut from = 0;
            while let Some(run) = union.next_run(from, u64::MAX) {
                from = run.end;
                self.mark_missing(ix, run);
            }
            let leg = &self.legs[ix];
            if leg.up_to_date() && (leg.missing.count() > 0 || !leg.connected()) {
                let session = self.legs[ix].session;
                // It keeps its connection: nothing is in flight on it yet.
                self.legs[ix].state = LegState::Outdated;
                self.legs[ix].last_in_sync_ms = Some(now_ms);
                self.note(Some(ix), Note::Left);
                self.want_state_left();
                if session.is_none() {
                    self.reach(ix);
                }
            }
        }
    }

    /// The election is durable.
    pub(super) fn elected(&mut self) {
        if let Stage::Electing { until_ms, .. } = self.stage {
            self.stage = Stage::Holding { until_ms };
            self.tick_stage();
        }
    }

    /// Stages that end with time.
    pub(super) fn tick_stage(&mut self) {
        match self.stage {
            Stage::Holding { until_ms } if until_ms <= self.now_ms => {
                self.stage = Stage::Serving;
                self.note(None, Note::Serving);
                for ix in legs_of((1u64 << self.legs.len()).wrapping_sub(1) as u32) {
                    if self.legs[ix].connected() {
                        self.engage(ix);
                    }
                }
                self.admit_waiting();
            }
            Stage::Stopping { id, deadline_ms, from_ms } => self.try_stop(id, deadline_ms, from_ms),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::elect;

    #[test]
    fn the_source_is_elected_by_flush_then_cache_then_order() {
        type Row = (&'static [(usize, bool, bool)], Option<usize>);
        let table: [Row; 5] = [
            (&[], None),
            (&[(0, false, false), (1, false, false)], Some(0)),
            (&[(0, false, false), (1, false, true)], Some(1)),
            (&[(0, true, true), (1, false, false)], Some(1)),
            (&[(1, false, true), (2, false, true)], Some(1)),
        ];
        for (legs, source) in table {
            assert_eq!(elect(legs.iter().copied()), source, "{legs:?}");
        }
    }
}
