//! What happened: one line of JSON each (`mirrord events`).

use crate::base::Name;
use std::fmt;

/// The `schema` of an event.
pub const SCHEMA: &str = "mirrord-event/1";

/// What kind of thing happened; the word of the key `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The daemon serves the volume.
    Start,
    /// The daemon stopped cleanly.
    Stop,
    /// A leg was reached.
    Connect,
    /// A leg was lost.
    Disconnect,
    /// One of several addresses of a leg is of no use.
    Address,
    /// A resync began.
    Syncstart,
    /// A resync finished: the leg is `UpToDate`.
    Syncdone,
    /// A resync ended before it was finished.
    Syncintr,
    /// A leg left the set.
    Leave,
    /// A leg failed, or was declared so; it stays out until it is attached.
    Failed,
    /// A state could not be made durable.
    PersistFailed,
    /// Requests wait: the last good leg cannot be reached.
    Suspended,
    /// Requests go on.
    Resumed,
    /// A state changed, or, with `now`, is.
    State,
    /// After a crash a map counts more as missing than really is.
    Widened,
    /// A source was elected at the start.
    Elected,
    /// A flush of a leg failed.
    FlushFailed,
    /// The volume has another size.
    Resized,
    /// Nothing of a resync is answered any more.
    Stalled,
    /// A resync that had stalled moves again.
    Moving,
    /// A block was read from another leg and written back.
    Repaired,
    /// A leg's server sent replies nobody asked for.
    Stray,
    /// Writes are held for a snapshot, or go on.
    Barrier,
    /// A verify has ended: what it found.
    Verified,
    /// The configuration was read again.
    Reload,
    /// The configuration names a leg that the volume does not have.
    Stranger,
    /// Events were dropped because their reader was too slow.
    Lost,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde::Serialize::serialize(self, f)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: String,
    /// Counts from 1 since the daemon started; a gap means that events were dropped.
    pub seq: u64,
    /// When, in RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// What kind.
    pub event: EventKind,
    /// The volume.
    pub volume: String,
    /// The leg it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<String>,
    /// For a person.
    pub text: String,
}

impl Event {
    /// An event of this moment.
    pub fn new(
        seq: u64,
        event: EventKind,
        volume: &Name,
        leg: Option<&Name>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            seq,
            time: now(),
            event,
            volume: volume.to_string(),
            leg: leg.map(ToString::to_string),
            text: text.into(),
        }
    }
}

/// This moment in RFC 3339, UTC, with milliseconds.
pub fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.volume)?;
        if let Some(leg) = &self.leg {
            write!(f, "/{leg}")?;
        }
        write!(f, " {}: {}", self.event, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_schema_first() {
        let volume: Name = "vol0".parse().expect("name");
        let leg: Name = "far".parse().expect("name");
        let event = Event::new(7, EventKind::FlushFailed, &volume, Some(&leg), "I/O error");
        let line = serde_json::to_string(&event).expect("json");
        assert!(line.starts_with(r#"{"schema":"mirrord-event/1","seq":7,"time":""#), "{line}");
        assert!(line.contains(r#""event":"flush-failed","volume":"vol0","leg":"far""#), "{line}");
        assert!(event.to_string().ends_with(" vol0/far flush-failed: I/O error"), "{event}");
        assert_eq!(event.time.len(), "2026-01-01T00:00:00.000Z".len());
        let unknown = line.replace("flush-failed", "of-tomorrow");
        assert_eq!(serde_json::from_str::<Event>(&unknown).expect("read").event, EventKind::Other);
    }
}
