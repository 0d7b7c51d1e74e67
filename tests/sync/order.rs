//! The order of what `mirror-sync` asks the kernel for, as strace(1) sees it: what a power failure between any two calls
//! would leave behind depends on nothing else.

use crate::support::{Dir, Tool, assert_equal, bin, need, text};
use std::collections::HashMap;
use std::path::PathBuf;

const SIZE: usize = 4 << 20;

fn image(dir: &Dir, name: &str, byte: u8) -> PathBuf {
    let path = dir.path(name);
    std::fs::write(&path, vec![byte; SIZE]).expect("write");
    path
}

/// A call that succeeded: when it began and when it ended, counted in lines.
#[derive(Debug)]
struct Call {
    begin: usize,
    end: usize,
    text: String,
}

impl Call {
    fn is(&self, names: &[&str], what: &str) -> bool {
        names.iter().any(|name| self.text.starts_with(&format!("{name}("))) && self.text.contains(what)
    }
}

/// The calls of `mirror-sync` with these arguments.
fn calls(dir: &Dir, args: &[&str]) -> Vec<Call> {
    let (log, tool) = (dir.path("strace"), bin("mirror-sync"));
    let traced =
        "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,pwrite64,fallocate,fadvise64";
    let strace = ["-f", "-y", "-qq", "-s", "0", "-e", traced, "-o", text(&log), text(&tool)];
    Tool::new("strace").args(&[&strace, args].concat()).env("MIRROR_STATE_DIR", dir.state()).run().expect(0);
    let log = std::fs::read_to_string(&log).expect("log");
    let (mut calls, mut open) = (Vec::new(), HashMap::new());
    for (at, line) in (1..).zip(log.lines()) {
        let (thread, call) = line.split_once(' ').expect("a thread");
        let call = call.trim_start();
        let (begin, text) = if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            open.insert(thread.to_owned(), (at, begun.to_owned()));
            continue;
        } else if call.starts_with("<... ") {
            open.remove(thread).expect("a call that began")
        } else {
            (at, call.to_owned())
        };
        let failed = call.rsplit_once(" = ").is_none_or(|(_, result)| result.starts_with('-'));
        if !failed {
            calls.push(Call { begin, end: at, text });
        }
    }
    calls
}

/// The one call that is so.
#[track_caller]
fn one<'c>(calls: &'c [Call], names: &[&str], what: &str) -> &'c Call {
    let found: Vec<_> = calls.iter().filter(|call| call.is(names, what)).collect();
    assert_eq!(found.len(), 1, "{names:?} {what}: {calls:#?}");
    found[0]
}

const SYNC: [&str; 2] = ["fsync", "fdatasync"];
const RENAME: [&str; 3] = ["rename", "renameat", "renameat2"];
const UNLINK: [&str; 2] = ["unlink", "unlinkat"];
const WRITE: [&str; 2] = ["pwrite64", "fallocate"];

/// Whether something was synced after one moment and before another.
#[track_caller]
fn assert_synced(calls: &[Call], what: &str, after: usize, before: usize) {
    let so = calls.iter().any(|call| call.is(&SYNC, what) && call.begin > after && call.end < before);
    assert!(so, "{what} is not synced between {after} and {before}: {calls:#?}");
}

/// What is renamed to a name.
#[track_caller]
fn renamed<'c>(calls: &'c [Call], name: &str) -> &'c Call {
    let to = |call: &&Call| {
        call.is(&RENAME, "")
            && call.text.split('"').nth(3).is_some_and(|to| to.ends_with(&format!("/{name}")))
    };
    let found: Vec<_> = calls.iter().filter(to).collect();
    assert_eq!(found.len(), 1, "{name}: {calls:#?}");
    found[0]
}

/// The same, and that it was synced as a whole before: when.
#[track_caller]
fn published(calls: &[Call], name: &str) -> usize {
    let call = renamed(calls, name);
    let from = call.text.split('"').nth(1).expect("the old name");
    assert_synced(calls, &format!("<{from}>"), 0, call.begin);
    call.begin
}

#[test]
fn a_staged_copy_and_its_undoing_do_each_step_when_the_one_before_is_on_disk() {
    if !need(&["strace"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let calls_made = calls(&dir, &["-q", "--stage", text(&a), text(&b)]);
    let calls_of = &calls_made[..];
    let target = format!("<{}>", b.display());
    let stage =
        std::fs::read_dir(dir.state().join("stage")).expect("stage").next().expect("one").expect("entry");
    let directory = format!("<{}>", stage.path().display());
    let written = || calls_of.iter().filter(|call| call.is(&WRITE, &target));
    let (first, last) =
        (written().next().expect("written"), written().map(|call| call.end).max().expect("written"));
    // 1 and 2: whole and synced, one after the other, names and all.
    let staged = published(calls_of, "stage");
    let undo = published(calls_of, "undo");
    let expect = published(calls_of, "expect");
    let decided = renamed(calls_of, "redo");
    assert!(staged < undo.min(expect) && undo.max(expect) < decided.begin);
    assert_synced(calls_of, &directory, staged, undo.min(expect));
    assert_synced(calls_of, &directory, undo.max(expect), decided.begin);
    // 3: the decision is on disk before the first byte of the target changes.
    assert_synced(calls_of, &directory, decided.end, first.begin);
    // 4 and 5: the target is flushed before the decision is forgotten.
    let forgotten = one(calls_of, &UNLINK, "/redo\"");
    assert_synced(calls_of, &target, last, forgotten.begin);
    assert_synced(calls_of, &directory, forgotten.end, usize::MAX);
    assert_equal(&a, &b);

    let log = stage.path().join("undo");
    let calls_made = calls(&dir, &["-q", "--undo", text(&log), text(&b)]);
    let last = calls_made.iter().filter(|call| call.is(&WRITE, &target)).map(|call| call.end).max();
    let forgotten = one(&calls_made, &UNLINK, "/undo\"");
    assert_synced(&calls_made, &target, last.expect("written"), forgotten.begin);
    assert!(std::fs::read(&b).expect("read") == vec![2; SIZE]);
}

#[test]
fn what_is_verified_is_read_from_the_disk_and_not_from_the_cache_it_was_written_to() {
    if !need(&["strace"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let calls = calls(&dir, &["-q", "--full", "--verify", text(&a), text(&b)]);
    let target = format!("<{}>", b.display());
    let last =
        calls.iter().filter(|call| call.is(&WRITE, &target)).map(|call| call.end).max().expect("written");
    let dropped = one(&calls, &["fadvise64"], &target);
    assert!(dropped.text.contains("POSIX_FADV_DONTNEED"), "{dropped:?}");
    assert_synced(&calls, &target, last, dropped.begin);
}
