//! Bytes, blocks and the way they are written: powers of 1024, never sectors.

use super::{Class, Error, Result, limits};
use std::fmt;

/// A range of bytes of a volume. `offset + len` never overflows: [`ByteRange::new`] checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; may be zero.
    pub len: u64,
}

impl ByteRange {
    /// A range, or `None` if its end does not fit in 64 bits.
    pub const fn new(offset: u64, len: u64) -> Option<Self> {
        match offset.checked_add(len) {
            Some(_) => Some(Self { offset, len }),
            None => None,
        }
    }

    /// The byte after the last one.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Whether it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both hold a common byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Whether every byte of `other` is in this range.
    pub const fn contains(&self, other: &Self) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.len)
    }
}

/// The size of a map's block in bytes: a power of two between [`limits::BLOCK_MIN`] and
/// [`limits::BLOCK_MAX`]; kept as its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u8);

impl BlockSize {
    /// 64 KiB.
    pub const DEFAULT: Self = Self(16);

    /// Checks a size in bytes.
    pub fn new(bytes: u64) -> Result<Self> {
        if bytes.is_power_of_two() && (limits::BLOCK_MIN..=limits::BLOCK_MAX).contains(&bytes) {
            Ok(Self(bytes.trailing_zeros() as u8))
        } else {
            Err(Error::new(
                Class::Usage,
                format!(
                    "block size {bytes}: must be a power of two between {} and {} bytes",
                    limits::BLOCK_MIN,
                    limits::BLOCK_MAX
                ),
            ))
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Base-2 logarithm.
    pub const fn shift(self) -> u32 {
        self.0 as u32
    }

    /// The number of blocks that cover `size` bytes; the last may be shorter.
    pub const fn count(self, size: u64) -> u64 {
        size.div_ceil(self.bytes())
    }

    /// The block that holds the byte at `offset`.
    pub const fn index(self, offset: u64) -> u64 {
        offset >> self.0
    }

    /// The blocks that a range touches, as first and one past the last. Empty for an empty range.
    pub const fn cover(self, range: &ByteRange) -> std::ops::Range<u64> {
        if range.len == 0 {
            return 0..0;
        }
        self.index(range.offset)..self.index(range.end() - 1) + 1
    }

    /// The blocks that lie in a range as a whole, of a volume of `size` bytes; the short last one counts when the
    /// range reaches to the end. Empty if none does.
    pub const fn within(self, range: &ByteRange, size: u64) -> std::ops::Range<u64> {
        let end = if range.end() == size { self.count(size) } else { self.index(range.end()) };
        let start = self.count(range.offset);
        start..if end < start { start } else { end }
    }

    /// The bytes of blocks `first..end` of a volume of `size` bytes; the last block may be cut by the size.
    pub const fn range(self, blocks: &std::ops::Range<u64>, size: u64) -> ByteRange {
        let offset = blocks.start << self.0;
        let end = blocks.end << self.0;
        let end = if end > size { size } else { end };
        ByteRange { offset, len: end.saturating_sub(offset) }
    }
}

/// Reads `512`, `64K`, `1.5G`, …; K M G T P are powers of 1024, case does not matter.
pub fn parse_size(text: &str) -> Result<u64> {
    let bad =
        |why: &str| Error::new(Class::Usage, format!("{}: reading a size: {why}", text.escape_default()));
    let (number, unit) = match text.char_indices().last() {
        Some((at, c)) if c.is_ascii_alphabetic() => (&text[..at], Some(c.to_ascii_uppercase())),
        Some(_) => (text, None),
        None => return Err(bad("it is empty")),
    };
    let shift = match unit {
        None => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some('P') => 50,
        Some(_) => return Err(bad("the unit is not one of K M G T P")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| !s.is_empty() && s.len() <= 20 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && (!digits(fraction) || fraction.len() > 9)) {
        return Err(bad("not a number of bytes"));
    }
    let whole: u128 = whole.parse().map_err(|_| bad("not a number of bytes"))?;
    let mut bytes = whole << shift;
    if !fraction.is_empty() {
        let scale = 10u128.pow(fraction.len() as u32);
        let part: u128 = fraction.parse().map_err(|_| bad("not a number of bytes"))?;
        if !(part << shift).is_multiple_of(scale) {
            return Err(bad("not a whole number of bytes"));
        }
        bytes += (part << shift) / scale;
    }
    u64::try_from(bytes).map_err(|_| bad("larger than 64 bits"))
}

/// Writes a number of bytes for a person: `512 B`, `64 KiB`, `1.5 GiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = (1..=6).rev().find(|p| bytes >= 1 << (10 * p)) else {
        return format!("{bytes} B");
    };
    let unit = UNITS[power - 1];
    let scale = 1u128 << (10 * power);
    let tenths = (u128::from(bytes) * 10 + scale / 2) / scale;
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Reads a duration: `500ms`, `5s`, `2m`, `1h`, or plain seconds. In milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64> {
    let bad = || {
        Error::new(
            Class::Usage,
            format!("{}: reading a duration: not like 500ms, 5s, 2m, 1h", text.escape_default()),
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(scale).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_in_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64K", 65536), ("64k", 65536), ("1.5M", 1_572_864), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for bad in ["", "K", "-1", "1.1", "1X", "1..2K", "99999999P", "1 K", "0x10"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(65536), "64 KiB");
        assert_eq!(show_size(1_572_864), "1.5 MiB");
        assert_eq!(show_size(u64::MAX), "16 EiB");
    }

    #[test]
    fn blocks_cover_ranges_outwards() {
        let block = BlockSize::DEFAULT;
        assert_eq!(block.cover(&ByteRange { offset: 65535, len: 2 }), 0..2);
        assert_eq!(block.cover(&ByteRange { offset: 65536, len: 65536 }), 1..2);
        assert_eq!(block.cover(&ByteRange { offset: 5, len: 0 }), 0..0);
        assert_eq!(block.range(&(1..3), 100_000), ByteRange { offset: 65536, len: 34464 });
        assert!(BlockSize::new(3000).is_err());
    }

    #[test]
    fn durations_read_in_milliseconds() {
        assert_eq!(parse_duration_ms("500ms").expect("ms"), 500);
        assert_eq!(parse_duration_ms("5").expect("s"), 5000);
        assert!(parse_duration_ms("5 s").is_err());
        assert!(parse_duration_ms("").is_err());
    }
}
