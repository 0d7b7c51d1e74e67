//! The command line of `mirror-sync`.

use super::place::{Place, few};
use super::source::MapName;
use crate::base::{Class, Error, Result};
use crate::cli::far::{FarArgs, TlsArgs};
use crate::cli::{ProgressTo, value};
use crate::leg::far::Reach;
use crate::sync::plan::{Permit, Zeroes};
use std::path::PathBuf;

/// What a person says to override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Forced {
    /// A target that is mounted or claimed by the kernel
    Mounted,
    /// A target that another process has open for writing
    Busy,
    /// A target that cannot be flushed
    Unflushed,
    /// A delta that is for another generation
    Foreign,
}

/// What becomes of zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ZeroArg {
    /// Holes and zeroes in data become holes
    #[default]
    Detect,
    /// Holes become holes, data is not searched
    Trust,
    /// Zeroes are written as data
    Off,
}

/// How data is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Packing {
    /// zstd(1)
    Zstd,
}

/// The whole command line.
#[allow(rustdoc::broken_intra_doc_links)] // brackets as in every usage line
#[derive(Clone, Debug, clap::Args)]
pub struct SyncArgs {
    /// What is copied, and where it goes: PATH, an NBD URI, ssh://[USER@]HOST/PATH, [ COMMAND ], - for standard input or output, or
    /// null: as a target that keeps nothing
    #[arg(value_name = "SOURCE TARGET", num_args = 1.., required_unless_present_any = ["inspect", "serve"])]
    pub places: Vec<Place>,

    /// Copy everything, without looking at what the target holds
    #[arg(long, group = "choice")]
    pub full: bool,
    /// Read both ends, copy what differs (the default)
    #[arg(long, group = "choice")]
    pub compare: bool,
    /// Copy the blocks that are marked in a map, and nothing else
    #[arg(long, group = "choice", requires = "map")]
    pub dirty_only: bool,
    /// The map: PATH, - for standard input, VOLUME:TRACKER, or NBD-URI[#CONTEXT]
    #[arg(long, value_name = "MAP", requires = "dirty_only")]
    pub map: Option<MapName>,
    /// Leave marks of the map that were copied
    #[arg(long, requires = "dirty_only")]
    pub keep_map: bool,
    /// Compare with the digests of the last run instead of reading the target
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "dirty_only"])]
    pub digest: Option<PathBuf>,

    /// Write a delta to FILE, or - for standard output, instead of a target
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verify", "stage"])]
    pub delta: Option<PathBuf>,
    /// Apply a delta from FILE, or - for standard input, to a target
    #[arg(long, value_name = "FILE", group = "act", conflicts_with_all = ["choice", "digest", "delta", "dry_run"])]
    pub apply: Option<PathBuf>,
    /// Say what a delta is and check it to its end
    #[arg(long, value_name = "FILE", group = "act", conflicts_with_all = ["choice", "digest", "delta"])]
    pub inspect: Option<PathBuf>,
    /// Who holds which generation: a delta is made from it, or applied only to what it is for
    #[arg(long, value_name = "FILE")]
    pub generation: Option<PathBuf>,
    /// All or nothing: stage what changes beside the target, then apply it with an undo log
    #[arg(long, conflicts_with_all = ["verify", "dry_run", "inspect"])]
    pub stage: bool,
    /// Finish a staged apply that was interrupted, and nothing else
    #[arg(long, group = "act", requires = "stage", conflicts_with_all = ["choice", "digest", "delta"])]
    pub redo: bool,
    /// Roll a staged apply back by its undo log
    #[arg(long, value_name = "FILE", group = "act", conflicts_with_all = ["choice", "digest", "delta", "stage", "dry_run"])]
    pub undo: Option<PathBuf>,
    /// Pack the data of a delta, and what goes over ssh://
    #[arg(long, value_name = "HOW")]
    pub compress: Option<Packing>,

    /// How other machines are reached.
    #[command(flatten)]
    pub far: FarArgs,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Be the far end of a copy, on standard input and output
    #[arg(long, group = "act", conflicts_with_all = ["choice", "places", "digest", "delta", "stage", "dry_run"])]
    pub serve: bool,
    /// Serve what is beneath DIR, and nothing else
    #[arg(long, value_name = "DIR", requires = "serve")]
    pub root: Option<PathBuf>,
    /// Serve reading only
    #[arg(long, requires = "serve")]
    pub read_only: bool,

    /// Read the target back at the end and compare
    #[arg(long)]
    pub verify: bool,
    /// What becomes of zeroes
    #[arg(long, value_name = "HOW", default_value = "detect")]
    pub zero: ZeroArg,
    /// Most connections to an NBD server
    #[arg(long, value_name = "N", default_value = "4", value_parser = few)]
    pub connections: usize,
    /// Most requests in flight
    #[arg(long, value_name = "N", default_value = "16", value_parser = few)]
    pub queue_depth: usize,
    /// Bytes of one request, where there is so much to move
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = value::size)]
    pub request_size: u64,
    /// Write at most so many bytes a second
    #[arg(long, value_name = "RATE", value_parser = value::size)]
    pub bwlimit: Option<u64>,
    /// The source may change while it is copied: the result is not called equal
    #[arg(long)]
    pub live: bool,
    /// Override a refusal: mounted, busy, unflushed, foreign; several with commas
    #[arg(long = "force", value_name = "WHAT", value_delimiter = ',')]
    pub force: Vec<Forced>,

    /// Find out what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print a summary as JSON
    #[arg(long)]
    pub json: bool,
    /// JSON lines about the progress to this open file descriptor
    #[arg(long, value_name = "FD")]
    pub progress: Option<ProgressTo>,
    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

