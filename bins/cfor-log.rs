//! `cfor-log`: what changed in a tree of files, and making another tree identical.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use mirror::cli::device_map::{self, MapArgs};
use mirror::cli::record::{self, RecordArgs};
use mirror::cli::tree::{AckArgs, ApplyArgs, DumpArgs, ScanArgs, SeedArgs, VerifyArgs};
use mirror::cli::{self, filelog, tree};
use std::path::PathBuf;
use std::process::ExitCode;

/// See what changed in a tree of files, dump it, and make another tree strictly identical
#[derive(Parser)]
#[command(name = "cfor-log", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
LOG is a log file, or the directory where a source or a standby remembers its rounds
See cfor-log(1).")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Say nothing that is not asked for, except errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Look at a tree, and write its index
    Scan(ScanArgs),
    /// See changes as they happen, for dumps that look at nothing else
    Record(RecordArgs),
    /// Note accesses to big files, for record, which starts it
    #[command(hide = true)]
    NoteRanges,
    /// Print what changed, one operation a line
    Show {
        /// Logs, dumps or indexes
        #[arg(required = true)]
        log: Vec<PathBuf>,
        /// Print what leads from this index to the one given
        #[arg(long, value_name = "INDEX")]
        base: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print figures of logs, dumps, indexes and directories
    Stat {
        /// Which
        #[arg(required = true)]
        log: Vec<PathBuf>,
        /// Print one JSON document a line
        #[arg(long)]
        json: bool,
    },
    /// Join logs into one
    Merge {
        /// Logs of one tree
        #[arg(required = true)]
        log: Vec<PathBuf>,
        /// Where the joined log goes
        #[arg(short, long, value_name = "LOG", default_value = "-")]
        output: PathBuf,
        /// Print what was written as JSON; needs a file to write
        #[arg(long)]
        json: bool,
    },
    /// Take the records of a log out, and begin its next generation
    Rotate {
        /// A log file
        log: PathBuf,
        /// Where the closed generation goes; must not exist
        out: PathBuf,
        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
    },
    /// Find the changed bytes on the device underneath, as a dirty map of it
    Map(MapArgs),
    /// Write what changed since the round that a standby has, with the data
    Dump(DumpArgs),
    /// Remember the round that a standby has
    Ack(AckArgs),
    /// Make a standby identical, and print its round
    Apply(ApplyArgs),
    /// Read a tree and compare it; ends with 1 when it differs
    Verify(VerifyArgs),
    /// Synchronise an empty directory for the first time
    Seed(SeedArgs),
}

fn main() -> ExitCode {
    cli::main("cfor-log", run)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.verb {
        Verb::Scan(args) => tree::scan(&args, cli.quiet),
        Verb::Record(args) => record::record(&args, cli.quiet),
        Verb::NoteRanges => record::note(),
        Verb::Show { log, base, json } => filelog::show(&log, base.as_deref(), json),
        Verb::Stat { log, json } => filelog::stat(&log, json),
        Verb::Merge { log, output, json } => filelog::merge(&log, &output, json),
        Verb::Rotate { log, out, json } => filelog::rotate(&log, &out, json),
        Verb::Map(args) => device_map::map(&args, cli.quiet),
        Verb::Dump(args) => tree::dump_tree(&args, cli.quiet),
        Verb::Ack(args) => tree::ack(&args),
        Verb::Apply(args) => tree::apply_tree(&args, cli.quiet),
        Verb::Verify(args) => tree::verify_tree(&args, cli.quiet),
        Verb::Seed(args) => tree::seed_tree(&args, cli.quiet),
    }
}
