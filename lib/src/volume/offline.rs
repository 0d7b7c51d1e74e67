//! The same for a volume that nobody serves: under its lock, with its records open.

use super::members::{self, Kept, through};
use super::resize;
use super::state::{self, Records};
use crate::base::{Class, Error, Name, Result};
use crate::config::VolumeConfig;
use crate::control::VolumeDir;
use crate::leg::LegSpec;
use crate::leg::dial::Dial;
use std::fs::File;

/// A volume that nobody serves, held so that nobody begins to.
struct Held {
    _lock: File,
    config: VolumeConfig,
    records: Records,
}

/// Class `Busy` if somebody serves it.
fn hold(dir: &VolumeDir) -> Result<Held> {
    dir.must_exist()?;
    let lock = state::take_lock(dir)?;
    let config = members::stored(dir)?;
    let records = Records::open(dir, config.legs.iter().map(|leg| &leg.name))?;
    Ok(Held { _lock: lock, config, records })
}

impl Held {
    fn leg(&self, dir: &VolumeDir, name: &Name) -> Result<usize> {
        self.config.legs.iter().position(|leg| leg.name == *name).ok_or_else(|| {
            let names: Vec<_> = self.config.legs.iter().map(|leg| leg.name.as_str()).collect();
            let text = format!("{}: no leg {name}: the legs are {}", dir.name(), names.join(", "));
            Error::new(Class::Usage, text)
        })
    }

    /// Whether nobody else holds what was acknowledged.
    fn is_last(&self, leg: usize) -> bool {
        let good = |at: usize| self.records.leg_record(at).in_sync;
        good(leg) && !(0..self.records.records.len()).any(|other| other != leg && good(other))
    }
}

/// `leg add`, and `leg replace` where `new.replaces` names a leg.
pub fn add(dir: &VolumeDir, new: &LegSpec) -> Result<()> {
    let mut held = hold(dir)?;
    if let Some(old) = &new.replaces {
        held.leg(dir, old)?;
    }
    let size = held.records.records.first().map_or(0, |record| record.size);
    let dial = Dial { tls_dir: held.config.tls_dir.clone() };
    members::look_at(dir, &held.config.legs, new, &dial, size)?;
    members::enlist(dir, &mut held.records, new, &mut through).map(|_| ())
}

/// `leg remove`; with `last_copy` also the last good one, and with the last leg the volume. Says what was done
/// beyond the removal.
pub fn remove(dir: &VolumeDir, name: &Name, last_copy: bool) -> Result<Option<String>> {
    let mut held = hold(dir)?;
    let leg = held.leg(dir, name)?;
    let last = held.is_last(leg);
    if last && !last_copy {
        return Err(members::last_copy(dir, name));
    }
    if held.config.legs.len() == 1 {
        if !last_copy {
            return Err(members::last_copy(dir, name));
        }
        return retire(dir, &held, name).map(Some);
    }
    members::check_dismissal(&held.config, name)?;
    members::dismiss(dir, &mut held.records, name, &mut through)?;
    Ok(last.then(|| {
        "no leg is in sync any more; mirrord create NEW --salvage LEG makes a volume of what one holds"
            .to_owned()
    }))
}

/// The last leg goes, and the volume with it; its device stays as it is.
///
/// 1. `volume.toml` is removed. Now there is no volume.
/// 2. Everything else of it is removed.
fn retire(dir: &VolumeDir, held: &Held, name: &Name) -> Result<String> {
    let fail = |e| Error::io(dir.path().display(), "removing the volume", e);
    std::fs::remove_file(dir.config()).map_err(fail)?;
    crate::device::durable::sync_dir(dir.path())?;
    std::fs::remove_dir_all(dir.path()).map_err(fail)?;
    let device = held.config.legs.iter().find(|leg| leg.name == *name).map(LegSpec::places);
    Ok(format!(
        "there is no volume {} any more; its data stands in {}",
        dir.name(),
        device.unwrap_or_default()
    ))
}

/// `leg set`
pub fn set(dir: &VolumeDir, name: &Name, pairs: &[String]) -> Result<()> {
    let held = hold(dir)?;
    let leg = held.leg(dir, name)?;
    let spec = members::set_over(&held.config.legs[leg], pairs)?;
    members::set(dir, &spec, &Kept::Said(pairs.to_vec()))
}

/// Bytes of the volume, as its records have it: with an interrupted growth those before.
pub fn size(dir: &VolumeDir) -> Result<u64> {
    Ok(hold(dir)?.records.records.first().map_or(0, |record| record.size))
}

/// `resize`: to `to` bytes, or to the smallest leg. The new size.
pub fn resize(dir: &VolumeDir, to: Option<u64>) -> Result<u64> {
    let mut held = hold(dir)?;
    if let Some(growth) = resize::pending(dir)? {
        resize::go_on(dir, &mut held.records, &growth, &mut through)?;
    }
    let size = held.records.records.first().map_or(0, |record| record.size);
    let dial = Dial { tls_dir: held.config.tls_dir.clone() };
    let mut legs = Vec::new();
    for (at, leg) in held.config.legs.iter().enumerate() {
        let record = held.records.leg_record(at);
        if !record.detached && !record.failed {
            legs.push((leg.name.clone(), super::create::check_leg(leg, &dial)?.size));
        }
    }
    let to = resize::fitting(dir.name(), size, to, &legs)?;
    let Some(source) = held.records.reference() else {
        let text = format!("{}: resizing it: no leg is in sync", dir.name());
        return Err(Error::new(Class::Refused, text).hint(format!("mirrord serve {}", dir.name())));
    };
    let growth = resize::Growth::new(dir.name(), size, to, &held.records.records[source].name)?;
    if growth.to > growth.from {
        resize::announce(dir, &growth)?;
        resize::go_on(dir, &mut held.records, &growth, &mut through)?;
    }
    Ok(to)
}

/// `leg reset`
pub fn reset(dir: &VolumeDir, name: &Name) -> Result<()> {
    let mut held = hold(dir)?;
    let leg = held.leg(dir, name)?;
    if held.is_last(leg) {
        return Err(members::last_copy(dir, name));
    }
    members::reset(dir, &mut held.records, leg, &mut through)
}
