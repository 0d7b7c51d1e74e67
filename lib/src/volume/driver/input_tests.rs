use super::*;
use crate::nbd::TransmissionFlags;
use crate::nbd::server::ExportInfo;
use proptest::prelude::{any, proptest};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

fn session() -> Session {
    Session {
        extended: false,
        export: "v".to_owned(),
        info: ExportInfo {
            size: 1 << 40,
            flags: TransmissionFlags::HAS_FLAGS,
            description: String::new(),
            min_block: 1,
            preferred_block: 4096,
            max_block: 32 << 20,
        },
        structured: false,
        contexts: Vec::new(),
        enforce_block: false,
    }
}

fn request(command: Command, cookie: u64, offset: u64, length: u32) -> Request {
    Request { flags: CommandFlags::NONE, command, cookie, offset, length: length.into() }
}

fn fill(cookie: u64, len: u32) -> Vec<u8> {
    (0..len).map(|i| (u64::from(i / 7) ^ cookie) as u8).collect()
}

/// Sends `bytes` in pieces and collects what comes out.
fn run(bytes: &[u8], pieces: &[usize]) -> Vec<(Request, Option<Vec<u8>>, bool)> {
    run_in(&session(), bytes, pieces)
}

fn run_in(session: &Session, bytes: &[u8], pieces: &[usize]) -> Vec<(Request, Option<Vec<u8>>, bool)> {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("nonblocking");
    theirs.set_nonblocking(true).expect("nonblocking");
    let mut input = Input::new(&Pool::new());
    let (mut got, mut held) = (Vec::new(), Vec::new());
    let (mut rest, mut turn) = (bytes, 0);
    loop {
        if !rest.is_empty() {
            let n = pieces[turn % pieces.len()].min(rest.len());
            let sent = theirs.write(&rest[..n]).unwrap_or(0);
            rest = &rest[sent..];
            turn += 1;
        }
        let received = input.receive(ours.as_fd());
        while let Some(incoming) = input.next(session, |_| true) {
            match incoming {
                Incoming::Request(r, data) => {
                    got.push((r, data.as_ref().map(|d| d.bytes().to_vec()), true));
                    held.extend(data);
                }
                Incoming::Refused(r, _) => got.push((r, None, false)),
                Incoming::Garbage | Incoming::NoRoom => panic!("garbage"),
            }
        }
        assert!(input.is_hungry());
        if rest.is_empty() && received == Received::Blocked {
            for (kept, seen) in held.iter().zip(got.iter().filter_map(|g| g.1.as_ref())) {
                assert_eq!(kept.bytes(), seen, "a buffer was used again too early");
            }
            return got;
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
    #[test]
    fn requests_do_not_depend_on_how_the_bytes_arrive(
        plan in proptest::collection::vec((0u8..4, proptest::prop_oneof![0u32..100, 4000u32..5000, 65000u32..70000, Just(300_000u32)], any::<bool>()), 1..12),
        pieces in proptest::collection::vec(proptest::prop_oneof![1usize..60, 4000usize..9000, 100_000usize..150_000], 1..6),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (cookie, (kind, len, legal)) in plan.into_iter().enumerate() {
            let cookie = cookie as u64;
            let offset = if legal { 512 } else { u64::MAX - 3 };
            let command = if kind == 0 { Command::Read } else { Command::Write };
            let r = request(command, cookie, offset, len);
            bytes.extend(r.encode());
            let data = (command == Command::Write).then(|| fill(cookie, len));
            bytes.extend(data.iter().flatten());
            expected.push((r, data.filter(|d| legal && !d.is_empty()), legal));
        }
        proptest::prop_assert_eq!(run(&bytes, &pieces), expected);
    }
}

use proptest::prelude::Just;

#[test]
fn s19_the_payload_of_a_refused_write_is_never_executed() {
    let mut bytes = request(Command::Write, 1, u64::MAX - 5, 56).encode().to_vec();
    bytes.extend(request(Command::Write, 2, 0, 0).encode());
    bytes.extend(request(Command::Disc, 3, 0, 0).encode());
    bytes.extend(request(Command::Read, 4, 0, 512).encode());
    let got = run(&bytes, &[9]);
    assert_eq!(got.iter().map(|g| (g.0.cookie, g.2)).collect::<Vec<_>>(), [(1, false), (4, true)]);
}

#[test]
fn s31_the_payload_of_a_write_to_a_read_only_export_is_drained() {
    let mut session = session();
    session.info.flags = session.info.flags.with(TransmissionFlags::READ_ONLY);
    for len in [28, 56, 70_000, 33 << 20] {
        let mut bytes = request(Command::Write, 1, 0, len).encode().to_vec();
        let inner = request(Command::Read, 2, 0, 512).encode();
        bytes.extend(inner.iter().cycle().take(len as usize));
        bytes.extend(request(Command::Trim, 3, 0, 4096).encode());
        bytes.extend(request(Command::WriteZeroes, 4, 0, 4096).encode());
        bytes.extend(request(Command::Read, 5, 0, 512).encode());
        let got = run_in(&session, &bytes, &[9, 200_000]);
        let seen: Vec<_> = got.iter().map(|g| (g.0.cookie, g.2)).collect();
        assert_eq!(seen, [(1, false), (3, false), (4, false), (5, true)], "{len}");
    }
}

#[test]
fn s27_a_wrong_magic_and_a_payload_too_large_to_drain_end_the_connection() {
    for bytes in [[0xee; 28], request(Command::Write, 1, 0, 200 << 20).encode()] {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        theirs.write_all(&bytes).expect("send");
        let mut input = Input::new(&Pool::new());
        assert_eq!(input.receive(ours.as_fd()), Received::Some);
        assert!(matches!(input.next(&session(), |_| true), Some(Incoming::Garbage)));
        drop(theirs);
        assert_eq!(input.receive(ours.as_fd()), Received::End);
    }
}

#[test]
fn s28_a_small_write_keeps_its_receive_buffer_alive_only_while_there_is_plenty() {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    let mut held: Vec<_> = (0..=limits::POOL_CROWDED >> 25).map(|_| pool.take(32 << 20)).collect();
    for crowded in [true, false] {
        if !crowded {
            held.clear();
        }
        theirs.write_all(&request(Command::Write, 1, 0, 100).encode()).expect("send");
        theirs.write_all(&fill(1, 100)).expect("send");
        assert_eq!(input.receive(ours.as_fd()), Received::Some);
        let Some(Incoming::Request(_, Some(data))) = input.next(&session(), |_| true) else {
            panic!("a write");
        };
        assert_eq!(data.bytes(), fill(1, 100));
        let chunk = input.chunk.as_mut().expect("received");
        assert_eq!(Chunk::alone(chunk).is_some(), crowded);
    }
}

#[test]
fn s28_a_payload_takes_no_memory_before_there_is_room_for_it() {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    let data = vec![7; 4096];
    theirs.write_all(&request(Command::Write, 1, 0, 32 << 20).encode()).expect("send");
    theirs.write_all(&data).expect("send");
    let mut input = Input::new(&Pool::new());
    assert_eq!(input.receive(ours.as_fd()), Received::Some);
    for _ in 0..2 {
        let incoming = input.next(&session(), |cost| {
            assert_eq!(cost, 32 << 20);
            false
        });
        assert!(matches!(incoming, Some(Incoming::NoRoom)) && !input.is_filling());
    }
    assert!(input.next(&session(), |_| true).is_none() && input.is_filling());
    assert!(input.next(&session(), |_| panic!("asked twice")).is_none());
}
