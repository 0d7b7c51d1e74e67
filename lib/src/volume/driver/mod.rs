//! The I/O around the core: one loop over all sockets, and a few threads for what may take long.
//!
//! A round of the loop: wait; receive from whoever is ready and turn the bytes into a batch of events; let the
//! core decide; send to remote legs first, then do local I/O, and let the core decide again about what that
//! brought, until it is quiet; then send the replies of all clients, each with as few system calls as there are
//! sockets. Payloads are received once and never copied on the way ([`buffers`]).

mod actions;
mod admin;
mod advice;
mod barrier;
mod buffers;
mod client;
mod clients;
mod control;
mod end;
mod exports;
mod hook;
mod input;
mod legs;
mod link;
mod local;
mod output;
mod relegs;
mod reload;
mod remote;
mod report;
mod slab;
mod spin;
mod tls;
mod trackers;
mod verify;
mod vouch;
mod watch;
mod workers;

use crate::base::{Class, Error, Id, Name, Result, limits};
use crate::config::VolumeConfig;
use crate::control::{EventKind, VolumeDir};
use crate::leg::LegSpec;
use crate::transport::tls::{ServerTls, Tunnels};
use crate::volume::core::{Action, Core, Event, IoId, LegIx, LegStart, TICK_MS};
use crate::volume::entrance::Door;
use crate::volume::metrics::Metrics;
use crate::volume::options::ServeNotice;
use crate::volume::state::trackers::FoundTracker;
use crate::volume::state::{MapHandle, Records};
use buffers::{Pool, Slice};
use client::{Charge, Client, Pending};
use control::Control;
use hook::Hook;
use legs::Slot;
pub(crate) use reload::Source;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use workers::{Results, Workers};

/// Names of what epoll waits for. Clients have names from a [`Slab`], which are 2^32 at least.
const WAKE: u64 = 1;
const SIGNAL: u64 = 2;
const CONTROL_LISTENER: u64 = 3;
const CLOCK: u64 = 6;
const STDIO: u64 = 4;
const HANGUP: u64 = 5;
const LISTENER: u64 = 1 << 16;
const LEG: u64 = 2 << 16;
/// Control connections: a name from their slab with this bit.
const CONTROL: u64 = 1 << 63;

/// Threads for local I/O that waits for a disk: as many requests as a disk likes to have at once.
const IO_THREADS: usize = 8;
/// Threads that sync maps: of a few legs all at once, of many some.
const MAP_THREADS: usize = 4;
/// With more requests in flight there is always something to do.
const SPIN_REQUESTS: usize = 2;
/// With more bytes in flight it is the copying that takes the time, and a processor is better used for that.
const SPIN_BYTES: usize = 64 << 10;
/// Connection deadlines are looked at so often, in milliseconds.
const SWEEP_MS: u64 = 200;

/// Everything that a volume needs to be served.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The volume.
    pub(crate) name: Name,
    /// Where its records and maps are.
    pub(crate) dir: VolumeDir,
    /// Its identity.
    pub(crate) id: Id,
    /// In bytes.
    pub(crate) size: u64,
    /// Legs and options.
    pub(crate) config: VolumeConfig,
    /// Legs that its configuration names and that it does not have.
    pub(crate) strangers: Vec<LegSpec>,
    /// What was found of each leg.
    pub(crate) starts: Vec<LegStart>,
    /// The map of each leg, in use.
    pub(crate) maps: Vec<MapHandle>,
    /// Its trackers.
    pub(crate) trackers: Vec<FoundTracker>,
    /// The records of all legs.
    pub(crate) records: Arc<Mutex<Records>>,
    /// By so many bytes the maps were wider at the start than before the crash.
    pub(crate) widened: u64,
    /// What an administrator should read about the start.
    pub(crate) notes: Vec<String>,
    /// Where NBD clients connect.
    pub(crate) doors: Vec<Door>,
    /// What those that come over TCP must speak first.
    pub(crate) tls: Option<ServerTls>,
    /// The only client, connected already: the volume is served for as long as it stays.
    pub(crate) stdio: Option<OwnedFd>,
    /// Where administrators connect.
    pub(crate) control: OwnedFd,
    /// Figures for monitoring, if they are wanted.
    pub(crate) metrics: Option<Metrics>,
    /// How the configuration is read again.
    pub(crate) source: Source,
    /// Readable once a signal asks for the end.
    pub(crate) signals: UnixStream,
    /// Readable once a signal asks for the configuration to be read again; none where that signal is ignored.
    pub(crate) hangups: Option<UnixStream>,
}

