//! The whole tree, seen without opening a file: names, statx and file handles, by a few threads.

use super::inspect::{Look, device_of, look, open_quiet};
use super::root::Root;
use crate::base::{Class, Error, Result};
use crate::capture::STAGE;
use crate::capture::watch::Watch;
use crate::fslog::Kind;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// More threads than this only wait for the same locks of the kernel.
const THREADS_MAX: usize = 8;
/// So many directories stay open for those beneath them; a process may usually have 1024 files open.
const DESCRIPTORS_MAX: usize = 256;

/// An entry that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: Box<[u8]>,
    /// What was seen.
    pub look: Look,
    /// The number of its own entries in [`Walked::dirs`], if it is a directory.
    pub dir: Option<usize>,
}

/// A tree as it was found; directory 0 is the root.
#[derive(Clone, Debug)]
pub struct Walked {
    /// The root itself.
    pub root: Look,
    /// The entries of each directory, in order of their names.
    pub dirs: Vec<Vec<Found>>,
    /// Directories that were seen and were not there any more, or were others, when they were to be listed.
    pub missed: BTreeSet<usize>,
}

/// A directory. Those beneath it are opened from its descriptor: where it moves to meanwhile is all the same.
struct Node {
    above: Option<(Arc<Self>, Box<[u8]>)>,
    number: usize,
    /// Its identity, as it was seen.
    handle: Box<[u8]>,
    /// Its descriptor, once it is open, unless there are too many.
    open: OnceLock<Open>,
}

/// A descriptor that is counted as long as it is open.
struct Open {
    fd: OwnedFd,
    held: Arc<AtomicUsize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Queue {
    waiting: Vec<Arc<Node>>,
    working: usize,
    dirs: Vec<Vec<Found>>,
    missed: BTreeSet<usize>,
    failed: Option<Error>,
}

struct Shared<'a> {
    root: &'a Root,
    device: (u32, u32),
    stage: bool,
    watch: &'a Watch,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Descriptors that nodes hold.
    held: Arc<AtomicUsize>,
}

/// Walks a tree; the stage is seen only if asked for. What vanishes meanwhile is not there. Errors: class `Refused`
/// for a mount point or a subvolume beneath the root.
pub fn walk(root: &Root, stage: bool) -> Result<Walked> {
    walk_watched(root, stage, &Watch::default())
}

