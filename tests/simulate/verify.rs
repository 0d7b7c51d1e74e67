//! Verify: while everything goes wrong it must find nothing; and at the end of some histories a leg is corrupted
//! behind the process's back, which it must find, all of it and nothing else, and repair, also when the process dies
//! meanwhile.
//!
//! It draws from a source of chance of its own, so that what legs and clients do does not depend on it.

use crate::plan::{BLOCK_CELLS, CELL, Plan};
use crate::random::Random;
use crate::state::{Check, Entry};
use crate::world::World;
use mirror::base::ByteRange;
use mirror::volume::core::{Ask, Command, Event, IoId, LegState, Status, verify};

/// What no client wrote.
const BOGUS: u32 = 1 << 31;

/// Who verifies, and what was done to whom.
pub struct Verifier {
    random: Random,
    /// The command under way.
    running: Option<u64>,
    /// The leg that was corrupted, the block, and the leg that the repair is to copy from.
    corrupt: Option<(usize, usize, usize)>,
    /// It was found and is repaired; the next verify finds nothing.
    repaired: bool,
    /// All is over.
    over: bool,
}

/// Whether no client can have written this.
pub const fn is_bogus(value: u32) -> bool {
    value & BOGUS != 0
}

impl Verifier {
    /// Nothing yet.
    pub fn new(plan: &Plan) -> Self {
        let random = Random::new(plan.seed ^ 0x7E51);
        Self { random, running: None, corrupt: None, repaired: false, over: !plan.setup.corrupt }
    }

    /// The process has ended.
    pub fn end(&mut self) {
        self.running = None;
    }
}

