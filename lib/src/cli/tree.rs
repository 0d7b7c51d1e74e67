//! The verbs of `cfor-log` that look at trees: `scan`, `dump`, `ack`, `apply`, `verify`, `seed`.

use super::output;
use crate::base::units::show_size;
use crate::base::{Class, Error, Name, Result};
use crate::capture::apply::{ApplyOptions, ApplyReport, apply, check_apart};
use crate::capture::dump::{DumpOptions, DumpReport, dump};
use crate::capture::root::Root;
use crate::capture::seed::seed;
use crate::capture::store::{self, Store};
use crate::capture::{scan, verify};
use crate::control::StateDir;
use crate::device::durable::Draft;
use crate::fslog::index::PRIVILEGED;
use crate::fslog::{Index, Round};
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The command line of `cfor-log scan`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where the index goes
    #[arg(short, long, value_name = "INDEX")]
    output: PathBuf,
    /// An earlier index: what is as it was then is not read again
    #[arg(long, value_name = "INDEX")]
    base: Option<PathBuf>,
    /// Include trusted.* and all security.* attributes
    #[arg(long)]
    privileged: bool,
}

/// The command line of `cfor-log dump`.
#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// The directory where the source remembers its rounds
    log: PathBuf,
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where the dump goes
    #[arg(short, long, value_name = "DUMP", default_value = "-")]
    output: PathBuf,
    /// Which standby it is for
    #[arg(long, value_name = "NAME", default_value = "standby")]
    standby: Name,
    /// Everything, whatever the standby has acknowledged
    #[arg(long)]
    full: bool,
    /// Include trusted.* and all security.* attributes
    #[arg(long)]
    privileged: bool,
    /// Run by /bin/sh with `MIRROR_PHASE`=pre-dump, dump, post-dump or abort-dump
    #[arg(long, value_name = "COMMAND")]
    barrier: Option<String>,
    /// Print what was dumped as JSON; needs a file to dump into
    #[arg(long)]
    json: bool,
}

/// The command line of `cfor-log ack`.
#[derive(Clone, Debug, clap::Args)]
pub struct AckArgs {
    /// The directory where the source remembers its rounds
    log: PathBuf,
    /// Which standby
    standby: Name,
    /// The round that it has, as apply prints it
    #[arg(default_value = "-")]
    round: String,
}

/// The command line of `cfor-log apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    /// The dump
    #[arg(default_value = "-")]
    dump: PathBuf,
    /// The tree that is made identical
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where the standby remembers its round [default: in the state directory, by the path of the tree]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Read all of the tree again afterwards, and compare
    #[arg(long)]
    verify: bool,
    /// Make device nodes, set-uid files, trusted.* and security.* attributes
    #[arg(long)]
    privileged: bool,
    /// Run by /bin/sh with `MIRROR_PHASE`=pre-restore, restore, post-restore or abort-restore
    #[arg(long, value_name = "COMMAND")]
    barrier: Option<String>,
    /// Read no dump: finish one that was interrupted
    #[arg(long, conflicts_with = "dump")]
    redo: bool,
    /// Print what was applied as JSON, instead of the round
    #[arg(long)]
    json: bool,
}

/// The command line of `cfor-log verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// An index or another tree to compare with
    #[arg(long, value_name = "INDEX|DIR", conflicts_with = "log")]
    against: Option<PathBuf>,
    /// Where the standby remembers its round [default: in the state directory, by the path of the tree]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
}

/// The command line of `cfor-log seed`.
#[derive(Clone, Debug, clap::Args)]
pub struct SeedArgs {
    /// The tree that is made identical: an empty directory
    target: PathBuf,
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The directory where the source remembers its rounds
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Where the standby remembers its round [default: in the state directory, by the path of the target]
    #[arg(long, value_name = "DIR")]
    target_log: Option<PathBuf>,
    /// Which standby it is
    #[arg(long, value_name = "NAME", default_value = "standby")]
    standby: Name,
    /// All that dump and apply would ask leave for
    #[arg(long)]
    privileged: bool,
    /// Run by /bin/sh around the last round, with `MIRROR_PHASE` as for dump
    #[arg(long, value_name = "COMMAND")]
    barrier: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Where a standby remembers its round: as asked for, or by the path of its tree.
fn log_dir(asked: Option<&PathBuf>, root: &Path) -> Result<PathBuf> {
    if let Some(log) = asked {
        return Ok(log.clone());
    }
    let real = std::fs::canonicalize(root).map_err(|e| Error::io(root.display(), "finding it", e))?;
    let digest = blake3::hash(real.as_os_str().as_bytes()).to_hex();
    let dir = StateDir::from_environment()?.path().join("cfor-log");
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(dir.display(), "creating it", e))?;
    Ok(dir.join(&digest[..16]))
}

