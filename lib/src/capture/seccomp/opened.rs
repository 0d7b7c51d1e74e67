//! Which files of a tree the processes of a command can write to at this moment without another call that would be told
//! of: those they have open for writing, or mapped so that stores may come to be allowed.
//!
//! Processes start, pass descriptors on by `fork`, and move them by `dup2`, while they are looked at one after the
//! other. So the list is made again until one pass found no process and no file that the one before it had not; what
//! any pass found counts. A process that ended before it was looked at passed on what it had to one that is looked at
//! later. Descriptors that travel in a message (`SCM_RIGHTS`) are in no process; where one is under way, a scan is owed.

use crate::base::limits;
use crate::capture::tree::handle::identity_of_path;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Why the files cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen;

/// Files by their handles.
pub type Handles = HashSet<Box<[u8]>>;

/// Whose files, and of which tree.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// All that descends from this process.
    pub keeper: u32,
    /// Without this one.
    pub recorder: u32,
    /// Something in the tree.
    pub tree: BorrowedFd<'a>,
    /// The device of its file system.
    pub device: (u32, u32),
}

/// All processes, by their parents, out of the texts of `/proc/PID/stat`.
fn children(stats: impl Iterator<Item = (u32, String)>) -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, stat) in stats {
        // The name of the program is in parentheses, and may have some itself.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        if let Some(parent) = fields.split(' ').nth(1).and_then(|field| field.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// The processes of a command.
pub fn descendants(keeper: u32, recorder: u32) -> Result<BTreeSet<u32>, Unseen> {
    let entries = std::fs::read_dir("/proc").map_err(|_| Unseen)?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let stats =
        pids.filter_map(|pid| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
    let children = children(stats);
    let mut found = BTreeSet::new();
    let mut waiting = vec![keeper];
    while let Some(pid) = waiting.pop() {
        for child in children.get(&pid).into_iter().flatten().copied() {
            if child != recorder && found.insert(child) {
                waiting.push(child);
            }
        }
    }
    Ok(found)
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The files.
pub fn opened(of: Of<'_>) -> Result<Handles, Unseen> {
    let mut found = Handles::new();
    let mut known = BTreeSet::new();
    for _ in 0..limits::PROCESS_LISTS {
        let before = found.len();
        let pids = descendants(of.keeper, of.recorder)?;
        for pid in &pids {
            let process = PathBuf::from(format!("/proc/{pid}"));
            match opened_by(of, &process, &mut found) {
                Ok(()) => {}
                Err(e) if is_gone(&e) => {}
                Err(_) => return Err(Unseen),
            }
        }
        if pids.is_subset(&known) && found.len() == before {
            return Ok(found);
        }
        known.extend(pids);
    }
    Err(Unseen)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn opened_by(of: Of<'_>, process: &Path, found: &mut Handles) -> io::Result<()> {
    for entry in std::fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        let info = process.join("fdinfo").join(entry.file_name());
        // Closed just now, and by then whoever else has it is looked at.
        let Ok(info) = std::fs::read_to_string(info) else { continue };
        if messages(&info) > 0 {
            return Err(ErrorKind::Other.into());
        }
        if is_writable(&info) {
            add(of, &entry.path(), found)?;
        }
    }
    let maps = std::fs::read(process.join("maps"))?;
    for line in maps.split(|byte| *byte == b'\n') {
        if let Some(mapping) = shared(line) {
            mapped(of, process, &mapping, found)?;
        }
    }
    Ok(())
}

/// Whether a descriptor may be written through, by what `/proc/PID/fdinfo` says of it.
fn is_writable(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0)
}

/// Descriptors that wait in a socket to be received.
fn messages(info: &str) -> u64 {
    let count = info.lines().find_map(|line| line.strip_prefix("scm_fds:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Looks at what a descriptor is; what is not a regular file of the tree's file system does not count.
fn add(of: Of<'_>, path: &Path, found: &mut Handles) -> io::Result<()> {
    let stat = match statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE) {
        Ok(stat) => stat,
        Err(e) if is_gone(&e.into()) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    if regular && (stat.stx_dev_major, stat.stx_dev_minor) == of.device {
        match identity_of_path(of.tree, path) {
            Ok(handle) => drop(found.insert(handle)),
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A shared mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    range: String,
    inode: u64,
    path: Vec<u8>,
}

/// A shared mapping in a line of `/proc/PID/maps`: also one that may only be read now, because `mprotect` is not told of.
fn shared(line: &[u8]) -> Option<Shared> {
    // Range, permissions, offset, device, inode, path: the path may have blanks.
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let text = |field: Option<&[u8]>| field.and_then(|field| String::from_utf8(field.to_vec()).ok());
    let range = text(fields.next())?;
    let permissions = fields.next()?;
    let inode: u64 = text(fields.nth(2))?.parse().ok()?;
    let path = fields.next().unwrap_or_default();
    let begin = path.iter().position(|byte| *byte != b' ').unwrap_or(path.len());
    (permissions.get(3) == Some(&b's') && inode != 0).then(|| Shared {
        range,
        inode,
        path: path[begin..].to_vec(),
    })
}

/// A mapping names its file by a link that only root may follow, and by a path that may not lead to it any more.
fn mapped(of: Of<'_>, process: &Path, mapping: &Shared, found: &mut Handles) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    match add(of, &process.join("map_files").join(&mapping.range), found) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
        done => return done,
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&mapping.path));
    if path.starts_with("/dev/shm")
        || path.starts_with("/dev/zero")
        || path.starts_with("/memfd:")
        || !path.is_absolute()
    {
        // Memory, of no tree; and a tree there is found by its path.
        if !path.starts_with("/dev/shm") {
            return Ok(());
        }
    }
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(stat) if stat.stx_ino == mapping.inode => add(of, path, found),
        _ => Err(ErrorKind::PermissionDenied.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tree::Root;
    use crate::capture::tree::inspect::device_of;
    use std::os::fd::AsFd as _;

    #[test]
    fn parents_are_read_past_any_name_of_a_program() {
        let stats = [(7, "7 (a) 1 (b)) S 3 7 7 0"), (8, "8 (x y) R 7 8 8 0"), (9, "nonsense")];
        let found = children(stats.into_iter().map(|(pid, stat)| (pid, stat.to_owned())));
        assert_eq!(found.get(&3), Some(&vec![7]));
        assert_eq!(found.get(&7), Some(&vec![8]));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_may_be_written_through_is_known_by_its_flags() {
        let info = |flags: &str| format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t30\n");
        assert!(is_writable(&info("0100001")) && is_writable(&info("02")) && is_writable("nonsense"));
        assert!(!is_writable(&info("0100000")));
        assert_eq!((messages("scm_fds: 2\n"), messages("scm_fds: 0\n"), messages("pos:\t0\n")), (2, 0, 0));
    }

    #[test]
    fn every_shared_mapping_of_a_file_counts() {
        let line = |permissions: &str, inode: &str| {
            format!("7f00-7f10 {permissions} 00000000 fe:00 {inode}                  /a b").into_bytes()
        };
        for permissions in ["rw-s", "r--s", "---s"] {
            let found = shared(&line(permissions, "12")).expect("shared");
            assert_eq!((&found.range[..], found.inode, &found.path[..]), ("7f00-7f10", 12, &b"/a b"[..]));
        }
        for (permissions, inode) in [("rw-p", "12"), ("rw-s", "0")] {
            assert_eq!(shared(&line(permissions, inode)), None);
        }
        assert_eq!(shared(b"nonsense"), None);
    }

    #[test]
    fn a_file_that_is_open_for_writing_in_a_child_is_found_until_it_is_closed() {
        let dir = tempfile::tempdir().expect("dir");
        let [read, written] = ["r", "w"].map(|name| dir.path().join(name));
        for path in [&read, &written] {
            std::fs::write(path, "x").expect("write");
        }
        let root = Root::open(dir.path()).expect("root");
        let device = device_of(root.fd()).expect("device");
        let own = std::process::id();
        let look = || opened(Of { keeper: own, recorder: 0, tree: root.fd().as_fd(), device }).expect("seen");
        let handle = |path| identity_of_path(root.fd(), path).expect("handle");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::fs::File::open(&read).expect("open"))
            .stdout(std::fs::File::options().append(true).open(&written).expect("open"))
            .spawn()
            .expect("start");
        let found = look();
        assert!(found.contains(&handle(&written)) && !found.contains(&handle(&read)));
        child.kill().expect("kill");
        child.wait().expect("reap");
        assert!(!look().contains(&handle(&written)));
    }
}
