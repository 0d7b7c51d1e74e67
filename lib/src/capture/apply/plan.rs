//! What a dump would do to a standby: read whole, checked whole, before anything is touched. Nothing is done here.

use crate::base::{Class, Error, Result, limits};
use crate::capture::STAGE;
use crate::fslog::content::digest;
use crate::fslog::frame::{FRAME_HEAD, FrameReader, Header, Magic, Round};
use crate::fslog::index::{Entries, Object, Stamp, is_name};
use crate::fslog::{Content, Digest, Index, Kind, Meta, ObjectId, Part, merkle, show_path};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Bytes or a hole of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it goes.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// Where its bytes are in the spool; `None` for a hole.
    pub at: Option<u64>,
    /// The digest of the block that it is; `None` if it is all zero.
    pub digest: Option<Digest>,
}

/// A name that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The directory.
    pub dir: ObjectId,
    /// The entry.
    pub name: Box<[u8]>,
    /// The object.
    pub id: ObjectId,
}

/// What a dump would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The head of the dump.
    pub header: Header,
    /// The round that it leads to.
    pub round: Round,
    /// The tree that it leads to; contents and stamps of what it changes are still those of the base.
    pub target: Index,
    /// Objects to be made.
    pub new: BTreeSet<ObjectId>,
    /// Objects that differ.
    pub changed: BTreeSet<ObjectId>,
    /// Objects to be removed.
    pub gone: BTreeSet<ObjectId>,
    /// Names that go.
    pub unnamed: Vec<Naming>,
    /// Names that come, those in higher directories first.
    pub named: Vec<Naming>,
    /// Where the void of a file begins.
    pub limits: BTreeMap<ObjectId, u64>,
    /// What is written into a file.
    pub pieces: BTreeMap<ObjectId, Vec<Piece>>,
    /// Bytes of data.
    pub data: u64,
}

impl Plan {
    /// Reads a dump to its end, and checks everything that can be checked without looking at the tree: frames,
    /// digest, that it is for this base, and that it leads to a tree.
    pub fn read(object: &str, from: impl Read, base: &Index) -> Result<Self> {
        let mut frames = FrameReader::new(object, Magic::Dump, from)?;
        let header = frames.header;
        check_base(object, &header, base)?;
        let mut target = base.clone();
        (target.tree, target.options, target.time) = (header.tree, header.options, header.time);
        let mut plan = Self {
            header,
            round: Round { number: header.round, ..Round::default() },
            target,
            new: BTreeSet::new(),
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            unnamed: Vec::new(),
            named: Vec::new(),
            limits: BTreeMap::new(),
            pieces: BTreeMap::new(),
            data: 0,
        };
        loop {
            let start = frames.offset();
            let (kind, payload) = frames.take_frame()?;
            let part = Part::unpack(object, kind, payload)?;
            if let Part::End { root, next } = part {
                (plan.round.root, plan.target.next) = (root, next);
                break;
            }
            plan.take(part, start).map_err(|what| wrong(object, &what))?;
        }
        frames.finish()?;
        plan.finish(object, base)?;
        Ok(plan)
    }

    /// One part of the dump, whose frame began at `start`.
    fn take(&mut self, part: Part<'_>, start: u64) -> Result<(), String> {
        match part {
            Part::Hint { .. } | Part::End { .. } => {}
            Part::New { id, meta } => {
                let object = Object {
                    meta: *meta,
                    content: Content::default(),
                    entries: Entries::new(),
                    stamp: Stamp::default(),
                };
                if id.0 == 0 || self.target.objects.insert(id, object).is_some() {
                    return Err(format!("object {id} is new, and exists"));
                }
                self.new.insert(id);
            }
            Part::Changed { id, meta } => self.change(id, *meta)?,
            Part::Limit { id, at } => {
                self.limits.insert(id, at);
            }
            Part::Data { id, offset, bytes } => {
                // The frame's head, the object and the offset stand before the bytes.
                let at = Some(start + FRAME_HEAD as u64 + 16);
                self.data += bytes.len() as u64;
                self.pieces.entry(id).or_default().push(Piece {
                    offset,
                    len: bytes.len() as u64,
                    at,
                    digest: digest(bytes),
                });
            }
            Part::Hole { id, range } => {
                let piece =
                    Piece { offset: range.start, len: range.end - range.start, at: None, digest: None };
                self.pieces.entry(id).or_default().push(piece);
            }
            Part::Unname { dir, name, id } => self.unnamed.push(Naming { dir, name: name.into(), id }),
            Part::Name { dir, name, id } => self.named.push(Naming { dir, name: name.into(), id }),
            Part::Gone { id } => {
                self.gone.insert(id);
            }
        }
        Ok(())
    }

