//! Two tunnels with a TCP connection between them, and what a stranger does to one.

use super::pki::{Authority, Wanted, complete};
use super::*;
use crate::base::Class;
use rustix::fd::{AsFd as _, OwnedFd};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (near, listener.accept().expect("accept").0)
}

/// What a program reads and writes: waits, but not for ever.
fn waiting(fd: OwnedFd) -> UnixStream {
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Both ends of a tunnel, and how each ended.
fn pair(dir: &Path, host: &str) -> ((UnixStream, Ending), (UnixStream, Ending)) {
    let (near, far) = tcp();
    let tunnels = Tunnels::new(2);
    let (server, client) =
        (ServerTls::load(dir).expect("server"), ClientTls::load(dir, host).expect("client"));
    let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
    let (near, dialled) = tunnels.dial(near.into(), &client, PATIENCE).expect("dial");
    ((waiting(near), dialled), (waiting(far), ended))
}

fn directory() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().expect("directory");
    let authority = complete(dir.path());
    (dir, authority)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}

#[test]
fn bytes_pass_both_ways_at_once_and_each_end_is_passed_on() {
    let (dir, _) = directory();
    let ((near, dialled), (far, ended)) = pair(dir.path(), "localhost");
    let len = 5 << 20;
    let send = |stream: &UnixStream, seed: u8| {
        let mut stream = stream.try_clone().expect("clone");
        std::thread::spawn(move || {
            stream.write_all(&pattern(len, seed)).expect("write");
            stream.shutdown(Shutdown::Write).expect("shutdown");
        })
    };
    let senders = [send(&near, 1), send(&far, 2)];
    for (mut stream, seed) in [(&far, 1), (&near, 2)] {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("read to the end");
        assert!(all == pattern(len, seed), "{} bytes", all.len());
    }
    for sender in senders {
        sender.join().expect("sender");
    }
    drop((near, far));
    for ending in [dialled, ended] {
        ending.wait(PATIENCE);
        assert_eq!(ending.why(), None);
    }
}

#[test]
fn what_was_written_before_the_near_side_was_closed_arrives() {
    let (dir, _) = directory();
    let ((near, dialled), (mut far, _served)) = pair(dir.path(), "127.0.0.1");
    dialled.wait_until_up(PATIENCE).expect("up");
    let all = pattern(150_000, 3);
    (&near).write_all(&all).expect("write");
    drop(near);
    let mut got = Vec::new();
    far.read_to_end(&mut got).expect("read");
    assert!(got == all);
}

