//! S-cases: requests that no honest client sends, one by one, and the exact reply to each.

use super::raw::{
    ACK, At, CACHE, DISC, EINVAL, EIO, ENOSPC, FLUSH, GO, MIB, Place, READ, Raw, SET_META, STATUS,
    STRUCTURED, TRIM, WRITE, ZEROES, contexts, export, number, pattern, request,
};
use crate::support::{Dir, need, run};

const SIZE: u64 = 64 * MIB;
const COMMANDS: [u16; 6] = [READ, WRITE, FLUSH, TRIM, CACHE, ZEROES];

#[test]
fn s13_s14_the_longest_block_status_neither_wraps_nor_runs_past_the_request() {
    let dir = Dir::new();
    let size = 10 << 30;
    let place = Place::new(&dir, size);
    for at in place.both() {
        let mut raw = Raw::structured(&at, &["base:allocation"]);
        for (offset, len) in [(0, u32::MAX), (0, 0xffff_fe00), (512, 0xffff_fe00), (size - 512, 512)] {
            for flags in [0, 8] {
                let extents = raw.extents(flags, offset, len);
                let total: u64 = extents.iter().map(|(len, _)| len).sum();
                assert!(total > 0 && total <= u64::from(len), "{extents:?}");
                assert!(extents.iter().all(|(len, _)| *len > 0), "{extents:?}");
                assert!(flags == 0 || extents.len() == 1);
            }
        }
        assert_eq!(raw.outcome(0, STATUS, size - 512, 0xffff_fe00, &[]), EINVAL);
        assert_eq!(raw.pread(size - 512, 512), [0; 512]);
    }
    place.ends_well();
}

#[test]
fn s18_an_oversize_write_is_drained_and_refused_and_a_huge_one_closes() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        let payload = vec![0xee; 33 << 20];
        assert_eq!(raw.outcome(0, WRITE, 0, 33 << 20, &payload), EINVAL);
        assert_eq!(raw.pread(0, 4096), [0; 4096], "nothing was written, and the stream is in step");
        for len in [129 << 20, u32::MAX] {
            let mut raw = Raw::simple(&at);
            raw.send(&request(0, WRITE, 1, 0, len));
            raw.try_send(&payload[..1 << 20]);
            assert_eq!(raw.end(), [0; 0], "{len} bytes announced");
        }
        // What has no payload may be that long: it is merely refused, or past the end.
        assert_eq!(raw.outcome(0, READ, 0, u32::MAX, &[]), EINVAL);
        assert_eq!(raw.outcome(0, ZEROES, 0, u32::MAX, &[]), ENOSPC);
        assert_eq!(raw.outcome(0, TRIM, 0, u32::MAX, &[]), EINVAL);
    }
    place.ends_well();
}

#[test]
fn s19_requests_inside_the_payload_of_a_refused_write_are_never_executed() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let mut inner = request(0, WRITE, 99, 8 * MIB, 4096);
    inner.extend([0xbb; 4096]);
    inner.resize(65536, 0);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        for (flags, offset) in [(0, SIZE), (0, SIZE - 65535), (0, u64::MAX), (1 << 5, 0)] {
            let error = if flags == 0 { ENOSPC } else { EINVAL };
            assert_eq!(raw.outcome(flags, WRITE, offset, inner.len() as u32, &inner), error);
        }
        // Commands without payload do not take the next request for one.
        assert_eq!(raw.outcome(0, READ, SIZE, 65536, &[]), EINVAL);
        assert_eq!(raw.pread(8 * MIB, 4096), [0; 4096]);
    }
    place.ends_well();
}

#[test]
fn s20_offsets_that_wrap_are_past_the_end() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let payload = [7; 1024];
    for at in place.both() {
        let mut raw = Raw::structured(&at, &["base:allocation"]);
        for offset in [1 << 63, u64::MAX - 511, u64::MAX, SIZE - 1023, SIZE] {
            for (command, error) in
                [(READ, EINVAL), (WRITE, ENOSPC), (TRIM, EINVAL), (CACHE, EINVAL), (ZEROES, ENOSPC)]
            {
                let payload: &[u8] = if command == WRITE { &payload } else { &[] };
                assert_eq!(raw.outcome(0, command, offset, 1024, payload), error, "{command} at {offset}");
            }
            assert_eq!(raw.outcome(0, STATUS, offset, 1024, &[]), EINVAL);
        }
        assert_eq!(raw.pread(SIZE - 1024, 1024), [0; 1024]);
    }
    place.ends_well();
}