    fn change(&mut self, id: ObjectId, meta: Meta) -> Result<(), String> {
        match self.target.objects.get_mut(&id) {
            Some(object) if object.meta.same_nature(&meta) && !self.new.contains(&id) => object.meta = meta,
            Some(_) => return Err(format!("object {id} becomes another kind of thing")),
            None => return Err(format!("object {id} differs, and does not exist")),
        }
        if self.changed.insert(id) { Ok(()) } else { Err(format!("object {id} differs twice")) }
    }

    /// Puts the names together, and checks that a tree results.
    fn finish(&mut self, object: &str, base: &Index) -> Result<()> {
        self.rename().map_err(|what| wrong(object, &what))?;
        self.check_files(base).map_err(|what| wrong(object, &what))?;
        self.target.check(object)?;
        let root = merkle::Hashes::of(&self.target)?.root;
        if root != self.round.root {
            let what = format!("it leads to the digest {root}, and promises {}", self.round.root);
            return Err(wrong(object, &what));
        }
        let depths = self.depths();
        self.named.sort_by_key(|naming| depths.get(&naming.dir).copied().unwrap_or_default());
        self.target.round = self.round;
        Ok(())
    }

    fn rename(&mut self) -> Result<(), String> {
        let objects = &mut self.target.objects;
        for Naming { dir, name, id } in &self.unnamed {
            let entries = objects.get_mut(dir).map(|dir| &mut dir.entries);
            if entries.is_none_or(|entries| entries.remove(name) != Some(*id)) {
                return Err(format!("object {id} has no name '{}' in {dir} to lose", show_path(name)));
            }
        }
        for Naming { dir, name, id } in &self.named {
            let shown = show_path(name);
            if !is_name(name) || *dir == ObjectId::ROOT && &name[..] == STAGE {
                return Err(format!("the name '{shown}'"));
            }
            let Some(place) = objects.get_mut(dir).filter(|dir| dir.meta.kind == Kind::Dir) else {
                return Err(format!("'{shown}' in {dir}, which is no directory"));
            };
            if place.entries.insert(name.clone(), *id).is_some() {
                return Err(format!("the name '{shown}' in {dir} is taken"));
            }
        }
        for id in &self.gone {
            match objects.remove(id) {
                Some(object) if object.entries.is_empty() => {}
                Some(_) => return Err(format!("directory {id} is gone, and not empty")),
                None => return Err(format!("object {id} is gone, and does not exist")),
            }
            // Made and removed while the source was read.
            self.new.remove(id);
            self.changed.remove(id);
            self.pieces.remove(id);
            self.limits.remove(id);
        }
        Ok(())
    }

    /// Checks the data of all files, and works out the digests of what they will hold.
    fn check_files(&mut self, base: &Index) -> Result<(), String> {
        if let Some(id) = self.limits.keys().chain(self.pieces.keys()).find(|id| !self.is_changed_file(**id))
        {
            return Err(format!("data for object {id}, which is no changed file"));
        }
        for &id in self.new.iter().chain(&self.changed) {
            let before = base.objects.get(&id).map_or(0, |object| object.meta.size);
            let pieces = self.pieces.get(&id).map_or(&[][..], Vec::as_slice);
            let limit = self.limits.get(&id).copied().unwrap_or(u64::MAX);
            let Some(object) = self.target.objects.get_mut(&id) else { continue };
            let blocks =
                blocks_of(pieces, object.meta.size).map_err(|what| format!("object {id}: {what}"))?;
            // What the base has from here on is void; zeroes stand for it.
            let cut = limit.min(before).min(object.meta.size);
            let first = cut / limits::CONTENT_BLOCK;
            let partial = cut % limits::CONTENT_BLOCK != 0 && (cut < before || cut < object.meta.size);
            if partial && object.content.get(first).is_some() && !blocks.contains_key(&first) {
                return Err(format!("object {id}: the block at its limit, {cut}, is not there"));
            }
            object.content.update(&[], cut);
            object.content.update(&blocks.into_iter().collect::<Vec<_>>(), object.meta.size);
        }
        Ok(())
    }

