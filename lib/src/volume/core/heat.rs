//! Durability `power`: marks are on stable storage before the writes they stand for.
//!
//! In memory maps are exact. On disk a *hot* run (64 blocks, one word) stands as all dirty, so that only the first
//! write into a quiet run waits for the map; a crash widens, and never loses a mark.
//!
//! 1. A mark in a cold run heats it: the whole run is marked ([`Action::Mark`]) and belongs to the next sync.
//! 2. One sync runs at a time ([`Action::SyncMaps`]); what is heated meanwhile belongs to the one after it. Requests
//!    that need a run of it wait, and share it. If it fails, they fail before any leg has seen them, and the run
//!    belongs to the next.
//! 3. When no request has heated a run for a while and nothing of it is unflushed, it cools: it is cold in memory
//!    first, then its exact word is stored. A request that comes now heats it again, with a sync of its own,
//!    because the exact word may get to the disk at any time.
//! 4. Nothing cools before all marks that were made when it was chosen are durable, on all maps: what one leg's
//!    mark stands for may be known from another's.
//!
//! Recovery: the disk holds every mark of a write that a leg may have seen.

use super::api::{Action, Fault, MapIx};
use super::op::{Class, Kind, Phase};
use super::{Core, LegIx, Power, Rule};
use crate::base::limits;
use crate::map::BlockSet;
use std::collections::BTreeMap;
use std::ops::Range;

/// One map: what is known of its runs.
#[derive(Debug)]
struct Runs {
    /// All dirty on disk, or on the way to be.
    hot: BlockSet,
    /// Marked since the last sweep.
    recent: BlockSet,
    /// Cold, and a bit on disk is in no set any more.
    stale: BlockSet,
    /// Not durable yet: the sync that will make it so.
    pending: BTreeMap<u64, u64>,
    /// Was cold once more after it had been hot; only a test looks at it.
    cooled: BlockSet,
}

