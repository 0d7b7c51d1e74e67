//! A stream of `btrfs send` as a dump of ours, so that it is applied as every dump is, on any file system.
//!
//! 1. The stream is taken in, whole, into `DIR/received`. Its beginning alone says that it is one.
//! 2. It is followed in memory, on top of the index ([`crate::capture::btrfs::received`]): every command has its checksum, the last one
//!    is the end, nothing is behind it, and it begins at the snapshot that the standby has. What it writes and clones is
//!    kept as pieces of the stream and of the standby's files.
//! 3. The difference of the two indexes is written into `DIR/spool` as a dump, its data read from the stream and from the
//!    files of the standby, which are only read; packed extents are unpacked. Clones become copies.
//! 4. `DIR/snapshots` gets a line: the round that the dump leads to is this snapshot. `DIR/received` is removed.
//!
//! From here on it is a dump like any other ([`super::run`], step 2): it is read and checked whole, again, before the
//! tree is touched, and a tree that others changed is refused, even if that was in the midst of step 3.
//!
//! Recovery: (a) a crash before `applying` is written: the tree was not touched, stream and dump are removed, and the same
//! stream is applied from the start; a line in `DIR/snapshots` whose round never came says nothing; (b) afterwards the
//! dump in `DIR/spool` is all that a redo needs, and the line is there once the round is committed.

use super::run::{ApplyOptions, ApplyReport, Careful};
use super::standby::{Standby, create};
use crate::base::limits::CONTENT_BLOCK;
use crate::base::{Class, Error, Result};
use crate::capture::btrfs::received::Received;
use crate::capture::dump::{Writer, write_names};
use crate::capture::scan::{Sink as _, now};
use crate::capture::tree::Root;
use crate::capture::tree::inspect::open_quiet;
use crate::capture::watch::{Phase, Watch};
use crate::fslog::command::{Moment, PACKED_ZLIB, PACKED_ZSTD, Packed};
use crate::fslog::content::digest;
use crate::fslog::derive::Difference;
use crate::fslog::dump::finish;
use crate::fslog::index::{Names, Object, PRIVILEGED};
use crate::fslog::patchwork::{Patchwork, Source};
use crate::fslog::{Index, Kind, ObjectId, Round, sent};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A dump, in the spool.
    Dump(File),
    /// A stream of btrfs send that leads to what the standby has already.
    Held,
}

/// So many bytes of an input are looked at before it is known what it is.
const PEEK: usize = sent::MAGIC.len();

/// The first bytes of an input, or all of it; and whether a stream of btrfs send begins with them.
pub fn peek(object: &str, input: &mut dyn Read) -> Result<(Vec<u8>, bool)> {
    let mut head = Vec::with_capacity(PEEK);
    input.take(PEEK as u64).read_to_end(&mut head).map_err(|e| Error::io(object, "reading it", e))?;
    let is_stream = head == sent::MAGIC;
    Ok((head, is_stream))
}

/// Takes a dump in, or a stream of btrfs send and makes a dump of it. Errors: class `Damaged` for a stream that is not
/// whole, says what cannot be, or does not begin at what the standby has; what came in of it is removed then.
pub fn take_in(
    options: &ApplyOptions,
    root: &Root,
    standby: &Standby,
    base: &Index,
    (object, input): (&str, &mut dyn Read),
) -> Result<Incoming> {
    let watch = &options.watch;
    let (head, is_stream) = peek(object, input)?;
    let mut input = head.as_slice().chain(input);
    if !is_stream {
        return standby.spool(object, &mut input, watch).map(Incoming::Dump);
    }
    let mut stream = standby.receive(object, &mut input, watch)?;
    let spool = stream
        .rewind()
        .map_err(|e| Error::io(object, "reading it", e))
        .and_then(|()| convert(options, root, standby, base, (object, &stream)));
    match spool {
        Ok(Some(spool)) => standby.received().map(|()| Incoming::Dump(spool)),
        Ok(None) => standby.refuse().map(|()| Incoming::Held),
        Err(error) => {
            standby.refuse()?;
            Err(error)
        }
    }
}

