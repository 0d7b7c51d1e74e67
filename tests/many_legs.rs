//! Volumes of three legs and of as many as there may be; who is read.

use crate::support::{Dir, Server, Volume, assert_equal, bin, nbdkit, need, run, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// As many legs as a volume may have.
const MOST: usize = 32;

fn far(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

/// Writes for some seconds, each checked, and ends with a flush.
fn fio(volume: &Volume<'_>, dir: &Dir, size: u64, seconds: u32) -> Server {
    // If this test is killed nobody ends it, and it tells of every request that fails: it ends at so many bytes.
    let mut command = Command::new("prlimit");
    command.args([
        "--fsize=16777216",
        "fio",
        "--name=load",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--iodepth=8",
    ]);
    command.args(["--bsrange=512-64k", "--verify=crc32c", "--verify_backlog=64", "--verify_state_save=0"]);
    command.arg(format!("--uri={}", volume.uri())).arg(format!("--size={size}"));
    command
        .args(["--time_based", &format!("--runtime={seconds}"), "--end_fsync=1"])
        .current_dir(dir.path(""));
    Server::start(&mut command, &dir.path("fio.log"))
}

#[track_caller]
fn ends_well(mut load: Server) {
    wait_for("the load", Duration::from_secs(120), || !load.is_running());
    assert!(!load.log().contains("error"), "{}", load.log());
}

#[test]
fn done_thirty_two_legs_of_every_kind_are_equal_after_some_of_them_died_and_came_back() {
    if !need(&["fio", "nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let size = 8 * MIB;
    let (kit, other) = (dir.path("kit.sock"), dir.path("other.sock"));
    let images: Vec<_> = (0..MOST).map(|n| dir.image(&format!("{n}.img"), size)).collect();
    let text = |n: usize| images[n].to_string_lossy().into_owned();
    let serve = || nbdkit(&dir, &kit, &["file", &text(MOST - 2)]);
    let mut kit_server = serve();
    // The last leg is a volume of another mirrord.
    let leg = format!("only={}", text(MOST - 1));
    dir.mirrord(&["create", "far", "--size", &size.to_string(), "--leg", &leg]).run().expect(0);
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", dir.state()).args(["serve", "far", "--unix"]).arg(&other);
    let _other = Server::start_on(&mut command, &dir.path("far.log"), &other);
    let legs: Vec<String> = (0..MOST)
        .map(|n| match MOST - n {
            2 => format!("l{n}={}", far(&kit)),
            1 => format!("l{n}=nbd+unix:///far?socket={}", other.display()),
            _ => format!("l{n}={}", text(n)),
        })
        .collect();
    let legs: Vec<&str> = legs.iter().map(String::as_str).collect();
    let more: Vec<&str> = [&legs[..], &["l99=/nonexistent"]].concat();
    let args = |legs: &[&str]| -> Vec<String> {
        let legs = legs.iter().flat_map(|leg| ["--leg".to_owned(), (*leg).to_owned()]);
        let head = ["create", "many", "--size", "8M", "--known-zero"].map(str::to_owned);
        head.into_iter().chain(legs).collect()
    };
    let too_many = args(&more);
    let refused = dir.mirrord(&too_many.iter().map(String::as_str).collect::<Vec<_>>()).run();
    refused.fails("mirrord", 2, "32");
    let mut volume = Volume::create(&dir, size, &legs, &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let load = fio(&volume, &dir, size, 6);
    std::thread::sleep(Duration::from_secs(1));
    drop(kit_server);
    volume.mirrord(&["leg", "detach", "vol", "l3"]).expect(0);
    std::thread::sleep(Duration::from_secs(2));
    kit_server = serve();
    volume.mirrord(&["leg", "attach", "vol", "l3"]).expect(0);
    ends_well(load);
    volume.wait_synced();
    volume.stop();
    drop(kit_server);
    for image in &images[1..MOST] {
        assert_equal(&images[0], image);
    }
}

/// A volume of three legs behind nbdkit, each with a log of what it is asked.
struct Watched<'d> {
    dir: &'d Dir,
    volume: Volume<'d>,
    kits: Vec<Server>,
}

impl<'d> Watched<'d> {
    fn new(dir: &'d Dir, read: [&str; 3], slow: Option<usize>, options: &[&str]) -> Self {
        let mut kits = Vec::new();
        let mut legs = Vec::new();
        for (n, read) in read.iter().enumerate() {
            let (socket, image) = (dir.path(&format!("{n}.sock")), dir.image(&format!("{n}.img"), 4 * MIB));
            let log = format!("logfile={}", dir.path(&format!("{n}.log")).display());
            let image = image.to_string_lossy().into_owned();
            let mut args = vec!["--filter=log", "--filter=delay", "file", &image, &log];
            if slow == Some(n) {
                args.push("rdelay=30ms");
            }
            kits.push(nbdkit(dir, &socket, &args));
            legs.push(format!("l{n}={}{read}", far(&socket)));
        }
        let legs: Vec<&str> = legs.iter().map(String::as_str).collect();
        let mut volume = Volume::create(dir, 4 * MIB, &legs, &["--known-equal"]);
        volume.serve(options);
        volume.wait_synced();
        Self { dir, volume, kits }
    }

    /// How many reads each leg got of two hundred of the client's, so many at a time.
    fn reads(&self, depth: usize) -> Vec<usize> {
        let count = |n: usize| {
            let log = std::fs::read_to_string(self.dir.path(&format!("{n}.log"))).unwrap_or_default();
            log.lines().filter(|line| line.contains(" Read ")).count()
        };
        let before: Vec<_> = (0..3).map(count).collect();
        let args = ["--name=r", "--ioengine=nbd", "--rw=randread", "--bs=4k", "--size=4M"];
        let depth = format!("--iodepth={depth}");
        let uri = format!("--uri={}", self.volume.uri());
        run("fio", &[&args[..], &[&uri, &depth, "--number_ios=200", "--output=/dev/null"]].concat())
            .expect(0);
        (0..3).map(|n| count(n) - before[n]).collect()
    }
}

/// What each leg says of being read, which of them is slow, the policy, how many reads at a time, and whether they
/// went as they should.
type Row = ([&'static str; 3], Option<usize>, &'static str, usize, fn(&[usize]) -> bool);

#[test]
fn done_reads_go_where_the_policy_and_the_preferences_of_the_legs_say() {
    if !need(&["fio", "nbdkit"]) {
        return;
    }
    let table: [Row; 8] = [
        (["", "", ""], None, "round-robin", 8, |r| r.iter().all(|n| (60..=75).contains(n))),
        (["", ",read=avoid", ""], None, "round-robin", 8, |r| r[1] == 0 && r[0] >= 95 && r[2] >= 95),
        (["", ",read=prefer", ""], None, "round-robin", 8, |r| r[0] == 0 && r[1] >= 200 && r[2] == 0),
        (["", "", ""], Some(0), "least-pending", 8, |r| r[0] < 40 && r[1] + r[2] >= 160),
        (["", "", ""], None, "local", 8, |r| r.iter().sum::<usize>() >= 200),
        ([",read=avoid", ",read=avoid", ",read=avoid"], None, "local", 8, |r| r.iter().sum::<usize>() >= 200),
        // Nothing is pending anywhere: each in turn, and no more to the first.
        (["", "", ""], None, "least-pending", 1, |r| r.iter().all(|n| (60..=75).contains(n))),
        (["", ",read=avoid", ""], None, "least-pending", 1, |r| r[1] == 0 && r[0] >= 95 && r[2] >= 95),
    ];
    for (read, slow, policy, depth, as_said) in table {
        let dir = Dir::new();
        let watched = Watched::new(&dir, read, slow, &["--read-policy", policy]);
        let reads = watched.reads(depth);
        assert!(as_said(&reads), "{policy} {read:?}, slow {slow:?}, {depth} at a time: {reads:?}");
    }
}

#[test]
fn done_with_three_legs_and_two_required_one_may_die_and_the_second_stops_writes() {
    if !need(&["fio", "nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let retry = ",timeout=1s,retries=0";
    let mut watched = Watched::new(&dir, [retry; 3], None, &["--min-legs", "2"]);
    let write = |watched: &Watched<'_>, pattern: u8| {
        let write = format!("write -P {pattern} 0 64k");
        run("qemu-io", &["-f", "raw", "-c", &write, "-c", "flush", &watched.volume.uri()])
    };
    write(&watched, 1).expect(0);
    watched.kits.pop();
    write(&watched, 2).expect(0);
    watched.volume.wait_state("l0", "UpToDate");
    watched.kits.pop();
    wait_for("writes are refused", Duration::from_secs(60), || write(&watched, 3).code != 0);
    // What was acknowledged is read.
    run("qemu-io", &["-f", "raw", "-c", "read 1M 64k", &watched.volume.uri()]).expect(0);
    for n in [1, 2] {
        let image = dir.path(&format!("{n}.img")).to_string_lossy().into_owned();
        watched.kits.push(nbdkit(&dir, &dir.path(&format!("{n}.sock")), &["file", &image]));
    }
    watched.volume.wait_synced();
    write(&watched, 4).expect(0);
    watched.volume.stop();
    watched.kits.clear();
    assert_equal(&dir.path("0.img"), &dir.path("1.img"));
    assert_equal(&dir.path("0.img"), &dir.path("2.img"));
}
