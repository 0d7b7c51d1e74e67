//! A local leg: a file or a block device, opened once, locked, never created.

use super::{check_not_in_use, lock};
use crate::base::{ByteRange, Class, Error, Result};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Zeroes are written in pieces of this size where the file system cannot make them: bounds the buffer.
pub const ZERO_CHUNK: usize = 1 << 20;
static ZEROES: [u8; ZERO_CHUNK] = [0; ZERO_CHUNK];

/// A piece of a file: data, or a hole that reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Whether it is a hole.
    pub hole: bool,
}

/// An open leg. The data path takes `&self` and returns the operating system's own error, so that the caller
/// can tell ENOSPC from EIO; calls from several threads do not disturb each other.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    size: u64,
    block: bool,
    /// Its file system is tmpfs, which looks for a hole by going through all pages up to the next one.
    tmpfs: bool,
    /// What this file system has been seen to refuse is not tried again.
    no_punch: AtomicBool,
    no_zero_range: AtomicBool,
}

impl FileDevice {
    /// Opens an existing file or block device and locks it: exclusively to write (a block device also with
    /// `O_EXCL`), shared to read.
    ///
    /// Classes: `Io` if it is missing or unreadable, `Usage` if it is neither a file nor a block device,
    /// `Refused` if it is to be written and mounted or otherwise in use, `Busy` if another process holds it.
    pub fn open(path: &Path, write: bool) -> Result<Self> {
        if write {
            check_not_in_use(path)?;
        }
        Self::open_as(path, write, write)
    }

    /// The same, mounted or not: for a person who has named what is overridden. The lock still holds.
    pub fn open_forced(path: &Path, write: bool) -> Result<Self> {
        Self::open_as(path, write, false)
    }

