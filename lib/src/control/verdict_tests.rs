use super::*;
use crate::control::{LegStatus, ResyncStatus};

fn leg(name: &str, disk: &str, connection: &str, dirty: u64) -> LegStatus {
    LegStatus {
        name: name.into(),
        disk_state: disk.into(),
        connection_state: connection.into(),
        dirty,
        ..LegStatus::default()
    }
}

fn good(name: &str) -> LegStatus {
    leg(name, "UpToDate", "Connected", 0)
}

fn volume(legs: Vec<LegStatus>) -> Status {
    let uris = vec!["nbd://x".to_owned()];
    Status { running: true, size: 1 << 30, min_legs: 1, uris, legs, ..Status::default() }
}

const NONE: Thresholds = Thresholds { behind_bytes: None, behind_seconds: None, stall_seconds: None };

#[test]
fn done_check_decides_by_this_table() {
    use Verdict::{Critical, Ok, Unknown, Warning};
    let bytes = |n| Thresholds { behind_bytes: Some(n), ..NONE };
    let seconds = |n| Thresholds { behind_seconds: Some(n), ..NONE };
    let stall = |n| Thresholds { stall_seconds: Some(n), ..NONE };
    let out = || LegStatus { behind_seconds: 61.0, ..leg("b", "Outdated", "Connecting", 4096) };
    let slow = |still| LegStatus {
        stalled_seconds: still,
        resync: Some(ResyncStatus::default()),
        ..leg("b", "SyncTarget", "Connected", 1 << 20)
    };
    let reason = |text: &str, legs| Status { reason: Some(text.into()), suspended: true, ..volume(legs) };
    let stopping = Status { suspended: false, ..reason("stopping: requests drain", vec![good("a")]) };
    let table: [(Status, Thresholds, Verdict, &str); 22] = [
        (volume(vec![good("a"), good("b")]), NONE, Ok, "2 legs UpToDate"),
        (volume(vec![good("a")]), bytes(0), Ok, "1 leg UpToDate"),
        (Status { running: false, ..volume(vec![]) }, NONE, Unknown, "nobody serves it"),
        (volume(vec![]), NONE, Critical, "no leg is UpToDate"),
        (volume(vec![good("a"), out()]), NONE, Warning, "leg b is Outdated, Connecting, misses 4 KiB"),
        (volume(vec![good("a"), leg("b", "Detached", "StandAlone", 0)]), NONE, Warning, "leg b is Detached"),
        (volume(vec![good("a"), leg("b", "Failed", "StandAlone", 0)]), NONE, Warning, "leg b is Failed"),
        (volume(vec![good("a"), leg("b", "UpToDate", "Connecting", 0)]), NONE, Warning, "Connecting"),
        (volume(vec![good("a"), leg("b", "UpToDate", "Connected", 1)]), NONE, Warning, "misses 1 B"),
        (volume(vec![good("a"), out()]), bytes(4096), Warning, "leg b"),
        (volume(vec![good("a"), out()]), bytes(4095), Critical, "behind by 4 KiB, more than 4.0 KiB"),
        (volume(vec![good("a"), out()]), seconds(61.0), Warning, "leg b"),
        (volume(vec![good("a"), out()]), seconds(60.0), Critical, "behind by 61 s, more than 60 s"),
        (volume(vec![good("a"), slow(300.0)]), stall(300.0), Warning, "0.0 % in sync"),
        (volume(vec![good("a"), slow(301.0)]), stall(300.0), Critical, "nothing moved for 301 s"),
        (Status { behind_bytes: 9, ..volume(vec![good("a")]) }, bytes(8), Critical, "behind by 9 B"),
        (Status { behind_seconds: 9.0, ..volume(vec![good("a")]) }, seconds(8.0), Critical, "behind by 9 s"),
        (reason("no good leg can be reached; requests wait", vec![out()]), NONE, Critical, "requests wait"),
        (reason("starting: legs are being connected", vec![good("a")]), NONE, Critical, "starting"),
        (stopping, NONE, Warning, "stopping"),
        (Status { min_legs: 2, ..volume(vec![good("a"), out()]) }, NONE, Critical, "min-legs is 2"),
        (Status { flush_error_owed: true, ..volume(vec![good("a")]) }, NONE, Critical, "a flush failed"),
    ];
    for (status, limits, verdict, text) in table {
        let judgement = judge(&status, &limits);
        assert_eq!(judgement.verdict, verdict, "{text}: {judgement:?}");
        let text = text.replace("4.0 KiB", &show_size(4095));
        assert!(judgement.text.contains(&text), "{text}: {judgement:?}");
    }
}

#[test]
fn the_worst_comes_first_and_the_line_says_everything() {
    let mut status = volume(vec![good("a"), leg("b", "Outdated", "Connecting", 4096)]);
    status.legs[1].reason = Some("not connected: Connection refused".into());
    let limits = Thresholds { behind_bytes: Some(0), ..NONE };
    assert_eq!(
        judge(&status, &limits).text,
        "behind by 4 KiB, more than 0 B; leg b is Outdated, Connecting, misses 4 KiB (not connected: Connection \
         refused)"
    );
}

#[test]
fn performance_data_is_what_plugins_write() {
    let mut status = volume(vec![good("a"), leg("b", "Outdated", "Connecting", 4096)]);
    status.legs[1].behind_seconds = 2.25;
    let limits =
        Thresholds { behind_bytes: Some(1 << 30), behind_seconds: Some(60.0), stall_seconds: Some(300.0) };
    assert_eq!(
        judge(&status, &limits).performance,
        "behind=4096B;;1073741824;0 behind_seconds=2.2s;;60.0;0 stalled_seconds=0.0s;;300.0;0 \
         uptodate=1;;;0;2 in_flight=0;;;0 clients=0;;;0 'dirty a'=0B;;;0;1073741824 'dirty b'=4096B;;;0;1073741824"
    );
}
