//! The eight steps that make a standby identical. Every one can be done again from the start, whatever part of it was
//! done before: an object is found by its recorded identity, in the tree or in the stage, and what the dump says is
//! absolute.
//!
//! 0. Immutable and append-only flags of what will be touched are cleared.
//! 1. New objects are made and filled in the stage, a directory of mode 0700 in the root. `syncfs`; their identities
//!    are recorded.
//! 2. Every name that goes, or changes its object, is renamed into the stage: cycles are broken, names are free, and
//!    a busy file keeps its inode.
//! 3. Names are attached, those in higher directories first: from the stage by renaming, further ones by linking.
//! 4. Existing files are patched: cut at the limit, set to their size, ranges and holes written.
//! 5. Owner, attributes, permissions; times and flags of everything but directories.
//! 6. The stage is emptied and removed.
//! 7. Times and flags of directories, the deepest first.
//! 8. All that was touched is compared with what the dump promises, down to the root of the Merkle tree; `syncfs`;
//!    the caller commits the round.
//!
//! Recovery: (a) after a crash in 0 or 1, before the identities are recorded, the stage holds nothing but unfinished
//! new objects: it is removed, and all begins again; (b) afterwards every object of base and target has its place in
//! the tree or the stage until step 6, and steps 2 to 8 are done again; (c) in step 6 only objects that are gone, or
//! surplus names, are in the stage.

use super::places::{Dir, Place, Places};
use super::plan::{Naming, Plan};
use super::{make, restore};
use crate::base::{Class, Error, Result, limits};
use crate::capture::STAGE;
use crate::capture::scan::read_block;
use crate::capture::tree::inspect::{self, look, open_quiet};
use crate::capture::tree::root::{Root, open_beneath};
use crate::capture::tree::walk::entries;
use crate::fslog::{Index, Kind, Meta, ObjectId, merkle, meta};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A numbered step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// 0
    Unlock,
    /// 1
    Stage,
    /// 2
    Detach,
    /// 3
    Attach,
    /// 4
    Patch,
    /// 5
    Attributes,
    /// 6
    Sweep,
    /// 7
    Times,
    /// 8
    Commit,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Unlock,
        Self::Stage,
        Self::Detach,
        Self::Attach,
        Self::Patch,
        Self::Attributes,
        Self::Sweep,
        Self::Times,
        Self::Commit,
    ];
}

/// Asked before every change of the tree or of the state; an error stops the apply there and then, as a crash would.
pub type Stop<'a> = &'a mut dyn FnMut(Step) -> Result<()>;

/// A standby that is being changed.
pub struct Engine<'a, 'b> {
    /// The tree.
    pub root: &'a Root,
    /// The round that it was at.
    pub base: &'a Index,
    /// What is to be done.
    pub plan: &'a Plan,
    /// The dump.
    pub spool: &'a File,
    /// Where everything is.
    pub places: Places,
    /// Where it may stop.
    pub stop: Stop<'b>,
    open: Option<(Dir, OwnedFd)>,
}

impl<'a, 'b> Engine<'a, 'b> {
    /// An engine at step 0.
    pub fn new(
        root: &'a Root,
        base: &'a Index,
        plan: &'a Plan,
        spool: &'a File,
        places: Places,
        stop: Stop<'b>,
    ) -> Self {
        Self { root, base, plan, spool, places, stop, open: None }
    }

    fn error(&self, place: &Place, doing: &str, cause: impl Into<io::Error>) -> Error {
        self.root.error(&self.places.path(place), doing, cause)
    }

