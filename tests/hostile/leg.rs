//! C-cases: a leg that answers requests with lies. The volume goes on from the good leg, nothing wrong is ever
//! read, and somebody is told why the leg was dropped.

use super::fake::{Asked, Fake, Peer, Turn};
use super::raw::{At, FLUSH, MIB, READ, Raw, WRITE, bytes_of, pattern, peak, request};
use crate::support::{Dir, Volume, wait_for};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub const SIZE: u64 = 8 * MIB;

/// A volume of an honest file `near` and a lying leg `far`, both in sync, and a client of it.
pub struct Scene<'d> {
    pub dir: &'d Dir,
    pub volume: Volume<'d>,
    pub fake: Fake,
    pub client: Raw,
    pub at: At,
}

impl<'d> Scene<'d> {
    /// `options` of the lying leg begin with a comma.
    pub fn new(dir: &'d Dir, structured: bool, options: &str) -> Self {
        let fake = Fake::start(dir, SIZE);
        fake.offer(|offer| offer.structured = structured);
        let legs = [format!("near={}", dir.image("near.img", SIZE).display()), fake.leg(options)];
        let mut volume = Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
        volume.serve(&[]);
        volume.wait_synced();
        let at = At::Unix(volume.socket().to_owned());
        let client = Raw::simple(&at);
        Self { dir, volume, fake, client, at }
    }

    /// Waits until the daemon has told this since it had told `before` lines.
    #[track_caller]
    pub fn wait_told(&mut self, before: usize, what: &str) {
        let server = self.volume.server();
        wait_for(&format!("'{what}' is told"), Duration::from_secs(10), || {
            server.log().lines().skip(before).any(|line| line.contains("leg far: ") && line.contains(what))
        });
    }

    /// How many lines the daemon has told.
    pub fn told(&mut self) -> usize {
        self.volume.server().log().lines().count()
    }

    /// Waits until the status of the leg gives this reason.
    #[track_caller]
    pub fn wait_reason(&self, what: &str) {
        wait_for(&format!("'{what}' in {}", self.volume.status()), Duration::from_secs(20), || {
            self.volume.status()["legs"][1]["reason"].as_str().is_some_and(|reason| reason.contains(what))
        });
    }

    /// Honest again, the leg comes back, both copies are equal, memory was bounded, a clean stop.
    #[track_caller]
    pub fn ends_well(mut self) {
        self.fake.be_honest();
        if self.volume.leg("far", "disk-state") == "Failed" {
            self.volume.mirrord(&["leg", "attach", "vol", "far"]).expect(0);
        }
        // Without the pause before the next attempt.
        self.volume.mirrord(&["resync", "vol", "far"]);
        self.volume.wait_synced();
        assert_eq!(self.client.outcome(0, FLUSH, 0, 0, &[]), 0);
        let peak = peak(self.volume.server().pid());
        assert!(peak <= 256 * MIB, "{} MiB", peak / MIB);
        assert!(self.fake.saw_no_garbage(), "what our client sends stays in step");
        self.volume.stop();
        assert!(bytes_of(&self.dir.path("near.img"), 0, SIZE as usize) == *self.fake.image());
    }
}

type Lie = fn(&mut Peer, &Asked) -> io::Result<()>;

fn data(at: u64, len: usize) -> Vec<u8> {
    [&at.to_be_bytes()[..], &vec![0xee; len]].concat()
}

fn hole(at: u64, len: u32) -> Vec<u8> {
    [&at.to_be_bytes()[..], &len.to_be_bytes()].concat()
}

fn error(number: u32, message_len: u16, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &message_len.to_be_bytes(), rest].concat()
}

