//! The stream of `btrfs send`, as far as it says what changed: names, ranges, metadata. Data in it is passed over.
//!
//! ```text
//! stream   magic (13)  version (4)  command…
//! command  length of what follows the head (4)  number (2)  crc32c (4, not inverted, with itself as zero)  attribute…
//! attribute  number (2)  length (2)  value; from version 2 on the data of a write has no length: it is the rest
//! ```
//!
//! All of it little-endian. Nothing of it is believed but what has its checksum; no length is. The crate
//! `btrfs-stream` reads it too, but takes paths that are not UTF-8 for others, and any length of a command.

use super::meta::{Kind, differs};
use crate::base::{Class, Error, Result, limits};
use crate::device::fields::{get_u32, get_u64};
use std::io::{ErrorKind, Read};
use std::ops::Range;

const MAGIC: &[u8; 13] = b"btrfs-stream\0";
const HEAD: usize = 10;
/// The version that the kernel sends if none is asked for, and the last one that is known.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

/// Numbers of commands (`enum btrfs_send_cmd`).
mod command {
    pub const SUBVOL: u16 = 1;
    pub const SNAPSHOT: u16 = 2;
    pub const MKFILE: u16 = 3;
    pub const MKDIR: u16 = 4;
    pub const MKNOD: u16 = 5;
    pub const MKFIFO: u16 = 6;
    pub const MKSOCK: u16 = 7;
    pub const SYMLINK: u16 = 8;
    pub const RENAME: u16 = 9;
    pub const LINK: u16 = 10;
    pub const UNLINK: u16 = 11;
    pub const RMDIR: u16 = 12;
    pub const SET_XATTR: u16 = 13;
    pub const REMOVE_XATTR: u16 = 14;
    pub const WRITE: u16 = 15;
    pub const CLONE: u16 = 16;
    pub const TRUNCATE: u16 = 17;
    pub const CHMOD: u16 = 18;
    pub const CHOWN: u16 = 19;
    pub const UTIMES: u16 = 20;
    pub const END: u16 = 21;
    pub const UPDATE_EXTENT: u16 = 22;
    pub const FALLOCATE: u16 = 23;
    pub const FILEATTR: u16 = 24;
    pub const ENCODED_WRITE: u16 = 25;
    pub const ENABLE_VERITY: u16 = 26;
}

/// Numbers of attributes (`BTRFS_SEND_A_*`).
mod attribute {
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const PATH: u16 = 15;
    pub const PATH_TO: u16 = 16;
    pub const PATH_LINK: u16 = 17;
    pub const FILE_OFFSET: u16 = 18;
    pub const DATA: u16 = 19;
    pub const CLONE_LEN: u16 = 24;
    pub const UNENCODED_FILE_LEN: u16 = 28;
    pub const LAST: u16 = 35;
}

/// What one command says. Paths are those at this point of the stream, beneath the root of the subvolume, which is
/// the empty path; no component is empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // of the fields: each is what its variant says
pub enum Change {
    /// It is about a subvolume, or a snapshot that begins where another one is.
    Begin { path: Vec<u8>, parent: bool },
    /// A new object; what its mode says is only known of device nodes.
    Make { path: Vec<u8>, kind: Kind },
    /// Another name in place of this one.
    Rename { from: Vec<u8>, to: Vec<u8> },
    /// One more name.
    Link { path: Vec<u8>, of: Vec<u8> },
    /// One name less.
    Unlink { path: Vec<u8> },
    /// Bytes were written, or are a hole now.
    Data { path: Vec<u8>, range: Range<u64> },
    /// The size in the end.
    Truncate { path: Vec<u8>, size: u64 },
    /// Metadata ([`differs`]).
    Meta { path: Vec<u8>, mask: u32 },
    /// That was all.
    End,
}

/// Reads a stream, command by command.
#[derive(Debug)]
pub struct Sent<R> {
    object: String,
    from: R,
    version: u32,
    ended: bool,
    buffer: Vec<u8>,
}

/// The checksum of a command: that of the kernel, which inverts neither the beginning nor the end.
pub fn checksum(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!0, bytes)
}

