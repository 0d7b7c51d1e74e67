//! Byte ranges of big files, as a recorder has them noted: dumps read what was touched, whoever touched it and however,
//! and the standby is identical.

use crate::support::{CFOR_TOOLS, Disk, Pair, Recording, Tool, bytes_read, need, recorded, round, wait_for};
use mirror::capture::live::{self, RangesAnswer};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

pub const BLOCK: u64 = 128 << 10;
pub const MIB: u64 = 1 << 20;
/// Files of 4 MiB and more.
pub const BIG: [&str; 2] = ["--ranges", "4M"];

pub fn is_there() -> bool {
    need(&CFOR_TOOLS) && need(&["xfs_io", "strace"])
}

/// A file with bytes everywhere, or at its ends only.
pub fn create(path: &Path, size: u64, sparse: bool) {
    let file = File::create_new(path).expect("create");
    file.set_len(size).expect("size");
    let step = if sparse { size - MIB } else { MIB };
    for at in (0..size).step_by(step as usize) {
        // No two pages alike: what moves is seen.
        let bytes: Vec<u8> =
            (0..MIB).map(|byte| ((at + byte) / 4096 % 251) as u8 | 1 << (byte % 8)).collect();
        file.write_all_at(&bytes, at).expect("write");
    }
}

pub fn sh(root: &Path, script: &str) {
    let limit = Duration::from_secs(120);
    Tool::new("/bin/sh").args(&["-ec", script]).dir(root).limit(limit).run().expect(0);
}

pub fn ranges(pair: &Pair) -> RangesAnswer {
    let mut answer = None;
    // It may not listen yet.
    wait_for("the recorder", Duration::from_secs(20), || {
        answer = live::ask(&pair.source.log, "status").expect("ask");
        answer.is_some()
    });
    answer.and_then(|answer| answer.ranges).expect("ranges")
}

/// Whether this kernel and file system have ranges; says so if not.
pub fn has_ranges(pair: &Pair) -> bool {
    let off = ranges(pair).off;
    if let Some(why) = &off {
        eprintln!("SKIPPED: {why}");
    }
    off.is_none()
}

/// Dumps by the program, applies, judges, and gives the bytes that were read.
#[track_caller]
pub fn judged(disk: &Disk, pair: &Pair, what: &str) -> u64 {
    let to = disk.beside("dump");
    let _ = fs::remove_file(&to);
    let (out, read) = bytes_read(disk, pair, &["--no-scan"]);
    assert!(!out.stderr.contains("scanned"), "{what}: {}", out.stderr);
    pair.apply(&fs::read(to).expect("dump")).expect("apply");
    pair.judge(what);
    // What a loader of programs reads.
    read.saturating_sub(4096)
}

fn small_writes(kind: &str) {
    if !is_there() {
        return;
    }
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let file = pair.source.root.join("big");
    create(&file, 256 * MIB, true);
    let _recorder = Recording::with(&pair, &BIG);
    if !has_ranges(&pair) {
        return;
    }
    // A child that another test has just forked holds our descriptors until it executes its program.
    wait_for("the mark", Duration::from_secs(20), || {
        let ranges = ranges(&pair);
        (ranges.files, ranges.believed) == (1, 1)
    });
    round(&pair);
    let open = OpenOptions::new().write(true).open(&file).expect("open");
    for turn in 0..3 {
        for at in 0..8 {
            open.write_all_at(&[turn + 1; 4096], (at * 31 + 7) * MIB + 5000).expect("write");
        }
        let read = judged(&disk, &pair, &format!("{kind}, turn {turn}"));
        assert!(read <= 8 * BLOCK, "{kind}, turn {turn}: {read} bytes were read");
    }
    drop(open);
    // The last access may have been carried into the next generation, as one of a thread that is still in its call.
    assert!(judged(&disk, &pair, "nothing but the last access") <= BLOCK);
    wait_for("that nothing is read", Duration::from_secs(20), || judged(&disk, &pair, "nothing") == 0);
    // Who reads changes nothing.
    sh(&pair.source.root, "cat big > /dev/null; cp --sparse=always big other");
    let read = judged(&disk, &pair, "copied");
    assert!(read <= 4 * MIB, "{kind}: {read} bytes were read of the copy and of what it is of");
}

#[test]
fn done_of_a_big_file_only_what_was_written_is_read_on_ext4() {
    small_writes("ext4");
}

#[test]
fn done_of_a_big_file_only_what_was_written_is_read_on_xfs() {
    small_writes("xfs");
}

#[test]
fn done_of_a_big_file_only_what_was_written_is_read_on_btrfs() {
    small_writes("btrfs");
}

