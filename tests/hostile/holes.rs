//! Holes of a volume whose only good legs are behind NBD: what their servers say of `base:allocation`, and what is made
//! of lies about it.

use super::fake::{Asked, Fake, Peer, Turn};
use super::raw::{At, Raw};
use crate::support::{Dir, Output, Server, Volume, nbdkit, need, run, wait_for};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
const SOON: Duration = Duration::from_secs(40);

/// A sparse file with data at these offsets.
fn sparse(dir: &Dir, name: &str, data: &[u64]) -> std::path::PathBuf {
    let path = dir.image(name, SIZE);
    let file = std::fs::File::options().write(true).open(&path).expect("image");
    for offset in data {
        file.write_all_at(&[7; 4096].repeat(16), *offset).expect("data");
    }
    path
}

/// Offset, length and type of every extent, as nbdinfo prints them.
fn map(uri: &str) -> Vec<(u64, u64, u64)> {
    let out = run("nbdinfo", &["--map", "--json", uri]).expect(0).stdout;
    let list: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    let mut all: Vec<(u64, u64, u64)> = Vec::new();
    for extent in list.as_array().expect("list") {
        let [offset, len, kind] = ["offset", "length", "type"].map(|key| extent[key].as_u64().expect(key));
        match all.last_mut() {
            Some(before) if before.2 == kind => before.1 += len,
            _ => all.push((offset, len, kind)),
        }
    }
    all
}

const FOUND: [(u64, u64, u64); 5] = [
    (0, MIB, 3),
    (MIB, 65536, 0),
    (MIB + 65536, 4 * MIB - 65536, 3),
    (5 * MIB, 65536, 0),
    (5 * MIB + 65536, SIZE - 5 * MIB - 65536, 3),
];

fn served<'d>(dir: &'d Dir, legs: &[&str], how: &[&str]) -> Volume<'d> {
    let mut volume = Volume::create(dir, SIZE, legs, how);
    volume.serve(&[]);
    volume
}

fn unix(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}

#[test]
fn done_holes_of_a_remote_leg_are_those_of_its_server_nbdkit_qemu_nbd_or_our_own() {
    if !need(&["nbdkit", "qemu-nbd", "nbdinfo"]) {
        return;
    }
    let (one, two, three) = (Dir::new(), Dir::new(), Dir::new());
    let socket = one.path("far.sock");
    let _kit = nbdkit(&one, &socket, &["file", sparse(&one, "far", &[MIB, 5 * MIB]).to_str().expect("path")]);
    let by_kit = served(&one, &[&format!("far={}", unix(&socket, ""))], &[]);
    by_kit.wait_synced();
    assert_eq!(map(&by_kit.uri()), FOUND);

    // That volume is the leg of another one.
    let by_ours = served(&two, &[&format!("far={}", unix(by_kit.socket(), "vol"))], &[]);
    by_ours.wait_synced();
    assert_eq!(map(&by_ours.uri()), FOUND);

    let socket = three.path("far.sock");
    let mut qemu = Command::new("qemu-nbd");
    qemu.args(["-f", "raw", "-t", "-e", "4", "-x", "", "-k"]).arg(&socket);
    qemu.arg(sparse(&three, "far", &[MIB, 5 * MIB]));
    let _qemu = Server::start_on(&mut qemu, &three.path("qemu.log"), &socket);
    let by_qemu = served(&three, &[&format!("far={}", unix(&socket, ""))], &[]);
    by_qemu.wait_synced();
    assert_eq!(map(&by_qemu.uri()), FOUND);
    for mut volume in [by_ours, by_kit, by_qemu] {
        volume.stop();
    }
}

