//! `mirrord wait`: polls the status until the volume is as it is wanted.

use super::ask::REPLY;
use super::progress::{Meter, Progress, ProgressTo};
use crate::base::{Class, Error, Result};
use crate::control::{LegStatus, Status, VolumeDir, client};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The status is asked for so often.
const POLL: Duration = Duration::from_millis(200);

/// A daemon that is starting or restarting is waited for so long.
const ABSENT: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// Every leg is connected, `UpToDate` and misses nothing
    Synced,
    /// Every leg is connected
    Connected,
}

impl Until {
    fn reached(self, status: &Status) -> bool {
        match self {
            // A replacement is over when the old leg has gone: the next command may name it again.
            Self::Synced => status.is_synced() && !status.is_changing(),
            Self::Connected => status.is_connected(),
        }
    }

    fn leg_is_there(self, leg: &LegStatus) -> bool {
        match self {
            Self::Synced => leg.is_synced() && !leg.leaving && leg.replaces.is_none(),
            Self::Connected => leg.connection_state == "Connected",
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Connected => "connected",
        }
    }
}

/// Waits until the volume is as wanted. Errors: [`Class::Timeout`] after `timeout`; [`Class::Partial`] when a
/// leg is out until a person acts; [`Class::Connect`] when nobody serves the volume.
pub fn wait(volume: &VolumeDir, until: Until, timeout: Option<Duration>, progress: ProgressTo) -> Result<()> {
    let mut meter = Meter::new("mirrord", progress)?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked))
        .map_err(|e| Error::os(Class::Internal, "SIGUSR1", "taking the signal", e))?;
    let start = Instant::now();
    let mut seen = start;
    loop {
        let left = timeout.map(|limit| limit.saturating_sub(start.elapsed()));
        let last = match client::status(volume, left.unwrap_or(REPLY).clamp(POLL, REPLY)) {
            Ok(status) if until.reached(&status) => return Ok(()),
            Ok(status) => {
                seen = Instant::now();
                stuck(volume, until, &status)?;
                meter.update(&describe(&status, until), asked.swap(false, Ordering::Relaxed));
                Ok(status)
            }
            Err(error) if error.class == Class::Connect && seen.elapsed() < ABSENT => Err(error),
            Err(error) if matches!(error.class, Class::Timeout | Class::Busy) => Err(error),
            Err(error) => return Err(error),
        };
        if timeout.is_some_and(|limit| start.elapsed() >= limit) {
            return Err(late(volume, until, timeout.unwrap_or_default(), &last));
        }
        std::thread::sleep(POLL.min(left.unwrap_or(POLL)));
    }
}

/// A leg that does not come back by itself is not waited for.
fn stuck(volume: &VolumeDir, until: Until, status: &Status) -> Result<()> {
    let replaced = |name: &str| status.legs.iter().any(|leg| leg.replaces.as_deref() == Some(name));
    let out = |leg: &&LegStatus| {
        let down = matches!(leg.disk_state.as_str(), "Failed" | "Detached");
        (down || leg.connection_state == "StandAlone") && !leg.leaving && !replaced(&leg.name)
    };
    let Some(leg) = status.legs.iter().find(out) else { return Ok(()) };
    let why = leg.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    let name = volume.name();
    let next = leg.next.clone().unwrap_or_else(|| format!("mirrord leg attach {name} {}", leg.name));
    Err(Error::new(
        Class::Partial,
        format!(
            "{name}: waiting until {}: leg {} is {} and {}, it does not come back by itself{why}",
            until.as_str(),
            leg.name,
            leg.connection_state,
            leg.disk_state,
        ),
    )
    .hint(next))
}

fn late(volume: &VolumeDir, until: Until, limit: Duration, last: &Result<Status>) -> Error {
    let name = volume.name();
    let (state, next) = match last {
        Ok(status) => (describe(status, until).line(), status.next.as_ref()),
        Err(error) => (error.message.clone(), error.hint.as_ref()),
    };
    let text =
        format!("{name}: waiting until {}: not after {} s: {state}", until.as_str(), limit.as_secs_f64());
    Error::new(Class::Timeout, text)
        .hint(next.map_or_else(|| format!("mirrord status {name}"), ToOwned::to_owned))
}

