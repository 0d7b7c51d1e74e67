//! The world around the core: virtual time, the process and its machine, and what stands on its disk.
//!
//! The process obeys the promises of `api.rs`. Between two steps of the core any number of things can happen;
//! what they cause is delivered in one batch, after a tick.

use crate::checker::Checker;
use crate::client::Clients;
use crate::grow::{Grower, junk};
use crate::leg::{Leg, Request};
use crate::plan::{BLOCK_CELLS, CELL, Moment, Plan, Thing, Trouble};
use crate::random::Random;
use crate::register::Register;
use crate::state::{Check, Disk, Entry, MapFile, Pending, Phase, Violation};
use crate::tracker::Tracked;
use crate::verify::Verifier;
use mirror::base::{BlockSize, ByteRange};
use mirror::map::BlockSet;
use mirror::volume::core::{Action, Config, Core, Event, IoId, LegRecord, LegStart, Rules, TICK_MS};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Everything.
pub struct World<'a> {
    /// What is to happen.
    pub plan: &'a Plan,
    /// Decides latencies and fates.
    pub random: Random,
    /// Milliseconds.
    pub now: u64,
    /// Counts what happens, for an order without ties.
    pub stamp: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    queued: u64,
    /// The legs.
    pub legs: Vec<Leg>,
    /// Their requests, all of them.
    pub requests: Vec<Request>,
    /// Their maps.
    pub maps: Vec<MapFile>,
    /// What has changed, and who copies it.
    pub tracked: Tracked,
    /// Who holds writes.
    pub holder: crate::barrier::Holder,
    /// Who makes the volume larger.
    pub grower: Grower,
    /// Who compares the legs.
    pub verifier: Verifier,
    /// Their records.
    pub disk: Disk,
    /// A state on its way.
    pub pending: Option<Pending>,
    /// States cannot be persisted until then.
    pub bad_persist_until: u64,
    /// Maps cannot be synced until then.
    pub bad_maps_until: u64,
    /// Chance of what happens to maps, apart from all other: histories do not depend on it.
    pub map_chance: Random,
    /// A sync of maps on its way, with what each had when it began.
    pub syncing: Option<(u64, Vec<Vec<usize>>)>,
    /// The process.
    pub core: Option<Core>,
    /// The leg that it elected.
    pub elected: Option<usize>,
    /// It has begun to serve.
    pub served: bool,
    /// Counts processes.
    pub incarnation: u32,
    /// Counts boots of our machine.
    pub boot: u32,
    /// When a start is due.
    pub start_at: Option<u64>,
    /// A stop was asked: milliseconds until the next start, and the time to lose patience.
    pub stopping: Option<(u64, u64)>,
    /// What the core is told next.
    pub inbox: Vec<Event>,
    /// Legs whose loss is told in this batch.
    pub just_down: Vec<usize>,
    actions: Vec<Action>,
    last_step: u64,
    /// Data of completed reads.
    pub data: HashMap<IoId, (usize, Vec<u32>)>,
    /// Those who ask.
    pub clients: Clients,
    /// By cell.
    pub registers: Vec<Register>,
    /// Stamp of the last failed flush that a client was told of, or of the last end of a process.
    pub announced: u64,
    /// Counts legs that left.
    pub leaves: u64,
    /// Troubles with a time of their own.
    pub sprung: Vec<Trouble>,
    /// Troubles that lie in wait.
    pub ambushes: Vec<(Moment, u64, Trouble)>,
    /// Counts the legs that had this number.
    pub members: Vec<u32>,
    /// Legs that are being removed, by the command.
    pub retiring: HashMap<u64, usize>,
    /// Open commands of administrators; the next number.
    pub commands: (Vec<u64>, u64),
    /// How far.
    pub phase: Phase,
    /// When the phase began, and a counter inside it.
    pub phase_at: (u64, u64),
    /// What was checked.
    pub checker: Checker,
    rules: Rules,
    /// Lines, if wanted.
    pub trace: Option<Vec<String>>,
}

