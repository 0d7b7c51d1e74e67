//! What an access to a file does to its bytes, judged while the kernel holds it back: by the range that the kernel
//! gives, by where in the kernel the thread waits (`/proc/TID/stack`), and by its system call (`/proc/TID/syscall`).
//! Everything here is pure.
//!
//! The kernel's range is that of whole pages. It is not enough:
//!
//! | access | range of the event | what may change |
//! |---|---|---|
//! | write, `io_uring`, `io_submit`, splice, copies, clones, punched holes | its own | the range |
//! | a clone up to the end of its source | empty | everything from its offset on |
//! | append | where the descriptor stands, not the end | from the old size on, which `stat` tells |
//! | truncate | the page of the new size | everything from it on |
//! | collapse, insert | its own | everything from its offset on |
//! | `O_TRUNC` | none: only the opening has an event | everything |
//! | mapping | its own; `mremap(2)` may move it | everything, until nobody writes the file any more |
//! | read | its own | nothing |
//!
//! An access counts as a read only if the function of the kernel that asked is one that reads. What is not
//! understood changes everything from its offset on.

use crate::fslog::state::NO_LIMIT;
use crate::fslog::{Ranges, Record};
use std::ops::Range;

/// Functions of the kernel that ask before they read, and never before they write.
const READERS: &[&str] = &[
    "vfs_read",
    "vfs_readv",
    "io_read",
    "__io_read",
    "aio_read",
    "vfs_iter_read",
    "vfs_iocb_iter_read",
    "kernel_read",
    "__kernel_read",
    "do_splice_read",
    "vfs_splice_read",
];
/// `FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE`
const SHIFTS: u64 = 0x08 | 0x20;

/// `FICLONE`, that is `_IOW(0x94, 9, int)`.
const CLONE: u64 = 0x4004_9409;
/// `FICLONERANGE`, that is `_IOW(0x94, 13, 32 bytes)`.
const CLONE_RANGE: u64 = 0x4020_940d;

/// The system call of a thread that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// It came from a program: threads of the kernel and workers of `io_uring` show what is left in their registers.
    pub from_program: bool,
}

/// Reads a line of `/proc/TID/syscall`; `None` for a thread that runs, or is in no system call.
pub fn call_of(line: &str) -> Option<Call> {
    let mut words = line.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let values: Vec<u64> = words.map_while(hex).collect();
    let (arguments, [stack, at]) = (*values.first_chunk::<6>()?, *values.get(6..8)?.first_chunk()?);
    Some(Call { number, arguments, from_program: stack != 0 && at != 0 })
}

/// The functions of the kernel that a thread is in, innermost first, as `/proc/TID/stack` has them.
pub fn frames_of(stack: &str) -> Vec<&str> {
    stack.lines().filter_map(|line| line.split_once("] ")?.1.split(['+', '.']).next()).collect()
}

/// What `/proc/TID/fdinfo` says of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Inode number.
    pub inode: u64,
    /// Whether it may be written through.
    pub writable: bool,
}

/// What can be asked of a thread that waits.
pub trait Caller {
    /// One of its descriptors.
    fn descriptor(&self, number: u64) -> Option<Descriptor>;
    /// The flags of a `struct open_how` in its memory.
    fn open_flags(&self, address: u64) -> Option<u64>;
}

/// What the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Inode number of the file.
    pub inode: u64,
    /// The file is opened; otherwise bytes of it are accessed.
    pub open: bool,
    /// First byte, and how many; `None` if the kernel does not say.
    pub range: Option<(u64, u64)>,
}

/// What may change of the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Everything from here on.
    pub limit: u64,
    /// And these below it.
    pub ranges: Ranges,
}

impl Default for Change {
    fn default() -> Self {
        Self { limit: NO_LIMIT, ranges: Ranges::default() }
    }
}

impl Change {
    /// Everything from here on.
    pub fn from(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// A range.
    pub fn range(range: Range<u64>) -> Self {
        Self { ranges: std::iter::once(range).collect(), ..Self::default() }
    }

    /// Whether it is none.
    pub fn is_nothing(&self) -> bool {
        self.limit == NO_LIMIT && self.ranges.is_empty()
    }

    /// Both.
    pub fn join(&mut self, other: &Self) {
        self.limit = self.limit.min(other.limit);
        self.ranges.extend(&other.ranges);
        self.ranges.clip(self.limit);
        self.ranges.bound();
    }

    /// The records that say so.
    pub fn records(&self, id: crate::fslog::ObjectId) -> Vec<Record> {
        let mut records: Vec<_> = self.ranges.iter().map(|range| Record::Data { id, range }).collect();
        if self.limit != NO_LIMIT {
            records.push(Record::Limit { id, at: self.limit });
        }
        records
    }
}

/// What an access does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No byte changes.
    Nothing,
    /// This may change.
    Bytes(Change),
    /// The file is mapped so that it may be stored into.
    Mapped,
}

