//! Replies that cannot be, that leave something out, or that say no.

use super::{AT, Asks, LEN, PATIENCE, Peer, bytes, data, each, error, extents, hole};
use crate::nbd::wire::{Command, Request};
use std::io;
use std::time::Duration;

type Lie = fn(&mut Peer, &Request) -> io::Result<()>;

/// One lie after one honest answer. Lies that break the protocol end the connection, others only the request.
fn told(case: &str, command: Command, breaks: bool, lie: Lie, told: &'static str) {
    let ask = move |client: &mut dyn Asks| match command {
        Command::Read => client.read(AT, LEN).map(|read| assert!(read == bytes(AT, LEN as usize))),
        Command::Write => client.write(AT, &bytes(AT, LEN as usize)),
        _ => client.status(AT, LEN).map(drop),
    };
    let script = move |peer: &mut Peer| {
        let honest = peer.request()?;
        peer.answer(&honest)?;
        let request = peer.request()?;
        lie(peer, &request)?;
        if breaks { peer.silent() } else { peer.honest() }
    };
    each(case, (true, Duration::from_secs(2)), script, move |case, client| {
        ask(client).expect(case);
        let error = ask(client).expect_err(case);
        assert!(error.message.contains(told), "{case}: {error}");
        assert_eq!(ask(client).is_err(), breaks, "{case}: afterwards");
    });
}

#[test]
fn c1_c11_c12_c13_c14_c16_c17_c18_c28_a_lie_in_reply_to_read_ends_the_connection_of_either_client() {
    let lies: &[(&str, Lie, &str)] = &[
        ("c1 data", |p, a| p.chunk(1, 1, a.cookie, &data(u64::MAX, 512)), "past the end of 64 bits"),
        ("c1 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(u64::MAX, 2)), "past the end of 64 bits"),
        ("c1 before", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset - 1, 512)), "outside of the request"),
        ("c1 after", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, LEN + 1)), "outside of the request"),
        ("c11 success", |p, a| p.simple(a.cookie, 0), "a simple reply to READ"),
        ("c11 error", |p, a| p.simple(a.cookie, 5), "a simple reply to READ"),
        ("c12", |p, a| p.chunk(1, 5, a.cookie, &[1; 12]), "extents in reply to READ"),
        (
            "c13 twice",
            |p, a| {
                p.chunk(0, 1, a.cookie, &data(a.offset, 1024))?;
                p.chunk(1, 1, a.cookie, &data(a.offset + 1023, LEN as usize - 1023))
            },
            "which was sent before",
        ),
        (
            "c14 where",
            |p, a| p.chunk(1, 0x8002, a.cookie, &error(5, 0, &[0xff; 8])),
            "outside of the request",
        ),
        ("c14 message", |p, a| p.chunk(1, 0x8001, a.cookie, &error(5, 9, b"short")), "longer than its chunk"),
        ("c14 success", |p, a| p.chunk(1, 0x8001, a.cookie, &error(0, 0, &[])), "reports success"),
        ("c16 unknown", |p, a| p.chunk(1, 1, 1 << 40, &data(a.offset, LEN as usize)), "not in flight"),
        ("c16 completed", |p, a| p.chunk(1, 1, p.before, &data(a.offset, LEN as usize)), "not in flight"),
        ("c17 data", |p, a| p.chunk_of(1, 1, a.cookie, u32::MAX, &[]), "4294967295 bytes"),
        ("c17 33 MiB", |p, a| p.chunk_of(1, 1, a.cookie, 33 << 20, &data(0, 0)), "34603008 bytes"),
        ("c17 extents", |p, a| p.chunk_of(1, 5, a.cookie, 0xffff_fffc, &[]), "4294967292 bytes"),
        ("c17 error", |p, a| p.chunk_of(1, 0x8001, a.cookie, u32::MAX, &[]), "4294967295 bytes"),
        ("c18 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, 0)), "a hole of length zero"),
        ("c18 data", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 0)), "data with 8 bytes"),
        ("c18 not the last", |p, a| p.chunk(0, 0, a.cookie, &[]), "that is not the last"),
        ("c18 unknown", |p, a| p.chunk(1, 99, a.cookie, &[]), "unknown type 99"),
        (
            "c28",
            |p, _| p.send(&[&0x6e8a_278c_u32.to_be_bytes()[..], &[0; 28]].concat()),
            "wrong magic 0x6e8a278c",
        ),
    ];
    for (case, lie, what) in lies {
        told(case, Command::Read, true, *lie, what);
    }
}

