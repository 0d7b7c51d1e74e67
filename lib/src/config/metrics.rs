//! Where figures for monitoring go: an address that is asked over HTTP, or a file that is written anew.

use super::Listen;
use crate::base::{Class, Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `HOST:PORT`, `unix:PATH`, or the path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsTo {
    /// Answers HTTP here.
    Tcp(Listen),
    /// Answers HTTP on this socket.
    Unix(PathBuf),
    /// Writes this file, whole each time, for a textfile collector.
    File(PathBuf),
}

impl MetricsTo {
    /// The same with an absolute path.
    pub fn absolute(self) -> Result<Self> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|e| Error::io(path.display(), "finding its absolute path", e))
        };
        Ok(match self {
            Self::Tcp(listen) => Self::Tcp(listen),
            Self::Unix(path) => Self::Unix(absolute(path)?),
            Self::File(path) => Self::File(absolute(path)?),
        })
    }
}

impl FromStr for MetricsTo {
    type Err = Error;

    /// What holds a `/` is a file; an address always names its port.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(Class::Usage, format!("{}: reading where metrics go: {why}", text.escape_debug()))
        };
        if text.contains('\0') {
            return Err(bad("a zero byte in it"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad("no path")) } else { Ok(Self::Unix(path.into())) };
        }
        if text.contains('/') {
            if text.ends_with('/') {
                return Err(bad("it is a directory: name the file, as in DIRECTORY/vol0.prom"));
            }
            return Ok(Self::File(text.into()));
        }
        if !text.rsplit(']').next().is_some_and(|rest| rest.contains(':')) {
            return Err(bad("not HOST:PORT, unix:PATH or the path of a file"));
        }
        Ok(Self::Tcp(text.parse()?))
    }
}

impl fmt::Display for MetricsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listen) => listen.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_socket_and_a_file_are_told_apart() {
        for text in
            ["localhost:9942", "[::1]:9942", "unix:/run/m.sock", "/var/lib/x/vol0.prom", "./vol0.prom"]
        {
            let to: MetricsTo = text.parse().expect(text);
            assert_eq!(to.to_string(), text);
        }
        assert_eq!(":1".parse::<MetricsTo>().expect("port").to_string(), "localhost:1");
        for bad in ["", "vol0.prom", "localhost", "[::1]", "unix:", "/dir/", "h:x", "a\0/b"] {
            assert_eq!(bad.parse::<MetricsTo>().expect_err(bad).class, Class::Usage);
        }
    }
}
