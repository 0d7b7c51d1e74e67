//! `digest` and `diff`: what devices hold, and where two of them differ.

use super::{DiffArgs, DigestArgs, How, output_to};
use crate::base::units::show_size;
use crate::base::{BlockSize, Class, Error, Id, Result};
use crate::cli::far::{FarArgs, Place, TlsArgs};
use crate::cli::{Meter, Progress, ProgressTo};
use crate::delta::Manifest;
use crate::map::RangeSource;
use crate::map::format::{Header, Identity};
use crate::map::ops::{Force, Op, combine};
use crate::map::stream::write_map;
use crate::sync::{self, Device, Side};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Tells how far reading has come.
struct Teller {
    meter: Meter,
    asked: Arc<AtomicBool>,
    begun: Instant,
    what: String,
}

impl Teller {
    fn new(what: String, progress: Option<ProgressTo>, quiet: bool) -> Result<Self> {
        let otherwise = if quiet { ProgressTo::Nobody } else { ProgressTo::People };
        let meter = Meter::new("dirtymap", progress.unwrap_or(otherwise))?;
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked))
            .map_err(|e| Error::os(Class::Internal, "SIGUSR1", "taking the signal", e))?;
        Ok(Self { meter, asked, begun: Instant::now(), what })
    }

    fn tell(&mut self, done: u64, total: u64) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
        let left = (total - done).checked_div(rate);
        let now = Progress { done, total, rate, estimated_seconds_to_finish: left, text: self.what.clone() };
        self.meter.update(&now, self.asked.swap(false, Ordering::Relaxed));
    }
}

/// `digest`: the manifest goes to the output; where that is a file, the root is printed.
pub fn digest(args: &DigestArgs, how: How) -> Result<()> {
    let quiet = how.quiet;
    let device = open(&args.device, &args.far, &args.tls)?;
    if how.dry_run {
        let block = args.block.unwrap_or(BlockSize::DEFAULT);
        let digests =
            format!("{} digests of blocks of {}", block.count(device.size()), show_size(block.bytes()));
        return plan(args.out.output.as_deref(), args.out.replace, &format!("{digests}, {}", device.name()));
    }
    let out = output_to(args.out.output.as_deref(), args.out.replace, false)?;
    let mut teller = Teller::new(device.name().to_owned(), args.progress, quiet)?;
    let block = args.block.unwrap_or(BlockSize::DEFAULT);
    let volume = args.volume.unwrap_or(Id::NONE);
    let root = sync::digest(&device, block, volume, out, &mut |done, total| teller.tell(done, total))?;
    if quiet || args.out.output.as_deref().is_none_or(|path| path == Path::new("-")) {
        return Ok(());
    }
    let mut out = output_to(None, false, true)?;
    root.iter().try_for_each(|byte| out.text(&format!("{byte:02x}")))?;
    out.text(&format!("  {}\n", device.name()))?;
    out.finish()
}

/// What a dry run prints.
fn plan(output: Option<&Path>, replace: bool, what: &str) -> Result<()> {
    let name = output.map_or_else(|| "standard output".into(), Path::to_string_lossy);
    if output.is_some() {
        drop(output_to(output, replace, false)?);
    }
    let mut out = output_to(None, false, true)?;
    out.text(&format!("{name}: would be written: {what}\n"))?;
    out.finish()
}

fn open(place: &Place, far: &FarArgs, tls: &TlsArgs) -> Result<Device> {
    match place {
        Place::Here(device) => Device::open_over(device, &tls.dial()),
        Place::Far(target) => Device::open_far(target, &far.reach(false)),
    }
}

/// What a name stands for: a file that begins like a manifest is one, unless it is written `file:PATH`.
fn side(name: &str, far: &FarArgs, tls: &TlsArgs) -> Result<Side> {
    if Manifest::is_one(Path::new(name)) {
        return Manifest::open(Path::new(name)).map(Side::Manifest);
    }
    open(&name.parse()?, far, tls).map(Side::Device)
}

/// `diff`: silent class `Differs` if anything does.
pub fn diff(args: &DiffArgs, how: How) -> Result<()> {
    let quiet = how.quiet;
    let (a, b) = (side(&args.a, &args.far, &args.tls)?, side(&args.b, &args.far, &args.tls)?);
    let volumes = [a.volume(), b.volume()];
    let volume = match volumes {
        [a, b] if a == b || b.is_none() => a,
        [a, b] if a.is_none() => b,
        _ if args.force.ops().volume => Id::NONE,
        [one, two] => {
            let text = format!("{}: comparing it with {}: of volume {one} and of {two}", args.a, args.b);
            return Err(Error::new(Class::Damaged, text).hint("the same with --force=volume"));
        }
    };
    let block = args.block.or(a.block()).or(b.block()).unwrap_or(BlockSize::DEFAULT);
    let identity = Identity { volume, leg: Id::NONE, size: a.size(), block };
    identity.check(&args.a)?;
    if how.dry_run {
        let what = format!("where {} differ in {} and {}", show_size(identity.size), args.a, args.b);
        return plan(args.out.output.as_deref(), args.out.replace, &what);
    }
    let mut out = output_to(args.out.output.as_deref(), args.out.replace, false)?;
    let mut teller = Teller::new(format!("{} {}", args.a, args.b), args.progress, quiet)?;
    let set = sync::diff(&a, &b, block, &mut |done, total| teller.tell(done, total))?;
    drop(teller);
    let ranges = set.runs(u64::MAX).map(|run| block.range(&run, identity.size)).collect();
    let source = RangeSource::new(&args.a, Header::new(identity, Id::NONE), ranges)?;
    write_map(&mut combine(Op::Or, vec![Box::new(source)], None, Force::default())?, &mut out)?;
    out.finish()?;
    if set.is_empty() {
        return Ok(());
    }
    if !quiet {
        super::note(&format!("{} differ in {}", args.b, show_size(set.bytes(identity.size, block))));
    }
    Err(Error::silent(Class::Differs))
}
