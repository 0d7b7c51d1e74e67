//! A file or a block device of this machine.

use crate::base::{ByteRange, Class, Error, Result};
use crate::device::writers::OPEN_ELSEWHERE;
use crate::device::{FileDevice, check_not_in_use, identity_of, is_open_for_writing};
use crate::sync::end::{End, Facts, Opening, Piece};
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most pieces of data and zeroes that are looked at in one call.
const EXTENTS: usize = 4096;

/// A file or a block device of this machine.
#[derive(Debug)]
pub struct FileEnd {
    file: FileDevice,
    facts: Facts,
    /// Why nothing that was written is known to be durable.
    lost: OnceLock<Error>,
    /// Why nothing more can be written; what was written is there.
    full: OnceLock<Error>,
    /// What lies before this, from where it was last looked at, is data: some file systems look at every page up
    /// to the next hole, so they are not asked twice.
    data_from: AtomicU64,
    data_until: AtomicU64,
}

impl FileEnd {
    /// Opens an existing file or block device: locked, shared to read and exclusively to write. What else uses
    /// it is a fact and no error here; the lock of another process is one (class `Busy`), unless a live source is
    /// wanted.
    pub fn open(path: &Path, opening: Opening) -> Result<Self> {
        let in_use = check_not_in_use(path).err().map(|error| reason(&error)).or_else(|| {
            // Before it is opened here, which would count as well.
            (!opening.live && is_open_for_writing(path)).then(|| OPEN_ELSEWHERE.to_owned())
        });
        // A block device that is free is claimed, so that nobody mounts it meanwhile.
        let file = match (opening.write, &in_use) {
            (true, None) => FileDevice::open(path, true)?,
            // A mounted target is opened to be refused, or because a person has said so.
            (true, Some(why)) => FileDevice::open_forced(path, opening.mounted || why == OPEN_ELSEWHERE)?,
            (false, _) if opening.live => FileDevice::open_unlocked(path)?,
            (false, _) => FileDevice::open_forced(path, false).map_err(|error| match error.class {
                Class::Busy => error.hint("the same with --live"),
                _ => error,
            })?,
        };
        let facts = Facts {
            name: path.display().to_string(),
            size: file.size(),
            identity: identity_of(path),
            read_only: opening.write && is_read_only(&file),
            live: in_use.is_some() || opening.live,
            in_use,
            flushes: true,
            zeroes: true,
            tells_zeroes: !file.is_block(),
            hashes: false,
            takes_files: false,
            align: 1,
            request_max: 32 << 20,
            lanes: opening.depth,
        };
        let (data_from, data_until) = (AtomicU64::new(0), AtomicU64::new(0));
        let (lost, full) = (OnceLock::new(), OnceLock::new());
        Ok(Self { file, facts, lost, full, data_from, data_until })
    }

    fn failed(&self, doing: &str, range: ByteRange, error: io::Error) -> Error {
        let full = Errno::from_io_error(&error) == Some(Errno::NOSPC);
        let error = Error::io(&self.facts.name, &format!("{doing} {range}"), error);
        if full {
            // The next write would fail as well.
            let _ = self.full.set(error.clone());
        }
        error
    }
}

/// `check_not_in_use` says "…: it is WHY".
fn reason(error: &Error) -> String {
    error.message.rsplit_once(": it is ").map_or(error.message.as_str(), |(_, why)| why).to_owned()
}

/// Whether a block device is set read-only (`blockdev --setro`): writes to it would fail one by one.
fn is_read_only(file: &FileDevice) -> bool {
    if !file.is_block() {
        return false;
    }
    let Ok(data) = std::fs::metadata(file.path()) else { return false };
    let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
    std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro")).is_ok_and(|ro| ro.trim() == "1")
}

impl End for FileEnd {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        let range = ByteRange { offset, len: buf.len() as u64 };
        self.file.pread_exact(buf, offset).map_err(|e| self.failed("reading", range, e))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let range = ByteRange { offset, len: data.len() as u64 };
        self.file.pwrite_all(data, offset).map_err(|e| self.failed("writing", range, e))
    }

    fn file(&self) -> Option<&FileDevice> {
        Some(&self.file)
    }

    fn zero(&self, range: ByteRange, punch: bool) -> Result<()> {
        self.file.zero(range, punch, false).map_err(|e| self.failed("zeroing", range, e))
    }

    fn flush(&self) -> Result<()> {
        if let Some(error) = self.lost.get() {
            return Err(error.clone());
        }
        self.file.sync().map_err(|e| {
            let error = Error::io(&self.facts.name, "flushing", e);
            // A later sync would succeed and say nothing about what this one has lost (fsync(2)).
            let _ = self.lost.set(error.clone());
            error
        })
    }

    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()> {
        let data = Piece { range, zero: false };
        let known = self.data_from.load(Ordering::Relaxed)..self.data_until.load(Ordering::Relaxed);
        if self.file.is_block() || (known.start <= range.offset && range.end() <= known.end) {
            pieces.push(data);
            return Ok(());
        }
        let fail = |e| Error::io(&self.facts.name, "looking for holes", e);
        // The first one is looked for beyond this range: all of it may be data.
        let rest = ByteRange { offset: range.offset, len: self.facts.size.saturating_sub(range.offset) };
        let first = self.file.extents(rest, 1).map_err(fail)?;
        if let Some(extent) = first.first().filter(|extent| extent.len >= range.len) {
            if !extent.hole {
                // Two threads may mix their answers up: then zeroes are called data, which costs a read.
                self.data_from.store(range.offset, Ordering::Relaxed);
                self.data_until.store(range.offset + extent.len, Ordering::Relaxed);
            }
            pieces.push(Piece { zero: extent.hole, ..data });
            return Ok(());
        }
        let mut at = range.offset;
        for extent in self.file.extents(range, EXTENTS).map_err(fail)? {
            let range = ByteRange { offset: at, len: extent.len };
            pieces.push(Piece { range, zero: extent.hole });
            at += extent.len;
        }
        if at < range.end() {
            pieces.push(Piece { range: ByteRange { offset: at, len: range.end() - at }, zero: false });
        }
        Ok(())
    }

    fn forget(&self) {
        self.file.forget();
    }

    fn gone(&self) -> Option<Error> {
        self.lost.get().or(self.full.get()).cloned()
    }
}
