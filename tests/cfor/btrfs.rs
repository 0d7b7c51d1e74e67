//! What btrfs itself says of two snapshots: dumps that look at nothing else, and the measure for what a recorder saw.

use crate::support::{
    CFOR_TOOLS, Disk, Pair, Random, Recording, Tool, bin, bytes_read, mutate, mutate_with_events, need,
    recorded, run, wanted,
};
use mirror::capture::btrfs::Replay;
use mirror::capture::dump::{DumpReport, dump};
use mirror::capture::live::number_of;
use mirror::capture::tree::Root;
use mirror::capture::{btrfs::ioctl as btrfs, live, scan};
use mirror::fslog::derive::Difference;
use mirror::fslog::sent::{Change, Sent};
use mirror::fslog::{Index, ObjectId, Ranges};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A source that is a subvolume, and a standby, on one disk; dumps compare snapshots.
fn compared(disk: &Disk) -> Pair {
    subvolume("create", &disk.path("a"));
    for name in ["b", "source"] {
        fs::create_dir(disk.path(name)).expect("mkdir");
    }
    let mut pair = Pair::at(disk.path("a"), disk.path("source"), disk.path("b"), disk.beside("standby"));
    pair.source.compare = true;
    pair
}

fn subvolume(verb: &str, path: &Path) {
    Tool::new("btrfs").args(&["subvolume", verb, &path.to_string_lossy()]).run().expect(0);
}

fn round(pair: &Pair) -> DumpReport {
    let (report, bytes) = dump(&pair.source, "the dump", Vec::new()).expect("dump");
    pair.apply(&bytes).expect("apply");
    report
}

fn snapshots(pair: &Pair) -> Vec<String> {
    let names = fs::read_dir(&pair.source.log).expect("list").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| {
        name.starts_with("snapshot") && Path::new(name).extension().is_none_or(|end| end != "id")
    });
    names.sort();
    names
}

fn is_there() -> bool {
    need(&CFOR_TOOLS) && need(&["btrfs"])
}

#[test]
fn done_compared_histories_end_identical() {
    if !is_there() {
        return;
    }
    let (runs, seed) = wanted(16);
    let disk = Disk::new("btrfs");
    let pair = compared(&disk);
    let mut random = Random(seed ^ 0xb7_0000);
    for run in 0..runs {
        // Everything: chattr, stores into mappings, white-outs, whatever a recorder does not see.
        mutate(&pair.source.root, &mut random, if run == 0 { 60 } else { 25 });
        let what = format!("seed {seed}, run {run}");
        let report = round(&pair);
        assert_eq!(report.scanned.is_some(), run == 0, "{what}: {report:?}");
        pair.judge(&what);
        assert_eq!(snapshots(&pair).len(), 1, "{what}: that of the round that was acknowledged");
    }
}

#[test]
fn done_a_dump_of_compared_snapshots_reads_what_was_written() {
    if !is_there() || !need(&["strace"]) {
        return;
    }
    let disk = Disk::new("btrfs");
    let pair = compared(&disk);
    let file = pair.source.root.join("large");
    fs::write(&file, vec![7; 64 << 20]).expect("write");
    fs::write(pair.source.root.join("other"), vec![7; 8 << 20]).expect("write");
    round(&pair);
    let open = fs::OpenOptions::new().write(true).open(&file).expect("open");
    for at in [3, 20_000_000, 60_000_000] {
        open.write_all_at(b"changed", at).expect("write");
    }
    run("touch", &["-d", "2001-01-01", &pair.source.root.join("other").to_string_lossy()]).expect(0);
    let (out, read) = bytes_read(&disk, &pair, &["--backend", "btrfs"]);
    assert!(!out.stderr.contains("scanned"), "{}", out.stderr);
    assert!(read <= 4 * (128 << 10), "{read} bytes were read");
    let dump = fs::read(disk.beside("dump")).expect("dump");
    pair.apply(&dump).expect("apply");
    pair.judge("three blocks");
}