/// What workers report.
#[derive(Debug)]
enum Completion {
    /// Local I/O.
    Worked { leg: LegIx, session: u32, io: IoId, bytes: u64, worked: local::Worked },
    /// A local leg was opened, or not.
    Opened { leg: LegIx, device: Result<crate::device::FileDevice> },
    /// A host's name was looked up.
    Resolved { leg: LegIx, tries: u64, route: Result<remote::Route> },
    /// Blocks of a local leg were read, to compare another one with.
    Looked { leg: LegIx, serial: u32, of: LegIx, blocks: Vec<Option<vouch::Digest>> },
    /// The command for an event has ended.
    Hooked { problem: Option<String> },
    /// The configuration was read again.
    Reread(Box<Result<reload::Prepared>>),
    /// Something was closed that may have waited.
    Closed,
    /// The state was written.
    Persisted { seq: u64, result: Result<()> },
    /// A map was synced; of the last one of a group with those that failed.
    MapsSynced { seq: u64, failed: Option<Vec<(MapHandle, Error)>> },
    /// A worker's part of a task.
    Task { result: Result<admin::Brought> },
    /// The map of a tracker was made, or not.
    TrackerMade { id: u64, name: Name, result: Result<MapHandle> },
    /// The map of a tracker was removed, or not.
    TrackerGone { id: u64, name: Name, result: Result<()> },
}

/// I/O names and cookies are dense numbers of ours; their tables need no better hash.
#[derive(Default)]
struct IoHasher(u64);

impl Hasher for IoHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

type IoTable<T> = HashMap<IoId, T, BuildHasherDefault<IoHasher>>;

/// The loop and all it knows.
struct Driver<'a> {
    name: Name,
    dir: VolumeDir,
    id: Id,
    size: u64,
    config: VolumeConfig,
    core: Core,
    /// What happened in this round; begins with a tick.
    events: Vec<Event>,
    actions: Vec<Action>,
    began: Instant,
    now: Instant,
    epoll: OwnedFd,
    clock: OwnedFd,
    patience: spin::Patience,
    /// There are other processors for those who are waited for.
    may_spin: bool,
    pool: Pool,
    results: Results<Completion>,
    io_workers: Workers<Completion>,
    workers: Workers<Completion>,
    /// For syncs of maps: writes wait for them.
    map_workers: Workers<Completion>,

    doors: Vec<Door>,
    tls: Option<ServerTls>,
    tunnels: Tunnels,
    /// Those to legs, for which no number of clients leaves no room.
    leg_tunnels: Tunnels,
    listening: bool,
    /// The only client, until it is served.
    stdio: Option<OwnedFd>,
    /// There is one client only, and the end when it has gone.
    only_client: bool,
    /// Connections that the allow-list kept out.
    refused_clients: u64,
    clients: Slab<Client>,
    requests: Slab<Pending>,
    /// Requests that the core has, and bytes of payload in flight.
    totals: Charge,
    /// Clients with something to send.
    touched: Vec<u64>,
    /// Clients whose requests wait for room.
    stalled: VecDeque<u64>,
    read_bytes: u64,
    written_bytes: u64,

    legs: Vec<Slot>,
    local_todo: Vec<actions::Todo>,
    /// What reads brought, until the core lets go of it.
    reads: IoTable<Slice>,
    extents: IoTable<Vec<crate::device::Extent>>,
    promised_block: Option<u32>,
    maps: Vec<MapHandle>,
    /// By the core's numbers.
    trackers: Vec<Option<trackers::Slot>>,
    /// Trackers that are just being made or removed.
    changing: Vec<Name>,
    records: Arc<Mutex<Records>>,
    widened: u64,

    control: Control,
    hook: Hook,
    /// Who holds writes.
    barrier: Option<barrier::Asked>,
    /// Who asked for the verify that runs.
    verify: Option<verify::Asked>,
    /// A task of several steps.
    task: Option<admin::Task>,
    /// What failed to go on by itself is not tried again before.
    replace_at_ms: u64,
    /// Counts comparisons of legs with what they should hold.
    looks: u32,
    signals: UnixStream,
    hangups: Option<UnixStream>,
    source: Source,
    /// A worker reads the configuration; and somebody has asked for that again meanwhile.
    reloading: bool,
    reload_again: bool,
    /// Legs that the configuration named when it was last read.
    named: Vec<Name>,
    /// Legs that it names, with those among them that are no members.
    asked_for: Vec<LegSpec>,
    /// What a reload still has to do to the legs.
    relegs: Option<relegs::Relegs>,
    /// How often systemd wants to hear that the loop lives, in milliseconds; 0 if never.
    watchdog_ms: u64,
    barked_ms: u64,
    notify: &'a mut dyn FnMut(ServeNotice),
    serving: bool,
    stopping: bool,
    swept_ms: u64,
    /// The core has stopped: which maps may be closed as clean.
    stopped: Option<Vec<bool>>,
    /// The last to go: its thread asks the control socket.
    metrics: Option<Metrics>,
}