fn damaged(object: &str, what: &str) -> Error {
    Error::new(Class::Damaged, format!("{object}: reading the stream of btrfs send: {what}"))
}

impl<R: Read> Sent<R> {
    /// Reads the beginning of a stream, which is `object` in messages.
    pub fn new(object: &str, mut from: R) -> Result<Self> {
        let mut head = [0; MAGIC.len() + 4];
        fill(object, &mut from, &mut head)?;
        let version = get_u32(&head, MAGIC.len());
        if &head[..MAGIC.len()] != MAGIC {
            return Err(damaged(object, "it is none"));
        }
        if !VERSIONS.contains(&version) {
            return Err(damaged(object, &format!("it has version {version}; known are 1 to 3")));
        }
        Ok(Self { object: object.to_owned(), from, version, ended: false, buffer: Vec::new() })
    }

    /// The next command; `None` after the last one, whatever follows. Errors: class `Damaged` for what cannot be
    /// believed, and for a stream that ends before its end.
    pub fn next_change(&mut self) -> Result<Option<Change>> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        fill(&self.object, &mut self.from, &mut head)?;
        let (len, number, sum) =
            (get_u32(&head, 0) as usize, u16::from_le_bytes([head[4], head[5]]), get_u32(&head, 6));
        if len > limits::SENT_COMMAND {
            return Err(damaged(&self.object, &format!("a command of {len} bytes")));
        }
        head[6..].fill(0);
        self.buffer.clear();
        self.buffer.extend_from_slice(&head);
        self.buffer.resize(HEAD + len, 0);
        fill(&self.object, &mut self.from, &mut self.buffer[HEAD..])?;
        if checksum(&self.buffer) != sum {
            return Err(damaged(&self.object, &format!("a command of kind {number} has another checksum")));
        }
        let change = change(number, &self.buffer[HEAD..], self.version)
            .map_err(|what| damaged(&self.object, &format!("a command of kind {number}: {what}")))?;
        self.ended = change == Change::End;
        Ok(Some(change))
    }
}

fn fill(object: &str, from: &mut impl Read, to: &mut [u8]) -> Result<()> {
    from.read_exact(to).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => damaged(object, "it ends early"),
        _ => Error::io(object, "reading the stream of btrfs send", e),
    })
}

/// The attributes of a command, by their numbers.
struct Attributes<'a>([Option<&'a [u8]>; attribute::LAST as usize + 1]);

impl<'a> Attributes<'a> {
    fn parse(mut bytes: &'a [u8], version: u32) -> Result<Self, &'static str> {
        let mut all = [None; attribute::LAST as usize + 1];
        while !bytes.is_empty() {
            let (number, rest) = bytes.split_first_chunk().ok_or("an attribute that ends early")?;
            let number = u16::from_le_bytes(*number);
            let (len, rest) = if version >= 2 && number == attribute::DATA {
                (rest.len(), rest)
            } else {
                let (len, rest) = rest.split_first_chunk().ok_or("an attribute that ends early")?;
                (usize::from(u16::from_le_bytes(*len)), rest)
            };
            let value = rest.get(..len).ok_or("an attribute that ends early")?;
            let place = all.get_mut(usize::from(number)).ok_or("an attribute that is not known")?;
            if place.replace(value).is_some() {
                return Err("an attribute twice");
            }
            bytes = &rest[len..];
        }
        Ok(Self(all))
    }

    fn bytes(&self, number: u16) -> Result<&'a [u8], &'static str> {
        self.0[usize::from(number)].ok_or("an attribute is missing")
    }

    fn u64(&self, number: u16) -> Result<u64, &'static str> {
        let bytes = self.bytes(number)?;
        if bytes.len() == 8 { Ok(get_u64(bytes, 0)) } else { Err("a number of another length") }
    }

