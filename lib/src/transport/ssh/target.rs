//! `ssh://[USER@]HOST[:PORT]/PATH`. Parsing touches nothing.

use crate::base::{Class, Error, Result, limits};
use std::fmt;
use std::str::FromStr;

/// Something on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Who one is over there; the configuration or one's own name otherwise.
    pub user: Option<String>,
    /// A name, an address (IPv6 without brackets), or an alias of `~/.ssh/config`.
    pub host: String,
    /// The port; the configuration or 22 otherwise.
    pub port: Option<u16>,
    /// What it is over there. Begins with a slash; never part of a command line.
    pub path: Vec<u8>,
}

impl Target {
    /// Whether a text is meant to be one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("ssh://")
    }
}

/// A user or a host: nothing that a program could take for an option, or a shell for more than a word.
fn is_word(text: &str) -> bool {
    let usual = |c: char| c.is_alphanumeric() || "._-+:%@".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(usual)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        if *byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok().filter(|_| !hex.contains('+'))?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}

impl FromStr for Target {
    type Err = Error;

    /// Class `Usage` for anything else. In the path `%XX` stands for a byte.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(Class::Usage, format!("{}: reading an ssh:// address: {why}", text.escape_debug()))
        };
        let rest = text.strip_prefix("ssh://").ok_or_else(|| refuse("it does not begin with ssh://"))?;
        if text.len() > limits::DEVICE_TEXT {
            return Err(refuse("it is too long"));
        }
        let (authority, path) = rest.split_once('/').ok_or_else(|| refuse("the path is missing"))?;
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(refuse("a password has no place in it"));
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| refuse("the bracket is not closed"))?;
                (host, port)
            }
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| refuse("the port"))?),
            None => return Err(refuse("what follows the bracket")),
        };
        for word in [Some(host), user].into_iter().flatten() {
            if word.starts_with('-') {
                return Err(refuse("a host or user that begins with '-' is refused"));
            }
            if !is_word(word) {
                return Err(refuse("the host or user"));
            }
        }
        let path = decode(&format!("/{path}")).ok_or_else(|| refuse("what follows a % in the path"))?;
        if path.contains(&0) {
            return Err(refuse("a zero in the path"));
        }
        Ok(Self { user: user.map(ToOwned::to_owned), host: host.to_owned(), port, path })
    }
}

impl fmt::Display for Target {
    /// Reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        f.write_str(&host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.path.utf8_chunks().try_for_each(|chunk| {
            for c in chunk.valid().chars() {
                match c {
                    '%' => f.write_str("%25")?,
                    c if c.is_control() => write!(f, "%{:02X}", c as u32)?,
                    c => write!(f, "{c}")?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "%{byte:02X}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_prints() {
        for (text, user, host, port, path) in [
            ("ssh://far/srv/a.img", None, "far", None, &b"/srv/a.img"[..]),
            ("ssh://me@far:2222/dev/vg/lv", Some("me"), "far", Some(2222), b"/dev/vg/lv"),
            ("ssh://a@b@[::1]:22/", Some("a@b"), "::1", Some(22), b"/"),
            ("ssh://h/a%20b%25%FF", None, "h", None, b"/a b%\xff"),
            ("ssh://h//x", None, "h", None, b"//x"),
        ] {
            let target: Target = text.parse().expect(text);
            let is = (target.user.as_deref(), &target.host[..], target.port, &target.path[..]);
            assert_eq!(is, (user, host, port, path));
            assert_eq!(target.to_string().parse::<Target>().expect("again"), target);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("ssh://far", "path is missing"),
            ("ssh:///x", "host or user"),
            ("ssh://-oProxyCommand=x/y", "begins with '-'"),
            ("ssh://-u@far/y", "begins with '-'"),
            ("ssh://me:secret@far/y", "password"),
            ("ssh://far:0/y", "port"),
            ("ssh://far:x/y", "port"),
            ("ssh://[::1/y", "bracket"),
            ("ssh://[::1]x/y", "bracket"),
            ("ssh://a b/y", "host or user"),
            ("ssh://a;b/y", "host or user"),
            ("ssh://h/%0", "follows a %"),
            ("ssh://h/%+1", "follows a %"),
            ("ssh://h/%00", "zero"),
            ("nbd://h/x", "ssh://"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert_eq!(error.class, Class::Usage);
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }
}
