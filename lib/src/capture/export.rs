//! A dump as a stream that `btrfs receive` takes: a tree on any file system, kept as snapshots on a btrfs elsewhere.
//!
//! The snapshot of a round is known by a UUID that is made of tree and round, and by the number of the round as its
//! transaction ([`moment_of`]): whoever received round 3 has the parent that the stream from round 3 to round 4 names, and
//! nothing about it is remembered here but what every dump remembers. A subvolume that was not received from here is
//! refused over there, by `btrfs receive`, which finds no parent.
//!
//! 1. The dump is made as always ([`super::dump`]), into a file without a name in LOG: its parts come in no order, and
//!    those of a stream must come in one.
//! 2. It is read back and checked as a standby would ([`super::apply::plan`]).
//! 3. The stream is written; its commands are the steps of an apply ([`super::apply`]), in the same order, and its stage
//!    is a directory in the snapshot that its last commands remove. The end comes last, and the snapshot is none before.
//!
//! Recovery: a crash leaves a round that no standby has, as that of any dump does.

use super::STAGE;
use super::apply::places::{Dir, Place, Places};
use super::apply::plan::{Naming, Piece, Plan};
use super::apply::standby::create;
use super::dump::{DumpOptions, DumpReport, dump};
use super::store::Store;
use super::watch::Watch;
use crate::base::{Class, Error, Id, Result, limits};
use crate::fslog::command::{Moment, attribute, node, number, time_bytes};
use crate::fslog::sent::{encode_command, encode_head};
use crate::fslog::{Index, Kind, Meta, ObjectId, Round, show_path};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

/// Every `btrfs receive` knows this version.
const VERSION: u32 = 1;
/// Bytes of data in one command, as the kernel sends them (`BTRFS_SEND_READ_SIZE`).
const WRITE: usize = 48 << 10;
/// Longest value of an attribute: a command has 64 KiB (`BTRFS_SEND_BUF_SIZE_V1`) for it and a path and a name.
const VALUE: usize = 48 << 10;
/// The default ACL of a directory, which what is made in it inherits.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// The attribute that every write and every change of owner takes away.
const CAPABILITY: &[u8] = b"security.capability";

/// What the snapshot of a round is known by.
pub fn moment_of(tree: Id, round: Round) -> Moment {
    let mut hash = blake3::Hasher::new();
    hash.update(b"cfor-log: the snapshot of a round").update(&tree.0);
    hash.update(&round.number.to_le_bytes()).update(&round.root.0);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    Moment { uuid: Id(uuid), ctransid: round.number }
}

/// Dumps into `out`, which is `object` in messages, as a stream of btrfs send. The snapshot is called as the tree, with
/// the number of the round. Errors as of [`dump`]; class `Refused` for what no such stream can carry.
pub fn export<W: Write>(options: &DumpOptions, object: &str, out: W) -> Result<(DumpReport, W)> {
    let path = options.log.join(format!("export.{}", std::process::id()));
    let shown = path.display().to_string();
    drop(Store::open(&options.log)?);
    let mut spool = create(&path)?;
    std::fs::remove_file(&path).map_err(|e| Error::io(&shown, "removing its name", e))?;
    let (report, _) = dump(options, &shown, BufWriter::with_capacity(1 << 20, &spool))?;
    let store = Store::open(&options.log)?;
    let tree = store.load(report.round)?.tree;
    let base = if report.base == 0 { Index::empty(tree) } else { store.load(report.base)? };
    drop(store);
    spool.rewind().map_err(|e| Error::io(&shown, "reading it", e))?;
    let plan = Plan::read(&shown, BufReader::with_capacity(1 << 20, &spool), &base)?;
    let name = options.root.file_name().map_or(&b"tree"[..], |name| name.as_bytes());
    let name =
        [&name[..name.len().min(limits::FILE_NAME - 21)], format!(".{}", report.round).as_bytes()].concat();
    let places = Places::of_index(&base);
    let (base, plan, watch) = (&base, &plan, &options.watch);
    let mut sending =
        Sending { object, out, spool: &spool, base, plan, places, watch, written: 0, buffer: Vec::new() };
    sending.stream(&name)?;
    let Sending { mut out, written, .. } = sending;
    out.flush().map_err(|e| Error::io(object, "writing it", e))?;
    Ok((DumpReport { bytes: written, ..report }, out))
}

