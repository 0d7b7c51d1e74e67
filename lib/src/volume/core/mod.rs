//! The volume core: a deterministic state machine. See [`Core`].
//!
//! It takes events in batches and returns actions; it does no I/O, holds no clock, spawns no thread, moves no
//! payload. The order of the actions is the order of durability: this room *is* the rules of design.md sections
//! 3 and 4, each named in [`Rule`].
//!
//! How a write goes: it enters the one set of ranges in flight (`op`), waits for earlier requests on its range,
//! marks every leg (`write`), is issued to all legs that take writes, and is answered when all of them have
//! acknowledged and the state they stand for is durable (`persist`). Reads share ranges, writes have them alone:
//! a read never runs beside a write of the same bytes, so that it can neither alternate nor be overtaken. This is
//! stricter than "one fixed leg" and costs only requests that overlap.

pub mod api;
pub mod barrier;
mod command;
mod flush;
mod grow;
mod halt;
mod heat;
mod leg;
mod members;
mod op;
mod persist;
mod read;
mod resync;
mod rules;
#[cfg(test)]
mod rules_tests;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod tracker;
mod trouble;
pub mod verify;
mod write;

use crate::base::{BlockSize, ByteRange};
use crate::map::BlockSet;
pub use api::{
    Action, Answer, Ask, Caps, Command, Event, Fault, IoId, LegIx, LegRecord, MapIx, Note, Source, TICK_MS,
    Token, TrackerAsk, TrackerIx,
};
use flush::FlushOp;
pub use halt::Halt;
use leg::Leg;
use op::Ops;
pub use rules::{Rule, Rules};
use start::Stage;
use std::collections::VecDeque;
pub use tracker::TrackerStatus;
pub use verify::{Difference, VerifiedLeg, VerifyReport};

/// Which legs reads prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReadPolicy {
    /// Local legs first, then the configured order.
    #[default]
    Local,
    /// The leg with the fewest requests in flight.
    LeastPending,
    /// One after the other.
    RoundRobin,
}

/// How a leg is wanted for reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReadWish {
    /// Before all others.
    Prefer,
    /// By the policy.
    #[default]
    Allow,
    /// Only when no other can.
    Avoid,
}

/// What the core must know of a leg that does not change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegConfig {
    /// Behind a connection: writes given up on may still be executed there (*held*).
    pub remote: bool,
    /// For reads.
    pub read: ReadWish,
    /// It cannot flush, and the administrator accepts that it never counts for durability.
    pub flush_unsafe: bool,
    /// Longest time a request may stay unanswered, in milliseconds.
    pub timeout_ms: u64,
    /// Attempts to connect again, or to repeat a failed request, before it leaves.
    pub retries: u32,
    /// Most bytes a second that a resync copies to it; `None`: as clients leave room.
    pub rate: Option<u64>,
}

/// What the core must know of the volume.
#[derive(Clone, Debug)]
pub struct Config {
    /// In bytes.
    pub size: u64,
    /// Of the maps.
    pub block: BlockSize,
    /// Writes are refused with fewer legs in sync; at least 1.
    pub min_legs: usize,
    /// For reads.
    pub read_policy: ReadPolicy,
    /// How long unresolved blocks of a remote leg stay held, in milliseconds ([`crate::base::limits::HOLD_MS`]).
    pub hold_ms: u64,
    /// Marks are durable before the writes they stand for.
    pub power: Option<Power>,
    /// All on, except in simulations.
    pub rules: Rules,
    /// In the configured order.
    pub legs: Vec<LegConfig>,
}

/// How maps are kept where durability is `power`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// Blocks of a run: [`crate::map::set::WORD_BLOCKS`], except in simulations.
    pub run_blocks: u64,
    /// A run that no write has heated for so long, in milliseconds, cools ([`crate::base::limits::COOL_MS`]).
    pub cool_ms: u64,
}

/// What was found of a leg at start.
#[derive(Clone, Debug)]
pub struct LegStart {
    /// Its record.
    pub record: LegRecord,
    /// The bits of its map, or all of them where the map is not believed.
    pub marks: BlockSet,
    /// Whether the map was closed cleanly.
    pub clean: bool,
    /// Whether what was written to it before cannot have been lost with a cache: a local leg, same boot.
    pub cache_kept: bool,
}

