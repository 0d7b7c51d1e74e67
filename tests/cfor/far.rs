//! Trees on another machine: dumps are sent there and applied, trees compared there, a standby seeded.

use crate::support::{Dir, SSH, Sshd, Tool, bin, need};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Some files of every usual kind.
fn fill(root: &Path) {
    for dir in ["a/b/c", "d"] {
        std::fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    for (name, len) in [("a/one", 10), ("a/b/two", 300_000), ("a/b/c/three", 0), ("d/big", 3 << 20)] {
        let bytes: Vec<u8> = (0..len).map(|at: u32| (at * 7 / 3 % 251) as u8).collect();
        std::fs::write(root.join(name), bytes).expect("write");
    }
    symlink("../a/one", root.join("d/link")).expect("symlink");
    std::fs::hard_link(root.join("a/one"), root.join("d/hard")).expect("link");
}

/// The judge: nothing that rsync would change.
#[track_caller]
fn identical(a: &Path, b: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    let args = ["-naHAX", "--checksum", "--delete", "--itemize-changes", &slash(a), &slash(b)];
    let out = crate::support::run("rsync", &args);
    assert_eq!((out.code, out.stdout.as_str()), (0, ""), "{}", out.stderr);
}

struct Trees {
    sshd: Sshd,
    here: Dir,
}

impl Trees {
    fn new() -> Self {
        let trees = Self { sshd: Sshd::start(""), here: Dir::new() };
        std::fs::create_dir(trees.here.path("tree")).expect("mkdir");
        fill(&trees.here.path("tree"));
        trees
    }

    fn text(&self, name: &str) -> String {
        self.here.path(name).display().to_string()
    }

    fn cfor(&self, args: &[&str]) -> Tool {
        self.sshd.tool("cfor-log", args)
    }
}

#[test]
fn a_dump_is_sent_to_another_machine_and_applied_there() {
    if !need(&[&SSH[..], &["rsync"]].concat()) {
        return;
    }
    let trees = Trees::new();
    let (tree, log, dump, far) =
        (trees.text("tree"), trees.text("log"), trees.text("dump"), trees.sshd.far(""));
    let rsh = trees.sshd.rsh();
    let round = |way: &[&str]| {
        trees.cfor(&["-q", "dump", &log, "--root", &tree, "-o", &dump]).run().expect(0);
        let applied = trees.cfor(&[&["-q", "apply", &dump, "--root", &far], way].concat()).run().expect(0);
        trees.cfor(&["-q", "ack", &log, "standby", applied.stdout.trim()]).run().expect(0);
        identical(&trees.here.path("tree"), &trees.sshd.dir.path("far"));
    };
    round(&[]);
    std::fs::rename(trees.here.path("tree/a/b"), trees.here.path("tree/moved")).expect("rename");
    std::fs::write(trees.here.path("tree/d/big"), "small now").expect("write");
    round(&["--rsh", &rsh]);
    // The same dump again finds the standby at its round.
    trees.cfor(&["-q", "apply", &dump, "--root", &far]).run().expect(0);
    // One that is cut, and a standby that somebody edited, are refused over there.
    std::fs::write(trees.here.path("tree/new"), "new").expect("write");
    trees.cfor(&["-q", "dump", &log, "--root", &tree, "-o", &dump]).run().expect(0);
    let whole = std::fs::read(&dump).expect("dump");
    std::fs::write(&dump, &whole[..whole.len() - 40]).expect("write");
    trees.cfor(&["-q", "apply", &dump, "--root", &far]).run().fails("cfor-log", 9, "its far end says");
    assert!(!trees.sshd.dir.path("far/new").exists());
    std::fs::write(&dump, whole).expect("write");
    std::fs::write(trees.sshd.dir.path("far/stranger"), "x").expect("write");
    trees.cfor(&["-q", "apply", &dump, "--root", &far]).run().fails("cfor-log", 4, "changed by others");
}

#[test]
fn a_tree_is_compared_where_it_is_and_only_what_differs_is_looked_at() {
    if !need(&SSH) {
        return;
    }
    let trees = Trees::new();
    let (tree, far) = (trees.text("tree"), trees.sshd.far(""));
    let copied = ["-a", &format!("{tree}/."), &format!("{}/", trees.sshd.dir.path("far").display())];
    assert_eq!(crate::support::run("cp", &copied).code, 0);
    let verify = || trees.cfor(&["-q", "verify", "--root", &tree, "--against", &far]).run();
    assert_eq!(verify().expect(0).stdout, "");
    let away = trees.sshd.dir.path("far");
    std::fs::write(away.join("a/b/two"), "other").expect("write");
    std::fs::remove_file(away.join("a/b/c/three")).expect("remove");
    std::fs::write(away.join("d/more"), "x").expect("write");
    std::fs::remove_file(away.join("d/hard")).expect("remove");
    std::fs::write(away.join("d/hard"), std::fs::read(away.join("a/one")).expect("read")).expect("write");
    let found = verify().expect(1).stdout;
    let local = trees
        .cfor(&["-q", "verify", "--root", &tree, "--against", &away.display().to_string()])
        .run()
        .expect(1);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&found), sorted(&local.stdout), "as if it were here");
    assert!(found.contains("missing d/more") && found.contains("extra a/b/c/three"), "{found}");
}

#[test]
fn a_standby_on_another_machine_is_seeded_and_a_forced_command_confines_it() {
    if !need(&[&SSH[..], &["rsync"]].concat()) {
        return;
    }
    let root = Dir::new();
    std::fs::create_dir(root.path("standby")).expect("mkdir");
    let state = root.path("state").display().to_string();
    let options = format!(
        "restrict,command=\"env MIRROR_STATE_DIR={state} {} --serve --root {}\"",
        bin("mirror-sync").display(),
        root.path("").display()
    );
    let trees = Trees { sshd: Sshd::start(&options), here: Dir::new() };
    std::fs::create_dir(trees.here.path("tree")).expect("mkdir");
    fill(&trees.here.path("tree"));
    let (tree, log, far) = (trees.text("tree"), trees.text("log"), trees.sshd.uri("/standby"));
    let seed = |more: &[&str]| {
        trees.cfor(&[&["-q", "seed", "--root", &tree, "--log", &log, &far], more].concat()).run()
    };
    seed(&[]).expect(0);
    identical(&trees.here.path("tree"), &root.path("standby"));
    std::fs::write(trees.here.path("tree/a/one"), "changed").expect("write");
    seed(&[]).expect(0);
    identical(&trees.here.path("tree"), &root.path("standby"));
    trees.cfor(&["-q", "verify", "--root", &tree, "--against", &far]).run().expect(0);
    // What could lead out of the root is not taken from a key that is confined.
    seed(&["--privileged"]).fails("cfor-log", 3, "not allowed under --root");
    seed(&["--target-log", "/tmp/x"]).fails("cfor-log", 3, "cannot be chosen");
    for bad in ["/../x", "/standby/../.."] {
        let far = trees.sshd.uri(bad);
        let out = trees.cfor(&["-q", "verify", "--root", &tree, "--against", &far]).run();
        out.fails("cfor-log", 3, "it leads out of the root");
    }
}
