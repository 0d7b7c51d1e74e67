//! Reads devices on all cores: their digests, and where two of them differ.
//!
//! A device is cut into parts. Each thread takes the next part, looks for its holes, reads the rest in pieces that
//! stay in its cache, and hands the answer over; the answers come out in order. Threads that are ahead wait, so
//! that memory is bounded whatever the size of the device.

use super::reader::{Device, Reader};
use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result};
use crate::delta::manifest::{Digest, Manifest, ManifestHeader, TreeWriter};
use crate::device::Output;
use crate::map::BlockSet;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

/// Bytes of one part: long enough for the system's read-ahead, short enough to share out the end of a device.
const PART: u64 = 4 << 20;
/// Bytes that are read at a time: they are hashed while they are still in the core's cache.
const PIECE: u64 = 256 << 10;
/// Most parts that may wait for one before them.
const AHEAD: u64 = 64;
/// Most threads: each may be a connection to a server.
const THREADS: usize = 16;

/// Told how many bytes are done of how many.
pub type Told<'t> = &'t mut dyn FnMut(u64, u64);

/// What is compared.
#[derive(Debug)]
pub enum Side {
    /// A device, read now.
    Device(Device),
    /// What a device was.
    Manifest(Manifest),
}

impl Side {
    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        match self {
            Self::Device(device) => device.size(),
            Self::Manifest(manifest) => manifest.header().size,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Device(device) => device.name(),
            Self::Manifest(manifest) => manifest.name(),
        }
    }

    /// The volume, where it is known.
    pub fn volume(&self) -> Id {
        match self {
            Self::Device(_) => Id::NONE,
            Self::Manifest(manifest) => manifest.header().volume,
        }
    }

    /// The blocks that it has digests of.
    pub fn block(&self) -> Option<BlockSize> {
        match self {
            Self::Device(_) => None,
            Self::Manifest(manifest) => Some(manifest.header().block),
        }
    }
}

/// Writes the manifest of a device. Returns its root.
pub fn digest(device: &Device, block: BlockSize, volume: Id, out: Output, told: Told<'_>) -> Result<Digest> {
    let header = ManifestHeader { volume, block, size: device.size() };
    header.check(device.name())?;
    let mut tree = TreeWriter::new(header, out)?;
    digests(device, block, told, &mut |digests| digests.iter().try_for_each(|digest| tree.push(digest)))?;
    tree.finish()
}

/// The blocks in which two devices of the same size differ.
pub fn diff(a: &Side, b: &Side, block: BlockSize, told: Told<'_>) -> Result<BlockSet> {
    let size = a.size();
    if size != b.size() {
        let (theirs, other) = (b.size(), b.name());
        let text = format!("{}: comparing it with {other}: {size} bytes and {theirs} bytes", a.name());
        return Err(Error::new(Class::Damaged, text));
    }
    for side in [a, b] {
        if let Some(is) = side.block().filter(|is| *is != block) {
            let (is, wanted) = (is.bytes(), block.bytes());
            let text =
                format!("{}: comparing it: digests of blocks of {is} bytes and of {wanted}", side.name());
            return Err(Error::new(Class::Damaged, text));
        }
    }
    let mut set = BlockSet::new(block.count(size));
    match (a, b) {
        (Side::Manifest(a), Side::Manifest(b)) => a.each_difference(b, &mut |at| {
            set.insert(at);
            Ok(())
        })?,
        (Side::Device(a), Side::Device(b)) => {
            let work = |readers: &mut (Reader, Reader), part: ByteRange| compare(readers, part, block);
            let open = || Ok((a.reader()?, b.reader()?));
            let mut first = 0;
            in_order(size, block, told, &open, &work, &mut |differ: Vec<bool>| {
                for (at, _) in (first..).zip(&differ).filter(|(_, differs)| **differs) {
                    set.insert(at);
                }
                first += differ.len() as u64;
                Ok(())
            })?;
        }
        (Side::Manifest(manifest), Side::Device(device))
        | (Side::Device(device), Side::Manifest(manifest)) => {
            against(manifest, device, block, told, &mut set)?;
        }
    }
    Ok(set)
}

