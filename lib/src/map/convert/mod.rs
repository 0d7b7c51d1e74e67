//! Between maps and what other programs write and read: one file for each format.
//!
//! Importing only ever widens: a block of the map is dirty when any byte of it is. Nothing foreign is guessed:
//! the format is named by the caller, and whatever a format does not say (a size, the bytes of its blocks) must
//! be given.

pub mod bitmap;
pub mod bmap;
pub mod ddrescue;
pub mod era;
pub mod extents;
mod json;
pub mod list;
pub mod nbdinfo;
pub mod qemu;
pub mod rbd;
#[cfg(feature = "simulate")]
pub mod target;
mod text;
pub mod thin_delta;
mod xml;

use super::format::{Header, Identity};
use super::ops::{Boxed, rescale};
use super::ranges::{RangeSource, Ranges};
use super::stream::{MapReader, Source, each_run, write_map};
use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result, limits};
use crate::device::Output;
use std::io::{BufReader, Read};

/// The formats, by the names that the command line has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A map file.
    Map,
    /// Our JSON, `dirtymap-extents/1`.
    Extents,
    /// Lines `OFFSET LENGTH` in bytes.
    List,
    /// A bit for each block, the least significant of a byte first.
    BitmapLe,
    /// A bit for each block, the most significant of a byte first.
    BitmapBe,
    /// A mapfile of GNU ddrescue.
    Ddrescue,
    /// A block map of bmap-tools.
    Bmap,
    /// XML of `era_invalidate`, or of `era_dump`.
    Era,
    /// XML of `thin_delta`.
    ThinDelta,
    /// JSON of `rbd diff --format json`.
    Rbd,
    /// JSON of `nbdinfo --map --json`.
    Nbdinfo,
    /// JSON of `qemu-img map --output=json`: data is dirty.
    QemuMap,
    /// The same through `x-dirty-bitmap=`: no data is dirty.
    QemuBitmap,
}

impl Format {
    /// Whether it is bytes, not text for a terminal.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Map | Self::BitmapLe | Self::BitmapBe)
    }
}

/// All formats.
pub const FORMATS: [(&str, Format); 13] = [
    ("map", Format::Map),
    ("extents", Format::Extents),
    ("list", Format::List),
    ("bitmap-le", Format::BitmapLe),
    ("bitmap-be", Format::BitmapBe),
    ("ddrescue", Format::Ddrescue),
    ("bmap", Format::Bmap),
    ("era", Format::Era),
    ("thin-delta", Format::ThinDelta),
    ("rbd", Format::Rbd),
    ("nbdinfo", Format::Nbdinfo),
    ("qemu-map", Format::QemuMap),
    ("qemu-bitmap", Format::QemuBitmap),
];

/// What a caller adds to what a format says.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Bytes of the volume.
    pub size: Option<u64>,
    /// Blocks of the map; those of the input, or 64 KiB.
    pub block: Option<BlockSize>,
    /// Bytes of a block of the input, where it only counts blocks.
    pub unit: Option<u64>,
    /// The volume.
    pub volume: Option<Id>,
    /// Statuses of ddrescue that are dirty; all but `+` by default.
    pub statuses: Option<ddrescue::Statuses>,
    /// The first era of `era_dump` that is dirty.
    pub since: Option<u64>,
}

/// What an input said.
#[derive(Debug, Default)]
struct Foreign {
    /// Bytes of the volume, where it says so.
    size: Option<u64>,
    /// Where the last thing ends that it speaks of: as good as a size where a format covers all of a volume.
    covered: Option<u64>,
    block: Option<BlockSize>,
    volume: Id,
    leg: Id,
    generation: Id,
    /// A range may reach past the size by less than this: the last block of a format that only counts blocks.
    slack: u64,
    ranges: Ranges,
}

impl Foreign {
    /// Adds a range, if there is such a one below 64 bits.
    fn push(&mut self, offset: u64, len: u64) -> Result<()> {
        let range = ByteRange::new(offset, len).ok_or_else(|| {
            Error::new(Class::Damaged, format!("the range {offset}+{len} does not fit in 64 bits"))
        })?;
        self.ranges.push(range)
    }

    /// Adds a range in units.
    fn push_units(&mut self, first: u64, count: u64, unit: u64) -> Result<()> {
        if let (Some(offset), Some(len)) = (first.checked_mul(unit), count.checked_mul(unit)) {
            self.slack = unit;
            return self.push(offset, len);
        }
        let text = format!("block {first}+{count} of {unit} bytes does not fit in 64 bits");
        Err(Error::new(Class::Damaged, text))
    }

    fn into_source(self, object: &str, given: &Given) -> Result<Boxed> {
        if let (Some(says), Some(size)) = (self.size, given.size)
            && says != size
        {
            let text = format!("{object}: checking its size: it says {says} bytes, --size {size}");
            return Err(Error::new(Class::Damaged, text));
        }
        let size = given.size.or(self.size).or(self.covered).ok_or_else(|| {
            let text =
                format!("{object}: making a map of it: its format does not say the size of the volume");
            Error::new(Class::Usage, text).hint("the same with --size SIZE")
        })?;
        if let (Some(of), false) = (given.volume, self.volume.is_none())
            && of != self.volume
        {
            let text = format!("{object}: checking its volume: it is of {}, --volume {of}", self.volume);
            return Err(Error::new(Class::Damaged, text));
        }
        let volume = given.volume.unwrap_or(self.volume);
        let block = given.block.or(self.block).unwrap_or(BlockSize::DEFAULT);
        let identity = Identity { volume, leg: self.leg, size, block };
        identity.check(object)?;
        let header = Header::new(identity, self.generation);
        let mut ranges = self.ranges.into_sorted();
        if let Some(last) = ranges.last_mut().filter(|last| last.end() > size)
            && last.offset < size
            && last.end() - size < self.slack
        {
            last.len = size - last.offset;
        }
        Ok(Box::new(RangeSource::new(object, header, ranges)?))
    }
}

