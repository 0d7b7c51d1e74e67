//! What stands behind a leg: `PATH`, `file:PATH` or an NBD URI (`cli.md` section 1). Parsing touches nothing.

use crate::base::{Class, Error, Result, limits};
use crate::nbd::NbdUri;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What stands behind a leg.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LegDevice {
    /// An image file or a block device of this machine.
    File(PathBuf),
    /// An NBD export; the text of its URI, read by `nbd`'s own room.
    Nbd(String),
}

impl LegDevice {
    /// The same device with an absolute path, so that it means the same from every working directory.
    pub fn absolute(self) -> Result<Self> {
        match self {
            Self::File(path) => std::path::absolute(&path)
                .map(Self::File)
                .map_err(|e| Error::io(path.display(), "finding its absolute path", e)),
            Self::Nbd(uri) => Ok(Self::Nbd(uri)),
        }
    }

    /// Whether both name the same thing as far as their words say: an NBD export may be written in several ways.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nbd(one), Self::Nbd(two)) if one != two => {
                matches!((one.parse::<NbdUri>(), two.parse::<NbdUri>()), (Ok(one), Ok(two)) if one.is_same_export(&two))
            }
            _ => self == other,
        }
    }

    /// Whether this word of a leg begins a further address: no key of a leg holds `://`.
    pub(super) fn is_uri(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
    }

    /// Whether it is on this machine.
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl FromStr for LegDevice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse =
            |why: &str| Error::new(Class::Usage, format!("{}: reading a device: {why}", text.escape_debug()));
        if text.len() > limits::DEVICE_TEXT {
            let (is, most) = (text.len(), limits::DEVICE_TEXT);
            return Err(Error::new(
                Class::Usage,
                format!("reading a device: {is} bytes long, at most {most} are allowed"),
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("it holds a control character"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() {
                Err(refuse("the path is empty"))
            } else {
                Ok(Self::File(PathBuf::from(path)))
            };
        }
        match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => from_uri(text, scheme, rest).map_err(|w| refuse(&w)),
            _ => from_path(text).map_err(refuse),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn from_path(text: &str) -> std::result::Result<LegDevice, &'static str> {
    match text {
        "" => Err("it is empty"),
        "-" => Err("a leg cannot be standard input or output"),
        "null:" => Err("a leg cannot be null:"),
        _ if text.starts_with('[') => {
            Err("a leg cannot be a [ COMMAND ]; start the server on a socket and use nbd+unix://")
        }
        _ => Ok(LegDevice::File(PathBuf::from(text))),
    }
}

fn from_uri(text: &str, scheme: &str, rest: &str) -> std::result::Result<LegDevice, String> {
    match scheme {
        "nbd" | "nbd+unix" | "nbds" | "nbds+unix" => {}
        "nbd+ssh" | "ssh" => return Err("legs over SSH are not supported; forward a socket".into()),
        _ => {
            return Err(format!(
                "unknown scheme '{scheme}'; known are nbd, nbds, nbd+unix and nbds+unix, and file:PATH for any path"
            ));
        }
    }
    if rest.contains(char::is_whitespace) {
        return Err("a URI holds no space; write %20".into());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    for part in [user, host] {
        if part.starts_with('-') || part.get(..3).is_some_and(|p| p.eq_ignore_ascii_case("%2d")) {
            return Err("a host that begins with '-' is refused".into());
        }
    }
    if matches!(scheme, "nbd" | "nbds") && host.is_empty() {
        return Err("the host is missing".into());
    }
    Ok(LegDevice::Nbd(text.to_owned()))
}

impl fmt::Display for LegDevice {
    /// The shortest form that reads back as the same device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) if path.is_absolute() => write!(f, "{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Nbd(uri) => f.write_str(uri),
        }
    }
}

impl serde::Serialize for LegDevice {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for LegDevice {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_paths_or_uris() {
        for (text, is) in [
            ("/srv/a.img", LegDevice::File("/srv/a.img".into())),
            ("file:nbd://x", LegDevice::File("nbd://x".into())),
            ("file:-", LegDevice::File("-".into())),
            ("a=b", LegDevice::File("a=b".into())),
            ("nbd://h:10809/x", LegDevice::Nbd("nbd://h:10809/x".into())),
            ("nbds://h/x?tls-hostname=y", LegDevice::Nbd("nbds://h/x?tls-hostname=y".into())),
            ("nbd+unix:///x?socket=/run/s", LegDevice::Nbd("nbd+unix:///x?socket=/run/s".into())),
        ] {
            let device: LegDevice = text.parse().expect(text);
            assert_eq!(device, is);
            assert_eq!(device.to_string().parse::<LegDevice>().expect("again"), is);
        }
    }

    #[test]
    fn devices_that_cannot_be_legs_are_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            ("-", "standard input"),
            ("null:", "null:"),
            ("[ nbdkit null ]", "COMMAND"),
            ("file:", "path is empty"),
            ("nbds:///x", "host is missing"),
            ("nbd+ssh://h/x", "SSH"),
            ("http://h/x", "unknown scheme 'http'"),
            ("nbd://-oProxyCommand=x/y", "begins with '-'"),
            ("nbd://%2Dx/y", "begins with '-'"),
            ("nbd://-u@h/y", "begins with '-'"),
            ("nbd:///x", "host is missing"),
            ("nbd://h/a b", "space"),
            ("/a\nb", "control character"),
        ] {
            let error = text.parse::<LegDevice>().expect_err(text);
            assert_eq!(error.class, Class::Usage);
            assert!(error.message.contains(why), "{text}: {error}");
            assert!(!error.message.contains('\n'));
        }
    }
}
