//! Files held still by reflinks (`FICLONE`): inside a barrier a clone takes microseconds where reading takes as long
//! as the disk needs. The clones are read after the barrier, from a directory of the source, which must be on the
//! file system of the tree; where that does not work, files are read inside the barrier.

use crate::base::{Error, Result, limits};
use crate::fslog::ObjectId;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Clones in a directory of their own, which goes with them.
#[derive(Debug)]
pub struct Clones {
    dir: PathBuf,
    ids: Vec<ObjectId>,
    /// The file system has refused once: it is not asked again.
    refused: bool,
}

impl Clones {
    /// No clones yet, in `DIR/clones`; what a crash left there is removed.
    pub fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("clones");
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(Error::io(dir.display(), "removing it", e));
            }
            _ => {}
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Error::io(dir.display(), "creating it", e))?;
        Ok(Self { dir, ids: Vec::new(), refused: false })
    }

    fn path(&self, id: ObjectId) -> PathBuf {
        self.dir.join(id.0.to_string())
    }

    /// Clones a file; false if it is read as fast, or cannot be cloned.
    pub fn take(&mut self, id: ObjectId, file: BorrowedFd<'_>, size: u64) -> Result<bool> {
        if self.refused || size <= limits::CONTENT_BLOCK {
            return Ok(false);
        }
        let path = self.path(id);
        let clone = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(path.display(), "creating it", e))?;
        match rustix::fs::ioctl_ficlone(&clone, file) {
            Ok(()) => {
                self.ids.push(id);
                Ok(true)
            }
            Err(
                Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::TXTBSY,
            ) => {
                self.refused = true;
                std::fs::remove_file(&path).map_err(|e| Error::io(path.display(), "removing it", e))?;
                Ok(false)
            }
            Err(e) => Err(Error::io(path.display(), "cloning into it", e)),
        }
    }

    /// Opens one after the other, and removes it afterwards.
    pub fn each(&self, mut work: impl FnMut(ObjectId, &Path, BorrowedFd<'_>) -> Result<()>) -> Result<()> {
        for id in &self.ids {
            let path = self.path(*id);
            let file = File::open(&path).map_err(|e| Error::io(path.display(), "opening it", e))?;
            work(*id, &path, file.as_fd())?;
            std::fs::remove_file(&path).map_err(|e| Error::io(path.display(), "removing it", e))?;
        }
        Ok(())
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        // What is left is removed by the next dump.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
