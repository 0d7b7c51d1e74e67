//! The commands of a stream of `btrfs send` in full: their numbers and attributes, what each of them says, and those of
//! ours as bytes. The stream around them is in [`super::sent`].

use super::meta::{FLAG_APPEND, FLAG_IMMUTABLE, FLAG_NOATIME, FLAG_NODUMP, FLAG_SYNC, Kind, Time};
use crate::base::{Id, limits};
use crate::device::fields::{get_id, get_u32, get_u64};
use rustix::fs::{FileType, major, makedev, minor};
use std::ops::Range;

/// Numbers of commands (`enum btrfs_send_cmd`).
pub mod number {
    #![allow(missing_docs)] // each is called as in the kernel
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
pub mod attribute {
    #![allow(missing_docs)] // each is called as in the kernel
    pub const UUID: u16 = 1;
    pub const CTRANSID: u16 = 2;
    pub const INO: u16 = 3;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const UID: u16 = 6;
    pub const GID: u16 = 7;
    pub const RDEV: u16 = 8;
    pub const CTIME: u16 = 9;
    pub const MTIME: u16 = 10;
    pub const ATIME: u16 = 11;
    pub const XATTR_NAME: u16 = 13;
    pub const XATTR_DATA: u16 = 14;
    pub const PATH: u16 = 15;
    pub const PATH_TO: u16 = 16;
    pub const PATH_LINK: u16 = 17;
    pub const FILE_OFFSET: u16 = 18;
    pub const DATA: u16 = 19;
    pub const CLONE_UUID: u16 = 20;
    pub const CLONE_CTRANSID: u16 = 21;
    pub const CLONE_PATH: u16 = 22;
    pub const CLONE_OFFSET: u16 = 23;
    pub const CLONE_LEN: u16 = 24;
    pub const FALLOCATE_MODE: u16 = 25;
    pub const FILEATTR: u16 = 26;
    pub const UNENCODED_FILE_LEN: u16 = 27;
    pub const UNENCODED_LEN: u16 = 28;
    pub const UNENCODED_OFFSET: u16 = 29;
    pub const COMPRESSION: u16 = 30;
    pub const ENCRYPTION: u16 = 31;
    pub const LAST: u16 = 35;
}

/// The attributes of a command, by their numbers.
pub struct Attributes<'a> {
    bytes: &'a [u8],
    all: [Option<Range<usize>>; attribute::LAST as usize + 1],
}

impl<'a> Attributes<'a> {
    /// Takes them apart. Of what they say nothing is believed.
    pub fn parse(bytes: &'a [u8], version: u32) -> Result<Self, &'static str> {
        let mut all = [const { None }; attribute::LAST as usize + 1];
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (number, rest) = rest.split_first_chunk().ok_or("an attribute that ends early")?;
            let number = u16::from_le_bytes(*number);
            let (len, rest) = if version >= 2 && number == attribute::DATA {
                (rest.len(), rest)
            } else {
                let (len, rest) = rest.split_first_chunk().ok_or("an attribute that ends early")?;
                (usize::from(u16::from_le_bytes(*len)), rest)
            };
            if rest.len() < len {
                return Err("an attribute that ends early");
            }
            let start = bytes.len() - rest.len();
            let place = all.get_mut(usize::from(number)).ok_or("an attribute that is not known")?;
            if place.replace(start..start + len).is_some() {
                return Err("an attribute twice");
            }
            at = start + len;
        }
        Ok(Self { bytes, all })
    }

    fn spot(&self, number: u16) -> Result<Range<usize>, &'static str> {
        self.all[usize::from(number)].clone().ok_or("an attribute is missing")
    }

    /// Its bytes.
    pub fn bytes(&self, number: u16) -> Result<&'a [u8], &'static str> {
        Ok(&self.bytes[self.spot(number)?])
    }

    /// A number.
    pub fn u64(&self, number: u16) -> Result<u64, &'static str> {
        let bytes = self.bytes(number)?;
        if bytes.len() == 8 { Ok(get_u64(bytes, 0)) } else { Err("a number of another length") }
    }

    fn u32(&self, number: u16) -> Result<u32, &'static str> {
        let bytes = self.bytes(number)?;
        if bytes.len() == 4 { Ok(get_u32(bytes, 0)) } else { Err("a number of another length") }
    }

    fn owner(&self, number: u16) -> Result<u32, &'static str> {
        u32::try_from(self.u64(number)?).map_err(|_| "an owner that is none")
    }

    fn time(&self, number: u16) -> Result<Time, &'static str> {
        let bytes = self.bytes(number)?;
        if bytes.len() != 12 {
            return Err("a time of another length");
        }
        let time = Time { seconds: get_u64(bytes, 0).cast_signed(), nanos: get_u32(bytes, 8) };
        if time.nanos < 1_000_000_000 { Ok(time) } else { Err("nanoseconds of a second or more") }
    }

    fn moment(&self, uuid: u16, ctransid: u16) -> Result<Moment, &'static str> {
        let bytes = self.bytes(uuid)?;
        if bytes.len() != 16 {
            return Err("a UUID of another length");
        }
        Ok(Moment { uuid: get_id(bytes, 0), ctransid: self.u64(ctransid)? })
    }

    /// A path, perhaps to the root.
    pub fn path(&self, number: u16) -> Result<Vec<u8>, &'static str> {
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
    pub fn entry(&self, number: u16) -> Result<Vec<u8>, &'static str> {
        let path = self.path(number)?;
        if path.is_empty() { Err("the root as an entry") } else { Ok(path) }
    }

    /// So many bytes from the offset on.
    pub fn range(&self, len: u64) -> Result<Range<u64>, &'static str> {
        let start = self.u64(attribute::FILE_OFFSET)?;
        Ok(start..start.checked_add(len).ok_or("a range past the end of all files")?)
    }
}

