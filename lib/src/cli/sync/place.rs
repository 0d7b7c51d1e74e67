//! How the ends of a copy are named: DEVICE of `cli.md`.

use crate::base::{Class, Error, Result, limits};
use crate::device::identity_of;
use crate::leg::LegDevice;
use crate::leg::far::{Reach, target};
use crate::sync::end::{End, Opening};
use crate::sync::ends::{FileEnd, NbdEnd, NullEnd, SshEnd};
use crate::transport::ssh::Target;
use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

/// Between the words of a command in brackets, while it is one argument: no word holds it.
const BETWEEN: char = '\u{1f}';

/// One end of a copy, by name. Reading the name touches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, a block device or an NBD export.
    Device(LegDevice),
    /// A file or a block device of another machine.
    Far(Target),
    /// `[ COMMAND … ]`: an NBD server that is started for this copy.
    Command(Vec<String>),
    /// `-`: standard input or output.
    Standard,
    /// `null:`: a target that keeps nothing.
    Null,
}

/// Joins the words of each `[ COMMAND … ]` to one argument, so that the options of the command are not taken for
/// ours. A bracket that is not closed is left alone, and refused where it is read.
pub fn join_brackets(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut open: Option<Vec<OsString>> = None;
    for word in words {
        match &mut open {
            None if word == "[" => open = Some(vec![word]),
            None => joined.push(word),
            Some(command) => {
                let last = word == "]";
                command.push(word);
                if last {
                    let between = BETWEEN.to_string();
                    joined.push(open.take().unwrap_or_default().join(&OsString::from(between)));
                }
            }
        }
    }
    joined.extend(open.into_iter().flatten());
    joined
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let refuse = |why| Error::new(Class::Usage, format!("[: reading a device: {why}"));
            let words = inner.strip_suffix(']').ok_or_else(|| refuse("']' is missing"))?;
            let words: Vec<_> = words.split([BETWEEN, ' ']).filter(|word| !word.is_empty()).collect();
            let exact: Vec<_> = inner[..inner.len() - 1].split(BETWEEN).map(ToOwned::to_owned).collect();
            return match exact.as_slice() {
                // Joined by us: the first and the last are empty.
                [_, command @ .., _] if !command.is_empty() => Ok(Self::Command(command.to_vec())),
                // Given as one argument.
                _ if !words.is_empty() => {
                    Ok(Self::Command(words.into_iter().map(ToOwned::to_owned).collect()))
                }
                _ => Err(refuse("no command in the brackets")),
            };
        }
        if let Some(target) = target(text)? {
            return Ok(Self::Far(target));
        }
        match text {
            "-" => Ok(Self::Standard),
            "null:" => Ok(Self::Null),
            _ => text.parse::<LegDevice>().and_then(LegDevice::absolute).map(Self::Device),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => device.fmt(f),
            Self::Far(target) => target.fmt(f),
            Self::Command(words) => write!(f, "[ {} ]", words.join(" ")),
            Self::Standard => f.write_str("-"),
            Self::Null => f.write_str("null:"),
        }
    }
}

impl Place {
    /// Whether its bytes come or go in order only.
    pub const fn is_stream(&self) -> bool {
        matches!(self, Self::Standard)
    }

    /// Opens it.
    pub fn open(&self, opening: Opening, reach: &Reach) -> Result<Box<dyn End>> {
        Ok(match self {
            Self::Device(LegDevice::File(path)) => Box::new(FileEnd::open(path, opening)?),
            Self::Device(LegDevice::Nbd(uri)) => Box::new(NbdEnd::open_over(uri, opening, &reach.dial)?),
            Self::Far(target) => Box::new(SshEnd::open(target, reach, opening)?),
            Self::Command(command) => Box::new(NbdEnd::start(command, opening)?),
            Self::Null if opening.write => Box::new(NullEnd::new(opening.depth)),
            Self::Null => {
                return Err(Error::new(Class::Usage, "null:: opening it: there is nothing to read in it"));
            }
            Self::Standard => {
                return Err(Error::new(
                    Class::Usage,
                    "-: opening it: a stream cannot be read or written here",
                ));
            }
        })
    }

    /// Its identity before it is opened, where that can be known: one that is opened twice would be busy.
    pub fn identity(&self) -> Option<String> {
        match self {
            Self::Device(LegDevice::File(path)) => identity_of(path),
            _ => None,
        }
    }

    /// What a lock against a second run on it is named after, where its own side keeps no lock.
    pub fn lock_name(&self) -> Option<String> {
        match self {
            Self::Device(LegDevice::Nbd(uri)) => Some(uri.clone()),
            _ => None,
        }
    }
}

/// A number of connections or requests.
pub fn few(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) if (1..=limits::SYNC_DEPTH).contains(&number) => Ok(number),
        _ => Err(Error::new(
            Class::Usage,
            format!("{}: reading a number: not from 1 to {}", text.escape_debug(), limits::SYNC_DEPTH),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &[&str]) -> Vec<String> {
        let joined = join_brackets(words.iter().map(OsString::from));
        joined.into_iter().map(|word| word.into_string().expect("UTF-8")).collect()
    }

    #[test]
    fn a_command_in_brackets_is_one_word_and_keeps_its_options() {
        let words = joined(&["x", "--full", "[", "nbdkit", "-U", "-", "file", "/a b", "]", "-", "null:"]);
        assert_eq!(words.len(), 5);
        let places: Vec<Place> = words[2..].iter().map(|word| word.parse().expect("place")).collect();
        let command = ["nbdkit", "-U", "-", "file", "/a b"].map(ToOwned::to_owned).to_vec();
        assert_eq!(places, [Place::Command(command), Place::Standard, Place::Null]);
        assert_eq!(places[0].to_string(), "[ nbdkit -U - file /a b ]");
        assert_eq!("[ a b ]".parse::<Place>().expect("one"), Place::Command(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn brackets_that_are_empty_or_open_are_refused() {
        assert_eq!(joined(&["x", "[", "a"]), ["x", "[", "a"]);
        for text in ["[", "[]", "[ ]", "[\u{1f}]", "[ a"] {
            assert_eq!(text.parse::<Place>().expect_err(text).class, Class::Usage);
        }
        assert_eq!("".parse::<Place>().expect_err("empty").class, Class::Usage);
    }
}
