//! The command lines of the verbs of `cfor-log` that look at trees.

use super::far::FarArgs;
use super::progress::ProgressTo;
use crate::base::Name;
use std::path::PathBuf;

/// What says what changed, without a recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DumpBackend {
    /// Snapshots that are kept in LOG, and `btrfs send --no-data`; needs root
    Btrfs,
}

/// What a dump is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DumpFormat {
    /// A stream for `btrfs receive`
    Btrfs,
}

/// How long work is watched.
#[derive(Clone, Debug, clap::Args)]
pub struct Watching {
    /// Write progress as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    progress: Option<ProgressTo>,
}

impl Watching {
    /// Where progress is told.
    pub(super) fn to(&self, quiet: bool) -> ProgressTo {
        let usual = if quiet { ProgressTo::Nobody } else { ProgressTo::People };
        self.progress.unwrap_or(usual)
    }
}

/// The command line of `cfor-log scan`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// The tree
    #[arg(long, value_name = "DIR")]
    pub(super) root: PathBuf,
    /// Where the index goes
    #[arg(short, long, value_name = "INDEX")]
    pub(super) output: PathBuf,
    /// An earlier index: what is as it was then is not read again
    #[arg(long, value_name = "INDEX")]
    pub(super) base: Option<PathBuf>,
    /// Include trusted.* and all security.* attributes
    #[arg(long)]
    pub(super) privileged: bool,
    /// Include times of last access
    #[arg(long)]
    pub(super) atime: bool,
    /// Print what was found as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) watching: Watching,
}

/// The command line of `cfor-log dump`.
#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// The directory where the source remembers its rounds
    pub(super) log: PathBuf,
    /// The tree
    #[arg(long, value_name = "DIR")]
    pub(super) root: PathBuf,
    /// Where the dump goes
    #[arg(short, long, value_name = "DUMP", default_value = "-")]
    pub(super) output: PathBuf,
    /// Which standby it is for
    #[arg(long, value_name = "NAME", default_value = "standby")]
    pub(super) standby: Name,
    /// Everything, whatever the standby has acknowledged
    #[arg(long)]
    pub(super) full: bool,
    /// Include trusted.* and all security.* attributes
    #[arg(long)]
    pub(super) privileged: bool,
    /// Include times of last access
    #[arg(long)]
    pub(super) atime: bool,
    /// Run by /bin/sh with `MIRROR_PHASE`=pre-dump, dump, post-dump or abort-dump
    #[arg(long, value_name = "COMMAND")]
    pub(super) barrier: Option<String>,
    /// Look at nothing but what the recorder of LOG saw, unless something of it is lost
    #[arg(long, conflicts_with_all = ["full", "snapshot", "dry_run"])]
    pub(super) no_scan: bool,
    /// Read a btrfs snapshot, made in LOG inside the barrier
    #[arg(long)]
    pub(super) snapshot: bool,
    /// Look at nothing but what differs between two snapshots, unless the earlier one is lost
    #[arg(long, value_enum, conflicts_with_all = ["snapshot", "no_scan", "full", "dry_run"])]
    pub(super) backend: Option<DumpBackend>,
    /// Write a stream that another program takes, instead of a dump for apply
    #[arg(long, value_enum, conflicts_with = "dry_run")]
    pub(super) format: Option<DumpFormat>,
    /// Say what would be dumped, and how much; write nothing
    #[arg(short = 'n', long, conflicts_with_all = ["barrier", "snapshot"])]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) watching: Watching,
    /// Print what was dumped as JSON; needs a file to dump into
    #[arg(long)]
    pub(super) json: bool,
}