    fn is_changed_file(&self, id: ObjectId) -> bool {
        let known = self.new.contains(&id) || self.changed.contains(&id);
        known && self.target.objects.get(&id).is_some_and(|object| object.meta.kind == Kind::File)
    }

    /// How deep each directory of the target is.
    fn depths(&self) -> BTreeMap<ObjectId, usize> {
        let mut depths = BTreeMap::from([(ObjectId::ROOT, 0)]);
        let mut level = vec![ObjectId::ROOT];
        while let Some(dir) = level.pop() {
            let depth = depths.get(&dir).copied().unwrap_or_default() + 1;
            let Some(object) = self.target.objects.get(&dir) else { continue };
            for id in object.entries.values() {
                if self.target.objects.get(id).is_some_and(|child| child.meta.kind == Kind::Dir) {
                    depths.insert(*id, depth);
                    level.push(*id);
                }
            }
        }
        depths
    }

    /// Bytes of data of new files.
    pub fn new_data(&self) -> u64 {
        let pieces = self.new.iter().filter_map(|id| self.pieces.get(id)).flatten();
        pieces.filter(|piece| piece.at.is_some()).map(|piece| piece.len).sum()
    }

    /// The objects of the target that are touched, and the directories whose entries are; deepest first.
    pub fn touched(&self) -> Vec<ObjectId> {
        let namings = self.unnamed.iter().chain(&self.named).flat_map(|naming| [naming.dir, naming.id]);
        let mut touched: BTreeSet<_> = namings.chain([ObjectId::ROOT]).collect();
        touched.extend(self.new.iter().chain(&self.changed));
        touched.retain(|id| self.target.objects.contains_key(id));
        let depths = self.depths();
        let mut touched: Vec<_> = touched.into_iter().collect();
        touched.sort_by_key(|id| std::cmp::Reverse(depths.get(id).copied().unwrap_or(usize::MAX)));
        touched
    }

    /// The first thing in it that root must be careful with: its path and what it is.
    pub fn privilege(&self) -> Option<(Vec<u8>, String)> {
        let mut ids = self.new.iter().chain(&self.changed);
        let found = ids.find_map(|id| Some((*id, self.target.objects.get(id)?.meta.privilege()?)));
        found.map(|(id, why)| (self.target.names().path(id), why))
    }
}

/// The blocks that pieces write, with their digests. Data come in whole blocks, holes too; only the last block of a
/// file may be short.
fn blocks_of(pieces: &[Piece], size: u64) -> Result<BTreeMap<u64, Option<Digest>>, String> {
    let block = limits::CONTENT_BLOCK;
    let mut blocks = BTreeMap::new();
    for piece in pieces {
        if piece.offset > size || piece.len > size - piece.offset {
            let end = piece.offset.saturating_add(piece.len);
            return Err(format!("data up to {end}, and it has {size} bytes"));
        }
        let end = piece.offset + piece.len;
        let whole = piece.offset % block == 0 && (end % block == 0 || end == size);
        if !whole || piece.len > block {
            return Err(format!("data from {} to {end}, which are no whole blocks", piece.offset));
        }
        for number in piece.offset / block..end.div_ceil(block) {
            if blocks.insert(number, piece.digest).is_some() {
                return Err(format!("block {number} twice"));
            }
        }
    }
    Ok(blocks)
}

fn wrong(object: &str, what: &str) -> Error {
    Error::new(Class::Damaged, format!("{object}: checking what it says: {what}"))
}

/// Refuses every base but the one that the dump names.
fn check_base(object: &str, header: &Header, base: &Index) -> Result<()> {
    if header.base != base.round {
        let text = format!(
            "{object}: checking its base: it begins at round {}, this standby is at round {}",
            header.base, base.round
        );
        let hint = if base.round.number == 0 {
            "cfor-log dump --full".to_owned()
        } else {
            format!("cfor-log ack LOG STANDBY {}", base.round)
        };
        return Err(Error::new(Class::Damaged, text).hint(hint));
    }
    if base.round.number > 0 && header.tree != base.tree {
        let text = format!(
            "{object}: checking its tree: it is of tree {}, this standby of {}",
            header.tree, base.tree
        );
        return Err(Error::new(Class::Damaged, text));
    }
    if header.round <= base.round.number {
        let text =
            format!("{object}: checking its round: it leads from {} to {}", base.round.number, header.round);
        return Err(Error::new(Class::Damaged, text));
    }
    Ok(())
}
