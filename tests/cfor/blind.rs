//! What a recorder cannot see, and what becomes of it: looked for elsewhere, or a scan. And what real programs do.

use crate::support::{CFOR_TOOLS, Disk, Pair, Recording, Tool, need, recorded, round, run, wait_for};
use mirror::capture::dump::{DumpOptions, dump};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sh(root: &Path, script: &str) {
    let limit = Duration::from_secs(120);
    Tool::new("/bin/sh").args(&["-ec", script]).dir(root).limit(limit).run().expect(0);
}

fn real_programs(kind: &str, options: &[&str]) {
    let programs = ["tar", "sqlite3", "git", "fio", "stress-ng"];
    if !need(&CFOR_TOOLS) || !need(&programs) {
        return;
    }
    // Each goes on with what the one before it left.
    let git = "git -c user.name=x -c user.email=x@x -c init.defaultBranch=main -c gc.auto=0";
    let fio =
        "fio --name=j --filename=large --size=8m --bs=4k --rw=randwrite --number_ios=300 --output=/dev/null";
    let steps = [
        ("tar", "mkdir t && tar -cf - -C /usr/include linux | tar -xf - -C t".to_owned()),
        ("tar again", "tar -cf t.tar t && rm -r t && tar -xf t.tar && rm t.tar".to_owned()),
        (
            "sqlite",
            "sqlite3 db 'pragma journal_mode=wal; pragma mmap_size=1000000; create table t(a,b);
             with recursive c(x) as (select 1 union all select x+1 from c where x<5000)
             insert into t select x, hex(randomblob(40)) from c; pragma wal_checkpoint;
             update t set b=1 where a%7=0; delete from t where a%5=0; vacuum;' > /dev/null"
                .to_owned(),
        ),
        (
            "git",
            format!("{git} init -q r && cd r && cp -r ../t/linux . && {git} add . && {git} commit -qm 1"),
        ),
        (
            "git clone",
            format!("{git} clone -q --no-local r c && cd c && {git} rm -qr linux/a* && {git} commit -qm 2"),
        ),
        (
            "git gc",
            format!("cd r && {git} pull -q ../c main && {git} repack -qad && {git} gc -q --prune=now"),
        ),
        ("fio, io_uring", format!("{fio} --ioengine=io_uring")),
        ("fio, past the cache", format!("{fio} --ioengine=libaio --direct=1 --iodepth=8")),
        ("fio, mapped", format!("{fio} --ioengine=mmap")),
        ("rm", "rm -r t r/linux".to_owned()),
    ];
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let _recorder = Recording::with(&pair, options);
    round(&pair);
    for (name, script) in steps {
        sh(&pair.source.root, &script);
        assert_eq!(round(&pair).scanned, None, "{kind}: {name}");
        pair.judge(&format!("{kind}: {name}"));
    }
}

#[test]
fn what_real_programs_do_is_seen_on_ext4() {
    real_programs("ext4", &[]);
}

#[test]
fn what_real_programs_do_is_seen_on_xfs_with_ranges() {
    real_programs("xfs", &["--ranges", "256K"]);
}

#[test]
fn what_real_programs_do_is_seen_on_btrfs_with_ranges() {
    real_programs("btrfs", &["--ranges", "256K"]);
}

#[test]
fn what_stressors_do_is_carried_while_they_run_and_seen_when_they_ended_on_ext4() {
    stressors("ext4", &[]);
}

#[test]
fn what_stressors_do_is_carried_while_they_run_and_seen_when_they_ended_on_xfs_with_ranges() {
    stressors("xfs", &["--ranges", "256K"]);
}

#[test]
fn what_stressors_do_is_carried_while_they_run_and_seen_when_they_ended_on_btrfs_with_ranges() {
    stressors("btrfs", &["--ranges", "256K"]);
}

fn stressors(kind: &str, options: &[&str]) {
    if !need(&CFOR_TOOLS) || !need(&["stress-ng"]) {
        return;
    }
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let _recorder = Recording::with(&pair, options);
    fs::write(pair.source.root.join("f"), "x").expect("write");
    round(&pair);
    let stressors = [
        "--hdd",
        "--rename",
        "--link",
        "--symlink",
        "--dentry",
        "--dir",
        "--seek",
        "--fallocate",
        "--chmod",
        "--utime",
        "--xattr",
    ];
    let mut stress = Command::new("stress-ng");
    stress.args(["--quiet", "--timeout", "4", "--keep-files", "--temp-path"]).arg(&pair.source.root);
    stress.args(["--hdd-bytes", "4m", "--fallocate-bytes", "4m", "--seek-size", "4m"]);
    for stressor in stressors {
        stress.args([stressor, "1"]);
    }
    let mut stress = stress.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("stress-ng");
    let mut rounds = 0;
    let mut ended = None;
    wait_for("the stressors", Duration::from_secs(120), || {
        // A dump of what moves may be refused; it is begun again.
        rounds += u32::from(dump(&pair.source, "x", Vec::new()).is_ok());
        ended = stress.try_wait().expect("wait");
        ended.is_some()
    });
    assert!(ended.is_some_and(|status| status.success()), "stress-ng did not run: {ended:?}");
    assert!(rounds > 0, "no dump was made while they ran");
    round(&pair);
    pair.judge(&format!("{kind}: what they left"));
    assert_eq!(round(&pair).scanned, None);
    pair.judge(&format!("{kind}: nothing more"));
}

