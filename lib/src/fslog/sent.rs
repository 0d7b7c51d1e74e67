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

use super::command::{Attributes, Command, attribute, number as command};
use super::meta::{Kind, differs};
use crate::base::{Class, Error, Result, limits};
use crate::device::fields::get_u32;
use std::io::{ErrorKind, Read};
use std::ops::Range;

/// The first bytes of a stream.
pub const MAGIC: &[u8; 13] = b"btrfs-stream\0";
const HEAD: usize = 10;
/// The version that the kernel sends if none is asked for, and the last one that is known.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

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
    /// Bytes of the stream before the command in the buffer.
    at: u64,
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
        Ok(Self {
            object: object.to_owned(),
            from,
            version,
            ended: false,
            at: head.len() as u64,
            buffer: Vec::new(),
        })
    }

    /// The next command; `None` after the last one, whatever follows. Errors: class `Damaged` for what cannot be
    /// believed, and for a stream that ends before its end.
    pub fn next_change(&mut self) -> Result<Option<Change>> {
        self.next_with(|number, all, _| change(number, all))
    }

    /// The next command in full, with the places of its data in the stream.
    pub fn next_command(&mut self) -> Result<Option<Command<'_>>> {
        self.next_with(Command::decode)
    }

    /// Whether nothing follows the end.
    pub fn is_all(&mut self) -> Result<bool> {
        loop {
            match self.from.read(&mut [0]) {
                Ok(read) => return Ok(read == 0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(&self.object, "reading the stream of btrfs send", e)),
            }
        }
    }

    /// Reads and checks the next command, and has it taken apart: its number, its attributes, and where those begin.
    fn next_with<'a, T>(
        &'a mut self,
        take: impl FnOnce(u16, &Attributes<'a>, u64) -> Result<T, &'static str>,
    ) -> Result<Option<T>> {
        if self.ended {
            return Ok(None);
        }
        self.at += self.buffer.len() as u64;
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
        self.ended = number == command::END;
        let (version, at) = (self.version, self.at + HEAD as u64);
        let taken = Attributes::parse(&self.buffer[HEAD..], version).and_then(|all| take(number, &all, at));
        taken.map(Some).map_err(|what| damaged(&self.object, &format!("a command of kind {number}: {what}")))
    }
}

fn fill(object: &str, from: &mut impl Read, to: &mut [u8]) -> Result<()> {
    from.read_exact(to).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => damaged(object, "it ends early"),
        _ => Error::io(object, "reading the stream of btrfs send", e),
    })
}

fn change(number: u16, all: &Attributes<'_>) -> Result<Change, &'static str> {
    use attribute::{CLONE_LEN, DATA, MODE, PATH, PATH_LINK, PATH_TO, SIZE, UNENCODED_FILE_LEN};
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

/// The bytes that a stream of a version begins with.
pub fn encode_head(version: u32) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(version.to_le_bytes());
    head
}

/// Appends one command, with its checksum.
pub fn encode_command(version: u32, (number, attributes): &Raw<'_>, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend([0; HEAD]);
    for (name, value) in *attributes {
        to.extend(name.to_le_bytes());
        if version < 2 || *name != attribute::DATA {
            to.extend((value.len() as u16).to_le_bytes());
        }
        to.extend_from_slice(value);
    }
    let command = &mut to[start..];
    let len = (command.len() - HEAD) as u32;
    command[..4].copy_from_slice(&len.to_le_bytes());
    command[4..6].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(command);
    command[6..HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// A stream of these commands, with a head and checksums: for tests of whoever reads them.
pub fn encode(version: u32, commands: &[Raw<'_>]) -> Vec<u8> {
    let mut stream = encode_head(version);
    for command in commands {
        encode_command(version, command, &mut stream);
    }
    stream
}

#[cfg(test)]
#[path = "sent_tests.rs"]
mod tests;
