//! The status of a volume as the text that Prometheus reads (its text-based exposition format 0.0.4). Pure.
//!
//! A name never changes its meaning; new ones may appear. Labels are names of volumes and legs and words of ours,
//! none of which needs an escape.

use super::{LegStatus, Status};
use std::fmt::{Display, Write as _};

/// The words of a leg's state, each a series of its own.
const DISK_STATES: [&str; 7] =
    ["UpToDate", "Behind", "SyncTarget", "Inconsistent", "Outdated", "Failed", "Detached"];

/// The text of one volume; [`absent`] for one that nobody serves.
pub fn render(status: &Status) -> String {
    let mut out = Page { text: String::new(), volume: &status.name };
    let yes = |b: bool| u8::from(b);
    out.one("mirror_running", GAUGE, "1 while a daemon serves the volume", yes(status.running));
    out.one("mirror_suspended", GAUGE, "1 while requests are held back", yes(status.suspended));
    out.one("mirror_size_bytes", GAUGE, "Size of the volume", status.size);
    out.one("mirror_min_legs", GAUGE, "With fewer UpToDate legs writes are refused", status.min_legs);
    let good = status.legs.iter().filter(|leg| leg.disk_state == "UpToDate").count();
    out.one("mirror_uptodate_legs", GAUGE, "Legs that hold everything", good);
    out.one("mirror_legs", GAUGE, "Legs of the volume", status.legs.len());
    out.one("mirror_clients", GAUGE, "Connected clients", status.clients);
    out.one(
        "mirror_refused_clients_total",
        COUNTER,
        "Connections that the allow-list refused",
        status.refused,
    );
    out.one("mirror_in_flight_requests", GAUGE, "Requests of clients in flight", status.in_flight);
    out.one("mirror_in_flight_bytes", GAUGE, "Bytes of clients in flight", status.pending);
    out.one("mirror_read_bytes_total", COUNTER, "Bytes that clients read", status.read);
    out.one("mirror_written_bytes_total", COUNTER, "Bytes that clients wrote", status.written);
    out.one(
        "mirror_behind_bytes",
        GAUGE,
        "Acknowledged bytes that asynchronous legs lack",
        status.behind_bytes,
    );
    out.one("mirror_behind_seconds", GAUGE, "Age of the oldest of them", status.behind_seconds);
    let owed = yes(status.flush_error_owed);
    out.one("mirror_flush_error_owed", GAUGE, "1 after a failed flush of the last leg, until repaired", owed);
    out.one("mirror_widened_bytes", GAUGE, "By so much maps were wider after the last start", status.widened);
    legs(&mut out, &status.legs);
    out.text
}

/// The text of a volume that is not served (any more).
pub fn absent(volume: &str) -> String {
    let mut out = Page { text: String::new(), volume };
    out.one("mirror_running", GAUGE, "1 while a daemon serves the volume", 0);
    out.text
}