/// Lies in answer to a READ of 64 KiB, and what somebody is told.
const READ_LIES: &[(&str, Lie, &str)] = &[
    ("c1 data", |p, a| p.chunk(1, 1, a.cookie, &data(u64::MAX, 512)), "past the end of 64 bits"),
    ("c1 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(u64::MAX, 2)), "past the end of 64 bits"),
    ("c1 before", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset - 1, 512)), "outside of the request"),
    ("c1 after", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, a.len + 1)), "outside of the request"),
    ("c11 simple", |p, a| p.simple(a.cookie, 0), "a simple reply to READ"),
    ("c12 extents", |p, a| p.chunk(1, 5, a.cookie, &[0; 12]), "an extent of length zero"),
    ("c12 more extents", |p, a| p.chunk(1, 5, a.cookie, &[1; 12]), "extents in reply to READ"),
    (
        "c13 twice",
        |p, a| {
            p.chunk(0, 1, a.cookie, &data(a.offset, 4096))?;
            p.chunk(1, 1, a.cookie, &data(a.offset + 4095, a.len as usize - 4095))
        },
        "which was sent before",
    ),
    ("c14 far away", |p, a| p.chunk(1, 0x8002, a.cookie, &error(5, 0, &[0xff; 8])), "outside of the request"),
    (
        "c14 long message",
        |p, a| p.chunk(1, 0x8001, a.cookie, &error(5, 9, b"short")),
        "longer than its chunk",
    ),
    ("c14 no error", |p, a| p.chunk(1, 0x8001, a.cookie, &error(0, 0, &[])), "reports success"),
    ("c16 another's data", |p, a| p.chunk(1, 1, a.cookie + 7, &data(a.offset, 512)), "was not made"),
    ("c17 4 GiB", |p, a| p.chunk_of(1, 1, a.cookie, u32::MAX, &[]), "4294967295 bytes"),
    ("c17 4 GiB of error", |p, a| p.chunk_of(1, 0x8001, a.cookie, u32::MAX, &[]), "4294967295 bytes"),
    ("c17 more than was asked", |p, a| p.chunk_of(1, 1, a.cookie, 33 << 20, &data(0, 0)), "34603008 bytes"),
    ("c18 empty hole", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, 0)), "a hole of length zero"),
    ("c18 empty data", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 0)), "data with 8 bytes"),
    ("c18 not the last", |p, a| p.chunk(0, 0, a.cookie, &[]), "that is not the last"),
    ("c18 no extent", |p, a| p.chunk(1, 5, a.cookie, &[0; 4]), "status with 4 bytes"),
    ("c18 unknown", |p, a| p.chunk(1, 99, a.cookie, &[]), "unknown type 99"),
    (
        "c28",
        |p, a| p.send(&[&0x6e8a_278c_u32.to_be_bytes()[..], &a.cookie.to_be_bytes(), &[0; 20]].concat()),
        "wrong magic 0x6e8a278c",
    ),
    ("c28 garbage", |p, _| p.send(&[0x55; 4096]), "wrong magic 0x55555555"),
];

#[test]
fn c1_c11_c12_c13_c14_c16_c17_c18_c28_no_lie_in_reply_to_read_is_ever_believed() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",read=prefer,retries=50");
    let offset = 65536;
    scene.client.pwrite(offset, &pattern(offset, 65536));
    assert_eq!(scene.client.outcome(0, FLUSH, 0, 0, &[]), 0);
    for (case, lie, told) in READ_LIES {
        let (before, told_before) = (scene.fake.connections(), scene.told());
        let lies = AtomicUsize::new(0);
        scene.fake.on_request(move |peer, asked| {
            if asked.command != READ || lies.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(Turn::Honest);
            }
            lie(peer, asked)?;
            peer.wait_for_the_end()?;
            Ok(Turn::Close)
        });
        assert!(scene.client.pread(offset, 65536) == pattern(offset, 65536), "{case}");
        scene.wait_told(told_before, told);
        scene.fake.be_honest();
        wait_for(case, Duration::from_secs(20), || scene.fake.connections() > before);
        scene.volume.wait_synced();
        assert!(scene.client.pread(offset, 65536) == pattern(offset, 65536), "{case}");
    }
    scene.ends_well();
}

#[test]
fn c11_a_structured_reply_that_was_not_negotiated_ends_the_connection() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, false, ",read=prefer");
    scene.client.pwrite(0, &pattern(0, 65536));
    scene.fake.on_request(|peer, asked| match asked.command {
        READ => peer.chunk(1, 1, asked.cookie, &data(asked.offset, asked.len as usize)).map(|()| Turn::Taken),
        _ => Ok(Turn::Honest),
    });
    assert!(scene.client.pread(0, 65536) == pattern(0, 65536));
    scene.wait_told(0, "which was not negotiated");
    scene.ends_well();
}

