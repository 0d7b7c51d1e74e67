//! Where the clients of a volume come in: sockets of our own, of socket activation, or standard input and output.

use super::options::{Entrance, ServeOptions};
use crate::base::{Name, Result};
use crate::config::VolumeConfig;
use crate::control::VolumeDir;
use crate::transport::tls::ServerTls;
use crate::transport::{self, Bound, Drained, Stdio};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Permissions of sockets: the owner alone.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// Everything that is open for clients.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// Where they connect.
    pub(crate) listeners: Vec<Door>,
    /// What clients that come over TCP must speak first.
    pub(crate) tls: Option<ServerTls>,
    /// The one client on standard input and output.
    pub(crate) stdio: Option<OwnedFd>,
    /// What has to be waited for after it was closed.
    pub(crate) drained: Option<Drained>,
}

/// A place where clients connect.
#[derive(Debug)]
pub(crate) struct Door {
    /// As the configuration has it.
    pub(crate) place: Place,
    /// The listener.
    pub(crate) fd: OwnedFd,
    /// The same for people, as an NBD URI.
    pub(crate) uri: String,
    /// Its socket, which goes with it.
    _file: Option<Remove>,
}

/// What a listener was opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This address, perhaps with a port that the system chooses.
    Tcp(SocketAddr),
    /// This socket.
    Unix(PathBuf),
    /// Somebody else opened it.
    Given,
}

/// A file that goes when serving ends.
#[derive(Debug)]
pub(crate) struct Remove(pub(crate) PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens everything; a Unix socket in the volume's directory if nothing was asked for. Classes: `Busy` if somebody
/// listens there already, `Refused` if others than asked for could come in, `Usage`, `Io`.
pub(crate) fn open(options: &ServeOptions, sockets: &VolumeDir) -> Result<Doors> {
    match options.entrance {
        Entrance::Configured => {
            let tls = tls(&options.config, !options.config.listen.is_empty())?;
            let places = places(&options.config, tls.as_ref(), sockets)?;
            let listeners = places.into_iter().map(|place| Door::open(place, &options.name, tls.is_some()));
            Ok(Doors { listeners: listeners.collect::<Result<_>>()?, tls, ..Doors::default() })
        }
        Entrance::Activated => activated(options),
        Entrance::Stdio => {
            let (socket, drained) = Stdio::take()?.into_parts();
            Ok(Doors { stdio: Some(socket), drained: Some(drained), ..Doors::default() })
        }
    }
}

/// Refuses before anything is opened what [`open`] would refuse afterwards, when the volume counts as in use already and
/// the next start would take this one for a crash. Opens nothing.
pub(crate) fn check(options: &ServeOptions, sockets: &VolumeDir) -> Result<()> {
    if options.entrance != Entrance::Configured {
        return Ok(());
    }
    let tls = tls(&options.config, !options.config.listen.is_empty())?;
    places(&options.config, tls.as_ref(), sockets).map(drop)
}

/// What TCP clients must speak: TLS where there is a directory of certificates. It is looked at only if there are such
/// clients; legs find theirs when they connect. Unix sockets and standard input stay plain: who may open them is the
/// system's to say.
pub(crate) fn tls(config: &VolumeConfig, tcp: bool) -> Result<Option<ServerTls>> {
    config.tls_dir.as_deref().filter(|_| tcp).map(ServerTls::load).transpose()
}

/// Whether a listener may be opened that others than this machine reach.
fn may_be_wide(config: &VolumeConfig, tls: Option<&ServerTls>) -> bool {
    config.may_listen_widely() || tls.is_some_and(ServerTls::asks_for_certificates)
}

/// The places of a configuration; may wait for a name server.
pub(crate) fn places(
    config: &VolumeConfig,
    tls: Option<&ServerTls>,
    sockets: &VolumeDir,
) -> Result<Vec<Place>> {
    let unix = match &config.unix {
        Some(path) => Some(path.clone()),
        None if config.listen.is_empty() => Some(sockets.nbd_socket()?),
        None => None,
    };
    let mut places: Vec<_> = unix.into_iter().map(Place::Unix).collect();
    for listen in &config.listen {
        places.extend(listen.resolve(may_be_wide(config, tls))?.into_iter().map(Place::Tcp));
    }
    Ok(places)
}

impl Door {
    /// Opens one.
    pub(crate) fn open(place: Place, volume: &Name, tls: bool) -> Result<Self> {
        match &place {
            Place::Tcp(address) => Ok(Self::new(transport::listen_tcp(address)?, place, volume, tls, None)),
            Place::Unix(path) => {
                let fd = transport::listen_unix(path, SOCKET_MODE)?;
                let file = Some(Remove(path.clone()));
                Ok(Self::new(fd, place, volume, tls, file))
            }
            Place::Given => Err(crate::base::Error::new(
                crate::base::Class::Internal,
                format!("{volume}: listening: a socket that was given cannot be opened"),
            )),
        }
    }

    /// From now on TCP clients speak TLS, or do not.
    pub(crate) fn rename(&mut self, volume: &Name, tls: bool) {
        if let Some(bound) = transport::bound(&self.fd) {
            self.uri = uri(volume, &bound, tls);
        }
    }

    fn new(fd: OwnedFd, place: Place, volume: &Name, tls: bool, file: Option<Remove>) -> Self {
        let uri = transport::bound(&fd).map_or_else(String::new, |bound| uri(volume, &bound, tls));
        Self { place, fd, uri, _file: file }
    }
}

fn activated(options: &ServeOptions) -> Result<Doors> {
    let given: Vec<_> = transport::activated()?.into_iter().map(|fd| (transport::bound(&fd), fd)).collect();
    let tls = tls(&options.config, given.iter().any(|(bound, _)| matches!(bound, Some(Bound::Tcp(_)))))?;
    let mut listeners = Vec::new();
    for (bound, fd) in given {
        if let Some(Bound::Tcp(address)) = bound {
            let wide = may_be_wide(&options.config, tls.as_ref());
            crate::config::listen::admit(&address, &address, wide)?;
        }
        listeners.push(Door::new(fd, Place::Given, &options.name, tls.is_some(), None));
    }
    Ok(Doors { listeners, tls, ..Doors::default() })
}

/// The NBD URI of a listener.
fn uri(volume: &Name, bound: &Bound, tls: bool) -> String {
    match bound {
        Bound::Tcp(address) if tls => format!("nbds://{address}/{volume}"),
        Bound::Tcp(address) => format!("nbd://{address}/{volume}"),
        Bound::Unix(path) => format!("nbd+unix:///{volume}?socket={}", escaped(path)),
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
