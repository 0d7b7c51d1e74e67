//! S-cases: handshakes that break off, connections that end, signals that come meanwhile.

use super::fake::{Fake, Turn};
use super::raw::{
    ACK, At, GO, INFO, LIST, MIB, Place, READ, Raw, SET_META, STRUCTURED, contexts, export, handshake,
    memory, option, pattern, wait_clients,
};
use crate::support::{Dir, need, run, wait_for};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 16 * MIB;

/// CVE-2022-26495: a length that wraps when one is added to it.
#[test]
fn s1_a_name_of_almost_4_gib_takes_no_memory_whether_it_closes_or_is_refused() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let before = memory(place.pid, "VmPeak:");
    let name = [&[0xff; 4][..], b"vol\0\0"].concat();
    for at in place.both() {
        for number in [1, INFO, GO] {
            // As long as its option says; nothing of it is read.
            let mut raw = Raw::greeted(&at);
            let mut head = option(number, &[]);
            head[12..].fill(0xff);
            raw.send(&head);
            raw.try_send(&name);
            assert_eq!(raw.closed(), [0; 0], "option {number}");
        }
        for number in [INFO, GO] {
            for data in [&name[..], &name[..4], &name[..6]] {
                let mut raw = Raw::greeted(&at);
                assert_eq!(raw.option(number, data), 1 << 31 | 3, "option {number}");
                assert_eq!(raw.option(GO, &export("vol")), ACK, "and the stream is in step");
            }
        }
        let mut raw = Raw::greeted(&at);
        raw.send(&option(1, &[b'v'; 4097]));
        assert_eq!(raw.closed(), [0; 0]);
    }
    let more = memory(place.pid, "VmPeak:") - before;
    assert!(more < 1 << 30, "{more} bytes were asked for");
    place.ends_well();
}

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
            assert_eq!(raw.closed(), [0; 0], "option {number}");
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
    let options: Vec<usize> = (0..whole.len()).filter(|at| whole[*at..].starts_with(b"IHAVEOPT")).collect();
    for at in place.both() {
        for end in 0..=whole.len() {
            Raw::connect(&at).send(&whole[..end]);
            let mut raw = Raw::connect(&at);
            raw.try_send(&whole[..end]);
            raw.try_send(&[0xff; 64]);
            // Unknown flags, no option, and one of 4 GiB; elsewhere it may be the data of one.
            if end < 4 || options.iter().any(|head| (*head..head + 12).contains(&end)) {
                raw.closed();
            }
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
            assert_eq!(raw.closed(), [0; 0], "{name}: EXPORT_NAME can only be refused by closing");
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

/// What a process has read from files so far, in bytes, and for how long it has computed, in clock ticks (proc(5)).
fn effort(pid: u32) -> (u64, u64) {
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect(name);
    let io = of("io");
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("rchar");
    let stat = of("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    (read.parse().expect("number"), ticks(11) + ticks(12))
}

/// CVE-2019-14850: whoever only connects, or does not open the export, must not cost more than that.
#[test]
fn s9_a_client_that_only_knocks_makes_the_daemon_do_nothing() {
    let dir = Dir::new();
    let fake = Fake::start(&dir, SIZE);
    let near = dir.image("near.img", SIZE);
    let legs = [format!("near={}", near.display()), fake.leg("")];
    let mut place = Place::of(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    place.is_fine();
    wait_clients(&place.volume, 0);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    fake.on_request(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Turn::Honest)
    });
    let opened =
        inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("inotify");
    inotify::add_watch(&opened, &near, inotify::WatchFlags::OPEN).expect("watch");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", place.pid)).expect("fd").count();
    let (open, connected, (read, ticks)) = (files(), fake.connections(), effort(place.pid));
    for _ in 0..200 {
        place.both().iter().for_each(|at| drop(Raw::connect(at)));
    }
    for at in place.both() {
        Raw::greeted(&at).option(LIST, &[]);
    }
    wait_clients(&place.volume, 0);
    assert!(files() <= open, "no descriptor is left open");
    let (read_then, ticks_then) = effort(place.pid);
    assert!(read_then - read < 64 << 10, "{} bytes were read", read_then - read);
    // A second: four hundred connections take some hundredths of it.
    assert!(ticks_then - ticks < 100, "{} clock ticks", ticks_then - ticks);
    let event = rustix::io::read(&opened, &mut [0; 4096]);
    assert_eq!(event, Err(rustix::io::Errno::AGAIN), "the near leg was opened");
    assert_eq!((fake.connections(), asked.load(Ordering::SeqCst)), (connected, 0), "the far leg was asked");
    place.volume.stop();
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

/// nbdkit 9d82aa4f: whoever was about to answer met a closed connection, and the server with it.
#[test]
fn s15_a_client_that_leaves_after_the_first_of_64_reads_takes_nobody_along() {
    let dir = Dir::new();
    let size = 128 * MIB;
    let place = Place::new(&dir, size);
    // Those of 1 MiB are done by workers, and come back when nobody waits for them.
    for len in [4096, 256 << 10, 1 << 20] {
        for at in place.both().iter().cycle().take(6) {
            let mut raw = Raw::simple(at);
            for i in 0..64 {
                raw.ask_for(0, READ, i * 65536, len);
            }
            raw.reply(len as usize);
            drop(raw);
            // Who comes next has the same place, and not the replies.
            let mut next = Raw::simple(at);
            next.pwrite(64 * MIB, &pattern(u64::from(len), 4096));
            (0..20).for_each(|_| assert_eq!(next.pread(64 * MIB, 4096), pattern(u64::from(len), 4096)));
        }
    }
    wait_clients(&place.volume, 1);
    wait_for("nothing in flight", Duration::from_secs(10), || place.volume.status()["pending"] == 0);
    // What they had been charged is there again.
    let mut raw = Raw::simple(&place.unix);
    for i in 0..2 {
        raw.ask_for(0, READ, i << 25, 32 << 20);
    }
    (0..2).for_each(|_| assert_eq!(raw.reply(32 << 20).error, 0));
    place.ends_well();
}

/// Connections that are closed at once, all the time, by threads that end with this value, however that comes; they are
/// not waited for, since whoever connects to a daemon that hangs waits too.
struct Knocking(Arc<AtomicBool>);

impl Knocking {
    fn start(at: [At; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for at in at {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = match &at {
                        At::Unix(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
                        At::Tcp(address) => std::net::TcpStream::connect(address).is_ok(),
                    };
                }
            });
        }
        Self(over)
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a signal; the process may be gone already.
fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).expect("pid"), signal);
}

/// CVE-2015-0847: a signal that came while another one was being handled locked the server up.
#[test]
fn s16_a_storm_of_hangups_during_connects_is_survived_and_the_last_one_counts() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    let knocking = Knocking::start(place.both());
    let start = Instant::now();
    for i in 0.. {
        signal(place.pid, Signal::HUP);
        if i % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
            if start.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
    }
    drop(knocking);
    place.is_fine();
    let file = dir.path("volume.toml");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, format!("{text}read-policy = 'round-robin'\n")).expect("configuration");
    signal(place.pid, Signal::HUP);
    wait_for("the new configuration", Duration::from_secs(20), || {
        place.volume.server().log().contains("read-policy")
    });
    // All were taken: nothing is done any more.
    wait_clients(&place.volume, 0);
    let (_, before) = effort(place.pid);
    std::thread::sleep(Duration::from_secs(2));
    let (_, after) = effort(place.pid);
    assert!(after - before < 15, "{} clock ticks in two seconds without a client", after - before);
    place.volume.stop();
}