#[test]
fn a_snapshot_that_is_gone_or_another_owes_a_scan() {
    if !is_there() {
        return;
    }
    let disk = Disk::new("btrfs");
    let pair = compared(&disk);
    let change = |text: &str| fs::write(pair.source.root.join("f"), text).expect("write");
    let why = || round(&pair).scanned.unwrap_or_default();
    change("one");
    assert_eq!(why(), "the standby has no round yet");
    change("two");
    assert_eq!(why(), "");
    let kept = pair.source.log.join(&snapshots(&pair)[0]);
    subvolume("delete", &kept);
    change("three");
    assert!(why().contains("no snapshot is kept of round 2"));
    pair.judge("the snapshot was removed");
    change("four");
    assert_eq!(why(), "");
    // Another snapshot of the same name, which has what nobody sent yet.
    let kept = pair.source.log.join(&snapshots(&pair)[0]);
    change("five");
    subvolume("delete", &kept);
    let args = ["subvolume", "snapshot", "-r"];
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Tool::new("btrfs").args(&args).args(&[&text(&pair.source.root), &text(&kept)]).run().expect(0);
    assert!(why().contains("another snapshot"));
    pair.judge("the snapshot was replaced");
    // The same one, changed.
    change("six");
    let kept = text(&pair.source.log.join(&snapshots(&pair)[0]));
    run("btrfs", &["property", "set", &kept, "ro", "false"]).expect(0);
    fs::write(Path::new(&kept).join("f"), "six").expect("write");
    run("sync", &[]).expect(0);
    run("btrfs", &["property", "set", &kept, "ro", "true"]).expect(0);
    assert!(why().contains("another snapshot"));
    pair.judge("the snapshot was changed");
}

#[test]
fn snapshots_are_kept_until_their_round_is_acknowledged_but_not_any_number() {
    if !is_there() {
        return;
    }
    let disk = Disk::new("btrfs");
    let pair = compared(&disk);
    fs::write(pair.source.root.join("f"), "0").expect("write");
    round(&pair);
    for text in ["1", "2", "3", "4", "5", "6"] {
        fs::write(pair.source.root.join("f"), text).expect("write");
        let (report, _) = dump(&pair.source, "x", Vec::new()).expect("dump");
        assert_eq!(report.scanned, None, "that of round 1 is kept, however many follow");
    }
    assert_eq!(snapshots(&pair), ["snapshot.1", "snapshot.4", "snapshot.5", "snapshot.6", "snapshot.7"]);
    // A dump that fails leaves none.
    let mut failing = pair.source.clone();
    failing.barrier = Some("[ $MIRROR_PHASE != post-dump ]".to_owned());
    dump(&failing, "x", Vec::new()).expect_err("its barrier fails");
    assert_eq!(snapshots(&pair).len(), 5);
    assert_eq!(round(&pair).scanned, None);
    assert_eq!(snapshots(&pair), ["snapshot.8"]);
    pair.judge("after all of them");
}

#[test]
fn a_tree_that_is_no_subvolume_or_has_one_is_refused() {
    if !is_there() {
        return;
    }
    let disk = Disk::new("btrfs");
    let mut pair = compared(&disk);
    subvolume("create", &pair.source.root.join("beneath"));
    let refused = |pair: &Pair, text: &str| {
        let error = dump(&pair.source, "x", Vec::new()).expect_err("refused");
        assert_eq!(error.class, mirror::base::Class::Refused, "{error}");
        assert!(error.message.contains(text), "{error}");
        assert_eq!(snapshots(pair), [""; 0]);
    };
    refused(&pair, "a subvolume is beneath it");
    fs::create_dir(disk.path("plain")).expect("mkdir");
    pair.source.root = disk.path("plain");
    refused(&pair, "no subvolume of btrfs");
}

#[test]
fn seed_compares_the_snapshots_of_its_rounds() {
    if !is_there() {
        return;
    }
    let disk = Disk::new("btrfs");
    let pair = compared(&disk);
    fs::write(pair.source.root.join("f"), vec![9; 300_000]).expect("write");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (root, log, to) = (&pair.source.root, &pair.source.log, &pair.standby.root);
    let args = ["seed", "--backend", "btrfs", "--json", "--root", &text(root), "--log", &text(log)];
    let target = ["--target-log", &text(&disk.beside("standby")), &text(to)];
    let out = Tool::new(bin("cfor-log")).args(&args).args(&target).run().expect(0);
    let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    let scanned: Vec<_> =
        report["rounds"].as_array().expect("rounds").iter().map(|r| &r["scanned"]).collect();
    assert!(scanned.len() > 1 && scanned[1..].iter().all(|why| why.is_null()), "{scanned:?}");
    pair.judge("seeded");
}

/// A read-only snapshot of the whole file system, and the index of the tree `a` in it.
fn moment(disk: &Disk, number: u64, base: &Index) -> (Root, Index) {
    let (top, name) = (Root::open(&disk.path("")).expect("top"), format!("moment{number}"));
    let moments = Root::open(&disk.path("moments")).expect("moments");
    btrfs::snapshot(top.fd(), moments.fd(), name.as_bytes()).expect("snapshot");
    let at = disk.path("moments").join(name);
    let tree = Root::open(&at.join("a")).expect("tree");
    (Root::open(&at).expect("snapshot"), scan::scan(&tree, base, 0).expect("scan"))
}

