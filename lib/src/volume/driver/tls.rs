//! Clients and legs over TLS: once it is agreed upon, their socket goes to a tunnel ([`crate::transport::tls`]), and
//! the loop goes on with the tunnel's near side as if nothing had happened.

use super::Driver;
use super::legs::LegIo;
use crate::base::{Error, limits};
use crate::leg::dial::Dial;
use crate::volume::core::LegIx;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::time::{Duration, Instant};

impl Driver<'_> {
    /// A client was promised TLS. If it does not come about, the client is dropped.
    pub(super) fn start_tls(&mut self, key: u64) {
        if self.put_tunnel(key).is_none() {
            self.drop_client(key);
        }
    }

    fn put_tunnel(&mut self, key: u64) -> Option<()> {
        let now_ms = self.now_ms();
        let tls = self.tls.as_ref()?;
        let client = self.clients.get_mut(key)?;
        // The tunnel holds the same socket, which would be waited for here as long as it does.
        epoll::delete(&self.epoll, client.fd()).ok()?;
        let tunnels = &self.tunnels;
        let begun = client.begin_tls(now_ms, |socket, left| Ok(tunnels.serve(socket, tls, left)?.0));
        begun.ok()?;
        let flags = client.new_interest().unwrap_or(EventFlags::IN);
        epoll::add(&self.epoll, client.fd(), EventData::new_u64(key), flags).ok()
    }

    /// How legs are reached.
    pub(super) fn dial(&self) -> Dial {
        Dial { tls_dir: self.config.tls_dir.clone() }
    }

    /// The server of a leg has agreed to TLS.
    pub(super) fn secure_leg(&mut self, leg: LegIx) {
        let now_ms = self.now_ms();
        let LegIo::Remote(remote) = &mut self.legs[leg].io else { return };
        // The tunnel holds the same socket, which would be waited for here as long as it does.
        if let Some(fd) = remote.fd() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        match remote.secure(&self.leg_tunnels, now_ms) {
            Ok(()) => self.await_connection(leg),
            Err(error) => self.no_way(leg, &error),
        }
    }

    /// Why a leg is lost: what TLS says of it, where it does.
    pub(super) fn explained(&self, leg: LegIx, error: Error) -> Error {
        match &self.legs[leg].io {
            LegIo::Remote(remote) => remote.explain(error),
            LegIo::Local(_) => error,
        }
    }

    /// The last of the end: what clients and legs were told is in the tunnels, which end with this process. They are
    /// waited for no longer than others are told.
    pub(super) fn close_tunnels(&mut self) {
        for key in self.clients.keys() {
            self.drop_client(key);
        }
        let until = Instant::now() + Duration::from_millis(limits::LINGER_MS);
        for tunnels in [&self.tunnels, &self.leg_tunnels] {
            tunnels.wait(until.saturating_duration_since(Instant::now()));
        }
    }
}
