//! Deltas made, sent, applied, staged, rolled back; wrong, repeated and damaged ones refused.

use crate::support::{Dir, Random, Tool, assert_equal, bin, sync, text};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SIZE: u64 = 8 << 20;

fn scribble(path: &Path, random: &mut Random, times: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("open");
    for _ in 0..times {
        let at = random.below(SIZE - 5000);
        file.write_all_at(&vec![random.below(255) as u8 + 1; 5000], at).expect("write");
    }
}

/// A source that changes from day to day, its copy, and a delta of each day.
struct Days {
    dir: Dir,
    source: PathBuf,
    copy: PathBuf,
    random: Random,
}

impl Days {
    fn new() -> Self {
        let dir = Dir::new();
        let (source, copy) = (dir.image("source", SIZE), dir.image("copy", SIZE));
        Self { dir, source, copy, random: Random(3) }
    }

    /// Changes the source; the delta since the day before.
    fn delta(&mut self, name: &str) -> PathBuf {
        scribble(&self.source, &mut self.random, 20);
        let delta = self.dir.path(name);
        let (digest, here) = (self.dir.path("digest"), self.dir.path("here"));
        let args = ["-q", "--digest", text(&digest), "--generation", text(&here), "--compress", "zstd"];
        sync(&self.dir, &[&args[..], &["--delta", text(&delta), text(&self.source)]].concat())
            .run()
            .expect(0);
        delta
    }

    fn apply(&self, delta: &Path, more: &[&str]) -> crate::support::Output {
        let there = self.dir.path("there");
        let args = ["-q", "--generation", text(&there), "--apply", text(delta)];
        sync(&self.dir, &[more, &args[..], &[text(&self.copy)]].concat()).run()
    }
}

#[test]
fn done_deltas_are_applied_once_in_their_turn_and_nothing_else_is() {
    let mut days = Days::new();
    let (monday, tuesday, wednesday) = (days.delta("mo"), days.delta("tu"), days.delta("we"));
    let size = |path: &Path| std::fs::metadata(path).expect("metadata").len();
    assert!(size(&tuesday) < size(&monday), "only what has changed");
    days.apply(&tuesday, &[]).fails("mirror-sync", 9, "it is for");
    days.apply(&monday, &[]).expect(0);
    days.apply(&wednesday, &[]).fails("mirror-sync", 9, "it is for");
    days.apply(&tuesday, &[]).expect(0);
    let before = std::fs::read(&days.copy).expect("read");
    days.apply(&tuesday, &[]).fails("mirror-sync", 9, "it was applied already");
    assert!(std::fs::read(&days.copy).expect("read") == before, "nothing was written");
    days.apply(&wednesday, &["--stage"]).expect(0);
    assert_equal(&days.source, &days.copy);
    // Without an account nothing that needs one is applied.
    let args = ["--apply", text(&monday), text(&days.copy)];
    let out = sync(&days.dir, &["--inspect", text(&tuesday), "--json"]).run().expect(0);
    let told: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    assert_eq!((&told["schema"], &told["size"]), (&"mirror-delta/1".into(), &SIZE.into()), "{told}");
    let out = sync(&days.dir, &["--inspect", text(&monday)]).run().expect(0).stdout;
    assert!(out.contains("anything of this size"), "{out}");
    sync(&days.dir, &args).run().expect(0);
    let args = ["--apply", text(&tuesday), text(&days.copy)];
    sync(&days.dir, &args).run().fails("mirror-sync", 3, "no account is kept here");
}

#[test]
fn a_delta_goes_through_pipes_and_a_cut_one_is_noticed() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    scribble(&a, &mut Random(1), 30);
    let (tool, state) = (bin("mirror-sync"), dir.state());
    let pipe = |script: &str| {
        let script = script.replace("TOOL", tool.to_str().expect("UTF-8"));
        let script = script.replace("SOURCE", text(&a)).replace("TARGET", text(&b));
        Tool::new("sh").args(&["-c", &script]).env("MIRROR_STATE_DIR", &state).run()
    };
    pipe("TOOL -q --full --delta - SOURCE | gzip -1 | gzip -d | TOOL -q --apply - TARGET").expect(0);
    assert_equal(&a, &b);
    pipe("TOOL -q --full --delta - SOURCE | TOOL --inspect -").expect(0);
    let before = std::fs::read(&b).expect("read");
    scribble(&a, &mut Random(2), 30);
    // Staged, a stream that ends early changes nothing.
    let cut = "TOOL -q --full --delta - SOURCE | head -c 300000 | TOOL -q --stage --apply - TARGET";
    pipe(cut).fails("mirror-sync", 9, "it is cut here");
    assert!(std::fs::read(&b).expect("read") == before);
    pipe("TOOL -q --full --delta - SOURCE | TOOL -q --stage --apply - TARGET").expect(0);
    assert_equal(&a, &b);
}

