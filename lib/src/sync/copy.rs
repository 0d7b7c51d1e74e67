//! One piece of work from its reading to its writing.

use super::end::{DIGEST_RANGE, End};
use super::feed::Work;
use super::memory::Memory;
use super::ordered::Ordered;
use super::outgoing::{self, Outgoing};
use super::pace::Pace;
use super::plan::{self, Method, Plan, Zeroes};
use crate::base::{ByteRange, Class, Error, Result};
use crate::delta::Change;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that are looked at of what is not copied here.
const SAMPLE: usize = 64;

/// What is done with what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is written.
    Perform,
    /// It is counted; nothing is written.
    Dry,
    /// It is an error: the target was just written and is read back.
    Verify,
}

/// Where bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Sink<'a> {
    /// To a device.
    Device(&'a dyn End),
    /// To a stream, in order.
    Stream(&'a Ordered<'static>),
    /// Into a delta, compared with a device if there is one.
    Delta(&'a Outgoing, Option<&'a dyn End>),
}

/// Bytes that were moved, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Read from the source.
    pub read: u64,
    /// Written to the target as data.
    pub written: u64,
    /// Written to the target as zeroes or holes: no data travelled.
    pub zeroed: u64,
    /// Found to be equal, and left alone.
    pub skipped: u64,
}

#[derive(Debug, Default)]
struct Counters {
    read: AtomicU64,
    written: AtomicU64,
    zeroed: AtomicU64,
    skipped: AtomicU64,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub struct Buffers {
    /// Bytes of the source.
    pub source: Vec<u8>,
    /// Bytes of the target.
    target: Vec<u8>,
}

/// Moves pieces of work; shared by all threads.
#[derive(Debug)]
pub struct Copier<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The source; absent where the bytes come with the work.
    pub source: Option<&'a dyn End>,
    /// The target.
    pub target: Sink<'a>,
    /// What the target held, where that is remembered.
    pub memory: Option<&'a Memory>,
    /// What is done with what differs.
    pub mode: Mode,
    /// Bytes a second that may be written.
    pub pace: Pace,
    counters: Counters,
}

impl<'a> Copier<'a> {
    /// A copier that has not moved anything.
    pub fn new(
        plan: &'a Plan,
        source: Option<&'a dyn End>,
        target: Sink<'a>,
        mode: Mode,
        pace: Pace,
    ) -> Self {
        Self { plan, source, target, memory: None, mode, pace, counters: Counters::default() }
    }

