//! Trackers inside the loop: made, removed, rotated, shown.

use super::{Completion, Driver};
use crate::base::{ByteRange, Class, Error, Name, Result, limits};
use crate::control::tracker::Page;
use crate::control::{MapOf, Reply, TrackerAction, TrackerStatus};
use crate::map::{BlockSet, Durability};
use crate::volume::core::{self, Command, Event, TrackerAsk, TrackerIx};
use crate::volume::state::MapHandle;
use crate::volume::state::trackers::{self, FoundTracker};
use std::sync::Arc;

/// One tracker.
#[derive(Debug)]
pub(super) struct Slot {
    name: Name,
    pub(super) map: MapHandle,
    /// The control connection that has its marks.
    taken_by: Option<u64>,
}

/// What was found, for the core and for the loop.
pub(super) fn slots(found: Vec<FoundTracker>) -> (Vec<BlockSet>, Vec<Option<Slot>>) {
    found
        .into_iter()
        .map(|FoundTracker { name, map, marks }| (marks, Some(Slot { name, map, taken_by: None })))
        .unzip()
}

/// The names of all.
pub(super) fn names(slots: &[Option<Slot>]) -> impl Iterator<Item = &Name> {
    slots.iter().flatten().map(|slot| &slot.name)
}

impl Driver<'_> {
    /// The number of a tracker.
    pub(super) fn tracker(&self, name: &str) -> Option<TrackerIx> {
        self.trackers.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.name.as_str() == name))
    }

    fn known(&self, name: &Name) -> Result<TrackerIx> {
        self.tracker(name.as_str()).ok_or_else(|| {
            let text = format!("{}: no tracker {name}", self.name);
            Error::new(Class::Usage, text).hint(format!("mirrord tracker add {} {name}", self.name))
        })
    }

    fn busy(&self, name: &Name, why: &str) -> Error {
        Error::new(Class::Busy, format!("{}: tracker {name}: {why}", self.name))
            .hint(format!("mirrord tracker ls {}", self.name))
    }

    /// One request about a tracker.
    pub(super) fn ask_tracker(&mut self, key: u64, action: TrackerAction, name: Name) {
        let done = match action {
            TrackerAction::Add => self.add_tracker(key, name),
            TrackerAction::Remove => self.remove_tracker(key, name),
            TrackerAction::Take => self.take_tracker(key, &name),
            TrackerAction::Confirm => self.end_taking(key, &name, TrackerAsk::Confirm),
            TrackerAction::GiveBack => self.end_taking(key, &name, TrackerAsk::GiveBack),
        };
        if let Err(error) = done {
            self.reply_control(key, &error.into());
        }
    }

    fn free_to_change(&self, name: &Name) -> Result<()> {
        if self.changing.contains(name) {
            return Err(self.busy(name, "it is just being made or removed"));
        }
        if self.grows() {
            return Err(self.busy(name, "the volume is growing"));
        }
        Ok(())
    }

    fn add_tracker(&mut self, key: u64, name: Name) -> Result<()> {
        self.free_to_change(&name)?;
        if self.tracker(name.as_str()).is_some() {
            let text = format!("{}: adding tracker {name}: it exists", self.name);
            return Err(Error::new(Class::Refused, text).hint(format!("mirrord tracker ls {}", self.name)));
        }
        if names(&self.trackers).count() + self.changing.len() >= limits::TRACKERS {
            return Err(trackers::too_many(&self.dir));
        }
        let id = self.command_id(key);
        self.changing.push(name.clone());
        let (records, dir) = (Arc::clone(&self.records), self.dir.clone());
        self.workers.submit(move || {
            let result = trackers::add(&records, &dir, &name, Durability::Process);
            Completion::TrackerMade { id, name, result }
        });
        Ok(())
    }

    /// The map of a new tracker is there: from now on it marks.
    pub(super) fn tracker_made(&mut self, id: u64, name: Name, result: Result<MapHandle>) {
        self.changing.retain(|other| *other != name);
        let map = match result {
            Ok(map) => map,
            Err(error) => return self.answer(id, &error.into()),
        };
        let tracker = self.trackers.iter().position(Option::is_none).unwrap_or(self.trackers.len());
        if tracker == self.trackers.len() {
            self.trackers.push(None);
        }
        self.trackers[tracker] = Some(Slot { name, map, taken_by: None });
        self.events.push(Event::Command { id, command: Command::Tracker { tracker, ask: TrackerAsk::Add } });
    }

    fn remove_tracker(&mut self, key: u64, name: Name) -> Result<()> {
        self.free_to_change(&name)?;
        let tracker = self.known(&name)?;
        if self.trackers[tracker].as_ref().is_some_and(|slot| slot.taken_by.is_some()) {
            return Err(self.busy(&name, "somebody has its marks and has not confirmed them"));
        }
        let id = self.command_id(key);
        self.changing.push(name.clone());
        let (records, dir) = (Arc::clone(&self.records), self.dir.clone());
        self.workers.submit(move || {
            let result = trackers::remove(&records, &dir, &name);
            Completion::TrackerGone { id, name, result }
        });
        Ok(())
    }

    /// The map of a tracker is gone: it marks no more.
    pub(super) fn tracker_gone(&mut self, id: u64, name: &Name, result: Result<()>) {
        self.changing.retain(|other| other != name);
        match (result, self.tracker(name.as_str())) {
            (Ok(()), Some(tracker)) => {
                self.trackers[tracker] = None;
                let ask = TrackerAsk::Remove;
                self.events.push(Event::Command { id, command: Command::Tracker { tracker, ask } });
            }
            (Ok(()), None) => self.answer(id, &Reply::ok()),
            (Err(error), _) => self.answer(id, &error.into()),
        }
    }

    fn take_tracker(&mut self, key: u64, name: &Name) -> Result<()> {
        self.free_to_change(name)?;
        let tracker = self.known(name)?;
        let busy = self.busy(name, "somebody has its marks and has not confirmed them");
        let Some(slot) = self.trackers[tracker].as_mut().filter(|slot| slot.taken_by.is_none()) else {
            return Err(busy);
        };
        slot.taken_by = Some(key);
        let id = self.command_id(key);
        self.events.push(Event::Command { id, command: Command::Tracker { tracker, ask: TrackerAsk::Take } });
        Ok(())
    }

    /// The tracker whose marks this connection has.
    fn taken(&self, key: u64, name: &Name) -> Result<TrackerIx> {
        let tracker = self.known(name)?;
        let slot = self.trackers[tracker].as_ref();
        if slot.is_some_and(|slot| slot.taken_by == Some(key)) {
            return Ok(tracker);
        }
        let text = format!("{}: tracker {name}: this connection has none of its marks", self.name);
        Err(Error::new(Class::Refused, text))
    }

    fn end_taking(&mut self, key: u64, name: &Name, ask: TrackerAsk) -> Result<()> {
        let tracker = self.taken(key, name)?;
        if let Some(slot) = &mut self.trackers[tracker] {
            slot.taken_by = None;
        }
        let id = self.command_id(key);
        self.events.push(Event::Command { id, command: Command::Tracker { tracker, ask } });
        Ok(())
    }

    /// Ranges that need not go back.
    pub(super) fn tracker_copied(&mut self, key: u64, name: &Name, ranges: &[(u64, u64)]) -> Result<()> {
        let tracker = self.taken(key, name)?;
        let bad = |why: &str| Error::new(Class::Usage, format!("{}: tracker {name}: {why}", self.name));
        if ranges.len() > limits::CONTROL_RANGES {
            return Err(bad("too many ranges in one request"));
        }
        let mut asks = Vec::with_capacity(ranges.len());
        for &(offset, len) in ranges {
            let range = ByteRange::new(offset, len).filter(|range| range.end() <= self.size);
            let range = range.ok_or_else(|| bad("a range reaches past the volume"))?;
            let blocks = self.config.map_block.within(&range, self.size);
            asks.push(TrackerAsk::Copied { from: blocks.start, to: blocks.end });
        }
        for ask in asks {
            let command = Command::Tracker { tracker, ask };
            self.events.push(Event::Command { id: super::control::BY_SIGNAL, command });
        }
        Ok(())
    }

    /// A connection has ended: what it had taken goes back.
    pub(super) fn give_back(&mut self, key: u64) {
        for (tracker, slot) in self.trackers.iter_mut().enumerate() {
            if let Some(slot) = slot
                && slot.taken_by == Some(key)
            {
                slot.taken_by = None;
                let command = Command::Tracker { tracker, ask: TrackerAsk::GiveBack };
                self.events.push(Event::Command { id: super::control::BY_SIGNAL, command });
            }
        }
    }

    /// A page of the marks of a map.
    pub(super) fn page(&self, key: u64, of: &MapOf, first: u64) -> Result<Page> {
        let page = Page {
            volume: self.id.to_string(),
            size: self.size,
            block: self.config.map_block.bytes(),
            ..Page::default()
        };
        let gone = || Error::new(Class::Internal, format!("{}: reading marks: they are gone", self.name));
        let sets = match of {
            MapOf::Leg(leg) => {
                let at = self.legs.iter().position(|slot| slot.spec.name == *leg);
                (at.and_then(|at| self.core.missing(at)).ok_or_else(|| self.unknown_leg(leg))?, None)
            }
            MapOf::Tracker(name) => {
                let tracker = self.known(name)?;
                self.core.tracker_sets(tracker).ok_or_else(gone)?
            }
            MapOf::Taken(name) => {
                let tracker = self.taken(key, name)?;
                (self.core.tracker_sets(tracker).and_then(|(_, taken)| taken).ok_or_else(gone)?, None)
            }
        };
        let words = sets.0.words();
        Ok(match sets.1.map(BlockSet::words) {
            None => page.with(words.len(), first, |at| words[at]),
            Some(more) => page.with(words.len(), first, |at| words[at] | more[at]),
        })
    }

    /// For the status.
    pub(super) fn tracker_statuses(&self, figures: &[Option<core::TrackerStatus>]) -> Vec<TrackerStatus> {
        let named = self.trackers.iter().zip(figures).filter_map(|(slot, figures)| {
            let (slot, figures) = (slot.as_ref()?, (*figures)?);
            Some(TrackerStatus {
                name: slot.name.to_string(),
                dirty: figures.dirty_bytes,
                taken: figures.taken_bytes,
            })
        });
        let mut trackers: Vec<_> = named.collect();
        trackers.sort_by(|a, b| a.name.cmp(&b.name));
        trackers
    }
}
