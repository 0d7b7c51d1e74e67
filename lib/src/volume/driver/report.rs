//! What people are told: the status, and events out of the core's notes.

use super::Driver;
use super::advice::{self, Advice, Circumstances};
use super::legs::{LegIo, Slot};
use crate::base::{Error, Id, units::show_size};
use crate::control::event::now as this_moment;
use crate::control::{AddressStatus, EventKind, LegStatus, ResyncStatus, Status};
use crate::leg::{Connection, DiskState, LegDevice, Role};
use crate::volume::core::{self, LegIx, LegState, Note};
use crate::volume::options::ServeNotice;

impl Driver<'_> {
    /// The state of the volume.
    pub(super) fn status(&self) -> Status {
        let core = self.core.status();
        let generations = self.generations();
        let legs: Vec<LegStatus> = self
            .legs
            .iter()
            .zip(&core.legs)
            .filter(|(slot, _)| !slot.gone)
            .map(|(slot, leg)| {
                let generation = generations.iter().find(|(id, _)| *id == slot.id);
                let generation = generation.map_or_else(String::new, |(_, id)| id.to_string());
                LegStatus { id: slot.id.to_string(), generation, ..self.leg_status(slot, leg) }
            })
            .collect();
        let good = core.legs.iter().filter(|leg| leg.state == LegState::UpToDate).count();
        let what = Circumstances { stopping: self.stopping, good, min_legs: self.config.min_legs as usize };
        let advices: Vec<Advice> =
            legs.iter().map(|leg| Advice { reason: None, next: leg.next.clone() }).collect();
        let Advice { mut reason, mut next } = advice::volume(&self.name, &core, what, &advices);
        // What is urgent is said first.
        let member = |leg: &&crate::leg::LegSpec| self.leg_named(&leg.name).is_some();
        let busy = self.task.is_some() || self.relegs.is_some();
        if let Some(stranger) = self.asked_for.iter().find(|leg| !member(leg)).filter(|_| !busy) {
            let (text, hint) = super::super::strangers::warning(&self.name, stranger);
            reason.get_or_insert(text);
            next.get_or_insert(hint);
        }
        Status {
            id: self.id.to_string(),
            running: true,
            role: Role::Primary.to_string(),
            size: self.size,
            block: self.config.map_block.bytes(),
            suspended: core.suspended || !core.serving,
            uris: self.uris(),
            clients: self.clients.len() as u64,
            refused: self.refused_clients,
            in_flight: core.in_flight,
            pending: self.totals.bytes as u64,
            read: self.read_bytes,
            written: self.written_bytes,
            min_legs: self.config.min_legs,
            map_durability: self.config.map_durability.to_string(),
            read_policy: self.config.read_policy.to_string(),
            last_in_sync: legs.iter().filter_map(|leg| leg.last_in_sync.clone()).min(),
            flush_error_owed: core.flush_error_owed,
            widened: self.widened,
            reason,
            next,
            legs,
            verify: self.verify_status(),
            trackers: self.tracker_statuses(&core.trackers),
            ..Status::new(&self.name)
        }
    }

    /// Where clients connect, for people.
    fn uris(&self) -> Vec<String> {
        self.doors.iter().map(|door| door.uri.clone()).collect()
    }

    /// The generation of each leg, unless a worker is just changing them.
    fn generations(&self) -> Vec<(Id, Id)> {
        let records = self.records.try_lock().ok();
        records.map_or_else(Vec::new, |r| r.records.iter().map(|r| (r.leg, r.current.id)).collect())
    }

    fn leg_status(&self, slot: &Slot, leg: &core::LegStatus) -> LegStatus {
        let (received, sent, pending, queued) = match &slot.io {
            LegIo::Local(local) => (0, 0, local.outstanding_bytes, 0),
            LegIo::Remote(remote) => {
                let link = remote.peek();
                let (pending, queued) = link.map_or((0, 0), super::link::Link::load);
                let (received, sent) = link.map_or((0, 0), |link| (link.received(), link.sent()));
                (remote.received + received, remote.sent + sent, pending, queued)
            }
        };
        let connection = if leg.connected {
            Connection::Connected
        } else if matches!(leg.state, LegState::Detached | LegState::Failed) {
            Connection::StandAlone
        } else {
            // The core never gives up, also in the moment before it asks again.
            Connection::Connecting
        };
        let name = &slot.spec.name;
        let Advice { reason, next } = advice::leg(&self.name, name, leg, slot.reason.as_deref());
        LegStatus {
            name: name.to_string(),
            device: slot.spec.device.to_string(),
            addresses: addresses(slot),
            mode: slot.spec.mode.to_string(),
            read_preference: slot.spec.read.to_string(),
            connection_state: connection.to_string(),
            disk_state: disk_state(leg.state).to_string(),
            in_flight: leg.in_flight,
            pending,
            queued,
            out_of_sync: leg.missing_bytes,
            dirty: leg.missing_bytes,
            unflushed: leg.unflushed_bytes,
            held: leg.held_bytes,
            leaving: leg.retiring,
            replaces: slot.spec.replaces.as_ref().map(ToString::to_string),
            paused: leg.paused,
            halt: leg.halt.map(|halt| advice::halt_words(halt).0.to_owned()),
            rate_limit: slot.spec.rate,
            rewrite: leg.rewrite_bytes,
            received,
            sent,
            read: leg.read_bytes,
            written: leg.written_bytes,
            resync: leg.resync.map(|resync| self.resync_status(&resync, leg)),
            last_in_sync: slot.last_in_sync.clone(),
            behind_seconds: slot.watch.behind_seconds(self.now_ms(), leg),
            stalled_seconds: slot.watch.still_seconds(self.now_ms()),
            resynced: leg.resync_bytes,
            cannot_defend: true,
            flush_unsafe: slot.spec.flush_unsafe,
            stray_replies: leg.strays,
            reason,
            next,
            ..LegStatus::default()
        }
    }

    fn resync_status(&self, resync: &core::ResyncStatus, leg: &core::LegStatus) -> ResyncStatus {
        let millis = self.now_ms().saturating_sub(resync.since_ms).max(1);
        let rate = resync.done.saturating_mul(1000) / millis;
        let left = resync.total.saturating_sub(resync.done);
        let equal = self.size.saturating_sub(leg.missing_bytes);
        ResyncStatus {
            done: resync.done,
            total: resync.total,
            percent_in_sync: percent(equal, self.size),
            rate,
            estimated_seconds_to_finish: (rate > 0 && leg.halt.is_none()).then(|| left.div_ceil(rate)),
        }
    }

    /// A failure that people should read about.
    pub(super) fn complain(&mut self, error: &Error) {
        (self.notify)(ServeNotice::Note(error.message.clone()));
    }

    /// Something that the core found worth telling.
    pub(super) fn note(&mut self, leg: Option<LegIx>, note: Note) {
        let (kind, text) = match note {
            Note::Serving => {
                self.serve_clients();
                (EventKind::Start, "requests are admitted".to_owned())
            }
            Note::Elected => (EventKind::Elected, "the source after an unclean end".to_owned()),
            Note::Connected => (EventKind::Connect, "connected".to_owned()),
            Note::Lost => (EventKind::Disconnect, self.why(leg, "the connection is lost")),
            Note::Left => (EventKind::Leave, self.why_left(leg)),
            Note::SyncStarted(bytes) => {
                (EventKind::Syncstart, format!("a resync of {} begins", show_size(bytes)))
            }
            Note::SyncDone => (EventKind::Syncdone, "the leg is UpToDate".to_owned()),
            Note::FlushFailed => {
                (EventKind::FlushFailed, "a flush failed: unflushed blocks are missing".to_owned())
            }
            Note::Stalled => (EventKind::Stalled, "its resync has stalled: nothing is answered".to_owned()),
            Note::Moving => (EventKind::Moving, "its resync moves again".to_owned()),
            Note::ReadRepair => (EventKind::Repaired, "a read failed; the block is written again".to_owned()),
            Note::Failed => (EventKind::Failed, "it failed and stays out until it is attached".to_owned()),
            Note::PersistFailed => {
                (EventKind::PersistFailed, "the state could not be made durable".to_owned())
            }
            Note::BarrierHeld => (EventKind::Barrier, "writes are held, all legs are flushed".to_owned()),
            Note::BarrierBroken => {
                (EventKind::Barrier, "writes go on: the barrier's time was over".to_owned())
            }
            Note::BarrierEnded => (EventKind::Barrier, "writes go on".to_owned()),
            Note::Suspended => (EventKind::Suspended, "no good leg can be reached; requests wait".to_owned()),
            Note::Resumed => (EventKind::Resumed, "requests go on".to_owned()),
            Note::Strays => (EventKind::Stray, "too many replies that nobody waits for".to_owned()),
        };
        if let Some(slot) = leg.and_then(|leg| self.legs.get_mut(leg)) {
            match note {
                Note::Strays => slot.reason = Some(text.clone()),
                Note::Left => slot.last_in_sync = Some(this_moment()),
                Note::SyncDone => slot.last_in_sync = None,
                _ => {}
            }
        }
        let important = !matches!(
            note,
            Note::Serving | Note::Connected | Note::SyncStarted(_) | Note::BarrierHeld | Note::BarrierEnded
        );
        if important {
            let name = leg.and_then(|leg| self.legs.get(leg)).map(|slot| format!("leg {}: ", slot.spec.name));
            (self.notify)(ServeNotice::Note(format!("{}{text}", name.unwrap_or_default())));
        }
        self.event(kind, leg, &text);
    }

    fn why(&self, leg: Option<LegIx>, what: &str) -> String {
        let reason = leg.and_then(|leg| self.legs.get(leg)).and_then(|slot| slot.reason.as_ref());
        reason.map_or_else(|| what.to_owned(), |reason| format!("{what}: {reason}"))
    }

    /// Somebody's word is a better reason than the last trouble.
    fn why_left(&self, leg: Option<LegIx>) -> String {
        let what = "it left the set of legs in sync";
        match leg.and_then(|leg| self.core.status().legs.into_iter().nth(leg)) {
            Some(core::LegStatus { retiring: true, .. }) => format!("{what}: it is being removed"),
            Some(core::LegStatus { state: LegState::Detached, .. }) => {
                format!("{what}: detached by an administrator")
            }
            _ => self.why(leg, what),
        }
    }

    /// From now on clients are let in.
    fn serve_clients(&mut self) {
        if std::mem::replace(&mut self.serving, true) || self.stopping {
            return;
        }
        self.listen(true);
        if let Some(client) = self.stdio.take() {
            // If it was not waited for, waiting for it again fails, and it is dropped.
            let _ = rustix::event::epoll::delete(&self.epoll, &client);
            self.greet(client, false);
        }
        let uris = self.uris();
        (self.notify)(ServeNotice::Ready { uris });
        // Without systemd nobody listens.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

/// Where a leg with several addresses is reached, and what became of the others.
fn addresses(slot: &Slot) -> Vec<AddressStatus> {
    let LegIo::Remote(remote) = &slot.io else { return Vec::new() };
    if slot.spec.others.is_empty() {
        return Vec::new();
    }
    if slot.moved {
        // The new ones have not been tried.
        let address = |device: &LegDevice| AddressStatus { device: device.to_string(), ..Default::default() };
        return slot.spec.addresses().map(address).collect();
    }
    let ways = remote.ways().iter().enumerate();
    ways.map(|(at, way)| AddressStatus {
        device: way.text.clone(),
        in_use: slot.up && at == remote.present_way(),
        error: way.error.clone(),
    })
    .collect()
}

/// `part` of `whole` in percent, two digits, rounded down: 100 means all.
fn percent(part: u64, whole: u64) -> f64 {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(10_000)) / 100.0
}

const fn disk_state(state: LegState) -> DiskState {
    match state {
        LegState::UpToDate => DiskState::UpToDate,
        LegState::SyncTarget => DiskState::SyncTarget,
        LegState::Inconsistent => DiskState::Inconsistent,
        LegState::Outdated => DiskState::Outdated,
        LegState::Failed => DiskState::Failed,
        LegState::Detached | LegState::Gone => DiskState::Detached,
    }
}
