//! A tree as it is now, from what it was and what a recorder saw: only the names and objects of the log are looked at.
//!
//! 1. Every name that the log mentions, in a directory that the base has, is looked at again: what is there now, or
//!    that nothing is. A directory that the base has not is walked as a whole, so that names in it need no log.
//! 2. Directories are opened by the path that they have by then. One that moved is found after the names of the
//!    directory that it moved to; so this goes round until nothing is left.
//! 3. Objects that something happened to are looked at by any name they still have, if none of theirs was.
//! 4. Files that are mapped for writing at this moment are looked at too: stores into them have no event until they
//!    are unmapped.
//!
//! The tree may change meanwhile. What is seen then need not be a moment of it; but every name that is seen wrongly,
//! or not at all, is either in the log that the recorder began before this, or in a directory that is marked to be
//! listed the next time, so that a last round, with nothing moving, makes it right. If a directory that the log names
//! is nowhere to be found at the moment, a scan is owed.

use super::fresh::Fresh;
use super::parts;
use crate::base::{Class, Error, Result};
use crate::capture::STAGE;
use crate::capture::tree::Root;
use crate::capture::tree::inspect::{Look, device_of, look, open_quiet};
use crate::capture::tree::mapped::{Mapped, mapped};
use crate::capture::tree::walk::entries;
use crate::capture::watch::{Phase, Watch};
use crate::fslog::{Index, Kind, ObjectId, State};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};

/// The tree and who could not be looked at ([`Mapped::unseen`]), or why it has to be scanned.
pub type Followed = std::result::Result<(Fresh, BTreeSet<u32>), String>;

const MOVED: &str = "a directory moved while it was looked at";

/// Directories, and the names in them that are to be looked at.
type Pending = BTreeMap<ObjectId, BTreeSet<Vec<u8>>>;

struct Follower<'a> {
    root: &'a Root,
    base: &'a Index,
    device: (u32, u32),
    fresh: Fresh,
    by_handle: HashMap<Box<[u8]>, ObjectId>,
    /// Where each directory is: its only name.
    above: HashMap<ObjectId, (ObjectId, Box<[u8]>)>,
    looked: HashSet<ObjectId>,
    forced: HashSet<ObjectId>,
    watch: &'a Watch,
}

/// Looks at what the log of a recorder names. `time` as for [`super::begin`]. Errors: class `Refused` for a mount
/// point.
pub fn follow(
    root: &Root,
    base: &Index,
    state: &State,
    options: u32,
    time: i64,
    watch: &Watch,
) -> Result<Followed> {
    follow_seen(root, base, state, Seen::Recorded(mapped(root)?), options, time, watch)
}

/// Who says what changed.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A recorder; and what is mapped now.
    Recorded(Mapped),
    /// The file system itself, of two snapshots: what it does not name is as it was.
    Compared,
}

