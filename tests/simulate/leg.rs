//! A leg and the way to it: requests that are executed at some time or never, connections that are lost.

use crate::plan::{Kind, LegPlan, Moment};
use crate::state::Entry;
use crate::storage::Storage;
use crate::world::World;
use mirror::volume::core::{Event, Fault, IoId};

/// The process's connection to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// None.
    None,
    /// Requests are answered.
    Live(u32),
    /// It is lost, but the process has not noticed.
    Broken(u32),
}

/// One leg.
#[derive(Debug)]
pub struct Leg {
    /// What it is.
    pub plan: LegPlan,
    /// What it keeps.
    pub storage: Storage,
    /// The connection.
    pub session: Session,
    /// Stamp of the end of the last connection.
    pub ended: u64,
    /// Number of the last connection.
    pub sessions: u32,
    /// The last start was told that its cache was kept.
    pub kept: bool,
    /// Number of the last attempt to connect.
    pub attempt: u32,
    /// Requests that may still be executed.
    pub queued: usize,
    /// Cannot be reached until then.
    pub away_until: u64,
    /// Slow until then, by this factor.
    pub slow: (u64, u64),
    /// Errors of reads, writes, flushes: of 1000, until then.
    pub errors: [(u64, u64); 3],
    /// A flush has failed and the process does not know.
    pub failed_flush: bool,
    /// A flush of a connection that was gone has failed: the next one says so (Linux since 4.13 keeps such an error
    /// until somebody has been told).
    pub untold: bool,
    /// Some of the last answers, to be repeated.
    pub answered: Vec<IoId>,
}

impl Leg {
    /// Fresh and zero, but for what is behind the end of the volume.
    pub fn new(plan: LegPlan, cells: usize, behind: impl Iterator<Item = u32>) -> Self {
        Self {
            plan,
            storage: Storage::new(cells, behind),
            session: Session::None,
            ended: 0,
            sessions: 0,
            kept: false,
            attempt: 0,
            queued: 0,
            away_until: 0,
            slow: (0, 1),
            errors: [(0, 0); 3],
            failed_flush: false,
            untold: false,
            answered: Vec::new(),
        }
    }
}

/// What a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Read, or ask for the holes: the contents of the cells either way.
    Read,
    /// Write these contents.
    Write {
        /// Through the cache.
        fua: bool,
        /// May be refused as slow.
        fast: bool,
    },
    /// Flush.
    Flush,
}

/// One request to one leg.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which leg.
    pub leg: usize,
    /// On which connection.
    pub session: u32,
    /// By which process.
    pub incarnation: u32,
    /// Its name.
    pub io: IoId,
    /// What.
    pub what: What,
    /// First cell.
    pub from: usize,
    /// Contents to write, or what was read.
    pub values: Vec<u32>,
    /// Whether it may still be executed, and in which schedule.
    pub queued: Option<u32>,
    /// How it ended at the leg.
    pub result: Option<Result<(), Fault>>,
}

