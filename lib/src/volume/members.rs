//! What stands on disk of legs that come, go, or are set anew. The daemon's workers and the command line of a
//! volume that is not served use the same procedures; nothing here talks to a core.

use super::create::{check_leg, refuse_twins};
use super::salvage::refuse_member;
use super::state::Records;
use crate::base::{Class, Error, Id, Name, Result};
use crate::config::file::load_stored;
use crate::config::{Settings, VolumeConfig, merge, to_toml};
use crate::control::VolumeDir;
use crate::device::durable;
use crate::generation::{Flags, Record, RecordStore, change};
use crate::leg::LegSpec;
use crate::leg::dial::Dial;
use crate::map::file::Fill;
use crate::map::{Identity, MapFile};
use std::path::Path;

/// Told before each numbered step; an error ends the procedure there, as a crash does. Only tests end one.
pub(super) type Steps<'a> = &'a mut dyn FnMut(u32) -> Result<()>;

/// Goes through all steps.
#[allow(clippy::unnecessary_wraps, reason = "it stands for one that ends the procedure")]
pub(super) fn through(_step: u32) -> Result<()> {
    Ok(())
}

/// The configuration as it is stored, without flags of any run.
pub(super) fn stored(dir: &VolumeDir) -> Result<VolumeConfig> {
    merge(Settings::default(), None, Some(load_stored(&dir.config(), dir.name())?))
}

/// Changes `volume.toml`, durably: it is the old one or the new one.
pub(super) fn edit(
    dir: &VolumeDir,
    change: impl FnOnce(&mut VolumeConfig) -> Result<()>,
) -> Result<VolumeConfig> {
    let mut config = stored(dir)?;
    change(&mut config)?;
    config.check()?;
    durable::replace(&dir.config(), to_toml(dir.name(), &config).as_bytes())?;
    Ok(config)
}

fn refuse(dir: &VolumeDir, why: &str) -> Error {
    Error::new(Class::Refused, format!("{}: {why}", dir.name()))
}

/// Looks at a leg that is to be added: reachable, large enough, and no other leg in disguise. Changes nothing; may
/// take as long as its `timeout=`.
pub(super) fn look_at(
    dir: &VolumeDir,
    legs: &[LegSpec],
    new: &LegSpec,
    dial: &Dial,
    size: u64,
) -> Result<()> {
    let all: Vec<LegSpec> = legs.iter().chain([new]).cloned().collect();
    crate::leg::spec::check_set(&all)?;
    refuse_twins(&all)?;
    refuse_member(&dir.state(), Some(dir.name()), new)?;
    let found = check_leg(new, dial)?.size;
    if found < size {
        let text = format!(
            "{}: checking the size of leg {}: it has {found} bytes, the volume has {size}",
            new.device, new.name
        );
        return Err(Error::new(Class::Refused, text));
    }
    Ok(())
}

/// A new leg becomes a member. Nothing was sent to it before, and nothing is until the end.
///
/// 1. What a crash left of an earlier leg of this name is removed, and forgotten by all.
/// 2. Its map is made: everything is missing.
/// 3. Its record is made: INCONSISTENT.
/// 4. The record of every leg in sync knows of it, durably.
/// 5. `volume.toml` names it. Now it is a member.
///
/// Recovery: a crash before 5 leaves files that nothing reads and the next step 1 removes; a crash after it leaves a
/// member that misses everything, and the next start begins its resync.
pub(super) fn enlist(
    dir: &VolumeDir,
    records: &mut Records,
    new: &LegSpec,
    at: Steps<'_>,
) -> Result<(Id, MapFile)> {
    let Some(source) = records.reference() else {
        let text = format!("{}: adding leg {}: no leg is in sync to copy from", dir.name(), new.name);
        return Err(Error::new(Class::Refused, text).hint(format!("mirrord status {}", dir.name())));
    };
    at(1)?;
    for path in [dir.record(&new.name), dir.map(&new.name)] {
        remove(&path)?;
    }
    let known: Vec<Id> = records.records.iter().map(|record| record.leg).collect();
    for leg in 0..records.records.len() {
        records.change(leg, |record| {
            record.peers.retain(|peer| known.contains(&peer.leg));
            Ok(())
        })?;
    }
    at(2)?;
    let like = &records.records[source];
    let mut record = Record::new(like.volume, Id::random()?, new.name.clone(), like.size, like.block);
    let identity = Identity { volume: like.volume, leg: record.leg, size: like.size, block: like.block };
    let map = MapFile::create(&dir.map(&new.name), &identity, records.generation(), Fill::Dirty)?;
    at(3)?;
    change::begin_resync(&mut like.clone(), &mut record)?;
    let store = RecordStore::create(&dir.record(&new.name), &mut record)?;
    at(4)?;
    for leg in (0..records.records.len()).filter(|&leg| records.records[leg].in_sync()).collect::<Vec<_>>() {
        let mut target = record.clone();
        records.change(leg, |source| change::begin_resync(source, &mut target))?;
    }
    at(5)?;
    edit(dir, |config| {
        config.legs.push(new.clone());
        Ok(())
    })?;
    let id = record.leg;
    records.push(store, record);
    Ok((id, map))
}

