//! A standby whose apply ends at any point: by an injected stop in the engine, and by SIGKILL of a real process. Done
//! again it ends identical.

use crate::support::{Dir, Disk, Pair, Random, Tool, bin, mutate, need, wanted};
use mirror::base::{Class, Error};
use mirror::capture::apply::Step;
use mirror::capture::apply::{ApplyOptions, apply};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Applies, and stops when a step has been asked about so often. Whether it was stopped.
fn apply_until(pair: &Pair, dump: Option<&[u8]>, step: Step, nth: u64) -> bool {
    let mut left = nth;
    let mut bytes = dump.unwrap_or_default();
    let input = dump.map(|_| ("the dump", &mut bytes as &mut dyn std::io::Read));
    let stopped = apply(&pair.standby, input, &mut |at| {
        if at == step {
            if left == 0 {
                return Err(Error::new(Class::Internal, "stopped"));
            }
            left -= 1;
        }
        Ok(())
    });
    match stopped {
        Ok(report) => {
            pair.acknowledge(&report);
            false
        }
        Err(error) => {
            assert_eq!(error.message, "stopped");
            true
        }
    }
}

fn finish(pair: &Pair, what: &str) {
    let report = apply(&pair.standby, None, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{what}: redo: {e}"));
    assert!(report.redone, "{what}");
    pair.acknowledge(&report);
}

#[test]
fn done_an_apply_stopped_anywhere_in_every_step_ends_identical_when_it_is_done_again() {
    if !need(&["root", "rsync", "loop", "mkfs.xfs", "mkfs.btrfs", "mkfs.ext4"]) {
        return;
    }
    let (runs, seed) = wanted(27);
    for kind in ["tmpfs", "ext4", "xfs", "btrfs"] {
        let disk = Disk::new(kind);
        let pair = Pair::new(&disk);
        let mut random = Random(seed ^ 0x00c0_ffee);
        let mut reached = std::collections::BTreeSet::new();
        for run in 0..runs {
            mutate(&pair.source.root, &mut random, 20);
            let dump = pair.dump();
            let step = Step::ALL[run as usize % Step::ALL.len()];
            let nth = random.below(if run < 18 { 2 } else { 12 });
            let what = format!("{kind}, seed {seed}, run {run}, stop {nth} of {step:?}");
            if apply_until(&pair, Some(&dump), step, nth) {
                reached.insert(step);
                // Half of them are stopped in the redo, too.
                if run % 2 == 0 {
                    let again = Step::ALL[random.below(9) as usize];
                    if apply_until(&pair, None, again, random.below(6)) {
                        finish(&pair, &what);
                    }
                } else {
                    finish(&pair, &what);
                }
            }
            if run % 3 == 0 { pair.judge(&what) } else { assert_eq!(pair.differences(), [""; 0], "{what}") }
        }
        if runs >= 27 {
            assert!(reached.len() >= 7, "{kind}: only {reached:?} were reached");
        }
    }
}

/// Not a test by itself: the process that the next one starts, and that kills itself at a step.
#[test]
fn a_process_that_kills_itself_at_a_step() {
    let Ok(told) = std::env::var("MIRROR_CFOR_CHILD") else { return };
    let mut words = told.split('\t');
    let mut word = || words.next().expect("a word").to_owned();
    let (step, mut left): (usize, u32) = (word().parse().expect("step"), word().parse().expect("nth"));
    let (root, log, dump) = (word().into(), word().into(), word());
    let options = ApplyOptions { privileged: true, ..ApplyOptions::new(root, log) };
    let mut file = std::fs::File::open(dump).expect("dump");
    let done = apply(&options, Some(("the dump", &mut file)), &mut |at| {
        if at == Step::ALL[step] {
            if left == 0 {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                    .expect("kill");
            }
            left -= 1;
        }
        Ok(())
    });
    done.expect("applied before it came to that");
}

#[test]
fn done_an_apply_killed_at_every_numbered_step_ends_identical() {
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    let root = &pair.source.root;
    let mut killed = 0;
    for (run, step) in (0..Step::ALL.len()).chain(0..Step::ALL.len()).enumerate() {
        let write = |name: &str, text: String| std::fs::write(root.join(name), text).expect("write");
        write("same", format!("{run}").repeat(1000 + run));
        write(&format!("new{run}"), format!("{run}"));
        let _ = std::fs::create_dir(root.join("d"));
        write("d/x", "x".repeat(200_000 + run));
        let _ = std::fs::rename(root.join("d"), root.join(format!("d{run}")));
        let _ = std::fs::remove_file(root.join(format!("new{}", run.wrapping_sub(1))));
        let dump = disk.beside("dump");
        std::fs::write(&dump, pair.dump()).expect("dump");
        let told = format!(
            "{step}\t{}\t{}\t{}\t{}",
            run / Step::ALL.len(),
            pair.standby.root.display(),
            pair.standby.log.display(),
            dump.display()
        );
        let status = Command::new(std::env::current_exe().expect("self"))
            .args(["--exact", "cfor::crash::a_process_that_kills_itself_at_a_step"])
            .env("MIRROR_CFOR_CHILD", told)
            .stdout(Stdio::null())
            .status()
            .expect("child");
        if status.success() {
            let report = apply(&pair.standby, None, &mut |_| Ok(())).expect("nothing to redo");
            pair.acknowledge(&report);
        } else {
            killed += 1;
            let args = ["apply", "--redo", "--privileged", "--root"];
            let (root, log) =
                (pair.standby.root.display().to_string(), pair.standby.log.display().to_string());
            let out = Tool::new(bin("cfor-log")).args(&args).args(&[&root, "--log", &log]).run().expect(0);
            assert!(out.stderr.contains("an interrupted apply was finished"), "{}", out.stderr);
            pair.acknowledge(&apply(&pair.standby, None, &mut |_| Ok(())).expect("nothing to redo"));
        }
        assert_eq!(pair.differences(), [""; 0], "step {step}");
    }
    assert!(killed >= 14, "only {killed} were killed");
}

#[test]
fn dump_and_apply_killed_at_random_points_end_identical() {
    let dir = Dir::new();
    for name in ["a", "b"] {
        std::fs::create_dir(dir.path(name)).expect("mkdir");
    }
    let path = |name: &str| dir.path(name).to_string_lossy().into_owned();
    let tool = |args: &[&str]| Tool::new(bin("cfor-log")).args(args);
    let (a, b, source, standby, file) = (path("a"), path("b"), path("source"), path("standby"), path("dump"));
    let (runs, seed) = wanted(10);
    let mut random = Random(seed);
    let mut die = |args: &[&str]| {
        let mut child = Command::new(bin("cfor-log"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        let _ = child.kill();
        child.wait().expect("reap");
    };
    for run in 0..runs {
        for at in 0..60 {
            let text = format!("{run} {at}").repeat(1 + at * 40);
            std::fs::write(dir.path("a").join(format!("f{}", (at + run as usize * 7) % 90)), text)
                .expect("write");
        }
        let _ = std::fs::remove_file(dir.path("a").join(format!("f{run}")));
        die(&["dump", &source, "--root", &a, "-o", &file]);
        tool(&["dump", &source, "--root", &a, "-o", &file]).run().expect(0);
        die(&["apply", &file, "--root", &b, "--log", &standby]);
        let out = tool(&["apply", &file, "--root", &b, "--log", &standby]).run().expect(0);
        tool(&["ack", &source, "standby"]).input(out.stdout.as_bytes()).run().expect(0);
        tool(&["verify", "--root", &b, "--against", &a]).run().expect(0);
        tool(&["verify", "--root", &b, "--log", &standby]).run().expect(0);
    }
}
