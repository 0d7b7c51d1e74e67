//! A part of a regular file that is in memory anyway, read where it is instead of being copied. The only unsafe code
//! of this room.
//!
//! 1. The part is mapped. It is used only if it seems to be in the page cache, and its page table is filled in one go,
//!    which also finds errors of a disk; otherwise reading it is the faster way.
//! 2. A file that is cut off meanwhile, or memory that fails, is `SIGBUS` on the next load. The handler puts zeroes
//!    there and notes it, so that the load goes on; what was computed from it is thrown away, and the caller reads
//!    the part and gets the error, or the bytes, that there are. Any other `SIGBUS` goes where it went before.
#![allow(unsafe_code)]

use super::FileDevice;
use crate::base::ByteRange;
use memmap2::{Advice, Mmap, MmapOptions};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most windows at a time: one for each thread that reads.
const WINDOWS: usize = 16;
/// So many pages of one are asked for whether they are in memory.
const SAMPLES: usize = 8;

/// Where a window is, for the handler.
struct Slot {
    taken: AtomicBool,
    /// Its first address; 0 for none.
    start: AtomicUsize,
    end: AtomicUsize,
    failed: AtomicBool,
}

static SLOTS: [Slot; WINDOWS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
    }
}; WINDOWS];

/// What was done on `SIGBUS` before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A part of a file, mapped.
#[derive(Debug)]
pub struct Window {
    map: Mmap,
    range: ByteRange,
    slot: &'static Slot,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.start.load(Ordering::Relaxed))
    }
}

impl Window {
    /// Maps a part of a file that begins at a page, if it seems to be in memory.
    pub fn cached(file: &FileDevice, range: ByteRange) -> Option<Self> {
        let page = rustix::param::page_size() as u64;
        if file.is_block() || !range.offset.is_multiple_of(page) || range.is_empty() || !guarded() {
            return None;
        }
        let slot = SLOTS.iter().find(|slot| !slot.taken.swap(true, Ordering::Acquire))?;
        let free = || slot.taken.store(false, Ordering::Release);
        // SAFETY: others may change the file underneath. The bytes are only given to `Window::with`, whose callers
        // compute digests of them or compare them: whatever they see is a value. A cut file is the handler's.
        let map = unsafe { MmapOptions::new().offset(range.offset).len(range.len as usize).map(&file.fd()) };
        let Ok(map) = map.inspect_err(|_| free()) else { return None };
        let len = map.len();
        let window = Self { map, range, slot };
        let start = window.map.as_ptr() as usize;
        slot.failed.store(false, Ordering::Relaxed);
        slot.end.store(start + len.next_multiple_of(page as usize), Ordering::Relaxed);
        slot.start.store(start, Ordering::SeqCst);
        (window.is_resident(page as usize) && window.map.advise(Advice::PopulateRead).is_ok())
            .then_some(window)
    }

    /// Whether some of its pages, evenly spread, are in memory; asking for each takes a tenth of the time of hashing.
    fn is_resident(&self, page: usize) -> bool {
        let pages = self.map.len().div_ceil(page);
        let step = pages.div_ceil(SAMPLES);
        (0..pages).step_by(step).chain([pages - 1]).all(|number| {
            let at = self.map.as_ptr().wrapping_add(number * page).cast_mut().cast();
            let mut there = 0u8;
            // SAFETY: the page is one of a live mapping, and there is a byte for it.
            let done = unsafe { libc::mincore(at, page, &raw mut there) };
            done == 0 && there & 1 != 0
        })
    }

    /// Calls `with` on a piece of it. `None` if some of what it saw is not what the file holds.
    pub fn with<T>(&self, piece: ByteRange, with: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let from = piece.offset.checked_sub(self.range.offset)? as usize;
        let seen = with(self.map.get(from..from + piece.len as usize)?);
        (!self.slot.failed.load(Ordering::SeqCst)).then_some(seen)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::SeqCst);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Installs the handler, once; whether it is there.
fn guarded() -> bool {
    BEFORE.get_or_init(|| {
        // SAFETY: all zeroes is a `sigaction` that does the usual; the calls get valid pointers, and the handler
        // makes only calls that a handler may.
        unsafe {
            let mut ours: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_sigbus as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before);
            before
        }
    });
    true
}

