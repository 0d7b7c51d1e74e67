//! C-cases: connections to a leg that are never made, stand still, end too early, or lead to another server than
//! before.

use super::fake::{Asked, Peer, Turn};
use super::leg::{SIZE, Scene};
use super::raw::{At, FLUSH, MIB, READ, Raw, WRITE, pattern, peak, request};
use crate::support::{Dir, Volume, assert_equal, nbdkit, need, wait_for};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Lie = fn(&mut Peer) -> io::Result<()>;

/// The greeting, no extended headers, and the next option taken.
fn asked(peer: &mut Peer) -> io::Result<u32> {
    peer.greet()?;
    loop {
        match peer.option()?.0 {
            11 => peer.option_reply(11, 1 << 31 | 1, &[])?,
            other => return Ok(other),
        }
    }
}

/// The honest handshake until GO is to be answered.
fn gone(peer: &mut Peer) -> io::Result<()> {
    peer.greet()?;
    loop {
        match peer.option()?.0 {
            7 => return Ok(()),
            other => peer.option_reply(other, 1 << 31 | 1, &[])?,
        }
    }
}

/// The honest handshake until contexts are asked for.
fn wants_contexts(peer: &mut Peer) -> io::Result<()> {
    peer.greet()?;
    loop {
        match peer.option()?.0 {
            10 => return Ok(()),
            8 => peer.option_reply(8, 1, &[])?,
            other => peer.option_reply(other, 1 << 31 | 1, &[])?,
        }
    }
}

fn info(size: u64, flags: u16) -> Vec<u8> {
    [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

/// Lies in a handshake, and the reason that the status then gives.
const HANDSHAKES: &[(&str, Lie, &str)] = &[
    (
        "c2 a reply of 4 GiB",
        |p| {
            asked(p)?;
            p.send(&reply_head(8, 2, u32::MAX))
        },
        "reply of 4294967295 bytes",
    ),
    (
        "c2 a reply to LIST",
        |p| {
            asked(p)?;
            p.option_reply(3, 2, &[0xff; 64])
        },
        "reply to option 3",
    ),
    ("c3 nothing", |_| Ok(()), "it closed the connection"),
    ("c3 half a greeting", |p| p.send(b"NBDMAGICIHA"), "it closed the connection"),
    (
        "c3 half a reply",
        |p| {
            gone(p)?;
            p.send(&reply_head(7, 3, 12)[..11])
        },
        "it closed the connection",
    ),
    (
        "c3 half of GO",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE, 5))
        },
        "it closed the connection",
    ),
    (
        "c4 TLS",
        |p| {
            asked(p)?;
            p.option_reply(8, 1 << 31 | 5, &[])
        },
        "talks over TLS only",
    ),
    (
        "c7 2^63",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(1 << 63, 5))?;
            p.option_reply(7, 1, &[])
        },
        "9223372036854775808",
    ),
    (
        "c7 2^64-1",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(u64::MAX, 5))?;
            p.option_reply(7, 1, &[])
        },
        "18446744073709551615",
    ),
    (
        "c15 ACK with data",
        |p| {
            gone(p)?;
            p.option_reply(7, 1, &[1; 9])
        },
        "an acknowledgement with 9 bytes",
    ),
    (
        "c15 a short context",
        |p| {
            wants_contexts(p)?;
            p.option_reply(10, 4, &[0, 0, 0])
        },
        "a metadata context without a number",
    ),
    (
        "c20 endless contexts",
        |p| {
            wants_contexts(p)?;
            loop {
                p.option_reply(10, 4, &[b'x'; 1000])?;
            }
        },
        "more than 4096 replies",
    ),
    (
        "c20 exports that nobody asked for",
        |p| {
            gone(p)?;
            p.option_reply(7, 2, b"\0\0\0\x03vol")
        },
        "reply of type 2",
    ),
    (
        "c15 no size",
        |p| {
            gone(p)?;
            p.option_reply(7, 1, &[])
        },
        "without telling its size",
    ),
    (
        "c19 a short INFO",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE, 5)[..11])
        },
        "export information of 11 bytes",
    ),
    (
        "c19 two sizes",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE, 5))?;
            p.option_reply(7, 3, &info(1, 5))
        },
        "two different sizes",
    ),
    (
        "c20 endless",
        |p| {
            gone(p)?;
            loop {
                p.option_reply(7, 3, &[0xff; 1000])?;
            }
        },
        "more than 4096 replies",
    ),
    (
        "c21 escapes",
        |p| {
            gone(p)?;
            p.option_reply(7, 1 << 31 | 2, b"\x1b[2J\0\x07red\r\nalert")
        },
        "red",
    ),
    (
        "c24 the longest message",
        |p| {
            gone(p)?;
            p.option_reply(7, 1 << 31 | 6, &[b'x'; 4096])
        },
        "xxxx",
    ),
    (
        "c27 smaller",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE - 512, 5))?;
            p.option_reply(7, 1, &[])
        },
        "8388096 bytes, the volume has 8388608",
    ),
    (
        "c27 read-only",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE, 7))?;
            p.option_reply(7, 1, &[])
        },
        "the export is read-only",
    ),
    (
        "c27 without FLUSH",
        |p| {
            gone(p)?;
            p.option_reply(7, 3, &info(SIZE, 1))?;
            p.option_reply(7, 1, &[])
        },
        "the server has no FLUSH",
    ),
    ("no NBD at all", |p| p.send(b"SSH-2.0-OpenSSH_9.2p1 and so on\r\n"), "not an NBD server"),
];

