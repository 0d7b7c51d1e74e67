//! `--delta`, `--apply`, `--inspect`, `--stage`, `--undo`.

use super::session::{self, Session};
use super::summary::{Outcome, Summary};
use super::{Opening, Place, SyncArgs};
use crate::base::units::show_size;
use crate::base::{Class, Error, Id, Result};
use crate::cli::output;
use crate::control::StateDir;
use crate::delta::{DeltaHeader, DeltaReader, Lineage};
use crate::device::durable::Draft;
use crate::sync::end::End;
use crate::sync::outgoing::Outgoing;
use crate::sync::plan;
use crate::sync::run::{Report, Watch};
use crate::sync::stage::{AnyDelta, Stage, open_delta, undo, write};
use std::io::{BufWriter, IsTerminal as _, Read, Write};
use std::path::Path;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A delta that is being made: to a file that is there whole or not at all, to standard output, or to a stage.
pub(super) struct Making {
    pub(super) outgoing: Outgoing,
    draft: Option<Draft>,
    lineage: Option<Lineage>,
    target: Id,
}

impl Making {
    /// Opens where a delta goes and writes its header.
    /// Without `everything` it is for the generation that the account names.
    pub(super) fn begin(
        args: &SyncArgs,
        to: &Path,
        (size, block): (u64, crate::base::BlockSize),
        everything: bool,
    ) -> Result<Self> {
        let lineage = args.generation.as_deref().map(Lineage::open).transpose()?;
        let (now, target) = match &lineage {
            Some(lineage) => (lineage.now, Id::random()?),
            None => (Id::NONE, Id::NONE),
        };
        if let Some(path) = args.generation.as_ref().filter(|_| now.is_none() && !everything) {
            let text = format!("{}: reading it: there is no generation yet to begin from", path.display());
            return Err(Error::new(Class::Refused, text).hint("the same with --full, once"));
        }
        let base = if everything { Id::NONE } else { now };
        let (id, partial) = (Id::random()?, !everything);
        let header = DeltaHeader { id, volume: Id::NONE, base, target, size, block, partial };
        let pack = args.compress.is_some();
        if to == Path::new("-") {
            if std::io::stdout().is_terminal() {
                return Err(Error::new(Class::Usage, "standard output: writing a delta: it is a terminal"));
            }
            let out = BufWriter::with_capacity(BUFFER, std::io::stdout());
            let outgoing = Outgoing::new("standard output", Box::new(out), &header, pack)?;
            return Ok(Self { outgoing, draft: None, lineage, target });
        }
        if to.exists() {
            let text = format!("{}: creating it: it exists", to.display());
            return Err(Error::new(Class::Refused, text).hint("the same with another name"));
        }
        Self::into_draft(Draft::new(to)?, to, &header, pack, lineage)
    }

    /// The same for a stage.
    pub(super) fn into_stage(stage: &Stage, size: u64, block: crate::base::BlockSize) -> Result<Self> {
        let (id, none) = (Id::random()?, Id::NONE);
        let header = DeltaHeader { id, volume: none, base: none, target: none, size, block, partial: true };
        let to = stage.undo_log().with_file_name("stage");
        Self::into_draft(stage.draft()?, &to, &header, false, None)
    }

    fn into_draft(
        draft: Draft,
        to: &Path,
        header: &DeltaHeader,
        pack: bool,
        lineage: Option<Lineage>,
    ) -> Result<Self> {
        let name = to.display().to_string();
        let file = draft.file().try_clone().map_err(|e| Error::io(&name, "opening it again", e))?;
        let out: Box<dyn Write + Send> = Box::new(BufWriter::with_capacity(BUFFER, file));
        let outgoing = Outgoing::new(&name, out, header, pack)?;
        Ok(Self { outgoing, draft: Some(draft), lineage, target: header.target })
    }

    /// Ends the delta; from here on it is there, durable where it is a file. Whether it is.
    pub(super) fn finish(self, report: &Report, replace: bool) -> Result<bool> {
        self.outgoing.finish(report.pieces)?;
        let durable = self.draft.is_some();
        if let Some(draft) = self.draft {
            draft.publish(replace)?;
        }
        if let Some(mut lineage) = self.lineage {
            lineage.finish(self.target)?;
        }
        Ok(durable)
    }
}

/// Opens the input of `--apply` or `--inspect`.
fn open(path: &Path) -> Result<AnyDelta> {
    if path == Path::new("-") {
        let input: Box<dyn Read + Send> = Box::new(std::io::stdin());
        return DeltaReader::new(input, "standard input");
    }
    open_delta(path)
}

