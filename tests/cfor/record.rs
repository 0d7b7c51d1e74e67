//! Changes seen as they happen: dumps look at nothing but what the recorder saw, and the standby is identical all the
//! while.

use crate::support::{
    CFOR_TOOLS, Dir, Disk, Random, Recording, Tool, bin, mutate, mutate_with_events, need, recorded, round,
    run, wait_for, wanted,
};
use mirror::capture::dump::{DumpReport, dump};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn histories(kind: &str) {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let (runs, seed) = wanted(14);
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let mut random = Random(seed ^ 0xfa_0000);
    let _recorder = Recording::start(&pair);
    for run in 0..runs {
        mutate_with_events(&pair.source.root, &mut random, if run == 0 { 60 } else { 25 });
        let what = format!("{kind}, seed {seed}, run {run}");
        let report = round(&pair);
        assert_eq!(report.scanned.is_some(), run == 0, "{what}: {report:?}");
        pair.judge(&what);
    }
}

#[test]
fn done_recorded_histories_end_identical_on_tmpfs() {
    histories("tmpfs");
}

#[test]
fn done_recorded_histories_end_identical_on_ext4() {
    histories("ext4");
}

#[test]
fn done_recorded_histories_end_identical_on_xfs() {
    histories("xfs");
}

#[test]
fn done_recorded_histories_end_identical_on_btrfs() {
    histories("btrfs");
}

/// Found under load: of two names of a file the later directory was removed, and the file was then thought to be gone
/// with it; what had been written to it was missed.
#[test]
fn a_file_that_loses_one_name_with_a_directory_is_looked_at_by_the_other() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let root = &pair.source.root;
    for dir in ["a", "b"] {
        fs::create_dir(root.join(dir)).expect("mkdir");
    }
    fs::write(root.join("a/x"), "one").expect("write");
    fs::hard_link(root.join("a/x"), root.join("b/x")).expect("link");
    let _recorder = Recording::start(&pair);
    round(&pair);
    fs::write(root.join("a/x"), "two, longer").expect("write");
    fs::remove_dir_all(root.join("b")).expect("remove");
    assert_eq!(round(&pair).scanned, None);
    pair.judge("after the directory was removed");
}

#[test]
fn a_recorder_that_died_owes_a_scan_and_so_does_the_time_before_the_next() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let mut random = Random(5);
    let mut change = || mutate_with_events(&pair.source.root, &mut random, 20);
    let why = |report: DumpReport| report.scanned.unwrap_or_default();
    change();
    assert_eq!(why(round(&pair)), "nobody records");
    let recorder = Recording::start(&pair);
    change();
    assert!(why(round(&pair)).contains("nobody recorded"), "what was before it began");
    change();
    assert_eq!(why(round(&pair)), "");
    change();
    assert_eq!(recorder.kill(rustix::process::Signal::KILL).signal(), Some(9));
    change();
    assert_eq!(why(round(&pair)), "nobody records");
    pair.judge("after kill -9");
    change();
    let recorder = Recording::start(&pair);
    change();
    assert_ne!(why(round(&pair)), "");
    pair.judge("after a gap");
    change();
    assert_eq!(why(round(&pair)), "");
    // One that is told to end closes its log; but what comes after it nobody saw.
    assert_eq!(recorder.kill(rustix::process::Signal::TERM).signal(), Some(15));
    change();
    let _recorder = Recording::start(&pair);
    assert_ne!(why(round(&pair)), "");
    pair.judge("after a clean end");
}

#[test]
fn a_dump_that_fails_loses_nothing_that_was_recorded() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let mut pair = recorded(&disk);
    let _recorder = Recording::start(&pair);
    fs::write(pair.source.root.join("f"), "one").expect("write");
    round(&pair);
    fs::write(pair.source.root.join("f"), "two").expect("write");
    // It fails after the recorder was asked; then more changes, and another try of the same number.
    pair.source.barrier = Some("[ $MIRROR_PHASE != post-dump ]".to_owned());
    dump(&pair.source, "x", Vec::new()).expect_err("its barrier fails");
    pair.source.barrier = None;
    fs::write(pair.source.root.join("g"), "three").expect("write");
    let report = round(&pair);
    assert_eq!((report.scanned, report.new, report.changed), (None, 1, 2), "g, and f with the root");
    pair.judge("after the second try");
}

#[test]
fn stores_into_a_mapping_are_followed_as_long_as_it_lives() {
    if !need(&CFOR_TOOLS) || !need(&["xfs_io"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let file = pair.source.root.join("mapped");
    fs::write(&file, vec![1; 100_000]).expect("write");
    let _recorder = Recording::start(&pair);
    round(&pair);
    let mut mapper = Command::new("xfs_io")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("xfs_io");
    let mut say = mapper.stdin.take().expect("stdin");
    let store = |say: &mut std::process::ChildStdin, value: u8| {
        writeln!(say, "mwrite -S {value} 4096 5000\nfsync").expect("say");
        wait_for("the store", Duration::from_secs(10), || fs::read(&file).expect("read")[5000] == value);
    };
    writeln!(say, "mmap -rw 0 65536").expect("say");
    for value in 10..14 {
        store(&mut say, value);
        assert_eq!(round(&pair).scanned, None);
        pair.judge(&format!("store {value}"));
    }
    store(&mut say, 20);
    drop(say);
    mapper.wait().expect("reap");
    assert_eq!(round(&pair).scanned, None);
    pair.judge("stored, and unmapped before the dump");
}

#[test]
fn what_has_no_event_is_found_by_the_next_scan() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let mut pair = recorded(&disk);
    let file = pair.source.root.join("f");
    fs::write(&file, "one").expect("write");
    let _recorder = Recording::start(&pair);
    round(&pair);
    run("chattr", &["+d", &file.to_string_lossy()]).expect(0);
    assert_eq!(round(&pair).changed, 0, "chattr has no event; once it has, the page is to say so");
    pair.source.no_scan = false;
    assert_eq!(round(&pair).changed, 1);
    pair.judge("scanned");
    // Everything that mutate does, with scans and a recorder beside.
    mutate(&pair.source.root, &mut Random(8), 40);
    round(&pair);
    pair.judge("scanned");
}

#[test]
fn a_mount_point_that_appears_is_refused() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let at = pair.source.root.join("d");
    fs::create_dir(&at).expect("mkdir");
    let _recorder = Recording::start(&pair);
    round(&pair);
    run("mount", &["-t", "tmpfs", "tmpfs", &at.to_string_lossy()]).expect(0);
    let error = dump(&pair.source, "x", Vec::new()).expect_err("mounted");
    run("umount", &[&at.to_string_lossy()[..]]).expect(0);
    assert_eq!(error.class, mirror::base::Class::Refused, "{error}");
    assert!(error.message.contains("another file system begins here"), "{error}");
}

