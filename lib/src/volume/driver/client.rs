//! One client connection: bytes in, requests out; replies in, bytes out. What it may have in flight is bounded,
//! and a request counts until its reply has been sent.

use super::buffers::{Pool, Slice};
use super::input::{Input, Received};
use super::output::{Output, Sent};
use crate::base::limits;
use crate::nbd::server::{Exports, Handshake, Progress, Session, reply};
use crate::nbd::{Command, Errno, Request};
use rustix::event::epoll::EventFlags;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    /// Where in the stream the reply to a request ends, and what it was charged.
    ends: VecDeque<(u64, u32)>,
    /// No request is read any more; it is closed when everything is answered and sent.
    ending: bool,
    /// Limits are reached: requests that have come wait.
    pub(super) stalled: bool,
    /// The socket takes no more for now.
    blocked: bool,
    /// When the socket last took something.
    progress_ms: u64,
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
    pub(super) fn add(&mut self, bytes: u32) {
        self.requests += 1;
        self.bytes += bytes as usize;
    }

    /// Takes away what has been answered.
    pub(super) fn settle(&mut self, other: Self) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Takes away one request.
    pub(super) fn settle_one(&mut self, bytes: u32) {
        self.settle(Self { requests: 1, bytes: bytes as usize });
    }

    /// Whether another request may be read.
    pub(super) const fn within(&self, requests: usize, bytes: usize) -> bool {
        self.requests < requests && self.bytes < bytes
    }
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
}

impl Pending {
    /// What it counts against the limits.
    pub(super) const fn charge(&self) -> u32 {
        charge_of(&self.request)
    }
}

const fn charge_of(request: &Request) -> u32 {
    match request.command {
        Command::Read | Command::Write => request.length,
        _ => 0,
    }
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Success without content.
    Done,
    /// The bytes of a READ.
    Data(Slice),
    /// For each context its id and extents.
    Extents(Vec<(u32, Vec<(u32, u32)>)>),
    /// An error.
    Failed(Errno),
}

impl Client {
    /// A connection just accepted; the greeting is queued.
    pub(super) fn new(fd: OwnedFd, pool: &Pool, now_ms: u64) -> Self {
        let (machine, greeting) = Handshake::new();
        let mut out = Output::default();
        out.head(|heads| heads.extend_from_slice(&greeting));
        let deadline_ms = now_ms + limits::NBD_HANDSHAKE_MS;
        Self {
            fd,
            input: Input::new(pool),
            out,
            phase: Phase::Handshake { machine: Box::new(machine), deadline_ms },
            charged: Charge::default(),
            ends: VecDeque::new(),
            ending: false,
            stalled: false,
            blocked: false,
            progress_ms: now_ms,
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
            Progress::Transmission(session) => self.phase = Phase::Open(Box::new(session)),
            Progress::Close => self.ending = true,
        }
        received
    }

    /// The next request that has come in full.
    pub(super) fn next(&mut self) -> Option<super::input::Incoming> {
        match &self.phase {
            Phase::Open(session) if !self.ending => self.input.next(session),
            _ => None,
        }
    }

    /// Whether another request is let in: by its own limits, and where the volume has no room, by the share
    /// that it has whatever the others do.
    pub(super) fn may_ask(&self, room: bool) -> bool {
        if room {
            self.charged.within(limits::CLIENT_REQUESTS, limits::CLIENT_BYTES)
        } else {
            self.charged.within(limits::CLIENT_SHARE_REQUESTS, limits::CLIENT_SHARE_BYTES)
        }
    }

    /// Whether it has taken nothing of what waits for it for long.
    pub(super) const fn is_stuck(&self, now_ms: u64) -> bool {
        self.blocked && now_ms > self.progress_ms + limits::CLIENT_STUCK_MS
    }

    /// A request is in flight from now on.
    pub(super) fn charge(&mut self, request: &Request) {
        self.charged.add(charge_of(request));
    }

    /// Answers a request that was charged.
    pub(super) fn answer(&mut self, request: &Request, outcome: Outcome) {
        let structured = self.session().is_some_and(|s| s.structured);
        let cookie = request.cookie;
        match outcome {
            Outcome::Done if request.command == Command::Read => {
                self.out.head(|out| reply::read_ok_header(out, structured, cookie, request.offset, 0));
            }
            Outcome::Done => self.out.head(|out| reply::simple(out, cookie, Ok(()))),
            Outcome::Data(data) => {
                let len = data.len() as u32;
                self.out.head(|out| reply::read_ok_header(out, structured, cookie, request.offset, len));
                self.out.data(data);
            }
            Outcome::Extents(contexts) => self.out.head(|out| {
                let last = contexts.len().saturating_sub(1);
                for (i, (context, extents)) in contexts.iter().enumerate() {
                    reply::block_status(out, cookie, *context, extents, i == last);
                }
            }),
            Outcome::Failed(errno) => {
                self.out.head(|out| reply::error(out, structured, cookie, errno, Some(errno.text())));
            }
        }
        self.ends.push_back((self.out.queued(), charge_of(request)));
    }

    /// No request is read any more; what is in flight is answered first.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether it can be closed without taking anything from anybody.
    pub(super) fn is_over(&self) -> bool {
        self.ending && self.charged.requests == 0 && self.out.is_empty()
    }

    /// Sends what waits. `None`: the other side is gone. Otherwise what is in flight no more.
    pub(super) fn flush(&mut self, now_ms: u64) -> Option<Charge> {
        let before = self.out.sent();
        match self.out.flush(self.fd.as_fd()) {
            Sent::Broken => return None,
            sent => self.blocked = sent == Sent::Blocked,
        }
        if self.out.sent() > before || !self.blocked {
            self.progress_ms = now_ms;
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
        Some(settled)
    }

    /// What was answered but never sent, when the connection is given up.
    pub(super) fn unsent(&self) -> Charge {
        let mut unsent = Charge::default();
        self.ends.iter().for_each(|(_, bytes)| unsent.add(*bytes));
        unsent
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
