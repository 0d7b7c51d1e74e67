//! Looking at a tree against what an index remembers. Everything is compared for inequality, never for younger or
//! older; an inode that changed within a clock tick of the scan's start, or later, is looked at again next time.

use super::parts::Parts;
use crate::base::{Class, Error, Id, Result, limits};
use crate::capture::tree::Root;
use crate::capture::tree::inspect::Look;
use crate::capture::tree::walk::{Found, Walked, walk_watched};
use crate::capture::watch::{Phase, Watch};
use crate::fslog::index::Object;
use crate::fslog::{Content, Index, Kind, Meta, ObjectId, Time};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeSet, HashMap};

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
    pub(super) accessed: Vec<ObjectId>,
    pub(super) places: HashMap<ObjectId, (ObjectId, Box<[u8]>)>,
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
    pub(super) fn forget(&mut self, vanished: &[ObjectId]) -> Result<()> {
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

    pub(super) fn components(&self, mut id: ObjectId) -> Vec<&[u8]> {
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
