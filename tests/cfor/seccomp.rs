//! A command whose own system calls are recorded: dumps look at nothing but what it did, and the standby is identical;
//! whatever program it is, and whatever becomes of the recorder.

use crate::support::{
    CFOR_TOOLS, Disk, Pair, Random, Tool, bin, mutate, need, recorded, round, run, wait_for, wanted,
};
use mirror::capture::live::ask;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Everything that one line does is done within this.
const LIMIT: Duration = Duration::from_secs(240);

/// A command under the recorder that does a line at a time.
struct Driven {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Driven {
    /// Runs `command` in the tree; it reads lines, and says `done` after each.
    fn start(pair: &Pair, command: &[&str]) -> Self {
        Self::start_by(pair, Command::new(bin("cfor-log")), command)
    }

    fn start_by(pair: &Pair, mut recorder: Command, command: &[&str]) -> Self {
        let mut child = recorder
            .args(["-q", "record", "--backend", "seccomp", "--log"])
            .arg(&pair.source.log)
            .arg("--root")
            .arg(&pair.source.root)
            .arg("--")
            .args(command)
            .current_dir(&pair.source.root)
            .env("MIRROR_MUTATED", &pair.source.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("start");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        let driven = Self { child, stdin, lines };
        wait_for("the recorder", Duration::from_secs(20), || {
            matches!(ask(&pair.source.log, "status"), Ok(Some(_)))
        });
        driven
    }

    /// A shell.
    fn shell(pair: &Pair) -> Self {
        Self::start(pair, &["/bin/sh"])
    }

    fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("say");
    }

    #[track_caller]
    fn done(&self) {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("it says that it is done");
            if let Some(word) = line.strip_prefix("done") {
                assert_eq!(word.trim(), "0", "what was to be done failed");
                return;
            }
        }
    }

    /// Has a shell do this.
    #[track_caller]
    fn sh(&mut self, script: &str) {
        self.send(&format!("( set -e; {script}\n) > /dev/null\necho done $?"));
        self.done();
    }

    fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        let mut status = None;
        wait_for("the end", LIMIT, || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("ended")
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // The command ends when its standard input does; its keeper ends after it.
        drop(self.stdin.take());
        if std::thread::panicking() {
            let group = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.child.wait();
        } else {
            wait_for("the end", LIMIT, || !matches!(self.child.try_wait(), Ok(None)));
        }
    }
}

/// A round that looks at nothing but the log, and leaves the standby identical.
#[track_caller]
fn judged(pair: &Pair, what: &str) {
    assert_eq!(round(pair).scanned, None, "{what}");
    pair.judge(what);
}

/// Kills the recorder, not its keeper.
fn kill_recorder(log: &Path) -> u32 {
    let pid = ask(log, "status").expect("asked").expect("answer").pid;
    let process = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("kill");
    pid
}

/// Not a test: what the histories run under the recorder, this program itself. A line is a seed and a number of
/// operations.
#[test]
#[ignore = "run by the tests of this file"]
fn mutator() {
    let Some(root) = std::env::var_os("MIRROR_MUTATED") else { return };
    for line in std::io::stdin().lines() {
        let line = line.expect("line");
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let mut random = Random(numbers[0]);
        mutate(Path::new(&root), &mut random, u32::try_from(numbers[1]).expect("a number"));
        println!("\ndone 0");
    }
}

fn histories(kind: &str) {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let (runs, seed) = wanted(14);
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let mut random = Random(seed ^ 0x5ecc_0000);
    let own = std::env::current_exe().expect("this program").to_string_lossy().into_owned();
    let mutator = [&own, "--exact", "cfor::seccomp::mutator", "--ignored", "--nocapture"];
    let mut driven = Driven::start(&pair, &mutator);
    for run in 0..runs {
        driven.send(&format!("{} {}", random.next(), if run == 0 { 60 } else { 25 }));
        driven.done();
        let what = format!("{kind}, seed {seed}, run {run}");
        let report = round(&pair);
        assert_eq!(report.scanned.is_some(), run == 0, "{what}: {report:?}");
        pair.judge(&what);
    }
    driven.end();
}

#[test]
fn done_histories_of_a_command_end_identical_on_tmpfs() {
    histories("tmpfs");
}

