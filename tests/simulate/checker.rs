//! The invariants of design.md section 3, checked after every batch and at single actions.
//!
//! Decisions:
//!
//! * *Superset* (1, 2, 3): a cell whose block is not marked on disk holds one value for sure (stable storage, cache
//!   and writes on their way agree), a read may return that value, and all legs where it is not marked hold
//!   the same. A leg may be in sync or not: an old leg's map is what its return depends on.
//! * *Mark first* (2): when a leg write is sent, its blocks are marked there, and for a client's write in the map of
//!   every leg that does not have it for sure already (a repeated write).
//! * *Acknowledged* (4): what a leg in sync on disk (or in a state on its way to the disk) returns lacks no
//!   acknowledged write, unless the leg itself lost it with its cache; and nothing that it can turn out to be lacks
//!   a flushed one, without exception.
//! * *Inconsistent first* (S1): a write to a leg out of sync needs a record that says INCONSISTENT.
//! * *Minted* (W2): when a client's write succeeds, every leg out of sync left an older generation.

use crate::state::Check;
use crate::world::World;

/// What was checked of one cell of one leg: nothing changed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    cell: u32,
    register: u64,
    marked: bool,
    in_sync: bool,
}

/// What was checked.
#[derive(Debug)]
pub struct Checker {
    seen: Vec<Vec<Seen>>,
}

impl Checker {
    /// Nothing yet.
    pub fn new(legs: usize, cells: usize) -> Self {
        Self { seen: vec![vec![Seen::default(); cells]; legs] }
    }

    /// Nothing was checked of the cells from this one on.
    pub fn forget(&mut self, from: usize) {
        self.seen.iter_mut().for_each(|leg| leg[from..].fill(Seen::default()));
    }
}

impl World<'_> {
    /// All that holds between any two batches.
    pub fn check(&mut self) -> Check {
        let legs = self.legs.len();
        let in_sync: Vec<bool> = (0..legs)
            .map(|leg| {
                let coming = self.pending.as_ref().is_some_and(|p| p.legs[leg].in_sync);
                self.disk.legs[leg].in_sync || coming
            })
            .collect();
        for at in 0..self.registers.len() {
            let mut agreed: Option<(usize, u32)> = None;
            for (leg, in_sync) in in_sync.iter().enumerate() {
                let marked = self.marked(leg, at);
                let cell = &self.legs[leg].storage.cells[at];
                // What was corrupted behind everybody's back is looked for by a verify.
                if !marked && !crate::verify::is_bogus(cell.visible()) {
                    let value = cell.visible();
                    match agreed {
                        Some((other, held)) if held != value => {
                            let text = format!(
                                "cell {at}: leg {leg} holds {value}, leg {other} holds {held}, neither is marked; \
                                 {}",
                                self.registers[at].describe()
                            );
                            return Err(self.violation("1 superset", text));
                        }
                        _ => agreed = Some((leg, value)),
                    }
                }
                let seen = Seen {
                    cell: cell.changes,
                    register: self.registers[at].changes,
                    marked,
                    in_sync: *in_sync,
                };
                if self.checker.seen[leg][at] != seen {
                    self.check_cell(leg, at, marked, *in_sync)?;
                    self.checker.seen[leg][at] = seen;
                }
            }
        }
        Ok(())
    }

    fn check_cell(&self, leg: usize, at: usize, marked: bool, in_sync: bool) -> Check {
        let cell = &self.legs[leg].storage.cells[at];
        let register = &self.registers[at];
        let value = cell.visible();
        let wrong = |invariant, text: String| {
            let text = format!("cell {at} of leg {leg}: {text}; {cell:?}; {}", register.describe());
            Err(self.violation(invariant, text))
        };
        if !marked {
            if !cell.surely(value) {
                return wrong("1 superset", "not marked, but its value is not certain".to_owned());
            }
            if let Some(newer) = register.stale(value) {
                return wrong("1 superset", format!("not marked, but {value} is older than {newer}"));
            }
        }
        if in_sync {
            if !cell.reverted
                && let Some(newer) = register.lacks_done(value)
            {
                return wrong("4 acknowledged is kept", format!("in sync, but lacks {newer}"));
            }
            for outcome in cell.outcomes() {
                if let Some(newer) = register.lacks_durable(outcome) {
                    let text = format!("in sync, but may turn out to be {outcome} without flushed {newer}");
                    return wrong("4 acknowledged is kept", text);
                }
            }
        }
        Ok(())
    }

    /// A write is about to be sent to a leg.
    pub fn check_write(&self, leg: usize, from: usize, values: &[u32], client: bool) -> Check {
        for (at, value) in (from..).zip(values) {
            for other in 0..self.legs.len() {
                let has_it = other != leg && self.legs[other].storage.cells[at].surely(*value);
                if (other == leg || client) && !has_it && !self.marked(other, at) {
                    let text =
                        format!("leg {leg} is written at cell {at}, not marked in the map of leg {other}");
                    return Err(self.violation("2 mark first", text));
                }
            }
        }
        let record = self.disk.legs[leg];
        if !record.in_sync && !record.inconsistent {
            let text = format!("leg {leg} is out of sync and is written, its record says {record:?}");
            return Err(self.violation("S1 inconsistent first", text));
        }
        Ok(())
    }

    /// A client's write has succeeded.
    pub fn check_minted(&self, id: u32) -> Check {
        for (leg, left) in self.disk.left_at.iter().enumerate() {
            if *left == Some(self.disk.generation) {
                let text = format!("write {id} succeeded in the generation {left:?} that leg {leg} left");
                return Err(self.violation("W2 minted", text));
            }
        }
        Ok(())
    }
}