/// Reads a map in a format; `object` stands in messages. Classes: `Damaged` for what is not of the format,
/// `Usage` for what it does not say and is not given.
pub fn import(format: Format, object: &str, input: Box<dyn Read + Send>, given: &Given) -> Result<Boxed> {
    let mut foreign = Foreign::default();
    let mut text = BufReader::with_capacity(1 << 16, Limited { input, left: limits::MAP_TEXT });
    let done = match format {
        Format::Map => {
            let Limited { input, .. } = text.into_inner();
            return of_map(MapReader::stream(object, input)?, given);
        }
        Format::BitmapLe | Format::BitmapBe => {
            let Limited { input, .. } = text.into_inner();
            return bitmap::import(object, input, format == Format::BitmapBe, given);
        }
        Format::Extents => extents::import(&mut text, &mut foreign),
        Format::List => list::import(&mut text, &mut foreign),
        Format::Ddrescue => ddrescue::import(&mut text, given, &mut foreign),
        Format::Bmap => bmap::import(&mut text, &mut foreign),
        Format::Era => era::import(&mut text, given, &mut foreign),
        Format::ThinDelta => thin_delta::import(&mut text, &mut foreign),
        Format::Rbd => rbd::import(&mut text, &mut foreign),
        Format::Nbdinfo => nbdinfo::import(&mut text, &mut foreign),
        Format::QemuMap => qemu::import(&mut text, true, &mut foreign),
        Format::QemuBitmap => qemu::import(&mut text, false, &mut foreign),
    };
    // What is wrong may be told in the input's own words.
    let plain = |text: &str| text.replace(char::is_control, " ");
    done.map_err(|e| Error { message: format!("{object}: reading it: {}", plain(&e.message)), ..e })?;
    foreign.into_source(object, given)
}

/// A map file as it is, in other blocks if that is asked for.
pub fn of_map(reader: MapReader, given: &Given) -> Result<Boxed> {
    let (header, object) = (reader.header().clone(), reader.name().to_owned());
    let differs = |key: &str, says: String, given: String| {
        let text = format!("{object}: checking its {key}: it says {says}, --{key} {given}");
        Err(Error::new(Class::Damaged, text))
    };
    let identity = header.identity;
    match (given.size, given.volume) {
        (Some(size), _) if size != identity.size => {
            return differs("size", identity.size.to_string(), size.to_string());
        }
        (_, Some(volume)) if !identity.volume.is_none() && volume != identity.volume => {
            return differs("volume", identity.volume.to_string(), volume.to_string());
        }
        _ => {}
    }
    let volume = given.volume.unwrap_or(identity.volume);
    let header = Header::new(Identity { volume, ..identity }, header.generation);
    let named: Boxed = Box::new(Named { header, input: Box::new(reader) });
    rescale(named, given.block.unwrap_or(identity.block))
}

/// The same words under another header.
struct Named {
    header: Header,
    input: Boxed,
}

impl Source for Named {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        self.input.fill(words)
    }
}

/// Writes a map in a format.
pub fn export(format: Format, source: &mut dyn Source, given: &Given, out: &mut Output) -> Result<()> {
    match format {
        Format::Map => write_map(source, out),
        Format::Extents => extents::export(source, out),
        Format::List => list::export(source, out),
        Format::BitmapLe => bitmap::export(source, false, out),
        Format::BitmapBe => bitmap::export(source, true, out),
        Format::Ddrescue => ddrescue::export(source, given, out),
        Format::Bmap => bmap::export(source, out),
        Format::Era => era::export(source, out),
        Format::ThinDelta => thin_delta::export(source, out),
        Format::Rbd => rbd::export(source, out),
        Format::Nbdinfo => nbdinfo::export(source, out),
        Format::QemuMap => qemu::export(source, true, out),
        Format::QemuBitmap => qemu::export(source, false, out),
    }
}

/// Calls `take` with the whole volume in pieces that are dirty or clean by turns.
fn each_piece(source: &mut dyn Source, take: &mut dyn FnMut(ByteRange, bool) -> Result<()>) -> Result<()> {
    let (size, block) = (source.header().identity.size, source.header().identity.block);
    let mut at = 0;
    each_run(source, &mut |run| {
        let range = block.range(&run, size);
        if range.offset > at {
            take(ByteRange { offset: at, len: range.offset - at }, false)?;
        }
        at = range.end();
        take(range, true)
    })?;
    if at < size { take(ByteRange { offset: at, len: size - at }, false) } else { Ok(()) }
}

/// Input that ends with an error past a limit.
struct Limited {
    input: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let found = self.input.read(buf)?;
        self.left = self.left.checked_sub(found as u64).ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("it is longer than {} bytes", limits::MAP_TEXT),
            )
        })?;
        Ok(found)
    }
}

/// A failure to read is of class `Io`, unless the bytes themselves are to blame.
fn read_error(error: &std::io::Error) -> Error {
    let class = if error.kind() == std::io::ErrorKind::InvalidData { Class::Damaged } else { Class::Io };
    Error::new(class, crate::base::error::plain(error))
}

#[cfg(test)]
mod tests;
