//! TLS around a TCP connection, for programs that know nothing of it.
//!
//! Whoever holds a connected socket hands it to a [`Tunnel`](Tunnels) and gets the end of a Unix socket pair in its
//! place: what is written there comes out of the network encrypted, what comes from the network is read there in the
//! clear, and the end of either direction is passed on. So the loop of the daemon, and clients that wait, go on with a
//! plain stream socket. A thread for each tunnel does the work (`pump`), with bounded buffers
//! ([`limits::TLS_BUFFER`](crate::base::limits::TLS_BUFFER)), and every state of it that does not depend on the near
//! side has a deadline; it always ends when the near side is closed.
//!
//! Certificates are files of one directory, named as libnbd, nbdkit, qemu and `GnuTLS` name them:
//!
//! | file | what for |
//! |---|---|
//! | `ca-cert.pem` | whose signature is believed; a server with it lets in only clients with a certificate of theirs |
//! | `ca-crl.pem` | certificates that are not believed any more |
//! | `server-cert.pem`, `server-key.pem` | what a server shows |
//! | `client-cert.pem`, `client-key.pem` | what a client shows, if the server asks |
//!
//! TLS 1.2 and 1.3 are spoken. Sessions are never resumed, so that each connection is checked against the files of the
//! day it is made.

mod buffer;
mod config;
mod explain;
mod files;
mod pump;
mod tunnel;
mod verify;

pub use config::{ClientTls, ServerTls};
pub use tunnel::{Ending, Tunnels};

#[cfg(test)]
#[path = "../../../../tests/support/pki.rs"]
mod pki;
#[cfg(test)]
mod tests;
