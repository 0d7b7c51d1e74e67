//! A remote leg: connecting, the handshake, and what may change between two connections.
//!
//! A leg may have several addresses, ways to the same server. An attempt tries all of them in order, and each with
//! every endpoint that its name has; when none is left it has failed, and the core's pause follows. So no address is
//! tried more often than the pause allows, however many there are. The next attempt begins with the first again.

use super::buffers::Pool;
use super::exports::ALLOCATION;
use super::link::Link;
use crate::base::{Address, Class, Error, Result, limits};
use crate::leg::LegSpec;
use crate::leg::dial::Dial;
use crate::nbd::client::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
use crate::nbd::{NbdUri, TransmissionFlags};
use crate::transport::tls::{ClientTls, Ending, Tunnels};
use crate::transport::{self, Endpoint};
use crate::volume::core::Caps;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct RemoteLeg {
    ways: Vec<Way>,
    /// The way that is tried, or in use.
    at: usize,
    /// Counts ways tried: what is learnt about an earlier try is not believed.
    tries: u64,
    pool: Pool,
    state: State,
    /// Endpoints of this way that have not been tried in this attempt.
    others: VecDeque<Endpoint>,
    /// What this way needs of TLS.
    tls: Option<ClientTls>,
    /// What becomes of the tunnel, where there is one.
    ending: Option<Ending>,
    /// Bytes over the network of earlier connections.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Cookies below it were used on earlier connections: a late reply to one must not mean a newer request.
    next_cookie: u64,
    /// A connection ended while it was asked for holes: by a lie about them, by silence, or by chance. It is not asked
    /// any more; otherwise a client that goes on asking would cost the leg one connection after the other.
    mute: bool,
}

/// One address.
#[derive(Debug)]
pub(super) struct Way {
    uri: NbdUri,
    /// As it was written.
    pub(super) text: String,
    /// Why it was of no use when it was last tried; `None` if it was not, or was of use.
    pub(super) error: Option<String>,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Its host's name is looked up.
    Resolving(u64),
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

/// Where a way leads, looked up.
#[derive(Debug)]
pub(super) struct Route {
    endpoints: Vec<Endpoint>,
    tls: Option<ClientTls>,
}

impl Route {
    /// Looks it up, and reads the certificates that it needs. **May wait** for a name server.
    pub(super) fn find(uri: &NbdUri, dial: &Dial) -> Result<Self> {
        let tls = dial.tls(uri)?;
        Ok(Self { endpoints: transport::resolve(&uri.address)?, tls })
    }

    /// Whether finding it waits for nobody.
    pub(super) fn is_at_hand(uri: &NbdUri) -> bool {
        uri.tls.is_none() && matches!(uri.address, Address::Unix(_))
    }
}

/// What came of a step towards a connection.
#[derive(Debug)]
pub(super) enum Step {
    /// Not there yet.
    Wait,
    /// The socket goes to a tunnel now ([`RemoteLeg::secure`]).
    StartTls,
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
    /// A leg not connected, with at least one address.
    pub(super) fn new(spec: &LegSpec, pool: &Pool) -> Result<Self> {
        Ok(Self {
            ways: ways(spec)?,
            at: 0,
            tries: 0,
            pool: pool.clone(),
            state: State::Idle,
            others: VecDeque::new(),
            tls: None,
            ending: None,
            received: 0,
            sent: 0,
            next_cookie: 1,
            mute: false,
        })
    }

    /// Other addresses from now on. Says whether the one that is tried or in use is still among them.
    pub(super) fn set_ways(&mut self, spec: &LegSpec) -> Result<bool> {
        let mut ways = ways(spec)?;
        for way in &mut ways {
            let old = self.ways.iter_mut().find(|old| old.uri == way.uri);
            way.error = old.and_then(|old| old.error.take());
        }
        let present = self.ways.get(self.at).and_then(|way| ways.iter().position(|new| new.uri == way.uri));
        self.ways = ways;
        self.at = present.unwrap_or(0);
        Ok(present.is_some())
    }

    /// All addresses, in order.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// The number of the address that is tried, or in use.
    pub(super) const fn present_way(&self) -> usize {
        self.at
    }

    /// Begins an attempt: with the first address.
    pub(super) fn begin_attempt(&mut self) {
        self.close();
        self.at = 0;
    }

    /// The next address of this attempt is up. `false`: there is none, the attempt has failed.
    pub(super) fn next_way(&mut self) -> bool {
        self.close();
        let more = self.at + 1 < self.ways.len();
        self.at += usize::from(more);
        more
    }

    /// What there is to say about the present address; whether that is something new.
    pub(super) fn remark(&mut self, error: Option<&str>) -> bool {
        let Some(way) = self.ways.get_mut(self.at) else { return false };
        let new = way.error.as_deref() != error;
        way.error = error.map(str::to_owned);
        new
    }

