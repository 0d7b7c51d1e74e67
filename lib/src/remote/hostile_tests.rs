//! A far end that lies, stops, or never stops, against the near end. The other way round: `tests/fuzz/streams.rs`.

use super::message::{DeviceFacts, PING, Reply, Request};
use super::server::How;
use super::wire::{self, HELLO_LEN, Head, Hello};
use super::{Client, Pipe};
use crate::base::{ByteRange, Class, Error, Result, limits};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// No lie keeps anybody waiting so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A near end, and the other side of its connection, which has said hello.
fn near() -> (Client, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    let reader = ours.try_clone().expect("clone");
    let why = Box::new(|| None);
    let pipe = Pipe { name: "far".into(), reader: Box::new(reader), writer: Box::new(ours), why };
    theirs.write_all(&Hello::ours(false).encode()).expect("hello");
    let client = Client::start(pipe, false).expect("start");
    theirs.read_exact(&mut [0; HELLO_LEN]).expect("hello");
    theirs.set_read_timeout(Some(PATIENCE)).expect("deadline");
    (client, theirs)
}

fn frame(head: &Head, payload: &[u8]) -> Vec<u8> {
    let (head, _) = wire::encode(head, payload, false);
    [&head[..], payload].concat()
}

fn reply(reply: Reply, id: u64) -> Vec<u8> {
    let (head, payload) = reply.encode(id);
    frame(&head, &payload)
}

const RANGE: ByteRange = ByteRange { offset: 0, len: 8192 };

