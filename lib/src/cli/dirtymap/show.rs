//! `show`, `stat`, `check` and `size`: what a map says, for people and for programs.

use super::{Named, ShowArgs, SizeArgs, StatArgs, open_map, output_to, size_of};
use crate::base::units::show_size;
use crate::base::{BlockSize, Class, Error, Id, Result, limits};
use crate::device::Output;
use crate::map::convert::{self, Format, Given};
use crate::map::format::{BITS_AT, Header, Identity};
use crate::map::ops::{Boxed, Force, Op, combine};
use crate::map::stream::{Tally, each_chunk, each_run};
use crate::map::{RangeSource, Ranges, Source};

/// Characters of one row of the picture.
const COLUMNS: u64 = 64;
/// Rows of the picture.
const ROWS: u64 = 4;

/// `show`
pub fn show(args: &ShowArgs) -> Result<()> {
    let mut source = open_map(&args.map)?;
    if let Some(range) = &args.range {
        source = within(source, range)?;
    }
    let mut out = output_to(None, false, true)?;
    let given = Given::default();
    if args.json {
        convert::export(Format::Extents, &mut source, &given, &mut out)?;
    } else if args.list {
        convert::export(Format::List, &mut source, &given, &mut out)?;
    } else if args.bitmap {
        bits(&mut source, &mut out)?;
    } else {
        picture(&args.map, &mut source, &mut out)?;
    }
    out.finish()
}

/// What of a map lies in a range.
fn within(source: Boxed, range: &super::RangeText) -> Result<Boxed> {
    let mut ranges = Ranges::default();
    ranges.push(range.range()?)?;
    let header = Header::new(source.header().identity, Id::NONE);
    let window = RangeSource::new("--range", header, ranges.into_sorted());
    let window = window.map_err(|e| Error { class: Class::Usage, ..e })?;
    combine(Op::And, vec![source, Box::new(window)], None, Force::default())
}

/// A character for each block.
fn bits(source: &mut Boxed, out: &mut Output) -> Result<()> {
    let blocks = source.header().identity.blocks();
    each_chunk(source, &mut |words, first| {
        for (at, word) in (first..).zip(words) {
            let here = (blocks - at * 64).min(64);
            let row: String = (0..here).map(|bit| if word >> bit & 1 == 1 { '#' } else { '.' }).collect();
            out.text(&row)?;
            out.text("\n")?;
        }
        Ok(())
    })
}

/// Facts, and where the dirt is.
fn picture(name: &Named, source: &mut Boxed, out: &mut Output) -> Result<()> {
    let header = source.header().clone();
    let Identity { size, block, .. } = header.identity;
    let blocks = header.identity.blocks();
    let each = blocks.div_ceil(COLUMNS * ROWS);
    let mut cells = vec![0u64; blocks.div_ceil(each) as usize];
    let mut tally = Tally::default();
    each_run(source, &mut |run| {
        tally.add(&run, size, block);
        let mut at = run.start;
        while at < run.end {
            let end = run.end.min((at / each + 1) * each);
            cells[(at / each) as usize] += end - at;
            at = end;
        }
        Ok(())
    })?;
    let id = |id: Id| if id.is_none() { "none".to_owned() } else { id.to_string() };
    out.text(&format!("{name}\n"))?;
    for (key, value) in [
        ("volume", id(header.identity.volume)),
        ("leg", id(header.identity.leg)),
        ("generation", id(header.generation)),
        ("size", format!("{}, {blocks} blocks of {}", show_size(size), show_size(block.bytes()))),
        ("dirty", describe(&tally, size)),
    ] {
        out.text(&format!("  {key:<11}{value}\n"))?;
    }
    out.text(&format!(
        "\n  . clean  : some  + most  # all of {}\n",
        show_size((each * block.bytes()).min(size))
    ))?;
    for (row, cells) in cells.chunks(COLUMNS as usize).enumerate() {
        let first = row as u64 * COLUMNS * each;
        let line: String = (first..)
            .step_by(each as usize)
            .zip(cells)
            .map(|(at, dirty)| match (*dirty, each.min(blocks - at)) {
                (0, _) => '.',
                (dirty, all) if dirty == all => '#',
                (dirty, all) if dirty * 2 >= all => '+',
                _ => ':',
            })
            .collect();
        out.text(&format!("  {:>10} {line}\n", show_size(first * block.bytes())))?;
    }
    Ok(())
}

