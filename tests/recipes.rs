//! `mirror-recipes(7)`: every block of the page is run as it stands.
//!
//! Replaced in it are these directories, by ones of the test (`{dir}/srv` for `/srv`); every host is the sshd of the
//! test, on loopback; `AAAA...` is its key; and the root of the forced command is the directory of the far side.
//! There is no device-mapper where these tests were written: `lvcreate` and `lvremove` are stand-ins that copy a
//! file. Everything else is the real program.

mod trees; // homes, a web root, a database

use crate::support::{Output, Random, SSH, Server, Sshd, Tool, assert_equal, bin, need, root, run};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Directories of the page.
const ROOTS: [&str; 7] = ["/srv", "/var/lib", "/media", "/mnt/usb", "/run/", "/dev/vg", "/usr/local/sbin"];

const SIZE: u64 = 8 << 20;

/// The blocks of one recipe; there are this many.
#[track_caller]
fn recipe<const N: usize>(heading: &str) -> [String; N] {
    let page = std::fs::read_to_string(root().join("man/mirror-recipes.7")).expect("page");
    let (_, text) = page.split_once(&format!("\n.SS {heading}\n")).expect("a recipe of this name");
    let end = [text.find("\n.SS "), text.find("\n.SH ")].into_iter().flatten().min().expect("its end");
    let blocks = text[..end].split("\n.EX\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("\n.EE").expect("the end of a block");
        block.replace("\\(aq", "'").replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
    });
    let blocks: Vec<_> = blocks.collect();
    let count = blocks.len();
    blocks.try_into().unwrap_or_else(|_| panic!("{heading}: {count} blocks"))
}

/// A machine with its directories, and another one behind an sshd.
struct World {
    sshd: Sshd,
}

impl World {
    fn new() -> Self {
        let sshd = Sshd::start("");
        let dir = &sshd.dir;
        for root in ROOTS.iter().map(|root| root.trim_end_matches('/')) {
            std::fs::create_dir_all(dir.path(&root[1..])).expect("directory");
        }
        for name in ["bin", "srv/backup", "srv/standby", "var/lib/offsite"] {
            std::fs::create_dir(dir.path(name)).expect("directory");
        }
        // Every name leads to it, for libssh2 and for the user's own ssh.
        let place = format!("Host *\n  HostName 127.0.0.1\n  Port {}\n", sshd.port());
        std::fs::write(sshd.home(".ssh/config"), &place).expect("configuration");
        let own = std::fs::read_to_string(dir.path("ssh_config")).expect("configuration");
        std::fs::write(dir.path("ssh_config"), own + &place).expect("configuration");
        let world = Self { sshd };
        let config = world.sshd.dir.path("ssh_config");
        world.program("ssh", &format!("exec /usr/bin/ssh -F {} \"$@\"", config.display()));
        world
    }

    /// A path of the page.
    fn path(&self, page: &str) -> PathBuf {
        self.sshd.dir.path(page.trim_start_matches('/'))
    }

    /// A program before all others.
    fn program(&self, name: &str, script: &str) {
        Self::executable(&self.path("bin").join(name), &format!("#!/bin/sh\n{script}\n"));
    }

    fn executable(path: &Path, text: &str) {
        std::fs::write(path, text).expect("script");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    }

    /// The text of the page with the directories of the test.
    fn here(&self, text: &str) -> String {
        let dir = self.sshd.dir.path("").display().to_string();
        let dir = dir.trim_end_matches('/');
        ROOTS.iter().fold(text.to_owned(), |text, root| text.replace(root, &format!("{dir}{root}")))
    }

    /// A shell of this machine.
    fn shell(&self, script: &str) -> Tool {
        let bins = bin("mirrord").parent().expect("directory").display().to_string();
        let own = self.path("bin").display().to_string();
        let mut tool = Tool::new("sh").args(&["-c", script]).limit(Duration::from_secs(180));
        tool.command().env_remove("SSH_AUTH_SOCK");
        tool.env("HOME", self.sshd.dir.path("home"))
            .env("PATH", format!("{own}:{bins}:/usr/sbin:/usr/bin:/sbin:/bin"))
            .env("MIRROR_STATE_DIR", self.path("var/lib/mirrord"))
            .env("OFFSITE_PAUSE", "0")
    }

    /// Types a block.
    fn typed(&self, block: &str) -> Output {
        self.shell(&format!("set -eu\n{}", self.here(block))).run()
    }