impl<'a> World<'a> {
    /// A world before its first millisecond.
    pub fn new(plan: &'a Plan, rules: Rules, trace: bool) -> Self {
        let setup = &plan.setup;
        let blocks = setup.cells.div_ceil(BLOCK_CELLS);
        let most = setup.cells + setup.room;
        let legs: Vec<Leg> = setup
            .legs
            .iter()
            .enumerate()
            .map(|(ix, l)| Leg::new(l.clone(), setup.cells, (setup.cells..most).map(move |at| junk(ix, at))))
            .collect();
        let maps = setup
            .legs
            .iter()
            .map(|l| MapFile::new(vec![!l.in_sync; blocks], setup.power.map(|power| power.run_blocks)))
            .collect();
        let records = setup.legs.iter().map(|l| LegRecord { in_sync: l.in_sync, ..LegRecord::default() });
        Self {
            plan,
            random: Random::new(plan.seed ^ 0x5EED),
            now: 0,
            stamp: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            requests: Vec::new(),
            maps,
            tracked: Tracked::new(plan),
            holder: crate::barrier::Holder::default(),
            grower: Grower::new(plan),
            verifier: Verifier::new(plan),
            disk: Disk { legs: records.collect(), generation: 1, left_at: vec![None; legs.len()] },
            pending: None,
            bad_persist_until: 0,
            bad_maps_until: 0,
            map_chance: Random::new(plan.seed ^ 0x3A95),
            syncing: None,
            core: None,
            elected: None,
            served: false,
            incarnation: 0,
            boot: 1,
            start_at: None,
            stopping: None,
            inbox: Vec::new(),
            just_down: Vec::new(),
            actions: Vec::new(),
            last_step: 0,
            data: HashMap::new(),
            clients: Clients::new(setup.connections, most),
            registers: vec![Register::default(); setup.cells],
            announced: 0,
            leaves: 0,
            sprung: Vec::new(),
            ambushes: Vec::new(),
            members: vec![0; legs.len()],
            retiring: HashMap::new(),
            commands: (Vec::new(), 0),
            phase: Phase::Running,
            phase_at: (0, 0),
            checker: Checker::new(legs.len(), most),
            legs,
            rules,
            trace: trace.then(Vec::new),
        }
    }

    /// Runs the history to its end. Returns the number of client requests that were answered with success.
    pub fn run(&mut self) -> Result<u64, Violation> {
        for (ix, (at, _)) in self.plan.things.iter().enumerate() {
            self.at(*at, Entry::Thing(ix));
        }
        self.at(0, Entry::Tick);
        self.start_at = Some(0);
        self.at(0, Entry::Start);
        while self.phase != Phase::Over {
            let Some(Reverse((at, _, entry))) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.handle(&entry)?;
            let window = if self.random.chance(300) { self.random.below(3) } else { 0 };
            let until = self.now + window;
            while let Some(Reverse((at, _, _))) = self.queue.peek() {
                if *at > until || self.phase == Phase::Over {
                    break;
                }
                let Some(Reverse((at, _, entry))) = self.queue.pop() else { break };
                self.now = self.now.max(at);
                self.handle(&entry)?;
            }
            self.step()?;
            self.check()?;
        }
        Ok(self.clients.successes)
    }

    /// Says that something is wrong.
    pub fn violation(&self, invariant: &'static str, text: String) -> Violation {
        Violation { invariant, text, at_ms: self.now }
    }

    /// The next stamp.
    pub fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Puts an entry into the queue.
    pub fn at(&mut self, when: u64, entry: Entry) {
        self.queued += 1;
        self.queue.push(Reverse((when.max(self.now), self.queued, entry)));
    }

