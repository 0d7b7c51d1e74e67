//! Long work on trees as it is seen from outside: what it would do, how far it is, how it ends early, and what it reads
//! while others write.

use crate::support::{Dir, Disk, Pair, Tool, bin, need, wait_for};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn tool(args: &[&str]) -> Tool {
    Tool::new(bin("cfor-log")).args(args)
}

fn trees() -> (Dir, impl Fn(&str) -> String) {
    let dir = Dir::new();
    for name in ["a", "b"] {
        fs::create_dir(dir.path(name)).expect("mkdir");
    }
    let base = dir.path("x").parent().expect("parent").to_owned();
    (dir, move |name: &str| base.join(name).to_string_lossy().into_owned())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let (dir, path) = trees();
    fs::write(dir.path("a").join("f"), "x".repeat(200_000)).expect("write");
    let (a, b, source, standby, dump) = (path("a"), path("b"), path("source"), path("standby"), path("dump"));
    let plan = tool(&["dump", &source, "--root", &a, "-n"]).run().expect(0);
    assert!(
        plan.stdout.contains("create f (file)") && plan.stdout.contains("write f 0..200000"),
        "{}",
        plan.stdout
    );
    assert!(!dir.path("source").exists(), "nothing was made");
    let planned = json(&tool(&["dump", &source, "--root", &a, "-n", "--json"]).run().expect(0).stdout);
    let done = json(&tool(&["dump", &source, "--root", &a, "-o", &dump, "--json"]).run().expect(0).stdout);
    for key in ["base", "round", "new", "changed", "names", "data", "bytes"] {
        assert_eq!(planned[key], done[key], "{key}: the plan and what was done");
    }
    assert_eq!(planned["operations"][0]["op"], "create");

    let apply = ["apply", &dump, "--root", &b, "--log", &standby];
    let planned = json(&tool(&apply).args(&["-n", "--json"]).run().expect(0).stdout);
    assert_eq!(fs::read_dir(&b).expect("b").count(), 0, "nothing was applied");
    assert!(!dir.path("standby").exists(), "nothing was made");
    let done = json(&tool(&apply).args(&["--json"]).run().expect(0).stdout);
    assert_eq!(planned, done);
    let seed =
        ["seed", "--root", &a, "--log", &path("other"), "--target-log", &path("ts"), &path("b2"), "-n"];
    fs::create_dir(dir.path("b2")).expect("mkdir");
    assert!(tool(&seed).run().expect(0).stdout.contains("create f (file)"));
    assert!(!dir.path("other").exists());
}

#[test]
fn every_verb_gives_a_summary_in_json() {
    let (dir, path) = trees();
    fs::write(dir.path("a").join("f"), "one").expect("write");
    let (a, b, source, standby, dump) = (path("a"), path("b"), path("source"), path("standby"), path("dump"));
    let schema = |args: &[&str], name: &str| {
        let out = tool(args).run().expect(0);
        let document = json(&out.stdout);
        assert_eq!(document["schema"], name);
        assert!(out.stdout.starts_with("{\"schema\":"), "{}", out.stdout);
        document
    };
    schema(&["scan", "--root", &a, "-o", &path("i"), "--json"], "cfor-scan/1");
    schema(&["dump", &source, "--root", &a, "-o", &dump, "--json"], "cfor-dump/1");
    let applied = schema(&["apply", &dump, "--root", &b, "--log", &standby, "--json"], "cfor-apply/1");
    let round = applied["round"].as_str().expect("round").to_owned();
    assert_eq!(schema(&["ack", &source, "standby", &round, "--json"], "cfor-ack/1")["round"], round.as_str());
    schema(&["show", &dump, "--json"], "cfor-show/1");
    schema(&["stat", &source, "--json"], "cfor-stat/1");
    schema(&["verify", "--root", &b, "--against", &a, "--json"], "cfor-verify/1");
    let log = path("source/round.1.log");
    let merged = schema(&["merge", &log, "-o", &path("m"), "--json"], "cfor-merge/1");
    assert_eq!(merged["names"], 1);
    schema(&["rotate", &path("m"), &path("r"), "--json"], "cfor-rotate/1");
    tool(&["merge", &log, "--json"]).run().fails("cfor-log", 2, "cannot both go");
}

