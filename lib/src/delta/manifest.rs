//! The bytes of a digest manifest (`mirror-formats(5)`, section MANIFEST).
//!
//! ```text
//!        0                512       4096          + 32 × blocks     + 32 × nodes
//!        ┌────────────────┬─────────┬─────────────┬─────────────────┬─── … ───┬──────┐
//!        │ header         │ zeroes  │ a digest of │ a digest of 128 │         │ root │
//!        │                │         │ each block  │ of these        │         │      │
//!        └────────────────┴─────────┴─────────────┴─────────────────┴─── … ───┴──────┘
//! ```
//!
//! A tree of fan-out 128, its levels from the leaves to the root: it can be written to a stream, and two are
//! compared by looking only at what differs. Every node is the digest of its children, so damage is noticed
//! wherever it is looked at.

use crate::base::{BlockSize, Class, Error, Id, Result, limits};
use crate::device::fields::{
    FEATURES_LEN, check_version, checksum, differs, get_id, get_u64, put_id, put_u32, put_u64,
};
use crate::device::{Features, Output, lock};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a manifest begins with.
pub const MAGIC: [u8; 8] = *b"MIRRDIG\0";
/// The version this program writes and reads. 1: the first.
pub const VERSION: u32 = 1;
/// Bytes of the header that mean something: one sector.
pub const HEADER_LEN: usize = 512;
/// Where the digests begin.
pub const LEAVES_AT: u64 = 4096;
/// Children of a node: their digests fill a page.
pub const FAN_OUT: u64 = 128;
/// Most blocks of a manifest: the digests of one level fit in what a file of [`limits::VOLUME_SIZE`] holds.
pub const BLOCKS: u64 = limits::VOLUME_SIZE / limits::BLOCK_MAX;

const AT_VERSION: usize = 8;
const AT_FLAGS: usize = AT_VERSION + 4;
const AT_FEATURES: usize = AT_FLAGS + 4;
const AT_VOLUME: usize = AT_FEATURES + FEATURES_LEN;
const AT_BLOCK: usize = AT_VOLUME + 16;
const AT_SIZE: usize = AT_BLOCK + 8;
const AT_CHECKSUM: usize = HEADER_LEN - 8;
const _: () = assert!(AT_SIZE == 64 && LEAVES_AT as usize >= HEADER_LEN);

/// A BLAKE3 digest.
pub type Digest = [u8; 32];

/// What a manifest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The volume; none for a device that was named by hand.
    pub volume: Id,
    /// Bytes of a block; the last one may be short.
    pub block: BlockSize,
    /// Bytes of the device.
    pub size: u64,
}

impl ManifestHeader {
    /// Refuses (class `Usage`) an empty device, and more blocks than a manifest has.
    pub fn check(&self, object: &str) -> Result<()> {
        let blocks = self.block.count(self.size);
        if self.size > 0 && self.size <= limits::VOLUME_SIZE && blocks <= BLOCKS {
            return Ok(());
        }
        let (size, block) = (self.size, self.block.bytes());
        let text =
            format!("{object}: checking the geometry: {size} bytes in blocks of {block} are {blocks} blocks");
        Err(Error::new(Class::Usage, format!("{text}, 1 to {BLOCKS} are allowed")))
    }