#[test]
fn s21_every_command_of_length_zero_has_exactly_one_reply() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        for structured in [false, true] {
            let mut raw =
                if structured { Raw::structured(&at, &["base:allocation"]) } else { Raw::simple(&at) };
            for offset in [0, 4096, SIZE] {
                for command in COMMANDS {
                    assert_eq!(raw.outcome(0, command, offset, 0, &[]), 0, "{command} at {offset}");
                }
                assert_eq!(raw.outcome(0, STATUS, offset, 0, &[]), EINVAL);
                // Without data where chunks have at least a byte of it.
                raw.ask_for(0, READ, offset, 0);
                let reply = raw.reply(0);
                assert_eq!((reply.kind, reply.body), (structured.then_some(0), vec![]));
            }
            assert_eq!(raw.pread(0, 512), [0; 512]);
        }
    }
    place.ends_well();
}

#[test]
fn s22_unknown_commands_and_flags_are_einval_and_the_next_request_is_served() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        let legal = |command, bit| bit == 0 || command == ZEROES && (bit == 1 || bit == 4);
        for command in COMMANDS {
            for bit in (0..16).filter(|bit| !legal(command, *bit)) {
                let payload: &[u8] = if command == WRITE { &[1; 512] } else { &[] };
                assert_eq!(raw.outcome(1 << bit, command, 0, 512, payload), EINVAL, "{command} {bit}");
            }
        }
        for command in [8, 9, 99, 0x7fff, u16::MAX] {
            assert_eq!(raw.outcome(0, command, 0, 512, &[]), EINVAL, "{command}");
        }
        assert_eq!(raw.outcome(0, STATUS, 0, 512, &[]), EINVAL, "no structured replies were agreed on");
        assert_eq!(raw.pread(0, 512), [0; 512], "no refused write was done");
        let mut raw = Raw::structured(&at, &[]);
        assert_eq!(raw.outcome(0, STATUS, 0, 512, &[]), EINVAL, "no context was agreed on");
        raw.ask_for(4, READ, 0, 65536);
        assert_eq!(raw.reply(0).body.len(), 8 + 65536, "DF is obeyed");
    }
    place.ends_well();
}

#[test]
fn s23_a_second_empty_selection_and_one_for_another_export_leave_no_context() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        for second in [contexts("vol", &[]), contexts("", &["base:allocation"]), contexts("vol", &["x:y"])] {
            let mut raw = Raw::greeted(&at);
            assert_eq!(raw.option(STRUCTURED, &[]), ACK);
            assert_eq!(raw.option(SET_META, &contexts("vol", &["base:allocation"])), ACK);
            assert_eq!(raw.option(SET_META, &second), ACK);
            assert_eq!(raw.option(GO, &export("vol")), ACK);
            assert_eq!(raw.outcome(0, STATUS, 0, 512, &[]), EINVAL);
            assert_eq!(raw.pread(0, 512), [0; 512]);
        }
    }
    place.ends_well();
}

#[test]
fn s24_malformed_queries_are_refused_and_a_good_one_still_works() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let many = [&contexts("vol", &[])[..7], &[0xff; 4]].concat();
    let mut beyond = contexts("vol", &["base:allocation"]);
    beyond[11] = 0xff;
    let mut raw = Raw::greeted(&place.tcp);
    assert_eq!(raw.option(STRUCTURED, &[]), ACK);
    let nul = contexts("vol", &["base:\0"]);
    for bad in [&many, &beyond, &beyond[..20].to_vec(), &vec![0xff; 3], &Vec::new(), &nul] {
        let kind = raw.option(SET_META, bad);
        assert!(matches!(kind & 0xffff, 3 | 9) && kind >> 31 == 1, "{kind:x}");
    }
    for ignored in ["no colon", "what:ever", "", "x-mirror:dirty/nobody"] {
        assert_eq!(raw.option(SET_META, &contexts("vol", &[ignored])), ACK, "{ignored:?}");
    }
    assert_eq!(raw.option(SET_META, &contexts("vol", &["base:allocation"])), ACK);
    assert_eq!(raw.option(GO, &export("vol")), ACK);
    assert!(!raw.extents(0, 0, 65536).is_empty());
    place.ends_well();
}

