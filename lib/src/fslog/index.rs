//! A tree at one moment: every object with what makes it identical, its names, and how this side finds it again.

use super::frame::{END, FrameReader, FrameWriter, Header, Magic, Round};
use super::meta::{Kind, Meta, Time};
use super::pack::{Pack, Unpack};
use super::{Content, Digest, ObjectId, merkle};
use crate::base::{Class, Error, Id, Result, limits};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};

/// Option of a tree: `trusted.*` and all `security.*` attributes belong to it.
pub const PRIVILEGED: u32 = 1;

/// Option of a tree: times of last access belong to it.
pub const ATIME: u32 = 2;

/// The entries of a directory.
pub type Entries = BTreeMap<Box<[u8]>, ObjectId>;

/// How one side finds an object again, and sees that nobody changed it. Never part of its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// File handle: inode and generation.
    pub handle: Box<[u8]>,
    /// Time of the last change of anything.
    pub ctime: Time,
    /// Changed so shortly before it was looked at that a later change may have the same time.
    pub unsure: bool,
    /// A directory that moved, or vanished, before it was listed: not all of its entries are known, and a recorder
    /// tells only of those that change.
    pub unlisted: bool,
}

/// Bits of a stamp in a file.
const UNSURE: u8 = 1;
const UNLISTED: u8 = 2;

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What makes it identical.
    pub meta: Meta,
    /// The bytes of a regular file.
    pub content: Content,
    /// The entries of a directory.
    pub entries: Entries,
    /// How this side finds it again.
    pub stamp: Stamp,
}

/// A tree at one moment. An index without objects is the state before the first round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What belongs to the tree beyond the usual ([`PRIVILEGED`]).
    pub options: u32,
    /// Its identity.
    pub tree: Id,
    /// Which state of it.
    pub round: Round,
    /// When it was looked at, in nanoseconds since 1970.
    pub time: i64,
    /// No object has this number or a higher one.
    pub next: u64,
    /// The objects.
    pub objects: BTreeMap<ObjectId, Object>,
}

const OBJECT: u8 = 1;
const ENTRIES: u8 = 2;
const BLOCKS: u8 = 3;

/// Whether this can be the name of an entry: one component of a path.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= limits::FILE_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

impl Index {
    /// The state before the first round: no tree.
    pub const fn empty(tree: Id) -> Self {
        let round = Round { number: 0, root: Digest([0; 32]) };
        Self { options: 0, tree, round, time: 0, next: 2, objects: BTreeMap::new() }
    }

    /// Computes the Merkle root; round 0 has none.
    pub fn seal(&mut self) -> Result<()> {
        self.round.root = merkle::Hashes::of(self)?.root;
        Ok(())
    }