fn legs(out: &mut Page<'_>, legs: &[LegStatus]) {
    out.head("mirror_leg_disk_state", GAUGE, "1 for the state that the leg has");
    for leg in legs {
        for state in DISK_STATES {
            let (volume, is) = (out.volume, u8::from(leg.disk_state == state));
            // Infallible: a String takes every write.
            let _ = writeln!(
                out.text,
                "mirror_leg_disk_state{{volume=\"{volume}\",leg=\"{}\",state=\"{state}\"}} {is}",
                leg.name
            );
        }
    }
    let connected = |leg: &LegStatus| u8::from(leg.connection_state == "Connected");
    out.each(legs, "mirror_leg_connected", GAUGE, "1 while the leg is reached", connected);
    out.each(legs, "mirror_leg_outofsync_bytes", GAUGE, "Bytes that it misses", |leg| leg.dirty);
    let help = "Bytes sent to it, not known to be on its stable storage";
    out.each(legs, "mirror_leg_unflushed_bytes", GAUGE, help, |leg| leg.unflushed);
    let help = "Bytes that wait for the hold time of a lost connection";
    out.each(legs, "mirror_leg_held_bytes", GAUGE, help, |leg| leg.held);
    let help = "For so long it has not been UpToDate";
    out.each(legs, "mirror_leg_behind_seconds", GAUGE, help, |leg| leg.behind_seconds);
    let help = "For so long nothing came nearer to in sync";
    out.each(legs, "mirror_leg_stalled_seconds", GAUGE, help, |leg| leg.stalled_seconds);
    let done = |leg: &LegStatus| leg.resync.as_ref().map_or(0, |resync| resync.done);
    out.each(legs, "mirror_leg_resync_done_bytes", GAUGE, "Bytes that the running resync has copied", done);
    let total = |leg: &LegStatus| leg.resync.as_ref().map_or(0, |resync| resync.total);
    out.each(
        legs,
        "mirror_leg_resync_total_bytes",
        GAUGE,
        "Bytes that the running resync has to copy",
        total,
    );
    out.each(legs, "mirror_leg_in_flight_requests", GAUGE, "Requests in flight to it", |leg| leg.in_flight);
    out.each(legs, "mirror_leg_in_flight_bytes", GAUGE, "Bytes in flight to it", |leg| leg.pending);
    out.each(legs, "mirror_leg_queued_bytes", GAUGE, "Bytes waiting to be sent to it", |leg| leg.queued);
    out.each(legs, "mirror_leg_received_bytes_total", COUNTER, "Bytes from it by the network", |leg| {
        leg.received
    });
    out.each(legs, "mirror_leg_sent_bytes_total", COUNTER, "Bytes to it by the network", |leg| leg.sent);
    out.each(legs, "mirror_leg_read_bytes_total", COUNTER, "Bytes read from it", |leg| leg.read);
    out.each(legs, "mirror_leg_written_bytes_total", COUNTER, "Bytes written to it", |leg| leg.written);
    let help = "Bytes that resyncs wrote to it";
    out.each(legs, "mirror_leg_resynced_bytes_total", COUNTER, help, |leg| leg.resynced);
    let help = "Replies of its server that nobody asked for";
    out.each(legs, "mirror_leg_stray_replies_total", COUNTER, help, |leg| leg.stray_replies);
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

struct Page<'a> {
    text: String,
    volume: &'a str,
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.text, "{name}{{volume=\"{}\"}} {value}", self.volume);
    }

    fn each<T: Display>(
        &mut self,
        legs: &[LegStatus],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&LegStatus) -> T,
    ) {
        self.head(name, kind, help);
        for leg in legs {
            let (volume, value) = (self.volume, value(leg));
            let _ = writeln!(self.text, "{name}{{volume=\"{volume}\",leg=\"{}\"}} {value}", leg.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_sample_or_about_one_and_every_sample_was_announced() {
        let leg = |name: &str| LegStatus {
            name: name.into(),
            disk_state: "Outdated".into(),
            ..LegStatus::default()
        };
        let status = Status {
            name: "vol0".into(),
            running: true,
            legs: vec![leg("a"), leg("b")],
            ..Status::default()
        };
        for text in [render(&status), render(&Status::default()), absent("vol0")] {
            let mut announced = std::collections::BTreeSet::new();
            for line in text.lines() {
                if let Some(kind) = line.strip_prefix("# TYPE ") {
                    let (name, kind) = kind.split_once(' ').expect(line);
                    assert_eq!(kind == COUNTER, name.ends_with("_total"), "{line}");
                    assert!(announced.insert(name.to_owned()), "twice: {line}");
                } else if !line.starts_with("# HELP ") {
                    let (name, rest) = line.split_once('{').expect(line);
                    assert!(announced.contains(name), "{line}");
                    let (_, value) = rest.split_once("} ").expect(line);
                    value.parse::<f64>().expect(line);
                }
            }
            assert!(text.ends_with('\n'));
        }
        let text = render(&status);
        for line in [
            "mirror_running{volume=\"vol0\"} 1\n",
            "mirror_leg_disk_state{volume=\"vol0\",leg=\"b\",state=\"Outdated\"} 1\n",
            "mirror_leg_disk_state{volume=\"vol0\",leg=\"b\",state=\"UpToDate\"} 0\n",
            "mirror_leg_outofsync_bytes{volume=\"vol0\",leg=\"a\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
