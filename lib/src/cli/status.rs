//! The status of volumes as text for 80 columns.

use super::output::one_line;
use super::progress::show_seconds;
use crate::base::units::show_size;
use crate::control::{LegStatus, Status};

/// One volume: a line for it, a line for each leg, and under each what is wrong and what to type next.
pub fn render(status: &Status) -> String {
    let mut lines = vec![head(status)];
    if status.running {
        for uri in &status.uris {
            lines.push(format!("  {}", one_line(uri)));
        }
        lines.push(format!(
            "  {} client{}, {} in flight ({}), read {}, written {}",
            status.clients,
            if status.clients == 1 { "" } else { "s" },
            status.in_flight,
            show_size(status.pending),
            show_size(status.read),
            show_size(status.written),
        ));
    }
    if status.widened > 0 {
        lines.push(format!("  widened: {} more than before the crash", show_size(status.widened)));
    }
    if status.flush_error_owed {
        lines.push("  a flush failed: flushes fail until the blocks are written again".to_owned());
    }
    if let Some(verify) = &status.verify {
        let left = verify
            .estimated_seconds_to_finish
            .map_or_else(String::new, |seconds| format!(", {} left", show_seconds(seconds)));
        let (done, total) = (show_size(verify.done), show_size(verify.total));
        lines.push(format!("  verify: {done} of {total}, {} differ{left}", show_size(verify.differing)));
    }
    way_out(&mut lines, "  ", status.reason.as_deref(), status.next.as_deref());
    legs(&mut lines, status);
    lines.join("\n") + "\n"
}

fn head(status: &Status) -> String {
    let state = match status {
        _ if !status.running => "not served",
        _ if status.suspended => "suspended",
        _ if status.is_healthy() => "healthy",
        _ => "degraded",
    };
    let mut words = vec![one_line(&status.name), state.to_owned()];
    if status.running {
        words.insert(1, one_line(&status.role));
        words.push(show_size(status.size));
    }
    words.join("  ")
}

fn legs(lines: &mut Vec<String>, status: &Status) {
    let width = status.legs.iter().map(|leg| leg.name.chars().count()).max().unwrap_or(0).max(8);
    if !status.running {
        for leg in &status.legs {
            lines.push(format!("  {:width$}  {}", one_line(&leg.name), one_line(&leg.device)));
            for address in leg.addresses.iter().skip(1) {
                lines.push(format!("  {:width$}  {}", "", one_line(&address.device)));
            }
        }
        return;
    }
    lines.push(format!(
        "  {:width$} {:10} {:12} {:>9} {:>9} {:>9}",
        "LEG", "CONNECTION", "DISK", "DIRTY", "UNFLUSHED", "IN-FLIGHT"
    ));
    for leg in &status.legs {
        lines.push(format!(
            "  {:width$} {:10} {:12} {:>9} {:>9} {:>9}",
            one_line(&leg.name),
            one_line(&leg.connection_state),
            one_line(&leg.disk_state),
            show_size(leg.dirty),
            show_size(leg.unflushed),
            leg.in_flight,
        ));
        details(lines, leg);
    }
}

fn details(lines: &mut Vec<String>, leg: &LegStatus) {
    let more = "      ";
    for address in &leg.addresses {
        let (device, used) = (one_line(&address.device), if address.in_use { ": in use" } else { "" });
        let error = address.error.as_ref().map_or_else(String::new, |error| format!(": {}", one_line(error)));
        lines.push(format!("{more}at {device}{used}{error}"));
    }
    if leg.addresses.is_empty() && leg.connection_state != "Connected" && !leg.device.is_empty() {
        lines.push(format!("{more}at {}", one_line(&leg.device)));
    }
    if let Some(old) = &leg.replaces {
        lines.push(format!("{more}replaces: {}, which is removed when this one is UpToDate", one_line(old)));
    }
    if leg.held > 0 {
        lines.push(format!("{more}held: {} until late writes cannot come any more", show_size(leg.held)));
    }
    if leg.rewrite > 0 {
        lines.push(format!("{more}rewrite: {} to be written in place again", show_size(leg.rewrite)));
    }
    if leg.flush_unsafe {
        lines.push(format!("{more}flush=unsafe: never counts for durability"));
    }
    if let Some(resync) = &leg.resync {
        let (done, total) = (show_size(resync.done), show_size(resync.total));
        let percent = resync.percent_in_sync;
        lines.push(format!("{more}resync: {done} of {total} done, {percent:.1} % of the leg in sync"));
        if let Some(left) = resync.estimated_seconds_to_finish {
            let rate = show_size(resync.rate);
            lines.push(format!("{more}        {rate}/s, {} left", show_seconds(left)));
        }
    }
    if let Some(last) = &leg.last_in_sync {
        lines.push(format!("{more}last in sync: {}", one_line(last)));
    }
    way_out(lines, more, leg.reason.as_deref(), leg.next.as_deref());
}

fn way_out(lines: &mut Vec<String>, more: &str, reason: Option<&str>, next: Option<&str>) {
    if let Some(reason) = reason {
        lines.push(format!("{more}why: {}", one_line(reason)));
    }
    if let Some(next) = next {
        lines.push(format!("{more}try: {}", one_line(next)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ResyncStatus;

    fn degraded() -> Status {
        let leg = |name: &str, disk: &str| LegStatus {
            name: name.into(),
            connection_state: "Connected".into(),
            disk_state: disk.into(),
            ..LegStatus::default()
        };
        let far = LegStatus {
            dirty: 12 << 20,
            resync: Some(ResyncStatus {
                done: 4 << 20,
                total: 16 << 20,
                percent_in_sync: 81.25,
                rate: 2 << 20,
                estimated_seconds_to_finish: Some(6),
            }),
            reason: Some("copying\u{1b}[31m".into()),
            next: Some("mirrord wait vol0 --until synced".into()),
            ..leg("far", "SyncTarget")
        };
        Status {
            name: "vol0".into(),
            running: true,
            role: "primary".into(),
            size: 64 << 20,
            uris: vec!["nbd+unix:///vol0?socket=/s".into()],
            clients: 1,
            legs: vec![leg("here", "UpToDate"), far],
            ..Status::default()
        }
    }

    #[test]
    fn the_text_says_what_is_wrong_and_what_to_type() {
        let text = render(&degraded());
        assert_eq!(
            text,
            "vol0  primary  degraded  64 MiB\n\
             \x20 nbd+unix:///vol0?socket=/s\n\
             \x20 1 client, 0 in flight (0 B), read 0 B, written 0 B\n\
             \x20 LEG      CONNECTION DISK             DIRTY UNFLUSHED IN-FLIGHT\n\
             \x20 here     Connected  UpToDate           0 B       0 B         0\n\
             \x20 far      Connected  SyncTarget      12 MiB       0 B         0\n\
             \x20     resync: 4 MiB of 16 MiB done, 81.2 % of the leg in sync\n\
             \x20             2 MiB/s, 6 s left\n\
             \x20     why: copying [31m\n\
             \x20     try: mirrord wait vol0 --until synced\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_volume_that_is_not_served_shows_its_legs_and_the_way_out() {
        let mut status = degraded();
        status.running = false;
        status.next = Some("mirrord serve vol0".into());
        status.legs[0].device = "/srv/a".into();
        status.legs.truncate(1);
        assert_eq!(render(&status), "vol0  not served\n  try: mirrord serve vol0\n  here      /srv/a\n");
    }
}
