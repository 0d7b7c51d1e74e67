//! What `mirror-sync` does with its arguments: opens the ends, checks, runs, says how it ended.

mod args;
mod delta;
mod place;
mod session;
mod source;
mod summary;

pub use args::{Forced, Packing, SyncArgs, ZeroArg};
pub use place::{Place, few, join_brackets};
pub use source::MapName;

use crate::base::{BlockSize, ByteRange, Class, Error, Result, limits};
use crate::cli::serve::serve;
use crate::device::is_open_for_writing;
use crate::device::writers::OPEN_ELSEWHERE;
use crate::leg::LegDevice;
use crate::leg::far::Reach;
use crate::sync::copy::{Copier, Mode, Sink};
use crate::sync::end::{End, Opening};
use crate::sync::feed::{Feed, Stream};
use crate::sync::memory::Memory;
use crate::sync::ordered::Ordered;
use crate::sync::pace::Pace;
use crate::sync::plan::{self, Method, Plan};
use crate::sync::run::{Report, Supply, Watch, lanes, run};
use crate::sync::stage::Stage;
use delta::Making;
use session::Session;
use source::Marks;
use std::path::Path;
use summary::{Outcome, Summary};

/// Bytes of one comparison where an end digests itself: one digest for all of it while nothing differs.
const DIGEST_STEP: u64 = 4 << 20;

/// Does what is asked for. The error, if any, is told after the summary.
pub fn sync(args: &SyncArgs) -> anyhow::Result<()> {
    if args.serve {
        return Ok(serve(args.root.as_deref(), args.read_only)?);
    }
    if let Some(path) = &args.inspect {
        return delta::inspect(args, path);
    }
    let mut session = Session::begin(args)?;
    let (summary, verdict) = if let Some(path) = &args.apply {
        delta::apply(args, path, &mut session)?
    } else if let Some(log) = &args.undo {
        delta::roll_back(args, log, &mut session)?
    } else if args.redo {
        delta::redo(args, &mut session)?
    } else {
        Copy::open(args)?.perform(args, &mut session)?
    };
    session.end();
    summary.tell(args)?;
    session.died()?;
    Ok(verdict?)
}

/// A target that somebody has locked may be the source, which this run holds: asked for without a lock, it says what
/// it is. A target elsewhere cannot be asked before.
fn busy_with(source: Option<&dyn End>, target: &Place, reach: &Reach, error: Error) -> Error {
    let Some(source) = source.filter(|_| error.class == Class::Busy) else { return error };
    let look = Opening { write: false, mounted: true, live: true, connections: 1, depth: 1 };
    let Ok(found) = target.open(look, reach) else { return error };
    let (facts, name) = (found.facts(), target.to_string());
    plan::check_other(source.facts(), &name, facts.identity.as_deref()).err().unwrap_or(error)
}

/// Refuses a source that its target, a server, has opened for writing: now that there is a client for it. Class
/// `Refused`.
fn check_served(source: &Place, target: &Place) -> Result<()> {
    let Place::Device(LegDevice::File(path)) = source else { return Ok(()) };
    let served = matches!(target, Place::Device(LegDevice::Nbd(_)) | Place::Command(_));
    if !served || !is_open_for_writing(path) {
        return Ok(());
    }
    let text =
        format!("{source}: checking the source: it is {OPEN_ELSEWHERE}, perhaps in the server {target}");
    Err(Error::new(Class::Refused, text).hint("the same with --live, if it is not"))
}

/// The ends, what is to be done, and who remembers.
struct Copy {
    /// What they are called.
    names: [String; 2],
    /// Whether the target keeps anything.
    kept: bool,
    source: Option<Box<dyn End>>,
    target: Option<Box<dyn End>>,
    plan: Plan,
    marks: Option<Marks>,
    memory: Option<Memory>,
    making: Option<Making>,
    stage: Option<Stage>,
    _lock: Option<std::fs::File>,
}

