//! `dirtymap`: makes, reads, combines and translates maps of dirty blocks.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use mirror::base::BlockSize;
use mirror::cli::dirtymap::{
    self, CombineArgs, ConvertArgs, CreateArgs, DiffArgs, DigestArgs, FetchArgs, How, MarkArgs, Named,
    OneArgs, ResizeArgs, RotateArgs, ShiftArgs, ShowArgs, SizeArgs, StatArgs,
};
use mirror::cli::{self, value};
use mirror::map::edit::Mark;
use mirror::map::ops::Op;
use std::process::ExitCode;

/// Make, read, combine and translate maps of dirty blocks
#[derive(Parser)]
#[command(name = "dirtymap", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
MAP is PATH, -, or VOLUME:TRACKER or VOLUME:leg/LEG of a running mirrord (read-only)
RANGE is OFFSET+LENGTH or OFFSET..END; sizes take K M G T P
See dirtymap(1).")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    how: How,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a map in which nothing is dirty, or everything
    Create(CreateArgs),
    /// Show a map: its facts and a small picture, or its ranges
    Show(ShowArgs),
    /// One line for each map: how much is dirty
    Stat(StatArgs),
    /// Whether anything is dirty: 0 clean, 1 dirty
    Check {
        /// The map
        map: Named,
    },
    /// Make every block dirty that a range touches
    Set(MarkArgs),
    /// Make every block clean that lies in a range as a whole
    Clear(MarkArgs),
    /// Close the marks of a tracker into a map of their own, while mirrord writes
    Rotate(RotateArgs),
    /// What is dirty in any of the maps
    Or(CombineArgs),
    /// What is dirty in all of the maps
    And(CombineArgs),
    /// What is dirty in the first map and in no other
    Sub(CombineArgs),
    /// What is dirty in an odd number of the maps
    Xor(CombineArgs),
    /// What is not dirty
    Invert(OneArgs),
    /// The same map in larger blocks
    Grow {
        #[command(flatten)]
        one: OneArgs,
        /// Bytes of the new blocks
        #[arg(long, value_name = "SIZE", value_parser = value::block)]
        block: BlockSize,
    },
    /// The map of a volume that was resized
    Resize(ResizeArgs),
    /// The map of a volume whose bytes have moved: a partition in its disk
    Shift(ShiftArgs),
    /// Translate between formats
    Convert(ConvertArgs),
    /// Make a map of what an NBD server says about its export
    Fetch(FetchArgs),
    /// Write the BLAKE3 digests of a device, block by block
    Digest(DigestArgs),
    /// Make a map of what differs between two devices or manifests: 0 equal, 1 differs
    Diff(DiffArgs),
    /// How large a map is
    Size(SizeArgs),
}

fn main() -> ExitCode {
    cli::main("dirtymap", run)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    cli::interrupt::arm("dirtymap")?;
    let how = cli.how;
    match cli.verb {
        Verb::Create(args) => dirtymap::create(&args, how)?,
        Verb::Show(args) => dirtymap::show(&args)?,
        Verb::Stat(args) => dirtymap::stat(&args)?,
        Verb::Check { map } => dirtymap::check(&map, how.quiet)?,
        Verb::Set(args) => dirtymap::mark(&args, Mark::Set, how)?,
        Verb::Clear(args) => dirtymap::mark(&args, Mark::Clear, how)?,
        Verb::Rotate(args) => dirtymap::rotate(&args, how)?,
        Verb::Or(args) => dirtymap::combine(Op::Or, &args, how)?,
        Verb::And(args) => dirtymap::combine(Op::And, &args, how)?,
        Verb::Sub(args) => dirtymap::combine(Op::Sub, &args, how)?,
        Verb::Xor(args) => dirtymap::combine(Op::Xor, &args, how)?,
        Verb::Invert(args) => dirtymap::invert(&args, how)?,
        Verb::Grow { one, block } => dirtymap::grow(&one, block, how)?,
        Verb::Resize(args) => dirtymap::resize(&args, how)?,
        Verb::Shift(args) => dirtymap::shift(&args, how)?,
        Verb::Convert(args) => dirtymap::convert(&args, how)?,
        Verb::Fetch(args) => dirtymap::fetch(&args, how)?,
        Verb::Digest(args) => dirtymap::digest(&args, how)?,
        Verb::Diff(args) => dirtymap::diff(&args, how)?,
        Verb::Size(args) => dirtymap::sizes(&args)?,
    }
    Ok(())
}
