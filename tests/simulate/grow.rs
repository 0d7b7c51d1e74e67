//! The volume grows while it serves: what the driver does around the core, step by step, and what a start finds of a
//! growth that a crash interrupted. The steps have the numbers of `volume/resize.rs`.
//!
//! What stands behind the old end differs from leg to leg. The clients know of it what the source holds; where it is
//! not certain what that is (the source was a target of the same growth, and its writes are on their way), any of it.
//!
//! It draws from a source of chance of its own, so that histories without a growth do not depend on it.

use crate::leg::Session;
use crate::plan::{BLOCK_CELLS, CELL, Plan};
use crate::random::Random;
use crate::register::Register;
use crate::state::Entry;
use crate::world::World;
use mirror::volume::core::{Command, LegState};

/// What no client wrote: it stood behind the old end.
const JUNK: u32 = 1 << 30;

/// The contents of a cell of a leg that no volume has used.
pub const fn junk(leg: usize, at: usize) -> u32 {
    JUNK | (leg as u32) << 16 | at as u32
}

/// A growth that is under way, as `resize` has it.
#[derive(Clone, Copy, Debug)]
struct Resize {
    from: usize,
    to: usize,
    source: usize,
}

/// Where the task of this process stands.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// Step 2: the next map, the tracker's last.
    Maps(usize),
    /// Step 3: the command to the core.
    Core(u64),
    /// Steps 4 and 5.
    Records,
}

/// Who makes the volume larger.
pub struct Grower {
    random: Random,
    /// Cells of the volume, as clients may use them.
    pub cells: usize,
    pending: Option<Resize>,
    task: Option<Task>,
}

impl Grower {
    /// A volume as it was made.
    pub fn new(plan: &Plan) -> Self {
        let random = Random::new(plan.seed ^ 0x6204);
        Self { random, cells: plan.setup.cells, pending: None, task: None }
    }

    /// The process has ended.
    pub fn end(&mut self) {
        self.task = None;
    }

    /// Whether a task of this process is under way: no other one is begun.
    pub fn busy(&self) -> bool {
        self.task.is_some()
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.pending.is_none()
    }
}

