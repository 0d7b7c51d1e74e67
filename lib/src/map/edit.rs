//! Changes of a map file that nobody has in use, in place.

use super::file::read_header;
use super::format::{BITS_AT, Header, KNOWN_RO_COMPAT};
use super::stream::{CHUNK, clear_bits, set_bits};
use crate::base::{ByteRange, Class, Error, Result};
use crate::device::lock::open_locked;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is done to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Every block that it touches becomes dirty.
    Set,
    /// Every block that lies in it as a whole becomes clean.
    Clear,
}

/// The blocks of a map that a mark of `range` changes: setting rounds outwards, clearing inwards, so that no
/// dirty byte is ever lost. Class `Usage` if the range reaches past the map.
pub fn blocks_of(object: &str, header: &Header, mark: Mark, range: &ByteRange) -> Result<Range<u64>> {
    let (size, block) = (header.identity.size, header.identity.block);
    if range.end() > size {
        let text = format!("{object}: marking {range}: it ends at {}, the map at {size}", range.end());
        return Err(Error::new(Class::Usage, text));
    }
    Ok(match mark {
        Mark::Set => block.cover(range),
        Mark::Clear => block.within(range, size),
    })
}

/// Marks ranges of a map file and syncs it. The header stays as it is: a map that is not believed is not
/// believed afterwards. Classes: `Busy` if somebody has it in use, `Refused` for clearing blocks of a leg's map
/// or of one that was not closed, unless `leg` says that a person has decided it.
///
/// 1. All ranges are checked.
/// 2. The bits are written, a word of 64 blocks whole or not at all.
/// 3. The file is synced.
///
/// Recovery: a crash before 3 leaves a part of the marks made; the same command makes them again.
pub fn mark(path: &Path, mark: Mark, ranges: &[ByteRange], leg: bool) -> Result<()> {
    let object = path.display().to_string();
    let file = open_locked(path, true)?;
    let header = read_header(&file, &object)?;
    header.features.check_writable(&object, KNOWN_RO_COMPAT)?;
    if mark == Mark::Clear && !leg {
        may_clear(&object, &header)?;
    }
    let blocks: Result<Vec<_>> =
        ranges.iter().map(|range| blocks_of(&object, &header, mark, range)).collect();
    let fail = |e| Error::io(&object, "changing it", e);
    let mut bytes = Vec::new();
    for run in blocks?.into_iter().filter(|run| !run.is_empty()) {
        let mut at = run.start / 64;
        while at * 64 < run.end {
            let here = (run.end.div_ceil(64) - at).min(CHUNK as u64);
            bytes.resize(here as usize * 8, 0);
            file.read_exact_at(&mut bytes, BITS_AT + at * 8).map_err(fail)?;
            let mut words: Vec<u64> = bytes.chunks_exact(8).map(word_of).collect();
            let inside = run.start.max(at * 64) - at * 64..run.end.min((at + here) * 64) - at * 64;
            match mark {
                Mark::Set => set_bits(&mut words, inside),
                Mark::Clear => clear_bits(&mut words, inside),
            }
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(&words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            file.write_all_at(&bytes, BITS_AT + at * 8).map_err(fail)?;
            at += here;
        }
    }
    file.sync_data().map_err(fail)
}

/// Refuses to take marks out of a map that a volume goes by.
pub fn may_clear(object: &str, header: &Header) -> Result<()> {
    if header.identity.leg.is_none() && header.clean {
        return Ok(());
    }
    let leg = header.identity.leg;
    let text =
        format!("{object}: clearing marks: it is the map of leg {leg}, whose missing blocks would be lost");
    Err(Error::new(Class::Refused, text).hint("the same with --force=leg"))
}

fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
