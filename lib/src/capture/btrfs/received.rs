//! What a stream of `btrfs send` would make of a standby: its commands are done to the index and to pieces of files
//! ([`Patchwork`]), and to nothing else. No byte of the tree or of the stream is read here but names and metadata.
//!
//! What a stream says is believed where the kernel would do it, and refused otherwise: names that are taken, objects that
//! are not there, directories beneath themselves, clones past an end or from a snapshot that is not here.

use crate::base::{Class, Error, Result, limits};
use crate::capture::tree::inspect::is_kept;
use crate::fslog::command::{Command, Moment, PACKED_NOT, PACKED_ZLIB, PACKED_ZSTD, Packed};
use crate::fslog::index::{Entries, Object, PRIVILEGED, Stamp};
use crate::fslog::meta::{Kind, Meta, Time, Xattrs};
use crate::fslog::patchwork::{Patchwork, Source};
use crate::fslog::sent::Sent;
use crate::fslog::{Content, Index, ObjectId, show_path};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::ops::Range;

/// Pieces that any one command makes: its own, and the rest of one that it splits.
const PIECES_PAID: usize = 2;

/// Bytes of an ACL before its entries.
const ACL_HEAD: usize = 4;

/// What a stream leads to.
#[derive(Debug)]
pub struct Received<'a> {
    base: &'a Index,
    /// The tree; contents are still those of the base.
    pub index: Index,
    /// The files that were written to, cloned into, or cut.
    pub files: BTreeMap<ObjectId, Patchwork>,
    /// Packed extents.
    pub packed: Vec<Packed>,
    /// Which snapshot it leads to.
    pub of: Moment,
    parent: Option<Moment>,
    /// Files of the parent that were cloned from.
    sources: BTreeMap<ObjectId, Patchwork>,
    /// Pieces that there may still be.
    pieces: usize,
}

fn wrong(object: &str, what: &str) -> Error {
    Error::new(Class::Damaged, format!("{object}: following the stream of btrfs send: {what}"))
}

/// What the beginning of a stream says: it is checked before the rest is looked at.
fn begin<R: Read>(object: &str, sent: &mut Sent<R>) -> Result<(Moment, Option<Moment>)> {
    match sent.next_command()? {
        Some(Command::Begin { of, parent, .. }) => Ok((of, parent)),
        _ => Err(wrong(object, "it does not say what it is about")),
    }
}

/// Refuses a stream that does not begin at what the standby has: `held`, or something else than a received snapshot.
fn check_parent(object: &str, base: &Index, held: Option<Moment>, parent: Option<Moment>) -> Result<()> {
    let show = |moment: Moment| format!("{} (transaction {})", moment.uuid, moment.ctransid);
    let has = match held {
        Some(moment) => show(moment),
        None if base.round.number == 0 => "nothing".to_owned(),
        None => format!("round {}, which is no snapshot that was received", base.round.number),
    };
    let begins = match parent {
        _ if parent == held && (parent.is_some() || base.round.number == 0) => return Ok(()),
        Some(parent) => show(parent),
        None => "nothing: it is of a whole subvolume".to_owned(),
    };
    let text = format!("{object}: checking its parent: it begins at {begins}; this standby has {has}");
    Err(Error::new(Class::Damaged, text)
        .hint("btrfs send -p SNAPSHOT, with the snapshot that the standby has"))
}

impl<'a> Received<'a> {
    /// Follows a stream from beginning to end, where the standby has the snapshot `held`; `None` if it has the one that
    /// the stream leads to. Everything of the stream is read and checked. Errors: class `Damaged`.
    pub fn follow<R: Read>(
        object: &str,
        from: R,
        base: &'a Index,
        held: Option<Moment>,
        go_on: impl FnMut() -> Result<()>,
    ) -> Result<Option<Self>> {
        Self::follow_within(limits::SENT_PIECES, object, from, base, held, go_on)
    }

