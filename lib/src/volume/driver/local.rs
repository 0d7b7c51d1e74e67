//! A local leg: a file or block device. What the page cache can take or give at once is done in the loop; what
//! waits for a disk goes to workers, and so does everything for a while after something took long.

use super::buffers::{Chunk, Slice};
use crate::base::ByteRange;
use crate::device::{Extent, FileDevice};
use crate::volume::core::{Caps, Fault};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::io::{self, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An operation in the loop that took longer may have waited for the device (or for a processor).
const SLOW: Duration = Duration::from_millis(2);
/// What a slow operation adds to the suspicion; a fast one takes 1 away.
const SUSPICION: u32 = 8;
/// From here on it is certain: three slow ones of about ten. A loop that only waits for a processor comes here
/// rarely.
const CERTAIN: u32 = 3 * SUSPICION - 4;
/// So long everything goes to workers then.
const AFTER_SLOW: Duration = Duration::from_millis(250);
/// Longer requests go to workers: copying so much would hold everybody else up, and while one is copied between
/// the page cache and a buffer, another is copied between a buffer and a socket.
const AT_ONCE: u64 = 256 << 10;
/// The same for zeroes, which mostly are made without copying.
const ZEROES_AT_ONCE: u64 = 64 << 20;
/// Extents asked for at a time: more are told in the next request.
pub(super) const EXTENTS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct LocalLeg {
    path: PathBuf,
    device: Option<Arc<FileDevice>>,
    /// Jobs with workers, of this session and of earlier ones.
    pub(super) outstanding: usize,
    /// Bytes of them.
    pub(super) outstanding_bytes: u64,
    /// A worker is opening it.
    pub(super) opening: bool,
    slow_until: Option<Instant>,
    suspicion: u32,
    /// The kernel cannot say whether a read would wait.
    no_nowait: bool,
}

/// One piece of work on the device.
#[derive(Debug)]
pub(super) enum Work {
    /// Fill the first `len` bytes of the buffer.
    Read(Arc<Chunk>),
    /// Write these.
    Write(Slice),
    /// Make zeroes.
    Zero { no_hole: bool, fast: bool },
    /// Find holes.
    Extents,
    /// fdatasync
    Flush,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Worked {
    pub(super) result: Result<(), Fault>,
    pub(super) data: Option<Slice>,
    pub(super) extents: Option<Vec<Extent>>,
}

impl Worked {
    fn plain(result: io::Result<()>) -> Self {
        Self { result: result.map_err(|e| fault(&e)), data: None, extents: None }
    }
}

impl LocalLeg {
    /// A leg that is not open.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            device: None,
            outstanding: 0,
            outstanding_bytes: 0,
            opening: false,
            slow_until: None,
            suspicion: 0,
            no_nowait: false,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is open from now on.
    pub(super) fn open(&mut self, device: FileDevice) {
        self.device = Some(Arc::new(device));
        self.slow_until = None;
    }

    /// The open device.
    pub(super) fn device(&self) -> Option<&Arc<FileDevice>> {
        self.device.as_ref()
    }

    /// It is not used any more.
    pub(super) fn close(&mut self) {
        self.device = None;
    }

    /// Tries to do the work here and now; gives it back if it would wait.
    pub(super) fn try_now(
        &mut self,
        work: Work,
        range: ByteRange,
        now: &mut Instant,
    ) -> Result<Worked, Work> {
        let Some(device) = &self.device else { return Ok(Worked::plain(Err(Errno::NODEV.into()))) };
        let long = match work {
            Work::Flush | Work::Extents => true,
            Work::Zero { .. } => range.len > ZEROES_AT_ONCE,
            Work::Read(_) | Work::Write(_) => range.len > AT_ONCE,
        };
        if long {
            return Err(work);
        }
        if let Some(until) = self.slow_until {
            if *now < until {
                return Err(work);
            }
            self.slow_until = None;
        }
        let worked = match work {
            Work::Read(chunk) if !self.no_nowait => match read_nowait(device, chunk, range) {
                Ok(worked) => worked,
                Err((chunk, error)) => {
                    self.no_nowait = error == Errno::OPNOTSUPP || error == Errno::NOSYS;
                    if !self.no_nowait {
                        return Err(Work::Read(chunk));
                    }
                    perform(device, Work::Read(chunk), range)
                }
            },
            work => perform(device, work, range),
        };
        let then = std::mem::replace(now, Instant::now());
        if now.duration_since(then) <= SLOW {
            self.suspicion = self.suspicion.saturating_sub(1);
        } else {
            self.suspicion += SUSPICION;
            if self.suspicion >= CERTAIN {
                self.suspicion = 0;
                self.slow_until = Some(*now + AFTER_SLOW);
            }
        }
        Ok(worked)
    }
}

/// What every file and block device can do.
pub(super) fn caps(device: &FileDevice) -> Caps {
    Caps { flush: true, fua: false, fast_zero: !device.is_block(), extents: !device.is_block() }
}

/// A read from the page cache only; gives the buffer back if that cannot be.
fn read_nowait(
    device: &FileDevice,
    mut chunk: Arc<Chunk>,
    range: ByteRange,
) -> Result<Worked, (Arc<Chunk>, Errno)> {
    let len = range.len as usize;
    let Some(bytes) = Chunk::alone(&mut chunk) else { return Err((chunk, Errno::AGAIN)) };
    let mut piece = [IoSliceMut::new(&mut bytes[..len])];
    match preadv2(device.fd(), &mut piece, range.offset, ReadWriteFlags::NOWAIT) {
        Ok(n) if n == len => {
            let data = Some(Chunk::into_slice(chunk, len));
            Ok(Worked { result: Ok(()), data, extents: None })
        }
        // Part of it is not there, or an error: the full way finds out.
        Ok(_) => Err((chunk, Errno::AGAIN)),
        Err(error) => Err((chunk, error)),
    }
}

/// Does the work, however long it takes.
pub(super) fn perform(device: &FileDevice, work: Work, range: ByteRange) -> Worked {
    match work {
        Work::Read(mut chunk) => {
            let len = range.len as usize;
            let read = match Chunk::alone(&mut chunk) {
                Some(bytes) => device.pread_exact(&mut bytes[..len], range.offset),
                None => Err(io::ErrorKind::ResourceBusy.into()),
            };
            let data = read.is_ok().then(|| Chunk::into_slice(chunk, len));
            Worked { data, ..Worked::plain(read) }
        }
        Work::Write(data) => Worked::plain(device.pwrite_all(data.bytes(), range.offset)),
        Work::Zero { no_hole, fast } => Worked::plain(device.zero(range, !no_hole, fast)),
        Work::Flush => Worked::plain(device.sync()),
        Work::Extents => match device.extents(range, EXTENTS) {
            Ok(found) => Worked { extents: Some(found), ..Worked::plain(Ok(())) },
            Err(error) => Worked::plain(Err(error)),
        },
    }
}

/// The operating system's error in the core's words.
fn fault(error: &io::Error) -> Fault {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Fault::NoSpace,
        Some(Errno::OPNOTSUPP) => Fault::NotSupported,
        _ => Fault::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Pool;
    use super::*;

    #[test]
    fn what_is_in_the_page_cache_is_done_at_once_and_a_flush_never() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("leg");
        std::fs::write(&path, vec![7; 65536]).expect("file");
        let mut leg = LocalLeg::new(&path);
        let (pool, mut now) = (Pool::new(), Instant::now());
        let range = ByteRange { offset: 4096, len: 512 };
        let closed = leg.try_now(Work::Zero { no_hole: false, fast: false }, range, &mut now);
        assert_eq!(closed.expect("at once").result, Err(Fault::Io));
        leg.open(FileDevice::open(&path, true).expect("open"));
        assert!(leg.try_now(Work::Flush, range, &mut now).is_err());
        let written = leg.try_now(Work::Write(pool.zeroes(512)), range, &mut now).expect("at once");
        assert_eq!(written.result, Ok(()));
        let read = leg.try_now(Work::Read(pool.take(512)), range, &mut now).expect("at once");
        assert_eq!(read.data.expect("data").bytes(), [0; 512]);
        let whole = ByteRange { offset: 0, len: 65536 };
        let device = leg.device().expect("open");
        assert_eq!(perform(device, Work::Extents, whole).extents.expect("extents")[0].len, 65536);
        leg.slow_until = Some(now + AFTER_SLOW);
        assert!(leg.try_now(Work::Read(pool.take(512)), range, &mut now).is_err(), "it was slow");
    }
}