/// What btrfs says of the tree `a` between two moments: its own list of commands, with paths beneath `a`.
fn stream(before: &Root, now: &Root) -> Vec<Change> {
    let parent = btrfs::info(before.fd()).expect("info").number;
    let (from, to) = std::io::pipe().expect("pipe");
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || btrfs::send(now.fd(), parent, to.as_fd()));
        let mut sent = Sent::new("the stream", std::io::BufReader::new(from)).expect("stream");
        let mut changes = Vec::new();
        while let Some(change) = sent.next_change().expect("command") {
            changes.extend(within(change));
        }
        sending.join().expect("thread").expect("send");
        changes
    })
}

/// A command with its paths beneath `a`; names that are out of the way for a while are in its root then.
fn within(change: Change) -> Option<Change> {
    let strip = |path: Vec<u8>| match path.strip_prefix(b"a/") {
        Some(rest) => Some(rest.to_vec()),
        None if path.starts_with(b"o") => Some(path),
        None if path == b"a" => Some(Vec::new()),
        None => None,
    };
    Some(match change {
        Change::Begin { .. } | Change::End => return None,
        Change::Make { path, kind } => Change::Make { path: strip(path)?, kind },
        Change::Rename { from, to } => Change::Rename { from: strip(from)?, to: strip(to)? },
        Change::Link { path, of } => Change::Link { path: strip(path)?, of: strip(of)? },
        Change::Unlink { path } => Change::Unlink { path: strip(path)? },
        Change::Data { path, range } => Change::Data { path: strip(path)?, range },
        Change::Truncate { path, size } => Change::Truncate { path: strip(path)?, size },
        Change::Meta { path, mask } => Change::Meta { path: strip(path)?, mask },
    })
}

#[test]
fn done_the_recorder_saw_all_that_btrfs_says() {
    if !is_there() {
        return;
    }
    let (runs, seed) = wanted(12);
    let disk = Disk::new("btrfs");
    let pair = recorded(&disk);
    subvolume("create", &disk.path("moments"));
    let mut random = Random(seed ^ 0x0b_0000);
    let _recorder = Recording::start(&pair);
    mutate_with_events(&pair.source.root, &mut random, 60);
    let far = pair.source.log.join("recorder.sock");
    assert!(far.exists());
    let nothing = scan::nothing().expect("index");
    let (mut before, mut base) = moment(&disk, 0, &nothing);
    let (mut compared, mut written) = (0, 0);
    for run in 1..=runs {
        live::rotate(&pair.source.log, run * 2 - 1).expect("asked").expect("a recorder");
        mutate_with_events(&pair.source.root, &mut random, 25);
        live::rotate(&pair.source.log, run * 2).expect("asked").expect("a recorder");
        let ours = live::since(&pair.source.log, run * 2 - 1, run * 2).expect("recorded");
        let (now, index) = moment(&disk, run, &base);
        let what = format!("seed {seed}, run {run}");

        let mut replay = Replay::new(&base);
        for change in stream(&before, &now) {
            replay.add(&change).expect("replay");
        }
        // Names: what is another entry in the end by the stream, is by the index too, and the recorder said so.
        let difference = Difference::of(&base, &index);
        let known = |dir: &ObjectId| base.objects.contains_key(dir);
        let mut indexed = BTreeSet::new();
        for (dir, name) in difference.named.keys().chain(difference.unnamed.keys()) {
            if known(dir) && index.objects.contains_key(dir) {
                indexed.insert((*dir, name.clone()));
            }
        }
        let renamed = replay.renamed();
        let said = renamed.keys().filter(|(dir, _)| index.objects.contains_key(dir));
        let said: Vec<_> = said.map(|(dir, name)| (*dir, name.to_vec())).collect();
        assert_eq!(
            said,
            indexed.into_iter().collect::<Vec<_>>(),
            "{what}: the names of btrfs and of the scan"
        );
        for (dir, name) in &said {
            let number = number_of(&base.objects[dir].stamp.handle);
            let shown = mirror::fslog::show_path(name);
            assert!(
                ours.names.contains(&(number, name.clone())),
                "{what}: the name {shown} in {dir} was not seen"
            );
            compared += 1;
        }
        // Bytes: what the stream names lies in what the recorder named.
        for (number, theirs) in &replay.state().files {
            let gone = !index.objects.values().any(|object| number_of(&object.stamp.handle) == *number);
            if gone || theirs.ranges.is_empty() {
                continue;
            }
            let file =
                ours.files.get(number).unwrap_or_else(|| panic!("{what}: {number} was written to unseen"));
            let mut beyond = Ranges::default();
            theirs.ranges.iter().for_each(|range| beyond.insert(range));
            beyond.clip(file.limit);
            assert!(file.dirty().covers(&beyond), "{what}: {number}: {beyond:?} past {:?}", file.dirty());
            written += 1;
        }
        (before, base) = (now, index);
    }
    assert!(compared > 20 && written > 5, "{compared} names and {written} files were compared");
}
