//! Performs a plan: several threads, each with one piece of work at a time, from its reading to its writing.
//!
//! 1. A thread takes the next piece of work, reads the source, finds out what differs, and writes that. With as
//!    many threads as the ends have lanes, reading, hashing, the wire and writing overlap, and what is held in
//!    memory is bounded by threads times the size of a piece.
//! 2. What a target has acknowledged is put on a list.
//! 3. Every few seconds, and at the end, the list is taken, the target is flushed, and if that succeeds, what was
//!    on the list is *settled*: durable, counted as done, and told to whoever keeps the map.
//!
//! When the power goes before 3, or the flush fails, nothing on the list was ever claimed: the map still has it.

use super::copy::{Copier, Counts, Mode};
use super::end::End;
use super::feed::{Feed, Records, Stream, Work};
use super::plan::Plan;
use crate::base::{ByteRange, Class, Error, Result, units::show_size};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Progress is told so often.
const TICK: Duration = Duration::from_millis(100);
/// What was written is made durable so often while the run goes on.
const SETTLE: Duration = Duration::from_secs(5);
/// Most errors that are told one by one; the others are counted.
const TOLD: usize = 16;

/// Where the work comes from.
pub enum Supply<'a> {
    /// A device.
    Device(Feed<'a>),
    /// A stream, whose bytes come with the work.
    Stream(Stream<'a>),
    /// A delta, whose bytes come with the work.
    Delta(Box<Records<'a>>),
}

impl Supply<'_> {
    /// The next piece of work; whether its bytes are in `buf` already.
    fn next(&mut self, buf: &mut Vec<u8>) -> Result<Option<(Work, bool)>> {
        Ok(match self {
            Self::Device(feed) => feed.take()?.map(|work| (work, false)),
            Self::Stream(stream) => stream.take(buf)?.map(|work| (work, true)),
            Self::Delta(records) => records.take(buf)?.map(|work| (work, true)),
        })
    }
}

/// So many bytes are worth a thread.
const WORTH: u64 = 256 << 10;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes that are done and durable.
    pub durable: u64,
    /// What was read, written and so on so far, durable or not.
    pub counts: Counts,
}

/// Who is told while a run goes on.
pub struct Watch<'w> {
    /// Set by somebody else to stop at the next piece of work.
    pub stop: &'w AtomicBool,
    /// Called about ten times a second.
    pub told: &'w mut dyn FnMut(&Standing),
    /// Called with what has become durable; a failure stops the run.
    pub settle: &'w mut dyn FnMut(&[ByteRange]) -> Result<()>,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Where it stood at the end.
    pub standing: Standing,
    /// Bytes that were to be looked at; 0 for a stream.
    pub total: u64,
    /// What failed, at most `TOLD` of them.
    pub failures: Vec<Error>,
    /// Ranges that failed.
    pub failed: u64,
    /// Bytes in them.
    pub failed_bytes: u64,
    /// What ended the run early: nothing could go on.
    pub ended_by: Option<Error>,
    /// Pieces of work that were taken.
    pub pieces: u64,
    /// It was stopped by [`Watch::stop`].
    pub stopped: bool,
}

impl Report {
    /// Success, or the error that stands for the whole run: `Partial` if anything is done that need not be done
    /// again, otherwise what ended it.
    pub fn verdict(&self) -> Result<()> {
        let some = self.standing.durable > 0;
        if let Some(error) = &self.ended_by {
            // What cannot be resumed keeps its class: a damaged delta, a bug.
            let resumable = matches!(error.class, Class::Io | Class::Connect | Class::Timeout);
            let class = if some && resumable { Class::Partial } else { error.class };
            return Err(Error { class, ..error.clone() });
        }
        let Some(first) = self.failures.first() else { return Ok(()) };
        let class = if some { Class::Partial } else { first.class };
        if self.failed == 1 {
            return Err(Error { class, ..first.clone() });
        }
        let (ranges, bytes) = (self.failed, show_size(self.failed_bytes));
        let text = format!("{}; {ranges} ranges failed, {bytes} in all", first.message);
        Err(Error::new(class, text))
    }
}

#[derive(Default)]
struct State {
    acknowledged: Vec<ByteRange>,
    report: Report,
    working: usize,
}

