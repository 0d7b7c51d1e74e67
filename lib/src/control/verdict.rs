//! What a monitoring system should think of a volume (`mirrord check`). Pure: from a status and the thresholds of an
//! administrator to one of three words, a line for a person, and performance data.

use super::Status;
use crate::base::units::show_size;
use std::fmt::{self, Write as _};

/// What was found out. The number is the exit status of a monitoring plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every leg is there and misses nothing, and no threshold is passed.
    Ok = 0,
    /// Clients are served; a leg is out or behind.
    Warning = 1,
    /// Clients are not served, or a threshold is passed.
    Critical = 2,
    /// It could not be found out.
    Unknown = 3,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// What an administrator tolerates. Without a threshold the figure only warns, by the leg being out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// A copy may lack so many acknowledged bytes.
    pub behind_bytes: Option<u64>,
    /// For so many seconds.
    pub behind_seconds: Option<f64>,
    /// A copy that has to be brought back may stand still for so many seconds.
    pub stall_seconds: Option<f64>,
}

/// The decision and how to tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The worst that was found.
    pub verdict: Verdict,
    /// Everything that was found, the worst first; one line.
    pub text: String,
    /// `label=value;warn;crit;min;max …` as plugins write it.
    pub performance: String,
}

/// Judges a status.
///
/// | found | verdict |
/// |---|---|
/// | nobody serves the volume | Unknown |
/// | requests wait (also while it starts), writes are refused, no leg is `UpToDate`, a flush error is owed | Critical |
/// | a copy lacks more, or for longer, than tolerated; it stands still for longer | Critical |
/// | stopping; a leg is not connected, not `UpToDate`, or misses something | Warning |
/// | none of these | Ok |
pub fn judge(status: &Status, limits: &Thresholds) -> Judgement {
    let mut found = Vec::new();
    if status.running {
        volume(&mut found, status);
        behind(&mut found, status, limits);
        legs(&mut found, status, limits);
    } else {
        let why = status.reason.clone().unwrap_or_else(|| "nobody serves it".to_owned());
        found.push((Verdict::Unknown, why));
    }
    found.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = found.first().map_or(Verdict::Ok, |(verdict, _)| *verdict);
    let text = if found.is_empty() {
        let all = status.legs.len();
        format!("{all} leg{} UpToDate", if all == 1 { "" } else { "s" })
    } else {
        found.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")
    };
    Judgement { verdict, text, performance: performance(status, limits) }
}

fn up_to_date(status: &Status) -> usize {
    status.legs.iter().filter(|leg| leg.disk_state == "UpToDate").count()
}

/// Bytes and seconds that the worst copy is behind.
fn worst(status: &Status) -> (u64, f64) {
    let bytes = status.legs.iter().map(|leg| leg.dirty).fold(status.behind_bytes, u64::max);
    let seconds = status.legs.iter().map(|leg| leg.behind_seconds).fold(status.behind_seconds, f64::max);
    (bytes, seconds)
}

fn volume(found: &mut Vec<(Verdict, String)>, status: &Status) {
    let good = up_to_date(status);
    let reason = |otherwise: &str| status.reason.clone().unwrap_or_else(|| otherwise.to_owned());
    if good == 0 {
        found.push((Verdict::Critical, reason("no leg is UpToDate")));
    } else if status.suspended {
        found.push((Verdict::Critical, reason("requests wait")));
    } else if good < status.min_legs as usize {
        let text = format!("writes are refused: {good} legs are UpToDate, min-legs is {}", status.min_legs);
        found.push((Verdict::Critical, text));
    } else if let Some(reason) = &status.reason {
        found.push((Verdict::Warning, reason.clone()));
    }
    if status.flush_error_owed {
        let text = "a flush failed: flushes fail until the blocks are written again";
        found.push((Verdict::Critical, text.to_owned()));
    }
}

fn behind(found: &mut Vec<(Verdict, String)>, status: &Status, limits: &Thresholds) {
    let (bytes, seconds) = worst(status);
    if let Some(most) = limits.behind_bytes.filter(|most| bytes > *most) {
        let text = format!("behind by {}, more than {}", show_size(bytes), show_size(most));
        found.push((Verdict::Critical, text));
    }
    if let Some(most) = limits.behind_seconds.filter(|most| seconds > *most) {
        found.push((Verdict::Critical, format!("behind by {seconds:.0} s, more than {most:.0} s")));
    }
}

fn legs(found: &mut Vec<(Verdict, String)>, status: &Status, limits: &Thresholds) {
    for leg in status.legs.iter().filter(|leg| !leg.is_synced()) {
        let mut text = format!("leg {} is {}, {}", leg.name, leg.disk_state, leg.connection_state);
        if leg.dirty > 0 {
            // Infallible: a String takes every write.
            let _ = write!(text, ", misses {}", show_size(leg.dirty));
        }
        if let Some(resync) = &leg.resync {
            let _ = write!(text, ", {:.1} % in sync", resync.percent_in_sync);
        }
        if let Some(reason) = &leg.reason {
            let _ = write!(text, " ({reason})");
        }
        let still = limits.stall_seconds.is_some_and(|most| leg.stalled_seconds > most);
        if still {
            let _ = write!(text, ": nothing moved for {:.0} s", leg.stalled_seconds);
        }
        found.push((if still { Verdict::Critical } else { Verdict::Warning }, text));
    }
}

/// Thresholds stand where plugins put the critical ones; figures that have none leave the place empty.
fn performance(status: &Status, limits: &Thresholds) -> String {
    let shown = |limit: Option<String>| limit.unwrap_or_default();
    let (bytes, seconds) = worst(status);
    let still = status.legs.iter().map(|leg| leg.stalled_seconds).fold(0.0, f64::max);
    let mut out = format!(
        "behind={bytes}B;;{};0 behind_seconds={seconds:.1}s;;{};0 stalled_seconds={still:.1}s;;{};0 \
         uptodate={};;;0;{} in_flight={};;;0 clients={};;;0",
        shown(limits.behind_bytes.map(|b| b.to_string())),
        shown(limits.behind_seconds.map(|s| format!("{s:.1}"))),
        shown(limits.stall_seconds.map(|s| format!("{s:.1}"))),
        up_to_date(status),
        status.legs.len(),
        status.in_flight,
        status.clients,
    );
    for leg in &status.legs {
        let _ = write!(out, " 'dirty {}'={}B;;;0;{}", leg.name, leg.dirty, status.size);
    }
    out
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