    /// Digests of each level, from the leaves to the root.
    fn levels(&self) -> Vec<u64> {
        let mut levels = vec![self.block.count(self.size)];
        while levels.last().is_some_and(|len| *len > 1) {
            levels.push(levels[levels.len() - 1].div_ceil(FAN_OUT));
        }
        levels
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..AT_VERSION].copy_from_slice(&MAGIC);
        put_u32(&mut out, AT_VERSION, VERSION);
        Features::default().put(&mut out, AT_FEATURES);
        put_id(&mut out, AT_VOLUME, self.volume);
        put_u64(&mut out, AT_BLOCK, self.block.bytes());
        put_u64(&mut out, AT_SIZE, self.size);
        let sum = checksum(&out[..AT_CHECKSUM]);
        put_u64(&mut out, AT_CHECKSUM, sum);
        out
    }

    /// In the order of trust: magic, version, features, geometry, checksum.
    fn decode(object: &str, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if bytes[..AT_VERSION] != MAGIC {
            let found = bytes[..AT_VERSION].escape_ascii();
            return Err(differs(object, "magic", found, MAGIC.escape_ascii()));
        }
        check_version(object, crate::device::fields::get_u32(bytes, AT_VERSION), VERSION)?;
        Features::get(bytes, AT_FEATURES).check_readable(object, 0)?;
        let block = get_u64(bytes, AT_BLOCK);
        let block = BlockSize::new(block)
            .map_err(|_| differs(object, "block size", block, "a power of two from 4096 to 33554432"))?;
        let header = Self { volume: get_id(bytes, AT_VOLUME), block, size: get_u64(bytes, AT_SIZE) };
        header.check(object).map_err(|e| Error { class: Class::Damaged, ..e })?;
        let (found, expected) = (get_u64(bytes, AT_CHECKSUM), checksum(&bytes[..AT_CHECKSUM]));
        if found != expected {
            return Err(differs(object, "checksum", format!("{found:016x}"), format!("{expected:016x}")));
        }
        Ok(header)
    }
}

/// Writes a manifest: the digests of the blocks in order, then [`TreeWriter::finish`].
pub struct TreeWriter {
    out: Output,
    header: ManifestHeader,
    written: u64,
    /// Children of the node that is being filled.
    group: Vec<u8>,
    nodes: Vec<Digest>,
}

impl TreeWriter {
    /// Begins a manifest.
    pub fn new(header: ManifestHeader, mut out: Output) -> Result<Self> {
        let mut head = [0; LEAVES_AT as usize];
        head[..HEADER_LEN].copy_from_slice(&header.encode());
        out.put(&head)?;
        Ok(Self { out, header, written: 0, group: Vec::new(), nodes: Vec::new() })
    }

    /// The digest of the next block.
    pub fn push(&mut self, digest: &Digest) -> Result<()> {
        self.out.put(digest)?;
        self.written += 1;
        self.group.extend_from_slice(digest);
        if self.group.len() as u64 == 32 * FAN_OUT {
            self.nodes.push(*blake3::hash(&self.group).as_bytes());
            self.group.clear();
        }
        Ok(())
    }

    /// Writes the upper levels. Returns the root.
    pub fn finish(mut self) -> Result<Digest> {
        assert_eq!(self.written, self.header.block.count(self.header.size), "digests of all blocks");
        if self.written == 1 {
            let mut root = [0; 32];
            root.copy_from_slice(&self.group);
            self.out.finish()?;
            return Ok(root);
        }
        if !self.group.is_empty() {
            self.nodes.push(*blake3::hash(&self.group).as_bytes());
        }
        let mut level = self.nodes;
        loop {
            level.iter().try_for_each(|digest| self.out.put(digest))?;
            if let [root] = level[..] {
                self.out.finish()?;
                return Ok(root);
            }
            level = level
                .chunks(FAN_OUT as usize)
                .map(|nodes| *blake3::hash(nodes.as_flattened()).as_bytes())
                .collect();
        }
    }
}

/// An open manifest.
#[derive(Debug)]
pub struct Manifest {
    name: String,
    file: File,
    header: ManifestHeader,
    /// Where each level begins, and its digests.
    levels: Vec<(u64, u64)>,
}

