//! Legs come, go, take each other's place and are set anew, with the volume served and without.

use crate::support::{Dir, Volume, assert_equal, nbdkit, need, run, wait_for};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
const SOON: Duration = Duration::from_secs(30);

fn leg(dir: &Dir, name: &str) -> String {
    format!("{name}={}", dir.image(&format!("{name}.img"), SIZE).display())
}

fn filled(dir: &Dir, name: &str, byte: u8) -> String {
    let leg = leg(dir, name);
    std::fs::write(dir.path(&format!("{name}.img")), vec![byte; SIZE as usize]).expect("fill");
    leg
}

fn write(volume: &Volume<'_>, command: &str) {
    let out = run("qemu-io", &["-f", "raw", "-c", command, "-c", "flush", &volume.uri()]).expect(0);
    assert!(!out.stdout.contains("failed"), "{}", out.stdout);
}

fn names(volume: &Volume<'_>) -> Vec<String> {
    let status = volume.status();
    let legs = status["legs"].as_array().expect("legs").iter();
    legs.map(|leg| leg["name"].as_str().expect("name").to_owned()).collect()
}

#[test]
fn done_legs_are_added_removed_and_replaced_while_the_volume_serves() {
    if !need(&["qemu-io", "nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = Volume::create(&dir, SIZE, &[&filled(&dir, "a", 7)], &[]);
    volume.serve(&[]);
    volume.wait_synced();
    let b = filled(&dir, "b", 9);
    volume.mirrord(&["leg", "add", "vol", &b]).expect(0);
    volume.mirrord(&["leg", "add", "vol", &b]).fails("mirrord", 2, "two legs have this name");
    write(&volume, "write -P 1 1M 64k");
    volume.wait_synced();
    volume.mirrord(&["leg", "remove", "vol", "c"]).fails("mirrord", 2, "no leg c");
    volume.mirrord(&["leg", "remove", "vol", "a"]).expect(0);
    assert_eq!(names(&volume), ["b"]);
    volume.mirrord(&["leg", "remove", "vol", "b"]).fails("mirrord", 3, "last good copy");
    volume.mirrord(&["leg", "remove", "vol", "b", "--force=last-copy"]).fails("mirrord", 3, "is served");
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    // What left is a plain disk that nobody touches any more; a leg with its number and its name is a new one.
    write(&volume, "write -P 2 2M 64k");
    let far = dir.image("far.img", SIZE).display().to_string();
    let server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far]);
    let far = format!("a=nbd+unix:///?socket={}", dir.path("far.sock").display());
    volume.mirrord(&["leg", "add", "vol", &far]).expect(0);
    volume.wait_synced();
    // A replacement: the old leg serves until the new one is up to date, also over a kill.
    let c = format!("{},rate=6M", filled(&dir, "c", 3));
    volume.mirrord(&["leg", "replace", "vol", "b", &c]).expect(0);
    assert_eq!(names(&volume).len(), 3);
    volume.kill();
    volume.serve(&[]);
    write(&volume, "write -P 4 3M 64k");
    wait_for("b to leave", SOON, || names(&volume) == ["a", "c"]);
    volume.wait_synced();
    volume.stop();
    server.stop();
    assert_equal(&dir.path("far.img"), &dir.path("c.img"));
    let b = std::fs::read(dir.path("b.img")).expect("b");
    assert_eq!((b[MIB as usize], b[2 * MIB as usize]), (1, 2));
}

#[test]
fn a_failed_leg_is_replaced_at_once() {
    let dir = Dir::new();
    let legs = [leg(&dir, "a"), leg(&dir, "b")];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "fail", "vol", "b"]).expect(0);
    let c = format!("{},rate=1K", leg(&dir, "c"));
    volume.mirrord(&["leg", "replace", "vol", "b", &c]).expect(0);
    wait_for("b to leave before c is up to date", SOON, || names(&volume) == ["a", "c"]);
    assert_eq!(volume.leg("c", "disk-state"), "SyncTarget");
    volume.mirrord(&["leg", "set", "vol", "c", "rate=auto"]).expect(0);
    volume.wait_synced();
    volume.stop();
}

#[test]
fn settings_of_a_leg_change_while_it_serves_and_are_kept() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let legs = [leg(&dir, "a"), leg(&dir, "b")];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "set", "vol", "b", "read=prefer", "timeout=2s", "rate=3M"]).expect(0);
    assert_eq!(volume.leg("b", "read-preference"), "prefer");
    let before = volume.leg("b", "read").as_u64();
    write(&volume, "read 0 64k");
    assert!(volume.leg("b", "read").as_u64() > before, "reads go there now");
    volume.mirrord(&["leg", "set", "vol", "b", "flush=unsafe"]).fails("mirrord", 2, "fixed when a leg");
    // The same disk at another address: only what it missed is copied.
    std::fs::rename(dir.path("b.img"), dir.path("moved.img")).expect("rename");
    let device = format!("device={}", dir.path("moved.img").display());
    volume.mirrord(&["leg", "set", "vol", "b", &device]).expect(0);
    volume.wait_synced();
    assert_eq!(volume.leg("b", "resynced").as_u64(), Some(0));
    volume.mirrord(&["leg", "reset", "vol", "b"]).expect(0);
    volume.mirrord(&["leg", "set", "vol", "b", "rate=auto"]).expect(0);
    volume.wait_synced();
    assert_eq!(volume.leg("b", "resynced").as_u64(), Some(SIZE));
    volume.stop();
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(volume.leg("b", "device"), dir.path("moved.img").display().to_string());
    assert_eq!(volume.leg("b", "read-preference"), "prefer");
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("moved.img"));
}

