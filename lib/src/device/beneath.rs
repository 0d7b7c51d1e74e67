//! Paths that somebody else names, confined to one directory.

use crate::base::{Class, Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How often an `openat2` is repeated that a rename elsewhere disturbed (`EAGAIN`).
const ATTEMPTS: u32 = 128;

/// Where paths may lead.
#[derive(Debug)]
pub struct Confined(Option<(OwnedFd, PathBuf)>);

/// Something that was found, held so that nobody can put something else in its place.
#[derive(Debug)]
pub struct Found {
    /// How it is called in messages.
    pub shown: PathBuf,
    held: Option<OwnedFd>,
}

impl Found {
    /// A path that leads to exactly this, as long as this lives.
    pub fn path(&self) -> PathBuf {
        match &self.held {
            Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            None => self.shown.clone(),
        }
    }

    /// Whether it is in the file system of devices, where links are believed.
    pub fn is_of_devices(&self) -> bool {
        let device = |path: &Path| statat(CWD, path, AtFlags::empty()).ok().map(|stat| stat.st_dev);
        device(&self.path()).is_some_and(|own| device(Path::new("/dev")) == Some(own))
    }

    /// An error that names it as it is called, not by the way to it.
    pub fn name(&self, error: Error) -> Error {
        let shown = self.shown.display().to_string();
        Error { message: error.message.replace(&self.path().display().to_string(), &shown), ..error }
    }
}

impl Confined {
    /// Anywhere: nobody is confined.
    pub const fn nowhere() -> Self {
        Self(None)
    }

    /// Beneath a directory, by whatever path that is reached.
    pub fn beneath(dir: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, dir, flags, Mode::empty())
            .map_err(|e| Error::os(Class::Usage, dir.display(), "opening the root", e))?;
        Ok(Self(Some((fd, dir.to_owned()))))
    }

    /// Whether anybody is confined.
    pub const fn is_confined(&self) -> bool {
        self.0.is_some()
    }

    /// Finds what a path names: beneath the root, whatever it begins with, and never out of it, by `..`, by a
    /// symbolic link or by a magic one (`openat2(2)`). Classes: `Refused` for a way out, `Io` for what is not there.
    ///
    /// One link may leave the root: one that root made in a directory of the device file system that only root
    /// writes, to a block device of it; so are the names of logical volumes in `/dev/GROUP`.
    pub fn find(&self, path: &[u8]) -> Result<Found> {
        let Some((root, dir)) = &self.0 else {
            return Ok(Found { shown: PathBuf::from(OsStr::from_bytes(path)), held: None });
        };
        let inside = path.iter().position(|byte| *byte != b'/').map_or(&b"."[..], |at| &path[at..]);
        let shown = dir.join(OsStr::from_bytes(inside));
        let fail = |e: Errno| {
            let class = if matches!(e, Errno::XDEV | Errno::LOOP) { Class::Refused } else { Class::Io };
            if class == Class::Refused {
                return Error::new(
                    class,
                    format!("{}: opening it: it leads out of the root", shown.display()),
                );
            }
            Error::os(class, shown.display(), "opening it", e)
        };
        let held = match open_path(root, inside, OFlags::empty()) {
            Err(Errno::XDEV) => device_link(root, inside).ok_or(Errno::XDEV),
            found => found,
        };
        let held = Some(held.map_err(fail)?);
        Ok(Found { shown, held })
    }
}

fn open_path(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// The exception of [`Confined::find`].
fn device_link(root: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    let parent = open_path(root, parent, OFlags::DIRECTORY).ok()?;
    let devices = statat(CWD, "/dev", AtFlags::empty()).ok()?.st_dev;
    let dir = fstat(&parent).ok()?;
    let only_root = dir.st_uid == 0 && dir.st_mode & 0o022 == 0;
    let link = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if dir.st_dev != devices || !only_root || link.st_uid != 0 {
        return None;
    }
    let found = openat(&parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let end = fstat(&found).ok()?;
    let is_block = FileType::from_raw_mode(end.st_mode) == FileType::BlockDevice;
    (is_block && end.st_dev == devices).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_out_of_the_root() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("mkdir");
        std::fs::write(dir.path().join("secret"), "secret").expect("write");
        std::fs::write(root.join("a/file"), "inside").expect("write");
        symlink("../../secret", root.join("a/up")).expect("symlink");
        symlink("/etc/passwd", root.join("absolute")).expect("symlink");
        symlink("..", root.join("parent")).expect("symlink");
        symlink("/proc/self/cwd", root.join("magic")).expect("symlink");
        symlink("a/file", root.join("inside")).expect("symlink");
        let confined = Confined::beneath(&root).expect("root");
        for good in ["/a/file", "a/file", "///a/file", "/inside", "/a/../a/file", "/a/b/../file"] {
            let found = confined.find(good.as_bytes()).expect(good);
            assert_eq!(std::fs::read(found.path()).expect(good), b"inside", "{good}");
            assert!(found.shown.starts_with(&root));
        }
        for bad in [
            "/../secret",
            "/a/../../secret",
            "/a/up",
            "/absolute",
            "/parent/secret",
            "/magic",
            "/magic/x",
            "..",
            "a/../..",
        ] {
            assert_eq!(confined.find(bad.as_bytes()).expect_err(bad).class, Class::Refused, "{bad}");
        }
        assert_eq!(confined.find(b"/none").expect_err("missing").class, Class::Io);
        assert_eq!(confined.find(b"/").expect("the root itself").shown, root.join("."));
        let free = Confined::nowhere().find(b"/etc/../etc/passwd").expect("free");
        assert_eq!(free.path(), Path::new("/etc/../etc/passwd"));
    }

    #[test]
    fn what_was_found_stays_what_it_is() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        std::fs::write(&path, "first").expect("write");
        let found = Confined::beneath(dir.path()).expect("root").find(b"/file").expect("found");
        std::fs::rename(&path, dir.path().join("other")).expect("rename");
        symlink("/etc/passwd", &path).expect("symlink");
        assert_eq!(std::fs::read(found.path()).expect("read"), b"first");
        let error = Error::new(Class::Io, format!("{}: reading 0+1: x", found.path().display()));
        assert_eq!(found.name(error).message, format!("{}: reading 0+1: x", path.display()));
    }
}
