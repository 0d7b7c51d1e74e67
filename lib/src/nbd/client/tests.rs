//! The client's handshake and reply parser against the cases of `nbd.md` section 4 that concern them.

use super::assembly::{Assembly, PlainAssembly, ReadAssembly};
use super::handshake::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
use super::replies::{Reply, ReplyParser};
use crate::base::{Class, Error, Result, limits};
use crate::nbd::wire::{self, Errno, TransmissionFlags, chunk, info, option, put_counted, reply};
use proptest::prelude::*;

fn wanted(structured: bool) -> ClientOptions {
    let contexts = if structured { vec!["base:allocation".to_owned()] } else { vec![] };
    ClientOptions { export: "vol".to_owned(), contexts, structured }
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

fn export_info(size: u64, flags: u16) -> Vec<u8> {
    let data = [&info::EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat();
    answer(option::GO, reply::INFO, &data)
}

fn block_info(min: u32, preferred: u32, max: u32) -> Vec<u8> {
    let data = [min, preferred, max].map(u32::to_be_bytes).concat();
    answer(option::GO, reply::INFO, &[&info::BLOCK_SIZE.to_be_bytes()[..], &data].concat())
}

fn ack(option: u32) -> Vec<u8> {
    answer(option, reply::ACK, &[])
}

fn feed(options: ClientOptions, parts: &[Vec<u8>]) -> (Result<(usize, ClientProgress)>, Vec<u8>) {
    let mut out = Vec::new();
    let fed = ClientHandshake::new(options).feed(&parts.concat(), &mut out);
    (fed, out)
}

fn ready(options: ClientOptions, parts: &[Vec<u8>]) -> ServerInfo {
    match feed(options, parts).0.expect("a handshake") {
        (consumed, ClientProgress::Ready(info)) => {
            assert_eq!(consumed, parts.concat().len());
            info
        }
        other => panic!("not ready: {other:?}"),
    }
}

fn refused(options: ClientOptions, parts: &[Vec<u8>]) -> Error {
    let error = feed(options, parts).0.expect_err("it must be refused");
    assert_eq!(error.class, Class::Connect);
    assert!(error.message.len() <= limits::NBD_STRING && !error.message.contains(char::is_control));
    error
}

#[test]
fn what_the_client_sends_is_pinned() {
    let (fed, out) = feed(wanted(true), &[greeting(3)]);
    assert_eq!(fed.expect("more"), (18, ClientProgress::More));
    assert_eq!(out, b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0");
    let (_, out) = feed(wanted(true), &[greeting(3), ack(option::STRUCTURED_REPLY)]);
    assert_eq!(&out[20..], b"IHAVEOPT\0\0\0\x0a\0\0\0\x1e\0\0\0\x03vol\0\0\0\x01\0\0\0\x0fbase:allocation");
    let (_, out) = feed(wanted(false), &[greeting(0xffff)]);
    assert_eq!(out, b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0b\0\0\0\x03vol\0\x01\0\x03");
}

#[test]
fn go_gives_everything_that_was_negotiated() {
    let context = answer(option::SET_META_CONTEXT, reply::META_CONTEXT, b"\0\0\0\x07base:allocation");
    let unknown = answer(option::GO, reply::INFO, b"\x03\xe7whatever");
    let info = ready(
        wanted(true),
        &[
            greeting(3),
            ack(option::STRUCTURED_REPLY),
            context,
            ack(option::SET_META_CONTEXT),
            unknown,
            export_info(1 << 30, 0x8ed),
            block_info(512, 4096, u32::MAX),
            ack(option::GO),
        ],
    );
    assert_eq!(
        info,
        ServerInfo {
            size: 1 << 30,
            flags: TransmissionFlags(0x8ed),
            structured: true,
            extended: false,
            contexts: vec![(7, "base:allocation".to_owned())],
            min_block: 512,
            preferred_block: 4096,
            max_payload: limits::NBD_PAYLOAD,
        }
    );
}

#[test]
fn a_server_without_structured_replies_or_go_is_fine() {
    let unsup = |option| answer(option, reply::ERR_UNSUP, b"what?");
    let export = [&4096u64.to_be_bytes()[..], &[0, 5]].concat();
    let parts = [greeting(3), unsup(option::STRUCTURED_REPLY), unsup(option::GO), export.clone()];
    let info = ready(wanted(true), &parts);
    assert_eq!((info.size, info.structured, info.min_block, info.preferred_block), (4096, false, 1, 4096));
    // Not fixed newstyle: the name at once, with zeroes behind the answer.
    let padded = [export, vec![0; 124]].concat();
    let (_, out) = feed(wanted(true), &[greeting(0)]);
    assert_eq!(out, b"\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\x03vol");
    assert_eq!(ready(wanted(true), &[greeting(0), padded]).flags, TransmissionFlags(5));
}

#[test]
fn an_oldstyle_server_is_taken_for_the_default_export_only() {
    let old =
        [&b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53"[..], &8192u64.to_be_bytes(), &[0, 0, 0, 3], &[0; 124]]
            .concat();
    let info = ready(ClientOptions::default(), std::slice::from_ref(&old));
    assert_eq!((info.size, info.flags), (8192, TransmissionFlags(3)));
    assert!(refused(wanted(false), &[old]).message.contains("oldstyle"));
}

#[test]
fn c2_replies_to_options_that_were_not_sent_or_too_long_are_refused() {
    let mut huge = answer(option::GO, reply::INFO, &[]);
    huge[16..].copy_from_slice(&u32::MAX.to_be_bytes());
    let server = answer(option::GO, reply::SERVER, &u32::MAX.to_be_bytes());
    // What was not asked for is not agreed on either.
    let (list, chunks) = (ack(option::LIST), ack(option::STRUCTURED_REPLY));
    for part in [huge, server, list, chunks, answer(option::GO, 77, &[])] {
        refused(wanted(false), &[greeting(3), part]);
    }
}

#[test]
fn c3_a_server_may_go_away_at_every_byte() {
    let bytes = [
        greeting(3),
        ack(option::STRUCTURED_REPLY),
        ack(option::SET_META_CONTEXT),
        export_info(1 << 30, 1),
        block_info(1, 512, 1 << 20),
        ack(option::GO),
    ]
    .concat();
    for cut in 0..bytes.len() {
        let (fed, _) = feed(wanted(true), &[bytes[..cut].to_vec()]);
        assert_eq!(fed.expect("no error"), (cut, ClientProgress::More));
    }
    ready(wanted(true), &[bytes]);
}

#[test]
fn c4_a_server_that_requires_tls_or_leaves_is_refused_with_a_goodbye() {
    for kind in [reply::ERR_TLS_REQD, reply::ERR_SHUTDOWN] {
        let (fed, out) = feed(wanted(true), &[greeting(3), answer(option::STRUCTURED_REPLY, kind, b"no")]);
        assert_eq!(fed.expect_err("refused").class, Class::Connect);
        assert!(out.ends_with(b"IHAVEOPT\0\0\0\x02\0\0\0\0"));
    }
}

#[test]
fn c7_impossible_sizes_are_refused_and_both_values_named() {
    for size in [1 << 63, u64::MAX, limits::VOLUME_SIZE + 1] {
        let error = refused(wanted(false), &[greeting(3), export_info(size, 1), ack(option::GO)]);
        assert!(error.message.contains(&size.to_string()), "{error}");
        assert!(error.message.contains(&limits::VOLUME_SIZE.to_string()), "{error}");
    }
}

#[test]
fn c15_short_contexts_and_acknowledgements_with_data_are_refused() {
    let start = [greeting(3), ack(option::STRUCTURED_REPLY)];
    for part in [
        answer(option::SET_META_CONTEXT, reply::META_CONTEXT, &[0, 0, 0]),
        answer(option::SET_META_CONTEXT, reply::ACK, &[0]),
    ] {
        refused(wanted(true), &[start.concat(), part]);
    }
    let context = answer(option::SET_META_CONTEXT, reply::META_CONTEXT, b"\0\0\0\x07base:allocation");
    refused(wanted(true), &[start.concat(), context.clone(), context]);
    assert!(refused(wanted(false), &[greeting(3), ack(option::GO)]).message.contains("size"));
}

#[test]
fn c19_impossible_block_sizes_are_ignored_and_wrong_lengths_refused() {
    let sizes = [
        (3, 4096, 1 << 20),
        (128 << 10, 128 << 10, 1 << 20),
        (4096, 512, 1 << 20),
        (512, 4096, 2048),
        (0, 4096, 1 << 20),
        (512, 256, 1 << 20),
        (512, 512, 1000),
    ];
    for (min, preferred, max) in sizes {
        let parts = [greeting(3), export_info(4096, 1), block_info(min, preferred, max), ack(option::GO)];
        let info = ready(wanted(false), &parts);
        assert_eq!((info.min_block, info.max_payload), (1, limits::NBD_PAYLOAD), "{min} {preferred} {max}");
    }
    for data in [&b"\0\0short"[..], &[0; 13], &[0, 3, 1], &[0], &[]] {
        refused(wanted(false), &[greeting(3), answer(option::GO, reply::INFO, data)]);
    }
    refused(wanted(false), &[greeting(3), export_info(1, 1), export_info(2, 1), ack(option::GO)]);
}

#[test]
fn c20_endless_replies_are_cut_off() {
    let mut many = greeting(3);
    for _ in 0..=limits::NBD_REPLIES {
        many.extend(answer(option::GO, reply::INFO, b"\x03\xe7"));
    }
    assert!(refused(wanted(false), &[many]).message.contains("more than 4096 replies"));
    let mut many = [greeting(3), ack(option::STRUCTURED_REPLY)].concat();
    for _ in 0..=limits::NBD_REPLIES {
        many.extend(answer(option::SET_META_CONTEXT, reply::META_CONTEXT, b"\0\0\0\x07x:unasked"));
    }
    assert!(refused(wanted(true), &[many]).message.contains("more than 4096 replies"));
    // Few, but each as long as can be.
    let long = answer(option::GO, reply::INFO, &[&b"\x03\xe7"[..], &vec![0; 65_000]].concat());
    let many = [greeting(3), long.repeat(limits::NBD_HEARD as usize / 65_000 + 1)].concat();
    assert!(refused(wanted(false), &[many]).message.contains("the server's replies have no end"));
    // Exports are never asked for: the first one told is too many.
    let server = answer(option::GO, reply::SERVER, b"\0\0\0\x03vol");
    assert!(refused(wanted(false), &[greeting(3), server]).message.contains("reply of type 2"));
}

#[test]
fn c21_c24_messages_of_the_server_are_cleaned_and_cut() {
    let dirty = answer(option::GO, reply::ERR_UNKNOWN, b"a\x1b[2Jb\0\n");
    let error = refused(wanted(false), &[greeting(3), dirty]);
    assert_eq!(error.message, "NBD handshake: export 'vol': no such export: a?[2Jb??");
    let long = answer(option::GO, reply::ERR_POLICY, &[b'm'; limits::NBD_STRING]);
    assert_eq!(refused(wanted(false), &[greeting(3), long]).message.len(), limits::NBD_STRING);
}

#[test]
fn c24_what_fills_a_buffer_exactly_is_taken_and_one_byte_more_is_not() {
    let description = |len: usize| {
        let data = [&info::DESCRIPTION.to_be_bytes()[..], &vec![b'd'; len - 2]].concat();
        [greeting(3), answer(option::GO, reply::INFO, &data), export_info(4096, 1), ack(option::GO)]
    };
    let most = limits::NBD_OPTION_LEN as usize;
    assert_eq!(ready(wanted(false), &description(most)).size, 4096);
    refused(wanted(false), &description(most + 1));
    // The message of an error, and the longest chunk of one.
    let body = |len: usize| [&5u32.to_be_bytes()[..], &(len as u16).to_be_bytes(), &vec![b'm'; len]].concat();
    for len in [limits::NBD_STRING, limits::NBD_ERROR_CHUNK as usize - 6] {
        let Reply::Error { message, .. } = whole(&chunk_bytes(1, chunk::ERROR, &body(len))) else {
            panic!("an error")
        };
        assert_eq!(message.len(), limits::NBD_STRING);
    }
    let longer = body(limits::NBD_ERROR_CHUNK as usize - 5);
    assert!(parse(&chunk_bytes(1, chunk::ERROR, &longer)).is_err());
    let exact = [&body(limits::NBD_STRING)[..], &8192u64.to_be_bytes()].concat();
    let Reply::Error { offset, .. } = whole(&chunk_bytes(1, chunk::ERROR_OFFSET, &exact)) else {
        panic!("an error")
    };
    assert_eq!(offset, Some(8192));
}

#[test]
fn c23_unknown_errors_of_an_option_are_errors() {
    let error = refused(wanted(false), &[greeting(3), answer(option::GO, u32::MAX, &[])]);
    assert!(error.message.contains("the server refused"));
}

fn chunk_bytes(flags: u16, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = wire::MAGIC_CHUNK.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(9u64.to_be_bytes());
    put_counted(&mut out, body);
    out
}

fn parse(bytes: &[u8]) -> Result<Option<(usize, Reply)>> {
    ReplyParser::new(true).parse(bytes)
}

fn whole(bytes: &[u8]) -> Reply {
    for cut in 0..bytes.len() {
        assert_eq!(parse(&bytes[..cut]).expect("no violation"), None, "cut at {cut}");
        assert!(ReplyParser::new(true).wanted(&bytes[..cut]) > cut);
    }
    let (consumed, reply) = parse(bytes).expect("no violation").expect("a reply");
    assert_eq!(consumed, bytes.len());
    reply
}

#[test]
fn all_kinds_of_replies_are_read_once_they_are_whole() {
    let simple = |error: u32| {
        [&wire::MAGIC_SIMPLE.to_be_bytes()[..], &error.to_be_bytes(), &9u64.to_be_bytes()].concat()
    };
    assert_eq!(whole(&simple(0)), Reply::Simple { cookie: 9, error: None });
    assert_eq!(whole(&simple(u32::MAX)), Reply::Simple { cookie: 9, error: Some(Errno::Inval) });
    assert_eq!(whole(&chunk_bytes(1, chunk::NONE, &[])), Reply::None { cookie: 9 });
    let hole = [&4096u64.to_be_bytes()[..], &512u32.to_be_bytes()].concat();
    assert_eq!(
        whole(&chunk_bytes(0, chunk::OFFSET_HOLE, &hole)),
        Reply::Hole { cookie: 9, offset: 4096, len: 512, done: false }
    );
    let data = chunk_bytes(1, chunk::OFFSET_DATA, &[&4096u64.to_be_bytes()[..], b"abc"].concat());
    let expected = Reply::Data { cookie: 9, offset: 4096, len: 3, done: true };
    assert_eq!(parse(&data[..28]).expect("no violation"), Some((28, expected)));
    let status = [1u32, 65536, 3, 512, 0].map(u32::to_be_bytes).concat();
    assert_eq!(
        whole(&chunk_bytes(1, chunk::BLOCK_STATUS, &status)),
        Reply::BlockStatus { cookie: 9, context: 1, extents: vec![(65536, 3), (512, 0)], done: true }
    );
    let body = [&5u32.to_be_bytes()[..], b"\0\x03b\x1bd", &4097u64.to_be_bytes()].concat();
    let error =
        |offset| Reply::Error { cookie: 9, error: Errno::Io, offset, message: "b?d".to_owned(), done: true };
    assert_eq!(whole(&chunk_bytes(1, chunk::ERROR_OFFSET, &body)), error(Some(4097)));
    assert_eq!(whole(&chunk_bytes(1, chunk::ERROR, &body[..9])), error(None));
    // An error type nobody knows yet still fails the request, and only that.
    assert_eq!(whole(&chunk_bytes(1, 0x8abc, &body)), error(None));
}

#[test]
fn c1_c14_c17_c18_chunks_that_cannot_be_are_violations() {
    let data = |offset: u64, more: &[u8]| [&offset.to_be_bytes()[..], more].concat();
    let long_message = [&5u32.to_be_bytes()[..], &[0, 9], b"abc"].concat();
    for (kind, flags, body) in [
        (chunk::OFFSET_DATA, 0, data(u64::MAX, b"abc")),
        (chunk::OFFSET_HOLE, 0, data(u64::MAX, &512u32.to_be_bytes())),
        (chunk::OFFSET_HOLE, 0, data(0, &0u32.to_be_bytes())),
        (chunk::OFFSET_HOLE, 0, data(0, &[0; 5])),
        (chunk::OFFSET_DATA, 0, data(0, &[])),
        (chunk::NONE, 0, vec![]),
        (chunk::NONE, 1, vec![0]),
        (chunk::BLOCK_STATUS, 1, vec![0; 4]),
        (chunk::BLOCK_STATUS, 1, vec![0; 13]),
        (chunk::BLOCK_STATUS, 1, vec![0; 12]),
        (chunk::ERROR, 1, vec![0; 5]),
        (chunk::ERROR, 1, vec![0; 6]),
        (chunk::ERROR, 1, long_message.clone()),
        (chunk::ERROR_OFFSET, 1, vec![0; 13]),
        (chunk::ERROR_OFFSET, 1, [&5u32.to_be_bytes()[..], &[0, 4], &[b'm'; 10]].concat()),
        (0x8abc, 1, long_message),
        (77, 1, vec![]),
    ] {
        let error = parse(&chunk_bytes(flags, kind, &body)).expect_err("a violation");
        assert_eq!(error.class, Class::Io);
    }
    // Lengths are judged before a byte of the body is there.
    for kind in [chunk::OFFSET_DATA, chunk::BLOCK_STATUS, chunk::ERROR, chunk::ERROR_OFFSET, 0x8abc, 77] {
        let mut header = chunk_bytes(1, kind, &[]);
        header[16..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(parse(&header).is_err());
        assert_eq!(ReplyParser::new(true).wanted(&header), 20);
    }
    // Those of the shape that a chunk of extents has.
    let mut header = chunk_bytes(1, chunk::BLOCK_STATUS, &[]);
    header[16..].copy_from_slice(&0xffff_fffcu32.to_be_bytes());
    assert!(parse(&header).is_err());
    assert!(parse(&0x6744_6699u32.to_be_bytes()).is_err());
}

#[test]
fn c17_lengths_of_64_bits_are_judged_before_a_byte_of_the_body_is_there() {
    for kind in [chunk::OFFSET_DATA, chunk::BLOCK_STATUS_EXT, chunk::ERROR, chunk::ERROR_OFFSET, 0x8abc, 77] {
        // The lower half of some would be a legal length.
        for len in [1 << 63, u64::MAX, (1 << 32) + 24, (1 << 32) + 16, 0xffff_fff8] {
            let head =
                [&wire::MAGIC_EXTENDED_REPLY.to_be_bytes()[..], &1u16.to_be_bytes(), &kind.to_be_bytes()];
            let fields = [7u64, 4096, len].map(u64::to_be_bytes);
            let header = [head.concat(), fields.concat()].concat();
            assert!(long_parser().parse(&header).is_err(), "{kind} {len}");
            assert_eq!(long_parser().wanted(&header), 32);
        }
    }
}

/// A parser that agreed on extended headers.
fn long_parser() -> ReplyParser {
    let info = ServerInfo {
        size: 1 << 30,
        flags: TransmissionFlags(1),
        structured: true,
        extended: true,
        contexts: Vec::new(),
        min_block: 1,
        preferred_block: 4096,
        max_payload: 1 << 20,
    };
    ReplyParser::of(&info)
}

/// One chunk for it.
fn parse_long(kind: u16, body: &[u8]) -> Result<Option<(usize, Reply)>> {
    let mut bytes = wire::MAGIC_EXTENDED_REPLY.to_be_bytes().to_vec();
    bytes.extend(1u16.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(7u64.to_be_bytes());
    bytes.extend(4096u64.to_be_bytes());
    bytes.extend((body.len() as u64).to_be_bytes());
    bytes.extend(body);
    let mut parser = long_parser();
    for cut in 0..bytes.len() {
        match parser.parse(&bytes[..cut]) {
            Ok(None) => assert!(parser.wanted(&bytes[..cut]) > cut),
            Ok(Some(_)) => panic!("before it was whole"),
            Err(error) => return Err(error),
        }
    }
    let parsed = parser.parse(&bytes)?;
    assert_eq!(parser.echo(), Some(4096));
    Ok(parsed)
}

#[test]
fn c8_extents_of_64_bits_keep_all_their_bits() {
    let extent = |len: u64, status: u64| [len.to_be_bytes(), status.to_be_bytes()].concat();
    let body = |count: u32, extents: &[Vec<u8>]| {
        [&3u32.to_be_bytes()[..], &count.to_be_bytes(), &extents.concat()].concat()
    };
    let two = body(2, &[extent(1 << 40, u64::MAX), extent(512, 1 << 32)]);
    let extents = vec![(1 << 40, u64::MAX), (512, 1 << 32)];
    let reply = Reply::BlockStatus { cookie: 7, context: 3, extents, done: true };
    assert_eq!(parse_long(chunk::BLOCK_STATUS_EXT, &two).expect("legal"), Some((32 + two.len(), reply)));
    for (kind, body) in [
        (chunk::BLOCK_STATUS_EXT, body(1, &[extent(1, 0), extent(1, 0)])),
        (chunk::BLOCK_STATUS_EXT, body(3, &[extent(1, 0), extent(1, 0)])),
        (chunk::BLOCK_STATUS_EXT, body(1, &[extent(0, 0)])),
        (chunk::BLOCK_STATUS_EXT, body(0, &[])),
        (chunk::BLOCK_STATUS, vec![1; 12]),
    ] {
        assert!(parse_long(kind, &body).is_err(), "{kind} {body:?}");
    }
    assert!(parse(&chunk_bytes(1, chunk::BLOCK_STATUS_EXT, &two)).is_err(), "not without extended headers");
}

#[test]
fn s32_an_error_has_its_message_and_its_offset() {
    let mut body = vec![0, 0, 0, 5, 0, 3, b'b', b'a', b'd'];
    body.extend(8192u64.to_be_bytes());
    let error =
        |offset| Reply::Error { cookie: 7, error: Errno::Io, offset, message: "bad".to_owned(), done: true };
    assert_eq!(parse_long(chunk::ERROR_OFFSET, &body).expect("legal"), Some((32 + 17, error(Some(8192)))));
    assert_eq!(parse_long(chunk::ERROR, &body[..9]).expect("legal"), Some((32 + 9, error(None))));
    // Its offset cut off, or taken by a message that is longer.
    assert!(parse_long(chunk::ERROR_OFFSET, &body[..16]).is_err());
    body[5] = 4;
    assert!(parse_long(chunk::ERROR_OFFSET, &body).is_err());
}

#[test]
fn extended_headers_are_asked_for_first_and_done_without_where_they_are_not_known() {
    for known in [true, false] {
        let mut shake = ClientHandshake::extended(ClientOptions { contexts: Vec::new(), ..wanted(true) });
        let mut out = Vec::new();
        let unsup = |option| answer(option, reply::ERR_UNSUP, b"what?");
        let first = if known { ack(option::EXTENDED_HEADERS) } else { unsup(option::EXTENDED_HEADERS) };
        let second = if known { Vec::new() } else { ack(option::STRUCTURED_REPLY) };
        let rest = [greeting(3), first, second, export_info(1 << 20, 0x1ed), ack(option::GO)].concat();
        let (_, progress) = shake.feed(&rest, &mut out).expect("legal");
        let ClientProgress::Ready(info) = progress else { panic!("{progress:?}") };
        assert_eq!((info.extended, info.structured), (known, true));
        assert_eq!(out[12..16], option::EXTENDED_HEADERS.to_be_bytes());
    }
    // The old way to open is closed then.
    let mut shake = ClientHandshake::extended(wanted(false));
    let parts =
        [greeting(3), ack(option::EXTENDED_HEADERS), answer(option::SET_META_CONTEXT, reply::ACK, &[])];
    let end = answer(option::GO, reply::ERR_UNSUP, b"");
    assert!(shake.feed(&[parts.concat(), end].concat(), &mut Vec::new()).is_err());
}

#[test]
fn c11_the_style_of_replies_must_be_the_negotiated_one() {
    assert!(ReplyParser::new(false).parse(&chunk_bytes(1, chunk::NONE, &[])).is_err());
    let simple = Reply::Simple { cookie: 1, error: None };
    assert!(ReadAssembly::new(true, 0, 512).accept(&simple).is_err());
    assert_eq!(ReadAssembly::new(false, 0, 512).accept(&simple).expect("legal"), Assembly::Complete);
    assert_eq!(PlainAssembly::default().accept(&simple).expect("legal"), Assembly::Complete);
}

fn data(offset: u64, len: u32, done: bool) -> Reply {
    Reply::Data { cookie: 1, offset, len, done }
}

fn hole(offset: u64, len: u32, done: bool) -> Reply {
    Reply::Hole { cookie: 1, offset, len, done }
}

fn failure(offset: Option<u64>, done: bool) -> Reply {
    Reply::Error { cookie: 1, error: Errno::Io, offset, message: String::new(), done }
}

/// The verdicts on a READ of 100 bytes at 1000; a violation is `None` and the last.
fn verdicts(replies: &[Reply]) -> Vec<Option<Assembly>> {
    let mut assembly = ReadAssembly::new(true, 1000, 100);
    replies.iter().map(|reply| assembly.accept(reply).ok()).collect()
}

#[test]
fn c13_a_read_is_complete_only_when_every_byte_came_exactly_once() {
    use Assembly::{Complete, Failed, Incomplete, More};
    let none = Reply::None { cookie: 1 };
    assert_eq!(verdicts(&[data(1000, 100, true)]), [Some(Complete)]);
    assert_eq!(verdicts(&[hole(1000, 100, false), none.clone()]), [Some(More), Some(Complete)]);
    assert_eq!(
        verdicts(&[
            data(1050, 10, false),
            hole(1080, 20, false),
            data(1000, 50, false),
            data(1060, 20, true)
        ]),
        [Some(More), Some(More), Some(More), Some(Complete)]
    );
    assert_eq!(verdicts(std::slice::from_ref(&none)), [Some(Incomplete)]);
    assert_eq!(verdicts(&[data(1001, 99, true)]), [Some(Incomplete)]);
    assert_eq!(verdicts(&[data(1000, 50, false), data(1049, 51, true)]), [Some(More), None]);
    assert_eq!(verdicts(&[data(1050, 50, false), data(1000, 51, true)]), [Some(More), None]);
    assert_eq!(verdicts(&[data(1050, 10, false), data(1055, 20, true)]), [Some(More), None]);
    assert_eq!(verdicts(&[data(999, 100, true)]), [None]);
    assert_eq!(verdicts(&[data(1000, 101, true)]), [None]);
    assert_eq!(verdicts(&[hole(u64::MAX, 1, true)]), [None]);
    assert_eq!(
        verdicts(&[data(1000, 100, false), failure(Some(1050), false), none]),
        [Some(More), Some(More), Some(Failed(Errno::Io))]
    );
    assert_eq!(verdicts(&[failure(None, true)]), [Some(Failed(Errno::Io))]);
}

#[test]
fn c12_c14_content_of_another_command_and_errors_elsewhere_are_violations() {
    let status = Reply::BlockStatus { cookie: 1, context: 1, extents: vec![(1, 0)], done: true };
    assert_eq!(verdicts(std::slice::from_ref(&status)), [None]);
    assert_eq!(verdicts(&[failure(Some(1100), true)]), [None]);
    assert_eq!(verdicts(&[failure(Some(999), true)]), [None]);
    for reply in [data(0, 1, true), hole(0, 1, true), status] {
        assert!(PlainAssembly::default().accept(&reply).is_err());
    }
    let mut plain = PlainAssembly::default();
    assert_eq!(plain.accept(&failure(None, false)).expect("legal"), Assembly::More);
    let end = plain.accept(&Reply::None { cookie: 1 }).expect("legal");
    assert_eq!(end, Assembly::Failed(Errno::Io));
}

#[test]
fn a_read_scattered_on_purpose_is_cut_off() {
    let mut assembly = ReadAssembly::new(true, 0, 1 << 20);
    let mut at = 1;
    let error = loop {
        match assembly.accept(&data(at, 1, false)) {
            Ok(_) => at += 2,
            Err(error) => break error,
        }
    };
    assert_eq!(at, 1 + 2 * limits::NBD_FRAGMENTS as u64);
    assert!(error.message.contains("scattered"));
}

proptest! {
    #[test]
    fn random_servers_neither_panic_nor_hoard(
        kinds in proptest::collection::vec((0u32..12, 0u32..5, any::<bool>()), 0..8),
        data in proptest::collection::vec(any::<u8>(), 0..40),
        flags in any::<u16>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = greeting(flags);
        for (option, kind, error) in kinds {
            bytes.extend(answer(option, kind | if error { reply::ERROR } else { 0 }, &data));
        }
        bytes.extend(tail);
        let mut shake = ClientHandshake::new(wanted(flags % 3 == 0));
        let mut out = Vec::new();
        for byte in &bytes {
            match shake.feed(std::slice::from_ref(byte), &mut out) {
                Ok((consumed, ClientProgress::More)) => prop_assert_eq!(consumed, 1),
                _ => break,
            }
            prop_assert!(shake.held() <= 2 * limits::NBD_OPTION_LEN as usize);
        }
    }

    #[test]
    fn random_replies_never_panic_and_never_want_much(
        kind in prop_oneof![0u16..8, 0x8000u16..0x8004, any::<u16>()],
        flags in any::<u16>(),
        len in prop_oneof![0u32..64, any::<u32>()],
        body in proptest::collection::vec(any::<u8>(), 0..128),
        structured in any::<bool>(),
    ) {
        let mut bytes = chunk_bytes(flags, kind, &body);
        bytes[16..20].copy_from_slice(&len.to_be_bytes());
        let mut parser = ReplyParser::new(structured);
        prop_assert!(parser.wanted(&bytes) <= 24 + 8 * limits::NBD_EXTENTS_IN);
        if let Ok(Some((consumed, reply))) = parser.parse(&bytes) {
            prop_assert!(consumed <= bytes.len());
            let _ = ReadAssembly::new(structured, 0, 4096).accept(&reply);
        }
        let _ = parser.parse(&body);
    }

    #[test]
    fn an_assembly_agrees_with_a_bitmap(
        pieces in proptest::collection::vec((0u64..40, 1u32..12), 1..30),
    ) {
        let mut assembly = ReadAssembly::new(true, 4, 32);
        let mut seen = [false; 64];
        for (offset, len) in pieces {
            let range = offset as usize..offset as usize + len as usize;
            let legal = range.start >= 4 && range.end <= 36 && !seen[range.clone()].contains(&true);
            prop_assert_eq!(assembly.accept(&data(offset, len, false)).is_ok(), legal);
            if !legal {
                break;
            }
            seen[range].fill(true);
        }
        let complete = !seen[4..36].contains(&false);
        let mut ended = assembly.clone();
        if let Ok(state) = ended.accept(&Reply::None { cookie: 1 }) {
            prop_assert_eq!(state == Assembly::Complete, complete);
        }
    }
}