#[test]
fn done_legs_of_a_volume_that_is_not_served_change_too_and_the_last_leg_ends_it() {
    let dir = Dir::new();
    let mut volume = Volume::create(&dir, SIZE, &[&filled(&dir, "a", 5)], &[]);
    let b = leg(&dir, "b");
    volume.mirrord(&["leg", "add", "vol", &b]).expect(0);
    volume.mirrord(&["leg", "remove", "vol", "a"]).fails("mirrord", 3, "last good copy");
    volume.serve(&[]);
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    volume.mirrord(&["leg", "set", "vol", "b", "retries=9"]).expect(0);
    volume.mirrord(&["leg", "reset", "vol", "b"]).expect(0);
    volume.mirrord(&["leg", "reset", "vol", "a"]).fails("mirrord", 3, "last good copy");
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(volume.leg("b", "resynced").as_u64(), Some(SIZE));
    volume.stop();
    volume.mirrord(&["leg", "remove", "vol", "a"]).expect(0);
    volume.mirrord(&["leg", "remove", "vol", "b"]).fails("mirrord", 3, "last good copy");
    let out = volume.mirrord(&["leg", "remove", "vol", "b", "--force=last-copy"]).expect(0);
    assert!(out.stderr.contains("b.img"), "never silently: {}", out.stderr);
    volume.mirrord(&["status", "vol"]).fails("mirrord", 2, "no such volume");
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn done_a_daemon_killed_while_a_leg_is_added_or_removed_serves_again_with_it_or_without() {
    let dir = Dir::new();
    let legs = [filled(&dir, "a", 5), filled(&dir, "b", 5)];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-equal"]);
    for round in 0..6u64 {
        volume.serve(&[]);
        volume.wait_synced();
        let c = leg(&dir, "c");
        let verb: &[&str] =
            if names(&volume).len() == 2 { &["add", "vol", &c] } else { &["remove", "vol", "c"] };
        let args: Vec<&str> = [&["leg"], verb].concat();
        std::thread::scope(|scope| {
            let volume = &volume;
            let asked = scope.spawn(|| volume.mirrord(&args));
            std::thread::sleep(Duration::from_millis(3 + round * 4));
            let pid = std::fs::read_to_string(dir.state().join("vol/mirrord.pid")).expect("pid");
            run("kill", &["-9", pid.trim()]).expect(0);
            asked.join().expect("asked");
        });
        volume.kill();
        volume.serve(&[]);
        wait_for("it serves", SOON, || volume.status()["suspended"] == false);
        if names(&volume).len() == 3 && volume.leg("c", "disk-state") == "Detached" {
            // Killed between the first step of the removal and the next: asked for again.
            volume.mirrord(&["leg", "remove", "vol", "c"]).expect(0);
        }
        volume.wait_synced();
        volume.stop();
        assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    }
}

/// It was taken without a word, and what was written by way of the one was behind the back of the other.
#[test]
fn a_leg_of_another_volume_is_refused_until_it_has_left_there() {
    let dir = Dir::new();
    let a = leg(&dir, "a");
    let mut volume = Volume::create(&dir, SIZE, &[&a, &leg(&dir, "b")], &["--known-equal"]);
    let size = SIZE.to_string();
    let other = |verb: &[&str], leg: &str| dir.mirrord(&[verb, &[leg]].concat()).run();
    let out = other(&["create", "other", "--size", &size, "--leg"], &a).fails(
        "mirrord",
        3,
        "it is leg a of volume vol",
    );
    assert!(out.stderr.ends_with("\ntry: mirrord leg remove vol a\n"), "{}", out.stderr);
    other(&["create", "other", "--size", &size, "--leg"], &leg(&dir, "c")).expect(0);
    other(&["leg", "add", "other"], &a).fails("mirrord", 3, "it is leg a of volume vol");
    // A refusal names the leg and the way out of its state; a leg that is out is said to be.
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "detach", "vol", "a"]).expect(0);
    let out = volume.mirrord(&["resync", "vol", "a"]).fails("mirrord", 3, "vol: leg a: it is out");
    assert!(out.stderr.ends_with("\ntry: mirrord leg attach vol a\n"), "{}", out.stderr);
    volume.mirrord(&["leg", "remove", "vol", "a"]).expect(0);
    let out = volume.mirrord(&["resize", "vol", "--grow"]).expect(0);
    assert!(out.stderr.contains("as before: its smallest leg has no more"), "{}", out.stderr);
    other(&["leg", "add", "other"], &a).expect(0);
    volume.stop();
}
