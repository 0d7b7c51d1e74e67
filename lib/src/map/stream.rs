//! Maps from front to back: 64-bit words in pieces that fit into a cache, whatever the size of the volume.

use super::format::{BITS_AT, Durability, HEADER_LEN, Header, Identity};
use crate::base::{BlockSize, Class, Error, Result};
use crate::device::lock::open_locked;
use crate::device::{Output, boot_id};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Words of one piece: 256 KiB, so that the pieces of several maps stay in a core's cache.
pub const CHUNK: usize = 1 << 15;

/// A map that is read once, from front to back.
pub trait Source: Send {
    /// What it is a map of.
    fn header(&self) -> &Header;

    /// The next words, as many as fit; past the volume they are zero. Bits past the volume are zero too.
    fn fill(&mut self, words: &mut [u64]) -> Result<()>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn header(&self) -> &Header {
        (**self).header()
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        (**self).fill(words)
    }
}

/// A map whose words are in memory.
#[derive(Clone, Debug)]
pub struct SetSource {
    header: Header,
    words: Vec<u64>,
    at: usize,
}

impl SetSource {
    /// A map of these words; missing ones are zero, bits past the volume are ignored.
    pub fn new(header: Header, mut words: Vec<u64>) -> Self {
        words.resize((header.identity.bits_len() / 8) as usize, 0);
        trim(&mut words, 0, header.identity.blocks());
        Self { header, words, at: 0 }
    }

    /// The same from its beginning.
    #[must_use]
    pub fn rewound(self) -> Self {
        Self { at: 0, ..self }
    }
}

impl Source for SetSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        let rest = &self.words[self.at..];
        let here = rest.len().min(words.len());
        words[..here].copy_from_slice(&rest[..here]);
        words[here..].fill(0);
        self.at += here;
        Ok(())
    }
}

/// Sets the bits of a range.
pub fn set_bits(words: &mut [u64], range: Range<u64>) {
    each_word(words, range, |word, mask| *word |= mask);
}

/// Clears the bits of a range.
pub fn clear_bits(words: &mut [u64], range: Range<u64>) {
    each_word(words, range, |word, mask| *word &= !mask);
}

fn each_word(words: &mut [u64], range: Range<u64>, change: impl Fn(&mut u64, u64)) {
    if range.is_empty() {
        return;
    }
    let (first, last) = ((range.start / 64) as usize, ((range.end - 1) / 64) as usize);
    let low = u64::MAX << (range.start % 64);
    let high = u64::MAX >> (63 - (range.end - 1) % 64);
    if first == last {
        return change(&mut words[first], low & high);
    }
    change(&mut words[first], low);
    words[first + 1..last].iter_mut().for_each(|word| change(word, u64::MAX));
    change(&mut words[last], high);
}

/// Clears what lies at or beyond block `blocks`; `words` begin with word `first` of the map.
pub fn trim(words: &mut [u64], first: u64, blocks: u64) {
    let len = words.len() as u64 * 64;
    let inside = blocks.saturating_sub(first * 64).min(len);
    clear_bits(words, inside..len);
}

/// Where the bytes of a map come from.
enum Input {
    /// A locked file. What lies before `hole_until` reads as zeroes, what lies before `data_until` is data.
    File { file: File, at: u64, hole_until: u64, data_until: u64 },
    /// Anything else.
    Stream(Box<dyn Read + Send>),
}

/// A map file, or a stream of the same bytes.
pub struct MapReader {
    name: String,
    header: Header,
    input: Input,
    word: u64,
    bytes: Vec<u8>,
    doubted: bool,
}