#[test]
fn a_damaged_file_and_a_wrong_target_are_refused_before_the_first_byte() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    scribble(&a, &mut Random(1), 30);
    let delta = dir.path("d");
    let make = || sync(&dir, &["-q", "--full", "--delta", text(&delta), text(&a)]).run();
    make().expect(0);
    make().fails("mirror-sync", 3, "it exists");
    let before = std::fs::read(&b).expect("read");
    let whole = std::fs::read(&delta).expect("read");
    let apply = |target: &Path| sync(&dir, &["-q", "--apply", text(&delta), text(target)]).run();
    for at in [whole.len() / 2, whole.len() - 10] {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        std::fs::write(&delta, &bad).expect("write");
        apply(&b).fails("mirror-sync", 9, "");
        std::fs::write(&delta, &whole[..at]).expect("write");
        apply(&b).fails("mirror-sync", 9, "");
    }
    assert!(std::fs::read(&b).expect("read") == before, "nothing was written");
    std::fs::write(&delta, &whole).expect("write");
    let small = dir.image("small", 1 << 20);
    apply(&small).fails("mirror-sync", 3, "8388608 are needed");
    apply(Path::new("-")).fails("mirror-sync", 2, "cannot be a target here");
    sync(&dir, &["--delta", text(&dir.path("e")), text(&a)]).run().fails(
        "mirror-sync",
        2,
        "no target to compare",
    );
    sync(&dir, &["--inspect", text(&a)]).run().fails("mirror-sync", 9, "magic");
}

#[test]
fn marks_go_into_a_delta_file_and_stay_when_it_goes_to_a_pipe() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    scribble(&a, &mut Random(1), 30);
    let map = dir.path("m");
    let dirtymap = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    dirtymap(&["create", "--all", "--like", text(&a), text(&map)]).expect(0);
    let dirty = |to: &str, out: &str| {
        sync(&dir, &["-q", "--dirty-only", "--map", text(&map), "--delta", to, text(&a)])
            .run_into(std::fs::File::create(dir.path(out)).expect("create").into())
    };
    dirty("-", "piped").expect(0);
    dirtymap(&["check", text(&map)]).expect(1);
    dirty(text(&dir.path("d")), "nothing").expect(0);
    dirtymap(&["check", text(&map)]).expect(0);
    for delta in ["d", "piped"] {
        sync(&dir, &["-q", "--apply", text(&dir.path(delta)), text(&b)]).run().expect(0);
        assert_equal(&a, &b);
    }
}

#[test]
fn done_a_staged_copy_is_all_or_nothing_and_is_rolled_back() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    let mut random = Random(5);
    scribble(&b, &mut random, 30);
    scribble(&a, &mut random, 30);
    let before = std::fs::read(&b).expect("read");
    let out = sync(&dir, &["--stage", text(&a), text(&b)]).run().expect(0);
    assert_equal(&a, &b);
    let log = out.stderr.split_once("mirror-sync --undo ").expect("how to roll back").1;
    let log = log.split_whitespace().next().expect("a path").to_owned();
    let undo = || sync(&dir, &["-q", "--undo", &log, text(&b)]).run();
    // Something else was written there since: nothing is rolled back.
    let write = |byte: u8, place: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(&b);
        file.and_then(|file| file.write_all_at(&[byte], place)).expect("write");
    };
    let after = std::fs::read(&a).expect("read");
    let place = (0..after.len()).find(|at| after[*at] != before[*at]).expect("a difference");
    let (place, was) = (place as u64, after[place]);
    write(was ^ 1, place);
    undo().fails("mirror-sync", 3, "it has changed since");
    write(was, place);
    undo().expect(0);
    assert!(std::fs::read(&b).expect("read") == before);
    undo().fails("mirror-sync", 5, "No such file");
}

#[test]
fn done_killed_while_staging_or_applying_the_target_is_old_or_becomes_new() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    let mut random = Random(11);
    for _ in 0..12 {
        scribble(&a, &mut random, 60);
        let before = std::fs::read(&b).expect("read");
        let mut tool = sync(&dir, &["-q", "--stage", text(&a), text(&b)]);
        let mut child = tool.command().stderr(std::process::Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_millis(random.below(120)));
        child.kill().expect("kill");
        child.wait().expect("reap");
        let after = std::fs::read(&b).expect("read");
        let decided = std::fs::read_dir(dir.state().join("stage"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().join("redo").exists());
        if decided {
            // Whoever wants to write to it otherwise is told.
            sync(&dir, &["-q", text(&a), text(&b)]).run().fails("mirror-sync", 3, "not applied to its end");
            sync(&dir, &["-q", "--stage", "--redo", text(&b)]).run().expect(0);
            assert_equal(&a, &b);
        } else {
            let new = std::fs::read(&a).expect("read");
            assert!(after == before || after == new, "it was touched before the decision");
        }
        sync(&dir, &["-q", "--stage", text(&a), text(&b)]).run().expect(0);
        assert_equal(&a, &b);
    }
}
