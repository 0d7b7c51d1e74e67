//! What people are told: the status, and events out of the core's notes.

use super::Driver;
use super::legs::{LegIo, Slot};
use crate::base::{Error, units::show_size};
use crate::control::event::now as this_moment;
use crate::control::{EventKind, LegStatus, ResyncStatus, Status};
use crate::leg::{Connection, DiskState, Role};
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
            .zip(generations)
            .map(|((slot, leg), (id, generation))| LegStatus { id, generation, ..self.leg_status(slot, leg) })
            .collect();
        let good = core.legs.iter().filter(|leg| leg.state == LegState::UpToDate).count();
        let reason = self.reason(&core, good);
        let next = reason.is_some().then(|| format!("mirrord events {} --now", self.name));
        let next = legs.iter().find_map(|leg| leg.next.clone()).or(next);
        Status {
            id: self.id.to_string(),
            running: true,
            role: Role::Primary.to_string(),
            size: self.size,
            block: self.config.map_block.bytes(),
            suspended: core.suspended || !core.serving,
            uris: self.uris.clone(),
            clients: self.clients.len() as u64,
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
            trackers: self.tracker_statuses(&core.trackers),
            ..Status::new(&self.name)
        }
    }

    /// Id and generation of each leg, unless a worker is just changing them.
    fn generations(&self) -> Vec<(String, String)> {
        match self.records.try_lock() {
            Ok(records) => {
                records.records.iter().map(|r| (r.leg.to_string(), r.current.id.to_string())).collect()
            }
            Err(_) => vec![(String::new(), String::new()); self.legs.len()],
        }
    }

    fn reason(&self, core: &core::Status, good: usize) -> Option<String> {
        if self.stopping {
            return Some("stopping: requests drain".to_owned());
        }
        if core.suspended {
            return Some("no good leg can be reached; requests wait".to_owned());
        }
        if !core.serving {
            return Some("starting: legs are being connected".to_owned());
        }
        if !core.state_durable {
            return Some("the state of the legs is not on stable storage yet".to_owned());
        }
        if good < self.config.min_legs as usize {
            let least = self.config.min_legs;
            return Some(format!("{good} legs are UpToDate, min-legs is {least}: writes are refused"));
        }
        None
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
        let (reason, next) = advice(&self.name, name, slot, leg);
        LegStatus {
            name: name.to_string(),
            device: slot.spec.device.to_string(),
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
            rewrite: leg.rewrite_bytes,
            received,
            sent,
            read: leg.read_bytes,
            written: leg.written_bytes,
            resync: leg.resync.map(|resync| self.resync_status(&resync, leg)),
            last_in_sync: slot.last_in_sync.clone(),
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
            estimated_seconds_to_finish: (rate > 0).then(|| left.div_ceil(rate)),
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
            Note::Left => (EventKind::Leave, self.why(leg, "it left the set of legs in sync")),
            Note::SyncStarted(bytes) => {
                (EventKind::Syncstart, format!("a resync of {} begins", show_size(bytes)))
            }
            Note::SyncDone => (EventKind::Syncdone, "the leg is UpToDate".to_owned()),
            Note::FlushFailed => {
                (EventKind::FlushFailed, "a flush failed: unflushed blocks are missing".to_owned())
            }
            Note::ReadRepair => (EventKind::Repaired, "a read failed; the block is written again".to_owned()),
            Note::Failed => (EventKind::Failed, "it failed and stays out until it is attached".to_owned()),
            Note::PersistFailed => {
                (EventKind::PersistFailed, "the state could not be made durable".to_owned())
            }
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
        let important = !matches!(note, Note::Serving | Note::Connected | Note::SyncStarted(_));
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

    /// From now on clients are let in.
    fn serve_clients(&mut self) {
        if std::mem::replace(&mut self.serving, true) || self.stopping {
            return;
        }
        self.listen(true);
        (self.notify)(ServeNotice::Ready { uris: self.uris.clone() });
        // Without systemd nobody listens.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

/// `part` of `whole` in percent, two digits, rounded down: 100 means all.
fn percent(part: u64, whole: u64) -> f64 {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(10_000)) / 100.0
}

/// Why a leg is not UpToDate, and what to type.
fn advice(
    volume: &crate::base::Name,
    name: &crate::base::Name,
    slot: &Slot,
    leg: &core::LegStatus,
) -> (Option<String>, Option<String>) {
    let attach = || Some(format!("mirrord leg attach {volume} {name}"));
    let because = |what: &str| match &slot.reason {
        Some(reason) => Some(format!("{what}: {reason}")),
        None => Some(what.to_owned()),
    };
    match leg.state {
        LegState::UpToDate if leg.connected => (None, None),
        LegState::Detached => (Some("detached by an administrator".to_owned()), attach()),
        LegState::Failed => (because("it failed"), attach()),
        _ if !leg.connected => (because("not connected"), Some(format!("mirrord resync {volume} {name}"))),
        _ if leg.held_bytes > 0 => (
            Some("late writes may still come".to_owned()),
            Some(format!("mirrord wait {volume} --until synced")),
        ),
        _ if leg.resync.is_some() => (None, Some(format!("mirrord wait {volume} --until synced"))),
        _ => (because("waiting for its resync"), Some(format!("mirrord resync {volume} {name}"))),
    }
}

const fn disk_state(state: LegState) -> DiskState {
    match state {
        LegState::UpToDate => DiskState::UpToDate,
        LegState::SyncTarget => DiskState::SyncTarget,
        LegState::Inconsistent => DiskState::Inconsistent,
        LegState::Outdated => DiskState::Outdated,
        LegState::Failed => DiskState::Failed,
        LegState::Detached => DiskState::Detached,
    }
}
