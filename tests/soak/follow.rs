//! A tree that two workers change all the time, and a recorder: dumps every now and then look at nothing but what it
//! saw, and after the last one the standby is identical.

use super::{duration, random};
use crate::support::{CFOR_TOOLS, Disk, Random, Recording, mutate_with_events, need, recorded, round};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ends the load when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follows a tree under load for some seconds, with a dump every now and then, and judges after a last one.
fn followed(kind: &str) {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let root = pair.source.root.clone();
    let mut random = random();
    mutate_with_events(&root, &mut random, 60);
    let _recorder = Recording::start(&pair);
    let end = AtomicBool::new(false);
    let (mut rounds, mut scans) = (0, 0);
    std::thread::scope(|scope| {
        // Also when this thread panics: the workers are waited for.
        let over = Over(&end);
        for worker in 0..2 {
            let (end, dir) = (&end, root.join(format!("load{worker}")));
            fs::create_dir(&dir).expect("mkdir");
            let mut random = Random(random.next() + worker);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let size = fs::read_dir(&dir).map_or(0, Iterator::count);
                    if size > 150 {
                        let _ = fs::rename(&dir, dir.with_extension("old"));
                        let _ = fs::remove_dir_all(dir.with_extension("old"));
                        let _ = fs::create_dir(&dir);
                    }
                    mutate_with_events(&dir, &mut random, 10);
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < duration() {
            scans += u32::from(round(&pair).scanned.is_some());
            rounds += 1;
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(over);
    });
    let last = round(&pair);
    pair.judge(&format!("{kind}, after {rounds} rounds, {scans} of them scans, {last:?}"));
    // The first has nothing to follow; a directory that moves while it is looked at may owe a scan.
    assert!(rounds >= 2 && scans < rounds.max(3), "{kind}: {scans} of {rounds} rounds were scans");
    println!("{kind}: {rounds} rounds in {:?}, {scans} of them scans", duration());
}

#[test]
fn done_a_tree_under_load_is_followed_on_ext4() {
    followed("ext4");
}

#[test]
fn done_a_tree_under_load_is_followed_on_xfs() {
    followed("xfs");
}

#[test]
fn done_a_tree_under_load_is_followed_on_btrfs() {
    followed("btrfs");
}
