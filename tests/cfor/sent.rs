//! Dumps as streams that `btrfs receive` takes: histories of trees on any file system, received as snapshots.

use super::received::{TOOLS, text};
use crate::support::{Disk, Pair, Random, Tool, bin, mutate_with_events, need, run, wanted};
use mirror::base::Class;
use mirror::capture::dump::DumpReport;
use mirror::capture::export::{export, moment_of};
use mirror::capture::store::{Store, load_index};
use mirror::capture::tree::Root;
use mirror::capture::{btrfs::ioctl as btrfs, scan::verify};
use std::fs;
use std::path::PathBuf;

/// A source on one disk, and a btrfs where its snapshots are received.
fn pair(kind: &str, name: &str) -> (Disk, Disk, Pair) {
    let (disk, far) = (Disk::new(kind), Disk::new("btrfs"));
    fs::create_dir(disk.path(name)).expect("mkdir");
    let pair = Pair::at(disk.path(name), disk.beside("source"), far.path("none"), far.beside("none"));
    (disk, far, pair)
}

fn stream(pair: &Pair) -> (DumpReport, Vec<u8>) {
    export(&pair.source, "the stream", Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

/// Has it received, and gives the snapshot.
fn receive(far: &Disk, pair: &Pair, report: &DumpReport, bytes: &[u8]) -> PathBuf {
    let file = far.beside("stream");
    fs::write(&file, bytes).expect("write");
    let out = run("btrfs", &["receive", "-q", "-f", &text(&file), &text(&far.path(""))]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let name = pair.source.root.file_name().expect("name").to_string_lossy().into_owned();
    far.path(&format!("{name}.{}", report.round))
}

fn acknowledge(pair: &Pair, report: &DumpReport) {
    let round = load_index(&pair.source.log.join(format!("round.{}", report.round))).expect("index").round;
    let store = Store::open(&pair.source.log).expect("store");
    store.acknowledge(&pair.source.standby, round).expect("acknowledged");
}

/// Both judges; no stage is left.
#[track_caller]
fn judge(pair: &mut Pair, snapshot: PathBuf, what: &str) {
    pair.standby.root = snapshot;
    assert_eq!(pair.rsync(), "", "{what}: rsync");
    let read = |path: &PathBuf| verify::read_tree(&Root::open(path).expect("root"), 0).expect("read");
    let all = verify::compare(&read(&pair.source.root), &read(&pair.standby.root)).expect("compare");
    assert!(all.is_empty(), "{what}: {}", all[0]);
}

fn histories(kind: &str) {
    if !need(&TOOLS) {
        return;
    }
    let (runs, seed) = wanted(12);
    for history in 0..runs.div_ceil(6) {
        let (_disk, far, mut pair) = pair(kind, "tree");
        let mut random = Random(seed ^ (history << 32) ^ 0xe4_0000);
        for round in 0..6 {
            let what = format!("{kind}, seed {seed}, history {history}, round {round}");
            // Flags of chattr(1) are not received.
            mutate_with_events(&pair.source.root, &mut random, if round == 0 { 60 } else { 25 });
            let (report, bytes) = stream(&pair);
            let snapshot = receive(&far, &pair, &report, &bytes);
            judge(&mut pair, snapshot, &what);
            if random.below(4) > 0 {
                acknowledge(&pair, &report);
            }
        }
    }
}

#[test]
fn done_sent_histories_are_received_identical_from_ext4() {
    histories("ext4");
}

#[test]
fn done_sent_histories_are_received_identical_from_xfs() {
    histories("xfs");
}

#[test]
fn done_sent_histories_are_received_identical_from_tmpfs() {
    histories("tmpfs");
}

#[test]
fn what_is_hard_to_send_is_received_identical() {
    if !need(&TOOLS) || !need(&["setfacl"]) {
        return;
    }
    let (_disk, far, mut pair) = pair("ext4", "odd \u{202e}name\n");
    let root = pair.source.root.clone();
    let at = |name: &str| root.join(name);
    let capability = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, rustix::fs::XattrFlags::empty()).expect("attribute");
    };
    // What is made in the root inherits a default ACL, and so would the stage of the next stream.
    run("setfacl", &["-d", "-m", "u:1:rwx", &text(&root)]).expect(0);
    fs::write(at("capable"), vec![1; 200_000]).expect("write");
    set("capable", "security.capability", &capability);
    set("capable", "user.large", &vec![7; 1500]);
    fs::write(at("uncapable"), vec![1; 200_000]).expect("write");
    set("uncapable", "security.capability", &capability);
    fs::write(at("suid"), "x").expect("write");
    run("chmod", &["4755", &text(&at("suid"))]).expect(0);
    fs::File::create(at("sparse")).and_then(|file| file.set_len(5 << 30)).expect("sparse");
    run("ln", &[&text(&at("sparse")), &text(&at("link"))]).expect(0);
    let (report, bytes) = stream(&pair);
    let snapshot = receive(&far, &pair, &report, &bytes);
    judge(&mut pair, snapshot, "whole");
    acknowledge(&pair, &report);
    // Each of these takes the capability, or the bit, away from who receives it.
    let write = |name: &str, offset: u64| {
        let file = fs::OpenOptions::new().write(true).open(at(name)).expect("open");
        std::os::unix::fs::FileExt::write_all_at(&file, b"written", offset).expect("write");
    };
    write("capable", 150_000);
    set("capable", "security.capability", &capability);
    write("uncapable", 150_000);
    write("sparse", 4 << 30);
    std::os::unix::fs::chown(at("suid"), Some(3), None).expect("chown");
    run("chmod", &["4755", &text(&at("suid"))]).expect(0);
    fs::write(at("new"), "inherits").expect("write");
    fs::create_dir(at("dir")).expect("mkdir");
    fs::rename(at("link"), at("dir/link")).expect("rename");
    let (report, bytes) = stream(&pair);
    assert!(report.base > 0 && bytes.len() < 1 << 20, "{report:?}");
    let snapshot = receive(&far, &pair, &report, &bytes);
    let received = btrfs::info(Root::open(&snapshot).expect("root").fd()).expect("info");
    assert!(received.read_only);
    judge(&mut pair, snapshot, "increment");
}

#[test]
fn an_increment_is_received_only_where_its_parent_is() {
    if !need(&TOOLS) {
        return;
    }
    let (_disk, far, pair) = pair("tmpfs", "tree");
    fs::write(pair.source.root.join("f"), "1").expect("write");
    let (report, whole) = stream(&pair);
    acknowledge(&pair, &report);
    fs::write(pair.source.root.join("f"), "2").expect("write");
    let (next, bytes) = stream(&pair);
    let index = load_index(&pair.source.log.join(format!("round.{}", next.round))).expect("index");
    let (of, again) = (moment_of(index.tree, index.round), moment_of(index.tree, index.round));
    assert_eq!((of, of.ctransid), (again, next.round), "it is made of tree and round alone");
    let file = far.beside("stream");
    fs::write(&file, &bytes).expect("write");
    let out = run("btrfs", &["receive", "-q", "-f", &text(&file), &text(&far.path(""))]);
    assert!(out.code != 0 && out.stderr.contains("parent"), "{}", out.stderr);
    receive(&far, &pair, &report, &whole);
    receive(&far, &pair, &next, &bytes);
    // Our own apply takes the same streams, by the same rule.
    fs::create_dir(far.path("b")).expect("mkdir");
    let ours = Pair::at(pair.source.root.clone(), far.beside("none"), far.path("b"), far.beside("b.log"));
    let take = |bytes: &[u8]| {
        mirror::capture::apply::apply(&ours.standby, Some(("the stream", &mut &bytes[..])), &mut |_| Ok(()))
    };
    assert_eq!(take(&bytes).expect_err("no parent").class, Class::Damaged);
    take(&whole).expect("whole");
    take(&bytes).expect("increment");
    ours.judge("received by ourselves");
}

#[test]
fn the_commands_of_the_manual_send_and_acknowledge_by_number() {
    if !need(&TOOLS) {
        return;
    }
    let (_disk, far, mut pair) = pair("tmpfs", "tree");
    let (root, log) = (text(&pair.source.root), text(&pair.source.log));
    for round in 1..=2 {
        fs::write(pair.source.root.join("f"), format!("{round}")).expect("write");
        let file = text(&far.beside("file"));
        let args = ["dump", &log, "--root", &root, "--format", "btrfs", "-o", &file, "--json"];
        let out = Tool::new(bin("cfor-log")).args(&args).run().expect(0);
        let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
        assert_eq!((&report["round"], &report["base"]), (&round.into(), &(round - 1).into()));
        assert_eq!(report["bytes"], fs::metadata(&file).expect("file").len());
        run("btrfs", &["receive", "-q", "-f", &file, &text(&far.path(""))]).expect(0);
        let number = round.to_string();
        Tool::new(bin("cfor-log")).args(&["ack", &log, "standby", &number]).run().expect(0);
    }
    judge(&mut pair, far.path("tree.2"), "both rounds");
    let left: Vec<_> =
        fs::read_dir(&log).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("export")), "{left:?}");
    let out = Tool::new(bin("cfor-log")).args(&["ack", &log, "standby", "77"]).run();
    assert!(out.code != 0, "a round that never was");
}
