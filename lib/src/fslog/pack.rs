//! Variable fields of a frame: little-endian numbers and strings with their length before them.

use crate::base::{Class, Error, Result};
use crate::device::fields::{get_u32, get_u64};

/// Packs fields, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Pack(pub Vec<u8>);

impl Pack {
    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.u64(value.cast_unsigned())
    }

    /// Bytes of a length that the format fixes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string: its length in four bytes, then itself.
    pub fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }
}

/// Reads fields back. Everything that does not fit is class `Damaged` and names the object.
#[derive(Clone, Copy, Debug)]
pub struct Unpack<'a> {
    object: &'a str,
    rest: &'a [u8],
}

impl<'a> Unpack<'a> {
    /// The fields of one frame of `object`.
    pub fn new(object: &'a str, bytes: &'a [u8]) -> Self {
        Self { object, rest: bytes }
    }

    /// An error of class `Damaged` about this object.
    pub fn damaged(&self, what: &str) -> Error {
        Error::new(Class::Damaged, format!("{}: reading a frame: {what}", self.object))
    }

    /// Bytes of a length that the format fixes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.damaged(&format!("it ends {} bytes early", len - self.rest.len())));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.raw(1)?[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(get_u32(self.raw(4)?, 0))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(get_u64(self.raw(8)?, 0))
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(self.u64()?.cast_signed())
    }

    /// Thirty-two bytes.
    pub fn digest(&mut self) -> Result<super::Digest> {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.raw(32)?);
        Ok(super::Digest(digest))
    }

    /// A string of at most `max` bytes.
    pub fn string(&mut self, max: usize) -> Result<&'a [u8]> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(self.damaged(&format!("a string of {len} bytes, at most {max}")));
        }
        self.raw(len)
    }

    /// A range of bytes of a file.
    pub fn range(&mut self) -> Result<std::ops::Range<u64>> {
        let (start, end) = (self.u64()?, self.u64()?);
        if start < end { Ok(start..end) } else { Err(self.damaged(&format!("the range {start}..{end}"))) }
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(self.damaged(&format!("{more} bytes too many"))),
        }
    }
}
