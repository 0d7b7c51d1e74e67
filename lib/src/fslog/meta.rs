//! What makes two objects of a tree identical, apart from their names and contents.

use super::pack::{Pack, Unpack};
use crate::base::{Result, limits};
use std::collections::BTreeMap;
use std::fmt;

/// What an object is; it never becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File = 1,
    /// A directory.
    Dir = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A character device; also a white-out.
    Char = 6,
    /// A block device.
    Block = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::File, Self::Dir, Self::Symlink, Self::Fifo, Self::Socket, Self::Char, Self::Block];

    /// Reads its number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether it is a device node.
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Char | Self::Block)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Dir => "directory",
            Self::Symlink => "symbolic link",
            Self::Fifo => "pipe",
            Self::Socket => "socket",
            Self::Char => "character device",
            Self::Block => "block device",
        })
    }
}

/// A time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds behind them, below 10^9.
    pub nanos: u32,
}

impl Time {
    /// The time in nanoseconds since 1970, as far as they go.
    pub const fn as_nanos(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(self.nanos as i64)
    }

    pub(super) fn pack(self, to: &mut Pack) {
        to.i64(self.seconds).u32(self.nanos);
    }

    pub(super) fn unpack(from: &mut Unpack<'_>) -> Result<Self> {
        let time = Self { seconds: from.i64()?, nanos: from.u32()? };
        if time.nanos < 1_000_000_000 {
            Ok(time)
        } else {
            Err(from.damaged("nanoseconds of a second or more"))
        }
    }
}

/// Extended attributes with their full names, ACLs and capabilities among them.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything that can be restored of an object. Not here, because it cannot be: ctime, birth time, inode number,
/// size of a directory, block count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permissions, set-uid, set-gid and sticky bits (07777); 0 for a symbolic link, which has none.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Time,
    /// Time of the last access of a file or directory, if it belongs to the tree ([`super::index::ATIME`]).
    pub atime: Time,
    /// Size of a regular file, 0 for everything else.
    pub size: u64,
    /// Major and minor number of a device, 0 for everything else.
    pub device: (u32, u32),
    /// Those flags of chattr(1) that are kept ([`FLAGS`]).
    pub flags: u32,
    /// Text of a symbolic link.
    pub link: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Flag of chattr(1): synchronous updates.
pub const FLAG_SYNC: u32 = 0x8;
/// Flag of chattr(1): immutable.
pub const FLAG_IMMUTABLE: u32 = 0x10;
/// Flag of chattr(1): append only.
pub const FLAG_APPEND: u32 = 0x20;
/// Flag of chattr(1): not for dump(8).
pub const FLAG_NODUMP: u32 = 0x40;
/// Flag of chattr(1): no access times.
pub const FLAG_NOATIME: u32 = 0x80;
/// The flags of chattr(1) that are part of an object: those that ext4, xfs and btrfs share.
pub const FLAGS: u32 = FLAG_SYNC | FLAG_IMMUTABLE | FLAG_APPEND | FLAG_NODUMP | FLAG_NOATIME;

/// Bits of a difference of two [`Meta`].
pub mod differs {
    /// Permissions.
    pub const MODE: u32 = 1;
    /// Owner or group.
    pub const OWNER: u32 = 2;
    /// Time of the last modification.
    pub const TIMES: u32 = 4;
    /// Extended attributes, ACLs, capabilities.
    pub const XATTRS: u32 = 8;
    /// Flags of chattr(1).
    pub const FLAGS: u32 = 16;
    /// Size.
    pub const SIZE: u32 = 32;
    /// What cannot change in place: kind, device numbers, link text.
    pub const NATURE: u32 = 64;
    /// Contents.
    pub const CONTENT: u32 = 128;
    /// Time of the last access.
    pub const ATIME: u32 = 256;
    const NAMES: [(u32, &str); 9] = [
        (MODE, "mode"),
        (OWNER, "owner"),
        (TIMES, "times"),
        (XATTRS, "xattrs"),
        (FLAGS, "flags"),
        (SIZE, "size"),
        (NATURE, "kind"),
        (CONTENT, "content"),
        (ATIME, "atime"),
    ];

    /// The words for a set of bits.
    pub fn words(bits: u32) -> Vec<&'static str> {
        NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
    }
}

impl Meta {
    /// In what two objects differ ([`differs`]).
    pub fn differs(&self, other: &Self) -> u32 {
        let bit = |so: bool, bit: u32| if so { bit } else { 0 };
        bit(self.mode != other.mode, differs::MODE)
            | bit((self.uid, self.gid) != (other.uid, other.gid), differs::OWNER)
            | bit(self.mtime != other.mtime, differs::TIMES)
            | bit(self.atime != other.atime, differs::ATIME)
            | bit(self.xattrs != other.xattrs, differs::XATTRS)
            | bit(self.flags != other.flags, differs::FLAGS)
            | bit(self.size != other.size, differs::SIZE)
            | bit(!self.same_nature(other), differs::NATURE)
    }

    /// Whether kind, device numbers and link text are the same: what cannot change in place.
    pub fn same_nature(&self, other: &Self) -> bool {
        (self.kind, self.device, &self.link) == (other.kind, other.device, &other.link)
    }