#[test]
fn c13_c23_a_gap_or_any_error_number_fails_the_read_of_either_client_and_only_that() {
    let lies: &[(&str, Lie, &str)] = &[
        ("nothing", |p, a| p.chunk(1, 0, a.cookie, &[]), "input/output error"),
        ("half", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 1024)), "input/output error"),
        ("all but one", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset + 1, LEN - 1)), "input/output error"),
        ("0xffffffff", |p, a| p.chunk(1, 0x8001, a.cookie, &error(u32::MAX, 0, &[])), "invalid request"),
        ("75", |p, a| p.chunk(1, 0x8001, a.cookie, &error(75, 0, &[])), "too large"),
        ("95", |p, a| p.chunk(1, 0x8001, a.cookie, &error(95, 0, &[])), "not supported"),
        ("108", |p, a| p.chunk(1, 0x8001, a.cookie, &error(108, 0, &[])), "shutting down"),
        (
            "all of it behind an error",
            |p, a| {
                p.chunk(0, 0x8001, a.cookie, &error(5, 0, &[]))?;
                p.chunk(1, 1, a.cookie, &data(a.offset, LEN as usize))
            },
            "input/output error",
        ),
    ];
    for (case, lie, what) in lies {
        told(case, Command::Read, false, *lie, what);
    }
    // And where replies have no structure.
    for (number, what) in [(u32::MAX, "invalid"), (75, "too large"), (95, "not supported"), (108, "shutting")]
    {
        let script = move |peer: &mut Peer| {
            let request = peer.request()?;
            peer.simple(request.cookie, number)?;
            peer.honest()
        };
        each("without structure", (false, PATIENCE), script, move |case, client| {
            let error = client.read(AT, LEN).expect_err(case);
            assert!(error.message.contains(what), "{case}: {error}");
            assert!(client.read(AT, LEN).expect(case) == bytes(AT, LEN as usize));
        });
    }
}

#[test]
fn c11_a_structured_reply_that_was_not_negotiated_ends_the_connection_of_either_client() {
    let script = |peer: &mut Peer| {
        let request = peer.request()?;
        peer.chunk(1, 1, request.cookie, &data(AT, LEN as usize))?;
        peer.silent()
    };
    each("c11", (false, PATIENCE), script, |case, client| {
        let error = client.read(AT, LEN).expect_err(case);
        assert!(error.message.contains("not negotiated"), "{case}: {error}");
        assert!(client.write(AT, &[1]).is_err(), "{case}");
    });
}

