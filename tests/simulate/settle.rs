//! The end of a history: faults stop, everything comes back, and all must be well within a bounded time.

use crate::plan::Trouble;
use crate::state::{Check, Phase};
use crate::world::World;
use mirror::volume::core::{Ask, Command, LegState};

/// Faults stop so long after the last thing of the plan, in milliseconds.
const RUN_ON_MS: u64 = 3_000;
/// Bounds of the phases of the end, in milliseconds: settling covers several holds, the longest pause between two
/// attempts to connect, and a flush that the volume makes by itself.
const SETTLE_MS: u64 = 60_000;
const STOP_MS: u64 = 30_000;
/// Flushes that may fail once all is well: a loss is announced once.
const FLUSHES: u64 = 4;

impl World<'_> {
    /// Called at every tick of the world: leads the history to its end.
    pub fn govern(&mut self) -> Check {
        if let Some((_, patience)) = self.stopping
            && self.phase == Phase::Running
            && self.now > patience
        {
            self.trouble(&Trouble::Crash { power: false, down_ms: 10, restarts: Vec::new() });
        }
        match self.phase {
            Phase::Running => {
                let last = self.plan.things.last().map_or(0, |t| t.0);
                let over = self.now > last && (self.clients.idle() || self.now > last + RUN_ON_MS);
                if over && self.stopping.is_none() && self.start_at.is_none() {
                    self.enter(Phase::Settling);
                    self.heal();
                }
            }
            Phase::Settling => self.settle()?,
            Phase::Reading => self.read_all()?,
            Phase::Stopping => self.bounded(STOP_MS, "it does not stop")?,
            Phase::Over => {}
        }
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_at = (self.now, 0);
        self.note(|| format!("== {phase:?}"));
    }

    fn bounded(&self, limit: u64, what: &str) -> Check {
        if self.now < self.phase_at.0 + limit {
            return Ok(());
        }
        let status = self.core.as_ref().map(mirror::volume::core::Core::status);
        Err(self.violation("a way out", format!("{what} within {limit} ms: {status:?}")))
    }

    fn heal(&mut self) {
        self.ambushes.clear();
        (self.bad_persist_until, self.bad_maps_until) = (0, 0);
        if self.core.is_some() {
            self.command(Command::Resume(None));
        }
        for leg in &mut self.legs {
            leg.away_until = 0;
            leg.slow = (0, 1);
            leg.errors = [(0, 0); 3];
        }
    }

    fn settle(&mut self) -> Check {
        let Some(core) = &self.core else { return self.bounded(SETTLE_MS, "it does not start") };
        let status = core.status();
        let quiet = status.serving
            && !status.suspended
            && status.in_flight == 0
            && status.legs.iter().filter(|l| l.state != LegState::Gone).all(|l| {
                l.state == LegState::UpToDate
                    && l.connected
                    && l.missing_bytes + l.held_bytes + l.rewrite_bytes == 0
            });
        // With a floor it waits for the next start.
        let quiet = quiet && !self.grower.busy() && (self.grower.is_over() || self.plan.setup.min_legs > 1);
        if self.verifier_is_at_work() || (quiet && self.clients.idle() && self.inbox.is_empty()) {
            if !self.verify_at_end(&status)? {
                return self.bounded(SETTLE_MS, "verify and repair do not end");
            }
            self.enter(Phase::Reading);
            return Ok(());
        }
        // Once a second an administrator looks after what is out.
        if self.now >= self.phase_at.0 + 1000 * (self.phase_at.1 + 1) {
            self.phase_at.1 += 1;
            if !self.grower.is_over() {
                self.grow(0);
            }
            for (leg, status) in status.legs.iter().enumerate() {
                match status.state {
                    LegState::Gone => {}
                    LegState::Failed | LegState::Detached => self.command(Command::Attach(leg)),
                    _ if !status.connected => self.command(Command::Resync { leg: Some(leg), full: false }),
                    _ => {}
                }
            }
        }
        self.bounded(SETTLE_MS, "it does not become quiet")
    }

    /// A flush that succeeds, then a read of everything, then the stop.
    fn read_all(&mut self) -> Check {
        if !self.clients.idle() {
            return self.bounded(SETTLE_MS, "the last requests are not answered");
        }
        match self.clients.last_flush {
            Some((_, Some(true))) => {}
            _ if self.phase_at.1 >= FLUSHES => {
                return Err(self.violation("a way out", format!("{FLUSHES} flushes have failed")));
            }
            _ => {
                self.phase_at.1 += 1;
                let ix = self.clients.queue(0, Ask::Flush, 0, 0);
                self.clients.last_flush = Some((ix, None));
                self.issue(0);
                return Ok(());
            }
        }
        if self.phase_at.1 < FLUSHES + 1 {
            self.phase_at.1 = FLUSHES + 1;
            let cells = self.grower.cells;
            for from in (0..cells).step_by(7) {
                self.clients.queue(0, Ask::Read, from, 7.min(cells - from));
            }
            self.issue(0);
            return Ok(());
        }
        self.enter(Phase::Stopping);
        self.stopping = Some((0, u64::MAX));
        self.command(Command::Stop);
        Ok(())
    }

    /// The process has ended in order, and nothing was wrong any more.
    pub fn finish(&mut self) -> Check {
        self.phase = Phase::Over;
        let members: Vec<usize> = (0..self.legs.len()).filter(|leg| !self.is_gone(*leg)).collect();
        for &leg in &members {
            if !self.maps[leg].clean {
                return Err(self.violation("a way out", format!("leg {leg} was not closed cleanly")));
            }
            if let Some(block) = self.maps[leg].told.iter().position(|b| *b) {
                return Err(self.violation("a way out", format!("leg {leg} ends with block {block} marked")));
            }
            let records = &self.disk.legs[leg];
            if !records.in_sync || records.inconsistent {
                return Err(self.violation("5 one order", format!("leg {leg} ends as {records:?}")));
            }
            for at in 0..self.grower.cells {
                let value = self.legs[leg].storage.cells[at].stable;
                let other = self.legs[members[0]].storage.cells[at].stable;
                if value != other {
                    let text =
                        format!("cell {at}: leg {leg} ends with {value}, leg {} with {other}", members[0]);
                    return Err(self.violation("5 one order", text));
                }
                let register = &self.registers[at];
                if let Some(newer) = register.lacks_done(value) {
                    let text = format!("cell {at}: ends with {value}, without acknowledged {newer}");
                    return Err(self.violation("4 acknowledged is kept", text));
                }
            }
        }
        Ok(())
    }
}
