//! The face of long work on trees: progress is told, SIGUSR1 answered, and SIGINT and SIGTERM end the work at a point
//! where it can be taken up again; the process then ends by that signal, so that a shell sees 128 and its number.

use super::output;
use super::progress::{Meter, Progress, ProgressTo};
use crate::base::{Class, Error, Result};
use crate::capture::watch::{Seen, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The face looks at the work, and at signals, so often.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that a pipe with any room takes without waiting (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;

/// Does work under a watch. `resume` says, once it was stopped, how to go on.
pub fn watched<T>(
    tool: &'static str,
    to: ProgressTo,
    resume: &str,
    work: impl FnOnce(&Watch) -> Result<T>,
) -> Result<T> {
    let watch = Watch::default();
    let mut meter = Meter::new(tool, to)?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(|e| Error::os(Class::Internal, "signals", "taking them", e))?;
    let ended = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let face = scope.spawn(|| {
            let mut rate = Rate::default();
            while !ended.load(Ordering::Acquire) {
                let mut asked = false;
                for signal in signals.pending() {
                    match signal {
                        SIGUSR1 => asked = true,
                        // The second one does not wait: nothing is lost by that either.
                        signal if watch.stopped().is_some() => end_by(signal),
                        signal => watch.stop(signal),
                    }
                }
                meter.update(&rate.progress(watch.seen()), asked);
                std::thread::park_timeout(TICK);
            }
        });
        let done = work(&watch);
        ended.store(true, Ordering::Release);
        face.thread().unpark();
        done
    });
    drop(meter);
    if let (Err(error), Some(signal)) = (&done, watch.stopped()) {
        output::tell(&format!(
            "{tool}: {}; nothing is lost\ntry: {resume}\n",
            output::one_line(&error.message)
        ));
        end_by(signal);
    }
    done
}

/// Ends the process as the signal would have.
fn end_by(signal: i32) {
    // It fails only for signals that do not end a process.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

/// How fast it goes, over the last seconds.
#[derive(Default)]
struct Rate {
    since: Option<(Instant, Seen)>,
    rate: u64,
}

impl Rate {
    fn progress(&mut self, seen: Seen) -> Progress {
        let now = Instant::now();
        let (start, before) = *self.since.get_or_insert((now, seen));
        if before.phase != seen.phase {
            (self.since, self.rate) = (Some((now, seen)), 0);
        } else if now - start > Duration::from_secs(1) {
            let micros = (now - start).as_micros().max(1);
            let bytes = seen.done.saturating_sub(before.done);
            self.rate = u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX);
            self.since = Some((now, seen));
        }
        let left = seen.total.saturating_sub(seen.done);
        Progress {
            done: seen.done,
            total: seen.total,
            rate: self.rate,
            estimated_seconds_to_finish: (seen.total > 0 && self.rate > 0).then(|| left.div_ceil(self.rate)),
            text: seen.phase.name().to_owned(),
        }
    }
}

/// A pipe that is waited for with patience: between two waits it is asked whether the work is to end.
#[derive(Debug)]
pub struct Patient<'a, F> {
    file: F,
    watch: &'a Watch,
}

impl<'a, F: AsFd> Patient<'a, F> {
    /// Standard input or output, or anything else.
    pub const fn new(file: F, watch: &'a Watch) -> Self {
        Self { file, watch }
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let limit = Timespec::try_from(TICK).map_err(io::Error::other)?;
        loop {
            self.watch.check().map_err(|error| io::Error::other(error.message))?;
            match poll(&mut [PollFd::new(&self.file, flags)], Some(&limit)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl<F: AsFd> Read for Patient<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        Ok(rustix::io::read(&self.file, buffer)?)
    }
}

impl<F: AsFd> Write for Patient<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_pipe = rustix::fs::fstat(&self.file).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile
        });
        let most = if is_pipe { PIPE_PIECE } else { bytes.len() };
        self.wait(PollFlags::OUT)?;
        Ok(rustix::io::write(&self.file, &bytes[..bytes.len().min(most)])?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