/// Puts zeroes where a window has nothing.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t`, with an address on SIGBUS.
    let at = unsafe { (*info).si_addr() } as usize;
    for slot in &SLOTS {
        let (start, end) = (slot.start.load(Ordering::SeqCst), slot.end.load(Ordering::Relaxed));
        if start == 0 || !(start..end).contains(&at) {
            continue;
        }
        slot.failed.store(true, Ordering::SeqCst);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: replaces all of a mapping that a thread of this process is reading from just now, so that it
        // lives, by one of the same length and protection. mmap is a bare system call here.
        let map = unsafe {
            libc::mmap(ptr::without_provenance_mut(start), end - start, libc::PROT_READ, flags, -1, 0)
        };
        if map != libc::MAP_FAILED {
            return;
        }
    }
    // SAFETY: hands on to what was there before, in the form that it was installed with; without a handler the usual
    // comes back, and the load that failed is done again, and ends the process.
    unsafe {
        let usual = std::mem::zeroed::<libc::sigaction>();
        let before = BEFORE.get().copied().unwrap_or(usual);
        if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(libc::SIGBUS, &raw const usual, ptr::null_mut());
        } else if before.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(before.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// One test takes all the windows there are.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(dir: &Path, bytes: &[u8]) -> FileDevice {
        let path = dir.join("f");
        std::fs::write(&path, bytes).expect("write");
        FileDevice::open(&path, false).expect("open")
    }

    #[test]
    fn what_is_in_memory_is_read_where_it_is() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("dir");
        let bytes: Vec<u8> = (0..300_001u32).map(|n| (n % 251) as u8).collect();
        let file = file(dir.path(), &bytes);
        let range = ByteRange { offset: 65536, len: bytes.len() as u64 - 65536 };
        let window = Window::cached(&file, range).expect("just written");
        let piece = ByteRange { offset: 70_000, len: 1000 };
        assert_eq!(window.with(piece, <[u8]>::to_vec).expect("seen"), bytes[70_000..71_000]);
        let whole = window.with(range, <[u8]>::to_vec).expect("seen");
        assert_eq!(whole, bytes[65536..]);
        assert!(window.with(ByteRange { offset: 0, len: 1 }, |_| ()).is_none(), "before it");
        assert!(window.with(ByteRange { offset: 300_000, len: 2 }, |_| ()).is_none(), "behind it");
    }

    #[test]
    fn a_file_that_is_cut_off_while_it_is_read_is_not_believed_and_ends_nobody() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("dir");
        let file = file(dir.path(), &vec![7; 1 << 20]);
        let range = ByteRange { offset: 0, len: 1 << 20 };
        let window = Window::cached(&file, range).expect("just written");
        assert_eq!(window.with(range, |bytes| bytes.iter().all(|byte| *byte == 7)), Some(true));
        std::fs::OpenOptions::new()
            .write(true)
            .open(file.path())
            .and_then(|file| file.set_len(1 << 19))
            .expect("cut");
        assert_eq!(window.with(range, |bytes| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()), None);
        drop(window);
        let again = Window::cached(&file, ByteRange { offset: 0, len: 1 << 19 }).expect("what is left");
        assert_eq!(again.with(ByteRange { offset: 0, len: 1 }, |bytes| bytes[0]), Some(7));
    }

    #[test]
    fn there_are_only_so_many() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("dir");
        let file = file(dir.path(), &[1; 4096]);
        let all: Vec<_> =
            std::iter::repeat_with(|| Window::cached(&file, ByteRange { offset: 0, len: 4096 }))
                .take(3 * WINDOWS)
                .flatten()
                .collect();
        assert!(all.len() <= WINDOWS && !all.is_empty());
    }
}