struct Shared<'a> {
    supply: Mutex<Supply<'a>>,
    state: Mutex<State>,
    ended: Condvar,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    /// Nothing can go on: the first reason stands.
    fn end(&self, error: Error) {
        lock(&self.state).report.ended_by.get_or_insert(error);
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Runs until the work is done, nothing can go on, or it is stopped; then flushes and settles what was written.
/// `lanes` threads at most.
pub fn run(plan: &Plan, supply: Supply<'_>, copier: &Copier<'_>, lanes: usize, watch: Watch<'_>) -> Report {
    let (total, lanes) = match supply {
        Supply::Device(_) => (plan.bytes(), lanes.min(plan.bytes().div_ceil(WORTH) as usize)),
        Supply::Stream(_) | Supply::Delta(_) => (0, lanes),
    };
    let working = lanes.max(1);
    let state = State { working, report: Report { total, ..Report::default() }, ..State::default() };
    let shared = Shared {
        supply: Mutex::new(supply),
        state: Mutex::new(state),
        ended: Condvar::new(),
        over: AtomicBool::new(false),
    };
    let Watch { stop, told, settle } = watch;
    std::thread::scope(|scope| {
        for _ in 0..working {
            scope.spawn(|| {
                work(&shared, copier, stop);
                lock(&shared.state).working -= 1;
                shared.ended.notify_all();
            });
        }
        let mut settled = Instant::now();
        let mut state = lock(&shared.state);
        while state.working > 0 {
            state = shared.ended.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
            let standing = Standing { counts: copier.counts(), ..state.report.standing };
            drop(state);
            told(&standing);
            if settled.elapsed() >= SETTLE {
                make_durable(&shared, copier, settle);
                settled = Instant::now();
            }
            state = lock(&shared.state);
        }
    });
    make_durable(&shared, copier, settle);
    let mut report = std::mem::take(&mut lock(&shared.state).report);
    report.standing.counts = copier.counts();
    report.stopped = stop.load(Ordering::Relaxed);
    told(&report.standing);
    report
}

/// Flushes the target and settles what it had acknowledged before. After a failure nothing is settled any more.
fn make_durable(
    shared: &Shared<'_>,
    copier: &Copier<'_>,
    settle: &mut dyn FnMut(&[ByteRange]) -> Result<()>,
) {
    let acknowledged = std::mem::take(&mut lock(&shared.state).acknowledged);
    if acknowledged.is_empty() {
        return;
    }
    match copier.flush().and_then(|()| settle(&acknowledged)) {
        Ok(()) => {
            let bytes: u64 = acknowledged.iter().map(|range| range.len).sum();
            lock(&shared.state).report.standing.durable += bytes;
        }
        Err(error) => shared.end(error),
    }
}

/// One thread.
fn work(shared: &Shared<'_>, copier: &Copier<'_>, stop: &AtomicBool) {
    let mut buffers = super::copy::Buffers::default();
    while !shared.over.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
        // A panic of ours must not look like the end of the work: the lock is poisoned and the process ends.
        let next = lock(&shared.supply).next(&mut buffers.source);
        let (work, loaded) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => return shared.end(error),
        };
        let failures = copier.perform(&work, loaded, &mut buffers, stop);
        let mut state = lock(&shared.state);
        state.report.pieces += 1;
        let mut at = work.range.offset;
        for (range, error) in failures {
            if range.offset > at {
                state.acknowledged.push(ByteRange { offset: at, len: range.offset - at });
            }
            at = range.end();
            state.report.failed += 1;
            state.report.failed_bytes += range.len;
            if state.report.failures.len() < TOLD {
                state.report.failures.push(error);
            }
        }
        if at < work.range.end() {
            state.acknowledged.push(ByteRange { offset: at, len: work.range.end() - at });
        }
        drop(state);
        if let Some(error) = copier.gone() {
            return shared.end(error);
        }
    }
}

/// How many threads a copy between two ends is worth.
pub fn lanes(source: Option<&dyn End>, target: Option<&dyn End>, mode: Mode) -> usize {
    let of = |end: Option<&dyn End>| end.map(|end| end.facts().lanes);
    let most = of(source).into_iter().chain(of(target)).max().unwrap_or(1);
    if mode == Mode::Dry { most.min(4) } else { most }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
