//! The verbs of `cfor-log` that look at trees, when the other tree is on another machine.

use super::far::FarArgs;
use super::tree::{show_differences, tell_dump, with_input};
use super::tree_args::{ApplyArgs, SeedArgs, VerifyArgs};
use super::watching::watched;
use super::{output, tree};
use crate::base::units::show_size;
use crate::base::{Class, Error, Result};
use crate::capture::apply::ApplyReport;
use crate::capture::dump::DumpOptions;
use crate::capture::far::AfarTree;
use crate::capture::scan::{self, verify};
use crate::capture::seed::seed;
use crate::capture::tree::{Root, check_apart};
use crate::fslog::index::{ATIME, PRIVILEGED};
use crate::leg::far::reach;
use crate::remote::Call;
use crate::transport::ssh::Target;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

const AGAIN: &str = "the same command again";

fn afar(
    target: &Target,
    log: Option<&PathBuf>,
    (privileged, atime): (bool, bool),
    far: &FarArgs,
) -> Result<AfarTree> {
    let log = log.map(|log| log.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let call = Call { root: target.path.clone(), log, privileged, atime };
    Ok(AfarTree { client: reach(target, &far.reach(false))?, call })
}

/// `cfor-log apply --root ssh://…`
pub(super) fn apply(args: &ApplyArgs, target: &Target, quiet: bool) -> anyhow::Result<()> {
    if args.dry_run || args.verify || args.barrier.is_some() {
        let text =
            format!("{target}: applying: --dry-run, --verify and --barrier are for a tree on this machine");
        return Err(Error::new(Class::Usage, text).into());
    }
    let report = watched(tree::TOOL, args.watching.to(quiet), AGAIN, |watch| {
        let tree = afar(target, args.log.as_ref(), (args.privileged, false), &args.far)?;
        if !args.redo {
            return with_input(&args.dump, watch, |name, input| tree.apply(name, input));
        }
        let Some(round) = tree.round()? else {
            let text = format!("{target}: finishing an apply: nothing was applied yet");
            return Err(Error::new(Class::Differs, text));
        };
        Ok(ApplyReport::at(round))
    })?;
    if args.json {
        return output::print_json(&report);
    }
    let ApplyReport { new, gone, changed, data, .. } = &report;
    if !quiet {
        output::tell(&format!("{new} new, {gone} gone, {changed} changed, {} of data\n", show_size(*data)));
    }
    Ok(output::print(&format!("{}\n", report.round))?)
}

/// `cfor-log verify --against ssh://…`
pub(super) fn verify(args: &VerifyArgs, target: &Target, quiet: bool) -> anyhow::Result<()> {
    let differences: Vec<verify::Mismatch> = watched(tree::TOOL, args.watching.to(quiet), AGAIN, |watch| {
        let tree = afar(target, None, (args.privileged, args.atime), &args.far)?;
        let options = (if args.privileged { PRIVILEGED } else { 0 }) | (if args.atime { ATIME } else { 0 });
        // Both sides read at the same time.
        std::thread::scope(|scope| {
            let ours = scope
                .spawn(|| scan::scan_watched(&Root::open(&args.root)?, &scan::nothing()?, options, watch));
            let theirs = tree.scan();
            let lost = |_| Err(Error::new(Class::Internal, "the thread that reads the tree panicked"));
            let ours = ours.join().unwrap_or_else(lost)?;
            tree.compare(&theirs?, &ours)
        })
    })?;
    show_differences(&args.root, differences, args.json, quiet)
}

/// `cfor-log seed --root DIR ssh://…`
pub(super) fn seed_to(args: &SeedArgs, target: &Target, quiet: bool) -> anyhow::Result<()> {
    check_apart(&args.root, &args.log)?;
    let source = DumpOptions {
        privileged: args.privileged,
        atime: args.atime,
        barrier: args.barrier.clone(),
        snapshot: args.snapshot,
        ..DumpOptions::new(args.root.clone(), args.log.clone(), args.standby.clone())
    };
    if args.dry_run {
        return tree::plan_dump(&source, args.json, quiet);
    }
    let report =
        watched(tree::TOOL, args.watching.to(quiet), "the same command again: it goes on", |watch| {
            let source = DumpOptions { watch: watch.clone(), ..source };
            seed(&source, &afar(target, args.target_log.as_ref(), (args.privileged, args.atime), &args.far)?)
        })?;
    if args.json {
        return output::print_json(&report);
    }
    report.rounds.iter().for_each(|round| tell_dump(round, quiet));
    Ok(output::print(&format!("{}\n", report.round))?)
}