    fn follow_within<R: Read>(
        pieces: usize,
        object: &str,
        from: R,
        base: &'a Index,
        held: Option<Moment>,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Option<Self>> {
        let mut sent = Sent::new(object, from)?;
        let (of, parent) = begin(object, &mut sent)?;
        if held == Some(of) {
            return Ok(None);
        }
        check_parent(object, base, held, parent)?;
        let (index, files, sources, packed) = (base.clone(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut received = Self { base, index, files, packed, of, parent, sources, pieces };
        received.index.objects.entry(ObjectId::ROOT).or_insert_with(|| object_of(Kind::Dir, (0, 0), b""));
        while let Some(command) = sent.next_command()? {
            go_on()?;
            received.take(&command).map_err(|what| wrong(object, &what))?;
        }
        if !sent.is_all()? {
            return Err(wrong(object, "something follows its end: one stream at a time"));
        }
        received.sweep();
        Ok(Some(received))
    }

    /// The objects that are new or differ; those that were written to among them.
    pub fn differing(&self) -> BTreeSet<ObjectId> {
        let before = |id| self.base.objects.get(id).map(|object| &object.meta);
        let all = self.index.objects.iter().filter(|(id, object)| before(*id) != Some(&object.meta));
        all.map(|(id, _)| id).chain(self.files.keys()).copied().collect()
    }

    /// How many bytes of blocks may be others than in the base.
    pub fn data(&self) -> u64 {
        let bytes = |(id, file): (&ObjectId, &Patchwork)| {
            let object = self.index.objects.get(id)?;
            let before = self.base.objects.get(id).map_or(0, |object| object.meta.size);
            let blocks = file.changed(*id, &object.content, before, object.meta.size);
            Some(blocks.bytes().saturating_mul(limits::CONTENT_BLOCK).min(object.meta.size))
        };
        self.files.iter().filter_map(bytes).sum()
    }

    /// Does one command.
    fn take(&mut self, command: &Command<'_>) -> Result<(), String> {
        match command {
            Command::Begin { .. } => return Err("it begins twice".to_owned()),
            Command::End => {}
            Command::Make { path, kind, device, link } => {
                let id = ObjectId(self.index.next);
                self.index.next += 1;
                self.put(path, id)?;
                self.index.objects.insert(id, object_of(*kind, *device, link));
            }
            Command::Link { path, of } => {
                let id = self.find(of)?;
                if self.meta(id, of)?.kind == Kind::Dir {
                    return Err(format!("{}: a second name of a directory", show_path(of)));
                }
                self.put(path, id)?;
            }
            Command::Unlink { path, dir } => {
                let id = self.find(path)?;
                let object = self.index.objects.get(&id);
                let fits =
                    |object: &Object| (object.meta.kind == Kind::Dir) == *dir && object.entries.is_empty();
                if !object.is_some_and(fits) {
                    let what = if *dir { "no empty directory" } else { "a directory" };
                    return Err(format!("{}: removing it: it is {what}", show_path(path)));
                }
                self.remove(path)?;
            }
            Command::Rename { from, to } => self.rename(from, to)?,
            Command::Xattr { path, name, value } => self.attribute(path, name, *value)?,
            Command::Write { path, range, at } => {
                self.grow(path, range, &[(range.clone(), Source::Stream(*at))])?;
            }
            Command::Unpack { path, range, packed, skip } => {
                if !matches!(packed.method, PACKED_NOT | PACKED_ZLIB | PACKED_ZSTD) {
                    let path = show_path(path);
                    return Err(format!(
                        "{path}: it is packed by LZO, which is not unpacked here: send it without --compressed-data"
                    ));
                }
                let number = self.packed.len() as u32;
                self.packed.push(*packed);
                self.grow(path, range, &[(range.clone(), Source::Packed(number, *skip))])?;
            }
            Command::Clone { path, range, of, from, at } => {
                let pieces = self.cloned(*of, from, *at, range)?;
                self.grow(path, range, &pieces)?;
            }
            Command::Zero { path, range, grow } => {
                let size = self.meta(self.find(path)?, path)?.size;
                let end = if *grow { range.end } else { range.end.min(size) };
                self.grow(path, &(range.start.min(end)..end), &[])?;
            }
            Command::Reserve { path, range, grow } => {
                let size = self.meta(self.find(path)?, path)?.size;
                self.grow(path, &(size..if *grow { range.end.max(size) } else { size }), &[])?;
            }
            Command::Truncate { path, size } => {
                self.grow(path, &(*size..*size), &[])?;
                let id = self.find(path)?;
                self.file(id).cut(*size);
                self.meta(id, path)?.size = *size;
            }
            Command::Mode { path, mode } => {
                let id = self.find(path)?;
                let meta = self.meta(id, path)?;
                if meta.kind == Kind::Symlink {
                    return Err(format!("{}: permissions of a symbolic link", show_path(path)));
                }
                meta.mode = *mode;
            }
            Command::Owner { path, uid, gid } => {
                let id = self.find(path)?;
                let meta = self.meta(id, path)?;
                (meta.uid, meta.gid) = (*uid, *gid);
            }
            Command::Times { path, mtime, .. } => {
                let id = self.find(path)?;
                self.meta(id, path)?.mtime = *mtime;
            }
            Command::Flags { path, flags } => {
                let id = self.find(path)?;
                let meta = self.meta(id, path)?;
                if matches!(meta.kind, Kind::File | Kind::Dir) {
                    meta.flags = *flags;
                }
            }
        }
        Ok(())
    }

    fn find(&self, path: &[u8]) -> Result<ObjectId, String> {
        find(&self.index, path).ok_or_else(|| format!("{}: it is not there", show_path(path)))
    }

    fn meta(&mut self, id: ObjectId, path: &[u8]) -> Result<&mut Meta, String> {
        let object = self.index.objects.get_mut(&id);
        object.map(|object| &mut object.meta).ok_or_else(|| format!("{}: it is not there", show_path(path)))
    }

    /// The entries of the directory that an entry is in, and its name.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(&mut Entries, &'p [u8]), String> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let dir = self.find(above)?;
        match self.index.objects.get_mut(&dir) {
            Some(dir) if dir.meta.kind == Kind::Dir => Ok((&mut dir.entries, name)),
            _ => Err(format!("{}: it is no directory", show_path(above))),
        }
    }

    fn put(&mut self, path: &[u8], id: ObjectId) -> Result<(), String> {
        let (entries, name) = self.place(path)?;
        match entries.insert(name.into(), id) {
            None => Ok(()),
            Some(_) => Err(format!("{}: it is there already", show_path(path))),
        }
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), String> {
        let (entries, name) = self.place(path)?;
        entries.remove(name).map(drop).ok_or_else(|| format!("{}: it is not there", show_path(path)))
    }

    /// As rename(2) does, but never over anything: btrfs send moves what is in the way away first.
    fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), String> {
        let id = self.find(from)?;
        if to.strip_prefix(from).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/')) {
            return Err(format!("{}: it is moved beneath itself", show_path(from)));
        }
        self.put(to, id)?;
        self.remove(from)
    }

