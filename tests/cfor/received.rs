//! Streams of `btrfs send` applied to standbys that are no btrfs: whole ones and increments, packed and not; and those
//! that are refused.

use crate::support::{Disk, Pair, Random, mutate_with_events, need, run, wanted};
use mirror::base::{Class, Error};
use mirror::capture::apply::{ApplyReport, apply};
use std::fs;
use std::path::{Path, PathBuf};

pub const TOOLS: [&str; 7] = ["root", "rsync", "loop", "mkfs.xfs", "mkfs.btrfs", "mkfs.ext4", "btrfs"];

pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A subvolume `a`, of which moments are sent.
struct Sender {
    disk: Disk,
    last: Option<PathBuf>,
    count: u32,
}

impl Sender {
    fn new() -> Self {
        let disk = Disk::new("btrfs");
        run("btrfs", &["subvolume", "create", &text(&disk.path("a"))]).expect(0);
        Self { disk, last: None, count: 0 }
    }

    fn tree(&self) -> PathBuf {
        self.disk.path("a")
    }

    fn snapshot(&mut self) -> PathBuf {
        self.count += 1;
        let at = self.disk.path(&format!("s{}", self.count));
        run("btrfs", &["subvolume", "snapshot", "-r", &text(&self.tree()), &text(&at)]).expect(0);
        at
    }