impl MapReader {
    /// Opens a map file that nobody has in use. Classes: `Busy` if somebody has, `Damaged` if it is not a whole
    /// map.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = open_locked(path, false)?;
        let header = super::file::read_header(&file, &name)?;
        Ok(Self::new(name, header, Input::File { file, at: BITS_AT, hole_until: 0, data_until: 0 }))
    }

    /// Reads a map file that the caller has locked.
    pub(super) fn open_held(file: &File, name: &str) -> Result<Self> {
        let header = super::file::read_header(file, name)?;
        let file = file.try_clone().map_err(|e| Error::io(name, "opening it again", e))?;
        Ok(Self::new(name.into(), header, Input::File { file, at: BITS_AT, hole_until: 0, data_until: 0 }))
    }

    /// Reads a map from a stream; `name` stands in messages.
    pub fn stream(name: &str, mut stream: Box<dyn Read + Send>) -> Result<Self> {
        let mut bytes = [0; BITS_AT as usize];
        let found = read_up_to(&mut stream, &mut bytes).map_err(|e| Error::io(name, "reading it", e))?;
        if found < bytes.len() {
            return Err(short(name, found as u64, BITS_AT));
        }
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&bytes[..HEADER_LEN]);
        let header = Header::decode(name, &head)?;
        Ok(Self::new(name.to_owned(), header, Input::Stream(stream)))
    }

    fn new(name: String, header: Header, input: Input) -> Self {
        let believed = header.clean
            || header.durability == Durability::Power
            || (header.boot == boot_id() && !header.boot.is_none());
        Self { name, header, input, word: 0, bytes: Vec::new(), doubted: !believed }
    }

    /// Whether its bits are not believed: it was in use when the machine went down, and counts as all dirty
    /// (`mirror-formats(5)`).
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, len: usize) -> Result<()> {
        self.bytes.resize(len, 0);
        match &mut self.input {
            Input::Stream(stream) => {
                let found = read_up_to(stream, &mut self.bytes)
                    .map_err(|e| Error::io(&self.name, "reading it", e))?;
                if found < len {
                    let is = BITS_AT + self.word * 8 + found as u64;
                    return Err(short(&self.name, is, self.header.identity.file_len()));
                }
                Ok(())
            }
            Input::File { file, at, hole_until, data_until } => {
                let mut done = 0;
                while done < len {
                    if *at >= *hole_until && *at >= *data_until {
                        (*hole_until, *data_until) = extent(file, *at);
                    }
                    let hole = *at < *hole_until;
                    let until = if hole { *hole_until } else { *data_until };
                    let piece = (len - done).min(usize::try_from(until - *at).unwrap_or(usize::MAX));
                    let part = &mut self.bytes[done..done + piece];
                    if hole {
                        part.fill(0);
                    } else {
                        file.read_exact_at(part, *at).map_err(|e| Error::io(&self.name, "reading it", e))?;
                    }
                    *at += piece as u64;
                    done += piece;
                }
                Ok(())
            }
        }
    }
}

impl Source for MapReader {
    fn header(&self) -> &Header {
        &self.header
    }

    fn fill(&mut self, words: &mut [u64]) -> Result<()> {
        let identity = self.header.identity;
        let left = identity.bits_len() / 8 - self.word.min(identity.bits_len() / 8);
        let here = (words.len() as u64).min(left) as usize;
        self.read(here * 8)?;
        for (word, bytes) in words.iter_mut().zip(self.bytes.chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        words[here..].fill(0);
        if self.doubted {
            words.fill(u64::MAX);
        }
        if self.word + here as u64 == identity.bits_len() / 8 {
            trim(words, self.word, identity.blocks());
        }
        self.word += here as u64;
        Ok(())
    }
}

/// The hole or the data at `at`: both ends, one of them past `at`.
fn extent(file: &File, at: u64) -> (u64, u64) {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) if data > at => (data, 0),
        Err(Errno::NXIO) => (u64::MAX, 0),
        Ok(_) => match rustix::fs::seek(file, SeekFrom::Hole(at)) {
            Ok(hole) if hole > at => (0, hole),
            _ => (0, u64::MAX),
        },
        Err(_) => (0, u64::MAX),
    }
}

