//! Legs compared while clients work: a corrupt block is found, shown, repaired; nothing else is.

use crate::support::{Dir, Server, Volume, assert_equal, bin, nbdkit, need, run, wait_for};
use serde_json::Value;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;
/// Clients write below, corruption is above.
const HALF: u64 = 32 * MIB;
const SIZE: u64 = 64 * MIB;

/// Writes to the lower half, each checked, until it is killed.
fn fio(dir: &Dir, volume: &Volume<'_>) -> Server {
    let mut command = Command::new("fio");
    command.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k", "--iodepth=8"]);
    command.arg(format!("--uri={}", volume.uri())).arg(format!("--size={HALF}"));
    command.args(["--time_based", "--runtime=600", "--verify=crc32c", "--verify_backlog=64"]);
    command.current_dir(dir.path("."));
    Server::start(&mut command, &dir.path("fio.log"))
}

/// Flips a byte behind the daemon's back.
fn corrupt(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("leg");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 0x55], offset).expect("write");
}

fn verify(volume: &Volume<'_>, args: &[&str], code: i32) -> Value {
    let args: Vec<&str> = ["verify", "--json", "-q"].iter().chain(args).copied().collect();
    let out = volume.mirrord(&args).expect(code);
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", out.stdout))
}

fn wrote(volume: &Volume<'_>, more: u64) {
    let from = volume.status()["written"].as_u64().expect("bytes");
    wait_for("writes of fio", Duration::from_secs(60), || {
        volume.status()["written"].as_u64().expect("bytes") > from + more
    });
}

#[test]
fn done_verify_finds_exactly_the_corrupt_block_under_load_and_repairs_it() {
    if !need(&["fio", "nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let images: Vec<_> = ["a.img", "b.img", "c.img"].iter().map(|name| dir.image(name, SIZE)).collect();
    let c = images[2].display().to_string();
    let server = nbdkit(&dir, &dir.path("c.sock"), &["file", &c]);
    let legs = [
        format!("a={}", images[0].display()),
        format!("b={}", images[1].display()),
        format!("c=nbd+unix:///?socket={}", dir.path("c.sock").display()),
    ];
    let legs: Vec<&str> = legs.iter().map(String::as_str).collect();
    let mut volume = Volume::create(&dir, SIZE, &legs, &["--known-zero"]);
    volume.serve(&[]);
    let mut load = fio(&dir, &volume);
    wrote(&volume, 4 * MIB);
    let found = verify(&volume, &["vol"], 0);
    assert_eq!((&found["differing"], &found["partial"]), (&0.into(), &false.into()), "{found}");
    assert_eq!(found["legs"][2]["compared"], SIZE, "{found}");

    let at = HALF + 7 * BLOCK + 12345;
    corrupt(&images[1], at);
    let found = verify(&volume, &["vol"], 1);
    assert_eq!(found["ranges"].as_array().map(Vec::len), Some(1), "{found}");
    let range = &found["ranges"][0];
    assert_eq!(
        (&range["offset"], &range["length"]),
        (&(at / BLOCK * BLOCK).into(), &BLOCK.into()),
        "{found}"
    );
    assert_eq!(range["groups"].to_string(), r#"[["a","c"],["b"]]"#);
    assert_eq!((&found["legs"][1]["outvoted"], &found["legs"][0]["outvoted"]), (&BLOCK.into(), &0.into()));
    // Only what concerns one leg.
    assert_eq!(verify(&volume, &["vol", "b"], 1)["differing"], BLOCK);
    volume.mirrord(&["verify", "vol", "x"]).fails("mirrord", 2, "no leg x");
    volume.mirrord(&["verify", "--repair-from", "b", "vol", "b"]).fails(
        "mirrord",
        3,
        "not repaired from itself",
    );

    let found = verify(&volume, &["--repair-from", "a", "vol"], 1);
    assert_eq!(found["legs"][1]["repaired"], BLOCK, "{found}");
    assert_eq!(found["legs"][2]["repaired"], 0, "{found}");
    volume.wait_synced();
    assert_eq!(verify(&volume, &["vol"], 0)["differing"], 0);
    assert!(load.is_running(), "{}", load.log());
    load.kill();
    volume.stop();
    server.stop();
    assert_equal(&images[0], &images[1]);
    assert_equal(&images[0], &images[2]);
    let mut byte = [0];
    std::fs::File::open(&images[1]).and_then(|file| file.read_exact_at(&mut byte, at)).expect("read");
    assert_eq!(byte, [0], "what leg a had there");
}

#[test]
fn a_verify_ends_with_its_asker_and_is_partial_when_a_leg_leaves() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (dir.image("a.img", SIZE), dir.image("b.img", SIZE).display().to_string());
    // Reads that take their time.
    let args = ["--filter=delay", "file", &b, "rdelay=200ms"];
    let server = nbdkit(&dir, &dir.path("b.sock"), &args);
    let legs =
        [format!("a={}", a.display()), format!("b=nbd+unix:///?socket={}", dir.path("b.sock").display())];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let begin = || {
        let mut command = Command::new(bin("mirrord"));
        command.env("MIRROR_STATE_DIR", dir.state()).args(["verify", "vol", "--json"]);
        let mut child = Server::start(&mut command, &dir.path("verify.log"));
        wait_for("it runs", Duration::from_secs(20), || {
            assert!(child.is_running(), "{}", child.log());
            volume.status()["verify"]["total"] == SIZE
        });
        child
    };
    let mut asker = begin();
    volume.mirrord(&["verify", "vol"]).fails("mirrord", 75, "somebody else does so already");
    asker.kill();
    wait_for("it ends with its asker", Duration::from_secs(20), || volume.status()["verify"].is_null());

    let mut asker = begin();
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    wait_for("it has ended", Duration::from_secs(20), || !asker.is_running());
    assert_eq!(asker.code(), Some(8), "{}", asker.log());
    assert!(asker.log().contains("\"left\":true"), "{}", asker.log());
    volume.mirrord(&["verify", "vol"]).fails("mirrord", 3, "fewer than two legs are UpToDate");
    let events = run(
        "sh",
        &[
            "-c",
            &format!(
                "MIRROR_STATE_DIR={} timeout 2 {} events vol | grep -c verified",
                dir.state().display(),
                bin("mirrord").display()
            ),
        ],
    );
    assert_eq!(events.stdout.trim(), "2", "{}", events.stderr);
    volume.stop();
    server.stop();
}