impl Manifest {
    /// Whether a file is meant to be a manifest: it begins like one.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; 8];
        let is_file = std::fs::metadata(path).is_ok_and(|data| data.is_file());
        is_file
            && File::open(path).is_ok_and(|file| file.read_exact_at(&mut magic, 0).is_ok())
            && magic == MAGIC
    }

    /// Opens a manifest. Class `Damaged` if it is not a whole one.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = lock::open_locked(path, false)?;
        let len = file.metadata().map_err(|e| Error::io(&name, "reading its size", e))?.len();
        let short = |expected: u64| differs(&name, "length", len, expected);
        if len < LEAVES_AT {
            return Err(short(LEAVES_AT));
        }
        let mut bytes = [0; HEADER_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(|e| Error::io(&name, "reading its header", e))?;
        let header = ManifestHeader::decode(&name, &bytes)?;
        let mut at = LEAVES_AT;
        let place = |len: u64| {
            let begins = at;
            at += len * 32;
            (begins, len)
        };
        let levels: Vec<_> = header.levels().into_iter().map(place).collect();
        if len != at {
            return Err(short(at));
        }
        Ok(Self { name, file, header, levels })
    }

    /// What it is of.
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest of everything.
    pub fn root(&self) -> Result<Digest> {
        let mut root = [0; 32];
        root.copy_from_slice(&self.read(self.levels.len() - 1, 0..1)?);
        Ok(root)
    }

    /// Digests of one level.
    fn read(&self, level: usize, nodes: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (nodes.end - nodes.start) as usize * 32];
        let at = self.levels[level].0 + nodes.start * 32;
        self.file.read_exact_at(&mut bytes, at).map_err(|e| Error::io(&self.name, "reading it", e))?;
        Ok(bytes)
    }

    /// The children of a node, checked against its digest.
    fn children(&self, level: usize, node: u64, digest: &[u8]) -> Result<(u64, Vec<u8>)> {
        let first = node * FAN_OUT;
        let bytes = self.read(level - 1, first..(first + FAN_OUT).min(self.levels[level - 1].1))?;
        if blake3::hash(&bytes).as_bytes() == digest {
            return Ok((first, bytes));
        }
        let text = format!("{}: checking its tree: node {node} of level {level} does not match", self.name);
        Err(Error::new(Class::Damaged, text))
    }

    /// The digests of some blocks, each group of them checked against its node.
    pub fn leaves(&self, blocks: Range<u64>) -> Result<Vec<Digest>> {
        let mut leaves = Vec::with_capacity((blocks.end - blocks.start) as usize);
        if self.levels.len() == 1 {
            leaves.push(self.root()?);
            return Ok(leaves);
        }
        let mut at = blocks.start;
        while at < blocks.end {
            let node = at / FAN_OUT;
            let (first, children) = self.children(1, node, &self.read(1, node..node + 1)?)?;
            let end = blocks.end.min(first + FAN_OUT);
            let bytes = &children[(at - first) as usize * 32..(end - first) as usize * 32];
            leaves.extend_from_slice(bytes.as_chunks().0);
            at = end;
        }
        Ok(leaves)
    }

    /// Calls `take` with the digest of each block in order, every one checked up to the root.
    pub fn each(&self, take: &mut dyn FnMut(u64, &Digest) -> Result<()>) -> Result<()> {
        let top = self.levels.len() - 1;
        let root = self.root()?;
        self.walk(top, 0, &root, take)
    }

    fn walk(
        &self,
        level: usize,
        node: u64,
        digest: &[u8],
        take: &mut dyn FnMut(u64, &Digest) -> Result<()>,
    ) -> Result<()> {
        if level == 0 {
            let mut leaf = [0; 32];
            leaf.copy_from_slice(digest);
            return take(node, &leaf);
        }
        let (first, children) = self.children(level, node, digest)?;
        (first..)
            .zip(children.chunks_exact(32))
            .try_for_each(|(at, child)| self.walk(level - 1, at, child, take))
    }

    /// Calls `take` with each block whose digests differ. Both are of the same size, in the same blocks; parts of
    /// the trees that are equal are not read.
    pub fn each_difference(&self, other: &Self, take: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        assert_eq!((self.header.size, self.header.block), (other.header.size, other.header.block));
        let top = self.levels.len() - 1;
        self.compare(other, top, 0, &self.root()?, &other.root()?, take)
    }

    fn compare(
        &self,
        other: &Self,
        level: usize,
        node: u64,
        ours: &[u8],
        theirs: &[u8],
        take: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if ours == theirs {
            return Ok(());
        }
        if level == 0 {
            return take(node);
        }
        let (first, ours) = self.children(level, node, ours)?;
        let (_, theirs) = other.children(level, node, theirs)?;
        let pairs = ours.chunks_exact(32).zip(theirs.chunks_exact(32));
        (first..).zip(pairs).try_for_each(|(at, (a, b))| self.compare(other, level - 1, at, a, b, take))
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
