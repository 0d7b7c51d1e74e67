//! TLS towards servers: those that have none, those that are somebody else, and real ones, as legs and as ends of
//! copies. What the parser alone shows is in `lib/src/nbd/client/tests.rs`, what the tunnel alone shows in
//! `lib/src/transport/tls/tests.rs`.

use super::raw::{MIB, option, port};
use crate::support::pki::{Authority, Wanted, complete};
use crate::support::{Dir, Output, Server, Tool, Volume, assert_equal, bin, need, run, wait_for};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SIZE: u64 = 16 * MIB;
const STARTTLS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// `mirror-sync` with these arguments.
fn sync(dir: &Dir, args: &[&str]) -> Output {
    Tool::new(bin("mirror-sync")).args(args).env("MIRROR_STATE_DIR", dir.state()).run()
}

/// nbdkit on a port with these arguments, and the port.
fn nbdkit_tcp(dir: &Dir, number: u16, pki: &Path, args: &[&str]) -> Server {
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--ipaddr", "127.0.0.1", "--port", &number.to_string()]);
    command.arg(format!("--tls-certificates={}", pki.display())).args(args);
    let mut server = Server::start(&mut command, &dir.path("nbdkit.log"));
    wait_for("nbdkit's port", PATIENCE, || {
        assert!(server.is_running(), "{}", server.log());
        TcpStream::connect(("127.0.0.1", number)).is_ok()
    });
    server
}

/// A server of one connection that says this, reads some bytes, says that, and tells what it read until the end.
fn liar(greeting: Vec<u8>, answer: Vec<u8>, wait: usize) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let number = listener.local_addr().expect("address").port();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accept");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.write_all(&greeting).expect("greeting");
        let mut all = vec![0; wait];
        socket.read_exact(&mut all).expect("its first words");
        let _ = socket.write_all(&answer);
        let _ = socket.read_to_end(&mut all);
        all
    });
    (number, thread)
}

fn reply(number: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn c4_a_server_without_tls_is_given_up_and_told_nothing() {
    let dir = Dir::new();
    let image = dir.image("a.img", SIZE);
    let pki = dir.path("pki");
    complete(&pki);
    let fixed = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let old = [&b"NBDMAGIC"[..], &0x0000_4202_8186_1253_u64.to_be_bytes(), &[0; 136]].concat();
    let asks = [&[0, 0, 0, 3][..], &option(STARTTLS, &[])].concat();
    let abort = option(2, &[]);
    let go = [reply(STARTTLS, 1, &[]), reply(8, 1, &[]), reply(7, 1, &[])].concat();
    for (greeting, answer, wait, said, why) in [
        (
            b"NBDMAGICIHAVEOPT\0\x02".to_vec(),
            vec![],
            0,
            vec![],
            "without fixed newstyle negotiation has none",
        ),
        (b"NBDMAGICIHAVEOPT\0\0".to_vec(), vec![], 0, vec![], "without fixed newstyle negotiation has none"),
        (old, vec![], 0, vec![], "an oldstyle server has none"),
        (
            fixed.clone(),
            reply(STARTTLS, 1 << 31 | 1, b"no\x1b[31m way"),
            asks.len(),
            [&asks[..], &abort].concat(),
            "does not agree to it: it says: no",
        ),
        (
            fixed.clone(),
            reply(STARTTLS, 1 << 31 | 2, &[]),
            asks.len(),
            [&asks[..], &abort].concat(),
            "does not agree to it",
        ),
        // What somebody put behind the consent.
        (fixed, go, asks.len(), asks.clone(), "sent in the clear behind the consent"),
    ] {
        let (number, thread) = liar(greeting, answer, wait);
        let uri = format!("nbds://127.0.0.1:{number}/vol?tls-certificates={}", pki.display());
        let out = sync(&dir, &["--full", &image.to_string_lossy(), &uri]);
        assert_eq!(out.code, 6, "{}", out.stderr);
        assert!(out.stderr.contains(why) && !out.stderr.contains('\x1b'), "{}", out.stderr);
        assert_eq!(thread.join().expect("server"), said, "{why}");
    }
}

#[test]
fn c4_a_real_server_without_tls_is_given_up_and_one_that_needs_it_says_so() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (image, pki, number) = (dir.image("a.img", SIZE), dir.path("pki"), port());
    complete(&pki);
    let to = image.to_string_lossy().into_owned();
    let plain = nbdkit_tcp(&dir, number, &pki, &["--tls=off", "memory", "16M"]);
    let out = sync(&dir, &["--tls-dir", &pki.to_string_lossy(), &format!("nbds://localhost:{number}/"), &to]);
    assert_eq!(out.code, 6, "{}", out.stderr);
    assert!(out.stderr.contains("the server does not agree to it"), "{}", out.stderr);
    drop(plain);
    let number = port();
    let _secure = nbdkit_tcp(&dir, number, &pki, &["--tls=require", "memory", "16M"]);
    let out = sync(&dir, &[&format!("nbd://localhost:{number}/"), &to]);
    assert_eq!(out.code, 6, "{}", out.stderr);
    assert!(out.stderr.contains("write nbds:"), "{}", out.stderr);
    // Nobody has said where the certificates are.
    let out = sync(&dir, &[&format!("nbds://localhost:{number}/"), &to]);
    assert_eq!(out.code, 2, "{}", out.stderr);
    assert!(out.stderr.contains("TLS needs a directory of certificates"), "{}", out.stderr);
}

