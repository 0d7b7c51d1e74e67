//! `null:`: takes everything and keeps nothing, to see how fast the other end is.

use crate::base::{ByteRange, Result, limits};
use crate::sync::end::{End, Facts, Piece, misuse};

/// A target that keeps nothing.
#[derive(Debug)]
pub struct NullEnd(Facts);

impl NullEnd {
    /// Always there.
    pub fn new(lanes: usize) -> Self {
        Self(Facts {
            name: "null:".into(),
            size: limits::VOLUME_SIZE,
            identity: None,
            read_only: false,
            in_use: None,
            live: false,
            flushes: true,
            zeroes: true,
            tells_zeroes: false,
            hashes: false,
            takes_files: false,
            align: 1,
            request_max: 32 << 20,
            lanes,
        })
    }
}

impl End for NullEnd {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn read(&self, _offset: u64, _buf: &mut Vec<u8>) -> Result<()> {
        Err(misuse(&self.0, "reading", "there is nothing in it"))
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn zero(&self, _range: ByteRange, _punch: bool) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()> {
        pieces.push(Piece { range, zero: false });
        Ok(())
    }
}
