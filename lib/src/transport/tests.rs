use super::*;
use crate::base::{Address, Class};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

fn wait(fd: &OwnedFd, flags: PollFlags) {
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut [PollFd::new(fd, flags)], Some(&timeout)).expect("poll");
    assert_eq!(ready, 1, "nothing happened for ten seconds");
}

fn local_port(fd: &OwnedFd) -> SocketAddr {
    SocketAddr::try_from(rustix::net::getsockname(fd).expect("getsockname")).expect("an IP address")
}

#[test]
fn a_tcp_connection_is_made_without_waiting_and_tuned() {
    let listener = listen_tcp(&"127.0.0.1:0".parse().expect("address")).expect("listen");
    assert!(accept(&listener).expect("accept").is_none());
    let port = local_port(&listener).port();
    let endpoints = resolve(&Address::Tcp { host: "127.0.0.1".to_owned(), port }).expect("resolve");
    assert_eq!(endpoints.len(), 1);
    let fd = connect(&endpoints[0]).expect("connect");
    wait(&fd, PollFlags::OUT);
    finish(&fd).expect("finish");
    wait(&listener, PollFlags::IN);
    let (served, peer) = accept(&listener).expect("accept").expect("a connection");
    assert!(matches!(peer, Peer::Tcp(from) if is_loopback(&from) && from == local_port(&fd)));
    for socket in [&fd, &served] {
        assert!(sockopt::tcp_nodelay(socket).expect("option"));
        assert!(sockopt::socket_keepalive(socket).expect("option"));
        assert!(rustix::fs::fcntl_getfl(socket).expect("flags").contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(socket).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
    }
    TcpStream::from(fd).write_all(b"hello").expect("write");
    wait(&served, PollFlags::IN);
    let mut got = [0; 5];
    TcpStream::from(served).read_exact(&mut got).expect("read");
    assert_eq!(&got, b"hello");
}

#[test]
fn a_refused_connection_is_told_by_finish() {
    let listener = listen_tcp(&"127.0.0.1:0".parse().expect("address")).expect("listen");
    let endpoint = Endpoint::Tcp(local_port(&listener));
    drop(listener);
    let error = match connect(&endpoint) {
        Ok(fd) => {
            wait(&fd, PollFlags::OUT);
            finish(&fd).expect_err("nobody listens")
        }
        Err(error) => error,
    };
    assert_eq!(error.class, Class::Connect);
    assert!(error.message.contains("refused"), "{error}");
}

#[test]
fn two_listeners_do_not_share_a_port() {
    let first = listen_tcp(&"127.0.0.1:0".parse().expect("address")).expect("listen");
    assert_eq!(listen_tcp(&local_port(&first)).expect_err("taken").class, Class::Busy);
}

#[test]
fn a_unix_socket_is_for_its_owner_and_left_over_ones_are_replaced() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).expect("left over"));
    let listener = listen_unix(&path, 0o600).expect("listen");
    let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(listen_unix(&path, 0o600).expect_err("it is alive").class, Class::Busy);
    let fd = connect(&Endpoint::Unix(path.clone())).expect("connect");
    finish(&fd).expect("finish");
    // The probe of the second listener waits in the queue too.
    while let Some((served, peer)) = accept(&listener).expect("accept") {
        assert_eq!(peer, Peer::Unix);
        drop(served);
    }
    drop(listener);
    assert_eq!(connect(&Endpoint::Unix(path)).expect_err("gone").class, Class::Connect);
}

#[test]
fn what_is_not_a_socket_is_never_removed() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("precious");
    std::fs::write(&file, b"data").expect("write");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).expect("link");
    for path in [&file, &link] {
        assert_eq!(listen_unix(path, 0o600).expect_err("not a socket").class, Class::Refused);
    }
    assert_eq!(std::fs::read(&file).expect("read"), b"data");
    assert!(link.is_symlink());
}

#[test]
fn a_socket_whose_backlog_is_full_counts_as_alive() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    let listener = listen_unix(&path, 0o600).expect("listen");
    rustix::net::listen(&listener, 0).expect("smaller backlog");
    let _first = UnixStream::connect(&path).expect("connect");
    assert_eq!(connect(&Endpoint::Unix(path.clone())).expect_err("full").class, Class::Busy);
    assert_eq!(listen_unix(&path, 0o600).expect_err("alive").class, Class::Busy);
    assert!(path.exists());
}

#[test]
fn abstract_sockets_work() {
    let path = std::path::PathBuf::from(format!("\0mirror-test-{}", std::process::id()));
    let listener = listen_unix(&path, 0o600).expect("listen");
    assert_eq!(listen_unix(&path, 0o600).expect_err("taken").class, Class::Busy);
    finish(connect(&Endpoint::Unix(path)).expect("connect")).expect("finish");
    assert!(accept(&listener).expect("accept").is_some());
}

#[test]
fn loopback_is_told_from_the_rest() {
    for (text, local) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
        ("[::ffff:10.0.0.1]:1", false),
    ] {
        assert_eq!(is_loopback(&text.parse().expect(text)), local, "{text}");
    }
}

#[test]
fn a_path_that_is_too_long_is_an_error() {
    let path = std::path::PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
    assert!(listen_unix(&path, 0o600).is_err());
    assert!(connect(&Endpoint::Unix(path)).is_err());
}
