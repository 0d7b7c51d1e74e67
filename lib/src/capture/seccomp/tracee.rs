//! What the arguments of a call mean, in the eyes of the process that makes it: its working directory, its descriptors,
//! its root. Nothing is opened but places (`O_PATH`).
//!
//! A path is walked as the kernel will walk it a moment later. In that moment another thread may put something else in
//! its place; so what is found are *names to be looked at again*, and never an answer about a call.

use super::notify::read_string;
use crate::base::limits;
use crate::capture::tree::handle::identity;
use crate::capture::tree::inspect::c_name;
use crate::fslog::Kind;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, fstatfs, openat, openat2,
    readlinkat, statx,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The call will fail, or its process is gone: nothing comes of it.
    Nothing,
    /// It could not be seen: a scan is owed.
    Unseen,
}

type Result<T> = std::result::Result<T, Failed>;

/// What an error of the walk says of the call that will walk the same way.
fn failed(e: Errno) -> Failed {
    match e {
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::FAULT
        | Errno::BADF
        | Errno::SRCH
        | Errno::INVAL => Failed::Nothing,
        _ => Failed::Unseen,
    }
}

/// The same of a step that its privileges allow and ours do not. Without root ours are its own, and it fails as we do.
fn walked(e: Errno) -> Failed {
    let ours = e == Errno::ACCESS && !rustix::process::geteuid().is_root();
    if ours { Failed::Nothing } else { failed(e) }
}

/// `PROC_SUPER_MAGIC`
const PROC: rustix::fs::FsWord = 0x9fa0;
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Something that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The device of its file system.
    pub device: (u32, u32),
    /// Its identity.
    pub handle: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
}

/// Where a path leads.
#[derive(Debug)]
pub enum Place {
    /// A name in a directory, which may be there or not.
    Name(OwnedFd, Vec<u8>),
    /// Something that has no last component of its own: `.`, `..`, a descriptor.
    Itself(OwnedFd),
}

fn kind_of(stat: &Statx) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Unknown => return None,
    })
}

/// What is behind a descriptor (an empty name), or has a name in a directory. `None` if nothing is there.
pub fn node(dir: BorrowedFd<'_>, name: &[u8], tree: (u32, u32)) -> Result<Option<Node>> {
    let name = c_name(name).map_err(|_| Failed::Nothing)?;
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let stat = match statx(dir, &name, flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME) {
        Ok(stat) => stat,
        Err(e) if walked(e) == Failed::Nothing => return Ok(None),
        Err(_) => return Err(Failed::Unseen),
    };
    // Pipes and sockets without a name are of no kind, and of no tree.
    let Some(kind) = kind_of(&stat) else { return Ok(None) };
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    if device != tree {
        return Ok(Some(Node { device, handle: Box::default(), kind }));
    }
    match identity(dir, &name, &stat) {
        Ok(handle) => Ok(Some(Node { device, handle, kind })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(Failed::Unseen),
    }
}

/// A thread that makes a call.
#[derive(Clone, Copy, Debug)]
pub struct Tracee<'a> {
    /// `/proc`
    pub proc: BorrowedFd<'a>,
    /// Its number.
    pub tid: u32,
}

