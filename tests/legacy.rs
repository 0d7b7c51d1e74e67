//! The `nbd` crate, an independent second implementation: an old client and an old leg that we must get on with.

use crate::support::{Dir, Volume, assert_equal, wait_for};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A free port of the loopback interface.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port()
}

#[test]
fn an_old_client_reads_and_writes() {
    let dir = Dir::new();
    let legs = [
        format!("a={}", dir.image("a.img", 8 * MIB).display()),
        format!("b={}", dir.image("b.img", 8 * MIB).display()),
    ];
    let mut volume = Volume::create(&dir, 8 * MIB, &[&legs[0], &legs[1]], &["--known-zero"]);
    let address = format!("127.0.0.1:{}", port());
    volume.serve_tcp(&address);
    volume.wait_synced();
    let mut tcp = TcpStream::connect(&address).expect("connect");
    tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let export = nbd::client::handshake(&mut tcp, b"vol").expect("handshake");
    assert_eq!(export.size, 8 * MIB);
    let mut client = nbd::client::NbdClient::new(&mut tcp, &export);
    client.seek(SeekFrom::Start(MIB)).expect("seek");
    client.write_all(&vec![0x5a; 65536]).expect("write");
    client.seek(SeekFrom::Start(MIB)).expect("seek");
    let mut back = vec![0; 65536];
    client.read_exact(&mut back).expect("read");
    assert!(back.iter().all(|&b| b == 0x5a));
    drop(tcp);
    volume.stop();
    assert_equal(&dir.path("a.img"), &dir.path("b.img"));
}

#[test]
fn an_old_server_is_a_leg() {
    let dir = Dir::new();
    let image = dir.image("old.img", 8 * MIB);
    let port = port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&image).expect("image");
            std::thread::spawn(move || {
                let export: nbd::Export<()> =
                    nbd::Export { size: 8 * MIB, readonly: false, ..Default::default() };
                if nbd::server::handshake(&mut stream, |_| Ok(export)).is_ok() {
                    // It ends with the connection.
                    let _ = nbd::server::transmission(&mut stream, file);
                }
            });
        }
    });
    let near = format!("near={}", dir.image("near.img", 8 * MIB).display());
    let old = format!("old=nbd://127.0.0.1:{port}/x");
    let mut volume = Volume::create(&dir, 8 * MIB, &[&near, &old], &["--known-zero"]);
    volume.serve(&[]);
    wait_for("both legs", Duration::from_secs(30), || volume.leg("old", "disk-state") == "UpToDate");
    let uri = volume.uri().parse().expect("uri");
    let options =
        mirror::nbd::client::ClientOptions { export: "vol".into(), contexts: Vec::new(), structured: true };
    let mut client =
        mirror::nbd::client::Blocking::connect(&uri, options, Duration::from_secs(20)).expect("connect");
    client.write(3 * MIB, &[7; 8192], true).expect("write");
    // It has no WRITE_ZEROES: these travel as zeroes.
    client.zeroes(3 * MIB + 4096, 1 << 20, true, false).expect("zeroes");
    client.flush().expect("flush");
    client.disconnect().expect("disconnect");
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("old.img"));
}