/// The command line of `cfor-log ack`.
#[derive(Clone, Debug, clap::Args)]
pub struct AckArgs {
    /// The directory where the source remembers its rounds
    pub(super) log: PathBuf,
    /// Which standby
    pub(super) standby: Name,
    /// The round that it has, as apply prints it; its number alone where something else took the dump
    #[arg(default_value = "-")]
    pub(super) round: String,
    /// Print what is remembered as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The command line of `cfor-log apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    /// The dump
    #[arg(default_value = "-")]
    pub(super) dump: PathBuf,
    /// The tree that is made identical; ssh://[USER@]HOST/DIR on another machine
    #[arg(long, value_name = "DIR")]
    pub(super) root: PathBuf,
    #[command(flatten)]
    pub(super) far: FarArgs,
    /// Where the standby remembers its round [default: in the state directory, by the path of the tree]
    #[arg(long, value_name = "DIR")]
    pub(super) log: Option<PathBuf>,
    /// Read all of the tree again afterwards, and compare
    #[arg(long)]
    pub(super) verify: bool,
    /// Make device nodes, set-uid files, trusted.* and security.* attributes
    #[arg(long)]
    pub(super) privileged: bool,
    /// Run by /bin/sh with `MIRROR_PHASE`=pre-restore, restore, post-restore or abort-restore
    #[arg(long, value_name = "COMMAND")]
    pub(super) barrier: Option<String>,
    /// Check the dump and say what it would do; change nothing
    #[arg(short = 'n', long, conflicts_with_all = ["redo", "verify"])]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) watching: Watching,
    /// Read no dump: finish one that was interrupted
    #[arg(long, conflicts_with = "dump")]
    pub(super) redo: bool,
    /// Print what was applied as JSON, instead of the round
    #[arg(long)]
    pub(super) json: bool,
}

/// The command line of `cfor-log verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The tree
    #[arg(long, value_name = "DIR")]
    pub(super) root: PathBuf,
    #[command(flatten)]
    pub(super) watching: Watching,
    #[command(flatten)]
    pub(super) far: FarArgs,
    /// With a tree on another machine: include trusted.* and all security.* attributes
    #[arg(long, requires = "against")]
    pub(super) privileged: bool,
    /// With a tree on another machine: include times of last access
    #[arg(long, requires = "against")]
    pub(super) atime: bool,
    /// An index or another tree to compare with; ssh://[USER@]HOST/DIR is read over there
    #[arg(long, value_name = "INDEX|DIR", conflicts_with = "log")]
    pub(super) against: Option<PathBuf>,
    /// Where the standby remembers its round [default: in the state directory, by the path of the tree]
    #[arg(long, value_name = "DIR")]
    pub(super) log: Option<PathBuf>,
    /// Print the differences as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The command line of `cfor-log seed`.
#[derive(Clone, Debug, clap::Args)]
pub struct SeedArgs {
    /// The tree that is made identical: an empty directory; ssh://[USER@]HOST/DIR on another machine
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) far: FarArgs,
    /// The tree
    #[arg(long, value_name = "DIR")]
    pub(super) root: PathBuf,
    /// The directory where the source remembers its rounds
    #[arg(long, value_name = "DIR")]
    pub(super) log: PathBuf,
    /// Where the standby remembers its round [default: in the state directory, by the path of the target]
    #[arg(long, value_name = "DIR")]
    pub(super) target_log: Option<PathBuf>,
    /// Which standby it is
    #[arg(long, value_name = "NAME", default_value = "standby")]
    pub(super) standby: Name,
    /// All that dump and apply would ask leave for
    #[arg(long)]
    pub(super) privileged: bool,
    /// Include times of last access
    #[arg(long)]
    pub(super) atime: bool,
    /// Read btrfs snapshots, made in LOG
    #[arg(long)]
    pub(super) snapshot: bool,
    /// Look at nothing but what differs between two snapshots, unless the earlier one is lost
    #[arg(long, value_enum, conflicts_with_all = ["snapshot", "dry_run"])]
    pub(super) backend: Option<DumpBackend>,
    /// Say what the first round would carry; write nothing
    #[arg(short = 'n', long, conflicts_with_all = ["barrier", "snapshot"])]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) watching: Watching,
    /// Run by /bin/sh around the last round, with `MIRROR_PHASE` as for dump
    #[arg(long, value_name = "COMMAND")]
    pub(super) barrier: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    pub(super) json: bool,
}