/// What applying a stream would do, and the first thing in it that root must be careful with: nothing is written, and
/// its packed extents are not unpacked.
pub fn plan(
    base: &Index,
    held: Option<Moment>,
    (object, input): (&str, &mut dyn Read),
    watch: &Watch,
) -> Result<(ApplyReport, Option<Careful>)> {
    let reader = BufReader::with_capacity(1 << 20, input);
    let Some(received) = Received::follow(object, reader, base, held, || watch.check())? else {
        return Ok((ApplyReport::at(base.round), None));
    };
    let index = &received.index;
    let ids = received.differing();
    let new = ids.iter().filter(|id| !base.objects.contains_key(id)).count();
    let gone = base.objects.keys().filter(|id| !index.objects.contains_key(id)).count();
    let report = ApplyReport {
        new,
        gone,
        changed: ids.len() - new,
        data: received.data(),
        ..ApplyReport::at(Round { number: base.round.number + 1, ..Round::default() })
    };
    let careful = ids.iter().find_map(|id| Some((*id, index.objects.get(id)?.meta.privilege()?)));
    Ok((report, careful.map(|(id, why)| (index.names().path(id), why))))
}

/// Steps 2 to 4.
fn convert(
    options: &ApplyOptions,
    root: &Root,
    standby: &Standby,
    base: &Index,
    (object, stream): (&str, &File),
) -> Result<Option<File>> {
    let watch = &options.watch;
    let held = standby.snapshot_of(base.round)?;
    let reader = BufReader::with_capacity(1 << 20, stream);
    let Some(mut received) = Received::follow(object, reader, base, held, || watch.check())? else {
        return Ok(None);
    };
    let first = Index::empty(received.of.uuid);
    let base = if base.round.number == 0 { &first } else { base };
    let index = &mut received.index;
    (index.tree, index.time) = (base.tree, now());
    index.options = base.options | if options.privileged { PRIVILEGED } else { 0 };
    let path = standby.spool_path();
    let spool = create(&path)?;
    let shown = path.display().to_string();
    let out = BufWriter::with_capacity(1 << 20, &spool);
    let round = write(object, received, base, root, stream, watch, (&shown, out))?;
    spool.sync_all().map_err(|e| Error::io(&shown, "syncing it", e))?;
    standby.remember_snapshot(base.round, round.0, round.1)?;
    Ok(Some(spool))
}

/// Step 3.
fn write(
    object: &str,
    received: Received<'_>,
    base: &Index,
    root: &Root,
    stream: &File,
    watch: &Watch,
    (to, out): (&str, impl io::Write),
) -> Result<(Round, Moment)> {
    let ids = received.differing();
    let Received { mut index, files, packed, of, .. } = received;
    let total = files.keys().filter_map(|id| index.objects.get(id)).map(|file| file.meta.size).sum();
    watch.enter(Phase::Read, total);
    let mut writer = Writer::new(base, &index, base.round.number + 1, to, out)?;
    let names = base.names();
    let mut reader =
        Pieces { object, root, base, names, stream, packed: &packed, open: None, unpacked: None };
    for id in ids {
        let Some(each) = index.objects.get_mut(&id) else { continue };
        writer.object(id, &each.meta, true)?;
        if let Some(file) = files.get(&id) {
            reader.file(&mut writer, id, each, file, watch)?;
        }
    }
    index.round.number = writer.number;
    index.seal()?;
    let difference = Difference::of(base, &index);
    write_names(&mut writer, &index, &difference)?;
    finish(writer.frames, index.round.root, index.next)?;
    Ok((index.round, of))
}

/// Reads what pieces of files name.
struct Pieces<'a> {
    object: &'a str,
    root: &'a Root,
    base: &'a Index,
    names: Names<'a>,
    stream: &'a File,
    packed: &'a [Packed],
    /// The file of the base that was read last.
    open: Option<(ObjectId, OwnedFd)>,
    /// The extent that was unpacked last.
    unpacked: Option<(u32, Vec<u8>)>,
}

