//! The verbs of `cfor-log` that look at trees: `scan`, `dump`, `ack`, `apply`, `verify`, `seed`.

pub use super::tree_args::{
    AckArgs, ApplyArgs, DumpArgs, DumpBackend, DumpFormat, ScanArgs, SeedArgs, VerifyArgs,
};
use super::watching::{Patient, watched};
use super::{output, tree_far};
use crate::base::units::show_size;
use crate::base::{Class, Error, Result};
use crate::capture::apply::{self, ApplyOptions, ApplyReport, apply};
use crate::capture::dump::{self, DumpOptions, DumpReport, dump};
use crate::capture::export::export;
use crate::capture::scan::{self, verify};
use crate::capture::seed::seed;
use crate::capture::store::{self, Store};
use crate::capture::tree::{Root, check_apart};
use crate::capture::watch::Watch;
use crate::control::StateDir;
use crate::device::durable::Draft;
use crate::fslog::index::{ATIME, PRIVILEGED};
use crate::fslog::{Index, Operation, Round};
use crate::leg::far::target_of;
use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub(super) const TOOL: &str = "cfor-log";

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Where a standby remembers its round: as asked for, or by the path of its tree.
pub(super) fn log_dir(asked: Option<&PathBuf>, root: &Path) -> Result<PathBuf> {
    if let Some(log) = asked {
        return Ok(log.clone());
    }
    let real = std::fs::canonicalize(root).map_err(|e| Error::io(root.display(), "finding it", e))?;
    let digest = blake3::hash(real.as_os_str().as_bytes()).to_hex();
    let dir = StateDir::from_environment()?.path().join("cfor-log");
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(dir.display(), "creating it", e))?;
    Ok(dir.join(&digest[..16]))
}

#[derive(serde::Serialize)]
struct Scanned<'a> {
    schema: &'static str,
    tree: String,
    objects: usize,
    bytes: u64,
    digest: String,
    index: std::borrow::Cow<'a, str>,
}

/// `cfor-log scan`
pub fn scan(args: &ScanArgs, quiet: bool) -> anyhow::Result<()> {
    let root = Root::open(&args.root)?;
    check_apart(&args.root, &std::path::absolute(&args.output)?)?;
    let bits = if args.privileged { PRIVILEGED } else { 0 } | if args.atime { ATIME } else { 0 };
    let index = watched(TOOL, args.watching.to(quiet), "the same command again", |watch| {
        let base = match &args.base {
            Some(base) => store::load_index(base)?,
            None => scan::nothing()?,
        };
        root.sync()?;
        let index = scan::scan_watched(&root, &base, bits, watch)?;
        store::save_index(&args.output, &index)?;
        // The process ends soon: the kernel is faster at giving a million pieces of memory back.
        std::mem::forget(base);
        Ok(index)
    })?;
    let bytes: u64 = index.objects.values().map(|object| object.meta.size).sum();
    let objects = index.objects.len();
    if args.json {
        let (tree, digest) = (index.tree.to_string(), index.round.root.to_string());
        let index = args.output.to_string_lossy();
        return output::print_json(&Scanned { schema: "cfor-scan/1", tree, objects, bytes, digest, index });
    }
    if !quiet {
        output::tell(&format!("{}: {objects} objects, {}\n", args.root.display(), show_size(bytes)));
    }
    std::mem::forget(index);
    Ok(())
}

pub(super) fn tell_dump(report: &DumpReport, quiet: bool) {
    if !quiet {
        output::tell(&format!(
            "round {} -> {}: {} new, {} gone, {} changed, {} names, {} of data, {} in all\n",
            report.base,
            report.round,
            report.new,
            report.gone,
            report.changed,
            report.names,
            show_size(report.data),
            show_size(report.bytes),
        ));
    }
}

#[derive(serde::Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    report: &'a DumpReport,
    operations: Vec<Operation>,
}

/// What `--dry-run` prints: the operations, and the sizes.
pub(super) fn plan_dump(options: &DumpOptions, json: bool, quiet: bool) -> anyhow::Result<()> {
    let (report, operations) = dump::plan(options)?;
    if json {
        return output::print_json(&Planned { report: &report, operations });
    }
    let lines: Vec<_> = operations.iter().map(|operation| format!("{operation}\n")).collect();
    output::print(&lines.concat())?;
    tell_dump(&report, quiet);
    Ok(())
}

