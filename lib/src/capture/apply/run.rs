//! Makes a standby identical to the tree that a dump was taken of.
//!
//! 1. The state is locked. An apply that was begun and not committed is done again first.
//! 2. The dump is spooled and synced (of a stream of btrfs send one is made: [`super::receive`]), then read whole: frames, digest, base round, and that it leads to a tree.
//! 3. What root must be careful with is refused unless it is allowed; so is a tree that others changed.
//! 4. `applying` is written and synced. From here on the standby is not promotable.
//! 5. The steps of [`super::steps`].
//! 6. The index of the new round replaces the old one: the commit. Then `staged`, `applying` and the spool go.
//!
//! Recovery: (a) a crash before 4: the tree was not touched, the spool is removed; (b) between 4 and 6: step 1 of
//! the next call does 5 again, from the spool; (c) after the commit the index has the round that `applying` names:
//! what is left of 6 is done.

use super::places::Places;
use super::plan::Plan;
use super::receive::{self, Incoming, take_in};
use super::standby::Standby;
use super::steps::{Engine, Stop};
use crate::base::{Class, Error, Id, Result};
use crate::capture::barrier::Barrier;
use crate::capture::scan::{begin, now};
use crate::capture::tree::walk::walk;
use crate::capture::tree::{Root, check_apart};
use crate::capture::watch::{Phase, Watch};
use crate::fslog::{Index, ObjectId, Round};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _};
use std::path::PathBuf;

/// How to apply.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The tree.
    pub root: PathBuf,
    /// The directory of the standby.
    pub log: PathBuf,
    /// Device nodes, set-uid files, `trusted.*` and `security.*` attributes are made.
    pub privileged: bool,
    /// What makes the users of the standby quiet.
    pub barrier: Option<String>,
    /// Who watches.
    pub watch: Watch,
}

impl ApplyOptions {
    /// A standby and where it remembers its round; nothing privileged, no barrier.
    pub fn new(root: PathBuf, log: PathBuf) -> Self {
        Self { root, log, privileged: false, barrier: None, watch: Watch::default() }
    }
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ApplyReport {
    /// `cfor-apply/1`
    pub schema: &'static str,
    /// The round that the standby is at now, as the source takes it for an acknowledgement.
    pub round: String,
    /// Whether an interrupted apply was done again.
    pub redone: bool,
    /// Objects made, removed, and changed.
    pub new: usize,
    /// Objects removed.
    pub gone: usize,
    /// Objects changed.
    pub changed: usize,
    /// Bytes of data.
    pub data: u64,
}

impl ApplyReport {
    /// Nothing was applied, at a round.
    pub fn at(round: Round) -> Self {
        let round = round.to_string();
        Self { schema: "cfor-apply/1", round, redone: false, new: 0, gone: 0, changed: 0, data: 0 }
    }

