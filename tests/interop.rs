//! The programs of others: every one of them as a client, every one of them as a leg.

use crate::support::{Dir, Server, Volume, assert_equal, nbdkit, need, run, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A served volume over two files.
fn served(dir: &Dir) -> Volume<'_> {
    let legs = [
        format!("a={}", dir.image("a.img", 64 * MIB).display()),
        format!("b={}", dir.image("b.img", 64 * MIB).display()),
    ];
    let mut volume = Volume::create(dir, 64 * MIB, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    volume
}

#[test]
fn done_a_stock_nbdinfo_reads_size_flags_exports_and_maps() {
    if !need(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = served(&dir);
    let uri = volume.uri();
    let info = |args: &[&str]| run("nbdinfo", args).expect(0).stdout;
    assert_eq!(info(&["--size", &uri]).trim(), (64 * MIB).to_string());
    for can in ["multi-conn", "flush", "fua", "trim", "zero", "df"] {
        run("nbdinfo", &["--can", can, &uri]).expect(0);
    }
    assert!(info(&["--list", &uri]).contains("vol"));
    let json: serde_json::Value = serde_json::from_str(&info(&["--json", &uri])).expect("json");
    let contexts = json["exports"][0]["contexts"].to_string();
    assert!(contexts.contains("base:allocation") && contexts.contains("x-mirror:dirty/b"), "{json}");
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 1M 64k", &uri]).expect(0);
    assert!(info(&["--map", &uri]).contains("hole,zero"));
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 1M 64k", &uri]).expect(0);
    let map = info(&["--map=x-mirror:dirty/b", &uri]);
    let dirty: Vec<_> = map.lines().filter(|l| l.split_whitespace().nth(2) == Some("1")).collect();
    assert_eq!(dirty.len(), 1, "{map}");
    assert!(dirty[0].split_whitespace().take(2).eq(["1048576", "65536"]), "{map}");
    volume.stop();
}

#[test]
fn done_a_stock_qemu_reads_writes_zeroes_discards_converts_and_compares() {
    if !need(&["qemu-io", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = served(&dir);
    let uri = volume.uri();
    let commands = [
        "write -P 0xab 0 64k",
        "write -f -P 1 2M 4k",
        "write -z 1M 1M",
        "write -z -u 4M 1M",
        "write -P 7 3M 128k",
        "discard 3M 64k",
        "read -P 0 3M 64k",
        "read -P 7 3211264 64k",
        "read -P 0xab 0 64k",
        "read -P 0 4M 1M",
        "write -P 0x11 12345 777",
        "read -P 0x11 12345 777",
        "flush",
    ];
    let mut args = vec!["-f", "raw", "-t", "none"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(&uri);
    let out = run("qemu-io", &args).expect(0);
    assert!(!out.stdout.contains("failed") && !out.stdout.contains("Pattern"), "{}", out.stdout);
    let source = dir.path("source.img").display().to_string();
    let back = dir.path("back.img").display().to_string();
    run("sh", &["-c", &format!("head -c 67108864 /dev/urandom > {source}")]).expect(0);
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri]).expect(0);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source, &uri]).expect(0);
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, &back]).expect(0);
    assert_equal(Path::new(&source), Path::new(&back));
    run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]).expect(0);
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn done_a_stock_nbdcopy_and_nbdsh_work_against_it() {
    if !need(&["nbdcopy", "python3-libnbd"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = served(&dir);
    let uri = volume.uri();
    let source = dir.path("source.img").display().to_string();
    run("sh", &["-c", &format!("head -c 40000000 /dev/urandom > {source}; truncate -s 64M {source}")])
        .expect(0);
    run("nbdcopy", &["--flush", &source, &uri]).expect(0);
    let back = dir.path("back.img").display().to_string();
    run("nbdcopy", &[&uri, &back]).expect(0);
    assert_equal(Path::new(&source), Path::new(&back));
    // Illegal requests are refused one by one, and the connection lives on.
    let script = "
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context('base:allocation')
h.connect_uri(sys.argv[1])
size = h.get_size()
def fails(f):
    try:
        f()
    except nbd.Error:
        return
    raise SystemExit('not refused')
fails(lambda: h.pread(512, size))
fails(lambda: h.pwrite(b'x' * 512, size - 1))
fails(lambda: h.pread(512, (1 << 63) - 256))
fails(lambda: h.zero(512, 0, 0x8000))
h.pwrite(b'z' * 4096, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == b'z' * 4096
h.cache(4096, 0)
h.trim(65536, 0)
assert h.pread(65536, 0) == bytes(65536)
seen = []
h.block_status(size, 0, lambda m, o, e, err: seen.append((m, o, e)), nbd.CMD_FLAG_REQ_ONE)
assert len(seen) == 1 and len(seen[0][2]) == 2, seen
h.flush()
h.shutdown()
";
    run("/usr/bin/python3", &["-c", script, &uri]).expect(0);
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn done_a_stock_fio_verifies_what_it_wrote() {
    if !need(&["fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = served(&dir);
    let uri = format!("--uri={}", volume.uri());
    let args = "--name=v --ioengine=nbd --rw=randwrite --bs=4k-64k --size=16M --iodepth=16 --fsync=32 \
                --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0";
    let mut args: Vec<_> = args.split_whitespace().collect();
    args.push(&uri);
    run("fio", &args).expect(0);
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn done_a_mounted_ext4_lives_on_it() {
    if !need(&["root", "fuse", "loop", "nbdfuse", "losetup", "mkfs.ext4", "fsck.ext4", "fusermount3"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = served(&dir);
    let disk = dir.image("disk", 0);
    let mut fuse = Command::new("nbdfuse");
    fuse.arg(&disk).arg("--unix").arg(volume.socket());
    let fuse = Server::start(&mut fuse, &dir.path("fuse.log"));
    wait_for("nbdfuse", Duration::from_secs(20), || std::fs::metadata(&disk).is_ok_and(|m| m.len() > 0));
    let script = r#"set -eu
cd "$1"
loop=$(losetup -f --show disk)
trap 'umount mnt 2>/dev/null || true; losetup -d $loop' EXIT
mkfs.ext4 -q "$loop"
mkdir mnt
mount "$loop" mnt
cp -r "$2"/lib "$2"/tests mnt/
sync -f mnt
umount mnt
mount "$loop" mnt
diff -r "$2"/tests mnt/tests
"#;
    let here = dir.path("").display().to_string();
    let tree = crate::support::root().display().to_string();
    run("sh", &["-c", script, "sh", &here, &tree]).expect(0);
    run("fusermount3", &["-u", &disk.display().to_string()]).expect(0);
    drop(fuse);
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    run("/usr/sbin/fsck.ext4", &["-fn", &dir.path("b.img").display().to_string()]).expect(0);
}

/// Writes through the volume over a file and this leg, and finds the same bytes on both.
fn works_as_leg(dir: &Dir, leg: &str, image: &Path) {
    let near = format!("near={}", dir.image("near.img", 64 * MIB).display());
    let mut volume = Volume::create(dir, 64 * MIB, &[&near, leg], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let uri = format!("--uri={}", volume.uri());
    let args = "--name=v --ioengine=nbd --rw=randwrite --bs=4k-256k --size=16M --iodepth=16 --fsync=32 \
                --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0";
    let mut args: Vec<_> = args.split_whitespace().collect();
    args.push(&uri);
    run("fio", &args).expect(0);
    let out = run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 3 40M 300k",
            "-c",
            "write -z 41M 1M",
            "-c",
            "discard 40M 64k",
            "-c",
            "read -P 0 40M 64k",
            "-c",
            "flush",
            &volume.uri(),
        ],
    )
    .expect(0);
    assert!(!out.stdout.contains("failed"), "{}", out.stdout);
    assert_eq!(volume.leg("near", "disk-state"), "UpToDate");
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), image);
}

#[test]
fn done_a_leg_can_be_nbdkit() {
    if need(&["nbdkit", "fio", "qemu-io"]) {
        let dir = Dir::new();
        let image = dir.image("far.img", 64 * MIB);
        let _server = nbdkit(&dir, &dir.path("far.sock"), &["file", &image.display().to_string()]);
        works_as_leg(&dir, &format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display()), &image);
    }
}

#[test]
fn done_a_leg_can_be_qemu_nbd() {
    if need(&["qemu-nbd", "fio", "qemu-io"]) {
        let dir = Dir::new();
        let image = dir.image("far.img", 64 * MIB);
        let socket = dir.path("far.sock");
        let mut command = Command::new("qemu-nbd");
        command
            .args(["--persistent", "--shared=4", "-f", "raw", "-x", "disk", "-k"])
            .arg(&socket)
            .arg(&image);
        let _server = Server::start_on(&mut command, &dir.path("qemu.log"), &socket);
        works_as_leg(&dir, &format!("far=nbd+unix:///disk?socket={}", socket.display()), &image);
    }
}

#[test]
fn done_a_leg_can_be_nbd_server_when_its_flush_is_accepted_as_unsafe() {
    if need(&["nbd-server", "fio", "qemu-io"]) {
        let dir = Dir::new();
        let image = dir.image("far.img", 64 * MIB);
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
        let config = dir.path("config");
        let text = format!(
            "[generic]\nlistenaddr = 127.0.0.1\nport = {port}\n[disk]\nexportname = {}\n",
            image.display()
        );
        std::fs::write(&config, text).expect("config");
        // It goes into the background by itself.
        let pid = dir.path("pid");
        let args = ["-C", &config.display().to_string(), "-p", &pid.display().to_string()];
        run("nbd-server", &args).expect(0);
        wait_for("nbd-server", Duration::from_secs(20), || {
            pid.exists() && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let _server = Background(std::fs::read_to_string(&pid).expect("pid").trim().to_owned());
        works_as_leg(&dir, &format!("far=nbd://127.0.0.1:{port}/disk,flush=unsafe"), &image);
    }
}

/// A process in the background, ended when dropped.
struct Background(String);

impl Drop for Background {
    fn drop(&mut self) {
        run("kill", &["-KILL", &self.0]);
    }
}

#[test]
fn done_a_leg_can_be_another_mirrord() {
    if need(&["fio", "qemu-io"]) {
        let (outer, inner) = (Dir::new(), Dir::new());
        let image = inner.image("far.img", 64 * MIB);
        let mut far = Volume::create(&inner, 64 * MIB, &[&format!("far={}", image.display())], &[]);
        far.serve(&[]);
        works_as_leg(&outer, &format!("far={}", far.uri()), &image);
        far.stop();
    }
}

#[test]
fn done_a_leg_can_be_a_block_device() {
    if need(&["root", "loop", "losetup", "fio", "qemu-io"]) {
        let dir = Dir::new();
        let image = dir.image("far.img", 64 * MIB);
        let device = run("losetup", &["-f", "--show", &image.display().to_string()]).expect(0).stdout;
        let device = device.trim().to_owned();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            works_as_leg(&dir, &format!("far={device}"), Path::new(&device));
        }));
        run("losetup", &["-d", &device]).expect(0);
        assert!(result.is_ok(), "see above");
    }
}