/// Errors and gaps keep the stream in step: another leg answers, and the leg gets the good data again.
#[test]
fn c13_c23_a_gap_or_any_error_number_is_answered_by_the_other_leg() {
    let lies: &[Lie] = &[
        |p, a| p.chunk(1, 0, a.cookie, &[]),
        |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, a.len as usize - 1)),
        |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset + 1, a.len - 1)),
        |p, a| p.chunk(1, 0x8001, a.cookie, &error(u32::MAX, 0, &[])),
        |p, a| p.chunk(1, 0x8001, a.cookie, &error(75, 3, b"\x1b[2")),
        |p, a| p.chunk(1, 0x8001, a.cookie, &error(95, 0, &[])),
        |p, a| p.chunk(1, 0x8002, a.cookie, &error(5, 0, &a.offset.to_be_bytes())),
        |p, a| p.chunk(1, 0xffff, a.cookie, &error(5, 0, b"from the future")),
        |p, a| p.chunk(1, 0x8001, a.cookie, &error(108, 0, &[])),
        |p, a| {
            p.chunk(0, 0x8001, a.cookie, &error(5, 0, &[]))?;
            p.chunk(1, 1, a.cookie, &data(a.offset, a.len as usize))
        },
    ];
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",read=prefer,retries=50");
    scene.client.pwrite(0, &pattern(0, 65536));
    assert_eq!(scene.client.outcome(0, FLUSH, 0, 0, &[]), 0);
    for lie in lies {
        let lies = AtomicUsize::new(0);
        scene.fake.on_request(move |peer, asked| {
            if asked.command != READ || lies.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(Turn::Honest);
            }
            lie(peer, asked).map(|()| Turn::Taken)
        });
        assert!(scene.client.pread(0, 65536) == pattern(0, 65536));
        scene.volume.wait_synced();
    }
    scene.ends_well();
}

/// Lies in answer to a WRITE, each with a volume of its own: what is unresolved is held for a while.
const WRITE_LIES: &[(&str, Lie, &str)] = &[
    ("c12 data", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 512)), "content in reply to a request"),
    ("c12 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, 512)), "content in reply to a request"),
    ("c12 extents", |p, a| p.chunk(1, 5, a.cookie, &[1; 12]), "content in reply to a request"),
    ("c14 no error", |p, a| p.chunk(1, 0x8001, a.cookie, &error(0, 0, &[])), "reports success"),
];

#[test]
fn c12_c14_no_lie_in_reply_to_write_is_ever_believed() {
    std::thread::scope(|scope| {
        for (case, lie, told) in WRITE_LIES {
            scope.spawn(move || {
                let dir = Dir::new();
                let mut scene = Scene::new(&dir, true, "");
                scene.fake.on_request(move |peer, asked| match asked.command {
                    WRITE => lie(peer, asked).map(|()| Turn::Taken),
                    _ => Ok(Turn::Honest),
                });
                scene.client.pwrite(4096, &pattern(4096, 65536));
                scene.wait_told(0, told);
                assert!(scene.client.pread(4096, 65536) == pattern(4096, 65536), "{case}");
                assert!(scene.volume.dirty("far") >= 65536, "{case}: it does not count as written");
                scene.ends_well();
            });
        }
    });
}

/// Whatever number a server gives, a write that it did not do does not count as done.
#[test]
fn c6_c23_no_error_number_of_a_write_is_success() {
    const NUMBERS: [u32; 6] = [5, 28, u32::MAX, 75, 95, 108];
    std::thread::scope(|scope| {
        for (number, structured) in NUMBERS.into_iter().flat_map(|number| [(number, false), (number, true)]) {
            scope.spawn(move || {
                let dir = Dir::new();
                let mut scene = Scene::new(&dir, true, ",retries=1");
                scene.fake.on_request(move |peer, asked| {
                    match (asked.command, structured) {
                        (WRITE, false) => peer.simple(asked.cookie, number)?,
                        (WRITE, true) => peer.chunk(1, 0x8001, asked.cookie, &error(number, 0, &[]))?,
                        _ => return Ok(Turn::Honest),
                    }
                    Ok(Turn::Taken)
                });
                scene.client.pwrite(4096, &pattern(4096, 65536));
                assert!(scene.volume.dirty("far") >= 65536, "{number}: it does not count as written");
                assert!(scene.client.pread(4096, 65536) == pattern(4096, 65536), "{number}");
                scene.ends_well();
            });
        }
    });
}