/// The legs that are not there yet, in one line, and how far their resyncs have come together.
fn describe(status: &Status, until: Until) -> Progress {
    let mut now = Progress::default();
    let mut texts = Vec::new();
    for leg in status.legs.iter().filter(|leg| !until.leg_is_there(leg)) {
        let why = leg.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        texts.push(format!("{}/{} {} {}{why}", status.name, leg.name, leg.connection_state, leg.disk_state));
        if let Some(resync) = &leg.resync {
            now.done += resync.done;
            now.total += resync.total;
            now.rate += resync.rate;
            now.estimated_seconds_to_finish =
                now.estimated_seconds_to_finish.max(resync.estimated_seconds_to_finish);
        }
    }
    now.text = texts.join(", ");
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Reply, StateDir};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    /// A daemon that answers with one status after the other, then for ever with the last.
    fn daemon(statuses: Vec<Status>) -> (tempfile::TempDir, VolumeDir) {
        let dir = tempfile::tempdir().expect("directory");
        let volume = StateDir::new(dir.path()).volume(&"vol0".parse().expect("name"));
        std::fs::create_dir(volume.path()).expect("mkdir");
        let listener = UnixListener::bind(volume.control_socket().expect("path")).expect("bind");
        std::thread::spawn(move || {
            for at in 0.. {
                let (mut stream, _) = listener.accept().expect("accept");
                BufReader::new(stream.try_clone().expect("clone"))
                    .read_line(&mut String::new())
                    .expect("line");
                let reply = Reply::value(&statuses[usize::min(at, statuses.len() - 1)]);
                writeln!(stream, "{}", serde_json::to_string(&reply).expect("json")).expect("answer");
            }
        });
        (dir, volume)
    }

    fn with(connection: &str, disk: &str) -> Status {
        let leg = LegStatus {
            name: "far".into(),
            connection_state: connection.into(),
            disk_state: disk.into(),
            ..LegStatus::default()
        };
        Status { running: true, name: "vol0".into(), legs: vec![leg], ..Status::default() }
    }

    #[test]
    fn waiting_ends_when_it_is_so() {
        let (_dir, volume) = daemon(vec![with("Connected", "SyncTarget"), with("Connected", "UpToDate")]);
        wait(&volume, Until::Synced, None, ProgressTo::Nobody).expect("synced");
        wait(&volume, Until::Connected, None, ProgressTo::Nobody).expect("connected");
    }

    /// It was told to attach the leg that a replacement was just removing, and ended with 8.
    #[test]
    fn a_leg_that_is_going_is_waited_for_until_it_has_gone() {
        let out = with("StandAlone", "Detached");
        let leaving = LegStatus { leaving: true, ..out.legs[0].clone() };
        let old = LegStatus { name: "old".into(), ..out.legs[0].clone() };
        let new = LegStatus { replaces: Some("old".into()), ..with("Connected", "UpToDate").legs[0].clone() };
        let gone = with("Connected", "UpToDate");
        for legs in [vec![leaving.clone(), gone.legs[0].clone()], vec![old, new.clone()]] {
            let changing = Status { legs, ..gone.clone() };
            let (_dir, volume) = daemon(vec![changing.clone(), gone.clone()]);
            wait(&volume, Until::Synced, None, ProgressTo::Nobody).expect("synced");
            let (_dir, volume) = daemon(vec![changing]);
            let limit = Some(Duration::from_millis(300));
            let error = wait(&volume, Until::Synced, limit, ProgressTo::Nobody).expect_err("not yet");
            assert_eq!(error.class, Class::Timeout, "{error}");
        }
        let (_dir, volume) = daemon(vec![Status { legs: vec![new], ..gone }]);
        let limit = Some(Duration::from_millis(300));
        let error = wait(&volume, Until::Synced, limit, ProgressTo::Nobody).expect_err("it still replaces");
        assert_eq!(error.class, Class::Timeout, "{error}");
    }

    #[test]
    fn waiting_ends_with_the_reason_when_it_cannot_be_so() {
        let limit = Some(Duration::from_millis(300));
        let (_dir, volume) = daemon(vec![with("Connected", "SyncTarget")]);
        let error = wait(&volume, Until::Synced, limit, ProgressTo::Nobody).expect_err("late");
        assert_eq!(error.class, Class::Timeout);
        assert!(error.message.contains("not after 0.3 s: vol0/far Connected SyncTarget"), "{error}");

        let (_dir, volume) = daemon(vec![with("Connected", "Detached")]);
        let error = wait(&volume, Until::Synced, None, ProgressTo::Nobody).expect_err("stuck");
        assert_eq!(
            (error.class, error.hint.as_deref()),
            (Class::Partial, Some("mirrord leg attach vol0 far"))
        );
    }
}