/// `cfor-log scan`
pub fn scan(args: &ScanArgs, quiet: bool) -> anyhow::Result<()> {
    let root = Root::open(&args.root)?;
    check_apart(&args.root, &std::path::absolute(&args.output)?)?;
    let base = match &args.base {
        Some(base) => store::load_index(base)?,
        None => scan::nothing()?,
    };
    root.sync()?;
    let index = scan::scan(&root, &base, if args.privileged { PRIVILEGED } else { 0 })?;
    store::save_index(&args.output, &index)?;
    if !quiet {
        let bytes: u64 = index.objects.values().map(|object| object.meta.size).sum();
        let count = index.objects.len();
        output::tell(&format!("{}: {count} objects, {}\n", args.root.display(), show_size(bytes)));
    }
    Ok(())
}

fn tell_dump(report: &DumpReport, quiet: bool) {
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

/// `cfor-log dump`
pub fn dump_tree(args: &DumpArgs, quiet: bool) -> anyhow::Result<()> {
    if args.json && is_standard(&args.output) {
        let text = "--json and a dump cannot both go to standard output";
        return Err(Error::new(Class::Usage, text).hint("cfor-log dump --json -o DUMP").into());
    }
    check_apart(&args.root, &args.log)?;
    let options = DumpOptions {
        root: args.root.clone(),
        log: args.log.clone(),
        standby: args.standby.clone(),
        full: args.full,
        privileged: args.privileged,
        barrier: args.barrier.clone(),
    };
    let report = if is_standard(&args.output) {
        let out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        dump(&options, "standard output", out)?.0
    } else {
        check_apart(&args.root, &std::path::absolute(&args.output)?)?;
        if std::fs::symlink_metadata(&args.output).is_ok_and(|data| !data.is_file()) {
            let text =
                format!("{}: dumping into it: it exists and is no regular file", args.output.display());
            return Err(Error::new(Class::Refused, text).into());
        }
        let draft = Draft::new(&args.output)?;
        let out = BufWriter::with_capacity(1 << 20, draft.file());
        let (report, mut out) = dump(&options, &args.output.display().to_string(), out)?;
        out.flush()?;
        drop(out);
        draft.publish(true)?;
        report
    };
    if args.json {
        return output::print_json(&report);
    }
    tell_dump(&report, quiet);
    Ok(())
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
    let round: Round = text.trim().parse()?;
    if !args.log.is_dir() {
        let text = format!("{}: acknowledging: it is no directory of a source", args.log.display());
        return Err(Error::new(Class::Usage, text).into());
    }
    Ok(Store::open(&args.log)?.acknowledge(&args.standby, round)?)
}

/// `cfor-log apply`
pub fn apply_tree(args: &ApplyArgs, quiet: bool) -> anyhow::Result<()> {
    let log = log_dir(args.log.as_ref(), &args.root)?;
    let options = ApplyOptions {
        root: args.root.clone(),
        log: log.clone(),
        privileged: args.privileged,
        barrier: args.barrier.clone(),
    };
    let never = &mut |_| Ok(());
    let report = if args.redo {
        apply(&options, None, never)?
    } else if is_standard(&args.dump) {
        apply(&options, Some(("standard input", &mut std::io::stdin().lock())), never)?
    } else {
        let name = args.dump.display().to_string();
        let mut file = File::open(&args.dump).map_err(|e| Error::io(&name, "opening it", e))?;
        apply(&options, Some((&name, &mut file)), never)?
    };
    if args.verify {
        let index = store::load_index(&log.join("index"))?;
        differences(&args.root, &index, false, quiet)?;
    }
    if args.json {
        return output::print_json(&report);
    }
    let ApplyReport { redone, new, gone, changed, data, .. } = &report;
    if !quiet {
        let redone = if *redone { "an interrupted apply was finished; " } else { "" };
        let data = show_size(*data);
        output::tell(&format!("{redone}{new} new, {gone} gone, {changed} changed, {data} of data\n"));
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
fn differences(path: &Path, expected: &Index, json: bool, quiet: bool) -> anyhow::Result<()> {
    let root = Root::open(path)?;
    let found = verify::read_tree(&root, expected.options)?;
    let differences = verify::compare(expected, &found)?;
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
    let expected = match &args.against {
        Some(dir) if dir.is_dir() => verify::read_tree(&Root::open(dir)?, 0)?,
        Some(index) => store::load_index(index)?,
        None => store::load_index(&log_dir(args.log.as_ref(), &args.root)?.join("index"))?,
    };
    differences(&args.root, &expected, args.json, quiet)
}

/// `cfor-log seed`
pub fn seed_tree(args: &SeedArgs, quiet: bool) -> anyhow::Result<()> {
    check_apart(&args.root, &args.log)?;
    check_apart(&args.root, &args.target)?;
    let source = DumpOptions {
        root: args.root.clone(),
        log: args.log.clone(),
        standby: args.standby.clone(),
        full: false,
        privileged: args.privileged,
        barrier: args.barrier.clone(),
    };
    let target = ApplyOptions {
        root: args.target.clone(),
        log: log_dir(args.target_log.as_ref(), &args.target)?,
        privileged: args.privileged,
        barrier: None,
    };
    let report = seed(&source, &target)?;
    if args.json {
        return output::print_json(&report);
    }
    report.rounds.iter().for_each(|round| tell_dump(round, quiet));
    Ok(output::print(&format!("{}\n", report.round))?)
}