impl Runs {
    fn new(runs: u64) -> Self {
        let set = || BlockSet::new(runs);
        Self { hot: set(), recent: set(), stale: set(), pending: BTreeMap::new(), cooled: set() }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heat {
    power: Power,
    blocks: u64,
    legs: Vec<Runs>,
    trackers: Vec<Runs>,
    running: Option<u64>,
    /// Number of the sync after the running one.
    next: u64,
    /// Something belongs to it.
    wanted: bool,
    /// After a failure, not before; unless somebody waits.
    not_before_ms: u64,
    urgent: bool,
    failing: bool,
    /// Requests that wait, by slot and serial.
    waiting: Vec<(u16, u32)>,
    sweep_ms: u64,
    /// A sweep waits for this sync.
    sweep_after: Option<u64>,
}

impl Heat {
    pub(super) fn new(power: Power, blocks: u64, legs: usize) -> Self {
        let runs = blocks.div_ceil(power.run_blocks);
        Self {
            power,
            blocks,
            legs: (0..legs).map(|_| Runs::new(runs)).collect(),
            trackers: Vec::new(),
            running: None,
            next: 1,
            wanted: false,
            not_before_ms: 0,
            urgent: false,
            failing: false,
            waiting: Vec::new(),
            sweep_ms: 0,
            sweep_after: None,
        }
    }

    /// A leg's map is as its file says, all cold; it is another leg than before.
    pub(super) fn enlist(&mut self, leg: usize) {
        let runs = self.blocks.div_ceil(self.power.run_blocks);
        while self.legs.len() <= leg {
            self.legs.push(Runs::new(runs));
        }
        self.legs[leg] = Runs::new(runs);
    }

    /// The volume has so many blocks from now on. A run that was cut by the old end is not hot any more: of its new
    /// blocks nothing stands on disk.
    pub(super) fn grow(&mut self, blocks: u64) {
        let size = self.power.run_blocks;
        let cut = (!self.blocks.is_multiple_of(size)).then_some(self.blocks / size);
        for runs in self.legs.iter_mut().chain(&mut self.trackers) {
            for set in [&mut runs.hot, &mut runs.recent, &mut runs.stale, &mut runs.cooled] {
                set.grow(blocks.div_ceil(size));
            }
            if let Some(run) = cut
                && runs.hot.remove(run)
            {
                runs.stale.insert(run);
            }
        }
        self.blocks = blocks;
    }

    /// A tracker's map is as its file says, all cold.
    pub(super) fn track(&mut self, tracker: usize) {
        let runs = self.blocks.div_ceil(self.power.run_blocks);
        while self.trackers.len() <= tracker {
            self.trackers.push(Runs::new(runs));
        }
        self.trackers[tracker] = Runs::new(runs);
    }

    fn map(&mut self, map: MapIx) -> Option<&mut Runs> {
        match map {
            MapIx::Leg(leg) => self.legs.get_mut(leg),
            MapIx::Tracker(tracker) => self.trackers.get_mut(tracker),
        }
    }

    fn maps(&self) -> impl Iterator<Item = (MapIx, &Runs)> {
        let legs = self.legs.iter().enumerate().map(|(leg, runs)| (MapIx::Leg(leg), runs));
        let trackers = self.trackers.iter().enumerate().map(|(ix, runs)| (MapIx::Tracker(ix), runs));
        legs.chain(trackers)
    }

    fn run(&self, run: u64) -> Range<u64> {
        run * self.power.run_blocks..((run + 1) * self.power.run_blocks).min(self.blocks)
    }

    /// A block gets its mark: what is to be marked on disk.
    pub(super) fn touch(&mut self, map: MapIx, block: u64, heat_again: bool) -> Option<Range<u64>> {
        let (run, next) = (block / self.power.run_blocks, self.next);
        let runs = self.map(map)?;
        runs.recent.insert(run);
        if !runs.hot.insert(run) {
            return None;
        }
        if heat_again || !runs.cooled.contains(run) {
            runs.pending.insert(run, next);
            (self.wanted, self.urgent) = (true, true);
        }
        Some(self.run(run))
    }

    /// A block of a leg has lost its mark in memory: its run is stored anew when it cools, or with those that do.
    pub(super) fn leave(&mut self, leg: usize, block: u64) {
        let run = block / self.power.run_blocks;
        let runs = &mut self.legs[leg];
        if !runs.hot.contains(run) {
            runs.stale.insert(run);
        }
    }

    /// The last sync that some mark is waiting for.
    fn last_pending(&self) -> Option<u64> {
        self.maps().filter_map(|(_, runs)| runs.pending.values().max()).max().copied()
    }

    /// The sync that makes all marks of these blocks durable; `None` if they are.
    fn gate(&self, blocks: &Range<u64>) -> Option<u64> {
        let runs = blocks.start / self.power.run_blocks..blocks.end.div_ceil(self.power.run_blocks);
        let of_map = |map: &Runs| map.pending.range(runs.clone()).map(|(_, seq)| *seq).max();
        self.maps().filter_map(|(_, map)| of_map(map)).max()
    }

    fn count_pending(&self) -> usize {
        self.maps().map(|(_, runs)| runs.pending.len()).sum()
    }

    /// Blocks that stand as dirty on disk because their run is hot.
    pub(super) fn widen(&self, map: MapIx, set: &mut BlockSet) {
        if let Some((_, runs)) = self.maps().find(|(ix, _)| *ix == map) {
            for run in runs.hot.iter() {
                set.insert_range(self.run(run));
            }
        }
    }

    /// The last sync failed.
    pub(super) const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Nothing is on its way to the disk.
    pub(super) fn settled(&self) -> bool {
        self.running.is_none() && !self.wanted
    }
}

impl Core {
    /// Issues a sync if one is wanted and none runs; at the end of each step, so that all its requests share it.
    pub(super) fn kick_maps(&mut self) {
        let now_ms = self.now_ms;
        let Some(heat) = &mut self.heat else { return };
        if heat.running.is_some() || !heat.wanted || (now_ms < heat.not_before_ms && !heat.urgent) {
            return;
        }
        let seq = heat.next;
        let maps = heat.maps().filter(|(_, runs)| runs.pending.values().any(|of| *of <= seq));
        let maps = maps.map(|(map, _)| map).collect();
        heat.running = Some(seq);
        heat.next += 1;
        (heat.wanted, heat.urgent) = (false, false);
        self.out.push(Action::SyncMaps { seq, maps });
    }

    /// Whether a write must wait for the maps. `before` is how many runs were not durable before it marked.
    pub(super) fn wait_for_maps(
        &mut self,
        slot: u16,
        blocks: &Range<u64>,
        before: usize,
        limit_ms: u64,
    ) -> bool {
        let (first, joins) = (self.rules.on(Rule::MapSyncFirst), self.rules.on(Rule::MapSyncJoins));
        let deadline_ms = self.now_ms + limit_ms;
        let Some(heat) = &mut self.heat else { return false };
        let Some(gate) = heat.gate(blocks).filter(|_| first) else { return false };
        if !joins && heat.count_pending() == before {
            return false;
        }
        let Some(op) = self.ops.get_mut(slot) else { return false };
        op.phase = Phase::Marking;
        op.gate = gate;
        op.deadline_ms = deadline_ms;
        heat.waiting.push((slot, op.serial));
        heat.urgent = true;
        true
    }

    /// How many runs are not durable.
    pub(super) fn pending_maps(&self) -> usize {
        self.heat.as_ref().map_or(0, Heat::count_pending)
    }

    /// A sync has ended.
    pub(super) fn maps_synced(&mut self, seq: u64, ok: bool) {
        let fails = self.rules.on(Rule::MapSyncFails);
        let now_ms = self.now_ms;
        let Some(heat) = &mut self.heat else { return };
        if heat.running != Some(seq) {
            return;
        }
        heat.running = None;
        heat.failing = !ok;
        let next = heat.next;
        let durable = ok || !fails;
        for runs in heat.legs.iter_mut().chain(&mut heat.trackers) {
            if durable {
                runs.pending.retain(|_, of| *of > seq);
            } else {
                runs.pending.values_mut().filter(|of| **of <= seq).for_each(|of| *of = next);
            }
        }
        if !durable {
            heat.wanted = true;
            heat.not_before_ms = now_ms + limits::PERSIST_RETRY_MS;
            heat.sweep_after = heat.sweep_after.map(|_| next);
        }
        let waiting = std::mem::take(&mut heat.waiting);
        let mut rest = Vec::new();
        for (slot, serial) in waiting {
            let Some(op) = self.ops.get(slot).filter(|op| op.serial == serial && op.phase == Phase::Marking)
            else {
                continue;
            };
            if op.gate > seq {
                rest.push((slot, serial));
            } else if durable {
                self.marked(slot);
            } else {
                self.not_marked(slot);
            }
        }
        if let Some(heat) = &mut self.heat {
            heat.waiting.append(&mut rest);
        }
        self.release_map_flushes(seq, durable);
        self.sweep_maps();
    }

    /// Requests whose sync takes too long fail: no leg has seen them.
    pub(super) fn expire_marking(&mut self) {
        let Some(heat) = &self.heat else { return };
        if heat.waiting.is_empty() {
            return;
        }
        let late = |(slot, serial): &(u16, u32)| {
            let op = self.ops.get(*slot).filter(|op| op.serial == *serial && op.phase == Phase::Marking);
            op.is_some_and(|op| op.deadline_ms <= self.now_ms)
        };
        let late: Vec<_> = heat.waiting.iter().copied().filter(late).collect();
        for (slot, _) in late {
            self.not_marked(slot);
        }
    }

    /// The marks of a request are durable.
    fn marked(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        match (op.kind.class(), op.data) {
            // From the beginning: legs may have come and gone meanwhile.
            (Class::Client, _) => self.start_write(slot),
            (_, Some(data)) => self.write_internal(slot, data),
            _ => self.abandon(slot),
        }
    }

    /// The marks of a request cannot be made durable: no leg sees it.
    fn not_marked(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        match op.kind {
            Kind::Rewrite { target } => self.retry_rewrite(slot, target),
            Kind::Copy { target } => {
                self.legs[target].pause_until_ms = self.now_ms + limits::COPY_PAUSE_MS;
                self.abandon(slot);
            }
            Kind::Repair { .. } => self.abandon(slot),
            _ => self.refuse(slot, Fault::Io),
        }
    }

    /// Whether nothing of these blocks waits for a sync; what was just marked is synced soon.
    pub(super) fn marks_are_durable(&self, blocks: &Range<u64>) -> bool {
        self.heat.as_ref().is_none_or(|heat| heat.gate(blocks).is_none())
    }

    /// The sync that a client's flush must wait for, once its legs are flushed.
    pub(super) fn flush_gate(&self) -> Option<u64> {
        self.heat.as_ref().and_then(Heat::last_pending)
    }

    /// Whether this sync has not ended well yet.
    pub(super) fn maps_undone(&self, gate: u64) -> bool {
        self.heat
            .as_ref()
            .is_some_and(|heat| heat.maps().any(|(_, runs)| runs.pending.values().any(|of| *of <= gate)))
    }

    /// Cools what has been quiet, now and then.
    pub(super) fn sweep_maps(&mut self) {
        let now_ms = self.now_ms;
        let Some(heat) = &mut self.heat else { return };
        if now_ms < heat.sweep_ms {
            return;
        }
        if heat.sweep_after.is_none() {
            heat.sweep_after = Some(heat.last_pending().unwrap_or(0));
        }
        let gate = heat.sweep_after.unwrap_or(0);
        if self.maps_undone(gate) {
            return;
        }
        self.cool(false);
        if let Some(heat) = &mut self.heat {
            heat.sweep_after = None;
            heat.sweep_ms = now_ms + heat.power.cool_ms;
            for runs in heat.legs.iter_mut().chain(&mut heat.trackers) {
                runs.recent.clear();
            }
        }
    }

    /// Stores the exact words of quiet runs; with `all`, at the end, of all.
    pub(super) fn cool(&mut self, all: bool) {
        let Some(heat) = &mut self.heat else { return };
        for leg in 0..heat.legs.len() {
            let quiet = Self::quiet(&heat.legs[leg], all);
            for run in quiet {
                let blocks = heat.run(run);
                if self.legs[leg].unflushed.any_in(blocks.clone()) {
                    continue;
                }
                let runs = &mut heat.legs[leg];
                if runs.hot.remove(run) {
                    runs.cooled.insert(run);
                }
                runs.stale.remove(run);
                clear_but(&mut self.out, leg, &self.legs[leg].missing, blocks);
            }
        }
        for tracker in 0..heat.trackers.len() {
            let runs = &mut heat.trackers[tracker];
            let quiet = Self::quiet(runs, all);
            for run in &quiet {
                runs.hot.remove(*run);
                runs.cooled.insert(*run);
            }
            if !quiet.is_empty() && self.trackers.get(tracker).is_some_and(Option::is_some) {
                self.out.push(Action::TrackerTidy { tracker });
            }
        }
    }

    fn quiet(runs: &Runs, all: bool) -> Vec<u64> {
        let quiet = |run: &u64| !runs.pending.contains_key(run) && (all || !runs.recent.contains(*run));
        let stale = runs.stale.iter().filter(|run| !runs.hot.contains(*run));
        runs.hot.iter().filter(quiet).chain(stale).collect()
    }

    fn release_map_flushes(&mut self, seq: u64, ok: bool) {
        for slot in 0..self.flushes.len() {
            if let Some(op) = &mut self.flushes[slot]
                && op.maps.is_some_and(|gate| gate <= seq)
                && op.waits_for_maps
            {
                op.waits_for_maps = false;
                if !ok {
                    op.fail();
                }
                self.settle_flush(slot);
            }
        }
    }
}

/// Clears all blocks of a range that are not in a set.
fn clear_but(out: &mut Vec<Action>, leg: LegIx, set: &BlockSet, blocks: Range<u64>) {
    let mut from = blocks.start;
    while from < blocks.end {
        let end = set.next_set(from).unwrap_or(blocks.end).min(blocks.end);
        if from < end {
            out.push(Action::Clear { leg, blocks: from..end });
        }
        from = set.next_clear(end).unwrap_or(blocks.end);
    }
}

#[cfg(test)]
#[path = "heat_tests.rs"]
mod tests;