impl Tracee<'_> {
    fn link(self, name: &str) -> Result<OwnedFd> {
        openat(self.proc, format!("{}/{name}", self.tid), PLACE, Mode::empty()).map_err(failed)
    }

    /// What a descriptor of it is.
    pub fn descriptor(self, fd: u64) -> Result<OwnedFd> {
        let fd = fd as i32;
        if fd < 0 { Err(Failed::Nothing) } else { self.link(&format!("fd/{fd}")) }
    }

    /// Where a path begins.
    fn start(self, dir: Option<u64>) -> Result<OwnedFd> {
        match dir {
            Some(fd) if fd as i32 != libc::AT_FDCWD => self.descriptor(fd),
            _ => self.link("cwd"),
        }
    }

    /// A path out of its memory.
    pub fn path(self, address: u64) -> Result<Vec<u8>> {
        read_string(self.tid, address, limits::LINK_TEXT).map_err(failed)
    }

    /// Where a path leads from a directory. With `follow` also if its last component is a symbolic link.
    pub fn place(self, dir: Option<u64>, path: &[u8], follow: bool) -> Result<Place> {
        if path.is_empty() {
            return Err(Failed::Nothing);
        }
        let start = if path[0] == b'/' { self.link("root")? } else { self.start(dir)? };
        self.walk(start, path, follow)
    }

    fn walk(self, start: OwnedFd, path: &[u8], follow: bool) -> Result<Place> {
        let (above, last) = split(path);
        if !above.is_empty() && !has_dots(above) && !matches!(last, b"." | b"..") {
            let flags = PLACE | OFlags::DIRECTORY;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(&start, above, flags, Mode::empty(), resolve) {
                Ok(dir) => return self.end(dir, last, follow),
                // A symbolic link, or a rename at the same moment: by hand.
                Err(Errno::LOOP | Errno::AGAIN | Errno::XDEV) => {}
                Err(e) => return Err(walked(e)),
            }
        } else if above.is_empty() && !last.is_empty() && !matches!(last, b"." | b"..") {
            return self.end(start, last, follow);
        }
        self.by_hand(start, path, follow)
    }

    /// The last component, where it need not be followed any further.
    fn end(self, dir: OwnedFd, last: &[u8], follow: bool) -> Result<Place> {
        if follow && is_link(dir.as_fd(), last)? {
            return self.by_hand(dir, last, follow);
        }
        Ok(Place::Name(dir, last.to_vec()))
    }

    /// Component by component, links as its root and its own `/proc/self` have them.
    fn by_hand(self, start: OwnedFd, path: &[u8], follow: bool) -> Result<Place> {
        let mut at = start;
        let mut rest: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let last = rest.is_empty();
            match &name[..] {
                b"." => {}
                b".." => {
                    if !self.is_root(at.as_fd())? {
                        at = openat(&at, "..", PLACE, Mode::empty()).map_err(walked)?;
                    }
                }
                _ if last && !(follow && is_link(at.as_fd(), &name)?) => return Ok(Place::Name(at, name)),
                _ => {
                    let found =
                        openat(&at, &*name, PLACE | OFlags::NOFOLLOW, Mode::empty()).map_err(walked)?;
                    if !is_link(found.as_fd(), b"")? {
                        at = found;
                        continue;
                    }
                    links += 1;
                    if links > limits::WALK_LINKS {
                        return Err(Failed::Nothing);
                    }
                    let of_proc = fstatfs(&found).map_err(walked)?.f_type == PROC;
                    if of_proc && matches!(&name[..], b"self" | b"thread-self") {
                        // Of whoever looks: of it, not of us.
                        let own = device(self.proc)? == device(found.as_fd())?;
                        if !own {
                            return Err(Failed::Unseen);
                        }
                        at = self.link(".")?;
                    } else if of_proc && is_magic(at.as_fd(), &name) {
                        at = openat(&at, &*name, PLACE, Mode::empty()).map_err(walked)?;
                    } else {
                        let text = readlinkat(&at, &*name, Vec::new()).map_err(walked)?;
                        let text = text.as_bytes();
                        if text.first() == Some(&b'/') {
                            at = self.link("root")?;
                        }
                        rest.extend(components(text));
                    }
                }
            }
        }
        Ok(Place::Itself(at))
    }

    /// Whether a directory is its root, above which there is nothing.
    fn is_root(self, dir: BorrowedFd<'_>) -> Result<bool> {
        let root = self.link("root")?;
        let [a, b] = [dir, root.as_fd()].map(|fd| {
            statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID).map_err(walked)
        });
        let (a, b) = (a?, b?);
        Ok((a.stx_ino, a.stx_mnt_id, a.stx_dev_major, a.stx_dev_minor)
            == (b.stx_ino, b.stx_mnt_id, b.stx_dev_major, b.stx_dev_minor))
    }
}

fn device(fd: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO).map_err(walked)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

fn is_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let name = c_name(name).map_err(|_| Failed::Nothing)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let flags = if name.is_empty() { flags | AtFlags::EMPTY_PATH } else { flags };
    match statx(dir, &name, flags, StatxFlags::TYPE) {
        Ok(stat) => Ok(kind_of(&stat) == Some(Kind::Symlink)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(walked(e)),
    }
}

/// Whether a link of `/proc` leads to the thing itself, whatever its text says.
fn is_magic(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let resolve = ResolveFlags::NO_MAGICLINKS;
    matches!(openat2(dir, name, PLACE, Mode::empty(), resolve), Err(Errno::LOOP))
}

/// Everything before the last component, and that; slashes at the end do not count.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (above, last) = path.split_at(at);
    // The start is the root already.
    let begin = above.iter().position(|byte| *byte != b'/').unwrap_or(above.len());
    (&above[begin..], last)
}

/// Above a chroot there is nothing, and `openat2` knows only ours.
fn has_dots(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

/// `/proc`, for [`Tracee`].
pub fn proc() -> std::io::Result<OwnedFd> {
    Ok(openat(CWD, "/proc", PLACE | OFlags::DIRECTORY, Mode::empty())?)
}

#[cfg(test)]
#[path = "tracee_tests.rs"]
mod tests;
