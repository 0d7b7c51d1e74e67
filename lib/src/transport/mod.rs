//! Stream sockets for an event loop: nothing in [`dial`](connect) and [`listen`](listen_tcp) waits, except the resolving of a host's name
//! (`resolve`) and, briefly, another process that is opening the same Unix socket (`listen_unix`).
//!
//! Every descriptor is close-on-exec and non-blocking; TCP has no Nagle delay (the NBD specification asks for
//! `TCP_NODELAY` on both sides) and keep-alive.
//!
//! [`ssh`] is a channel to a command on another machine, for threads that wait, with deadlines ([`stream`]); [`tls`]
//! makes any TCP connection a private one.

mod dial;
mod inherited;
mod listen;
pub mod ssh;
pub mod stream;
pub mod tls;

pub use dial::{Endpoint, connect, finish, resolve};
pub use inherited::{Drained, Stdio, activated, activation};
pub use listen::{Bound, Peer, accept, bound, listen_tcp, listen_unix};

use crate::base::limits;
use rustix::net::sockopt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// Whether an address is reachable from this machine only. IPv4 inside IPv6 counts as IPv4.
pub fn is_loopback(address: &SocketAddr) -> bool {
    let ip: IpAddr = address.ip().to_canonical();
    ip.is_loopback()
}

/// What every TCP socket gets (`tcp(7)`).
fn tune_tcp(fd: impl AsFd) -> rustix::io::Result<()> {
    let (idle, interval, count) = limits::KEEPALIVE;
    let fd = fd.as_fd();
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, Duration::from_secs(idle))?;
    sockopt::set_tcp_keepintvl(fd, Duration::from_secs(interval))?;
    sockopt::set_tcp_keepcnt(fd, count)
}

/// What a Unix socket to a server gets (`unix(7)`): room for a large request, or sending one takes a wake-up for
/// each piece that the other side has read. TCP sizes its buffers by itself. A system that allows less gives
/// what it allows.
fn tune_unix(fd: impl AsFd) {
    let _ = sockopt::set_socket_send_buffer_size(fd, limits::UNIX_SEND_BUFFER);
}

#[cfg(test)]
mod tests;
