//! Looking at one object: what statx and the file handle say of it, and the rest (attributes, flags, link text),
//! which is asked for only if it changed.

use super::handle::identity;
use super::root::open_beneath;
use crate::fslog::index::{ATIME, PRIVILEGED, Stamp};
use crate::fslog::meta::{FLAGS, Kind, Meta, Time, Xattrs};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, StatxTimestamp, readlinkat, statx,
};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What is seen of an object without opening it.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its metadata, without attributes, flags and link text.
    pub meta: Meta,
    /// Its identity and the time of its last change.
    pub stamp: Stamp,
    /// When it was last read.
    pub last_access: Time,
    /// Whether it is the root of another mount or of a subvolume.
    pub foreign: bool,
}

impl Look {
    /// The time of the last access, if it belongs to a tree with these options. That of a link does not: it changes
    /// whenever the link is looked at.
    pub fn atime(&self, options: u32) -> Time {
        let kept = options & ATIME != 0 && matches!(self.meta.kind, Kind::File | Kind::Dir);
        if kept { self.last_access } else { Time::default() }
    }
}

/// What a name of the kernel is made of.
pub fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Looks at an entry of a directory; an empty name means the directory itself. `device` is that of the tree.
pub fn look(dir: BorrowedFd<'_>, name: &[u8], device: Option<(u32, u32)>) -> io::Result<Look> {
    let name = c_name(name)?;
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let stat = statx(dir, &name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Unknown => return Err(io::Error::other("a file of an unknown kind")),
    };
    let own = (stat.stx_dev_major, stat.stx_dev_minor);
    let mounted = !name.is_empty() && stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let meta = Meta {
        kind,
        mode: if kind == Kind::Symlink { 0 } else { u32::from(stat.stx_mode) & 0o7777 },
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: time(stat.stx_mtime),
        atime: Time::default(),
        size: if kind == Kind::File { stat.stx_size } else { 0 },
        device: if kind.is_device() { (stat.stx_rdev_major, stat.stx_rdev_minor) } else { (0, 0) },
        flags: 0,
        link: Vec::new(),
        xattrs: Xattrs::new(),
    };
    let handle = identity(dir, &name, &stat)?;
    let stamp = Stamp { handle, ctime: time(stat.stx_ctime), unsure: false, unlisted: false };
    let last_access = time(stat.stx_atime);
    Ok(Look { meta, stamp, last_access, foreign: mounted || device.is_some_and(|device| device != own) })
}

/// The device that a directory is on.
pub fn device_of(dir: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let stat = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

fn time(stamp: StatxTimestamp) -> Time {
    Time { seconds: stamp.tv_sec, nanos: stamp.tv_nsec }
}

/// Asks for attributes, flags and link text of an object that was looked at.
pub fn complete(dir: BorrowedFd<'_>, name: &[u8], options: u32, meta: &mut Meta) -> io::Result<()> {
    meta.xattrs = xattrs(dir, name, options)?;
    match meta.kind {
        Kind::Symlink => meta.link = readlinkat(dir, name, Vec::new())?.into_bytes(),
        Kind::File | Kind::Dir => meta.flags = flags(dir, name, meta.kind)?,
        _ => {}
    }
    Ok(())
}

fn flags(dir: BorrowedFd<'_>, name: &[u8], kind: Kind) -> io::Result<u32> {
    let fd = open_quiet(dir, name, kind)?;
    Ok(raw_flags(fd.as_fd())?.map_or(0, |flags| flags & FLAGS))
}

/// The flags of chattr(1), or `None` where the file system has none.
pub fn raw_flags(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => Ok(Some(flags.bits())),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens for reading, without leaving a trace where that is allowed.
pub fn open_quiet(dir: BorrowedFd<'_>, name: &[u8], kind: Kind) -> io::Result<std::os::fd::OwnedFd> {
    let name = if name.is_empty() { b"." } else { name };
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK;
    if kind == Kind::Dir {
        flags |= OFlags::DIRECTORY;
    }
    match open_beneath(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(open_beneath(dir, name, flags, Mode::empty())?),
        done => Ok(done?),
    }
}

/// Whether an attribute belongs to a tree with these options.
pub fn is_kept(name: &[u8], options: u32) -> bool {
    let usual = name.starts_with(b"user.")
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default" | b"security.capability");
    // XFS shows its ACLs a second time, to root, in a form of its own.
    let privileged = name.starts_with(b"trusted.") && !name.starts_with(b"trusted.SGI_ACL_")
        || name.starts_with(b"security.");
    usual || options & PRIVILEGED != 0 && privileged
}

/// A path to an entry for calls that take no descriptor of a directory; the entry itself is not followed by those
/// that begin with l.
pub fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    path.push(b'/');
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    path
}

/// The attributes of an object that belong to its tree.
pub fn xattrs(dir: BorrowedFd<'_>, name: &[u8], options: u32) -> io::Result<Xattrs> {
    let path = proc_path(dir, name);
    let mut list = vec![0u8; 1024];
    let len = loop {
        match rustix::fs::llistxattr(&path[..], &mut list[..]) {
            Ok(len) => break len,
            Err(Errno::RANGE) => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Xattrs::new()),
            Err(e) => return Err(e.into()),
        }
    };
    let mut xattrs = Xattrs::new();
    for key in list[..len].split(|byte| *byte == 0).filter(|key| is_kept(key, options)) {
        let mut value = vec![0u8; 4096];
        let got = loop {
            match rustix::fs::lgetxattr(&path[..], key, &mut value[..]) {
                Ok(len) => break Some(len),
                Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
                // Removed meanwhile.
                Err(Errno::NODATA) => break None,
                Err(e) => return Err(e.into()),
            }
        };
        if let Some(len) = got {
            value.truncate(len);
            xattrs.insert(key.to_vec(), value);
        }
    }
    Ok(xattrs)
}