#[test]
fn s25_a_cookie_in_flight_three_times_is_answered_three_times() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        for len in [4096, 512 << 10] {
            let offsets = [0, 1, 2].map(|i| 8 * MIB + i * u64::from(len));
            for offset in offsets {
                raw.pwrite(offset, &pattern(offset, len));
            }
            raw.send(&offsets.map(|offset| request(0, READ, 5, offset, len)).concat());
            let replies = [0; 3].map(|_| raw.reply(len as usize));
            assert!(replies.iter().all(|reply| (reply.cookie, reply.error) == (5, 0)));
            let mut bodies = replies.map(|reply| reply.body);
            let mut asked = offsets.map(|offset| pattern(offset, len));
            bodies.sort();
            asked.sort();
            assert!(bodies == asked, "each of them once");
        }
        assert_eq!(raw.outcome(0, FLUSH, 0, 0, &[]), 0, "and not a fourth time");
    }
    place.ends_well();
}

#[test]
fn s26_what_was_asked_before_disc_is_answered_and_what_follows_is_not_done() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        let mut all = request(0, WRITE, 1, 0, 65536);
        all.extend(pattern(0, 65536));
        all.extend(request(0, READ, 2, 4 * MIB, 256 << 10));
        all.extend(request(0, FLUSH, 3, 0, 0));
        all.extend(request(0, DISC, 4, 0, 0));
        all.extend(request(0, WRITE, 5, 2 * MIB, 4096));
        all.extend([9; 4096]);
        raw.send(&all);
        let replies = raw.end();
        assert_eq!(replies.len(), 16 + 16 + (256 << 10) + 16);
        let mut other = Raw::simple(&at);
        assert_eq!(other.pread(0, 65536), pattern(0, 65536));
        assert_eq!(other.pread(2 * MIB, 4096), [0; 4096]);
    }
    place.ends_well();
}

#[test]
fn s27_a_wrong_request_magic_closes() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        for magic in [0x2560_9514u32, 0x21e4_1c71, 0x6744_6698, 0, u32::MAX] {
            let mut raw = Raw::simple(&at);
            assert_eq!(raw.pread(0, 512), [0; 512]);
            let mut bad = request(0, WRITE, 1, 0, 4096);
            bad[..4].copy_from_slice(&magic.to_be_bytes());
            bad.extend([1; 4096]);
            raw.try_send(&bad);
            assert_eq!(raw.end(), [0; 0], "{magic:x}");
        }
        assert_eq!(Raw::simple(&at).pread(0, 4096), [0; 4096]);
    }
    place.ends_well();
}

#[test]
fn s33_a_leg_that_shrank_yields_errors_or_the_other_legs_bytes_but_no_stale_ones() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let mut raw = Raw::simple(&place.unix);
    raw.pwrite(32 * MIB, &vec![0xab; 1 << 20]);
    raw.pread(32 * MIB, 1 << 20);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path("a.img")).expect("image");
    file.set_len(32 * MIB + 4096).expect("shrink");
    for structured in [false, true] {
        let mut raw = if structured { Raw::structured(&place.unix, &[]) } else { Raw::simple(&place.unix) };
        assert_eq!(raw.outcome(0, READ, 32 * MIB + 4096, 65536, &[]), EIO);
        assert_eq!(raw.outcome(0, READ, 32 * MIB, 65536, &[]), EIO);
        assert_eq!(raw.pread(32 * MIB, 4096), [0xab; 4096]);
    }
    place.ends_well();

    let dir = Dir::new();
    let legs = ["a", "b"].map(|n| format!("{n}={}", dir.image(&format!("{n}.img"), SIZE).display()));
    let place = Place::of(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let mut raw = Raw::simple(&place.unix);
    raw.pwrite(32 * MIB, &pattern(0, 1 << 20));
    let file = std::fs::OpenOptions::new().write(true).open(dir.path("a.img")).expect("image");
    file.set_len(32 * MIB + 4096).expect("shrink");
    assert_eq!(raw.pread(32 * MIB, 1 << 20), pattern(0, 1 << 20));
    place.ends_well();
}