/// Whether it can be read twice.
fn is_seekable(path: &Path) -> bool {
    path != Path::new("-") && std::fs::metadata(path).is_ok_and(|data| data.is_file())
}

/// Reads a delta to its end, which checks it.
fn read_through(delta: &mut AnyDelta) -> Result<()> {
    let mut buf = Vec::new();
    while delta.next(&mut buf)?.is_some() {}
    Ok(())
}

/// The stage of a target.
pub(super) fn stage_of(target: &dyn End) -> Result<Stage> {
    let state = StateDir::from_environment()?;
    let facts = target.facts();
    // What another machine calls it is forgotten when that machine starts again.
    let here = facts.identity.as_deref().filter(|identity| !identity.starts_with("far:"));
    Stage::open(state.path(), here.unwrap_or(&facts.name))
}

/// Refuses a target on which a staged delta was decided upon and not applied to its end.
pub(super) fn check_finished(target: &dyn End) -> Result<()> {
    let Ok(state) = StateDir::from_environment() else { return Ok(()) };
    if !state.path().join("stage").exists() || !stage_of(target)?.is_unfinished() {
        return Ok(());
    }
    let name = &target.facts().name;
    let text = format!("{name}: checking the target: a staged delta was not applied to its end");
    Err(Error::new(Class::Refused, text).hint(format!("mirror-sync --stage --redo '{name}'")))
}

/// `--inspect`: what a delta says of itself, checked to its end.
pub(super) fn inspect(args: &SyncArgs, path: &Path) -> anyhow::Result<()> {
    let mut delta = open(path)?;
    let header = *delta.header();
    read_through(&mut delta)?;
    let totals = delta.totals();
    let id = |id: Id| if id.is_none() { String::new() } else { id.to_string() };
    if args.json {
        output::print_json(&serde_json::json!({
            "schema": "mirror-delta/1",
            "id": id(header.id), "volume": id(header.volume), "base": id(header.base), "target": id(header.target),
            "size": header.size, "block": header.block.bytes(),
            "partial": header.partial, "records": totals.records, "data": totals.data, "zero": totals.zero,
        }))?;
        return Ok(());
    }
    let shown = |id: Id, none: &str| if id.is_none() { none.to_owned() } else { id.to_string() };
    let text = format!(
        "id      {}\nbase    {}\ntarget  {}\nsize    {} ({})\nblock   {}\nrecords {}\ndata    {} ({})\nzero    {} ({})\n",
        header.id,
        shown(header.base, if header.partial { "not recorded" } else { "anything of this size" }),
        shown(header.target, "no account is kept"),
        header.size,
        show_size(header.size),
        show_size(header.block.bytes()),
        totals.records,
        totals.data,
        show_size(totals.data),
        totals.zero,
        show_size(totals.zero),
    );
    output::print(&text)?;
    Ok(())
}

/// One target that is written to, and the lock against a second run.
struct Target {
    end: Box<dyn End>,
    name: String,
    _lock: Option<std::fs::File>,
}

impl Target {
    fn open(args: &SyncArgs) -> Result<Self> {
        let place = args.one()?;
        if matches!(place, Place::Standard | Place::Null) {
            return Err(Error::new(Class::Usage, format!("{place}: opening it: it cannot be a target here")));
        }
        let lock = session::lock_target(place)?;
        let opening = Opening {
            write: true,
            mounted: args.permit().mounted,
            live: false,
            connections: args.connections,
            depth: args.queue_depth,
        };
        Ok(Self { end: place.open(opening, &args.reach())?, name: place.to_string(), _lock: lock })
    }
}

