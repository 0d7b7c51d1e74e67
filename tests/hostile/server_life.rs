//! S-cases: handshakes that break off, connections that end, signals that come meanwhile.

use super::raw::{
    ACK, At, GO, INFO, LIST, MIB, Place, Raw, SET_META, STRUCTURED, contexts, export, handshake, option,
    wait_clients,
};
use crate::support::{Dir, need, run, wait_for};
use std::process::Command;
use std::time::{Duration, Instant};

const SIZE: u64 = 16 * MIB;

#[test]
fn s5_an_option_of_4_gib_closes_and_32_mib_are_drained() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let piece = vec![0; 1 << 20];
    for at in place.both() {
        for number in [1, 3, 5, GO, SET_META, 0xdead] {
            let mut raw = Raw::greeted(&at);
            let mut head = option(number, &[]);
            head[12..].fill(0xff);
            raw.send(&head);
            raw.try_send(&piece);
            assert_eq!(raw.end(), [0; 0], "option {number}");
        }
        let mut raw = Raw::greeted(&at);
        let mut head = option(0xdead, &[]);
        head[12..].copy_from_slice(&(32u32 << 20).to_be_bytes());
        raw.send(&head);
        (0..32).for_each(|_| raw.send(&piece));
        assert_eq!(raw.option_reply().1, 1 << 31 | 1, "unsupported");
        assert_eq!(raw.option(GO, &export("vol")), ACK);
    }
    place.ends_well();
}

#[test]
fn s6_the_handshake_stops_or_turns_to_garbage_at_every_byte() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let whole = handshake();
    for at in place.both() {
        for end in 0..=whole.len() {
            Raw::connect(&at).send(&whole[..end]);
            let mut raw = Raw::connect(&at);
            raw.try_send(&whole[..end]);
            raw.try_send(&[0xff; 64]);
        }
    }
    wait_clients(&place.volume, 1);
    place.ends_well();
}

#[test]
fn s7_an_unknown_export_and_a_client_that_leaves_harm_nobody() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        drop(Raw::greeted(&at));
        for name in ["nothing", ".", "..", "../vol", "/vol", "vol/", "vol@meta", "VOL", &"v".repeat(4096)] {
            let mut raw = Raw::greeted(&at);
            assert_eq!(raw.option(INFO, &export(name)), 1 << 31 | 6, "{name}");
            assert_eq!(raw.option(GO, &export(name)), 1 << 31 | 6, "{name}");
            assert_eq!(raw.option(GO, &export("vol")), ACK, "the right name still works");
            let mut raw = Raw::greeted(&at);
            raw.send(&option(1, name.as_bytes()));
            assert_eq!(raw.end(), [0; 0], "{name}: EXPORT_NAME can only be refused by closing");
        }
    }
    wait_clients(&place.volume, 1);
    place.ends_well();
}

#[test]
fn s8_idle_half_open_clients_do_not_keep_a_daemon_from_stopping() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let half: Vec<Raw> = (0..50).flat_map(|_| place.both()).map(|at| Raw::connect(&at)).collect();
    let open: Vec<Raw> = place.both().iter().map(Raw::greeted).collect();
    place.is_fine();
    let start = Instant::now();
    place.volume.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop((half, open));
}

#[test]
fn s8_s28_a_handshake_that_stands_still_or_trickles_ends_at_its_deadline() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let mut silent: Vec<Raw> = place.both().iter().map(Raw::connect).collect();
    let mut slow = Raw::greeted(&place.tcp);
    let start = Instant::now();
    let trickle = option(SET_META, &contexts("vol", &["base:allocation"; 40]));
    for byte in trickle {
        if !slow.try_send(&[byte]) || start.elapsed() > Duration::from_secs(14) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let taken = start.elapsed();
    assert!((9..14).contains(&taken.as_secs()), "{taken:?}");
    for raw in &mut silent {
        assert_eq!(raw.end(), *b"NBDMAGICIHAVEOPT\0\x03");
    }
    place.ends_well();
}

#[test]
fn s9_a_client_that_only_knocks_makes_the_daemon_do_nothing() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", place.pid)).expect("fd").count();
    let before = files();
    for _ in 0..200 {
        place.both().iter().for_each(|at| drop(Raw::connect(at)));
    }
    wait_clients(&place.volume, 1);
    assert!(files() <= before + 1, "no descriptor is left open");
    place.ends_well();
}

#[test]
fn s10_options_in_any_order_end_in_the_export_that_was_asked_for_last() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::greeted(&at);
        for (number, data) in [
            (INFO, export("vol")),
            (INFO, export("")),
            (LIST, vec![]),
            (LIST, vec![]),
            (STRUCTURED, vec![]),
            (SET_META, contexts("", &["base:allocation"])),
            (INFO, export("vol")),
            (GO, export("")),
        ] {
            assert_eq!(raw.option(number, &data), ACK, "option {number}");
        }
        assert!(!raw.extents(0, 0, 4096).is_empty());
        assert_eq!(raw.pread(0, 512), [0; 512]);
    }
    place.ends_well();
}

#[test]
fn s16_signals_during_connects_end_the_daemon_cleanly_and_never_hang_it() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    place.is_fine();
    let pid = place.pid.to_string();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in place.both() {
            let over = &over;
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = match &at {
                        At::Unix(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
                        At::Tcp(address) => std::net::TcpStream::connect(address).is_ok(),
                    };
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        for signal in ["-HUP", "-TERM", "-HUP", "-INT", "-TERM", "-TERM"] {
            // It may be gone already.
            Command::new("kill")
                .args([signal, &pid])
                .stderr(std::process::Stdio::null())
                .status()
                .expect("kill");
        }
        let mut ended = false;
        wait_for("its end", Duration::from_secs(20), || {
            ended = !place.volume.server().is_running();
            ended
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(place.volume.server().code(), Some(0), "{}", place.volume.server().log());
    // Nothing is marked after a clean stop.
    place.volume.serve(&[]);
    place.volume.wait_synced();
    place.volume.stop();
}

#[test]
fn s34_thousands_of_options_are_answered_up_to_the_cap() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::greeted(&at);
        for _ in 0..40 {
            raw.send(&option(INFO, &export("vol")).repeat(100));
            for _ in 0..200 {
                raw.option_reply();
            }
        }
        assert_eq!(raw.option(GO, &export("vol")), ACK);
        assert_eq!(raw.pread(0, 512), [0; 512]);
        let mut raw = Raw::greeted(&at);
        raw.try_send(&option(0xdead, &[]).repeat(5000));
        assert!(raw.end().len() < 5000 * 20 + 5000 * 40, "it is cut off");
    }
    if need(&["nbdinfo"]) {
        assert!(run("nbdinfo", &["--list", &place.volume.uri()]).expect(0).stdout.contains("vol"));
    }
    place.ends_well();
}

#[test]
fn s36_abort_with_a_payload_without_waiting_and_leaving_amid_replies() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::greeted(&at);
        assert_eq!(raw.option(2, &[7; 1000]), ACK);
        assert_eq!(raw.end(), [0; 0]);
        Raw::greeted(&at).send(&option(2, &[]));
        let mut raw = Raw::greeted(&at);
        raw.send(&option(LIST, &[]).repeat(1000));
        raw.option_reply();
    }
    wait_clients(&place.volume, 1);
    place.ends_well();
}
