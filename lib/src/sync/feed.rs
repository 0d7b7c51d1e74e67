//! Hands out the work in order: which bytes, and whether the source is known to hold zeroes there.

use super::end::{End, Piece, ZERO_RANGE};
use super::plan::Plan;
use crate::base::{BlockSize, ByteRange, Class, Error, Result};
use crate::delta::DeltaReader;
use std::io::Read;

/// Holes are asked for in windows of so many bytes: one question for many pieces of work.
const WINDOW: u64 = 256 << 20;

/// A piece of work: whole blocks, but for the end of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Its number, from 0 without gaps, in the order of the bytes.
    pub number: u64,
    /// Which bytes.
    pub range: ByteRange,
    /// The source holds zeroes there.
    pub zero: bool,
}

/// The holes of one end, one window at a time.
#[derive(Debug, Default)]
pub struct Holes {
    window: ByteRange,
    pieces: Vec<Piece>,
}

impl Holes {
    /// How many bytes from `at` on, at most `most`, are of one kind, and which. Zeroes count in whole blocks only.
    pub fn at(
        &mut self,
        end: &dyn End,
        at: u64,
        most: u64,
        block: BlockSize,
        size: u64,
    ) -> Result<(u64, bool)> {
        if !end.facts().tells_zeroes {
            return Ok((most, false));
        }
        if at < self.window.offset || at >= self.window.end() {
            self.pieces.clear();
            self.window = ByteRange { offset: at, len: WINDOW.min(size - at) };
            end.extents(self.window, &mut self.pieces)?;
        }
        let most = most.min(self.window.end() - at);
        let first = self.pieces.partition_point(|piece| piece.range.end() <= at);
        let here = |piece: &Piece| {
            let end = piece.range.end().min(at + most);
            // The last block may be short.
            if end == size { end } else { end - end % block.bytes() }
        };
        match self.pieces.get(first) {
            Some(piece) if piece.zero && here(piece) > at => Ok((here(piece) - at, true)),
            Some(_) => {
                // Data up to the next whole block of zeroes.
                let zero = self.pieces[first..].iter().filter(|piece| piece.zero).find_map(|piece| {
                    let begins = piece.range.offset.max(at).next_multiple_of(block.bytes());
                    (begins > at && here(piece) > begins).then_some(begins)
                });
                Ok((zero.map_or(most, |zero| (zero - at).min(most)), false))
            }
            None => Ok((most, false)),
        }
    }
}

/// Work over a device that can be read anywhere.
#[derive(Debug)]
pub struct Feed<'a> {
    plan: &'a Plan,
    source: &'a dyn End,
    holes: Holes,
    at: u64,
    number: u64,
    step: u64,
    zero_step: u64,
}

impl<'a> Feed<'a> {
    /// Work of at most `step` bytes where there is data, which is rounded up to whole blocks.
    pub fn new(plan: &'a Plan, source: &'a dyn End, step: u64, zero_step: u64) -> Self {
        let block = plan.block.bytes();
        let (step, zero_step) = (step.next_multiple_of(block), zero_step.min(ZERO_RANGE).max(block));
        Self { plan, source, holes: Holes::default(), at: 0, number: 0, step, zero_step }
    }

    /// The next piece of work.
    pub fn take(&mut self) -> Result<Option<Work>> {
        let Some(run) = self.plan.next(self.at) else { return Ok(None) };
        let (block, size) = (self.plan.block, self.plan.size);
        let most = run.len.min(self.zero_step);
        let (len, zero) = match self.plan.zeroes {
            super::plan::Zeroes::Off => (run.len, false),
            _ => self.holes.at(self.source, run.offset, most, block, size)?,
        };
        // Pieces end at multiples of the step, so that reads are aligned however the work begins.
        let until = if zero { run.offset + len } else { (run.offset / self.step + 1) * self.step };
        let range = ByteRange { offset: run.offset, len: len.min(until - run.offset) };
        self.at = range.end();
        self.number += 1;
        Ok(Some(Work { number: self.number - 1, range, zero }))
    }
}

/// Work that comes out of a delta, every record of which was checked.
pub struct Records<'a> {
    reader: DeltaReader<Box<dyn Read + Send + 'a>>,
    number: u64,
}

impl<'a> Records<'a> {
    /// The records that follow the header.
    pub const fn new(reader: DeltaReader<Box<dyn Read + Send + 'a>>) -> Self {
        Self { reader, number: 0 }
    }

    /// The next record, its data in `buf`.
    pub fn take(&mut self, buf: &mut Vec<u8>) -> Result<Option<Work>> {
        let Some(found) = self.reader.next(buf)? else { return Ok(None) };
        self.number += 1;
        Ok(Some(Work { number: self.number - 1, range: found.range, zero: found.zero }))
    }
}

/// Work that comes out of a stream in order: its bytes are read where it is handed out.
pub struct Stream<'a> {
    input: Box<dyn Read + Send + 'a>,
    name: String,
    at: u64,
    number: u64,
    step: usize,
    /// Most bytes that the target takes.
    most: u64,
}

impl<'a> Stream<'a> {
    /// A stream of unknown length, at most `most` bytes, in pieces of `step` bytes.
    pub fn new(input: Box<dyn Read + Send + 'a>, name: &str, step: usize, most: u64) -> Self {
        Self { input, name: name.to_owned(), at: 0, number: 0, step, most }
    }

    /// The next piece of work with its bytes. Class `Refused` if the stream is longer than the target.
    pub fn take(&mut self, buf: &mut Vec<u8>) -> Result<Option<Work>> {
        buf.resize(self.step, 0);
        let mut filled = 0;
        while filled < buf.len() {
            match self.input.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(&self.name, "reading", error)),
            }
        }
        buf.truncate(filled);
        let range = ByteRange { offset: self.at, len: filled as u64 };
        if range.end() > self.most {
            let text = format!("{}: reading: more than the {} bytes of the target", self.name, self.most);
            return Err(Error::new(Class::Io, text));
        }
        if range.is_empty() {
            return Ok(None);
        }
        self.at = range.end();
        self.number += 1;
        Ok(Some(Work { number: self.number - 1, range, zero: false }))
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