impl Copy {
    /// Opens everything and refuses what must not be begun. Nothing is written.
    fn open(args: &SyncArgs) -> Result<Self> {
        let (from, to) = match &args.delta {
            Some(_) => (args.one()?, None),
            None => args.ends().map(|(from, to)| (from, Some(to)))?,
        };
        let streams = from.is_stream() || to.is_some_and(Place::is_stream);
        if from.is_stream() && to.is_some_and(Place::is_stream) {
            return Err(Error::new(
                Class::Usage,
                "-: checking the ends: standard input to standard output is cat(1)",
            ));
        }
        if streams
            && (args.stage
                || args.dirty_only
                || args.digest.is_some()
                || args.delta.is_some() && from.is_stream())
        {
            let text = "-: checking the ends: that needs ends that can be read anywhere";
            return Err(Error::new(Class::Usage, text));
        }
        let compares = !args.full && !args.dirty_only;
        if let Some(to) = to.filter(|to| compares && (to.is_stream() || **to == Place::Null)) {
            let text = format!("{to}: checking the target: it cannot be compared with");
            return Err(Error::new(Class::Usage, text).hint("the same with --full"));
        }
        if args.delta.is_some() && compares && args.digest.is_none() {
            let text = "--delta: choosing the blocks: there is no target to compare with";
            return Err(
                Error::new(Class::Usage, text).hint("the same with --full, --dirty-only or --digest FILE")
            );
        }
        let keep = args.keep_map || args.dry_run || args.delta.as_deref() == Some(Path::new("-"));
        let marks = args.map.as_ref().map(|name| Marks::open(name, keep, &args.tls.dial())).transpose()?;
        let opening = |write| Opening {
            write,
            mounted: args.permit().mounted,
            live: args.live,
            connections: args.connections,
            depth: args.queue_depth,
        };
        let reach = args.reach();
        let open = |place: &Place, write| {
            (!place.is_stream()).then(|| place.open(opening(write), &reach)).transpose()
        };
        let source = open(from, false)?;
        if let (Some(source), Some(to)) = (&source, to) {
            plan::check_other(source.facts(), &to.to_string(), to.identity().as_deref())?;
        }
        let lock = to.filter(|_| !args.dry_run).map(session::lock_target).transpose()?.flatten();
        let target =
            to.map(|to| open(to, true).map_err(|error| busy_with(source.as_deref(), to, &reach, error)));
        let target = target.transpose()?.flatten();
        let size = source.as_ref().map_or(0, |source| source.facts().size);
        if let Some(to) = to.filter(|_| !args.live) {
            check_served(from, to)?;
        }
        if let Some(target) = &target {
            plan::check(source.as_ref().map(|source| source.facts()), target.facts(), size, args.permit())?;
        }
        if let (Some(marks), Some(name), Some(source)) = (&marks, &args.map, &source) {
            marks.check(name, &source.facts().name, size)?;
        }
        let memory = args.digest.as_ref().map(|path| Memory::open(path, size, None)).transpose()?;
        let block = marks.as_ref().map(|marks| marks.block);
        let block = block.or(memory.as_ref().map(Memory::block)).unwrap_or(BlockSize::DEFAULT);
        let method = match (compares, &memory) {
            (_, Some(_)) => Method::Remembered,
            (true, None) => Method::Compare,
            (false, None) => Method::Copy,
        };
        let only = marks.as_ref().map(|marks| marks.blocks.clone());
        let plan = Plan { size, block, method, only, zeroes: args.zeroes() };
        let stage = match &target {
            Some(target) if args.stage => Some(delta::stage_of(&**target)?),
            Some(target) => delta::check_finished(&**target).map(|()| None)?,
            None => None,
        };
        let making = match (&args.delta, &stage) {
            (Some(path), _) if !args.dry_run => {
                let everything = args.full || memory.as_ref().is_some_and(|memory| !memory.is_known());
                Some(Making::begin(args, path, (size, block), everything)?)
            }
            (_, Some(stage)) => Some(Making::into_stage(stage, size, block)?),
            _ => None,
        };
        let to_name = to.map(ToString::to_string);
        let to_name = to_name.or_else(|| args.delta.as_ref().map(|path| path.display().to_string()));
        Ok(Self {
            names: [from.to_string(), to_name.unwrap_or_default()],
            kept: to.is_some_and(|to| *to != Place::Null),
            source,
            target,
            plan,
            marks,
            memory,
            making,
            stage,
            _lock: lock,
        })
    }