#[test]
fn c5_a_server_that_is_not_the_one_is_refused_with_the_reason() {
    let (dir, authority) = directory();
    let stranger = Authority::new("a stranger");
    let good = Wanted::server(&["localhost", "127.0.0.1"]);
    let table: [(&str, Wanted, &Authority, &str); 5] = [
        ("localhost", Wanted { expired: true, ..good.clone() }, &authority, "expired on 2001-01-01"),
        ("far.example", good.clone(), &authority, "for localhost, 127.0.0.1, not for far.example"),
        ("127.0.0.2", good.clone(), &authority, "not for 127.0.0.2"),
        ("localhost", good.clone(), &stranger, "signed by none of "),
        ("localhost", Wanted { by_itself: true, ..good.clone() }, &authority, "signed by itself"),
    ];
    for (host, wanted, signer, why) in table {
        let other = tempfile::tempdir().expect("directory");
        complete(other.path());
        // A server that starts with an expired certificate is not one of ours.
        signer.sign(other.path(), &Wanted { expired: false, ..wanted.clone() });
        let mut server = ServerTls::load(other.path()).expect("server");
        if wanted.expired {
            signer.sign(other.path(), &wanted);
            let error = ServerTls::load(other.path()).expect_err("expired");
            assert_eq!(error.class, Class::Refused);
            assert!(error.message.contains("server-cert.pem") && error.message.contains(why), "{error}");
            server = super::config::unchecked(other.path());
        }
        let (near, far) = tcp();
        let tunnels = Tunnels::new(2);
        let (_far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
        let client = ClientTls::load(dir.path(), host).expect("client");
        let (near, dialled) = tunnels.dial(near.into(), &client, PATIENCE).expect("dial");
        let error = dialled.wait_until_up(PATIENCE).expect_err(why);
        assert_eq!(error.class, Class::Connect);
        assert!(error.message.contains(why) && !error.message.contains('\n'), "{error}");
        assert_eq!(waiting(near).read(&mut [0; 8]).expect("the end"), 0);
        ended.wait(PATIENCE);
        assert!(ended.why().expect("it was told").message.contains("has ended it"), "{:?}", ended.why());
    }
}

#[test]
fn a_client_without_a_certificate_or_with_a_wrong_one_is_not_served() {
    let (dir, authority) = directory();
    let none = tempfile::tempdir().expect("directory");
    authority.write(none.path());
    let strange = tempfile::tempdir().expect("directory");
    authority.write(strange.path());
    Authority::new("a stranger").sign(strange.path(), &Wanted::client());
    let revoked = tempfile::tempdir().expect("directory");
    authority.write(revoked.path());
    authority.sign(revoked.path(), &Wanted { serial: 77, ..Wanted::client() });
    authority.revoke(dir.path(), &[5, 77]);
    for (client, at_server, at_client) in [
        (&none, "shown no certificate", "client-cert.pem is missing"),
        (&strange, "signed by none", "refuses our certificate"),
        (&revoked, "has been revoked", "refuses our certificate"),
    ] {
        let (near, far) = tcp();
        let tunnels = Tunnels::new(2);
        let server = ServerTls::load(dir.path()).expect("server");
        assert!(server.asks_for_certificates());
        let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
        let client = ClientTls::load(client.path(), "localhost").expect("client");
        let (near, dialled) = tunnels.dial(near.into(), &client, PATIENCE).expect("dial");
        let (mut near, mut far) = (waiting(near), waiting(far));
        // In TLS 1.3 the client may believe for a moment that it is ended.
        let _ = near.write_all(b"what nobody must read");
        assert_eq!(far.read(&mut [0; 64]).expect("the end"), 0, "nothing of it is read");
        let why = ended.why().expect("why");
        assert!(why.message.contains(at_server), "{why}");
        let _ = near.read(&mut [0; 8]);
        dialled.wait(PATIENCE);
        let why = dialled.why().expect("why");
        assert!(why.message.contains(at_client), "{why}");
    }
    // Without authorities nobody is asked.
    std::fs::remove_file(dir.path().join("ca-cert.pem")).expect("remove");
    std::fs::remove_file(dir.path().join("ca-crl.pem")).expect("remove");
    assert!(!ServerTls::load(dir.path()).expect("server").asks_for_certificates());
}

#[test]
fn a_stream_that_is_cut_is_told_from_one_that_ended() {
    let (dir, _) = directory();
    let server = ServerTls::load(dir.path()).expect("server");
    for cut in [true, false] {
        let (near, far) = tcp();
        let tunnels = Tunnels::new(2);
        let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
        let mut far = waiting(far);
        let client = ClientTls::load(dir.path(), "localhost").expect("client");
        let mut peer = rustls::ClientConnection::new(client.config, client.name).expect("client");
        let mut socket = near.try_clone().expect("clone");
        rustls::Stream::new(&mut peer, &mut socket).write_all(b"whole").expect("write");
        if !cut {
            peer.send_close_notify();
        }
        while peer.wants_write() {
            peer.write_tls(&mut socket).expect("write");
        }
        near.shutdown(Shutdown::Write).expect("shutdown");
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("what came whole is there");
        assert_eq!(got, b"whole");
        let writable = far.write(b"answer").is_ok();
        assert_eq!(writable, !cut, "after a cut nothing is taken");
        drop(far);
        ended.wait(PATIENCE);
        assert_eq!(ended.why().is_some_and(|why| why.message.contains("cut")), cut);
    }
}

#[test]
fn a_peer_that_says_nothing_or_nonsense_ends_with_the_handshake() {
    let (dir, _) = directory();
    let server = ServerTls::load(dir.path()).expect("server");
    let tunnels = Tunnels::new(2);
    let (near, far) = tcp();
    let (_far, ended) = tunnels.serve(far.into(), &server, Duration::from_millis(100)).expect("serve");
    ended.wait(PATIENCE);
    assert_eq!(ended.why().expect("why").class, Class::Timeout);
    drop(near);
    let (mut near, far) = tcp();
    near.write_all(b"IHAVEOPT\0\0\0\x08\0\0\0\0").expect("write");
    let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
    assert_eq!(waiting(far).read(&mut [0; 8]).expect("the end"), 0);
    assert!(ended.why().expect("why").message.contains("does not speak TLS"), "{:?}", ended.why());
}

#[test]
fn a_tunnel_whose_near_side_is_closed_ends_whatever_the_peer_does() {
    let (dir, _) = directory();
    let server = ServerTls::load(dir.path()).expect("server");
    let tunnels = Tunnels::new(1);
    // In the middle of the handshake.
    let (_silent, far) = tcp();
    let (far, ended) = tunnels.serve(far.into(), &server, Duration::from_secs(3600)).expect("serve");
    assert_eq!(
        tunnels
            .dial(tcp().0.into(), &ClientTls::load(dir.path(), "h").expect("client"), PATIENCE)
            .expect_err("one only")
            .class,
        Class::Busy
    );
    drop(far);
    ended.wait(PATIENCE);
    assert_eq!(ended.why(), None);
    tunnels.wait(PATIENCE);
    assert_eq!(tunnels.running(), 0);
    // With a peer that reads nothing and never says goodbye.
    let (near, far) = tcp();
    let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
    let client = ClientTls::load(dir.path(), "localhost").expect("client");
    let mut peer = rustls::ClientConnection::new(client.config, client.name).expect("client");
    let mut socket = near.try_clone().expect("clone");
    rustls::Stream::new(&mut peer, &mut socket).write_all(b"x").expect("write");
    let mut far = waiting(far);
    far.read_exact(&mut [0]).expect("read");
    far.write_all(b"the last reply").expect("write");
    let began = Instant::now();
    drop(far);
    tunnels.wait(PATIENCE);
    let most = Duration::from_millis(crate::base::limits::TLS_GOODBYE_MS) * 8;
    assert!(tunnels.running() == 0 && began.elapsed() < most, "{:?}", began.elapsed());
    assert_eq!(ended.why(), None);
}

#[test]
fn an_end_of_one_direction_does_not_make_the_threads_run_in_circles() {
    let (dir, _) = directory();
    let ((near, dialled), (far, ended)) = pair(dir.path(), "localhost");
    dialled.wait_until_up(PATIENCE).expect("up");
    ended.wait_until_up(PATIENCE).expect("up");
    near.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!((&far).read(&mut [0; 8]).expect("the end"), 0);
    // Both tunnels go on in the other direction. What is under way gets time to settle.
    std::thread::sleep(Duration::from_millis(200));
    let before = (dialled.turns(), ended.turns());
    std::thread::sleep(Duration::from_millis(300));
    let after = (dialled.turns(), ended.turns());
    (&far).write_all(b"still there").expect("write");
    let mut got = [0; 11];
    (&near).read_exact(&mut got).expect("read");
    assert_eq!(&got, b"still there");
    assert!(after.0 - before.0 <= 2 && after.1 - before.1 <= 2, "{before:?} turns, then {after:?}");
}

#[test]
fn files_that_cannot_be_used_are_told_at_once() {
    let (dir, authority) = directory();
    let path = |name: &str| dir.path().join(name);
    let fails = |class: Class, part: &str| {
        let error = ServerTls::load(dir.path()).map(drop).expect_err(part);
        assert!(error.class == class && error.message.contains(part), "{:?} {error}", error.class);
        assert!(!error.message.contains('\n'), "{error}");
    };
    for mode in [0o644, 0o640, 0o602] {
        std::fs::set_permissions(path("server-key.pem"), PermissionsExt::from_mode(mode)).expect("mode");
        if mode != 0o640 || !rustix::process::geteuid().is_root() {
            fails(Class::Refused, &format!("others than its owner can read it (its mode is {mode:04o})"));
        }
    }
    std::fs::set_permissions(path("server-key.pem"), PermissionsExt::from_mode(0o600)).expect("mode");
    ServerTls::load(dir.path()).expect("good");
    std::fs::copy(path("client-key.pem"), path("server-key.pem")).expect("copy");
    fails(Class::Usage, "the private key beside it belongs to another certificate");
    std::fs::copy(path("client-cert.pem"), path("server-cert.pem")).expect("copy");
    fails(Class::Refused, "it is for another use");
    for (name, bytes, part) in [
        (
            "server-cert.pem",
            &b"nonsense"[..],
            "server-cert.pem: reading certificates: there is none in PEM form",
        ),
        ("server-key.pem", b"-----BEGIN PRIVATE KEY-----\n!\n", "server-key.pem: reading a private key"),
        ("ca-cert.pem", b"", "ca-cert.pem: reading certificates: there is none"),
        ("ca-crl.pem", b"", "ca-crl.pem: reading a list of revoked certificates: there is none"),
    ] {
        complete(dir.path());
        std::fs::write(path(name), bytes).expect("write");
        fails(Class::Usage, part);
        std::fs::remove_file(path(name)).expect("remove");
        match name {
            "server-cert.pem" | "server-key.pem" => fails(Class::Usage, name),
            "ca-cert.pem" => {
                let error = ClientTls::load(dir.path(), "h").expect_err("no authority");
                assert!(error.message.contains("ca-cert.pem"), "{error}");
            }
            _ => drop(ServerTls::load(dir.path()).expect("no list")),
        }
    }
    let error = ClientTls::load(dir.path(), "no host").expect_err("a space");
    assert_eq!(error.class, Class::Usage);
    let error = ServerTls::load(&path("absent")).expect_err("no directory");
    assert!(error.message.contains("absent: reading certificates: No such file"), "{error}");
    authority.write(dir.path());
}

#[test]
fn garbage_in_the_middle_of_a_connection_ends_it() {
    let (dir, _) = directory();
    let server = ServerTls::load(dir.path()).expect("server");
    for seed in 0..40u8 {
        let (near, far) = tcp();
        let tunnels = Tunnels::new(1);
        let (far, ended) = tunnels.serve(far.into(), &server, PATIENCE).expect("serve");
        let client = ClientTls::load(dir.path(), "localhost").expect("client");
        let mut peer = rustls::ClientConnection::new(client.config, client.name).expect("client");
        let mut socket = near.try_clone().expect("clone");
        if seed % 2 == 0 {
            rustls::Stream::new(&mut peer, &mut socket).write_all(b"x").expect("write");
        } else {
            // The beginning of a real one, with a byte changed.
            let mut hello = Vec::new();
            peer.write_tls(&mut hello).expect("hello");
            let at = usize::from(seed) * 5 % hello.len();
            hello[at] ^= 0x55;
            socket.write_all(&hello).expect("write");
        }
        let header = [22 + seed % 3, 3, seed % 5, 0, seed];
        let _ = socket.write_all(&[&header[..], &pattern(4000, seed)].concat());
        let _ = socket.shutdown(Shutdown::Write);
        let _ = waiting(far).read_to_end(&mut Vec::new());
        ended.wait(PATIENCE);
        tunnels.wait(PATIENCE);
        assert_eq!(tunnels.running(), 0, "{seed}");
        let _ = near.as_fd();
    }
}
