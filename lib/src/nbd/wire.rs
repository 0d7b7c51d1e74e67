//! Numbers of the wire (`proto.md`, "Values" and "Transmission phase").

mod request;

pub use request::{Command, CommandFlags, Request};

/// First magic of every server ("NBDMAGIC"; `proto.md`, "Handshake phase").
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of an oldstyle server ("Oldstyle negotiation").
pub const MAGIC_OLDSTYLE: u64 = 0x0000_4202_8186_1253;
/// Second magic of a newstyle server, and of every option ("IHAVEOPT").
pub const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
/// Magic of an option reply ("Fixed newstyle negotiation").
pub const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Magic of a compact request ("Request message").
pub const MAGIC_REQUEST: u32 = 0x2560_9513;
/// Magic of a simple reply ("Simple reply message").
pub const MAGIC_SIMPLE: u32 = 0x6744_6698;
/// Magic of a structured reply chunk ("Structured reply chunk message").
pub const MAGIC_CHUNK: u32 = 0x668e_33ef;

/// Magic of an extended request ("Request message").
pub const MAGIC_EXTENDED_REQUEST: u32 = 0x21e4_1c71;
/// Magic of an extended reply chunk ("Extended reply chunk message").
pub const MAGIC_EXTENDED_REPLY: u32 = 0x6e8a_278c;
/// The registered TCP port.
pub const PORT: u16 = 10809;

/// Zeroes after the answer to `EXPORT_NAME` unless both sides agreed on none.
pub(super) const ZEROES: usize = 124;

/// Server's handshake flags ("Handshake flags").
pub mod handshake {
    /// Options after the first may be answered.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// The 124 zeroes can be left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options ("Option types").
pub mod option {
    /// Opens an export without any way to refuse but closing.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends the negotiation.
    pub const ABORT: u32 = 2;
    /// Lists the exports.
    pub const LIST: u32 = 3;
    /// Begins TLS.
    pub const STARTTLS: u32 = 5;
    /// Asks what GO would say.
    pub const INFO: u32 = 6;
    /// Opens an export.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Asks which metadata contexts there are.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Selects metadata contexts for `BLOCK_STATUS`.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Asks for headers with 64-bit lengths, both ways.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Option reply types ("Option reply types").
pub mod reply {
    /// Done; no data.
    pub const ACK: u32 = 1;
    /// One export of LIST.
    pub const SERVER: u32 = 2;
    /// One information of INFO or GO.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Set in all errors.
    pub const ERROR: u32 = 1 << 31;
    /// The option is not known.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// Forbidden here.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The option's data makes no sense.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// Not on this platform.
    pub const ERR_PLATFORM: u32 = ERROR | 4;
    /// TLS comes first.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is going away.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    /// The client must ask for the block size.
    pub const ERR_BLOCK_SIZE_REQD: u32 = ERROR | 8;
    /// Larger than the server takes.
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
    /// Extended headers were negotiated, and take precedence.
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR | 0xa;
}

/// Information types of INFO and GO ("Information types").
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred and maximum block size.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Structured reply chunk types and flags ("Structured reply types").
pub mod chunk {
    /// Flag: no further chunk for this request.
    pub const DONE: u16 = 1 << 0;
    /// Nothing but DONE.
    pub const NONE: u16 = 0;
    /// Bytes of a READ.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeroes of a READ.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents of 64 bits; with extended headers only.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// Bit of all error types.
    pub const IS_ERROR: u16 = 1 << 15;
    /// An error.
    pub const ERROR: u16 = IS_ERROR | 1;
    /// An error at an offset.
    pub const ERROR_OFFSET: u16 = IS_ERROR | 2;
}

/// What an export can do ("Transmission flags").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// Always set.
    pub const HAS_FLAGS: Self = Self(1 << 0);
    /// Writes are refused.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// FLUSH is understood.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// The FUA flag is understood.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// Seeks cost.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// TRIM is understood.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// `WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// The DF flag is understood; only with structured replies.
    pub const SEND_DF: Self = Self(1 << 7);
    /// Several connections see each other's flushes.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// CACHE is understood.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// The `FAST_ZERO` flag is understood; only with `WRITE_ZEROES`.
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but not `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What makes sense together: flags that presuppose structured replies or `WRITE_ZEROES` go without them.
    #[must_use]
    pub(super) const fn consistent(self, structured: bool) -> Self {
        let flags = if structured { self } else { self.without(Self::SEND_DF) };
        if flags.has(Self::SEND_WRITE_ZEROES) { flags } else { flags.without(Self::SEND_FAST_ZERO) }
    }
}

/// Error numbers of the wire, which are not the host's ("Error values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// EPERM: the export is read-only.
    Perm = 1,
    /// EIO.
    Io = 5,
    /// ENOMEM.
    NoMem = 12,
    /// EINVAL; also everything that is not in this list.
    Inval = 22,
    /// ENOSPC: a write past the end, or no space.
    NoSpc = 28,
    /// EOVERFLOW: a read with DF that is too long.
    Overflow = 75,
    /// ENOTSUP: zeroes with `FAST_ZERO` that would not be fast.
    NotSup = 95,
    /// ESHUTDOWN: the server is going away.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// The error of a number, which the caller knows to announce an error: unknown numbers, and zero, are
    /// EINVAL, never success ("Error values").
    pub const fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMem,
            28 => Self::NoSpc,
            75 => Self::Overflow,
            95 => Self::NotSup,
            108 => Self::Shutdown,
            _ => Self::Inval,
        }
    }

    /// A few words for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Perm => "operation not permitted",
            Self::Io => "input/output error",
            Self::NoMem => "server out of memory",
            Self::Inval => "invalid request",
            Self::NoSpc => "no space left",
            Self::Overflow => "request too large",
            Self::NotSup => "not supported",
            Self::Shutdown => "server is shutting down",
        }
    }
}

/// Writes one option as a client does.
pub(super) fn put_option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend_from_slice(&MAGIC_OPTION.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// Writes a length and so many bytes.
pub(super) fn put_counted(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c23_unknown_errors_are_einval_and_never_success() {
        for number in [0, 2, 107, 109, u32::MAX] {
            assert_eq!(Errno::from_wire(number), Errno::Inval);
        }
        for number in [1, 5, 12, 22, 28, 75, 95, 108] {
            assert_eq!(Errno::from_wire(number).to_wire(), number);
        }
    }
}
