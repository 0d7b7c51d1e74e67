//! Where a server listens: the word that protocols and transports share.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The address of a stream socket, before any name is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A host name, an IPv4 or an IPv6 address; the latter without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket. A first byte of zero means the name that follows in Linux's abstract namespace
    /// (`unix(7)`).
    Unix(PathBuf),
}

impl Address {
    /// The abstract name of a Unix socket, or `None` if `path` is one of the file system (`unix(7)`).
    pub fn abstract_name(path: &Path) -> Option<&[u8]> {
        path.as_os_str().as_bytes().strip_prefix(b"\0")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{}]:{port}", host.escape_debug()),
            Self::Tcp { host, port } => write!(f, "{}:{port}", host.escape_debug()),
            Self::Unix(path) => match Self::abstract_name(path) {
                Some(name) => write!(f, "unix:@{}", name.escape_ascii()),
                None => write!(f, "unix:{}", path.to_string_lossy().escape_debug()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_on_one_line() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 10809 }.to_string();
        assert_eq!(tcp("far"), "far:10809");
        assert_eq!(tcp("::1"), "[::1]:10809");
        assert_eq!(Address::Unix("/run/s".into()).to_string(), "unix:/run/s");
        assert_eq!(Address::Unix("\0a\nb".into()).to_string(), "unix:@a\\nb");
        assert_eq!(Address::Unix("/a\nb".into()).to_string(), "unix:/a\\nb");
    }
}
