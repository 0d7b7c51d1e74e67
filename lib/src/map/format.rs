//! The bytes of a map file (`mirror-formats(5)`, section MAP).
//!
//! ```text
//!        0                    512                 4096                          4096 + words × 8
//!        ┌────────────────────┬───────────────────┬───────────────────────────────┐
//!        │ header, checksum   │ zeroes            │ bits, one per block           │
//!        └────────────────────┴───────────────────┴───────────────────────────────┘
//! ```
//!
//! All numbers little-endian. Bit `b` is bit `b % 64` of word `b / 64`, so also bit `b % 8` of byte `b / 8`; bits
//! beyond the volume are zero and ignored. The header lies in one sector, because nothing larger is assumed to
//! be written whole: it is the old one or the new one.

use crate::base::{BlockSize, Class, Error, Id, Result, limits};
use crate::device::Features;
use crate::device::fields::{
    FEATURES_LEN, check_version, checksum, differs, get_id, get_u32, get_u64, put_id, put_u32, put_u64,
};

/// What a map begins with.
pub const MAGIC: [u8; 8] = *b"MIRRMAP\0";
/// The version this program writes and reads. 1: the first.
pub const VERSION: u32 = 1;
/// Incompatible features this program knows: none yet.
pub const KNOWN_INCOMPAT: u64 = 0;
/// Read-only compatible features this program knows: none yet.
pub const KNOWN_RO_COMPAT: u64 = 0;
/// Bytes of the header that mean something: one sector.
pub const HEADER_LEN: usize = 512;
/// Where the bits begin: a page, so that they can be mapped.
pub const BITS_AT: u64 = 4096;
/// Most blocks of a map: the largest volume in the largest blocks. A map of it is 4 GiB.
pub const BLOCKS: u64 = limits::VOLUME_SIZE / limits::BLOCK_MAX;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 8;
const AT_FLAGS: usize = AT_VERSION + 4;
const AT_FEATURES: usize = AT_FLAGS + 4;
const AT_VOLUME: usize = AT_FEATURES + FEATURES_LEN;
const AT_LEG: usize = AT_VOLUME + 16;
const AT_BLOCK: usize = AT_LEG + 16;
const AT_SIZE: usize = AT_BLOCK + 8;
const AT_GENERATION: usize = AT_SIZE + 8;
const AT_NEXT: usize = AT_GENERATION + 16;
const AT_BOOT: usize = AT_NEXT + 16;
const AT_RESERVED: usize = AT_BOOT + 16;
const AT_CHECKSUM: usize = HEADER_LEN - 8;
const _: () = assert!(AT_RESERVED == 136 && AT_RESERVED < AT_CHECKSUM && BITS_AT as usize >= HEADER_LEN);

/// Flag: nobody uses the map, and its bits are all there.
const CLEAN: u32 = 1;
/// Flag: while in use, a mark was on stable storage before the write that it stands for.
const POWER: u32 = 2;

/// How durable a mark is before the write it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// In the kernel's page cache: survives the death of the process, not of the machine.
    #[default]
    Process,
    /// On stable storage: survives a power cut.
    Power,
}

/// What a map is of; never changes, except that a volume grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The volume.
    pub volume: Id,
    /// The leg that lacks the marked blocks.
    pub leg: Id,
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes of a block.
    pub block: BlockSize,
}

impl Identity {
    /// Blocks of the volume.
    pub fn blocks(&self) -> u64 {
        self.block.count(self.size)
    }

    /// Bytes that the bits take: whole words.
    pub fn bits_len(&self) -> u64 {
        self.blocks().div_ceil(64) * 8
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        BITS_AT + self.bits_len()
    }

    /// Refuses (class `Usage`) an empty volume, and more blocks than a map holds.
    pub fn check(&self, object: &str) -> Result<()> {
        if self.size > 0 && self.size <= limits::VOLUME_SIZE && self.blocks() <= BLOCKS {
            return Ok(());
        }
        Err(Error::new(
            Class::Usage,
            format!(
                "{object}: checking the geometry: {} bytes in blocks of {} are {} blocks, 1 to {BLOCKS} are allowed",
                self.size,
                self.block.bytes(),
                self.blocks()
            ),
        ))
    }
}

/// The header of a map file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Feature words; unknown compatible bits are kept.
    pub features: Features,
    /// What it is a map of.
    pub identity: Identity,
    /// The generation of the volume that the bits are relative to.
    pub generation: Id,
    /// The generation that the record is about to be given, or just was; `NONE` outside a relabelling.
    pub next: Id,
    /// Whether it was closed cleanly: the bits are all there.
    pub clean: bool,
    /// How durable marks are while it is in use.
    pub durability: Durability,
    /// The boot in which it was last in use; `NONE` if never.
    pub boot: Id,
    /// Bytes without a meaning yet, and unknown flags; kept when the header is written.
    pub(super) reserved: Vec<u8>,
    pub(super) other_flags: u32,
}