    /// Makes a script of a block, where its second line says; its path.
    fn script(&self, block: &str) -> String {
        let name = block.lines().nth(1).and_then(|line| line.strip_prefix("# ")).expect("a name").to_owned();
        let path = self.path(&name);
        Self::executable(&path, &self.here(block));
        path.display().to_string()
    }

    /// What cron would run, line for line.
    fn cron(&self, block: &str) -> Vec<Output> {
        assert!(block.starts_with("# /etc/cron.d/"), "{block}");
        assert!(!block.contains('%'), "cron takes it for the end of a line: {block}");
        let lines = block.lines().skip(1).map(|line| {
            let (times, command) = line.split_once(" root ").expect("a user");
            assert_eq!(times.split(' ').count(), 5, "{line}");
            self.shell(&self.here(command)).run()
        });
        lines.collect()
    }

    /// The forced command of the page is all that the key may do from now on.
    fn forced(&self, line: &str) {
        let key = std::fs::read_to_string(self.sshd.home(".ssh/id_ed25519.pub")).expect("key");
        let key = key.split(' ').nth(1).expect("key").to_owned();
        let far = self.path("far").display().to_string();
        let line = line.replace("AAAA...", &key).replace("/dev/vg", &far);
        std::fs::write(self.path("authorized_keys"), line + "\n").expect("keys");
    }

    /// An image of `SIZE`, of zeroes.
    fn image(&self, name: &str) -> PathBuf {
        self.sshd.dir.image(name.trim_start_matches('/'), SIZE)
    }

    /// Serves the volume `vol0` of one leg.
    fn volume(&self) -> (Server, String) {
        let leg = format!("here={}", self.image("/srv/leg.img").display());
        let state = self.path("var/lib/mirrord");
        let create = ["create", "vol0", "--size", "8M", "--leg", &leg];
        Tool::new(bin("mirrord")).args(&create).env("MIRROR_STATE_DIR", &state).run().expect(0);
        let mut command = Command::new(bin("mirrord"));
        command.env("MIRROR_STATE_DIR", &state).args(["serve", "vol0"]);
        let socket = state.join("vol0/nbd.sock");
        let server = Server::start_on(&mut command, &self.path("mirrord.log"), &socket);
        (server, format!("nbd+unix:///vol0?socket={}", socket.display()))
    }
}

/// Writes random blocks somewhere.
fn change(path: &Path, random: &mut Random, times: u64) {
    let file = File::options().write(true).open(path).expect("open");
    for _ in 0..times {
        let data: Vec<u8> = (0..1000).flat_map(|_| random.next().to_le_bytes()).collect();
        file.write_all_at(&data, random.below(SIZE - 8000)).expect("write");
    }
}

#[test]
fn done_every_recipe_is_run_as_it_stands() {
    let page = std::fs::read_to_string(root().join("man/mirror-recipes.7")).expect("page");
    let here = [include_str!("recipes.rs"), include_str!("recipes/trees.rs")].concat();
    for heading in page.lines().filter_map(|line| line.strip_prefix(".SS ")) {
        assert!(here.contains(&format!("recipe(\"{heading}\")")), "{heading}: no test runs it");
    }
}

#[test]
fn off_site_every_night_with_a_forced_command_and_from_cron() {
    if !need(&SSH) {
        return;
    }
    let world = World::new();
    let [line, first, nightly, remembered] = recipe("An image, every night, over SSH");
    let [script, cron] = recipe("The same from cron, with honest exit codes");
    world.forced(&line);
    let (here, there) = (world.image("/srv/disk.img"), world.image("/far/disk"));
    let random = &mut Random(1);
    change(&here, random, 50);
    for block in [&first, &nightly, &remembered, &remembered] {
        world.typed(block).expect(0);
        assert_equal(&here, &there);
        change(&here, random, 5);
    }
    // Nothing but that: not a shell, not another directory.
    let shell = world.shell("ssh backup touch done").run();
    assert!(!world.path("far/done").exists() && shell.code != 0, "{}", shell.stderr);
    let script = world.script(&script);
    let done = world.path("/var/lib/offsite/disk.done");
    let told = world.cron(&cron);
    assert_eq!((told[0].code, &*told[0].stdout, &*told[0].stderr), (0, "", ""), "success is silence");
    assert_eq!((told[1].code, &*told[1].stdout), (0, ""));
    assert_equal(&here, &there);
    // The copy of the night before last is too old.
    let stamp = done.display().to_string();
    run("touch", &["-d", "27 hours ago", &stamp]).expect(0);
    assert!(
        world.cron(&cron.lines().filter(|l| !l.contains("sbin")).collect::<Vec<_>>().join("\n"))[0]
            .stdout
            .contains("no copy for 26 hours")
    );
    // What may pass is tried again, and what may not is not; neither is called done.
    std::fs::remove_file(&done).expect("remove");
    for (key, code, attempts) in [("nobody", 6, "5 attempts"), ("", 3, "1 attempts")] {
        let keys = world.path("authorized_keys");
        let kept = std::fs::read_to_string(&keys).expect("keys");
        if key.is_empty() {
            std::fs::File::options()
                .write(true)
                .open(&there)
                .and_then(|f| f.set_len(SIZE / 2))
                .expect("size");
        } else {
            std::fs::write(&keys, "").expect("keys");
        }
        let out = world.shell(&script).run().expect(code);
        assert!(out.stderr.contains(&format!("ended with {code} after {attempts}")), "{}", out.stderr);
        assert!(!done.exists());
        std::fs::write(&keys, kept).expect("keys");
    }
}