#[test]
fn c5_a_server_that_is_somebody_else_is_refused_by_copies_and_stays_out_as_a_leg() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (image, pki) = (dir.image("a.img", SIZE), dir.path("pki"));
    let authority = complete(&pki);
    let stranger = Authority::new("a stranger");
    let good = Wanted::server(&["localhost", "127.0.0.1"]);
    let number = port();
    let far = dir.image("far.img", SIZE);
    let uri = format!("nbds://127.0.0.1:{number}/");
    let legs = [format!("a={}", image.display()), format!("far={uri},retries=1,timeout=3s")];
    let legs: Vec<_> = legs.iter().map(String::as_str).collect();
    let tls = pki.to_string_lossy().into_owned();
    let theirs = dir.path("theirs");
    complete(&theirs);
    let copy = far.to_string_lossy();
    let args = ["--tls=require", "file", &copy];
    authority.sign(&theirs, &good);
    let right = nbdkit_tcp(&dir, number, &theirs, &args);
    let mut volume = Volume::create(&dir, SIZE, &legs, &["--known-zero", "--tls-dir", &tls]);
    drop(right);
    for (wanted, signer, why) in [
        (
            Wanted { expired: true, ..good.clone() },
            &authority,
            "the server's certificate expired on 2001-01-01",
        ),
        (
            Wanted { hosts: vec!["far.example".into()], ..good.clone() },
            &authority,
            "for far.example, not for 127.0.0.1",
        ),
        (good.clone(), &stranger, "is signed by none of "),
        (Wanted { by_itself: true, ..good.clone() }, &authority, "is signed by itself"),
    ] {
        signer.sign(&theirs, &wanted);
        let wrong = nbdkit_tcp(&dir, number, &theirs, &args);
        let out = sync(&dir, &["--full", "--tls-dir", &tls, &image.to_string_lossy(), &uri]);
        assert_eq!(out.code, 6, "{}", out.stderr);
        assert!(out.stderr.contains(why), "{why}: {}", out.stderr);
        assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
        volume.serve(&[]);
        wait_for("the leg says why", PATIENCE, || volume.status().to_string().contains(why));
        wait_for("it stays out", PATIENCE, || volume.leg("far", "disk-state") != "UpToDate");
        volume.stop();
        drop(wrong);
    }
    // A name that is said counts in place of the host.
    authority.sign(&theirs, &Wanted { hosts: vec!["far.example".into()], ..good.clone() });
    let _right = nbdkit_tcp(&dir, number, &theirs, &args);
    let named = format!("{uri}?tls-hostname=far.example&tls-certificates={tls}");
    let out = sync(&dir, &["--full", &image.to_string_lossy(), &named]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    volume.serve(&[]);
    let set = format!("device={named}");
    // 75 as long as it starts.
    wait_for("it takes the address", PATIENCE, || {
        let out = volume.mirrord(&["leg", "set", "vol", "far", &set]);
        assert!([0, 75].contains(&out.code), "{}", out.stderr);
        out.code == 0
    });
    volume.wait_synced();
    volume.stop();
}

