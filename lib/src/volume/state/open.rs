//! Opening what stands on disk, after a clean end or a crash.

use super::persist::{follow, make_primary};
use super::trackers::{self, FoundTracker};
use super::{MapHandle, Records};
use crate::base::{BlockSize, Class, Error, Id, Name, Result, limits};
use crate::control::VolumeDir;
use crate::device::{boot_id, lock};
use crate::generation::{Record, RecordStore};
use crate::leg::LegSpec;
use crate::map::file::Fill;
use crate::map::{Belief, BlockSet, Durability, Expect, Identity, MapFile};
use crate::volume::core::LegStart;
use crate::volume::members::{Steps, through};
use crate::volume::resize;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

/// What the name of a volume that is salvaged is proposed to end with.
const SALVAGED: &str = "-salvaged";

/// A volume in use.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Held until the end.
    pub(crate) lock: File,
    pub(crate) id: Id,
    pub(crate) size: u64,
    pub(crate) block: BlockSize,
    pub(crate) records: Records,
    pub(crate) maps: Vec<MapHandle>,
    pub(crate) starts: Vec<LegStart>,
    /// Its trackers.
    pub(crate) trackers: Vec<FoundTracker>,
    /// By so many bytes the maps are wider than before the crash.
    pub(crate) widened: u64,
    /// What an administrator should read.
    pub(crate) notes: Vec<String>,
}

/// Opens a volume that was created, for use.
///
/// 1. The lock is taken; class `Busy` if another daemon holds it.
/// 2. The records are opened and checked against each other; a growth that a crash interrupted is finished
///    ([`crate::volume::resize`]).
/// 3. What a crash left half done is finished: legs in sync that were to follow to a new generation, or a
///    resync whose f3 is missing.
/// 4. The maps are read, of legs and trackers. One that is not believed counts as all dirty.
/// 5. The maps are in use: not clean any more, durably.
/// 6. One leg says PRIMARY, durably.
pub(crate) fn open(dir: &VolumeDir, legs: &[LegSpec], durability: Durability) -> Result<Opened> {
    let (lock, records) = open_records(dir, legs, &mut through)?;
    let identity = identity(dir, &records)?;
    let Identity { volume: id, size, block, .. } = identity;
    let expect = expectation(&identity, records.generation(), durability);
    let mut opened = Opened {
        lock,
        id,
        size,
        block,
        records,
        maps: Vec::new(),
        starts: Vec::new(),
        trackers: Vec::new(),
        widened: 0,
        notes: Vec::new(),
    };
    for (leg, spec) in legs.iter().enumerate() {
        opened.open_map(dir, spec, leg, expect)?;
    }
    let like = Identity { volume: id, leg: Id::NONE, size, block };
    opened.trackers = trackers::open_all(dir, &like, &expect, &mut opened.notes)?;
    let maps = opened.trackers.iter().map(|found| (found.name.clone(), found.map.clone()));
    opened.records.trackers = maps.collect();
    make_primary(&mut opened.records)?;
    Ok(opened)
}

/// What a map that is put to use now must say, or else it is not believed.
pub(crate) fn expectation(identity: &Identity, generation: Id, durability: Durability) -> Expect {
    Expect { volume: identity.volume, leg: identity.leg, generation, boot: boot_id(), durability }
}

/// Steps 1 to 3.
fn open_records(dir: &VolumeDir, legs: &[LegSpec], through: Steps<'_>) -> Result<(File, Records)> {
    let lock = take_lock(dir)?;
    check_records(dir, legs)?;
    let mut records = Records::open(dir, legs.iter().map(|leg| &leg.name))
        .map_err(|error| with_salvage(dir, legs, error))?;
    if let Some(growth) = resize::pending(dir)? {
        resize::go_on(dir, &mut records, &growth, through)?;
    }
    let repaired = check_each(dir, legs, &records.records).and_then(|()| repair(&mut records));
    repaired.map_err(|error| with_salvage(dir, legs, error))?;
    Ok((lock, records))
}

/// Whether the record of every leg is there, whole, and of this volume. Changes nothing, and takes no lock. What is
/// between two steps of a growth is left to [`crate::volume::resize`].
pub(crate) fn check_records(dir: &VolumeDir, legs: &[LegSpec]) -> Result<()> {
    let read = |leg: &LegSpec| {
        let path = dir.record(&leg.name);
        if !path.exists() {
            return Err(Error::new(Class::Damaged, format!("{}: opening it: it is lost", path.display())));
        }
        RecordStore::read(&path)
    };
    let records: Result<Vec<Record>> = legs.iter().map(read).collect();
    let grows = resize::pending(dir)?.is_some();
    let checked = records.and_then(|records| if grows { Ok(()) } else { check_each(dir, legs, &records) });
    checked.map_err(|error| with_salvage(dir, legs, error))
}

fn check_each(dir: &VolumeDir, legs: &[LegSpec], records: &[Record]) -> Result<()> {
    for (at, record) in records.iter().enumerate() {
        check_record(dir, record, &records[0], &legs[at].name)?;
        if let Some(twin) = records[..at].iter().find(|other| other.leg == record.leg) {
            let text =
                format!("{}: legs {} and {} have the id {}", dir.name(), twin.name, record.name, record.leg);
            return Err(Error::new(Class::Refused, text));
        }
    }
    Ok(())
}

/// A damaged record has a way out.
fn with_salvage(dir: &VolumeDir, legs: &[LegSpec], error: Error) -> Error {
    match salvage_hint(dir, legs) {
        Some((_, hint)) if error.class == Class::Damaged && error.hint.is_none() => error.hint(hint),
        _ => error,
    }
}

