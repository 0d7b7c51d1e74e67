//! What stands on disk of a volume that grows, and the way back into it after a crash.
//!
//! 1. `resize` names the old size, the new one, and the source: the leg whose contents the new area has. Durable.
//! 2. Maps grow, with the new area missing on all legs but the source, and changed in trackers.
//! 3. The others leave the set, durably.
//! 4. Each record names the new size.
//! 5. `resize` is removed. Then clients are offered the new size.
//!
//! Recovery: a start that finds `resize` does 2 to 5 before anything else, with 3 first; each of them can be done
//! again. Nothing was written to the new area before 5, so that it does not matter which leg is the source.

use super::state::{MapHandle, Records};
use crate::base::{BlockSize, Class, Error, Name, Result, limits};
use crate::control::VolumeDir;
use crate::device::durable;
use crate::generation::{Flags, change};
use crate::map::MapFile;
use std::ops::Range;

/// The `schema` of a growth that is under way.
const SCHEMA: &str = "mirror-resize/1";

/// A growth that is under way, as `resize` has it: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Growth {
    schema: String,
    /// Bytes before.
    pub(super) from: u64,
    /// Bytes after.
    pub(super) to: u64,
    /// The leg whose contents the new area has.
    pub(super) source: String,
}

impl Growth {
    /// Refuses what is no growth.
    pub(super) fn new(volume: &Name, from: u64, to: u64, source: &Name) -> Result<Self> {
        if to < from {
            let text = format!("{volume}: resizing it: it has {from} bytes, it does not shrink to {to}");
            return Err(Error::new(Class::Refused, text)
                .hint(format!("mirrord create a smaller volume, and copy what is in {volume}")));
        }
        if to > limits::VOLUME_SIZE {
            let text = format!("{volume}: resizing it: {to} bytes, at most {}", limits::VOLUME_SIZE);
            return Err(Error::new(Class::Usage, text));
        }
        Ok(Self { schema: SCHEMA.to_owned(), from, to, source: source.to_string() })
    }

    /// The blocks of the new area. One that the old end cuts is one of them where they are missing; where they are
    /// not, it keeps the mark that it may have.
    pub(super) fn area(&self, block: BlockSize, missing: bool) -> Range<u64> {
        let first = if missing { block.index(self.from) } else { block.count(self.from) };
        first..block.count(self.to)
    }
}

/// Step 1.
pub(super) fn announce(dir: &VolumeDir, growth: &Growth) -> Result<()> {
    let line = serde_json::to_string(growth)
        .map_err(|e| Error::new(Class::Internal, format!("{}: writing it: {e}", dir.resize().display())))?;
    durable::replace(&dir.resize(), (line + "\n").as_bytes())
}

/// A growth that was begun and not ended.
pub(super) fn pending(dir: &VolumeDir) -> Result<Option<Growth>> {
    let path = dir.resize();
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io(path.display(), "reading it", e))?,
    };
    let damaged = |why: &str| Error::new(Class::Damaged, format!("{}: reading it: {why}", path.display()));
    let growth: Growth = serde_json::from_str(&text).map_err(|e| damaged(&e.to_string()))?;
    if growth.schema != SCHEMA {
        return Err(damaged(&format!("its schema is {}, expected {SCHEMA}", growth.schema)));
    }
    if growth.to < growth.from || growth.to > limits::VOLUME_SIZE {
        return Err(damaged(&format!("from {} to {} bytes is no growth", growth.from, growth.to)));
    }
    Ok(Some(growth))
}

/// Step 2 while the maps are in use; `source` is the map of the source. Space for all of them is had before any of them
/// is changed, and without it nothing has happened.
pub(super) fn grow_maps(
    dir: &VolumeDir,
    maps: &[(MapHandle, bool)],
    growth: &Growth,
    block: BlockSize,
) -> Result<()> {
    if let Err(error) = maps.iter().try_for_each(|(map, _)| map.make_room(growth.to)) {
        done(dir)?;
        return Err(error);
    }
    let again = |e: Error| e.hint(format!("mirrord resize {} {}", dir.name(), growth.to));
    maps.iter()
        .try_for_each(|(map, source)| map.grow(growth.to, growth.area(block, !source), !source))
        .map_err(again)
}

