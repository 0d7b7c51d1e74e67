//! Making a volume.

use super::options::{CREATE_SCHEMA, CreateOptions, CreateReport, CreatedLeg, Trust};
use super::probe::{self, Found};
use super::salvage::{Old, look, refuse_member};
use crate::base::{Class, Error, Id, Name, Result, limits};
use crate::config::to_toml;
use crate::control::VolumeDir;
use crate::device::{FileDevice, durable};
use crate::generation::{Generation, Record, RecordStore, change};
use crate::leg::dial::Dial;
use crate::leg::{DiskState, LegDevice, LegSpec};
use crate::map::file::Fill;
use crate::map::{Identity, MapFile};
use crate::nbd::TransmissionFlags;
use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::SystemTime;

/// A leg that was looked at, and stays locked until the volume is made.
pub(super) struct Checked {
    pub(super) size: u64,
    _device: Option<FileDevice>,
}

/// Makes a volume.
///
/// 1. Names and sizes of all legs are checked; local ones are locked. Nothing was changed so far.
/// 2. The volume's directory is made.
/// 3. The record of each leg is written.
/// 4. The map of each leg is written.
/// 5. `volume.toml` is written. Now the volume exists.
///
/// Recovery: (a) a failure removes what was made; (b) a crash before 5 leaves a directory without
/// `volume.toml`, which the next `create` takes for what it is and clears.
///
/// Classes: `Refused` if the volume exists, a leg is too small, read-only, in use, named twice, or a leg of another
/// volume; `Usage`; `Connect`; `Io`.
pub fn create(options: &CreateOptions) -> Result<CreateReport> {
    let (name, config) = (&options.name, &options.config);
    config.check()?;
    let dir = options.volume_dir();
    if dir.config().exists() {
        let text = format!("{name}: creating it: a volume of this name exists in {}", dir.path().display());
        return Err(Error::new(Class::Refused, text).hint(format!("mirrord status {name}")));
    }
    refuse_twins(&config.legs)?;
    let dial = Dial { tls_dir: config.tls_dir.clone() };
    let checked: Vec<Checked> = config.legs.iter().map(|leg| check_leg(leg, &dial)).collect::<Result<_>>()?;
    let old = if let Trust::Salvage(leg) = &options.trust {
        salvage(options, leg)?
    } else {
        config.legs.iter().try_for_each(|leg| refuse_member(&options.state_dir, None, leg))?;
        Old::default()
    };
    let size = wanted_size(options, &checked, old.size)?;
    for (leg, found) in config.legs.iter().zip(&checked) {
        if found.size < size {
            let text = format!(
                "{}: checking the size of leg {}: it has {} bytes, the volume has {size}",
                leg.device, leg.name, found.size
            );
            return Err(Error::new(Class::Refused, text));
        }
    }
    let mut report = report(options, size);
    if options.dry_run {
        return Ok(report);
    }
    report.id = Id::random()?;
    let new = !dir.path().exists();
    let made = make(options, &dir, &report);
    if made.is_err() {
        clear(&dir, options, new);
    }
    made.map(|()| report)
}

/// What is known of the volume whose leg it was.
fn salvage(options: &CreateOptions, leg: &Name) -> Result<Old> {
    let spec = options.config.legs.iter().find(|spec| spec.name == *leg);
    spec.map_or_else(|| Ok(Old::default()), |spec| look(&options.state_dir, spec))
}

fn report(options: &CreateOptions, size: u64) -> CreateReport {
    let legs = options.config.legs.iter().map(|leg| {
        let good = is_good(&options.trust, &leg.name);
        CreatedLeg {
            name: leg.name.clone(),
            device: leg.device.clone(),
            others: leg.others.clone(),
            disk_state: if good { DiskState::UpToDate } else { DiskState::SyncTarget },
            dirty: if good { 0 } else { size },
            flush_unsafe: leg.flush_unsafe,
        }
    });
    CreateReport {
        schema: CREATE_SCHEMA,
        name: options.name.clone(),
        id: Id::NONE,
        size,
        block: options.config.map_block.bytes(),
        dry_run: options.dry_run,
        legs: legs.collect(),
    }
}

/// Whether a leg holds what the volume holds from the start.
fn is_good(trust: &Trust, leg: &Name) -> bool {
    match trust {
        Trust::From(source) | Trust::Salvage(source) => source == leg,
        Trust::Single | Trust::KnownEqual | Trust::KnownZero => true,
    }
}

fn wanted_size(options: &CreateOptions, checked: &[Checked], old: Option<u64>) -> Result<u64> {
    let usage = |text: String| Error::new(Class::Usage, format!("{}: creating it: {text}", options.name));
    let salvaged = match &options.trust {
        Trust::Salvage(leg) => {
            let at = options.config.legs.iter().position(|spec| spec.name == *leg);
            old.or_else(|| at.and_then(|at| checked.get(at)).map(|found| found.size))
        }
        _ => None,
    };
    let size = match (options.size.or(salvaged.filter(|_| options.like.is_none())), &options.like) {
        (Some(size), None) => size,
        (None, Some(like)) => {
            // A leg may be named as the model; it is locked already.
            let leg = options.config.legs.iter().position(|leg| leg.device == *like);
            match leg.and_then(|leg| checked.get(leg)) {
                Some(found) => found.size,
                None => size_of(like, &Dial { tls_dir: options.config.tls_dir.clone() })?,
            }
        }
        _ => return Err(usage("exactly one of --size and --like is needed".to_owned())),
    };
    if size == 0 || size > limits::VOLUME_SIZE {
        let most = limits::VOLUME_SIZE;
        return Err(usage(format!("the size is {size} bytes, it must be from 1 to {most}")));
    }
    Ok(size)
}