#[test]
fn progress_goes_to_a_descriptor_and_sigusr1_is_answered() {
    let (dir, path) = trees();
    fs::write(dir.path("a").join("f"), vec![7; 3 << 20]).expect("write");
    let script = format!(
        "exec {} dump {} --root {} -q --progress=3 3>{} | {{ sleep 0.5; cat >/dev/null; }}",
        bin("cfor-log").display(),
        path("source"),
        path("a"),
        path("progress")
    );
    Tool::new("/bin/sh").args(&["-c", &script]).run().expect(0);
    let text = fs::read_to_string(dir.path("progress")).expect("progress");
    let lines: Vec<_> = text.lines().map(json).collect();
    assert!(lines.iter().all(|line| line["schema"] == "mirror-progress/1"), "{text}");
    assert!(lines.iter().any(|line| line["total"] == 3 << 20), "{text}");

    // A dump that never comes: it waits, answers, and ends by the signal that is sent.
    let mut child = Command::new(bin("cfor-log"))
        .args(["apply", "--root", &path("b"), "--log", &path("standby")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(dir.path("said")).expect("file"))
        .spawn()
        .expect("start");
    let _open = child.stdin.take();
    let pid = rustix::process::Pid::from_child(&child);
    let lock = dir.path("standby/lock");
    wait_for("the lock of the standby", Duration::from_secs(20), || lock.exists());
    let said = || fs::read_to_string(dir.path("said")).expect("said");
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("kill");
    wait_for("an answer", Duration::from_secs(20), || said().contains("taking the dump in"));
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let status = child.wait().expect("reap");
    assert_eq!(status.signal(), Some(15), "{}", said());
    assert!(
        said().contains("stopped by signal 15; nothing is lost\ntry: cfor-log apply --redo"),
        "{}",
        said()
    );
}

#[test]
fn a_dump_that_is_interrupted_ends_the_barrier_and_is_begun_again() {
    let (dir, path) = trees();
    fs::write(dir.path("a").join("f"), vec![7; 8 << 20]).expect("write");
    let said = dir.path("said");
    // Nobody reads the pipe: the dump is stuck inside the barrier when it is interrupted.
    let mut child = Command::new(bin("cfor-log"))
        .args(["dump", &path("source"), "--root", &path("a"), "--barrier"])
        .arg(format!("echo $MIRROR_PHASE >> {}", said.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let phases = || fs::read_to_string(&said).unwrap_or_default();
    wait_for("the barrier", Duration::from_secs(20), || phases().contains("dump\n"));
    std::thread::sleep(Duration::from_millis(200));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("kill");
    assert_eq!(child.wait().expect("reap").signal(), Some(2));
    assert_eq!(phases(), "pre-dump\ndump\nabort-dump\n");
    tool(&["dump", &path("source"), "--root", &path("a"), "-o", &path("dump")]).run().expect(0);
    tool(&["apply", &path("dump"), "--root", &path("b"), "--log", &path("standby"), "--verify"])
        .run()
        .expect(0);
}

#[test]
fn an_interrupted_apply_goes_on_where_it_was() {
    let (dir, path) = trees();
    for at in 0..400 {
        fs::write(dir.path("a").join(format!("f{at}")), format!("{at}").repeat(9000)).expect("write");
    }
    tool(&["dump", &path("source"), "--root", &path("a"), "-o", &path("dump")]).run().expect(0);
    let args = ["apply", &path("dump"), "--root", &path("b"), "--log", &path("standby")];
    let mut child = Command::new(bin("cfor-log"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let stage = dir.path("b/.cfor-log.stage");
    wait_for("the stage", Duration::from_secs(20), || {
        stage.exists() || !matches!(child.try_wait(), Ok(None))
    });
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let status = child.wait().expect("reap");
    assert!(status.signal() == Some(15) || status.success(), "{status}");
    let redo = ["apply", "--redo", "--root", &path("b"), "--log", &path("standby")];
    tool(&redo).run().expect(0);
    tool(&args).run().expect(0);
    tool(&["verify", "--root", &path("b"), "--against", &path("a")]).run().expect(0);
}

/// A pair on a disk; the source remembers its rounds on the same disk, as clones and snapshots need it.
fn on_one_disk(disk: &Disk) -> Pair {
    for name in ["b", "source"] {
        fs::create_dir(disk.path(name)).expect("mkdir");
    }
    Pair::at(disk.path("a"), disk.path("source"), disk.path("b"), disk.beside("standby"))
}

/// Dumps while a file is overwritten as soon as the barrier is left; the dump has what was there inside.
fn what_was_inside_the_barrier(mut pair: Pair, snapshot: bool) {
    let file = pair.source.root.join("f");
    fs::write(&file, vec![1; 5 << 20]).expect("write");
    let path = file.display();
    let rewrite = format!(
        "[ $MIRROR_PHASE != post-dump ] || head -c 5242880 /dev/zero | tr '\\0' '\\2' | dd of={path} conv=notrunc status=none"
    );
    (pair.source.barrier, pair.source.snapshot) = (Some(rewrite), snapshot);
    pair.apply(&pair.dump()).expect("apply");
    assert!(fs::read(&file).expect("read").iter().all(|byte| *byte == 2));
    let there = fs::read(pair.standby.root.join("f")).expect("read");
    assert!(
        there.len() == 5 << 20 && there.iter().all(|byte| *byte == 1),
        "what was there inside the barrier"
    );
    for leaf in ["clones", "snapshot"] {
        assert!(!pair.source.log.join(leaf).exists(), "{leaf} is left");
    }
    pair.source.barrier = None;
    pair.apply(&pair.dump()).expect("apply");
    pair.judge("what changed since");
}

#[test]
fn files_are_cloned_inside_the_barrier_and_read_after_it() {
    if !need(&["root", "loop", "mkfs.xfs", "mkfs.btrfs", "rsync"]) {
        return;
    }
    for kind in ["xfs", "btrfs"] {
        let disk = Disk::new(kind);
        fs::create_dir(disk.path("a")).expect("mkdir");
        what_was_inside_the_barrier(on_one_disk(&disk), false);
    }
    // Without clones the file is read inside.
    let disk = Disk::new("ext4");
    fs::create_dir(disk.path("a")).expect("mkdir");
    what_was_inside_the_barrier(on_one_disk(&disk), false);
}

#[test]
fn a_snapshot_is_read_while_the_tree_goes_on() {
    if !need(&["root", "loop", "mkfs.btrfs", "rsync", "btrfs"]) {
        return;
    }
    let disk = Disk::new("btrfs");
    let subvolume = disk.path("a").to_string_lossy().into_owned();
    Tool::new("btrfs").args(&["subvolume", "create", &subvolume]).run().expect(0);
    let pair = on_one_disk(&disk);
    fs::create_dir(pair.source.root.join("d")).expect("mkdir");
    fs::write(pair.source.root.join("d/x"), "x").expect("write");
    what_was_inside_the_barrier(pair, true);

    // Files are the same objects in the snapshot and in the tree.
    let pair = Pair::at(disk.path("a"), disk.path("source"), disk.path("b"), disk.beside("standby"));
    let mut snapshots = pair.source.clone();
    snapshots.snapshot = true;
    fs::write(pair.source.root.join("d/y"), "y").expect("write");
    let (report, bytes) = mirror::capture::dump::dump(&snapshots, "the dump", Vec::new()).expect("dump");
    assert_eq!((report.new, report.gone), (1, 0), "{report:?}");
    pair.apply(&bytes).expect("apply");
    pair.judge("with snapshots");

    let plain = Disk::plain();
    fs::create_dir(plain.path("a")).expect("mkdir");
    let mut pair = on_one_disk(&plain);
    pair.source.snapshot = true;
    let error = mirror::capture::dump::dump(&pair.source, "x", Vec::new()).expect_err("no btrfs");
    assert!(error.message.contains("no subvolume of btrfs"), "{error}");
}

#[test]
fn seed_reads_snapshots_and_leaves_none() {
    if !need(&["root", "loop", "mkfs.btrfs", "btrfs"]) {
        return;
    }
    let disk = Disk::new("btrfs");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (a, b) = (text(&disk.path("a")), text(&disk.path("b")));
    Tool::new("btrfs").args(&["subvolume", "create", &a]).run().expect(0);
    for at in 0..50 {
        fs::write(disk.path("a").join(format!("f{at}")), format!("{at}").repeat(5000)).expect("write");
    }
    fs::create_dir(disk.path("b")).expect("mkdir");
    let (log, target) = (text(&disk.path("source")), text(&disk.beside("standby")));
    let args = ["seed", "--snapshot", "--root", &a, "--log", &log, "--target-log", &target, &b];
    tool(&args).run().expect(0);
    tool(&["verify", "--root", &b, "--against", &a]).run().expect(0);
    assert!(!disk.path("source").join("snapshot").exists());
}

#[test]
fn times_of_access_are_carried_where_they_are_asked_for() {
    if !need(&["root", "loop", "mkfs.ext4"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let mut pair = Pair::new(&disk);
    pair.source.atime = true;
    let file = pair.source.root.join("f");
    fs::create_dir(pair.source.root.join("d")).expect("mkdir");
    fs::write(&file, "x".repeat(300_000)).expect("write");
    let old = std::time::UNIX_EPOCH + Duration::new(1_000_000, 123_456_789);
    let touch = |path: &Path, time| {
        let times = fs::FileTimes::new().set_accessed(time);
        File::open(path).expect("open").set_times(times).expect("times");
    };
    touch(&file, old);
    touch(&pair.source.root.join("d"), old);
    pair.apply(&pair.dump()).expect("apply");
    let atime = |root: &Path, name: &str| {
        let data = fs::metadata(root.join(name)).expect("stat");
        (data.atime(), data.atime_nsec())
    };
    for name in ["f", "d"] {
        assert_eq!(atime(&pair.source.root, name), (1_000_000, 123_456_789), "the dump left no trace");
        assert_eq!(atime(&pair.standby.root, name), (1_000_000, 123_456_789), "{name}");
    }
    // A read changes nothing else: the dump has the time, and no data.
    pair.apply(&pair.dump()).expect("what was unsure");
    fs::read(&file).expect("read");
    let now = atime(&pair.source.root, "f");
    assert_ne!(now.0, 1_000_000, "relatime: older than the modification");
    let report = pair.apply(&pair.dump()).expect("apply");
    assert_eq!((report.changed, report.data), (1, 0));
    assert_eq!(atime(&pair.standby.root, "f"), now);
}

#[test]
fn a_number_of_an_inode_that_is_used_again_is_another_object() {
    if !need(&["root", "loop", "mkfs.ext4", "mkfs.xfs", "rsync"]) {
        return;
    }
    for kind in ["tmpfs", "ext4", "xfs"] {
        let disk = Disk::new(kind);
        let pair = Pair::new(&disk);
        let at = |name: &str| pair.source.root.join(name);
        let inode = |name: &str| fs::symlink_metadata(at(name)).expect("stat").ino();
        fs::write(at("old"), "one").expect("write");
        fs::hard_link(at("old"), at("also")).expect("link");
        pair.apply(&pair.dump()).expect("apply");
        let mut reused = 0;
        for round in 0..8 {
            let number = inode("old");
            fs::remove_file(at("old")).expect("rm");
            let _ = fs::remove_file(at("also"));
            // Sometimes as another kind of thing, with the same name.
            let written = format!("{round}");
            if round % 3 == 2 {
                std::os::unix::fs::symlink(&written, at("old")).expect("link");
            } else {
                File::create(at("old"))
                    .and_then(|mut file| file.write_all(written.as_bytes()))
                    .expect("write");
            }
            reused += u32::from(inode("old") == number);
            let report = pair.apply(&pair.dump()).expect("apply");
            assert_eq!(
                (report.new, report.gone),
                (1, 1),
                "{kind}, round {round}: a new object, whatever its number"
            );
            pair.judge(&format!("{kind}, round {round}"));
        }
        assert!(reused > 0 || kind != "ext4", "{kind} used no number again");
    }
}

#[test]
fn the_changed_bytes_of_files_are_found_on_the_device() {
    if !need(&["root", "loop", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"]) {
        return;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    for kind in ["ext4", "xfs", "btrfs"] {
        let disk = Disk::new(kind);
        let pair = Pair::new(&disk);
        let file = pair.source.root.join("f");
        fs::write(&file, vec![1; 3 << 20]).expect("write");
        pair.apply(&pair.dump()).expect("apply");
        let marker = b"a line that is nowhere else on this disk".repeat(3000);
        let open = fs::OpenOptions::new().write(true).open(&file).expect("open");
        std::os::unix::fs::FileExt::write_all_at(&open, &marker, 1 << 20).expect("write");
        pair.apply(&pair.dump()).expect("apply");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let at = format!(" {} ", text(&disk.path("")).trim_end_matches('/'));
        let line = mounts.lines().find(|line| line.contains(&at)).expect("mounted");
        let device = line.split(' ').next().expect("device").to_owned();
        let (log, root, map) = (text(&pair.source.log), text(&pair.source.root), text(&disk.beside("map")));
        let args = ["map", &log, &device, "--root", &root, "--block", "4K", "-o", &map];
        if kind == "btrfs" {
            tool(&args).run().fails("cfor-log", 3, "is on device");
            continue;
        }
        let out = tool(&args).args(&["--json"]).run().expect(0);
        assert_eq!(json(&out.stdout)["schema"], "cfor-map/1");
        // What is on the device where the map is dirty has all of the marker, and is not much more.
        let list = Tool::new(bin("dirtymap")).args(&["show", "--list", &map]).run().expect(0);
        let image = File::open(disk.beside("img")).expect("image");
        let mut inside = Vec::new();
        for line in list.stdout.lines() {
            let (start, len) = line.split_once(' ').expect("OFFSET LENGTH");
            let (start, len): (u64, usize) = (start.parse().expect("offset"), len.parse().expect("length"));
            let mut bytes = vec![0; len];
            std::os::unix::fs::FileExt::read_exact_at(&image, &mut bytes, start).expect("read");
            inside.extend(bytes);
        }
        let found = inside.windows(40).filter(|piece| *piece == &marker[..40]).count();
        assert_eq!(found, 3000, "{kind}");
        assert!(inside.len() < 8 << 20, "{kind}: {} bytes are dirty", inside.len());
    }
}
