//! Trackers of a running daemon: made, kept over restarts, shown to every client, rotated under load and killed.

use crate::support::{Dir, Output, Random, Tool, Volume, assert_equal, bin, need, wait_for};
use mirror::control::{StateDir, Taken};
use mirror::nbd::client::{Blocking, ClientOptions};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 16 << 20;
const BLOCK: u64 = 64 << 10;

fn dirtymap(dir: &Dir, args: &[&str]) -> Output {
    Tool::new(bin("dirtymap")).args(args).dir(&dir.path("")).env("MIRROR_STATE_DIR", dir.state()).run()
}

/// The dirty ranges of a map, as lines.
#[track_caller]
fn list(dir: &Dir, map: &str) -> String {
    dirtymap(dir, &["show", map, "--list"]).expect(0).stdout
}

/// A volume with two legs, served.
fn volume(dir: &Dir) -> Volume<'_> {
    let (a, b) = (dir.image("a.img", SIZE), dir.image("b.img", SIZE));
    let leg = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut volume = Volume::create(dir, SIZE, &[&leg("a", &a), &leg("b", &b)], &["--known-zero"]);
    volume.serve(&[]);
    volume
}

fn connect(volume: &Volume<'_>) -> Result<Blocking, mirror::base::Error> {
    let uri: mirror::nbd::uri::NbdUri = volume.uri().parse().expect("uri");
    let options = ClientOptions { export: "vol".into(), ..ClientOptions::default() };
    Blocking::connect(&uri, options, Duration::from_secs(10))
}

fn write(volume: &Volume<'_>, offset: u64, len: usize) {
    let mut client = connect(volume).expect("connect");
    client.write(offset, &vec![7; len], false).expect("write");
    client.disconnect().expect("disconnect");
}

#[test]
fn done_trackers_are_added_listed_shown_and_removed() {
    let dir = Dir::new();
    let mut volume = volume(&dir);
    let tracker = |args: &[&str]| volume.mirrord(&[&["tracker"], args].concat());
    tracker(&["add", "vol", "day"]).expect(0);
    tracker(&["add", "vol", "week"]).expect(0);
    tracker(&["add", "vol", "day"]).fails("mirrord", 3, "it exists");
    tracker(&["add", "vol", "../x"]).expect(2);
    tracker(&["remove", "vol", "none"]).fails("mirrord", 2, "no tracker none");
    write(&volume, BLOCK + 5, 10);
    tracker(&["remove", "vol", "week"]).expect(0);
    tracker(&["add", "vol", "week"]).expect(0);
    write(&volume, 5 * BLOCK, 2 * BLOCK as usize);
    assert_eq!(list(&dir, "vol:day"), "65536 65536\n327680 131072\n");
    assert_eq!(list(&dir, "vol:week"), "327680 131072\n");
    dirtymap(&dir, &["sub", "vol:day", "vol:week", "-o", "d"]).expect(0);
    assert_eq!(list(&dir, "d"), "65536 65536\n");
    dirtymap(&dir, &["check", "vol:day"]).expect(1);
    assert!(dirtymap(&dir, &["stat", "vol:day"]).expect(0).stdout.contains("dirty: 192 KiB"));
    let listed = tracker(&["ls", "vol"]).expect(0).stdout;
    assert_eq!(listed, "day  192 KiB\nweek  128 KiB\n");
    let line = tracker(&["ls", "vol", "day", "--json"]).expect(0).stdout;
    let line: serde_json::Value = serde_json::from_str(&line).expect("json");
    assert_eq!((&line["schema"], &line["dirty"]), (&"mirrord-tracker/1".into(), &(3 * BLOCK).into()));
    dirtymap(&dir, &["set", "vol:day", "0+1"]).fails("dirtymap", 75, "the mirrord of vol owns it");
    dirtymap(&dir, &["show", "vol:none"]).fails("dirtymap", 2, "no tracker none");
    let map = dir.state().join("vol/day.tracker");
    let map = map.to_str().expect("path");
    dirtymap(&dir, &["show", map]).fails("dirtymap", 75, "");
    for number in 2..16 {
        tracker(&["add", "vol", &format!("t{number}")]).expect(0);
    }
    tracker(&["add", "vol", "one-more"]).fails("mirrord", 3, "the most there may be");
    volume.stop();
    assert_eq!(volume.mirrord(&["tracker", "ls", "vol", "day"]).expect(0).stdout, "day  not served\n");
}