#[test]
fn a_snapshot_is_copied_and_removed_whatever_happens() {
    if !need(&SSH) {
        return;
    }
    let world = World::new();
    let [line, ..] = recipe::<4>("An image, every night, over SSH");
    let [script] = recipe("A snapshot of a logical volume");
    world.forced(&line);
    let (here, there) = (world.image("/dev/vg/disk"), world.image("/far/disk"));
    let snapshot = world.path("/dev/vg/disk.offsite");
    let (origin, copy) = (here.display(), snapshot.display());
    let words = "-q -y -s -L 2G -n disk.offsite vg/disk";
    world.program("lvcreate", &format!("[ \"$*\" = '{words}' ] && cp {origin} {copy}"));
    world.program("lvremove", &format!("[ \"$*\" = '-q -y vg/disk.offsite' ] && rm {copy}"));
    let script = world.script(&script);
    let random = &mut Random(2);
    for _ in 0..2 {
        change(&here, random, 20);
        let out = world.shell(&script).run().expect(0);
        assert_eq!((&*out.stdout, &*out.stderr), ("", ""));
        assert_equal(&here, &there);
        assert!(!snapshot.exists());
    }
    std::fs::write(world.path("authorized_keys"), "").expect("keys");
    world.shell(&script).run().expect(6);
    assert!(!snapshot.exists(), "also after a copy that failed");
    world.program("lvcreate", "exit 5");
    world.shell(&script).run().expect(5);
}

#[test]
fn qemu_says_what_has_changed() {
    if !need(&[&SSH[..], &["qemu-img", "qemu-io", "qemu-nbd"]].concat()) {
        return;
    }
    let world = World::new();
    let [first, script] = recipe("What QEMU says has changed");
    let vm = world.path("/srv/vm.qcow2").display().to_string();
    run("qemu-img", &["create", "-q", "-f", "qcow2", &vm, "8M"]).expect(0);
    let write = |what: &str| {
        run("qemu-io", &["-f", "qcow2", "-c", what, &vm]).expect(0);
    };
    write("write -P 1 0 3M");
    let copy = world.image("/srv/backup/vm.img");
    world.typed(&first).expect(0);
    let equal = || {
        let copy = copy.display().to_string();
        run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &vm, &copy]).expect(0);
    };
    equal();
    let script = world.script(&script);
    for (turn, what) in ["write -P 2 1M 100k", "write -z 2M 64k"].iter().enumerate() {
        write(what);
        if turn == 0 {
            // A copy that fails leaves every mark.
            let away = world.path("/srv/backup/away");
            std::fs::rename(&copy, &away).expect("rename");
            assert_ne!(world.shell(&script).run().code, 0);
            std::fs::rename(&away, &copy).expect("rename");
        }
        world.shell(&script).run().expect(0);
        equal();
        let map = run("qemu-img", &["info", "--output=json", &vm]).expect(0).stdout;
        assert!(map.contains("\"day\""), "{map}");
    }
    // Nothing is marked any more: what is written beside QEMU's back is not seen.
    change(&copy, &mut Random(3), 1);
    world.shell(&script).run().expect(0);
    let copy = copy.display().to_string();
    assert_eq!(run("qemu-img", &["compare", "-q", "-f", "qcow2", "-F", "raw", &vm, &copy]).code, 1);
}

