//! Accesses to marked files that wait until they are allowed (`FAN_PRE_ACCESS`, Linux 6.14), and a clock that ends
//! this process if it does not allow them in time: when the descriptor of the events is closed, by whatever end of its
//! process, the kernel allows everything that waits.
//!
//! Unsafe code, because rustix has neither `fanotify_init` nor `timer_create`. What the kernel sends is parsed by
//! [`parse`], which believes no length.
#![allow(unsafe_code)]

use crate::base::limits;
use crate::device::fields::{get_u32, get_u64, put_u32};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `FAN_PRE_ACCESS`
const PRE_ACCESS: u64 = 0x0010_0000;
/// `FAN_EVENT_INFO_TYPE_RANGE`: four bytes of nothing, offset (8), count (8).
const RANGE: u8 = 6;
const EVENT_HEAD: usize = 24;
const INFO_HEAD: usize = 4;
/// An access that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The thread.
    pub thread: i32,
    /// The file is opened; otherwise bytes of it are accessed.
    pub open: bool,
    /// First byte, and how many; `None` if the kernel does not say.
    pub range: Option<(u64, u64)>,
    /// The file; dropped only after it was allowed.
    pub file: OwnedFd,
}

/// What the kernel sent.
#[derive(Debug, Default)]
pub struct Read {
    /// Accesses, each to be allowed.
    pub waiting: Vec<Waiting>,
    /// Some were allowed without being shown.
    pub lost: bool,
}

/// An event as it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    mask: u64,
    file: i32,
    thread: i32,
    range: Option<(u64, u64)>,
}

/// The events in what the kernel sent. Errors: what is wrong with it; then nothing of it is to be trusted.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Raw>, &'static str> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.get(..EVENT_HEAD).ok_or("an event that ends early")?;
        let (len, begin) = (get_u32(head, 0) as usize, usize::from(head[6]) | usize::from(head[7]) << 8);
        if head[4] != libc::FANOTIFY_METADATA_VERSION || begin < EVENT_HEAD || begin > len {
            return Err("an event of another version");
        }
        let event = bytes.get(..len).ok_or("an event that ends early")?;
        let (file, thread) = (get_u32(head, 16).cast_signed(), get_u32(head, 20).cast_signed());
        events.push(Raw { mask: get_u64(head, 8), file, thread, range: range_of(&event[begin..])? });
        bytes = &bytes[len..];
    }
    Ok(events)
}

fn range_of(mut infos: &[u8]) -> Result<Option<(u64, u64)>, &'static str> {
    let mut range = None;
    while !infos.is_empty() {
        let head = infos.get(..INFO_HEAD).ok_or("a record that ends early")?;
        let len = usize::from(head[2]) | usize::from(head[3]) << 8;
        let info = infos.get(..len).filter(|_| len >= INFO_HEAD).ok_or("a record that ends early")?;
        infos = &infos[len..];
        if info[0] == RANGE {
            let at = info.get(8..24).ok_or("a range that ends early")?;
            range = Some((get_u64(at, 0), get_u64(at, 8)));
        }
    }
    Ok(range)
}

