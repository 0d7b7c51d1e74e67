//! What `dirtymap` does with its arguments: open maps, call the library, say how it ended.

mod args;
mod digest;
mod open;
mod rotate;
mod show;

pub use args::{
    CombineArgs, ConvertArgs, CreateArgs, DiffArgs, DigestArgs, FetchArgs, FormatArg, MarkArgs, OneArgs,
    RangeText, ResizeArgs, RotateArgs, ShiftArgs, ShowArgs, SizeArgs, StatArgs,
};
pub use digest::{diff, digest};
pub use open::{Named, fetch as fetch_context, open_map};
pub use rotate::rotate;
pub use show::{check, show, sizes, stat};

use super::{interrupt, output};
use crate::base::units::show_size;
use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result};
use crate::device::{FileDevice, Output};
use crate::leg::LegDevice;
use crate::leg::dial::Dial;
use crate::map::convert::{self, Format};
use crate::map::edit::{self, Mark};
use crate::map::format::{Header, Identity};
use crate::map::ops::{self, Boxed, Op};
use crate::map::stream::{RunTally, Tally, write_map};
use crate::map::{MapReader, RangeSource, Ranges, Source};
use std::io::IsTerminal as _;
use std::path::Path;

/// Standard output or a file, for a result that is bytes or text.
pub(super) fn output_to(path: Option<&Path>, replace: bool, text: bool) -> Result<Output> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            if replace {
                open::not_of_a_leg(path)?;
            }
            Output::file(path, replace)
        }
        None if !text && std::io::stdout().is_terminal() => {
            let why = "standard output: writing a map: it is a terminal";
            Err(Error::new(Class::Usage, why).hint("the same with -o MAP"))
        }
        None => Ok(Output::stream("standard output", Box::new(std::io::stdout()))),
    }
}

/// How a verb goes about it.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct How {
    /// Check everything, print what would be done, change nothing
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
    /// Say what was done
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing that is not asked for, except errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Writes a map, or says what would be written.
fn write(source: Boxed, to: &args::OutArgs, how: How) -> Result<()> {
    let name = to.output.as_deref().map_or_else(|| "standard output".into(), Path::to_string_lossy);
    let mut source = Tallied::new(source, how);
    if how.dry_run {
        // What would be refused is refused.
        if to.output.is_some() {
            drop(output_to(to.output.as_deref(), to.replace, false)?);
        }
        return plan(&name, &mut source);
    }
    let mut out = output_to(to.output.as_deref(), to.replace, false)?;
    write_map(&mut source, &mut out)?;
    let (said, size) = (source.said(), source.header().identity);
    // The inputs are let go of before one of them is replaced.
    drop(source);
    out.finish()?;
    if let Some(tally) = said {
        note(&format!("{name}: {}", described(&size, &tally)));
    }
    Ok(())
}

/// `10 GiB in blocks of 64 KiB: dirty: …`
fn described(identity: &Identity, tally: &Tally) -> String {
    let (size, block) = (show_size(identity.size), show_size(identity.block.bytes()));
    format!("{size} in blocks of {block}: dirty: {}", show::describe(tally, identity.size))
}

/// What a dry run prints: what would be written, read to its end, so that whatever is wrong with it shows.
fn plan(name: &str, source: &mut dyn Source) -> Result<()> {
    let tally = show::tally(source)?;
    let identity = source.header().identity;
    let mut out = output_to(None, false, true)?;
    let bytes = show_size(identity.file_len());
    out.text(&format!("{name}: would be written: {bytes}: {}\n", described(&identity, &tally)))?;
    out.finish()
}

/// A map that counts what passes, where somebody wants to hear of it.
struct Tallied {
    source: Boxed,
    counting: Option<RunTally>,
}

impl Tallied {
    fn new(source: Boxed, how: How) -> Self {
        let counting = (how.verbose > 0).then(|| RunTally::new(source.header().identity));
        Self { source, counting }
    }

