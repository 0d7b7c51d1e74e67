//! What a target held after the last run, block by block, so that it need not be read (`--digest FILE`).
//!
//! The manifest is believed only if no run has begun to write since it was made:
//!
//! 1. Before the first write, FILE is renamed to `FILE.open`, and the directory is synced.
//! 2. The run writes, flushes and settles.
//! 3. A new manifest is written to FILE, whole, synced (as every result): of what is settled the new digests, of
//!    what was never touched the old ones, of everything else a digest that nothing has.
//! 4. `FILE.open` is removed.
//!
//! Recovery: (a) before 1 nothing was written; (b) from 1 to 3 there is no FILE: the next run reads the target as
//! the first one did; (c) after 3 FILE is right, and a left-over `FILE.open` is removed by the next run.

use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result};
use crate::delta::manifest::{Digest, Manifest, ManifestHeader, TreeWriter};
use crate::device::{Output, durable};
use crate::map::BlockSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The digest of what is not known: no block has it.
const UNKNOWN: Digest = [0xff; 32];
/// Digests copied at a time.
const BATCH: u64 = 1 << 14;

/// What the target held, and what it holds now.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    old: Option<Manifest>,
    header: ManifestHeader,
    /// New digests, each in its place; a file without a name.
    learned: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    touched: BlockSet,
    settled: BlockSet,
}

impl Memory {
    /// Opens what is remembered of a target of `size` bytes. Without FILE, or after a run that did not end,
    /// nothing is. Classes: `Damaged` if it is no manifest, or of another size.
    pub fn open(path: &Path, size: u64, block: Option<BlockSize>) -> Result<Self> {
        let name = path.display().to_string();
        let old = if path.exists() { Some(Manifest::open(path)?) } else { None };
        if let Some(is) = old.as_ref().map(|old| old.header().size).filter(|is| *is != size) {
            let text = format!("{name}: checking its size: it is of {is} bytes, the source has {size}");
            return Err(Error::new(Class::Damaged, text));
        }
        let block = old.as_ref().map(|old| old.header().block).or(block).unwrap_or(BlockSize::DEFAULT);
        let volume = old.as_ref().map_or(Id::NONE, |old| old.header().volume);
        let header = ManifestHeader { volume, block, size };
        header.check(&name)?;
        let learned = unnamed(path)?;
        let blocks = block.count(size);
        let state = State { touched: BlockSet::new(blocks), settled: BlockSet::new(blocks) };
        Ok(Self { path: path.to_owned(), old, header, learned, state: Mutex::new(state) })
    }

    /// Whether anything is remembered: otherwise the target is read.
    pub fn is_known(&self) -> bool {
        self.old.is_some()
    }

    /// The blocks that it has digests of.
    pub fn block(&self) -> BlockSize {
        self.header.block
    }

    fn open_name(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".open");
        name.into()
    }

    /// Step 1, before the first write.
    pub fn begin(&self) -> Result<()> {
        if self.old.is_none() {
            return Ok(());
        }
        let fail = |e| Error::io(self.path.display(), "setting it aside", e);
        std::fs::rename(&self.path, self.open_name()).map_err(fail)?;
        durable::sync_dir(directory(&self.path))
    }

    /// Digests of the blocks of `range`, and for each whether it differs from what is remembered.
    pub fn compare(&self, range: ByteRange, data: &[u8]) -> Result<(Vec<Digest>, Vec<bool>)> {
        let block = self.header.block;
        let digests: Vec<Digest> =
            data.chunks(block.bytes() as usize).map(|block| *blake3::hash(block).as_bytes()).collect();
        let Some(old) = &self.old else {
            let all = vec![true; digests.len()];
            return Ok((digests, all));
        };
        let leaves = old.leaves(block.cover(&range))?;
        let differ = digests.iter().zip(&leaves).map(|(new, old)| new != old).collect();
        Ok((digests, differ))
    }

    /// The target is about to hold blocks with these digests.
    pub fn learn(&self, range: ByteRange, digests: &[Digest]) -> Result<()> {
        let blocks = self.header.block.cover(&range);
        self.learned
            .write_all_at(digests.as_flattened(), blocks.start * 32)
            .map_err(|e| Error::io(self.path.display(), "remembering digests", e))?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).touched.insert_range(blocks);
        Ok(())
    }

    /// These ranges are durable on the target.
    pub fn settle(&self, ranges: &[ByteRange]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            let blocks = self.header.block.cover(range);
            state.settled.insert_range(blocks);
        }
    }

    /// Steps 3 and 4.
    pub fn finish(self) -> Result<()> {
        let aside = self.open_name();
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let out = Output::file(&self.path, true)?;
        let mut tree = TreeWriter::new(self.header, out)?;
        let blocks = self.header.block.count(self.header.size);
        let mut at = 0;
        while at < blocks {
            let end = (at + BATCH).min(blocks);
            let mut new = vec![0; (end - at) as usize * 32];
            // What was never learned lies past the end, or in a hole.
            let have = self.learned.metadata().map_or(0, |data| data.len());
            let there = (have.saturating_sub(at * 32)).min(new.len() as u64) as usize;
            let read = self.learned.read_exact_at(&mut new[..there], at * 32);
            read.map_err(|e| Error::io(self.path.display(), "reading digests back", e))?;
            let old = self.old.as_ref().map(|old| old.leaves(at..end)).transpose()?;
            for (index, new) in (at..end).zip(new.as_chunks::<32>().0) {
                let untouched = old.as_ref().filter(|_| !state.touched.contains(index));
                let digest = match untouched {
                    _ if state.settled.contains(index) && state.touched.contains(index) => *new,
                    Some(old) => old[(index - at) as usize],
                    None => UNKNOWN,
                };
                tree.push(&digest)?;
            }
            at = end;
        }
        tree.finish()?;
        match std::fs::remove_file(&aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(aside.display(), "removing it", e))
            }
            _ => Ok(()),
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A file beside `path` that has no name any more, so that nothing is left of it whatever happens.
fn unnamed(path: &Path) -> Result<File> {
    let name = directory(path).join(format!(".mirror-sync-{}.tmp", Id::random()?));
    let fail = |e| Error::io(name.display(), "creating it", e);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&name).map_err(fail)?;
    std::fs::remove_file(&name).map_err(fail)?;
    Ok(file)
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
