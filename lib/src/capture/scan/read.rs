//! Reading what is stale of a tree that was walked, and handing on in what it differs from the base.

use super::clones::Clones;
use super::contents::{Changes, Failed, Nobody};
use super::fresh::{Fresh, begin, now};
use super::parts::{self, Part};
use crate::base::{Error, Result, limits};
use crate::capture::tree::Root;
use crate::capture::tree::inspect::{self, look, open_quiet};
use crate::capture::watch::{Phase, Watch};
use crate::fslog::{Content, Index, Kind, Meta, ObjectId};
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

impl Fresh {
    /// What is to be read of a file of this size.
    fn part(&self, base: &Index, id: ObjectId, size: u64) -> Part {
        match (self.parts.get(&id), base.objects.get(&id)) {
            (Some(parts), Some(before)) => parts.within(before.meta.size, size),
            _ => Part::All,
        }
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
}
