//! An honest end against one that is not.

use super::live::{Memory, pair, pipe};
use crate::base::{ByteRange, Class, Error};
use crate::remote::client::Client;
use crate::remote::message::{Reply, Request};
use crate::remote::server::serve;
use crate::remote::wire::{self, HEADER_LEN, Head, Hello};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a far end does after the first request.
type Far = Box<dyn FnOnce(&mut UnixStream, Head) + Send>;

fn send(stream: &mut UnixStream, (head, payload): (Head, Vec<u8>)) {
    let (head, _) = wire::encode(&head, &payload, false);
    // The honest end may have gone already.
    let _ = stream.write_all(&[&head[..], &payload].concat());
}

/// What the near end makes of a far end that does this after the first request.
fn near_against(far: impl FnOnce(&mut UnixStream, Head) + Send + 'static) -> Error {
    let (near, mut other) = pair();
    let far = std::thread::spawn(move || {
        other.write_all(&Hello::ours(true).encode()).expect("hello");
        other.read_exact(&mut [0; 24]).expect("hello");
        let frame = wire::read_frame(&mut other, true).expect("frame").expect("request");
        far(&mut other, frame.head);
        let _ = other.shutdown(Shutdown::Write);
    });
    let client = Client::start(pipe(near), true).expect("hello");
    let first = client.read(1, 0, &mut [0; 8]);
    // Whatever came, the connection is over, and everybody is told the reason.
    let second = client.read(1, 0, &mut [0; 8]).expect_err("over");
    far.join().expect("far");
    first.err().unwrap_or(second)
}

