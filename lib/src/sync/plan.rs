//! What is to be done, decided from facts alone: no I/O, no clock. `--dry-run` shows what is then performed.

use super::end::Facts;
use crate::base::{BlockSize, ByteRange, Class, Error, Result};
use crate::device::identity::overlap;
use crate::device::writers::OPEN_ELSEWHERE;
use crate::map::BlockSet;

/// Zeroes in the middle of data shorter than this are written as data: a request for each hole costs more.
pub const ZERO_RUN: usize = 32 << 10;
/// Zeroes are looked for in pieces of this size: the block of most file systems.
const GRAIN: usize = 4096;

/// How it is found out what the target lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Everything in the plan is taken to differ.
    Copy,
    /// Both ends are read, or digest themselves.
    Compare,
    /// The source is read, and what the target holds is remembered.
    Remembered,
}

/// What becomes of zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zeroes {
    /// Holes of the source and zeroes in its data become holes.
    #[default]
    Detect,
    /// Holes of the source become holes; its data is not searched.
    Trust,
    /// Zeroes are written as data.
    Off,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of the source.
    pub size: u64,
    /// Bytes that are done or not done as a whole.
    pub block: BlockSize,
    /// How.
    pub method: Method,
    /// The blocks that may differ; all without it.
    pub only: Option<BlockSet>,
    /// What becomes of zeroes.
    pub zeroes: Zeroes,
}

impl Plan {
    /// Bytes that will be looked at.
    pub fn bytes(&self) -> u64 {
        self.only.as_ref().map_or(self.size, |set| set.bytes(self.size, self.block))
    }

    /// The next run of blocks to look at that ends past `at`, beginning at `at` or later.
    pub fn next(&self, at: u64) -> Option<ByteRange> {
        if at >= self.size {
            return None;
        }
        let Some(set) = &self.only else {
            return Some(ByteRange { offset: at, len: self.size - at });
        };
        let run = set.next_run(self.block.index(at), u64::MAX)?;
        let range = self.block.range(&run, self.size);
        let offset = range.offset.max(at);
        Some(ByteRange { offset, len: range.end() - offset })
    }
}

/// What a person has said to override.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// A target that is mounted, or claimed by the kernel.
    pub mounted: bool,
    /// A target that another process has open for writing.
    pub busy: bool,
    /// A target that cannot be flushed: nothing on it will ever be called durable.
    pub unflushed: bool,
    /// A map or a delta of another volume.
    pub foreign: bool,
    /// A source that somebody else writes to.
    pub live: bool,
}

/// Refuses what must not be begun: every reason that can be known before the first byte. `size` is how far the
/// target will be written. Class `Refused`.
pub fn check(source: Option<&Facts>, target: &Facts, size: u64, permit: Permit) -> Result<()> {
    let name = &target.name;
    let refuse = |why: String| Error::new(Class::Refused, format!("{name}: checking the target: {why}"));
    if let Some(source) = source {
        check_other(source, name, target.identity.as_deref())?;
        if let Some(why) = source.in_use.as_ref().filter(|_| source.live && !permit.live) {
            let text = format!("{}: checking the source: it is {why}, and may change meanwhile", source.name);
            return Err(Error::new(Class::Refused, text).hint("the same with --live, or from a snapshot"));
        }
    }
    match target.in_use.as_deref() {
        Some(why) if why == OPEN_ELSEWHERE && !permit.busy => {
            return Err(
                refuse(format!("it is {why}")).hint("the same with --force=busy, if that writes no more")
            );
        }
        Some(why) if why != OPEN_ELSEWHERE && !permit.mounted => return Err(refuse(format!("it is {why}"))),
        _ => {}
    }
    if target.read_only {
        return Err(refuse("it is read-only".into()));
    }
    if target.size < size {
        return Err(refuse(format!("it has {} bytes, {size} are needed", target.size)));
    }
    if !target.flushes && !permit.unflushed {
        let why = "it cannot be flushed, so nothing would be known to be durable";
        return Err(refuse(why.into()).hint("the same with --force=unflushed"));
    }
    Ok(())
}

/// Refuses a target that is the source under the same or another name, or a part of it, or what it is a part of.
pub fn check_other(source: &Facts, target: &str, identity: Option<&str>) -> Result<()> {
    let (Some(is), Some(other)) = (identity, source.identity.as_deref()) else { return Ok(()) };
    if !overlap(is, other) {
        return Ok(());
    }
    let what = if is == other { "the same device as" } else { "on the same storage as" };
    let text = format!("{target}: checking the target: it is {what} {}", source.name);
    Err(Error::new(Class::Refused, text))
}

/// Data cut into what is written and what is zeroes, in order: offsets in `data`, neighbours of different kinds,
/// cut at multiples of `align` (a power of two) at least.
pub fn segments(data: &[u8], zeroes: Zeroes, align: usize) -> Vec<(std::ops::Range<usize>, bool)> {
    if zeroes != Zeroes::Detect {
        return vec![(0..data.len(), false)];
    }
    let mut cut: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
    let step = GRAIN.max(align);
    for (at, grain) in data.chunks(step).enumerate() {
        let zero = is_zero(grain);
        let range = at * step..at * step + grain.len();
        match cut.last_mut() {
            Some((last, is)) if *is == zero => last.end = range.end,
            _ => cut.push((range, zero)),
        }
    }
    if cut.len() == 1 {
        return cut;
    }
    // Short zeroes go with the data around them.
    let mut kept: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
    for (range, zero) in cut {
        let zero = zero && range.len() >= ZERO_RUN;
        match kept.last_mut() {
            Some((last, is)) if *is == zero => last.end = range.end,
            _ => kept.push((range, zero)),
        }
    }
    kept
}

/// Where to look into a range: if none of these places holds zeroes, [`segments`] cuts none out of it. Zeroes that it
/// cuts out fill the range, or [`ZERO_RUN`] bytes, and so a place and what follows it.
pub fn samples(range: ByteRange) -> impl Iterator<Item = u64> {
    (range.offset..range.end()).step_by(ZERO_RUN / 2)
}

/// Whether all bytes are zero. Data is recognised by its first bytes; zeroes are compared with themselves, which
/// the C library does as fast as memory goes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let head = bytes.len().min(16);
    bytes[..head].iter().all(|byte| *byte == 0) && bytes[head..] == bytes[..bytes.len() - head]
}

/// The blocks that differ between two buffers of the same length, merged: offsets in them.
pub fn differences(a: &[u8], b: &[u8], block: usize) -> Vec<std::ops::Range<usize>> {
    let blocks = a.chunks(block).zip(b.chunks(block)).map(|(a, b)| a != b);
    merge(blocks, block, a.len())
}

/// Blocks of `block` bytes that are marked, merged: offsets below `len`.
pub fn merge(marks: impl Iterator<Item = bool>, block: usize, len: usize) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in marks.enumerate().filter(|(_, marked)| *marked) {
        let range = at * block..((at + 1) * block).min(len);
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
