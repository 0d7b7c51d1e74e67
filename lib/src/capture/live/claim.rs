//! One recorder at a time has the directory of a source: its lock, its socket, and what the tree is known by.

use crate::base::{Error, Result};
use crate::capture::tree::Root;
use crate::capture::tree::handle::hex;
use crate::capture::tree::inspect::{device_of, look};
use crate::capture::tree::root::check_apart;
use crate::device::lock;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The recorder's socket.
pub const SOCKET: &str = "recorder.sock";
/// The recorder's lock.
pub const LOCK: &str = "recorder.lock";

/// A path to the socket that fits its address, however long the path of the directory is. The directory stays open
/// as long as the path is used.
pub fn socket_path(dir: &Path) -> Result<(File, PathBuf)> {
    let open = File::open(dir).map_err(|e| Error::io(dir.display(), "opening it", e))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()));
    Ok((open, path))
}

/// Opens the tree, and takes the directory of the source for one recorder. Errors: class `Busy` if it has one.
pub fn claim(at: &Path, dir: &Path) -> Result<(Root, File)> {
    check_apart(at, dir)?;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io(dir.display(), "creating it", e));
        }
        _ => {}
    }
    let tree = Root::open(at)?;
    let path = dir.join(LOCK);
    let held = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io(path.display(), "opening it", e))?;
    lock::lock(&held, &path, true)?;
    Ok((tree, held))
}

pub fn listen(dir: &Path) -> Result<UnixListener> {
    let (_open, short) = socket_path(dir)?;
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(path.display(), "removing it", e)),
        _ => {}
    }
    UnixListener::bind(short).map_err(|e| Error::io(path.display(), "listening on it", e))
}

/// What a tree is known by, in hexadecimal digits: the device of its file system, which nothing else has as long as a
/// recorder keeps it open, and the identity of its directory, which the roots of other file systems have too.
pub fn identity(tree: &Root) -> Result<String> {
    let seen = look(tree.fd(), b"", None).and_then(|seen| Ok((seen.stamp.handle, device_of(tree.fd())?)));
    let (handle, (major, minor)) = seen.map_err(|e| tree.error(b".", "looking at it", e))?;
    Ok(format!("{major:x}:{minor:x} {}", hex(&handle)))
}