/// Figures of one leg for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegStatus {
    /// Disk state word.
    pub state: LegState,
    /// Whether there is a session.
    pub connected: bool,
    /// Waiting to be connected (otherwise StandAlone when not connected).
    pub connecting: bool,
    /// It is being removed.
    pub retiring: bool,
    /// Requests sent and not answered.
    pub in_flight: u64,
    /// Bytes that must be copied to it (`dirty`, `out-of-sync`).
    pub missing_bytes: u64,
    /// Bytes sent and not known durable, in blocks.
    pub unflushed_bytes: u64,
    /// An administrator paused its resync.
    pub paused: bool,
    /// Why its resync does not move, if it does not.
    pub halt: Option<Halt>,
    /// Bytes held because late writes may still land.
    pub held_bytes: u64,
    /// Bytes to be read and written back in place before a flush is believed.
    pub rewrite_bytes: u64,
    /// When the running resync began, its total and what is done, in bytes.
    pub resync: Option<ResyncStatus>,
    /// Time (ms, the clock of the ticks) when it was last in sync, if it is not now.
    pub last_in_sync_ms: Option<u64>,
    /// Replies that nobody waited for.
    pub strays: u64,
    /// Bytes read from it and written to it, clients' and internal ones.
    pub read_bytes: u64,
    /// See above.
    pub written_bytes: u64,
    /// Bytes that resyncs wrote to it.
    pub resync_bytes: u64,
}

/// A running resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Start, milliseconds of the tick clock.
    pub since_ms: u64,
    /// Bytes missing at its start.
    pub total: u64,
    /// Bytes copied and durable or on the way to be.
    pub done: u64,
}

/// Disk state of a leg in memory, design.md section 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LegState {
    /// In the in-sync set.
    UpToDate,
    /// A resync into it is running or waits for its connection; part old, part new.
    SyncTarget,
    /// Part old, part new, and no resync running.
    Inconsistent,
    /// Consistent, but a newer copy is known.
    #[default]
    Outdated,
    /// Out until an administrator attaches it.
    Failed,
    /// Out by an administrator's word.
    Detached,
    /// No member of the volume any more.
    Gone,
}

/// Figures of the volume for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Legs in order.
    pub legs: Vec<LegStatus>,
    /// Whether requests are admitted (false while starting or stopping).
    pub serving: bool,
    /// Whether requests wait because no good leg can be reached.
    pub suspended: bool,
    /// Client requests not answered.
    pub in_flight: u64,
    /// A client flush is going to fail because a leg lost its cache.
    pub flush_error_owed: bool,
    /// Whether the last change of state is on stable storage.
    pub state_durable: bool,
    /// The last sync of maps failed: writes into quiet runs fail.
    pub maps_failing: bool,
    /// A barrier holds writes, so many milliseconds more at most.
    pub barrier_left_ms: Option<u64>,
    /// Trackers by number; `None` where there is none.
    pub trackers: Vec<Option<TrackerStatus>>,
}

/// The deterministic state machine of one volume.
#[derive(Debug)]
pub struct Core {
    config: Config,
    rules: Rules,
    legs: Vec<Leg>,
    trackers: Vec<Option<tracker::Tracker>>,
    heat: Option<heat::Heat>,
    ops: Ops,
    flushes: Vec<Option<FlushOp>>,
    now_ms: u64,
    stage: Stage,
    /// Requests that came before the volume served.
    front: VecDeque<(Token, Ask, ByteRange)>,
    /// Slots whose last blocker ended.
    ready: Vec<u16>,
    /// Slots (with serial) whose answer waits for a durable state.
    gated: Vec<(u16, u32)>,
    persist: persist::Persist,
    /// When a client last asked: resync yields.
    client_ms: u64,
    turn: usize,
    serial: u32,
    suspended: bool,
    barrier: Option<barrier::Barrier>,
    verify: Option<verify::Verify>,
    /// What the last one found.
    verified: Option<VerifyReport>,
    out: Vec<Action>,
}

impl Core {
    /// A core that has not begun: the first step (with a tick) asks for the connections.
    pub fn new(config: Config, start: Vec<LegStart>) -> Self {
        let rules = config.rules;
        let legs = start
            .iter()
            .zip(&config.legs)
            .map(|(found, leg)| Leg::new(*leg, found.record, found.marks.clone()))
            .collect();
        Self {
            rules,
            legs,
            trackers: Vec::new(),
            heat: config
                .power
                .map(|power| heat::Heat::new(power, config.block.count(config.size), config.legs.len())),
            ops: Ops::default(),
            flushes: Vec::new(),
            now_ms: 0,
            stage: Stage::new(start),
            front: VecDeque::new(),
            ready: Vec::new(),
            gated: Vec::new(),
            persist: persist::Persist::default(),
            client_ms: 0,
            turn: 0,
            serial: 0,
            suspended: false,
            barrier: None,
            verify: None,
            verified: None,
            out: Vec::new(),
            config,
        }
    }