#[test]
fn copies_go_to_and_from_nbdkit_and_qemu_nbd_over_tls() {
    if !need(&["nbdkit", "qemu-nbd", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let pki = dir.path("pki");
    complete(&pki);
    let tls = pki.to_string_lossy().into_owned();
    let source = dir.image("source.img", SIZE);
    let bytes: Vec<u8> = (0..SIZE as usize).map(|at| ((at / 7) ^ (at >> 11)) as u8).collect();
    std::fs::write(&source, &bytes).expect("write");
    let (there, back) = (dir.image("there.img", SIZE), dir.image("back.img", SIZE));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    // nbdkit over TCP and over a socket, asking for a certificate.
    let number = port();
    let args = ["--tls=require", "--tls-verify-peer", "file", &text(&there)];
    let server = nbdkit_tcp(&dir, number, &pki, &args);
    let uri = format!("nbds://localhost:{number}/?tls-certificates={tls}");
    sync(&dir, &["--full", "--verify", &text(&source), &uri]).expect(0);
    sync(&dir, &["--full", &uri, &text(&back)]).expect(0);
    assert_equal(&source, &back);
    // Without one it does not let us in, which is said.
    let bare = dir.path("bare");
    std::fs::create_dir(&bare).expect("directory");
    std::fs::copy(pki.join("ca-cert.pem"), bare.join("ca-cert.pem")).expect("copy");
    let out = sync(
        &dir,
        &["--full", "--tls-dir", &text(&bare), &format!("nbds://localhost:{number}/"), &text(&back)],
    );
    assert_eq!(out.code, 6, "{}", out.stderr);
    drop(server);
    // qemu-nbd.
    let (number, creds) = (port(), format!("tls-creds-x509,id=t,dir={tls},endpoint=server,verify-peer=yes"));
    std::fs::write(&there, vec![0; SIZE as usize]).expect("write");
    let mut command = Command::new("qemu-nbd");
    command.args(["--object", &creds, "--tls-creds", "t", "-b", "127.0.0.1", "-p", &number.to_string()]);
    command.args(["-t", "-e", "8", "-f", "raw", "-x", "vol", &text(&there)]);
    let mut server = Server::start(&mut command, &dir.path("qemu.log"));
    wait_for("qemu-nbd's port", PATIENCE, || {
        assert!(server.is_running(), "{}", server.log());
        TcpStream::connect(("127.0.0.1", number)).is_ok()
    });
    let uri = format!("nbds://localhost:{number}/vol");
    sync(&dir, &["--tls-dir", &tls, "--verify", &text(&source), &uri]).expect(0);
    sync(&dir, &["--tls-dir", &tls, "--compare", &uri, &text(&back)]).expect(0);
    drop(server);
    assert_equal(&source, &there);
    // And the other programs of ours that read a server.
    let number = port();
    let _server = nbdkit_tcp(&dir, number, &pki, &["--tls=require", "file", &text(&there)]);
    let uri = format!("nbds://localhost:{number}/");
    let map = text(&dir.path("map"));
    let tool = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    tool(&["fetch", "--tls-dir", &tls, &uri, "-o", &map]).expect(0);
    tool(&["diff", "--tls-dir", &tls, &uri, &text(&source), "-o", &text(&dir.path("none"))]).expect(0);
}

#[test]
fn a_mirror_with_a_leg_over_tls_is_equal_after_its_connection_was_cut_under_load() {
    if !need(&["nbdkit", "fio"]) {
        return;
    }
    let dir = Dir::new();
    let pki = dir.path("pki");
    complete(&pki);
    let tls = pki.to_string_lossy().into_owned();
    let (near, far) = (dir.image("near.img", SIZE), dir.image("far.img", SIZE));
    let number = port();
    let copy = far.to_string_lossy();
    let args = ["--tls=require", "--tls-verify-peer", "file", &copy];
    let mut server = nbdkit_tcp(&dir, number, &pki, &args);
    let legs =
        [format!("near={}", near.display()), format!("far=nbds://localhost:{number}/,retries=1,timeout=2s")];
    let legs: Vec<_> = legs.iter().map(String::as_str).collect();
    let mut volume = Volume::create(&dir, SIZE, &legs, &["--known-zero", "--tls-dir", &tls]);
    volume.serve(&[]);
    volume.wait_synced();
    let uri = volume.uri();
    let fio = std::thread::spawn(move || {
        let args = [
            "--name=v",
            "--ioengine=nbd",
            &format!("--uri={uri}"),
            "--rw=randwrite",
            "--bs=4k-256k",
            "--size=16M",
            "--iodepth=16",
            "--fsync=32",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--loops=6",
            "--rate_iops=400",
        ];
        run("fio", &args)
    });
    let written = |volume: &Volume<'_>| volume.leg("far", "sent").as_u64().expect("bytes");
    wait_for("some was written over TLS", PATIENCE, || written(&volume) > 2 * MIB);
    server.kill();
    wait_for("the leg is lost", PATIENCE, || volume.dirty("far") > 0);
    let _server = nbdkit_tcp(&dir, number, &pki, &args);
    let out = fio.join().expect("fio");
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    volume.wait_synced();
    volume.mirrord(&["verify", "vol"]).expect(0);
    volume.stop();
    assert_equal(&near, &far);
}

#[test]
fn done_two_daemons_mirror_over_tls_with_certificates_of_both_sides() {
    let dir = Dir::new();
    let pki = dir.path("pki");
    complete(&pki);
    let tls = pki.to_string_lossy().into_owned();
    // The standby's side: a daemon whose own leg is the copy.
    let there = Dir::new();
    let copy = there.image("copy.img", SIZE);
    let standby = Volume::create(&there, SIZE, &[&format!("only={}", copy.display())], &["--known-zero"]);
    let address = format!("127.0.0.1:{}", port());
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", there.state());
    command.args(["serve", "vol", "--listen", &address, "--tls-dir", &tls]);
    let serve = Server::start(&mut command, &there.path("standby.log"));
    wait_for("its URI", PATIENCE, || serve.log().contains("nbds://127.0.0.1:"));
    let near = dir.image("near.img", SIZE);
    let legs = [format!("near={}", near.display()), format!("far=nbds://{address}/vol")];
    let legs: Vec<_> = legs.iter().map(String::as_str).collect();
    let mut volume = Volume::create(&dir, SIZE, &legs, &["--known-zero", "--tls-dir", &tls]);
    volume.serve(&[]);
    volume.wait_synced();
    let mut client = super::raw::Raw::simple(&super::raw::At::Unix(volume.socket().to_owned()));
    for at in (0..SIZE).step_by(MIB as usize) {
        client.pwrite(at, &super::raw::pattern(at, MIB as u32));
    }
    assert_eq!(client.outcome(0, super::raw::FLUSH, 0, 0, &[]), 0);
    drop(client);
    assert_eq!(volume.leg("far", "disk-state"), "UpToDate");
    volume.stop();
    assert_eq!(serve.stop(), Some(0));
    drop(standby);
    assert_equal(&near, &copy);
}