/// The same, watched.
pub fn walk_watched(root: &Root, stage: bool, watch: &Watch) -> Result<Walked> {
    let fail = |e: std::io::Error| Error::io(root.path().display(), "looking at it", e);
    let device = device_of(root.fd()).map_err(fail)?;
    let seen = look(root.fd(), b"", None).map_err(fail)?;
    let handle = seen.stamp.handle.clone();
    let first = Arc::new(Node { above: None, number: 0, handle, open: OnceLock::new() });
    let queue = Queue {
        waiting: vec![first],
        working: 0,
        dirs: vec![Vec::new()],
        missed: BTreeSet::new(),
        failed: None,
    };
    let (queue, changed, held) = (Mutex::new(queue), Condvar::new(), Arc::default());
    let shared = Shared { root, device, stage, watch, queue, changed, held };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
    });
    let queue = shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    match queue.failed {
        Some(error) => Err(error),
        None => Ok(Walked { root: seen, dirs: queue.dirs, missed: queue.missed }),
    }
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let node = {
                let mut queue = self.lock();
                loop {
                    if queue.failed.is_some() {
                        return;
                    }
                    if let Some(node) = queue.waiting.pop() {
                        queue.working += 1;
                        break node;
                    }
                    if queue.working == 0 {
                        return;
                    }
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let listed = self.list(&node);
            let mut queue = self.lock();
            queue.working -= 1;
            match listed {
                Ok(Some(mut entries)) => {
                    for found in entries.iter_mut().filter(|found| found.look.meta.kind == Kind::Dir) {
                        let number = queue.dirs.len();
                        queue.dirs.push(Vec::new());
                        found.dir = Some(number);
                        let above = Some((Arc::clone(&node), found.name.clone()));
                        let handle = found.look.stamp.handle.clone();
                        let node = Node { above, number, handle, open: OnceLock::new() };
                        queue.waiting.push(Arc::new(node));
                    }
                    queue.dirs[node.number] = entries;
                }
                Ok(None) => {
                    queue.missed.insert(node.number);
                }
                Err(error) => queue.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }

    /// Opens a directory; `None` if it was removed, moved or replaced since it was seen.
    fn open(&self, node: &Node) -> Result<Option<OwnedFd>> {
        let shown = || components(node).join(&b'/');
        let gone = |e: &std::io::Error| {
            let errno = Errno::from_io_error(e);
            node.above.is_some() && matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
        };
        let near = node.above.as_ref().and_then(|(above, name)| Some((above.open.get()?, name)));
        let opened = match near {
            Some((above, name)) => open_quiet(above.fd.as_fd(), name, Kind::Dir),
            None => self.root.dir(&components(node)).map_err(Into::into),
        };
        let dir = match opened {
            Ok(dir) => dir,
            Err(e) if gone(&e) => return Ok(None),
            Err(e) => return Err(self.root.error(&shown(), "opening it", e)),
        };
        let there = look(dir.as_fd(), b"", None);
        let there = there.map_err(|e| self.root.error(&shown(), "looking at it", e))?;
        Ok((there.stamp.handle == node.handle).then_some(dir))
    }

    /// The entries of one directory; `None` if it could not be listed.
    fn list(&self, node: &Node) -> Result<Option<Vec<Found>>> {
        self.watch.check()?;
        let shown = || components(node).join(&b'/');
        let Some(opened) = self.open(node)? else { return Ok(None) };
        let dir = opened.as_fd();
        let mut found = Vec::new();
        for name in entries(dir).map_err(|e| self.root.error(&shown(), "listing it", e))? {
            if node.number == 0 && !self.stage && name == STAGE {
                continue;
            }
            match look(dir, &name, Some(self.device)) {
                Ok(look) if look.foreign => {
                    let path = self.root.path().join(String::from_utf8_lossy(&shown()).as_ref());
                    let name = crate::fslog::show_path(&name);
                    let text =
                        format!("{}/{name}: scanning it: another file system begins here", path.display());
                    return Err(Error::new(Class::Refused, text));
                }
                Ok(look) => found.push(Found { name: name.into(), look, dir: None }),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(self.root.error(&[&shown()[..], &name].join(&b'/'), "looking at it", e));
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        // A directory that is changed while it is read may show a name twice.
        found.dedup_by(|a, b| a.name == b.name);
        let below = found.iter().any(|found| found.look.meta.kind == Kind::Dir);
        if below && self.held.load(Ordering::Relaxed) < DESCRIPTORS_MAX {
            // A few more, if several threads ask at once.
            self.held.fetch_add(1, Ordering::Relaxed);
            let _ = node.open.set(Open { fd: opened, held: Arc::clone(&self.held) });
        }
        Ok(Some(found))
    }
}

/// The entries of a directory, without itself and the one above it. One that was removed after it was opened has none.
pub fn entries(dir: BorrowedFd<'_>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn components(node: &Node) -> Vec<&[u8]> {
    let mut path = Vec::new();
    let mut at = node;
    while let Some((above, name)) = &at.above {
        path.push(&name[..]);
        at = above;
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn node(above: &Arc<Node>, name: &[u8], handle: Box<[u8]>) -> Node {
        Node { above: Some((Arc::clone(above), name.into())), number: 1, handle, open: OnceLock::new() }
    }

    #[test]
    fn a_directory_that_was_replaced_or_removed_before_it_was_listed_is_missed_one_whose_parent_moved_is_not()
    {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir_all(dir.path().join("p/d/below")).expect("mkdir");
        fs::create_dir(dir.path().join("p/other")).expect("mkdir");
        let root = Root::open(dir.path()).expect("root");
        let handle = |path: &str| look(root.fd(), path.as_bytes(), None).expect("look").stamp.handle;
        let (p, d, other) = (handle("p"), handle("p/d"), handle("p/other"));
        let watch = Watch::default();
        let device = device_of(root.fd()).expect("device");
        let queue =
            Queue { waiting: vec![], working: 0, dirs: vec![], missed: BTreeSet::new(), failed: None };
        let (queue, changed, held) = (Mutex::new(queue), Condvar::new(), Arc::default());
        let shared = Shared { root: &root, device, stage: false, watch: &watch, queue, changed, held };
        let top = Arc::new(Node { above: None, number: 0, handle: handle(""), open: OnceLock::new() });
        let p = Arc::new(node(&top, b"p", p));
        assert_eq!(shared.list(&p).expect("listed").expect("there").len(), 2);
        assert_eq!(shared.held.load(Ordering::Relaxed), 1);
        fs::rename(dir.path().join("p"), dir.path().join("q")).expect("rename");
        let listed = shared.list(&node(&p, b"d", d.clone())).expect("listed");
        assert_eq!(listed.expect("it is where it was beneath its parent").len(), 1);
        assert!(shared.list(&node(&p, b"d", other)).expect("listed").is_none(), "another one");
        fs::rename(dir.path().join("q/d"), dir.path().join("d")).expect("rename");
        assert!(shared.list(&node(&p, b"d", d)).expect("listed").is_none(), "gone");
        drop(p);
        assert_eq!(shared.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_directory_that_was_removed_has_no_entries() {
        let dir = tempfile::tempdir().expect("dir");
        let below = dir.path().join("d");
        fs::create_dir(&below).expect("mkdir");
        let open = fs::File::open(&below).expect("open");
        fs::remove_dir(&below).expect("rmdir");
        assert_eq!(entries(open.as_fd()).expect("listed"), [b""; 0]);
    }
}
