//! What the core wants done.

use super::legs::{LegIo, Slot};
use super::local::Work;
use super::{Completion, Driver};
use crate::base::{ByteRange, Error, Result};
use crate::control::EventKind;
use crate::volume::core::{Action, Event, IoId, LegIx, MapIx, Source};
use crate::volume::state::{self, MapHandle};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Local I/O that waits until remote legs have been sent to.
#[derive(Debug)]
pub(super) struct Todo {
    pub(super) leg: LegIx,
    session: u32,
    io: IoId,
    range: ByteRange,
    work: Work,
}

impl Driver<'_> {
    /// Performs one action, or begins to.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Mark { leg, blocks } => self.maps[leg].mark(blocks),
            Action::Clear { leg, blocks } => {
                if let Some(slot) = self.legs.get_mut(leg) {
                    slot.known.cleared(&blocks);
                }
                self.maps[leg].clear(blocks);
            }
            Action::TrackerMark { tracker, blocks } => {
                if let Some(slot) = self.trackers.get(tracker).and_then(Option::as_ref) {
                    slot.map.mark(blocks);
                }
            }
            Action::TrackerTidy { tracker } => {
                if let Some(slot) = self.trackers.get(tracker).and_then(Option::as_ref) {
                    slot.map.store(&self.core.tracker_image(tracker));
                }
            }
            Action::SyncMaps { seq, maps } => self.sync_maps(seq, &maps),
            Action::Read { leg, io, range } => self.read(leg, io, range),
            Action::Write { leg, io, range, source, fua } => self.write(leg, io, range, source, fua),
            Action::Zero { leg, io, range, no_hole, fast, fua } => {
                self.zero(leg, io, range, [no_hole, fast, fua]);
            }
            Action::Flush { leg, io } => self.flush_leg(leg, io),
            Action::Extents { leg, io, range } => match self.legs.get_mut(leg) {
                Some(Slot { io: LegIo::Remote(remote), .. }) => {
                    if let Some(link) = remote.link() {
                        link.extents(io, range);
                    }
                }
                _ => self.local(leg, io, range, Work::Extents),
            },
            Action::Compare { range, reads } => self.compare(range, &reads),
            Action::Release { io } => {
                self.reads.remove(&io);
                self.extents.remove(&io);
            }
            Action::Reply { token, answer } => self.reply(token, answer),
            Action::Persist { seq, legs, mint } => {
                let records = Arc::clone(&self.records);
                let members = || self.legs.iter().enumerate().filter(|(_, slot)| !slot.gone);
                let maps: Vec<_> = members().map(|(leg, _)| self.maps[leg].clone()).collect();
                let legs: Vec<_> = self.legs.iter().map(|slot| slot.id).zip(legs).collect();
                self.workers.submit(move || {
                    let result = state::persist(&records, &maps, &legs, mint);
                    Completion::Persisted { seq, result }
                });
            }
            Action::Connect { leg, at_ms } => {
                if let Some(slot) = self.legs.get_mut(leg) {
                    slot.connect_at = Some(at_ms);
                    slot.trying = true;
                }
            }
            Action::Disconnect { leg, session } => self.disconnect(leg, session),
            Action::Answer { id, result } => self.answer_command(id, result),
            Action::Note { leg, note } => self.note(leg, note),
            Action::Stopped { clean } => self.stopped = Some(clean),
        }
    }

    /// Has the marks of these maps made durable, side by side; the last one to end reports.
    fn sync_maps(&mut self, seq: u64, maps: &[MapIx]) {
        let handles: Vec<MapHandle> = maps
            .iter()
            .filter_map(|map| match map {
                MapIx::Leg(leg) => self.maps.get(*leg).cloned(),
                MapIx::Tracker(ix) => self.trackers.get(*ix)?.as_ref().map(|slot| slot.map.clone()),
            })
            .collect();
        let open = Arc::new(Mutex::new((handles.len(), Vec::new())));
        if handles.is_empty() {
            return self.events.push(Event::MapsSynced { seq, ok: true });
        }
        for map in handles {
            let open = Arc::clone(&open);
            self.map_workers.submit(move || {
                let done = map.sync();
                let (left, failed) = &mut *open.lock().unwrap_or_else(PoisonError::into_inner);
                *left -= 1;
                if let Err(error) = done {
                    failed.push((map, error));
                }
                Completion::MapsSynced { seq, failed: (*left == 0).then(|| std::mem::take(failed)) }
            });
        }
    }

    /// The marks of some maps are durable, or not: then they are written again before the next sync.
    pub(super) fn maps_synced(&mut self, seq: u64, failed: Option<Vec<(MapHandle, Error)>>) {
        let Some(failed) = failed else { return };
        for (map, error) in &failed {
            map.redirty();
            self.complain(error);
        }
        if let Some((_, error)) = failed.first() {
            self.event(EventKind::PersistFailed, None, &error.message);
        }
        self.events.push(Event::MapsSynced { seq, ok: failed.is_empty() });
    }

    /// The session of a leg that is up.
    fn session(&self, leg: LegIx) -> Option<u32> {
        self.legs.get(leg).filter(|slot| slot.up).map(|slot| slot.session)
    }

    fn local(&mut self, leg: LegIx, io: IoId, range: ByteRange, work: Work) {
        if let Some(session) = self.session(leg) {
            self.local_todo.push(Todo { leg, session, io, range, work });
        }
    }

    fn read(&mut self, leg: LegIx, io: IoId, range: ByteRange) {
        match self.legs.get_mut(leg) {
            Some(Slot { io: LegIo::Remote(remote), .. }) => {
                if let Some(link) = remote.link() {
                    link.read(io, range);
                }
            }
            Some(Slot { io: LegIo::Local(_), .. }) => {
                let chunk = self.pool.take(range.len as usize);
                self.local(leg, io, range, Work::Read(chunk));
            }
            None => {}
        }
    }

    fn write(&mut self, leg: LegIx, io: IoId, range: ByteRange, source: Source, fua: bool) {
        let data = match source {
            Source::Client(token) => self.requests.get(token).and_then(|pending| pending.payload.clone()),
            Source::Read(read) => self.reads.get(&read).cloned(),
        };
        let Some(data) = data.filter(|data| data.len() as u64 == range.len) else {
            // The core names bytes that were never there: an error, so that nothing counts as written.
            if let Some(session) = self.session(leg) {
                let result = Err(crate::volume::core::Fault::Invalid);
                self.events.push(Event::Done { leg, session, io, result });
            }
            return;
        };
        match self.legs.get_mut(leg) {
            Some(Slot { io: LegIo::Remote(remote), .. }) => {
                if let Some(link) = remote.link() {
                    link.write(io, range, data, fua);
                }
            }
            _ => self.local(leg, io, range, Work::Write(data)),
        }
    }

    fn zero(&mut self, leg: LegIx, io: IoId, range: ByteRange, [no_hole, fast, fua]: [bool; 3]) {
        let Some(session) = self.session(leg) else { return };
        match self.legs.get_mut(leg) {
            Some(Slot { io: LegIo::Remote(remote), .. }) => {
                if let Some(link) = remote.link()
                    && !link.zero(io, range, no_hole, fast, fua)
                {
                    let result = Err(crate::volume::core::Fault::NotSupported);
                    self.events.push(Event::Done { leg, session, io, result });
                }
            }
            _ => self.local(leg, io, range, Work::Zero { no_hole, fast }),
        }
    }

    fn flush_leg(&mut self, leg: LegIx, io: IoId) {
        match self.legs.get_mut(leg) {
            Some(Slot { io: LegIo::Remote(remote), .. }) => {
                if let Some(link) = remote.link() {
                    link.flush_leg(io);
                }
            }
            _ => self.local(leg, io, ByteRange::default(), Work::Flush),
        }
    }

    /// Does the local I/O of this step, here or through workers.
    pub(super) fn work_locally(&mut self) {
        if self.local_todo.is_empty() {
            return;
        }
        let mut now = Instant::now();
        let mut todo = std::mem::take(&mut self.local_todo);
        for Todo { leg, session, io, range, work } in todo.drain(..) {
            let Some(Slot { io: LegIo::Local(local), .. }) = self.legs.get_mut(leg) else { continue };
            match local.try_now(work, range, &mut now) {
                Ok(worked) => self.deliver(leg, session, io, worked),
                Err(work) => self.hand_over(leg, session, io, range, work),
            }
        }
        self.local_todo = todo;
    }

    /// The state was written, or not.
    pub(super) fn persisted(&mut self, seq: u64, result: &Result<()>) {
        if let Err(error) = result {
            self.complain(error);
        }
        self.events.push(Event::Persisted { seq, ok: result.is_ok() });
    }
}
