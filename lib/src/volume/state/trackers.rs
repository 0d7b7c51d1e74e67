//! The maps of trackers, beside those of the legs. The files are the list.
//!
//! A tracker's map is believed by the rule of a leg's ([`crate::map::seal::verify`]); otherwise everything counts
//! as changed. In place of a leg's id it has one made of the volume and its own name, so that a file that was
//! renamed is not believed.

use super::{MapHandle, Records, lock};
use crate::base::{Class, Error, Id, Name, Result, limits};
use crate::control::VolumeDir;
use crate::device::{boot_id, durable};
use crate::map::file::Fill;
use crate::map::{Belief, BlockSet, Durability, Expect, Identity, MapFile};
use std::sync::Mutex;

/// A tracker that was found.
#[derive(Debug)]
pub(crate) struct FoundTracker {
    pub(crate) name: Name,
    /// Its map, in use.
    pub(crate) map: MapHandle,
    /// What it says, or all blocks.
    pub(crate) marks: BlockSet,
}

/// The id that stands in a tracker's map.
fn id_of(volume: Id, name: &Name) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mirror tracker\0").update(&volume.0).update(name.as_str().as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    Id(id)
}

/// Opens the maps of all trackers for use. One that is damaged, or of something else, is made again, all marked:
/// a tracker never keeps its volume from being served. Says what was widened.
pub(super) fn open_all(
    dir: &VolumeDir,
    like: &Identity,
    expect: &Expect,
    notes: &mut Vec<String>,
) -> Result<Vec<FoundTracker>> {
    let names = dir.trackers()?;
    if let Some(extra) = names.get(limits::TRACKERS) {
        let text = format!("{}: opening it: more than {} trackers", dir.name(), limits::TRACKERS);
        return Err(
            Error::new(Class::Refused, text).hint(format!("mirrord tracker remove {} {extra}", dir.name()))
        );
    }
    names.into_iter().map(|name| open_one(dir, name, like, expect, notes)).collect()
}

fn open_one(
    dir: &VolumeDir,
    name: Name,
    like: &Identity,
    expect: &Expect,
    notes: &mut Vec<String>,
) -> Result<FoundTracker> {
    let identity = Identity { leg: id_of(like.volume, &name), ..*like };
    let expect = Expect { leg: identity.leg, ..*expect };
    let path = dir.tracker(&name);
    let (mut map, why) = match MapFile::open(&path) {
        Ok(map) if map.header().identity == identity => (map, None),
        Ok(map) => {
            (remake(map, &path, &identity, expect.generation)?, Some("it is of another volume or tracker"))
        }
        Err(error) if error.class == Class::Damaged => {
            std::fs::remove_file(&path).map_err(|e| Error::io(path.display(), "removing it", e))?;
            (MapFile::create(&path, &identity, expect.generation, Fill::Dirty)?, Some("it was damaged"))
        }
        Err(error) => return Err(error),
    };
    let (marks, belief, widened) = map.load_believed(&expect);
    map.begin_use(&expect)?;
    let why = match belief {
        Belief::NotBelieved(doubt) => Some((doubt.to_string(), widened)),
        Belief::Believed => why.map(|why| (why.to_owned(), identity.size)),
    };
    if let Some((why, widened)) = why {
        notes.push(format!("tracker {name}: widened by {widened} bytes: {why}"));
    }
    Ok(FoundTracker { name, map: MapHandle::new(map), marks })
}

/// In the place of a map that is not this tracker's, one with everything marked.
fn remake(old: MapFile, path: &std::path::Path, identity: &Identity, generation: Id) -> Result<MapFile> {
    drop(old);
    std::fs::remove_file(path).map_err(|e| Error::io(path.display(), "removing it", e))?;
    MapFile::create(path, identity, generation, Fill::Dirty)
}

/// Makes the map of a new tracker and puts it to use; for workers.
///
/// 1. The map is made with everything marked, durably, and put to use.
/// 2. It is among those that follow a change of generation.
/// 3. The caller has the core begin to mark, and clears what the core does not hold.
///
/// Recovery: a crash before 3 leaves a tracker that says that everything changed. Class `Refused` if it exists.
pub(crate) fn add(
    records: &Mutex<Records>,
    dir: &VolumeDir,
    name: &Name,
    durability: Durability,
) -> Result<MapHandle> {
    let records = &mut *lock(records);
    let map = make(records, dir, name, Fill::Dirty)?;
    let map = begin(map, records.generation(), durability)?;
    records.trackers.insert(name.clone(), map.clone());
    Ok(map)
}

fn make(records: &Records, dir: &VolumeDir, name: &Name, fill: Fill) -> Result<MapFile> {
    let path = dir.tracker(name);
    if path.exists() {
        let text = format!("{}: adding tracker {name}: it exists", dir.name());
        return Err(Error::new(Class::Refused, text).hint(format!("mirrord tracker ls {}", dir.name())));
    }
    let Some(record) = records.records.first() else {
        return Err(Error::new(Class::Internal, format!("{}: adding a tracker: it has no leg", dir.name())));
    };
    let leg = id_of(record.volume, name);
    let identity = Identity { volume: record.volume, leg, size: record.size, block: record.block };
    MapFile::create(&path, &identity, records.generation(), fill)
}

fn begin(mut map: MapFile, generation: Id, durability: Durability) -> Result<MapHandle> {
    let Identity { volume, leg, .. } = map.header().identity;
    map.begin_use(&Expect { volume, leg, generation, boot: boot_id(), durability })?;
    Ok(MapHandle::new(map))
}

/// Removes the map of a tracker, durably; for workers. The caller has the core stop marking afterwards: a map that
/// is still there is always kept.
pub(crate) fn remove(records: &Mutex<Records>, dir: &VolumeDir, name: &Name) -> Result<()> {
    unlink(dir, name)?;
    lock(records).trackers.remove(name);
    Ok(())
}

fn unlink(dir: &VolumeDir, name: &Name) -> Result<()> {
    let path = dir.tracker(name);
    match std::fs::remove_file(&path) {
        Ok(()) => durable::sync_dir(dir.path()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("{}: removing tracker {name}: there is none of this name", dir.name());
            Err(Error::new(Class::Usage, text).hint(format!("mirrord tracker ls {}", dir.name())))
        }
        Err(e) => Err(Error::io(path.display(), "removing it", e)),
    }
}

/// Makes a tracker of a volume that nobody serves: it begins with nothing marked, and an unclean end of the last
/// run is marked by the next start. Class `Busy` if somebody serves it.
pub(super) fn add_offline(records: &Records, dir: &VolumeDir, name: &Name) -> Result<()> {
    if dir.trackers()?.len() >= limits::TRACKERS {
        return Err(too_many(dir));
    }
    make(records, dir, name, Fill::Clear).map(drop)
}

/// The same, removed.
pub(super) fn remove_offline(dir: &VolumeDir, name: &Name) -> Result<()> {
    unlink(dir, name)
}

/// The refusal of one more.
pub(crate) fn too_many(dir: &VolumeDir) -> Error {
    let text =
        format!("{}: adding a tracker: it has {}, the most there may be", dir.name(), limits::TRACKERS);
    Error::new(Class::Refused, text).hint(format!("mirrord tracker ls {}", dir.name()))
}
