//! Bounds (case S28, and the rule that one hostile peer costs at most its own): while clients flood, stall, or never
//! read, the daemon's memory stays under 256 MiB and a second client reads 4 KiB within 100 ms, 99 times in 100.

use super::fake::{Fake, Turn};
use super::raw::{
    ACK, At, LIST, MIB, Place, READ, Raw, Seen, WRITE, contexts, option, request, wait_clients,
};
use crate::support::{Dir, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 64 * MIB;

/// A machine that is busy with other tests may take longer without any fault of the daemon's.
fn patience() -> Duration {
    Duration::from_millis(if std::env::var_os("CI").is_some() { 400 } else { 100 })
}

#[track_caller]
fn check(what: &str, seen: Seen) {
    eprintln!(
        "{what}: {} reads, p99 {:?}, worst {:?}, peak {} MiB",
        seen.reads,
        seen.p99,
        seen.worst,
        seen.peak >> 20
    );
    assert!(seen.p99 <= patience(), "{what}: {seen:?}");
    assert!(seen.worst <= Duration::from_secs(5), "{what}: {seen:?}");
}

/// The end of threads that look at this value, however the test ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attackers that stay connected while the witness is watched.
fn watch<'d>(dir: &'d Dir, what: &str, attack: impl FnOnce(&Place<'d>) -> Vec<Raw>) {
    let mut place = Place::new(dir, SIZE);
    let attackers = attack(&place);
    std::thread::sleep(Duration::from_secs(1));
    place.watch();
    check(what, place.is_fine());
    drop(attackers);
    wait_clients(&place.volume, 0);
    // What was under way when they left ends by itself.
    wait_for("nothing in flight", Duration::from_secs(10), || place.volume.status()["pending"] == 0);
    place.volume.stop();
}

/// Replies that nobody reads were charged to the whole volume: two such clients shut out all others.
#[test]
fn s28_clients_that_never_read_their_replies_shut_nobody_out() {
    let dir = Dir::new();
    watch(&dir, "10,000 unread reads of 32 MiB", |place| {
        let mut attackers: Vec<Raw> = (0..4).flat_map(|_| place.both()).map(|at| Raw::simple(&at)).collect();
        for raw in &mut attackers {
            // The socket is full long before the last: that is what is to be seen.
            let many: Vec<u8> = (0..1250).flat_map(|i| request(0, READ, i, 0, 32 << 20)).collect();
            raw.try_send(&many[..28 * 1000]);
        }
        attackers
    });
}

/// They keep what they hold as long as nobody needs it; a client that needs it gets it within some seconds.
#[test]
fn s28_who_holds_the_room_of_others_and_stands_still_is_dropped() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let mut attackers: Vec<Raw> = (0..2).flat_map(|_| place.both()).map(|at| Raw::simple(&at)).collect();
    let many: Vec<u8> = (0..60).flat_map(|i| request(0, READ, i, 0, 8 << 20)).collect();
    for raw in &mut attackers {
        raw.send(&many);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(place.volume.status()["clients"], 5, "nobody is dropped without need");
    let start = Instant::now();
    let mut raw = Raw::simple(&place.unix);
    assert!(raw.pread(0, 32 << 20)[..512] == [0; 512]);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    check("a read of 32 MiB against 4 that read nothing", place.is_fine());
    place.volume.stop();
}

#[test]
fn s28_unread_small_replies_of_many_clients_shut_nobody_out() {
    let dir = Dir::new();
    watch(&dir, "unread reads of 4 KiB by 64 clients", |place| {
        let mut attackers: Vec<Raw> = (0..32).flat_map(|_| place.both()).map(|at| Raw::simple(&at)).collect();
        let many: Vec<u8> = (0..2000).flat_map(|i| request(0, READ, i, 0, 4096)).collect();
        for raw in &mut attackers {
            raw.try_send(&many);
        }
        attackers
    });
}

/// The payload of a write took its memory when the header came, and counted only when it was complete: clients that
/// stop in the middle of one took 32 MiB each.
#[test]
fn s28_writes_that_stop_in_the_middle_take_neither_memory_nor_turns() {
    let dir = Dir::new();
    watch(&dir, "24 writes of 32 MiB that stop before their end", |place| {
        let data = vec![7; (32 << 20) - 1];
        let all: Vec<At> = (0..12).flat_map(|_| place.both()).collect();
        let sending = all.iter().map(|at| {
            let at = at.clone();
            let data = data.clone();
            std::thread::spawn(move || {
                let mut raw = Raw::short(&at);
                raw.send(&request(0, WRITE, 1, 0, 32 << 20));
                // Those for whom there is no room are not read.
                raw.try_send(&data);
                raw
            })
        });
        let sending: Vec<_> = sending.collect();
        sending.into_iter().map(|thread| thread.join().expect("attacker")).collect()
    });
}

#[test]
fn s28_refused_writes_without_end_cost_nothing() {
    let dir = Dir::new();
    watch(&dir, "refused writes of 128 MiB", |place| {
        let mut attackers: Vec<Raw> = (0..2).flat_map(|_| place.both()).map(|at| Raw::short(&at)).collect();
        let data = vec![7; 8 << 20];
        for raw in &mut attackers {
            raw.send(&request(0, WRITE, 1, u64::MAX, 128 << 20));
            for _ in 0..15 {
                raw.send(&data);
            }
        }
        attackers
    });
}

/// As many half-open connections as there are places kept everybody else out until their deadline.
#[test]
fn s28_hundreds_of_half_open_connections_do_not_keep_a_client_out() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let half: Vec<Raw> = (0..200).flat_map(|_| place.both()).map(|at| Raw::connect(&at)).collect();
    for at in place.both() {
        let start = Instant::now();
        let mut raw = Raw::simple(&at);
        assert_eq!(raw.pread(0, 512), [0; 512]);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    check("400 half-open connections", place.is_fine());
    drop(half);
    place.volume.stop();
}

/// A handshake kept up to a mebibyte of replies that nobody read, and there may be as many as there are connections.
#[test]
fn s28_handshakes_that_never_read_their_replies_stay_within_memory() {
    let dir = Dir::new();
    watch(&dir, "240 handshakes of unread replies", |place| {
        for i in 0..16 {
            let name = format!("tracker-{i:050}");
            place.volume.mirrord(&["tracker", "add", "vol", &name]).expect(0);
        }
        let mut attackers: Vec<Raw> = (0..120).flat_map(|_| place.both()).map(|at| Raw::hasty(&at)).collect();
        // Two kilobytes of answer to each.
        let many = option(9, &contexts("", &[])).repeat(500);
        for _ in 0..6 {
            for raw in &mut attackers {
                raw.try_send(&many);
            }
        }
        attackers
    });
}

/// What is refused takes no room for payload, but its replies wait somewhere too.
#[test]
fn s28_refused_requests_whose_replies_nobody_reads_stay_within_memory() {
    let dir = Dir::new();
    watch(&dir, "refused requests without end, and no reply read", |place| {
        let sending = (0..8).map(|i| {
            let at = place.both()[i % 2].clone();
            std::thread::spawn(move || {
                let mut raw = Raw::short(&at);
                let many = request(0, 99, 1, 0, 0).repeat(1 << 15);
                // As much as becomes 500 MiB of replies, if it is taken.
                let _ = (0..120).all(|_| raw.try_send(&many));
                raw
            })
        });
        let sending: Vec<_> = sending.collect();
        sending.into_iter().map(|thread| thread.join().expect("attacker")).collect()
    });
}

/// Each that never reads takes half of what the others left: in the end nothing would be left for a small read.
#[test]
fn s28_who_takes_half_of_what_is_left_leaves_a_share_to_everybody() {
    let dir = Dir::new();
    let size = 40 * MIB;
    let mut place = Place::new(&dir, size);
    // What a socket takes is not in flight any more: each asks until nothing more is taken.
    let mut attackers: Vec<Raw> = (0..24).map(|_| Raw::simple(&place.unix)).collect();
    for (i, raw) in attackers.iter_mut().enumerate() {
        raw.send(&request(0, READ, 1, 0, ((32 << 20) >> i).max(4096)).repeat(250));
        std::thread::sleep(Duration::from_millis(60));
    }
    place.watch();
    check("24 that take half of what is left", place.is_fine());
    drop(attackers);
    place.volume.stop();
}

/// A few bytes now and then counted as movement, so that few clients held all the room for as long as they liked.
#[test]
fn s28_who_takes_a_little_now_and_then_does_not_hold_the_room_for_ever() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let attackers: Vec<Raw> = (0..2).flat_map(|_| place.both()).map(|at| Raw::simple(&at)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&over);
        for mut raw in attackers {
            let over = &over;
            scope.spawn(move || {
                raw.send(&request(0, READ, 1, 0, 8 << 20).repeat(60));
                // As much as makes a socket take more.
                let mut little = vec![0; 100_000];
                while !over.load(Ordering::Relaxed) && raw.try_read(&mut little).is_ok_and(|n| n > 0) {
                    std::thread::sleep(Duration::from_millis(700));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let start = Instant::now();
        let mut raw = Raw::simple(&place.unix);
        assert!(raw.pread(0, 32 << 20)[..512] == [0; 512]);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    });
    place.is_fine();
    place.volume.stop();
}

/// Buffers are kept for the next request of their size, and whoever asks for all sizes must not fill every shelf.
#[test]
fn s28_buffers_of_every_size_are_not_all_kept() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let mut two: Vec<Raw> = place.both().iter().map(Raw::simple).collect();
    for shift in 0..8 {
        let (len, count) = ((32 << 20) >> shift, 2 << shift);
        for raw in &mut two {
            raw.send(&request(0, READ, 1, 0, len).repeat(count));
        }
        // As much as may be in flight at a time is, before anything of it is taken.
        std::thread::sleep(Duration::from_millis(100));
        for raw in &mut two {
            (0..count).for_each(|_| assert_eq!(raw.reply(len as usize).error, 0));
        }
    }
    place.ends_well();
}

/// A small write stays in the buffer that it was received into, and kept all of that as long as a leg was slow.
#[test]
fn s28_small_writes_do_not_keep_large_buffers() {
    let dir = Dir::new();
    let fake = Fake::start(&dir, SIZE);
    let near = format!("near={}", dir.image("near.img", SIZE).display());
    let mut place = Place::of(&dir, SIZE, &[&near, &fake.leg("")], &["--known-zero"]);
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = Arc::clone(&slow);
    let start = Instant::now();
    fake.on_request(move |_, asked| {
        while asked.command == 1 && is_slow.load(Ordering::Relaxed) && start.elapsed().as_secs() < 12 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Turn::Honest)
    });
    let mut attackers: Vec<Raw> = (0..60).flat_map(|_| place.both()).map(|at| Raw::short(&at)).collect();
    let refused = [request(0, WRITE, 2, u64::MAX, 180 << 10), vec![7; 180 << 10]].concat();
    for n in 0..16 {
        for (i, raw) in attackers.iter_mut().enumerate() {
            let at = 2 * MIB + (i as u64) * MIB / 2 + n * 8192;
            raw.try_send(&[&request(0, WRITE, 1, at, 1)[..], &[1], &refused].concat());
        }
    }
    slow.store(false, Ordering::Relaxed);
    let seen = place.is_fine();
    eprintln!("small writes between refused ones: peak {} MiB", seen.peak >> 20);
    drop(attackers);
    wait_clients(&place.volume, 0);
    place.volume.stop();
}