/// The command that makes a new volume of what one leg holds, and that leg: one whose record is whole and says that it
/// is in sync, if there is one.
pub(crate) fn salvage_hint(dir: &VolumeDir, legs: &[LegSpec]) -> Option<(Name, String)> {
    let good = |leg: &&LegSpec| {
        RecordStore::read(&dir.record(&leg.name)).is_ok_and(|r| r.in_sync() && r.name == leg.name)
    };
    let leg = legs.iter().find(good).or_else(|| legs.first())?;
    let mut name = dir.name().to_string();
    name.truncate(limits::NAME_LEN - SALVAGED.len());
    Some((leg.name.clone(), format!("mirrord create {name}{SALVAGED} --salvage {leg}")))
}

/// The way out of a damaged map: it counts as all missing, which needs another good leg, or that the leg itself is
/// read and written back from end to end.
fn with_reset(dir: &VolumeDir, records: &Records, leg: usize, name: &Name, error: Error) -> Error {
    if error.class != Class::Damaged || error.hint.is_some() {
        return error;
    }
    let good = (0..records.records.len()).any(|other| other != leg && records.leg_record(other).in_sync);
    if good {
        error.hint(format!("mirrord leg reset {} {name}", dir.name()))
    } else {
        let map = dir.map(name);
        error.hint(format!("mv {0} {0}.damaged", map.display()))
    }
}

/// What all maps of a volume are of.
fn identity(dir: &VolumeDir, records: &Records) -> Result<Identity> {
    let Some(first) = records.records.first() else {
        return Err(Error::new(Class::Usage, format!("{}: opening the volume: it has no leg", dir.name())));
    };
    Ok(Identity { volume: first.volume, leg: Id::NONE, size: first.size, block: first.block })
}

/// Adds or removes a tracker of a volume that nobody serves. Class `Busy` if somebody does.
pub(crate) fn change_trackers(dir: &VolumeDir, legs: &[LegSpec], name: &Name, add: bool) -> Result<()> {
    let (_lock, records) = open_records(dir, legs, &mut through)?;
    if add { trackers::add_offline(&records, dir, name) } else { trackers::remove_offline(dir, name) }
}

/// The lock of a volume's directory.
pub(crate) fn take_lock(dir: &VolumeDir) -> Result<File> {
    let path = dir.lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io(path.display(), "opening it", e))?;
    lock::lock(&file, &path, true).map_err(|e| match e.class {
        Class::Busy => Error::new(Class::Busy, format!("{}: another mirrord serves it", dir.name()))
            .hint(format!("mirrord status {}", dir.name())),
        _ => e,
    })?;
    Ok(file)
}

fn check_record(dir: &VolumeDir, record: &Record, first: &Record, name: &Name) -> Result<()> {
    let object = dir.record(name).display().to_string();
    record.check_identity(&object, first.volume, record.leg)?;
    let differs = |what: &str, is: u64, expected: u64| {
        Err(Error::new(
            Class::Damaged,
            format!("{object}: checking its {what}: {is}, leg {} has {expected}", first.name),
        ))
    };
    if record.name != *name {
        let text = format!("{object}: checking its leg: it is of leg {}, expected {name}", record.name);
        return Err(Error::new(Class::Damaged, text));
    }
    if record.size != first.size {
        return differs("size", record.size, first.size);
    }
    if record.block != first.block {
        return differs("block", record.block.bytes(), first.block.bytes());
    }
    Ok(())
}

/// Step 3.
fn repair(records: &mut Records) -> Result<()> {
    let Some(source) = records.reference() else { return Ok(()) };
    for leg in (0..records.records.len()).filter(|&leg| leg != source) {
        let (from, target) = (&records.records[source], &records.records[leg]);
        let owed = !from.base_of(target.leg).is_empty();
        let knows = from.base_of(target.leg).contains(&target.current.id);
        if target.in_sync() && owed && (knows || target.current.id == from.current.id) {
            follow(records, source, leg)?;
        }
    }
    Ok(())
}

impl Opened {
    /// Steps 4 and 5 for one leg.
    fn open_map(&mut self, dir: &VolumeDir, spec: &LegSpec, leg: usize, expect: Expect) -> Result<()> {
        let path = dir.map(&spec.name);
        let identity = Identity {
            volume: self.id,
            leg: self.records.records[leg].leg,
            size: self.size,
            block: self.block,
        };
        let expect = Expect { leg: identity.leg, ..expect };
        let made = if path.exists() {
            None
        } else {
            Some(MapFile::create(&path, &identity, expect.generation, Fill::Dirty)?)
        };
        let missing = made.is_some();
        let mut map = match made {
            Some(map) => map,
            None => MapFile::open(&path)
                .map_err(|error| with_reset(dir, &self.records, leg, &spec.name, error))?,
        };
        let (marks, belief, widened) = map.load_believed(&expect);
        let clean = map.header().clean && belief == Belief::Believed && !missing;
        let same_boot = map.header().boot == expect.boot && !expect.boot.is_none();
        map.begin_use(&expect)?;
        let why = match belief {
            Belief::NotBelieved(doubt) => Some((doubt.to_string(), widened)),
            Belief::Believed if missing => Some(("its map is lost".to_owned(), self.size)),
            Belief::Believed => None,
        };
        if let Some((why, widened)) = why {
            self.widened += widened;
            self.notes.push(format!("leg {}: map widened by {widened} bytes: {why}", spec.name));
        }
        let record = self.records.leg_record(leg);
        let marks = if record.in_sync || !self.records.records[leg].is_virgin() {
            marks
        } else {
            BlockSet::full(identity.blocks())
        };
        self.starts.push(LegStart { record, marks, clean, cache_kept: spec.device.is_local() && same_boot });
        self.maps.push(MapHandle::new(map)?);
        Ok(())
    }
}
