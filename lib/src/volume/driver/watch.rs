//! Since when a leg is out of sync, and since when nothing of it has moved: figures for `mirrord check`.

use super::Driver;
use crate::volume::core::{LegState, LegStatus};

/// What is remembered of one leg.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// What it missed and what was copied to it when that last became better.
    best: (u64, u64),
    moved_ms: u64,
    /// When it was added; 0 where it was there at the start.
    since_ms: u64,
    /// It has nothing to catch up with.
    level: bool,
}

impl Watch {
    /// Of a leg that is added now: what it has to catch up with has not stood still before.
    pub(super) fn since(now_ms: u64) -> Self {
        Self { moved_ms: now_ms, since_ms: now_ms, ..Self::default() }
    }

    /// To be called now and then.
    pub(super) fn look(&mut self, now_ms: u64, leg: &LegStatus) {
        self.level = leg.state == LegState::UpToDate && leg.connected && leg.missing_bytes == 0;
        let (missing, copied) = self.best;
        if self.level || leg.missing_bytes < missing || leg.resync_bytes > copied {
            self.best = (leg.missing_bytes, leg.resync_bytes);
            self.moved_ms = now_ms;
        } else if leg.missing_bytes > missing {
            // Clients go on writing: that it misses more now must not hide that copies bring it less.
            self.best.0 = leg.missing_bytes;
        }
    }

    /// For so long nothing came nearer to in sync; zero while there is nothing to do.
    pub(super) fn still_seconds(&self, now_ms: u64) -> f64 {
        if self.level { 0.0 } else { seconds(now_ms.saturating_sub(self.moved_ms)) }
    }

    /// For so long it has been out of sync; since the start of the daemon, or since it was added, at most.
    pub(super) fn behind_seconds(&self, now_ms: u64, leg: &LegStatus) -> f64 {
        if leg.state == LegState::UpToDate && leg.missing_bytes == 0 {
            return 0.0;
        }
        seconds(now_ms.saturating_sub(leg.last_in_sync_ms.unwrap_or(self.since_ms)))
    }
}

/// Milliseconds as seconds with three digits.
fn seconds(ms: u64) -> f64 {
    // Exact up to 2^53 milliseconds, 285 thousand years.
    #[allow(clippy::cast_precision_loss)]
    let ms = ms as f64;
    ms / 1000.0
}

impl Driver<'_> {
    /// Looks at all legs.
    pub(super) fn watch_legs(&mut self, now_ms: u64) {
        for (slot, leg) in self.legs.iter_mut().zip(&self.core.status().legs) {
            slot.watch.look(now_ms, leg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(state: LegState, missing_bytes: u64, resync_bytes: u64) -> LegStatus {
        LegStatus {
            state,
            connected: true,
            connecting: false,
            retiring: false,
            in_flight: 0,
            missing_bytes,
            unflushed_bytes: 0,
            held_bytes: 0,
            rewrite_bytes: 0,
            resync: None,
            paused: false,
            halt: None,
            last_in_sync_ms: None,
            strays: 0,
            read_bytes: 0,
            written_bytes: 0,
            resync_bytes,
        }
    }

    #[test]
    fn a_leg_stands_still_while_it_misses_something_and_nothing_is_copied() {
        let mut watch = Watch::default();
        let steps = [
            (1000, leg(LegState::UpToDate, 0, 0), 0.0),
            (2000, leg(LegState::SyncTarget, 100, 0), 1.0),
            (3000, leg(LegState::SyncTarget, 100, 10), 0.0),
            (4000, leg(LegState::SyncTarget, 90, 10), 0.0),
            (5500, leg(LegState::SyncTarget, 90, 10), 1.5),
            (6000, leg(LegState::SyncTarget, 200, 10), 2.0),
            (7000, leg(LegState::SyncTarget, 150, 10), 0.0),
            (9000, leg(LegState::Outdated, 150, 10), 2.0),
            (9500, leg(LegState::UpToDate, 0, 160), 0.0),
        ];
        for (now_ms, leg, is) in steps {
            watch.look(now_ms, &leg);
            assert!((watch.still_seconds(now_ms) - is).abs() < 1e-9, "{now_ms}: {watch:?}");
        }
    }

    #[test]
    fn a_leg_is_behind_since_it_left_or_since_the_start() {
        let mut out = leg(LegState::Outdated, 0, 0);
        let watch = Watch::default();
        assert!((watch.behind_seconds(5000, &out) - 5.0).abs() < 1e-9);
        out.last_in_sync_ms = Some(2000);
        assert!((watch.behind_seconds(5000, &out) - 3.0).abs() < 1e-9);
        assert!(watch.behind_seconds(5000, &leg(LegState::UpToDate, 0, 0)).abs() < 1e-9);
    }

    /// A leg that was added to a daemon of a week was a week behind and had stalled for as long: an alarm at once.
    #[test]
    fn a_leg_that_is_added_later_is_not_behind_since_the_start() {
        let mut watch = Watch::since(7_000_000);
        let new = leg(LegState::SyncTarget, 100, 0);
        assert!((watch.behind_seconds(7_001_000, &new) - 1.0).abs() < 1e-9);
        watch.look(7_001_000, &new);
        assert!((watch.still_seconds(7_001_000) - 1.0).abs() < 1e-9, "{watch:?}");
    }
}
