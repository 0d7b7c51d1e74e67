//! Looking at a tree against what an index remembers. Everything is compared for inequality, never for younger or
//! older; an inode that changed within a clock tick of the scan's start, or later, is looked at again next time.

use super::clones::Clones;
use super::contents::{Changes, Failed, Nobody};
use super::inspect::{self, Look, look, open_quiet};
use super::parts::{self, Part, Parts};
use super::root::Root;
use super::walk::{Found, Walked, walk_watched};
use super::watch::{Phase, Watch};
use crate::base::{Class, Error, Id, Result, limits};
use crate::fslog::index::Object;
use crate::fslog::{Content, Index, Kind, Meta, ObjectId, Time};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};

/// How often metadata is read again that changed while it was read.
const ATTEMPTS: u32 = 16;

/// What takes the differences of a scan.
pub trait Sink {
    /// An object was read: as it is in the index now, and whether its content differs from the base.
    fn object(&mut self, id: ObjectId, meta: &Meta, changed: bool) -> Result<()>;
    /// Where the blocks of a file go.
    fn changes(&mut self, id: ObjectId) -> &mut dyn Changes;
}

impl Sink for Nobody {
    fn object(&mut self, _: ObjectId, _: &Meta, _: bool) -> Result<()> {
        Ok(())
    }

    fn changes(&mut self, _: ObjectId) -> &mut dyn Changes {
        self
    }
}

/// A tree that was walked: what is as the base has it is taken from there, the rest is still to be read.
#[derive(Debug)]
pub struct Fresh {
    /// The tree.
    pub index: Index,
    /// Objects that are new or may have changed.
    pub stale: BTreeSet<ObjectId>,
    /// Directories of which not every entry is known ([`crate::fslog::index::Stamp::unlisted`]): they are listed
    /// when the log is followed the next time.
    pub(super) unlisted: BTreeSet<ObjectId>,
    /// Objects of which nothing but the time of access is another one.
    accessed: Vec<ObjectId>,
    places: HashMap<ObjectId, (ObjectId, Box<[u8]>)>,
    /// Files that only in these parts can be others than the base has them.
    pub(super) parts: HashMap<ObjectId, Parts>,
}

/// The time now, as the kernel stamps files with it.
pub fn now() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanos: now.tv_nsec.cast_unsigned() as u32 }.as_nanos()
}

/// Walks a tree, and finds the objects of `base` in it by their identity. `time` is [`now`], taken before the first
/// change that the tree may not show: before a snapshot of it was made, if it is one.
pub fn begin(root: &Root, base: &Index, options: u32, time: i64, watch: &Watch) -> Result<Fresh> {
    watch.enter(Phase::Look, 0);
    let walked = walk_watched(root, false, watch)?;
    let known: HashMap<&[u8], ObjectId> =
        base.objects.iter().map(|(id, object)| (&*object.stamp.handle, *id)).collect();
    let index = Index { options, time, objects: std::collections::BTreeMap::new(), ..base.clone_head() };
    let mut fresh = Fresh::of(index);
    fresh.assemble(base, &known, walked);
    Ok(fresh)
}

impl Index {
    /// Everything but the objects.
    pub(super) fn clone_head(&self) -> Self {
        let mut head = Self::empty(self.tree);
        (head.options, head.round, head.time, head.next) = (self.options, self.round, self.time, self.next);
        head
    }
}

/// Looks at a tree and reads what changed since `base`. An index of its own gets the number of its base plus one.
pub fn scan(root: &Root, base: &Index, options: u32) -> Result<Index> {
    scan_watched(root, base, options, &Watch::default())
}

/// The same, watched.
pub fn scan_watched(root: &Root, base: &Index, options: u32, watch: &Watch) -> Result<Index> {
    let mut fresh = begin(root, base, options, now(), watch)?;
    fresh.read(root, base, &mut Nobody, None, watch)?;
    let mut index = fresh.index;
    index.round.number = base.round.number + 1;
    index.seal()?;
    Ok(index)
}

/// An index that nothing is remembered by, for a first scan.
pub fn nothing() -> Result<Index> {
    Ok(Index::empty(Id::random()?))
}

impl Fresh {
    fn of(index: Index) -> Self {
        let (stale, unlisted) = (BTreeSet::new(), BTreeSet::new());
        let (places, parts) = (HashMap::new(), HashMap::new());
        Self { index, stale, unlisted, accessed: Vec::new(), places, parts }
    }