#[test]
fn s35_flush_with_an_offset_and_disc_with_junk_are_taken() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    for at in place.both() {
        let mut raw = Raw::simple(&at);
        assert_eq!(raw.outcome(0, FLUSH, u64::MAX, u32::MAX, &[]), 0);
        assert_eq!(raw.outcome(1, FLUSH, 4096, 512, &[]), 0, "with FUA too");
        raw.send(&request(0xffff, DISC, u64::MAX, u64::MAX, u32::MAX));
        assert_eq!(raw.end(), [0; 0]);
    }
    place.ends_well();
}

#[test]
fn s37_one_extent_when_one_was_asked_for_and_totals_within_the_request() {
    let dir = Dir::new();
    let place = Place::new(&dir, SIZE);
    let mut raw = Raw::structured(&place.unix, &["base:allocation"]);
    for i in 0..16 {
        raw.pwrite(2 * MIB + i * 131_072, &vec![1; 65536]);
    }
    let asked = (4 * MIB) as u32;
    for at in place.both() {
        let mut raw = Raw::structured(&at, &["base:allocation"]);
        let all = raw.extents(0, MIB, asked);
        let total: u64 = all.iter().map(|(len, _)| len).sum();
        assert_eq!(total, u64::from(asked), "{all:?}");
        assert!(all.len() > 16, "{all:?}");
        let one = raw.extents(8, MIB, asked);
        assert_eq!(one, all[..1]);
        // Several contexts: one chunk of each, DONE on the last only.
        let mut raw = Raw::structured(&at, &["base:allocation", "x-mirror:dirty/a"]);
        let cookie = raw.ask_for(8, STATUS, MIB, asked);
        let (first, second) = (raw.reply(0), raw.reply(0));
        assert_eq!((first.cookie, first.done, first.body.len()), (cookie, false, 12));
        assert_eq!((second.cookie, second.done, second.body.len()), (cookie, true, 12));
        assert_ne!(number(&first.body[..4]), number(&second.body[..4]));
    }
    place.ends_well();
}

/// A leg wants units of 64 KiB, holes and marks are finer: extents that end inside a unit left a client no legal
/// offset to go on from.
#[test]
fn s38_a_status_that_changes_inside_a_unit_of_the_export_still_makes_progress() {
    if !need(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let unit = ["blocksize-minimum=64k", "blocksize-preferred=64k"];
    let args = ["--filter=blocksize-policy", "memory", "64M", unit[0], unit[1]];
    let _server = crate::support::nbdkit(&dir, &dir.path("far.sock"), &args);
    let near = dir.image("near.img", SIZE);
    // Data at 4 KiB of every other unit.
    for i in 0..8u64 {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).open(&near).expect("image");
        file.write_all_at(&[1; 4096], 4 * MIB + i * 131_072 + 8192).expect("data");
    }
    let legs = [
        format!("near={}", near.display()),
        format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display()),
    ];
    let mut volume = crate::support::Volume::create(
        &dir,
        SIZE,
        &[&legs[0], &legs[1]],
        &["--from", "near", "--map-block", "4K"],
    );
    volume.serve(&[]);
    volume.wait_synced();
    let at = At::Unix(volume.socket().to_owned());
    let mut raw = Raw::structured(&at, &["base:allocation"]);
    let mut offset = 4 * MIB;
    while offset < 5 * MIB {
        let extents = raw.extents(0, offset, (5 * MIB - offset) as u32);
        let total: u64 = extents.iter().map(|(len, _)| len).sum();
        assert!(total > 0 && extents.iter().all(|(len, _)| len % 65536 == 0), "{extents:?}");
        // A unit with some data is data.
        let at = extents.iter().scan(offset, |next, (len, status)| {
            *next += len;
            Some((*next - len, *next, *status))
        });
        for (first, end, status) in at {
            assert!(
                (first..end).step_by(65536).all(|unit| (unit % 131_072 == 0) == (status == 0)),
                "{extents:?}"
            );
        }
        let one = raw.extents(8, offset, (5 * MIB - offset) as u32);
        assert_eq!(one, extents[..1]);
        offset += one[0].0;
    }
    run("nbdinfo", &["--map", &volume.uri()]).expect(0);
    volume.stop();
}
