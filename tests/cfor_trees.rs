//! Random trees and random histories, on four file systems: after every round the standby is strictly identical. The
//! judge is rsync, with checksums, hard links, ACLs and attributes; and our own verify, which sees flags too.
//!
//! `MIRROR_CFOR_RUNS=250 MIRROR_CFOR_SEED=7 cargo test random_histories` makes a thousand runs of another seed.

use crate::support::{Disk, Random, Tool, mutate, need, run};
use mirror::base::Class;
use mirror::capture::apply::{ApplyOptions, ApplyReport, apply};
use mirror::capture::dump::{DumpOptions, dump};
use mirror::capture::scan::verify;
use mirror::capture::store::{Store, load_index};
use mirror::capture::tree::Root;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A source and a standby on one disk.
pub struct Pair {
    pub source: DumpOptions,
    pub standby: ApplyOptions,
}

impl Pair {
    /// Two empty trees.
    pub fn new(disk: &Disk) -> Self {
        for name in ["a", "b"] {
            std::fs::create_dir(disk.path(name)).expect("mkdir");
        }
        Self::at(disk.path("a"), disk.beside("source"), disk.path("b"), disk.beside("standby"))
    }

    /// These trees, and where both sides remember their rounds.
    pub fn at(a: PathBuf, source: PathBuf, b: PathBuf, standby: PathBuf) -> Self {
        let far = "far".parse().expect("name");
        let standby = ApplyOptions { privileged: true, ..ApplyOptions::new(b, standby) };
        Self { source: DumpOptions::new(a, source, far), standby }
    }

    /// The bytes of the next dump.
    pub fn dump(&self) -> Vec<u8> {
        dump(&self.source, "the dump", Vec::new()).expect("dump").1
    }

    /// Applies a dump, and acknowledges it.
    pub fn apply(&self, bytes: &[u8]) -> mirror::base::Result<ApplyReport> {
        let report = apply(&self.standby, Some(("the dump", &mut &bytes[..])), &mut |_| Ok(()))?;
        self.acknowledge(&report);
        Ok(report)
    }

    /// The source knows what the standby has.
    pub fn acknowledge(&self, report: &ApplyReport) {
        let store = Store::open(&self.source.log).expect("store");
        store.acknowledge(&self.source.standby, report.round.parse().expect("round")).expect("acknowledged");
    }

    /// In what rsync thinks the trees differ.
    pub fn rsync(&self) -> String {
        let dir = |path: &Path| format!("{}/", path.display());
        let args = ["-naHAX", "--devices", "--specials", "--checksum", "--delete", "--itemize-changes"];
        // ACLs once, by -A: as attributes they are others on each file system. The first rule is what rsync does anyway.
        let args = [&args[..], &["--filter=-x system.*", "--filter=-x trusted.SGI_ACL_*"]].concat();
        let (a, b) = (dir(&self.source.root), dir(&self.standby.root));
        let out =
            Tool::new("rsync").args(&args).args(&[&a, &b]).limit(Duration::from_secs(300)).run().expect(0);
        out.stdout
    }

    /// In what we think they differ; both are read from end to end.
    pub fn differences(&self) -> Vec<String> {
        let read = |path: &PathBuf| verify::read_tree(&Root::open(path).expect("root"), 0).expect("read");
        let (a, b) = (read(&self.source.root), read(&self.standby.root));
        let all = verify::compare(&a, &b).expect("compare");
        all.iter().map(ToString::to_string).collect()
    }

    /// Both judges, and the standby's own memory.
    #[track_caller]
    pub fn judge(&self, what: &str) {
        assert_eq!(self.rsync(), "", "{what}: rsync");
        assert_eq!(self.differences(), [""; 0], "{what}: verify");
        let remembered = load_index(&self.standby.log.join("index")).expect("index");
        let found = verify::read_tree(&Root::open(&self.standby.root).expect("root"), 0).expect("read");
        let all = verify::compare(&remembered, &found).expect("compare");
        assert!(all.is_empty(), "{what}: the index of the standby: {}", all[0]);
    }
}

/// How many runs on each file system, and from which seed.
pub fn wanted(usual: u64) -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("MIRROR_CFOR_RUNS").unwrap_or(usual), number("MIRROR_CFOR_SEED").unwrap_or(1))
}

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