/// Serves until it is told to stop. Gives back the maps, and whether each may be closed as clean.
pub(crate) fn run(setup: Setup, notify: &mut dyn FnMut(ServeNotice)) -> Result<Vec<(MapHandle, bool)>> {
    let notes = setup.notes.clone();
    let mut driver = Driver::new(setup, notify)?;
    for note in notes {
        driver.event(EventKind::Widened, None, &note);
        (driver.notify)(ServeNotice::Note(note));
    }
    for leg in driver.asked_for.clone() {
        let (text, hint) = super::strangers::warning(&driver.name, &leg);
        driver.event(EventKind::Stranger, None, &text);
        (driver.notify)(ServeNotice::Note(text));
        (driver.notify)(ServeNotice::Note(format!("try: {hint}")));
    }
    let clean = driver.run()?;
    let Driver { maps, legs, .. } = driver;
    let members = maps.into_iter().zip(clean).zip(&legs).filter(|(_, slot)| !slot.gone);
    Ok(members.map(|(map, _)| map).collect())
}

fn broken(doing: &str, error: rustix::io::Errno) -> Error {
    Error::os(Class::Internal, "event loop", doing, error)
}

fn milliseconds(ms: u64) -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: ms.cast_signed() * 1_000_000 }
}

/// Ticks every [`TICK_MS`].
fn clock() -> rustix::io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let clock = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let tick = milliseconds(TICK_MS);
    let every = Itimerspec { it_interval: tick, it_value: tick };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &every)?;
    Ok(clock)
}

