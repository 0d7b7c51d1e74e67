//! Writes held for a snapshot: what is copied meanwhile is one moment of the volume on every leg; and nobody can hold
//! them for ever.

use crate::support::{Dir, Server, Volume, assert_equal, bin, need, run, wait_for};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const SOON: Duration = Duration::from_secs(30);

fn pair(dir: &Dir) -> Volume<'_> {
    let legs = ["a", "b"].map(|name| format!("{name}={}", dir.image(&format!("{name}.img"), SIZE).display()));
    let mut volume = Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume
}

/// Writes to the lower half, each checked.
fn fio(dir: &Dir, volume: &Volume<'_>) -> Server {
    let mut command = Command::new("fio");
    command.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k", "--iodepth=8"]);
    command.arg(format!("--uri={}", volume.uri())).arg(format!("--size={}", SIZE / 2));
    command.args(["--time_based", "--runtime=600", "--verify=crc32c", "--verify_backlog=64"]);
    command.current_dir(dir.path("."));
    Server::start(&mut command, &dir.path("fio.log"))
}

fn written(volume: &Volume<'_>) -> u64 {
    volume.status()["written"].as_u64().expect("bytes")
}

#[track_caller]
fn goes_on(volume: &Volume<'_>) {
    let from = written(volume);
    wait_for("clients go on", SOON, || written(volume) > from);
}

#[test]
fn done_what_a_barrier_s_command_copies_is_one_moment_of_the_volume_on_every_leg() {
    if !need(&["fio", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = pair(&dir);
    let mut load = fio(&dir, &volume);
    goes_on(&volume);
    for round in 1..=3u64 {
        let at = SIZE / 2 + round * MIB;
        let write = format!("write -P {round} {at} 64k");
        run("qemu-io", &["-f", "raw", "-c", &write, &volume.uri()]).expect(0);
        let copy = "test \"$MIRROR_VOLUME $MIRROR_PHASE\" = 'vol snapshot' && \
                    cp --reflink=auto a.img a.copy && cp --reflink=auto b.img b.copy";
        let args = ["snapshot-barrier", "vol", "--timeout", "60s", "--", "sh", "-c", copy];
        dir.mirrord(&args).dir(&dir.path(".")).run().expect(0);
        assert_equal(&dir.path("a.copy"), &dir.path("b.copy"));
        let bytes = std::fs::read(dir.path("b.copy")).expect("copy");
        let at = usize::try_from(at).expect("small");
        assert!(bytes[at..at + 65536].iter().all(|b| u64::from(*b) == round), "round {round}");
        goes_on(&volume);
    }
    assert!(load.is_running(), "{}", load.log());
    load.kill();
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn done_nobody_holds_writes_for_ever() {
    if !need(&["fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = pair(&dir);
    let mut load = fio(&dir, &volume);
    goes_on(&volume);
    let held = || volume.status()["reason"].as_str().is_some_and(|why| why.contains("snapshot barrier"));
    // The one who holds them is killed.
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", dir.state());
    command.args(["snapshot-barrier", "vol", "--timeout", "9m", "--", "sleep", "20"]);
    let mut holder = Server::start(&mut command, &dir.path("holder.log"));
    wait_for("writes are held", SOON, held);
    volume.mirrord(&["snapshot-barrier", "vol", "--", "true"]).fails(
        "mirrord",
        75,
        "somebody else does so already",
    );
    let still = written(&volume);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(written(&volume), still, "nothing is written");
    holder.kill();
    goes_on(&volume);
    // The command takes too long: it ends by itself, and what it did counts for nothing.
    let begun = Instant::now();
    let args = ["snapshot-barrier", "vol", "--timeout", "1s", "--", "sleep", "3"];
    volume.mirrord(&args).fails("mirrord", 7, "writes were let go before the end");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    goes_on(&volume);
    assert!(load.is_running(), "{}", load.log());
    load.kill();
    volume.stop();
}

#[test]
fn it_ends_as_its_command_does() {
    let dir = Dir::new();
    let mut volume = pair(&dir);
    let run = |command: &[&str]| {
        let args: Vec<&str> = ["snapshot-barrier", "vol", "--"].iter().chain(command).copied().collect();
        volume.mirrord(&args)
    };
    run(&["true"]).expect(0);
    run(&["sh", "-c", "exit 42"]).fails("mirrord", 42, "vol: the command ended with 42");
    run(&["sh", "-c", "kill -TERM $$"]).fails("mirrord", 143, "ended with 143");
    run(&["/nonexistent"]).fails("mirrord", 127, "/nonexistent: running it: No such file");
    run(&["/"]).fails("mirrord", 126, "/: running it: Permission denied");
    let long = ["snapshot-barrier", "vol", "--timeout", "1h", "--", "true"];
    volume.mirrord(&long).fails("mirrord", 2, "the command was not run");
    let mut events = Command::new(bin("mirrord"));
    events.env("MIRROR_STATE_DIR", dir.state()).args(["events", "vol"]);
    let told = dir.path("events.log");
    let events = Server::start(&mut events, &told);
    wait_for("its events", SOON, || events.log().contains("barrier: writes are held"));
    volume.stop();
    volume.mirrord(&["snapshot-barrier", "vol", "--", "true"]).fails("mirrord", 6, "the command was not run");
}
