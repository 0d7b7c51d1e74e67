//! Floor 2: what changed in a tree of files, as bytes.
//!
//! - [`State`] is a log folded up: it joins, and neither order nor repetition matters ([`state`]).
//! - [`Record`] is one line of a log; a log file is a header and records ([`logfile`]).
//! - [`Index`] is a tree at one moment, with the Merkle root of what makes it identical to another ([`index`]).
//! - [`Part`] is one piece of a dump, the stream that takes a tree from one index to the next ([`dump`]).
//! - [`sent`] reads what `btrfs send` says of two snapshots; [`command`] is one command of it in full, and a
//!   [`Patchwork`] the bytes of a file that is made of such.
//!
//! All of them share one header and one frame ([`frame`]); the bytes are in mirror-formats(5).

pub mod command;
pub mod content;
pub mod derive;
pub mod dump;
pub mod frame;
pub mod index;
pub mod listing;
pub mod logfile;
pub mod merkle;
pub mod meta;
pub mod pack;
pub mod patchwork;
pub mod ranges;
pub mod record;
pub mod sent;
pub mod state;

pub use content::Content;
pub use derive::Operation;
pub use dump::Part;
pub use frame::{FrameReader, FrameWriter, Header, Magic, Round};
pub use index::{Index, Object, Stamp};
pub use meta::{Kind, Meta, Time, Xattrs};
pub use patchwork::Patchwork;
pub use ranges::Ranges;
pub use record::Record;
pub use state::State;

use std::fmt;

/// The digest of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object of a tree (a file, a directory, a link, …) whatever its names: a number that the source gives and
/// every standby keeps. The root of a tree is [`ObjectId::ROOT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The directory that everything is beneath.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A path or name for a person: control characters and bytes that are not UTF-8 are escaped.
pub fn show_path(path: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            shown.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    shown
}
