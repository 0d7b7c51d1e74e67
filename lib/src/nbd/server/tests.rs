//! The server's handshake against the cases of `nbd.md` section 4 that concern it.

use super::handshake::{ExportInfo, Exports, Handshake, Progress, Session};
use crate::base::limits;
use crate::nbd::wire::{self, TransmissionFlags, info, option, put_counted, put_option, reply};
use proptest::prelude::*;

pub(in crate::nbd) struct Shelf;

impl Exports for Shelf {
    fn list(&self) -> Vec<String> {
        vec!["vol".to_owned(), "other".to_owned()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        let size = match name {
            "" | "vol" => 1 << 20,
            "other" => 4096,
            "vol@meta" => 512,
            _ => return None,
        };
        Some(ExportInfo {
            size,
            flags: TransmissionFlags::SEND_FLUSH.with(TransmissionFlags::SEND_FUA),
            description: "a volume".to_owned(),
            min_block: 1,
            preferred_block: 4096,
            max_block: u32::MAX,
        })
    }

    fn contexts(&self, name: &str) -> Vec<String> {
        let far = (name == "vol").then(|| "x-mirror:dirty/far".to_owned());
        std::iter::once("base:allocation".to_owned()).chain(far).collect()
    }
}

/// A reply as a client sees it: option, type, data.
type Seen = (u32, u32, Vec<u8>);

fn replies(mut out: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    while out.len() >= 20 && out[..8] == wire::MAGIC_OPTION_REPLY.to_be_bytes() {
        let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().expect("four bytes"));
        let end = 20 + word(16) as usize;
        seen.push((word(8), word(12), out[20..end].to_vec()));
        out = &out[end..];
    }
    assert!(out.is_empty(), "{} bytes that are no reply", out.len());
    seen
}

fn kinds(out: &[u8]) -> Vec<u32> {
    replies(out).into_iter().map(|(_, kind, _)| kind).collect()
}

/// Feeds client flags (fixed newstyle, no zeroes) and these bytes.
fn talk(bytes: &[u8]) -> (Vec<u8>, usize, Progress) {
    let (mut shake, greeting) = Handshake::new();
    assert_eq!(greeting.len(), 18);
    let mut out = Vec::new();
    assert_eq!(shake.feed(&3u32.to_be_bytes(), &Shelf, &mut out), (4, Progress::More));
    let (consumed, progress) = shake.feed(bytes, &Shelf, &mut out);
    (out, consumed, progress)
}

fn options(list: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (option, data) in list {
        put_option(&mut bytes, *option, data);
    }
    bytes
}

fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    put_counted(&mut data, name.as_bytes());
    data.extend((wanted.len() as u16).to_be_bytes());
    for w in wanted {
        data.extend(w.to_be_bytes());
    }
    data
}

fn queries(name: &str, list: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    put_counted(&mut data, name.as_bytes());
    data.extend((list.len() as u32).to_be_bytes());
    for q in list {
        put_counted(&mut data, q.as_bytes());
    }
    data
}

fn session(progress: Progress) -> Session {
    match progress {
        Progress::Transmission(session) => session,
        other => panic!("no transmission but {other:?}"),
    }
}

#[test]
fn the_greeting_is_pinned() {
    assert_eq!(Handshake::new().1, b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn the_answer_to_go_is_pinned_and_what_follows_is_not_consumed() {
    let mut bytes = options(&[(option::GO, go("vol", &[info::BLOCK_SIZE, info::NAME, 77]))]);
    let len = bytes.len();
    bytes.extend_from_slice(b"transmission");
    let (out, consumed, progress) = talk(&bytes);
    assert_eq!(consumed, len);
    let head =
        |kind: u8, len: u8| [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7, 0, 0, 0, kind, 0, 0, 0, len];
    let mut expected = head(3, 12).to_vec();
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x0d]);
    expected.extend(head(3, 5));
    expected.extend(b"\x00\x01vol");
    expected.extend(head(3, 14));
    expected.extend([0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0]);
    expected.extend(head(1, 0));
    assert_eq!(out, expected);
    let session = session(progress);
    assert!(session.enforce_block && !session.structured && session.contexts.is_empty());
    assert_eq!(session.max_payload(), limits::NBD_PAYLOAD);
}