    /// Attributes that no other file system has (`btrfs.compression`) are not part of a tree. An ACL without entries,
    /// which has a version and nothing else, is none: btrfs keeps an attribute of no bytes for one that was removed.
    fn attribute(&mut self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        if name.is_empty() || name.len() > limits::FILE_NAME || name.contains(&0) {
            return Err(format!("{}: an extended attribute without a name", show_path(path)));
        }
        let id = self.find(path)?;
        let meta = self.meta(id, path)?;
        let value = value.filter(|value| !name.starts_with(b"system.posix_acl_") || value.len() > ACL_HEAD);
        if is_kept(name, PRIVILEGED) {
            match value {
                Some(value) => meta.xattrs.insert(name.to_vec(), value.to_vec()),
                None => meta.xattrs.remove(name),
            };
        }
        Ok(())
    }

    /// The pieces of a file as it is now.
    fn file(&mut self, id: ObjectId) -> &mut Patchwork {
        let base = self.base;
        self.files.entry(id).or_insert_with(|| {
            let before = base.objects.get(&id);
            before.map(|file| Patchwork::of_base(id, &file.content, file.meta.size)).unwrap_or_default()
        })
    }

    /// A range of a file becomes these pieces, zeroes elsewhere, and the file at least as long as it.
    fn grow(&mut self, path: &[u8], range: &Range<u64>, new: &[(Range<u64>, Source)]) -> Result<(), String> {
        let id = self.find(path)?;
        let meta = self.meta(id, path)?;
        if meta.kind != Kind::File || range.end > limits::FILE_SIZE {
            let text = if meta.kind == Kind::File { "a file larger than any" } else { "it is no file" };
            return Err(format!("{}: writing to it: {text}", show_path(path)));
        }
        if range.start < range.end {
            meta.size = meta.size.max(range.end);
        }
        let file = self.file(id);
        let before = file.count();
        file.clear(range);
        for (range, source) in new {
            file.put(range, *source);
        }
        let more = file.count().saturating_sub(before + PIECES_PAID);
        self.pieces = self.pieces.checked_sub(more).ok_or("files of too many pieces, by cloning")?;
        Ok(())
    }

