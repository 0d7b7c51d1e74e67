//! Opening what stands on disk, after a clean end or a crash.

use super::persist::{follow, make_primary};
use super::trackers::{self, FoundTracker};
use super::{MapHandle, Records};
use crate::base::{BlockSize, Class, Error, Id, Name, Result};
use crate::control::VolumeDir;
use crate::device::{boot_id, lock};
use crate::generation::Record;
use crate::leg::LegSpec;
use crate::map::file::Fill;
use crate::map::{Belief, BlockSet, Durability, Expect, Identity, MapFile};
use crate::volume::core::LegStart;
use crate::volume::members::{Steps, through};
use crate::volume::resize;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

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
pub(crate) fn open(dir: &VolumeDir, legs: &[LegSpec]) -> Result<Opened> {
    let (lock, records) = open_records(dir, legs, &mut through)?;
    let identity = identity(dir, &records)?;
    let Identity { volume: id, size, block, .. } = identity;
    let expect = expectation(&identity, records.generation());
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
pub(crate) fn expectation(identity: &Identity, generation: Id) -> Expect {
    Expect {
        volume: identity.volume,
        leg: identity.leg,
        generation,
        boot: boot_id(),
        durability: Durability::Process,
    }
}

/// Steps 1 to 3.
fn open_records(dir: &VolumeDir, legs: &[LegSpec], through: Steps<'_>) -> Result<(File, Records)> {
    let lock = take_lock(dir)?;
    let mut records = Records::open(dir, legs.iter().map(|leg| &leg.name))?;
    if let Some(growth) = resize::pending(dir)? {
        resize::go_on(dir, &mut records, &growth, through)?;
    }
    for (at, record) in records.records.iter().enumerate() {
        check_record(dir, record, &records.records[0], &legs[at].name)?;
        if let Some(twin) = records.records[..at].iter().find(|other| other.leg == record.leg) {
            let text =
                format!("{}: legs {} and {} have the id {}", dir.name(), twin.name, record.name, record.leg);
            return Err(Error::new(Class::Refused, text));
        }
    }
    repair(&mut records)?;
    Ok((lock, records))
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
            None => MapFile::open(&path)?,
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
        self.maps.push(MapHandle::new(map));
        Ok(())
    }
}