/// What an access does, and how long that may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it does.
    pub effect: Effect,
    /// It may go on after its thread has left the system call, or has begun another: nobody sees its end.
    pub lasting: bool,
}

/// Judges one access.
pub fn judge(access: &Access, call: Option<&Call>, frames: &[&str], caller: &dyn Caller) -> Judged {
    let own = |frame: &&str| {
        frame.starts_with("io_")
            || frame.starts_with("aio_")
            || frame.contains("io_submit")
            || *frame == "task_work_run"
    };
    // Where the stack is not told, nobody knows whose the system call is: work of io_uring is also done while a
    // thread leaves another one.
    let call = call.filter(|call| call.from_program);
    let direct = call.filter(|_| !frames.is_empty() && !frames.iter().any(own));
    let effect = if access.open {
        opened(direct, frames, caller)
    } else {
        accessed(access, call, direct, frames, caller)
    };
    Judged { effect, lasting: direct.is_none() }
}

fn all() -> Effect {
    Effect::Bytes(Change::from(0))
}

/// `O_TRUNC` is the only change that has no event of its own.
fn opened(call: Option<&Call>, frames: &[&str], caller: &dyn Caller) -> Effect {
    let Some(call) = call else { return all() };
    // Nothing that is executed is truncated.
    if frames.iter().any(|frame| frame.contains("execve")) {
        return Effect::Nothing;
    }
    let [_, _, third, ..] = call.arguments;
    let flags = match call.number {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Some(call.arguments[1]),
        libc::SYS_openat | libc::SYS_open_by_handle_at => Some(third),
        libc::SYS_openat2 => caller.open_flags(third),
        _ => None,
    };
    match flags {
        Some(flags) if flags & libc::O_TRUNC as u64 == 0 => Effect::Nothing,
        _ => all(),
    }
}

fn accessed(
    access: &Access,
    call: Option<&Call>,
    direct: Option<&Call>,
    frames: &[&str],
    caller: &dyn Caller,
) -> Effect {
    let Some((offset, count)) = access.range else { return all() };
    let from_here = || Effect::Bytes(Change::from(offset));
    let bytes = || match count {
        0 => from_here(),
        _ => Effect::Bytes(Change::range(offset..offset.saturating_add(count))),
    };
    let goes_elsewhere = |number| match caller.descriptor(number) {
        Some(to) if to.inode != access.inode => Effect::Nothing,
        _ => bytes(),
    };
    let asks = |frame: &&str| ["rw_verify_area", "remap_verify_area"].contains(frame);
    let who = frames.iter().position(asks).and_then(|at| frames.get(at + 1));
    if let Some(who) = who {
        if READERS.contains(who) && !frames.iter().any(|frame| frame.contains("write")) {
            return Effect::Nothing;
        }
        // Asked of the source and of the target.
        return match direct.map(|call| (call.number, call.arguments)) {
            Some(
                (libc::SYS_copy_file_range | libc::SYS_splice, [_, _, to, ..])
                | (libc::SYS_sendfile, [to, ..])
                | (libc::SYS_ioctl, [to, CLONE | CLONE_RANGE, ..]),
            ) => goes_elsewhere(to),
            _ => bytes(),
        };
    }
    if frames.iter().any(|frame| frame.contains("mmap")) {
        return mapped(access, direct, caller);
    }
    let Some(call) = call.filter(|_| direct.is_some() || frames.is_empty()) else { return from_here() };
    let shifts = call.number == libc::SYS_fallocate && call.arguments[1] & SHIFTS != 0;
    let fallocates = frames.is_empty() || frames.contains(&"vfs_fallocate");
    match call.number {
        libc::SYS_fallocate if fallocates && !shifts => bytes(),
        libc::SYS_ioctl if frames.contains(&"vfs_fallocate") => bytes(),
        libc::SYS_mmap if frames.is_empty() => Effect::Mapped,
        libc::SYS_truncate | libc::SYS_ftruncate | libc::SYS_fallocate => from_here(),
        _ if frames.is_empty() => bytes(),
        _ => from_here(),
    }
}

/// A mapping that can never be stored into, so that the file changes, is none.
fn mapped(access: &Access, call: Option<&Call>, caller: &dyn Caller) -> Effect {
    let Some(call) = call.filter(|call| call.number == libc::SYS_mmap) else { return Effect::Mapped };
    let [_, _, _, flags, descriptor, _] = call.arguments;
    let private = flags & libc::MAP_TYPE as u64 == libc::MAP_PRIVATE as u64;
    let read_only =
        || caller.descriptor(descriptor).is_some_and(|from| from.inode == access.inode && !from.writable);
    if private || read_only() { Effect::Nothing } else { Effect::Mapped }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
