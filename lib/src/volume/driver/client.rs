//! One client connection: bytes in, requests out; replies in, bytes out. What it may have in flight is bounded,
//! and a request counts until its reply has been sent.

use super::buffers::{Pool, Slice};
use super::input::{Incoming, Input, Received};
use super::output::{Output, Sent};
use crate::base::{Class, Error, Result, limits};
use crate::nbd::server::reply::{Style, To};
use crate::nbd::server::{Exports, Handshake, Progress, Session, reply};
use crate::nbd::{Command, Errno, Request};
use rustix::event::epoll::EventFlags;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    fd: OwnedFd,
    /// Bytes received.
    pub(super) input: Input,
    out: Output,
    phase: Phase,
    /// In flight, and its bytes.
    charged: Charge,
    /// What of it is for a request that has not come in full.
    reserved: Option<u32>,
    /// Its next request waits for room that others take.
    kept_out: bool,
    /// Bytes sent and received when somebody last looked, and when they changed.
    moved: (u64, u64),
    /// Where in the stream the reply to a request ends, and what it was charged.
    ends: VecDeque<(u64, u32)>,
    /// No request is read any more; it is closed when everything is answered and sent.
    ending: bool,
    /// Limits are reached: requests that have come wait.
    pub(super) stalled: bool,
    /// The socket takes no more for now.
    blocked: bool,
    /// TLS was agreed upon and has not begun.
    wants_tls: bool,
    /// Queued for sending in this round.
    pub(super) touched: bool,
    /// What epoll was asked for.
    interest: EventFlags,
}

#[derive(Debug)]
enum Phase {
    Handshake { machine: Box<Handshake>, deadline_ms: u64 },
    Open(Box<Session>),
}

/// Requests and bytes in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// Requests.
    pub(super) requests: usize,
    /// Bytes of payload, to or from the client.
    pub(super) bytes: usize,
}

impl Charge {
    /// Adds one request.
    fn add(&mut self, bytes: u32) {
        self.requests += 1;
        self.bytes += bytes as usize;
    }

    /// Takes away what has been answered.
    fn settle(&mut self, other: Self) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Whether a client that has this in flight may have so many bytes more while `totals` are in flight.
    fn room(&self, totals: &Self, cost: u32) -> Room {
        let own = self.bytes + cost as usize;
        if self.requests >= limits::CLIENT_REQUESTS || own > limits::CLIENT_BYTES {
            return Room::Full;
        }
        let turn = totals.requests < limits::VOLUME_REQUESTS || self.requests < limits::CLIENT_SHARE_REQUESTS;
        let left = limits::VOLUME_BYTES.saturating_sub(totals.bytes + cost as usize);
        if turn && own <= left.max(limits::CLIENT_SHARE) { Room::Enough } else { Room::TakenByOthers }
    }
}

/// What there is for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    /// The client has as much in flight as one may.
    Full,
    /// All clients together have.
    TakenByOthers,
}

/// A request on its way through the volume.
#[derive(Debug)]
pub(super) struct Pending {
    /// The name of the client.
    pub(super) client: u64,
    /// As the client sent it.
    pub(super) request: Request,
    /// What a write brought.
    pub(super) payload: Option<Slice>,
    /// What it counts against the limits, until its reply was sent.
    pub(super) charge: u32,
    /// Bytes of it that are done: what covers much is done in steps.
    pub(super) past: u64,
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Success without content.
    Done,
    /// The bytes of a READ.
    Data(Slice),
    /// For each context its id and extents.
    Extents(Vec<(u32, Vec<(u64, u32)>)>),
    /// An error.
    Failed(Errno),
}

impl Client {
    /// A connection just accepted; the greeting is queued. `tls`: nothing is talked about before that.
    pub(super) fn new(fd: OwnedFd, pool: &Pool, now_ms: u64, tls: bool) -> Self {
        let (machine, greeting) = if tls { Handshake::forced_tls() } else { Handshake::new() };
        let mut out = Output::default();
        out.head(|heads| heads.extend_from_slice(&greeting));
        let deadline_ms = now_ms + limits::NBD_HANDSHAKE_MS;
        Self {
            fd,
            input: Input::new(pool),
            out,
            phase: Phase::Handshake { machine: Box::new(machine), deadline_ms },
            charged: Charge::default(),
            reserved: None,
            kept_out: false,
            moved: (0, now_ms),
            ends: VecDeque::new(),
            ending: false,
            stalled: false,
            blocked: false,
            wants_tls: false,
            touched: false,
            interest: EventFlags::empty(),
        }
    }