impl World<'_> {
    /// An administrator asks for so many cells more, or for what was asked for before and has failed.
    pub fn grow(&mut self, more: usize) {
        let idle = self.served && self.stopping.is_none() && self.inbox.is_empty();
        let Some(core) = self.core.as_ref().filter(|_| idle) else { return };
        if self.grower.busy() || !self.retiring.is_empty() {
            return;
        }
        let good: Vec<usize> =
            (0..self.legs.len()).filter(|leg| core.leg_state(*leg) == Some(LegState::UpToDate)).collect();
        let up: Vec<usize> =
            good.iter().copied().filter(|leg| matches!(self.legs[*leg].session, Session::Live(_))).collect();
        if up.is_empty() || (good.len() > 1 && self.plan.setup.min_legs > 1) {
            return;
        }
        let from = self.grower.cells;
        let to = self.grower.pending.map_or(from + more, |resize| resize.to);
        let to = to.min(self.plan.setup.cells + self.plan.setup.room);
        if to == from {
            return;
        }
        let source = up[self.grower.random.index(up.len())];
        // 1.
        self.grower.pending = Some(Resize { from, to, source });
        self.note(|| format!("!! grows from {from} to {to} cells, as on leg {source}"));
        self.grow_on(Task::Maps(0));
    }

    fn grow_on(&mut self, task: Task) {
        self.grower.task = Some(task);
        let slow = if self.grower.random.chance(200) { 80 } else { 5 };
        let when = self.now + self.grower.random.below(slow);
        self.at(when, Entry::Grow(self.incarnation));
    }

    /// The next part of the task.
    pub fn grow_step(&mut self, incarnation: u32) {
        let (Some(task), Some(resize)) = (self.grower.task, self.grower.pending) else { return };
        if incarnation != self.incarnation || self.core.is_none() {
            return;
        }
        match task {
            // 2.
            Task::Maps(map) if map <= self.legs.len() => {
                self.grow_map(map, resize, resize.source);
                self.grow_on(Task::Maps(map + 1));
            }
            // 3.
            Task::Maps(_) => {
                self.found_behind(resize, resize.source);
                let Resize { to, source, .. } = resize;
                self.command(Command::Grow { size: to as u64 * CELL, source });
                self.grower.task = Some(Task::Core(self.commands.1));
            }
            Task::Core(_) => {}
            // 4 and 5.
            Task::Records => self.grown(resize),
        }
    }

    /// The core has answered a command. If it was step 3, the records follow; if it refused, the growth waits for
    /// somebody who asks again, or for the next start.
    pub fn widened(&mut self, id: u64, ok: bool) {
        if !matches!(self.grower.task, Some(Task::Core(command)) if command == id) {
            return;
        }
        self.grower.task = None;
        if ok {
            self.grow_on(Task::Records);
        }
    }

    fn grown(&mut self, resize: Resize) {
        self.grower.cells = resize.to;
        (self.grower.pending, self.grower.task) = (None, None);
        self.note(|| format!("   has grown to {} cells", resize.to));
    }

    /// Step 2 for one map: durable, with the new area missing on all legs but the source, and changed in the tracker.
    fn grow_map(&mut self, which: usize, resize: Resize, source: usize) {
        let blocks = resize.to.div_ceil(BLOCK_CELLS);
        let missing = which != source;
        let map = self.maps.get_mut(which).unwrap_or(&mut self.tracked.map);
        // Of a map that has its length already only marks are believed.
        if map.bits.len() < blocks || missing {
            map.grow(blocks, if missing { resize.from / BLOCK_CELLS } else { blocks });
        }
    }

    /// What clients may find in the new area.
    fn found_behind(&mut self, resize: Resize, source: usize) {
        self.registers.truncate(resize.from);
        for cell in &self.legs[source].storage.cells[resize.from..resize.to] {
            let any = cell.outcomes().chain(cell.flying.iter().copied());
            self.registers.push(Register::holding(any.collect()));
        }
        self.checker.forget(resize.from);
    }

    /// Which leg a start would take for the source.
    fn source_of(&self, resize: Resize) -> Option<usize> {
        let in_sync = |leg: &usize| self.disk.legs[*leg].in_sync;
        Some(resize.source).filter(in_sync).or_else(|| (0..self.legs.len()).find(in_sync))
    }

    /// Whether a start would mark this cell because it finds `resize`: on a leg, or in a tracker.
    pub fn marked_by_growth(&self, leg: Option<usize>, cell: usize) -> bool {
        self.grower.pending.is_some_and(|resize| {
            cell / BLOCK_CELLS >= resize.from / BLOCK_CELLS
                && (leg.is_none() || self.source_of(resize) != leg)
        })
    }

    /// A start finds `resize`: steps 3, 2, 4 and 5, each of which may be the last one that the process does. Says
    /// whether it lives.
    pub fn resume_growth(&mut self) -> bool {
        let Some(resize) = self.grower.pending else { return true };
        let Some(source) = self.source_of(resize) else { return true };
        self.note(|| format!("!! goes on growing, as on leg {source}"));
        // 3. What the source has lost with its cache nobody has any more.
        for leg in (0..self.legs.len()).filter(|leg| *leg != source) {
            if self.disk.legs[leg].in_sync {
                if self.dies_growing() {
                    return false;
                }
                let record = &mut self.disk.legs[leg];
                (record.in_sync, record.inconsistent) = (false, true);
                self.disk.left_at[leg] = None;
            }
        }
        let stamp = self.next_stamp();
        for (at, register) in self.registers.iter_mut().enumerate() {
            let cell = &self.legs[source].storage.cells[at];
            if cell.reverted {
                register.lose(&[cell.visible()], self.announced, stamp);
            }
        }
        // 2.
        for map in 0..=self.legs.len() {
            if self.dies_growing() {
                return false;
            }
            self.grow_map(map, resize, source);
        }
        self.found_behind(resize, source);
        // 4 and 5.
        if self.dies_growing() {
            return false;
        }
        self.grown(resize);
        true
    }

    fn dies_growing(&mut self) -> bool {
        let dies = self.grower.random.chance(50);
        if dies {
            self.note(|| "!! dies while it goes on growing".to_owned());
        }
        dies
    }
}