#[test]
fn mirrord_says_what_has_changed_to_a_disk_and_to_a_third_site() {
    if !need(&SSH) {
        return;
    }
    let world = World::new();
    let [first, weekly] = recipe("What mirrord says has changed");
    let [third_first, cron, rotate, both] = recipe("A third site");
    let [line, ..] = recipe::<4>("An image, every night, over SSH");
    world.forced(&line);
    let (_server, uri) = world.volume();
    let (image, usb) = (world.image("/srv/image"), world.image("/mnt/usb/vol0.img"));
    let third = world.image("/far/vol0");
    let random = &mut Random(4);
    let mut write = |times| {
        change(&image, random, times);
        world.shell(&format!("mirror-sync -q {} '{uri}'", image.display())).run().expect(0);
    };
    write(50);
    world.typed(&first).expect(0);
    world.typed(&third_first).expect(0);
    assert_equal(&image, &usb);
    assert_equal(&image, &third);
    for _ in 0..2 {
        write(5);
        world.typed(&weekly).expect(0);
        assert_equal(&image, &usb);
        let told = world.cron(&cron);
        assert_eq!((told[0].code, &*told[0].stderr), (0, ""));
        assert_equal(&image, &third);
    }
    // The other site has written where only its own map says so.
    write(5);
    world.typed(&rotate).expect(0);
    let site2 = world.path("/var/lib/offsite/site2.map").display().to_string();
    File::options()
        .write(true)
        .open(&third)
        .and_then(|file| file.write_all_at(b"old", 5 << 20))
        .expect("write");
    let make = format!("dirtymap create --like '{uri}' {site2} && dirtymap set {site2} 5M+3");
    world.shell(&make).run().expect(0);
    // The volume id of both maps is that of the volume.
    world.typed(&both).expect(0);
    assert_equal(&image, &third);
    let check = world.here("dirtymap check /var/lib/offsite/third.map");
    world.shell(&check).run().expect(0);
}

#[test]
fn carried_deltas_are_applied_in_their_order_and_in_no_other() {
    if !need(&SSH) {
        return;
    }
    let world = World::new();
    let [here, there] = recipe("Sneakernet");
    let (disk, copy) = (world.image("/srv/disk.img"), world.image("/srv/backup/disk.img"));
    let random = &mut Random(5);
    let carried = world.script(&there);
    for _ in 0..3 {
        change(&disk, random, 10);
        world.typed(&here).expect(0);
    }
    let mut names: Vec<_> = std::fs::read_dir(world.path("/media"))
        .expect("media")
        .map(|entry| entry.expect("entry").path().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3);
    world.shell(&format!("{carried} {}", names[0])).run().expect(0);
    let before = std::fs::read(&copy).expect("read");
    let wrong = world.shell(&format!("{carried} {}", names[2])).run();
    assert!(matches!(wrong.code, 3 | 9), "{}: {}", wrong.code, wrong.stderr);
    assert!(wrong.stderr.contains("not the next one"), "{}", wrong.stderr);
    assert!(before == std::fs::read(&copy).expect("read"), "the wrong one changes nothing");
    world.shell(&format!("{carried} {} {}", names[1], names[2])).run().expect(0);
    assert_equal(&disk, &copy);
    let again = world.shell(&format!("{carried} {}", names[1])).run();
    assert!(matches!(again.code, 3 | 9), "{}: {}", again.code, again.stderr);
    assert_equal(&disk, &copy);
}

#[test]
fn a_restore_and_its_rehearsal() {
    if !need(&[&SSH[..], &["mkfs.ext4", "fsck.ext4"]].concat()) {
        return;
    }
    let world = World::new();
    let [line, first, ..] = recipe::<4>("An image, every night, over SSH");
    let [whole, differing] = recipe("A disk back from the other machine");
    let [script, compare] = recipe("Rehearsal");
    world.forced(&line);
    let (disk, far, new) =
        (world.image("/srv/disk.img"), world.image("/far/disk"), world.image("/srv/new.img"));
    run("mkfs.ext4", &["-q", &disk.display().to_string()]).expect(0);
    world.typed(&first).expect(0);
    let script = world.script(&script);
    world.shell(&script).run().expect(0);
    world.typed(&compare).expect(0);
    world.typed(&whole).expect(0);
    assert_equal(&far, &new);
    change(&disk, &mut Random(6), 20);
    world.typed(&compare).expect(1);
    world.typed(&differing).expect(0);
    assert_equal(&far, &disk);
    // A copy that is damaged does not pass, and leaves no scratch file.
    change(&far, &mut Random(7), 100);
    assert_ne!(world.shell(&script).run().code, 0);
    let left = std::fs::read_dir(world.path("/srv")).expect("srv");
    assert!(!left.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("rehearsal")));
}