impl SyncArgs {
    /// The two ends. Class `Usage` if there are more or fewer.
    pub fn ends(&self) -> Result<(&Place, &Place)> {
        match self.places.as_slice() {
            [source, target] => Ok((source, target)),
            [one] => {
                Err(Error::new(Class::Usage, format!("{one}: checking the ends: the TARGET is missing"))
                    .hint("mirror-sync --help"))
            }
            [.., last] => Err(Error::new(Class::Usage, format!("{last}: checking the ends: more than two"))
                .hint("mirror-sync --help")),
            [] => {
                Err(Error::new(Class::Usage, "checking the ends: none is given").hint("mirror-sync --help"))
            }
        }
    }

    /// The one end that there is: of `--delta`, `--apply`, `--undo`, `--redo`.
    pub fn one(&self) -> Result<&Place> {
        match self.places.as_slice() {
            [one] => Ok(one),
            [_, second, ..] => Err(Error::new(
                Class::Usage,
                format!("{second}: checking the ends: there is only one beside a delta"),
            )),
            [] => Err(Error::new(Class::Usage, "checking the ends: none is given")),
        }
        .map_err(|error| error.hint("mirror-sync --help"))
    }

    /// How other machines are reached.
    pub fn reach(&self) -> Reach {
        Reach { dial: self.tls.dial(), ..self.far.reach(self.compress.is_some()) }
    }

    /// What is overridden.
    pub fn permit(&self) -> Permit {
        let has = |what| self.force.contains(&what);
        Permit {
            mounted: has(Forced::Mounted),
            busy: has(Forced::Busy),
            unflushed: has(Forced::Unflushed),
            foreign: has(Forced::Foreign),
            live: self.live,
        }
    }

    /// What becomes of zeroes.
    pub const fn zeroes(&self) -> Zeroes {
        match self.zero {
            ZeroArg::Detect => Zeroes::Detect,
            ZeroArg::Trust => Zeroes::Trust,
            ZeroArg::Off => Zeroes::Off,
        }
    }

    /// How the blocks are chosen, in one word.
    pub const fn choice(&self) -> &'static str {
        match (self.full, self.dirty_only, self.digest.is_some()) {
            (true, _, _) => "full",
            (_, true, _) => "dirty-only",
            (_, _, true) => "digest",
            _ => "compare",
        }
    }
}
