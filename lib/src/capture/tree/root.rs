//! The only way to anything in a tree: from a descriptor of its root, beneath it, past no symbolic link and no mount
//! point (`openat2(2)`), a directory at a time, by names of one component.

use crate::base::{Class, Error, Result, limits};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often an `openat2` is repeated that a rename elsewhere disturbed (`EAGAIN`).
const ATTEMPTS: u32 = 128;

/// The root of a tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// Opens an entry of a directory, or a path of several components beneath it; never through a symbolic link, never
/// out of it, never into another mount.
pub fn open_beneath(dir: impl AsFd, name: &[u8], flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS {
        match openat2(&dir, name, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

impl Root {
    /// Opens a directory. Its own path is the administrator's word, and may lead through symbolic links.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|e| {
            let class = if e == Errno::NOTDIR { Class::Usage } else { Class::Io };
            Error::os(class, path.display(), "opening it", e)
        })?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a directory beneath it, however deep.
    pub fn dir(&self, components: &[&[u8]]) -> rustix::io::Result<OwnedFd> {
        // Listing leaves no trace where that is allowed: to the owner, and to root.
        let open = |at: BorrowedFd<'_>, piece: &[u8]| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            match open_beneath(at, piece, flags | OFlags::NOATIME, Mode::empty()) {
                Err(Errno::PERM) => open_beneath(at, piece, flags, Mode::empty()),
                done => done,
            }
        };
        let mut dir = open(self.fd.as_fd(), b".")?;
        let mut rest = components;
        while !rest.is_empty() {
            let mut len = 0;
            let fits = |name: &&&[u8]| {
                len += name.len() + 1;
                len <= limits::PATH_PIECE
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (piece, more) = rest.split_at(count);
            dir = open(dir.as_fd(), &piece.join(&b'/'))?;
            rest = more;
        }
        Ok(dir)
    }

    /// Writes everything of the file system back, and so write-protects mapped pages again: their next store
    /// changes a time.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).map_err(|e| Error::io(self.path.display(), "syncing its file system", e))
    }

    /// An error on something in it.
    pub fn error(&self, path: &[u8], doing: &str, cause: impl Into<std::io::Error>) -> Error {
        let shown = crate::fslog::show_path(path);
        Error::io(format_args!("{}/{shown}", self.path.display()), doing, cause)
    }
}

/// The state is outside the tree, and the tree outside the state.
pub fn check_apart(root: &Path, log: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let log = real(log).or_else(|| Some(real(log.parent()?)?.join(log.file_name()?)));
    if let (Some(root), Some(log)) = (real(root), log)
        && (log.starts_with(&root) || root.starts_with(&log))
    {
        let text = format!("{}: it is inside {}, or the reverse", log.display(), root.display());
        return Err(Error::new(Class::Usage, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_the_root_is_opened() {
        let dir = tempfile::tempdir().expect("dir");
        let inside = dir.path().join("root");
        std::fs::create_dir_all(inside.join("a/b")).expect("mkdir");
        std::fs::write(dir.path().join("secret"), "x").expect("write");
        symlink("..", inside.join("up")).expect("symlink");
        symlink("a", inside.join("in")).expect("symlink");
        symlink("/proc/self/root", inside.join("magic")).expect("symlink");
        let root = Root::open(&inside).expect("root");
        root.dir(&[b"a", b"b"]).expect("inside");
        for bad in [&[&b"up"[..]][..], &[b".."], &[b"in"], &[b"in", b"b"], &[b"magic"], &[b"a", b"..", b".."]]
        {
            assert!(root.dir(bad).is_err(), "{bad:?}");
        }
        let read = |name: &[u8]| open_beneath(root.fd(), name, OFlags::RDONLY, Mode::empty());
        assert!(read(b"up/secret").is_err() && read(b"../secret").is_err() && read(b"/etc/passwd").is_err());
        assert_eq!(Root::open(&dir.path().join("secret")).expect_err("a file").class, Class::Usage);
    }
}