    /// Takes events, appends actions.
    pub fn step(&mut self, events: &[Event], out: &mut Vec<Action>) {
        std::mem::swap(&mut self.out, out);
        for event in events {
            self.take(event);
            self.run_ready();
            if self.barrier.is_some() {
                self.step_barrier();
                self.run_ready();
            }
        }
        if self.heat.is_some() {
            self.kick_maps();
        }
        std::mem::swap(&mut self.out, out);
    }

    fn take(&mut self, event: &Event) {
        if matches!(self.stage, Stage::Stopped) {
            return self.after_the_end(event);
        }
        match *event {
            Event::Tick { now_ms } => self.tick(now_ms),
            Event::Client { token, ask, range } => self.client(token, ask, range),
            Event::Done { leg, session, io, result } => self.done(leg, session, io, result),
            Event::Up { leg, session, caps } => self.up(leg, session, caps),
            Event::Down { leg, session } => {
                if self.legs.get(leg).is_some_and(|l| l.session == Some(session)) {
                    self.lose(leg);
                }
            }
            Event::Unreachable { leg } => self.unreachable(leg),
            Event::Persisted { seq, ok } => self.persisted(seq, ok),
            Event::MapsSynced { seq, ok } => self.maps_synced(seq, ok),
            Event::Compared { io, ref differ } => self.compared(io, differ),
            Event::Command { id, command } => self.command(id, command),
        }
    }

    /// What comes in the batch of the end changes nothing any more.
    fn after_the_end(&mut self, event: &Event) {
        match *event {
            Event::Client { token, .. } => self.reply(token, Answer::Failed(Fault::Shutdown)),
            Event::Up { leg, session, .. } => self.out.push(Action::Disconnect { leg, session }),
            Event::Command { id, .. } => self.out.push(Action::Answer { id, result: Err("it has stopped") }),
            Event::Done { io, .. } => self.out.push(Action::Release { io }),
            Event::Tick { .. }
            | Event::Down { .. }
            | Event::Unreachable { .. }
            | Event::Persisted { .. }
            | Event::Compared { .. }
            | Event::MapsSynced { .. } => {}
        }
    }

    fn client(&mut self, token: Token, ask: Ask, range: ByteRange) {
        self.client_ms = self.now_ms;
        // Reads do not wait behind what a barrier holds.
        let next = self.front.is_empty() || self.barrier_holds();
        match self.stage {
            Stage::Serving if next && !self.barrier_stops(ask) && self.ops.has_room() => {
                self.admit(token, ask, range);
            }
            Stage::Stopping { .. } | Stage::Stopped => self.reply(token, Answer::Failed(Fault::Shutdown)),
            _ => self.front.push_back((token, ask, range)),
        }
    }

    fn admit(&mut self, token: Token, ask: Ask, range: ByteRange) {
        let kind = match ask {
            Ask::Flush => return self.client_flush(token),
            Ask::Read => op::Kind::Read { token },
            Ask::Extents => op::Kind::Extents { token },
            Ask::Write { fua } => op::Kind::Write { token, fua },
            Ask::Zero { fua, no_hole, fast } => op::Kind::Zero { token, fua, no_hole, fast },
        };
        if range.is_empty() || range.end() > self.config.size {
            return self.reply(token, Answer::Failed(Fault::Invalid));
        }
        self.enter(kind, range);
    }

    /// Enters a request into the set of ranges in flight; it is started when nothing earlier is in its way.
    fn enter(&mut self, kind: op::Kind, range: ByteRange) {
        let blocks = self.config.block.cover(&range);
        let (rules, class) = (self.rules, kind.class());
        let legs = &mut self.legs;
        let (slot, ready) = self.ops.enter(kind, range, blocks.clone(), |earlier, met| {
            write::meet(rules, legs, earlier, met, class, &blocks)
        });
        if ready {
            self.ready.push(slot);
        }
    }

    fn run_ready(&mut self) {
        while let Some(slot) = self.ready.pop() {
            self.start(slot);
        }
    }

    fn start(&mut self, slot: u16) {
        let Some(op) = self.ops.get(slot) else { return };
        match op.kind {
            op::Kind::Read { .. } | op::Kind::Extents { .. } => self.start_read(slot),
            op::Kind::Write { .. } | op::Kind::Zero { .. } => self.start_write(slot),
            op::Kind::Copy { .. } | op::Kind::Repair { .. } | op::Kind::Rewrite { .. } => {
                self.start_internal(slot);
            }
            op::Kind::Look { .. } => self.start_look(slot),
        }
    }