#[test]
fn done_a_tracker_is_an_nbd_dirty_bitmap() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    write(&volume, 3 * BLOCK, 10);
    let uri = volume.uri();
    let nbdinfo = |args: &[&str]| Tool::new("nbdinfo").args(args).args(&[&uri]).run().expect(0).stdout;
    let all = nbdinfo(&["--json"]);
    assert!(all.contains("\"qemu:dirty-bitmap:day\""), "{all}");
    let map = nbdinfo(&["--map=qemu:dirty-bitmap:day", "--json"]);
    std::fs::write(dir.path("nbdinfo.json"), &map).expect("write");
    let theirs = dirtymap(&dir, &["convert", "--from", "nbdinfo", "--to", "list", "nbdinfo.json"]).expect(0);
    assert_eq!(theirs.stdout, list(&dir, "vol:day"));
    assert_eq!(theirs.stdout, "196608 65536\n");
    let context = ["fetch", &uri, "--context", "qemu:dirty-bitmap:day", "-o", "fetched"];
    dirtymap(&dir, &context).expect(0);
    assert_eq!(list(&dir, "fetched"), theirs.stdout);
    dirtymap(&dir, &["fetch", &uri, "--context", "qemu:dirty-bitmap:x"]).fails("dirtymap", 6, "has no");
}

#[test]
fn done_trackers_are_kept_over_a_stop_and_a_kill_and_doubted_after_a_power_cut() {
    let dir = Dir::new();
    let mut volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    write(&volume, 0, 10);
    volume.stop();
    // Whoever serves nothing adds and removes as well.
    volume.mirrord(&["tracker", "add", "vol", "late"]).expect(0);
    volume.mirrord(&["tracker", "add", "vol", "gone"]).expect(0);
    volume.mirrord(&["tracker", "remove", "vol", "gone"]).expect(0);
    dirtymap(&dir, &["show", "vol:day"]).fails("dirtymap", 6, "no mirrord serves it");
    volume.serve(&[]);
    assert_eq!(list(&dir, "vol:day"), "0 65536\n");
    assert_eq!(list(&dir, "vol:late"), "");
    write(&volume, 9 * BLOCK, 10);
    volume.kill();
    volume.serve(&[]);
    assert_eq!(list(&dir, "vol:day"), "0 65536\n589824 65536\n");
    assert_eq!(list(&dir, "vol:late"), "589824 65536\n", "written before the kill");
    volume.kill();
    // As after a power cut: in use, and of another boot.
    for name in ["day.tracker", "a.map", "b.map"] {
        forget_boot(&dir.state().join("vol").join(name));
    }
    volume.serve(&[]);
    assert_eq!(list(&dir, "vol:day"), format!("0 {SIZE}\n"));
    let log = volume.server().log();
    assert!(log.contains("tracker day: widened by 16646144 bytes"), "{log}");
}

/// Gives the header of a map another boot.
fn forget_boot(path: &Path) {
    use mirror::map::format::{HEADER_LEN, Header};
    let file = File::options().read(true).write(true).open(path).expect("map");
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, 0).expect("header");
    let mut header = Header::decode("map", &bytes).expect("decode");
    header.boot = mirror::base::Id([1; 16]);
    file.write_all_at(&header.encode(), 0).expect("write");
}

#[test]
fn a_damaged_or_renamed_tracker_counts_as_all_changed_and_its_volume_is_served() {
    let dir = Dir::new();
    let mut volume = volume(&dir);
    for name in ["a", "b"] {
        volume.mirrord(&["tracker", "add", "vol", name]).expect(0);
    }
    volume.stop();
    let path = |name: &str| dir.state().join("vol").join(format!("{name}.tracker"));
    File::options().write(true).open(path("a")).expect("open").write_all_at(b"!", 150).expect("write");
    std::fs::rename(path("b"), path("c")).expect("rename");
    volume.serve(&[]);
    for name in ["vol:a", "vol:c"] {
        assert_eq!(list(&dir, name), format!("0 {SIZE}\n"), "{name}");
    }
}

