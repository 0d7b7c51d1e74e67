//! The power fails at the Nth sync of an apply, for every N: the process is killed before that sync does anything, and
//! the disk is taken as it is at that moment, without what the file system had not written to it. Tree and state
//! are on that disk. Done again, the standby is identical.

use crate::support::{Dir, Pair, Random, Tool, bin, mutate, need, run};
use std::path::{Path, PathBuf};

/// An image, mounted until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("mkdir");
        run("mount", &["-o", "loop,nodev", &text(image), &text(at)]).expect(0);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", &text(from), &text(to)]).expect(0);
}

fn on(kind: &str) {
    let mkfs = format!("mkfs.{kind}");
    if !need(&["root", "loop", "strace", "xfs_io", &mkfs]) {
        return;
    }
    let dir = Dir::new();
    let (base, image, crashed) = (dir.path("base"), dir.path("image"), dir.path("crashed"));
    std::fs::File::create(&base).and_then(|file| file.set_len(320 << 20)).expect("image");
    run(&format!("/usr/sbin/{mkfs}"), &[if kind == "ext4" { "-Fq" } else { "-fq" }, &text(&base)]).expect(0);
    let at = dir.path("mnt");
    let (tree, state, dump) = (at.join("b"), at.join("standby"), dir.path("dump"));
    std::fs::create_dir(dir.path("a")).expect("mkdir");
    let pair = Pair::at(dir.path("a"), dir.path("source"), tree.clone(), state.clone());
    let mut random = Random(11);
    {
        let _mounted = Mounted::new(&base, &at);
        std::fs::create_dir(&tree).expect("mkdir");
        mutate(&pair.source.root, &mut random, 80);
        pair.apply(&pair.dump()).expect("first");
    }
    // New files, files that grow in place, renames: each has its own way to be half there.
    mutate(&pair.source.root, &mut random, 40);
    for name in ["new1", "new2"] {
        std::fs::write(pair.source.root.join(name), name.repeat(40_000)).expect("write");
    }
    std::fs::write(&dump, pair.dump()).expect("dump");
    let (dump, tree, state) = (text(&dump), text(&tree), text(&state));
    let apply = ["apply", &dump, "--privileged", "--root", &tree, "--log", &state];
    let mut lost = std::collections::BTreeMap::from(["fsync", "fdatasync", "syncfs"].map(|call| (call, 0)));
    // strace counts each system call for itself.
    for (call, lost) in &mut lost {
        every_sync(call, lost, (&base, &image, &crashed), &at, &apply, &pair, kind);
    }
    assert!(lost["fsync"] >= 6 && lost["syncfs"] == 2, "{kind}: {lost:?}");
}

/// Kills an apply at the first, the second, … call of one kind, until it comes to its end; each time a second one
/// goes on with what the disk holds.
fn every_sync(
    call: &str,
    lost: &mut u32,
    (base, image, crashed): (&Path, &Path, &Path),
    at: &Path,
    apply: &[&str],
    pair: &Pair,
    kind: &str,
) {
    loop {
        copy(base, image);
        let mounted = Mounted::new(image, at);
        let kill = format!("inject={call}:signal=KILL:when={}", *lost + 1);
        let out = Tool::new("strace")
            .args(&["-qq", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,syncfs", "-e", &kill])
            .args(&[&bin("cfor-log").to_string_lossy()[..]])
            .args(apply)
            .run();
        copy(image, crashed);
        drop(mounted);
        let _mounted = Mounted::new(crashed, at);
        let what = format!("{kind}, {call} {}", *lost + 1);
        let again = Tool::new(bin("cfor-log")).args(apply).run();
        assert_eq!(again.code, 0, "{what}: {}", again.stderr);
        assert_eq!(pair.differences(), [""; 0], "{what}");
        if out.code == 0 {
            break;
        }
        assert_eq!(out.code, 137, "{what}: {}", out.stderr);
        *lost += 1;
    }
}

#[test]
fn done_power_lost_at_every_sync_of_an_apply_ends_identical_on_ext4() {
    on("ext4");
}

#[test]
fn done_power_lost_at_every_sync_of_an_apply_ends_identical_on_xfs() {
    on("xfs");
}
