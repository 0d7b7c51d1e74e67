//! A tracker, and somebody who keeps a copy of the volume by it: each rotation copies the blocks that it closed,
//! at that very moment, from any leg. Whatever a client reads later is the same, or marked.
//!
//! It draws from a source of chance of its own, so that what legs and clients do does not depend on it.

use crate::leg::Session;
use crate::plan::{BLOCK_CELLS, Plan};
use crate::random::Random;
use crate::state::{Check, Entry, MapFile};
use crate::world::World;
use mirror::map::BlockSet;
use mirror::volume::core::{Command, LegState, TrackerAsk};
use std::ops::Range;

/// Its number.
const NUMBER: usize = 0;

/// The tracker and the copy.
pub struct Tracked {
    random: Random,
    /// What stands on the process's disk.
    pub map: MapFile,
    /// What the copy holds, by cell.
    copy: Vec<u32>,
    /// The command that takes the marks, and how long until they are confirmed.
    taking: Option<(u64, u64)>,
    /// Marks are taken.
    taken: bool,
}

impl Tracked {
    /// Nothing has changed yet.
    pub fn new(plan: &Plan) -> Self {
        let blocks = plan.setup.cells.div_ceil(BLOCK_CELLS);
        let map = MapFile::new(vec![false; blocks], plan.setup.power.map(|power| power.run_blocks));
        let copy = vec![0; plan.setup.cells + plan.setup.room];
        Self { random: Random::new(plan.seed ^ 0x7AC4), map, copy, taking: None, taken: false }
    }

    /// Whether a cell is marked as the next start would believe it.
    fn marked(&self, cell: usize, boot: u32) -> bool {
        self.map.has(cell / BLOCK_CELLS, boot)
    }

    /// The process starts: what it finds.
    pub fn begin(&mut self, boot: u32) -> BlockSet {
        if !self.map.clean && self.map.boot != boot && self.map.runs.is_none() {
            self.map.bits.fill(true);
        }
        self.map.settle();
        (self.map.clean, self.map.boot) = (false, boot);
        let mut marks = BlockSet::new(self.map.bits.len() as u64);
        for (block, _) in (0u64..).zip(&self.map.bits).filter(|(_, bit)| **bit) {
            marks.insert(block);
        }
        marks
    }

    /// The process has ended; whoever had marks has them no more.
    pub fn end(&mut self) {
        (self.taking, self.taken) = (None, false);
    }
}

impl World<'_> {
    /// Somebody rotates, if nobody is at it.
    pub fn rotate(&mut self, wait_ms: u64) {
        if self.core.is_none()
            || self.stopping.is_some()
            || self.tracked.taken
            || self.tracked.taking.is_some()
        {
            return;
        }
        self.ask_tracker(TrackerAsk::Take);
        self.tracked.taking = Some((self.commands.1, wait_ms));
    }

    fn ask_tracker(&mut self, ask: TrackerAsk) {
        self.command(Command::Tracker { tracker: NUMBER, ask });
    }

    /// A command is answered: if it took the marks, what they name is copied.
    pub fn taken(&mut self, id: u64, ok: bool) {
        let Some((_, wait_ms)) = self.tracked.taking.take_if(|(taking, _)| *taking == id) else { return };
        let Some(core) = self.core.as_ref().filter(|_| ok) else { return };
        let Some((_, Some(taken))) = core.tracker_sets(NUMBER) else { return };
        let (taken, status) = (taken.clone(), core.status());
        self.tracked.taken = true;
        let good: Vec<usize> = (0..self.legs.len())
            .filter(|leg| status.legs[*leg].state == LegState::UpToDate)
            .filter(|leg| matches!(self.legs[*leg].session, Session::Live(_)))
            .collect();
        if good.is_empty() {
            return self.ask_tracker(TrackerAsk::GiveBack);
        }
        let leg = good[self.tracked.random.index(good.len())];
        for block in taken.iter() {
            for cell in self.cells_of(block) {
                self.tracked.copy[cell] = self.legs[leg].storage.cells[cell].visible();
            }
        }
        self.note(|| format!("   {taken:?} copied from leg {leg}"));
        self.at(self.now + wait_ms, Entry::Confirm(self.incarnation));
    }

    fn cells_of(&self, block: u64) -> Range<usize> {
        let first = block as usize * BLOCK_CELLS;
        first..(first + BLOCK_CELLS).min(self.registers.len())
    }

    /// The copy is durable, or was given up.
    pub fn confirm(&mut self, incarnation: u32) {
        if self.core.is_none() || incarnation != self.incarnation || !self.tracked.taken {
            return;
        }
        self.tracked.taken = false;
        if self.tracked.random.chance(750) {
            return self.ask_tracker(TrackerAsk::Confirm);
        }
        let half = self.grower.cells.div_ceil(BLOCK_CELLS) as u64 / 2;
        self.ask_tracker(TrackerAsk::Copied { from: 0, to: half });
        self.ask_tracker(TrackerAsk::GiveBack);
    }

    /// The core marks blocks.
    pub fn tracker_mark(&mut self, blocks: Range<u64>) {
        self.tracked.map.bits[blocks.start as usize..blocks.end as usize].fill(true);
        self.tracked.map.changed();
    }

    /// The core has dropped marks: now or never.
    pub fn tracker_tidy(&mut self) {
        let Some(core) = &self.core else { return };
        if self.tracked.random.chance(800) {
            let marks = core.tracker_image(NUMBER);
            // While the volume grows the map may be the longer one.
            for (block, bit) in self.tracked.map.bits.iter_mut().enumerate().take(marks.blocks() as usize) {
                *bit = marks.contains(block as u64);
            }
            self.tracked.map.changed();
        }
    }

    fn is_tracked(&self, cell: usize) -> bool {
        self.tracked.marked(cell, self.boot) || self.marked_by_growth(None, cell)
    }

    /// A client's write is about to be sent to a leg.
    pub fn check_tracker_write(&self, from: usize, count: usize) -> Check {
        match (from..from + count).find(|cell| !self.is_tracked(*cell)) {
            Some(cell) => {
                Err(self
                    .violation("2 mark first", format!("cell {cell} is written, the tracker has no mark")))
            }
            None => Ok(()),
        }
    }

    /// A client has read this.
    pub fn check_tracker_read(&self, cell: usize, value: u32) -> Check {
        let held = self.tracked.copy[cell];
        if held == value || self.is_tracked(cell) {
            return Ok(());
        }
        let text = format!("cell {cell} reads as {value}, the copy has {held}, and the tracker no mark");
        Err(self.violation("a tracker has every change", text))
    }
}