/// Refuses the removal of a leg that the others cannot do without.
pub(super) fn check_dismissal(config: &VolumeConfig, leg: &Name) -> Result<()> {
    let left = config.legs.iter().filter(|other| other.name != *leg).count();
    if left < config.min_legs as usize {
        let text = format!("removing leg {leg}: {left} would be left, min-legs is {}", config.min_legs);
        return Err(Error::new(Class::Refused, text));
    }
    Ok(())
}

/// A leg that is out durably is no member any more.
///
/// 1. `volume.toml` does not name it. Now it is none.
/// 2. The others forget it.
/// 3. Its record and its map are removed. Its device is not touched.
///
/// Recovery: a crash before 1 leaves a member that is detached: the removal is asked for again; a crash after it
/// leaves files that nothing reads, and that [`enlist`] of the same name removes.
pub(super) fn dismiss(dir: &VolumeDir, records: &mut Records, name: &Name, at: Steps<'_>) -> Result<()> {
    at(1)?;
    edit(dir, |config| {
        config.legs.retain(|leg| leg.name != *name);
        for leg in &mut config.legs {
            leg.replaces = leg.replaces.take().filter(|old| old != name);
        }
        Ok(())
    })?;
    at(2)?;
    let gone = records.records.iter().position(|record| record.name == *name);
    if let Some(gone) = gone {
        let id = records.records[gone].leg;
        records.remove(gone);
        for leg in 0..records.records.len() {
            records.change(leg, |record| {
                record.peers.retain(|peer| peer.leg != id);
                Ok(())
            })?;
        }
    }
    at(3)?;
    remove(&dir.record(name))?;
    remove(&dir.map(name))?;
    durable::sync_dir(dir.path())
}

/// Nothing is believed of the contents of a leg any more; only while nobody serves the volume.
///
/// 1. Its map is removed, durably: everything counts as missing.
/// 2. Its record: OUTDATED, neither DETACHED nor FAILED.
///
/// Recovery: a crash between leaves a leg that misses everything; the next start takes it out by itself.
pub(super) fn reset(dir: &VolumeDir, records: &mut Records, leg: usize, at: Steps<'_>) -> Result<()> {
    at(1)?;
    let name = records.records[leg].name.clone();
    remove(&dir.map(&name))?;
    durable::sync_dir(dir.path())?;
    at(2)?;
    records.change(leg, |record| {
        change::leave(record);
        record.flags.remove(Flags::DETACHED);
        record.flags.remove(Flags::FAILED);
        record.flags.remove(Flags::PRIMARY);
        Ok(())
    })
}

/// Refuses to take the last good copy away, and says what to type.
pub(super) fn last_copy(dir: &VolumeDir, leg: &Name) -> Error {
    refuse(dir, &format!("leg {leg} is the last good copy")).hint(format!(
        "mirrord leg add {} LEG, and mirrord wait {} --until synced",
        dir.name(),
        dir.name()
    ))
}

/// Whether a leg may leave the set of legs in sync, though nobody asked for just that: `good` says whether it is in
/// it, `others` how many more are in it and connected.
pub(super) fn may_leave(volume: &Name, leg: &Name, good: bool, others: usize, min_legs: u32) -> Result<()> {
    let floor = min_legs.max(1) as usize;
    if !good || others >= floor {
        return Ok(());
    }
    let text = if others == 0 {
        format!("leg {leg} is the last good copy")
    } else {
        format!("without leg {leg} {others} would be in sync, min-legs is {min_legs}")
    };
    let hint = format!("mirrord wait {volume} --until synced, and reload again");
    Err(Error::new(Class::Refused, text).hint(hint))
}

