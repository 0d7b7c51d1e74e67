use super::*;
use crate::base::Address;
use crate::nbd::wire::{MAGIC, MAGIC_OPTION, MAGIC_SIMPLE};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

/// A server without options (no structured replies) that hands its first connection to `serve`.
fn server(serve: impl FnOnce(UnixStream) + Send + 'static) -> (tempfile::TempDir, NbdUri, JoinHandle<()>) {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("bind");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let hello = [&MAGIC.to_be_bytes()[..], &MAGIC_OPTION.to_be_bytes(), &[0, 0]].concat();
        stream.write_all(&hello).expect("hello");
        // Flags and EXPORT_NAME "".
        stream.read_exact(&mut [0; 4 + 16]).expect("option");
        let export = [&(1u64 << 20).to_be_bytes()[..], &[0, 0x45], &[0; 124]].concat();
        stream.write_all(&export).expect("export");
        serve(stream);
    });
    (dir, NbdUri { address: Address::Unix(path), export: String::new(), tls: None }, thread)
}

fn request(stream: &mut UnixStream) -> Option<(Request, Vec<u8>)> {
    let mut header = [0; Request::LEN];
    stream.read_exact(&mut header).ok()?;
    let request = Request::parse(&header).expect("request");
    let len = if request.command == Command::Write { request.length as usize } else { 0 };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    Some((request, payload))
}

fn answer(stream: &mut UnixStream, cookie: u64, error: u32, payload: &[u8]) {
    let reply =
        [&MAGIC_SIMPLE.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), payload].concat();
    stream.write_all(&reply).expect("reply");
}

fn connect(uri: &NbdUri, depth: usize) -> Pipelined {
    let options = ClientOptions { structured: true, ..ClientOptions::default() };
    Pipelined::connect(uri, options, Duration::from_millis(600), depth).expect("connect")
}

#[test]
fn answers_in_any_order_find_who_asked() {
    let (_dir, uri, thread) = server(|mut stream| {
        let mut asked: Vec<_> = (0..8).map(|_| request(&mut stream).expect("request").0).collect();
        asked.reverse();
        for request in asked {
            let byte = (request.offset / 512) as u8;
            answer(
                &mut stream,
                request.cookie,
                u32::from(byte == 3) * 5,
                &vec![byte; if byte == 3 { 0 } else { 512 }],
            );
        }
        while request(&mut stream).is_some_and(|(request, _)| request.command != Command::Disc) {}
    });
    let client = connect(&uri, 8);
    std::thread::scope(|scope| {
        for at in 0..8u8 {
            let client = &client;
            scope.spawn(move || {
                let mut buf = vec![0xee; 512];
                let done = client.read(u64::from(at) * 512, &mut buf);
                assert_eq!(done.is_err(), at == 3, "{done:?}");
                assert_eq!(buf.len(), 512);
                assert!(at == 3 || buf == vec![at; 512]);
            });
        }
    });
    assert!(client.broken().is_none(), "an error of one request is not one of the connection");
    drop(client);
    thread.join().expect("server");
}

#[test]
fn a_server_that_goes_away_fails_everything_in_flight_and_to_come() {
    let (_dir, uri, thread) = server(|mut stream| {
        for _ in 0..4 {
            request(&mut stream);
        }
    });
    let client = connect(&uri, 4);
    std::thread::scope(|scope| {
        for at in 0..4 {
            let client = &client;
            scope.spawn(move || {
                assert_eq!(client.write(at * 512, &[1; 512]).expect_err("gone").class, Class::Connect);
            });
        }
    });
    thread.join().expect("server");
    assert!(client.broken().is_some());
    assert_eq!(client.flush().expect_err("gone").class, Class::Connect);
}

#[test]
fn a_file_is_sent_from_its_place_and_one_that_is_cut_off_costs_its_own_write_only() {
    let (dir, uri, thread) = server(|mut stream| {
        let mut seen = Vec::new();
        while let Some((request, payload)) = request(&mut stream) {
            if request.command == Command::Disc {
                break;
            }
            seen.push((request.offset, payload));
            answer(&mut stream, request.cookie, 0, &[]);
        }
        let at = |from: usize, len: usize| (from..from + len).map(|n| (n % 251) as u8).collect::<Vec<_>>();
        assert_eq!(seen[0], (4096, at(100, 300_000)));
        assert_eq!(seen[1], (0, [at(399_000, 1000), vec![0; 64536]].concat()));
        assert_eq!(seen[2], (512, vec![9; 512]), "in step");
    });
    let path = dir.path().join("f");
    std::fs::write(&path, (0..400_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>()).expect("write");
    let file = std::fs::File::open(&path).expect("open");
    let client = connect(&uri, 4);
    client.write_file(4096, file.as_fd(), 100, 300_000).expect("written");
    let error = client.write_file(0, file.as_fd(), 399_000, 65536).expect_err("it has 1000 bytes there");
    assert!(
        error.class == Class::Io && error.message.contains("reading at 400000: it ends there"),
        "{error}"
    );
    client.write(512, &[9; 512]).expect("the connection lives");
    drop(client);
    thread.join().expect("server");
}

#[test]
fn c22_a_file_for_a_server_that_does_not_read_ends_at_the_deadline() {
    let (dir, uri, thread) = server(|stream| {
        std::thread::sleep(Duration::from_millis(1500));
        drop(stream);
    });
    let path = dir.path().join("f");
    std::fs::write(&path, vec![1; 8 << 20]).expect("write");
    let file = std::fs::File::open(&path).expect("open");
    let client = connect(&uri, 4);
    let start = Instant::now();
    assert_eq!(client.write_file(0, file.as_fd(), 0, 8 << 20).expect_err("late").class, Class::Timeout);
    assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
    thread.join().expect("server");
}

#[test]
fn c22_an_answer_that_does_not_come_ends_the_connection_at_its_deadline() {
    let (_dir, uri, thread) = server(|mut stream| {
        let late = request(&mut stream).expect("request").0;
        std::thread::sleep(Duration::from_millis(1500));
        // Nobody may take it for the answer of something newer.
        let header = [&MAGIC_SIMPLE.to_be_bytes()[..], &[0; 4], &late.cookie.to_be_bytes()].concat();
        let _ = stream.write_all(&header);
    });
    let client = connect(&uri, 4);
    assert_eq!(client.write(0, &[1; 512]).expect_err("late").class, Class::Timeout);
    assert_eq!(client.write(0, &[1; 512]).expect_err("broken").class, Class::Timeout);
    thread.join().expect("server");
}

#[test]
fn c16_a_reply_to_nothing_and_a_reply_in_the_middle_of_nothing_end_the_connection() {
    for extra in [&b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\x12\x34"[..], b"not a reply at all"] {
        let (_dir, uri, thread) = server(move |mut stream| {
            request(&mut stream);
            stream.write_all(extra).expect("extra");
            while request(&mut stream).is_some() {}
        });
        let client = connect(&uri, 4);
        let error = client.read(0, &mut vec![0; 512]).expect_err("violation");
        assert!(error.message.contains("broke the NBD protocol"), "{error}");
        drop(client);
        thread.join().expect("server");
    }
}