/// Which subvolume, in which state: what a snapshot is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its UUID.
    pub uuid: Id,
    /// The transaction that changed it last.
    pub ctransid: u64,
}

/// A compressed extent: where it is in the stream, and what of it belongs to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// First byte in the stream.
    pub at: u64,
    /// Bytes in the stream.
    pub len: u32,
    /// Bytes that it is unpacked.
    pub unpacked: u32,
    /// How: `BTRFS_ENCODED_IO_COMPRESSION_*`.
    pub method: u32,
}

/// [`Packed::method`]: not at all.
pub const PACKED_NOT: u32 = 0;
/// [`Packed::method`]: zlib.
pub const PACKED_ZLIB: u32 = 1;
/// [`Packed::method`]: zstd.
pub const PACKED_ZSTD: u32 = 2;

/// What one command says. Paths are as in [`super::sent::Change`]; they and ranges are possible ones, and nothing else
/// is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // of the fields: each is what its variant says
pub enum Command<'a> {
    /// It is about this subvolume, which begins empty or where another one is.
    Begin { path: Vec<u8>, of: Moment, parent: Option<Moment> },
    /// A new object, of a symbolic link with its text.
    Make { path: Vec<u8>, kind: Kind, device: (u32, u32), link: &'a [u8] },
    /// Another name in place of this one.
    Rename { from: Vec<u8>, to: Vec<u8> },
    /// One more name.
    Link { path: Vec<u8>, of: Vec<u8> },
    /// One name less, of something else than a directory, or of an empty directory.
    Unlink { path: Vec<u8>, dir: bool },
    /// An extended attribute, or none any more.
    Xattr { path: Vec<u8>, name: &'a [u8], value: Option<&'a [u8]> },
    /// Bytes, which are at a place of the stream.
    Write { path: Vec<u8>, range: Range<u64>, at: u64 },
    /// Bytes from an offset in a compressed extent on.
    Unpack { path: Vec<u8>, range: Range<u64>, packed: Packed, skip: u32 },
    /// Bytes of a file of this or another subvolume.
    Clone { path: Vec<u8>, range: Range<u64>, of: Moment, from: Vec<u8>, at: u64 },
    /// Zeroes; a file that ends before them grows or does not.
    Zero { path: Vec<u8>, range: Range<u64>, grow: bool },
    /// Space, and perhaps a larger size.
    Reserve { path: Vec<u8>, range: Range<u64>, grow: bool },
    /// The size in the end.
    Truncate { path: Vec<u8>, size: u64 },
    /// Permissions.
    Mode { path: Vec<u8>, mode: u32 },
    /// Owner and group.
    Owner { path: Vec<u8>, uid: u32, gid: u32 },
    /// Times.
    Times { path: Vec<u8>, mtime: Time, atime: Time },
    /// Flags of chattr(1), as [`super::meta`] has them.
    Flags { path: Vec<u8>, flags: u32 },
    /// That was all.
    End,
}

/// Flags of an inode of btrfs (`BTRFS_INODE_*`), and of chattr(1).
const FLAGS: [(u64, u32); 5] = [
    (1 << 5, FLAG_SYNC),
    (1 << 6, FLAG_IMMUTABLE),
    (1 << 7, FLAG_APPEND),
    (1 << 8, FLAG_NODUMP),
    (1 << 9, FLAG_NOATIME),
];

/// `FALLOC_FL_KEEP_SIZE`, `_PUNCH_HOLE`, `_ZERO_RANGE`.
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

