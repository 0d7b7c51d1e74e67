//! Random trees and random histories, on four file systems: after every round the standby is strictly identical. The
//! judge is rsync, with checksums, hard links, ACLs and attributes; and our own verify, which sees flags too.
//!
//! `MIRROR_CFOR_RUNS=250 MIRROR_CFOR_SEED=7 cargo test random_histories` makes a thousand runs of another seed.

use crate::support::{Disk, Pair, Random, mutate, need, run, wanted};
use mirror::base::Class;

/// Rounds of one history.
const ROUNDS: u64 = 6;

fn histories(kind: &str, seed: u64, runs: u64) {
    let mut done = 0;
    let mut history = 0;
    while done < runs {
        // mkfs and mount cost more than a history: several on one disk.
        let disk = Disk::new(kind);
        for _ in 0..4 {
            let mut random = Random(seed ^ (history << 32));
            let name = |leaf: &str| format!("{history}.{leaf}");
            std::fs::create_dir(disk.path(&name("a"))).expect("mkdir");
            std::fs::create_dir(disk.path(&name("b"))).expect("mkdir");
            let inner = Pair::at(
                disk.path(&name("a")),
                disk.beside(&name("source")),
                disk.path(&name("b")),
                disk.beside(&name("standby")),
            );
            for round in 0..ROUNDS {
                mutate(&inner.source.root, &mut random, if round == 0 { 60 } else { 25 });
                let what = format!("{kind}, seed {seed}, history {history}, round {round}");
                inner.apply(&inner.dump()).unwrap_or_else(|e| panic!("{what}: {e}"));
                inner.judge(&what);
                done += 1;
            }
            history += 1;
            if done >= runs {
                break;
            }
        }
    }
}

fn on(kind: &str) {
    let tools = ["root", "rsync", "loop", "mkfs.xfs", "mkfs.btrfs", "mkfs.ext4"];
    if need(&tools) {
        let (runs, seed) = wanted(36);
        histories(kind, seed, runs);
    }
}

#[test]
fn done_random_histories_end_identical_on_tmpfs() {
    on("tmpfs");
}

#[test]
fn done_random_histories_end_identical_on_ext4() {
    on("ext4");
}

#[test]
fn done_random_histories_end_identical_on_xfs() {
    on("xfs");
}

#[test]
fn done_random_histories_end_identical_on_btrfs() {
    on("btrfs");
}

#[test]
fn withholding_one_dump_makes_the_judge_fail() {
    if !need(&["rsync"]) {
        return;
    }
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    std::fs::write(pair.source.root.join("f"), "one").expect("write");
    pair.apply(&pair.dump()).expect("first");
    pair.judge("first");
    std::fs::write(pair.source.root.join("f"), "two").expect("write");
    let withheld = pair.dump();
    assert!(pair.rsync().contains(" f\n") && !pair.differences().is_empty());
    std::fs::write(pair.source.root.join("g"), "three").expect("write");
    pair.apply(&pair.dump()).expect("a dump that begins at the same base has both");
    pair.judge("both");
    let error = pair.apply(&withheld).expect_err("of an old base");
    assert_eq!(error.class, Class::Damaged, "{error}");
    pair.judge("still");
}

#[test]
fn a_terabyte_of_hole_costs_nothing() {
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    let path = pair.source.root.join("sparse");
    let file = std::fs::File::create(&path).expect("create");
    file.set_len(1 << 40).expect("size");
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 1 << 39).expect("write");
    let bytes = pair.dump();
    assert!(bytes.len() < 300_000, "{}", bytes.len());
    pair.apply(&bytes).expect("apply");
    assert_eq!(pair.differences(), [""; 0]);
    let used = std::os::unix::fs::MetadataExt::blocks(
        &std::fs::metadata(pair.standby.root.join("sparse")).expect("stat"),
    );
    assert!(used < 4096, "{used} blocks of 512 bytes");
}

#[test]
fn stores_into_a_mapping_are_seen() {
    if !need(&["root", "loop", "mkfs.ext4", "xfs_io"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = Pair::new(&disk);
    let path = pair.source.root.join("mapped");
    std::fs::write(&path, vec![1; 200_000]).expect("write");
    for round in 0..3 {
        pair.apply(&pair.dump()).expect("apply");
        pair.judge(&format!("round {round}"));
        let store = format!("mwrite -S 0x5{round} 4096 5000");
        let path = path.to_string_lossy();
        run("xfs_io", &["-c", "mmap -rw 0 131072", "-c", &store, &path]).expect(0);
    }
}

#[test]
fn a_tree_too_deep_for_one_path_is_carried() {
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    let mut dir = std::fs::File::open(&pair.source.root).expect("root");
    let name = "d".repeat(200);
    for _ in 0..60 {
        rustix::fs::mkdirat(&dir, &*name, rustix::fs::Mode::from_raw_mode(0o755)).expect("mkdir");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &*name, flags, rustix::fs::Mode::empty()).expect("open").into();
    }
    pair.apply(&pair.dump()).expect("apply");
    assert_eq!(pair.differences(), [""; 0]);
    std::fs::rename(pair.source.root.join(&name), pair.source.root.join("top")).expect("rename");
    let report = pair.apply(&pair.dump()).expect("apply");
    assert_eq!((report.new, report.gone), (0, 0), "a directory rename is one");
    assert_eq!(pair.differences(), [""; 0]);
}
