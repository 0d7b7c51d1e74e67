//! Both halves against each other, and the blocking client against servers that misbehave.

mod liars;
mod peers;

use super::client::{
    Blocking, ClientHandshake, ClientOptions, ClientProgress, Reply, ReplyParser, ServerInfo,
};
use super::server::reply::{Style, To};
use super::server::tests::Shelf;
use super::server::{Handshake, Progress, Session, reply};
use super::uri::NbdUri;
use super::wire::{Errno, TransmissionFlags};
use crate::base::{Address, Class};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

fn options(export: &str, structured: bool) -> ClientOptions {
    let contexts = ["base:allocation", "x-mirror:dirty/far", "no:such"].map(str::to_owned).to_vec();
    ClientOptions { export: export.to_owned(), contexts, structured }
}

/// Lets both talk until both are done, every message cut into pieces of `piece` bytes.
fn shake_hands(options: ClientOptions, piece: usize) -> (ServerInfo, Session) {
    let (mut server, mut to_client) = Handshake::new();
    let mut client = ClientHandshake::new(options);
    let mut to_server = Vec::new();
    let (mut info, mut session) = (None, None);
    while info.is_none() || session.is_none() {
        let mut moved = false;
        for part in std::mem::take(&mut to_client).chunks(piece) {
            moved = true;
            assert!(info.is_none(), "bytes after the handshake");
            match client.feed(part, &mut to_server).expect("a handshake") {
                (n, ClientProgress::More) => assert_eq!(n, part.len()),
                (_, ClientProgress::StartTls) => panic!("nobody asked for it"),
                (n, ClientProgress::Ready(ready)) => {
                    assert_eq!(n, part.len());
                    info = Some(ready);
                }
            }
        }
        for part in std::mem::take(&mut to_server).chunks(piece) {
            moved = true;
            match server.feed(part, &Shelf, &mut to_client) {
                (n, Progress::More) => assert_eq!(n, part.len()),
                (_, Progress::Transmission(open)) => session = Some(open),
                (_, Progress::Close | Progress::StartTls) => panic!("closed"),
            }
        }
        assert!(moved, "both wait for the other");
    }
    (info.expect("ready"), session.expect("open"))
}

#[test]
fn client_and_server_agree_at_every_fragmentation() {
    for piece in (1..70).chain([4096]) {
        for structured in [false, true] {
            for (export, size) in [("vol", 1 << 20), ("other", 4096), ("", 1 << 20), ("vol@meta", 512)] {
                let (info, session) = shake_hands(options(export, structured), piece);
                assert_eq!((info.size, session.info.size), (size, size));
                assert_eq!(session.export, export);
                assert_eq!((info.structured, session.structured), (structured, structured));
                assert_eq!(info.contexts, session.contexts);
                assert_eq!(info.flags, session.info.flags);
                assert_eq!(info.flags.has(TransmissionFlags::SEND_DF), structured);
                assert_eq!(info.max_payload, session.max_payload());
                let contexts = if structured { 1 + usize::from(export == "vol") } else { 0 };
                assert_eq!(info.contexts.len(), contexts);
            }
        }
    }
}

#[test]
fn what_the_server_writes_the_client_reads() {
    let mut out = Vec::new();
    let to = |cookie| To { style: Style::Structured, cookie, offset: 4096 };
    reply::error(&mut out, to(1), Errno::NoSpc, Some("full"));
    reply::read_hole(&mut out, to(2), 512);
    reply::block_status(&mut out, to(3), 7, &[(512, 1), (1024, 0)], true);
    reply::chunk_header(&mut out, 1, 0, 4, 0);
    reply::simple(&mut out, 5, Err(Errno::Shutdown));
    reply::read_ok_header(&mut out, to(6), 4);
    let mut parser = ReplyParser::new(true);
    let mut rest = &out[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (consumed, reply) = parser.parse(rest).expect("legal").expect("whole");
        rest = &rest[consumed..];
        seen.push(reply);
    }
    let message = "full".to_owned();
    assert_eq!(
        seen,
        [
            Reply::Error { cookie: 1, error: Errno::NoSpc, offset: None, message, done: true },
            Reply::Hole { cookie: 2, offset: 4096, len: 512, done: true },
            Reply::BlockStatus { cookie: 3, context: 7, extents: vec![(512, 1), (1024, 0)], done: true },
            Reply::None { cookie: 4 },
            Reply::Simple { cookie: 5, error: Some(Errno::Shutdown) },
            Reply::Data { cookie: 6, offset: 4096, len: 4, done: true },
        ]
    );
}

const PATIENCE: Duration = Duration::from_secs(10);

fn unix(path: &Path, export: &str) -> NbdUri {
    NbdUri { address: Address::Unix(path.to_owned()), export: export.to_owned(), tls: None }
}

/// A server of one connection that does what the test says after a good handshake.
fn scripted(path: &Path, then: impl FnOnce(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let (mut shake, mut out) = Handshake::new();
        loop {
            stream.write_all(&out).expect("write");
            out.clear();
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("read");
            if let (_, Progress::Transmission(_)) = shake.feed(&byte, &Shelf, &mut out) {
                stream.write_all(&out).expect("write");
                return then(stream);
            }
        }
    });
}

#[test]
fn c22_after_a_time_out_no_late_reply_is_believed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    scripted(&path, |mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).expect("drain");
    });
    let uri = unix(&path, "vol");
    liars::within(PATIENCE, "silence", move || {
        let short = Duration::from_millis(200);
        let mut client = Blocking::connect(&uri, options("vol", true), short).expect("connect");
        assert_eq!(client.read(0, &mut [0; 512]).expect_err("silence").class, Class::Timeout);
        let error = client.read(0, &mut [0; 512]).expect_err("broken");
        assert!(error.message.contains("failed before"), "{error}");
        assert!(client.flush().is_err());
        assert!(client.disconnect().is_err());
    });
}

#[test]
fn c16_a_reply_to_nothing_in_flight_breaks_the_connection() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    scripted(&path, |mut stream| {
        let mut request = [0; 28];
        stream.read_exact(&mut request).expect("request");
        let mut out = Vec::new();
        reply::done(&mut out, To { style: Style::Structured, cookie: 0xdead, offset: 0 });
        stream.write_all(&out).expect("reply");
        let _ = stream.read(&mut request);
    });
    let mut client = Blocking::connect(&unix(&path, "vol"), options("vol", true), PATIENCE).expect("connect");
    let error = client.flush().expect_err("a violation");
    assert!(error.message.contains("not in flight"), "{error}");
    assert!(client.flush().is_err());
}

#[test]
fn a_listener_that_says_nothing_times_out() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).expect("bind");
    let short = Duration::from_millis(100);
    let error = Blocking::connect(&unix(&path, "v"), options("v", true), short).expect_err("silence");
    assert_eq!(error.class, Class::Timeout);
    let nowhere = unix(&dir.path().join("nobody"), "v");
    let error = Blocking::connect(&nowhere, options("v", true), PATIENCE).expect_err("nobody");
    assert_eq!(error.class, Class::Connect);
}
