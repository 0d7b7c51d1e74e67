//! Names of volumes, legs and trackers.

use super::{Class, Error, Result, limits};
use std::fmt;
use std::str::FromStr;

/// A checked name: `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`, never `meta` (design.md section 11).
/// Safe as a file name and as part of an NBD export name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::new(Class::Usage, format!("{}: checking a name: {why}", text.escape_default())))
        };
        let mut bytes = text.bytes();
        match bytes.next() {
            None => return refuse("it is empty"),
            Some(b) if b.is_ascii_alphanumeric() || b == b'_' => {}
            Some(_) => return refuse("it must begin with a letter, a digit or _"),
        }
        if !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return refuse("only letters, digits, '.', '_' and '-' are allowed");
        }
        if text.len() > limits::NAME_LEN {
            return refuse("it is longer than 64 bytes");
        }
        if text == "meta" {
            return refuse("this name is reserved");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_design_says() {
        for good in ["a", "_x", "vol0", "far.leg-2", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "meta", "é", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