impl<'a> Driver<'a> {
    fn new(setup: Setup, notify: &'a mut dyn FnMut(ServeNotice)) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| broken("making it", e))?;
        let results = Results::new()?;
        let add = |fd: rustix::fd::BorrowedFd<'_>, name: u64, flags| {
            epoll::add(&epoll, fd, EventData::new_u64(name), flags).map_err(|e| broken("waiting", e))
        };
        add(results.fd(), WAKE, EventFlags::IN | EventFlags::ET)?;
        let clock = clock().map_err(|e| broken("making its clock", e))?;
        add(clock.as_fd(), CLOCK, EventFlags::IN)?;
        add(setup.signals.as_fd(), SIGNAL, EventFlags::IN)?;
        if let Some(hangups) = &setup.hangups {
            add(hangups.as_fd(), HANGUP, EventFlags::IN)?;
        }
        add(setup.control.as_fd(), CONTROL_LISTENER, EventFlags::IN)?;
        if let Some(stdio) = &setup.stdio {
            // Nothing is read before it can be served; that it has gone is always told.
            add(stdio.as_fd(), STDIO, EventFlags::empty())?;
        }
        let pool = Pool::new();
        let ids: Vec<Id> = {
            let records = setup.records.lock().unwrap_or_else(PoisonError::into_inner);
            records.records.iter().map(|record| record.leg).collect()
        };
        let legs: Result<Vec<Slot>> =
            setup.config.legs.iter().zip(ids).map(|(leg, id)| Slot::new(leg, id, &pool)).collect();
        let legs = legs?;
        let core = Core::new(legs::core_config(&setup.config, setup.size), setup.starts);
        let (marks, trackers) = trackers::slots(setup.trackers);
        let now = Instant::now();
        let hook = Hook::new(setup.config.on_event.clone(), results.workers("mirrord-hook", 1));
        Ok(Self {
            io_workers: results.workers("mirrord-io", IO_THREADS),
            workers: results.workers("mirrord-sync", legs.len() + 1),
            map_workers: results.workers("mirrord-map", MAP_THREADS),
            name: setup.name,
            dir: setup.dir,
            id: setup.id,
            size: setup.size,
            config: setup.config,
            core: core.with_trackers(marks),
            events: Vec::new(),
            actions: Vec::new(),
            began: now,
            now,
            epoll,
            clock,
            patience: spin::Patience::default(),
            may_spin: std::thread::available_parallelism().is_ok_and(|n| n.get() > 1),
            pool,
            results,
            doors: setup.doors,
            tls: setup.tls,
            tunnels: Tunnels::new(limits::TLS_TUNNELS),
            leg_tunnels: Tunnels::new(limits::TLS_LEG_TUNNELS),
            listening: false,
            only_client: setup.stdio.is_some(),
            refused_clients: 0,
            stdio: setup.stdio,
            clients: Slab::default(),
            requests: Slab::default(),
            totals: Charge::default(),
            touched: Vec::new(),
            stalled: VecDeque::new(),
            read_bytes: 0,
            written_bytes: 0,
            legs,
            local_todo: Vec::new(),
            reads: IoTable::default(),
            extents: IoTable::default(),
            promised_block: None,
            maps: setup.maps,
            trackers,
            changing: Vec::new(),
            records: setup.records,
            widened: setup.widened,
            control: Control::new(setup.control),
            hook,
            barrier: None,
            verify: None,
            task: None,
            replace_at_ms: 0,
            looks: 0,
            signals: setup.signals,
            hangups: setup.hangups,
            named: setup.source.reread.as_ref().map(|again| again.named().to_vec()).unwrap_or_default(),
            asked_for: setup.strangers,
            source: setup.source,
            reloading: false,
            reload_again: false,
            relegs: None,
            watchdog_ms: sd_notify::watchdog_enabled().map_or(0, |every| every.as_millis() as u64 / 2),
            barked_ms: 0,
            notify,
            serving: false,
            stopping: false,
            swept_ms: 0,
            stopped: None,
            metrics: setup.metrics,
        })
    }

    fn run(&mut self) -> Result<Vec<bool>> {
        let mut ready = Vec::with_capacity(256);
        // Legs are being reached before anybody can ask about them.
        self.tick();
        self.settle();
        loop {
            self.round(&mut ready)?;
            if let Some(clean) = self.stopped.take() {
                self.end(&mut ready);
                self.close_tunnels();
                return Ok(clean);
            }
        }
    }

    /// Milliseconds of the ticks' clock.
    fn now_ms(&self) -> u64 {
        self.now.duration_since(self.began).as_millis() as u64
    }

    /// One round of the loop.
    fn round(&mut self, ready: &mut Vec<epoll::Event>) -> Result<()> {
        self.wait(ready)?;
        self.tick();
        for event in ready.drain(..) {
            self.dispatch(event.data.u64(), event.flags);
        }
        self.timers();
        self.settle();
        Ok(())
    }

    /// Asks the sockets for a while, where a wake-up would cost more than what is awaited. Says whether something
    /// came.
    fn spin(&mut self, ready: &mut Vec<epoll::Event>) -> bool {
        let little = self.totals.requests <= SPIN_REQUESTS && self.totals.bytes <= SPIN_BYTES;
        let quiet = little && self.clients.len() > 0;
        if self.config.spin_us == 0 || !self.may_spin || !quiet || !self.patience.is_worth_it() {
            return false;
        }
        let end = Instant::now() + Duration::from_micros(self.config.spin_us);
        let came = loop {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), Some(&milliseconds(0))) {
                Ok(0) if Instant::now() < end => {}
                // What is wrong will be found by the wait that follows.
                Ok(0) | Err(_) => break false,
                Ok(_) => break true,
            }
        };
        self.patience.learn(came);
        came
    }

    fn wait(&mut self, ready: &mut Vec<epoll::Event>) -> Result<()> {
        if self.spin(ready) {
            return Ok(());
        }
        let now_ms = self.now_ms();
        // A leg that is overdue waits for something else, whose end wakes the loop.
        let due = self.legs.iter().filter_map(|leg| leg.connect_at?.checked_sub(now_ms));
        let wait_ms = due.filter(|left| *left > 0).min();
        // Otherwise the clock of the ticks wakes the loop: a timeout would set up a timer for each wait.
        let timeout = wait_ms.map(|ms| milliseconds(ms.min(TICK_MS)));
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(broken("waiting", error)),
        }
    }

    fn tick(&mut self) {
        self.now = Instant::now();
        self.events.clear();
        self.events.push(Event::Tick { now_ms: self.now_ms() });
    }

    fn dispatch(&mut self, name: u64, flags: EventFlags) {
        match name {
            WAKE => self.completions(),
            SIGNAL => self.signalled(),
            CLOCK => {
                // A round has begun, that is all that it is for; unread it would not tick again.
                let _ = rustix::io::read(&self.clock, &mut [0; 8]);
            }
            CONTROL_LISTENER => self.accept_control(),
            HANGUP => self.reload(),
            // The only client has gone before it was served.
            STDIO => self.stop(control::BY_SIGNAL),
            _ if name & CONTROL != 0 => self.control_ready(name & !CONTROL, flags),
            _ if name > u64::from(u32::MAX) => self.client_ready(name, flags),
            _ if name >= LEG => self.leg_ready((name - LEG) as usize, flags),
            _ => self.accept_clients((name - LISTENER) as usize),
        }
    }

    /// Lets the core decide until nothing more happens, then answers.
    fn settle(&mut self) {
        loop {
            let mut actions = std::mem::take(&mut self.actions);
            self.core.step(&self.events, &mut actions);
            self.events.clear();
            self.events.push(Event::Tick { now_ms: self.now_ms() });
            for action in actions.drain(..) {
                self.perform(action);
            }
            self.actions = actions;
            self.flush_legs();
            self.work_locally();
            if self.events.len() == 1 {
                self.flush_clients();
                if self.events.len() == 1 {
                    return;
                }
            }
        }
    }

    fn timers(&mut self) {
        let now_ms = self.now_ms();
        self.reach_legs(now_ms);
        if now_ms >= self.swept_ms + SWEEP_MS {
            self.swept_ms = now_ms;
            self.sweep_clients(now_ms);
            self.sweep_legs(now_ms);
            self.watch_legs(now_ms);
            self.replace_legs();
            self.change_next_leg();
        }
        if self.watchdog_ms > 0 && now_ms >= self.barked_ms + self.watchdog_ms {
            self.barked_ms = now_ms;
            // A socket that has gone is systemd's trouble: it ends this process.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    fn completions(&mut self) {
        let mut done = Vec::new();
        self.results.take(&mut done);
        for completion in done {
            match completion {
                Completion::Worked { leg, session, io, bytes, worked } => {
                    self.worked(leg, session, io, bytes, worked);
                }
                Completion::Opened { leg, device } => self.opened(leg, device),
                Completion::Resolved { leg, tries, route } => self.resolved(leg, tries, route),
                Completion::Looked { leg, serial, of, blocks } => self.looked_at(leg, serial, of, &blocks),
                Completion::Reread(prepared) => self.reloaded(*prepared),
                Completion::Closed => {}
                Completion::Hooked { problem } => self.hooked(problem),
                Completion::Task { result } => self.task_worked(result),
                Completion::Persisted { seq, result } => self.persisted(seq, &result),
                Completion::MapsSynced { seq, failed } => self.maps_synced(seq, failed),
                Completion::TrackerMade { id, name, result } => self.tracker_made(id, name, result),
                Completion::TrackerGone { id, name, result } => self.tracker_gone(id, &name, result),
            }
        }
    }
}