#[test]
fn a_rotation_moves_the_marks_and_a_dry_run_does_not() {
    let dir = Dir::new();
    let volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    write(&volume, 3 * BLOCK, 10);
    let plan = dirtymap(&dir, &["rotate", "-n", "vol:day", "out"]).expect(0);
    assert!(plan.stdout.starts_with("out: would be written: ") && plan.stdout.contains("64 KiB (0.3 %)"));
    assert!(!dir.path("out").exists());
    assert_eq!(list(&dir, "vol:day"), "196608 65536\n");
    let said = dirtymap(&dir, &["-v", "rotate", "vol:day", "out"]).expect(0);
    assert!(said.stderr.contains("dirty: 64 KiB"), "{}", said.stderr);
    assert_eq!((list(&dir, "out"), list(&dir, "vol:day")), ("196608 65536\n".into(), String::new()));
    write(&volume, 0, 10);
    dirtymap(&dir, &["rotate", "vol:day", "out"]).fails("dirtymap", 3, "it exists");
    dirtymap(&dir, &["rotate", "vol:day", "-"]).fails("dirtymap", 2, "it is no file");
    dirtymap(&dir, &["rotate", "vol:leg/a", "x"]).fails("dirtymap", 2, "not the tracker");
    dirtymap(&dir, &["rotate", "out", "x"]).fails("dirtymap", 2, "not the tracker");
    assert_eq!(list(&dir, "vol:day"), "0 65536\n");
    // What belongs to the same volume combines.
    dirtymap(&dir, &["or", "out", "vol:day", "-o", "both"]).expect(0);
    assert_eq!(list(&dir, "both"), "0 65536\n196608 65536\n");
}

#[test]
fn marks_that_were_taken_go_back_with_the_connection_but_for_what_was_copied() {
    let dir = Dir::new();
    let mut volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    write(&volume, 0, 4 * BLOCK as usize);
    let state = StateDir::new(dir.state()).volume(&"vol".parse().expect("name"));
    let take = || Taken::take(&state, &"day".parse().expect("name"), Duration::from_secs(20));
    let mut taken = take().expect("take");
    assert_eq!(taken.marks().expect("marks").words[0], 15);
    assert_eq!(take().expect_err("taken").class, mirror::base::Class::Busy);
    volume.mirrord(&["tracker", "remove", "vol", "day"]).fails("mirrord", 75, "has its marks");
    dirtymap(&dir, &["rotate", "vol:day", "x"]).fails("dirtymap", 75, "has its marks");
    assert!(volume.mirrord(&["tracker", "ls", "vol"]).stdout.contains("256 KiB taken and not confirmed"));
    write(&volume, 3 * BLOCK, 10);
    let ranges = [mirror::base::ByteRange { offset: BLOCK, len: 3 * BLOCK - 1 }];
    taken.copied(&ranges).expect("copied");
    assert_eq!(taken.marks().expect("marks").words[0], 0b1001, "the last block only in part");
    drop(taken);
    wait_for("marks to go back", Duration::from_secs(10), || {
        list(&dir, "vol:day") == "0 65536\n196608 65536\n"
    });
    // A kill gives back what was copied too: nobody has confirmed it.
    let mut taken = take().expect("take");
    taken.copied(&[mirror::base::ByteRange { offset: 0, len: BLOCK }]).expect("copied");
    volume.kill();
    assert!(taken.confirm().is_err());
    volume.serve(&[]);
    // And whatever may have been lost in the kill.
    assert!(list(&dir, "vol:day").starts_with("0 "), "{}", list(&dir, "vol:day"));
    // Blocks that are still to be written in place again would stay in the tracker.
    wait_for("the blocks to be settled", Duration::from_secs(10), || volume.leg("a", "rewrite") == 0);
    let mut taken = take().expect("take");
    assert!(taken.marks().expect("marks").words[0] & 0b1001 == 0b1001);
    taken.confirm().expect("confirm");
    assert_eq!(list(&dir, "vol:day"), "");
}

/// Somebody's copy of the volume, kept by rotating its tracker.
struct Copy {
    dir: PathBuf,
    file: File,
    rounds: u32,
    copied: u64,
}

impl Copy {
    fn new(dir: &Dir) -> Self {
        let file = File::options().write(true).open(dir.image("copy.img", SIZE)).expect("copy");
        Self { dir: dir.path(""), file, rounds: 0, copied: 0 }
    }

    /// One epoch: rotate, then copy what the closed map names. A rotation that failed may have made its map.
    fn epoch(&mut self, dir: &Dir, volume: &Volume<'_>) -> bool {
        self.rounds += 1;
        let name = format!("epoch{}", self.rounds);
        let code = dirtymap(dir, &["rotate", "vol:day", &name]).code;
        let whole = self.dir.join(&name).exists();
        assert!(code != 0 || whole, "rotate ended with 0 and made nothing");
        let end = Instant::now() + Duration::from_secs(30);
        while whole && self.copy(dir, volume, &name).is_err() {
            assert!(Instant::now() < end, "the volume cannot be read");
            std::thread::sleep(Duration::from_millis(20));
        }
        code == 0
    }