    /// Bytes of one piece of work.
    fn step(&self, args: &SyncArgs) -> u64 {
        let ends = [self.source.as_deref(), self.target.as_deref()];
        let ends = || ends.into_iter().flatten().map(End::facts);
        if self.plan.method == Method::Compare && self.making.is_none() && ends().any(|facts| facts.hashes) {
            return DIGEST_STEP;
        }
        let most = ends().map(|facts| facts.request_max as u64).min().unwrap_or(u64::MAX);
        // A slow run is stopped, and told about, at least a few times a second.
        let slow = args.bwlimit.map_or(u64::MAX, |rate| rate / 8);
        args.request_size.min(most).min(slow).clamp(limits::BLOCK_MIN, limits::BLOCK_MAX)
    }

    fn perform(mut self, args: &SyncArgs, session: &mut Session) -> Result<(Summary, Result<()>)> {
        if let Some(note) = self.marks.as_ref().and_then(|marks| marks.note.as_ref()) {
            session.note(note);
        }
        if let (Some(stage), Some(target)) = (&self.stage, &self.target) {
            delta::finish_old(stage, &**target, session)?;
        }
        let mode = if args.dry_run { Mode::Dry } else { Mode::Perform };
        if let Some(memory) = self.memory.as_ref().filter(|_| !args.dry_run) {
            memory.begin()?;
        }
        // What is verified, or becomes durable as a whole, is settled afterwards.
        let later = args.verify || self.making.is_some();
        let mut done = Vec::new();
        let mut report = self.pass(args, session, mode, later.then_some(&mut done));
        let mut verdict = report.verdict();
        let (mut verified, mut settled) = (None, !args.dry_run);
        if let Some(making) = self.making.take() {
            let published = verdict.and_then(|()| self.publish(making, &mut report, &done, session));
            settled &= matches!(published, Ok(true));
            verdict = published.map(drop);
        } else if args.verify && !args.dry_run && verdict.is_ok() && !report.stopped {
            // Everything was flushed: what is read now is what lies there, not what was written.
            self.target.iter().for_each(|target| target.forget());
            let second = self.pass(args, session, Mode::Verify, None);
            verdict = second.verdict().map_err(|error| Error { class: Class::Io, ..error });
            verified = Some(verdict.is_ok() && !second.stopped);
            report.stopped = second.stopped;
        }
        if args.verbose > 0 {
            report.failures.iter().for_each(|error| session.note(&error.message));
        }
        if let Some(memory) = self.memory.take().filter(|_| !args.dry_run) {
            verdict = verdict.and(memory.finish());
        }
        if let Some(marks) = self.marks.take() {
            let all = verdict.is_ok() && !report.stopped && settled;
            verdict = verdict.and(marks.finish(all));
        }
        if verdict.is_ok() && report.stopped {
            session.stopped(&report, &self.names[1]);
        }
        let traffic = [&self.source, &self.target].map(|end| end.as_ref().and_then(|end| end.traffic()));
        let outcome = Outcome {
            traffic,
            verified,
            // Marked blocks alone say nothing about the others, and a live source is never equal to anything.
            equal: self.kept && !args.live && !args.dirty_only && verdict.is_ok(),
            dry_run: args.dry_run,
            time: session.elapsed(),
        };
        let summary = Summary::new(self.names.clone(), args.choice(), self.plan.size, &report, &outcome);
        for (end, name) in [self.source.take(), self.target.take()].into_iter().zip(&self.names) {
            if let Some(Err(error)) = end.map(End::close) {
                // All that counts was flushed before.
                session.note(&format!("{name}: {}", error.message));
            }
        }
        Ok((summary, verdict))
    }

