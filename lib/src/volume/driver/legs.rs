//! All legs together: reaching them, losing them, sending to them.

use super::buffers::Pool;
use super::link::Ended;
use super::local::{self, LocalLeg, Work, Worked};
use super::remote::{self, RemoteLeg, Route, Step, Terms};
use super::vouch::Vouching;
use super::watch::Watch;
use super::{Completion, Driver, LEG};
use crate::base::{Class, Error, Id, Result, limits};
use crate::config::{MapDurability, VolumeConfig};
use crate::control::EventKind;
use crate::device::FileDevice;
use crate::leg::{LegDevice, LegSpec, ReadPreference};
use crate::nbd::TransmissionFlags;
use crate::volume::core::{Caps, Config, Event, IoId, LegConfig, LegIx, Power, ReadWish, Rules};
use crate::volume::options::ServeNotice;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::sync::Arc;

/// Receives in one round from one leg that is sending a large payload.
const RECEIVES: usize = 16;

/// One leg as the driver knows it.
pub(super) struct Slot {
    /// Its identity.
    pub(super) id: Id,
    /// As configured.
    pub(super) spec: LegSpec,
    /// No member any more.
    pub(super) gone: bool,
    /// The address in `spec` is not that of `io` yet.
    pub(super) moved: bool,
    pub(super) io: LegIo,
    /// The newest session that was given; it goes on while `up`.
    pub(super) session: u32,
    pub(super) up: bool,
    /// The core wants a connection, from this time on.
    pub(super) connect_at: Option<u64>,
    /// A connection is wanted or being made.
    pub(super) trying: bool,
    /// Why it is not up.
    pub(super) reason: Option<String>,
    /// What it last offered.
    pub(super) offer: Option<Offer>,
    /// When it left the set, while it is out.
    pub(super) last_in_sync: Option<String>,
    /// Whether it comes nearer to in sync.
    pub(super) watch: Watch,
    /// It is connected, and is being compared with what it is known to hold.
    pub(super) vouching: Option<Box<Vouching>>,
    /// What it is compared with the next time.
    pub(super) known: super::vouch::Known,
}

/// How a leg is reached.
pub(super) enum LegIo {
    Local(LocalLeg),
    Remote(Box<RemoteLeg>),
}

/// What a leg offers to clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Bytes, when it was opened or connected.
    pub(super) size: u64,
    pub(super) zeroes: bool,
    pub(super) fast_zero: bool,
    pub(super) min_block: u32,
    pub(super) preferred_block: u32,
}

impl LegIo {
    fn new(spec: &LegSpec, pool: &Pool) -> Result<Self> {
        Ok(match &spec.device {
            LegDevice::File(path) => Self::Local(LocalLeg::new(path)),
            LegDevice::Nbd(_) => Self::Remote(Box::new(RemoteLeg::new(spec, pool)?)),
        })
    }
}

impl Slot {
    /// A leg not reached yet.
    pub(super) fn new(spec: &LegSpec, id: Id, pool: &Pool) -> Result<Self> {
        Ok(Self {
            id,
            spec: spec.clone(),
            gone: false,
            moved: false,
            io: LegIo::new(spec, pool)?,
            session: 0,
            up: false,
            connect_at: None,
            trying: false,
            reason: None,
            offer: None,
            last_in_sync: None,
            watch: Watch::default(),
            vouching: None,
            known: super::vouch::Known::default(),
        })
    }

    /// Bytes of what is connected; `None` if nothing is.
    pub(super) fn present_size(&self) -> Option<u64> {
        let offer = self.offer.filter(|_| self.up)?;
        match &self.io {
            LegIo::Local(local) => local.device()?.current_size().ok(),
            LegIo::Remote(_) => Some(offer.size),
        }
    }

    /// Whether a new leg may have its number: nothing of the old one is under way.
    pub(super) fn is_free(&self) -> bool {
        self.gone && !matches!(&self.io, LegIo::Local(local) if local.outstanding > 0 || local.opening)
    }

