//! Clients over TLS: once it is agreed upon, the socket of the client goes to a tunnel ([`crate::transport::tls`]), and
//! the loop goes on with the tunnel's near side as if nothing had happened.

use super::Driver;
use crate::base::limits;
use crate::transport::tls::Tunnels;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::time::Duration;

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

    /// The last of the end: what clients and legs were told is in the tunnels, which end with this process. They are
    /// waited for no longer than others are told.
    pub(super) fn close_tunnels(&mut self) {
        for key in self.clients.keys() {
            self.drop_client(key);
        }
        Tunnels::wait(&self.tunnels, Duration::from_millis(limits::LINGER_MS));
    }
}