    fn said(&mut self) -> Option<Tally> {
        self.counting.take().map(RunTally::finish)
    }
}

impl Source for Tallied {
    fn header(&self) -> &Header {
        self.source.header()
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        self.source.fill(words)?;
        if let Some(counting) = &mut self.counting {
            counting.words(words);
        }
        Ok(())
    }
}

/// `create`
pub fn create(args: &CreateArgs, how: How) -> Result<()> {
    let size = match (&args.size, &args.like) {
        (Some(size), _) => *size,
        (None, Some(device)) => size_of(device)?,
        (None, None) => return Err(Error::new(Class::Usage, "neither --size nor --like is given")),
    };
    let block = args.block.unwrap_or(BlockSize::DEFAULT);
    let identity = Identity { volume: args.volume.unwrap_or(Id::NONE), leg: Id::NONE, size, block };
    let object = args.map.display().to_string();
    identity.check(&object).map_err(|e| e.hint(format!("dirtymap size --size {size}")))?;
    let mut ranges = Ranges::default();
    if args.all {
        ranges.push(block.range(&(0..identity.blocks()), size))?;
    }
    let source = RangeSource::new(&object, Header::new(identity, Id::NONE), ranges.into_sorted())?;
    let out = args::OutArgs { output: Some(args.map.clone()), replace: args.replace };
    write(Box::new(source), &out, how)
}

/// The size of a file, a block device or an NBD export.
pub(super) fn size_of(device: &LegDevice) -> Result<u64> {
    match device {
        LegDevice::File(path) => FileDevice::open_forced(path, false).map(|file| file.size()),
        LegDevice::Nbd(uri) => open::connect(uri, &[], &Dial::default()).map(|client| client.info().size),
    }
}

/// `set` and `clear`
pub fn mark(args: &MarkArgs, mark: Mark, how: How) -> Result<()> {
    let (map, force) = (&args.map, args.force.leg());
    match map {
        Named::Path(path) => {
            let ranges: Vec<_> = args.ranges.iter().map(RangeText::range).collect::<Result<_>>()?;
            if how.dry_run {
                let header = MapReader::open(path)?.header().clone();
                if mark == Mark::Clear && !force {
                    edit::may_clear(&path.display().to_string(), &header)?;
                }
                return plan_marks(&path.display().to_string(), &header, mark, &ranges);
            }
            interrupt::standing("some of the marks may be made: run it again");
            edit::mark(path, mark, &ranges, force)
        }
        Named::Standard => {
            let source = open_map(map)?;
            let header = source.header().clone();
            if mark == Mark::Clear && !force {
                edit::may_clear("standard input", &header)?;
            }
            let (size, block) = (header.identity.size, header.identity.block);
            let mut ranges = Ranges::default();
            for range in &args.ranges {
                let blocks = edit::blocks_of("standard input", &header, mark, &range.range()?)?;
                ranges.push(block.range(&blocks, size))?;
            }
            let marks: Boxed = Box::new(RangeSource::new("standard input", header, ranges.into_sorted())?);
            let op = if mark == Mark::Set { Op::Or } else { Op::Sub };
            let source = ops::combine(op, vec![source, marks], None, ops::Force::default())?;
            write(source, &args::OutArgs::default(), how)
        }
        Named::Leg { volume, .. } | Named::Tracker { volume, .. } => {
            let text = format!("{map}: changing it: the mirrord of {volume} owns it");
            let error = Error::new(Class::Busy, text);
            Err(match map {
                Named::Tracker { .. } => error.hint(format!("dirtymap rotate {map} OUT")),
                _ => error,
            })
        }
    }
}

/// What a dry run of `set` or `clear` prints.
fn plan_marks(name: &str, header: &Header, mark: Mark, ranges: &[ByteRange]) -> Result<()> {
    let Identity { size, block, .. } = header.identity;
    let mut out = output_to(None, false, true)?;
    let become_what = if mark == Mark::Set { "dirty" } else { "clean" };
    for range in ranges {
        let blocks = edit::blocks_of(name, header, mark, range)?;
        let bytes = block.range(&blocks, size);
        out.text(&format!("{name}: would be {become_what}: {bytes}\n"))?;
    }
    out.finish()
}

