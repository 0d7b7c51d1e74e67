//! What the world is made of: entries of its queue, the process's files, and how far a history has come.

use crate::random::Random;
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
    /// The next part of a growth of this process.
    Grow(u32),
    /// Whoever holds writes of this process is done.
    EndBarrier(u32),
    /// This process dies.
    Die(u32),
    /// The process starts.
    Start,
    /// A sync of maps ends in this process.
    MapsSynced(u64, u32),
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
    /// Where durability is `power`: of each run what may be on the media, oldest first, and last what is there now.
    pub runs: Option<Runs>,
}

/// The states of the runs of a map since its last sync.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Blocks of a run.
    size: usize,
    states: Vec<Vec<Vec<bool>>>,
    /// Of each run, the number of its first state here; they count up for ever.
    first: Vec<usize>,
}

impl MapFile {
    /// A map that is closed.
    pub fn new(bits: Vec<bool>, run: Option<u64>) -> Self {
        let runs = run.map(|size| Runs { size: size as usize, states: Vec::new(), first: Vec::new() });
        let mut map = Self { bits, told: Vec::new(), clean: true, boot: 0, late: Vec::new(), runs };
        map.settle();
        map
    }

    /// What is there now is all that may be on the media.
    pub fn settle(&mut self) {
        if let Some(runs) = &mut self.runs {
            // A sync that began before says nothing of what is there now.
            let next = |run: usize| runs.states.get(run).map_or(0, |states| runs.first[run] + states.len());
            runs.first = (0..self.bits.len().div_ceil(runs.size)).map(next).collect();
            runs.states = self.bits.chunks(runs.size).map(|run| vec![run.to_vec()]).collect();
        }
    }

    /// It is longer from now on, durably, and marked from block `from` on: also what may be on the media already.
    pub fn grow(&mut self, blocks: usize, from: usize) {
        let old = self.bits.len();
        self.bits.resize(blocks, false);
        self.told.resize(blocks, false);
        self.bits[from.min(blocks)..].fill(true);
        self.late.retain(|block| (*block as usize) < from);
        let Some(runs) = &mut self.runs else { return };
        for (run, bits) in self.bits.chunks(runs.size).enumerate() {
            let first = run * runs.size;
            if first >= old {
                runs.states.truncate(run.max(old.div_ceil(runs.size)));
            }
            let Some(states) = runs.states.get_mut(run) else {
                runs.states.push(vec![bits.to_vec()]);
                runs.first.push(0);
                continue;
            };
            for state in states {
                let had = state.len();
                state.extend_from_slice(&bits[had..]);
                state
                    .iter_mut()
                    .enumerate()
                    .filter(|(at, _)| first + at >= from)
                    .for_each(|(_, bit)| *bit = true);
            }
        }
    }

    /// Bits have changed.
    pub fn changed(&mut self) {
        if let Some(runs) = &mut self.runs {
            for (states, run) in runs.states.iter_mut().zip(self.bits.chunks(runs.size)) {
                if states.last().is_none_or(|last| last != run) {
                    states.push(run.to_vec());
                }
            }
        }
    }

    /// A sync begins: the number of the present state of each run.
    pub fn mark_of(&self) -> Vec<usize> {
        let present = |(states, first): (&Vec<Vec<bool>>, &usize)| first + states.len() - 1;
        self.runs
            .as_ref()
            .map_or_else(Vec::new, |runs| runs.states.iter().zip(&runs.first).map(present).collect())
    }

    /// It has worked: what was there when it began is on the media, or something later.
    pub fn synced(&mut self, mark: &[usize]) {
        if let Some(runs) = &mut self.runs {
            for ((states, first), mark) in runs.states.iter_mut().zip(&mut runs.first).zip(mark) {
                let gone = mark.saturating_sub(*first).min(states.len() - 1);
                states.drain(..gone);
                *first += gone;
            }
        }
    }

    /// The power is lost: each run is in one of its states.
    pub fn lose(&mut self, random: &mut Random) {
        let Some(runs) = &mut self.runs else { return };
        for (run, states) in self.bits.chunks_mut(runs.size).zip(&runs.states) {
            run.copy_from_slice(&states[random.index(states.len())]);
        }
        self.settle();
    }

    /// Whether a block is marked as a start of this boot would believe it, whatever survives a power cut.
    pub fn has(&self, block: usize, boot: u32) -> bool {
        match &self.runs {
            None => self.bits[block] || (!self.clean && self.boot != boot),
            Some(runs) => runs.states[block / runs.size].iter().all(|run| run[block % runs.size]),
        }
    }
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
    /// What the maps had when it began: they are made durable first.
    pub maps: Vec<Vec<usize>>,
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
