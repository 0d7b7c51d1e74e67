//! The server's handshake where TLS comes first (`nbd.md` cases S11, S12).

use super::handshake::{Handshake, Progress};
use super::tests::Shelf;
use crate::nbd::wire::{self, option, put_counted, put_option, reply};

/// A handshake with TLS, past the client's flags.
fn forced() -> Handshake {
    let mut shake = Handshake::forced_tls().0;
    assert_eq!(shake.feed(&3u32.to_be_bytes(), &Shelf, &mut Vec::new()), (4, Progress::More));
    shake
}

fn ask(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_option(&mut bytes, option, data);
    bytes
}

fn name_and_none(name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    put_counted(&mut data, name.as_bytes());
    data.extend([0, 0]);
    data
}

/// The options that were answered, and how.
fn answers(mut out: &[u8]) -> Vec<(u32, u32)> {
    let mut seen = Vec::new();
    while !out.is_empty() {
        assert_eq!(out[..8], wire::MAGIC_OPTION_REPLY.to_be_bytes());
        let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().expect("four bytes"));
        seen.push((word(8), word(12)));
        out = &out[20 + word(16) as usize..];
    }
    seen
}

#[test]
fn s12_every_other_option_is_told_that_tls_comes_first_and_the_stream_stays_in_step() {
    // An option inside another's data would be answered if that were not drained.
    let inside = ask(option::ABORT, &[]);
    let all = [
        option::LIST,
        4,
        option::INFO,
        option::GO,
        option::STRUCTURED_REPLY,
        option::LIST_META_CONTEXT,
        option::SET_META_CONTEXT,
        option::EXTENDED_HEADERS,
        99,
    ];
    let long = vec![7; 100_000];
    for data in [&[][..], &inside, &long] {
        let bytes: Vec<u8> = all.iter().flat_map(|option| ask(*option, data)).collect();
        for step in [1, 16, 4096, bytes.len()] {
            let (mut shake, mut out) = (forced(), Vec::new());
            for part in bytes.chunks(step) {
                assert_eq!(shake.feed(part, &Shelf, &mut out), (part.len(), Progress::More));
            }
            let expected: Vec<_> = all.iter().map(|option| (*option, reply::ERR_TLS_REQD)).collect();
            assert_eq!(answers(&out), expected);
            assert!(shake.held() < 1000, "nothing of it is kept");
        }
    }
}

#[test]
fn s12_what_cannot_be_refused_closes_and_abort_is_heard() {
    let mut out = Vec::new();
    assert_eq!(forced().feed(&ask(option::EXPORT_NAME, b"vol"), &Shelf, &mut out).1, Progress::Close);
    assert!(out.is_empty());
    assert_eq!(forced().feed(&ask(option::ABORT, &[]), &Shelf, &mut out).1, Progress::Close);
    assert_eq!(answers(&out), [(option::ABORT, reply::ACK)]);
    out.clear();
    assert_eq!(forced().feed(&ask(option::STARTTLS, b"x"), &Shelf, &mut out).1, Progress::More);
    assert_eq!(answers(&out), [(option::STARTTLS, reply::ERR_INVALID)]);
}

#[test]
fn s11_what_stands_behind_starttls_is_left_unread() {
    let behind = ask(option::GO, &name_and_none("vol"));
    let first = ask(option::STARTTLS, &[]);
    let mut out = Vec::new();
    let fed = forced().feed(&[first.clone(), behind].concat(), &Shelf, &mut out);
    assert_eq!(fed, (first.len(), Progress::StartTls));
    assert_eq!(answers(&out), [(option::STARTTLS, reply::ACK)]);
}

#[test]
fn s11_nothing_that_was_agreed_upon_in_the_clear_outlives_starttls() {
    let (mut shake, mut out) = (forced(), Vec::new());
    // As if somebody had got that far.
    shake.structured = true;
    shake.extended = true;
    shake.selected = Some(("vol".to_owned(), vec![(1, "base:allocation".to_owned())]));
    assert_eq!(shake.feed(&ask(option::STARTTLS, &[]), &Shelf, &mut out).1, Progress::StartTls);
    assert!(!shake.structured && !shake.extended && shake.selected.is_none());
    assert!(shake.no_zeroes, "the flags are sent once, before TLS");
    out.clear();
    assert_eq!(shake.feed(&ask(option::STARTTLS, &[]), &Shelf, &mut out).1, Progress::More);
    assert_eq!(answers(&out), [(option::STARTTLS, reply::ERR_INVALID)], "once is enough");
    let (_, progress) = shake.feed(&ask(option::GO, &name_and_none("vol")), &Shelf, &mut out);
    let Progress::Transmission(session) = progress else { panic!("{progress:?}") };
    assert!(!session.structured && !session.extended && session.contexts.is_empty());
}

#[test]
fn s11_options_count_on_across_starttls() {
    let mut shake = forced();
    let list = ask(option::LIST, &[]);
    for _ in 0..crate::base::limits::NBD_OPTIONS - 2 {
        assert_eq!(shake.feed(&list, &Shelf, &mut Vec::new()).1, Progress::More);
    }
    assert_eq!(shake.feed(&ask(option::STARTTLS, &[]), &Shelf, &mut Vec::new()).1, Progress::StartTls);
    assert_eq!(shake.feed(&list, &Shelf, &mut Vec::new()).1, Progress::More);
    assert_eq!(shake.feed(&list, &Shelf, &mut Vec::new()).1, Progress::Close);
}