/// `or`, `and`, `sub`, `xor`
pub fn combine(op: Op, args: &CombineArgs, how: How) -> Result<()> {
    if args.maps.iter().filter(|map| matches!(map, Named::Standard)).count() > 1 {
        return Err(Error::new(Class::Usage, "-: opening it: standard input can be read only once"));
    }
    let inputs: Result<Vec<_>> = args.maps.iter().map(open_map).collect();
    write(ops::combine(op, inputs?, args.block, args.force.ops())?, &args.out, how)
}

/// `invert`
pub fn invert(args: &OneArgs, how: How) -> Result<()> {
    write(ops::invert(open_map(&args.map)?), &args.out, how)
}

/// `grow`
pub fn grow(args: &OneArgs, block: BlockSize, how: How) -> Result<()> {
    let source = open_map(&args.map)?;
    let is = source.header().identity.block;
    if block < is {
        let (is, to) = (is.bytes(), block.bytes());
        let text = format!("{}: growing its blocks: from {is} to {to} bytes", args.map);
        return Err(Error::new(Class::Usage, text));
    }
    write(ops::rescale(source, block)?, &args.out, how)
}

/// `resize`
pub fn resize(args: &ResizeArgs, how: How) -> Result<()> {
    write(ops::resize(open_map(&args.one.map)?, args.size, args.force.ops())?, &args.one.out, how)
}

/// `shift`
pub fn shift(args: &ShiftArgs, how: How) -> Result<()> {
    let (by, force) = (args.by, args.force.ops());
    write(ops::shift(open_map(&args.one.map)?, by, args.size, force)?, &args.one.out, how)
}

/// `convert`
pub fn convert(args: &ConvertArgs, how: How) -> Result<()> {
    let given = args.given(args.like.as_ref().map(size_of).transpose()?);
    let (from, to) = (args.from.0, args.to.0);
    let input = args.input.clone().unwrap_or(Named::Standard);
    let mut source = match (from, &input) {
        (Format::Map, _) => open::open_reader(&input)?
            .map_or_else(|| open_map(&input), |reader| convert::of_map(reader, &given))?,
        (_, Named::Standard) => convert::import(from, "standard input", Box::new(std::io::stdin()), &given)?,
        (_, Named::Path(path)) => {
            convert::import(from, &path.display().to_string(), open::open_file(path)?, &given)?
        }
        (_, Named::Leg { .. } | Named::Tracker { .. }) => {
            let text = format!("{input}: reading it: it is a map, not of the format {}", args.from);
            return Err(Error::new(Class::Usage, text));
        }
    };
    if how.dry_run {
        let name = args.output.as_deref().map_or_else(|| "standard output".into(), Path::to_string_lossy);
        if args.output.is_some() {
            drop(output_to(args.output.as_deref(), args.replace, !to.is_binary())?);
        }
        return plan(&name, &mut source);
    }
    let mut out = output_to(args.output.as_deref(), args.replace, !to.is_binary())?;
    convert::export(to, &mut source, &given, &mut out)?;
    drop(source);
    out.finish()
}

/// `fetch`
pub fn fetch(args: &FetchArgs, how: How) -> Result<()> {
    let context = args.context.as_deref().unwrap_or("base:allocation");
    let identity = |size| Identity {
        volume: args.volume.unwrap_or(Id::NONE),
        leg: Id::NONE,
        size,
        block: args.block.unwrap_or(BlockSize::DEFAULT),
    };
    write(open::fetch(&args.uri, context, &args.tls.dial(), identity)?, &args.out, how)
}

/// Tells a person, unless they asked for silence.
pub(super) fn note(text: &str) {
    output::tell(&format!("dirtymap: {}\n", output::one_line(text)));
}