    /// Why the attempt has failed: what the only address said, or what each of several did.
    pub(super) fn why(&self) -> String {
        let said = |way: &Way| way.error.clone().unwrap_or_else(|| "not tried".to_owned());
        match &self.ways[..] {
            [way] => said(way),
            ways => {
                ways.iter().map(|way| format!("{}: {}", way.text, said(way))).collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// The host of the present address is to be looked up; what is found is believed with this number.
    pub(super) fn resolve(&mut self, now_ms: u64, spec: &LegSpec) -> (u64, NbdUri) {
        self.tries += 1;
        self.state = State::Resolving(deadline(now_ms, spec));
        (self.tries, self.ways[self.at].uri.clone())
    }

    /// Whether what was looked up is still wanted.
    pub(super) fn awaits(&self, tries: u64) -> bool {
        self.tries == tries && matches!(self.state, State::Resolving(_))
    }

    /// The descriptor to wait for, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Idle | State::Resolving(_) => None,
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

    /// Begins to connect to the first of its endpoints that answers.
    pub(super) fn connect(&mut self, route: Route, now_ms: u64, spec: &LegSpec) -> Result<()> {
        self.close();
        self.others = route.endpoints.into();
        self.tls = route.tls;
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
        let contexts = if self.mute { Vec::new() } else { vec![ALLOCATION.to_owned()] };
        let export = self.ways[self.at].uri.export.clone();
        let options = ClientOptions { export, contexts, structured: true };
        let deadline_ms = deadline(now_ms, spec);
        let machine = ClientHandshake::extended(options);
        self.ending = None;
        self.state = State::Opening(Box::new(Opening {
            fd,
            connected: false,
            machine: if self.tls.is_some() { machine.over_tls() } else { machine },
            unsent: Vec::new(),
            deadline_ms,
        }));
    }

    /// Whether connecting takes too long.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        match &self.state {
            State::Resolving(deadline_ms) => now_ms > *deadline_ms,
            State::Opening(opening) => now_ms > opening.deadline_ms,
            State::Idle | State::Up(_) => false,
        }
    }

    /// Goes on connecting; the descriptor is ready for something.
    pub(super) fn advance(&mut self, terms: &Terms) -> Step {
        let State::Opening(opening) = &mut self.state else { return Step::Wait };
        let ready = match opening.advance() {
            Ok(Advanced::Wait) => return Step::Wait,
            Ok(Advanced::StartTls) => return Step::StartTls,
            Ok(Advanced::Ready(info, rest)) => (info, rest),
            Err(error) => {
                self.state = State::Idle;
                return Step::Failed(self.explain(error));
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

    /// The server has agreed to TLS: its socket goes to a tunnel, and the near side is waited for in its place.
    pub(super) fn secure(&mut self, tunnels: &Tunnels, now_ms: u64) -> Result<()> {
        let (State::Opening(opening), Some(tls)) = (&mut self.state, &self.tls) else { return Ok(()) };
        let patience = Duration::from_millis(opening.deadline_ms.saturating_sub(now_ms));
        let socket =
            opening.fd.try_clone().map_err(|e| Error::os(Class::Busy, "server", "beginning TLS", e))?;
        let (near, ending) = tunnels.dial(socket, tls, patience)?;
        opening.fd = near;
        opening.machine.secured(&mut opening.unsent);
        self.ending = Some(ending);
        Ok(())
    }

    /// Why the connection has failed: what TLS says of it, where it does.
    pub(super) fn explain(&self, error: Error) -> Error {
        self.ending.as_ref().and_then(Ending::why).unwrap_or(error)
    }

    /// Ends the connection, or the attempt.
    pub(super) fn close(&mut self) {
        if let State::Up(link) = &self.state {
            self.received += link.received();
            self.sent += link.sent();
            self.next_cookie = link.next_cookie();
            self.mute |= link.asks_for_holes();
        }
        self.state = State::Idle;
    }
}

fn ways(spec: &LegSpec) -> Result<Vec<Way>> {
    let way = |text: String| Ok(Way { uri: text.parse()?, text, error: None });
    spec.addresses().map(ToString::to_string).map(way).collect()
}

fn deadline(now_ms: u64, spec: &LegSpec) -> u64 {
    now_ms + limits::NBD_HANDSHAKE_MS.min(spec.timeout_ms.max(1))
}

/// How far an opening is.
enum Advanced {
    Wait,
    StartTls,
    /// The server's offer, and what it sent behind it.
    Ready(ServerInfo, Vec<u8>),
}

impl Opening {
    /// As far as it goes without waiting.
    fn advance(&mut self) -> Result<Advanced> {
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
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => return Ok(Advanced::Wait),
                Err(e) => return Err(failed("negotiating", e)),
            };
            if n == 0 {
                return Err(Error::new(Class::Connect, "server: negotiating: it closed the connection"));
            }
            let (taken, progress) = self.machine.feed(&piece[..n], &mut self.unsent)?;
            match progress {
                ClientProgress::More => {}
                ClientProgress::Ready(info) => return Ok(Advanced::Ready(info, piece[taken..n].to_vec())),
                ClientProgress::StartTls if taken == n => return Ok(Advanced::StartTls),
                // It may be anybody's (CVE-2021-3716).
                ClientProgress::StartTls => {
                    let text = "TLS: something was sent in the clear behind the server's consent";
                    return Err(Error::new(Class::Connect, text));
                }
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
pub(super) fn caps(info: &ServerInfo) -> Caps {
    let extents = info.contexts.iter().any(|(_, name)| name == ALLOCATION);
    let zeroes = info.flags.has(TransmissionFlags::SEND_WRITE_ZEROES);
    Caps {
        flush: info.flags.has(TransmissionFlags::SEND_FLUSH),
        fua: info.flags.has(TransmissionFlags::SEND_FUA),
        fast_zero: zeroes && info.flags.has(TransmissionFlags::SEND_FAST_ZERO),
        extents,
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
