//! Owner, permissions, attributes, times and flags of an object as they are to be. Each is set only if it differs:
//! who may not set an owner need not, if it is right.

use crate::capture::tree::inspect::{Look, c_name, open_quiet, proc_path, raw_flags, xattrs};
use crate::capture::tree::root::open_beneath;
use crate::fslog::index::ATIME;
use crate::fslog::meta::{FLAG_APPEND, FLAG_IMMUTABLE, FLAGS, Kind, Meta};
use rustix::fs::{
    AtFlags, CWD, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    utimensat,
};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// `UTIME_OMIT`: the time stays.
const OMIT: i64 = 0x3fff_fffe;

/// Owner, attributes and permissions. A change of owner takes set-uid and capabilities away, so these come after
/// it; permissions come after an ACL, which holds them too.
pub fn attributes(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta, now: &Look, options: u32) -> io::Result<()> {
    let path = proc_path(dir, name);
    let owner = (now.meta.uid, now.meta.gid) != (meta.uid, meta.gid);
    if owner {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let mut flags = AtFlags::SYMLINK_NOFOLLOW;
        if name.is_empty() {
            flags |= AtFlags::EMPTY_PATH;
        }
        chownat(dir, c_name(name)?, Some(uid), Some(gid), flags)?;
    }
    let have = xattrs(dir, name, options)?;
    for key in have.keys().filter(|key| !meta.xattrs.contains_key(*key)) {
        rustix::fs::lremovexattr(&path[..], &key[..])?;
    }
    for (key, value) in meta.xattrs.iter().filter(|(key, value)| have.get(*key) != Some(*value)) {
        rustix::fs::lsetxattr(&path[..], &key[..], value, XattrFlags::empty())?;
    }
    let acl = have.keys().chain(meta.xattrs.keys()).any(|key| key.starts_with(b"system.posix_acl_"));
    if meta.kind != Kind::Symlink && (owner || acl || now.meta.mode != meta.mode) {
        permissions(dir, name, meta.mode)?;
    }
    Ok(())
}

/// Permissions, of exactly what is at this name now, never of what a link there points to.
pub fn permissions(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let name = if name.is_empty() { b"." } else { name };
    let exact = open_beneath(dir, name, OFlags::PATH, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", exact.as_raw_fd());
    Ok(chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Times, and then the flags: an immutable file has no times set.
pub fn times_and_flags(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta, options: u32) -> io::Result<()> {
    let last_access = if options & ATIME != 0 && matches!(meta.kind, Kind::File | Kind::Dir) {
        Timespec { tv_sec: meta.atime.seconds, tv_nsec: i64::from(meta.atime.nanos) }
    } else {
        Timespec { tv_sec: 0, tv_nsec: OMIT }
    };
    let last_modification = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: i64::from(meta.mtime.nanos) };
    let times = Timestamps { last_access, last_modification };
    let at = c_name(if name.is_empty() { b"." } else { name })?;
    utimensat(dir, at, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(meta.kind, Kind::File | Kind::Dir) {
        return Ok(());
    }
    let file = open_quiet(dir, name, meta.kind)?;
    match raw_flags(file.as_fd())? {
        Some(now) if now & FLAGS != meta.flags => set_flags(file.as_fd(), now & !FLAGS | meta.flags),
        None if meta.flags != 0 => Err(io::Error::other("this file system has no flags of chattr(1)")),
        _ => Ok(()),
    }
}

/// Takes away what would forbid a change: immutable and append-only, and for an ordinary user missing permissions
/// of its own.
pub fn unlock(dir: BorrowedFd<'_>, name: &[u8], kind: Kind, mode: u32, flags: u32) -> io::Result<()> {
    if flags & (FLAG_IMMUTABLE | FLAG_APPEND) != 0 {
        let file = open_quiet(dir, name, kind)?;
        if let Some(now) = raw_flags(file.as_fd())?
            && now & (FLAG_IMMUTABLE | FLAG_APPEND) != 0
        {
            set_flags(file.as_fd(), now & !(FLAG_IMMUTABLE | FLAG_APPEND))?;
        }
    }
    let own = match kind {
        Kind::Dir => 0o700,
        Kind::File => 0o600,
        _ => 0,
    };
    if mode & own != own && !rustix::process::geteuid().is_root() {
        permissions(dir, name, mode | own)?;
    }
    Ok(())
}

fn set_flags(file: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    Ok(rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(flags))?)
}