    fn of(plan: &Plan) -> Self {
        let (new, gone, changed) = (plan.new.len(), plan.gone.len(), plan.changed.len());
        Self { new, gone, changed, data: plan.data, ..Self::at(plan.round) }
    }
}

/// Applies a dump, which is `object` in messages; without one an interrupted apply is finished. Errors: class
/// `Damaged` for a dump that is not whole or not for this round, `Refused` for what needs leave, `Diverged` for a
/// tree that others changed.
pub fn apply(
    options: &ApplyOptions,
    input: Option<(&str, &mut dyn Read)>,
    stop: Stop<'_>,
) -> Result<ApplyReport> {
    check_apart(&options.root, &options.log)?;
    let root = Root::open(&options.root)?;
    let standby = Standby::open(&options.log)?;
    let mut base = standby.index()?.unwrap_or_else(|| Index::empty(Id::NONE));
    let mut report = ApplyReport::at(base.round);
    if let Some(round) = standby.applying()? {
        if base.round == round {
            standby.forget()?;
        } else {
            let facts = facts(options, round);
            let mut barrier = Barrier::new(options.barrier.as_deref(), "restore", facts);
            barrier.enter()?;
            (report, base) = redo(&root, &standby, &base, &mut barrier, stop, &options.watch)?;
            barrier.leave()?;
        }
        report.redone = true;
    }
    let Some((object, input)) = input else { return Ok(report) };
    options.watch.enter(Phase::Spool, 0);
    let redone = report.redone;
    let held = ApplyReport { redone, ..ApplyReport::at(base.round) };
    let Incoming::Dump(spool) = take_in(options, &root, &standby, &base, (object, input))? else {
        return Ok(held);
    };
    let plan = match read_plan(object, &spool, &base) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            standby.refuse()?;
            return Ok(held);
        }
        Err(error) => {
            standby.refuse()?;
            return Err(error);
        }
    };
    let mut barrier = Barrier::new(options.barrier.as_deref(), "restore", facts(options, plan.round));
    barrier.enter()?;
    if let Err(error) = check_leave(options, plan.privilege()).and_then(|()| check_unedited(&root, &base)) {
        standby.refuse()?;
        return Err(error);
    }
    standby.mark(plan.round)?;
    let engine = Engine::new(&root, &base, &plan, &spool, Places::of_index(&base), stop);
    barrier.inside()?;
    run(engine, &standby, false, &options.watch)?;
    barrier.leave()?;
    Ok(ApplyReport { redone, ..ApplyReport::of(&plan) })
}

/// What an apply of this dump would do. Nothing is written, not even what was interrupted is finished.
pub fn plan(options: &ApplyOptions, object: &str, input: &mut dyn Read) -> Result<ApplyReport> {
    check_apart(&options.root, &options.log)?;
    let root = Root::open(&options.root)?;
    let (mut base, mut held) = (Index::empty(Id::NONE), None);
    if options.log.exists() {
        let standby = Standby::open(&options.log)?;
        if let Some(round) = standby.applying()? {
            let text = format!(
                "{}: planning: an apply of round {} was interrupted",
                options.root.display(),
                round.number
            );
            return Err(Error::new(Class::Refused, text).hint("cfor-log apply --redo"));
        }
        base = standby.index()?.unwrap_or(base);
        held = standby.snapshot_of(base.round)?;
    }
    options.watch.enter(Phase::Spool, 0);
    let (begin, is_stream) = receive::peek(object, input)?;
    let mut input = begin.as_slice().chain(input);
    let (report, careful) = if is_stream {
        receive::plan(&base, held, (object, &mut input), &options.watch)?
    } else {
        let plan = Plan::read(object, BufReader::with_capacity(1 << 20, input), &base)?;
        (ApplyReport::of(&plan), plan.privilege())
    };
    check_leave(options, careful)?;
    check_unedited(&root, &base)?;
    Ok(report)
}

fn facts(options: &ApplyOptions, round: Round) -> Vec<(&'static str, String)> {
    vec![("MIRROR_ROOT", options.root.display().to_string()), ("MIRROR_ROUND", round.number.to_string())]
}

/// Reads the dump; `None` if the standby is at its round already.
fn read_plan(object: &str, spool: &File, base: &Index) -> Result<Option<Plan>> {
    let rewound = || -> Result<BufReader<&File>> {
        (&*spool).rewind().map_err(|e| Error::io(object, "reading it", e))?;
        Ok(BufReader::with_capacity(1 << 20, spool))
    };
    match Plan::read(object, rewound()?, base) {
        Err(error) => match crate::fslog::Header::read(object, crate::fslog::Magic::Dump, &mut rewound()?) {
            Ok(header) if (header.tree, header.round) == (base.tree, base.round.number) => Ok(None),
            _ => Err(error),
        },
        plan => plan.map(Some),
    }
}

/// Something that root must be careful with: its path, and what it is.
pub type Careful = (Vec<u8>, String);

fn check_leave(options: &ApplyOptions, careful: Option<Careful>) -> Result<()> {
    let Some((path, why)) = careful.filter(|_| !options.privileged) else { return Ok(()) };
    let path = crate::fslog::show_path(&path);
    let text = format!("{}/{path}: applying: it {why}, and nobody allowed that", options.root.display());
    Err(Error::new(Class::Refused, text).hint("cfor-log apply --privileged"))
}