    /// Gives every object its number, level by level, in order of names.
    fn assemble(&mut self, base: &Index, known: &HashMap<&[u8], ObjectId>, mut walked: Walked) {
        let mut own: HashMap<Box<[u8]>, ObjectId> = HashMap::new();
        let root = Found { name: Box::default(), look: walked.root, dir: Some(0) };
        own.insert(root.look.stamp.handle.clone(), ObjectId::ROOT);
        self.add(base, ObjectId::ROOT, root);
        let mut level = vec![(ObjectId::ROOT, 0)];
        while !level.is_empty() {
            let mut below = Vec::new();
            for (dir, number) in level {
                for found in std::mem::take(&mut walked.dirs[number]) {
                    let handle = &found.look.stamp.handle;
                    let fresh = |next: &mut u64| {
                        *next += 1;
                        ObjectId(*next - 1)
                    };
                    let (id, again) = match own.get(handle) {
                        Some(id) => (*id, true),
                        None => match known.get(&handle[..]) {
                            // A number used again without a generation: another kind is another object.
                            Some(id) if *id != ObjectId::ROOT && same_kind(base, *id, &found) => (*id, false),
                            _ => (fresh(&mut self.index.next), false),
                        },
                    };
                    let is_dir = found.look.meta.kind == Kind::Dir;
                    if again && is_dir {
                        // Moved while it was looked for: its second place is found by the next scan, and is in
                        // the log of a recorder.
                        continue;
                    }
                    if let Some(dir) = self.index.objects.get_mut(&dir) {
                        dir.entries.insert(found.name.clone(), id);
                    }
                    if again {
                        continue;
                    }
                    own.insert(handle.clone(), id);
                    self.places.insert(id, (dir, found.name.clone()));
                    if let Some(number) = found.dir {
                        below.push((id, number));
                        if walked.missed.contains(&number) {
                            self.unlisted.insert(id);
                        }
                    }
                    self.add(base, id, found);
                }
            }
            level = below;
        }
    }

    /// Everything as a base has it, to be renewed in places.
    pub(super) fn of_base(base: &Index, time: i64) -> Self {
        let mut fresh = Self::of(Index { time, ..base.clone() });
        let objects = base.objects.iter().filter(|(_, object)| object.stamp.unlisted);
        fresh.unlisted = objects.map(|(id, _)| *id).collect();
        fresh
    }

    /// What is to be read of a file of this size.
    fn part(&self, base: &Index, id: ObjectId, size: u64) -> Part {
        match (self.parts.get(&id), base.objects.get(&id)) {
            (Some(parts), Some(before)) => parts.within(before.meta.size, size),
            _ => Part::All,
        }
    }

    /// Takes an object from the base, or marks it to be read.
    fn add(&mut self, base: &Index, id: ObjectId, found: Found) {
        self.renew(base, id, found.look, false);
    }

    /// An object as it was seen now: what is as the base has it is taken from there, anything else, and what is
    /// `forced`, is to be read. The entries of a directory stay.
    pub(super) fn renew(&mut self, base: &Index, id: ObjectId, seen: Look, forced: bool) {
        let atime = seen.atime(self.index.options);
        let Look { meta: seen, mut stamp, .. } = seen;
        stamp.unsure = stamp.ctime.as_nanos() >= self.index.time - limits::CLOCK_TICK_NS;
        let entries = self.index.objects.remove(&id).map(|object| object.entries).unwrap_or_default();
        let before = base.objects.get(&id).filter(|_| base.options == self.index.options);
        let same = before.filter(|before| {
            !forced
                && !before.stamp.unsure
                && (&before.stamp.handle, before.stamp.ctime) == (&stamp.handle, stamp.ctime)
                && (before.meta.size, before.meta.mtime, before.meta.mode, before.meta.kind)
                    == (seen.size, seen.mtime, seen.mode, seen.kind)
        });
        let object = if let Some(before) = same {
            if before.meta.atime != atime {
                self.accessed.push(id);
            }
            let (meta, content) = (Meta { atime, ..before.meta.clone() }, before.content.clone());
            Object { meta, content, entries, stamp }
        } else {
            self.stale.insert(id);
            Object { meta: seen, content: Content::default(), entries, stamp }
        };
        self.index.objects.insert(id, object);
    }