#[test]
fn export_name_answers_without_header_and_with_zeroes_unless_agreed() {
    let bytes = options(&[(option::EXPORT_NAME, b"vol".to_vec())]);
    for (flags, len) in [(3u32, 10), (1, 134), (0, 134)] {
        let mut shake = Handshake::new().0;
        let mut out = Vec::new();
        let input = [&flags.to_be_bytes()[..], &bytes, b"rest"].concat();
        let (consumed, progress) = shake.feed(&input, &Shelf, &mut out);
        assert_eq!(consumed, 4 + bytes.len());
        assert_eq!(session(progress).export, "vol");
        assert_eq!(out.len(), len);
        assert_eq!(out[..10], [0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x0d]);
    }
    assert_eq!(talk(&options(&[(option::EXPORT_NAME, b"nowhere".to_vec())])).2, Progress::Close);
}

#[test]
fn client_flags_that_were_not_offered_close() {
    for flags in [4u32, 1 << 31, u32::MAX] {
        let mut shake = Handshake::new().0;
        let mut out = Vec::new();
        assert_eq!(shake.feed(&flags.to_be_bytes(), &Shelf, &mut out).1, Progress::Close);
        assert_eq!(shake.feed(b"more", &Shelf, &mut out), (0, Progress::Close));
        assert!(out.is_empty());
    }
}