fn reply_head(option: u32, kind: u32, len: u32) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for field in [option, kind, len] {
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

#[test]
fn c2_c3_c4_c7_c15_c19_c20_c21_c24_c27_no_lie_of_a_handshake_lets_a_leg_in() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=5s");
    for (case, lie, reason) in HANDSHAKES {
        scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
        scene.fake.on_connect(move |peer, _| {
            lie(peer)?;
            Ok(false)
        });
        scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        scene.wait_reason(reason);
        scene.client.pwrite(0, &pattern(0, 4096));
        assert_eq!(scene.client.pread(0, 4096), pattern(0, 4096), "{case}");
        let text = scene.volume.mirrord(&["status", "vol"]).stdout + &scene.volume.server().log();
        assert!(!text.contains(['\x1b', '\0', '\x07']), "{case}: {text:?}");
        // In JSON they would be escaped, and be themselves again for whoever reads it.
        let reason = scene.volume.leg("far", "reason");
        assert!(!reason.as_str().is_some_and(|why| why.contains(char::is_control)), "{case}: {reason:?}");
    }
    scene.ends_well();
}

/// A handshake cut off after each of its bytes: the leg says so at once, not at its deadline.
#[test]
fn c3_a_server_that_goes_away_at_any_byte_of_a_handshake_is_told_at_once() {
    const ALL: usize = 18 + 4 * 20 + 12 + 20;
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=10s");
    for left in 0..ALL {
        scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
        scene.fake.on_connect(move |peer, fake| {
            peer.send_no_more_than(left);
            peer.open(fake.offered()).map(|()| true)
        });
        let start = Instant::now();
        scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        scene.wait_reason("it closed the connection");
        assert!(start.elapsed() < Duration::from_secs(8), "{left}: {:?}", start.elapsed());
        // Once it is connected its reason is no more.
        scene.fake.be_honest();
        scene.volume.mirrord(&["resync", "vol", "far"]);
        wait_for(&format!("the connection after {left}"), Duration::from_secs(20), || {
            scene.volume.leg("far", "connection-state") == "Connected"
        });
    }
    assert_eq!(scene.client.pread(0, 4096), vec![0; 4096]);
    scene.ends_well();
}

/// Impossible block sizes are ignored, not obeyed: the leg is as good as one that tells none.
#[test]
fn c19_impossible_block_sizes_are_ignored() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, "");
    for sizes in
        [[3u32, 4096, 1 << 20], [128 << 10, 128 << 10, 1 << 20], [4096, 512, 1 << 20], [1, 4096, 512]]
    {
        scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
        scene.fake.on_connect(move |peer, _| {
            gone(peer)?;
            let blocks =
                sizes.iter().fold(vec![0, 3], |data, size| [data, size.to_be_bytes().to_vec()].concat());
            peer.option_reply(7, 3, &blocks)?;
            peer.option_reply(7, 3, &info(SIZE, super::fake::FLAGS))?;
            peer.option_reply(7, 1, &[])?;
            Ok(true)
        });
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&written);
        scene.fake.on_request(move |_, asked| {
            if asked.command == WRITE {
                log.lock().expect("log").push((asked.offset, asked.len));
            }
            Ok(Turn::Honest)
        });
        scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        scene.volume.wait_synced();
        written.lock().expect("log").clear();
        scene.client.pwrite(777, &pattern(777, 1234));
        assert_eq!(*written.lock().expect("log"), [(777, 1234)], "{sizes:?}: in one piece, as it came");
    }
    scene.ends_well();
}