impl<'a> Command<'a> {
    /// Reads one whose attributes begin at `at` in the stream. The error is what is wrong with it.
    pub fn decode(number: u16, all: &Attributes<'a>, at: u64) -> Result<Self, &'static str> {
        use attribute as a;
        let path = || all.path(a::PATH);
        let entry = || all.entry(a::PATH);
        let make = |kind| Ok(Self::Make { path: entry()?, kind, device: (0, 0), link: b"" });
        let data = || all.spot(a::DATA).map(|spot| (at + spot.start as u64, spot.len()));
        Ok(match number {
            number::SUBVOL => {
                Self::Begin { path: path()?, of: all.moment(a::UUID, a::CTRANSID)?, parent: None }
            }
            number::SNAPSHOT => Self::Begin {
                path: path()?,
                of: all.moment(a::UUID, a::CTRANSID)?,
                parent: Some(all.moment(a::CLONE_UUID, a::CLONE_CTRANSID)?),
            },
            number::MKFILE => return make(Kind::File),
            number::MKDIR => return make(Kind::Dir),
            number::MKFIFO => return make(Kind::Fifo),
            number::MKSOCK => return make(Kind::Socket),
            number::MKNOD => {
                let (mode, device) = (all.u64(a::MODE)?, all.u64(a::RDEV)?);
                let kind = match FileType::from_raw_mode(mode as u32) {
                    FileType::BlockDevice => Kind::Block,
                    FileType::CharacterDevice => Kind::Char,
                    _ => return Err("a device of no kind"),
                };
                Self::Make { path: entry()?, kind, device: (major(device), minor(device)), link: b"" }
            }
            number::SYMLINK => {
                let link = all.bytes(a::PATH_LINK)?;
                Self::Make { path: entry()?, kind: Kind::Symlink, device: (0, 0), link }
            }
            number::RENAME => Self::Rename { from: entry()?, to: all.entry(a::PATH_TO)? },
            number::LINK => Self::Link { path: entry()?, of: all.entry(a::PATH_LINK)? },
            number::UNLINK | number::RMDIR => Self::Unlink { path: entry()?, dir: number == number::RMDIR },
            number::SET_XATTR | number::REMOVE_XATTR => {
                let value = if number == number::SET_XATTR { Some(all.bytes(a::XATTR_DATA)?) } else { None };
                Self::Xattr { path: path()?, name: all.bytes(a::XATTR_NAME)?, value }
            }
            number::WRITE => {
                let (at, len) = data()?;
                Self::Write { path: entry()?, range: all.range(len as u64)?, at }
            }
            number::ENCODED_WRITE => {
                let (at, len) = data()?;
                let word = |number| match all.all[usize::from(number)] {
                    // Those that are zero need not be there.
                    None => Ok(0),
                    Some(_) => all.u32(number),
                };
                if word(a::ENCRYPTION)? != 0 {
                    return Err("an encrypted write: there is no key for it");
                }
                let range = all.range(all.u64(a::UNENCODED_FILE_LEN)?)?;
                let skip = all.u64(a::UNENCODED_OFFSET)?;
                let unpacked = u32::try_from(all.u64(a::UNENCODED_LEN)?).unwrap_or(u32::MAX);
                let needed = skip.saturating_add(range.end - range.start);
                if unpacked as usize > limits::SENT_EXTENT || needed > u64::from(unpacked) {
                    return Err("an extent that is smaller than what is taken of it, or larger than any");
                }
                let packed = Packed { at, len: len as u32, unpacked, method: word(a::COMPRESSION)? };
                Self::Unpack { path: entry()?, range, packed, skip: skip as u32 }
            }
            number::CLONE => Self::Clone {
                path: entry()?,
                range: all.range(all.u64(a::CLONE_LEN)?)?,
                of: all.moment(a::CLONE_UUID, a::CLONE_CTRANSID)?,
                from: all.entry(a::CLONE_PATH)?,
                at: all.u64(a::CLONE_OFFSET)?,
            },
            number::FALLOCATE => {
                let (path, range) = (entry()?, all.range(all.u64(a::SIZE)?)?);
                let mode = all.u32(a::FALLOCATE_MODE)?;
                let grow = mode & KEEP_SIZE == 0;
                match mode & !KEEP_SIZE {
                    0 => Self::Reserve { path, range, grow },
                    PUNCH_HOLE | ZERO_RANGE => Self::Zero { path, range, grow },
                    _ => return Err("an allocation of a kind that is not known"),
                }
            }
            number::TRUNCATE => Self::Truncate { path: entry()?, size: all.u64(a::SIZE)? },
            number::CHMOD => Self::Mode { path: path()?, mode: all.u64(a::MODE)? as u32 & 0o7777 },
            number::CHOWN => Self::Owner { path: path()?, uid: all.owner(a::UID)?, gid: all.owner(a::GID)? },
            number::UTIMES => {
                Self::Times { path: path()?, mtime: all.time(a::MTIME)?, atime: all.time(a::ATIME)? }
            }
            number::FILEATTR => {
                let flags = all.u64(a::FILEATTR)?;
                let kept = FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
                Self::Flags { path: path()?, flags: kept.map(|(_, flag)| flag).sum() }
            }
            number::UPDATE_EXTENT => return Err("it has no data; btrfs send made it with --no-data"),
            number::ENABLE_VERITY => return Err("fs-verity cannot be made elsewhere"),
            number::END => Self::End,
            _ => return Err("it is not known"),
        })
    }
}

/// The mode and the device numbers of a node, as [`number::MKNOD`] has them.
pub fn node(kind: Kind, mode: u32, (major, minor): (u32, u32)) -> (u64, u64) {
    let file_type = match kind {
        Kind::Block => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    (u64::from(file_type.as_raw_mode() | mode), makedev(major, minor))
}

/// A time as an attribute has it.
pub fn time_bytes(time: Time) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&time.seconds.to_le_bytes());
    bytes[8..].copy_from_slice(&time.nanos.to_le_bytes());
    bytes
}