    /// Packs it; one object has one packed form, and that is what is hashed.
    pub fn pack(&self, to: &mut Pack) {
        to.u8(self.kind as u8).u32(self.mode).u32(self.uid).u32(self.gid);
        self.mtime.pack(to);
        self.atime.pack(to);
        to.u64(self.size).u32(self.device.0).u32(self.device.1).u32(self.flags).string(&self.link);
        to.u32(self.xattrs.len() as u32);
        for (name, value) in &self.xattrs {
            to.string(name).string(value);
        }
    }

    /// Reads it back, and checks that it is possible.
    pub fn unpack(from: &mut Unpack<'_>) -> Result<Self> {
        let kind = from.u8()?;
        let kind = Kind::from_u8(kind).ok_or_else(|| from.damaged(&format!("an object of kind {kind}")))?;
        let mut meta = Self {
            kind,
            mode: from.u32()?,
            uid: from.u32()?,
            gid: from.u32()?,
            mtime: Time::unpack(from)?,
            atime: Time::unpack(from)?,
            size: from.u64()?,
            device: (from.u32()?, from.u32()?),
            flags: from.u32()?,
            link: from.string(limits::LINK_TEXT)?.to_vec(),
            xattrs: Xattrs::new(),
        };
        for _ in 0..from.u32()? {
            let name = from.string(limits::FILE_NAME)?.to_vec();
            let value = from.string(limits::FSLOG_FRAME)?.to_vec();
            if name.is_empty() || name.contains(&0) || meta.xattrs.insert(name, value).is_some() {
                return Err(from.damaged("an extended attribute without a name, or twice"));
            }
        }
        match meta.impossible() {
            Some(what) => Err(from.damaged(what)),
            None => Ok(meta),
        }
    }

    fn impossible(&self) -> Option<&'static str> {
        let link = &self.link;
        match self.kind {
            _ if self.mode & !0o7777 != 0 => Some("permissions beyond 07777"),
            _ if self.flags & !FLAGS != 0 => Some("flags that are not kept"),
            _ if self.size > limits::FILE_SIZE => Some("a file larger than any"),
            Kind::Symlink if link.is_empty() || link.contains(&0) => Some("a symbolic link without a text"),
            Kind::Symlink if self.mode != 0 => Some("permissions on a symbolic link"),
            kind if kind != Kind::Symlink && !link.is_empty() => Some("a link text on something else"),
            kind if kind != Kind::File && self.size != 0 => Some("a size on something else than a file"),
            kind if !kind.is_device() && self.device != (0, 0) => Some("device numbers on something else"),
            kind if !matches!(kind, Kind::File | Kind::Dir) && self.flags != 0 => {
                Some("flags on a special file")
            }
            _ => None,
        }
    }

    /// Why root would have to be careful with it: a device node, a set-uid or set-gid file, a privileged
    /// attribute. `None` for the harmless.
    pub fn privilege(&self) -> Option<String> {
        if self.kind.is_device() {
            return Some(format!("is a {}", self.kind));
        }
        if self.kind != Kind::Dir && self.mode & 0o6000 != 0 {
            return Some(format!("has mode {:04o} (set-uid or set-gid)", self.mode));
        }
        let privileged = |name: &&Vec<u8>| name.starts_with(b"trusted.") || name.starts_with(b"security.");
        self.xattrs
            .keys()
            .find(privileged)
            .map(|name| format!("has the attribute {}", String::from_utf8_lossy(name).escape_debug()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn file(size: u64) -> Meta {
        Meta {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { seconds: 1, nanos: 2 },
            atime: Time::default(),
            size,
            device: (0, 0),
            flags: 0,
            link: Vec::new(),
            xattrs: Xattrs::new(),
        }
    }

    #[test]
    fn metadata_reads_back_as_it_was_packed() {
        let mut meta =
            Meta { flags: FLAG_APPEND, mtime: Time { seconds: -5, nanos: 999_999_999 }, ..file(7) };
        meta.xattrs.insert(b"user.a".to_vec(), b"\0b".to_vec());
        let mut pack = Pack::default();
        meta.pack(&mut pack);
        let mut from = Unpack::new("x", &pack.0);
        assert_eq!(Meta::unpack(&mut from).expect("unpack"), meta);
        from.end().expect("all of it");
    }

    #[test]
    fn impossible_metadata_is_damage() {
        for meta in [
            Meta { mode: 0o10_000, ..file(0) },
            Meta { flags: 1 << 31, ..file(0) },
            Meta { kind: Kind::Dir, ..file(1) },
            Meta { link: b"x".to_vec(), ..file(0) },
            Meta { kind: Kind::Symlink, mode: 0, ..file(0) },
            Meta { device: (1, 1), ..file(0) },
            Meta { mtime: Time { seconds: 0, nanos: 1_000_000_000 }, ..file(0) },
            file(u64::MAX),
        ] {
            let mut pack = Pack::default();
            meta.pack(&mut pack);
            assert!(Meta::unpack(&mut Unpack::new("x", &pack.0)).is_err(), "{meta:?}");
        }
    }

    #[test]
    fn what_root_must_be_careful_with_is_named() {
        assert_eq!(file(0).privilege(), None);
        assert_eq!(Meta { kind: Kind::Dir, mode: 0o2755, ..file(0) }.privilege(), None);
        assert!(Meta { mode: 0o4755, ..file(0) }.privilege().is_some_and(|why| why.contains("4755")));
        assert!(Meta { kind: Kind::Char, ..file(0) }.privilege().is_some());
        let xattrs = Xattrs::from([(b"security.capability".to_vec(), vec![1])]);
        assert!(Meta { xattrs, ..file(0) }.privilege().is_some_and(|why| why.contains("capability")));
    }
}
