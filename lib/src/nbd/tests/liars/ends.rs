//! Connections that end at any byte, replies that come too early, too late, never or without an end.

use super::{
    AT, LEN, LIMIT, PATIENCE, Peer, SHORT, bytes, connect, each, error, options, serve, unix, within,
};
use crate::base::Class;
use crate::nbd::client::Pipelined;
use crate::nbd::wire::{Command, MAGIC_SIMPLE};
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Everything that the server sends in a handshake and in reply to a READ, cut off after each of its bytes.
#[test]
fn c3_c25_a_server_that_goes_away_at_any_byte_is_told_at_once_to_either_client() {
    let attempt = |pipelined: bool, left: usize| {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("s");
        let (tell, told) = channel();
        serve(&path, left, move |peer| {
            let ended = peer.open().and_then(|()| peer.honest());
            let _ = tell.send(left - peer.left);
            ended
        });
        let uri = unix(&path, "vol");
        let started = Instant::now();
        let done = within(LIMIT, &format!("cut off after {left}"), move || {
            connect(pipelined, &uri, true, LIMIT)?.read(AT, 16)
        });
        (done, told.recv_timeout(LIMIT).expect("the server's end"), started.elapsed())
    };
    for pipelined in [false, true] {
        let (done, all, _) = attempt(pipelined, usize::MAX);
        assert!(done.expect("nothing cut off") == bytes(AT, 16));
        assert!(all > 18 + 20 * 4, "{all}");
        for left in 0..all {
            let (done, sent, took) = attempt(pipelined, left);
            let error = done.expect_err("cut off");
            assert_ne!(error.class, Class::Timeout, "{left}: {error}");
            assert!(sent == left && took < LIMIT / 4, "{left}: {took:?}");
        }
    }
}

