//! The one way to make or replace a small file so that a crash leaves the old one or the new one, whole.

use crate::base::{Class, Error, Id, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The drafts of this process that are not published.
static DRAFTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn drafts() -> MutexGuard<'static, Vec<PathBuf>> {
    DRAFTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all drafts of this process, which is about to end. One that is just being published is there, or not.
pub fn forget_drafts() {
    for path in drafts().drain(..) {
        // As with a draft that is dropped.
        let _ = std::fs::remove_file(path);
    }
}

/// A file that has no name yet that anybody looks for; dropped without [`Draft::publish`] it is removed.
///
/// 1. The draft is created beside its destination, mode 0600, under a random hidden name.
/// 2. The caller fills it through [`Draft::file`].
/// 3. `publish`: the draft is synced,
/// 4. renamed to its destination,
/// 5. and the directory is synced. Now it is durable.
///
/// Recovery: (a) a crash before 4 leaves the old file, or none, and a hidden `.NAME.RANDOM.tmp` that nothing
/// reads; (b) between 4 and 5 the old or the new file is there, whole; (c) after 5 the new one.
#[derive(Debug)]
pub struct Draft {
    file: File,
    temporary: PathBuf,
    destination: PathBuf,
    published: bool,
}

impl Draft {
    /// Step 1: an empty draft of `destination`, in the same directory.
    pub fn new(destination: &Path) -> Result<Self> {
        let Some(name) = destination.file_name() else {
            return Err(Error::new(
                Class::Usage,
                format!("{}: creating it: no file name", destination.display()),
            ));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", Id::random()?));
        let temporary = destination.with_file_name(hidden);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|e| Error::io(temporary.display(), "creating it", e))?;
        drafts().push(temporary.clone());
        Ok(Self { file, temporary, destination: destination.to_owned(), published: false })
    }

    /// The open draft.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Steps 3 to 5. With `replace` an existing destination is replaced, otherwise it is refused (class
    /// `Refused`) and left alone. Returns the open file.
    pub fn publish(mut self, replace: bool) -> Result<File> {
        let fail = |doing: &str, e: std::io::Error| Error::io(self.destination.display(), doing, e);
        self.file.sync_all().map_err(|e| fail("syncing it", e))?;
        if replace {
            std::fs::rename(&self.temporary, &self.destination).map_err(|e| fail("replacing it", e))?;
        } else {
            rename_new(&self.temporary, &self.destination)?;
        }
        self.published = true;
        self.forget();
        sync_dir(directory_of(&self.destination))?;
        self.file.try_clone().map_err(|e| fail("opening it", e))
    }

    fn forget(&self) {
        drafts().retain(|path| *path != self.temporary);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            self.forget();
            // The name is random and ours; if it cannot be removed, nothing reads it.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Renames without replacing; file systems without `RENAME_NOREPLACE` get a hard link, which refuses as well.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    let done = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from))
        }
        done => done.map_err(Into::into),
    };
    done.map_err(|e| {
        let class = if e.kind() == std::io::ErrorKind::AlreadyExists { Class::Refused } else { Class::Io };
        Error::os(class, to.display(), "creating it", e)
    })
}

/// The directory that holds `path`.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Replaces `path` by `bytes`, or makes it: old or new after a crash, never a mixture (see [`Draft`]).
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    write_draft(path, bytes)?.publish(true).map(drop)
}

/// Makes `path` with `bytes`; class `Refused` if it exists.
pub fn create_new(path: &Path, bytes: &[u8]) -> Result<()> {
    write_draft(path, bytes)?.publish(false).map(drop)
}

fn write_draft(path: &Path, bytes: &[u8]) -> Result<Draft> {
    let draft = Draft::new(path)?;
    let mut file = draft.file();
    file.write_all(bytes).map_err(|e| Error::io(path.display(), "writing its draft", e))?;
    Ok(draft)
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::io(dir.display(), "syncing the directory", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .expect("dir")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replacing_leaves_the_new_bytes_and_no_draft() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        replace(&path, b"one").expect("make");
        replace(&path, b"two").expect("replace");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        assert_eq!(names(dir.path()), ["f"]);
    }

    #[test]
    fn creating_refuses_what_exists_and_leaves_it_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        create_new(&path, b"one").expect("make");
        assert_eq!(create_new(&path, b"two").expect_err("exists").class, Class::Refused);
        assert_eq!(std::fs::read(&path).expect("read"), b"one");
        assert_eq!(names(dir.path()), ["f"]);
        assert_eq!(create_new(&dir.path().join("no/f"), b"").expect_err("no directory").class, Class::Io);
    }
}
