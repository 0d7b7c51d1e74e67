//! A moment of a whole tree: a read-only snapshot of the btrfs subvolume that it is, in the directory of the source,
//! which must be on the same file system. A dump reads it at its leisure while the tree goes on.
//!
//! Files keep inode numbers and times in a snapshot; with the number of the subvolume left out of their handles
//! ([`crate::capture::tree::handle`]) they are the same objects there and in the tree.

use super::ioctl;
use crate::base::{Class, Error, Result};
use crate::capture::tree::Root;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The snapshot that goes with its dump.
pub const PASSING: &str = "snapshot";

/// A snapshot, removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct Snapshot {
    root: Root,
    dir: File,
    name: String,
    kept: bool,
}

fn destroy(dir: &File, name: &str, path: &Path) -> Result<()> {
    match ioctl::destroy(dir.as_fd(), name.as_bytes()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::io(path.display(), "removing the snapshot", e)),
    }
}

impl Snapshot {
    /// Takes one of the tree, as `name` in `dir`; what a crash left there is removed. Errors: class `Refused`
    /// where the tree is no subvolume of btrfs, or `dir` is elsewhere.
    pub fn take(tree: &Root, dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let stat =
            rustix::fs::fstat(tree.fd()).map_err(|e| Error::io(tree.path().display(), "looking at it", e))?;
        let kind = rustix::fs::fstatfs(tree.fd())
            .map_err(|e| Error::io(tree.path().display(), "looking at it", e))?;
        if kind.f_type != libc::BTRFS_SUPER_MAGIC || stat.st_ino != ioctl::SUBVOLUME_INODE {
            let text = format!(
                "{}: taking a snapshot: it is no subvolume of btrfs; without snapshots a barrier holds for longer",
                tree.path().display()
            );
            return Err(Error::new(Class::Refused, text));
        }
        let open = File::open(dir).map_err(|e| Error::io(dir.display(), "opening it", e))?;
        if path.exists() {
            destroy(&open, name, &path)?;
        }
        match ioctl::snapshot(tree.fd(), open.as_fd(), name.as_bytes()) {
            Ok(()) => Ok(Self { root: Root::open(&path)?, dir: open, name: name.to_owned(), kept: false }),
            Err(e @ (Errno::XDEV | Errno::NOTTY | Errno::OPNOTSUPP)) => {
                let text = format!(
                    "{}: taking a snapshot of {}: {e}: it must be on the same file system",
                    path.display(),
                    tree.path().display()
                );
                Err(Error::new(Class::Refused, text))
            }
            Err(e) => Err(Error::io(path.display(), "taking a snapshot", e)),
        }
    }

    /// The tree at that moment.
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// It stays when it is dropped.
    pub const fn keep(&mut self) {
        self.kept = true;
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.root.path().to_owned()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        if !self.kept {
            let _ = destroy(&self.dir, &self.name, self.root.path());
        }
    }
}

/// Removes a snapshot that was kept.
pub fn remove(dir: &Path, name: &str) -> Result<()> {
    let open = File::open(dir).map_err(|e| Error::io(dir.display(), "opening it", e))?;
    destroy(&open, name, &dir.join(name))
}
