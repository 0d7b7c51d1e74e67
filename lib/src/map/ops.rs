//! The algebra of maps: on words, from front to back, any number of inputs, each at most one piece in memory.
//!
//! Nothing rounds inwards: inputs in different blocks are taken apart to the finest one, which is exact, and only
//! the result grows to larger blocks, which can only widen it.

use super::format::{Header, Identity};
use super::stream::{CHUNK, Source, set_bits, trim};
use crate::base::{BlockSize, Class, Error, Id, Result};

/// A map that is read from somewhere.
pub type Boxed = Box<dyn Source>;

/// What two or more maps are combined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Dirty in any.
    Or,
    /// Dirty in all.
    And,
    /// Dirty in the first and in no other.
    Sub,
    /// Dirty in an odd number of them.
    Xor,
}

/// Disagreements of inputs that a person has said to override.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Force {
    /// Maps of different volumes.
    pub volume: bool,
    /// Relative to different generations.
    pub generation: bool,
    /// Different sizes: the result is as large as the largest, a smaller one is clean beyond its end.
    pub size: bool,
    /// Dirty blocks that would be cut off.
    pub cut: bool,
}

/// What is agreed on by all: an id that only some have is taken from these; where it is overridden, none.
fn agree(what: &str, key: &str, ids: impl Iterator<Item = Id>, forced: bool) -> Result<Id> {
    let mut agreed = Id::NONE;
    for id in ids.filter(|id| !id.is_none()) {
        if !agreed.is_none() && agreed != id {
            if forced {
                return Ok(Id::NONE);
            }
            let text = format!("{what}: checking that they belong together: of {key} {agreed} and of {id}");
            return Err(Error::new(Class::Damaged, text).hint(format!("the same with --force={key}")));
        }
        agreed = id;
    }
    Ok(agreed)
}

/// Combines maps. The blocks of the result are the largest of the inputs', or `block`. Classes: `Damaged` where
/// they disagree and it is not forced, `Usage` for a result with more blocks than a map holds.
pub fn combine(op: Op, inputs: Vec<Boxed>, block: Option<BlockSize>, force: Force) -> Result<Boxed> {
    let what = match op {
        Op::Or => "or",
        Op::And => "and",
        Op::Sub => "sub",
        Op::Xor => "xor",
    };
    let headers: Vec<Header> = inputs.iter().map(|input| input.header().clone()).collect();
    let volume = agree(what, "volume", headers.iter().map(|h| h.identity.volume), force.volume)?;
    let generation = agree(what, "generation", headers.iter().map(|h| h.generation), force.generation)?;
    let leg = agree(what, "leg", headers.iter().map(|h| h.identity.leg), true)?;
    let identities = || headers.iter().map(|h| h.identity);
    let (smallest, size) = (identities().map(|i| i.size).min(), identities().map(|i| i.size).max());
    let (Some(smallest), Some(size)) = (smallest, size) else {
        return Err(Error::new(Class::Usage, format!("{what}: combining maps: none is given")));
    };
    if smallest != size && !force.size {
        let text =
            format!("{what}: checking that they belong together: of {smallest} bytes and of {size} bytes");
        return Err(Error::new(Class::Damaged, text).hint("the same with --force=size"));
    }
    let finest = identities().map(|i| i.block).min().unwrap_or(BlockSize::DEFAULT);
    let coarsest = identities().map(|i| i.block).max().unwrap_or(BlockSize::DEFAULT);
    let identity = Identity { volume, leg, size, block: finest };
    identity.check(what)?;
    let mut parts = Vec::with_capacity(inputs.len());
    for input in inputs {
        parts.push(split(input, finest)?);
    }
    let header = Header::new(identity, generation);
    let combined = Combined { op, header, parts, other: vec![0; CHUNK] };
    rescale(Box::new(combined), block.unwrap_or(coarsest))
}

struct Combined {
    op: Op,
    header: Header,
    parts: Vec<Boxed>,
    other: Vec<u64>,
}

impl Source for Combined {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        for words in words.chunks_mut(CHUNK) {
            let other = &mut self.other[..words.len()];
            for (at, part) in self.parts.iter_mut().enumerate() {
                if at == 0 {
                    part.fill(words)?;
                    continue;
                }
                part.fill(other)?;
                let pairs = words.iter_mut().zip(&*other);
                match self.op {
                    Op::Or => pairs.for_each(|(a, b)| *a |= b),
                    Op::And => pairs.for_each(|(a, b)| *a &= b),
                    Op::Sub => pairs.for_each(|(a, b)| *a &= !b),
                    Op::Xor => pairs.for_each(|(a, b)| *a ^= b),
                }
            }
        }
        Ok(())
    }
}

/// The same map in other blocks: larger ones are dirty where any part of them is, smaller ones where the whole
/// was.
pub fn rescale(input: Boxed, block: BlockSize) -> Result<Boxed> {
    if block > input.header().identity.block { grow(input, block) } else { split(input, block) }
}

