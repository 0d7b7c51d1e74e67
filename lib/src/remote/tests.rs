use super::message::{Call, DeviceFacts, Reply, Request};
use super::wire::{self, FEATURE_ZSTD, Frame, HEADER_LEN, Head, Hello};
use crate::base::{ByteRange, Class, Error, limits};
use proptest::prelude::*;

mod hostile;
mod live;

fn bytes(frames: &[(Head, Vec<u8>)], zstd: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for (head, payload) in frames {
        let (head, small) = wire::encode(head, payload, zstd);
        all.extend_from_slice(&head);
        all.extend_from_slice(small.as_ref().unwrap_or(payload));
    }
    all
}

#[test]
fn the_hello_and_a_frame_are_these_bytes() {
    let mut hello = b"MIRSRV\0\n\x01\0\x01\0\x01\0\0\0".to_vec();
    hello.extend_from_slice(&[0, 0, 0x40, 0, 0, 0, 0, 0]);
    assert_eq!(Hello::ours(true).encode(), hello[..]);
    let write = Request::Write { offset: 0x1000, data: b"abc".to_vec() };
    let mut frame = vec![3, 0, 0, 0, 8, 0, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&[0, 0x10, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(b"abc");
    assert_eq!(bytes(&[write.encode(9, 2)], false), frame);
}

#[test]
fn two_sides_speak_the_highest_version_that_both_know() {
    let hello = |low, high, features| Hello { low, high, features, payload: 1 << 20 };
    for (ours, theirs, version) in [
        (hello(1, 1, 0), hello(1, 1, 0), Some(1)),
        (hello(1, 3, 0), hello(2, 9, 0), Some(3)),
        (hello(2, 3, 0), hello(1, 2, 0), Some(2)),
        (hello(2, 3, 0), hello(1, 1, 0), None),
        (hello(1, 1, 0), hello(2, 3, 0), None),
    ] {
        let agreed = ours.agree(&theirs);
        assert_eq!(agreed.as_ref().ok().map(|agreed| agreed.version), version, "{ours:?} {theirs:?}");
        if let Err(error) = agreed {
            assert_eq!(error.class, Class::Connect);
            let (low, high) = (theirs.low, theirs.high);
            assert!(error.message.contains(&format!("{low} to {high}")), "{error}");
        }
    }
    let both = hello(1, 1, FEATURE_ZSTD).agree(&hello(1, 1, FEATURE_ZSTD | 0x80)).expect("agreed");
    assert!(both.zstd);
    assert!(!hello(1, 1, 0).agree(&hello(1, 1, FEATURE_ZSTD)).expect("agreed").zstd);
}

#[test]
fn a_hello_that_promises_nonsense_is_refused() {
    let good = Hello::ours(true).encode();
    assert!(Hello::decode(&good).is_ok());
    for (at, byte) in [(0, b'm'), (6, b'0'), (8, 0), (8, 2), (18, 0)] {
        let mut bad = good;
        bad[at] = byte;
        assert_eq!(Hello::decode(&bad).expect_err("bad").class, Class::Connect, "byte {at}");
    }
}

fn range() -> impl Strategy<Value = ByteRange> {
    (0..1u64 << 40, 1..=u64::from(limits::REMOTE_PAYLOAD)).prop_map(|(offset, len)| ByteRange { offset, len })
}

fn call() -> impl Strategy<Value = Call> {
    let path = || prop::collection::vec(1u8..=255, 0..300);
    (path(), path(), any::<[bool; 2]>()).prop_map(|(root, log, [privileged, atime])| Call {
        root,
        log,
        privileged,
        atime,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let data = || prop::collection::vec(any::<u8>(), 1..2000);
    prop_oneof![
        (prop::collection::vec(1u8..=255, 0..300), any::<[bool; 3]>())
            .prop_map(|(path, [write, mounted, live])| Request::Open { path, write, mounted, live }),
        Just(Request::Close),
        range().prop_map(Request::Read),
        (0..1u64 << 40, data()).prop_map(|(offset, data)| Request::Write { offset, data }),
        (range(), any::<bool>(), any::<bool>()).prop_map(|(range, holes, fast)| Request::Zero {
            range,
            holes,
            fast
        }),
        Just(Request::Flush),
        range().prop_map(Request::Extents),
        (4096u64..1 << 26, 0u64..9, 1u64..1 << 30).prop_map(|(step, at, len)| {
            let range = ByteRange { offset: at * step, len: len.min(step << 12) };
            Request::Digests { range, step }
        }),
        call().prop_map(Request::Apply),
        data().prop_map(Request::Push),
        Just(Request::Finish),
        call().prop_map(Request::Scan),
        (any::<u64>(), any::<u64>()).prop_map(|(id, from)| Request::Node { id, from }),
        call().prop_map(Request::Round),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Done),
        (
            any::<u16>(),
            0..1u64 << 50,
            any::<[bool; 5]>(),
            0..20u32,
            "[a-z0-9:]{0,60}",
            prop::option::of("[a-z /]{0,60}")
        )
            .prop_map(|(object, size, bits, align, identity, in_use)| {
                let [read_only, live, flushes, zeroes, tells_zeroes] = bits;
                let align = 1 << align;
                let facts = DeviceFacts {
                    size,
                    read_only,
                    live,
                    flushes,
                    zeroes,
                    tells_zeroes,
                    align,
                    identity,
                    in_use,
                };
                Reply::Device { object, facts }
            }),
        (any::<u16>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(object, count, digest)| Reply::Opened {
            object,
            count,
            digest
        }),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Reply::Data),
        Just(Reply::Zeroes),
        prop::collection::vec((0..1u64 << 60, any::<bool>()), 0..50).prop_map(Reply::Extents),
        prop::collection::vec(any::<[u8; 32]>(), 0..50).prop_map(Reply::Digests),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Reply::Bytes),
        "[a-z é]{1,200}".prop_map(|text| Reply::Error(Error::new(Class::Refused, text))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_sent_is_what_arrives(
        requests in prop::collection::vec((request(), any::<u64>(), any::<u16>()), 0..8),
        replies in prop::collection::vec((reply(), any::<u64>()), 0..8),
        zstd in any::<bool>(),
    ) {
        let sent: Vec<_> = requests.iter().map(|(r, id, object)| r.clone().encode(*id, *object)).collect();
        let (frames, end) = wire::read_all(&bytes(&sent, zstd), zstd);
        prop_assert_eq!(end, None);
        prop_assert_eq!(frames.len(), requests.len());
        for (Frame { head, payload }, (request, id, object)) in frames.into_iter().zip(&requests) {
            prop_assert_eq!((head.id, head.object), (*id, *object));
            prop_assert_eq!(&Request::decode(&head, payload).expect("request"), request);
        }
        let sent: Vec<_> = replies.iter().map(|(r, id)| r.clone().encode(*id)).collect();
        let (frames, end) = wire::read_all(&bytes(&sent, zstd), zstd);
        prop_assert_eq!(end, None);
        for (Frame { head, payload }, (reply, id)) in frames.into_iter().zip(&replies) {
            prop_assert_eq!(head.id, *id);
            prop_assert_eq!(&Reply::decode(&head, payload).expect("reply"), reply);
        }
    }

    /// What a fuzzer calls: whatever the bytes, an end is reached, nothing panics, nothing large is allocated.
    #[test]
    fn no_bytes_do_harm(mut noise in prop::collection::vec(any::<u8>(), 0..300), zstd in any::<bool>(), cut in any::<u16>()) {
        let good = bytes(&[Request::Read(ByteRange { offset: 0, len: 512 }).encode(1, 1)], false);
        for stream in [noise.clone(), [&good[..], &noise].concat(), good[..usize::from(cut) % good.len()].to_vec()] {
            let (frames, _) = wire::read_all(&stream, zstd);
            for Frame { head, payload } in frames {
                let _ = Request::decode(&head, payload.clone());
                let _ = Reply::decode(&head, payload);
            }
        }
        // With a plausible length, so that kinds and arguments are reached.
        if noise.len() >= HEADER_LEN {
            let len = (noise.len() - HEADER_LEN) as u32;
            noise[..4].copy_from_slice(&len.to_le_bytes());
            noise[4] %= 64;
            noise[5] = 0;
            let (frames, end) = wire::read_all(&noise, zstd);
            prop_assert_eq!((frames.len(), end), (1, None));
            let Frame { head, payload } = frames.into_iter().next().expect("one");
            if let Ok(request) = Request::decode(&head, payload.clone()) {
                prop_assert!(request.weight() <= limits::REMOTE_PAYLOAD as usize);
            }
            let _ = Reply::decode(&head, payload);
        }
    }
}

#[test]
fn a_request_beyond_a_limit_is_refused_with_the_reason() {
    let head = |kind, offset, extent| Head { kind, object: 1, id: 1, offset, extent };
    let step = |step: u64| step.to_le_bytes().to_vec();
    let (most, volume) = (u64::from(limits::REMOTE_PAYLOAD), limits::VOLUME_SIZE);
    for (head, payload, why) in [
        (head(6, 0, most + 1), vec![], "range"),
        (head(6, 0, 0), vec![], "range"),
        (head(6, u64::MAX, 2), vec![], "range"),
        (head(6, volume, 1), vec![], "range"),
        (head(6, 0, 1), vec![1], "payload"),
        (head(8, 0, 5), vec![1; 4], "write of 5 bytes with 4"),
        (head(10, 0, 1), vec![4], "unknown flags"),
        (head(10, 0, 1), vec![], "without its flags"),
        (head(2, 0, 0), vec![8], "unknown flags"),
        (head(2, 0, 0), [&[0][..], &[b'a'; 4096]].concat(), "path"),
        (head(2, 0, 0), b"\0a\0b".to_vec(), "path"),
        (head(16, 0, 1 << 20), vec![16], "without a step"),
        (head(16, 0, 1 << 20), step(0), "each 0 bytes"),
        (head(16, 0, 1 << 20), step(4095), "each 4095 bytes"),
        (head(16, 0, 1 << 30), step(4096), "each 4096"),
        (head(16, 0, limits::REMOTE_DIGEST + 1), step(1 << 20), "range"),
        (head(32, 0, 0), vec![0, 9, 0, b'a'], "longer than its frame"),
        (head(99, 0, 0), vec![], "unknown request 99"),
        (head(1, 0, 0), vec![], "unknown request 1"),
    ] {
        let error = Request::decode(&head, payload).expect_err(why);
        assert_eq!(error.class, Class::Connect);
        assert!(error.message.contains(why), "{why}: {error}");
    }
}

#[test]
fn an_error_from_afar_is_one_line_and_tells_nobody_what_to_type() {
    let error = Error::new(Class::Io, "/dev/x: reading\n\x1b[2Jit: \u{7}bad").hint("rm -rf /");
    let (head, payload) = Reply::Error(error).encode(7);
    let Reply::Error(found) = Reply::decode(&head, payload).expect("reply") else { panic!("an error") };
    assert_eq!(found, Error::new(Class::Io, "/dev/x: reading  [2Jit:  bad"));
    for code in [0, 1, 70, 255, 1 << 40] {
        let head = Head { kind: 15, extent: code, ..Head::default() };
        let Reply::Error(found) = Reply::decode(&head, b"x".to_vec()).expect("reply") else {
            panic!("an error")
        };
        assert_eq!(found.class, Class::Connect, "{code}");
    }
    assert!(Reply::decode(&Head { kind: 15, ..Head::default() }, Vec::new()).is_err());
}

#[test]
fn a_frame_that_expands_past_its_limit_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; limits::REMOTE_PAYLOAD as usize + 1], 1).expect("compress");
    assert!(bomb.len() < 4096);
    let (mut head, _) = wire::encode(&Head { kind: 34, ..Head::default() }, &bomb, false);
    head[5] = wire::FLAG_ZSTD;
    let stream = [&head[..], &bomb].concat();
    let (frames, end) = wire::read_all(&stream, true);
    assert!(frames.is_empty());
    assert!(end.expect("refused").message.contains("too large"));
    let (_, end) = wire::read_all(&stream, false);
    assert!(end.expect("refused").message.contains("not agreed on"), "a feature that nobody offered");
    let mut giant = head;
    giant[..4].copy_from_slice(&(limits::REMOTE_PAYLOAD + 1).to_le_bytes());
    assert!(wire::read_all(&giant, true).1.expect("refused").message.contains("at most"));
}
