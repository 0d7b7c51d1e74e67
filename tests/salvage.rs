//! A volume whose records or maps are damaged or lost: whatever is refused names the command that gets out, and the
//! command does.

use crate::support::{Dir, Output, Server, Volume, assert_equal, bin, need, run, wait_for};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SIZE: u64 = 16 << 20;
const SLOT: usize = 4096;

/// A volume of two legs that hold the same, served once and stopped.
fn stopped(dir: &Dir) -> Volume<'_> {
    let legs = ["a", "b"].map(|name| format!("{name}={}", dir.image(&format!("{name}.img"), SIZE).display()));
    let mut volume = Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 7 1M 3M", "-c", "flush", &volume.uri()]).expect(0);
    volume.wait_synced();
    volume.stop();
    volume
}

fn record(dir: &Dir, leg: &str) -> PathBuf {
    dir.state().join("vol").join(format!("{leg}.record"))
}

/// Writes nonsense over slots of a record.
fn damage(path: &Path, slots: &[usize]) {
    let file = OpenOptions::new().write(true).open(path).expect("open");
    for slot in slots {
        file.write_all_at(&[0xa5; 64], (slot * SLOT + 100) as u64).expect("write");
    }
}

fn serve(dir: &Dir) -> Output {
    dir.mirrord(&["serve", "vol", "--unix", &dir.path("vol.sock").to_string_lossy()]).run()
}

/// The command after `try:`, without the name of the tool.
fn way_out(out: &Output) -> Vec<String> {
    let line = out.stderr.lines().find_map(|line| line.strip_prefix("try: mirrord ")).unwrap_or_default();
    assert!(!line.is_empty(), "no way out: {}", out.stderr);
    line.split(' ').map(str::to_owned).collect()
}

fn take(dir: &Dir, out: &Output) -> Output {
    let command = way_out(out);
    dir.mirrord(&command.iter().map(String::as_str).collect::<Vec<_>>()).run()
}

#[test]
fn done_a_volume_whose_record_is_damaged_is_salvaged_by_the_command_that_the_error_names() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let _volume = stopped(&dir);
    damage(&record(&dir, "a"), &[0, 1]);
    let refused = serve(&dir).expect(9);
    assert_eq!(way_out(&refused)[..3], ["create", "vol-salvaged", "--salvage"]);
    assert!(way_out(&refused)[3].starts_with("b="), "the one whose record is whole: {}", refused.stderr);
    take(&dir, &refused).expect(0);
    // The other leg comes back as a new one, and the old volume is as it was.
    let other = format!("a={}", dir.path("a.img").display());
    std::fs::write(dir.path("a.img"), vec![9; usize::try_from(SIZE).expect("small")]).expect("spoil");
    dir.mirrord(&["leg", "add", "vol-salvaged", &other]).run().expect(0);
    let socket = dir.path("new.sock");
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", dir.state()).args(["serve", "vol-salvaged", "--unix"]).arg(&socket);
    let _server = Server::start_on(&mut command, &dir.path("new.log"), &socket);
    dir.mirrord(&["wait", "vol-salvaged", "--until", "synced", "--timeout", "60s"]).run().expect(0);
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
    let uri = format!("nbd+unix:///vol-salvaged?socket={}", socket.display());
    run("qemu-io", &["-f", "raw", "-c", "read -P 7 1M 3M", &uri]).expect(0);
    serve(&dir).expect(9);
}

#[test]
fn one_damaged_slot_is_mended_and_two_intact_records_are_not_salvaged() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = stopped(&dir);
    for slot in [0, 1] {
        damage(&record(&dir, "a"), &[slot]);
        volume.serve(&[]);
        volume.wait_synced();
        let leg = format!("b={}", dir.path("b.img").display());
        let busy = dir.mirrord(&["create", "new", "--salvage", &leg]).run();
        busy.fails("mirrord", 75, "");
        volume.stop();
    }
    let leg = format!("b={}", dir.path("b.img").display());
    let intact = dir.mirrord(&["create", "new", "--salvage", &leg]).run();
    assert_eq!((intact.code, way_out(&intact)), (3, ["serve", "vol"].map(str::to_owned).into()));
    assert!(!dir.state().join("new").exists(), "nothing was made");
}

#[test]
fn a_leg_that_lacks_something_is_not_salvaged_while_a_better_one_is_named() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = stopped(&dir);
    volume.serve(&[]);
    volume.wait_synced();
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    run("qemu-io", &["-f", "raw", "-c", "write -P 8 5M 1M", "-c", "flush", &volume.uri()]).expect(0);
    volume.stop();
    damage(&record(&dir, "a"), &[0, 1]);
    let leg = format!("b={}", dir.path("b.img").display());
    let refused = dir.mirrord(&["create", "new", "--salvage", &leg]).run().expect(3);
    assert!(refused.stderr.contains("lacks something"), "{}", refused.stderr);
    // Nobody is in sync by a whole record: the first leg is proposed, and has the newest.
    take(&dir, &refused).expect(0);
    let old =
        dir.mirrord(&["create", "old", "--like", &dir.path("b.img").to_string_lossy(), "--leg", &leg]).run();
    old.expect(0);
}

#[test]
fn a_damaged_map_has_a_way_out_and_a_lost_one_counts_as_all_missing() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = stopped(&dir);
    let map = OpenOptions::new().write(true).open(volume.map("b")).expect("map");
    map.write_all_at(&[0xa5; 64], 0).expect("write");
    let refused = serve(&dir).expect(9);
    assert_eq!(way_out(&refused), ["leg", "reset", "vol", "b"]);
    take(&dir, &refused).expect(0);
    volume.serve(&[]);
    wait_for("it is copied again", Duration::from_secs(60), || volume.dirty("b") == 0);
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}