/// `1.5 GiB (12.5 %), 24576 blocks in 12 runs, the longest 100 MiB`
pub(super) fn describe(tally: &Tally, size: u64) -> String {
    if tally.blocks == 0 {
        return "nothing".to_owned();
    }
    format!(
        "{} ({} %), {} in {}, the longest {}",
        show_size(tally.bytes),
        per_cent(tally.bytes, size),
        counted(tally.blocks, "block"),
        counted(tally.runs, "run"),
        show_size(tally.longest)
    )
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// With one digit; what is little is not nothing, and what is nearly all is not all.
fn per_cent(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1000 / u128::from(whole.max(1));
    match (permille, part) {
        (0, 1..) => "< 0.1".to_owned(),
        (permille, _) => format!("{}.{}", permille / 10, permille % 10),
    }
}

/// One document `dirtymap-stat/1`.
#[derive(serde::Serialize)]
struct Stat<'a> {
    schema: &'static str,
    map: &'a str,
    volume: Option<Id>,
    leg: Option<Id>,
    generation: Option<Id>,
    size: u64,
    block: u64,
    blocks: u64,
    dirty: u64,
    dirty_blocks: u64,
    runs: u64,
    longest: u64,
}

pub(super) fn tally(source: &mut dyn Source) -> Result<Tally> {
    let Identity { size, block, .. } = source.header().identity;
    let mut tally = Tally::default();
    each_run(source, &mut |run| {
        tally.add(&run, size, block);
        Ok(())
    })?;
    Ok(tally)
}

/// `stat`
pub fn stat(args: &StatArgs) -> Result<()> {
    let mut out = output_to(None, false, true)?;
    for name in &args.maps {
        let mut source = open_map(name)?;
        let tally = tally(&mut source)?;
        let header = source.header();
        let Identity { size, block, .. } = header.identity;
        if !args.json {
            let of = format!("{} in blocks of {}", show_size(size), show_size(block.bytes()));
            out.text(&format!("{name}: {of}: dirty: {}\n", describe(&tally, size)))?;
            continue;
        }
        let some = |id: Id| Some(id).filter(|id| !id.is_none());
        let stat = Stat {
            schema: "dirtymap-stat/1",
            map: &name.to_string(),
            volume: some(header.identity.volume),
            leg: some(header.identity.leg),
            generation: some(header.generation),
            size,
            block: block.bytes(),
            blocks: header.identity.blocks(),
            dirty: tally.bytes,
            dirty_blocks: tally.blocks,
            runs: tally.runs,
            longest: tally.longest,
        };
        out.text(&json(&stat)?)?;
    }
    out.finish()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n").map_err(|e| Error::new(Class::Internal, e.to_string()))
}

/// `check`: silent class `Differs` if anything is dirty.
pub fn check(name: &Named, quiet: bool) -> Result<()> {
    let mut source = open_map(name)?;
    let tally = tally(&mut source)?;
    if !quiet {
        let what = if tally.blocks == 0 {
            "clean".to_owned()
        } else {
            format!("dirty: {}", describe(&tally, source.header().identity.size))
        };
        let mut out = output_to(None, false, true)?;
        out.text(&format!("{name}: {what}\n"))?;
        out.finish()?;
    }
    if tally.blocks == 0 { Ok(()) } else { Err(Error::silent(Class::Differs)) }
}

#[derive(serde::Serialize)]
struct Sizes {
    schema: &'static str,
    size: u64,
    maps: Vec<SizeOf>,
}

#[derive(serde::Serialize)]
struct SizeOf {
    block: u64,
    blocks: u64,
    file: u64,
}

/// `size`: how large a map is, in each size of blocks.
pub fn sizes(args: &SizeArgs) -> Result<()> {
    let size = match (&args.size, &args.like) {
        (Some(size), _) => *size,
        (None, Some(device)) => size_of(device)?,
        (None, None) => return Err(Error::new(Class::Usage, "neither --size nor --like is given")),
    };
    let mut maps = Vec::new();
    for shift in limits::BLOCK_MIN.trailing_zeros()..=limits::BLOCK_MAX.trailing_zeros() {
        let block = BlockSize::new(1 << shift)?;
        let identity = Identity { volume: Id::NONE, leg: Id::NONE, size, block };
        let wanted = args.block.is_none_or(|only| only == block);
        match identity.check("size") {
            Ok(()) if wanted => {
                maps.push(SizeOf {
                    block: block.bytes(),
                    blocks: identity.blocks(),
                    file: identity.file_len(),
                });
            }
            Err(error) if args.block == Some(block) || block.bytes() == limits::BLOCK_MAX => {
                return Err(error);
            }
            _ => {}
        }
    }
    let mut out = output_to(None, false, true)?;
    if args.json {
        out.text(&json(&Sizes { schema: "dirtymap-size/1", size, maps })?)?;
        return out.finish();
    }
    out.text(&format!("{:>10} {:>14} {:>12} {:>14}\n", "BLOCK", "BLOCKS", "MAP", "BYTES"))?;
    for SizeOf { block, blocks, file } in maps {
        let shown = show_size(file - BITS_AT);
        out.text(&format!("{:>10} {blocks:>14} {shown:>12} {file:>14}\n", show_size(block)))?;
    }
    out.finish()
}