#[test]
fn done_a_leg_that_lacks_something_is_never_asked_for_holes() {
    if !need(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let (socket, log) = (dir.path("far.sock"), dir.path("far.log"));
    let image = sparse(&dir, "far", &[]);
    let logfile = format!("logfile={}", log.display());
    let _kit = nbdkit(&dir, &socket, &["--filter=log", "file", image.to_str().expect("path"), &logfile]);
    let good = dir.path("good.sock");
    let _good = nbdkit(&dir, &good, &["file", sparse(&dir, "good", &[MIB, 5 * MIB]).to_str().expect("path")]);
    let far = format!("far={},read=prefer", unix(&socket, ""));
    let mut volume =
        Volume::create(&dir, SIZE, &[&far, &format!("good={}", unix(&good, ""))], &["--from", "good"]);
    volume.serve(&["--read-policy", "round-robin"]);
    wait_for("it serves", SOON, || volume.status()["suspended"] == false);
    volume.wait_synced();
    // It is connected, and has its resync before it.
    volume.mirrord(&["pause", "vol", "far"]).expect(0);
    volume.mirrord(&["resync", "vol", "far", "--full"]).expect(0);
    wait_for("it is connected", SOON, || volume.leg("far", "connection-state") == "Connected");
    let before = std::fs::read_to_string(&log).expect("log").len();
    assert_eq!(map(&volume.uri()), FOUND);
    assert_eq!((volume.leg("far", "connection-state"), volume.dirty("far")), ("Connected".into(), SIZE));
    let asked = std::fs::read_to_string(&log).expect("log");
    assert!(!asked[before..].contains(" Extents "), "{asked}");
    volume.mirrord(&["resume", "vol", "far"]).expect(0);
    volume.wait_synced();
    map(&volume.uri());
    assert!(std::fs::read_to_string(&log).expect("log").contains(" Extents "), "in sync, it is");
    volume.stop();
}

/// One lie about extents.
type Lie = fn(&mut Peer, &Asked) -> io::Result<()>;

fn extents(peer: &mut Peer, asked: &Asked, flags: u16, context: u32, list: &[(u32, u32)]) -> io::Result<()> {
    let mut body = context.to_be_bytes().to_vec();
    for (len, status) in list {
        body.extend(len.to_be_bytes());
        body.extend(status.to_be_bytes());
    }
    peer.chunk(flags, 5, asked.cookie, &body)
}

#[test]
fn c9_c12_c18_a_leg_that_lies_about_holes_is_dropped_once_and_not_asked_again() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let lies: [(&str, Lie); 8] = [
        ("a length of zero", |peer, asked| extents(peer, asked, 1, 7, &[(4096, 3), (0, 3)])),
        ("past the end", |peer, asked| extents(peer, asked, 1, 7, &[(asked.len, 0), (4096, 3)])),
        ("no extent", |peer, asked| extents(peer, asked, 1, 7, &[])),
        ("another context", |peer, asked| extents(peer, asked, 1, 8, &[(asked.len, 3)])),
        ("without an end", |peer, asked| {
            (0..100).try_for_each(|_| extents(peer, asked, 0, 7, &[(4096, 3), (4096, 0)]))
        }),
        ("data", |peer, asked| {
            peer.chunk(1, 1, asked.cookie, &[&asked.offset.to_be_bytes()[..], &[0; 512]].concat())
        }),
        ("a simple success", |peer, asked| peer.simple(asked.cookie, 0)),
        ("half an extent", |peer, asked| peer.chunk(1, 5, asked.cookie, &[0, 0, 0, 7, 0, 0])),
    ];
    for (what, lie) in lies {
        let dir = Dir::new();
        let fake = Fake::start(&dir, SIZE);
        fake.offer(|offer| (offer.structured, offer.holes) = (true, true));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        fake.on_request(move |peer, asked| {
            if asked.command != 7 {
                return Ok(Turn::Honest);
            }
            count.fetch_add(1, Ordering::SeqCst);
            lie(peer, asked).map(|()| Turn::Taken)
        });
        // The only leg: it cannot be done without.
        let mut volume = served(&dir, &[&fake.leg("")], &[]);
        volume.wait_synced();
        let before = fake.connections();
        assert_eq!(map(&volume.uri()), [(0, SIZE, 0)], "{what}: that all is data is never wrong");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{what}: it is not believed again");
        wait_for(&format!("{what}: its connection was ended"), SOON, || fake.connections() > before);
        volume.wait_synced();
        run("nbdinfo", &["--size", &volume.uri()]).expect(0);
        volume.stop();
    }
}

