//! Copies to and from another machine, over a real sshd on loopback: what travels, what is refused, and what is
//! left when either side is killed.

use crate::support::{Random, SSH, Sshd, assert_equal, bin, need, wait_for};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const BLOCK: u64 = 64 << 10;

/// A sparse file with so many random blocks in it.
fn image(path: &Path, size: u64, blocks: u64, random: &mut Random) {
    let file = File::create(path).expect("image");
    file.set_len(size).expect("size");
    for _ in 0..blocks {
        change(&file, size, random);
    }
}

/// Another random block somewhere.
fn change(file: &File, size: u64, random: &mut Random) {
    let data: Vec<u8> = (0..BLOCK / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    file.write_all_at(&data, random.below(size / BLOCK) * BLOCK).expect("write");
}

/// A copy with its holes.
fn copy(from: &Path, to: &Path) {
    let out = crate::support::run("cp", &["--sparse=always", &text(from), &text(to)]);
    assert_eq!(out.code, 0, "{}", out.stderr);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn done_a_comparison_over_ssh_sends_digests_and_what_differs() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let random = &mut Random(11);
    let (size, here, there) = (10 << 30, sshd.dir.path("here"), sshd.dir.path("far/image"));
    image(&here, size, 1000, random);
    copy(&here, &there);
    let sync = |counted: &str| {
        let limit = Duration::from_secs(300);
        sshd.tool("mirror-sync", &["-q", "--compare", &text(&here), counted]).limit(limit).run().expect(0);
    };
    let (uri, counter) = sshd.counted("image");
    sync(&uri);
    let equal = counter.bytes();
    assert!(equal < 1 << 20, "two equal images: {equal} bytes");
    let file = File::options().write(true).open(&here).expect("open");
    (0..100).for_each(|_| change(&file, size, random));
    drop(file);
    let (uri, counter) = sshd.counted("image");
    sync(&uri);
    let changed = counter.bytes();
    assert!(changed < 100 * BLOCK + (2 << 20), "100 blocks: {changed} bytes");
    println!("equal {equal} bytes, 100 blocks {changed} bytes");
    assert_equal(&here, &there);
}

#[test]
fn every_way_of_choosing_works_in_both_directions() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let random = &mut Random(12);
    let (here, there, map) = (sshd.dir.path("here"), sshd.dir.path("far/image"), text(&sshd.dir.path("map")));
    let size = 96 << 20;
    image(&here, size, 100, random);
    image(&there, size, 30, random);
    let (rsh, far, local) = (sshd.rsh(), sshd.far("image"), text(&here));
    let sync = |args: &[&str]| sshd.tool("mirror-sync", &[&["-q"], args].concat()).run();
    sync(&["--full", "--verify", &local, &far]).expect(0);
    assert_equal(&here, &there);
    // Back, through the user's own ssh, compressed.
    change(&File::options().write(true).open(&there).expect("open"), size, random);
    sync(&["--compress", "zstd", "--rsh", &rsh, &far, &local]).expect(0);
    assert_equal(&here, &there);
    // What a map marks, and the marks go when it is durable over there.
    sshd.tool("dirtymap", &["create", "--like", &local, &map]).run().expect(0);
    let file = File::options().write(true).open(&here).expect("open");
    file.write_all_at(b"changed", 5 << 20).expect("write");
    file.write_all_at(b"changed, and not marked", 50 << 20).expect("write");
    drop(file);
    sshd.tool("dirtymap", &["set", &map, "5M+1"]).run().expect(0);
    sync(&["--dirty-only", "--map", &map, &local, &far]).expect(0);
    sshd.tool("dirtymap", &["check", &map]).run().expect(0);
    let mut found = [0; 7];
    File::open(&there).and_then(|file| file.read_exact_at(&mut found, 5 << 20)).expect("read");
    assert_eq!(&found, b"changed");
    sshd.tool("dirtymap", &["-q", "diff", &local, &far, "-o", "/dev/null"]).run().expect(1);
    sync(&["--verify", &local, &far]).expect(0);
    assert_equal(&here, &there);
}