/// The same, of a log that a recorder or somebody else made.
pub fn follow_seen(
    root: &Root,
    base: &Index,
    state: &State,
    seen: Seen,
    options: u32,
    time: i64,
    watch: &Watch,
) -> Result<Followed> {
    if base.options != options {
        return Ok(Err("other attributes or times belong to the tree than before".to_owned()));
    }
    watch.enter(Phase::Look, 0);
    refuse_mounts(root)?;
    let by_handle: HashMap<Box<[u8]>, ObjectId> =
        base.objects.iter().map(|(id, object)| (object.stamp.handle.clone(), *id)).collect();
    let of = |number: &ObjectId| {
        let identities = state.identities.get(number).into_iter().flatten();
        identities.filter_map(|identity| by_handle.get(&identity.handle[..]).copied()).collect::<Vec<_>>()
    };
    let mut touched: BTreeSet<ObjectId> = state.files.keys().flat_map(&of).collect();
    let written = state.files.iter().filter(|(_, file)| parts::is_written(file));
    let mut forced: HashSet<ObjectId> = written.flat_map(|(number, _)| of(number)).collect();
    let whole = matches!(seen, Seen::Compared);
    let Mapped { handles, unseen } = match seen {
        Seen::Recorded(mapped) => mapped,
        Seen::Compared => Mapped::default(),
    };
    let mut known = parts::known(state, of, whole);
    let live: Vec<_> = handles.iter().filter_map(|handle| by_handle.get(handle).copied()).collect();
    touched.extend(&live);
    known.retain(|id, _| !live.contains(id));
    forced.extend(live);
    let mut pending = Pending::new();
    for (number, name) in &state.names {
        for dir in of(number) {
            pending.entry(dir).or_default().insert(name.clone());
        }
    }
    let device = device_of(root.fd()).map_err(|e| root.error(b".", "looking at it", e))?;
    let mut follower = Follower {
        root,
        base,
        device,
        fresh: Fresh::of_base(base, time),
        above: HashMap::new(),
        by_handle,
        looked: HashSet::new(),
        forced,
        watch,
    };
    follower.place_directories();
    for dir in &follower.fresh.unlisted {
        pending.entry(*dir).or_default();
    }
    if let Some(why) = follower.names(pending)? {
        return Ok(Err(why));
    }
    if let Some(why) = follower.touched(&touched)? {
        return Ok(Err(why));
    }
    follower.fresh.settle();
    follower.fresh.parts = known;
    Ok(Ok((follower.fresh, unseen)))
}

/// A mount point beneath the root hides what is there, and no event tells of it.
fn refuse_mounts(root: &Root) -> Result<()> {
    let path = root.path();
    let real = std::fs::canonicalize(path).map_err(|e| Error::io(path.display(), "finding it", e))?;
    let table = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(table).map_err(|e| Error::io(table, "reading it", e))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    // Blanks and the like are escaped in it; a prefix that has none of them is compared rightly.
    let inside =
        |point: &&str| std::path::Path::new(point).starts_with(&real) && std::path::Path::new(point) != real;
    match points.into_iter().find(inside) {
        None => Ok(()),
        Some(point) => {
            let text = format!("{point}: following the log: another file system begins here");
            Err(Error::new(Class::Refused, text))
        }
    }
}