    /// A line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.now, line()));
        }
    }

    fn handle(&mut self, entry: &Entry) -> Check {
        let plan = self.plan;
        match *entry {
            Entry::Thing(ix) => match &plan.things[ix].1 {
                // It has not grown yet.
                Thing::Ask { from, count, .. } if from + count > self.grower.cells => {}
                Thing::Ask { connection, ask, from, count } => {
                    self.clients.queue(*connection, *ask, *from, *count);
                    self.issue(*connection);
                }
                Thing::Trouble(trouble) if self.phase == Phase::Running => self.trouble(trouble),
                Thing::Trouble(_) => {}
            },
            Entry::Spring(ix) => {
                if self.phase == Phase::Running {
                    let trouble = self.sprung[ix].clone();
                    self.trouble(&trouble);
                }
            }
            Entry::Execute(ix, schedule) => self.execute(ix, schedule),
            Entry::Deliver(ix) => self.deliver(ix),
            Entry::Attempt(leg, incarnation) => self.attempt(leg, incarnation),
            Entry::Down(leg, session) => self.notice_down(leg, session),
            Entry::PersistExecute(seq, incarnation) => self.persist_execute(seq, incarnation),
            Entry::PersistDone(seq, incarnation, ok) => self.persist_done(seq, incarnation, ok),
            Entry::MapsSynced(seq, incarnation) => self.maps_synced(seq, incarnation),
            Entry::Confirm(incarnation) => self.confirm(incarnation),
            Entry::Start => self.start(),
            Entry::Grow(incarnation) => self.grow_step(incarnation),
            Entry::EndBarrier(incarnation) => self.end_barrier(incarnation),
            Entry::Die(incarnation) => self.die(incarnation),
            Entry::LateClear(leg) => self.late_clear(leg),
            Entry::Evict(leg, tries) => self.evict(leg, tries),
            Entry::Next(connection) => self.issue(connection),
            Entry::Tick => {
                self.at(self.now + TICK_MS, Entry::Tick);
                self.govern()?;
            }
        }
        Ok(())
    }

    /// Starts the process, if that is due and it does not run.
    fn start(&mut self) {
        if self.core.is_some() || self.start_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.start_at = None;
        if !self.resume_growth() {
            return self.start_in(5);
        }
        self.incarnation += 1;
        (self.served, self.elected) = (false, None);
        self.announced = self.next_stamp();
        let setup = &self.plan.setup;
        let cells = self.grower.cells;
        let blocks = cells.div_ceil(BLOCK_CELLS) as u64;
        let mut begin = Vec::new();
        for (ix, map) in self.maps.iter_mut().enumerate() {
            if !map.clean && map.boot != self.boot && map.runs.is_none() {
                map.bits.fill(true);
            }
            map.settle();
            map.told.clone_from(&map.bits);
            self.legs[ix].kept = !setup.legs[ix].remote && map.boot == self.boot;
            let mut marks = BlockSet::new(blocks);
            for (block, bit) in map.bits.iter().enumerate() {
                if *bit {
                    marks.insert(block as u64);
                }
            }
            begin.push(LegStart {
                record: self.disk.legs[ix],
                marks,
                clean: map.clean,
                cache_kept: self.legs[ix].kept,
            });
            map.clean = false;
            map.boot = self.boot;
        }
        let config = Config {
            size: cells as u64 * CELL,
            block: BlockSize::new(BLOCK_CELLS as u64 * CELL).expect("a legal size"),
            min_legs: setup.min_legs,
            read_policy: setup.policy,
            hold_ms: setup.hold_ms,
            power: setup.power,
            rules: self.rules,
            legs: setup.legs.iter().map(crate::members::leg_config).collect(),
        };
        if self.trace.is_some() {
            let records = format!("{:?}", self.disk.legs);
            let marks: Vec<String> = begin.iter().map(|b| format!("{:?}", b.marks)).collect();
            self.note(|| format!("START records {records} marks {marks:?}"));
        }
        let found = vec![self.tracked.begin(self.boot)];
        self.core = Some(Core::new(config, begin).with_trackers(found));
        self.last_step = 0;
        for connection in 0..self.plan.setup.connections {
            self.at(self.now, Entry::Next(connection));
        }
    }

    /// One batch, if there is something to tell or a tick is due.
    fn step(&mut self) -> Check {
        if self.core.is_none() || (self.inbox.is_empty() && self.now < self.last_step + TICK_MS - 1) {
            return Ok(());
        }
        self.last_step = self.now;
        self.barrier_batch();
        self.inbox.insert(0, Event::Tick { now_ms: self.now });
        if self.trace.is_some() {
            let lines: Vec<String> = self.inbox[1..].iter().map(|e| format!("-> {e:?}")).collect();
            for line in lines {
                self.note(|| line);
            }
        }
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        if let Some(core) = &mut self.core {
            core.step(&self.inbox, &mut actions);
        }
        self.inbox.clear();
        let mut stopped = None;
        for action in &actions {
            if self.trace.is_some() {
                self.note(|| format!("<- {action:?}"));
            }
            match action {
                // Requests that came with the end are refused in the same list.
                Action::Stopped { clean } => stopped = Some(clean),
                _ => self.perform(action)?,
            }
        }
        if let Some(clean) = stopped {
            self.stopped(clean)?;
        }
        self.actions = actions;
        self.just_down.clear();
        Ok(())
    }

    /// The cells of a range.
    pub fn cells(range: ByteRange) -> (usize, usize) {
        ((range.offset / CELL) as usize, (range.len / CELL) as usize)
    }
}
