//! What goes wrong, and what of the clients' writes is lost with it.

use crate::leg::{Session, What};
use crate::plan::{BLOCK_CELLS, CELL, Moment, Trouble};
use crate::register::Register;
use crate::state::{Check, Entry, MapFile, Phase};
use crate::world::World;
use mirror::base::ByteRange;
use mirror::volume::core::{Command, Event, IoId, LegRecord, LegState};

impl World<'_> {
    /// Something goes wrong now.
    pub fn trouble(&mut self, trouble: &Trouble) {
        self.note(|| format!("!! {trouble:?}"));
        match trouble {
            Trouble::Crash { power, down_ms, restarts } => {
                self.crash(*power);
                self.start_in(*down_ms);
                for leg in restarts {
                    let when = self.now + self.random.below(*down_ms + 1);
                    self.sprung.push(Trouble::Restart { leg: *leg, away_ms: 0 });
                    self.at(when, Entry::Spring(self.sprung.len() - 1));
                }
            }
            Trouble::Stop { down_ms } => {
                if self.core.is_some() && self.stopping.is_none() {
                    self.stopping = Some((*down_ms, self.now + 4000));
                    self.command(Command::Stop);
                }
            }
            Trouble::Restart { leg, away_ms } => self.restart(*leg, *away_ms),
            Trouble::Cut { leg, away_ms } => {
                self.legs[*leg].away_until = self.now + away_ms;
                if let Session::Live(session) = self.legs[*leg].session {
                    self.end_session(*leg, Session::Broken(session));
                }
            }
            Trouble::Errors { leg, kind, permille, for_ms } => {
                self.legs[*leg].errors[*kind as usize] = (*permille, self.now + for_ms);
            }
            Trouble::Slow { leg, by, for_ms } => self.legs[*leg].slow = (self.now + for_ms, *by),
            Trouble::BadPersist { for_ms } => self.bad_persist_until = self.now + for_ms,
            Trouble::Strays { leg, count } => self.strays(*leg, *count),
            Trouble::BadMaps { for_ms } => self.bad_maps_until = self.now + for_ms,
            Trouble::Rotate { wait_ms } => self.rotate(*wait_ms),
            Trouble::Grow { cells } => self.grow(*cells),
            Trouble::Barrier { for_ms, hold_ms } => self.barrier(*for_ms, *hold_ms),
            Trouble::Verify { from } => self.verify(*from),
            Trouble::Admin(command) => {
                if self.core.is_some() && self.stopping.is_none() {
                    self.command(*command);
                }
            }
            Trouble::Remove { leg } => self.remove_leg(*leg),
            Trouble::Add { leg } => self.add_leg(*leg),
            Trouble::Ambush { moment, after_ms, then } => {
                self.ambushes.push((*moment, *after_ms, (**then).clone()));
            }
        }
    }

    /// A moment has come: what lies in wait for it follows.
    pub fn spring(&mut self, moment: Moment) {
        let Some(at) = self.ambushes.iter().position(|a| a.0 == moment) else { return };
        if !self.random.chance(300) {
            return;
        }
        let (_, after, trouble) = self.ambushes.swap_remove(at);
        self.sprung.push(trouble);
        self.at(self.now + after, Entry::Spring(self.sprung.len() - 1));
    }

    /// An administrator types.
    pub fn command(&mut self, command: Command) {
        self.commands.1 += 1;
        let id = self.commands.1;
        self.commands.0.push(id);
        self.inbox.push(Event::Command { id, command });
    }

    /// The process starts again after this time.
    pub fn start_in(&mut self, down_ms: u64) {
        let when = self.now + down_ms + 1;
        self.start_at = Some(self.start_at.map_or(when, |at| at.max(when)));
        self.at(when, Entry::Start);
    }

    /// The process is gone, with `power` the machine too.
    pub fn crash(&mut self, power: bool) {
        (self.served, self.elected) = (false, None);
        if let Some(core) = self.core.take() {
            if !core.status().state_durable {
                self.registers.iter_mut().for_each(Register::unsee);
            }
            self.end_process();
            self.drop_clients();
            // A far server had lost its cache, and the record does not say yet that its leg has left: the next
            // start may elect it. Only a leg that keeps its cache for certain stands in for what was not flushed.
            for leg in 0..self.legs.len() {
                let cells = &self.legs[leg].storage.cells;
                let back: Vec<(usize, u64)> =
                    (0..cells.len()).filter(|at| cells[*at].reverted).map(|at| (at, 0)).collect();
                self.went_back(leg, &back);
            }
        }
        if power {
            self.boot += 1;
            for map in self.maps.iter_mut().chain([&mut self.tracked.map]) {
                map.lose(&mut self.map_chance);
            }
            let stamp = self.next_stamp();
            for leg in 0..self.legs.len() {
                if !self.legs[leg].plan.remote {
                    self.legs[leg].storage.lose_cache(&mut self.random);
                }
            }
            // What was not flushed may be gone: the next source is any leg in sync.
            for at in 0..self.registers.len() {
                let survivors: Vec<u32> = (0..self.legs.len())
                    .filter(|leg| self.disk.legs[*leg].in_sync)
                    .map(|leg| self.legs[leg].storage.cells[at].visible())
                    .collect();
                self.registers[at].lose(&survivors, stamp, stamp);
            }
        }
    }

    /// Connections, requests and memory of a process that ended.
    pub fn end_process(&mut self) {
        self.inbox.clear();
        self.just_down.clear();
        self.data.clear();
        self.commands.0.clear();
        self.retiring.clear();
        self.tracked.end();
        self.verifier.end();
        self.grower.end();
        self.holder = crate::barrier::Holder::default();
        self.syncing = None;
        self.stopping = None;
        if self.pending.as_ref().is_some_and(|p| !p.executed) && self.random.chance(500) {
            self.persist_now();
        }
        self.pending = None;
        for leg in 0..self.legs.len() {
            self.end_session(leg, Session::None);
            self.legs[leg].attempt += 1;
            self.legs[leg].failed_flush = false;
            if !self.legs[leg].plan.remote {
                // A session that ended before left requests with the kernel: they end with the process.
                let open: Vec<usize> = self.requests_of(leg).collect();
                for ix in open {
                    match (self.requests[ix].queued, self.random.chance(500)) {
                        (Some(schedule), true) => self.execute(ix, schedule),
                        _ => self.never(ix),
                    }
                }
            }
            if self.random.chance(500) {
                self.late_clear(leg);
            }
            self.maps[leg].late.clear();
        }
    }

    /// The core has stopped in order.
    pub fn stopped(&mut self, clean: &[bool]) -> Check {
        let Some((down_ms, _)) = self.stopping else {
            return Err(self.violation("api", "stopped, but nobody asked for it".to_owned()));
        };
        if self.clients.asked.iter().any(|a| a.since != 0 && !a.over) {
            return Err(self.violation("one answer", "stopped with requests unanswered".to_owned()));
        }
        if !self.data.is_empty() {
            let text = format!("stopped and holds the data of {:?}", self.data.keys());
            return Err(self.violation("api", text));
        }
        if self.pending.is_some() {
            return Err(self.violation("api", "stopped while a state is being persisted".to_owned()));
        }
        for (leg, clean) in clean.iter().enumerate() {
            self.late_clear(leg);
            self.maps[leg].clean = *clean;
        }
        self.tracked.map.clean = true;
        self.maps.iter_mut().chain([&mut self.tracked.map]).for_each(MapFile::settle);
        // A stop that closes every leg in sync as clean has flushed what was answered; what was lost before, the
        // clients learn from the end of their connections.
        let stamp = self.next_stamp();
        self.announced = stamp;
        if (0..self.legs.len()).all(|leg| clean[leg] || !self.disk.legs[leg].in_sync) {
            self.flushed(stamp)?;
        }
        self.core = None;
        (self.served, self.elected) = (false, None);
        self.end_process();
        self.drop_clients();
        if self.phase < Phase::Stopping {
            self.start_in(down_ms);
        } else {
            self.finish()?;
        }
        Ok(())
    }

    fn restart(&mut self, leg: usize, away_ms: u64) {
        self.legs[leg].away_until = self.now + away_ms;
        let open: Vec<usize> = self.requests_of(leg).collect();
        for ix in open {
            match (self.requests[ix].queued, self.random.below(3)) {
                (Some(schedule), 0) => self.execute(ix, schedule),
                _ => self.never(ix),
            }
        }
        if let Session::Live(session) = self.legs[leg].session {
            self.end_session(leg, Session::Broken(session));
        }
        let back = self.legs[leg].storage.lose_cache(&mut self.random);
        self.went_back(leg, &back);
    }

    /// Memory gets short on a leg; not while reads are under way that were sent before it was known.
    pub fn evict(&mut self, leg: usize, tries: u32) {
        let reads = self.requests_of(leg).any(|ix| self.requests[ix].what == What::Read);
        if reads || self.legs[leg].failed_flush {
            if tries < 20 {
                self.at(self.now + 3, Entry::Evict(leg, tries + 1));
            }
            return;
        }
        let back = self.legs[leg].storage.evict(&mut self.random);
        self.note(|| format!("   leg {leg} drops clean pages: {back:?}"));
        self.went_back(leg, &back);
    }

    /// Cells of a leg went back. Where no other leg in sync stands for what it had, that is lost for the clients.
    fn went_back(&mut self, leg: usize, back: &[(usize, u64)]) {
        let stamp = self.next_stamp();
        if !self.disk.legs[leg].in_sync {
            return;
        }
        for (at, failed) in back {
            // A flush failed, and the process died before the record said that the leg has left: the next one may
            // elect it, and its pages go after that.
            let unrecorded = *failed > 0 && !self.served;
            let stands = |other: &usize| *other != leg && !unrecorded && self.vouches(*other, *at);
            if let Some(other) = (0..self.legs.len()).find(stands) {
                self.note(|| format!("   cell {at} went back on leg {leg}, but leg {other} has it"));
                continue;
            }
            self.note(|| format!("   cell {at} went back on leg {leg}, the last that had it"));
            // The end of the process has told of whatever is lost before the next one serves.
            let since = match (self.core.is_some() && self.served, *failed) {
                (false, _) => self.announced,
                // A lost connection was reason enough to tell, whenever the far server restarted after it.
                (true, 0) => self.legs[leg].ended,
                (true, failed) => failed,
            };
            let survivor = self.legs[leg].storage.cells[*at].visible();
            self.registers[*at].lose(&[survivor], since, stamp);
        }
    }

    /// A leg leaves while the process does not know yet that another one, which stays, has lost its cache.
    pub fn left_blind(&mut self, gone: usize) {
        let Some(core) = &self.core else { return };
        let states = core.status().legs;
        let stamp = self.next_stamp();
        let stays = |leg: &usize| *leg != gone && states[*leg].state == LegState::UpToDate;
        for at in 0..self.registers.len() {
            let (back, good): (Vec<usize>, Vec<usize>) =
                (0..self.legs.len()).filter(stays).partition(|leg| {
                    let to = &self.legs[*leg];
                    let unknown = matches!(to.session, Session::Broken(_)) || self.just_down.contains(leg);
                    to.storage.cells[at].reverted && (unknown || to.failed_flush)
                });
            if back.is_empty() || good.iter().any(|leg| self.vouches(*leg, at)) {
                continue;
            }
            let survivors: Vec<u32> =
                back.iter().map(|leg| self.legs[*leg].storage.cells[at].visible()).collect();
            self.registers[at].lose(&survivors, stamp, stamp);
        }
    }

    /// At a start a leg that cannot be reached is not elected, whatever it kept. What the others lost with their
    /// caches while no process ran is then lost.
    pub fn left_unreached(&mut self, coming: &[LegRecord]) {
        if self.served {
            return;
        }
        let stamp = self.next_stamp();
        let unreached = |leg: usize| {
            self.disk.legs[leg].in_sync && !coming[leg].in_sync && self.legs[leg].session == Session::None
        };
        if !(0..self.legs.len()).any(unreached) {
            return;
        }
        for at in 0..self.registers.len() {
            let back = |leg: &usize| coming[*leg].in_sync && self.legs[*leg].storage.cells[at].reverted;
            let survivors: Vec<u32> = (0..self.legs.len())
                .filter(back)
                .map(|leg| self.legs[leg].storage.cells[at].visible())
                .collect();
            if !survivors.is_empty() {
                self.registers[at].lose(&survivors, self.announced, stamp);
            }
        }
    }

    /// Whether the process can rely on this leg for a cell: it is in sync, has every acknowledged write, and the
    /// process knows no reason to doubt it.
    fn vouches(&self, leg: usize, at: usize) -> bool {
        let to = &self.legs[leg];
        let joining = self.pending.as_ref().is_some_and(|p| p.legs[leg].in_sync);
        let in_sync = self.disk.legs[leg].in_sync || joining;
        if !in_sync || self.registers[at].lacks_done(to.storage.cells[at].visible()).is_some() {
            return false;
        }
        let Some(core) = self.core.as_ref().filter(|_| self.served) else {
            let kept = if self.core.is_some() { to.kept } else { self.maps[leg].boot == self.boot };
            return self.elected.map_or(kept && !to.plan.remote, |elected| elected == leg);
        };
        if core.status().legs[leg].state != LegState::UpToDate {
            return false; // It is on its way out.
        }
        if !self.marked(leg, at) {
            return true;
        }
        let range = ByteRange { offset: (at / BLOCK_CELLS * BLOCK_CELLS) as u64 * CELL, len: CELL };
        let missing = core.dirty_extents(leg, range, 4).iter().any(|e| e.1);
        matches!(to.session, Session::Live(_)) && !to.failed_flush && !missing
    }

    fn strays(&mut self, leg: usize, count: u64) {
        let Session::Live(session) = self.legs[leg].session else { return };
        if self.core.is_none() {
            return;
        }
        for _ in 0..count {
            let known = self.legs[leg].answered.len();
            let (io, session) = match self.random.below(3) {
                0 if known > 0 => (self.legs[leg].answered[self.random.index(known)], session),
                1 if session > 1 => (IoId(self.random.below(1000)), session - 1),
                _ => (IoId(u64::MAX - self.random.below(1000)), session),
            };
            self.inbox.push(Event::Done { leg, session, io, result: Ok(()) });
        }
    }
}
