//! Fields of fixed headers: little-endian numbers, identities, feature words and checksums, at offsets that the
//! format's own module names. An offset past the end of the buffer is a bug of the caller, and panics.

use crate::base::{Class, Error, Id, Result};

/// Reads 32 bits, little-endian.
pub fn get_u32(from: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&from[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// Writes 32 bits, little-endian.
pub fn put_u32(to: &mut [u8], at: usize, value: u32) {
    to[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Reads 64 bits, little-endian.
pub fn get_u64(from: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&from[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Writes 64 bits, little-endian.
pub fn put_u64(to: &mut [u8], at: usize, value: u64) {
    to[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reads an identity.
pub fn get_id(from: &[u8], at: usize) -> Id {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&from[at..at + 16]);
    Id(bytes)
}

/// Writes an identity.
pub fn put_id(to: &mut [u8], at: usize, id: Id) {
    to[at..at + 16].copy_from_slice(&id.0);
}

/// The first eight bytes of the BLAKE3 digest: enough against torn writes and rot, no defence against malice.
pub fn checksum(bytes: &[u8]) -> u64 {
    get_u64(blake3::hash(bytes).as_bytes(), 0)
}

/// The three feature words of a header. Bits may be defined later without a new version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Unknown bits are kept and mean nothing to this reader.
    pub compat: u64,
    /// With unknown bits the file may be read, not changed.
    pub ro_compat: u64,
    /// With unknown bits the file is refused.
    pub incompat: u64,
}

/// Bytes that [`Features`] takes in a header: compat, ro-compat, incompat.
pub const FEATURES_LEN: usize = 24;

impl Features {
    /// Reads the three words at `at`.
    pub fn get(from: &[u8], at: usize) -> Self {
        Self { compat: get_u64(from, at), ro_compat: get_u64(from, at + 8), incompat: get_u64(from, at + 16) }
    }

    /// Writes the three words at `at`.
    pub fn put(self, to: &mut [u8], at: usize) {
        put_u64(to, at, self.compat);
        put_u64(to, at + 8, self.ro_compat);
        put_u64(to, at + 16, self.incompat);
    }

    /// Refuses incompatible features outside `known`.
    pub fn check_readable(self, object: &str, known: u64) -> Result<()> {
        if self.incompat & !known == 0 {
            return Ok(());
        }
        Err(Error::new(
            Class::Refused,
            format!(
                "{object}: checking its features: it needs incompatible features {:#x}, this program knows {known:#x}",
                self.incompat
            ),
        ))
    }

    /// Refuses a change of a file with ro-compatible features outside `known`.
    pub fn check_writable(self, object: &str, known: u64) -> Result<()> {
        if self.ro_compat & !known == 0 {
            return Ok(());
        }
        Err(Error::new(
            Class::Refused,
            format!(
                "{object}: changing it: it has read-only compatible features {:#x}, this program knows {known:#x}",
                self.ro_compat
            ),
        ))
    }
}

/// Refuses a version other than `known`, naming both.
pub fn check_version(object: &str, found: u32, known: u32) -> Result<()> {
    if found == known {
        return Ok(());
    }
    Err(Error::new(
        Class::Refused,
        format!("{object}: checking its version: it is version {found}, this program knows version {known}"),
    ))
}

/// An error of class `Damaged` that names both values.
pub fn differs(
    object: &str,
    field: &str,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> Error {
    Error::new(Class::Damaged, format!("{object}: checking its {field}: found {found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian() {
        let mut buf = [0u8; 40];
        put_u32(&mut buf, 1, 0x0403_0201);
        put_u64(&mut buf, 8, 0x0807_0605_0403_0201);
        assert_eq!(&buf[1..5], &[1, 2, 3, 4]);
        assert_eq!(&buf[8..16], &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(get_u32(&buf, 1), 0x0403_0201);
        assert_eq!(get_u64(&buf, 8), 0x0807_0605_0403_0201);
        let id = Id([7; 16]);
        put_id(&mut buf, 20, id);
        assert_eq!(get_id(&buf, 20), id);
    }

    #[test]
    fn refusals_name_both_values() {
        let f = Features { incompat: 4, ro_compat: 2, ..Features::default() };
        let error = f.check_readable("x", 1).expect_err("unknown");
        assert!(error.message.contains("0x4") && error.message.contains("0x1"), "{error}");
        assert!(f.check_writable("x", 0).is_err());
        assert!(f.check_readable("x", 4).is_ok() && f.check_writable("x", 2).is_ok());
        assert_eq!(check_version("x", 9, 1).expect_err("version").class, Class::Refused);
    }
}