#[test]
fn done_histories_of_a_command_end_identical_on_ext4() {
    histories("ext4");
}

#[test]
fn done_histories_of_a_command_end_identical_on_xfs() {
    histories("xfs");
}

#[test]
fn done_histories_of_a_command_end_identical_on_btrfs() {
    histories("btrfs");
}

#[test]
fn what_real_programs_do_is_recorded() {
    if !need(&CFOR_TOOLS) || !need(&["tar", "sqlite3", "git", "fio"]) {
        return;
    }
    let git = "git -c user.name=x -c user.email=x@x -c init.defaultBranch=main -c gc.auto=0";
    let fio =
        "fio --name=j --filename=large --size=8m --bs=4k --rw=randwrite --number_ios=300 --output=/dev/null";
    let steps = [
        ("tar", "mkdir t && tar -cf - -C /usr/include . | tar -xf - -C t".to_owned()),
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
        ("fio, threads", format!("{fio} --ioengine=psync --thread --numjobs=4")),
        ("fio, past the cache", format!("{fio} --ioengine=libaio --direct=1 --iodepth=8")),
        ("fio, mapped", format!("{fio} --ioengine=mmap")),
        ("rm", "rm -r t r/linux".to_owned()),
    ];
    for kind in ["ext4", "tmpfs"] {
        let disk = Disk::new(kind);
        let pair = recorded(&disk);
        let mut shell = Driven::shell(&pair);
        round(&pair);
        for (name, script) in &steps {
            // Without the cache: not on tmpfs.
            if kind == "tmpfs" && name.contains("past") {
                continue;
            }
            shell.sh(script);
            judged(&pair, &format!("{name} on {kind}"));
        }
    }
}

#[test]
fn a_command_ends_as_it_does_without_a_recorder() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("tmpfs");
    let pair = recorded(&disk);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (root, log) = (text(&pair.source.root), text(&pair.source.log));
    let record = |command: &[&str]| {
        let args = ["record", "--backend", "seccomp", "--root", &root, "--log", &log, "--"];
        Tool::new(bin("cfor-log")).args(&args).args(command).run()
    };
    record(&["sh", "-c", &format!("echo x > {root}/by-the-command; exit 7")]).expect(7);
    record(&["sh", "-c", "kill -TERM $$"]).expect(143);
    let shown =
        Tool::new(bin("cfor-log")).args(&["show", &text(&pair.source.log.join("live.0"))]).run().expect(0);
    assert!(shown.stdout.contains("by-the-command"), "{}", shown.stdout);
    let wrong = record(&["/nonexistent"]).expect(2);
    assert!(wrong.stderr.contains("/nonexistent: starting it: No such file"), "{}", wrong.stderr);
    let nested = [&text(&bin("cfor-log"))[..], "record", "--backend", "seccomp", "--root", &root, "--log"];
    let inner = text(&disk.beside("inner"));
    let nested = record(&[&nested[..], &[&inner, "--", "true"]].concat()).expect(3);
    assert!(nested.stderr.contains("recorders cannot be nested"), "{}", nested.stderr);
    let args = ["record", "--backend", "seccomp", "--root", &root, "--log", &log];
    Tool::new(bin("cfor-log")).args(&args).run().fails("cfor-log", 2, "a command is needed");
}

#[test]
fn signals_are_passed_on_to_the_command() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("tmpfs");
    let pair = recorded(&disk);
    for (signal, name) in [
        (rustix::process::Signal::TERM, "TERM"),
        (rustix::process::Signal::HUP, "HUP"),
        (rustix::process::Signal::INT, "INT"),
    ] {
        let mut shell = Driven::shell(&pair);
        shell.sh("true");
        shell.send(&format!("trap 'echo done 0; trap - {name}; kill -{name} $$' {name}; echo done 0; while :; do sleep 0.05; done"));
        shell.done();
        rustix::process::kill_process(rustix::process::Pid::from_child(&shell.child), signal).expect("kill");
        shell.done();
        assert_eq!(shell.end().signal(), Some(signal.as_raw()), "{name}");
    }
}