    /// The clean end of a connection.
    pub(super) fn say_goodbye(&mut self) {
        self.up = false;
        self.connect_at = None;
        self.vouching = None;
        match &mut self.io {
            LegIo::Local(local) => local.close(),
            LegIo::Remote(remote) => {
                if let Some(link) = remote.link() {
                    link.say_goodbye();
                }
                remote.close();
            }
        }
    }
}

/// The core's view of a leg.
pub(super) fn core_leg(leg: &LegSpec) -> LegConfig {
    LegConfig {
        remote: !leg.device.is_local(),
        read: match leg.read {
            ReadPreference::Prefer => ReadWish::Prefer,
            ReadPreference::Allow => ReadWish::Allow,
            ReadPreference::Avoid => ReadWish::Avoid,
        },
        flush_unsafe: leg.flush_unsafe,
        timeout_ms: leg.timeout_ms,
        retries: leg.retries,
        rate: leg.rate,
    }
}

/// The core's view of the configuration.
pub(super) fn core_config(config: &VolumeConfig, size: u64) -> Config {
    Config {
        size,
        block: config.map_block,
        min_legs: config.min_legs as usize,
        read_policy: super::reload::read_policy(config.read_policy),
        hold_ms: limits::HOLD_MS,
        power: match config.map_durability {
            MapDurability::Process => None,
            MapDurability::Power => {
                Some(Power { run_blocks: crate::map::set::WORD_BLOCKS, cool_ms: limits::COOL_MS })
            }
        },
        rules: Rules::default(),
        legs: config.legs.iter().map(core_leg).collect(),
    }
}