    fn done(&mut self, leg: LegIx, session: u32, io: IoId, result: Result<(), Fault>) {
        if self.legs.get(leg).is_none_or(|l| l.session != Some(session)) {
            // It came in the batch in which its session ended; if it was a read, nobody wants the data.
            return self.out.push(Action::Release { io });
        }
        if self.legs[leg].flush.as_ref().is_some_and(|run| run.io == io) {
            self.legs[leg].in_flight = self.legs[leg].in_flight.saturating_sub(1);
            return self.flush_done(leg, result);
        }
        let Some((slot, op)) = self.ops.resolve(leg, io) else { return self.stray(leg) };
        op.pending &= !op::bit(leg);
        let (phase, kind) = (op.phase, op.kind);
        self.legs[leg].in_flight = self.legs[leg].in_flight.saturating_sub(1);
        match (phase, kind) {
            (op::Phase::Reading, op::Kind::Read { .. } | op::Kind::Extents { .. }) => {
                self.read_done(slot, leg, io, result);
            }
            (op::Phase::Reading, op::Kind::Look { .. }) => {
                self.look_done(slot, leg, result);
                self.pump_verify();
            }
            (op::Phase::Reading, _) => self.internal_read_done(slot, leg, io, result),
            (_, op::Kind::Write { .. } | op::Kind::Zero { .. }) => self.write_done(slot, leg, result),
            _ => self.internal_write_done(slot, leg, result),
        }
    }

    /// Ends a request and wakes those that waited for it.
    fn end(&mut self, slot: u16) {
        if let Some(data) = self.ops.get_mut(slot).and_then(|op| op.data.take()) {
            self.out.push(Action::Release { io: data });
        }
        self.ops.leave(slot, &mut self.ready);
        self.admit_waiting();
    }

    /// The state of a leg; `None` where there is none.
    pub fn leg_state(&self, leg: LegIx) -> Option<LegState> {
        self.legs.get(leg).map(|leg| leg.state).filter(|state| *state != LegState::Gone)
    }

    /// Whether it is the only leg in sync.
    pub fn is_last_good(&self, leg: LegIx) -> bool {
        leg < self.legs.len() && self.is_last(leg)
    }

    /// Whether it counts for the floor: in sync, and known to be so by its own record.
    pub fn counts(&self, leg: LegIx) -> bool {
        self.leg_state(leg) == Some(LegState::UpToDate) && self.persist.durably_in_sync(leg)
    }

    /// Whether it is in sync, and its record says so.
    pub fn is_durably_good(&self, leg: LegIx) -> bool {
        self.leg_state(leg) == Some(LegState::UpToDate) && self.persist.settled()
    }

    fn reply(&mut self, token: Token, answer: Answer) {
        self.out.push(Action::Reply { token, answer });
    }

    fn note(&mut self, leg: Option<LegIx>, note: Note) {
        self.out.push(Action::Note { leg, note });
    }

    /// Appends `Mark` actions for blocks, joined into ranges; where durability is `power`, for cold runs.
    fn marks(out: &mut Vec<Action>, heat: &mut Option<heat::Heat>, again: bool, leg: LegIx, block: u64) {
        let blocks = match heat {
            None => block..block + 1,
            Some(heat) => match heat.touch(MapIx::Leg(leg), block, again) {
                Some(blocks) => blocks,
                None => return,
            },
        };
        if let Some(Action::Mark { leg: last, blocks: before }) = out.last_mut()
            && *last == leg
            && before.end == blocks.start
        {
            before.end = blocks.end;
        } else {
            out.push(Action::Mark { leg, blocks });
        }
    }

    fn mark_missing(&mut self, leg: LegIx, blocks: std::ops::Range<u64>) {
        if self.legs[leg].state == LegState::Gone {
            return;
        }
        let (out, heat, again) = (&mut self.out, &mut self.heat, self.rules.on(Rule::CoolHeats));
        self.legs[leg].mark_missing(blocks, |block| Self::marks(out, heat, again, leg, block));
    }

    fn mark_unflushed(&mut self, leg: LegIx, blocks: std::ops::Range<u64>) {
        let (out, heat, again) = (&mut self.out, &mut self.heat, self.rules.on(Rule::CoolHeats));
        self.legs[leg].mark_unflushed(blocks, self.now_ms, |block| Self::marks(out, heat, again, leg, block));
    }
}