#[test]
fn c12_c14_c16_c23_a_lie_in_reply_to_write_is_never_success() {
    let breaking: &[(&str, Lie, &str)] = &[
        ("c12 data", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 512)), "content in reply"),
        ("c12 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, 512)), "content in reply"),
        ("c12 extents", |p, a| p.chunk(1, 5, a.cookie, &[1; 12]), "content in reply"),
        ("c14 no error", |p, a| p.chunk(1, 0x8001, a.cookie, &error(0, 0, &[])), "reports success"),
        ("c16 unknown", |p, _| p.simple(1 << 40, 0), "not in flight"),
        ("c16 completed", |p, _| p.simple(p.before, 0), "not in flight"),
        ("c16 completed, a chunk", |p, _| p.chunk(1, 0, p.before, &[]), "not in flight"),
    ];
    for (case, lie, what) in breaking {
        told(case, Command::Write, true, *lie, what);
    }
    let failing: &[(&str, Lie, &str)] = &[
        ("c6", |p, a| p.simple(a.cookie, 5), "input/output error"),
        ("c23 0xffffffff", |p, a| p.simple(a.cookie, u32::MAX), "invalid request"),
        ("c23 75", |p, a| p.simple(a.cookie, 75), "too large"),
        ("c23 95", |p, a| p.simple(a.cookie, 95), "not supported"),
        ("c23 108", |p, a| p.simple(a.cookie, 108), "shutting down"),
        ("c23 0xffffffff, a chunk", |p, a| p.chunk(1, 0x8001, a.cookie, &error(u32::MAX, 0, &[])), "invalid"),
        (
            "an error before the end",
            |p, a| {
                p.chunk(0, 0x8001, a.cookie, &error(28, 0, &[]))?;
                p.chunk(1, 0, a.cookie, &[])
            },
            "no space left",
        ),
    ];
    for (case, lie, what) in failing {
        told(case, Command::Write, false, *lie, what);
    }
}

#[test]
fn c9_c12_c18_a_lie_about_extents_is_found_by_either_client() {
    let breaking: &[(&str, Lie, &str)] = &[
        ("c9 past", |p, a| p.chunk(1, 5, a.cookie, &extents(1, &[(LEN, 0), (512, 3)])), "past the end"),
        ("c9 context", |p, a| p.chunk(1, 5, a.cookie, &extents(99, &[(LEN, 0)])), "extents of context 99"),
        (
            "c9 without an end",
            |p, a| (0..100).try_for_each(|_| p.chunk(0, 5, a.cookie, &extents(1, &[(512, 3), (512, 0)]))),
            "extents of context 1",
        ),
        (
            "c9 the other without an end",
            |p, a| (0..100).try_for_each(|_| p.chunk(0, 5, a.cookie, &extents(2, &[(512, 3)]))),
            "extents of context 2",
        ),
        ("c12 data", |p, a| p.chunk(1, 1, a.cookie, &data(a.offset, 512)), "no extents in reply"),
        ("c12 hole", |p, a| p.chunk(1, 2, a.cookie, &hole(a.offset, 512)), "no extents in reply"),
        ("c12 success", |p, a| p.simple(a.cookie, 0), "no extents in reply"),
        ("c18 zero", |p, a| p.chunk(1, 5, a.cookie, &extents(1, &[(512, 3), (0, 0)])), "length zero"),
        ("c18 none", |p, a| p.chunk(1, 5, a.cookie, &extents(1, &[])), "status with 4 bytes"),
        ("c18 half", |p, a| p.chunk(1, 5, a.cookie, &[0; 14]), "status with 14 bytes"),
    ];
    for (case, lie, what) in breaking {
        told(case, Command::BlockStatus, true, *lie, what);
    }
    let failing: &[(&str, Lie, &str)] = &[
        ("c9 nothing", |p, a| p.chunk(1, 0, a.cookie, &[]), "input/output error"),
        ("c9 only the other", |p, a| p.chunk(1, 5, a.cookie, &extents(2, &[(512, 3)])), "input/output error"),
        ("an error", |p, a| p.simple(a.cookie, 22), "invalid request"),
    ];
    for (case, lie, what) in failing {
        told(case, Command::BlockStatus, false, *lie, what);
    }
    // The last one may run past the request, and is cut.
    let script = |peer: &mut Peer| {
        let request = peer.request()?;
        peer.chunk(0, 5, request.cookie, &extents(2, &[(u32::MAX, 1)]))?;
        peer.chunk(1, 5, request.cookie, &extents(1, &[(512, 3), (u32::MAX, 0)]))?;
        peer.honest()
    };
    each("c9 cut", (true, PATIENCE), script, |case, client| {
        assert_eq!(client.status(AT, LEN).expect(case), [(512, 3), (LEN - 512, 0)], "{case}");
    });
}