impl World<'_> {
    /// Sends a request.
    pub fn send(
        &mut self,
        leg: usize,
        session: Session,
        io: IoId,
        what: What,
        from: usize,
        values: Vec<u32>,
    ) {
        let Session::Live(number) = session else { return };
        let ix = self.requests.len();
        if matches!(what, What::Write { .. }) {
            self.legs[leg].storage.launch(from, &values);
        }
        let base = self.legs[leg].plan.latency_ms;
        let slow = if self.legs[leg].slow.0 > self.now { self.legs[leg].slow.1 } else { 1 };
        let base = if what == What::Flush { base * 3 } else { base };
        let tail = if self.random.chance(30) { 8 } else { 1 };
        let when = self.now + self.random.between(0, base) * slow * tail;
        self.requests.push(Request {
            leg,
            session: number,
            incarnation: self.incarnation,
            io,
            what,
            from,
            values,
            queued: Some(0),
            result: None,
        });
        self.legs[leg].queued += 1;
        self.at(when, Entry::Execute(ix, 0));
    }

    /// The leg executes a request, well or badly.
    pub fn execute(&mut self, ix: usize, schedule: u32) {
        if self.requests[ix].queued != Some(schedule) {
            return;
        }
        self.requests[ix].queued = None;
        let Request { leg, what, from, values, .. } = self.requests[ix].clone();
        self.legs[leg].queued -= 1;
        let kind = match what {
            What::Read => Kind::Read,
            What::Write { .. } => Kind::Write,
            What::Flush => Kind::Flush,
        };
        let (permille, until) = self.legs[leg].errors[kind as usize];
        let fails = self.now < until && self.random.chance(permille);
        let error = if self.random.chance(800) { Fault::Io } else { Fault::NoSpace };
        let result = match what {
            What::Read if fails => Err(Fault::Io),
            What::Read => {
                let cells = &self.legs[leg].storage.cells[from..from + values.len()];
                self.requests[ix].values = cells.iter().map(crate::storage::Cell::visible).collect();
                Ok(())
            }
            What::Write { fua, fast } => {
                self.legs[leg].storage.land(from, &values);
                if fast && self.random.chance(300) {
                    Err(Fault::NotSupported)
                } else {
                    let all = !fails || self.random.chance(300);
                    self.write_cells(leg, from, &values, fua, all);
                    if self.heard(ix) && self.disk.legs[leg].in_sync {
                        self.found_again(leg, from, &values);
                    }
                    if fails { Err(error) } else { Ok(()) }
                }
            }
            What::Flush if fails => {
                let stamp = self.next_stamp();
                if self.legs[leg].storage.flush_badly(&mut self.random, stamp) {
                    let when = self.now + self.random.between(10, 1500);
                    self.at(when, Entry::Evict(leg, 0));
                }
                if self.heard(ix) {
                    self.legs[leg].failed_flush = true;
                } else {
                    self.legs[leg].untold = true;
                }
                Err(error)
            }
            What::Flush if self.heard(ix) && std::mem::take(&mut self.legs[leg].untold) => {
                self.legs[leg].failed_flush = true;
                Err(error)
            }
            What::Flush => {
                self.legs[leg].storage.flush();
                Ok(())
            }
        };
        self.requests[ix].result = Some(result);
        if self.heard(ix) {
            let latency = self.legs[leg].plan.latency_ms;
            let when = self.now + self.random.below(latency);
            self.at(when, Entry::Deliver(ix));
        }
        self.note(|| format!("   leg {leg} executes {what:?} {from} {values:?}: {result:?}"));
    }

    /// Whether the answer to a request can still reach the process.
    fn heard(&self, ix: usize) -> bool {
        let request = &self.requests[ix];
        self.legs[request.leg].session == Session::Live(request.session)
            && request.incarnation == self.incarnation
    }

    /// What was lost has been written again.
    fn found_again(&mut self, leg: usize, from: usize, values: &[u32]) {
        for (at, value) in (from..).zip(values) {
            if self.legs[leg].storage.cells[at].visible() == *value {
                self.registers[at].executed(*value);
            }
        }
    }

    /// Writes all cells, or a random part of them.
    fn write_cells(&mut self, leg: usize, from: usize, values: &[u32], fua: bool, all: bool) {
        let torn = if all { 1000 } else { self.random.weighted(&[(1, 0), (1, 500)]) };
        for (at, value) in (from..).zip(values) {
            if self.random.chance(torn) {
                let through = fua && (all || self.random.chance(500));
                self.legs[leg].storage.write(at, *value, through);
            }
        }
    }

    /// The answer reaches the process, if the connection still stands.
    pub fn deliver(&mut self, ix: usize) {
        let Request { leg, session, incarnation, io, .. } = self.requests[ix];
        if self.legs[leg].session != Session::Live(session)
            || incarnation != self.incarnation
            || self.core.is_none()
        {
            return;
        }
        let request = &mut self.requests[ix];
        let Some(result) = request.result else { return };
        if request.what == What::Read && result.is_ok() {
            let from = request.from;
            let values = std::mem::take(&mut request.values);
            self.data.insert(io, (from, values));
        }
        if self.requests[ix].what == What::Flush && result.is_err() {
            self.legs[leg].failed_flush = false;
            self.spring(Moment::FailedFlush);
        }
        let answered = &mut self.legs[leg].answered;
        if answered.len() == 8 {
            answered.remove(0);
        }
        answered.push(io);
        self.inbox.push(Event::Done { leg, session, io, result });
    }

    /// The process tries to connect.
    pub fn attempt(&mut self, leg: usize, attempt: u32) {
        if attempt != self.legs[leg].attempt || self.core.is_none() {
            return;
        }
        let busy = !self.legs[leg].plan.remote && self.legs[leg].queued > 0;
        if busy || self.legs[leg].session != Session::None {
            self.at(self.now + 2, Entry::Attempt(leg, attempt));
            return;
        }
        let to = &mut self.legs[leg];
        if self.now < to.away_until {
            self.inbox.push(Event::Unreachable { leg });
            return;
        }
        to.sessions += 1;
        to.session = Session::Live(to.sessions);
        to.failed_flush = false;
        to.answered.clear();
        self.inbox.push(Event::Up { leg, session: to.sessions, caps: to.plan.caps });
    }

    /// The process notices that a connection is lost.
    pub fn notice_down(&mut self, leg: usize, session: u32) {
        if self.legs[leg].session == Session::Broken(session) {
            self.legs[leg].session = Session::None;
            self.just_down.push(leg);
            self.inbox.push(Event::Down { leg, session });
        }
    }

    /// A connection ends. Requests of a remote leg are executed before, late within the hold time, or never;
    /// those of a local leg go on unless the process is gone.
    pub fn end_session(&mut self, leg: usize, after: Session) {
        let (Session::Live(session) | Session::Broken(session)) = self.legs[leg].session else { return };
        self.legs[leg].session = after;
        self.legs[leg].ended = self.next_stamp();
        if let Session::Broken(_) = after {
            let when = self.now + self.random.below(20);
            self.at(when, Entry::Down(leg, session));
        }
        let dead = self.core.is_none();
        if !self.legs[leg].plan.remote && !dead {
            return;
        }
        let remote = self.legs[leg].plan.remote;
        let mut open: Vec<usize> =
            self.requests_of(leg).filter(|ix| self.requests[*ix].session == session).collect();
        while !open.is_empty() {
            let ix = open.swap_remove(self.random.index(open.len()));
            let Some(schedule) = self.requests[ix].queued else { continue };
            match self.random.below(if remote { 3 } else { 2 }) {
                0 => self.never(ix),
                1 => self.execute(ix, schedule),
                _ => {
                    self.requests[ix].queued = Some(schedule + 1);
                    let when = self.now + self.random.below(self.plan.setup.hold_ms);
                    self.at(when, Entry::Execute(ix, schedule + 1));
                }
            }
        }
    }

    /// Numbers of the requests of a leg that may still be executed.
    pub fn requests_of(&self, leg: usize) -> impl Iterator<Item = usize> + '_ {
        let mut left = self.legs[leg].queued;
        (0..self.requests.len()).rev().filter(move |ix| {
            let hit = left > 0 && self.requests[*ix].leg == leg && self.requests[*ix].queued.is_some();
            left -= usize::from(hit);
            hit
        })
    }

    /// A request will not be executed any more; part of a write may have been.
    pub fn never(&mut self, ix: usize) {
        if self.requests[ix].queued.take().is_none() {
            return;
        }
        let Request { leg, from, .. } = self.requests[ix];
        self.legs[leg].queued -= 1;
        if let What::Write { fua, .. } = self.requests[ix].what {
            let values = self.requests[ix].values.clone();
            self.legs[leg].storage.land(from, &values);
            if self.random.chance(200) {
                self.write_cells(leg, from, &values, fua, false);
            }
        }
    }
}