    /// Opens it to read what somebody else may be writing to: without a lock, which could not be had.
    pub fn open_unlocked(path: &Path) -> Result<Self> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed())
            .open(path)
            .map_err(|e| Error::io(path.display(), "opening it", e))?;
        Self::of(opened, path)
    }

    fn open_as(path: &Path, write: bool, claim: bool) -> Result<Self> {
        use rustix::fs::OFlags;
        let fail = |doing: &str, e: io::Error| Error::io(path.display(), doing, e);
        // NONBLOCK: a FIFO must be refused, not waited for; it means nothing to files and block devices.
        // EXCL without CREAT claims a block device (open(2)); it is asked for on nothing else.
        let is_block = std::fs::metadata(path).map_err(|e| fail("opening it", e))?.file_type();
        let excl = if claim && is_block.is_block_device() { OFlags::EXCL } else { OFlags::empty() };
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | excl).bits().cast_signed();
        let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
        let file = opened.map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::BUSY) => Error::os(Class::Busy, path.display(), "claiming it", e),
            Some(Errno::ISDIR) => Error::os(Class::Usage, path.display(), "opening it", e),
            _ => fail("opening it", e),
        })?;
        let this = Self::of(file, path)?;
        if this.block {
            lock::lock_device(&this.file, path, write)?;
        } else {
            lock::lock(&this.file, path, write)?;
        }
        // Whoever held it before may have changed it.
        let size = size_of(&this.file).map_err(|e| fail("reading its size", e))?;
        Ok(Self { size, ..this })
    }

    fn of(file: File, path: &Path) -> Result<Self> {
        let fail = |doing: &str, e: io::Error| Error::io(path.display(), doing, e);
        let kind = file.metadata().map_err(|e| fail("reading its type", e))?.file_type();
        let block = kind.is_block_device();
        if !block && !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "a special file" };
            return Err(Error::new(
                Class::Usage,
                format!("{}: opening it: {what}, not a file or block device", path.display()),
            ));
        }
        let size = size_of(&file).map_err(|e| fail("reading its size", e))?;
        let (no_punch, no_zero_range) = (AtomicBool::new(false), AtomicBool::new(false));
        // Only what is faster depends on it.
        let tmpfs = !block && rustix::fs::fstatfs(&file).is_ok_and(|system| system.f_type == TMPFS);
        Ok(Self { file, path: path.to_owned(), size, block, tmpfs, no_punch, no_zero_range })
    }

    /// The descriptor, for drivers that queue requests themselves.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes, as of opening.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes, now: a file may have been extended for a volume that grows.
    pub fn current_size(&self) -> io::Result<u64> {
        size_of(&self.file)
    }

    /// Whether it is a block device.
    pub fn is_block(&self) -> bool {
        self.block
    }

    /// Fills `buf` from `offset`. `UnexpectedEof` if it ends before.
    pub fn pread_exact(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Fills `buf` from `offset` if that is in memory; whether it was. Errors and the end of the file: it was not.
    pub fn peek(&self, buf: &mut [u8], offset: u64) -> bool {
        if self.tmpfs {
            // Which knows no `RWF_NOWAIT`, and has nothing to wait for unless it is swapped out.
            return self.pread_exact(buf, offset).is_ok();
        }
        let len = buf.len();
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(&self.file, &mut [io::IoSliceMut::new(buf)], offset, flags) == Ok(len)
    }

    /// Writes all of `data` at `offset`.
    pub fn pwrite_all(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Makes a range read as zeroes. `may_punch` allows a hole; without it the space stays allocated. `fast`
    /// means: at once, or `EOPNOTSUPP` at once; otherwise zeroes are written where nothing faster works.
    /// Never changes the size; a range past the end is the caller's error.
    pub fn zero(&self, range: ByteRange, may_punch: bool, fast: bool) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let keep = FallocateFlags::KEEP_SIZE;
        if may_punch && self.try_zero(range, FallocateFlags::PUNCH_HOLE | keep, &self.no_punch)? {
            return Ok(());
        }
        // On a block device ZERO_RANGE may be the kernel writing zeroes: slow, so not for `fast`.
        if !(fast && self.block)
            && self.try_zero(range, FallocateFlags::ZERO_RANGE | keep, &self.no_zero_range)?
        {
            return Ok(());
        }
        if fast {
            return Err(Errno::OPNOTSUPP.into());
        }
        let mut at = range.offset;
        while at < range.end() {
            let len = (range.end() - at).min(ZERO_CHUNK as u64);
            self.file.write_all_at(&ZEROES[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// One way of zeroing: whether it was done, or is not to be had here.
    fn try_zero(&self, range: ByteRange, how: FallocateFlags, refused: &AtomicBool) -> io::Result<bool> {
        if refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        loop {
            match fallocate(&self.file, how, range.offset, range.len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                    refused.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                // A block device refuses ranges that are not aligned to its sectors; the next may be.
                Err(Errno::INVAL) if self.block => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Makes every write that returned before this call durable (`fdatasync(2)`). An error here means that any
    /// of them may be lost; a later success says nothing about them.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Drops the pages that are clean, so that what is read next comes from the device (`posix_fadvise(2)`): advice,
    /// which a file system in memory cannot take.
    pub fn forget(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Data and holes of `range` in order, adjacent ones of one kind merged; at most `max` of them, so they may
    /// end before the range does. Where the file system cannot tell, all is data.
    pub fn extents(&self, range: ByteRange, max: usize) -> io::Result<Vec<Extent>> {
        if !range.is_empty() && self.is_full_in_memory()? {
            return Ok(vec![Extent { len: range.len, hole: false }]);
        }
        let mut found: Vec<Extent> = Vec::new();
        let mut at = range.offset;
        while at < range.end() {
            let (next, hole) =
                if self.block { (range.end(), false) } else { self.extent_at(at, range.end())? };
            let full = found.len() == max;
            match found.last_mut() {
                Some(last) if last.hole == hole => last.len += next - at,
                _ if full => break,
                _ => found.push(Extent { len: next - at, hole }),
            }
            at = next;
        }
        Ok(found)
    }

    /// Whether it is a file of tmpfs with as much space as it is long, and so without holes.
    fn is_full_in_memory(&self) -> io::Result<bool> {
        if !self.tmpfs {
            return Ok(false);
        }
        let stat = rustix::fs::fstat(&self.file)?;
        Ok(stat.st_blocks.saturating_mul(512) >= stat.st_size)
    }

    /// The end of the extent that holds the byte `at`, and whether it is a hole (`lseek(2)`).
    fn extent_at(&self, at: u64, end: u64) -> io::Result<(u64, bool)> {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok((end, true)),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((end, false)),
            Err(e) => return Err(e.into()),
        };
        if data > at {
            return Ok((data.min(end), true));
        }
        // Another thread may have changed the file in between; progress is made all the same.
        match rustix::fs::seek(&self.file, SeekFrom::Hole(at)) {
            Ok(hole) if hole > at => Ok((hole.min(end), false)),
            Ok(_) | Err(Errno::NXIO) => Ok((end.min(at + 1), false)),
            Err(e) => Err(e.into()),
        }
    }
}

/// The size of a file or block device: the end, as `lseek(2)` finds it. Nothing here uses the position.
fn size_of(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
