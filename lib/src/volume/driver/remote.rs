//! A remote leg: connecting, the handshake, and what may change between two connections.

use super::buffers::Pool;
use super::link::Link;
use crate::base::{Address, Class, Error, Result, limits};
use crate::leg::LegSpec;
use crate::nbd::client::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
use crate::nbd::{NbdUri, TransmissionFlags};
use crate::transport::{self, Endpoint};
use crate::volume::core::Caps;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module.
#[derive(Debug)]
pub(super) struct RemoteLeg {
    uri: NbdUri,
    pool: Pool,
    state: State,
    /// Addresses of the server that have not been tried in this attempt.
    others: VecDeque<Endpoint>,
    /// Bytes over the network of earlier connections.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Cookies below it were used on earlier connections: a late reply to one must not mean a newer request.
    next_cookie: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Opening(Box<Opening>),
    Up(Box<Link>),
}

/// A connection that is not there yet.
#[derive(Debug)]
struct Opening {
    fd: OwnedFd,
    connected: bool,
    machine: ClientHandshake,
    unsent: Vec<u8>,
    deadline_ms: u64,
}

/// What came of a step towards a connection.
#[derive(Debug)]
pub(super) enum Step {
    /// Not there yet.
    Wait,
    /// It is there.
    Ready(ServerInfo),
    /// It will not be.
    Failed(Error),
}

/// What a leg must offer to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Bytes of the volume.
    pub(super) size: u64,
    /// Smallest unit that clients were promised, or `None` if none was yet.
    pub(super) min_block: Option<u32>,
    /// It may lack FLUSH.
    pub(super) flush_unsafe: bool,
}

impl RemoteLeg {
    /// A leg not connected.
    pub(super) fn new(uri: NbdUri, pool: &Pool) -> Self {
        Self {
            uri,
            pool: pool.clone(),
            state: State::Idle,
            others: VecDeque::new(),
            received: 0,
            sent: 0,
            next_cookie: 1,
        }
    }

    /// The descriptor to wait for, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Idle => None,
            State::Opening(opening) => Some(opening.fd.as_fd()),
            State::Up(link) => Some(link.fd()),
        }
    }

    /// The connection, if it is up.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Up(link) => Some(link),
            _ => None,
        }
    }

    /// The same, to look at.
    pub(super) fn peek(&self) -> Option<&Link> {
        match &self.state {
            State::Up(link) => Some(link),
            _ => None,
        }
    }

    /// Whether a connection is being made.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// Begins to connect to the first of these that answers.
    pub(super) fn connect(&mut self, endpoints: Vec<Endpoint>, now_ms: u64, spec: &LegSpec) -> Result<()> {
        self.close();
        self.others = endpoints.into();
        self.next_endpoint(now_ms, spec)
            .unwrap_or_else(|| Err(Error::new(Class::Connect, "connecting: the server has no address")))
    }

    /// Begins to connect to the next address, if there is one.
    pub(super) fn next_endpoint(&mut self, now_ms: u64, spec: &LegSpec) -> Option<Result<()>> {
        let mut result = None;
        while let Some(endpoint) = self.others.pop_front() {
            match transport::connect(&endpoint) {
                Ok(fd) => {
                    self.open(fd, now_ms, spec);
                    return Some(Ok(()));
                }
                Err(error) => result = Some(Err(error)),
            }
        }
        result
    }

    fn open(&mut self, fd: OwnedFd, now_ms: u64, spec: &LegSpec) {
        let options =
            ClientOptions { export: self.uri.export.clone(), contexts: Vec::new(), structured: true };
        let deadline_ms = now_ms + limits::NBD_HANDSHAKE_MS.min(spec.timeout_ms.max(1));
        self.state = State::Opening(Box::new(Opening {
            fd,
            connected: false,
            machine: ClientHandshake::extended(options),
            unsent: Vec::new(),
            deadline_ms,
        }));
    }

    /// The address to connect to.
    pub(super) fn address(&self) -> &Address {
        &self.uri.address
    }

    /// Whether connecting takes too long.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        matches!(&self.state, State::Opening(opening) if now_ms > opening.deadline_ms)
    }

    /// Goes on connecting; the descriptor is ready for something.
    pub(super) fn advance(&mut self, terms: &Terms) -> Step {
        let State::Opening(opening) = &mut self.state else { return Step::Wait };
        let ready = match opening.advance() {
            Ok(None) => return Step::Wait,
            Ok(Some(ready)) => ready,
            Err(error) => {
                self.state = State::Idle;
                return Step::Failed(error);
            }
        };
        let State::Opening(opening) = std::mem::replace(&mut self.state, State::Idle) else {
            return Step::Wait;
        };
        let (info, rest) = ready;
        if let Err(error) = check_terms(&info, terms) {
            return Step::Failed(error);
        }
        self.state = State::Up(Box::new(Link::new(opening.fd, &info, &rest, &self.pool, self.next_cookie)));
        Step::Ready(info)
    }

    /// Ends the connection, or the attempt.
    pub(super) fn close(&mut self) {
        if let State::Up(link) = &self.state {
            self.received += link.received();
            self.sent += link.sent();
            self.next_cookie = link.next_cookie();
        }
        self.state = State::Idle;
    }
}