/// The size that a volume of these legs grows to: what was asked for, or the smallest leg. Refused if a leg is too
/// small for it. Each leg is given with its size.
pub(super) fn fitting(volume: &Name, from: u64, asked: Option<u64>, legs: &[(Name, u64)]) -> Result<u64> {
    let smallest = legs.iter().map(|leg| leg.1).min().unwrap_or(from);
    let to = asked.unwrap_or(smallest.max(from));
    if let Some((leg, size)) = legs.iter().find(|(_, size)| *size < to) {
        let text = format!("{volume}: resizing it: leg {leg} has {size} bytes, {to} are needed");
        return Err(Error::new(Class::Refused, text).hint(format!("extend the device of leg {leg} first")));
    }
    Ok(to)
}

/// Step 4.
pub(super) fn record(records: &mut Records, growth: &Growth) -> Result<()> {
    (0..records.records.len()).try_for_each(|leg| {
        records.change(leg, |record| {
            record.size = growth.to;
            Ok(())
        })
    })
}

/// Step 5.
pub(super) fn done(dir: &VolumeDir) -> Result<()> {
    let fail = |e| Error::io(dir.resize().display(), "removing it", e);
    match std::fs::remove_file(dir.resize()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    durable::sync_dir(dir.path())
}

/// Steps 3, 2, 4 and 5 of a growth that `resize` names, while nobody uses the volume. Each step can be done again.
pub(super) fn go_on(
    dir: &VolumeDir,
    records: &mut Records,
    growth: &Growth,
    at: super::members::Steps<'_>,
) -> Result<()> {
    for record in &records.records {
        if record.size != growth.from && record.size != growth.to {
            let (is, from, to) = (record.size, growth.from, growth.to);
            let text = format!(
                "{}: leg {}: {is} bytes, expected {from} or {to}",
                dir.resize().display(),
                record.name
            );
            return Err(Error::new(Class::Damaged, text));
        }
    }
    at(3)?;
    let named = records.records.iter().position(|r| r.name.as_str() == growth.source && r.in_sync());
    let source = named.or_else(|| records.reference());
    for leg in (0..records.records.len()).filter(|&leg| Some(leg) != source) {
        let Some(source) = source else { break };
        if records.records[leg].in_sync() {
            let mut from = records.records[source].clone();
            records.change(leg, |record| {
                record.flags.remove(Flags::PRIMARY);
                change::begin_resync(&mut from, record)
            })?;
            let mut target = records.records[leg].clone();
            records.change(source, |record| change::begin_resync(record, &mut target))?;
        }
    }
    at(2)?;
    for (leg, record) in records.records.iter().enumerate() {
        let path = dir.map(&record.name);
        if path.exists() {
            grow_map(&mut MapFile::open(&path)?, growth, Some(leg) != source)?;
        }
    }
    for name in dir.trackers()? {
        // One that is damaged is made again by the same start, all marked.
        if let Ok(mut map) = MapFile::open(&dir.tracker(&name)) {
            grow_map(&mut map, growth, true)?;
        }
    }
    at(4)?;
    record(records, growth)?;
    at(5)?;
    done(dir)
}

/// Step 2 of a start. A map that has its length already is marked again: the source may be another one than it was, and
/// a flush, or a tracker's confirmation, may have cleared the block that the old end cuts before the core knew of its
/// new part. What is marked on the source stays: copies of an earlier source may be on their way to its cache.
fn grow_map(map: &mut MapFile, growth: &Growth, missing: bool) -> Result<()> {
    let identity = &map.header().identity;
    if identity.size < growth.to || missing {
        let area = growth.area(identity.block, missing);
        map.grow(growth.to, area, missing)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
