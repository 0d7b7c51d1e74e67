//! Events of a whole file system (`fanotify(7)`): which names and which objects something happened to, by file handles,
//! in the order in which it happened. Every event is queued before the system call that caused it returns.
//!
//! Unsafe code, because rustix has neither `fanotify_init` nor `fanotify_mark`. What the kernel sends is parsed by
//! [`parse`], which believes no length.
#![allow(unsafe_code)]

use crate::base::{Class, Error, Result, limits};
use crate::capture::tree::Root;
use crate::capture::tree::handle::forget_subvolume;
use crate::device::fields::{get_u32, get_u64};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Everything that changes a name, a content or metadata. Reads have no event, and cost nothing.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ONDIR;

const EVENT_HEAD: usize = 24;
const INFO_HEAD: usize = 4;
/// Behind the head of an information record: the id of the file system (8), then length (4) and type (4) of a handle.
const HANDLE_AT: usize = INFO_HEAD + 8;

/// A directory, by its handle, and an entry of it; `.` is the directory itself.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// Something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What (`FAN_*`).
    pub mask: u64,
    /// Which process did it.
    pub pid: i32,
    /// The names concerned: one, or both of a rename.
    pub names: Vec<Entry>,
    /// The object, by its handle.
    pub target: Option<Box<[u8]>>,
    /// The same as the kernel gave it: it opens the object.
    pub raw: Option<Box<[u8]>>,
}

impl Event {
    /// Whether events before it were thrown away.
    pub const fn is_overflow(&self) -> bool {
        self.mask & libc::FAN_Q_OVERFLOW != 0
    }

    /// Whether bytes may have been written.
    pub const fn is_write(&self) -> bool {
        self.mask & (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE) != 0
    }

    /// Whether bytes were written.
    pub const fn is_modify(&self) -> bool {
        self.mask & libc::FAN_MODIFY != 0
    }

    /// Whether somebody who could write it has closed it.
    pub const fn is_close(&self) -> bool {
        self.mask & libc::FAN_CLOSE_WRITE != 0
    }

    /// Whether it is about a directory.
    pub const fn is_dir(&self) -> bool {
        self.mask & libc::FAN_ONDIR != 0
    }
}

/// The events in what the kernel sent. Errors: what is wrong with it; then nothing of it is to be trusted.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Event>, &'static str> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.get(..EVENT_HEAD).ok_or("an event that ends early")?;
        let (len, begin) = (get_u32(head, 0) as usize, usize::from(head[6]) | usize::from(head[7]) << 8);
        if head[4] != libc::FANOTIFY_METADATA_VERSION || begin < EVENT_HEAD || begin > len {
            return Err("an event of another version");
        }
        let event = bytes.get(..len).ok_or("an event that ends early")?;
        events.push(parse_one(&event[begin..], get_u64(head, 8), get_u32(head, 20).cast_signed())?);
        bytes = &bytes[len..];
    }
    Ok(events)
}

fn parse_one(mut infos: &[u8], mask: u64, pid: i32) -> Result<Event, &'static str> {
    let mut event = Event { mask, pid, ..Event::default() };
    while !infos.is_empty() {
        let head = infos.get(..INFO_HEAD).ok_or("a record that ends early")?;
        let len = usize::from(head[2]) | usize::from(head[3]) << 8;
        let info = infos.get(..len).filter(|_| len >= INFO_HEAD).ok_or("a record that ends early")?;
        infos = &infos[len..];
        match info[0] {
            libc::FAN_EVENT_INFO_TYPE_FID => {
                event.raw = Some(raw_handle(info)?.0.into());
                event.target = Some(handle(info)?.0);
            }
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME
            | libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME
            | libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => {
                let (dir, rest) = handle(info)?;
                let name = CStr::from_bytes_until_nul(rest).map_err(|_| "a name without an end")?.to_bytes();
                event.names.push((dir, name.into()));
            }
            // A kind that is not asked for.
            _ => {}
        }
    }
    Ok(event)
}

/// The handle of a record as [`crate::capture::tree::handle`] writes it, and what follows.
fn handle(info: &[u8]) -> Result<(Box<[u8]>, &[u8]), &'static str> {
    let (mut identity, rest) = raw_handle(info)?;
    forget_subvolume(&mut identity);
    Ok((identity.into(), rest))
}

/// The same as it came.
fn raw_handle(info: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let head = info.get(HANDLE_AT..HANDLE_AT + 8).ok_or("a record that ends early")?;
    let len = get_u32(head, 0) as usize;
    let bytes =
        info.get(HANDLE_AT + 8..).and_then(|rest| rest.get(..len)).ok_or("a handle that ends early")?;
    if len + 4 > limits::FILE_HANDLE {
        return Err("a handle longer than any");
    }
    let mut identity = head[4..8].to_vec();
    identity.extend_from_slice(bytes);
    Ok((identity, &info[HANDLE_AT + 8 + len..]))
}

/// A queue of events of a file system.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Queue {
    /// Begins to collect the events of the file system that a tree is on: of all processes, those included that have
    /// files open already. Errors: class `Refused` where kernel, file system or privileges do not allow it.
    pub fn open(tree: &Root) -> Result<Self> {
        let shown = tree.path().display().to_string();
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_REPORT_DFID_NAME_TARGET
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK;
        // SAFETY: takes two numbers.
        let raw = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned()) };
        if raw < 0 {
            return Err(refused(&shown, "asking for events of its file system"));
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let mark = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: both descriptors live for the whole call, the path is a C string, the rest are numbers.
        let done = unsafe { libc::fanotify_mark(raw, mark, MASK, tree.fd().as_raw_fd(), c".".as_ptr()) };
        if done < 0 {
            return Err(refused(&shown, "marking its file system"));
        }
        Ok(Self { fd, buffer: vec![0; limits::FANOTIFY_READ] })
    }

    /// The next events; none if the queue is empty. Errors: class `Internal` for what cannot be parsed.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        loop {
            match rustix::io::read(&self.fd, &mut self.buffer[..]) {
                Ok(len) => {
                    let wrong =
                        |what| Error::new(Class::Internal, format!("fanotify: reading events: {what}"));
                    return parse(&self.buffer[..len]).map_err(wrong);
                }
                Err(Errno::AGAIN) => return Ok(Vec::new()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::io("fanotify", "reading events", e)),
            }
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn refused(shown: &str, doing: &str) -> Error {
    let cause = std::io::Error::last_os_error();
    let why = match cause.raw_os_error() {
        Some(libc::EPERM) => "it needs root (CAP_SYS_ADMIN)",
        Some(libc::EINVAL | libc::ENOSYS) => "it needs Linux 5.17 or newer",
        Some(libc::EXDEV) => {
            "a subvolume of btrfs cannot be watched by itself: mount and record the whole file system"
        }
        Some(libc::EOPNOTSUPP | libc::ENODEV) => "this file system has no file handles",
        _ => return Error::io(shown, doing, cause),
    };
    let text = format!("{shown}: {doing}: {why}");
    Error::new(Class::Refused, text).hint("cfor-log dump LOG --root DIR: scanning needs nothing of this")
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
