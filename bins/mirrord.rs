//! `mirrord`: serves a mirrored volume over NBD, and asks the daemons that do.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use mirror::base::Name;
use mirror::cli::admin::{LegVerb, leg, resize, resync};
use mirror::cli::ask::{request, show_events, show_status};
use mirror::cli::barrier::{BarrierArgs, snapshot_barrier};
use mirror::cli::check::{self, CheckArgs};
use mirror::cli::verify::{VerifyArgs, verify};
use mirror::cli::volume::{CreateArgs, ServeArgs, check_config, create, serve};
use mirror::cli::wait::{Until, wait};
use mirror::cli::{self, ProgressTo, trackers, value};
use mirror::control::{Request, StateDir, TrackerAction};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Serve a mirrored volume over NBD: every write goes to all legs, and what a leg misses is remembered
#[derive(Parser)]
#[command(name = "mirrord", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
LEG is [NAME=]DEVICE[,read=prefer|allow|avoid][,flush=unsafe][,timeout=T][,retries=N][,rate=R]
DEVICE is PATH, file:PATH, nbd[s]://HOST[:PORT]/EXPORT or nbd[s]+unix:///EXPORT?socket=PATH
See mirrord(8).")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Say nothing that is not asked for, except errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a volume of one or more legs
    Create(CreateArgs),
    /// Serve a volume until SIGTERM
    Serve(ServeArgs),
    /// Show the state of one volume, or of all
    Status {
        /// Which volume; without it all are shown, also those that are not served
        name: Option<Name>,
        /// One JSON document a line for each volume
        #[arg(long)]
        json: bool,
        /// Show it again after so long, until stopped
        #[arg(long, value_name = "SECONDS", value_parser = value::duration)]
        watch: Option<Duration>,
    },
    /// Say as a monitoring plugin does how a volume is: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check(CheckArgs),
    /// Wait until a volume is in a state; ends with 7 when the time is over
    Wait {
        /// Which volume
        name: Name,
        /// The state
        #[arg(long, value_enum)]
        until: Until,
        /// Give up after so long
        #[arg(long, value_name = "T", value_parser = value::duration)]
        timeout: Option<Duration>,
        /// Write progress as JSON lines to this open file descriptor
        #[arg(long, value_name = "FD")]
        progress: Option<ProgressTo>,
    },
    /// Print what happens, one line for each event
    Events {
        /// Which volume; without it all that are served
        name: Option<Name>,
        /// Print the present state as events, and end
        #[arg(long)]
        now: bool,
        /// One JSON document a line
        #[arg(long)]
        json: bool,
    },
    /// Add, remove, replace, change legs; take one out, or back
    #[command(subcommand)]
    Leg(LegVerb),
    /// Copy what is missing to a leg, or to all that miss something
    Resync {
        /// Which volume
        name: Name,
        /// Which leg; without it all that miss something
        leg: Option<Name>,
        /// Copy everything, whatever the map says
        #[arg(long)]
        full: bool,
    },
    /// Let no copy to a leg (to all legs) begin until it is resumed, or the daemon ends
    Pause(MaybeLeg),
    /// Let copies go on
    Resume(MaybeLeg),
    /// Compare the legs while clients work: 0 equal, 1 they differ, 8 not everything was compared
    Verify(VerifyArgs),
    /// Hold writes with all legs flushed, run a command, let them go on; ends as the command does
    SnapshotBarrier(BarrierArgs),
    /// Make a volume larger; its legs have been extended before
    Resize {
        /// Which volume
        name: Name,
        /// Its new size
        #[arg(value_parser = value::size, required_unless_present = "grow", conflicts_with = "grow")]
        size: Option<u64>,
        /// As large as its smallest leg
        #[arg(long)]
        grow: bool,
    },
    /// Trackers: what changed since a moment, for backups and further copies
    #[command(subcommand)]
    Tracker(Tracker),
    /// Check a configuration file: silence and 0 when it is right
    CheckConfig {
        /// The file
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum Tracker {
    /// From now on it marks what changes
    Add(TrackerArgs),
    /// Forget it
    Remove(TrackerArgs),
    /// What each holds, a line for each
    Ls {
        /// Which volume
        name: Name,
        /// Only this one
        tracker: Option<Name>,
        /// A JSON document a line, mirrord-tracker/1
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct TrackerArgs {
    /// Which volume
    name: Name,
    /// Which tracker
    tracker: Name,
}

#[derive(clap::Args)]
struct MaybeLeg {
    /// Which volume
    name: Name,
    /// Which leg; without it all legs
    leg: Option<Name>,
}

fn main() -> ExitCode {
    if check::is_asked(std::env::args_os()) {
        return check::main("mirrord", |cli: Cli| match cli.verb {
            Verb::Check(args) => Some(args),
            _ => None,
        });
    }
    cli::main("mirrord", run)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let volume = |name: &Name| StateDir::from_environment().map(|state| state.volume(name));
    match cli.verb {
        Verb::Create(args) => create(&args, cli.quiet)?,
        Verb::Serve(args) => serve(&args, cli.quiet)?,
        Verb::Status { name, json, watch } => {
            show_status(&StateDir::from_environment()?, name.as_ref(), json, watch)?;
        }
        Verb::Wait { name, until, timeout, progress } => {
            let otherwise = if cli.quiet { ProgressTo::Nobody } else { ProgressTo::People };
            wait(&volume(&name)?, until, timeout, progress.unwrap_or(otherwise))?;
        }
        Verb::Events { name, now, json } => {
            show_events(&StateDir::from_environment()?, name.as_ref(), now, json)?;
        }
        Verb::Leg(verb) => leg(verb, cli.quiet)?,
        Verb::Resync { name, leg, full } => resync(&name, leg.as_ref(), full, cli.quiet)?,
        // Taken before, in main.
        Verb::Check(_) => {}
        Verb::Pause(MaybeLeg { name, leg }) => request(&volume(&name)?, &Request::Pause { leg })?,
        Verb::Resume(MaybeLeg { name, leg }) => request(&volume(&name)?, &Request::Resume { leg })?,
        Verb::Verify(args) => verify(&args, cli.quiet)?,
        Verb::SnapshotBarrier(args) => snapshot_barrier(&args, cli.quiet)?,
        Verb::Resize { name, size, .. } => resize(&name, size, cli.quiet)?,
        Verb::Tracker(action) => match action {
            Tracker::Add(args) => trackers::change(&volume(&args.name)?, TrackerAction::Add, &args.tracker)?,
            Tracker::Remove(args) => {
                trackers::change(&volume(&args.name)?, TrackerAction::Remove, &args.tracker)?;
            }
            Tracker::Ls { name, tracker, json } => trackers::list(&volume(&name)?, tracker.as_ref(), json)?,
        },
        Verb::CheckConfig { file } => check_config(&file)?,
    }
    Ok(())
}
