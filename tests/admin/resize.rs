//! A volume grows, served or not, killed or not.

use crate::support::{Dir, Volume, assert_equal, nbdkit, need, run, wait_for};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);

fn leg(dir: &Dir, name: &str) -> String {
    format!("{name}={}", dir.image(&format!("{name}.img"), 16 * MIB).display())
}

fn extend(dir: &Dir, name: &str, size: u64, byte: u8) {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let mut file = std::fs::OpenOptions::new().write(true).open(dir.path(name)).expect("open");
    let old = file.seek(SeekFrom::End(0)).expect("end");
    file.write_all(&vec![byte; (size - old) as usize]).expect("extend");
}

fn io(volume: &Volume<'_>, command: &str) {
    let out = run("qemu-io", &["-f", "raw", "-c", command, &volume.uri()]).expect(0);
    assert!(!out.stdout.contains("failed"), "{}", out.stdout);
}

#[test]
fn done_a_volume_grows_while_it_serves_and_clients_see_it_when_they_connect_again() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", 16 * MIB).display().to_string();
    let server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far]);
    let far = format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display());
    let mut volume = Volume::create(&dir, 16 * MIB - 100, &[&leg(&dir, "near"), &far], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    io(&volume, "write -P 1 15M 1000k");
    volume.mirrord(&["tracker", "add", "vol", "week"]).expect(0);
    volume.mirrord(&["resize", "vol", "24M"]).fails("mirrord", 3, "16777216 bytes, 25165824 are needed");
    volume.mirrord(&["resize", "vol", "1M"]).fails("mirrord", 3, "does not shrink");
    extend(&dir, "near.img", 24 * MIB, 3);
    volume.mirrord(&["resize", "vol", "24M"]).fails("mirrord", 3, "leg far has 16777216 bytes");
    extend(&dir, "far.img", 25 * MIB, 9);
    let out = volume.mirrord(&["resize", "vol", "--grow"]).expect(0);
    assert!(out.stderr.contains("25165824 bytes"), "{}", out.stderr);
    assert_eq!(volume.status()["size"].as_u64(), Some(24 * MIB));
    let week = volume.mirrord(&["tracker", "ls", "vol", "week", "--json"]).expect(0).stdout;
    // The block at the old end has a new part.
    assert!(week.contains(&format!("\"dirty\":{}", 8 * MIB + 65536)), "{week}");
    io(&volume, "write -P 5 20M 64k");
    volume.wait_synced();
    let resynced = volume.leg("far", "resynced").as_u64().expect("bytes");
    assert!(resynced < 10 * MIB, "only the new area: {resynced}");
    io(&volume, "read -P 3 17M 64k");
    assert_eq!(volume.mirrord(&["resize", "vol", "--grow"]).code, 0, "nothing to do");
    volume.stop();
    server.stop();
    extend(&dir, "near.img", 25 * MIB, 9);
    assert_equal(&dir.path("near.img"), &dir.path("far.img"));
}

#[test]
fn done_a_daemon_killed_while_its_volume_grows_has_the_old_size_or_the_new_one_and_equal_legs() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let legs = [leg(&dir, "a"), leg(&dir, "b")];
    let mut volume = Volume::create(&dir, 16 * MIB, &[&legs[0], &legs[1]], &["--known-zero"]);
    for round in 0..5u64 {
        let (old, new) = ((16 + 2 * round) * MIB, (18 + 2 * round) * MIB);
        extend(&dir, "a.img", new, 1 + round as u8);
        extend(&dir, "b.img", new, 101 + round as u8);
        volume.serve(&[]);
        volume.wait_synced();
        std::thread::scope(|scope| {
            let volume = &volume;
            let asked = scope.spawn(|| volume.mirrord(&["resize", "vol", "--grow"]));
            std::thread::sleep(Duration::from_millis(2 + round * 4));
            let pid = std::fs::read_to_string(dir.state().join("vol/mirrord.pid")).expect("pid");
            run("kill", &["-9", pid.trim()]).expect(0);
            asked.join().expect("asked");
        });
        volume.kill();
        volume.serve(&[]);
        wait_for("it serves", SOON, || volume.status()["suspended"] == false);
        let size = volume.status()["size"].as_u64().expect("size");
        assert!(size == old || size == new, "{size}");
        volume.mirrord(&["resize", "vol", "--grow"]).expect(0);
        io(&volume, &format!("write -P 77 {}M 64k", 17 + 2 * round));
        volume.wait_synced();
        volume.stop();
        assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    }
}

#[test]
fn a_volume_that_is_not_served_grows_too_and_a_floor_of_legs_refuses_what_would_stop_writes() {
    let dir = Dir::new();
    let legs = [leg(&dir, "a"), leg(&dir, "b")];
    let mut volume =
        Volume::create(&dir, 16 * MIB, &[&legs[0], &legs[1]], &["--known-zero", "--min-legs", "2"]);
    extend(&dir, "a.img", 20 * MIB, 4);
    extend(&dir, "b.img", 20 * MIB, 5);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["resize", "vol", "--grow"]).fails("mirrord", 3, "min-legs is 2");
    volume.stop();
    volume.mirrord(&["resize", "vol", "18M"]).expect(0);
    volume.mirrord(&["resize", "vol", "17M"]).fails("mirrord", 3, "does not shrink");
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(volume.status()["size"].as_u64(), Some(18 * MIB));
    volume.stop();
    let read = |name: &str| std::fs::read(dir.path(name)).expect("image")[..18 << 20].to_vec();
    assert!(read("a.img") == read("b.img"));
}