    /// Reads what is stale. What vanished meanwhile is taken out again. With `clones` large files are cloned
    /// instead, and read by [`Fresh::read_clones`].
    pub fn read(
        &mut self,
        root: &Root,
        base: &Index,
        sink: &mut dyn Sink,
        mut clones: Option<&mut Clones>,
        watch: &Watch,
    ) -> Result<()> {
        let sizes = self.stale.iter().filter_map(|id| self.index.objects.get(id));
        watch.enter(Phase::Read, sizes.map(|object| object.meta.size).sum());
        for id in std::mem::take(&mut self.accessed) {
            if let Some(object) = self.index.objects.get(&id) {
                sink.object(id, &object.meta, false)?;
            }
        }
        let mut open: Option<(ObjectId, OwnedFd)> = None;
        let mut order: Vec<_> = self.stale.iter().copied().collect();
        // Entries of one directory together.
        order.sort_by_key(|id| (self.places.get(id).map_or(0, |(dir, _)| dir.0), *id));
        let mut buffer = Vec::new();
        let mut vanished = Vec::new();
        for id in order {
            watch.check()?;
            let (dir, name) =
                self.places.get(&id).map_or((ObjectId::ROOT, &b""[..]), |(dir, name)| (*dir, name));
            if open.as_ref().is_none_or(|(opened, _)| *opened != dir) {
                match root.dir(&self.components(dir)) {
                    Ok(fd) => open = Some((dir, fd)),
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                        open = None;
                        vanished.push(id);
                        continue;
                    }
                    Err(e) => return Err(root.error(&self.path(dir), "opening it", e)),
                }
            }
            let Some((_, fd)) = &open else { continue };
            let name = name.to_vec();
            let seen = match self.look_again(fd, &name, id) {
                Ok(true) => {
                    self.read_one(fd, &name, id, base, &mut buffer, sink, clones.as_deref_mut(), watch)
                }
                Ok(false) => {
                    vanished.push(id);
                    continue;
                }
                Err(e) => Err(Failed::Read(e)),
            };
            match seen {
                Ok(()) => {}
                Err(Failed::Taken(error)) => return Err(error),
                // It went, or something else came, between two looks.
                Err(Failed::Read(_)) if self.is_another(fd, &name, id) => vanished.push(id),
                Err(Failed::Read(e)) => return Err(root.error(&self.path(id), "reading it", e)),
            }
        }
        self.stale.clear();
        self.forget(&vanished)?;
        for (id, object) in &mut self.index.objects {
            object.stamp.unlisted = self.unlisted.contains(id);
        }
        Ok(())
    }

    /// Takes the metadata of one object; false if it is not the one that was seen any more.
    fn look_again(&mut self, dir: &OwnedFd, name: &[u8], id: ObjectId) -> std::io::Result<bool> {
        let options = self.index.options;
        let limit = self.index.time - limits::CLOCK_TICK_NS;
        let Some(object) = self.index.objects.get_mut(&id) else { return Ok(false) };
        let mut seen = look(dir.as_fd(), name, None)?;
        for attempt in 0.. {
            if (&seen.stamp.handle, seen.meta.kind) != (&object.stamp.handle, object.meta.kind) {
                return Ok(false);
            }
            inspect::complete(dir.as_fd(), name, options, &mut seen.meta)?;
            // Mode and access list of two moments may be such as no file system keeps together.
            let after = look(dir.as_fd(), name, None)?;
            if attempt == ATTEMPTS || after.stamp == seen.stamp {
                break;
            }
            seen = after;
        }
        seen.stamp.unsure = seen.stamp.ctime.as_nanos() >= limit;
        seen.meta.atime = seen.atime(options);
        (object.meta, object.stamp) = (seen.meta, seen.stamp);
        Ok(true)
    }

    /// Whether something else, or nothing, has the name of an object by now.
    fn is_another(&self, dir: &OwnedFd, name: &[u8], id: ObjectId) -> bool {
        let known = self.index.objects.get(&id).map(|object| &object.stamp.handle);
        match look(dir.as_fd(), name, None) {
            Ok(seen) => Some(&seen.stamp.handle) != known,
            Err(e) => e.kind() == ErrorKind::NotFound,
        }
    }

    /// Reads the content of one object, or clones it, and hands the object on.
    #[allow(clippy::too_many_arguments)] // the parts of one loop
    fn read_one(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        id: ObjectId,
        base: &Index,
        buffer: &mut Vec<u8>,
        sink: &mut dyn Sink,
        clones: Option<&mut Clones>,
        watch: &Watch,
    ) -> Result<(), Failed> {
        let size = self.index.objects.get(&id).map_or(0, |object| object.meta.size);
        let part = self.part(base, id, size);
        let Some(object) = self.index.objects.get_mut(&id) else { return Ok(()) };
        let mut changed = false;
        if object.meta.kind == Kind::File {
            let none = Content::default();
            let old = base.objects.get(&id).map_or(&none, |before| &before.content);
            if part.is_nothing() {
                object.content = old.clone();
            } else if size > 0 {
                let file = open_quiet(dir.as_fd(), name, Kind::File).map_err(Failed::Read)?;
                if let Some(clones) = clones
                    && clones.take(id, file.as_fd(), size)?
                {
                    return Ok(());
                }
                let file = file.as_fd();
                object.content = parts::read(file, size, &part, old, buffer, sink.changes(id), watch)?;
            }
            changed = object.content != *old;
        }
        Ok(sink.object(id, &object.meta, changed)?)
    }

    /// Reads the files that were cloned, after the tree may change again.
    pub fn read_clones(
        &mut self,
        clones: &Clones,
        base: &Index,
        sink: &mut dyn Sink,
        watch: &Watch,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        clones.each(|id, path, file| {
            let size = self.index.objects.get(&id).map_or(0, |object| object.meta.size);
            let part = self.part(base, id, size);
            let Some(object) = self.index.objects.get_mut(&id) else { return Ok(()) };
            let none = Content::default();
            let old = base.objects.get(&id).map_or(&none, |before| &before.content);
            let read = parts::read(file, size, &part, old, &mut buffer, sink.changes(id), watch);
            object.content = read.map_err(|failed| match failed {
                Failed::Taken(error) => error,
                Failed::Read(e) => Error::io(path.display(), "reading it", e),
            })?;
            sink.object(id, &object.meta, object.content != *old)
        })
    }

    /// Takes out what hangs on nothing, and notes a place of everything else.
    pub(super) fn settle(&mut self) {
        self.places.clear();
        let mut reached = BTreeSet::from([ObjectId::ROOT]);
        let mut level = vec![ObjectId::ROOT];
        while let Some(dir) = level.pop() {
            let Some(object) = self.index.objects.get(&dir) else { continue };
            for (name, id) in &object.entries {
                if reached.insert(*id) {
                    self.places.insert(*id, (dir, name.clone()));
                    level.push(*id);
                }
            }
        }
        self.index.objects.retain(|id, _| reached.contains(id));
        self.stale.retain(|id| reached.contains(id));
        self.accessed.retain(|id| reached.contains(id));
    }

    /// Takes objects out, with everything beneath them. They may be where they were, in a directory that moved; so
    /// those directories are to be listed again.
    fn forget(&mut self, vanished: &[ObjectId]) -> Result<()> {
        if vanished.is_empty() {
            return Ok(());
        }
        if vanished.contains(&ObjectId::ROOT) {
            return Err(Error::new(Class::Io, "scanning: the root vanished meanwhile"));
        }
        let mut out: BTreeSet<_> = vanished.iter().copied().collect();
        for (dir, object) in &mut self.index.objects {
            let before = object.entries.len();
            object.entries.retain(|_, id| !out.contains(id));
            if object.entries.len() < before {
                self.unlisted.insert(*dir);
            }
        }
        // What hangs on nothing any more.
        let mut reached = BTreeSet::from([ObjectId::ROOT]);
        let mut level = vec![ObjectId::ROOT];
        while let Some(dir) = level.pop() {
            let entries = self.index.objects.get(&dir).map(|object| object.entries.values().copied());
            level.extend(entries.into_iter().flatten().filter(|id| reached.insert(*id)));
        }
        out.extend(self.index.objects.keys().copied().filter(|id| !reached.contains(id)));
        self.index.objects.retain(|id, _| !out.contains(id));
        Ok(())
    }

    fn components(&self, mut id: ObjectId) -> Vec<&[u8]> {
        let mut path = Vec::new();
        while let Some((dir, name)) = self.places.get(&id) {
            path.push(&name[..]);
            id = *dir;
        }
        path.reverse();
        path
    }

    /// The path of an object.
    pub fn path(&self, id: ObjectId) -> Vec<u8> {
        self.components(id).join(&b'/')
    }
}

fn same_kind(base: &Index, id: ObjectId, found: &Found) -> bool {
    base.objects.get(&id).is_some_and(|object| object.meta.kind == found.look.meta.kind)
}