/// Reads until the buffer is full or the stream ends.
fn read_up_to(stream: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut found = 0;
    while found < buf.len() {
        match stream.read(&mut buf[found..]) {
            Ok(0) => break,
            Ok(n) => found += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn short(name: &str, len: u64, needed: u64) -> Error {
    let message = format!("{name}: checking its length: it has {len} bytes, expected {needed}");
    Error::new(Class::Damaged, message)
}

/// Writes a map: the header of the source, clean and never used, and its words. The last piece is written only
/// when the source has been read to its end, so that a failure leaves a map that is noticed to be cut.
pub fn write_map(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let header = source.header();
    let header = Header::new(header.identity, header.generation);
    let mut head = [0; BITS_AT as usize];
    head[..HEADER_LEN].copy_from_slice(&header.encode());
    out.put(&head)?;
    let mut bytes = Vec::new();
    each_chunk(source, &mut |words, _| {
        if words.iter().all(|word| *word == 0) {
            return out.put_zeroes(words.len() as u64 * 8);
        }
        bytes.resize(words.len() * 8, 0);
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out.put(&bytes)
    })
}

/// Reads a source to its end: pieces of words, and the number of the first of each.
pub fn each_chunk(source: &mut dyn Source, take: &mut dyn FnMut(&[u64], u64) -> Result<()>) -> Result<()> {
    let total = source.header().identity.bits_len() / 8;
    let mut words = vec![0; CHUNK.min(total as usize)];
    let mut at = 0;
    while at < total {
        let here = (total - at).min(CHUNK as u64) as usize;
        source.fill(&mut words[..here])?;
        take(&words[..here], at)?;
        at += here as u64;
    }
    Ok(())
}

/// Calls `take` with every run of neighbouring dirty blocks, in order, none touching another.
pub fn each_run(source: &mut dyn Source, take: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
    let mut runs = Runs::default();
    let blocks = source.header().identity.blocks();
    each_chunk(source, &mut |words, first| runs.words(words, first, take))?;
    runs.end(blocks, take)
}

/// Finds runs in words that come piece by piece.
#[derive(Debug, Default)]
struct Runs {
    open: Option<u64>,
}

impl Runs {
    /// Words from number `first` on, which follow those before.
    fn words(
        &mut self,
        words: &[u64],
        first: u64,
        take: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        for (at, word) in (first..).zip(words) {
            let (mut at, mut word, mut left) = (at * 64, *word, 64);
            // Whole words in the middle of a run, or between two, cost nothing more.
            if word == if self.open.is_some() { u64::MAX } else { 0 } {
                continue;
            }
            while left > 0 {
                let same = match self.open {
                    Some(_) => (!word).trailing_zeros(),
                    None => word.trailing_zeros(),
                }
                .min(left);
                at += u64::from(same);
                left -= same;
                if left == 0 {
                    break;
                }
                word >>= same;
                match self.open.take() {
                    Some(start) => take(start..at)?,
                    None => self.open = Some(at),
                }
            }
        }
        Ok(())
    }

    /// The last run.
    fn end(self, blocks: u64, take: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        match self.open {
            Some(start) => take(start..blocks),
            None => Ok(()),
        }
    }
}

/// A [`Tally`] of words that pass.
#[derive(Debug)]
pub struct RunTally {
    identity: Identity,
    runs: Runs,
    first: u64,
    tally: Tally,
}

impl RunTally {
    /// Nothing has passed.
    pub fn new(identity: Identity) -> Self {
        Self { identity, runs: Runs::default(), first: 0, tally: Tally::default() }
    }

    /// The next words; what is past the volume is not looked at.
    pub fn words(&mut self, words: &[u64]) {
        let left = self.identity.bits_len() / 8 - self.first.min(self.identity.bits_len() / 8);
        let words = &words[..words.len().min(left as usize)];
        let Self { identity, runs, tally, .. } = self;
        // Counting does not fail.
        let _ = runs.words(words, self.first, &mut |run| {
            tally.add(&run, identity.size, identity.block);
            Ok(())
        });
        self.first += words.len() as u64;
    }

    /// What has passed.
    pub fn finish(self) -> Tally {
        let Self { identity, runs, mut tally, .. } = self;
        let _ = runs.end(identity.blocks(), &mut |run| {
            tally.add(&run, identity.size, identity.block);
            Ok(())
        });
        tally
    }
}

/// The whole map in memory, for what is not done from front to back.
pub fn load(source: &mut dyn Source) -> Result<super::BlockSet> {
    let mut words = Vec::new();
    each_chunk(source, &mut |chunk, _| {
        words.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(super::BlockSet::from_words(words, source.header().identity.blocks()))
}

/// How many blocks are dirty, in how many runs, and the longest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Exactly so many bytes; the last block may be short.
    pub bytes: u64,
    /// Dirty blocks.
    pub blocks: u64,
    /// Runs of neighbouring dirty blocks.
    pub runs: u64,
    /// Bytes of the longest run.
    pub longest: u64,
}

impl Tally {
    /// Takes a run into account.
    pub fn add(&mut self, run: &Range<u64>, size: u64, block: BlockSize) {
        let len = block.range(run, size).len;
        self.bytes += len;
        self.blocks += run.end - run.start;
        self.runs += 1;
        self.longest = self.longest.max(len);
    }
}