#[test]
fn what_must_not_be_begun_is_refused_on_both_sides() {
    if !need(&SSH) {
        return;
    }
    let tool = bin("mirror-sync").display().to_string();
    let sshd = Sshd::start("");
    let random = &mut Random(13);
    let (here, there) = (sshd.dir.path("here"), sshd.dir.path("far/image"));
    image(&here, 4 << 20, 10, random);
    image(&there, 2 << 20, 10, random);
    let sync = |args: &[&str]| sshd.tool("mirror-sync", &[&["-q"], args].concat()).run();
    let (local, far) = (text(&here), sshd.far("image"));
    assert_eq!(sync(&["--full", &local, &far]).code, 3, "a smaller target");
    sync(&["--full", &local, &sshd.far("none")]).fails("mirror-sync", 5, "No such file");
    assert_eq!(sync(&["--full", &text(&there), &far]).code, 3, "the same file");
    // Somebody else has it.
    File::options().write(true).open(&there).and_then(|file| file.set_len(4 << 20)).expect("size");
    let held = mirror::device::FileDevice::open(&there, true).expect("hold");
    sync(&["--full", &local, &far]).fails("mirror-sync", 75, "another process holds it");
    drop(held);
    sync(&["--full", &local, &far]).expect(0);
    // A key that only reads.
    let keys = sshd.dir.path("authorized_keys");
    let key = std::fs::read_to_string(&keys).expect("keys");
    let root = text(&sshd.dir.path("far"));
    std::fs::write(&keys, format!("restrict,command=\"{tool} --serve --read-only --root {root}\" {key}"))
        .expect("keys");
    sync(&["--full", &local, &sshd.uri("/image")]).fails("mirror-sync", 3, "only reading is allowed");
    sync(&["--full", &sshd.uri("/image"), &local]).expect(0);
    sync(&["--full", &sshd.uri("/../here"), &local]).fails("mirror-sync", 3, "it leads out of the root");
}

/// Runs a copy and kills one side after a while: the near one, or the far one by the number it has written down.
fn killed(sshd: &Sshd, args: &[&str], after: Duration, far: Option<&Path>) {
    let mut tool = sshd.tool("mirror-sync", args);
    let command: &mut Command = tool.command();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
    std::thread::sleep(after);
    if let Some(pid) = far {
        if let Ok(pid) = std::fs::read_to_string(pid) {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).stderr(Stdio::null()).status();
            let _ = std::fs::remove_file(sshd.dir.path("pid"));
        }
    } else {
        child.kill().expect("kill");
    }
    let mut ended = false;
    wait_for("the near end ends", Duration::from_secs(60), || {
        ended |= child.try_wait().expect("wait").is_some();
        ended
    });
}

#[test]
fn a_copy_killed_on_either_side_at_any_moment_ends_equal_when_it_is_run_again() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let random = &mut Random(14);
    let (here, there) = (sshd.dir.path("here"), sshd.dir.path("far/image"));
    let size = 48 << 20;
    // A connection made of a pipe, whose far end says who it is.
    let rsh = sshd.dir.path("rsh");
    let (pid, tool) = (sshd.dir.path("pid"), bin("mirror-sync"));
    let script = format!("#!/bin/sh\necho $$ > {}\nexec {} --serve\n", pid.display(), tool.display());
    std::fs::write(&rsh, script).expect("script");
    std::fs::set_permissions(&rsh, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    image(&there, size, 50, random);
    let (local, far, rsh, map) = (text(&here), sshd.far("image"), text(&rsh), text(&sshd.dir.path("map")));
    for turn in 0..6 {
        image(&here, size, 300, random);
        sshd.tool("dirtymap", &["create", "--replace", "--all", "--like", &local, &map]).run().expect(0);
        let mode: &[&str] = match turn % 3 {
            0 => &["--full"],
            1 => &["--compare"],
            _ => &["--dirty-only", "--map", &map],
        };
        let words = [&["-q"], mode, &["--bwlimit", "16M", "--rsh", &rsh, &local, &far]].concat();
        for attempt in 0..3 {
            let victim = (attempt % 2 == turn % 2).then_some(&*pid);
            killed(&sshd, &words, Duration::from_millis(50 + random.below(500)), victim);
            if turn % 3 == 2 {
                // Never a clean bit over a block that differs.
                let marked = sshd.tool("dirtymap", &["show", "--list", &map]).run().expect(0).stdout;
                assert_marked(&here, &there, &marked);
            }
        }
        // The killed one may still have been writing when its successor asks for the lock.
        let mut code = 75;
        wait_for("the target is free", Duration::from_secs(60), || {
            code = sshd
                .tool("mirror-sync", &[&["-q"], mode, &["--rsh", &rsh, &local, &far]].concat())
                .run()
                .code;
            code != 75
        });
        assert_eq!(code, 0);
        assert_equal(&here, &there);
    }
}

/// Every block that differs is in a list of `OFFSET LENGTH` lines.
#[track_caller]
fn assert_marked(a: &Path, b: &Path, list: &str) {
    let ranges: Vec<(u64, u64)> = list
        .lines()
        .filter_map(|line| {
            let (offset, len) = line.split_once(' ')?;
            Some((offset.parse().ok()?, len.trim().parse().ok()?))
        })
        .collect();
    let (a, b) = (std::fs::read(a).expect("read"), std::fs::read(b).expect("read"));
    for (at, (a, b)) in a.chunks(BLOCK as usize).zip(b.chunks(BLOCK as usize)).enumerate() {
        let at = at as u64 * BLOCK;
        let marked = ranges.iter().any(|(offset, len)| *offset <= at && at < offset + len);
        assert!(marked || a == b, "block at {at} differs and is not marked");
    }
}