struct Sending<'a, W> {
    object: &'a str,
    out: W,
    spool: &'a File,
    base: &'a Index,
    plan: &'a Plan,
    /// Where everything is at this point of the stream.
    places: Places,
    watch: &'a Watch,
    written: u64,
    buffer: Vec<u8>,
}

type Attributes<'a> = &'a [(u16, &'a [u8])];

impl<W: Write> Sending<'_, W> {
    fn stream(&mut self, name: &[u8]) -> Result<()> {
        self.write(&encode_head(VERSION))?;
        self.begin(name)?;
        let plan = self.plan;
        let touched = plan.touched();
        let staged = self.plan.new.iter().any(|id| *id != ObjectId::ROOT) || !self.plan.unnamed.is_empty();
        if staged {
            self.stage()?;
        }
        self.names()?;
        for id in touched.iter().filter(|id| self.plan.changed.contains(id)) {
            self.remove_attributes(*id)?;
        }
        let is_told = |id: &ObjectId| plan.new.contains(id) || plan.changed.contains(id);
        for id in touched.iter().filter(|id| is_told(id)) {
            self.data(*id)?;
            self.attributes(*id)?;
        }
        if staged {
            self.sweep()?;
        }
        for id in &touched {
            // Of directories those too whose entries are others now.
            let Some(meta) = plan.target.objects.get(id).map(|object| &object.meta) else { continue };
            if is_told(id) || meta.kind == Kind::Dir {
                self.times(*id, meta)?;
            }
        }
        self.send(number::END, &[])
    }

    fn meta(&self, id: ObjectId) -> Result<&'_ Meta> {
        let object = self.plan.target.objects.get(&id);
        let nothing = || Error::new(Class::Internal, format!("object {id} is not in the target"));
        object.map(|object| &object.meta).ok_or_else(nothing)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| Error::io(self.object, "writing it", e))
    }

    fn send(&mut self, number: u16, attributes: Attributes<'_>) -> Result<()> {
        let is_path = |name| matches!(name, attribute::PATH | attribute::PATH_TO | attribute::PATH_LINK);
        for (name, value) in attributes {
            let most = if is_path(*name) { limits::PATH_PIECE } else { VALUE };
            if value.len() > most {
                let path = attributes.iter().find(|(name, _)| *name == attribute::PATH);
                let path = show_path(path.map_or(&b"."[..], |(_, path)| path));
                let len = value.len();
                let text = format!(
                    "{path}: sending it: {len} bytes of a path or attribute, btrfs receive takes {most}"
                );
                return Err(Error::new(Class::Refused, text));
            }
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        encode_command(VERSION, &(number, attributes), &mut buffer);
        let written = self.write(&buffer);
        self.buffer = buffer;
        written
    }

    fn begin(&mut self, name: &[u8]) -> Result<()> {
        use attribute::{CLONE_CTRANSID, CLONE_UUID, CTRANSID, PATH, UUID};
        let of = moment_of(self.plan.header.tree, self.plan.round);
        let of = (of.uuid.0, of.ctransid.to_le_bytes());
        if self.base.round.number == 0 {
            return self.send(number::SUBVOL, &[(PATH, name), (UUID, &of.0), (CTRANSID, &of.1)]);
        }
        let parent = moment_of(self.base.tree, self.base.round);
        let parent = (parent.uuid.0, parent.ctransid.to_le_bytes());
        let parent: Attributes<'_> = &[(CLONE_UUID, &parent.0), (CLONE_CTRANSID, &parent.1)];
        let own: Attributes<'_> = &[(PATH, name), (UUID, &of.0), (CTRANSID, &of.1)];
        self.send(number::SNAPSHOT, &[own, parent].concat())
    }

    /// The stage, and new objects in it.
    fn stage(&mut self) -> Result<()> {
        use attribute::{INO, MODE, PATH, PATH_LINK, RDEV, XATTR_NAME};
        self.send(number::MKDIR, &[(PATH, STAGE), (INO, &0u64.to_le_bytes())])?;
        let root = self.base.objects.get(&ObjectId::ROOT);
        if root.is_some_and(|root| root.meta.xattrs.contains_key(DEFAULT_ACL)) {
            self.send(number::REMOVE_XATTR, &[(PATH, STAGE), (XATTR_NAME, DEFAULT_ACL)])?;
        }
        let plan = self.plan;
        for id in plan.new.iter().copied().filter(|id| *id != ObjectId::ROOT) {
            let Some(meta) = plan.target.objects.get(&id).map(|object| &object.meta) else { continue };
            let place = (Dir::Stage, format!("n{}", id.0).into_bytes().into_boxed_slice());
            let path = self.places.path(&place);
            let ino = id.0.to_le_bytes();
            let usual: Attributes<'_> = &[(PATH, &path), (INO, &ino)];
            let (mode, device) = node(meta.kind, meta.mode, meta.device);
            let (mode, device) = (mode.to_le_bytes(), device.to_le_bytes());
            match meta.kind {
                Kind::File => self.send(number::MKFILE, usual)?,
                Kind::Dir => self.send(number::MKDIR, usual)?,
                Kind::Fifo => self.send(number::MKFIFO, usual)?,
                Kind::Socket => self.send(number::MKSOCK, usual)?,
                Kind::Symlink => self.send(number::SYMLINK, &[usual, &[(PATH_LINK, &meta.link)]].concat())?,
                Kind::Char | Kind::Block => {
                    let node: Attributes<'_> = &[(RDEV, &device), (MODE, &mode)];
                    self.send(number::MKNOD, &[usual, node].concat())?;
                }
            }
            self.places.add(place, id);
        }
        Ok(())
    }

    /// Names that go are moved into the stage, those that come are made, higher directories first.
    fn names(&mut self) -> Result<()> {
        let plan = self.plan;
        for (number, Naming { dir, name, id }) in plan.unnamed.iter().enumerate() {
            self.rename(&(Dir::Object(*dir), name.clone()), detached(number), *id)?;
        }
        for Naming { dir, name, id } in &plan.named {
            let place = (Dir::Object(*dir), name.clone());
            if let Some(staged) = self.places.staged(*id).cloned() {
                self.rename(&staged, place, *id)?;
                continue;
            }
            let (of, path) = (self.path(*id)?, self.places.path(&place));
            self.send(number::LINK, &[(attribute::PATH, &path), (attribute::PATH_LINK, &of)])?;
            self.places.add(place, *id);
        }
        Ok(())
    }

    fn rename(&mut self, from: &Place, to: Place, id: ObjectId) -> Result<()> {
        let (source, target) = (self.places.path(from), self.places.path(&to));
        self.send(number::RENAME, &[(attribute::PATH, &source), (attribute::PATH_TO, &target)])?;
        self.places.remove(from);
        self.places.add(to, id);
        Ok(())
    }

    /// The path of an object at this point; that of the root is empty.
    fn path(&self, id: ObjectId) -> Result<Vec<u8>> {
        if id == ObjectId::ROOT {
            return Ok(Vec::new());
        }
        let nowhere = || Error::new(Class::Internal, format!("object {id} is nowhere"));
        Ok(self.places.path(self.places.of(id).ok_or_else(nowhere)?))
    }

    /// Attributes that go, before a write or another owner takes them away: `btrfs receive` removes none that is gone.
    fn remove_attributes(&mut self, id: ObjectId) -> Result<()> {
        let Some(before) = self.base.objects.get(&id) else { return Ok(()) };
        let (path, plan) = (self.path(id)?, self.plan);
        let Some(after) = plan.target.objects.get(&id) else { return Ok(()) };
        for key in before.meta.xattrs.keys().filter(|key| !after.meta.xattrs.contains_key(*key)) {
            self.send(number::REMOVE_XATTR, &[(attribute::PATH, &path), (attribute::XATTR_NAME, key)])?;
        }
        Ok(())
    }

    /// Sizes and bytes.
    fn data(&mut self, id: ObjectId) -> Result<()> {
        let (plan, size, path) = (self.plan, self.meta(id)?.size, self.path(id)?);
        let pieces = plan.pieces.get(&id).map_or(&[][..], Vec::as_slice);
        let limit = plan.limits.get(&id).copied().filter(|limit| *limit < size);
        let resized = plan.limits.contains_key(&id) || plan.new.contains(&id) && size > 0;
        for size in limit.into_iter().chain(resized.then_some(size)) {
            let bytes = size.to_le_bytes();
            self.send(number::TRUNCATE, &[(attribute::PATH, &path), (attribute::SIZE, &bytes)])?;
        }
        for piece in pieces {
            self.watch.check()?;
            self.piece(&path, piece)?;
        }
        Ok(())
    }

    /// A block; a hole is written as zeroes, as the kernel does in this version.
    fn piece(&mut self, path: &[u8], piece: &Piece) -> Result<()> {
        let mut buffer = vec![0; WRITE.min(piece.len as usize)];
        let mut done = 0;
        while done < piece.len {
            let part = &mut buffer[..WRITE.min((piece.len - done) as usize)];
            if let Some(at) = piece.at {
                let read = self.spool.read_exact_at(part, at + done);
                read.map_err(|e| Error::io(self.object, "reading the dump again", e))?;
            }
            let offset = (piece.offset + done).to_le_bytes();
            done += part.len() as u64;
            let part = &*part;
            self.send(
                number::WRITE,
                &[(attribute::PATH, path), (attribute::FILE_OFFSET, &offset), (attribute::DATA, part)],
            )?;
        }
        Ok(())
    }

    /// Owner, attributes and permissions, in this order: each takes away what the next one sets.
    fn attributes(&mut self, id: ObjectId) -> Result<()> {
        use attribute::{GID, MODE, PATH, UID, XATTR_DATA, XATTR_NAME};
        let (path, plan) = (self.path(id)?, self.plan);
        let Some(meta) = plan.target.objects.get(&id).map(|object| &object.meta) else { return Ok(()) };
        let before = self.base.objects.get(&id).map(|object| &object.meta);
        if before.is_none_or(|before| (before.uid, before.gid) != (meta.uid, meta.gid)) {
            let (uid, gid) = (u64::from(meta.uid).to_le_bytes(), u64::from(meta.gid).to_le_bytes());
            self.send(number::CHOWN, &[(PATH, &path), (UID, &uid), (GID, &gid)])?;
        }
        let same =
            |key: &[u8], value: &Vec<u8>| before.is_some_and(|before| before.xattrs.get(key) == Some(value));
        for (key, value) in
            meta.xattrs.iter().filter(|(key, value)| key.as_slice() == CAPABILITY || !same(key, value))
        {
            self.send(number::SET_XATTR, &[(PATH, &path), (XATTR_NAME, key), (XATTR_DATA, value)])?;
        }
        if meta.kind != Kind::Symlink {
            let mode = u64::from(meta.mode).to_le_bytes();
            self.send(number::CHMOD, &[(PATH, &path), (MODE, &mode)])?;
        }
        Ok(())
    }

    /// What is left in the stage, and then the stage.
    fn sweep(&mut self) -> Result<()> {
        for number in 0..self.plan.unnamed.len() {
            let place = detached(number);
            let Some(object) = self.places.at(&place).and_then(|id| self.base.objects.get(&id)) else {
                continue;
            };
            let number = if object.meta.kind == Kind::Dir { number::RMDIR } else { number::UNLINK };
            let path = self.places.path(&place);
            self.send(number, &[(attribute::PATH, &path)])?;
            self.places.remove(&place);
        }
        self.send(number::RMDIR, &[(attribute::PATH, STAGE)])
    }

    fn times(&mut self, id: ObjectId, meta: &Meta) -> Result<()> {
        use attribute::{ATIME, CTIME, MTIME, PATH};
        let kept = self.plan.header.options & crate::fslog::index::ATIME != 0;
        let (path, mtime) = (self.path(id)?, time_bytes(meta.mtime));
        let atime = if kept { time_bytes(meta.atime) } else { mtime };
        self.send(number::UTIMES, &[(PATH, &path), (ATIME, &atime), (MTIME, &mtime), (CTIME, &mtime)])
    }
}

/// Where a name is that went.
fn detached(number: usize) -> Place {
    (Dir::Stage, format!("d{number}").into_bytes().into())
}