    /// The pieces that a clone into `to` consists of, where they go.
    fn cloned(
        &mut self,
        of: Moment,
        from: &[u8],
        at: u64,
        to: &Range<u64>,
    ) -> Result<Vec<(Range<u64>, Source)>, String> {
        let shown = show_path(from);
        let range = at..at.checked_add(to.end - to.start).ok_or("a range past the end of all files")?;
        let (file, size);
        if of == self.of {
            let id = self.find(from)?;
            size = self.meta(id, from)?.size;
            file = self.file(id).clone_within(&range);
        } else if Some(of) == self.parent {
            let id = find(self.base, from).ok_or_else(|| format!("{shown}: it is not in the parent"))?;
            let object =
                self.base.objects.get(&id).ok_or_else(|| format!("{shown}: it is not in the parent"))?;
            size = object.meta.size;
            let source = self.sources.entry(id);
            let source = source.or_insert_with(|| Patchwork::of_base(id, &object.content, size));
            file = source.clone_within(&range);
        } else {
            return Err(format!(
                "{shown}: it is cloned from snapshot {}, which this standby does not have: send without -c",
                of.uuid
            ));
        }
        if range.end > size {
            return Err(format!("{shown}: it is cloned up to {}, and it has {size} bytes", range.end));
        }
        let shift = |piece: Range<u64>| to.start + (piece.start - at)..to.start + (piece.end - at);
        Ok(file.into_iter().map(|(piece, source)| (shift(piece), source)).collect())
    }

    /// What has no name any more is gone.
    fn sweep(&mut self) {
        let (mut seen, mut dirs) = (HashSet::from([ObjectId::ROOT]), vec![ObjectId::ROOT]);
        while let Some(dir) = dirs.pop() {
            let entries = self.index.objects.get(&dir).map(|dir| dir.entries.values().copied());
            dirs.extend(entries.into_iter().flatten().filter(|id| seen.insert(*id)));
        }
        self.index.objects.retain(|id, _| seen.contains(id));
        self.files.retain(|id, _| seen.contains(id));
    }
}

fn find(index: &Index, path: &[u8]) -> Option<ObjectId> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    names
        .into_iter()
        .try_fold(ObjectId::ROOT, |dir, name| index.objects.get(&dir)?.entries.get(name).copied())
}

/// A new object, as `btrfs receive` makes it before it is told more.
fn object_of(kind: Kind, device: (u32, u32), link: &[u8]) -> Object {
    let mode = match kind {
        Kind::Dir => 0o700,
        Kind::Symlink => 0,
        _ => 0o600,
    };
    let (mtime, atime) = (Time::default(), Time::default());
    let link = link.to_vec();
    let meta = Meta {
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime,
        atime,
        size: 0,
        device,
        flags: 0,
        link,
        xattrs: Xattrs::new(),
    };
    Object { meta, content: Content::default(), entries: Entries::new(), stamp: Stamp::default() }
}

#[cfg(test)]
#[path = "received_tests.rs"]
mod tests;