impl Opening {
    /// The server's offer and what it sent behind it, once it is complete.
    fn advance(&mut self) -> Result<Option<(ServerInfo, Vec<u8>)>> {
        let failed = |doing: &str, e: Errno| Error::os(Class::Connect, "server", doing, e);
        if !self.connected {
            transport::finish(&self.fd)?;
            self.connected = true;
        }
        let mut piece = [0u8; 4096];
        loop {
            self.send()?;
            let (n, _) = match recv(&self.fd, &mut piece[..], RecvFlags::empty()) {
                Ok(got) => got,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return Ok(None),
                Err(e) => return Err(failed("negotiating", e)),
            };
            if n == 0 {
                return Err(Error::new(Class::Connect, "server: negotiating: it closed the connection"));
            }
            let (taken, progress) = self.machine.feed(&piece[..n], &mut self.unsent)?;
            if let ClientProgress::Ready(info) = progress {
                return Ok(Some((info, piece[taken..n].to_vec())));
            }
        }
    }

    fn send(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match send(&self.fd, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return Ok(()),
                Err(e) => return Err(Error::os(Class::Connect, "server", "negotiating", e)),
            }
        }
        Ok(())
    }
}

/// What a server can do, in the core's words.
pub(super) const fn caps(info: &ServerInfo) -> Caps {
    let zeroes = info.flags.has(TransmissionFlags::SEND_WRITE_ZEROES);
    Caps {
        flush: info.flags.has(TransmissionFlags::SEND_FLUSH),
        fua: info.flags.has(TransmissionFlags::SEND_FUA),
        fast_zero: zeroes && info.flags.has(TransmissionFlags::SEND_FAST_ZERO),
        extents: false,
    }
}

/// Refuses a server that cannot hold this leg; names both values.
fn check_terms(info: &ServerInfo, terms: &Terms) -> Result<()> {
    let refuse = |class, text: String| Err(Error::new(class, text));
    if info.size < terms.size {
        return refuse(
            Class::Refused,
            format!("the export has {} bytes, the volume has {}", info.size, terms.size),
        );
    }
    if info.flags.has(TransmissionFlags::READ_ONLY) {
        return refuse(Class::Refused, "the export is read-only".to_owned());
    }
    if !info.flags.has(TransmissionFlags::SEND_FLUSH) && !terms.flush_unsafe {
        return refuse(
            Class::Refused,
            "the server has no FLUSH, nothing written to it is ever known to be durable; flush=unsafe accepts \
             that"
                .to_owned(),
        );
    }
    if let Some(promised) = terms.min_block
        && info.min_block > promised
    {
        return refuse(
            Class::Refused,
            format!("the server needs requests in units of {} bytes, clients use {promised}", info.min_block),
        );
    }
    if info.size == terms.size || terms.size.is_multiple_of(u64::from(info.min_block.max(1))) {
        return Ok(());
    }
    refuse(
        Class::Refused,
        format!("the volume's {} bytes are no multiple of the server's unit {}", terms.size, info.min_block),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c27_a_server_that_cannot_hold_the_leg_is_refused_with_both_values() {
        let all = TransmissionFlags::HAS_FLAGS.with(TransmissionFlags::SEND_FLUSH);
        let info = |size, flags, min_block| ServerInfo {
            size,
            flags,
            structured: true,
            extended: false,
            contexts: Vec::new(),
            min_block,
            preferred_block: 4096,
            max_payload: 1 << 20,
        };
        let terms = Terms { size: 10_000, min_block: Some(512), flush_unsafe: false };
        assert!(check_terms(&info(10_000, all, 512), &terms).is_ok());
        assert!(check_terms(&info(20_000, all, 1), &terms).is_ok());
        for (bad, why) in [
            (info(9_999, all, 1), "9999 bytes, the volume has 10000"),
            (info(10_000, all.with(TransmissionFlags::READ_ONLY), 1), "read-only"),
            (info(10_000, TransmissionFlags::HAS_FLAGS, 1), "no FLUSH"),
            (info(20_000, all, 4096), "4096 bytes, clients use 512"),
            (info(20_000, all, 512), "no multiple"),
        ] {
            let error = check_terms(&bad, &terms).expect_err(why);
            assert!(error.message.contains(why), "{error}");
        }
        let accepted = Terms { flush_unsafe: true, min_block: None, ..terms };
        assert!(check_terms(&info(10_000, TransmissionFlags::HAS_FLAGS, 4096), &accepted).is_ok());
    }
}
