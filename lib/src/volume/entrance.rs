//! Where the clients of a volume come in: sockets of our own, of socket activation, or standard input and output.

use super::options::{Entrance, ServeOptions};
use crate::base::Result;
use crate::control::VolumeDir;
use crate::transport::{self, Bound, Drained, Stdio};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Permissions of sockets: the owner alone.
pub(super) const SOCKET_MODE: u32 = 0o600;

/// Everything that is open for clients.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Where they connect.
    pub(super) listeners: Vec<OwnedFd>,
    /// The same for people.
    pub(super) uris: Vec<String>,
    /// The one client on standard input and output.
    pub(super) stdio: Option<OwnedFd>,
    /// What has to be waited for after it was closed.
    pub(super) drained: Option<Drained>,
    /// Sockets that go when serving ends.
    pub(super) files: Vec<Remove>,
}

/// A file that goes when serving ends.
#[derive(Debug)]
pub(super) struct Remove(pub(super) PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens everything; a Unix socket in the volume's directory if nothing was asked for. Classes: `Busy` if somebody
/// listens there already, `Refused` if others than asked for could come in, `Usage`, `Io`.
pub(super) fn open(options: &ServeOptions, sockets: &VolumeDir) -> Result<Doors> {
    match options.entrance {
        Entrance::Configured => configured(options, sockets),
        Entrance::Activated => activated(options),
        Entrance::Stdio => {
            let (socket, drained) = Stdio::take()?.into_parts();
            Ok(Doors { stdio: Some(socket), drained: Some(drained), ..Doors::default() })
        }
    }
}

fn configured(options: &ServeOptions, sockets: &VolumeDir) -> Result<Doors> {
    let config = &options.config;
    let mut doors = Doors::default();
    let unix = match &config.unix {
        Some(path) => Some(path.clone()),
        None if config.listen.is_empty() => Some(sockets.nbd_socket()?),
        None => None,
    };
    if let Some(path) = unix {
        doors.add(options, transport::listen_unix(&path, SOCKET_MODE)?);
        doors.files.push(Remove(path));
    }
    for listen in &config.listen {
        for address in listen.resolve(config.may_listen_widely())? {
            doors.add(options, transport::listen_tcp(&address)?);
        }
    }
    Ok(doors)
}

fn activated(options: &ServeOptions) -> Result<Doors> {
    let mut doors = Doors::default();
    for fd in transport::activated()? {
        if let Some(Bound::Tcp(address)) = transport::bound(&fd) {
            crate::config::listen::admit(&address, &address, options.config.may_listen_widely())?;
        }
        doors.add(options, fd);
    }
    Ok(doors)
}

impl Doors {
    fn add(&mut self, options: &ServeOptions, listener: OwnedFd) {
        self.uris.extend(transport::bound(&listener).map(|bound| uri(options, &bound)));
        self.listeners.push(listener);
    }
}

/// The NBD URI of a listener.
fn uri(options: &ServeOptions, bound: &Bound) -> String {
    match bound {
        Bound::Tcp(address) => format!("nbd://{address}/{}", options.name),
        Bound::Unix(path) => format!("nbd+unix:///{}?socket={}", options.name, escaped(path)),
    }
}

/// A path as the parameter of a URI.
fn escaped(path: &Path) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'~');
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|b| if plain(b) { char::from(*b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
