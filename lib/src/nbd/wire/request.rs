//! The request, compact and extended (`proto.md`, "Request message").

use super::{MAGIC_EXTENDED_REQUEST, MAGIC_REQUEST};
use crate::nbd::fields::Fields;

/// What a request asks for ("Request types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// 0
    Read,
    /// 1
    Write,
    /// 2: ends the connection; never answered.
    Disc,
    /// 3
    Flush,
    /// 4
    Trim,
    /// 5
    Cache,
    /// 6
    WriteZeroes,
    /// 7
    BlockStatus,
    /// Not known here.
    Other(u16),
}

impl Command {
    /// From the number on the wire.
    pub const fn from_wire(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disc,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disc => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::Cache => 5,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
            Self::Other(number) => number,
        }
    }
}

/// Flags of a request ("Command flags").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CommandFlags(pub u16);

impl CommandFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// The reply comes after the data is durable.
    pub const FUA: Self = Self(1 << 0);
    /// Zeroes must be allocated.
    pub const NO_HOLE: Self = Self(1 << 1);
    /// One data chunk only.
    pub const DF: Self = Self(1 << 2);
    /// One extent only.
    pub const REQ_ONE: Self = Self(1 << 3);
    /// Fail instead of writing zeroes slowly.
    pub const FAST_ZERO: Self = Self(1 << 4);
    /// The length is the payload's; with extended headers only.
    pub const PAYLOAD_LEN: Self = Self(1 << 5);

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The header of a request ("Request message"). The payload of a WRITE follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Command flags.
    pub flags: CommandFlags,
    /// Command.
    pub command: Command,
    /// The client's name for the request, repeated in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes: of the export, or of the payload where there is one. Below 2^32 in a compact request.
    pub length: u64,
}

impl Request {
    /// Bytes of a compact header.
    pub const LEN: usize = 28;
    /// Bytes of an extended header.
    pub const EXTENDED_LEN: usize = 32;

    /// Reads a header; `None` if its magic is wrong, after which nothing on the connection can be believed.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u32()? != MAGIC_REQUEST {
            return None;
        }
        Some(Self {
            flags: CommandFlags(fields.u16()?),
            command: Command::from_wire(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: u64::from(fields.u32()?),
        })
    }

    /// Reads an extended header; `None` if its magic is wrong.
    pub fn parse_extended(bytes: &[u8; Self::EXTENDED_LEN]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u32()? != MAGIC_EXTENDED_REQUEST {
            return None;
        }
        Some(Self {
            flags: CommandFlags(fields.u16()?),
            command: Command::from_wire(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u64()?,
        })
    }

    /// Writes an extended header.
    pub fn encode_extended(&self) -> [u8; Self::EXTENDED_LEN] {
        let mut bytes = [0; Self::EXTENDED_LEN];
        bytes[..Self::LEN].copy_from_slice(&self.encode());
        bytes[..4].copy_from_slice(&MAGIC_EXTENDED_REQUEST.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Writes a compact header; the length must be below 2^32.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&MAGIC_REQUEST.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_wire().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&(self.length as u32).to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_28_pinned_bytes() {
        let request = Request {
            flags: CommandFlags::FUA,
            command: Command::WriteZeroes,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            length: 0x2122_2324,
        };
        let bytes = request.encode();
        assert_eq!(
            bytes,
            [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15,
                0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24
            ]
        );
        assert_eq!(Request::parse(&bytes), Some(request));
    }

    #[test]
    fn an_extended_request_is_32_pinned_bytes() {
        let request = Request {
            flags: CommandFlags::PAYLOAD_LEN,
            command: Command::Write,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            length: 0x2122_2324_2526_2728,
        };
        let bytes = request.encode_extended();
        assert_eq!(
            bytes,
            [
                0x21, 0xe4, 0x1c, 0x71, 0, 32, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15,
                0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28
            ]
        );
        assert_eq!(Request::parse_extended(&bytes), Some(request));
        assert_eq!(Request::parse_extended(&[0; 32]), None);
        assert_eq!(Request::parse(bytes.first_chunk().expect("28 bytes")), None, "nor the other way");
    }

    #[test]
    fn s27_a_bad_request_magic_is_not_a_request() {
        let mut bytes = [0; Request::LEN];
        assert_eq!(Request::parse(&bytes), None);
        bytes[..4].copy_from_slice(&0x2560_9514u32.to_be_bytes());
        assert_eq!(Request::parse(&bytes), None);
    }

    #[test]
    fn commands_keep_their_numbers() {
        for number in 0..=300 {
            assert_eq!(Command::from_wire(number).to_wire(), number);
        }
    }
}