    /// What `btrfs send` writes of a snapshot.
    fn send(&self, parent: Option<&Path>, of: &Path, options: &[&str]) -> Vec<u8> {
        let out = self.disk.beside("stream");
        let mut args = vec!["send".to_owned(), "-q".to_owned(), "-f".to_owned(), text(&out)];
        args.extend(options.iter().map(ToString::to_string));
        args.extend(parent.iter().flat_map(|parent| ["-p".to_owned(), text(parent)]));
        args.push(text(of));
        run("btrfs", &args.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        fs::read(&out).expect("stream")
    }

    /// The next moment, from the last one on.
    fn next(&mut self, options: &[&str]) -> Vec<u8> {
        let now = self.snapshot();
        let bytes = self.send(self.last.as_deref(), &now, options);
        self.last = Some(now);
        bytes
    }
}

/// A standby of it, on a disk of its own.
fn standby(sender: &Sender, disk: &Disk, name: &str) -> Pair {
    fs::create_dir(disk.path(name)).expect("mkdir");
    Pair::at(sender.tree(), disk.beside("no source"), disk.path(name), disk.beside(&format!("{name}.log")))
}

fn take(pair: &Pair, bytes: &[u8]) -> mirror::base::Result<ApplyReport> {
    apply(&pair.standby, Some(("the stream", &mut &bytes[..])), &mut |_| Ok(()))
}

/// The standby is what was sent.
#[track_caller]
fn judge(sender: &Sender, pair: &mut Pair, what: &str) {
    pair.source.root = sender.last.clone().expect("a snapshot");
    pair.judge(what);
}

fn histories(kind: &str) {
    if !need(&TOOLS) {
        return;
    }
    let (runs, seed) = wanted(12);
    for history in 0..runs.div_ceil(6) {
        let mut random = Random(seed ^ (history << 32) ^ 0x5e_0000);
        let (mut sender, disk) = (Sender::new(), Disk::new(kind));
        let mut pair = standby(&sender, &disk, "b");
        let method = ["zstd", "zlib", "no"][random.below(3) as usize];
        if method != "no" {
            let option = format!("remount,compress-force={method}");
            run("mount", &["-o", &option, &text(&sender.disk.path(""))]).expect(0);
        }
        for round in 0..6 {
            let what = format!("{kind}, {method}, seed {seed}, history {history}, round {round}");
            // What chattr(1) did is not sent.
            mutate_with_events(&sender.tree(), &mut random, if round == 0 { 60 } else { 25 });
            let options: &[&str] = match random.below(3) {
                0 => &[],
                1 => &["--proto", "2"],
                _ => &["--proto", "2", "--compressed-data"],
            };
            let bytes = sender.next(options);
            let report = take(&pair, &bytes).unwrap_or_else(|e| panic!("{what}: {options:?}: {e}"));
            judge(&sender, &mut pair, &what);
            let again = take(&pair, &bytes).unwrap_or_else(|e| panic!("{what}: again: {e}"));
            assert_eq!((again.round, again.changed), (report.round, 0), "{what}: again");
        }
    }
}

#[test]
fn done_received_histories_end_identical_on_ext4() {
    histories("ext4");
}

#[test]
fn done_received_histories_end_identical_on_xfs() {
    histories("xfs");
}

#[test]
fn done_received_histories_end_identical_on_tmpfs() {
    histories("tmpfs");
}

/// The error of a stream that is refused; the standby is as it was.
#[track_caller]
fn refused(pair: &Pair, bytes: &[u8], what: &str) -> Error {
    let files = |dir: &Path| run("find", &[&text(dir), "-printf", "%p %s %T@ %i\n"]).expect(0).stdout;
    let before = files(&pair.standby.root);
    let error = take(pair, bytes).expect_err(what);
    assert_eq!(files(&pair.standby.root), before, "{what}");
    for left in ["spool", "received", "applying", "staged"] {
        assert!(!pair.standby.log.join(left).exists(), "{what}: {left} is left");
    }
    error
}

#[test]
fn a_stream_that_does_not_begin_at_what_the_standby_has_is_refused() {
    if !need(&TOOLS) {
        return;
    }
    let (mut sender, disk) = (Sender::new(), Disk::new("tmpfs"));
    let mut pair = standby(&sender, &disk, "b");
    let mut step = |name: &str| {
        fs::write(sender.tree().join(name), name).expect("write");
        sender.snapshot()
    };
    let (one, two, three) = (step("1"), step("2"), step("3"));
    let send = |from: Option<&Path>, to: &Path| sender.send(from, to, &[]);
    let error = refused(&pair, &send(Some(&one), &two), "an increment for an empty standby");
    assert_eq!(error.class, Class::Damaged, "{error}");
    assert!(error.message.contains("this standby has nothing"), "{error}");
    take(&pair, &send(None, &one)).expect("the first");
    let error = refused(&pair, &send(None, &two), "a whole one for a standby that has something");
    assert!(error.message.contains("a whole subvolume"), "{error}");
    let error = refused(&pair, &send(Some(&two), &three), "one round too far");
    assert!(error.message.contains("checking its parent: it begins at "), "{error}");
    take(&pair, &send(Some(&one), &three)).expect("from the first to the third");
    refused(&pair, &send(Some(&one), &two), "back to the second");
    sender.last = Some(three);
    judge(&sender, &mut pair, "after all of them");
}

#[test]
fn a_stream_that_is_cut_or_damaged_anywhere_changes_nothing() {
    if !need(&TOOLS) {
        return;
    }
    let (mut sender, disk) = (Sender::new(), Disk::new("tmpfs"));
    let mut pair = standby(&sender, &disk, "b");
    fs::write(sender.tree().join("f"), [5; 3000]).expect("write");
    take(&pair, &sender.next(&[])).expect("the first");
    let whole = |sender: &mut Sender| {
        fs::write(sender.tree().join("g"), [6; 3000]).expect("write");
        fs::rename(sender.tree().join("f"), sender.tree().join("h")).expect("rename");
        let now = sender.snapshot();
        (sender.send(sender.last.as_deref(), &now, &[]), now)
    };
    let (bytes, now) = whole(&mut sender);
    for len in (0..bytes.len()).step_by(97).chain([bytes.len() - 1, bytes.len() - 10]) {
        assert_eq!(refused(&pair, &bytes[..len], "cut").class, Class::Damaged, "{len}");
    }
    for at in (0..bytes.len()).step_by(101) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert_eq!(refused(&pair, &bad, "damaged").class, Class::Damaged, "byte {at}");
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    let error = refused(&pair, &twice, "two streams");
    assert!(error.message.contains("one stream at a time"), "{error}");
    take(&pair, &bytes).expect("whole");
    sender.last = Some(now);
    judge(&sender, &mut pair, "after all of them");
}

#[test]
fn a_stream_is_refused_on_a_standby_that_others_changed() {
    if !need(&TOOLS) {
        return;
    }
    let (mut sender, disk) = (Sender::new(), Disk::new("tmpfs"));
    let pair = standby(&sender, &disk, "b");
    fs::write(sender.tree().join("f"), "1").expect("write");
    take(&pair, &sender.next(&[])).expect("the first");
    fs::write(sender.tree().join("f"), "2").expect("write");
    fs::write(pair.standby.root.join("f"), "3").expect("write");
    assert_eq!(refused(&pair, &sender.next(&[]), "edited").class, Class::Diverged);
}

#[test]
fn an_apply_of_a_stream_that_was_interrupted_anywhere_is_finished() {
    if !need(&TOOLS) {
        return;
    }
    let (mut sender, disk) = (Sender::new(), Disk::new("tmpfs"));
    let mut pair = standby(&sender, &disk, "b");
    let mut random = Random(77);
    for round in 0..30 {
        mutate_with_events(&sender.tree(), &mut random, 20);
        let bytes = sender.next(&["--proto", "2"]);
        let mut left = random.below(60);
        let crashed = apply(&pair.standby, Some(("the stream", &mut &bytes[..])), &mut |_| {
            left = left.checked_sub(1).ok_or_else(|| Error::new(Class::Internal, "crash"))?;
            Ok(())
        });
        if crashed.is_err() {
            // Nothing says here which snapshot it is but what was remembered before the crash.
            apply(&pair.standby, None, &mut |_| Ok(())).expect("redone");
        }
        judge(&sender, &mut pair, &format!("round {round}"));
    }
}