/// `--apply`: a delta to a target.
pub(super) fn apply(args: &SyncArgs, path: &Path, session: &mut Session) -> Result<(Summary, Result<()>)> {
    let target = Target::open(args)?;
    let mut delta = open(path)?;
    let header = *delta.header();
    let name = path.display().to_string();
    plan::check(None, target.end.facts(), header.size, args.permit())?;
    let mut lineage = args.generation.as_deref().map(Lineage::open).transpose()?;
    match &lineage {
        _ if args.permit().foreign => {}
        Some(lineage) => lineage.check(&name, &header)?,
        None if header.base.is_none() => {}
        None => {
            let text =
                format!("{name}: checking its base: it is for {}, and no account is kept here", header.base);
            return Err(Error::new(Class::Refused, text).hint("the same with --generation FILE"));
        }
    }
    if is_seekable(path) {
        // Everything is checked before the first byte is written.
        read_through(&mut delta)?;
        delta = open(path)?;
    }
    let halt = session.stop();
    let report = if args.stage {
        let stage = stage_of(&*target.end)?;
        finish_old(&stage, &*target.end, session)?;
        let most = std::fs::metadata(path).map_or(0, |data| data.len());
        stage.receive(delta, most)?;
        if let Some(lineage) = &mut lineage {
            lineage.begin(&header)?;
        }
        let mut tell = session.teller(0, crate::sync::copy::Mode::Perform);
        let watch = Watch { stop: &halt, told: &mut |standing| tell(standing), settle: &mut |_| Ok(()) };
        let report = stage.apply(&*target.end, watch, &mut |_| Ok(()))?;
        drop(tell);
        session.note(&format!(
            "{}: rolled back by: mirror-sync --undo {}",
            target.name,
            stage.undo_log().display()
        ));
        report
    } else {
        check_finished(&*target.end)?;
        if let Some(lineage) = &mut lineage {
            lineage.begin(&header)?;
        }
        let mut tell = session.teller(0, crate::sync::copy::Mode::Perform);
        let watch = Watch { stop: &halt, told: &mut |standing| tell(standing), settle: &mut |_| Ok(()) };
        write(&*target.end, delta, watch)
    };
    let verdict = report.verdict();
    if verdict.is_ok()
        && !report.stopped
        && let Some(lineage) = &mut lineage
    {
        lineage.finish(header.target)?;
    }
    Ok(summary("apply", &name, target, header.size, &report, verdict, session))
}

/// `--stage` for what was made of two ends, and `--redo`.
pub(super) fn apply_staged(stage: &Stage, target: &dyn End, session: &mut Session) -> Result<Report> {
    let halt = session.stop();
    let mut tell = session.teller(0, crate::sync::copy::Mode::Perform);
    let watch = Watch { stop: &halt, told: &mut |standing| tell(standing), settle: &mut |_| Ok(()) };
    stage.apply(target, watch, &mut |_| Ok(()))
}

/// Finishes what an earlier run had decided upon.
pub(super) fn finish_old(stage: &Stage, target: &dyn End, session: &mut Session) -> Result<()> {
    if !stage.is_unfinished() {
        return Ok(());
    }
    session.note(&format!("{}: finishing the staged delta of an earlier run", target.facts().name));
    let halt = session.stop();
    let mut tell = session.teller(0, crate::sync::copy::Mode::Perform);
    let watch = Watch { stop: &halt, told: &mut |standing| tell(standing), settle: &mut |_| Ok(()) };
    let report = stage.redo(target, watch, &mut |_| Ok(()))?;
    report.verdict()?;
    if report.stopped {
        return Err(Error::new(Class::Partial, format!("{}: finishing it: stopped", target.facts().name)));
    }
    Ok(())
}

/// `--redo`: nothing but that.
pub(super) fn redo(args: &SyncArgs, session: &mut Session) -> Result<(Summary, Result<()>)> {
    let target = Target::open(args)?;
    let stage = stage_of(&*target.end)?;
    finish_old(&stage, &*target.end, session)?;
    let size = target.end.facts().size;
    Ok(summary("redo", "stage", target, size, &Report::default(), Ok(()), session))
}

/// `--undo`: the last staged delta is rolled back.
pub(super) fn roll_back(args: &SyncArgs, log: &Path, session: &mut Session) -> Result<(Summary, Result<()>)> {
    let target = Target::open(args)?;
    plan::check(None, target.end.facts(), 0, args.permit())?;
    check_finished(&*target.end)?;
    let delta = open_delta(log)?;
    let header = *delta.header();
    drop(delta);
    plan::check(None, target.end.facts(), header.size, args.permit())?;
    let mut lineage = args.generation.as_deref().map(Lineage::open).transpose()?;
    if let Some(lineage) = &mut lineage {
        lineage.check(&log.display().to_string(), &header)?;
        lineage.begin(&header)?;
    }
    let report = undo(&*target.end, log, &session.stop())?;
    let verdict = report.verdict();
    if verdict.is_ok()
        && !report.stopped
        && let Some(lineage) = &mut lineage
    {
        lineage.finish(header.target)?;
    }
    Ok(summary("undo", &log.display().to_string(), target, header.size, &report, verdict, session))
}

fn summary(
    choice: &'static str,
    source: &str,
    target: Target,
    size: u64,
    report: &Report,
    verdict: Result<()>,
    session: &mut Session,
) -> (Summary, Result<()>) {
    if verdict.is_ok() && report.stopped {
        session.stopped(report, &target.name);
    }
    let traffic = target.end.traffic();
    let name = target.name;
    if let Err(error) = target.end.close() {
        session.note(&format!("{name}: {}", error.message));
    }
    let outcome = Outcome { traffic: [None, traffic], time: session.elapsed(), ..Outcome::default() };
    (Summary::new([source.to_owned(), name], choice, size, report, &outcome), verdict)
}
