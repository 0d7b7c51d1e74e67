//! All clients together: accepting, limits of the volume, requests to the core, replies from it.

use super::client::{Client, Outcome, Pending};
use super::exports;
use super::input::{Incoming, Received};
use super::trackers::names;
use super::{Driver, LISTENER};
use crate::base::{ByteRange, limits};
use crate::config::allow;
use crate::device::Extent;
use crate::nbd::{Command, CommandFlags, Errno};
use crate::transport::{self, Peer};
use crate::volume::core::{Answer, Ask, Event, Fault};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::os::fd::OwnedFd;

/// Receives in one round from one client that is sending a large payload.
const RECEIVES: usize = 16;
/// How often a small payload is asked for whose header has come: many clients send the two one after the other,
/// and a wait for the rest costs more than a few tries.
const TRIES: usize = 4;
/// A payload of this size is acted upon while it is in the processor's cache, before more is received.
const HOT: u32 = 128 << 10;

impl Driver<'_> {
    /// Waits for new clients, or does not.
    pub(super) fn listen(&mut self, on: bool) {
        if self.listening == on {
            return;
        }
        self.listening = on;
        for (i, listener) in self.doors.iter().map(|door| &door.fd).enumerate() {
            // A listener that cannot be waited for is a bug of ours; the volume serves on without it.
            let _ = if on {
                epoll::add(&self.epoll, listener, EventData::new_u64(LISTENER + i as u64), EventFlags::IN)
            } else {
                epoll::delete(&self.epoll, listener)
            };
        }
    }

    pub(super) fn accept_clients(&mut self, listener: usize) {
        for _ in 0..limits::ACCEPTS {
            let full = self.clients.len() >= limits::CLIENTS;
            let oldest = if full { self.oldest_half_open() } else { None };
            if full && oldest.is_none() {
                return self.listen(false);
            }
            let Some(listener) = self.doors.get(listener).map(|door| &door.fd) else { return };
            match transport::accept(listener) {
                Ok(Some((_, Peer::Tcp(from)))) if !allow::allows(&self.config.allow, from.ip()) => {
                    self.refused_clients += 1;
                }
                Ok(Some((fd, peer))) => {
                    if let Some(oldest) = oldest {
                        self.drop_client(oldest);
                    }
                    self.greet(fd, peer != Peer::Unix);
                }
                Ok(None) => return,
                // No descriptors are left: let those that wait be until one is closed.
                Err(_) => return self.listen(false),
            }
        }
    }

    /// A client has connected; over TCP it must speak TLS, where that is wanted.
    pub(super) fn greet(&mut self, fd: OwnedFd, tcp: bool) {
        let tls = tcp && self.tls.is_some();
        let key = self.clients.insert(Client::new(fd, &self.pool, self.now_ms(), tls));
        let Some(client) = self.clients.get_mut(key) else { return };
        let flags = client.new_interest().unwrap_or(EventFlags::IN);
        if epoll::add(&self.epoll, client.fd(), EventData::new_u64(key), flags).is_err() {
            return self.drop_client(key);
        }
        self.touch(key);
    }

    /// The connection that takes longest over its handshake: one that only knocks must not keep others out.
    fn oldest_half_open(&self) -> Option<u64> {
        let half_open =
            self.clients.iter().filter_map(|(key, c)| c.half_open_since().map(|since| (since, key)));
        half_open.min().map(|(_, key)| key)
    }

    pub(super) fn client_ready(&mut self, key: u64, flags: EventFlags) {
        if flags.contains(EventFlags::IN) {
            self.receive(key);
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.drop_client(key);
        }
        if flags.contains(EventFlags::OUT) {
            self.touch(key);
        }
    }

    fn receive(&mut self, key: u64) {
        let mut tries = TRIES;
        for _ in 0..RECEIVES {
            let Some(client) = self.clients.get_mut(key) else { return };
            if client.stalled || !client.input.is_hungry() {
                return;
            }
            let handshake = client.session().is_none();
            let received = if handshake {
                let exports = exports::Table::new(&self.name, self.size, &self.legs, names(&self.trackers));
                self.promised_block = Some(exports.min_block());
                client.receive(&exports)
            } else {
                client.receive(&exports::Nothing)
            };
            match received {
                Received::Some => {}
                Received::Blocked if tries > 0 && client.input.is_filling_little() => {
                    tries -= 1;
                    continue;
                }
                Received::Blocked => return,
                Received::End if handshake => return self.drop_client(key),
                Received::End => {
                    // It may have closed only its sending half: what is in flight is answered.
                    client.end();
                    return self.touch(key);
                }
            }
            if handshake {
                if self.clients.get(key).is_some_and(Client::wants_tls) {
                    return self.start_tls(key);
                }
                self.touch(key);
            }
            let (hot, full) = self.take_requests(key);
            if full {
                if let Some(client) = self.clients.get_mut(key) {
                    client.stalled = true;
                }
                self.stalled.push_back(key);
                return self.touch(key);
            }
            let more = self.clients.get(key).is_some_and(|c| c.input.is_filling());
            if hot || !more {
                return;
            }
        }
    }

    /// Takes the requests that have come, as far as the limits allow. Says whether a large payload is among them,
    /// and whether one is left that waits for room.
    fn take_requests(&mut self, key: u64) -> (bool, bool) {
        let mut hot = false;
        loop {
            let Some(client) = self.clients.get_mut(key) else { return (hot, false) };
            let Some((incoming, charge)) = client.next(&mut self.totals) else { return (hot, false) };
            match incoming {
                Incoming::NoRoom => return (hot, true),
                Incoming::Request(request, _) if request.command == Command::Disc => {
                    client.end();
                    self.touch(key);
                    return (hot, false);
                }
                Incoming::Garbage => {
                    self.drop_client(key);
                    return (hot, false);
                }
                Incoming::Refused(request, errno) => {
                    let pending = Pending { client: key, request, payload: None, charge, past: 0 };
                    self.answer_now(&pending, Outcome::Failed(errno));
                }
                Incoming::Request(request, payload) => {
                    hot |= payload.is_some() && request.length >= u64::from(HOT);
                    self.admit(Pending { client: key, request, payload, charge, past: 0 });
                }
            }
        }
    }

    fn admit(&mut self, pending: Pending) {
        let request = pending.request;
        if self.stopping {
            return self.answer_now(&pending, Outcome::Failed(Errno::Shutdown));
        }
        let fua = request.flags.has(CommandFlags::FUA);
        let empty = request.length == 0;
        let ask = match request.command {
            Command::Flush => Ask::Flush,
            _ if empty => return self.answer_now(&pending, Outcome::Done),
            Command::Read => Ask::Read,
            Command::Write => Ask::Write { fua },
            Command::Trim => Ask::Zero { fua, no_hole: false, fast: false },
            Command::WriteZeroes => Ask::Zero {
                fua,
                no_hole: request.flags.has(CommandFlags::NO_HOLE),
                // Once something has changed it is finished the slow way.
                fast: request.flags.has(CommandFlags::FAST_ZERO) && pending.past == 0,
            },
            Command::BlockStatus if self.wants_allocation(pending.client) => Ask::Extents,
            Command::BlockStatus => {
                let outcome = self.status_of(&pending, None);
                return self.answer_now(&pending, outcome);
            }
            Command::Cache => return self.answer_now(&pending, Outcome::Done),
            Command::Disc | Command::Other(_) => return,
        };
        match request.command {
            Command::Read => self.read_bytes += request.length,
            Command::Write => self.written_bytes += request.length,
            _ => {}
        }
        self.totals.requests += 1;
        let range = match ask {
            Ask::Flush => ByteRange::default(),
            Ask::Zero { .. } => ByteRange {
                offset: request.offset + pending.past,
                len: (request.length - pending.past).min(limits::NBD_EFFECT),
            },
            _ => ByteRange { offset: request.offset, len: request.length },
        };
        let token = self.requests.insert(pending);
        self.events.push(Event::Client { token, ask, range });
    }

    /// Answers without the core.
    fn answer_now(&mut self, pending: &Pending, outcome: Outcome) {
        match self.clients.get_mut(pending.client) {
            Some(client) => {
                client.answer(&pending.request, pending.charge, outcome);
                self.touch(pending.client);
            }
            None => self.totals.bytes -= pending.charge as usize,
        }
    }

    /// What the core says to a client.
    pub(super) fn reply(&mut self, token: u64, answer: Answer) {
        let Some(mut pending) = self.requests.remove(token) else { return };
        // Its bytes are in flight until they were sent; its turn is over, or clients that never read would keep it.
        self.totals.requests -= 1;
        let status = pending.request.command == Command::BlockStatus;
        if matches!(pending.request.command, Command::Trim | Command::WriteZeroes) && answer == Answer::Done {
            pending.past += limits::NBD_EFFECT.min(pending.request.length - pending.past);
            // Nobody waits for the rest of a request whose client has gone.
            if pending.past < pending.request.length && self.clients.get(pending.client).is_some() {
                return self.admit(pending);
            }
        }
        let outcome = match answer {
            Answer::Data(io) if status => {
                let found = self.extents.remove(&io);
                self.status_of(&pending, found.as_deref())
            }
            Answer::Failed(Fault::NotSupported) if status => self.status_of(&pending, None),
            Answer::Data(io) => match self.reads.remove(&io) {
                Some(data) if data.len() == pending.request.length as usize => Outcome::Data(data),
                _ => Outcome::Failed(Errno::Io),
            },
            Answer::Done => Outcome::Done,
            Answer::Failed(fault) => Outcome::Failed(errno(fault)),
        };
        self.answer_now(&pending, outcome);
    }

    fn wants_allocation(&self, key: u64) -> bool {
        let session = self.clients.get(key).and_then(Client::session);
        session.is_some_and(|s| s.contexts.iter().any(|(_, name)| name == exports::ALLOCATION))
    }

    /// The extents of all contexts that a client asked for; `found` are those of `base:allocation`.
    fn status_of(&self, pending: &Pending, found: Option<&[Extent]>) -> Outcome {
        let request = &pending.request;
        let range = ByteRange { offset: request.offset, len: request.length };
        let one = request.flags.has(CommandFlags::REQ_ONE);
        let most = if one { 1 } else { limits::NBD_EXTENTS };
        let Some(session) = self.clients.get(pending.client).and_then(Client::session) else {
            return Outcome::Failed(Errno::Io);
        };
        let cut = exports::Cut { range, most, unit: session.info.min_block };
        let contexts = session.contexts.iter().map(|(id, name)| {
            let extents = if name == exports::ALLOCATION {
                exports::allocation(found, cut)
            } else if let Some(tracker) = exports::bitmap_of(name) {
                let ix = self.tracker(tracker);
                exports::dirty(&self.core.tracker_extents(ix, range, most), cut)
            } else {
                let of = |leg: &super::legs::Slot| !leg.gone && exports::is_dirty_of(name, &leg.spec.name);
                let leg = self.legs.iter().position(of);
                let runs = leg.map(|leg| self.core.dirty_extents(leg, range, most)).unwrap_or_default();
                exports::dirty(&runs, cut)
            };
            (*id, extents)
        });
        Outcome::Extents(contexts.collect())
    }

    /// This client has something to send, or its interest changed.
    pub(super) fn touch(&mut self, key: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.touched
        {
            client.touched = true;
            self.touched.push(key);
        }
    }

    /// Sends replies; then requests that waited for room are taken.
    pub(super) fn flush_clients(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.touched = false;
            let Some(settled) = client.flush() else {
                self.drop_client(key);
                continue;
            };
            self.totals.bytes -= settled;
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.is_over() {
                self.drop_client(key);
            } else if let Some(flags) = client.new_interest()
                && epoll::modify(&self.epoll, client.fd(), EventData::new_u64(key), flags).is_err()
            {
                self.drop_client(key);
            }
        }
        self.touched = touched;
        self.unstall();
    }

    fn unstall(&mut self) {
        // Those that were served go behind those that were not.
        for _ in 0..self.stalled.len() {
            let Some(key) = self.stalled.pop_front() else { break };
            let (_, full) = self.take_requests(key);
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.stalled = full;
            if full {
                self.stalled.push_back(key);
            } else {
                self.touch(key);
            }
        }
        // Their interest is told to epoll at the end of the next step.
        if !self.touched.is_empty() && self.events.len() == 1 {
            self.flush_clients();
        }
    }

    /// Closes a connection. Requests in flight finish; their replies are dropped.
    pub(super) fn drop_client(&mut self, key: u64) {
        if let Some(client) = self.clients.remove(key) {
            self.totals.bytes -= client.unsent();
            if self.only_client && !self.stopping {
                self.stop(super::control::BY_SIGNAL);
            } else if self.serving && !self.stopping {
                self.listen(true);
            }
        }
    }

    pub(super) fn sweep_clients(&mut self, now_ms: u64) {
        let pressed = self.clients.iter().any(|(_, client)| client.is_kept_out());
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.stands_still(now_ms) && pressed || client.is_late(now_ms) {
                self.drop_client(key);
            }
        }
        // Descriptors may have run out for a while.
        if self.serving && !self.stopping && self.clients.len() < limits::CLIENTS {
            self.listen(true);
        }
    }

    /// No more requests; those without anything in flight go.
    pub(super) fn end_clients(&mut self) {
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key) {
                client.end();
                self.touch(key);
            }
        }
    }
}

const fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::Io => Errno::Io,
        Fault::NoSpace => Errno::NoSpc,
        Fault::NotSupported => Errno::NotSup,
        Fault::Invalid => Errno::Inval,
        Fault::Shutdown => Errno::Shutdown,
    }
}
