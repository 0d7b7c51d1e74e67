//! The content of a file, read once, in blocks: each is compared with what the base has, and what differs is handed
//! on at once, so that digest and data are of the same read.

use crate::base::limits::CONTENT_BLOCK;
use crate::capture::watch::Watch;
use crate::fslog::Content;
use crate::fslog::content::digest;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// What takes the blocks that differ.
pub trait Changes {
    /// A block with other bytes.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> crate::base::Result<()>;
    /// A block that is all zero now.
    fn hole(&mut self, range: Range<u64>) -> crate::base::Result<()>;
}

/// Takes nothing: for scans.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Changes for Nobody {
    fn data(&mut self, _: u64, _: &[u8]) -> crate::base::Result<()> {
        Ok(())
    }

    fn hole(&mut self, _: Range<u64>) -> crate::base::Result<()> {
        Ok(())
    }
}

/// Why a file could not be read.
#[derive(Debug)]
pub enum Failed {
    /// The file.
    Read(io::Error),
    /// Who takes the changes.
    Taken(crate::base::Error),
}

impl From<crate::base::Error> for Failed {
    fn from(error: crate::base::Error) -> Self {
        Self::Taken(error)
    }
}

/// Reads a file that had `size` bytes when it was looked at. If it has fewer by now, zeroes stand for the rest: its
/// ctime is younger then, and the next scan reads it again.
pub fn read(
    file: BorrowedFd<'_>,
    size: u64,
    base: &Content,
    buffer: &mut Vec<u8>,
    to: &mut dyn Changes,
    watch: &Watch,
) -> Result<Content, Failed> {
    let mut content = Content::default();
    let (mut at, mut told) = (0, 0);
    while at < size {
        watch.check()?;
        watch.add(at - told);
        told = at;
        let start = next_data(file, at, size).map_err(Failed::Read)? / CONTENT_BLOCK * CONTENT_BLOCK;
        at = at.max(start);
        if at >= size {
            break;
        }
        let number = at / CONTENT_BLOCK;
        let found = read_block(file, at, size, buffer).map_err(Failed::Read)?;
        if let Some(found) = found {
            content.push(number, found);
            if base.get(number) != Some(found) {
                to.data(at, buffer)?;
            }
        }
        at += CONTENT_BLOCK;
    }
    watch.add(size - told.min(size));
    for (number, _) in base.blocks() {
        let start = number * CONTENT_BLOCK;
        if start < size && content.get(*number).is_none() {
            to.hole(start..size.min(start + CONTENT_BLOCK))?;
        }
    }
    Ok(content)
}

/// Fills the buffer with the block at `at`, and gives its digest.
pub fn read_block(
    file: BorrowedFd<'_>,
    at: u64,
    size: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<crate::fslog::Digest>> {
    buffer.resize((size - at).min(CONTENT_BLOCK) as usize, 0);
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    buffer[filled..].fill(0);
    Ok(digest(buffer))
}

/// Where the next data is; a file system that does not know has data everywhere.
fn next_data(file: BorrowedFd<'_>, at: u64, size: u64) -> io::Result<u64> {
    // One block is read faster than asked about.
    if size <= CONTENT_BLOCK {
        return Ok(at);
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(size.next_multiple_of(CONTENT_BLOCK)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(at),
        Err(e) => Err(e.into()),
    }
}