/// Refuses a setting that is fixed when a leg is added.
pub(super) fn fixed(volume: &Name, leg: &Name, key: &str) -> Error {
    let text = format!("{key} is fixed when a leg is added");
    Error::new(Class::Refused, text).hint(format!("mirrord leg replace {volume} {leg} NEW"))
}

/// Refuses two legs that are to change places.
pub(super) fn exchange(volume: &Name, leg: &Name, other: &Name) -> Error {
    let text = format!(
        "leg {other} is there, and is to move as well: legs in a ring cannot move one after the other, and whose map \
         is of which disk is not to be guessed"
    );
    Error::new(Class::Refused, text).hint(format!("mirrord leg replace {volume} {leg} NEW"))
}

/// Refuses a start with legs that have taken each other's places while one of them lacks something: if the disks are
/// where they were, its map would be taken for that of the good one. Legs in sync are equal, under whatever name.
pub(super) fn check_places(dir: &VolumeDir, legs: &[LegSpec]) -> Result<()> {
    let stored = stored(dir)?.legs;
    let taken = |leg: &LegSpec| stored.iter().find(|is| is.name != leg.name && is.meets(leg)).cloned();
    let moved: Vec<(&LegSpec, LegSpec)> =
        legs.iter().filter_map(|leg| taken(leg).map(|other| (leg, other))).collect();
    if moved.is_empty() {
        return Ok(());
    }
    // Records that cannot be read are left to whoever opens them.
    let Ok(records) = Records::open(dir, stored.iter().map(|leg| &leg.name)) else { return Ok(()) };
    let good = |name: &Name| {
        let at = stored.iter().position(|leg| leg.name == *name);
        at.is_some_and(|at| records.leg_record(at).in_sync)
    };
    for (leg, other) in moved {
        let other = &other.name;
        if !good(&leg.name) || !good(other) {
            let behind = if good(other) { &leg.name } else { other };
            let text = format!(
                "{}: serving it: leg {} is to be where leg {other} was, and leg {behind} lacks something: whose map is \
                 of which disk is not to be guessed",
                dir.name(),
                leg.name
            );
            return Err(Error::new(Class::Refused, text).hint(format!("mirrord status {}", dir.name())));
        }
    }
    Ok(())
}

/// Lays `key=value` settings over a leg.
pub(super) fn set_over(leg: &LegSpec, pairs: &[String]) -> Result<LegSpec> {
    let mut text =
        crate::leg::LegText { others: leg.others.clone(), ..crate::leg::LegText::of(leg.device.clone()) };
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::new(Class::Usage, format!("{}: not key=value", pair.escape_debug())));
        };
        match key {
            "device" => {
                text.set_device(value)?;
                text = text.absolute()?;
            }
            "flush" | "mode" | "replaces" | "name" => {
                let text = format!("{key}: fixed when a leg is added");
                return Err(Error::new(Class::Usage, text).hint("mirrord leg replace NAME OLD NEW"));
            }
            _ => text.set(key, value)?,
        }
    }
    Ok(text.over(leg.clone()))
}

/// How much of the settings of a leg is written to `volume.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of them.
    All,
    /// These, and nothing of what a file or flags lay over the leg now.
    Said(Vec<String>),
    /// Where it is: the rest stands in the configuration file, and holds for as long as it stands there. At the old
    /// address is an old copy, which a start without that file must not take for the leg.
    Address,
}

impl Kept {
    /// What is written of a leg that is added.
    pub(super) fn of(&self, leg: &LegSpec) -> LegSpec {
        match self {
            Self::All | Self::Said(_) => leg.clone(),
            Self::Address => LegSpec {
                mode: leg.mode,
                flush_unsafe: leg.flush_unsafe,
                replaces: leg.replaces.clone(),
                others: leg.others.clone(),
                ..LegSpec::new(leg.name.clone(), leg.device.clone())
            },
        }
    }
}

/// Writes the settings of a leg that is a member, durably.
pub(super) fn set(dir: &VolumeDir, leg: &LegSpec, kept: &Kept) -> Result<()> {
    edit(dir, |config| {
        if let Some(old) = config.legs.iter_mut().find(|old| old.name == leg.name) {
            match kept {
                Kept::All => *old = leg.clone(),
                Kept::Said(pairs) => *old = set_over(old, pairs)?,
                Kept::Address => (old.device, old.others) = (leg.device.clone(), leg.others.clone()),
            }
        }
        refuse_twins(&config.legs)
    })
    .map(|_| ())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(path.display(), "removing it", e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