/// A server that says nothing, and one that never stops saying something: both cost their deadline.
#[test]
fn c20_c22_a_handshake_without_end_costs_its_deadline() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=1s");
    let lies: [(Lie, &str); 3] = [
        (
            |p| {
                wants_contexts(p)?;
                loop {
                    p.option_reply(10, 4, b"\0\0\0\x09x:unasked")?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            },
            "no answer in time",
        ),
        (
            |p| {
                p.greet()?;
                p.wait_for_the_end()
            },
            "no answer in time",
        ),
        (
            |p| {
                gone(p)?;
                loop {
                    p.option_reply(7, 3, &[0xff; 8])?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            },
            "no answer in time",
        ),
    ];
    for (lie, reason) in lies {
        scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
        scene.fake.on_connect(move |peer, _| lie(peer).map(|()| false));
        scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        scene.wait_reason(reason);
        scene.client.pwrite(0, &pattern(0, 4096));
    }
    scene.ends_well();
}

/// The reply to an earlier request, with other bytes.
fn late_data(peer: &mut Peer, cookie: u64, asked: &Asked) -> io::Result<()> {
    let wrong = [&asked.offset.to_be_bytes()[..], &vec![0xee; asked.len as usize]].concat();
    peer.chunk(1, 1, cookie, &wrong)
}

/// The far server holds its replies until the connection was given up, and then sends them over the next one.
/// There they were taken for those of newer requests: cookies began at 1 on each connection.
#[test]
fn c22_a_late_reply_is_never_matched_to_a_newer_request() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=1s,read=prefer,retries=50");
    scene.client.pwrite(0, &pattern(0, 65536));
    assert_eq!(scene.client.outcome(0, FLUSH, 0, 0, &[]), 0);
    let seen: Arc<Mutex<Vec<(usize, u64)>>> = Arc::default();
    let (late, log) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&seen));
    let first = scene.fake.connections();
    scene.fake.on_request(move |peer, asked| {
        log.lock().expect("log").push((peer.count, asked.cookie));
        if peer.count == first && asked.command == READ {
            late.lock().expect("late").push(asked.cookie);
            return Ok(Turn::Taken);
        }
        if late.lock().expect("late").contains(&asked.cookie) {
            late_data(peer, asked.cookie, asked)?;
            return Ok(Turn::Taken);
        }
        Ok(Turn::Honest)
    });
    let start = Instant::now();
    assert!(scene.client.pread(0, 65536) == pattern(0, 65536));
    assert!((900..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    wait_for("it is connected again", Duration::from_secs(20), || {
        scene.fake.connections() > first && scene.volume.leg("far", "connection-state") == "Connected"
    });
    for i in 0..8 {
        assert!(scene.client.pread(i * 4096, 4096) == pattern(i * 4096, 4096), "{i}");
    }
    let later = seen.lock().expect("log").iter().filter(|(count, _)| *count > first).count();
    assert!(later >= 8, "the leg is read again: {}", scene.volume.status());
    let mut cookies: Vec<u64> = seen.lock().expect("log").iter().map(|(_, cookie)| *cookie).collect();
    let all = cookies.len();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), all, "no cookie is used twice, whatever the connection");
    // And a late reply that comes although nobody waits for it ends the connection.
    let oldest = cookies[0];
    scene.fake.on_request(move |peer, asked| late_data(peer, oldest, asked).map(|()| Turn::Honest));
    assert!(scene.client.pread(0, 65536) == pattern(0, 65536));
    scene.wait_told(0, "answered a request that was not made");
    scene.ends_well();
}

/// The leg answers each write at about the moment when it is given up: every client request ends exactly once.
#[test]
fn c25_replies_that_race_with_their_deadline_complete_a_request_once() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=150ms,retries=50");
    scene.fake.on_request(|peer, asked| {
        if asked.command == WRITE {
            std::thread::sleep(Duration::from_millis(130 + asked.cookie % 5 * 10));
        }
        let _ = peer;
        Ok(Turn::Honest)
    });
    let start = Instant::now();
    let mut cookie = 0;
    while start.elapsed() < Duration::from_secs(3) {
        cookie += 1;
        scene.client.send(&request(0, WRITE, cookie, cookie % 64 * 4096, 4096));
        scene.client.send(&vec![cookie as u8; 4096]);
        let reply = scene.client.reply(0);
        assert_eq!((reply.cookie, reply.error), (cookie, 0));
        assert_eq!(scene.client.pread(cookie % 64 * 4096, 4096), vec![cookie as u8; 4096]);
    }
    scene.ends_well();
}

/// Offset and bytes of writes that the far server has not executed.
type Held = Vec<(u64, Vec<u8>)>;

