//! The whole tree, seen without opening a file: names, statx and file handles, by a few threads.

use super::STAGE;
use super::inspect::{Look, device_of, look};
use super::root::Root;
use super::watch::Watch;
use crate::base::{Class, Error, Result};
use crate::fslog::Kind;
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// More threads than this only wait for the same locks of the kernel.
const THREADS_MAX: usize = 8;

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
}

struct Node {
    above: Option<(Arc<Self>, Box<[u8]>)>,
    number: usize,
}

struct Queue {
    waiting: Vec<Arc<Node>>,
    working: usize,
    dirs: Vec<Vec<Found>>,
    failed: Option<Error>,
}

struct Shared<'a> {
    root: &'a Root,
    device: (u32, u32),
    stage: bool,
    watch: &'a Watch,
    queue: Mutex<Queue>,
    changed: Condvar,
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
    let first = Arc::new(Node { above: None, number: 0 });
    let queue = Queue { waiting: vec![first], working: 0, dirs: vec![Vec::new()], failed: None };
    let shared = Shared { root, device, stage, watch, queue: Mutex::new(queue), changed: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
    });
    let queue = shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    match queue.failed {
        Some(error) => Err(error),
        None => Ok(Walked { root: seen, dirs: queue.dirs }),
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
                Ok(mut entries) => {
                    for found in entries.iter_mut().filter(|found| found.look.meta.kind == Kind::Dir) {
                        let number = queue.dirs.len();
                        queue.dirs.push(Vec::new());
                        found.dir = Some(number);
                        let above = Some((Arc::clone(&node), found.name.clone()));
                        queue.waiting.push(Arc::new(Node { above, number }));
                    }
                    queue.dirs[node.number] = entries;
                }
                Err(error) => queue.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }

    /// The entries of one directory.
    fn list(&self, node: &Node) -> Result<Vec<Found>> {
        self.watch.check()?;
        let components = components(node);
        let shown = || components.join(&b'/');
        let dir = match self.root.dir(&components) {
            Ok(dir) => dir,
            // Removed, or replaced, since it was seen.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !components.is_empty() => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(self.root.error(&shown(), "opening it", e)),
        };
        let mut found = Vec::new();
        for name in entries(dir.as_fd()).map_err(|e| self.root.error(&shown(), "listing it", e))? {
            if node.number == 0 && !self.stage && name == STAGE {
                continue;
            }
            match look(dir.as_fd(), &name, Some(self.device)) {
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
        Ok(found)
    }
}

/// The entries of a directory, without itself and the one above it.
pub fn entries(dir: BorrowedFd<'_>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
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