/// Refuses a tree that is not as the last commit left it.
fn check_unedited(root: &Root, base: &Index) -> Result<()> {
    let shown = |path: &[u8]| format!("{}/{}", root.path().display(), crate::fslog::show_path(path));
    if base.objects.is_empty() {
        let walked = walk(root, true)?;
        let Some(found) = walked.dirs.first().and_then(|entries| entries.first()) else { return Ok(()) };
        let text = format!("{}: applying the first dump: the root is not empty", shown(&found.name));
        return Err(Error::new(Class::Refused, text));
    }
    if let Some(path) = first_edit(root, base)? {
        let text = format!("{}: applying: it was changed by others since the last round", shown(&path));
        return Err(Error::new(Class::Diverged, text).hint("cfor-log verify --root DIR --log LOG"));
    }
    Ok(())
}

/// The path of the first object that is not as an index remembers it.
pub fn first_edit(root: &Root, base: &Index) -> Result<Option<Vec<u8>>> {
    let fresh = begin(root, base, base.options, now(), &Watch::default())?;
    for (id, before) in &base.objects {
        let same = fresh.index.objects.get(id).is_some_and(|now| {
            (&now.stamp.handle, now.stamp.ctime, &now.entries)
                == (&before.stamp.handle, before.stamp.ctime, &before.entries)
                && (now.meta.size, now.meta.mtime, now.meta.mode)
                    == (before.meta.size, before.meta.mtime, before.meta.mode)
        });
        if !same {
            return Ok(Some(base.names().path(*id)));
        }
    }
    Ok(None)
}

/// Does an apply again that did not come to its commit.
fn redo(
    root: &Root,
    standby: &Standby,
    base: &Index,
    barrier: &mut Barrier<'_>,
    stop: Stop<'_>,
    watch: &Watch,
) -> Result<(ApplyReport, Index)> {
    let spool = standby.spooled()?;
    let object = standby.spool_path().display().to_string();
    let Some(plan) = read_plan(&object, &spool, base)? else {
        return Err(Error::new(
            Class::Damaged,
            format!("{object}: redoing: it is not the dump that was begun"),
        ));
    };
    let staged = standby.staged()?;
    let mut known: HashMap<Box<[u8]>, ObjectId> =
        base.objects.iter().map(|(id, object)| (object.stamp.handle.clone(), *id)).collect();
    let places = match &staged {
        // Nothing was detached: everything is where the base has it, and the stage is made anew.
        None => Places::of_index(base),
        Some(staged) => {
            known.extend(staged.iter().map(|(id, handle)| (handle.clone(), *id)));
            Places::of_walk(walk(root, true)?, &known).map_err(|path| {
                let path = crate::fslog::show_path(&path);
                let text = format!(
                    "{}/{path}: redoing an interrupted apply: it is none of the objects that were there",
                    root.path().display()
                );
                Error::new(Class::Diverged, text)
            })?
        }
    };
    let engine = Engine::new(root, base, &plan, &spool, places, stop);
    barrier.inside()?;
    let index = run(engine, standby, staged.is_some(), watch)?;
    Ok((ApplyReport { redone: true, ..ApplyReport::of(&plan) }, index))
}

/// The steps, from the start or from the second one.
fn run(mut engine: Engine<'_, '_>, standby: &Standby, staged: bool, watch: &Watch) -> Result<Index> {
    let touched = engine.plan.touched();
    watch.enter(Phase::Apply, engine.plan.data);
    engine.unlock()?;
    if !staged {
        let handles = engine.stage()?;
        standby.stage(&handles)?;
    }
    // What is durable counts: by now the data of new files, the rest at the end.
    watch.add(engine.plan.new_data());
    engine.detach()?;
    engine.attach()?;
    engine.patch()?;
    engine.attributes(&touched)?;
    engine.sweep()?;
    engine.times(&touched)?;
    let index = engine.check(&touched)?;
    watch.enter(Phase::Commit, 0);
    standby.commit(&index)?;
    Ok(index)
}
