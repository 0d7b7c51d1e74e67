//! What `mirror-sync` refuses before the first byte, with real mounts, swap, partitions and servers: targets in use,
//! and the source under another name.

use crate::support::{
    Dir, Disk, Output, SSH, Server, Sshd, Tool, assert_equal, bin, nbdkit, need, run, text,
};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const SIZE: u64 = 24 << 20;

fn sync(dir: &Dir, args: &[&str]) -> Output {
    Tool::new(bin("mirror-sync")).args(args).env("MIRROR_STATE_DIR", dir.state()).run()
}

/// An image full of one byte.
fn image(dir: &Dir, name: &str, byte: u8, size: u64) -> PathBuf {
    let path = dir.image(name, size);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(&vec![byte; size as usize], 0).expect("write");
    path
}

/// A loop device; gone with the test.
struct Loop(String);

impl Loop {
    fn new(image: &Path, more: &[&str]) -> Self {
        let out = run("losetup", &[&["-f", "--show"], more, &[text(image)]].concat()).expect(0);
        Self(out.stdout.trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A mount; gone with the test.
struct Mount<'d>(&'d Path);

impl<'d> Mount<'d> {
    fn new(device: &str, at: &'d Path, options: &str) -> Self {
        run("mount", &["-o", options, device, text(at)]).expect(0);
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

const BLOCK_TOOLS: [&str; 4] = ["root", "loop", "losetup", "mkfs.ext4"];

#[test]
fn a_mounted_target_is_refused_however_it_is_mounted_and_by_every_way_of_writing() {
    if !need(&BLOCK_TOOLS) {
        return;
    }
    let dir = Dir::new();
    let source = image(&dir, "source", 7, SIZE);
    let delta = dir.path("delta");
    sync(&dir, &["-q", "--full", "--delta", text(&delta), text(&source)]).expect(0);
    let (disk, at) = (image(&dir, "disk", 0, SIZE), dir.path("mnt"));
    std::fs::create_dir(&at).expect("mkdir");
    let device = Loop::new(&disk, &[]);
    run("/usr/sbin/mkfs.ext4", &["-Fq", &device.0]).expect(0);
    for options in ["rw", "ro"] {
        let mounted = Mount::new(&device.0, &at, options);
        let before = std::fs::read(&disk).expect("read");
        let link = dir.path("link");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&device.0, &link).expect("link");
        for target in [device.0.as_str(), text(&link)] {
            for args in [&["--full"][..], &["--compare"], &["--stage"], &["-n"]] {
                let out = sync(&dir, &[args, &["-q", text(&source), target]].concat());
                out.fails("mirror-sync", 3, &format!("it is mounted on {}", at.display()));
            }
            sync(&dir, &["-q", "--apply", text(&delta), target]).fails("mirror-sync", 3, "it is mounted on");
        }
        // The file beneath it, past the kernel's cache of the device.
        sync(&dir, &["-q", text(&source), text(&disk)]).fails(
            "mirror-sync",
            3,
            "attached to the loop device",
        );
        // What was named is overridden, and nothing else.
        let forced = |what| sync(&dir, &["-q", "--force", what, "-n", text(&source), &device.0]);
        forced("mounted").expect(0);
        forced("busy,unflushed,foreign").fails("mirror-sync", 3, "it is mounted on");
        // A source that is mounted may change meanwhile.
        let away = |more: &[&str]| sync(&dir, &[more, &["-q", "-n", "--full", &device.0, "null:"]].concat());
        away(&[]).fails("mirror-sync", 3, "may change meanwhile");
        away(&["--live"]).expect(0);
        drop(mounted);
        if options == "ro" {
            assert!(std::fs::read(&disk).expect("read") == before, "not a byte was written");
        }
    }
    sync(&dir, &["-q", "--full", text(&source), &device.0]).expect(0);
    drop(device);
    assert_equal(&source, &disk);
}

#[test]
fn partitions_count_as_the_disk_and_swap_is_in_use() {
    if !need(&["root", "loop", "losetup", "mkfs.ext4", "mkswap", "swapon", "addpart"]) {
        return;
    }
    let dir = Dir::new();
    let (source, small) = (image(&dir, "source", 7, SIZE), image(&dir, "small", 7, 8 << 20));
    let (disk, at) = (image(&dir, "disk", 0, SIZE), dir.path("mnt"));
    std::fs::create_dir(&at).expect("mkdir");
    let device = Loop::new(&disk, &["-P"]);
    // Told to the kernel, which may read no table of any kind.
    run("addpart", &[&device.0, "1", "2048", "16384"]).expect(0);
    run("addpart", &[&device.0, "2", "18432", "16384"]).expect(0);
    let part = |number: u32| format!("{}p{number}", device.0);
    run("/usr/sbin/mkfs.ext4", &["-Fq", &part(1)]).expect(0);
    let mounted = Mount::new(&part(1), &at, "rw");
    let to = |source: &Path, target: &str| sync(&dir, &["-q", "--full", text(source), target]);
    to(&small, &part(1)).fails("mirror-sync", 3, "it is mounted on");
    to(&source, &device.0).fails("mirror-sync", 3, "it is mounted on");
    // The other one is free.
    to(&small, &part(2)).expect(0);
    drop(mounted);
    // A disk and its own partition are one storage, two partitions are two.
    let within =
        |from: &str, to: &str, live: &[&str]| sync(&dir, &[live, &["-q", "--full", from, to]].concat());
    for live in [&[][..], &["--live"]] {
        within(&part(1), &device.0, live).fails("mirror-sync", 3, "on the same storage as");
        within(&device.0, &part(1), live).fails("mirror-sync", 3, "on the same storage as");
        within(&part(1), &part(1), live).fails("mirror-sync", 3, "the same device as");
    }
    within(&part(1), &part(2), &[]).expect(0);
    run("/usr/sbin/mkswap", &["-q", &part(2)]).expect(0);
    run("/usr/sbin/swapon", &[&part(2)]).expect(0);
    let (one, whole) = (to(&small, &part(2)), to(&source, &device.0));
    run("/usr/sbin/swapoff", &[&part(2)]).expect(0);
    one.fails("mirror-sync", 3, "it is used as swap space");
    whole.fails("mirror-sync", 3, "it is used as swap space");

    // A swap file, on a file system that can hold one.
    let ext4 = Disk::new("ext4");
    let file = ext4.path("swap");
    std::fs::write(&file, vec![0; 8 << 20]).expect("write");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    run("/usr/sbin/mkswap", &["-q", text(&file)]).expect(0);
    run("/usr/sbin/swapon", &[text(&file)]).expect(0);
    let out = to(&small, text(&file));
    run("/usr/sbin/swapoff", &[text(&file)]).expect(0);
    out.fails("mirror-sync", 3, "it is used as swap space");
}

#[test]
fn a_file_that_another_program_writes_is_no_target_and_no_quiet_source() {
    if !need(&["nbdkit", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1, 1 << 20), image(&dir, "b", 2, 1 << 20));
    let copy = |more: &[&str]| sync(&dir, &[more, &["-q", "--full", text(&a), text(&b)]].concat());
    let socket = dir.path("s");
    let options = format!("driver=raw,file.driver=file,file.filename={}", b.display());
    let mut qemu = std::process::Command::new("qemu-nbd");
    qemu.args(["--persistent", "--socket"]).arg(&socket).args(["--image-opts", &options]);
    let server = Server::start_on(&mut qemu, &dir.path("qemu.log"), &socket);
    copy(&[]).fails("mirror-sync", 3, "it is open for writing in another process");
    let staged = sync(&dir, &["-q", "--stage", text(&a), text(&b)]);
    staged.fails("mirror-sync", 3, "it is open for writing in another process");
    copy(&["--force", "mounted"]).fails("mirror-sync", 3, "it is open for writing in another process");
    assert_eq!(std::fs::read(&b).expect("read")[..4], [2; 4], "not a byte was written");
    copy(&["--force", "busy"]).expect(0);
    assert_equal(&a, &b);
    // As a source it may change meanwhile.
    let away = |more: &[&str]| sync(&dir, &[more, &["-q", "--full", text(&b), "null:"]].concat());
    away(&[]).fails("mirror-sync", 3, "open for writing in another process, and may change meanwhile");
    away(&["--live"]).expect(0);
    drop(server);
    copy(&[]).expect(0);
    // One file by its server and by its path; this one opens it only for a client.
    let server = nbdkit(&dir, &socket, &["file", text(&b)]);
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let by = |args: &[&str]| sync(&dir, &[&["-q", "--full"], args].concat());
    by(&[&uri, text(&b)]).fails("mirror-sync", 3, "it is open for writing in another process");
    by(&[text(&b), &uri]).fails("mirror-sync", 3, "open for writing in another process");
    let own = ["[", "nbdkit", "--exit-with-parent", "file", text(&b), "]"];
    by(&[&[text(&b)], &own[..]].concat()).fails("mirror-sync", 3, "open for writing in another process");
    by(&[&own[..], &[text(&b)]].concat()).fails("mirror-sync", 3, "open for writing in another process");
    drop(server);
    // Who only reads it keeps nobody from writing.
    let _reader = nbdkit(&dir, &socket, &["-r", "file", text(&b)]);
    let _held = std::fs::File::open(&b).expect("open");
    copy(&[]).expect(0);
}

#[test]
fn the_source_is_known_by_any_name_of_it() {
    if !need(&["root", "loop", "losetup"]) {
        return;
    }
    let dir = Dir::new();
    let a = image(&dir, "a", 1, 1 << 20);
    std::fs::hard_link(&a, dir.path("hard")).expect("link");
    std::os::unix::fs::symlink(&a, dir.path("soft")).expect("link");
    let copy = |from: &str, to: &str| sync(&dir, &["-q", "--full", "--live", from, to]);
    for name in ["a", "hard", "soft", "../a"] {
        let other = if name == "../a" { dir.path("x/../a") } else { dir.path(name) };
        std::fs::create_dir_all(dir.path("x")).expect("mkdir");
        copy(text(&a), text(&other)).fails("mirror-sync", 3, "the same device as");
    }
    let (whole, tail) = (Loop::new(&a, &[]), Loop::new(&a, &["-o", "65536"]));
    copy(text(&a), &whole.0).fails("mirror-sync", 3, "the same device as");
    copy(text(&a), &tail.0).fails("mirror-sync", 3, "on the same storage as");
    let second = Loop::new(&a, &[]);
    copy(&whole.0, &second.0).fails("mirror-sync", 3, "the same device as");
    copy(&whole.0, text(&a)).fails("mirror-sync", 3, "a: checking the target: it is the same device as");
    copy(&tail.0, &whole.0).fails("mirror-sync", 3, "on the same storage as");
}

#[test]
fn the_same_file_by_ssh_is_refused_and_not_called_busy() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let there = sshd.dir.path("far/image");
    std::fs::write(&there, vec![7; 1 << 20]).expect("write");
    std::fs::hard_link(&there, sshd.dir.path("far/hard")).expect("link");
    std::os::unix::fs::symlink(&there, sshd.dir.path("far/soft")).expect("link");
    let local = there.display().to_string();
    let copy = |args: &[&str]| sshd.tool("mirror-sync", &[&["-q", "--full"], args].concat()).run();
    for name in ["image", "hard", "soft"] {
        let far = sshd.far(name);
        copy(&[&local, &far]).fails("mirror-sync", 3, "it is the same device as");
        copy(&[&far, &local]).fails("mirror-sync", 3, "it is the same device as");
        copy(&["--live", &local, &far]).fails("mirror-sync", 3, "it is the same device as");
        copy(&[&sshd.far("image"), &far]).fails("mirror-sync", 3, "it is the same device as");
        copy(&["--rsh", &sshd.rsh(), &local, &far]).fails("mirror-sync", 3, "it is the same device as");
    }
    // Another file that somebody holds is still busy, and one that is written elsewhere is told so over there.
    let other = sshd.dir.path("far/other");
    std::fs::write(&other, vec![8; 1 << 20]).expect("write");
    let held = mirror::device::FileDevice::open(&other, true).expect("hold");
    copy(&[&local, &sshd.far("other")]).fails("mirror-sync", 75, "another process holds it");
    drop(held);
    let writer = OpenOptions::new().append(true).open(&other).expect("open");
    let to = sshd.far("other");
    copy(&[&local, &to]).fails("mirror-sync", 3, "it is open for writing in another process");
    copy(&[&to, &local]).fails("mirror-sync", 3, "open for writing in another process, and may change");
    copy(&["--force", "busy", &local, &to]).expect(0);
    drop(writer);
    assert_equal(&there, &other);
}