/// Its payload is not through when the answer is here: the rest is sent all the same, or the connection ends.
#[test]
fn c16_a_reply_before_the_payload_is_sent_leaves_either_client_in_step() {
    const BIG: usize = 1 << 20;
    for (error, waits) in [(0, true), (22, true), (22, false)] {
        let script = move |peer: &mut Peer| {
            let request = peer.head()?;
            peer.simple(request.cookie, error)?;
            if !waits {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
            peer.stream.read_exact(&mut vec![0; request.length as usize])?;
            peer.honest()
        };
        each("c16 early", (true, PATIENCE), script, move |case, client| {
            let done = client.write(0, &bytes(0, BIG));
            assert_eq!(done.is_ok(), error == 0, "{case}: {done:?}");
            let next = client.read(AT, LEN);
            assert_eq!(next.is_ok(), waits, "{case}: {next:?}");
            assert!(next.is_err() || next.is_ok_and(|read| read == bytes(AT, LEN as usize)), "{case}");
        });
    }
}

/// Both in one piece, so that the second is here before anybody has looked at the first.
#[test]
fn c16_c25_a_reply_that_comes_twice_is_taken_once_and_ends_the_connection() {
    for _ in 0..10 {
        let script = |peer: &mut Peer| {
            let request = peer.request()?;
            let reply = [&MAGIC_SIMPLE.to_be_bytes()[..], &[0; 4], &request.cookie.to_be_bytes()].concat();
            peer.send(&reply.repeat(2))?;
            peer.honest()
        };
        each("c16 twice", (true, PATIENCE), script, |case, client| {
            client.write(AT, &[1; 512]).expect(case);
            assert!(client.read(AT, LEN).is_err(), "{case}");
        });
    }
}

/// One option is answered again and again; slowly, so that the number of replies does not end it.
#[test]
fn c20_a_handshake_without_end_ends_at_the_deadline_of_either_client() {
    for (option, kind, data, class) in [
        (7, 3, &b"\x03\xe7"[..], Class::Timeout),
        (10, 4, b"\0\0\0\x09x:unasked", Class::Timeout),
        (7, 2, b"\0\0\0\x03vol", Class::Connect),
    ] {
        for pipelined in [false, true] {
            let dir = tempfile::tempdir().expect("directory");
            let path = dir.path().join("s");
            serve(&path, usize::MAX, move |peer| {
                peer.send(b"NBDMAGICIHAVEOPT\0\x03")?;
                peer.stream.read_exact(&mut [0; 4])?;
                loop {
                    let mut head = [0; 16];
                    peer.stream.read_exact(&mut head)?;
                    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four"));
                    let (asked, len) = (word(8), word(12));
                    peer.stream.read_exact(&mut vec![0; len as usize])?;
                    let mut reply = |kind: u32, data: &[u8]| {
                        let fields = [asked, kind, data.len() as u32].map(u32::to_be_bytes).concat();
                        let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
                        peer.send(&[&magic[..], &fields, data].concat())
                    };
                    if asked == option {
                        loop {
                            reply(kind, data)?;
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }
                    reply(1, &[])?;
                }
            });
            let uri = unix(&path, "vol");
            let case = format!("option {option}, reply {kind}, pipelined: {pipelined}");
            let done = within(Duration::from_secs(20), &case, move || {
                connect(pipelined, &uri, true, SHORT).map(drop)
            });
            assert_eq!(done.expect_err("no end").class, class, "{case}");
        }
    }
}

#[test]
fn c20_c22_a_reply_without_end_ends_at_the_deadline_of_either_client() {
    for command in [Command::Read, Command::Write, Command::BlockStatus] {
        let script = move |peer: &mut Peer| {
            let request = peer.request()?;
            loop {
                peer.chunk(0, 0x8001, request.cookie, &error(5, 0, &[]))?;
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        each("c20", (true, SHORT), script, move |case, client| {
            let started = Instant::now();
            let done = match command {
                Command::Read => client.read(AT, LEN).map(drop),
                Command::Write => client.write(AT, &[1; 512]),
                _ => client.status(AT, LEN).map(drop),
            };
            assert_eq!(done.expect_err(case).class, Class::Timeout, "{case} {command:?}");
            assert!(started.elapsed() < SHORT * 25, "{case} {command:?}: {:?}", started.elapsed());
        });
    }
}

/// The peer ends the connection when it sees a cookie twice.
#[test]
fn c22_no_cookie_is_used_twice_by_either_client() {
    each("c22", (true, PATIENCE), Peer::honest, |case, client| {
        for _ in 0..20 {
            assert!(client.read(AT, LEN).expect(case) == bytes(AT, LEN as usize), "{case}");
            client.write(AT, &[1; 512]).expect(case);
        }
    });
}

/// The answer to the first request comes at about its deadline: it is taken for that one, or for none.
#[test]
fn c22_c25_an_answer_that_races_with_its_deadline_is_taken_once_or_not_at_all() {
    for delay in (200..900).step_by(50) {
        let script = move |peer: &mut Peer| {
            let request = peer.request()?;
            std::thread::sleep(Duration::from_millis(delay));
            peer.answer(&request)?;
            peer.honest()
        };
        each(&format!("after {delay} ms"), (true, SHORT), script, move |case, client| {
            let first = client.read(AT, LEN);
            let second = client.read(AT + 512, LEN);
            match (&first, &second) {
                (Ok(first), Ok(second)) => {
                    assert!(first == &bytes(AT, LEN as usize), "{case}");
                    assert!(second == &bytes(AT + 512, LEN as usize), "{case}: another's bytes");
                }
                // A loaded machine may be late with the second.
                (Ok(_), Err(error)) => assert_eq!(error.class, Class::Timeout, "{case}"),
                (Err(error), after) => {
                    assert_eq!(error.class, Class::Timeout, "{case}");
                    assert!(after.is_err(), "{case}: a late answer was believed");
                }
            }
        });
    }
}

fn shared(path: &Path, depth: usize) -> Pipelined {
    Pipelined::connect(&unix(path, "vol"), options("vol", true), PATIENCE, depth).expect("connect")
}

#[test]
fn c29_requests_that_fail_give_their_places_back() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    serve(&path, usize::MAX, |peer| {
        peer.open()?;
        loop {
            let request = peer.request()?;
            match request.command {
                Command::Write => peer.simple(request.cookie, 5)?,
                _ => peer.answer(&request)?,
            }
        }
    });
    within(LIMIT, "all places hold failed requests", move || {
        let client = shared(&path, 2);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(client.write(AT, &[1; 512]).expect_err("error").class, Class::Io);
                    }
                });
            }
        });
        let mut buf = vec![0; LEN as usize];
        client.read(AT, &mut buf).expect("it still works");
        assert!(buf == bytes(AT, LEN as usize));
    });
}

#[test]
fn c29_a_server_that_goes_away_wakes_those_who_wait_for_a_place() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    serve(&path, usize::MAX, |peer| {
        peer.open()?;
        peer.request()?;
        peer.request()?;
        // The others have come to wait by now, or come later.
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    within(LIMIT, "places that nobody gives back", move || {
        let client = shared(&path, 2);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert!(client.write(AT, &[1; 512]).is_err()));
            }
        });
    });
}