#[test]
fn c16_replies_to_nothing_are_counted_and_past_the_threshold_the_leg_is_dropped() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, "");
    let strays = AtomicU64::new(0);
    scene.fake.on_request(move |peer, asked| {
        if asked.command == WRITE {
            // Unknown ones, and repetitions of those that are complete.
            peer.simple(1 << 50, 0)?;
            peer.chunk(1, 0, u64::MAX, &[])?;
            if let before @ 1.. = strays.swap(asked.cookie, Ordering::SeqCst) {
                peer.simple(before, 0)?;
                peer.simple(before, 5)?;
            }
        }
        Ok(Turn::Honest)
    });
    scene.client.pwrite(0, &pattern(0, 4096));
    assert_eq!(scene.volume.leg("far", "stray-replies"), 2, "counted, and borne");
    assert_eq!(scene.volume.leg("far", "disk-state"), "UpToDate");
    scene.client.pwrite(0, &pattern(0, 4096));
    assert_eq!(scene.volume.leg("far", "stray-replies"), 6, "those to what is complete too");
    for i in 1..10 {
        scene.client.pwrite(i * 4096, &pattern(i * 4096, 4096));
    }
    scene.wait_told(0, "too many replies that nobody waits for");
    assert!(scene.client.pread(0, 40960) == pattern(0, 40960));
    scene.ends_well();
}

/// A server may answer before it has read the payload, and read it all the same.
#[test]
fn c16_a_reply_that_comes_before_the_payload_is_sent_leaves_the_stream_in_step() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, "");
    scene.fake.on_header(|peer, header| {
        if header.command == WRITE {
            peer.simple(header.cookie, 5)?;
        }
        Ok(())
    });
    scene.fake.on_request(|_, asked| Ok(if asked.command == WRITE { Turn::Taken } else { Turn::Honest }));
    let big = pattern(0, 4 << 20);
    scene.client.pwrite(0, &big);
    assert!(scene.client.pread(0, 4 << 20) == big);
    scene.fake.on_header(|_, _| Ok(()));
    scene.ends_well();
}

/// Every write fails for a while: no failure counts as written, no slot is lost, nobody waits for ever.
#[test]
fn c6_c29_errors_of_all_writes_at_once_neither_block_the_volume_nor_clear_a_mark() {
    let dir = Dir::new();
    let mut scene = Scene::new(&dir, true, ",retries=1");
    scene.fake.on_request(|peer, asked| match asked.command {
        WRITE => peer.simple(asked.cookie, 5).map(|()| Turn::Taken),
        _ => Ok(Turn::Honest),
    });
    let mut all = Vec::new();
    for i in 0..512u64 {
        all.extend(request(0, WRITE, i, i * 8192, 8192));
        all.extend(pattern(i * 8192, 8192));
    }
    scene.client.send(&all);
    let mut cookies: Vec<u64> = (0..512)
        .map(|_| {
            let reply = scene.client.reply(0);
            assert_eq!(reply.error, 0);
            reply.cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..512), "each is answered once");
    assert!(scene.volume.dirty("far") >= 512 * 8192);
    assert_ne!(scene.volume.leg("far", "disk-state"), "UpToDate");
    assert!(scene.client.pread(0, 4 << 20) == pattern(0, 4 << 20));
    // Then three copies in ten fail.
    let count = AtomicUsize::new(0);
    scene.fake.on_request(move |peer, asked| {
        if asked.command == WRITE && count.fetch_add(1, Ordering::SeqCst) % 10 < 3 {
            return peer.simple(asked.cookie, 28).map(|()| Turn::Taken);
        }
        Ok(Turn::Honest)
    });
    scene.volume.mirrord(&["leg", "attach", "vol", "far"]);
    std::thread::sleep(Duration::from_secs(1));
    if scene.volume.leg("far", "disk-state") == "UpToDate" {
        assert_eq!(scene.volume.dirty("far"), 0);
    }
    scene.ends_well();
}