/// CVE-2025-47711: the longest request there is, and a backend whose one extent is longer still.
#[test]
fn s13_an_extent_longer_than_what_was_asked_for_is_cut_to_it() {
    let dir = Dir::new();
    // Of that much nothing is kept: no byte of it is read or written.
    let size = 12 << 30;
    let fake = Fake::start(&dir, SIZE);
    fake.offer(|offer| (offer.size, offer.structured, offer.holes) = (size, true, true));
    let longest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&longest);
    fake.on_request(move |peer, asked| match asked.command {
        7 => {
            seen.fetch_max(asked.len as usize, Ordering::SeqCst);
            extents(peer, asked, 1, 7, &[(u32::MAX, 3)]).map(|()| Turn::Taken)
        }
        _ => Ok(Turn::Honest),
    });
    let mut volume = Volume::create(&dir, size, &[&fake.leg("")], &[]);
    volume.serve(&[]);
    volume.wait_synced();
    let at = At::Unix(volume.socket().to_owned());
    let connected = fake.connections();
    let mut raw = Raw::structured(&at, &["base:allocation"]);
    for (offset, len) in [(0, u32::MAX), (1 << 32, 0xffff_fe00), (size - 4096, 4096), (MIB, 512)] {
        for flags in [0, 8] {
            let found = raw.extents(flags, offset, len);
            let total: u64 = found.iter().map(|(len, _)| len).sum();
            assert!(total > 0 && total <= u64::from(len), "{len} bytes at {offset}: {found:?}");
            assert!(found.iter().all(|(len, status)| *len > 0 && *status == 3), "{found:?}");
        }
    }
    // We ask for a gibibyte at a time; four are told.
    assert_eq!(longest.load(Ordering::SeqCst), 1 << 30);
    assert_eq!(fake.connections(), connected, "that is no lie");
    volume.stop();
}

#[test]
fn c22_a_leg_that_does_not_answer_about_holes_is_dropped_in_time_and_another_one_answers() {
    if !need(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let fake = Fake::start(&dir, SIZE);
    fake.offer(|offer| (offer.structured, offer.holes) = (true, true));
    let silent = Arc::new(AtomicBool::new(true));
    let is_silent = Arc::clone(&silent);
    fake.on_request(move |_, asked| {
        let taken = asked.command == 7 && is_silent.load(Ordering::SeqCst);
        Ok(if taken { Turn::Taken } else { Turn::Honest })
    });
    let socket = dir.path("kit.sock");
    let _kit = nbdkit(&dir, &socket, &["file", sparse(&dir, "kit", &[]).to_str().expect("path")]);
    let legs = [fake.leg(",timeout=1s,read=prefer"), format!("kit={}", unix(&socket, ""))];
    let mut volume = served(&dir, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.wait_synced();
    let began = Instant::now();
    assert_eq!(map(&volume.uri()), [(0, SIZE, 3)]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    silent.store(false, Ordering::SeqCst);
    wait_for("it is back", SOON, || volume.leg("far", "connection-state") == "Connected");
    volume.stop();
}

#[test]
fn an_error_about_holes_is_answered_as_data_and_costs_nobody_a_connection() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let fake = Fake::start(&dir, SIZE);
    fake.offer(|offer| (offer.structured, offer.holes) = (true, true));
    fake.on_request(|peer, asked| match asked.command {
        7 => peer.chunk(1, 0x8001, asked.cookie, &[0, 0, 0, 5, 0, 0]).map(|()| Turn::Taken),
        _ => Ok(Turn::Honest),
    });
    let mut volume = served(&dir, &[&fake.leg("")], &[]);
    volume.wait_synced();
    let before = fake.connections();
    assert_eq!(map(&volume.uri()), [(0, SIZE, 0)]);
    assert_eq!(fake.connections(), before);
    let _: Output = volume.mirrord(&["status", "vol"]).expect(0);
    volume.stop();
}
