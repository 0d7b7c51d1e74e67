//! The driver: performs the actions of the core, and holds it to the promises between them.

use crate::leg::{Session, What};
use crate::plan::{BLOCK_CELLS, Moment};
use crate::state::{Check, Entry, MapFile, Pending};
use crate::world::World;
use mirror::base::ByteRange;
use mirror::volume::core::{Action, Ask, Event, IoId, LegRecord, Note, Source};

impl World<'_> {
    /// Performs one action.
    pub fn perform(&mut self, action: &Action) -> Check {
        match action {
            Action::Mark { leg, blocks } => {
                let map = &mut self.maps[*leg];
                for block in blocks.clone() {
                    map.bits[block as usize] = true;
                    map.told[block as usize] = true;
                    map.late.retain(|b| *b != block);
                }
                map.changed();
            }
            Action::Clear { leg, blocks } => self.clear(*leg, blocks.clone()),
            Action::SyncMaps { seq, .. } => self.sync_maps(*seq)?,
            Action::TrackerMark { blocks, .. } => self.tracker_mark(blocks.clone()),
            Action::TrackerTidy { .. } => self.tracker_tidy(),
            Action::Read { leg, io, range } | Action::Extents { leg, io, range } => {
                if matches!(action, Action::Extents { .. }) && !self.legs[*leg].plan.caps.extents {
                    return Err(self.violation("api", format!("leg {leg} cannot be asked for extents")));
                }
                let (from, count) = Self::cells(*range);
                let session = self.session(*leg, *io)?;
                self.send(*leg, session, *io, What::Read, from, vec![0; count]);
            }
            Action::Write { leg, io, range, source, fua } => {
                let session = self.session(*leg, *io)?;
                self.check_barrier(*leg)?;
                let values = self.payload(*source, *range)?;
                let what = What::Write { fua: self.through(*leg, *fua)?, fast: false };
                let client = matches!(source, Source::Client(_));
                let from = Self::cells(*range).0;
                self.check_write(*leg, from, &values, client)?;
                if client {
                    self.check_tracker_write(from, values.len())?;
                }
                self.send(*leg, session, *io, what, from, values);
                self.spring(if client { Moment::Write } else { Moment::Copy });
            }
            Action::Zero { leg, io, range, fast, fua, .. } => {
                let session = self.session(*leg, *io)?;
                self.check_barrier(*leg)?;
                let (from, count) = Self::cells(*range);
                let values: Vec<u32> =
                    self.clients.zero[from..from + count].iter().flatten().copied().collect();
                if values.len() != count {
                    return Err(
                        self.violation("api", format!("{action:?}: no client asked for zeroes there"))
                    );
                }
                let what = What::Write { fua: self.through(*leg, *fua)?, fast: *fast };
                self.check_write(*leg, from, &values, true)?;
                self.check_tracker_write(from, count)?;
                self.send(*leg, session, *io, what, from, values);
                self.spring(Moment::Write);
            }
            Action::Flush { leg, io } => {
                let session = self.session(*leg, *io)?;
                self.send(*leg, session, *io, What::Flush, 0, Vec::new());
                self.spring(Moment::Flush);
            }
            Action::Compare { range, reads } => self.compare(*range, reads)?,
            Action::Release { io } => drop(self.data.remove(io)),
            Action::Reply { token, answer } => self.reply(*token, *answer)?,
            Action::Persist { seq, legs, mint } => self.persist(*seq, legs, *mint)?,
            Action::Connect { leg, at_ms } => {
                // A newer wish replaces an older one: an administrator does not wait for the pause to end.
                self.legs[*leg].attempt += 1;
                let latency = self.random.between(0, self.legs[*leg].plan.latency_ms * 2);
                let attempt = self.legs[*leg].attempt;
                self.at((*at_ms).max(self.now) + latency, Entry::Attempt(*leg, attempt));
            }
            Action::Disconnect { leg, session } => {
                let live = self.legs[*leg].session;
                if live == Session::Live(*session) || live == Session::Broken(*session) {
                    self.end_session(*leg, Session::None);
                }
            }
            Action::Answer { id, result } => {
                self.removed(*id, result.is_ok());
                let Some(at) = self.commands.0.iter().position(|c| c == id) else {
                    return Err(self.violation("one answer", format!("command {id} is not open")));
                };
                self.commands.0.swap_remove(at);
                self.taken(*id, result.is_ok());
                self.widened(*id, result.is_ok());
                self.verified(*id, result.is_ok())?;
                self.barrier_answered(*id, *result)?;
            }
            Action::Note { leg, note: Note::Elected } => self.elected = *leg,
            Action::Note { note: Note::Serving, .. } => self.served = true,
            Action::Note { leg: Some(leg), note: Note::Left } => self.left_blind(*leg),
            Action::Note { .. } | Action::Stopped { .. } => {}
        }
        Ok(())
    }

    /// The session that a request goes to. The core may ask for I/O before it takes the loss of the connection in
    /// the same batch: such a request is dropped.
    fn session(&self, leg: usize, io: IoId) -> Result<Session, crate::state::Violation> {
        let session = self.legs[leg].session;
        if session == Session::None && !self.just_down.contains(&leg) {
            return Err(self.violation("api", format!("{io:?} for leg {leg}, which is not connected")));
        }
        Ok(session)
    }

    fn through(&self, leg: usize, fua: bool) -> Result<bool, crate::state::Violation> {
        if fua && !self.legs[leg].plan.caps.fua {
            return Err(self.violation("api", format!("leg {leg} has no FUA")));
        }
        Ok(fua)
    }

    /// What is to be written.
    fn payload(&mut self, source: Source, range: ByteRange) -> Result<Vec<u32>, crate::state::Violation> {
        let (from, count) = Self::cells(range);
        match source {
            Source::Client(token) => {
                let Some(asked) = self.clients.of(token) else {
                    return Err(self.violation("api", format!("no payload of token {token}")));
                };
                let inside = asked.from <= from && from + count <= asked.from + asked.count;
                if asked.over || !inside || !matches!(asked.ask, Ask::Write { .. }) {
                    let text = format!("{asked:?} has no payload for cells {from}+{count}");
                    return Err(self.violation("api", text));
                }
                Ok(vec![token as u32; count])
            }
            Source::Read(io) => {
                let Some((first, values)) = self.data.get(&io) else {
                    return Err(self.violation("api", format!("{io:?} holds no data to be written")));
                };
                if from < *first || from + count > first + values.len() {
                    let text = format!("{io:?} holds {first}+{}, not {from}+{count}", values.len());
                    return Err(self.violation("api", text));
                }
                Ok(values[from - first..from - first + count].to_vec())
            }
        }
    }

    /// Clears now, later, or never.
    fn clear(&mut self, leg: usize, blocks: std::ops::Range<u64>) {
        if self.is_gone(leg) {
            // Its map has no name any more.
            return;
        }
        self.maps[leg].told[blocks.start as usize..blocks.end as usize].fill(false);
        match self.random.below(20) {
            0 => {}
            1..=3 => {
                self.maps[leg].late.extend(blocks);
                let when = self.now + self.random.below(200);
                self.at(when, Entry::LateClear(leg));
            }
            _ => self.maps[leg].bits[blocks.start as usize..blocks.end as usize].fill(false),
        }
        self.maps[leg].changed();
    }

    /// All maps are synced: those of the legs, and last the tracker's.
    fn map_marks(&self) -> Vec<Vec<usize>> {
        self.maps.iter().chain([&self.tracked.map]).map(MapFile::mark_of).collect()
    }

    fn all_synced(&mut self, marks: &[Vec<usize>]) {
        for (map, mark) in self.maps.iter_mut().chain([&mut self.tracked.map]).zip(marks) {
            map.synced(mark);
        }
    }

    fn sync_maps(&mut self, seq: u64) -> Check {
        if self.syncing.is_some() {
            return Err(self.violation("api", "two syncs of maps at once".to_owned()));
        }
        self.syncing = Some((seq, self.map_marks()));
        let slow = if self.map_chance.chance(100) { 60 } else { 8 };
        let when = self.now + self.map_chance.below(slow);
        self.at(when, Entry::MapsSynced(seq, self.incarnation));
        Ok(())
    }

    /// A sync ends; one that fails has made anything durable, or nothing.
    pub fn maps_synced(&mut self, seq: u64, incarnation: u32) {
        if incarnation != self.incarnation || self.core.is_none() {
            return;
        }
        let Some((_, marks)) = self.syncing.take_if(|(of, _)| *of == seq) else { return };
        let ok = self.now >= self.bad_maps_until;
        if ok || self.map_chance.chance(300) {
            self.all_synced(&marks);
        }
        self.inbox.push(Event::MapsSynced { seq, ok });
    }

    /// Clears that came late take effect.
    pub fn late_clear(&mut self, leg: usize) {
        let map = &mut self.maps[leg];
        for block in map.late.drain(..) {
            map.bits[block as usize] = false;
        }
        map.changed();
    }

    /// Whether a cell is marked in a leg's map as the next start would believe it.
    pub fn marked(&self, leg: usize, cell: usize) -> bool {
        self.maps[leg].has(cell / BLOCK_CELLS, self.boot) || self.marked_by_growth(Some(leg), cell)
    }

    /// Legs that are in sync on disk.
    pub fn legs_in_sync(&self) -> usize {
        self.disk.legs.iter().filter(|l| l.in_sync).count()
    }

    fn persist(&mut self, seq: u64, legs: &[LegRecord], mint: bool) -> Check {
        if self.pending.is_some() {
            return Err(self.violation("api", "two states are being persisted at once".to_owned()));
        }
        if legs.iter().zip(&self.disk.legs).any(|(new, old)| old.in_sync && !new.in_sync) {
            self.leaves += 1;
            self.left_unreached(legs);
        }
        for (leg, new) in legs.iter().enumerate() {
            if new.in_sync && !self.disk.legs[leg].in_sync {
                // A leg that joins brings what it holds: it was copied before the last good leg lost it.
                for (cell, register) in self.legs[leg].storage.cells.iter().zip(&mut self.registers) {
                    register.executed(cell.visible());
                }
            }
        }
        self.pending = Some(Pending {
            seq,
            legs: legs.to_vec(),
            mint,
            members: self.members.clone(),
            executed: false,
            maps: self.map_marks(),
        });
        let slow = if self.random.chance(100) { 60 } else { 8 };
        let when = self.now + self.random.below(slow);
        self.at(when, Entry::PersistExecute(seq, self.incarnation));
        self.spring(Moment::Persist);
        self.verify_persists();
        Ok(())
    }

    /// The state reaches the disk, or does not.
    pub fn persist_execute(&mut self, seq: u64, incarnation: u32) {
        if incarnation != self.incarnation || self.pending.as_ref().is_none_or(|p| p.seq != seq || p.executed)
        {
            return;
        }
        let ok = self.now >= self.bad_persist_until;
        if ok || self.random.chance(300) {
            self.persist_now();
        }
        let when = self.now + self.random.below(4);
        self.at(when, Entry::PersistDone(seq, incarnation, ok));
    }

    /// The state that is on its way replaces the one on the disk.
    pub fn persist_now(&mut self) {
        let Some(maps) = self.pending.as_ref().map(|pending| pending.maps.clone()) else { return };
        self.all_synced(&maps);
        let Some(pending) = &mut self.pending else { return };
        pending.executed = true;
        let disk = &mut self.disk;
        for (ix, new) in pending.legs.iter().enumerate() {
            // The state of a leg that is no member (any more) is not written.
            if new.gone || disk.legs[ix].gone || pending.members[ix] != self.members[ix] {
                continue;
            }
            if new.in_sync {
                disk.left_at[ix] = None;
            } else if disk.legs[ix].in_sync {
                disk.left_at[ix] = Some(disk.generation);
            }
            disk.legs[ix] = *new;
        }
        disk.generation += u64::from(pending.mint);
        let count = self.legs_in_sync();
        for asked in self.clients.asked.iter_mut().filter(|a| !a.over && a.since != 0) {
            asked.most_in_sync = asked.most_in_sync.max(count);
        }
    }

    /// The process hears of it.
    pub fn persist_done(&mut self, seq: u64, incarnation: u32, ok: bool) {
        if incarnation == self.incarnation && self.pending.as_ref().is_some_and(|p| p.seq == seq) {
            self.pending = None;
            if self.core.is_some() {
                self.inbox.push(Event::Persisted { seq, ok });
            }
        }
    }
}