impl Follower<'_> {
    fn place_directories(&mut self) {
        for (dir, object) in &self.fresh.index.objects {
            for (name, id) in &object.entries {
                if self.base.objects.get(id).is_some_and(|child| child.meta.kind == Kind::Dir) {
                    self.above.insert(*id, (*dir, name.clone()));
                }
            }
        }
    }

    /// The path of a directory; `None` if it hangs on nothing.
    fn components(&self, mut dir: ObjectId) -> Option<Vec<Box<[u8]>>> {
        let mut path = Vec::new();
        while dir != ObjectId::ROOT {
            let (above, name) = self.above.get(&dir)?;
            path.push(name.clone());
            dir = *above;
            if path.len() > self.above.len() {
                // Two directories that moved into each other, as it looks for a moment.
                return None;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Opens a directory, if it is where it is thought to be, and looks at it.
    fn open(&mut self, dir: ObjectId) -> Result<Option<OwnedFd>> {
        let Some(path) = self.components(dir) else { return Ok(None) };
        let parts: Vec<&[u8]> = path.iter().map(|name| &name[..]).collect();
        let fd = match self.root.dir(&parts) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(self.root.error(&parts.join(&b'/'), "opening it", e)),
        };
        let look = look(fd.as_fd(), b"", None)
            .map_err(|e| self.root.error(&parts.join(&b'/'), "looking at it", e))?;
        let same =
            self.fresh.index.objects.get(&dir).is_some_and(|known| known.stamp.handle == look.stamp.handle);
        if !same {
            return Ok(None);
        }
        if self.looked.insert(dir) {
            self.fresh.renew(self.base, dir, look, false);
        }
        Ok(Some(fd))
    }

    /// Steps 1 and 2; gives why it cannot be done.
    fn names(&mut self, mut pending: Pending) -> Result<Option<String>> {
        while !pending.is_empty() {
            let mut order: Vec<_> = pending
                .keys()
                .map(|dir| (self.components(*dir).map_or(usize::MAX, |path| path.len()), *dir))
                .collect();
            order.sort_unstable();
            let before = pending.len();
            for (_, dir) in order {
                self.watch.check()?;
                let Some(fd) = self.open(dir)? else { continue };
                let mut names = pending.remove(&dir).unwrap_or_default();
                if self.fresh.unlisted.remove(&dir) {
                    names.extend(self.every_name(dir, &fd)?);
                }
                for name in names {
                    if dir != ObjectId::ROOT || name != STAGE {
                        self.entry(dir, &fd, &name)?;
                    }
                }
            }
            if pending.len() == before {
                break;
            }
        }
        // What hangs on nothing was removed; what should be there and is not moved just now.
        let mut left = pending.keys().filter(|dir| self.components(**dir).is_some());
        Ok(left.next().map(|_| MOVED.to_owned()))
    }

    /// The names that a directory has, and those it is thought to have.
    fn every_name(&self, dir: ObjectId, fd: &OwnedFd) -> Result<Vec<Vec<u8>>> {
        let mut names = entries(fd.as_fd()).map_err(|e| self.root.error(b".", "listing a directory", e))?;
        let known = self.fresh.index.objects.get(&dir).into_iter().flat_map(|object| object.entries.keys());
        names.extend(known.map(|name| name.to_vec()));
        Ok(names)
    }

    /// One name: what is there now.
    fn entry(&mut self, dir: ObjectId, fd: &OwnedFd, name: &[u8]) -> Result<()> {
        let seen = match look(fd.as_fd(), name, Some(self.device)) {
            Ok(seen) => Some(seen),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(self.root.error(name, "looking at it", e)),
        };
        self.unname(dir, name);
        match seen {
            Some(seen) => self.name(dir, fd, name, seen),
            None => Ok(()),
        }
    }

    fn unname(&mut self, dir: ObjectId, name: &[u8]) {
        let Some(object) = self.fresh.index.objects.get_mut(&dir) else { return };
        if let Some(id) = object.entries.remove(name)
            && self.above.get(&id).is_some_and(|(above, last)| *above == dir && **last == *name)
        {
            self.above.remove(&id);
        }
    }

    /// An object has this name now.
    fn name(&mut self, dir: ObjectId, fd: &OwnedFd, name: &[u8], seen: Look) -> Result<()> {
        if seen.foreign {
            let shown = crate::fslog::show_path(name);
            let text = format!("{shown}: following the log: another file system begins here");
            return Err(Error::new(Class::Refused, text));
        }
        let objects = &mut self.fresh.index.objects;
        let known = self.by_handle.get(&seen.stamp.handle).copied();
        // A number used again without a generation: another kind is another object.
        let known =
            known.filter(|id| objects.get(id).is_none_or(|object| object.meta.kind == seen.meta.kind));
        let id = known.unwrap_or_else(|| {
            self.fresh.index.next += 1;
            ObjectId(self.fresh.index.next - 1)
        });
        self.by_handle.insert(seen.stamp.handle.clone(), id);
        let is_dir = seen.meta.kind == Kind::Dir;
        if is_dir {
            // It has one name; the one it had is void, whether or not the log has come to it.
            if let Some((above, last)) = self.above.insert(id, (dir, name.into()))
                && let Some(object) = self.fresh.index.objects.get_mut(&above)
            {
                object.entries.remove(&last);
            }
        }
        if let Some(object) = self.fresh.index.objects.get_mut(&dir) {
            object.entries.insert(name.into(), id);
        }
        if self.looked.insert(id) {
            let forced = self.forced.contains(&id);
            self.fresh.renew(self.base, id, seen, forced);
            if is_dir && known.is_none() {
                return self.walk(id, fd, name);
            }
        }
        Ok(())
    }

    /// A directory that is new: everything beneath it. From now on it counts as known, and only what happens to it
    /// later is in a log; so all of it is listed now, or when the log is followed the next time.
    fn walk(&mut self, dir: ObjectId, above: &OwnedFd, name: &[u8]) -> Result<()> {
        let mut waiting = vec![(
            dir,
            above.try_clone().map_err(|e| self.root.error(name, "opening it", e))?,
            name.to_vec(),
        )];
        while let Some((dir, above, name)) = waiting.pop() {
            self.watch.check()?;
            let fd = match open_quiet(above.as_fd(), &name, Kind::Dir) {
                Ok(fd) => fd,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    self.fresh.unlisted.insert(dir);
                    continue;
                }
                Err(e) => return Err(self.root.error(&name, "opening it", e)),
            };
            let there =
                look(fd.as_fd(), b"", None).map_err(|e| self.root.error(&name, "looking at it", e))?;
            let known = self.fresh.index.objects.get(&dir);
            if known.is_none_or(|known| known.stamp.handle != there.stamp.handle) {
                self.fresh.unlisted.insert(dir);
                continue;
            }
            for below in entries(fd.as_fd()).map_err(|e| self.root.error(&name, "listing it", e))? {
                let seen = match look(fd.as_fd(), &below, Some(self.device)) {
                    Ok(seen) => seen,
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    Err(e) => return Err(self.root.error(&below, "looking at it", e)),
                };
                let new_dir = seen.meta.kind == Kind::Dir && !self.by_handle.contains_key(&seen.stamp.handle);
                if new_dir && !seen.foreign {
                    // Not by recursion: a tree may be deeper than a stack.
                    let id = self.add_dir(dir, &below, seen);
                    let fd = fd.try_clone().map_err(|e| self.root.error(&below, "opening it", e))?;
                    waiting.push((id, fd, below));
                } else {
                    self.name(dir, &fd, &below, seen)?;
                }
            }
        }
        Ok(())
    }

    fn add_dir(&mut self, dir: ObjectId, name: &[u8], seen: Look) -> ObjectId {
        self.fresh.index.next += 1;
        let id = ObjectId(self.fresh.index.next - 1);
        self.by_handle.insert(seen.stamp.handle.clone(), id);
        self.above.insert(id, (dir, name.into()));
        if let Some(object) = self.fresh.index.objects.get_mut(&dir) {
            object.entries.insert(name.into(), id);
        }
        self.looked.insert(id);
        self.fresh.renew(self.base, id, seen, false);
        id
    }

    /// Step 3; gives why it cannot be done.
    fn touched(&mut self, touched: &BTreeSet<ObjectId>) -> Result<Option<String>> {
        let wanted: BTreeSet<_> = touched.iter().copied().filter(|id| !self.looked.contains(id)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut names: BTreeMap<ObjectId, (ObjectId, Box<[u8]>)> = BTreeMap::new();
        for (dir, object) in &self.fresh.index.objects {
            for (name, id) in object.entries.iter().filter(|(_, id)| wanted.contains(id)) {
                // Of several names one may have been removed, with a directory above it.
                if !names.contains_key(id) && self.components(*dir).is_some() {
                    names.insert(*id, (*dir, name.clone()));
                }
            }
        }
        if wanted.contains(&ObjectId::ROOT) {
            self.open(ObjectId::ROOT)?;
        }
        for (id, (dir, name)) in names {
            self.watch.check()?;
            let moved = || Ok(Some("a file moved while it was looked at".to_owned()));
            let Some(fd) = self.open(dir)? else { return moved() };
            let seen = match look(fd.as_fd(), &name, Some(self.device)) {
                Ok(seen) => seen,
                Err(e) if e.kind() == ErrorKind::NotFound => return moved(),
                Err(e) => return Err(self.root.error(&name, "looking at it", e)),
            };
            if self.fresh.index.objects.get(&id).is_none_or(|known| known.stamp.handle != seen.stamp.handle) {
                return moved();
            }
            self.looked.insert(id);
            let forced = self.forced.contains(&id);
            self.fresh.renew(self.base, id, seen, forced);
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
