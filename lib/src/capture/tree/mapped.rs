//! Files that some process has mapped, shared and for writing, at this moment: stores into them cause no event. And
//! files that a process has open for writing that uses `io_submit(2)`: its writes cause none either, until it closes.

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

/// Whether a mapping is the ring of a context of `io_setup(2)`.
fn is_context(line: &str) -> bool {
    line.split_ascii_whitespace().nth(5).is_some_and(|name| name == "/[aio]" || name == "[aio]")
}

/// Whether a descriptor may be written through, by what `/proc/PID/fdinfo` says of it.
fn is_writable(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
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
    let text = String::from_utf8_lossy(&text);
    for range in text.lines().filter_map(shared_writable) {
        add(root, &process.join("map_files").join(range), handles)?;
    }
    if text.lines().any(is_context) {
        for entry in std::fs::read_dir(process.join("fd"))? {
            let entry = entry?;
            let info = process.join("fdinfo").join(entry.file_name());
            // Closed just now: that is an event.
            let Ok(info) = std::fs::read_to_string(info) else { continue };
            if is_writable(&info) {
                add(root, &entry.path(), handles)?;
            }
        }
    }
    Ok(())
}

fn add(root: &Root, path: &Path, handles: &mut HashSet<Box<[u8]>>) -> std::io::Result<()> {
    match identity_of_path(root.fd(), path) {
        Ok(handle) => drop(handles.insert(handle)),
        Err(e) if is_gone(&e) => {}
        // A file system without handles is not this one.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EOVERFLOW)) => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_of_io_setup_and_who_writes_are_known() {
        let line = |name: &str| format!("7f00-7f10 rw-s 00000000 00:0f 3141                       {name}");
        assert!(is_context(&line("/[aio] (deleted)")) && is_context(&line("[aio]")));
        assert!(!is_context(&line("/home/[aio]")) && !is_context(&line("")));
        let info = |flags: &str| format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t30\n");
        assert!(is_writable(&info("0100001")) && is_writable(&info("02")) && is_writable("nonsense"));
        assert!(!is_writable(&info("0100000")));
    }

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
