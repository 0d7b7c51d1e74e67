//! Connecting.

use super::{tune_tcp, tune_unix};
use crate::base::{Address, Class, Error, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One resolved address to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket; a first byte of zero means an abstract name ([`Address::Unix`]).
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => Address::Unix(path.clone()).fmt(f),
        }
    }
}

/// The addresses of a host in the order to try them, at least one. **May wait** for a name server when the host
/// is a name; numbers and Unix sockets never do, so an event loop resolves names in a thread of its own. An
/// error is of class `Connect`.
pub fn resolve(address: &Address) -> Result<Vec<Endpoint>> {
    match address {
        Address::Unix(path) => Ok(vec![Endpoint::Unix(path.clone())]),
        Address::Tcp { host, port } => {
            let found = (host.as_str(), *port)
                .to_socket_addrs()
                .map_err(|e| Error::os(Class::Connect, address, "resolving the host's name", e))?;
            let mut endpoints: Vec<Endpoint> = Vec::new();
            for endpoint in found.map(Endpoint::Tcp) {
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
            }
            if endpoints.is_empty() {
                return Err(Error::new(
                    Class::Connect,
                    format!("{address}: resolving the host's name: it has no address"),
                ));
            }
            Ok(endpoints)
        }
    }
}

/// Begins to connect (`connect(2)`). When the descriptor is writable, [`finish`] says how it went; a connection
/// that is made at once is writable at once. An error is of class `Connect`, or `Busy` if a Unix listener's
/// backlog is full: try again later.
pub fn connect(endpoint: &Endpoint) -> Result<OwnedFd> {
    let failed = |error: Errno| {
        let class = if error == Errno::AGAIN { Class::Busy } else { Class::Connect };
        Error::os(class, endpoint, "connecting", error)
    };
    let fd = match endpoint {
        Endpoint::Tcp(address) => {
            let fd = stream(family(address)).map_err(failed)?;
            tune_tcp(&fd).map_err(failed)?;
            started(rustix::net::connect(&fd, address)).map_err(failed)?;
            fd
        }
        Endpoint::Unix(path) => {
            let address = unix_address(path).map_err(failed)?;
            let fd = stream(AddressFamily::UNIX).map_err(failed)?;
            tune_unix(&fd);
            started(rustix::net::connect(&fd, &address)).map_err(failed)?;
            fd
        }
    };
    Ok(fd)
}

/// How a connection that was begun ended (`SO_ERROR`); call it when the descriptor is writable.
pub fn finish(fd: impl AsFd) -> Result<()> {
    let failed = |error: Errno| Error::os(Class::Connect, "socket", "connecting", error);
    sockopt::socket_error(fd).map_err(failed)?.map_err(failed)
}

fn started(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        // A signal does not stop a connection under way.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(()),
        other => other,
    }
}

pub(super) const fn family(address: &SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

pub(super) fn stream(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

pub(super) fn unix_address(path: &Path) -> rustix::io::Result<SocketAddrUnix> {
    match Address::abstract_name(path) {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(path.as_os_str().as_bytes()),
    }
}