    /// What was moved so far.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { read, written, zeroed, skipped } = &self.counters;
        Counts { read: get(read), written: get(written), zeroed: get(zeroed), skipped: get(skipped) }
    }

    /// Makes durable what the target has acknowledged.
    pub fn flush(&self) -> Result<()> {
        match (self.mode, self.target) {
            // A delta is durable as a whole or not at all, when it has its end.
            (Mode::Dry | Mode::Verify, _) | (_, Sink::Delta(..)) => Ok(()),
            (Mode::Perform, Sink::Device(end)) if end.facts().flushes => end.flush(),
            // A person has said that it need not be.
            (Mode::Perform, Sink::Device(end)) => end.gone().map_or(Ok(()), Err),
            (Mode::Perform, Sink::Stream(stream)) => stream.flush(),
        }
    }

    /// Why nothing more can be moved.
    pub fn gone(&self) -> Option<Error> {
        let target = match self.target {
            Sink::Device(end) => end.gone(),
            Sink::Stream(stream) => stream.gone(),
            Sink::Delta(out, base) => out.gone().or_else(|| base.and_then(End::gone)),
        };
        target.or_else(|| self.source.and_then(End::gone))
    }

    /// Moves one piece of work; what failed, in order. What can be read in one request and not as a whole is
    /// tried again block by block, so that one bad block does not take its neighbours with it.
    pub fn perform(
        &self,
        work: &Work,
        loaded: bool,
        buffers: &mut Buffers,
        stop: &AtomicBool,
    ) -> Vec<(ByteRange, Error)> {
        let Err(error) = self.range(work, loaded, buffers) else { return Vec::new() };
        let block = self.plan.block.bytes();
        let whole = matches!(self.target, Sink::Stream(_) | Sink::Delta(..))
            || loaded
            || work.zero
            || work.range.len <= block;
        if whole || self.gone().is_some() || self.mode == Mode::Verify {
            return vec![(work.range, error)];
        }
        let mut failures = Vec::new();
        let mut at = work.range.offset;
        while at < work.range.end() {
            let range = ByteRange { offset: at, len: block.min(work.range.end() - at) };
            let stopped = stop.load(Ordering::Relaxed) || self.gone().is_some();
            let done = if stopped {
                Err(error.clone())
            } else {
                self.range(&Work { range, ..*work }, false, buffers)
            };
            if let Err(error) = done {
                failures.push((range, error));
            }
            at = range.end();
        }
        failures
    }

    fn range(&self, work: &Work, loaded: bool, buffers: &mut Buffers) -> Result<()> {
        let method = if self.mode == Mode::Verify { Method::Compare } else { self.plan.method };
        match (self.target, method) {
            (Sink::Stream(stream), _) => self.stream(stream, work, loaded, buffers),
            (Sink::Delta(out, base), _) => self.delta(out, base, work, buffers),
            (Sink::Device(target), Method::Copy) if work.zero => self.zero(target, work.range, true),
            (Sink::Device(target), Method::Copy) => {
                if self.mode == Mode::Dry {
                    self.counters.written.fetch_add(work.range.len, Ordering::Relaxed);
                    return Ok(());
                }
                if !loaded && self.mode == Mode::Perform && self.pass(target, work.range)? {
                    return Ok(());
                }
                self.load(work.range, loaded, buffers)?;
                self.store(target, work.range.offset, &buffers.source)
            }
            (Sink::Device(target), Method::Compare) => self.compare(target, work, loaded, buffers),
            (Sink::Device(target), Method::Remembered) => self.remembered(target, work, buffers),
        }
    }

    /// Fills the buffer of the source.
    fn load(&self, range: ByteRange, loaded: bool, buffers: &mut Buffers) -> Result<()> {
        if !loaded {
            let Some(source) = self.source else {
                return Err(Error::new(Class::Internal, "reading: there is no source"));
            };
            read(source, range, &mut buffers.source)?;
        }
        self.counters.read.fetch_add(range.len, Ordering::Relaxed);
        Ok(())
    }

    /// Hands a range of a file on without copying it here, where it is in memory and holds no zeroes that would
    /// become a hole; whether that was done.
    fn pass(&self, target: &dyn End, range: ByteRange) -> Result<bool> {
        let facts = target.facts();
        let fits = facts.takes_files && range.len <= facts.request_max as u64;
        let Some(file) = self.source.and_then(End::file).filter(|_| fits) else { return Ok(false) };
        let mut head = [0; SAMPLE];
        let clear = plan::samples(range).all(|at| {
            let head = &mut head[..SAMPLE.min((range.end() - at) as usize)];
            file.peek(head, at) && (self.plan.zeroes != Zeroes::Detect || !plan::is_zero(head))
        });
        if clear {
            self.pace.take(range.len);
            target.write_from(file, range)?;
            self.counters.read.fetch_add(range.len, Ordering::Relaxed);
            self.counters.written.fetch_add(range.len, Ordering::Relaxed);
        }
        Ok(clear)
    }

    /// In order, also what is zero: a stream has no holes.
    fn stream(
        &self,
        stream: &Ordered<'static>,
        work: &Work,
        loaded: bool,
        buffers: &mut Buffers,
    ) -> Result<()> {
        let done = if work.zero {
            buffers.source.clear();
            buffers.source.resize(work.range.len as usize, 0);
            Ok(())
        } else {
            self.load(work.range, loaded, buffers)
        };
        if let Err(error) = done {
            stream.fail(error.clone());
            return Err(error);
        }
        self.pace.take(work.range.len);
        stream.put(work.number, &buffers.source)?;
        self.counters.written.fetch_add(work.range.len, Ordering::Relaxed);
        Ok(())
    }

    /// What differs, as records of a delta.
    fn delta(
        &self,
        out: &Outgoing,
        base: Option<&dyn End>,
        work: &Work,
        buffers: &mut Buffers,
    ) -> Result<()> {
        let mut changes = Vec::new();
        let done = self.changes(out, base, work, buffers, &mut changes);
        if let Err(error) = done {
            out.fail(error.clone());
            return Err(error);
        }
        if self.mode == Mode::Perform {
            let bytes: u64 = changes.iter().map(|change| change.payload().len() as u64).sum();
            self.pace.take(bytes);
            out.put(work.number, &changes)?;
        }
        Ok(())
    }

    fn changes(
        &self,
        out: &Outgoing,
        base: Option<&dyn End>,
        work: &Work,
        buffers: &mut Buffers,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        if work.zero && self.plan.method == Method::Copy {
            outgoing::zero(work.range, changes);
            self.counters.zeroed.fetch_add(work.range.len, Ordering::Relaxed);
            return Ok(());
        }
        if work.zero {
            buffers.source.clear();
            buffers.source.resize(work.range.len as usize, 0);
        } else {
            self.load(work.range, false, buffers)?;
        }
        let block = self.plan.block.bytes() as usize;
        let runs = match (self.plan.method, base, self.memory) {
            (Method::Remembered, _, Some(memory)) => {
                let (digests, differ) = memory.compare(work.range, &buffers.source)?;
                if self.mode == Mode::Perform {
                    memory.learn(work.range, &digests)?;
                }
                plan::merge(differ.into_iter(), block, buffers.source.len())
            }
            (Method::Compare, Some(base), _) => {
                read(base, work.range, &mut buffers.target)?;
                plan::differences(&buffers.source, &buffers.target, block)
            }
            _ => std::iter::once(0..buffers.source.len()).collect(),
        };
        let differ: u64 = runs.iter().map(|run| run.len() as u64).sum();
        self.counters.skipped.fetch_add(work.range.len - differ, Ordering::Relaxed);
        for run in runs {
            for (piece, zero) in plan::segments(&buffers.source[run.clone()], self.plan.zeroes, 1) {
                let (at, len) = (run.start + piece.start, piece.len() as u64);
                let range = ByteRange { offset: work.range.offset + at as u64, len };
                let counter = if zero { &self.counters.zeroed } else { &self.counters.written };
                counter.fetch_add(len, Ordering::Relaxed);
                if zero {
                    outgoing::zero(range, changes);
                } else {
                    out.changes(range.offset, &buffers.source[at..at + piece.len()], changes);
                }
            }
        }
        Ok(())
    }

    /// Makes a range zero, unless it is; `ask` whether it is known to be.
    fn zero(&self, target: &dyn End, range: ByteRange, ask: bool) -> Result<()> {
        if ask && is_known_zero(target, range)? {
            self.counters.skipped.fetch_add(range.len, Ordering::Relaxed);
            return Ok(());
        }
        if self.mode == Mode::Perform {
            target.zero(range, true)?;
        }
        self.counters.zeroed.fetch_add(range.len, Ordering::Relaxed);
        Ok(())
    }

    /// Writes data, and holes where there are zeroes in it.
    fn store(&self, target: &dyn End, offset: u64, data: &[u8]) -> Result<()> {
        for (piece, zero) in plan::segments(data, self.plan.zeroes, target.facts().align as usize) {
            let range = ByteRange { offset: offset + piece.start as u64, len: piece.len() as u64 };
            if zero {
                self.zero(target, range, false)?;
                continue;
            }
            if self.mode == Mode::Perform {
                let mut at = range.offset;
                for part in data[piece].chunks(target.facts().request_max) {
                    self.pace.take(part.len() as u64);
                    target.write(at, part)?;
                    at += part.len() as u64;
                }
            }
            self.counters.written.fetch_add(range.len, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Finds out what differs, by digests where one end computes its own, by bytes otherwise.
    fn compare(&self, target: &dyn End, work: &Work, loaded: bool, buffers: &mut Buffers) -> Result<()> {
        let range = work.range;
        if work.zero && is_known_zero(target, range)? {
            self.counters.skipped.fetch_add(range.len, Ordering::Relaxed);
            return Ok(());
        }
        let hashes = target.facts().hashes || self.source.is_some_and(|source| source.facts().hashes);
        if let Some(source) = self.source.filter(|_| hashes && !loaded) {
            return self.by_digests(source, target, range, buffers);
        }
        if work.zero {
            buffers.source.clear();
            buffers.source.resize(range.len as usize, 0);
        } else {
            self.load(range, loaded, buffers)?;
        }
        read(target, range, &mut buffers.target)?;
        let block = self.plan.block.bytes() as usize;
        let runs = plan::differences(&buffers.source, &buffers.target, block);
        self.settle_runs(target, range, &runs, &buffers.source)
    }

    fn by_digests(
        &self,
        source: &dyn End,
        target: &dyn End,
        range: ByteRange,
        buffers: &mut Buffers,
    ) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let block = self.plan.block.bytes();
        let mut at = range.offset;
        while at < range.end() {
            let part = ByteRange { offset: at, len: DIGEST_RANGE.min(range.end() - at) };
            at = part.end();
            // First one digest for all of it, and only if that differs one for each block.
            for step in [part.len.next_multiple_of(block), block] {
                ours.clear();
                theirs.clear();
                source.digests(part, step, &mut ours)?;
                target.digests(part, step, &mut theirs)?;
                if ours == theirs {
                    break;
                }
            }
            self.counters.read.fetch_add(part.len, Ordering::Relaxed);
            let marks = ours.iter().zip(&theirs).map(|(a, b)| a != b);
            let runs = plan::merge(marks, block as usize, part.len as usize);
            self.fetch_runs(target, part, &runs, buffers)?;
        }
        Ok(())
    }

    /// Compares the source with what the target is remembered to hold.
    fn remembered(&self, target: &dyn End, work: &Work, buffers: &mut Buffers) -> Result<()> {
        let Some(memory) = self.memory else {
            return Err(Error::new(Class::Internal, "comparing: nothing is remembered"));
        };
        let block = self.plan.block.bytes() as usize;
        let mut at = work.range.offset;
        while at < work.range.end() {
            let len = (work.range.end() - at).min(DIGEST_RANGE);
            let part = ByteRange { offset: at, len };
            at = part.end();
            if work.zero {
                buffers.source.clear();
                buffers.source.resize(len as usize, 0);
            } else {
                self.load(part, false, buffers)?;
            }
            let (digests, differ) = memory.compare(part, &buffers.source)?;
            let runs = if memory.is_known() {
                plan::merge(differ.into_iter(), block, len as usize)
            } else {
                read(target, part, &mut buffers.target)?;
                plan::differences(&buffers.source, &buffers.target, block)
            };
            if self.mode == Mode::Perform {
                memory.learn(part, &digests)?;
            }
            self.settle_runs(target, part, &runs, &buffers.source)?;
        }
        Ok(())
    }

    /// Reads and stores the runs that differ.
    fn fetch_runs(
        &self,
        target: &dyn End,
        range: ByteRange,
        runs: &[std::ops::Range<usize>],
        buffers: &mut Buffers,
    ) -> Result<()> {
        let differ: u64 = runs.iter().map(|run| run.len() as u64).sum();
        self.mismatch(target, range, runs)?;
        self.counters.skipped.fetch_add(range.len - differ, Ordering::Relaxed);
        for run in runs {
            let range = ByteRange { offset: range.offset + run.start as u64, len: run.len() as u64 };
            if self.mode == Mode::Dry {
                self.counters.written.fetch_add(range.len, Ordering::Relaxed);
                continue;
            }
            let Some(source) = self.source else { continue };
            read(source, range, &mut buffers.source)?;
            self.store(target, range.offset, &buffers.source)?;
        }
        Ok(())
    }

    /// Stores the runs that differ out of bytes that are here.
    fn settle_runs(
        &self,
        target: &dyn End,
        range: ByteRange,
        runs: &[std::ops::Range<usize>],
        data: &[u8],
    ) -> Result<()> {
        let differ: u64 = runs.iter().map(|run| run.len() as u64).sum();
        self.mismatch(target, range, runs)?;
        self.counters.skipped.fetch_add(range.len - differ, Ordering::Relaxed);
        runs.iter()
            .try_for_each(|run| self.store(target, range.offset + run.start as u64, &data[run.clone()]))
    }

    /// While verifying, a difference is an error.
    fn mismatch(&self, target: &dyn End, range: ByteRange, runs: &[std::ops::Range<usize>]) -> Result<()> {
        let Some(run) = runs.first().filter(|_| self.mode == Mode::Verify) else { return Ok(()) };
        let (at, len) = (range.offset + run.start as u64, run.len());
        let name = &target.facts().name;
        Err(Error::new(Class::Io, format!("{name}: reading back {at}+{len}: it differs from the source")))
    }
}

/// Reads a range of any length.
fn read(end: &dyn End, range: ByteRange, buf: &mut Vec<u8>) -> Result<()> {
    let most = end.facts().request_max;
    buf.resize(range.len as usize, 0);
    if buf.len() <= most {
        return end.read(range.offset, buf);
    }
    let mut part = Vec::new();
    for (at, piece) in (range.offset..).step_by(most).zip(buf.chunks_mut(most)) {
        part.resize(piece.len(), 0);
        end.read(at, &mut part)?;
        piece.copy_from_slice(&part);
    }
    Ok(())
}

/// Whether an end says that a range reads as zeroes.
fn is_known_zero(end: &dyn End, range: ByteRange) -> Result<bool> {
    if !end.facts().tells_zeroes {
        return Ok(false);
    }
    let mut pieces = Vec::new();
    end.extents(range, &mut pieces)?;
    Ok(pieces.iter().all(|piece| piece.zero))
}
