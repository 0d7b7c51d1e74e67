//! The state of a volume as one JSON document. Where DRBD's `drbdsetup status --json` has a key for the same
//! thing, its name is used. Bytes everywhere. A key never changes its meaning; new ones may appear.

use crate::base::Name;

/// The `schema` of a status.
pub const SCHEMA: &str = "mirrord-status/1";

/// The state of one volume.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// The volume.
    pub name: String,
    /// Its identity, 32 hexadecimal digits.
    pub id: String,
    /// Whether a daemon serves it; if not, only its name, its legs and their devices are filled in.
    pub running: bool,
    /// `primary`, `standby`, `unknown`.
    pub role: String,
    /// In bytes.
    pub size: u64,
    /// A bit of a map stands for so many bytes.
    pub block: u64,
    /// Requests are held back, because of `reason`.
    pub suspended: bool,
    /// Where clients connect to.
    pub uris: Vec<String>,
    /// Connected clients.
    pub clients: u64,
    /// Connections since the start that the allow-list refused.
    pub refused: u64,
    /// Requests of clients in flight.
    pub in_flight: u64,
    /// Bytes of clients in flight.
    pub pending: u64,
    /// Bytes that clients read since the start.
    pub read: u64,
    /// Bytes that clients wrote since the start.
    pub written: u64,
    /// Fewer `UpToDate` legs than this, and writes are refused.
    pub min_legs: u32,
    /// `process` or `power`.
    pub map_durability: String,
    /// `local`, `least-pending`, `round-robin`.
    pub read_policy: String,
    /// Acknowledged bytes that asynchronous legs lack.
    #[serde(rename = "behind_bytes")]
    pub behind_bytes: u64,
    /// Age in seconds of the oldest of them.
    #[serde(rename = "behind_seconds")]
    pub behind_seconds: f64,
    /// When all legs were last `UpToDate`, RFC 3339.
    #[serde(rename = "last_in_sync")]
    pub last_in_sync: Option<String>,
    /// A flush of the last leg failed, and the blocks have not been written again yet.
    #[serde(rename = "flush_error_owed")]
    pub flush_error_owed: bool,
    /// By so many bytes maps were wider after the last start than before the crash.
    pub widened: u64,
    /// Why the volume does not do what it should; absent if it does.
    pub reason: Option<String>,
    /// The next command to type; absent when healthy.
    pub next: Option<String>,
    /// The verify that runs; absent if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<super::verify::VerifyStatus>,
    /// Its legs, in the order of the configuration.
    pub legs: Vec<LegStatus>,
    /// Its trackers, by name.
    pub trackers: Vec<TrackerStatus>,
}

/// A tracker: what changed since a moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TrackerStatus {
    /// Its name.
    pub name: String,
    /// Bytes that changed, those taken included.
    pub dirty: u64,
    /// Bytes of them that somebody has taken and not confirmed; `null` if nobody has.
    pub taken: Option<u64>,
}

/// The state of one leg.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LegStatus {
    /// Its name.
    pub name: String,
    /// What stands behind it: the first of its addresses.
    pub device: String,
    /// All its addresses in the order in which they are tried; empty for a leg with one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressStatus>,
    /// Its identity.
    pub id: String,
    /// `sync`.
    pub mode: String,
    /// `prefer`, `allow`, `avoid`.
    pub read_preference: String,
    /// `Connected`, `Connecting`, `StandAlone`.
    pub connection_state: String,
    /// `UpToDate`, `SyncTarget`, `Inconsistent`, …
    pub disk_state: String,
    /// Requests in flight to it.
    pub in_flight: u64,
    /// Bytes in flight to it.
    pub pending: u64,
    /// Bytes waiting to be sent to it.
    pub queued: u64,
    /// Bytes *missing* on it; the same as `dirty`.
    pub out_of_sync: u64,
    /// Bytes *missing* on it.
    pub dirty: u64,
    /// Bytes sent to it, not known to be on its stable storage.
    pub unflushed: u64,
    /// Bytes *missing* that are not copied before the hold time of a lost connection has ended.
    pub held: u64,
    /// It is being removed, and goes by itself.
    pub leaving: bool,
    /// The leg that is removed as soon as this one is `UpToDate`; absent where it replaces none.
    pub replaces: Option<String>,
    /// An administrator paused its resync.
    pub paused: bool,
    /// Why its resync does not move, one word: `paused`, `held`, `waiting-for-hold`, `rate`, `no-source`,
    /// `target-stalled`, `source-stalled`, `retry`, `record`, `rewrite`; absent while it moves.
    pub halt: Option<String>,
    /// Most bytes a second of its resync; absent for `auto`.
    pub rate_limit: Option<u64>,
    /// Bytes to be read and written in place again before a flush of it is believed.
    pub rewrite: u64,
    /// Bytes received from it over the network since the start.
    pub received: u64,
    /// Bytes sent to it over the network since the start.
    pub sent: u64,
    /// Bytes read from it since the start.
    pub read: u64,
    /// Bytes written to it since the start.
    pub written: u64,
    /// The resync that runs or waits, if one does.
    pub resync: Option<ResyncStatus>,
    /// When it was last `UpToDate`, RFC 3339.
    #[serde(rename = "last_in_sync")]
    pub last_in_sync: Option<String>,
    /// For so many seconds it has not been `UpToDate` (since the start of the daemon, or since it was added, at most); 0
    /// while it is.
    #[serde(rename = "behind_seconds")]
    pub behind_seconds: f64,
    /// For so many seconds nothing came nearer to in sync; 0 while there is nothing to do.
    #[serde(rename = "stalled_seconds")]
    pub stalled_seconds: f64,
    /// The generation of its contents.
    pub generation: String,
    /// A dumb leg: nothing at its side refuses a second writer or a late write.
    #[serde(rename = "cannot_defend")]
    pub cannot_defend: bool,
    /// It is used without FLUSH and never counts for durability.
    #[serde(rename = "flush_unsafe")]
    pub flush_unsafe: bool,
    /// Bytes that resyncs wrote to it since the start.
    pub resynced: u64,
    /// Replies nobody asked for.
    pub stray_replies: u64,
    /// Why it is not `UpToDate`, or why nothing moves; absent if all is well.
    pub reason: Option<String>,
    /// The next command to type; absent when nothing has to be done.
    pub next: Option<String>,
}

