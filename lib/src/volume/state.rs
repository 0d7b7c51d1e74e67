//! Between the core and what stands on disk: records and maps of all legs of one volume.
//!
//! All legs of a volume are kept by this machine, so their records lie side by side, and each leg has one map:
//! what it lacks of the volume. A map is relative to the volume's generation, which is that of the legs in sync.

mod open;
mod persist;
pub(crate) mod trackers;

use crate::base::{Error, Id, Name, Result};
use crate::config::{MapDurability, VolumeConfig};
use crate::control::VolumeDir;
use crate::generation::{Flags, Record, RecordStore};
use crate::map::file::{MapSync, Marks, Seal};
use crate::map::{BlockSet, Durability, MapFile};
use crate::volume::core::LegRecord;
pub(crate) use open::{change_trackers, check_records, expectation, open, salvage_hint, take_lock};
pub(crate) use persist::persist;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The map of one leg, in use: marks are made by the loop, the seal is changed by a worker when the generation
/// changes. Neither waits for the other.
#[derive(Clone, Debug)]
pub(crate) struct MapHandle {
    marks: Arc<Mutex<Marks>>,
    seal: Arc<Mutex<Seal>>,
    /// Only where durability is `power`.
    sync: Option<MapSync>,
}

/// How durable the marks of a volume are.
pub(crate) const fn durability(config: &VolumeConfig) -> Durability {
    match config.map_durability {
        MapDurability::Process => Durability::Process,
        MapDurability::Power => Durability::Power,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MapHandle {
    /// A map whose use has begun.
    pub(crate) fn new(map: MapFile) -> Result<Self> {
        let power = map.durability() == Durability::Power;
        let sync = if power { Some(map.syncer()?) } else { None };
        let (marks, seal) = map.split();
        Ok(Self { marks: Arc::new(Mutex::new(marks)), seal: Arc::new(Mutex::new(seal)), sync })
    }

    /// Makes all marks durable that were made before, where durability is `power`. Takes long: only for workers.
    pub(crate) fn sync(&self) -> Result<()> {
        let Some(sync) = &self.sync else { return Ok(()) };
        sync.sync().map_err(|e| Error::io(lock(&self.seal).path().display(), "making marks durable", e))
    }

    /// After a sync that failed: all marks are written again, so that the next one says something.
    pub(crate) fn redirty(&self) {
        lock(&self.marks).redirty();
        if let Some(sync) = &self.sync {
            sync.forgive();
        }
    }

    /// Sets bits: they survive the death of this process.
    pub(crate) fn mark(&self, blocks: Range<u64>) {
        lock(&self.marks).mark(blocks);
    }

    /// Clears bits.
    pub(crate) fn clear(&self, blocks: Range<u64>) {
        lock(&self.marks).clear(blocks);
    }

    /// Makes the bits those of a set; what is right already is not touched.
    pub(crate) fn store(&self, set: &BlockSet) {
        lock(&self.marks).store(set);
    }

    /// Has space for the map of a volume of so many bytes. Changes nothing else.
    pub(crate) fn make_room(&self, size: u64) -> Result<()> {
        self.seal().begin_grow(size).map(drop)
    }

    /// The volume grows: the blocks of `area` are missing or not. Marks go on meanwhile, and those that a map of this
    /// size already has stay. Takes long: only for workers.
    pub(crate) fn grow(&self, size: u64, area: Range<u64>, missing: bool) -> Result<()> {
        let mut seal = self.seal();
        let longer = seal.size() < size;
        {
            let mut marks = lock(&self.marks);
            *marks = seal.begin_grow(size)?;
            if missing {
                marks.mark(area);
            } else if longer {
                marks.clear(area);
            }
        }
        seal.finish_grow(size)
    }

    /// The seal, for a change of generation. Takes long: only for workers.
    fn seal(&self) -> MutexGuard<'_, Seal> {
        lock(&self.seal)
    }

    /// Ends the use. A map that somebody else still holds is not closed: it is then as after a crash.
    pub(crate) fn close_clean(self) -> Result<()> {
        match Arc::try_unwrap(self.seal) {
            Ok(seal) => seal.into_inner().unwrap_or_else(PoisonError::into_inner).close_clean(),
            Err(_) => Ok(()),
        }
    }
}

/// The records of all legs, in the order of the configuration, as they are on disk.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the records of the records' stores")]
pub(crate) struct Records {
    stores: Vec<RecordStore>,
    pub(crate) records: Vec<Record>,
    /// Maps of trackers: they follow every change of generation, as those of the legs do.
    pub(crate) trackers: BTreeMap<Name, MapHandle>,
}

impl Records {
    /// Opens and locks the record of every leg.
    pub(crate) fn open<'a>(
        dir: &VolumeDir,
        names: impl Iterator<Item = &'a crate::base::Name>,
    ) -> Result<Self> {
        let (mut stores, mut records) = (Vec::new(), Vec::new());
        for name in names {
            let (store, record) = RecordStore::open(&dir.record(name))?;
            stores.push(store);
            records.push(record);
        }
        Ok(Self { stores, records, trackers: BTreeMap::new() })
    }

    /// The number of a leg's record.
    pub(crate) fn of(&self, leg: Id) -> Option<usize> {
        self.records.iter().position(|record| record.leg == leg)
    }

    /// Takes in the record of a new leg.
    pub(crate) fn push(&mut self, store: RecordStore, record: Record) {
        self.stores.push(store);
        self.records.push(record);
    }

    /// Lets go of the record of a leg.
    pub(crate) fn remove(&mut self, at: usize) {
        self.stores.remove(at);
        self.records.remove(at);
    }

    /// Changes the record of a leg durably, if the change changes anything.
    pub(crate) fn change(
        &mut self,
        leg: usize,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<()> {
        let mut new = self.records[leg].clone();
        change(&mut new)?;
        if new != self.records[leg] {
            self.stores[leg].write(&mut new)?;
            self.records[leg] = new;
        }
        Ok(())
    }

    /// The clean end: nobody says PRIMARY any more.
    pub(crate) fn demote(&mut self) -> Result<()> {
        for leg in 0..self.records.len() {
            self.change(leg, |record| {
                record.flags.remove(Flags::PRIMARY);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The leg whose contents are the volume's: of those in sync the one whose generation none of the others
    /// has left behind.
    pub(crate) fn reference(&self) -> Option<usize> {
        let in_sync = || (0..self.records.len()).filter(|&leg| self.records[leg].in_sync());
        let left_behind = |leg: usize| {
            let current = self.records[leg].current.id;
            in_sync().any(|other| self.records[other].remembers(current))
        };
        in_sync().find(|&leg| !left_behind(leg))
    }

    /// The volume's generation. Without a leg in sync, that from which the last resync came.
    pub(crate) fn generation(&self) -> Id {
        if let Some(leg) = self.reference() {
            return self.records[leg].current.id;
        }
        self.records.first().map_or(Id::NONE, |record| record.current.id)
    }

    /// What the core calls the state of a leg.
    pub(crate) fn leg_record(&self, leg: usize) -> LegRecord {
        let record = &self.records[leg];
        let has = |flag| record.flags.contains(flag);
        LegRecord {
            in_sync: record.in_sync() && record.current.id == self.generation(),
            inconsistent: has(Flags::INCONSISTENT),
            detached: has(Flags::DETACHED),
            failed: has(Flags::FAILED),
            gone: false,
        }
    }
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
