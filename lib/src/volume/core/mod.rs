//! The volume core: a deterministic state machine. See [`Core`].

pub mod api;
mod rules;

use crate::base::BlockSize;
use crate::map::BlockSet;
pub use api::{
    Action, Answer, Ask, Caps, Command, Event, Fault, IoId, LegIx, LegRecord, Note, Source, TICK_MS, Token,
};
pub use rules::{Rule, Rules};

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
#[derive(Clone, Copy, Debug)]
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
    /// All on, except in simulations.
    pub rules: Rules,
    /// In the configured order.
    pub legs: Vec<LegConfig>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegStatus {
    /// Disk state word.
    pub state: LegState,
    /// Whether there is a session.
    pub connected: bool,
    /// Waiting to be connected (otherwise StandAlone when not connected).
    pub connecting: bool,
    /// Requests sent and not answered.
    pub in_flight: u64,
    /// Bytes that must be copied to it (`dirty`, `out-of-sync`).
    pub missing_bytes: u64,
    /// Bytes sent and not known durable, in blocks.
    pub unflushed_bytes: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// In the in-sync set.
    UpToDate,
    /// A resync into it is running or waits for its connection; part old, part new.
    SyncTarget,
    /// Part old, part new, and no resync running.
    Inconsistent,
    /// Consistent, but a newer copy is known.
    Outdated,
    /// Out until an administrator attaches it.
    Failed,
    /// Out by an administrator's word.
    Detached,
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
}

/// The deterministic state machine of one volume.
#[derive(Debug)]
pub struct Core {}

impl Core {
    /// A core that has not begun: the first step (with a tick) asks for the connections.
    pub fn new(_config: Config, _start: Vec<LegStart>) -> Self {
        Self {}
    }

    /// Takes events, appends actions.
    pub fn step(&mut self, _events: &[Event], _out: &mut Vec<Action>) {}

    /// Figures for people and metrics.
    pub fn status(&self) -> Status {
        Status {
            legs: Vec::new(),
            serving: false,
            suspended: false,
            in_flight: 0,
            flush_error_owed: false,
            state_durable: true,
        }
    }

    /// What a leg misses inside a range, as runs of (bytes, missing), at most `max` of them; the first begins at
    /// the range's start. For the metadata context `x-mirror:dirty/LEG`.
    pub fn dirty_extents(
        &self,
        _leg: LegIx,
        _range: crate::base::ByteRange,
        _max: usize,
    ) -> Vec<(u64, bool)> {
        Vec::new()
    }
}
