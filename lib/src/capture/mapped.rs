//! Files that some process has mapped, shared and for writing, at this moment: stores into them cause no event.

use super::handle::identity_of_path;
use super::root::Root;
use crate::base::{Error, Result};
use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::Path;

/// The address range of a shared writable mapping of a file, as `/proc/PID/map_files` names it.
fn shared_writable(line: &str) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?.as_bytes());
    let inode = fields.nth(2)?;
    (permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's') && inode != "0").then_some(range)
}

/// What is mapped by whom.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    /// The identities of the files, of any file system: a handle of another one does no harm.
    pub handles: HashSet<Box<[u8]>>,
    /// Processes with more privileges than ours, which may not be looked at. What they store is seen once they
    /// unmap it, which is an event.
    pub unseen: BTreeSet<u32>,
}

/// Looks at all processes.
pub fn mapped(root: &Root) -> Result<Mapped> {
    let mut found = Mapped::default();
    let fail = |e| Error::io("/proc", "listing it", e);
    for entry in std::fs::read_dir("/proc").map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        match mapped_by(root, &path, &mut found.handles) {
            Ok(()) => {}
            // It ended; what it had mapped has an event.
            Err(e) if is_gone(&e) => {}
            Err(e) if e.kind() == ErrorKind::PermissionDenied => drop(found.unseen.insert(pid)),
            Err(e) => return Err(Error::io(path.display(), "looking at its mappings", e)),
        }
    }
    Ok(found)
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn mapped_by(root: &Root, process: &Path, handles: &mut HashSet<Box<[u8]>>) -> std::io::Result<()> {
    let text = std::fs::read(process.join("maps"))?;
    for range in String::from_utf8_lossy(&text).lines().filter_map(shared_writable) {
        match identity_of_path(root.fd(), &process.join("map_files").join(range)) {
            Ok(handle) => drop(handles.insert(handle)),
            Err(e) if is_gone(&e) => {}
            // A file system without handles is not this one.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EOVERFLOW)) => {
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_writable_mappings_of_files_count() {
        let line = |permissions: &str, inode: &str| {
            format!("7f00-7f10 {permissions} 00000000 fe:00 {inode}                  /a b (deleted)")
        };
        assert_eq!(shared_writable(&line("rw-s", "12")), Some("7f00-7f10"));
        for (permissions, inode) in [("r--s", "12"), ("rw-p", "12"), ("rw-s", "0")] {
            assert_eq!(shared_writable(&line(permissions, inode)), None);
        }
        assert_eq!(shared_writable("nonsense"), None);
    }
}