    fn path(&self, number: u16) -> Result<Vec<u8>, &'static str> {
        let path = self.bytes(number)?;
        let fits = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= limits::FILE_NAME;
        if path.len() > limits::LINK_TEXT || path.contains(&0) {
            return Err("a path that is none");
        }
        if path.is_empty() || path.split(|byte| *byte == b'/').all(fits) {
            Ok(path.to_vec())
        } else {
            Err("a path that leads elsewhere")
        }
    }

    /// A path to an entry: not the root.
    fn entry(&self, number: u16) -> Result<Vec<u8>, &'static str> {
        let path = self.path(number)?;
        if path.is_empty() { Err("the root as an entry") } else { Ok(path) }
    }

    fn range(&self, len: u64) -> Result<Range<u64>, &'static str> {
        let start = self.u64(attribute::FILE_OFFSET)?;
        Ok(start..start.checked_add(len).ok_or("a range past the end of all files")?)
    }
}

fn change(number: u16, bytes: &[u8], version: u32) -> Result<Change, &'static str> {
    use attribute::{CLONE_LEN, DATA, MODE, PATH, PATH_LINK, PATH_TO, SIZE, UNENCODED_FILE_LEN};
    let all = Attributes::parse(bytes, version)?;
    let path = || all.path(PATH);
    let entry = || all.entry(PATH);
    let make = |kind| Ok(Change::Make { path: entry()?, kind });
    let meta = |mask| Ok(Change::Meta { path: path()?, mask });
    let data = |len| Ok(Change::Data { path: entry()?, range: all.range(len)? });
    match number {
        command::SUBVOL | command::SNAPSHOT => {
            Ok(Change::Begin { path: path()?, parent: number == command::SNAPSHOT })
        }
        command::MKFILE => make(Kind::File),
        command::MKDIR => make(Kind::Dir),
        // S_IFMT and S_IFBLK
        command::MKNOD if all.u64(MODE)? & 0o170_000 == 0o060_000 => make(Kind::Block),
        command::MKNOD => make(Kind::Char),
        command::MKFIFO => make(Kind::Fifo),
        command::MKSOCK => make(Kind::Socket),
        command::SYMLINK => make(Kind::Symlink),
        command::RENAME => Ok(Change::Rename { from: entry()?, to: all.entry(PATH_TO)? }),
        command::LINK => Ok(Change::Link { path: entry()?, of: all.entry(PATH_LINK)? }),
        command::UNLINK | command::RMDIR => Ok(Change::Unlink { path: entry()? }),
        command::SET_XATTR | command::REMOVE_XATTR => meta(differs::XATTRS),
        command::WRITE => data(all.bytes(DATA)?.len() as u64),
        command::ENCODED_WRITE => data(all.u64(UNENCODED_FILE_LEN)?),
        command::CLONE => data(all.u64(CLONE_LEN)?),
        command::UPDATE_EXTENT | command::FALLOCATE => data(all.u64(SIZE)?),
        command::TRUNCATE => Ok(Change::Truncate { path: entry()?, size: all.u64(SIZE)? }),
        command::CHMOD => meta(differs::MODE),
        command::CHOWN => meta(differs::OWNER),
        command::UTIMES => meta(differs::TIMES),
        command::FILEATTR | command::ENABLE_VERITY => meta(differs::FLAGS),
        command::END => Ok(Change::End),
        _ => Err("it is not known"),
    }
}

/// A command by its number, and its attributes by theirs.
pub type Raw<'a> = (u16, &'a [(u16, &'a [u8])]);

/// A stream of these commands, with a head and checksums: for tests of whoever reads them.
pub fn encode(version: u32, commands: &[Raw<'_>]) -> Vec<u8> {
    let mut stream = MAGIC.to_vec();
    stream.extend(version.to_le_bytes());
    for (number, attributes) in commands {
        let mut command = vec![0; HEAD];
        for (name, value) in *attributes {
            command.extend(name.to_le_bytes());
            if version < 2 || *name != attribute::DATA {
                command.extend((value.len() as u16).to_le_bytes());
            }
            command.extend_from_slice(value);
        }
        let len = (command.len() - HEAD) as u32;
        command[..4].copy_from_slice(&len.to_le_bytes());
        command[4..6].copy_from_slice(&number.to_le_bytes());
        let sum = checksum(&command);
        command[6..HEAD].copy_from_slice(&sum.to_le_bytes());
        stream.extend(command);
    }
    stream
}

#[cfg(test)]
#[path = "sent_tests.rs"]
mod tests;