impl Pieces<'_> {
    /// Hands the blocks of a file on that differ from the base, and takes their digests.
    fn file<W: io::Write>(
        &mut self,
        writer: &mut Writer<'_, W>,
        id: ObjectId,
        each: &mut Object,
        file: &Patchwork,
        watch: &Watch,
    ) -> Result<()> {
        let size = each.meta.size;
        let before = self.base.objects.get(&id).map_or(0, |object| object.meta.size);
        let blocks = file.changed(id, &each.content, before, size);
        let (mut changes, mut block) = (Vec::new(), Vec::new());
        let to = writer.changes(id);
        for number in blocks.iter().flatten() {
            watch.check()?;
            let at = number * CONTENT_BLOCK;
            let range = at..size.min(at + CONTENT_BLOCK);
            block.clear();
            block.resize((range.end - range.start) as usize, 0);
            for (piece, source) in file.within(&range) {
                let part = &mut block[(piece.start - at) as usize..(piece.end - at) as usize];
                self.read(source, part)?;
            }
            let found = digest(&block);
            match found {
                Some(_) if each.content.get(number) != found => to.data(at, &block)?,
                None if each.content.get(number).is_some() => to.hole(range)?,
                _ => {}
            }
            changes.push((number, found));
        }
        each.content.update(&changes, size);
        watch.add(size);
        Ok(())
    }

    fn read(&mut self, source: Source, to: &mut [u8]) -> Result<()> {
        match source {
            Source::Stream(at) => {
                let read = self.stream.read_exact_at(to, at);
                read.map_err(|e| Error::io(self.object, "reading it again", e))
            }
            Source::Base(id, at) => self.base(id, at, to),
            Source::Packed(number, at) => {
                if self.unpacked.as_ref().is_none_or(|(last, _)| *last != number) {
                    let extent = self.packed.get(number as usize);
                    let none = || Error::new(Class::Internal, format!("there is no extent {number}"));
                    self.unpacked = Some((number, self.unpack(extent.ok_or_else(none)?)?));
                }
                let at = at as usize;
                match self.unpacked.as_ref().and_then(|(_, bytes)| bytes.get(at..at + to.len())) {
                    Some(bytes) => to.copy_from_slice(bytes),
                    None => return Err(Error::new(Class::Internal, format!("extent {number} is too short"))),
                }
                Ok(())
            }
        }
    }

    /// Bytes of a file of the standby. One that others cut has zeroes there, and is seen to have changed later.
    fn base(&mut self, id: ObjectId, at: u64, to: &mut [u8]) -> Result<()> {
        let path = self.names.path(id);
        let fail = |doing: &str, e: io::Error| self.root.error(&path, doing, e);
        if self.open.as_ref().is_none_or(|(opened, _)| *opened != id) {
            let mut components = self.names.components(id);
            let name = components.pop().unwrap_or_default();
            let dir = self.root.dir(&components).map_err(|e| fail("opening its directory", e.into()))?;
            let file = open_quiet(dir.as_fd(), name, Kind::File).map_err(|e| fail("opening it", e))?;
            self.open = Some((id, file));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        let mut filled = 0;
        while filled < to.len() {
            match rustix::io::pread(file, &mut to[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(Errno::INTR) => {}
                Err(e) => return Err(fail("reading it", e.into())),
            }
        }
        Ok(())
    }

    fn unpack(&self, extent: &Packed) -> Result<Vec<u8>> {
        let mut packed = vec![0; extent.len as usize];
        let read = self.stream.read_exact_at(&mut packed, extent.at);
        read.map_err(|e| Error::io(self.object, "reading it again", e))?;
        unpack(extent, &packed).map_err(|e| {
            let text = format!("{}: unpacking the extent at byte {}: {e}", self.object, extent.at);
            Error::new(Class::Damaged, text)
        })
    }
}

/// The largest window that btrfs packs with (`ZSTD_BTRFS_MAX_WINDOWLOG`): no more memory is used for an extent.
const ZSTD_WINDOW_LOG: u32 = 17;

/// An extent as it was; what follows the packed bytes fills their last sector, what is missing of it is zeroes.
fn unpack(extent: &Packed, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(extent.unpacked as usize);
    let most = u64::from(extent.unpacked);
    match extent.method {
        PACKED_ZLIB => flate2::read::ZlibDecoder::new(packed).take(most).read_to_end(&mut bytes)?,
        PACKED_ZSTD => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            decoder.take(most).read_to_end(&mut bytes)?
        }
        _ => packed.take(most).read_to_end(&mut bytes)?,
    };
    bytes.resize(extent.unpacked as usize, 0);
    Ok(bytes)
}
