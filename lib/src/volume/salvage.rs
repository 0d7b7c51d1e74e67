//! A new volume out of what one leg holds, when the records of its old volume are damaged or lost.
//!
//! Nothing of the old volume is believed and nothing of it is changed: the new one has an identity and a generation of
//! its own, so that no leg of the old one is ever taken for a leg of the new one by what its record says.

use super::create::place;
use super::members::stored;
use super::state::{check_records, salvage_hint, take_lock};
use crate::base::{Class, Error, Name, Result};
use crate::control::StateDir;
use crate::generation::RecordStore;
use crate::leg::{LegDevice, LegSpec};
use crate::map::MapFile;
use std::fs::File;

/// What is known of the old volumes of a leg.
#[derive(Debug, Default)]
pub(super) struct Old {
    /// Nobody begins to serve them meanwhile; held, never asked.
    locks: Vec<File>,
    /// The size, as whatever is left of them says.
    pub(super) size: Option<u64>,
}

/// Looks whether a leg may be salvaged. Classes: `Busy` if its volume is served; `Refused` if the records of its volume
/// are intact, or if its own is, and says that the leg holds an older moment or half of one.
pub(super) fn look(state: &StateDir, leg: &LegSpec) -> Result<Old> {
    let mut found = Old::default();
    for name in state.volumes()? {
        let dir = state.volume(&name);
        // One whose configuration is damaged names no leg.
        let Ok(config) = stored(&dir) else { continue };
        let Some(old) = config.legs.iter().find(|other| is_same(other, leg)) else {
            continue;
        };
        found.locks.push(take_lock(&dir)?);
        let refuse =
            |why: &str| Err(Error::new(Class::Refused, format!("{}: salvaging it: {why}", leg.device)));
        match check_records(&dir, &config.legs) {
            Ok(()) => {
                let why = format!("it is leg {} of volume {name}, whose records are intact", old.name);
                return refuse(&why).map_err(|e: Error| e.hint(format!("mirrord serve {name}")));
            }
            Err(error) if error.class == Class::Damaged => {}
            Err(error) => return Err(error),
        }
        if let Ok(record) = RecordStore::read(&dir.record(&old.name))
            && record.name == old.name
            && !record.in_sync()
        {
            let why = format!("its record is intact, and says that it lacks something of volume {name}");
            return refuse(&why).map_err(|e: Error| match salvage_hint(&dir, &config.legs) {
                Some((better, hint)) if better != old.name => e.hint(hint),
                // Whoever wants an older moment, or half of one, says so in other words.
                _ => e.hint(format!("mirrord create {name}-old --like {} --leg {leg}", leg.device)),
            });
        }
        let of_record = |leg: &LegSpec| RecordStore::read(&dir.record(&leg.name)).ok().map(|r| r.size);
        let of_map = |leg: &LegSpec| MapFile::read(&dir.map(&leg.name)).ok().map(|m| m.0.identity.size);
        let legs = || std::iter::once(old).chain(&config.legs);
        found.size = legs().find_map(of_record).or_else(|| legs().find_map(of_map)).or(found.size);
    }
    Ok(found)
}

/// Refuses what is a leg of another volume of this state directory, whose records are intact: what is written to it from
/// here would make it differ from what that volume believes of it. `of` is the volume that it comes to, if there is one.
pub(super) fn refuse_member(state: &StateDir, of: Option<&Name>, leg: &LegSpec) -> Result<()> {
    for name in state.volumes()?.into_iter().filter(|name| Some(name) != of) {
        let dir = state.volume(&name);
        // One whose configuration is damaged names no leg.
        let Ok(config) = stored(&dir) else { continue };
        let Some(old) = config.legs.iter().find(|other| is_same(other, leg)) else { continue };
        if check_records(&dir, &config.legs).is_ok() {
            let old = &old.name;
            let text =
                format!("{}: taking it for leg {}: it is leg {old} of volume {name}", leg.device, leg.name);
            let force = if config.legs.len() == 1 { " --force=last-copy" } else { "" };
            return Err(
                Error::new(Class::Refused, text).hint(format!("mirrord leg remove {name} {old}{force}"))
            );
        }
    }
    Ok(())
}

fn is_same(one: &LegSpec, other: &LegSpec) -> bool {
    match (&one.device, &other.device) {
        (LegDevice::File(a), LegDevice::File(b)) => {
            let at = |path| std::fs::metadata(path).ok().map(|data| place(&data));
            a == b || at(a).is_some_and(|a| at(b) == Some(a))
        }
        _ => one.meets(other),
    }
}
