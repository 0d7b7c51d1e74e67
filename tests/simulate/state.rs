//! What the world is made of: entries of its queue, the process's files, and how far a history has come.

use mirror::volume::core::LegRecord;

/// What was found wrong.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The invariant of design.md section 3, or the promise of `api.rs`.
    pub invariant: &'static str,
    /// What exactly.
    pub text: String,
    /// When.
    pub at_ms: u64,
}

/// Nothing wrong so far.
pub type Check = Result<(), Violation>;

/// What waits in the queue of virtual time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// The plan's thing of this number.
    Thing(usize),
    /// A trouble of this number (see [`World::sprung`]).
    Spring(usize),
    /// A leg executes a request, if this is still the schedule.
    Execute(usize, u32),
    /// The answer arrives.
    Deliver(usize),
    /// The process tries to connect.
    Attempt(usize, u32),
    /// It notices that a connection is lost.
    Down(usize, u32),
    /// The state reaches the disk, or does not.
    PersistExecute(u64, u32),
    /// The process hears of it.
    PersistDone(u64, u32, bool),
    /// What was taken from the tracker is confirmed, or given back, by this process.
    Confirm(u32),
    /// The process starts.
    Start,
    /// A clear that came late takes effect.
    LateClear(usize),
    /// Clean pages of a leg are dropped.
    Evict(usize, u32),
    /// A client connection may ask its next.
    Next(usize),
    /// Time goes on.
    Tick,
}

/// A map file.
#[derive(Clone, Debug)]
pub struct MapFile {
    /// By block, on disk.
    pub bits: Vec<bool>,
    /// By block, as the core has said: clears on disk may come late or never.
    pub told: Vec<bool>,
    /// Closed cleanly.
    pub clean: bool,
    /// The boot in which it was opened.
    pub boot: u32,
    /// Clears that were not made yet.
    pub late: Vec<u64>,
}

/// The records of the legs, one state that is replaced as a whole.
#[derive(Clone, Debug)]
pub struct Disk {
    /// By leg; `gone` where `volume.toml` names none.
    pub legs: Vec<LegRecord>,
    /// Counts the generations that were minted.
    pub generation: u64,
    /// Generation that a leg out of sync had when it left.
    pub left_at: Vec<Option<u64>>,
}

/// A state on its way to the disk.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its name.
    pub seq: u64,
    /// What it says.
    pub legs: Vec<LegRecord>,
    /// A new generation.
    pub mint: bool,
    /// By leg: which of the legs of this number it is about.
    pub members: Vec<u32>,
    /// Whether the disk was reached.
    pub executed: bool,
}

/// How far a history has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Things go wrong.
    Running,
    /// Faults have stopped.
    Settling,
    /// All is well; the last flush and the last reads.
    Reading,
    /// Stopping for good.
    Stopping,
    /// Over.
    Over,
}