    /// Ends a delta, applies it where it was staged, and settles what it holds; whether it did.
    fn publish(
        &mut self,
        making: Making,
        report: &mut Report,
        done: &[ByteRange],
        session: &mut Session,
    ) -> Result<bool> {
        if report.stopped {
            report.standing.durable = 0;
            return Ok(false);
        }
        let durable = making.finish(report, self.stage.is_some())?;
        if let (Some(stage), Some(target)) = (&self.stage, &self.target) {
            let applied = delta::apply_staged(stage, &**target, session)?;
            applied.verdict()?;
            report.stopped = applied.stopped;
            if applied.stopped {
                report.standing.durable = 0;
                return Ok(false);
            }
            let log = stage.undo_log();
            session.note(&format!(
                "{}: rolled back by: mirror-sync --undo {} {}",
                self.names[1],
                log.display(),
                self.names[1]
            ));
        }
        if !durable {
            return Ok(false);
        }
        if let Some(memory) = &self.memory {
            memory.settle(done);
        }
        self.marks.as_mut().map_or(Ok(()), |marks| marks.settle(done)).map(|()| true)
    }

    /// One pass over the plan. What becomes durable is settled on the way, or put on a list for `later`.
    fn pass(
        &mut self,
        args: &SyncArgs,
        session: &mut Session,
        mode: Mode,
        mut later: Option<&mut Vec<ByteRange>>,
    ) -> Report {
        let standard = Ordered::new("standard output", Box::new(std::io::stdout()));
        let (source, step) = (self.source.as_deref(), self.step(args));
        let sink = match (&self.making, self.target.as_deref()) {
            (Some(making), base) => Sink::Delta(&making.outgoing, base),
            (None, Some(target)) => Sink::Device(target),
            (None, None) => Sink::Stream(&standard),
        };
        let mut copier = Copier::new(&self.plan, source, sink, mode, Pace::new(args.bwlimit));
        copier.memory = self.memory.as_ref();
        let supply = if let Some(source) = source {
            // Where zeroes are made in a buffer, the buffer is bounded.
            let whole = !matches!(sink, Sink::Stream(_)) && self.plan.method == Method::Copy;
            Supply::Device(Feed::new(
                &self.plan,
                source,
                step,
                if whole { u64::MAX } else { step.max(1 << 20) },
            ))
        } else {
            let most = self.target.as_ref().map_or(0, |target| target.facts().size);
            let step = step.next_multiple_of(self.plan.block.bytes()) as usize;
            Supply::Stream(Stream::new(Box::new(std::io::stdin()), "standard input", step, most))
        };
        let lanes = lanes(source, self.target.as_deref(), mode).min(args.queue_depth);
        let (marks, memory) = (&mut self.marks, self.memory.as_ref());
        let total = if source.is_some() { self.plan.bytes() } else { 0 };
        let halt = session.stop();
        let mut tell = session.teller(total, mode);
        let watch = Watch {
            stop: &halt,
            told: &mut |standing| tell(standing),
            settle: &mut |ranges| {
                if mode == Mode::Dry {
                    return Ok(());
                }
                if let Some(later) = &mut later {
                    later.extend_from_slice(ranges);
                    return Ok(());
                }
                if let Some(memory) = memory {
                    memory.settle(ranges);
                }
                marks.as_mut().map_or(Ok(()), |marks| marks.settle(ranges))
            },
        };
        run(&self.plan, supply, &copier, lanes, watch)
    }
}