/// Overlapping writes are in flight when the connection ends; the far server executes what it got only later, and
/// in the wrong order. The copies end equal, with what was written last.
#[test]
fn c26_a_connection_lost_among_overlapping_writes_keeps_the_last_writer() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=1s,retries=50");
    let count = AtomicUsize::new(0);
    let held: Arc<Mutex<Held>> = Arc::default();
    let ending = Arc::new(Mutex::new(Instant::now()));
    let (zombies, since) = (Arc::clone(&held), Arc::clone(&ending));
    scene.fake.on_request(move |_, asked| {
        // Copies are larger.
        if asked.command != WRITE || asked.len != 16384 {
            return Ok(Turn::Honest);
        }
        match count.fetch_add(1, Ordering::SeqCst) % 40 {
            n @ 30.. => {
                held.lock().expect("held").push((asked.offset, asked.payload.clone()));
                *ending.lock().expect("time") = Instant::now();
                Ok(if n == 39 { Turn::Close } else { Turn::Taken })
            }
            _ => Ok(Turn::Honest),
        }
    });
    let mut last = vec![0u8; 256 << 10];
    for round in 0..2u64 {
        let mut all = Vec::new();
        for i in 0..60u64 {
            let offset = (i * 7 + round) % 32 * 4096;
            let data = vec![(round * 60 + i + 1) as u8; 16384];
            last[offset as usize..][..16384].copy_from_slice(&data);
            all.extend(request(0, WRITE, i, offset, 16384));
            all.extend(data);
        }
        scene.client.send(&all);
        for _ in 0..60 {
            assert_eq!(scene.client.reply(0).error, 0);
        }
        // The connection comes back at once; what was unresolved is not copied before the hold of 3 s is over, so that
        // what the far server still has may execute until then.
        let since = *since.lock().expect("time");
        std::thread::sleep(Duration::from_secs(2).saturating_sub(since.elapsed()));
        assert!(
            scene.volume.dirty("far") > 0 || since.elapsed() > Duration::from_millis(2900),
            "copied before a late write may have been executed"
        );
        for (offset, data) in zombies.lock().expect("held").drain(..).rev() {
            scene.fake.image()[offset as usize..][..data.len()].copy_from_slice(&data);
        }
        assert!(scene.client.pread(0, 256 << 10) == last);
        scene.volume.wait_synced();
    }
    assert!(scene.fake.image()[..256 << 10] == last[..]);
    scene.ends_well();
}

/// The server comes back with a smaller export, or a read-only one: it is refused, told, and not written to.
#[test]
fn c27_a_leg_that_comes_back_smaller_or_read_only_is_refused_until_it_is_itself_again() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, "");
    for (size, flags, reason) in
        [(SIZE - 4096, 0, "8384512 bytes, the volume has 8388608"), (SIZE, 2, "the export is read-only")]
    {
        scene.fake.offer(|offer| {
            offer.size = size;
            offer.flags |= flags;
        });
        let written = Arc::new(AtomicBool::new(false));
        let (seen, first) = (Arc::clone(&written), scene.fake.connections());
        scene.fake.on_request(move |peer, asked| {
            if peer.count == first {
                return Ok(Turn::Close);
            }
            seen.fetch_or(asked.command == WRITE, Ordering::SeqCst);
            Ok(Turn::Honest)
        });
        scene.client.pwrite(0, &pattern(0, 65536));
        scene.wait_reason(reason);
        scene.client.pwrite(65536, &pattern(65536, 65536));
        assert_eq!(scene.client.pread(0, 131_072), pattern(0, 131_072));
        assert!(!written.load(Ordering::SeqCst));
        scene.fake.offer(|offer| {
            *offer =
                super::fake::Offer { size: SIZE, flags: super::fake::FLAGS, structured: true, holes: false }
        });
        scene.fake.be_honest();
        scene.volume.wait_synced();
    }
    scene.ends_well();
}

/// Longer than the patience of the test below.
fn nap() -> io::Result<()> {
    std::thread::sleep(Duration::from_secs(4));
    Err(io::ErrorKind::TimedOut.into())
}