/// Case S5 while others are served: data of options that nobody wants, as fast as it goes.
#[test]
fn s5_sinks_of_option_data_leave_time_for_others() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        for at in place.both() {
            let over = &over;
            scope.spawn(move || {
                let piece = vec![0; 1 << 20];
                while !over.load(Ordering::Relaxed) {
                    let mut raw = Raw::greeted(&at);
                    let mut head = option(0xdead, &[]);
                    head[12..].copy_from_slice(&(32u32 << 20).to_be_bytes());
                    raw.send(&head);
                    (0..32).for_each(|_| raw.send(&piece));
                    assert_ne!(raw.option_reply().1, ACK);
                    head[12..].fill(0xff);
                    raw.send(&head);
                    raw.try_send(&piece);
                    raw.closed();
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        let _end = End(&over);
        place.is_fine()
    });
    check("two sinks of option data", seen);
    place.volume.stop();
}

#[test]
fn s28_floods_of_tiny_requests_leave_time_for_others() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        for at in place.both() {
            let over = &over;
            scope.spawn(move || {
                let mut raw = Raw::simple(&at);
                let mut batch = Vec::new();
                for i in 0..50 {
                    batch.extend(request(0, READ, i, i * 3, 1));
                    batch.extend(request(0, WRITE, i, i * 5, 1));
                    batch.push(1);
                    batch.extend(request(0, 99, i, 0, 0));
                    batch.extend(request(0, READ, i, 0, 0));
                }
                while !over.load(Ordering::Relaxed) {
                    raw.send(&batch);
                    raw.read(50 * (17 + 16 + 16 + 16));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        let _end = End(&over);
        place.is_fine()
    });
    check("two floods of tiny requests", seen);
    place.volume.stop();
}

#[test]
fn s28_options_by_the_thousand_from_many_sides_leave_time_for_others() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        for at in place.both() {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut raw = Raw::greeted(&at);
                    for _ in 0..40 {
                        raw.send(&option(LIST, &[]).repeat(50));
                        (0..100).for_each(|_| drop(raw.option_reply()));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        let _end = End(&over);
        place.is_fine()
    });
    check("options by the thousand", seen);
    place.volume.stop();
}