fn size_of(device: &LegDevice, dial: &Dial) -> Result<u64> {
    match device {
        LegDevice::File(path) => Ok(FileDevice::open(path, false)?.size()),
        LegDevice::Nbd(uri) => probe::size(uri, dial, limits::LEG_TIMEOUT_MS),
    }
}

/// Step 1 for one leg.
pub(super) fn check_leg(leg: &LegSpec, dial: &Dial) -> Result<Checked> {
    match &leg.device {
        LegDevice::File(path) => {
            let device = FileDevice::open(path, true)?;
            Ok(Checked { size: device.size(), _device: Some(device) })
        }
        LegDevice::Nbd(_) => {
            let Found { uri, size, flags, .. } = probe::leg(leg, dial)?;
            let refuse = |why: &str| {
                let text = format!("{uri}: checking leg {}: {why}", leg.name);
                Err(Error::new(Class::Refused, text))
            };
            if flags.has(TransmissionFlags::READ_ONLY) {
                return refuse("the export is read-only");
            }
            if !flags.has(TransmissionFlags::SEND_FLUSH) && !leg.flush_unsafe {
                return refuse(
                    "the server has no FLUSH, nothing written to it is ever known to be durable; flush=unsafe \
                     accepts that",
                );
            }
            Ok(Checked { size, _device: None })
        }
    }
}

pub(super) fn place(data: &Metadata) -> (u64, u64) {
    if data.file_type().is_block_device() { (0, data.rdev()) } else { (data.dev(), data.ino()) }
}

/// One file under two names is no mirror. Before anything is locked: the second lock would fail.
pub(super) fn refuse_twins(legs: &[LegSpec]) -> Result<()> {
    let mut seen: Vec<((u64, u64), &Name)> = Vec::new();
    for leg in legs {
        let LegDevice::File(path) = &leg.device else { continue };
        // What cannot be looked at is told about when it is opened.
        let Ok(data) = std::fs::metadata(path) else { continue };
        let at = place(&data);
        if let Some((_, twin)) = seen.iter().find(|(other, _)| *other == at) {
            let text = format!("{}: legs {twin} and {} are the same file", leg.device, leg.name);
            return Err(Error::new(Class::Refused, text));
        }
        seen.push((at, &leg.name));
    }
    Ok(())
}

/// Steps 2 to 5.
fn make(options: &CreateOptions, dir: &VolumeDir, report: &CreateReport) -> Result<()> {
    let fail = |e| Error::io(dir.path().display(), "creating the volume's directory", e);
    DirBuilder::new().recursive(true).mode(0o700).create(dir.path()).map_err(fail)?;
    remove_leftovers(dir, options)?;
    let block = options.config.map_block;
    let mut records = Vec::new();
    for leg in &options.config.legs {
        records.push(Record::new(report.id, Id::random()?, leg.name.clone(), report.size, block));
    }
    write_records(options, dir, &mut records)?;
    let source = options.config.legs.iter().position(|leg| is_good(&options.trust, &leg.name));
    let generation = source.and_then(|leg| records.get(leg)).map_or(Id::NONE, |record| record.current.id);
    for (leg, record) in options.config.legs.iter().zip(&records) {
        let fill = if is_good(&options.trust, &leg.name) { Fill::Clear } else { Fill::Dirty };
        let identity = Identity { volume: report.id, leg: record.leg, size: report.size, block };
        MapFile::create(&dir.map(&leg.name), &identity, generation, fill)?;
    }
    durable::create_new(&dir.config(), to_toml(&options.name, &options.config).as_bytes())
}

/// Step 3: good legs hold the first generation, into the others a resync has begun.
fn write_records(options: &CreateOptions, dir: &VolumeDir, records: &mut [Record]) -> Result<()> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let legs = &options.config.legs;
    let (good, other): (Vec<usize>, Vec<usize>) =
        (0..legs.len()).partition(|&leg| is_good(&options.trust, &legs[leg].name));
    let id = Id::random()?;
    for &leg in &good {
        let minted_by = records[good[0]].leg;
        records[leg].current = Generation { id, term: 0, minted_by, clock };
    }
    for &target in &other {
        for &source in &good {
            let mut from = records[source].clone();
            change::begin_resync(&mut from, &mut records[target])?;
            records[source] = from;
        }
    }
    for (leg, record) in legs.iter().zip(records) {
        RecordStore::create(&dir.record(&leg.name), record)?;
    }
    Ok(())
}

/// What a `create` that crashed left behind.
fn remove_leftovers(dir: &VolumeDir, options: &CreateOptions) -> Result<()> {
    for leg in &options.config.legs {
        for path in [dir.record(&leg.name), dir.map(&leg.name)] {
            remove(&path).map_err(|e| Error::io(path.display(), "removing what a crash left", e))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// After a failure: everything that was made goes; what cannot be removed is found by the next `create`.
fn clear(dir: &VolumeDir, options: &CreateOptions, new: bool) {
    for leg in &options.config.legs {
        let _ = remove(&dir.record(&leg.name));
        let _ = remove(&dir.map(&leg.name));
    }
    let _ = remove(&dir.config());
    if new {
        let _ = std::fs::remove_dir(dir.path());
    }
}
