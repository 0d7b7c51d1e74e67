//! The NBD protocol: what a client sends to our server, what a server sends to our client.

use super::Seen;
use super::mutate::hash;
use mirror::nbd::client::{
    Assembly, ClientHandshake, ClientOptions, ClientProgress, PlainAssembly, ReadAssembly, Reply,
    ReplyParser, ServerInfo,
};
use mirror::nbd::server::reply::{self, Style, To};
use mirror::nbd::server::request::drainable;
use mirror::nbd::server::{ExportInfo, Exports, Handshake, Progress, Session, check, payload_len};
use mirror::nbd::wire::option;
use mirror::nbd::{Command, CommandFlags, Errno, Request, TransmissionFlags};

const SIZE: u64 = 1 << 30;

struct Shelf;

impl Exports for Shelf {
    fn list(&self) -> Vec<String> {
        vec!["vol".into(), "other".into()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        ["", "vol"].contains(&name).then(|| ExportInfo {
            size: SIZE,
            flags: TransmissionFlags(0xfff),
            description: "a volume".into(),
            min_block: 512,
            preferred_block: 4096,
            max_block: 1 << 20,
        })
    }

    fn contexts(&self, _name: &str) -> Vec<String> {
        vec!["base:allocation".into(), "x-mirror:dirty/far".into()]
    }
}

/// Feeds a handshake in pieces of this size: what was taken, how it ended, what was answered.
fn shake(input: &[u8], piece: usize) -> (usize, String, Vec<u8>) {
    let (mut shake, mut out) = Handshake::new();
    let mut taken = 0;
    for part in input.chunks(piece.max(1)) {
        let (n, progress) = shake.feed(part, &Shelf, &mut out);
        taken += n;
        if let Progress::Transmission(session) = &progress {
            assert_eq!(session.info.size, SIZE);
            assert!(!session.extended || session.structured);
        }
        match progress {
            Progress::More => assert_eq!(n, part.len(), "all is taken while more is wanted"),
            end => return (taken, format!("{end:?}"), out),
        }
    }
    (taken, "More".into(), out)
}

/// However it arrives, it means the same.
pub fn server_handshake(input: &[u8]) -> Seen {
    let whole = shake(input, usize::MAX);
    for piece in [1, 7] {
        assert!(whole == shake(input, piece), "in pieces of {piece} bytes it means something else");
    }
    // An option answers with at most its names and messages.
    assert!(whole.2.len() <= 18 + 4096 + 64 * input.len() + 4096 * (input.len() / 16 + 1));
    let kinds: Vec<u8> = whole
        .2
        .windows(20)
        .filter(|w| w[..4] == [0, 3, 0xe8, 0x89])
        .flat_map(|w| w[8..16].to_vec())
        .collect();
    hash(&[whole.1.as_bytes(), &kinds].concat())
}

pub fn server_handshakes() -> Vec<Vec<u8>> {
    let name = |n: &str| [&(n.len() as u32).to_be_bytes()[..], n.as_bytes()].concat();
    let go = [name("vol"), vec![0, 1, 0, 3]].concat();
    let meta = [name("vol"), vec![0, 0, 0, 1], name("base:allocation")].concat();
    let mut all = Vec::new();
    for options in [
        vec![(option::GO, go.clone())],
        vec![
            (option::STRUCTURED_REPLY, vec![]),
            (option::SET_META_CONTEXT, meta.clone()),
            (option::GO, go.clone()),
        ],
        vec![(option::EXTENDED_HEADERS, vec![]), (option::LIST_META_CONTEXT, meta), (option::INFO, go)],
        vec![(option::EXPORT_NAME, b"vol".to_vec())],
        vec![
            (option::LIST, vec![]),
            (option::STARTTLS, vec![]),
            (99, vec![1, 2, 3]),
            (option::ABORT, vec![]),
        ],
    ] {
        let mut bytes = vec![0, 0, 0, 3];
        for (number, data) in options {
            bytes.extend(b"IHAVEOPT");
            bytes.extend(number.to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(&data);
        }
        all.push(bytes);
    }
    all
}

fn greet(input: &[u8], piece: usize, extended: bool) -> (String, Vec<u8>) {
    let options =
        ClientOptions { export: "vol".into(), contexts: vec!["base:allocation".into()], structured: true };
    let mut shake = if extended { ClientHandshake::extended(options) } else { ClientHandshake::new(options) };
    let mut out = Vec::new();
    for part in input.chunks(piece.max(1)) {
        match shake.feed(part, &mut out) {
            Ok((n, ClientProgress::More)) => assert_eq!(n, part.len()),
            Ok((_, ClientProgress::StartTls)) => unreachable!("nobody asked for it"),
            Ok((_, ClientProgress::Ready(info))) => {
                assert!(info.min_block.is_power_of_two() && info.max_payload <= 32 << 20);
                assert!(info.size <= 1 << 60);
                return (format!("{info:?}"), out);
            }
            Err(error) => {
                assert!(!error.message.chars().any(char::is_control), "{error}");
                return (error.message, out);
            }
        }
    }
    ("More".into(), out)
}

/// However it arrives, it means the same; the first byte says what our client asks for.
pub fn client_handshake(input: &[u8]) -> Seen {
    let Some((first, rest)) = input.split_first() else { return 0 };
    let whole = greet(rest, usize::MAX, first & 1 == 1);
    for piece in [1, 13] {
        assert!(
            whole == greet(rest, piece, first & 1 == 1),
            "in pieces of {piece} bytes it means something else"
        );
    }
    let words: String = whole.0.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
    hash(&[words.as_bytes(), &(whole.1.len() as u32).to_be_bytes()].concat())
}

pub fn client_handshakes() -> Vec<Vec<u8>> {
    let answer = |option: u32, kind: u32, data: &[u8]| {
        let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
        for field in [option, kind, data.len() as u32] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    };
    let export = [&[0, 0][..], &SIZE.to_be_bytes(), &0x8edu16.to_be_bytes()].concat();
    let context = [&[0, 0, 0, 7][..], b"base:allocation"].concat();
    let mut all = Vec::new();
    for extended in [0u8, 1] {
        let first = if extended == 1 { option::EXTENDED_HEADERS } else { option::STRUCTURED_REPLY };
        let mut bytes = vec![extended];
        bytes.extend(b"NBDMAGICIHAVEOPT\0\x03");
        bytes.extend(answer(first, 1, &[]));
        bytes.extend(answer(option::SET_META_CONTEXT, 4, &context));
        bytes.extend(answer(option::SET_META_CONTEXT, 1, &[]));
        bytes.extend(answer(option::GO, 3, &export));
        bytes.extend(answer(option::GO, 1, &[]));
        all.push(bytes);
    }
    all.push([&b"\0NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"[..], &[0; 136]].concat());
    all
}

fn session(choice: u8) -> Session {
    let flags = TransmissionFlags(if choice & 4 == 0 { 0xfff } else { 0x103 });
    let info = ExportInfo { flags, min_block: 1 << (choice >> 5), ..Shelf.find("vol").expect("vol") };
    Session {
        export: "vol".into(),
        info,
        structured: choice & 3 != 0,
        extended: choice & 3 == 3,
        contexts: if choice & 8 == 0 { vec![(1, "base:allocation".into())] } else { Vec::new() },
        enforce_block: choice & 16 != 0,
    }
}

/// A stream of requests as the server walks through it; the first byte chooses the session.
pub fn requests(input: &[u8]) -> Seen {
    let Some((choice, mut rest)) = input.split_first() else { return 0 };
    let session = session(*choice);
    let mut seen = vec![*choice];
    while rest.len() >= session.header_len() {
        let (head, behind) = rest.split_at(session.header_len());
        let Some(request) = session.parse(head) else {
            seen.push(255);
            break;
        };
        let again: Vec<u8> =
            if session.extended { request.encode_extended().to_vec() } else { request.encode().to_vec() };
        assert_eq!(again, head, "what was read is what is written");
        if !drainable(&request, session.extended) {
            seen.push(254);
            break;
        }
        let payload = payload_len(&request, session.extended);
        let verdict = check(&request, &session);
        if verdict.is_ok() && !matches!(request.command, Command::Disc | Command::Flush) {
            let end = request.offset.checked_add(request.length).expect("no wrap");
            assert!(end <= session.info.size, "inside the export");
            let moved = matches!(request.command, Command::Read | Command::Write);
            assert!(!moved || request.length <= u64::from(session.max_payload()));
            assert_eq!(payload, if request.command == Command::Write { request.length } else { 0 });
        }
        seen.extend([request.command.to_wire() as u8, verdict.map_or_else(Errno::to_wire, |()| 0) as u8]);
        if payload > behind.len() as u64 || seen.len() > 12 {
            break;
        }
        rest = &behind[payload as usize..];
    }
    hash(&seen)
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for choice in [0u8, 1, 3, 7, 19, 35] {
        let session = session(choice);
        let mut bytes = vec![choice];
        for (number, command) in [0, 3, 1, 4, 6, 7, 5, 2].map(Command::from_wire).into_iter().enumerate() {
            let write = command == Command::Write;
            let flags =
                if write && session.extended { CommandFlags::PAYLOAD_LEN } else { CommandFlags::NONE };
            let length = if command == Command::Flush { 0 } else { 512 };
            let request = Request { flags, command, cookie: number as u64, offset: 4096, length };
            if session.extended {
                bytes.extend(request.encode_extended());
            } else {
                bytes.extend(request.encode());
            }
            if write {
                bytes.extend([7; 512]);
            }
        }
        all.push(bytes);
    }
    all
}

fn info(choice: u8) -> ServerInfo {
    ServerInfo {
        size: SIZE,
        flags: TransmissionFlags(0xfff),
        structured: choice & 3 != 0,
        extended: choice & 3 == 3,
        contexts: Vec::new(),
        min_block: 1,
        preferred_block: 4096,
        max_payload: 32 << 20,
    }
}

/// A stream of replies to a READ of 64 KiB at 4096 and to a request without content, as our client walks through it.
pub fn replies(input: &[u8]) -> Seen {
    let Some((choice, mut rest)) = input.split_first() else { return 0 };
    let info = info(*choice);
    let mut parser = ReplyParser::of(&info);
    let mut read = ReadAssembly::new(info.structured, 4096, 65536);
    let mut plain = PlainAssembly::default();
    let (mut covered, mut seen) = (0u64, vec![*choice & 3]);
    loop {
        let wanted = parser.wanted(rest);
        assert!(wanted <= 32 + 8 + (16 << 20), "{wanted} bytes are wanted");
        let (taken, reply) = match parser.parse(rest) {
            Ok(Some(found)) => found,
            Ok(None) => {
                assert!(wanted > rest.len(), "it waits for {wanted} bytes and has {}", rest.len());
                break;
            }
            Err(error) => {
                let words = error.message.chars().filter(|c| !c.is_ascii_hexdigit()).collect::<String>();
                seen.extend(hash(words.as_bytes()).to_be_bytes());
                break;
            }
        };
        rest = &rest[taken..];
        seen.push(kind(&reply));
        let _ = plain.accept(&reply);
        let Ok(state) = read.accept(&reply) else {
            seen.push(99);
            break;
        };
        if let Reply::Data { offset, len, .. } | Reply::Hole { offset, len, .. } = &reply {
            assert!(*offset >= 4096 && offset + u64::from(*len) <= 4096 + 65536, "inside the request");
            covered += u64::from(*len);
        }
        if state == Assembly::Complete && info.structured {
            assert_eq!(covered, 65536, "complete means every byte, once");
        }
        if state != Assembly::More || seen.len() > 12 {
            break;
        }
        let payload = match &reply {
            Reply::Data { len, .. } => *len as usize,
            _ => 0,
        };
        if payload > rest.len() {
            break;
        }
        rest = &rest[payload..];
    }
    hash(&seen)
}

const fn kind(reply: &Reply) -> u8 {
    match reply {
        Reply::Simple { .. } => 1,
        Reply::Data { .. } => 2,
        Reply::Hole { .. } => 3,
        Reply::None { .. } => 4,
        Reply::Error { .. } => 5,
        Reply::BlockStatus { .. } => 6,
    }
}

pub fn reply_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (choice, style) in [(0u8, Style::Simple), (1, Style::Structured), (3, Style::Extended)] {
        let to = To { style, cookie: 7, offset: 4096 };
        let mut bytes = vec![choice];
        reply::read_ok_header(&mut bytes, to, 512);
        bytes.extend([9; 512]);
        all.push(bytes);
        for write in [
            (|out: &mut Vec<u8>, to| reply::error(out, to, Errno::Io, Some("bad"))) as fn(&mut Vec<u8>, To),
            |out, to| reply::done(out, to),
            |out, to| reply::block_status(out, to, 1, &[(4096, 3), (65536, 0)], true),
            |out, to| reply::read_hole(out, to, 65536),
        ] {
            if style != Style::Simple {
                let mut bytes = vec![choice];
                write(&mut bytes, to);
                all.push(bytes);
            }
        }
    }
    all
}
