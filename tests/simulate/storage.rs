//! What a leg keeps: stable storage under a volatile cache, cell by cell.
//!
//! A cell is the unit that is written whole. It holds the number of the client request that wrote it; 0 is
//! what was there at the beginning.

use crate::random::Random;

/// One cell of a leg.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// What survives everything.
    pub stable: u32,
    /// Writes since, oldest first: each of them may or may not have reached stable storage by itself.
    pub cached: Vec<u32>,
    /// What reads return although a failed flush lost it: the page is clean, a later flush "succeeds" (Linux).
    pub ghost: Option<u32>,
    /// Stamp of the failed flush that made the ghost.
    pub ghost_since: u64,
    /// It went back to something older, and nothing was written since.
    pub reverted: bool,
    /// Writes on their way that may still be executed.
    pub flying: Vec<u32>,
    /// Counts changes, so that the checker can skip what did not change.
    pub changes: u32,
}

impl Cell {
    /// What a read returns.
    pub fn visible(&self) -> u32 {
        self.cached.last().copied().or(self.ghost).unwrap_or(self.stable)
    }

    /// Whether `v` is all that it can ever turn out to be.
    pub fn surely(&self, v: u32) -> bool {
        self.stable == v
            && self.ghost.is_none_or(|g| g == v)
            && self.cached.iter().all(|c| *c == v)
            && self.flying.iter().all(|c| *c == v)
    }

    /// Everything it can turn out to be when caches are lost (requests on their way not counted).
    pub fn outcomes(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.stable).chain(self.cached.iter().copied()).chain(self.ghost)
    }

    fn some_survivor(&self, random: &mut Random) -> u32 {
        match random.below(10) {
            _ if self.cached.is_empty() => self.stable,
            0..=3 => self.visible(),
            4..=7 => self.stable,
            _ => self.cached[random.index(self.cached.len())],
        }
    }
}

/// What one leg keeps.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// By cell number.
    pub cells: Vec<Cell>,
}

impl Storage {
    /// All zero; behind that what `behind` says.
    pub fn new(cells: usize, behind: impl Iterator<Item = u32>) -> Self {
        let cell = |stable| Cell { stable, changes: 1, ..Cell::default() };
        Self { cells: std::iter::repeat_n(0, cells).chain(behind).map(cell).collect() }
    }

    /// Writes one cell, into the cache or through it.
    pub fn write(&mut self, at: usize, value: u32, through: bool) {
        let cell = &mut self.cells[at];
        cell.changes += 1;
        cell.ghost = None;
        cell.reverted = false;
        if through {
            cell.stable = value;
            cell.cached.clear();
        } else {
            cell.cached.push(value);
        }
    }

    /// Everything in the cache becomes stable; ghosts stay ghosts.
    pub fn flush(&mut self) {
        for cell in &mut self.cells {
            if let Some(last) = cell.cached.last() {
                cell.stable = *last;
                cell.cached.clear();
                cell.changes += 1;
            }
        }
    }

    /// A flush that fails: of each cached cell, written, still cached, or lost but still visible.
    pub fn flush_badly(&mut self, random: &mut Random, stamp: u64) -> bool {
        let mut ghosts = false;
        for cell in &mut self.cells {
            let Some(last) = cell.cached.last().copied() else { continue };
            cell.changes += 1;
            match random.below(4) {
                0 => {
                    cell.stable = last;
                    cell.cached.clear();
                }
                1 => {}
                _ => {
                    let survivor = cell.some_survivor(random);
                    cell.stable = survivor;
                    cell.cached.clear();
                    if survivor != last {
                        cell.ghost = Some(last);
                        cell.ghost_since = stamp;
                        ghosts = true;
                    }
                }
            }
        }
        ghosts
    }

    /// The cache is lost; what had reached stable storage by itself is random. Returns the cells that went back,
    /// each with the stamp of the flush that had failed for it (0: none).
    pub fn lose_cache(&mut self, random: &mut Random) -> Vec<(usize, u64)> {
        let mut back = Vec::new();
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let before = cell.visible();
            cell.changes += 1;
            let failed = if cell.ghost.is_some() { cell.ghost_since } else { 0 };
            cell.stable = cell.some_survivor(random);
            cell.cached.clear();
            cell.ghost = None;
            if cell.stable != before {
                cell.reverted = true;
                back.push((at, failed));
            }
        }
        back
    }

    /// Memory gets short: clean pages go, and with them the ghosts.
    pub fn evict(&mut self, random: &mut Random) -> Vec<(usize, u64)> {
        let mut back = Vec::new();
        for (at, cell) in self.cells.iter_mut().enumerate() {
            if cell.ghost.is_some() && random.chance(700) {
                cell.ghost = None;
                cell.changes += 1;
                cell.reverted = true;
                back.push((at, cell.ghost_since));
            }
        }
        back
    }

    /// A write is on its way.
    pub fn launch(&mut self, from: usize, values: &[u32]) {
        for (cell, value) in self.cells[from..].iter_mut().zip(values) {
            cell.flying.push(*value);
            cell.changes += 1;
        }
    }

    /// It landed, or never will.
    pub fn land(&mut self, from: usize, values: &[u32]) {
        for (cell, value) in self.cells[from..].iter_mut().zip(values) {
            if let Some(at) = cell.flying.iter().position(|v| v == value) {
                cell.flying.swap_remove(at);
                cell.changes += 1;
            }
        }
    }
}