    /// Every name of every object: the directory and the entry.
    pub fn names(&self) -> Names<'_> {
        let mut names: HashMap<ObjectId, Vec<(ObjectId, &[u8])>> = HashMap::with_capacity(self.objects.len());
        for (dir, object) in &self.objects {
            for (name, id) in &object.entries {
                names.entry(*id).or_default().push((*dir, name));
            }
        }
        Names(names)
    }

    /// Checks that it is a tree: everything hangs together beneath the root by possible names, directories have
    /// one name, and nothing is there twice. Whoever takes an index from elsewhere asks this first.
    pub fn check(&self, object: &str) -> Result<()> {
        let wrong =
            |what: String| Err(Error::new(Class::Damaged, format!("{object}: checking its tree: {what}")));
        if self.objects.is_empty() {
            return Ok(());
        }
        match self.objects.get(&ObjectId::ROOT) {
            Some(root) if root.meta.kind == Kind::Dir => {}
            _ => return wrong("its root is not a directory".to_owned()),
        }
        let mut seen = HashSet::from([ObjectId::ROOT]);
        let mut level = vec![ObjectId::ROOT];
        for depth in 0.. {
            let mut below = Vec::new();
            for (name, id) in
                level.iter().filter_map(|dir| self.objects.get(dir)).flat_map(|dir| &dir.entries)
            {
                let shown = super::show_path(name);
                if !is_name(name) {
                    return wrong(format!("the name '{shown}'"));
                }
                let Some(child) = self.objects.get(id) else {
                    return wrong(format!("'{shown}' is object {id}, which does not exist"));
                };
                if !seen.insert(*id) {
                    if child.meta.kind == Kind::Dir {
                        return wrong(format!("'{shown}' is a second name of directory {id}"));
                    }
                } else if child.meta.kind == Kind::Dir {
                    below.push(*id);
                }
            }
            if below.is_empty() {
                break;
            }
            if depth >= limits::TREE_DEPTH {
                return wrong(format!("deeper than {} levels", limits::TREE_DEPTH));
            }
            level = below;
        }
        if seen.len() != self.objects.len() {
            return wrong(format!("{} objects are not beneath its root", self.objects.len() - seen.len()));
        }
        for (id, each) in &self.objects {
            let end = each.meta.size.div_ceil(limits::CONTENT_BLOCK);
            let past = each.content.blocks().last().is_some_and(|(number, _)| *number >= end);
            if past || id.0 >= self.next || each.meta.kind != Kind::Dir && !each.entries.is_empty() {
                return wrong(format!("object {id} holds what it cannot"));
            }
        }
        Ok(())
    }

    /// Writes it.
    pub fn write<W: Write>(&self, object: &str, out: W) -> Result<W> {
        let header = Header {
            magic: Magic::Index,
            options: self.options,
            tree: self.tree,
            base: Round::default(),
            round: self.round.number,
            time: self.time,
        };
        let mut frames = FrameWriter::new(object, out, &header)?;
        for (id, each) in &self.objects {
            let mut pack = Pack::default();
            pack.u64(id.0).string(&each.stamp.handle);
            each.stamp.ctime.pack(&mut pack);
            let bit = |so: bool, bit: u8| if so { bit } else { 0 };
            pack.u8(bit(each.stamp.unsure, UNSURE) | bit(each.stamp.unlisted, UNLISTED));
            each.meta.pack(&mut pack);
            frames.frame(OBJECT, &[&pack.0])?;
            let entries: Vec<_> = each.entries.iter().collect();
            for batch in entries.chunks(limits::FSLOG_BATCH) {
                let mut pack = Pack::default();
                pack.u64(id.0).u32(batch.len() as u32);
                for (name, child) in batch {
                    pack.string(name).u64(child.0);
                }
                frames.frame(ENTRIES, &[&pack.0])?;
            }
            for batch in each.content.blocks().chunks(limits::FSLOG_BATCH) {
                let mut pack = Pack::default();
                pack.u64(id.0).u32(batch.len() as u32);
                for (number, digest) in batch {
                    pack.u64(*number).raw(&digest.0);
                }
                frames.frame(BLOCKS, &[&pack.0])?;
            }
        }
        let mut end = Pack::default();
        end.raw(&self.round.root.0).u64(self.next).u64(self.objects.len() as u64);
        frames.finish(&end.0)
    }

    /// Reads it, and checks that it is a tree.
    pub fn read(object: &str, from: impl Read) -> Result<Self> {
        let mut frames = FrameReader::new(object, Magic::Index, from)?;
        let mut index = Self { options: frames.header.options, ..Self::empty(frames.header.tree) };
        index.time = frames.header.time;
        index.round.number = frames.header.round;
        loop {
            let (kind, payload) = frames.take_frame()?;
            let mut from = Unpack::new(object, payload);
            match kind {
                END => {
                    index.round.root = from.digest()?;
                    index.next = from.u64()?;
                    if from.u64()? != index.objects.len() as u64 {
                        return Err(from.damaged("another number of objects"));
                    }
                    from.end()?;
                    break;
                }
                _ => index.take(kind, from)?,
            }
        }
        frames.finish()?;
        index.check(object)?;
        Ok(index)
    }

    /// One frame.
    fn take(&mut self, kind: u8, mut from: Unpack<'_>) -> Result<()> {
        let id = ObjectId(from.u64()?);
        if kind == OBJECT {
            let (handle, ctime) = (from.string(limits::FILE_HANDLE)?.into(), Time::unpack(&mut from)?);
            let bits = from.u8()?;
            let stamp = Stamp { handle, ctime, unsure: bits & UNSURE != 0, unlisted: bits & UNLISTED != 0 };
            let meta = Meta::unpack(&mut from)?;
            from.end()?;
            let new = Object { meta, content: Content::default(), entries: Entries::new(), stamp };
            return match self.objects.insert(id, new) {
                None => Ok(()),
                Some(_) => Err(Unpack::new("index", &[]).damaged(&format!("object {id} twice"))),
            };
        }
        let count = from.u32()?;
        let Some(object) = self.objects.get_mut(&id) else {
            return Err(from.damaged(&format!("entries or blocks of object {id}, which does not exist")));
        };
        for _ in 0..count {
            match kind {
                ENTRIES => {
                    let name = from.string(limits::FILE_NAME)?.into();
                    object.entries.insert(name, ObjectId(from.u64()?));
                }
                BLOCKS => {
                    let (number, digest) = (from.u64()?, from.digest()?);
                    if object.content.blocks().last().is_some_and(|(last, _)| *last >= number) {
                        return Err(from.damaged("blocks out of order"));
                    }
                    object.content.push(number, digest);
                }
                _ => return Err(from.damaged(&format!("a frame of kind {kind}"))),
            }
        }
        from.end()
    }
}

/// Every name of every object of an index.
#[derive(Clone, Debug)]
pub struct Names<'a>(HashMap<ObjectId, Vec<(ObjectId, &'a [u8])>>);

impl<'a> Names<'a> {
    /// The names of an object, in order of directory and name.
    pub fn of(&self, id: ObjectId) -> &[(ObjectId, &'a [u8])] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Components of the path of a directory, from the root; of another object, of its first name.
    pub fn components(&self, mut id: ObjectId) -> Vec<&'a [u8]> {
        let mut path = Vec::new();
        while let Some((dir, name)) = self.of(id).first() {
            path.push(*name);
            id = *dir;
        }
        path.reverse();
        path
    }

    /// The path of an object, from the root; the root itself is `.`.
    pub fn path(&self, id: ObjectId) -> Vec<u8> {
        match self.components(id) {
            path if path.is_empty() => b".".to_vec(),
            path => path.join(&b'/'),
        }
    }

    /// The path of an entry.
    pub fn entry(&self, dir: ObjectId, name: &[u8]) -> Vec<u8> {
        let mut path = self.components(dir);
        path.push(name);
        path.join(&b'/')
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
pub(crate) mod tests;
