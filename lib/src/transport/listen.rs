//! Listening and accepting.

use super::dial::{family, stream, unix_address};
use super::tune_tcp;
use crate::base::{Address, Class, Error, Result, limits};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, sockopt};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// From this address; IPv4 inside IPv6 is shown as IPv4.
    Tcp(SocketAddr),
    /// Through a Unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// On this address; the system may have chosen the port.
    Tcp(SocketAddr),
    /// On this socket, perhaps an abstract one ([`Address::Unix`]).
    Unix(PathBuf),
}

/// Where a listener listens; `None` if the system does not say.
pub fn bound(listener: impl AsFd) -> Option<Bound> {
    let any = rustix::net::getsockname(listener).ok()?;
    if let Ok(address) = SocketAddr::try_from(any.clone()) {
        return Some(Bound::Tcp(address));
    }
    let unix = SocketAddrUnix::try_from(any).ok()?;
    if let Some(name) = unix.abstract_name() {
        let path = [b"\0", name].concat();
        return Some(Bound::Unix(OsString::from_vec(path).into()));
    }
    unix.path_bytes().map(|path| Bound::Unix(OsString::from_vec(path.to_vec()).into()))
}

/// Listens on a Unix socket with the given permissions (0600 for the owner alone); nobody can connect before
/// they hold. A path in the abstract namespace ([`Address::Unix`]) has no permissions: check the peer's uid.
///
/// A socket that is left over is removed, but only if it is one and nobody listens on it. Classes: `Busy` if
/// somebody does, `Refused` if the path is something else than a socket, `Io`.
pub fn listen_unix(path: &Path, mode: u32) -> Result<OwnedFd> {
    let name = Address::Unix(path.to_owned());
    let failed = |error: Errno| {
        let class = if error == Errno::ADDRINUSE { Class::Busy } else { Class::Io };
        Error::os(class, &name, "listening", error)
    };
    let address = unix_address(path).map_err(failed)?;
    let fd = stream(AddressFamily::UNIX).map_err(failed)?;
    if Address::abstract_name(path).is_some() {
        rustix::net::bind(&fd, &address).map_err(failed)?;
    } else {
        // Between another process's bind and its listen its socket looks left over: one at a time.
        let _lock = lock_directory(path, &name)?;
        match rustix::net::bind(&fd, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address, &name)?;
                rustix::net::bind(&fd, &address).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|e| Error::io(&name, "setting permissions", e))?;
        rustix::net::listen(&fd, limits::BACKLOG).map_err(failed)?;
        return Ok(fd);
    }
    rustix::net::listen(&fd, limits::BACKLOG).map_err(failed)?;
    Ok(fd)
}

/// Locks the directory of a socket (`flock(2)`), to keep out others that run this code.
fn lock_directory(path: &Path, name: &Address) -> Result<OwnedFd> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&parent, flags, Mode::empty())
        .map_err(|e| Error::io(name, "opening its directory", e))?;
    let until = Instant::now() + Duration::from_millis(limits::LISTEN_WAIT_MS);
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Error::os(Class::Busy, name, "locking its directory", error)),
        }
    }
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path, address: &SocketAddrUnix, name: &Address) -> Result<()> {
    let kind = std::fs::symlink_metadata(path).map_err(|e| Error::io(name, "looking at it", e))?.file_type();
    if !kind.is_socket() {
        return Err(Error::new(Class::Refused, format!("{name}: listening: it exists and is not a socket")));
    }
    let probe = stream(AddressFamily::UNIX).map_err(|e| Error::io(name, "probing it", e))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(|e| Error::io(name, "removing it", e)),
        // Somebody gone in between has made room.
        Err(Errno::NOENT) => Ok(()),
        // Connected, or a backlog that is full: alive. Anything else: cannot tell, so it stays.
        _ => Err(Error::new(Class::Busy, format!("{name}: listening: another server answers there"))),
    }
}

/// Listens on a TCP port; port 0 lets the system choose (`rustix::net::getsockname` tells). An error is of
/// class `Busy` if the port is taken, else `Io`.
pub fn listen_tcp(address: &SocketAddr) -> Result<OwnedFd> {
    let failed = |error: Errno| {
        let class = if error == Errno::ADDRINUSE { Class::Busy } else { Class::Io };
        Error::os(class, address, "listening", error)
    };
    let fd = stream(family(address)).map_err(failed)?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(failed)?;
    rustix::net::bind(&fd, address).map_err(failed)?;
    rustix::net::listen(&fd, limits::BACKLOG).map_err(failed)?;
    Ok(fd)
}

/// The next connection, or `None` if none waits. An error (class `Io`; `Busy` when descriptors or memory ran
/// out) leaves the listener usable.
pub fn accept(listener: impl AsFd) -> Result<Option<(OwnedFd, Peer)>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match rustix::net::acceptfrom_with(&listener, flags) {
            Ok((fd, from)) => {
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                let Some(mut from) = from else { return Ok(Some((fd, Peer::Unix))) };
                // A peer that has gone already shows on the first read.
                let _ = tune_tcp(&fd);
                from.set_ip(from.ip().to_canonical());
                return Ok(Some((fd, Peer::Tcp(from))));
            }
            Err(Errno::AGAIN) => return Ok(None),
            // That connection is gone; the next may be good (`accept(2)`, "Error handling").
            Err(error) if gone(error) => {}
            Err(error) => {
                let spent = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&error);
                let class = if spent { Class::Busy } else { Class::Io };
                return Err(Error::os(class, "listener", "accepting a connection", error));
            }
        }
    }
}

fn gone(error: Errno) -> bool {
    [
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::PERM,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NONET,
    ]
    .contains(&error)
}