#[test]
fn done_a_recorder_that_is_killed_is_replaced_and_nobody_notices() {
    if !need(&CFOR_TOOLS) || !need(&["tar"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let mut shell = Driven::shell(&pair);
    round(&pair);
    for run in 1..7_u64 {
        shell.send(&format!(
            "( set -e; mkdir t{run}; tar -cf - -C /usr/include . | tar -xf - -C t{run}; rm -rf t{}\n)\necho done $?",
            run - 1
        ));
        // In the middle of it.
        let begun = || ask(&pair.source.log, "status").ok().flatten().map_or(0, |answer| answer.events);
        wait_for("some calls", Duration::from_secs(30), || begun() > 50 + 200 * run);
        let mut killed = vec![kill_recorder(&pair.source.log)];
        for _ in 0..3 {
            wait_for("a successor", Duration::from_secs(30), || {
                ask(&pair.source.log, "status")
                    .ok()
                    .flatten()
                    .is_some_and(|answer| !killed.contains(&answer.pid))
            });
            killed.push(kill_recorder(&pair.source.log));
        }
        shell.done();
        judged(&pair, &format!("run {run}"));
        // What was in the log by then is looked at again, and no more.
        shell.sh("echo x >> file");
        judged(&pair, &format!("after run {run}"));
    }
}

#[test]
fn what_is_open_when_a_round_begins_is_written_in_it() {
    if !need(&CFOR_TOOLS) || !need(&["xfs_io"]) {
        return;
    }
    for kind in ["ext4", "btrfs"] {
        let disk = Disk::new(kind);
        let pair = recorded(&disk);
        fs::write(pair.source.root.join("inherited"), "x").expect("write");
        fs::write(pair.source.root.join("mapped"), vec![1; 100_000]).expect("write");
        let mut shell = Driven::shell(&pair);
        shell.sh("true");
        shell.send("exec 9>>inherited; exec 8>new; echo done 0");
        shell.done();
        shell.send("mkfifo ../pipe; exec 7<>../pipe; xfs_io mapped < ../pipe > /dev/null & echo done 0");
        shell.done();
        shell.sh("echo 'mmap -rw 0 65536' >&7; echo 'close' >&7");
        round(&pair);
        for value in 1..4 {
            shell.sh(&format!("echo {value} >&9; echo {value} >&8; echo 'mwrite -S {value} 4096 5000' >&7"));
            let byte = || fs::read(pair.source.root.join("mapped")).expect("read")[5000];
            wait_for("the store", Duration::from_secs(20), || byte() == value);
            judged(&pair, &format!("{kind}: {value}"));
        }
        // A child has it, and the shell no longer.
        shell.sh("( sleep 1; echo late >&9 ) & exec 9>&-");
        shell.send("exec 9>&-; exec 8>&-; echo quit >&7; exec 7>&-; wait; echo done 0");
        shell.done();
        judged(&pair, &format!("{kind}: closed"));
        let report = round(&pair);
        assert_eq!((report.scanned, report.changed), (None, 0), "nothing is open any more");
    }
}

#[test]
fn without_root_a_command_is_recorded_and_what_may_not_be_looked_at_owes_a_scan() {
    if !need(&CFOR_TOOLS) || !need(&["setpriv", "gcc"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let own = disk.beside("cfor-log");
    fs::copy(bin("cfor-log"), &own).expect("copy");
    fs::create_dir(&pair.source.log).expect("mkdir");
    let nobody = 65534;
    for path in [&pair.source.log, &pair.source.root] {
        std::os::unix::fs::chown(path, Some(nobody), Some(nobody)).expect("chown");
    }
    fs::set_permissions(disk.beside(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    let hidden = compiled(&disk, "hidden", HIDDEN, &[]);
    let mut recorder = Command::new("setpriv");
    recorder.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&own);
    let mut shell = Driven::start_by(&pair, recorder, &["/bin/sh"]);
    shell.sh("mkdir d; echo x > d/f; ! touch /usr/nothing 2> /dev/null");
    round(&pair);
    shell.sh("grep -q 'NoNewPrivs:.1' /proc/self/status; mv d e; echo y > e/g; exec 9> open; echo z > e/h");
    judged(&pair, "as nobody");
    shell.sh("chmod 640 e/f; touch -d 2001-01-01 e/g; ln e/h i; ! rm /etc/passwd 2> /dev/null; rm e/h");
    judged(&pair, "metadata and links");
    shell.sh(&hidden);
    let why = round(&pair).scanned.unwrap_or_default();
    assert!(why.contains("a system call could not be followed"), "{why}");
    pair.judge("scanned");
    shell.sh("echo more >> i");
    judged(&pair, "and on");
}

/// A process that may not be looked at makes a directory.
const HIDDEN: &str = r#"
#include <sys/prctl.h>
#include <sys/stat.h>
int main(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || mkdir("hidden", 0755); }
"#;

#[test]
fn paths_are_those_of_the_command_in_a_chroot_too() {
    if !need(&CFOR_TOOLS) || !need(&["gcc"]) {
        return;
    }
    let disk = Disk::new("xfs");
    let pair = recorded(&disk);
    let jailed = compiled(&disk, "jailed", JAILED, &[]);
    let mut shell = Driven::shell(&pair);
    shell
        .sh("mkdir -p jail/etc jail/deep/er; ln -s /etc jail/abs; ln -s ../../../../../deep jail/deep/er/up");
    shell.sh("echo x > jail/etc/old; echo x > jail/deep/old");
    round(&pair);
    shell.sh(&jailed);
    judged(&pair, "chroot");
    for name in ["etc/new", "etc/old", "deep/old", "top", "etc/fd"] {
        assert_eq!(fs::read(pair.source.root.join("jail").join(name)).expect(name), b"jail", "{name}");
    }
}

/// Writes to files by ways that lead elsewhere outside of its root.
const JAILED: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
static int put(int dir, const char *path) {
    int fd = openat(dir, path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0) { perror(path); return 1; }
    int bad = write(fd, "jail", 4) != 4;
    return close(fd) | bad;
}
int main(void) {
    int etc = open("jail/etc", O_RDONLY | O_DIRECTORY);
    if (chroot("jail") || chdir("/deep")) return 9;
    return put(AT_FDCWD, "/abs/new") | put(AT_FDCWD, "../abs/old") | put(AT_FDCWD, "er/up/old")
        | put(AT_FDCWD, "../../../top") | put(etc, "fd");
}
"#;

#[test]
fn a_keeper_that_is_killed_leaves_a_recorder_whose_dumps_scan() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let mut shell = Driven::shell(&pair);
    shell.sh("echo x > a");
    round(&pair);
    shell.child.kill().expect("kill");
    shell.child.wait().expect("reap");
    for run in 0..3 {
        shell.sh(&format!("echo {run} > a; mkdir d{run}"));
        let report = round(&pair);
        let why = report.scanned.unwrap_or_default();
        assert!(why.contains("could not be followed"), "{run}: {why}");
        pair.judge(&format!("alone, {run}"));
    }
    drop(shell.stdin.take());
    wait_for("the recorder's end", LIMIT, || matches!(ask(&pair.source.log, "status"), Ok(None)));
}

#[test]
fn a_log_that_cannot_be_written_costs_a_scan_and_never_the_command() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    fs::create_dir(&pair.source.log).expect("mkdir");
    run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", &text(&pair.source.log)]).expect(0);
    let (root, log) = (text(&pair.source.root), text(&pair.source.log));
    let script = "for d in 1 2 3 4 5 6 7 8 9; do for e in 1 2 3 4 5 6 7 8 9; do mkdir $d$e; \
                  for f in 1 2 3 4 5 6 7 8 9; do echo x > $d$e/f$f; done; done; done; exit 3";
    let out = Tool::new(bin("cfor-log"))
        .args(&["record", "--backend", "seccomp", "--root", &root, "--log", &log, "--", "sh", "-c", script])
        .dir(&pair.source.root)
        .limit(LIMIT)
        .run();
    run("umount", &[&log]).expect(0);
    assert_eq!(out.code, 3, "{}", out.stderr);
    assert!(out.stderr.contains("No space left on device"), "{}", out.stderr);
    assert!(out.stderr.contains("the command goes on unrecorded"), "{}", out.stderr);
    assert!(pair.source.root.join("99/f9").exists());
}

/// Compiles a program beside a disk.
fn compiled(disk: &Disk, name: &str, source: &str, flags: &[&str]) -> String {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (from, to) = (disk.beside(&format!("{name}.c")), disk.beside(name));
    fs::write(&from, source).expect("write");
    run("gcc", &[flags, &["-o", &text(&to), &text(&from)]].concat()).expect(0);
    text(&to)
}

#[test]
fn io_uring_is_not_there_and_programs_fall_back() {
    if !need(&CFOR_TOOLS) || !need(&["fio", "gcc"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let mut shell = Driven::shell(&pair);
    round(&pair);
    let job = "--name=j --filename=large --size=1m --bs=4k --rw=randwrite --output=/dev/null";
    shell.sh(&format!("! fio {job} --ioengine=io_uring 2> ../said; grep -q 'support io_uring' ../said"));
    shell.sh(&format!("fio {job} --ioengine=psync"));
    judged(&pair, "what it fell back to");
}

#[test]
fn programs_without_the_c_library_and_of_32_bits_are_recorded() {
    if !need(&CFOR_TOOLS) || !need(&["gcc"]) {
        return;
    }
    let disk = Disk::new("ext4");
    let pair = recorded(&disk);
    let whole = compiled(&disk, "whole", STATIC, &["-static", "-O1", "-pthread"]);
    let alone = ["-m32", "-nostdlib", "-static", "-O1", "-fno-pic", "-fno-stack-protector"];
    let small = compiled(&disk, "small", I386, &alone);
    let mut shell = Driven::shell(&pair);
    shell.sh("mkdir old; echo x > old/f; echo y > changed; ln -s changed link");
    round(&pair);
    shell.sh(&whole);
    judged(&pair, "a static program with threads");
    assert_eq!(fs::read_dir(pair.source.root.join("threads")).expect("list").count(), 400);
    shell.sh(&small);
    judged(&pair, "a program of i386");
    assert_eq!(fs::read(pair.source.root.join("changed")).expect("read"), b"i386\n");
    assert!(pair.source.root.join("new/f").exists() && pair.source.root.join("sock").exists());
}

/// Threads that make, rename and remove files, each in a working directory of the process's, and by descriptors.
const STATIC: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static void *work(void *arg) {
    char a[64], b[64];
    int dir = open("threads", O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 100; i++) {
        sprintf(a, "%ld.%d.tmp", (long)arg, i); sprintf(b, "%ld.%d", (long)arg, i);
        int fd = openat(dir, a, O_CREAT | O_WRONLY, 0600);
        if (write(fd, a, 9) != 9 || fchmod(fd, 0640)) return arg;
        close(fd);
        if (renameat(dir, a, dir, b)) return arg;
    }
    close(dir);
    return 0;
}
int main(void) {
    pthread_t t[4]; void *bad = 0, *r;
    if (mkdir("threads", 0755)) return 1;
    for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, work, (void *)(i + 1));
    for (int i = 0; i < 4; i++) { pthread_join(t[i], &r); if (r) bad = r; }
    return bad != 0;
}
"#;

/// Without any library: `int $0x80` with the numbers of i386.
const I386: &str = r#"
static int call(int n, long a, long b, long c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r;
}
static void zero(char *p, int n) { while (n--) *p++ = 0; }
void _start(void) {
    int bad = 0;
    bad |= call(39, (long)"new", 0755, 0);                      /* mkdir */
    bad |= call(38, (long)"old/f", (long)"new/f", 0);           /* rename */
    bad |= call(40, (long)"old", 0, 0);                         /* rmdir */
    int fd = call(5, (long)"link", 01001, 0);                   /* open, for writing, truncated */
    bad |= call(4, fd, (long)"i386\n", 5) != 5;                 /* write */
    bad |= call(94, call(5, (long)"new", 0, 0), 0710, 0);       /* fchmod of a directory that is only read */
    bad |= call(15, (long)"new/f", 0604, 0);                    /* chmod */
    bad |= call(83, (long)"x", (long)"symlink", 0);             /* symlink */
    struct { unsigned short family; char path[14]; } name; zero((char *)&name, sizeof name);
    name.family = 1; name.path[0] = 's'; name.path[1] = 'o'; name.path[2] = 'c'; name.path[3] = 'k';
    long args[3] = { 1, 1, 0 };
    args[0] = call(102, 1, (long)args, 0);                      /* socketcall: socket */
    args[1] = (long)&name; args[2] = sizeof name;
    bad |= call(102, 2, (long)args, 0);                         /* socketcall: bind */
    call(1, bad != 0, 0, 0);
}
"#;