#[test]
fn a_recorder_that_is_stopped_owes_a_scan_and_has_everything_when_it_goes_on() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let recorder = Recording::start(&pair);
    round(&pair);
    recorder.send(rustix::process::Signal::STOP);
    for at in 0..3000 {
        fs::write(pair.source.root.join(format!("f{at}")), "x").expect("write");
    }
    let why = round(&pair).scanned.unwrap_or_default();
    assert!(why.contains("does not answer"), "{why}");
    pair.judge("scanned");
    recorder.send(rustix::process::Signal::CONT);
    fs::write(pair.source.root.join("f7"), "other").expect("write");
    fs::remove_file(pair.source.root.join("f8")).expect("rm");
    round(&pair);
    pair.judge("it goes on");
    fs::write(pair.source.root.join("f9"), "other").expect("write");
    assert_eq!(round(&pair).scanned, None);
    pair.judge("and is relied on");
}

#[test]
fn another_file_system_at_the_same_place_is_another_tree() {
    // The roots of two file systems have the same handle.
    if !need(&CFOR_TOOLS) {
        return;
    }
    for kind in ["ext4", "xfs"] {
        let (disk, other) = (Disk::new(kind), Disk::new(kind));
        let far = "far".parse().expect("name");
        let options = DumpOptions::new(disk.path(""), disk.beside("source"), far);
        let standby = disk.beside("b");
        fs::create_dir(&standby).expect("mkdir");
        let mut pair = Pair::at(disk.path(""), disk.beside("source"), standby, disk.beside("standby"));
        pair.source = DumpOptions { no_scan: true, ..options };
        fs::write(disk.path("f"), "one").expect("write");
        fs::write(other.path("g"), "two").expect("write");
        let _recorder = Recording::start(&pair);
        round(&pair);
        assert_eq!(round(&pair).scanned, None);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        run("mount", &["--bind", &text(&other.path("")), &text(&disk.path(""))]).expect(0);
        let report = dump(&pair.source, "x", Vec::new()).map(|(report, _)| report);
        run("umount", &[&text(&disk.path(""))]).expect(0);
        let why = report.expect("dump").scanned.unwrap_or_default();
        assert!(why.contains("another tree"), "{kind}: {why}");
    }
}

#[test]
fn a_file_system_that_is_mounted_again_is_still_watched() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let _recorder = Recording::start(&pair);
    round(&pair);
    let at = disk.path("").to_string_lossy().into_owned();
    run("mount", &["-o", "remount,ro", &at]).expect(0);
    run("mount", &["-o", "remount,rw", &at]).expect(0);
    fs::write(pair.source.root.join("f"), "one").expect("write");
    assert_eq!(round(&pair).scanned, None);
    pair.judge("remounted");
    let busy = run("umount", &[&at]);
    assert_ne!(busy.code, 0, "the recorder keeps it: what it does not see cannot happen");
}

/// Writes a block by `io_submit(2)` for each line that it reads, and keeps the file open.
const AIO: &str = r#"
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int n, char **v) {
    aio_context_t c = 0; char line[9], block[4096]; struct io_event e;
    int fd = open(v[1], O_RDWR);
    if (fd < 0 || syscall(SYS_io_setup, 4, &c)) return 1;
    while (fgets(line, sizeof line, stdin)) {
        struct iocb b, *l = &b; memset(&b, 0, sizeof b); memset(block, line[0], sizeof block);
        b.aio_fildes = fd; b.aio_lio_opcode = IOCB_CMD_PWRITE; b.aio_buf = (unsigned long)block;
        b.aio_nbytes = sizeof block; b.aio_offset = 8192;
        if (syscall(SYS_io_submit, c, 1, &l) != 1 || syscall(SYS_io_getevents, c, 1, 1, &e, 0) != 1) return 2;
        puts("done"); fflush(stdout);
    }
    return 0;
}
"#;

#[test]
fn writes_by_io_submit_into_a_file_that_stays_open_are_seen() {
    if !need(&CFOR_TOOLS) || !need(&["gcc"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (source, program, file) = (disk.beside("aio.c"), disk.beside("aio"), pair.source.root.join("f"));
    fs::write(&source, AIO).expect("write");
    run("gcc", &["-o", &text(&program), &text(&source)]).expect(0);
    fs::write(&file, vec![1; 100_000]).expect("write");
    let _recorder = Recording::start(&pair);
    round(&pair);
    let mut writer =
        Command::new(&program).arg(&file).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start");
    let mut say = writer.stdin.take().expect("stdin");
    for value in *b"xyz" {
        writeln!(say, "{}", value as char).expect("say");
        wait_for("the write", Duration::from_secs(10), || fs::read(&file).expect("read")[9000] == value);
        assert_eq!(round(&pair).scanned, None);
        pair.judge(&format!("{}", value as char));
    }
    drop(say);
    writer.wait().expect("reap");
}