impl World<'_> {
    /// An administrator verifies.
    pub fn verify(&mut self, from: Option<usize>) {
        if self.core.is_none() || self.stopping.is_some() || self.verifier.running.is_some() {
            return;
        }
        self.command(Command::Verify { only: None, from });
        self.verifier.running = Some(self.commands.1);
    }

    /// The driver's part of it.
    pub fn compare(&mut self, range: ByteRange, reads: &[(usize, IoId)]) -> Check {
        let (from, count) = Self::cells(range);
        let mut contents = Vec::new();
        for (_, io) in reads {
            let Some((first, values)) =
                self.data.get(io).filter(|(first, all)| (*first, all.len()) == (from, count))
            else {
                return Err(self.violation("api", format!("{io:?} holds no data to be compared")));
            };
            debug_assert_eq!(*first, from);
            contents.push(values.as_slice());
        }
        let parts = (from..from + count).step_by(BLOCK_CELLS).map(|at| {
            let end = (at + BLOCK_CELLS).min(from + count);
            ((at / BLOCK_CELLS) as u64, at - from..end - from)
        });
        let differ = verify::compare(&contents, parts);
        self.inbox.push(Event::Compared { io: reads[0].1, differ });
        Ok(())
    }

    /// A command was answered: if it was the verify, it has found what there is.
    pub fn verified(&mut self, id: u64, ok: bool) -> Check {
        if self.verifier.running.take_if(|running| *running == id).is_none() || !ok {
            return Ok(());
        }
        let Some(report) = self.core.as_ref().and_then(|core| core.verify_report()).cloned() else {
            return Ok(());
        };
        let found: Vec<u64> = report
            .ranges
            .iter()
            .flat_map(|d| (d.range.offset..d.range.end()).step_by(CELL as usize))
            .collect();
        let (_, block, _) = self.verifier.corrupt.unwrap_or((0, usize::MAX, 0));
        let inside = |offset: u64| (offset / CELL) as usize / BLOCK_CELLS == block;
        if let Some(wrong) = found.iter().find(|offset| !inside(**offset)) {
            let text = format!("a difference at {wrong}, where all that was written is equal: {report:?}");
            return Err(self.violation("verify", text));
        }
        if self.verifier.corrupt.is_none() || report.is_partial() {
            return Ok(());
        }
        match (self.verifier.repaired, found.is_empty()) {
            (false, true) => {
                return Err(self.violation("verify", format!("block {block} is corrupt, and was not found")));
            }
            (true, false) => {
                return Err(self.violation("verify", format!("repaired, and it still differs: {report:?}")));
            }
            (false, false) => self.verifier.repaired = true,
            (true, true) => self.verifier.over = true,
        }
        Ok(())
    }

    /// All is quiet at the end of a history. Says whether the history may go on to its last reads.
    pub fn verify_at_end(&mut self, status: &Status) -> Result<bool, crate::state::Violation> {
        if self.verifier.over {
            return Ok(true);
        }
        if self.verifier.running.is_some() {
            self.load();
            return Ok(false);
        }
        let good: Vec<usize> =
            (0..self.legs.len()).filter(|leg| status.legs[*leg].state == LegState::UpToDate).collect();
        let settled = status.legs.iter().all(|leg| leg.unflushed_bytes == 0) && status.state_durable;
        if good.len() < 2 || self.plan.setup.min_legs > 1 {
            self.verifier.over = true;
            return Ok(true);
        }
        match self.verifier.corrupt {
            None if !settled => return Ok(false),
            None => {
                let leg = good[self.verifier.random.index(good.len())];
                let others: Vec<usize> = good.into_iter().filter(|other| *other != leg).collect();
                let from = others[self.verifier.random.index(others.len())];
                let at = self.verifier.random.index(self.grower.cells);
                if (0..self.legs.len()).any(|leg| self.marked(leg, at)) {
                    // A crash before the leg has left would be free to elect it, whatever it holds there.
                    self.verifier.over |= self.now > self.phase_at.0 + 20_000;
                    return Ok(self.verifier.over);
                }
                let cell = &mut self.legs[leg].storage.cells[at];
                (cell.stable, cell.ghost) = (BOGUS | at as u32, None);
                cell.cached.clear();
                cell.changes += 1;
                self.verifier.corrupt = Some((leg, at / BLOCK_CELLS, from));
                self.note(|| format!("!! cell {at} of leg {leg} is corrupted"));
                self.verify(Some(from));
            }
            Some((leg, block, from)) => {
                let holds = |leg: usize| self.legs[leg].storage.cells.iter().any(|c| is_bogus(c.visible()));
                if holds(from) {
                    let text = format!("block {block} of leg {leg} was corrupt, now that of leg {from} is");
                    return Err(self.violation("verify", text));
                }
                if self.verifier.repaired && holds(leg) {
                    let text = format!("block {block} of leg {leg} is still corrupt");
                    return Err(self.violation("verify", text));
                }
                // If the process died it may be repaired, or not.
                self.verifier.repaired = !holds(leg);
                self.verify((!self.verifier.repaired).then_some(from));
            }
        }
        self.phase_at = (self.now, 0);
        Ok(false)
    }

    /// A verify of the end is under way.
    pub fn verifier_is_at_work(&self) -> bool {
        self.verifier.running.is_some() && self.verifier.corrupt.is_some()
    }

    /// Clients go on beside it, outside the corrupt block.
    fn load(&mut self) {
        let Some((_, block, _)) = self.verifier.corrupt.filter(|_| !self.plan.setup.corrupt_crash) else {
            return;
        };
        for _ in 0..3 {
            let at = self.verifier.random.index(self.grower.cells);
            if at / BLOCK_CELLS == block {
                continue;
            }
            let ask = if self.verifier.random.chance(700) { Ask::Write { fua: false } } else { Ask::Read };
            self.clients.queue(0, ask, at, 1);
            self.issue(0);
        }
    }

    /// A state is on its way to the disk: the process may die just now.
    pub fn verify_persists(&mut self) {
        let repairs = self.verifier.running.is_some() && self.verifier.corrupt.is_some();
        if self.plan.setup.corrupt_crash && repairs && self.verifier.random.chance(500) {
            let when = self.now + self.verifier.random.below(8);
            self.at(when, Entry::Die(self.incarnation));
        }
    }

    /// The process dies.
    pub fn die(&mut self, incarnation: u32) {
        if incarnation == self.incarnation && self.core.is_some() {
            self.note(|| "!! the process dies in the repair".to_owned());
            self.crash(false);
            self.start_in(10);
        }
    }
}
