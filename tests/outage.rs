//! A leg goes away and comes back; only what it missed travels, and it always ends.

use crate::support::{Dir, Volume, assert_equal, nbdkit, need, run, wait_for};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn far_leg(dir: &Dir) -> String {
    format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display())
}

fn near_leg(dir: &Dir) -> String {
    format!("near={}", dir.image("near.img", 32 * MIB).display())
}

fn write(volume: &Volume<'_>, commands: &[&str]) {
    let uri = volume.uri();
    let mut args = vec!["-f", "raw"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    let out = run("qemu-io", &args).expect(0);
    assert!(!out.stdout.contains("failed"), "{}", out.stdout);
}

#[test]
fn a_leg_that_was_away_gets_only_what_it_missed() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let stats = format!("statsfile={}", dir.path("stats").display());
    let socket = dir.path("far.sock");
    let mut server = nbdkit(&dir, &socket, &["file", &far]);
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &far_leg(&dir)], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    write(&volume, &["write -P 1 0 4M", "flush"]);
    server.kill();
    write(&volume, &["write -P 2 1M 64k", "write -P 3 8M 4k", "write -P 4 20M 1M", "flush"]);
    assert_eq!(volume.leg("far", "disk-state"), "Outdated");
    assert_eq!(volume.dirty("far"), 64 * 1024 + 64 * 1024 + MIB);
    let dirty = volume.dirty("far");
    let server = nbdkit(&dir, &socket, &["--filter=stats", "file", &far, &stats]);
    volume.wait_synced();
    assert_eq!(volume.dirty("far"), 0);
    assert_eq!(volume.leg("far", "resynced").as_u64(), Some(dirty));
    volume.stop();
    server.stop();
    let stats = std::fs::read_to_string(dir.path("stats")).expect("stats");
    assert!(stats.contains("write: ") && stats.contains("1.12 MiB"), "{stats}");
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

#[test]
fn done_one_hot_block_over_a_slow_leg_does_not_keep_a_resync_from_ending() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let socket = dir.path("far.sock");
    let _server = nbdkit(&dir, &socket, &["--filter=delay", "file", &far, "wdelay=20ms", "rdelay=20ms"]);
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &far_leg(&dir)], &["--from", "near"]);
    volume.serve(&[]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (uri, stop) = (volume.uri(), &stop);
        let writer = scope.spawn(move || {
            let mut count = 0u64;
            let mut client = client(&uri);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                client.write(5 * MIB, &[count as u8; 4096], false).expect("write");
                count += 1;
            }
            count
        });
        volume.wait_synced();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().expect("writer") > 3);
    });
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

fn client(uri: &str) -> mirror::nbd::client::Blocking {
    let uri = uri.parse().expect("uri");
    let options =
        mirror::nbd::client::ClientOptions { export: "vol".into(), contexts: Vec::new(), structured: true };
    mirror::nbd::client::Blocking::connect(&uri, options, Duration::from_secs(20)).expect("connect")
}

#[test]
fn an_administrator_takes_a_leg_out_and_lets_it_come_back_also_over_a_restart() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = format!("far={}", dir.image("far.img", 32 * MIB).display());
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &far], &["--known-equal"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
    assert_eq!(volume.leg("far", "disk-state"), "Detached");
    volume.mirrord(&["leg", "detach", "vol", "near"]).fails("mirrord", 3, "last");
    write(&volume, &["write -P 7 3M 128k", "flush"]);
    volume.stop();
    volume.serve(&[]);
    wait_for("near", Duration::from_secs(20), || volume.leg("near", "disk-state") == "UpToDate");
    assert_eq!(volume.leg("far", "disk-state"), "Detached", "it stays out over a restart");
    assert_eq!(volume.dirty("far"), 128 * 1024);
    volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    volume.wait_synced();
    volume.mirrord(&["leg", "fail", "vol", "far"]).expect(0);
    assert_eq!(volume.leg("far", "disk-state"), "Failed");
    volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    volume.wait_synced();
    volume.mirrord(&["resync", "vol", "far", "--full"]).expect(0);
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

#[test]
fn writes_are_refused_below_the_floor_of_legs() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let mut server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far]);
    let legs = [near_leg(&dir), far_leg(&dir)];
    let mut volume =
        Volume::create(&dir, 32 * MIB, &[&legs[0], &legs[1]], &["--known-zero", "--min-legs", "2"]);
    volume.serve(&[]);
    volume.wait_synced();
    write(&volume, &["write -P 1 0 64k"]);
    server.kill();
    volume.wait_state("far", "Outdated");
    let out =
        run("qemu-io", &["-f", "raw", "-c", "write -P 2 0 64k", "-c", "read -P 1 0 64k", &volume.uri()]);
    assert!(out.stdout.contains("write failed") || out.stderr.contains("write failed"), "{out:?}");
    assert!(!out.stdout.contains("read failed") && !out.stderr.contains("read failed"), "{out:?}");
}

#[test]
fn a_leg_that_stops_answering_costs_its_timeout_and_no_more() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far]);
    let leg = format!("{},timeout=2s", far_leg(&dir));
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &leg], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    server.signal("STOP");
    let start = Instant::now();
    write(&volume, &["write -P 1 0 64k"]);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(volume.leg("near", "disk-state"), "UpToDate");
    assert!(volume.dirty("far") >= 65536);
    server.signal("CONT");
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

#[test]
fn a_leg_whose_writes_fail_leaves_and_the_client_sees_nothing() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let bad = dir.path("bad");
    let trigger = format!("error-file={}", bad.display());
    let args = ["--filter=error", "file", &far, "error=EIO", "error-pwrite-rate=100%", &trigger];
    let _server = nbdkit(&dir, &dir.path("far.sock"), &args);
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &far_leg(&dir)], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    std::fs::write(&bad, "").expect("trigger");
    write(&volume, &["write -P 1 0 64k", "flush"]);
    assert_ne!(volume.leg("far", "disk-state"), "UpToDate");
    std::fs::remove_file(&bad).expect("trigger");
    if volume.leg("far", "disk-state") == "Failed" {
        volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    }
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

#[test]
fn a_failed_read_is_answered_by_the_other_leg_and_repaired() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let bad = dir.path("bad");
    let trigger = format!("error-file={}", bad.display());
    let args = ["--filter=error", "file", &far, "error=EIO", "error-pread-rate=100%", &trigger];
    let _server = nbdkit(&dir, &dir.path("far.sock"), &args);
    let leg = format!("{},read=prefer", far_leg(&dir));
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &leg], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    write(&volume, &["write -P 9 0 64k", "flush"]);
    std::fs::write(&bad, "").expect("trigger");
    write(&volume, &["read -P 9 0 64k"]);
    std::fs::remove_file(&bad).expect("trigger");
    write(&volume, &["read -P 9 0 64k"]);
    assert_eq!(volume.leg("far", "disk-state"), "UpToDate");
    assert!(volume.leg("near", "read").as_u64() >= Some(65536));
}

#[test]
fn a_leg_that_takes_one_connection_at_a_time_is_left_and_reached_again() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 32 * MIB).display().to_string();
    let _server = nbdkit(&dir, &dir.path("far.sock"), &["--filter=limit", "file", &far, "limit=1"]);
    let mut volume = Volume::create(&dir, 32 * MIB, &[&near_leg(&dir), &far_leg(&dir)], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
    write(&volume, &["write -P 5 2M 1M", "flush"]);
    volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}