#[test]
fn s16_a_storm_of_signals_during_connects_ends_the_daemon_cleanly_and_never_hangs_it() {
    let dir = Dir::new();
    let mut place = Place::new(&dir, SIZE);
    place.is_fine();
    // A configuration that takes a while to read: the signal that ends it comes during that.
    let file = dir.path("volume.toml");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, text + &"# a line that says nothing at all\n".repeat(60_000))
        .expect("configuration");
    // It comes first, in the middle of others, and more than once.
    for storm in [
        &[Signal::TERM, Signal::HUP, Signal::HUP][..],
        &[Signal::HUP, Signal::HUP, Signal::TERM, Signal::HUP],
        &[Signal::HUP, Signal::TERM],
        &[Signal::HUP, Signal::INT],
        &[Signal::HUP, Signal::TERM, Signal::HUP, Signal::INT, Signal::TERM, Signal::TERM, Signal::HUP],
    ] {
        let pid = place.volume.server().pid();
        let knocking = Knocking::start(place.both());
        std::thread::sleep(Duration::from_millis(200));
        for sent in storm {
            // Each several times, for some of which nobody has had the time to look.
            (0..20).filter(|_| *sent == Signal::HUP).for_each(|_| signal(pid, Signal::HUP));
            signal(pid, *sent);
            // Of two that are pending the later one is handled first (signal(7) promises nothing).
            std::thread::sleep(Duration::from_millis(2));
        }
        wait_for("its end", Duration::from_secs(20), || !place.volume.server().is_running());
        drop(knocking);
        assert_eq!(place.volume.server().code(), Some(0), "{}", place.volume.server().log());
        // Nothing is marked after a clean stop.
        place.volume.serve_config(&file);
        place.volume.wait_synced();
    }
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
        assert!(raw.closed().len() < 5000 * 20 + 5000 * 40, "it is cut off");
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
        assert_eq!(raw.closed(), [0; 0]);
        Raw::greeted(&at).send(&option(2, &[]));
        let mut raw = Raw::greeted(&at);
        raw.send(&option(LIST, &[]).repeat(1000));
        raw.option_reply();
    }
    wait_clients(&place.volume, 1);
    place.ends_well();
}
