//! One line of a log. Records join: order and repetition do not matter.

use super::ObjectId;
use super::meta::Kind;
use super::pack::{Pack, Unpack};
use crate::base::{Result, limits};
use std::fmt;
use std::ops::Range;

/// Why a log has lost something: a scan is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The queue of events overflowed.
    Overflow = 1,
    /// Changes were made while nobody recorded.
    Gap = 2,
    /// The end of the log was not written whole.
    Torn = 3,
    /// The recorder ended without closing its generation.
    NotClosed = 4,
    /// A call could not be followed to what it changes.
    Unseen = 5,
}

impl Lost {
    fn from_u8(number: u8) -> Option<Self> {
        let all = [Self::Overflow, Self::Gap, Self::Torn, Self::NotClosed, Self::Unseen];
        all.into_iter().find(|why| *why as u8 == number)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "the queue of events overflowed",
            Self::Gap => "nobody recorded for a while",
            Self::Torn => "the end of the log is torn",
            Self::NotClosed => "the recorder did not close its generation",
            Self::Unseen => "a system call could not be followed",
        })
    }
}

/// Identity of an object, as the recorder saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// What it is.
    pub kind: Kind,
    /// File handle: inode and generation.
    pub handle: Vec<u8>,
    /// A path it was seen at; for people only.
    pub hint: Vec<u8>,
}

/// A shared writable mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// First byte and end.
    pub range: (u64, u64),
    /// Tells mappings of the same range apart.
    pub serial: u64,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A generation begins.
    Open {
        /// Its number.
        generation: u64,
    },
    /// All changes up to here are in the log.
    Barrier {
        /// The number of the generation.
        generation: u64,
    },
    /// A generation ends; nothing of it is missing.
    Close {
        /// Its number.
        generation: u64,
    },
    /// Who an object is.
    Ino {
        /// The object.
        id: ObjectId,
        /// Who it is.
        identity: Identity,
    },
    /// Look at this name again.
    Name {
        /// The directory.
        dir: ObjectId,
        /// The entry.
        name: Vec<u8>,
    },
    /// Bytes possibly written.
    Data {
        /// The file.
        id: ObjectId,
        /// First byte and end.
        range: Range<u64>,
    },
    /// Everything from here on may be different.
    Limit {
        /// The file.
        id: ObjectId,
        /// The smallest size or shift point seen.
        at: u64,
    },
    /// Everything may be different.
    All {
        /// The file.
        id: ObjectId,
        /// Why, for people: a bit for each reason.
        why: u32,
    },
    /// A shared writable mapping.
    Map {
        /// The file.
        id: ObjectId,
        /// What is mapped.
        mapping: Mapping,
        /// Whether it is still mapped, and so goes on into the next generation.
        live: bool,
    },
    /// Metadata changed.
    Meta {
        /// The object.
        id: ObjectId,
        /// What ([`super::meta::differs`]).
        mask: u32,
    },
    /// Scan a subtree.
    Tree {
        /// Its directory.
        dir: ObjectId,
    },
    /// Scan everything.
    Lost {
        /// Why.
        why: Lost,
    },
}

impl Record {
    /// Its kind, and its fields packed.
    pub fn pack(&self) -> (u8, Pack) {
        let mut to = Pack::default();
        let kind = match self {
            Self::Open { generation } => to.u64(*generation).kind(1),
            Self::Barrier { generation } => to.u64(*generation).kind(2),
            Self::Close { generation } => to.u64(*generation).kind(3),
            Self::Ino { id, identity: Identity { kind, handle, hint } } => {
                to.u64(id.0).u8(*kind as u8).string(handle).string(hint).kind(4)
            }
            Self::Name { dir, name } => to.u64(dir.0).string(name).kind(5),
            Self::Data { id, range } => to.u64(id.0).u64(range.start).u64(range.end).kind(6),
            Self::Limit { id, at } => to.u64(id.0).u64(*at).kind(7),
            Self::All { id, why } => to.u64(id.0).u32(*why).kind(8),
            Self::Map { id, mapping: Mapping { range, serial }, live } => {
                to.u64(id.0).u64(range.0).u64(range.1).u64(*serial).u8(u8::from(*live)).kind(9)
            }
            Self::Meta { id, mask } => to.u64(id.0).u32(*mask).kind(10),
            Self::Tree { dir } => to.u64(dir.0).kind(11),
            Self::Lost { why } => to.u8(*why as u8).kind(12),
        };
        (kind, to)
    }

    /// Reads it back.
    pub fn unpack(object: &str, kind: u8, payload: &[u8]) -> Result<Self> {
        let mut from = Unpack::new(object, payload);
        let id = |from: &mut Unpack<'_>| from.u64().map(ObjectId);
        let record = match kind {
            1 => Self::Open { generation: from.u64()? },
            2 => Self::Barrier { generation: from.u64()? },
            3 => Self::Close { generation: from.u64()? },
            4 => {
                let (id, number) = (id(&mut from)?, from.u8()?);
                let kind = Kind::from_u8(number).ok_or_else(|| from.damaged("an object of no kind"))?;
                let handle = from.string(limits::FILE_HANDLE)?.to_vec();
                let hint = from.string(limits::FSLOG_FRAME)?.to_vec();
                Self::Ino { id, identity: Identity { kind, handle, hint } }
            }
            5 => Self::Name { dir: id(&mut from)?, name: from.string(limits::FILE_NAME)?.to_vec() },
            6 => Self::Data { id: id(&mut from)?, range: from.range()? },
            7 => Self::Limit { id: id(&mut from)?, at: from.u64()? },
            8 => Self::All { id: id(&mut from)?, why: from.u32()? },
            9 => {
                let (id, range) = (id(&mut from)?, from.range()?);
                let mapping = Mapping { range: (range.start, range.end), serial: from.u64()? };
                Self::Map { id, mapping, live: from.u8()? != 0 }
            }
            10 => Self::Meta { id: id(&mut from)?, mask: from.u32()? },
            11 => Self::Tree { dir: id(&mut from)? },
            12 => {
                let why = from.u8()?;
                Self::Lost { why: Lost::from_u8(why).ok_or_else(|| from.damaged("lost for no reason"))? }
            }
            _ => return Err(from.damaged(&format!("a record of kind {kind}"))),
        };
        from.end()?;
        Ok(record)
    }
}

impl Pack {
    #[allow(clippy::unused_self)] // it ends a chain
    /// Ends a chain of fields with the kind of the frame that they are of.
    const fn kind(&mut self, kind: u8) -> u8 {
        kind
    }
}