    /// A directory, opened by its number. Directories that move are opened anew.
    fn dir(&mut self, dir: Dir) -> Result<BorrowedFd<'_>> {
        if self.open.as_ref().is_none_or(|(opened, _)| *opened != dir) {
            let components = self.places.components(dir).ok_or_else(|| {
                let text = format!("{}: directory {dir:?} is nowhere", self.root.path().display());
                Error::new(Class::Diverged, text)
            })?;
            let fd = self
                .root
                .dir(&components)
                .map_err(|e| self.root.error(&components.join(&b'/'), "opening it", e))?;
            self.open = Some((dir, fd));
        }
        match &self.open {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Error::new(Class::Internal, "a directory was not opened")),
        }
    }

    /// Does something to what is at a place.
    fn at<T>(
        &mut self,
        place: &Place,
        doing: &str,
        work: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> Result<T> {
        let dir = self.dir(place.0)?;
        let done = work(dir, &place.1);
        done.map_err(|e| self.error(place, doing, e))
    }

    /// A place of an object; the root is in itself, under an empty name.
    fn place(&self, id: ObjectId) -> Result<Place> {
        if id == ObjectId::ROOT {
            return Ok((Dir::Object(id), Box::default()));
        }
        self.places.of(id).cloned().ok_or_else(|| {
            let text = format!("{}: object {id} is nowhere", self.root.path().display());
            Error::new(Class::Diverged, text)
        })
    }

    fn meta(&self, id: ObjectId) -> Result<&'a Meta> {
        let object = self.plan.target.objects.get(&id);
        let nothing = || Error::new(Class::Internal, format!("object {id} is not in the target"));
        object.map(|object| &object.meta).ok_or_else(nothing)
    }

    /// Step 0.
    pub fn unlock(&mut self) -> Result<()> {
        let (base, plan) = (self.base, self.plan);
        let namings = plan.unnamed.iter().chain(&plan.named).flat_map(|naming| [naming.dir, naming.id]);
        let ids: BTreeSet<_> =
            namings.chain(plan.changed.iter().chain(&plan.gone).copied()).chain([ObjectId::ROOT]).collect();
        for id in ids {
            let Some(before) = base.objects.get(&id).map(|object| &object.meta) else { continue };
            // In a redo its flags may be those of the target already; in step 6 it may have been removed.
            let target = plan.target.objects.get(&id).map_or(0, |object| object.meta.flags);
            let flags = before.flags | target;
            let locked = flags & (meta::FLAG_IMMUTABLE | meta::FLAG_APPEND) != 0;
            if !locked && rustix::process::geteuid().is_root() {
                continue;
            }
            let Ok(place) = self.place(id) else { continue };
            (self.stop)(Step::Unlock)?;
            let (kind, mode) = (before.kind, before.mode);
            self.at(&place, "unlocking it", |dir, name| restore::unlock(dir, name, kind, mode, flags))?;
        }
        Ok(())
    }

    /// Step 1; gives the identities of what was made.
    pub fn stage(&mut self) -> Result<BTreeMap<ObjectId, Box<[u8]>>> {
        self.wipe()?;
        (self.stop)(Step::Stage)?;
        let mode = Mode::from_raw_mode(0o700);
        rustix::fs::mkdirat(self.root.fd(), STAGE, mode)
            .map_err(|e| self.root.error(STAGE, "creating it", e))?;
        let plan = self.plan;
        let mut handles = BTreeMap::new();
        for id in plan.new.iter().copied().filter(|id| *id != ObjectId::ROOT) {
            (self.stop)(Step::Stage)?;
            let meta = self.meta(id)?;
            let place = (Dir::Stage, format!("n{}", id.0).into_bytes().into_boxed_slice());
            let pieces = plan.pieces.get(&id).map_or(&[][..], Vec::as_slice);
            let spool = self.spool;
            let handle = self.at(&place, "creating it", |dir, name| {
                make::make(dir, name, meta, pieces, spool)?;
                Ok(look(dir, name, None)?.stamp.handle)
            })?;
            self.places.add(place, id);
            handles.insert(id, handle);
        }
        self.root.sync()?;
        (self.stop)(Step::Stage)?;
        Ok(handles)
    }

    /// Removes a stage that was not finished; there are no directories with anything in them in it.
    fn wipe(&mut self) -> Result<()> {
        self.open = None;
        let fail = |e: io::Error| self.root.error(STAGE, "removing what is left of it", e);
        match self.root.dir(&[STAGE]) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(fail(e.into())),
            Ok(dir) => make::empty(dir.as_fd()).map_err(fail)?,
        }
        rustix::fs::unlinkat(self.root.fd(), STAGE, AtFlags::REMOVEDIR).map_err(|e| fail(e.into()))
    }

    /// Moves what is at a place, where nothing may be.
    fn rename(&mut self, from: &Place, to: Place, id: ObjectId) -> Result<()> {
        let target = self.dir(to.0)?.try_clone_to_owned().map_err(|e| self.error(&to, "opening it", e))?;
        self.at(from, "renaming it", |dir, name| {
            Ok(rustix::fs::renameat_with(dir, name, &target, &to.1[..], RenameFlags::NOREPLACE)?)
        })?;
        self.places.remove(from);
        self.places.add(to, id);
        self.open = None;
        Ok(())
    }

    /// Step 2.
    pub fn detach(&mut self) -> Result<()> {
        for (number, Naming { dir, name, id }) in self.plan.unnamed.iter().enumerate() {
            let place = (Dir::Object(*dir), name.clone());
            if self.places.at(&place) == Some(*id) {
                (self.stop)(Step::Detach)?;
                self.rename(&place, (Dir::Stage, format!("d{number}").into_bytes().into()), *id)?;
            }
        }
        Ok(())
    }

    /// Step 3.
    pub fn attach(&mut self) -> Result<()> {
        for Naming { dir, name, id } in &self.plan.named {
            let place = (Dir::Object(*dir), name.clone());
            if self.places.at(&place) == Some(*id) {
                continue;
            }
            (self.stop)(Step::Attach)?;
            if let Some(staged) = self.places.staged(*id).cloned() {
                self.rename(&staged, place, *id)?;
                continue;
            }
            let from = self.place(*id)?;
            let target =
                self.dir(place.0)?.try_clone_to_owned().map_err(|e| self.error(&place, "opening it", e))?;
            self.at(&from, "linking it", |dir, name| {
                Ok(rustix::fs::linkat(dir, name, &target, &place.1[..], AtFlags::empty())?)
            })?;
            self.places.add(place, *id);
        }
        Ok(())
    }

    /// Step 4.
    pub fn patch(&mut self) -> Result<()> {
        let plan = self.plan;
        for id in &plan.changed {
            let (pieces, limit) = (plan.pieces.get(id), plan.limits.get(id).copied());
            if pieces.is_none() && limit.is_none() {
                continue;
            }
            (self.stop)(Step::Patch)?;
            let (place, size, spool) = (self.place(*id)?, self.meta(*id)?.size, self.spool);
            let file = self.at(&place, "opening it", |dir, name| {
                Ok(open_beneath(dir, name, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?)
            })?;
            let cut = |size| rustix::fs::ftruncate(&file, size);
            if let Some(limit) = limit {
                cut(limit.min(size)).map_err(|e| self.error(&place, "truncating it", e))?;
                (self.stop)(Step::Patch)?;
            }
            cut(size).map_err(|e| self.error(&place, "setting its size", e))?;
            for piece in pieces.into_iter().flatten() {
                (self.stop)(Step::Patch)?;
                make::write(file.as_fd(), piece, spool)
                    .map_err(|e| self.error(&place, "writing to it", e))?;
            }
        }
        Ok(())
    }

    /// Step 5.
    pub fn attributes(&mut self, touched: &[ObjectId]) -> Result<()> {
        let options = self.plan.header.options;
        for id in touched {
            (self.stop)(Step::Attributes)?;
            let (place, meta) = (self.place(*id)?, self.meta(*id)?);
            self.at(&place, "setting its owner, permissions and attributes", |dir, name| {
                restore::attributes(dir, name, meta, &look(dir, name, None)?, options)
            })?;
            if meta.kind != Kind::Dir {
                self.at(&place, "setting its times and flags", |dir, name| {
                    restore::times_and_flags(dir, name, meta, options)
                })?;
            }
        }
        Ok(())
    }

    /// Step 6.
    pub fn sweep(&mut self) -> Result<()> {
        (self.stop)(Step::Sweep)?;
        self.open = None;
        let stop = &mut self.stop;
        let fail = |e: io::Error| self.root.error(STAGE, "emptying it", e);
        match self.root.dir(&[STAGE]) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(fail(e.into())),
            Ok(dir) => {
                for name in entries(dir.as_fd()).map_err(fail)? {
                    stop(Step::Sweep)?;
                    make::remove(dir.as_fd(), &name).map_err(fail)?;
                }
            }
        }
        stop(Step::Sweep)?;
        rustix::fs::unlinkat(self.root.fd(), STAGE, AtFlags::REMOVEDIR).map_err(|e| fail(e.into()))
    }

    /// Step 7.
    pub fn times(&mut self, touched: &[ObjectId]) -> Result<()> {
        let options = self.plan.header.options;
        for id in touched {
            let meta = self.meta(*id)?;
            if meta.kind == Kind::Dir {
                (self.stop)(Step::Times)?;
                let place = self.place(*id)?;
                self.at(&place, "setting its times and flags", |dir, name| {
                    restore::times_and_flags(dir, name, meta, options)
                })?;
            }
        }
        Ok(())
    }

    /// Step 8, all but the commit: the index of the new round, as the tree is now.
    pub fn check(&mut self, touched: &[ObjectId]) -> Result<Index> {
        (self.stop)(Step::Commit)?;
        let plan = self.plan;
        let mut index = plan.target.clone();
        let mut buffer = Vec::new();
        for id in touched {
            let place = self.place(*id)?;
            let Some(object) = index.objects.get_mut(id) else { continue };
            let (blocks, size) = (self.blocks(*id), object.meta.size);
            let (seen, read) = self.at(&place, "reading it again", |dir, name| {
                let mut seen = look(dir, name, None)?;
                inspect::complete(dir, name, plan.header.options, &mut seen.meta)?;
                seen.meta.atime = seen.atime(plan.header.options);
                let mut read = Vec::new();
                if !blocks.is_empty() {
                    let file = open_quiet(dir, name, Kind::File)?;
                    for number in blocks {
                        let digest =
                            read_block(file.as_fd(), number * limits::CONTENT_BLOCK, size, &mut buffer)?;
                        read.push((number, digest));
                    }
                }
                Ok((seen, read))
            })?;
            let bits = seen.meta.differs(&object.meta);
            if bits != 0 {
                let words = meta::differs::words(bits).join(", ");
                let text = format!("checking it after the change: its {words} could not be made so");
                return Err(self.error(
                    &place,
                    &text,
                    io::Error::other("this file system keeps something else"),
                ));
            }
            object.stamp = seen.stamp;
            object.content.update(&read, size);
        }
        let root = merkle::Hashes::of(&index)?.root;
        if root != plan.round.root {
            let text = format!(
                "{}: checking it after the change: its digest is {root}, the dump promises {}",
                self.root.path().display(),
                plan.round.root
            );
            return Err(Error::new(Class::Damaged, text));
        }
        self.root.sync()?;
        (self.stop)(Step::Commit)?;
        Ok(index)
    }

    /// The blocks of a file that the dump touches, with the one at its limit.
    fn blocks(&self, id: ObjectId) -> BTreeSet<u64> {
        let size = self.plan.target.objects.get(&id).map_or(0, |object| object.meta.size);
        let block = limits::CONTENT_BLOCK;
        let mut blocks = BTreeSet::new();
        for piece in self.plan.pieces.get(&id).into_iter().flatten() {
            blocks.extend(piece.offset / block..(piece.offset + piece.len).div_ceil(block));
        }
        blocks.extend(self.plan.limits.get(&id).map(|limit| limit / block));
        blocks.retain(|number| number * block < size);
        blocks
    }
}
