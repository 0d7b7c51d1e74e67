//! Barriers: while one is held nothing is sent to a leg that writes, and every write that was answered is on stable
//! storage of every leg in sync, all of which hold the same.
//!
//! It draws from a source of chance of its own, so that what legs and clients do does not depend on it.

use crate::leg::Session;
use crate::state::{Check, Entry};
use crate::world::World;
use mirror::volume::core::{Command, LegState};

/// Who holds writes.
#[derive(Debug, Default)]
pub struct Holder {
    /// The command that begins it, the time that was asked for, and how long it is wanted once it is held.
    begun: Option<(u64, u64, u64)>,
    /// It is held: not longer than until then.
    held_until: Option<u64>,
    /// When the core was told that it is wanted.
    since: Option<u64>,
    /// The command that ends it, and whether that is in time.
    ended: Option<(u64, bool)>,
}

impl World<'_> {
    /// Somebody wants a barrier.
    pub fn barrier(&mut self, for_ms: u64, hold_ms: u64) {
        if self.core.is_none() || self.stopping.is_some() || self.holder.begun.is_some() {
            return;
        }
        self.command(Command::Barrier { for_ms });
        self.holder.begun = Some((self.commands.1, for_ms, hold_ms));
    }

    /// A command was answered.
    pub fn barrier_answered(&mut self, id: u64, result: Result<(), &'static str>) -> Check {
        if self.holder.ended.is_some_and(|(ends, _)| ends == id) {
            let in_time = self.holder.ended.is_some_and(|(_, in_time)| in_time);
            self.holder = Holder::default();
            if in_time != result.is_ok() {
                return Err(self.violation("barrier", format!("its end: {result:?}, in time: {in_time}")));
            }
            return Ok(());
        }
        let Some((_, for_ms, hold_ms)) = self.holder.begun.filter(|(begun, ..)| *begun == id) else {
            return Ok(());
        };
        if result.is_err() {
            self.holder = Holder::default();
            return Ok(());
        }
        self.holder.held_until = self.holder.since.map(|since| since + for_ms);
        self.at(self.now + hold_ms, Entry::EndBarrier(self.incarnation));
        self.check_held()
    }

    /// Whoever holds writes is done.
    pub fn end_barrier(&mut self, incarnation: u32) {
        let (Some((barrier, ..)), Some(until)) = (self.holder.begun, self.holder.held_until) else { return };
        if incarnation != self.incarnation || self.core.is_none() || self.stopping.is_some() {
            return;
        }
        self.command(Command::EndBarrier { barrier });
        self.holder.ended = Some((self.commands.1, self.now < until));
    }

    /// The command that begins it is taken in the next batch: its time counts from then. So is the one that ends it:
    /// its time may be over by then.
    pub fn barrier_batch(&mut self) {
        if self.holder.begun.is_some() {
            self.holder.since.get_or_insert(self.now);
        }
        let late = self.holder.held_until.is_some_and(|until| self.now >= until);
        if let Some((_, in_time)) = &mut self.holder.ended {
            *in_time &= !late;
        }
    }

    /// Something is to be written to a leg.
    pub fn check_barrier(&self, leg: usize) -> Check {
        let held = self.holder.held_until.is_some_and(|until| self.now < until);
        if held && self.holder.ended.is_none() {
            return Err(self.violation("barrier", format!("leg {leg} is written while a barrier is held")));
        }
        Ok(())
    }

    fn check_held(&self) -> Check {
        let Some(core) = &self.core else { return Ok(()) };
        let states = core.status().legs;
        // What the process does not know yet it cannot say.
        let sound = |leg: &usize| {
            states[*leg].state == LegState::UpToDate
                && matches!(self.legs[*leg].session, Session::Live(_))
                && !self.legs[*leg].failed_flush
        };
        for leg in (0..self.legs.len()).filter(sound) {
            for (at, cell) in self.legs[leg].storage.cells[..self.registers.len()].iter().enumerate() {
                if cell.reverted || crate::verify::is_bogus(cell.visible()) {
                    continue;
                }
                for outcome in cell.outcomes() {
                    if let Some(newer) = self.registers[at].lacks_done(outcome) {
                        let text =
                            format!("held, but cell {at} of leg {leg} may be {outcome}, without {newer}");
                        return Err(self.violation("barrier", text));
                    }
                }
            }
        }
        Ok(())
    }
}