#[test]
fn recording_is_as_long_as_the_command_and_ends_as_it_does() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (root, log) = (text(&pair.source.root), text(&pair.source.log));
    let record = |command: &[&str]| {
        let args = ["record", "--root", &root, "--log", &log, "--"];
        Tool::new(bin("cfor-log")).args(&args).args(command).run()
    };
    record(&["sh", "-c", &format!("echo x > {root}/by-the-command; exit 7")]).expect(7);
    record(&["sh", "-c", "kill -TERM $$"]).expect(143);
    let shown =
        Tool::new(bin("cfor-log")).args(&["show", &text(&pair.source.log.join("live.0"))]).run().expect(0);
    assert!(shown.stdout.contains("by-the-command"), "{}", shown.stdout);
    let wrong = record(&["/nonexistent"]).expect(2);
    assert!(wrong.stderr.contains("/nonexistent: starting it: No such file"), "{}", wrong.stderr);
}

#[test]
fn a_backend_that_is_not_there_is_refused_by_name() {
    let dir = Dir::new();
    let path = |name: &str| dir.path(name).to_string_lossy().into_owned();
    let args = ["record", "--backend", "btrfs", "--root", &path("state"), "--log", &path("log")];
    Tool::new(bin("cfor-log")).args(&args).run().fails("cfor-log", 2, "btrfs");
}

#[test]
fn two_recorders_do_not_write_one_log() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("tmpfs");
    let pair = recorded(&disk);
    let _recorder = Recording::start(&pair);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let args = ["record", "--root", &text(&pair.source.root), "--log", &text(&pair.source.log)];
    Tool::new(bin("cfor-log")).args(&args).run().fails("cfor-log", 75, "another process holds it");
    let stat = Tool::new(bin("cfor-log")).args(&["stat", &text(&pair.source.log)]).run();
    assert!(stat.stdout.contains("fanotify"), "{}{}", stat.stdout, stat.stderr);
}

#[test]
fn done_a_dump_after_a_hundred_changes_looks_at_few() {
    if !need(&CFOR_TOOLS) || !need(&["strace"]) {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let files = number("MIRROR_CFOR_FILES").unwrap_or(15_000);
    let disk = Disk::new("tmpfs");
    let pair = recorded(&disk);
    for at in 0..files {
        let dir = pair.source.root.join(format!("d{}", at / 500));
        if at % 500 == 0 {
            fs::create_dir(&dir).expect("mkdir");
        }
        fs::write(dir.join(format!("f{at}")), "x").expect("write");
    }
    let _recorder = Recording::start(&pair);
    round(&pair);
    for at in 0..100 {
        let name = |at: u32| pair.source.root.join(format!("d{}/f{at}", at / 500));
        let file = at * (files / 100);
        match at % 4 {
            0 => fs::write(name(file), "changed").expect("write"),
            1 => fs::remove_file(name(file)).expect("rm"),
            2 => fs::rename(name(file), pair.source.root.join(format!("moved{at}"))).expect("rename"),
            _ => fs::write(name(file).with_extension("new"), "new").expect("write"),
        }
    }
    let counts = disk.beside("counts");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let out = Tool::new("strace")
        .args(&[
            "-f",
            "-c",
            "-e",
            "trace=statx,newfstatat,fstat",
            "-o",
            &text(&counts),
            &text(&bin("cfor-log")),
        ])
        .args(&[
            "dump",
            &text(&pair.source.log),
            "--root",
            &text(&pair.source.root),
            "--no-scan",
            "--standby",
            "far",
        ])
        .args(&["-o", &text(&disk.beside("dump"))])
        .run()
        .expect(0);
    assert!(out.stderr.contains("25 new, 25 gone"), "{}", out.stderr);
    assert!(!out.stderr.contains("scanned"), "{}", out.stderr);
    let table = fs::read_to_string(&counts).expect("counts");
    let of = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().last() == Some(name));
        line.map_or(0, |line| {
            line.split_whitespace().nth(3).and_then(|n| n.parse::<u32>().ok()).expect("a number")
        })
    };
    let looks = of("statx") + of("newfstatat");
    assert!(looks <= 1000 && looks > 100, "{looks} looks at {files} files\n{table}");
    let bytes = fs::read(disk.beside("dump")).expect("dump");
    pair.apply(&bytes).expect("apply");
    assert_eq!(pair.differences(), [""; 0]);
}