/// What is done to a file of 16 MiB, and how many blocks of it may be read then.
fn operations(kind: &str) -> Vec<(&'static str, &'static str, u64)> {
    const ALL: u64 = 200;
    let mut list = vec![
        ("a write", "xfs_io -c 'pwrite -S 3 5000000 4096' big", 2),
        ("an append", "xfs_io -a -c 'pwrite -S 4 0 10000' big", 2),
        ("an append by a shell", "head -c 300000 /dev/urandom >> big", 4),
        ("a smaller size", "xfs_io -c 'truncate 14000001' big", 2),
        ("a larger size", "truncate -s 17000000 big", 25),
        ("smaller and as before", "truncate -s 3000000 big; truncate -s 17000000 big", 110),
        ("bytes everywhere again", "cat other > big", ALL),
        ("by its path", "perl -e 'truncate(\"big\", 16500000)'", 2),
        ("a hole", "xfs_io -c 'fpunch 1048576 65536' big", 1),
        ("zeroes", "xfs_io -c 'fzero 2097152 65536' big", 1),
        ("past the cache", "xfs_io -d -c 'pwrite -S 5 8388608 8192' big", 1),
        ("by a vector", "xfs_io -c 'pwrite -V 4 -b 4096 -S 6 4194304 65536' big", 1),
        ("in and out of it", "xfs_io -c 'copy_range -s 0 -d 12582912 -l 65536 big' big", 2),
        ("from another", "xfs_io -c 'copy_range -s 0 -d 11534336 -l 65536 other' big", 1),
        ("in its place", "dd if=other of=big bs=4096 count=1 seek=768 conv=notrunc status=none", 1),
        ("mapped", "xfs_io -c 'mmap -rw 0 16384' -c 'mwrite -S 9 5000 100' -c 'msync -s' big", ALL),
        (
            "mapped and grown",
            "xfs_io -c 'mmap -rw 0 16384' -c 'mremap -m 9000000' -c 'mwrite -S 8 8000000 100' big",
            ALL,
        ),
        (
            "rings",
            "fio --name=j --filename=big --size=8m --bs=4k --rw=randwrite --number_ios=6 --output=/dev/null --ioengine=io_uring --iodepth=4",
            6,
        ),
        (
            "requests",
            "fio --name=j --filename=big --size=8m --bs=4k --rw=randwrite --number_ios=6 --output=/dev/null --ioengine=libaio --direct=1 --iodepth=4",
            6,
        ),
        (
            "spliced",
            "fio --name=j --filename=big --size=8m --bs=4k --rw=randwrite --number_ios=6 --output=/dev/null --ioengine=splice",
            6,
        ),
        (
            "renamed",
            "mkdir -p d; mv big d/moved; xfs_io -c 'pwrite -S 7 6000000 100' d/moved; mv d/moved big",
            1,
        ),
        ("a second name", "ln -f big second; xfs_io -c 'pwrite -S 8 7000000 100' second", 1),
        ("nothing but a time", "touch -d 2001-01-01 big; chmod 600 big", 0),
        (
            "read",
            "cat big > /dev/null; md5sum big > /dev/null; xfs_io -r -c 'mmap -r 0 8192' -c 'mread 0 10' big > /dev/null",
            0,
        ),
        (
            "truncated when opened",
            "size=$(stat -c %s big); xfs_io -t -c 'pwrite -S 1 4000000 4096' -c \"truncate $size\" big",
            ALL,
        ),
        ("written anew", "dd if=other of=big bs=1M count=9 status=none", ALL),
        ("removed and made again", "rm big second; cp other big; xfs_io -c 'pwrite -S 3 100 100' big", ALL),
        ("replaced", "cp other new; xfs_io -c 'pwrite -S 4 100 100' new; mv new big", ALL),
        (
            "by one that was killed",
            "(exec perl -e 'open(B,\"+<\",\"big\");seek(B,7000000,0);syswrite B,\"x\"x5000;kill 9,$$') || true",
            2,
        ),
    ];
    if kind != "btrfs" {
        list.insert(9, ("collapse", "xfs_io -c 'fcollapse 10485760 65536' big", 60));
        list.insert(11, ("insert", "xfs_io -c 'finsert 10485760 131072' big", 60));
        list.insert(12, ("both", "xfs_io -c 'fcollapse 9437184 65536' -c 'finsert 12582912 65536' big", 60));
    }
    if kind != "ext4" {
        list.insert(4, ("a clone into it", "xfs_io -c 'reflink other 1048576 2097152 65536' big", 1));
        list.insert(
            5,
            (
                "a clone to the end",
                "cp big c; xfs_io -c 'pwrite -S 9 5000 100' c; xfs_io -c 'reflink c' big; rm c",
                ALL,
            ),
        );
    }
    list
}

fn each_operation(kind: &str) {
    if !is_there() || !need(&["fio", "perl"]) {
        return;
    }
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    create(&pair.source.root.join("big"), 16 * MIB, false);
    create(&pair.source.root.join("other"), 16 * MIB, false);
    let _recorder = Recording::with(&pair, &BIG);
    if !has_ranges(&pair) {
        return;
    }
    round(&pair);
    for (what, script, blocks) in operations(kind) {
        // What the one before did is not to cover up for it; a new file is known from the second generation on.
        round(&pair);
        round(&pair);
        sh(&pair.source.root, &format!("{{ {script}; }} > /dev/null"));
        let read = judged(&disk, &pair, &format!("{kind}: {what}"));
        eprintln!("{kind}: {what}: {} blocks", read.div_ceil(BLOCK));
        assert!(read <= blocks * BLOCK, "{kind}: {what}: {} blocks were read", read.div_ceil(BLOCK));
    }
}

#[test]
fn done_each_way_to_change_a_big_file_is_followed_on_ext4() {
    each_operation("ext4");
}

#[test]
fn done_each_way_to_change_a_big_file_is_followed_on_xfs() {
    each_operation("xfs");
}

#[test]
fn done_each_way_to_change_a_big_file_is_followed_on_btrfs() {
    each_operation("btrfs");
}
