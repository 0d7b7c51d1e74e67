//! A resync is held back by a word or a ceiling, and the status says so.

use crate::support::{Dir, Volume, assert_equal, nbdkit, need, wait_for};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

/// Two images, `near` of data, `far` to be copied to with these options.
fn pair<'d>(dir: &'d Dir, options: &str) -> Volume<'d> {
    let near = dir.image("near.img", 16 * MIB);
    std::fs::write(&near, vec![7; 16 << 20]).expect("fill");
    let far = format!("far={}{options}", dir.image("far.img", 16 * MIB).display());
    let near = format!("near={}", near.display());
    Volume::create(dir, 16 * MIB, &[&near, &far], &["--from", "near"])
}

#[test]
fn a_paused_resync_does_not_move_and_says_so_until_it_is_resumed_or_the_daemon_ends() {
    let dir = Dir::new();
    // A ceiling so low that the pause comes in time.
    let mut volume = pair(&dir, ",rate=1M");
    volume.serve(&[]);
    volume.mirrord(&["pause", "vol", "far"]).expect(0);
    wait_for("copies under way to end", SOON, || volume.leg("far", "in-flight") == 0);
    assert_eq!(volume.leg("far", "halt"), "paused");
    assert_eq!(volume.leg("far", "paused"), true);
    assert_eq!(volume.leg("far", "next"), "mirrord resume vol far");
    let dirty = volume.dirty("far");
    assert!(dirty > 8 * MIB, "{dirty}");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(volume.dirty("far"), dirty);
    volume.mirrord(&["pause", "vol", "other"]).fails("mirrord", 2, "no leg other");
    volume.stop();
    volume.serve(&[]);
    wait_for("the restart forgets it", SOON, || volume.leg("far", "paused") == false);
    volume.mirrord(&["pause", "vol"]).expect(0);
    volume.mirrord(&["resume", "vol"]).expect(0);
    wait_for("rate is the reason", SOON, || volume.status()["legs"][1]["halt"] == "rate");
    volume.stop();
}

#[test]
fn a_target_that_does_not_answer_is_called_stalled_before_its_deadline() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let near = dir.image("near.img", 16 * MIB);
    let far = dir.image("far.img", 16 * MIB).display().to_string();
    let server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far]);
    let far = format!("far=nbd+unix:///?socket={},timeout=30s,rate=4M", dir.path("far.sock").display());
    let near = format!("near={}", near.display());
    let mut volume = Volume::create(&dir, 16 * MIB, &[&near, &far], &["--from", "near"]);
    volume.serve(&[]);
    wait_for("it moves", SOON, || volume.dirty("far") < 16 * MIB);
    server.signal("STOP");
    wait_for("it has stalled", SOON, || volume.status()["legs"][1]["halt"] == "target-stalled");
    assert_eq!(volume.leg("far", "next"), "mirrord leg detach vol far");
    server.signal("CONT");
    volume.wait_synced();
    volume.stop();
    server.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}
