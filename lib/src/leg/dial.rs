//! A connection to an NBD server: the protocol of `nbd` and the tunnel of `transport::tls`, put together.

use crate::base::{Address, Class, Error, Result, limits};
use crate::nbd::NbdUri;
use crate::nbd::client::{self, Blocking, ClientOptions, Pipelined, Secure, Secured};
use crate::transport::tls::{ClientTls, Ending, Tunnels};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// How NBD servers are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dial {
    /// The directory of certificates where a URI names none (`--tls-dir`).
    pub tls_dir: Option<PathBuf>,
}

/// TLS for one connection.
#[derive(Debug)]
struct Tls(ClientTls);

/// The end of a tunnel; dropped, it waits until what was written last is sent.
#[derive(Debug)]
struct Tunnel(Ending);

impl Dial {
    /// What a URI needs of TLS; `None` if it wants none. The files are read now, so that a renewed certificate is used
    /// by the next connection. Classes: `Usage`, `Refused`.
    pub fn tls(&self, uri: &NbdUri) -> Result<Option<ClientTls>> {
        let Some(wanted) = &uri.tls else { return Ok(None) };
        let Some(dir) = wanted.certificates.as_ref().or(self.tls_dir.as_ref()) else {
            let text = format!("{uri}: connecting: TLS needs a directory of certificates");
            return Err(
                Error::new(Class::Usage, text).hint("… --tls-dir DIR, or ?tls-certificates=DIR in the URI")
            );
        };
        let host = match (&wanted.hostname, &uri.address) {
            (Some(name), _) => name,
            (None, Address::Tcp { host, .. }) => host,
            // Whoever opens a socket of this machine means this machine.
            (None, Address::Unix(_)) => "localhost",
        };
        ClientTls::load(dir, host).map(Some)
    }

    /// Connects and opens an export ([`Blocking::connect`]).
    pub fn blocking(&self, uri: &NbdUri, options: ClientOptions, deadline: Duration) -> Result<Blocking> {
        let tls = self.tls(uri)?.map(Tls);
        Blocking::connect_over(uri, options, tls.as_ref().map(|tls| tls as &dyn Secure), deadline)
    }

    /// The same for many threads ([`Pipelined::connect`]).
    pub fn pipelined(
        &self,
        uri: &NbdUri,
        options: ClientOptions,
        deadline: Duration,
        depth: usize,
    ) -> Result<Pipelined> {
        Pipelined::over(self.blocking(uri, options, deadline)?, deadline, depth)
    }
}

impl Secure for Tls {
    fn secure(&self, socket: OwnedFd, patience: Duration) -> Result<Secured> {
        let (socket, ending) = Tunnels::new(1).dial(socket, &self.0, patience)?;
        ending.wait_until_up(patience)?;
        Ok(Secured { socket, ending: Box::new(Tunnel(ending)) })
    }
}

impl client::Ending for Tunnel {
    fn why(&self) -> Option<Error> {
        self.0.why()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.wait(Duration::from_millis(limits::TLS_GOODBYE_MS * 2));
    }
}