/// A device against a manifest, whose leaves are read by another thread.
fn against(
    manifest: &Manifest,
    device: &Device,
    block: BlockSize,
    told: Told<'_>,
    set: &mut BlockSet,
) -> Result<()> {
    let (sender, leaves) = mpsc::sync_channel::<Result<Digest>>(1 << 12);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let gone = |_| Error::silent(Class::Internal);
            if let Err(error) = manifest.each(&mut |_, digest| sender.send(Ok(*digest)).map_err(gone)) {
                // Whoever does not listen any more has failed already.
                let _ = sender.send(Err(error));
            }
        });
        let mut at = 0;
        digests(device, block, told, &mut |digests| {
            for digest in digests {
                let leaf = leaves.recv().map_err(|_| Error::silent(Class::Internal))??;
                if leaf != digest {
                    set.insert(at);
                }
                at += 1;
            }
            Ok(())
        })
    })
}

/// Calls `take` with the digests of all blocks, in order.
fn digests(
    device: &Device,
    block: BlockSize,
    told: Told<'_>,
    take: &mut dyn FnMut(Vec<Digest>) -> Result<()>,
) -> Result<()> {
    let zero = zero_digest(block.bytes());
    let work = |reader: &mut Reader, part: ByteRange| hash(reader, part, block, &zero);
    in_order(device.size(), block, told, &|| device.reader(), &work, take)
}

/// The digest of a block of zeroes.
fn zero_digest(len: u64) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let zeroes = [0; 4096];
    for _ in 0..len / 4096 {
        hasher.update(&zeroes);
    }
    hasher.update(&zeroes[..(len % 4096) as usize]);
    *hasher.finalize().as_bytes()
}

/// The pieces of a part that are whole blocks, at most [`PIECE`] long where a block is not longer; and whether
/// all of it reads as zeroes. A block of zeroes is a piece of its own kind, never mixed with others.
fn pieces(zeroes: &[ByteRange], part: ByteRange, block: BlockSize) -> Vec<(ByteRange, bool)> {
    let mut pieces: Vec<(ByteRange, bool)> = Vec::new();
    let mut zeroes = zeroes.iter().peekable();
    let most = PIECE.max(block.bytes());
    let mut at = part.offset;
    while at < part.end() {
        let len = block.bytes().min(part.end() - at);
        let here = ByteRange { offset: at, len };
        while zeroes.peek().is_some_and(|zero| zero.end() <= at) {
            zeroes.next();
        }
        let zero = zeroes.peek().is_some_and(|zero| zero.contains(&here));
        match pieces.last_mut() {
            Some((piece, is)) if *is == zero && (zero || piece.len + len <= most) => piece.len += len,
            _ => pieces.push((here, zero)),
        }
        at += len;
    }
    pieces
}

fn hash(reader: &mut Reader, part: ByteRange, block: BlockSize, zero: &Digest) -> Result<Vec<Digest>> {
    if let Some(digests) = reader.digests(part, block.bytes())? {
        return Ok(digests);
    }
    let mut digests = Vec::with_capacity(block.count(part.len) as usize);
    let mut buf = Vec::new();
    let zeroes = reader.zeroes(part)?;
    let pieces = pieces(&zeroes, part, block);
    let any_data = pieces.iter().any(|(_, is_zero)| !is_zero);
    let window = any_data.then(|| reader.window(part)).flatten();
    let each = |bytes: &[u8]| -> Vec<Digest> {
        bytes.chunks(block.bytes() as usize).map(|block| *blake3::hash(block).as_bytes()).collect()
    };
    for (piece, is_zero) in pieces {
        if is_zero {
            let whole = piece.len / block.bytes();
            digests.extend(std::iter::repeat_n(*zero, whole as usize));
            if piece.len % block.bytes() != 0 {
                digests.push(zero_digest(piece.len % block.bytes()));
            }
            continue;
        }
        if let Some(seen) = window.as_ref().and_then(|window| window.with(piece, each)) {
            digests.extend(seen);
            continue;
        }
        buf.resize(piece.len as usize, 0);
        reader.read(piece.offset, &mut buf)?;
        digests.extend(each(&buf));
    }
    Ok(digests)
}