fn in_blocks(input: &Boxed, block: BlockSize) -> Result<Header> {
    let old = input.header();
    let identity = Identity { block, ..old.identity };
    identity.check("map")?;
    Ok(Header::new(identity, old.generation))
}

fn split(input: Boxed, block: BlockSize) -> Result<Boxed> {
    let shift = input.header().identity.block.shift().saturating_sub(block.shift());
    if shift == 0 {
        return Ok(input);
    }
    let header = in_blocks(&input, block)?;
    Ok(Box::new(Split { header, input, shift, word: 0, coarse: vec![0; CHUNK], first: 0, loaded: 0 }))
}

/// Each bit of the input stands `1 << shift` times in the output.
struct Split {
    header: Header,
    input: Boxed,
    shift: u32,
    word: u64,
    /// Words of the input from word `first` on, `loaded` of them.
    coarse: Vec<u64>,
    first: u64,
    loaded: u64,
}

impl Source for Split {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        for word in &mut *words {
            let bit = (self.word * 64) >> self.shift;
            if bit / 64 >= self.first + self.loaded {
                self.first += self.loaded;
                self.input.fill(&mut self.coarse)?;
                self.loaded = self.coarse.len() as u64;
            }
            let from = self.coarse[(bit / 64 - self.first) as usize] >> (bit % 64);
            *word = if self.shift >= 6 { (from & 1).wrapping_neg() } else { spread(from, self.shift) };
            self.word += 1;
        }
        trim(words, self.word - words.len() as u64, self.header.identity.blocks());
        Ok(())
    }
}

/// The lowest bits of a word, each repeated `1 << shift` times.
fn spread(bits: u64, shift: u32) -> u64 {
    let each = 1u32 << shift;
    if bits == 0 {
        return 0;
    }
    let ones = (1u64 << each) - 1;
    (0..64 / each).filter(|at| bits >> at & 1 == 1).fold(0, |word, at| word | ones << (at * each))
}

fn grow(input: Boxed, block: BlockSize) -> Result<Boxed> {
    let shift = block.shift() - input.header().identity.block.shift();
    let header = in_blocks(&input, block)?;
    Ok(Box::new(Grow { header, input, shift, fine: vec![0; CHUNK] }))
}

/// A bit of the output stands for `1 << shift` bits of the input.
struct Grow {
    header: Header,
    input: Boxed,
    shift: u32,
    fine: Vec<u64>,
}

impl Source for Grow {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        words.fill(0);
        let total = words.len() << self.shift;
        let mut at = 0;
        while at < total {
            let here = (total - at).min(CHUNK);
            let fine = &mut self.fine[..here];
            self.input.fill(fine)?;
            for (at, word) in (at..).zip(fine).filter(|(_, word)| **word != 0) {
                let bit = (at * 64) >> self.shift;
                words[bit / 64] |= gather(*word, self.shift) << (bit % 64);
            }
            at += here;
        }
        Ok(())
    }
}

/// One bit for each `1 << shift` bits of a word: whether any of them is set.
fn gather(word: u64, shift: u32) -> u64 {
    if shift >= 6 {
        return u64::from(word != 0);
    }
    let each = 1u32 << shift;
    let ones = (1u64 << each) - 1;
    (0..64 / each).fold(0, |bits, at| bits | u64::from(word >> (at * each) & ones != 0) << at)
}

/// The complement.
pub fn invert(input: Boxed) -> Boxed {
    let header = Header::new(input.header().identity, input.header().generation);
    Box::new(Invert { header, input, word: 0 })
}

struct Invert {
    header: Header,
    input: Boxed,
    word: u64,
}

impl Source for Invert {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        self.input.fill(words)?;
        for word in &mut *words {
            *word = !*word;
        }
        trim(words, self.word, self.header.identity.blocks());
        self.word += words.len() as u64;
        Ok(())
    }
}

fn cut_off(what: &str, size: u64) -> Error {
    let text = format!("{what}: making it {size} bytes: dirty blocks would be cut off");
    Error::new(Class::Refused, text).hint("the same with --force=cut")
}

/// The map of a volume that was resized: what is new is dirty. Class `Refused`, at the end of the source, if
/// dirty blocks are cut off and that is not forced.
pub fn resize(input: Boxed, size: u64, force: Force) -> Result<Boxed> {
    let old = input.header();
    let identity = Identity { size, ..old.identity };
    identity.check("resize")?;
    let new_from = if size > old.identity.size { identity.block.index(old.identity.size) } else { u64::MAX };
    let mut shifted = shift_to(input, 0, 0, size, "resize", force);
    shifted.dirty_from = new_from;
    Ok(Box::new(shifted))
}

/// The map of a volume whose bytes moved by `by`: of a partition that is looked at as a part of its disk, or the
/// reverse. Where `by` is no multiple of the block, marks widen. The result has `size` bytes, by default as many
/// more or less as the marks move. Class `Refused` as [`resize`].
pub fn shift(input: Boxed, by: i64, size: Option<u64>, force: Force) -> Result<Boxed> {
    let old = input.header().identity;
    let moved = old.size.checked_add_signed(by);
    let size = size.or(moved).ok_or_else(|| {
        Error::new(Class::Usage, format!("shift: moving {} bytes by {by}: nothing is left", old.size))
    })?;
    Identity { size, ..old }.check("shift")?;
    let block = old.block.bytes().cast_signed();
    let (whole, rest) = (by.div_euclid(block), by.rem_euclid(block));
    Ok(Box::new(shift_to(input, whole, rest.cast_unsigned(), size, "shift", force)))
}

