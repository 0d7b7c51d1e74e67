//! The client's handshake where TLS comes first (`nbd.md` case C4).

use super::handshake::{ClientHandshake, ClientOptions, ClientProgress};
use crate::base::Class;
use crate::nbd::wire::{self, option, put_counted, put_option, reply};

fn over_tls() -> ClientHandshake {
    let contexts = vec!["base:allocation".to_owned()];
    ClientHandshake::extended(ClientOptions { export: "vol".to_owned(), contexts, structured: true })
        .over_tls()
}

fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

fn answer(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = wire::MAGIC_OPTION_REPLY.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    put_counted(&mut out, data);
    out
}

fn options(list: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for option in list {
        put_option(&mut bytes, *option, &[]);
    }
    bytes
}

#[test]
fn c4_tls_is_asked_for_first_and_everything_else_after_it() {
    for step in [1, 7, 100] {
        let (mut shake, mut out) = (over_tls(), Vec::new());
        let bytes = [greeting(3), answer(option::STARTTLS, reply::ACK, &[])].concat();
        let mut progress = ClientProgress::More;
        for part in bytes.chunks(step) {
            assert_eq!(progress, ClientProgress::More);
            let (taken, now) = shake.feed(part, &mut out).expect("a handshake");
            assert_eq!(taken, part.len());
            progress = now;
        }
        assert_eq!(progress, ClientProgress::StartTls);
        assert_eq!(out, [&[0, 0, 0, 3][..], &options(&[option::STARTTLS])].concat());
        out.clear();
        // Until TLS is there nothing is believed.
        shake.secured(&mut out);
        assert_eq!(out, options(&[option::EXTENDED_HEADERS]));
    }
}

#[test]
fn c4_what_stands_behind_the_consent_is_left_unread_and_nothing_is_believed_before_tls() {
    let behind = answer(option::EXTENDED_HEADERS, reply::ACK, &[]);
    let consent = [greeting(3), answer(option::STARTTLS, reply::ACK, &[])].concat();
    let (mut shake, mut out) = (over_tls(), Vec::new());
    let fed = shake.feed(&[consent.clone(), behind.clone()].concat(), &mut out).expect("a handshake");
    assert_eq!(fed, (consent.len(), ClientProgress::StartTls));
    assert_eq!(shake.feed(&behind, &mut out).expect_err("not asked").class, Class::Connect);
}

#[test]
fn c4_a_server_without_tls_is_given_up() {
    let old = [&b"NBDMAGIC"[..], &wire::MAGIC_OLDSTYLE.to_be_bytes(), &[0; 136]].concat();
    let refuses = |kind| [greeting(3), answer(option::STARTTLS, kind, b"no\x1bway")].concat();
    let asked = [&[0, 0, 0, 3][..], &options(&[option::STARTTLS, option::ABORT])].concat();
    for (bytes, sent, why) in [
        (old, vec![], "an oldstyle server has none"),
        (greeting(0), vec![], "fixed newstyle"),
        (greeting(2), vec![], "fixed newstyle"),
        (refuses(reply::ERR_UNSUP), asked.clone(), "does not agree to it: it says: no"),
        (refuses(reply::ERR_POLICY), asked.clone(), "does not agree to it"),
        (refuses(reply::ERR_TLS_REQD), asked.clone(), "does not agree to it"),
        (refuses(reply::ERR_SHUTDOWN), asked, "does not agree to it"),
    ] {
        let mut out = Vec::new();
        let error = over_tls().feed(&bytes, &mut out).expect_err(why);
        assert_eq!((error.class, &out), (Class::Connect, &sent), "{why}");
        assert!(error.message.contains(why) && !error.message.contains(char::is_control), "{error}");
    }
}