    /// To wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What was agreed, once it was.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Open(session) => Some(session),
            Phase::Handshake { .. } => None,
        }
    }

    /// Whether it has been told that TLS begins now.
    pub(super) const fn wants_tls(&self) -> bool {
        self.wants_tls
    }

    /// Puts a tunnel over its socket, with the time that is left of its handshake. An error: it has to be dropped,
    /// also if it has sent a byte more, which may be anybody's (CVE-2021-3716).
    pub(super) fn begin_tls(
        &mut self,
        now_ms: u64,
        tunnel: impl FnOnce(OwnedFd, Duration) -> Result<OwnedFd>,
    ) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(Class::Connect, format!("client: beginning TLS: {why}")));
        let Phase::Handshake { deadline_ms, .. } = self.phase else { return refuse("it has an export open") };
        if !self.input.unparsed().is_empty() {
            return refuse("it sent something in the clear behind its wish");
        }
        if self.out.flush(self.fd.as_fd()) != Sent::All {
            return refuse("it does not read the answer");
        }
        let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms));
        let socket = self.fd.try_clone().map_err(|e| Error::os(Class::Busy, "client", "beginning TLS", e))?;
        self.fd = tunnel(socket, left)?;
        self.wants_tls = false;
        self.blocked = false;
        self.interest = EventFlags::empty();
        Ok(())
    }

    /// Whether its handshake takes too long.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        matches!(self.phase, Phase::Handshake { deadline_ms, .. } if now_ms > deadline_ms)
    }

    /// One receive; answers the handshake. Requests that have come are taken with [`Client::next`].
    pub(super) fn receive(&mut self, exports: &dyn Exports) -> Received {
        let received = self.input.receive(self.fd.as_fd());
        if received != Received::Some {
            return received;
        }
        let Phase::Handshake { machine, .. } = &mut self.phase else { return received };
        let unparsed = self.input.unparsed();
        let (taken, progress) = self.out.head(|heads| machine.feed(unparsed, exports, heads));
        self.input.consume(taken);
        match progress {
            Progress::More => {}
            Progress::Transmission(session) => {
                self.input.expect_headers(session.header_len());
                self.phase = Phase::Open(Box::new(session));
            }
            Progress::StartTls => self.wants_tls = true,
            Progress::Close => self.ending = true,
        }
        received
    }

    /// The next request that has come in full, and what it was charged, here and in the bytes of `totals`.
    pub(super) fn next(&mut self, totals: &mut Charge) -> Option<(Incoming, u32)> {
        let Phase::Open(session) = &self.phase else { return None };
        if self.ending {
            return None;
        }
        let (charged, reserved, kept_out) = (&mut self.charged, &mut self.reserved, &mut self.kept_out);
        let incoming = self.input.next(session, |cost| {
            let room = charged.room(totals, cost);
            *kept_out = room == Room::TakenByOthers;
            if room == Room::Enough {
                charged.add(cost);
                totals.bytes += cost as usize;
                *reserved = Some(cost);
            }
            room == Room::Enough
        })?;
        Some((incoming, self.reserved.take().unwrap_or(0)))
    }

    /// Whether it holds up others that wait for room: it has more than its share, and too little of it moved for
    /// long. To be asked now and then.
    pub(super) fn stands_still(&mut self, now_ms: u64) -> bool {
        let bytes = self.out.sent() + self.input.received();
        let enough = (self.charged.bytes / limits::STANDSTILL_PART).max(1) as u64;
        if bytes >= self.moved.0 + enough || (self.out.is_empty() && self.reserved.is_none()) {
            self.moved = (bytes, now_ms);
        }
        self.charged.bytes > limits::CLIENT_SHARE && now_ms > self.moved.1 + limits::STANDSTILL_MS
    }

    /// Whether its next request waits for room that others take.
    pub(super) const fn is_kept_out(&self) -> bool {
        self.stalled && self.kept_out
    }

    /// Since when its handshake has been under way, in the order of such moments; `None` if it is over.
    pub(super) fn half_open_since(&self) -> Option<u64> {
        match self.phase {
            Phase::Handshake { deadline_ms, .. } => Some(deadline_ms),
            Phase::Open(_) => None,
        }
    }

    /// Answers a request that was charged.
    pub(super) fn answer(&mut self, request: &Request, charge: u32, outcome: Outcome) {
        let style = self.session().map_or(Style::Simple, Session::style);
        let to = To { style, cookie: request.cookie, offset: request.offset };
        match outcome {
            Outcome::Done if request.command == Command::Read => {
                self.out.head(|out| reply::read_ok_header(out, to, 0));
            }
            Outcome::Done => self.out.head(|out| reply::done(out, to)),
            Outcome::Data(data) => {
                let len = data.len() as u32;
                self.out.head(|out| reply::read_ok_header(out, to, len));
                self.out.data(data);
            }
            Outcome::Extents(contexts) => self.out.head(|out| {
                let last = contexts.len().saturating_sub(1);
                for (i, (context, extents)) in contexts.iter().enumerate() {
                    reply::block_status(out, to, *context, extents, i == last);
                }
            }),
            Outcome::Failed(errno) => {
                self.out.head(|out| reply::error(out, to, errno, Some(errno.text())));
            }
        }
        self.ends.push_back((self.out.queued(), charge));
    }

    /// No request is read any more; what is in flight is answered first.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether it can be closed without taking anything from anybody.
    pub(super) fn is_over(&self) -> bool {
        // What has not come in full never will.
        self.ending && self.charged.requests == usize::from(self.reserved.is_some()) && self.out.is_empty()
    }

    /// Sends what waits. `None`: the other side is gone. Otherwise the bytes that are in flight no more.
    pub(super) fn flush(&mut self) -> Option<usize> {
        match self.out.flush(self.fd.as_fd()) {
            Sent::Broken => return None,
            sent => self.blocked = sent == Sent::Blocked,
        }
        let mut settled = Charge::default();
        while let Some((end, bytes)) = self.ends.front().copied() {
            if end > self.out.sent() {
                break;
            }
            settled.add(bytes);
            self.ends.pop_front();
        }
        self.charged.settle(settled);
        Some(settled.bytes)
    }

    /// Bytes charged for what was answered but never sent, or never came in full, when the connection is given up.
    pub(super) fn unsent(&self) -> usize {
        self.ends.iter().map(|(_, bytes)| *bytes).chain(self.reserved).map(|bytes| bytes as usize).sum()
    }

    /// What epoll should wait for, if that is not what it was told last.
    pub(super) fn new_interest(&mut self) -> Option<EventFlags> {
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !self.ending && !self.stalled);
        wanted.set(EventFlags::OUT, self.blocked);
        let changed = wanted != self.interest;
        self.interest = wanted;
        changed.then_some(wanted)
    }
}
