//! When the bits of a map file may be believed, and the order of syncs that makes it so.
//!
//! The procedures work on any [`SlotStore`], so that crash tests run them over one whose power fails. A sync of
//! the store covers the header and the bits alike: the mapping's stores are in the page cache of the same file.

use super::format::{Durability, HEADER_LEN, Header};
use crate::base::Id;
use crate::device::SlotStore;
use std::fmt;
use std::io;

/// What the record says about the leg and volume; a map that disagrees is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The volume of the record.
    pub volume: Id,
    /// The leg whose map this is.
    pub leg: Id,
    /// The record's current generation.
    pub generation: Id,
    /// The running boot ([`crate::device::boot_id`]).
    pub boot: Id,
    /// How durable marks will be from now on. What they were is in the header.
    pub durability: Durability,
}

/// Whether the bits of a map count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// They do.
    Believed,
    /// They do not: every block counts as dirty.
    NotBelieved(Doubt),
}

/// Why the bits of a map do not count. The values found are the header's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The map of another volume.
    Volume {
        /// In the header.
        found: Id,
        /// In the record.
        expected: Id,
    },
    /// The map of another leg.
    Leg {
        /// In the header.
        found: Id,
        /// In the record.
        expected: Id,
    },
    /// Relative to another generation.
    Generation {
        /// In the header.
        found: Id,
        /// In the header, of a relabelling that was not finished.
        next: Id,
        /// In the record.
        expected: Id,
    },
    /// In use when the machine went down, with marks in the page cache only.
    NotClosed,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume { found, expected } => {
                write!(f, "it is of volume {found}, the record is of {expected}")
            }
            Self::Leg { found, expected } => write!(f, "it is of leg {found}, the record is of {expected}"),
            Self::Generation { found, next, expected } if next.is_none() => {
                write!(f, "it is of generation {found}, the record is of {expected}")
            }
            Self::Generation { found, next, expected } => {
                write!(f, "it is of generation {found} or {next}, the record is of {expected}")
            }
            Self::NotClosed => f.write_str("it was in use when the machine went down"),
        }
    }
}

/// The rule: a map is believed only if volume, leg and generation match the record (the generation, or the next
/// one of an unfinished relabelling), and
/// (a) it was closed cleanly, or
/// (b) it was last used in this boot, so that the page cache has every mark, or
/// (c) it was used with durability `power`, so that the disk has every mark.
///
/// The durability that counts is the header's: how the marks *were* made, not how they will be.
pub fn verify(header: &Header, expect: &Expect) -> Belief {
    let Header { identity, generation, next, .. } = header;
    let doubt = if identity.volume != expect.volume {
        Doubt::Volume { found: identity.volume, expected: expect.volume }
    } else if identity.leg != expect.leg {
        Doubt::Leg { found: identity.leg, expected: expect.leg }
    } else if *generation != expect.generation && (next.is_none() || *next != expect.generation) {
        Doubt::Generation { found: *generation, next: *next, expected: expect.generation }
    } else if header.clean
        || (header.boot == expect.boot && !expect.boot.is_none())
        || header.durability == Durability::Power
    {
        return Belief::Believed;
    } else {
        Doubt::NotClosed
    };
    Belief::NotBelieved(doubt)
}

/// Begins the use of a map, before the first write to the leg, whatever the durability. The caller has set every
/// bit before if the map was not believed.
///
/// 1. The bits are synced.
/// 2. The header is written: not clean, this boot, this durability, the record's generation, no next one.
/// 3. It is synced. Now marks may be made.
///
/// Recovery: (a) before 3 the header is the old one or the new one. The old one: the map was believed and no
/// block was written, or it was not believed and is not now. (b) The new one: the bits are those of step 1, on
/// the disk.
pub fn begin_use<S: SlotStore>(store: &S, header: &mut Header, expect: &Expect) -> io::Result<()> {
    store.sync()?;
    let new = Header {
        clean: false,
        boot: expect.boot,
        durability: expect.durability,
        generation: expect.generation,
        next: Id::NONE,
        ..header.clone()
    };
    put(store, header, new)
}

/// Ends the use of a map, after the last mark.
///
/// 1. The bits are synced.
/// 2. The header is written: clean.
/// 3. It is synced.
///
/// Recovery: a crash before 3 leaves the map clean, with all its bits, or not closed.
pub fn close_clean<S: SlotStore>(store: &S, header: &mut Header) -> io::Result<()> {
    store.sync()?;
    let new = Header { clean: true, ..header.clone() };
    put(store, header, new)
}

/// Prepares the map for a record that is about to change its generation from `current` to `next`.
///
/// 1. The header names `next` beside `current`, synced.
/// 2. The caller writes the record.
/// 3. [`finish_relabel`]: the header names the new generation only, synced.
///
/// Recovery: at every point the header names the generation that the record has, before or after; a map left
/// between 1 and 3 is believed with either, and [`begin_use`] tidies it.
pub fn prepare_relabel<S: SlotStore>(
    store: &S,
    header: &mut Header,
    current: Id,
    next: Id,
) -> io::Result<()> {
    let new = Header { generation: current, next, ..header.clone() };
    put(store, header, new)
}

/// Step 3 of [`prepare_relabel`]: `current` is now the record's generation.
pub fn finish_relabel<S: SlotStore>(store: &S, header: &mut Header, current: Id) -> io::Result<()> {
    prepare_relabel(store, header, current, Id::NONE)
}

/// The last step of growing: the bits, which are those of the new size already, are synced, then the header.
pub fn finish_grow<S: SlotStore>(store: &S, header: &mut Header, size: u64) -> io::Result<()> {
    store.sync()?;
    let mut new = header.clone();
    new.identity.size = size;
    put(store, header, new)
}

/// Writes and syncs a header; the one in memory changes only if that succeeded.
fn put<S: SlotStore>(store: &S, header: &mut Header, new: Header) -> io::Result<()> {
    let bytes: [u8; HEADER_LEN] = new.encode();
    store.write_at(0, &bytes)?;
    store.sync()?;
    *header = new;
    Ok(())
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