#[test]
fn a_far_end_that_lies_is_believed_in_nothing() {
    type Ask = fn(&Client) -> Result<()>;
    let read: Ask = |client| client.read(1, 0, &mut [0; 8192]);
    let digests: Ask = |client| client.ask_digests(1, RANGE, 4096)?.digests(2).map(drop);
    let extents: Ask = |client| client.extents(1, RANGE).map(drop);
    let flush: Ask = |client| client.done(1, Request::Flush);
    let open: Ask = |client| client.open(b"/d", How { write: true, mounted: false, live: false }).map(drop);
    let facts = |size, align| {
        let facts = DeviceFacts { size, align, ..DeviceFacts::default() };
        reply(Reply::Device { object: 1, facts }, 1)
    };
    let huge = |len: u32| {
        let mut bytes = reply(Reply::Data(vec![1; 100]), 1);
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let table: Vec<(&str, Ask, Vec<u8>, &str)> = vec![
        ("less than was read", read, reply(Reply::Data(vec![1; 8191]), 1), "fits no request"),
        ("more than was read", read, reply(Reply::Data(vec![1; 8193]), 1), "fits no request"),
        ("digests for bytes", read, reply(Reply::Digests(vec![[1; 32]; 2]), 1), "fits no request"),
        ("too few digests", digests, reply(Reply::Digests(vec![[1; 32]]), 1), "fits no request"),
        (
            "digests of blocks nobody asked for",
            digests,
            reply(Reply::Digests(vec![[1; 32]; 3]), 1),
            "fits no request",
        ),
        (
            "an answer to what comes next",
            digests,
            reply(Reply::Digests(vec![[1; 32]; 2]), 2),
            "which nobody asked",
        ),
        ("an answer to 0", flush, reply(Reply::Done, 0), "which nobody asked"),
        ("an answer to the last number", flush, reply(Reply::Done, u64::MAX), "which nobody asked"),
        ("the answer twice", flush, reply(Reply::Done, 1).repeat(2), ""),
        ("data for a flush", flush, reply(Reply::Zeroes, 1), "fits no request"),
        ("extents past the range", extents, reply(Reply::Extents(vec![(8193, true)]), 1), "fits no request"),
        ("no extents", extents, reply(Reply::Extents(Vec::new()), 1), "fits no request"),
        (
            "empty extents",
            extents,
            reply(Reply::Extents(vec![(0, true), (8192, true)]), 1),
            "fits no request",
        ),
        (
            "extents whose sum overflows",
            extents,
            reply(Reply::Extents(vec![(u64::MAX >> 1, true), (u64::MAX >> 1, false), (2, true)]), 1),
            "fits no request",
        ),
        ("a device too large", open, facts(limits::VOLUME_SIZE + 1, 1), "a device of"),
        ("a device as large as numbers are", open, facts(u64::MAX, 1), "a device of"),
        ("a device aligned to nothing", open, facts(1 << 20, 0), "aligned to 0"),
        ("a device aligned to three", open, facts(1 << 20, 3), "aligned to 3"),
        ("a device that is an answer to a read", read, facts(1 << 20, 1), "fits no request"),
        ("a frame longer than any", read, huge(limits::REMOTE_PAYLOAD + 1), "at most"),
        ("a frame as long as numbers are", read, huge(u32::MAX), "at most"),
        ("a request", read, frame(&Head { kind: 6, id: 1, ..Head::default() }, &[]), "the unknown answer 6"),
        (
            "the end in the middle",
            read,
            reply(Reply::Data(vec![1; 8192]), 1)[..100].to_vec(),
            "in the middle of",
        ),
        ("the end", flush, Vec::new(), "ended the connection"),
        ("signs of life and the end", flush, frame(&PING, &[]).repeat(100), "ended the connection"),
        ("text", flush, b"Connection to far closed by remote host.".to_vec(), "the other"),
        (
            "a bug of its own",
            flush,
            reply(Reply::Error(Error::new(Class::Internal, "x\ny\x1b[2J")), 1),
            "x y",
        ),
    ];
    for (what, ask, bytes, why) in table {
        let (client, mut far) = near();
        let talk = std::thread::spawn(move || {
            // The request, and then the lie.
            let _ = far.read(&mut [0; 4096]).expect("a request");
            far.write_all(&bytes).expect("write");
            far.shutdown(std::net::Shutdown::Write).expect("the end");
            let _ = far.read_to_end(&mut Vec::new());
        });
        let begun = Instant::now();
        match ask(&client) {
            Ok(()) => assert_eq!(why, "", "{what}"),
            Err(error) => {
                assert!(why == "the other" || error.message.contains(why), "{what}: {error}");
                assert_eq!(error.class, Class::Connect, "{what}: {error}");
                assert!(!error.message.chars().any(char::is_control), "{what}: {error}");
            }
        }
        // What was not an answer to this request ends the connection; nothing is asked of it again.
        if why.is_empty() || why.contains("nobody") {
            while client.dead().is_none() {
                assert!(begun.elapsed() < PATIENCE, "{what}: it is still asked");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(client.done(1, Request::Flush).is_err(), "{what}");
        }
        drop(client);
        talk.join().expect("far end");
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", begun.elapsed());
    }
}

/// Answers out of order each reach the request that they are for.
#[test]
fn answers_that_overtake_each_other_are_told_apart() {
    let (client, mut far) = near();
    let one = client.submit(1, Request::Read(RANGE)).expect("one");
    let two = client.submit(1, Request::Read(RANGE)).expect("two");
    far.write_all(&[reply(Reply::Data(vec![2; 8192]), 2), reply(Reply::Data(vec![1; 8192]), 1)].concat())
        .expect("write");
    let (mut first, mut second) = ([0; 8192], [0; 8192]);
    one.fill(&mut first).expect("one");
    two.fill(&mut second).expect("two");
    assert!(first == [1; 8192] && second == [2; 8192]);
    drop(far);
}

/// A far end that never stops talking is cut off by the first thing that fits nothing, not collected.
#[test]
fn an_endless_far_end_is_left() {
    let (client, mut far) = near();
    let talk = std::thread::spawn(move || {
        let lie = reply(Reply::Data(vec![7; 1 << 20]), 99);
        let mut sent = 0u64;
        while far.write_all(&lie).is_ok() {
            sent += lie.len() as u64;
            assert!(sent < 1 << 30, "it is still listened to");
        }
    });
    let error = client.done(1, Request::Flush).expect_err("a lie");
    assert!(error.message.contains("which nobody asked"), "{error}");
    drop(client);
    talk.join().expect("far end");
}

/// A hello that never comes to its end, or is something else for ever.
#[test]
fn a_hello_that_is_none_is_told_and_bounded() {
    for (said, why) in [
        (b"Welcome to far!\nLast login: never\n".to_vec(), "'Welcome to far!'"),
        (vec![b'x'; 1 << 20], "where a hello was expected"),
        (vec![0; 1 << 20], "where a hello was expected"),
        (wire::MAGIC[..5].to_vec(), "where a hello was expected"),
        ([&wire::MAGIC[..], &[0; 16]].concat(), "a hello of versions 0 to 0"),
        ([&wire::MAGIC[..], &[255; 16]].concat(), "it speaks versions 65535 to 65535"),
        (Vec::new(), "ended before it said anything"),
    ] {
        let reader = std::io::Cursor::new(said);
        let why_not = Box::new(|| None);
        let pipe =
            Pipe { name: "far".into(), reader: Box::new(reader), writer: Box::new(Vec::new()), why: why_not };
        let error = Client::start(pipe, false).map(drop).expect_err(why);
        assert_eq!(error.class, Class::Connect);
        assert!(error.message.contains(why) && error.message.len() < 4096, "{why}: {error}");
        assert!(!error.message.chars().any(char::is_control), "{error:?}");
    }
}