/// `cfor-log dump`
pub fn dump_tree(args: &DumpArgs, quiet: bool) -> anyhow::Result<()> {
    if args.json && is_standard(&args.output) && !args.dry_run {
        let text = "--json and a dump cannot both go to standard output";
        return Err(Error::new(Class::Usage, text).hint("cfor-log dump --json -o DUMP").into());
    }
    check_apart(&args.root, &args.log)?;
    let options = DumpOptions {
        full: args.full,
        privileged: args.privileged,
        atime: args.atime,
        barrier: args.barrier.clone(),
        no_scan: args.no_scan,
        snapshot: args.snapshot,
        compare: args.backend == Some(DumpBackend::Btrfs),
        ..DumpOptions::new(args.root.clone(), args.log.clone(), args.standby.clone())
    };
    if args.dry_run {
        return plan_dump(&options, args.json, quiet);
    }
    let again = "the same command again: it begins at the same round";
    let report = watched(TOOL, args.watching.to(quiet), again, |watch| {
        dump_into(&DumpOptions { watch: watch.clone(), ..options }, args.format, &args.output)
    })?;
    if args.json {
        return output::print_json(&report);
    }
    if let Some(why) = report.scanned.as_ref().filter(|_| !quiet) {
        output::tell(&format!("the tree was scanned: {}\n", output::one_line(why)));
    }
    if !report.unseen.is_empty() && !quiet {
        let pids: Vec<_> = report.unseen.iter().map(ToString::to_string).collect();
        let pids = pids.join(", ");
        output::tell(&format!(
            "mappings of processes that may not be looked at are seen when they end: {pids}\n"
        ));
    }
    tell_dump(&report, quiet);
    Ok(())
}

/// A dump, or the stream of another format.
fn dump_as<W: std::io::Write>(
    format: Option<DumpFormat>,
    options: &DumpOptions,
    object: &str,
    out: W,
) -> Result<(DumpReport, W)> {
    match format {
        Some(DumpFormat::Btrfs) => export(options, object, out),
        None => dump(options, object, out),
    }
}

fn dump_into(options: &DumpOptions, format: Option<DumpFormat>, output: &Path) -> Result<DumpReport> {
    if is_standard(output) {
        let out = Patient::new(std::io::stdout(), &options.watch);
        return Ok(dump_as(format, options, "standard output", BufWriter::with_capacity(1 << 20, out))?.0);
    }
    let absolute = std::path::absolute(output).map_err(|e| Error::io(output.display(), "finding it", e))?;
    check_apart(&options.root, &absolute)?;
    if std::fs::symlink_metadata(output).is_ok_and(|data| !data.is_file()) {
        let text = format!("{}: dumping into it: it exists and is no regular file", output.display());
        return Err(Error::new(Class::Refused, text));
    }
    let draft = Draft::new(output)?;
    let out = BufWriter::with_capacity(1 << 20, draft.file());
    let (report, mut out) = dump_as(format, options, &output.display().to_string(), out)?;
    out.flush().map_err(|e| Error::io(output.display(), "writing it", e))?;
    drop(out);
    draft.publish(true)?;
    Ok(report)
}

#[derive(serde::Serialize)]
struct Acknowledged {
    schema: &'static str,
    standby: String,
    round: String,
}

/// `cfor-log ack`
pub fn ack(args: &AckArgs) -> anyhow::Result<()> {
    let mut text = args.round.clone();
    if text == "-" {
        text.clear();
        std::io::stdin()
            .lock()
            .take(4096)
            .read_to_string(&mut text)
            .map_err(|e| Error::io("standard input", "reading a round", e))?;
        if text.trim().is_empty() {
            let text = format!(
                "{}: acknowledging: standard input is empty: nothing was applied",
                args.log.display()
            );
            return Err(Error::new(Class::Differs, text).into());
        }
    }
    let text = text.trim();
    let number: Option<u64> = text.parse().ok();
    let round: Option<Round> = if number.is_none() { Some(text.parse()?) } else { None };
    if !args.log.is_dir() {
        let text = format!("{}: acknowledging: it is no directory of a source", args.log.display());
        return Err(Error::new(Class::Usage, text).into());
    }
    let store = Store::open(&args.log)?;
    let round = match (round, number) {
        (Some(round), _) => round,
        (None, number) => {
            let number = number.unwrap_or_default();
            if !store.round_path(number).exists() {
                let (log, standby) = (args.log.display(), &args.standby);
                let text = format!(
                    "{log}: acknowledging for {standby}: it has round {number}, which is not kept here"
                );
                return Err(Error::new(Class::Damaged, text).into());
            }
            store.load(number)?.round
        }
    };
    store.acknowledge(&args.standby, round)?;
    drop(store);
    if args.json {
        let (standby, round) = (args.standby.to_string(), round.to_string());
        return output::print_json(&Acknowledged { schema: "cfor-ack/1", standby, round });
    }
    Ok(())
}

/// The dump that is named, opened.
pub(super) fn with_input<T>(
    dump: &Path,
    watch: &Watch,
    work: impl FnOnce(&str, &mut dyn Read) -> Result<T>,
) -> Result<T> {
    if is_standard(dump) {
        return work("standard input", &mut Patient::new(std::io::stdin(), watch));
    }
    let name = dump.display().to_string();
    let mut file = File::open(dump).map_err(|e| Error::io(&name, "opening it", e))?;
    work(&name, &mut file)
}

