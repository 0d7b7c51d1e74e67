//! One run as a person sees it: signals, progress, the lock of its target.

use super::{Place, SyncArgs};
use crate::base::units::show_size;
use crate::base::{Class, Error, Result};
use crate::cli::{Meter, Progress, ProgressTo, output};
use crate::control::StateDir;
use crate::device::lock;
use crate::sync::copy::Mode;
use crate::sync::run::{Report, Standing};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Signals, progress and the clock of one run.
pub struct Session {
    meter: Option<Meter>,
    begun: Instant,
    what: String,
    quiet: bool,
    asked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// The signal that stopped it; 0 for none.
    signal: Arc<AtomicUsize>,
}

impl Session {
    /// Takes the signals: SIGINT and SIGTERM stop at the next piece of work, a second one at once.
    pub fn begin(args: &SyncArgs) -> Result<Self> {
        let otherwise = if args.quiet { ProgressTo::Nobody } else { ProgressTo::People };
        let meter = Some(Meter::new("mirror-sync", args.progress.unwrap_or(otherwise))?);
        let (asked, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let signal = Arc::new(AtomicUsize::new(0));
        let fail = |e: std::io::Error| Error::os(Class::Internal, "signals", "taking them", e);
        signal_hook::flag::register(SIGUSR1, Arc::clone(&asked)).map_err(fail)?;
        for number in [SIGINT, SIGTERM] {
            // In this order: the default is taken when the flag was set before.
            signal_hook::flag::register_conditional_default(number, Arc::clone(&stop)).map_err(fail)?;
            signal_hook::flag::register(number, Arc::clone(&stop)).map_err(fail)?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)
                .map_err(fail)?;
        }
        let what = args.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" to ");
        Ok(Self { meter, begun: Instant::now(), what, quiet: args.quiet, asked, stop, signal })
    }

    /// Set when the run is to stop.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Tells progress of one pass: what is durable, of so many bytes.
    pub fn teller(&mut self, total: u64, mode: Mode) -> impl FnMut(&Standing) + '_ {
        let begun = Instant::now();
        move |standing| {
            let counts = &standing.counts;
            // While nothing is written there is nothing to be durable.
            let done = match mode {
                Mode::Perform => standing.durable,
                Mode::Dry | Mode::Verify => counts.written + counts.zeroed + counts.skipped,
            };
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
            let left = total.saturating_sub(done).checked_div(rate).filter(|_| total > 0);
            let doing = match mode {
                Mode::Perform => "",
                Mode::Dry => "dry run: ",
                Mode::Verify => "verifying: ",
            };
            let text = format!("{doing}{}", self.what);
            let now = Progress { done, total, rate, estimated_seconds_to_finish: left, text };
            if let Some(meter) = &mut self.meter {
                meter.update(&now, self.asked.swap(false, Ordering::Relaxed));
            }
        }
    }

    /// Tells a person something, unless they asked for silence.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            output::tell(&format!("mirror-sync: {}\n", output::one_line(text)));
        }
    }

    /// Ends the progress.
    pub fn end(&mut self) {
        self.meter = None;
    }

    /// Says that it was stopped and how it goes on.
    pub fn stopped(&mut self, report: &Report, target: &str) {
        self.meter = None;
        let done = show_size(report.standing.durable);
        output::tell(&format!(
            "mirror-sync: {target}: stopped by a signal: {done} are done and durable\ntry: the same command again\n"
        ));
    }

    /// Dies by the signal that stopped it, so that the caller sees it.
    pub fn died(&self) -> Result<()> {
        let signal = i32::try_from(self.signal.load(Ordering::Relaxed)).unwrap_or(0);
        if signal == 0 {
            return Ok(());
        }
        signal_hook::low_level::emulate_default_handler(signal)
            .map_err(|e| Error::os(Class::Internal, "signals", "ending by one", e))
    }
}

/// A lock against a second run on the same target of another machine: a file in the state directory, gone with
/// this process. Files and block devices are locked themselves.
pub fn lock_target(target: &Place) -> Result<Option<File>> {
    let Some(name) = target.lock_name() else { return Ok(None) };
    let state = StateDir::from_environment()?;
    let fail = |e| Error::io(state.path().display(), "making a lock in it", e);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state.path()).map_err(fail)?;
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let path = state.path().join(format!(".sync-{}.lock", &digest[..16]));
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(fail)?;
    lock::lock(&file, &path, true).map_err(|error| match error.class {
        Class::Busy => {
            Error::new(Class::Busy, format!("{name}: locking it: another mirror-sync writes to it"))
        }
        _ => error,
    })?;
    Ok(Some(file))
}