/// One of several addresses of a leg.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AddressStatus {
    /// The URI.
    pub device: String,
    /// The leg is connected there.
    pub in_use: bool,
    /// Why it was of no use when it was last tried; absent if it was not tried, or was of use.
    pub error: Option<String>,
}

/// A resync. Counts what is durable, not what was sent.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ResyncStatus {
    /// Bytes that this resync has copied and flushed.
    pub done: u64,
    /// Bytes that it has to copy, as known now.
    pub total: u64,
    /// How much of the leg is equal, of 100.
    pub percent_in_sync: f64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// At that rate; absent when nothing moves.
    pub estimated_seconds_to_finish: Option<u64>,
}

impl Status {
    /// An empty status of `name` with its schema.
    pub fn new(name: &Name) -> Self {
        Self { schema: SCHEMA.to_owned(), name: name.to_string(), ..Self::default() }
    }

    /// Whether every leg is there, and nothing is owed.
    pub fn is_healthy(&self) -> bool {
        self.running && !self.suspended && !self.flush_error_owed && self.is_synced()
    }

    /// Whether every leg is `UpToDate` and misses nothing.
    pub fn is_synced(&self) -> bool {
        self.running && !self.legs.is_empty() && self.legs.iter().all(LegStatus::is_synced)
    }

    /// Whether a leg is being removed, or is going to be because another one takes its place.
    pub fn is_changing(&self) -> bool {
        self.legs.iter().any(|leg| leg.leaving || leg.replaces.is_some())
    }

    /// Whether every leg is connected (`wait --until connected`).
    pub fn is_connected(&self) -> bool {
        self.running
            && !self.legs.is_empty()
            && self.legs.iter().all(|leg| leg.connection_state == "Connected")
    }

    /// What is missing on all legs together, in bytes.
    pub fn dirty(&self) -> u64 {
        self.legs.iter().fold(0, |sum, leg| sum.saturating_add(leg.dirty))
    }
}

impl LegStatus {
    /// Whether it is connected, `UpToDate` and misses nothing.
    pub fn is_synced(&self) -> bool {
        self.connection_state == "Connected" && self.disk_state == "UpToDate" && self.dirty == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_status_are_pinned() {
        let mut status = Status::new(&"vol0".parse().expect("name"));
        status.legs.push(LegStatus { resync: Some(ResyncStatus::default()), ..LegStatus::default() });
        let text = serde_json::to_string(&status).expect("json");
        assert!(text.starts_with(r#"{"schema":"mirrord-status/1","name":"vol0""#), "{text}");
        let value = serde_json::to_value(&status).expect("value");
        for key in
            ["in-flight", "behind_bytes", "behind_seconds", "last_in_sync", "flush_error_owed", "widened"]
        {
            assert!(value.get(key).is_some(), "{key}");
        }
        let leg = &value["legs"][0];
        for key in [
            "connection-state",
            "disk-state",
            "out-of-sync",
            "dirty",
            "in-flight",
            "pending",
            "received",
            "sent",
            "cannot_defend",
            "flush_unsafe",
        ] {
            assert!(leg.get(key).is_some(), "{key}");
        }
        for key in ["done", "total", "percent-in-sync", "rate", "estimated-seconds-to-finish"] {
            assert!(leg["resync"].get(key).is_some(), "{key}");
        }
        assert_eq!(serde_json::from_str::<Status>(&text).expect("read"), status);
        assert_eq!(serde_json::from_str::<Status>("{\"new-key\":1}").expect("newer"), Status::default());
    }

    #[test]
    fn synced_needs_every_leg_connected_up_to_date_and_clean() {
        let leg = |connection: &str, disk: &str, dirty| LegStatus {
            connection_state: connection.into(),
            disk_state: disk.into(),
            dirty,
            ..LegStatus::default()
        };
        for (legs, synced) in [
            (vec![], false),
            (vec![leg("Connected", "UpToDate", 0)], true),
            (vec![leg("Connected", "UpToDate", 0), leg("Connected", "SyncTarget", 0)], false),
            (vec![leg("Connected", "UpToDate", 1)], false),
            (vec![leg("Connecting", "UpToDate", 0)], false),
        ] {
            let status = Status { running: true, legs, ..Status::default() };
            assert_eq!(status.is_synced(), synced, "{status:?}");
        }
    }
}
