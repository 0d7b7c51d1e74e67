//! Advisory locks on whole files (`flock(2)`): gone with the process that held them.

use crate::base::{Class, Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// How often a lock on a block device is asked for: udev holds one for some milliseconds while it probes.
const DEVICE_ATTEMPTS: u32 = 10;
/// The pause between two attempts.
const DEVICE_PAUSE: Duration = Duration::from_millis(30);
/// How often a file is opened again that was replaced between opening and locking.
const REPLACED_ATTEMPTS: u32 = 8;

/// Locks an open file: exclusively for a writer, shared for a reader. Class `Busy` when another process holds it.
pub fn lock(file: &File, path: &Path, exclusive: bool) -> Result<()> {
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match flock(file, operation) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(Error::new(Class::Busy, format!("{}: locking it: another process holds it", path.display())))
        }
        Err(e) => Err(Error::io(path.display(), "locking it", e)),
    }
}

/// The same for a block device, with patience for udev, which locks devices while it probes them.
pub fn lock_device(file: &File, path: &Path, exclusive: bool) -> Result<()> {
    for _ in 1..DEVICE_ATTEMPTS {
        match lock(file, path, exclusive) {
            Err(e) if e.class == Class::Busy => std::thread::sleep(DEVICE_PAUSE),
            done => return done,
        }
    }
    lock(file, path, exclusive)
}

/// Opens an existing file (never a directory or a device) and locks it. Files that are replaced by a rename are
/// locked by content, not by name: what was renamed over in between is opened again.
pub fn open_locked(path: &Path, write: bool) -> Result<File> {
    for _ in 0..REPLACED_ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|e| Error::io(path.display(), "opening it", e))?;
        let opened = file.metadata().map_err(|e| Error::io(path.display(), "reading its size", e))?;
        if !opened.is_file() {
            return Err(Error::new(
                Class::Usage,
                format!("{}: opening it: not a regular file", path.display()),
            ));
        }
        lock(&file, path, write)?;
        match std::fs::metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (opened.dev(), opened.ino()) => return Ok(file),
            _ => {}
        }
    }
    Err(Error::new(Class::Busy, format!("{}: locking it: it is replaced again and again", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_to_come_back_later() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        std::fs::write(&path, "x").expect("write");
        let held = open_locked(&path, true).expect("first");
        assert_eq!(open_locked(&path, true).expect_err("second").class, Class::Busy);
        assert_eq!(open_locked(&path, false).expect_err("reader").class, Class::Busy);
        drop(held);
        let _reader = open_locked(&path, false).expect("reader");
        let _another = open_locked(&path, false).expect("another reader");
        assert_eq!(open_locked(dir.path(), false).expect_err("directory").class, Class::Usage);
        assert_eq!(open_locked(&dir.path().join("none"), false).expect_err("missing").class, Class::Io);
    }
}