/// What holds accesses back.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Group {
    /// Holds nothing back yet. Errors: `EINVAL` on kernels before 6.14, `EPERM` without privileges.
    pub fn open() -> Result<Self, Errno> {
        let flags = libc::FAN_CLASS_PRE_CONTENT
            | libc::FAN_REPORT_TID
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK;
        let files = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NOATIME;
        // SAFETY: takes two numbers.
        let raw = unsafe { libc::fanotify_init(flags, files.cast_unsigned()) };
        if raw < 0 {
            return Err(last());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { fd, buffer: vec![0; limits::RANGES_READ] })
    }

    fn change(&self, flags: libc::c_uint, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let mask = PRE_ACCESS | libc::FAN_OPEN_PERM;
        // SAFETY: both descriptors live for the whole call; the path is null, which stands for the file itself.
        let done = unsafe {
            libc::fanotify_mark(self.fd.as_raw_fd(), flags, mask, file.as_raw_fd(), std::ptr::null())
        };
        if done < 0 { Err(last()) } else { Ok(()) }
    }

    /// Accesses to a file are held back from now on, through descriptors that are opened from now on. The mark holds
    /// the inode in memory, and goes with the file.
    pub fn mark(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.change(libc::FAN_MARK_ADD, file)
    }

    /// They are held back no more.
    pub fn unmark(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.change(libc::FAN_MARK_REMOVE, file)
    }

    /// What waits now. Errors: what the kernel sent is not understood, or cannot be read; this process is to end
    /// then, so that nothing waits any more.
    pub fn read(&mut self) -> Result<Read, &'static str> {
        let len = match rustix::io::read(&self.fd, &mut self.buffer[..]) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Read::default()),
            Err(_) => return Err("the kernel gives no events"),
        };
        let mut read = Read::default();
        for event in parse(&self.buffer[..len])? {
            if event.file < 0 {
                read.lost = true;
                continue;
            }
            // SAFETY: the kernel has just given us this descriptor with the event; nobody else has it.
            let file = unsafe { OwnedFd::from_raw_fd(event.file) };
            let open = event.mask & libc::FAN_OPEN_PERM != 0;
            read.waiting.push(Waiting { thread: event.thread, open, range: event.range, file });
        }
        Ok(read)
    }

    /// Lets an access happen.
    pub fn allow(&self, waiting: &Waiting) -> Result<(), &'static str> {
        let mut response = [0; 8];
        put_u32(&mut response, 0, waiting.file.as_raw_fd().cast_unsigned());
        put_u32(&mut response, 4, libc::FAN_ALLOW);
        match rustix::io::write(&self.fd, &response) {
            // Who waited was killed meanwhile.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(_) => Err("the kernel takes no answer"),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Kills this process, be it stopped, unless it is wound up in time.
#[derive(Debug)]
pub struct DeadMan(libc::timer_t);

impl DeadMan {
    /// Not wound up yet.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: a `sigevent` is plain numbers, for which zero is a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are to values of ours, which live for the whole call.
        let done = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if done < 0 { Err(last()) } else { Ok(Self(timer)) }
    }

    /// From now on it has [`limits::RANGES_STALL_MS`].
    pub fn wind_up(&self) -> Result<(), Errno> {
        let milliseconds = limits::RANGES_STALL_MS;
        let after = libc::timespec {
            tv_sec: (milliseconds / 1000).cast_signed(),
            tv_nsec: (milliseconds % 1000 * 1_000_000).cast_signed(),
        };
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let times = libc::itimerspec { it_interval: none, it_value: after };
        // SAFETY: the timer is the one that was made, which is never removed; `times` lives for the whole call, and
        // a null pointer asks for no answer.
        let done = unsafe { libc::timer_settime(self.0, 0, &raw const times, std::ptr::null_mut()) };
        if done < 0 { Err(last()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mask: u64, file: i32, infos: &[u8]) -> Vec<u8> {
        let mut event = (EVENT_HEAD as u32 + infos.len() as u32).to_le_bytes().to_vec();
        event.extend([libc::FANOTIFY_METADATA_VERSION, 0, EVENT_HEAD as u8, 0]);
        event.extend(mask.to_le_bytes());
        event.extend(file.to_le_bytes());
        event.extend(77i32.to_le_bytes());
        event.extend(infos);
        event
    }

    fn range(offset: u64, count: u64) -> Vec<u8> {
        let mut info = vec![RANGE, 0, 24, 0, 0, 0, 0, 0];
        info.extend(offset.to_le_bytes());
        info.extend(count.to_le_bytes());
        info
    }

    #[test]
    fn accesses_are_read_as_the_kernel_lays_them_out() {
        let bytes = [
            event(PRE_ACCESS, 5, &range(4096, 8192)),
            event(libc::FAN_OPEN_PERM, 6, &[]),
            event(libc::FAN_Q_OVERFLOW, -1, &[]),
        ]
        .concat();
        let events = parse(&bytes).expect("events");
        assert_eq!(
            events.iter().map(|raw| (raw.file, raw.thread, raw.range)).collect::<Vec<_>>(),
            [(5, 77, Some((4096, 8192))), (6, 77, None), (-1, 77, None)]
        );
        for cut in 1..bytes.len() {
            if let Ok(events) = parse(&bytes[..cut]) {
                assert!(events.len() < 3);
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = value;
                let _ = parse(&bad);
            }
        }
    }
}