fn compare(readers: &mut (Reader, Reader), part: ByteRange, block: BlockSize) -> Result<Vec<bool>> {
    let (a, b) = readers;
    if a.is_far() || b.is_far() {
        let zero = zero_digest(block.bytes());
        let (ours, theirs) = (hash(a, part, block, &zero)?, hash(b, part, block, &zero)?);
        return Ok(ours.iter().zip(&theirs).map(|(a, b)| a != b).collect());
    }
    let both = both_zero(&a.zeroes(part)?, &b.zeroes(part)?);
    let mut differ = Vec::with_capacity(block.count(part.len) as usize);
    let len = PIECE.max(block.bytes()).min(part.len) as usize;
    let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
    for (piece, is_zero) in pieces(&both, part, block) {
        if is_zero {
            differ.extend(std::iter::repeat_n(false, block.count(piece.len) as usize));
            continue;
        }
        let (ours, theirs) = (&mut ours[..piece.len as usize], &mut theirs[..piece.len as usize]);
        a.read(piece.offset, ours)?;
        b.read(piece.offset, theirs)?;
        let blocks = block.bytes() as usize;
        differ.extend(ours.chunks(blocks).zip(theirs.chunks(blocks)).map(|(a, b)| a != b));
    }
    Ok(differ)
}

/// What reads as zeroes in both.
fn both_zero(a: &[ByteRange], b: &[ByteRange]) -> Vec<ByteRange> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (offset, end) = (x.offset.max(y.offset), x.end().min(y.end()));
        if offset < end {
            both.push(ByteRange { offset, len: end - offset });
        }
        if x.end() <= y.end() {
            a.next();
        } else {
            b.next();
        }
    }
    both
}

/// Does `work` on every part, on all cores; calls `take` with the answers in the order of the parts.
fn in_order<R: Send, T: Send>(
    size: u64,
    block: BlockSize,
    told: Told<'_>,
    open: &(dyn Fn() -> Result<R> + Sync),
    work: &(dyn Fn(&mut R, ByteRange) -> Result<T> + Sync),
    take: &mut dyn FnMut(T) -> Result<()>,
) -> Result<()> {
    let each = PART.max(block.bytes());
    let parts = size.div_ceil(each);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = cores.min(THREADS).min(usize::try_from(parts).unwrap_or(THREADS));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (taken, moved) = (Mutex::new(0u64), Condvar::new());
    let (sender, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            let (next, stop, taken, moved) = (&next, &stop, &taken, &moved);
            scope.spawn(move || {
                let mut reader = open();
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= parts {
                        return;
                    }
                    let mut done = taken.lock().unwrap_or_else(PoisonError::into_inner);
                    while part > *done + AHEAD && !stop.load(Ordering::Relaxed) {
                        done = moved.wait(done).unwrap_or_else(PoisonError::into_inner);
                    }
                    drop(done);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let offset = part * each;
                    let range = ByteRange { offset, len: each.min(size - offset) };
                    let answer = match &mut reader {
                        Ok(reader) => work(reader, range),
                        Err(error) => Err(error.clone()),
                    };
                    if sender.send((part, answer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut collect = || {
            let mut done = 0;
            while done < parts {
                let (part, answer) =
                    answers.recv().map_err(|_| Error::new(Class::Internal, "a reading thread has ended"))?;
                waiting.insert(part, answer);
                while let Some(answer) = waiting.remove(&done) {
                    take(answer?)?;
                    done += 1;
                    told((done * each).min(size), size);
                }
                *taken.lock().unwrap_or_else(PoisonError::into_inner) = done;
                moved.notify_all();
            }
            Ok(())
        };
        let done = collect();
        stop.store(true, Ordering::Relaxed);
        drop(taken.lock());
        moved.notify_all();
        done
    })
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