/// Moves marks by `whole` blocks and `rest` bytes.
fn shift_to(input: Boxed, whole: i64, rest: u64, size: u64, what: &'static str, force: Force) -> Shift {
    let old = input.header().clone();
    let identity = Identity { size, ..old.identity };
    let block = i128::from(old.identity.block.bytes());
    let by = i128::from(whole) * block + i128::from(rest);
    // Blocks that begin before the first byte of the result, and from the first on that ends after its last.
    let keep_from = (-by).max(0).div_euclid(block) + i128::from((-by).max(0).rem_euclid(block) != 0);
    let keep_to = if i128::from(old.identity.size) + by > i128::from(size) {
        (i128::from(size) - by).max(0) / block
    } else {
        i128::MAX
    };
    let clamp = |n: i128| u64::try_from(n).unwrap_or(u64::MAX);
    Shift {
        header: Header::new(identity, old.generation),
        total: old.identity.bits_len() / 8,
        input,
        what,
        cut: force.cut,
        keep: clamp(keep_from)..clamp(keep_to),
        dilate: rest != 0,
        narrow: {
            let last = old.identity.blocks() - 1;
            let len = old.identity.size - last * old.identity.block.bytes();
            if len + rest <= old.identity.block.bytes() { last } else { u64::MAX }
        },
        skip: whole,
        dirty_from: u64::MAX,
        word: 0,
        read: 0,
        carry: 0,
        buffer: vec![0; CHUNK],
        at: CHUNK,
        last: 0,
        begun: false,
    }
}

struct Shift {
    header: Header,
    input: Boxed,
    what: &'static str,
    /// Whether dirty blocks outside `keep` may go.
    cut: bool,
    /// Blocks of the input that lie inside the result as a whole.
    keep: std::ops::Range<u64>,
    /// Whether a mark covers the block after it too.
    dilate: bool,
    /// The last block of the input, if it is so short that it does not.
    narrow: u64,
    /// Blocks that marks move by.
    skip: i64,
    /// Blocks of the result from this one on are new and dirty.
    dirty_from: u64,
    /// Next word of the output.
    word: u64,
    /// Words taken from the input, of `total`.
    read: u64,
    total: u64,
    /// The highest bit of the input's last word, where marks widen.
    carry: u64,
    buffer: Vec<u64>,
    at: usize,
    /// The input's last word as it was given out.
    last: u64,
    begun: bool,
}

impl Shift {
    /// The next word of the input, checked and widened.
    fn next(&mut self) -> Result<u64> {
        if self.at == self.buffer.len() {
            self.input.fill(&mut self.buffer)?;
            self.at = 0;
        }
        let word = self.buffer[self.at];
        self.at += 1;
        let first = self.read * 64;
        self.read += 1;
        if word != 0 && !self.cut {
            let mut kept = [u64::MAX];
            let inside = |block: u64| block.saturating_sub(first).min(64);
            super::stream::clear_bits(&mut kept, 0..inside(self.keep.start));
            super::stream::clear_bits(&mut kept, inside(self.keep.end)..64);
            if word & !kept[0] != 0 {
                return Err(cut_off(self.what, self.header.identity.size));
            }
        }
        if !self.dilate {
            return Ok(word);
        }
        let narrow = if self.narrow / 64 == first / 64 { 1 << (self.narrow % 64) } else { 0 };
        let reaching = word & !narrow;
        let wide = word | reaching << 1 | self.carry;
        self.carry = reaching >> 63;
        Ok(wide)
    }
}

impl Source for Shift {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        // The output's bit i is the input's bit i - skip: of the words i / 64 - whole, and the one before.
        let (whole, bits) = (self.skip.div_euclid(64), self.skip.rem_euclid(64) as u32);
        if !self.begun {
            self.begun = true;
            for _ in 0..(-whole).max(0) {
                self.last = self.next()?;
            }
        }
        let first = self.word;
        for word in &mut *words {
            let source = self.word.cast_signed() - whole;
            let here = if source >= 0 { self.next()? } else { 0 };
            *word = if bits == 0 { here } else { here << bits | self.last >> (64 - bits) };
            self.last = here;
            self.word += 1;
        }
        let blocks = self.header.identity.blocks();
        let end = self.word * 64;
        if self.dirty_from < end && self.dirty_from < blocks {
            set_bits(words, self.dirty_from.max(first * 64) - first * 64..end - first * 64);
        }
        trim(words, first, blocks);
        if end >= blocks {
            // What is left of the input is looked at before the last words are given out.
            while self.read < self.total {
                self.next()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ops_tests.rs"]
mod tests;