#[test]
fn a_far_end_that_breaks_the_rules_is_left_with_the_reason() {
    let data = |id| Reply::Data(vec![1; 8]).encode(id);
    let cases: Vec<(&str, Class, Far)> = vec![
        ("ended the connection", Class::Connect, Box::new(|_, _| {})),
        (
            "middle of a frame",
            Class::Connect,
            Box::new(move |far, head| {
                let (bytes, _) = wire::encode(&data(head.id).0, &[1; 8], false);
                far.write_all(&[&bytes[..], &[1; 3]].concat()).expect("write");
            }),
        ),
        ("middle of a frame", Class::Connect, Box::new(|far, _| far.write_all(&[0; 7]).expect("write"))),
        (
            "4294967295 bytes",
            Class::Connect,
            Box::new(|far, _| far.write_all(&[0xff; HEADER_LEN]).expect("write")),
        ),
        ("which nobody asked", Class::Connect, Box::new(move |far, head| send(far, data(head.id + 7)))),
        (
            "which nobody asked",
            Class::Connect,
            Box::new(move |far, head| {
                send(far, data(head.id));
                send(far, data(head.id));
            }),
        ),
        (
            "unknown answer 6",
            Class::Connect,
            Box::new(|far, head| send(far, (Head { kind: 6, ..head }, vec![]))),
        ),
        (
            "silent for",
            Class::Timeout,
            Box::new(|far, _| {
                // Longer than the deadline of this test's sockets.
                let _ = far.read(&mut [0; 1]);
                let _ = far.read(&mut [0; 1]);
            }),
        ),
    ];
    for (why, class, far) in cases {
        let begun = Instant::now();
        let error = near_against(far);
        assert!(error.message.contains(why), "{why}: {error}");
        assert!(error.message.starts_with("ssh://far: "), "{error}");
        assert_eq!(error.class, class, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_answer_of_another_shape_is_an_error_and_never_data() {
    for reply in [
        Reply::Data(vec![1; 7]),
        Reply::Data(vec![1; 9]),
        Reply::Done,
        Reply::Digests(vec![[0; 32]]),
        Reply::Extents(vec![(8, false)]),
    ] {
        let error = near_against(move |far, head| send(far, reply.encode(head.id)));
        assert!(error.message.contains("fits no request"), "{error}");
    }
}

#[test]
fn lists_of_extents_that_lie_are_refused() {
    for list in
        [vec![], vec![(0, true)], vec![(5, false), (0, true)], vec![(99, false)], vec![(1 << 62, true); 9]]
    {
        let (near, mut other) = pair();
        let far = std::thread::spawn(move || {
            other.write_all(&Hello::ours(false).encode()).expect("hello");
            other.read_exact(&mut [0; 24]).expect("hello");
            let frame = wire::read_frame(&mut other, true).expect("frame").expect("request");
            send(&mut other, Reply::Extents(list).encode(frame.head.id));
        });
        let client = Client::start(pipe(near), false).expect("hello");
        let found = client.extents(1, ByteRange { offset: 0, len: 10 });
        assert_eq!(found.expect_err("a lie").class, Class::Connect);
        far.join().expect("far");
    }
}

#[test]
fn what_a_login_shell_says_before_the_hello_is_told() {
    for (said, told) in [
        (&b"Welcome to far!\nmore\n"[..], "'Welcome to far!' where a hello was expected"),
        (b"\r\n\nbash: mirror-sync: command not found\n", "'bash: mirror-sync: command not found'"),
        (b"\x1b]0;x\x07\n", "'\\u{1b}]0;x\\u{7}'"),
        (b"MIRSRV", "'MIRSRV'"),
        (b"", "ended before it said anything"),
    ] {
        let (near, mut other) = pair();
        other.write_all(said).expect("write");
        other.shutdown(Shutdown::Write).expect("shutdown");
        let error = Client::start(pipe(near), true).expect_err("no hello");
        assert!(error.message.contains(told), "{error}");
        assert_eq!(error.class, Class::Connect);
    }
    let (near, _other) = pair();
    let error = Client::start(pipe(near), true).expect_err("silence");
    assert_eq!(error.class, Class::Timeout, "{error}");
}

/// What the far end makes of a near end that says this after the hellos, and what it answers last.
fn far_against(said: &[u8]) -> (Result<(), Error>, Vec<Reply>) {
    let (mut near, far) = pair();
    let output = far.try_clone().expect("clone");
    let server = std::thread::spawn(move || serve(far, Box::new(output), &Memory::default()));
    near.write_all(&Hello::ours(true).encode()).expect("hello");
    near.write_all(said).expect("write");
    near.shutdown(Shutdown::Write).expect("shutdown");
    let end = server.join().expect("it does not panic");
    let mut bytes = Vec::new();
    // A socket that is closed with bytes unread says so, behind the answers.
    let _ = near.read_to_end(&mut bytes);
    let (frames, _) = wire::read_all(&bytes[24..], true);
    let replies = frames.into_iter().map(|frame| Reply::decode(&frame.head, frame.payload).expect("reply"));
    (end, replies.collect())
}

#[test]
fn a_near_end_that_breaks_the_rules_is_left_with_the_reason() {
    let frame = |(head, payload): (Head, Vec<u8>)| {
        let (head, _) = wire::encode(&head, &payload, false);
        [&head[..], &payload].concat()
    };
    let read = |id| frame(Request::Read(ByteRange { offset: 0, len: 8 }).encode(id, 3));
    let giant = [&[0xff; 4][..], &[0; HEADER_LEN - 4]].concat();
    for (said, why) in [
        (read(1)[..20].to_vec(), "middle of a frame"),
        (giant, "4294967295 bytes"),
        (frame((Head { kind: 98, id: 1, ..Head::default() }, vec![])), "unknown request 98"),
        (frame((Head { kind: 6, id: 1, offset: u64::MAX, extent: 8, object: 1 }, vec![])), "the range"),
    ] {
        let (end, _) = far_against(&said);
        let error = end.expect_err(why);
        assert!(error.message.contains(why), "{why}: {error}");
        assert_eq!(error.class, Class::Connect);
    }
    // Objects that are not open cost the request alone.
    let (end, replies) = far_against(&[read(1), read(2), frame(Request::Close.encode(3, 9))].concat());
    end.expect("an honest end");
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Error(e) if e.message.contains("not open"))));
    // The same id twice, while the first is in flight, is a protocol error; this one may have been answered before.
    let (_, replies) = far_against(&[read(1), read(1), read(1)].concat());
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Error(_))));
}

#[test]
fn a_near_end_that_says_nothing_does_not_hold_the_far_end() {
    let (_near, far) = pair();
    let output = far.try_clone().expect("clone");
    let error = serve(far, Box::new(output), &Memory::default()).expect_err("silence");
    assert_eq!(error.class, Class::Timeout);
}
