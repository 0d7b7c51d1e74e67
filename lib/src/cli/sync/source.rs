//! Where the marks of `--dirty-only` come from, and where they are taken out again.

use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result};
use crate::cli::ask::REPLY;
use crate::cli::dirtymap::{Named, fetch_context, open_map};
use crate::control::{StateDir, Taken};
use crate::leg::dial::Dial;
use crate::map::format::Identity;
use crate::map::{BlockSet, HeldMap, Source as _, stream};
use std::fmt;
use std::str::FromStr;

/// The context that is asked for where none is named: what holds data.
const CONTEXT: &str = "base:allocation";

/// The name of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapName {
    /// A file, standard input, or a map of a running mirrord.
    Named(Named),
    /// What a context of an NBD server says.
    Context {
        /// The export.
        uri: String,
        /// The context.
        context: String,
    },
}

impl FromStr for MapName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://"].iter().any(|scheme| text.starts_with(scheme))
        {
            let (uri, context) = text.split_once('#').unwrap_or((text, CONTEXT));
            uri.parse::<crate::nbd::uri::NbdUri>()?;
            return Ok(Self::Context { uri: uri.to_owned(), context: context.to_owned() });
        }
        text.parse().map(Self::Named)
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(named) => named.fmt(f),
            Self::Context { uri, context } => write!(f, "{uri}#{context}"),
        }
    }
}

/// Marks for one run.
#[derive(Debug)]
pub struct Marks {
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes of a block.
    pub block: BlockSize,
    /// The blocks that are marked.
    pub blocks: BlockSet,
    /// Something that a person should know.
    pub note: Option<String>,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    /// Marks are taken out of a file.
    File(Box<HeldMap>),
    /// Its mirrord is told what is done; what it is not told goes back into the tracker.
    Tracker(Box<Taken>),
    /// They stay: it was asked for, or nothing can be taken out.
    Nobody,
}

impl Marks {
    /// Opens a map; from here on marks that somebody else makes are not lost. With `keep`, or where marks cannot
    /// be taken out, they stay.
    pub fn open(name: &MapName, keep: bool, dial: &Dial) -> Result<Self> {
        match name {
            MapName::Named(Named::Path(path)) if !keep => {
                let held = HeldMap::open(path)?;
                let identity = held.header().identity;
                let note = (!held.is_believed()).then(|| {
                    format!("{name}: it was in use when the machine went down: every block counts as dirty")
                });
                let blocks = held.marks().clone();
                let keeper = Keeper::File(Box::new(held));
                Ok(Self { size: identity.size, block: identity.block, blocks, note, keeper })
            }
            MapName::Named(Named::Tracker { volume, tracker }) if !keep => {
                let volume = StateDir::from_environment()?.volume(volume);
                let mut taken = Taken::take(&volume, tracker, REPLY)?;
                let marks = taken.marks()?;
                let blocks = BlockSet::from_words(marks.words, marks.block.count(marks.size));
                let keeper = Keeper::Tracker(Box::new(taken));
                Ok(Self { size: marks.size, block: marks.block, blocks, note: None, keeper })
            }
            MapName::Named(named) => {
                let mut source = open_map(named)?;
                Self::read(&mut source)
            }
            MapName::Context { uri, context } => {
                let (volume, leg, block) = (Id::NONE, Id::NONE, BlockSize::DEFAULT);
                let mut source =
                    fetch_context(uri, context, dial, |size| Identity { volume, leg, size, block })?;
                Self::read(&mut source)
            }
        }
    }

    fn read(source: &mut crate::map::ops::Boxed) -> Result<Self> {
        let Identity { size, block, .. } = source.header().identity;
        Ok(Self { size, block, blocks: stream::load(source)?, note: None, keeper: Keeper::Nobody })
    }

    /// Refuses a map that is not one of the source.
    pub fn check(&self, name: &MapName, source: &str, size: u64) -> Result<()> {
        if self.size == size {
            return Ok(());
        }
        let text = format!("{name}: checking its size: it is of {} bytes, {source} has {size}", self.size);
        Err(Error::new(Class::Damaged, text))
    }

    /// Takes out the marks of blocks that lie in `ranges` as a whole, which the target holds durably.
    pub fn settle(&mut self, ranges: &[ByteRange]) -> Result<()> {
        match &mut self.keeper {
            Keeper::Nobody => Ok(()),
            Keeper::File(held) => {
                let (size, block) = (self.size, self.block);
                let blocks: Vec<_> = ranges.iter().map(|range| inside(block, range, size)).collect();
                held.clear(&blocks)
            }
            Keeper::Tracker(taken) => taken.copied(ranges),
        }
    }

    /// The run is over. Of a tracker that was emptied, everything is confirmed (`all`); otherwise what was not
    /// settled goes back, which happens by itself if it cannot be said.
    pub fn finish(self, all: bool) -> Result<()> {
        match self.keeper {
            Keeper::Tracker(taken) if all => taken.confirm(),
            Keeper::Tracker(taken) => taken.give_back(),
            Keeper::File(_) | Keeper::Nobody => Ok(()),
        }
    }
}

/// The blocks that lie in a range as a whole: never rounds outwards.
fn inside(block: BlockSize, range: &ByteRange, size: u64) -> std::ops::Range<u64> {
    let start = block.count(range.offset);
    let end = if range.end() == size { block.count(size) } else { block.index(range.end()) };
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_named_by_path_or_context() {
        let named = |text: &str| text.parse::<MapName>().expect(text).to_string();
        assert_eq!(named("/a.map"), "/a.map");
        assert_eq!(named("-"), "standard input");
        assert_eq!(named("nbd://h/v"), "nbd://h/v#base:allocation");
        let qemu = "nbd+unix:///v?socket=/s#qemu:dirty-bitmap:day";
        assert_eq!(named(qemu), qemu);
        assert!("nbd://-h/v".parse::<MapName>().is_err());
    }

    #[test]
    fn a_block_that_was_not_copied_as_a_whole_keeps_its_mark() {
        let block = BlockSize::new(4096).expect("block");
        let of = |offset, len| inside(block, &ByteRange { offset, len }, 10_000);
        assert_eq!(of(0, 4096), 0..1);
        assert_eq!(of(1, 8191), 1..2);
        assert_eq!(of(1, 100), 1..1);
        assert_eq!(of(8192, 1808), 2..3);
        assert_eq!(of(8192, 1807), 2..2);
    }
}