impl Header {
    /// The header of a new map, clean and never used.
    pub fn new(identity: Identity, generation: Id) -> Self {
        Self {
            features: Features::default(),
            identity,
            generation,
            next: Id::NONE,
            clean: true,
            durability: Durability::Process,
            boot: Id::NONE,
            reserved: vec![0; AT_CHECKSUM - AT_RESERVED],
            other_flags: 0,
        }
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let clean = if self.clean { CLEAN } else { 0 };
        let power = if self.durability == Durability::Power { POWER } else { 0 };
        out[AT_MAGIC..AT_VERSION].copy_from_slice(&MAGIC);
        put_u32(&mut out, AT_VERSION, VERSION);
        put_u32(&mut out, AT_FLAGS, clean | power | self.other_flags);
        self.features.put(&mut out, AT_FEATURES);
        put_id(&mut out, AT_VOLUME, self.identity.volume);
        put_id(&mut out, AT_LEG, self.identity.leg);
        put_u64(&mut out, AT_BLOCK, self.identity.block.bytes());
        put_u64(&mut out, AT_SIZE, self.identity.size);
        put_id(&mut out, AT_GENERATION, self.generation);
        put_id(&mut out, AT_NEXT, self.next);
        put_id(&mut out, AT_BOOT, self.boot);
        out[AT_RESERVED..AT_CHECKSUM].copy_from_slice(&self.reserved);
        let sum = checksum(&out[..AT_CHECKSUM]);
        put_u64(&mut out, AT_CHECKSUM, sum);
        out
    }

    /// Reads a header in the order of trust: magic, version, features, geometry, checksum. `object` is the
    /// file's name for messages. Classes: `Refused` for a version or features this program does not know,
    /// `Damaged` for everything else, both values named.
    pub fn decode(object: &str, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if bytes[AT_MAGIC..AT_VERSION] != MAGIC {
            let found = bytes[AT_MAGIC..AT_VERSION].escape_ascii();
            return Err(differs(object, "magic", found, MAGIC.escape_ascii()));
        }
        check_version(object, get_u32(bytes, AT_VERSION), VERSION)?;
        let features = Features::get(bytes, AT_FEATURES);
        features.check_readable(object, KNOWN_INCOMPAT)?;
        let block = get_u64(bytes, AT_BLOCK);
        let block = BlockSize::new(block)
            .map_err(|_| differs(object, "block size", block, "a power of two from 4096 to 33554432"))?;
        let identity = Identity {
            volume: get_id(bytes, AT_VOLUME),
            leg: get_id(bytes, AT_LEG),
            size: get_u64(bytes, AT_SIZE),
            block,
        };
        identity.check(object).map_err(|e| Error { class: Class::Damaged, ..e })?;
        let (found, expected) = (get_u64(bytes, AT_CHECKSUM), checksum(&bytes[..AT_CHECKSUM]));
        if found != expected {
            return Err(differs(object, "checksum", format!("{found:016x}"), format!("{expected:016x}")));
        }
        let flags = get_u32(bytes, AT_FLAGS);
        Ok(Self {
            features,
            identity,
            generation: get_id(bytes, AT_GENERATION),
            next: get_id(bytes, AT_NEXT),
            clean: flags & CLEAN != 0,
            durability: if flags & POWER == 0 { Durability::Process } else { Durability::Power },
            boot: get_id(bytes, AT_BOOT),
            reserved: bytes[AT_RESERVED..AT_CHECKSUM].to_vec(),
            other_flags: flags & !(CLEAN | POWER),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let identity =
            Identity { volume: Id([1; 16]), leg: Id([2; 16]), size: 10 << 20, block: BlockSize::DEFAULT };
        let boot = Id([5; 16]);
        let durability = Durability::Power;
        Header { next: Id([4; 16]), clean: false, durability, boot, ..Header::new(identity, Id([3; 16])) }
    }

    fn resealed(mut bytes: [u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
        let sum = checksum(&bytes[..AT_CHECKSUM]);
        put_u64(&mut bytes, AT_CHECKSUM, sum);
        bytes
    }

    #[test]
    fn a_header_reads_back_and_its_offsets_are_those_of_the_man_page() {
        let bytes = header().encode();
        assert_eq!(Header::decode("m", &bytes).expect("decode"), header());
        assert_eq!(&bytes[..16], b"MIRRMAP\0\x01\0\0\0\x02\0\0\0");
        assert_eq!((bytes[40], bytes[56], get_u64(&bytes, 72), get_u64(&bytes, 80)), (1, 2, 65536, 10 << 20));
        assert_eq!((bytes[88], bytes[104], bytes[120]), (3, 4, 5));
    }

    #[test]
    fn what_this_program_does_not_know_is_refused_or_kept() {
        let mut bytes = header().encode();
        put_u32(&mut bytes, AT_VERSION, 2);
        let error = Header::decode("m", &resealed(bytes)).expect_err("version");
        assert!(error.class == Class::Refused && error.message.contains("version 2"), "{error}");
        let mut bytes = header().encode();
        put_u64(&mut bytes, AT_FEATURES + 16, 8);
        assert_eq!(Header::decode("m", &resealed(bytes)).expect_err("incompat").class, Class::Refused);
        let mut bytes = header().encode();
        put_u64(&mut bytes, AT_FEATURES, 8);
        put_u32(&mut bytes, AT_FLAGS, 0x8002);
        bytes[AT_RESERVED] = 7;
        let bytes = resealed(bytes);
        assert_eq!(Header::decode("m", &bytes).expect("compat").encode(), bytes);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = header().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode("m", &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_map_has_room_for_the_largest_volume_in_the_largest_blocks() {
        let block = BlockSize::new(limits::BLOCK_MAX).expect("block");
        let big = Identity { size: limits::VOLUME_SIZE, block, ..header().identity };
        big.check("m").expect("largest");
        assert!(Identity { block: BlockSize::DEFAULT, ..big }.check("m").is_err());
        let small = Identity { size: 1, ..header().identity };
        assert_eq!((small.blocks(), small.file_len()), (1, 4104));
    }
}
