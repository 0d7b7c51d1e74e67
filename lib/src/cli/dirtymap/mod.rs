//! What `dirtymap` does with its arguments: open maps, call the library, say how it ended.

mod args;
mod digest;
mod open;
mod show;

pub use args::{
    CombineArgs, ConvertArgs, CreateArgs, DiffArgs, DigestArgs, FetchArgs, FormatArg, MarkArgs, OneArgs,
    RangeText, ResizeArgs, ShiftArgs, ShowArgs, SizeArgs, StatArgs,
};
pub use digest::{diff, digest};
pub use open::{Named, fetch as fetch_context, open_map};
pub use show::{check, show, sizes, stat};

use super::output;
use crate::base::{BlockSize, Class, Error, Id, Result};
use crate::device::{FileDevice, Output};
use crate::leg::LegDevice;
use crate::map::convert::{self, Format};
use crate::map::edit::{self, Mark};
use crate::map::format::{Header, Identity};
use crate::map::ops::{self, Boxed, Op};
use crate::map::stream::write_map;
use crate::map::{RangeSource, Ranges};
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

/// Writes a map and says what was made.
fn write(mut source: Boxed, to: &args::OutArgs) -> Result<()> {
    let mut out = output_to(to.output.as_deref(), to.replace, false)?;
    write_map(&mut source, &mut out)?;
    // The inputs are let go of before one of them is replaced.
    drop(source);
    out.finish()
}

/// `create`
pub fn create(args: &CreateArgs) -> Result<()> {
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
    let mut source = RangeSource::new(&object, Header::new(identity, Id::NONE), ranges.into_sorted())?;
    let mut out = output_to(Some(&args.map), args.replace, false)?;
    write_map(&mut source, &mut out)?;
    out.finish()
}

/// The size of a file, a block device or an NBD export.
pub(super) fn size_of(device: &LegDevice) -> Result<u64> {
    match device {
        LegDevice::File(path) => FileDevice::open_forced(path, false).map(|file| file.size()),
        LegDevice::Nbd(uri) => open::connect(uri, &[]).map(|client| client.info().size),
    }
}

/// `set` and `clear`
pub fn mark(args: &MarkArgs, mark: Mark) -> Result<()> {
    let (map, force) = (&args.map, args.force.leg());
    match map {
        Named::Path(path) => {
            let ranges: Result<Vec<_>> = args.ranges.iter().map(RangeText::range).collect();
            edit::mark(path, mark, &ranges?, force)
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
            write(source, &args::OutArgs::default())
        }
        Named::Leg { volume, .. } => {
            let text = format!("{map}: changing it: the mirrord of {volume} owns it");
            Err(Error::new(Class::Busy, text))
        }
    }
}

/// `or`, `and`, `sub`, `xor`
pub fn combine(op: Op, args: &CombineArgs) -> Result<()> {
    if args.maps.iter().filter(|map| matches!(map, Named::Standard)).count() > 1 {
        return Err(Error::new(Class::Usage, "-: opening it: standard input can be read only once"));
    }
    let inputs: Result<Vec<_>> = args.maps.iter().map(open_map).collect();
    write(ops::combine(op, inputs?, args.block, args.force.ops())?, &args.out)
}

/// `invert`
pub fn invert(args: &OneArgs) -> Result<()> {
    write(ops::invert(open_map(&args.map)?), &args.out)
}

/// `grow`
pub fn grow(args: &OneArgs, block: BlockSize) -> Result<()> {
    let source = open_map(&args.map)?;
    let is = source.header().identity.block;
    if block < is {
        let (is, to) = (is.bytes(), block.bytes());
        let text = format!("{}: growing its blocks: from {is} to {to} bytes", args.map);
        return Err(Error::new(Class::Usage, text));
    }
    write(ops::rescale(source, block)?, &args.out)
}

/// `resize`
pub fn resize(args: &ResizeArgs) -> Result<()> {
    write(ops::resize(open_map(&args.one.map)?, args.size, args.force.ops())?, &args.one.out)
}

/// `shift`
pub fn shift(args: &ShiftArgs) -> Result<()> {
    let (by, force) = (args.by, args.force.ops());
    write(ops::shift(open_map(&args.one.map)?, by, args.size, force)?, &args.one.out)
}

/// `convert`
pub fn convert(args: &ConvertArgs) -> Result<()> {
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
        (_, Named::Leg { .. }) => {
            let text = format!("{input}: reading it: it is a map, not of the format {}", args.from);
            return Err(Error::new(Class::Usage, text));
        }
    };
    let mut out = output_to(args.output.as_deref(), args.replace, !to.is_binary())?;
    convert::export(to, &mut source, &given, &mut out)?;
    drop(source);
    out.finish()
}

/// `fetch`
pub fn fetch(args: &FetchArgs) -> Result<()> {
    let context = args.context.as_deref().unwrap_or("base:allocation");
    let identity = |size| Identity {
        volume: args.volume.unwrap_or(Id::NONE),
        leg: Id::NONE,
        size,
        block: args.block.unwrap_or(BlockSize::DEFAULT),
    };
    write(open::fetch(&args.uri, context, identity)?, &args.out)
}

/// Tells a person, unless they asked for silence.
pub(super) fn note(text: &str) {
    output::tell(&format!("dirtymap: {}\n", output::one_line(text)));
}