    fn copy(&mut self, dir: &Dir, volume: &Volume<'_>, map: &str) -> Result<(), ()> {
        let mut client = connect(volume).map_err(drop)?;
        for line in list(dir, map).lines() {
            let (offset, len) = line.split_once(' ').expect("a range");
            let (offset, len): (u64, usize) = (offset.parse().expect("offset"), len.parse().expect("length"));
            let mut bytes = vec![0; len];
            client.read(offset, &mut bytes).map_err(drop)?;
            self.file.write_all_at(&bytes, offset).expect("copy");
            self.copied += len as u64;
        }
        Ok(())
    }
}

/// How long the load runs: some seconds, or `MIRROR_SOAK_SECONDS`.
fn soak(usual: u64) -> Duration {
    let asked = std::env::var("MIRROR_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(usual))
}

#[test]
fn done_a_tracker_rotated_every_100_ms_under_load_loses_nothing() {
    if !need(&["fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    let mut copy = Copy::new(&dir);
    let time = soak(4);
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-128k", "--iodepth=16"])
        .args([&format!("--uri={}", volume.uri()), &format!("--size={SIZE}"), "--time_based", "--fsync=64"])
        .args([
            &format!("--runtime={}", time.as_secs()),
            "--refill_buffers",
            "--randrepeat=0",
            "--output=fio.log",
        ])
        .current_dir(dir.path(""));
    let mut load = crate::support::Server::start(&mut fio, &dir.path("fio.out"));
    let end = Instant::now() + time + Duration::from_secs(30);
    while load.is_running() {
        assert!(Instant::now() < end, "fio does not end: {}", load.log());
        let next = Instant::now() + Duration::from_millis(100);
        assert!(copy.epoch(&dir, &volume), "a rotation failed: {}", volume.server().log());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    assert_eq!(load.code(), Some(0), "{}", load.log());
    assert!(copy.epoch(&dir, &volume));
    assert!(copy.rounds > 10 && copy.copied > SIZE, "{} epochs, {} bytes", copy.rounds, copy.copied);
    volume.stop();
    assert_equal(&dir.path("copy.img"), &dir.path("a.img"));
    assert_equal(&dir.path("b.img"), &dir.path("a.img"));
}

#[test]
fn done_a_daemon_killed_at_any_moment_of_a_rotation_loses_no_mark() {
    let dir = Dir::new();
    let mut volume = volume(&dir);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    let mut copy = Copy::new(&dir);
    let mut random = Random(17);
    let end = Instant::now() + soak(5);
    let mut kills = 0;
    while Instant::now() < end || kills < 3 {
        let over = AtomicBool::new(false);
        let after = Duration::from_micros(random.below(60_000));
        let pid = volume.server().pid().to_string();
        let uri = volume.uri();
        let seed = random.next();
        std::thread::scope(|scope| {
            scope.spawn(|| load(&uri, seed, &over));
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20) + after);
                Command::new("kill").args(["-KILL", &pid]).status().expect("kill");
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                // It may fail: the daemon is killed under it.
                copy.rotate_only(&dir);
            }
        });
        volume.kill();
        kills += 1;
        volume.serve(&[]);
        copy.catch_up(&dir, &volume);
    }
    assert!(copy.epoch(&dir, &volume));
    volume.stop();
    assert_equal(&dir.path("copy.img"), &dir.path("a.img"));
    assert_equal(&dir.path("b.img"), &dir.path("a.img"));
}

/// Writes until told to stop or the daemon is gone.
fn load(uri: &str, seed: u64, over: &AtomicBool) {
    let uri: mirror::nbd::uri::NbdUri = uri.parse().expect("uri");
    let options = ClientOptions { export: "vol".into(), ..ClientOptions::default() };
    let Ok(mut client) = Blocking::connect(&uri, options, Duration::from_secs(10)) else { return };
    let mut random = Random(seed);
    while !over.load(Ordering::Relaxed) {
        let len = 512 * (1 + random.below(64));
        let offset = random.below((SIZE - len) / 512) * 512;
        let byte = random.below(255) as u8;
        if client.write(offset, &vec![byte; len as usize], false).is_err() {
            return;
        }
    }
}

impl Copy {
    /// Only the rotation; its map is copied later.
    fn rotate_only(&mut self, dir: &Dir) {
        self.rounds += 1;
        dirtymap(dir, &["rotate", "vol:day", &format!("epoch{}", self.rounds)]);
    }

    /// Copies what maps were made so far name.
    fn catch_up(&mut self, dir: &Dir, volume: &Volume<'_>) {
        for round in 1..=self.rounds {
            let name = format!("epoch{round}");
            if self.dir.join(&name).exists() {
                self.copy(dir, volume, &name).expect("copy");
                std::fs::remove_file(self.dir.join(&name)).expect("remove");
            }
        }
    }
}