#[test]
fn s1_a_name_of_almost_4_gib_closes_or_is_refused_without_memory() {
    let mut header = Vec::new();
    put_option(&mut header, option::EXPORT_NAME, &[]);
    header[12..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(talk(&header).2, Progress::Close);
    for option in [option::INFO, option::GO] {
        let mut data = u32::MAX.to_be_bytes().to_vec();
        data.extend([0, 0]);
        let (out, _, progress) = talk(&options(&[(option, data)]));
        assert_eq!((kinds(&out), progress), (vec![reply::ERR_INVALID], Progress::More));
        header[8..12].copy_from_slice(&option.to_be_bytes());
        assert_eq!(talk(&header).2, Progress::Close);
    }
}

#[test]
fn s2_inconsistent_lengths_are_refused_and_the_stream_stays_in_step() {
    let long = [2000u32.to_be_bytes().as_slice(), &[b'x'; 1500]].concat();
    let extra = [go("vol", &[]), b"z".to_vec()].concat();
    let counts = [go("vol", &[])[..7].to_vec(), vec![0xff, 0xff]].concat();
    for data in [long, extra, counts, vec![0, 0, 0], vec![]] {
        for option in [option::INFO, option::GO] {
            let (out, _, progress) = talk(&options(&[(option, data.clone()), (option::GO, go("vol", &[]))]));
            assert_eq!(kinds(&out), [reply::ERR_INVALID, reply::INFO, reply::ACK]);
            session(progress);
        }
    }
}

#[test]
fn s3_a_name_of_3000_bytes_is_merely_unknown() {
    let name = "n".repeat(3000);
    let (out, _, progress) = talk(&options(&[(option::INFO, go(&name, &[])), (option::GO, go(&name, &[]))]));
    assert_eq!((kinds(&out), progress), (vec![reply::ERR_UNKNOWN; 2], Progress::More));
    assert_eq!(talk(&options(&[(option::EXPORT_NAME, name.into_bytes())])).2, Progress::Close);
}

#[test]
fn s4_messages_about_the_longest_unknown_name_stay_within_the_limit() {
    let name = "\u{e9}".repeat(2048);
    let (out, _, _) = talk(&options(&[
        (option::STRUCTURED_REPLY, vec![]),
        (option::GO, go(&name, &[])),
        (option::LIST_META_CONTEXT, queries(&name, &[])),
        (option::SET_META_CONTEXT, queries(&name, &["base:allocation"])),
    ]));
    let seen = replies(&out);
    assert_eq!(seen.len(), 4);
    for (_, kind, message) in &seen[1..] {
        assert_eq!(*kind, reply::ERR_UNKNOWN);
        assert!(!message.is_empty() && message.len() <= limits::NBD_STRING);
        assert!(std::str::from_utf8(message).is_ok());
    }
}

#[test]
fn s5_endless_option_data_is_drained_without_memory_and_then_closed() {
    for option in [option::LIST, option::GO, option::STARTTLS, option::SET_META_CONTEXT, 99] {
        let mut header = Vec::new();
        put_option(&mut header, option, &[]);
        header[12..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(talk(&header).2, Progress::Close);
        header[12..].copy_from_slice(&(16u32 << 20).to_be_bytes());
        let mut shake = Handshake::new().0;
        let mut out = Vec::new();
        shake.feed(&3u32.to_be_bytes(), &Shelf, &mut out);
        for round in 0..3 {
            let (_, progress) = shake.feed(&header, &Shelf, &mut out);
            if round == 2 {
                assert_eq!(progress, Progress::Close);
                break;
            }
            for _ in 0..16 {
                assert_eq!(shake.feed(&vec![0; 1 << 20], &Shelf, &mut out), (1 << 20, Progress::More));
                assert!(shake.held() <= 64);
            }
            assert_eq!(kinds(&out).len(), round + 1);
        }
    }
}

#[test]
fn s6_the_handshake_can_stop_or_turn_to_garbage_at_every_byte() {
    let script = options(&[
        (option::STRUCTURED_REPLY, vec![]),
        (option::SET_META_CONTEXT, queries("vol", &["base:allocation"])),
        (option::LIST, vec![]),
        (option::GO, go("vol", &[info::BLOCK_SIZE])),
    ]);
    let full = talk(&script).0;
    for cut in 0..script.len() {
        let (out, consumed, progress) = talk(&script[..cut]);
        assert_eq!((consumed, progress), (cut, Progress::More));
        assert!(full.starts_with(&out));
        let mut garbage = script[..cut].to_vec();
        garbage.extend([0xaa; 64]);
        talk(&garbage);
    }
}

#[test]
fn s7_an_unknown_export_is_told_and_another_may_follow() {
    let (out, _, progress) =
        talk(&options(&[(option::GO, go("nowhere", &[])), (option::GO, go("vol@meta", &[]))]));
    let seen = replies(&out);
    assert_eq!(seen[0], (option::GO, reply::ERR_UNKNOWN, b"export 'nowhere' is not known".to_vec()));
    assert_eq!(session(progress).info.size, 512);
}

#[test]
fn s10_options_come_in_any_order() {
    let (out, _, progress) = talk(&options(&[
        (option::INFO, go("vol", &[])),
        (option::INFO, go("other", &[info::BLOCK_SIZE, info::DESCRIPTION])),
        (option::LIST, vec![]),
        (option::LIST, vec![]),
        (option::STRUCTURED_REPLY, vec![]),
        (option::STRUCTURED_REPLY, vec![]),
        (option::GO, go("", &[])),
    ]));
    let list = [reply::SERVER, reply::SERVER, reply::ACK];
    let expected = [
        &[reply::INFO, reply::ACK, reply::INFO, reply::INFO, reply::INFO, reply::ACK][..],
        &list,
        &list,
        &[reply::ACK, reply::ACK, reply::INFO, reply::ACK],
    ];
    assert_eq!(kinds(&out), expected.concat());
    let session = session(progress);
    assert_eq!((session.info.size, session.enforce_block, session.structured), (1 << 20, false, true));
    assert!(session.info.flags.has(TransmissionFlags::SEND_DF));
    // INFO promises nothing about the GO that follows it, whichever comes first.
    for (asked, opened, size) in [("vol", "other", 4096), ("other", "vol", 1 << 20), ("other", "", 1 << 20)] {
        let asking = |name: &str| (option::INFO, go(name, &[info::BLOCK_SIZE]));
        let opening = (option::GO, go(opened, &[]));
        let of = |script: &[(u32, Vec<u8>)]| self::session(talk(&options(script)).2);
        let session = of(&[asking(opened), asking(asked), opening.clone()]);
        assert_eq!((session.export.as_str(), session.info.size), (opened, size), "after INFO of '{asked}'");
        assert!(!session.enforce_block);
        assert_eq!(of(&[asking(asked), opening]), session);
    }
}

#[test]
fn s11_starttls_is_unsupported_and_wipes_nothing() {
    let (out, _, progress) = talk(&options(&[
        (option::STRUCTURED_REPLY, vec![]),
        (option::STARTTLS, vec![]),
        (option::STARTTLS, vec![1]),
        (option::GO, go("vol", &[])),
    ]));
    assert_eq!(kinds(&out)[1..3], [reply::ERR_UNSUP; 2]);
    assert!(session(progress).structured);
}

#[test]
fn s14_contexts_counted_near_4_gib_allocate_nothing() {
    let mut data = queries("vol", &[]);
    let count = data.len() - 4;
    // The second is zero when it is multiplied by the length of a length in 32 bits.
    for queries in [0xffff_fe00u32, 0x4000_0000, u32::MAX] {
        data[count..].copy_from_slice(&queries.to_be_bytes());
        let (out, _, _) = talk(&options(&[(option::LIST_META_CONTEXT, data.clone())]));
        assert_eq!(kinds(&out), [reply::ERR_INVALID]);
    }
}

#[test]
fn s22_unknown_options_are_unsupported_and_the_next_is_served() {
    let (out, _, progress) = talk(&options(&[
        (4, vec![0; 10]),
        (12, vec![]),
        (99, vec![1; 100_000]),
        (option::GO, go("vol", &[])),
    ]));
    assert_eq!(kinds(&out)[..3], [reply::ERR_UNSUP; 3]);
    session(progress);
}

#[test]
fn s23_a_selection_replaces_the_one_before_and_is_for_one_export() {
    let sr = (option::STRUCTURED_REPLY, vec![]);
    let set = |name: &str, list: &[&str]| (option::SET_META_CONTEXT, queries(name, list));
    let open = |name: &str| (option::GO, go(name, &[]));
    let both = ["base:allocation", "x-mirror:dirty/far"];
    let contexts = |list: &[(u32, Vec<u8>)]| session(talk(&options(list)).2).contexts;
    assert_eq!(
        contexts(&[sr.clone(), set("vol", &both), open("vol")]),
        [(1, both[0].to_owned()), (2, both[1].to_owned())]
    );
    assert!(contexts(&[sr.clone(), set("vol", &both), set("vol", &[]), open("vol")]).is_empty());
    assert!(contexts(&[sr.clone(), set("vol", &both), open("other")]).is_empty());
    assert!(contexts(&[sr.clone(), set("vol", &both), set("nowhere", &both), open("vol")]).is_empty());
    assert!(contexts(&[sr.clone(), set("vol", &["base:", "x-mirror:"]), open("vol")]).is_empty());
    // A SET that fails, for whatever reason, leaves nothing selected.
    for bad in [vec![], vec![0; 100_000]] {
        let failing = (option::SET_META_CONTEXT, bad);
        assert!(contexts(&[sr.clone(), set("vol", &both), failing, open("vol")]).is_empty());
    }
    let (out, _, _) = talk(&options(&[set("vol", &both)]));
    assert_eq!(kinds(&out), [reply::ERR_INVALID]);
}

#[test]
fn s24_malformed_queries_are_refused_and_unknown_ones_ignored() {
    let with_length = |len: u32| {
        let mut data = queries("vol", &["base:allocation"]);
        let at = 4 + 3 + 4;
        data[at..at + 4].copy_from_slice(&len.to_be_bytes());
        data
    };
    let not_utf8 = {
        let mut data = queries("vol", &["base:allocation"]);
        *data.last_mut().expect("bytes") = 0xff;
        data
    };
    let trailing = [queries("vol", &["base:"]), vec![0]].concat();
    let many = queries("vol", &vec!["a:b"; limits::NBD_QUERIES as usize + 1]);
    for (data, kind) in [
        (with_length(16), reply::ERR_INVALID),
        (with_length(14), reply::ERR_INVALID),
        (with_length(u32::MAX), reply::ERR_INVALID),
        (not_utf8, reply::ERR_INVALID),
        (queries("vol", &["a\0b"]), reply::ERR_INVALID),
        (trailing, reply::ERR_INVALID),
        (many, reply::ERR_TOO_BIG),
        (queries("vol", &["", "nocolon", "qemu:dirty-bitmap:x", "zz:"]), reply::ACK),
    ] {
        let (out, _, _) = talk(&options(&[(option::LIST_META_CONTEXT, data)]));
        assert_eq!(kinds(&out), [kind]);
    }
}

#[test]
fn contexts_are_listed_by_name_by_namespace_or_all() {
    for (list, expected) in [
        (&[][..], &["base:allocation", "x-mirror:dirty/far"][..]),
        (&["base:"], &["base:allocation"]),
        (&["x-mirror:"], &["x-mirror:dirty/far"]),
        (&["x-mirror:dirty/far", "base:"], &["base:allocation", "x-mirror:dirty/far"]),
        (&["base:alloc", "x-mirror"], &[]),
    ] {
        let (out, _, _) = talk(&options(&[(option::LIST_META_CONTEXT, queries("vol", list))]));
        let mut seen = replies(&out);
        assert_eq!(seen.pop().map(|(_, kind, _)| kind), Some(reply::ACK));
        let names: Vec<_> = seen.iter().map(|(_, _, data)| (&data[..4], &data[4..])).collect();
        let expected: Vec<_> = expected.iter().map(|n| (&[0u8; 4][..], n.as_bytes())).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn s34_options_are_counted_and_a_client_that_never_reads_is_closed() {
    let (mut shake, _) = Handshake::new();
    let mut out = Vec::new();
    shake.feed(&3u32.to_be_bytes(), &Shelf, &mut out);
    let one = options(&[(option::LIST, vec![])]);
    for _ in 0..limits::NBD_OPTIONS {
        out.clear();
        assert_eq!(shake.feed(&one, &Shelf, &mut out), (16, Progress::More));
    }
    assert_eq!(shake.feed(&one, &Shelf, &mut out).1, Progress::Close);
    let mut shake = Handshake::new().0;
    let mut unread = vec![0; limits::NBD_OPTION_OUT + 1];
    shake.feed(&3u32.to_be_bytes(), &Shelf, &mut unread);
    assert_eq!(shake.feed(&one, &Shelf, &mut unread).1, Progress::Close);
}

/// A hundred exports with the longest names.
pub(in crate::nbd) struct Hundred;

impl Exports for Hundred {
    fn list(&self) -> Vec<String> {
        (0..100).map(|i| format!("{i:0width$}", width = limits::NBD_STRING)).collect()
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        self.list().iter().any(|listed| listed == name).then(|| Shelf.find("vol"))?
    }

    fn contexts(&self, _name: &str) -> Vec<String> {
        Shelf.contexts("vol")
    }
}

#[test]
fn s34_a_hundred_exports_are_listed_and_each_is_asked_about_in_one_handshake() {
    let mut shake = Handshake::new().0;
    let mut out = Vec::new();
    shake.feed(&3u32.to_be_bytes(), &Hundred, &mut out);
    let mut ask = |option: u32, data: Vec<u8>| {
        out.clear();
        assert_eq!(shake.feed(&options(&[(option, data)]), &Hundred, &mut out).1, Progress::More);
        replies(&out)
    };
    let mut listed = ask(option::LIST, vec![]);
    assert_eq!(listed.pop().map(|(_, kind, _)| kind), Some(reply::ACK));
    let names: Vec<_> = listed.into_iter().map(|(_, _, data)| data[4..].to_vec()).collect();
    assert_eq!(names, Hundred.list().into_iter().map(String::into_bytes).collect::<Vec<_>>());
    ask(option::STRUCTURED_REPLY, vec![]);
    for name in Hundred.list() {
        let kinds = |seen: Vec<Seen>| seen.into_iter().map(|(_, kind, _)| kind).collect::<Vec<_>>();
        let wanted = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE];
        assert_eq!(kinds(ask(option::INFO, go(&name, &wanted)))[4], reply::ACK);
        assert_eq!(kinds(ask(option::LIST_META_CONTEXT, queries(&name, &[]))).len(), 3);
        assert_eq!(kinds(ask(option::SET_META_CONTEXT, queries(&name, &["base:allocation"]))).len(), 2);
    }
}

#[test]
fn s36_abort_is_acknowledged_whatever_it_carries() {
    for data in [vec![], vec![1; 5000]] {
        let (out, _, progress) = talk(&options(&[(option::ABORT, data)]));
        assert_eq!((kinds(&out), progress), (vec![reply::ACK], Progress::Close));
    }
    let (out, _, _) = talk(&options(&[(option::LIST, vec![0])]));
    assert_eq!(kinds(&out), [reply::ERR_INVALID]);
}

#[test]
fn a_wrong_option_magic_closes() {
    let mut bytes = options(&[(option::LIST, vec![])]);
    bytes[0] ^= 1;
    let (out, _, progress) = talk(&bytes);
    assert_eq!((out.len(), progress), (0, Progress::Close));
}

fn any_option() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        Just(go("vol", &[3])),
        Just(queries("vol", &["base:", "base:allocation"])),
        "[a-z]{0,5}".prop_map(String::into_bytes),
    ];
    (0u32..13, data)
}

proptest! {
    #[test]
    fn random_options_in_random_pieces_neither_panic_nor_hoard(
        list in proptest::collection::vec(any_option(), 0..12),
        noise in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..3),
        pieces in proptest::collection::vec(1usize..50, 1..40),
    ) {
        let mut bytes = [3u32.to_be_bytes().to_vec(), options(&list)].concat();
        for (at, value) in noise {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= value;
        }
        let (mut whole, mut cut) = (Handshake::new().0, Handshake::new().0);
        let (mut expected, mut out) = (Vec::new(), Vec::new());
        let (end, last) = whole.feed(&bytes, &Shelf, &mut expected);
        let (mut at, mut progress) = (0, Progress::More);
        for len in pieces.iter().cycle() {
            if at == bytes.len() || progress != Progress::More {
                break;
            }
            let piece = &bytes[at..bytes.len().min(at + len)];
            let (consumed, now) = cut.feed(piece, &Shelf, &mut out);
            prop_assert!(consumed == piece.len() || now != Progress::More);
            prop_assert!(cut.held() <= 2 * limits::NBD_OPTION_LEN as usize);
            at += consumed;
            progress = now;
        }
        prop_assert_eq!((at, progress, out), (end, last, expected));
    }

    #[test]
    fn random_bytes_neither_panic_nor_hoard(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (mut shake, mut out) = (Handshake::new().0, Vec::new());
        shake.feed(&bytes, &Shelf, &mut out);
        prop_assert!(shake.held() <= 2 * limits::NBD_OPTION_LEN as usize);
    }
}