/// A leg that takes everything and answers nothing, and one that reads nothing: the daemon's memory stays bounded
/// and its clients wait for one timeout.
#[test]
fn c22_a_leg_that_never_answers_or_never_reads_costs_one_timeout_and_bounded_memory() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",timeout=1s,retries=50");
    let lies: [fn(&mut Peer) -> io::Result<()>; 2] = [|_| Ok(()), |_| nap()];
    for lie in lies {
        scene.fake.on_header(move |peer, asked| if asked.command == WRITE { lie(peer) } else { Ok(()) });
        scene.fake.on_request(|_, asked| Ok(if asked.command == WRITE { Turn::Taken } else { Turn::Honest }));
        let start = Instant::now();
        let data = pattern(0, 1 << 20);
        for i in 0..64u64 {
            scene.client.send(&request(0, WRITE, i, i % 8 * MIB, 1 << 20));
            scene.client.send(&data);
        }
        for _ in 0..64 {
            assert_eq!(scene.client.reply(0).error, 0);
        }
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        scene.fake.be_honest();
        scene.volume.wait_synced();
    }
    scene.ends_well();
}

/// One request that is never answered while all others are: what is remembered of answered ones is forgotten. The
/// table of requests in flight once grew from the oldest unanswered one on, up to the whole patience of a flush.
#[test]
fn c22_a_flush_without_answer_does_not_fill_the_memory_with_answered_writes() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",retries=50");
    scene.fake.on_request(|_, asked| Ok(if asked.command == FLUSH { Turn::Taken } else { Turn::Honest }));
    scene.client.pwrite(0, &[1; 512]);
    scene.client.send(&request(0, FLUSH, 1, 0, 0));
    let mut writer = Raw::simple(&scene.at);
    writer.pwrite(0, &[1; 512]);
    let before = peak(scene.volume.server().pid());
    let mut batch = Vec::new();
    for i in 0..200u64 {
        batch.extend(request(0, WRITE, i, i * 512, 512));
        batch.extend([i as u8; 512]);
    }
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(2) {
        writer.send(&batch);
        count += 200;
        for _ in 0..200 {
            assert_eq!(writer.reply(0).error, 0);
        }
    }
    let grown = peak(scene.volume.server().pid()) - before;
    assert!(grown < 4 * MIB, "{} KiB after {count} writes", grown >> 10);
    scene.fake.be_honest();
    scene.volume.mirrord(&["leg", "detach", "vol", "far"]).expect(0);
    // It ends without the leg; whether with an error is not this test's affair.
    scene.client.reply(0);
    scene.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
    scene.ends_well();
}

/// A leg that breaks the protocol on every connection is connected again more and more slowly, and the volume does
/// its work meanwhile.
#[test]
fn c27_a_leg_that_fails_right_after_each_handshake_is_not_connected_in_a_tight_loop() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, "");
    let before = scene.fake.connections();
    scene.fake.on_request(|peer, _| peer.send(&[0x55; 64]).map(|()| Turn::Close));
    scene.client.pwrite(0, &pattern(0, 65536));
    wait_for("it left", Duration::from_secs(10), || scene.volume.leg("far", "disk-state") != "UpToDate");
    std::thread::sleep(Duration::from_secs(3));
    let tried = scene.fake.connections() - before;
    assert!(tried <= 10, "{tried} connections in three seconds");
    assert_eq!(scene.client.pread(0, 65536), pattern(0, 65536));
    scene.ends_well();
}

/// A real server that is stopped while requests are under way, and goes on later: its answers come, and nobody takes
/// them for those of other requests.
#[test]
fn c22_a_stopped_nbdkit_costs_one_timeout_and_its_late_answers_are_nobodys() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (near, far, socket) = (dir.image("near.img", SIZE), dir.image("far.img", SIZE), dir.path("kit.sock"));
    let kit = nbdkit(&dir, &socket, &["file", far.to_str().expect("UTF-8")]);
    let legs = [
        format!("near={}", near.display()),
        format!("far=nbd+unix:///?socket={},timeout=1s,read=prefer,retries=50", socket.display()),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let mut client = Raw::simple(&At::Unix(volume.socket().to_owned()));
    for block in 0..16 {
        client.pwrite(block * 65536, &pattern(block * 65536, 65536));
    }
    kit.signal("STOP");
    let start = Instant::now();
    // A read that it will answer late, and a write.
    assert!(client.pread(0, 65536) == pattern(0, 65536));
    client.pwrite(MIB, &pattern(MIB, 65536));
    assert!((900..15_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(volume.dirty("far") >= 65536, "what it has not answered does not count");
    kit.signal("CONT");
    volume.mirrord(&["resync", "vol", "far"]);
    volume.wait_synced();
    for block in 0..16 {
        assert!(client.pread(block * 65536, 65536) == pattern(block * 65536, 65536), "block {block}");
    }
    assert_eq!(client.outcome(0, FLUSH, 0, 0, &[]), 0);
    volume.stop();
    assert_eq!(kit.stop(), Some(0));
    assert_equal(&near, &far);
}