/// `cfor-log apply`
pub fn apply_tree(args: &ApplyArgs, quiet: bool) -> anyhow::Result<()> {
    if let Some(target) = target_of(&args.root)? {
        return tree_far::apply(args, &target, quiet);
    }
    let log = log_dir(args.log.as_ref(), &args.root)?;
    let options = ApplyOptions {
        privileged: args.privileged,
        barrier: args.barrier.clone(),
        ..ApplyOptions::new(args.root.clone(), log.clone())
    };
    let resume = format!("cfor-log apply --redo --root {} --log {}", args.root.display(), log.display());
    let report = watched(TOOL, args.watching.to(quiet), &resume, |watch| {
        let options = ApplyOptions { watch: watch.clone(), ..options };
        if args.dry_run {
            return with_input(&args.dump, watch, |name, input| apply::plan(&options, name, input));
        }
        let stop = &mut |_| watch.check();
        if args.redo {
            return apply(&options, None, stop);
        }
        with_input(&args.dump, watch, |name, input| apply(&options, Some((name, input)), stop))
    })?;
    if args.verify {
        let index = store::load_index(&log.join("index"))?;
        let found = verify::read_tree(&Root::open(&args.root)?, index.options)?;
        differences(&args.root, &index, &found, false, quiet)?;
    }
    if args.json {
        return output::print_json(&report);
    }
    let ApplyReport { redone, new, gone, changed, data, .. } = &report;
    if !quiet {
        let redone = if *redone { "an interrupted apply was finished; " } else { "" };
        let planned = if args.dry_run { "nothing was changed; it would be: " } else { "" };
        let data = show_size(*data);
        output::tell(&format!(
            "{redone}{planned}{new} new, {gone} gone, {changed} changed, {data} of data\n"
        ));
    }
    if args.dry_run {
        return Ok(());
    }
    Ok(output::print(&format!("{}\n", report.round))?)
}

#[derive(serde::Serialize)]
struct Verified {
    schema: &'static str,
    equal: bool,
    differences: Vec<verify::Mismatch>,
}

/// Compares a tree with an index; the differences are data. Class `Differs` if there are any.
fn differences(path: &Path, expected: &Index, found: &Index, json: bool, quiet: bool) -> anyhow::Result<()> {
    show_differences(path, verify::compare(expected, found)?, json, quiet)
}

/// The differences of a tree. Class `Differs` if there are any.
pub(super) fn show_differences(
    path: &Path,
    differences: Vec<verify::Mismatch>,
    json: bool,
    quiet: bool,
) -> anyhow::Result<()> {
    let count = differences.len();
    if json {
        output::print_json(&Verified { schema: "cfor-verify/1", equal: count == 0, differences })?;
    } else if count > 0 {
        let lines: Vec<_> = differences.iter().map(|each| format!("{each}\n")).collect();
        output::print(&lines.concat())?;
    } else if !quiet {
        output::tell(&format!("{}: identical\n", path.display()));
    }
    if count == 0 {
        return Ok(());
    }
    let plural = if count == 1 { "" } else { "s" };
    let text = format!("{}: comparing it: {count} difference{plural}", path.display());
    Err(Error::new(Class::Differs, text).into())
}

/// `cfor-log verify`
pub fn verify_tree(args: &VerifyArgs, quiet: bool) -> anyhow::Result<()> {
    if let Some(target) = args.against.as_deref().map(target_of).transpose()?.flatten() {
        return tree_far::verify(args, &target, quiet);
    }
    let (expected, found) = watched(TOOL, args.watching.to(quiet), "the same command again", |watch| {
        let read =
            |dir: &Path, options| scan::scan_watched(&Root::open(dir)?, &scan::nothing()?, options, watch);
        let expected = match &args.against {
            Some(dir) if dir.is_dir() => read(dir, 0)?,
            Some(index) => store::load_index(index)?,
            None => store::load_index(&log_dir(args.log.as_ref(), &args.root)?.join("index"))?,
        };
        let found = read(&args.root, expected.options)?;
        Ok((expected, found))
    })?;
    differences(&args.root, &expected, &found, args.json, quiet)
}

/// `cfor-log seed`
pub fn seed_tree(args: &SeedArgs, quiet: bool) -> anyhow::Result<()> {
    if let Some(target) = target_of(&args.target)? {
        return tree_far::seed_to(args, &target, quiet);
    }
    check_apart(&args.root, &args.log)?;
    check_apart(&args.root, &args.target)?;
    let source = DumpOptions {
        privileged: args.privileged,
        atime: args.atime,
        barrier: args.barrier.clone(),
        // From the second round on, if somebody records.
        no_scan: !args.snapshot,
        snapshot: args.snapshot,
        compare: args.backend == Some(DumpBackend::Btrfs),
        ..DumpOptions::new(args.root.clone(), args.log.clone(), args.standby.clone())
    };
    if args.dry_run {
        return plan_dump(&source, args.json, quiet);
    }
    let target = ApplyOptions {
        privileged: args.privileged,
        ..ApplyOptions::new(args.target.clone(), log_dir(args.target_log.as_ref(), &args.target)?)
    };
    let report = watched(TOOL, args.watching.to(quiet), "the same command again: it goes on", |watch| {
        let source = DumpOptions { watch: watch.clone(), ..source };
        seed(&source, &target)
    })?;
    if args.json {
        return output::print_json(&report);
    }
    report.rounds.iter().for_each(|round| tell_dump(round, quiet));
    Ok(output::print(&format!("{}\n", report.round))?)
}