impl Driver<'_> {
    /// Begins the connections whose time has come.
    pub(super) fn reach_legs(&mut self, now_ms: u64) {
        for leg in 0..self.legs.len() {
            if self.legs[leg].connect_at.is_some_and(|at| at <= now_ms) {
                self.reach(leg);
            }
        }
    }

    /// A leg that was given another address is reached there from now on, once nothing is under way to the old one.
    fn move_leg(&mut self, leg: LegIx) -> Result<()> {
        let slot = &mut self.legs[leg];
        let under_way = matches!(&slot.io, LegIo::Local(local) if local.outstanding > 0 || local.opening);
        if slot.moved && !under_way {
            slot.moved = false;
            slot.vouching = None;
            slot.known = super::vouch::Known::default();
            slot.io = LegIo::new(&slot.spec, &self.pool)?;
        }
        Ok(())
    }

    fn reach(&mut self, leg: LegIx) {
        if let Err(error) = self.move_leg(leg) {
            self.legs[leg].connect_at = None;
            return self.unreachable(leg, &error);
        }
        let slot = &mut self.legs[leg];
        match &mut slot.io {
            LegIo::Local(local) => {
                // Nothing of an earlier session may still be under way when a new one begins.
                if local.outstanding > 0 || local.opening {
                    return;
                }
                slot.connect_at = None;
                local.opening = true;
                local.close();
                let path = local.path().to_owned();
                self.workers
                    .submit(move || Completion::Opened { leg, device: FileDevice::open(&path, true) });
            }
            LegIo::Remote(remote) => {
                slot.connect_at = None;
                slot.vouching = None;
                remote.begin_attempt();
                self.try_way(leg);
            }
        }
    }

    /// Begins with the present address of a remote leg.
    fn try_way(&mut self, leg: LegIx) {
        let (now_ms, dial) = (self.now_ms(), self.dial());
        let slot = &mut self.legs[leg];
        let LegIo::Remote(remote) = &mut slot.io else { return };
        let (tries, uri) = remote.resolve(now_ms, &slot.spec);
        if Route::is_at_hand(&uri) {
            let route = Route::find(&uri, &dial);
            return self.resolved(leg, tries, route);
        }
        self.workers.submit(move || Completion::Resolved { leg, tries, route: Route::find(&uri, &dial) });
    }

    /// A host's name was looked up: connect.
    pub(super) fn resolved(&mut self, leg: LegIx, tries: u64, route: Result<Route>) {
        let now_ms = self.now_ms();
        let Some(slot) = self.legs.get_mut(leg) else { return };
        let LegIo::Remote(remote) = &mut slot.io else { return };
        if !slot.trying || !remote.awaits(tries) {
            return;
        }
        match route.and_then(|route| remote.connect(route, now_ms, &slot.spec)) {
            Ok(()) => self.await_connection(leg),
            Err(error) => self.no_way(leg, &error),
        }
    }

    /// The present endpoint is of no use: the next one, then the next address; when there is none, the attempt has
    /// failed.
    pub(super) fn no_way(&mut self, leg: LegIx, error: &Error) {
        let now_ms = self.now_ms();
        let slot = &mut self.legs[leg];
        slot.vouching = None;
        let LegIo::Remote(remote) = &mut slot.io else { return self.unreachable(leg, error) };
        let several = remote.ways().len() > 1;
        match remote.next_endpoint(now_ms, &slot.spec) {
            Some(Ok(())) => return self.await_connection(leg),
            Some(Err(error)) => self.remark(leg, several, &error),
            None => self.remark(leg, several, error),
        }
        let LegIo::Remote(remote) = &mut self.legs[leg].io else { return };
        if remote.next_way() {
            return self.try_way(leg);
        }
        let why = Error::new(error.class, remote.why());
        self.unreachable(leg, &why);
    }

    /// Notes what is wrong with the present address; said once, not at every attempt.
    fn remark(&mut self, leg: LegIx, several: bool, error: &Error) {
        let LegIo::Remote(remote) = &mut self.legs[leg].io else { return };
        if !remote.remark(Some(&error.message)) || !several {
            return;
        }
        let text = remote.ways().get(remote.present_way()).map_or_else(String::new, |way| way.text.clone());
        let text = format!("{text}: {}", error.message);
        if error.class == Class::Refused {
            let name = &self.legs[leg].spec.name;
            (self.notify)(ServeNotice::Note(format!("leg {name}: {text}")));
        }
        self.event(EventKind::Address, Some(leg), &text);
    }

    pub(super) fn await_connection(&mut self, leg: LegIx) {
        let LegIo::Remote(remote) = &self.legs[leg].io else { return };
        let Some(fd) = remote.fd() else { return };
        let (data, flags) =
            (EventData::new_u64(LEG + leg as u64), EventFlags::IN | EventFlags::OUT | EventFlags::ET);
        if let Err(e) = epoll::add(&self.epoll, fd, data, flags) {
            self.no_way(leg, &super::broken("waiting for a leg", e));
        }
    }

    fn unreachable(&mut self, leg: LegIx, error: &Error) {
        let (slot, serving) = (&mut self.legs[leg], self.serving);
        let said = slot.reason.replace(error.message.clone());
        // A start that waits for it says so; later the core tells what matters.
        if !serving && said.as_ref() != slot.reason.as_ref() {
            let text = format!("leg {}: not connected: {}", slot.spec.name, error.message);
            (self.notify)(ServeNotice::Note(text));
        }
        slot.trying = false;
        slot.vouching = None;
        if let LegIo::Remote(remote) = &mut slot.io {
            remote.close();
        }
        self.events.push(Event::Unreachable { leg });
    }

    /// A local leg was opened, or not.
    pub(super) fn opened(&mut self, leg: LegIx, device: Result<FileDevice>) {
        let size = self.size_of_legs();
        let slot = &mut self.legs[leg];
        let LegIo::Local(local) = &mut slot.io else { return };
        local.opening = false;
        if !slot.trying || slot.moved {
            return;
        }
        let fits = device.and_then(|device| {
            if device.size() >= size {
                return Ok(device);
            }
            let text =
                format!("{}: it has {} bytes, the volume has {size}", device.path().display(), device.size());
            Err(Error::new(Class::Refused, text))
        });
        match fits {
            Ok(device) => {
                let caps = local::caps(&device);
                let offer = Offer {
                    size: device.size(),
                    zeroes: true,
                    fast_zero: caps.fast_zero,
                    min_block: 1,
                    preferred_block: 4096,
                };
                local.open(device);
                self.up(leg, caps, offer);
            }
            Err(error) => self.unreachable(leg, &error),
        }
    }

    pub(super) fn up(&mut self, leg: LegIx, caps: Caps, offer: Offer) {
        let slot = &mut self.legs[leg];
        if slot.moved {
            // That was the old address.
            return;
        }
        slot.session += 1;
        (slot.up, slot.trying, slot.reason) = (true, false, None);
        slot.offer = Some(offer);
        if let LegIo::Remote(remote) = &mut slot.io {
            remote.remark(None);
        }
        self.events.push(Event::Up { leg, session: slot.session, caps });
        self.look_again();
    }

    /// The socket of a leg is ready for something.
    pub(super) fn leg_ready(&mut self, leg: usize, flags: EventFlags) {
        let Some(Slot { io: LegIo::Remote(remote), .. }) = self.legs.get(leg) else { return };
        if remote.is_opening() {
            self.go_on_connecting(leg);
        } else if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive_from(leg);
        }
        // What waits to be sent is sent at the end of the round anyway.
    }

    fn go_on_connecting(&mut self, leg: LegIx) {
        let terms = Terms {
            size: self.size_of_legs(),
            min_block: self.promised_block.filter(|_| self.clients.len() > 0),
            flush_unsafe: self.legs[leg].spec.flush_unsafe,
        };
        let slot = &mut self.legs[leg];
        let LegIo::Remote(remote) = &mut slot.io else { return };
        match remote.advance(&terms) {
            Step::Wait => {}
            Step::StartTls => self.secure_leg(leg),
            Step::Ready(info) => {
                let caps = remote::caps(&info);
                let offer = Offer {
                    size: info.size,
                    zeroes: info.flags.has(TransmissionFlags::SEND_WRITE_ZEROES),
                    fast_zero: caps.fast_zero,
                    min_block: info.min_block,
                    preferred_block: info.preferred_block,
                };
                self.wait_for(leg);
                if self.legs[leg].spec.others.is_empty() {
                    self.up(leg, caps, offer);
                } else {
                    self.vouch(leg, caps, offer);
                }
            }
            Step::Failed(error) => self.no_way(leg, &error),
        }
    }

    fn receive_from(&mut self, leg: LegIx) {
        let mut ended = Vec::new();
        let mut failed = None;
        let slot = &mut self.legs[leg];
        let LegIo::Remote(remote) = &mut slot.io else { return };
        let Some(link) = remote.link() else { return };
        for _ in 0..RECEIVES {
            match link.receive(&mut ended) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let session = slot.session;
        for Ended { io, result, data, extents } in ended {
            if let Some((serial, of, n)) = io.inside() {
                self.looked(of, serial, n, leg, data.as_ref());
                continue;
            }
            if let Some(data) = data {
                self.reads.insert(io, data);
            }
            if let Some(extents) = extents {
                self.extents.insert(io, extents);
            }
            self.events.push(Event::Done { leg, session, io, result });
        }
        if let Some(error) = failed {
            let error = self.explained(leg, error);
            self.lost(leg, &error);
        }
    }

    /// A connection that was up is lost.
    fn lost(&mut self, leg: LegIx, error: &Error) {
        let slot = &mut self.legs[leg];
        slot.reason = Some(error.message.clone());
        if let LegIo::Remote(remote) = &mut slot.io {
            remote.close();
        }
        if std::mem::take(&mut slot.up) {
            self.events.push(Event::Down { leg, session: slot.session });
        } else if slot.vouching.is_some() {
            self.no_way(leg, error);
        }
    }

    /// Other addresses of a leg, of which it had one before: it goes on where it is, unless that is none of them.
    pub(super) fn readdress(&mut self, leg: LegIx) {
        let slot = &mut self.legs[leg];
        let LegIo::Remote(remote) = &mut slot.io else { return };
        let gone = Error::new(Class::Connect, "its address has been taken away");
        match remote.set_ways(&slot.spec) {
            Ok(false) if slot.up => self.lost(leg, &gone),
            Ok(false) if slot.trying && slot.connect_at.is_none() => self.no_way(leg, &gone),
            Ok(_) => {}
            Err(error) => self.complain(&error),
        }
    }

    /// The core ends a session.
    pub(super) fn disconnect(&mut self, leg: LegIx, session: u32) {
        let Some(slot) = self.legs.get_mut(leg) else { return };
        if slot.session != session || !slot.up {
            return;
        }
        slot.up = false;
        match &mut slot.io {
            LegIo::Local(local) => local.close(),
            LegIo::Remote(remote) => remote.close(),
        }
        self.local_todo.retain(|todo| todo.leg != leg);
    }

    /// Sends what waits for remote legs.
    pub(super) fn flush_legs(&mut self) {
        for leg in 0..self.legs.len() {
            let LegIo::Remote(remote) = &mut self.legs[leg].io else { continue };
            let Some(link) = remote.link() else { continue };
            if link.load().1 == 0 {
                continue;
            }
            if link.flush() {
                self.wait_for(leg);
            } else {
                let error = Error::new(Class::Connect, "sending: the server closed the connection");
                let error = self.explained(leg, error);
                self.lost(leg, &error);
            }
        }
    }

    fn wait_for(&mut self, leg: LegIx) {
        let LegIo::Remote(remote) = &mut self.legs[leg].io else { return };
        let Some(link) = remote.link() else { return };
        if let Some(flags) = link.new_interest() {
            let data = EventData::new_u64(LEG + leg as u64);
            if let Err(e) = epoll::modify(&self.epoll, link.fd(), data, flags) {
                self.lost(leg, &super::broken("waiting for a leg", e));
            }
        }
    }

    pub(super) fn sweep_legs(&mut self, now_ms: u64) {
        for leg in 0..self.legs.len() {
            let late = matches!(&self.legs[leg].io, LegIo::Remote(remote) if remote.is_late(now_ms));
            if late {
                let error = Error::new(Class::Timeout, "connecting: no answer in time");
                self.no_way(leg, &error);
            }
        }
        self.sweep_looks(now_ms);
    }

    /// Has work on a local leg done by a worker.
    pub(super) fn hand_over(
        &mut self,
        leg: LegIx,
        session: u32,
        io: IoId,
        range: crate::base::ByteRange,
        work: Work,
    ) {
        let Some(Slot { io: LegIo::Local(local), .. }) = self.legs.get_mut(leg) else { return };
        let Some(device) = local.device().map(Arc::clone) else { return };
        local.outstanding += 1;
        local.outstanding_bytes += range.len;
        let flush = matches!(work, Work::Flush);
        let job = move || {
            let worked = local::perform(&device, work, range);
            Completion::Worked { leg, session, io, bytes: range.len, worked }
        };
        if flush { self.workers.submit(job) } else { self.io_workers.submit(job) }
    }

    /// A worker is done with work on a local leg.
    pub(super) fn worked(&mut self, leg: LegIx, session: u32, io: IoId, bytes: u64, worked: Worked) {
        if let Some(Slot { io: LegIo::Local(local), .. }) = self.legs.get_mut(leg) {
            local.outstanding -= 1;
            local.outstanding_bytes -= bytes;
        }
        self.deliver(leg, session, io, worked);
    }

    /// Tells the core what came of local I/O, unless the session has ended.
    pub(super) fn deliver(&mut self, leg: LegIx, session: u32, io: IoId, worked: Worked) {
        if self.legs.get(leg).is_none_or(|slot| !slot.up || slot.session != session) {
            return;
        }
        if let Some(data) = worked.data {
            self.reads.insert(io, data);
        }
        if let Some(extents) = worked.extents {
            self.extents.insert(io, extents);
        }
        self.events.push(Event::Done { leg, session, io, result: worked.result });
    }
}
