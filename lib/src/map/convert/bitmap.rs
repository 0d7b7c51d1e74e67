//! Bare bitmaps, a bit for each block from the first on: in each byte the least significant bit first (`le`), or
//! the most significant (`be`). They say neither the size of the volume nor that of a block.

use super::Given;
use crate::base::{BlockSize, Class, Error, Id, Result};
use crate::device::Output;
use crate::map::format::{Header, Identity};
use crate::map::ops::{Boxed, rescale};
use crate::map::stream::{Source, each_chunk};
use crate::map::{RangeSource, Ranges};
use std::io::{BufReader, Read};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;

/// Reads a bitmap of a volume of `given.size` bytes. Class `Damaged` if it is too short, or if a bit past the
/// volume is set.
pub fn import(object: &str, input: Box<dyn Read>, big: bool, given: &Given) -> Result<Boxed> {
    let Some(size) = given.size else {
        let text = format!("{object}: making a map of it: a bitmap does not say the size of the volume");
        return Err(Error::new(Class::Usage, text).hint("the same with --size SIZE"));
    };
    let block = given.block.unwrap_or(BlockSize::DEFAULT);
    let unit = given.unit.unwrap_or(block.bytes());
    let volume = given.volume.unwrap_or(Id::NONE);
    let header = |block| {
        let identity = Identity { volume, leg: Id::NONE, size, block };
        identity.check(object).map(|()| Header::new(identity, Id::NONE))
    };
    let input = BufReader::with_capacity(PIECE, input);
    if let Ok(unit) = BlockSize::new(unit) {
        let header = header(unit)?;
        let bits = Bits { object: object.to_owned(), header, input, big, word: 0, ended: false };
        return rescale(Box::new(bits), block);
    }
    // Smaller than any block of ours, or no power of two.
    if unit == 0 {
        return Err(Error::new(
            Class::Usage,
            format!("{object}: making a map of it: its blocks have 0 bytes"),
        ));
    }
    let header = header(block)?;
    let ranges = ranges_of(object, input, big, unit, size)?;
    Ok(Box::new(RangeSource::new(object, header, ranges)?))
}

fn in_order(byte: u8, big: bool) -> u8 {
    if big { byte.reverse_bits() } else { byte }
}

fn too_short(object: &str, bits: u64, blocks: u64) -> Error {
    let text = format!("{object}: reading it: it has {bits} bits, the volume has {blocks} blocks");
    Error::new(Class::Damaged, text)
}

fn too_long(object: &str, blocks: u64) -> Error {
    let text = format!("{object}: reading it: a bit is set past the {blocks} blocks of the volume");
    Error::new(Class::Damaged, text)
}

fn ranges_of(
    object: &str,
    mut input: BufReader<Box<dyn Read>>,
    big: bool,
    unit: u64,
    size: u64,
) -> Result<Vec<crate::base::ByteRange>> {
    let mut ranges = Ranges::default();
    let mut bytes = vec![0; PIECE];
    let (mut bit, blocks) = (0, size.div_ceil(unit));
    loop {
        let found = input.read(&mut bytes).map_err(|e| Error::io(object, "reading it", e))?;
        if found == 0 {
            break;
        }
        for byte in &bytes[..found] {
            let mut byte = in_order(*byte, big);
            while byte != 0 {
                let block = bit + u64::from(byte.trailing_zeros());
                if block >= blocks {
                    return Err(too_long(object, blocks));
                }
                let offset = block * unit;
                let range = crate::base::ByteRange { offset, len: unit.min(size - offset) };
                ranges.push(range).map_err(|e| Error { message: format!("{object}: {}", e.message), ..e })?;
                byte &= byte - 1;
            }
            bit += 8;
        }
    }
    if bit < blocks {
        return Err(too_short(object, bit, blocks));
    }
    Ok(ranges.into_sorted())
}

/// A bitmap whose blocks are blocks of ours: words as they come.
struct Bits {
    object: String,
    header: Header,
    input: BufReader<Box<dyn Read>>,
    big: bool,
    word: u64,
    ended: bool,
}

impl Bits {
    /// The next 64 bits; fewer at the end of the input.
    fn next(&mut self) -> Result<(u64, u64)> {
        let mut bytes = [0; 8];
        let mut found = 0;
        while found < 8 {
            match self.input.read(&mut bytes[found..]) {
                Ok(0) => break,
                Ok(n) => found += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(&self.object, "reading it", e)),
            }
        }
        let word = u64::from_le_bytes(bytes.map(|byte| in_order(byte, self.big)));
        Ok((word, found as u64 * 8))
    }
}

impl Source for Bits {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        let blocks = self.header.identity.blocks();
        for word in words {
            *word = 0;
            if self.word * 64 >= blocks {
                continue;
            }
            let bits;
            (*word, bits) = self.next()?;
            let inside = blocks - self.word * 64;
            if bits < inside.min(64) {
                return Err(too_short(&self.object, self.word * 64 + bits, blocks));
            }
            if inside < 64 && *word >> inside != 0 {
                return Err(too_long(&self.object, blocks));
            }
            self.word += 1;
        }
        // Zeroes may follow, as padding.
        if self.word * 64 >= blocks && !self.ended {
            self.ended = true;
            loop {
                match self.next()? {
                    (_, 0) => break,
                    (0, _) => {}
                    _ => return Err(too_long(&self.object, blocks)),
                }
            }
        }
        Ok(())
    }
}

/// Writes as many bytes as hold all blocks.
pub fn export(source: &mut dyn Source, big: bool, out: &mut Output) -> Result<()> {
    let mut left = source.header().identity.blocks().div_ceil(8);
    let mut bytes = Vec::new();
    each_chunk(source, &mut |words, _| {
        bytes.clear();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| in_order(byte, big)));
        let here = left.min(bytes.len() as u64);
        left -= here;
        out.put(&bytes[..here as usize])
    })
}
