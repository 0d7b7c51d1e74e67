//! A leg with several addresses: ways to one server over several networks, tried in order.

use crate::support::{Dir, Server, Tool, Volume, assert_equal, bin, nbdkit, need, run, wait_for};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SIZE: u64 = 16 << 20;
const SOON: Duration = Duration::from_secs(40);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port").port()
}

/// The image of the far leg, of bytes that are nowhere else.
fn image(dir: &Dir, name: &str, seed: u64) -> PathBuf {
    let path = dir.path(name);
    let mut bytes = vec![0; SIZE as usize];
    let mut state = seed | 1;
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        word.copy_from_slice(&(state ^ state >> 33).to_le_bytes());
    }
    std::fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("image");
    path
}

/// `nbdkit` over TCP.
fn nbdkit_tcp(dir: &Dir, port: u16, args: &[&str]) -> Server {
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--ipaddr", "127.0.0.1", "--port", &port.to_string()]).args(args);
    let server = Server::start(&mut command, &dir.path("nbdkit-tcp.log"));
    wait_for("nbdkit over TCP", SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    server
}

fn unix(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

fn tcp(port: u16) -> String {
    format!("nbd://127.0.0.1:{port}/")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("path")
}

/// Of the addresses of a leg: which is in use.
fn in_use(volume: &Volume<'_>, leg: &str) -> Option<usize> {
    volume
        .leg(leg, "addresses")
        .as_array()
        .expect("list")
        .iter()
        .position(|address| address["in-use"] == true)
}

/// What an address said last.
fn error(volume: &Volume<'_>, leg: &str, address: usize) -> String {
    volume.leg(leg, "addresses")[address]["error"].as_str().unwrap_or_default().to_owned()
}

fn fio(dir: &Dir, uri: &str, rest: &[&str]) -> Command {
    // If this test is killed nobody ends it, and it tells of every request that fails: it ends at so many bytes.
    let mut fio = Command::new("prlimit");
    fio.args(["--fsize=33554432", "fio", "--name=load", "--ioengine=nbd", "--rw=randwrite", "--iodepth=8"]);
    fio.args([&format!("--uri={uri}"), &format!("--size={SIZE}"), "--randseed=7", "--thread"]).args(rest);
    fio.current_dir(dir.path(""));
    fio
}

#[test]
fn done_a_leg_whose_first_address_dies_under_load_goes_on_over_its_second_and_no_data_is_lost() {
    if !need(&["nbdkit", "fio"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", SIZE);
    let (socket, port) = (dir.path("far.sock"), free_port());
    // The way that dies takes everything with it that was not flushed.
    let first = ["--filter=cache", "file", text(&far), "cache=writeback"];
    let mut dies = nbdkit(&dir, &socket, &first);
    let stays = nbdkit_tcp(&dir, port, &["file", text(&far)]);
    let legs = [
        format!("near={}", dir.image("near.img", SIZE).display()),
        format!("far={},{}", unix(&socket), tcp(port)),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(in_use(&volume, "far"), Some(0));
    let mut load = Server::start(
        &mut fio(
            &dir,
            &volume.uri(),
            &["--bsrange=4k-64k", "--time_based", "--runtime=300", "--refill_buffers"],
        ),
        &dir.path("fio.out"),
    );
    wait_for("writes", SOON, || volume.status()["written"].as_u64().is_some_and(|bytes| bytes > 4 << 20));
    dies.kill();
    wait_for("the other address", SOON, || in_use(&volume, "far") == Some(1));
    assert!(error(&volume, "far", 0).contains("far.sock"), "{}", volume.status());
    let before = volume.status()["written"].as_u64();
    wait_for("writes", SOON, || volume.status()["written"].as_u64() > before);
    assert!(load.is_running(), "no client has noticed: {}", load.log());
    load.kill();
    volume.wait_synced();
    let shown = volume.mirrord(&["status", "vol"]).expect(0).stdout;
    assert!(shown.contains(&format!("      at {}: in use\n", tcp(port))), "{shown}");
    // What is written is read back, over the leg that has gone on.
    let verify = ["--bs=16k", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=32"];
    let mut check = Server::start(&mut fio(&dir, &volume.uri(), &verify), &dir.path("verify.out"));
    wait_for("fio's verify", SOON, || !check.is_running());
    assert_eq!(check.code(), Some(0), "{}", check.log());
    volume.stop();
    stays.stop();
    assert_equal(&dir.path("near.img"), &far);
}

#[test]
fn done_a_foreign_server_at_an_address_is_refused_untouched_and_the_next_address_is_tried() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let (far, foreign) = (image(&dir, "far.img", 1), image(&dir, "foreign.img", 2));
    std::fs::copy(&far, dir.path("near.img")).expect("copy");
    std::fs::copy(&foreign, dir.path("before.img")).expect("copy");
    let (socket, other, port) = (dir.path("far.sock"), dir.path("other.sock"), free_port());
    let mut first = nbdkit(&dir, &socket, &["file", text(&far)]);
    let legs = [
        format!("near={}", dir.path("near.img").display()),
        format!("far={},{},{}", unix(&socket), unix(&other), tcp(port)),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-equal"]);
    volume.serve(&[]);
    volume.wait_synced();
    let _foreign = nbdkit(&dir, &other, &["file", text(&foreign)]);
    first.kill();
    wait_for("the refusal", SOON, || error(&volume, "far", 1).contains("refused: its bytes at"));
    assert!(error(&volume, "far", 1).contains("differ from those of leg near"), "{}", volume.status());
    assert!(volume.server().log().contains("refused: its bytes at"), "it is said aloud");
    assert_eq!(in_use(&volume, "far"), None);
    let reason = volume.leg("far", "reason");
    assert!(reason.as_str().is_some_and(|why| why.contains(&unix(&other))), "{reason}");
    // Behind the foreign one stands the right one.
    let third = nbdkit_tcp(&dir, port, &["file", text(&far)]);
    wait_for("the third address", SOON, || in_use(&volume, "far") == Some(2));
    let uri = volume.uri();
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 1M 1M", "-c", "flush", &uri]).expect(0);
    volume.wait_synced();
    assert!(error(&volume, "far", 1).contains("refused"), "what it said is still there");
    volume.stop();
    third.stop();
    assert_equal(&foreign, &dir.path("before.img"));
    assert_equal(&far, &dir.path("near.img"));
}

#[test]
fn c27_an_older_copy_is_refused_by_what_was_written_last() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", SIZE);
    let old = dir.image("old.img", SIZE);
    let (socket, other) = (dir.path("far.sock"), dir.path("other.sock"));
    let mut first = nbdkit(&dir, &socket, &["file", text(&far)]);
    let legs = [
        format!("near={}", dir.image("near.img", SIZE).display()),
        format!("far={},{}", unix(&socket), unix(&other)),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    // One block of 256 that the older copy does not have.
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 7M 4k", "-c", "flush", &volume.uri()]).expect(0);
    wait_for("nothing unflushed", SOON, || volume.leg("far", "unflushed") == 0);
    let _old = nbdkit(&dir, &other, &["file", text(&old)]);
    first.kill();
    wait_for("the refusal", SOON, || {
        error(&volume, "far", 1).contains("refused: its bytes at 7340032 differ")
    });
    let mut first = nbdkit(&dir, &socket, &["file", text(&far)]);
    wait_for("the first address again", SOON, || in_use(&volume, "far") == Some(0));
    volume.wait_synced();
    volume.stop();
    first.kill();
    assert_equal(&far, &dir.path("near.img"));
}

#[test]
fn the_only_leg_is_compared_with_what_it_held_before() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let (far, foreign) = (image(&dir, "far.img", 1), image(&dir, "foreign.img", 2));
    let (socket, other) = (dir.path("far.sock"), dir.path("other.sock"));
    let mut first = nbdkit(&dir, &socket, &["file", text(&far)]);
    let leg = format!("far={},{}", unix(&socket), unix(&other));
    let mut volume = Volume::create(&dir, SIZE, &[&leg], &[]);
    volume.serve(&[]);
    volume.wait_synced();
    let mut foreign = nbdkit(&dir, &other, &["file", text(&foreign)]);
    first.kill();
    wait_for("the refusal", SOON, || {
        error(&volume, "far", 1).contains("differ from what the leg held before")
    });
    foreign.kill();
    let _second = nbdkit(&dir, &other, &["file", text(&far)]);
    wait_for("the second address", SOON, || in_use(&volume, "far") == Some(1));
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 1M 64k", "-c", "flush", &volume.uri()]).expect(0);
    volume.stop();
}

/// A listener that takes connections and ends them: when each came.
fn slammed_door(moments: &Arc<Mutex<Vec<(usize, Instant)>>>, number: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let moments = Arc::clone(moments);
    // Ends with the process; there is nothing to wait for.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            moments.lock().expect("moments").push((number, Instant::now()));
            drop(connection);
        }
    });
    port
}

#[test]
fn done_no_address_is_tried_more_often_than_the_pauses_between_attempts_allow() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", SIZE);
    let socket = dir.path("far.sock");
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (one, two) = (slammed_door(&moments, 1), slammed_door(&moments, 2));
    let mut first = nbdkit(&dir, &socket, &["file", text(&far)]);
    let legs = [
        format!("near={}", dir.image("near.img", SIZE).display()),
        format!("far={},{},{}", unix(&socket), tcp(one), tcp(two)),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    moments.lock().expect("moments").clear();
    first.kill();
    let count = || moments.lock().expect("moments").len();
    wait_for("six attempts", SOON, || count() >= 12);
    let moments = moments.lock().expect("moments").clone();
    let order: Vec<usize> = moments.iter().map(|(number, _)| *number).take(12).collect();
    assert_eq!(order, [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2], "each attempt tries all, in order");
    for number in [1, 2] {
        let times: Vec<Instant> = moments.iter().filter(|(n, _)| *n == number).map(|(_, at)| *at).collect();
        for (nth, pair) in times.windows(2).take(5).enumerate() {
            let (gap, pause) =
                (pair[1] - pair[0], Duration::from_millis(200 << nth).min(Duration::from_secs(5)));
            // A connection is seen by the listener a little late.
            assert!(
                gap + Duration::from_millis(50) >= pause,
                "address {number}, {nth}: {gap:?} after {pause:?}"
            );
        }
    }
    let events = volume.leg("far", "reason");
    assert!(
        events.as_str().is_some_and(|why| why.contains(&tcp(one)) && why.contains(&tcp(two))),
        "{events}"
    );
    volume.stop();
}

#[test]
fn addresses_are_set_while_the_volume_is_served_and_the_leg_stays_where_it_is() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let far = image(&dir, "far.img", 1);
    let (socket, port) = (dir.path("far.sock"), free_port());
    let _first = nbdkit(&dir, &socket, &["file", text(&far)]);
    let second = nbdkit_tcp(&dir, port, &["file", text(&far)]);
    let near = format!("near={}", dir.image("near.img", SIZE).display());
    let leg = format!("far={}", unix(&socket));
    let mut volume = Volume::create(&dir, SIZE, &[&near, &leg], &["--from", "far"]);
    let file = dir.path("c.toml");
    let clients = volume.socket().to_owned();
    let write = |device: &str| {
        let text = format!(
            "[volume.vol]\nunix = '{}'\n[[volume.vol.leg]]\nname = 'far'\ndevice = {device}\n",
            clients.display()
        );
        std::fs::write(&file, text).expect("configuration");
    };
    write(&format!("'{}'", unix(&socket)));
    volume.serve_config(&file);
    volume.wait_synced();
    // Another address for the last good leg is no move.
    volume.mirrord(&["leg", "detach", "vol", "near"]).expect(0);
    let both = format!("device={},{}", unix(&socket), tcp(port));
    volume.mirrord(&["leg", "set", "vol", "far", &both]).expect(0);
    assert_eq!((in_use(&volume, "far"), volume.leg("far", "disk-state")), (Some(0), "UpToDate".into()));
    let stored = std::fs::read_to_string(dir.state().join("vol/volume.toml")).expect("stored");
    assert!(stored.contains(&format!("device = [\"{}\", \"{}\"]", unix(&socket), tcp(port))), "{stored}");
    // The address that is in use is taken away: over to the other one.
    let turned = format!("device={},nbd://127.0.0.1:1/", tcp(port));
    volume.mirrord(&["leg", "set", "vol", "far", &turned]).expect(0);
    wait_for("the other address", SOON, || in_use(&volume, "far") == Some(0));
    assert_eq!(volume.leg("far", "device"), tcp(port));
    // The file says it the other way round.
    write(&format!("['{}', '{}']", unix(&socket), tcp(port)));
    volume.server().signal("HUP");
    wait_for("the reload", SOON, || in_use(&volume, "far") == Some(1));
    volume.mirrord(&["leg", "attach", "vol", "near"]).expect(0);
    volume.wait_synced();
    volume.stop();
    // From the stored addresses, in their order.
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(in_use(&volume, "far"), Some(0));
    volume.stop();
    second.stop();
}

#[test]
fn addresses_that_no_leg_can_have_are_refused_before_anything_is_made() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (far, foreign) = (image(&dir, "far.img", 1), image(&dir, "foreign.img", 2));
    let (one, two) = (dir.path("one.sock"), dir.path("two.sock"));
    let _one = nbdkit(&dir, &one, &["file", text(&far)]);
    let _two = nbdkit(&dir, &two, &["file", text(&foreign)]);
    let create = |legs: &[&str]| {
        let mut args = vec!["create", "vol", "--size", "16M", "--known-equal"];
        for leg in legs {
            args.extend(["--leg", leg]);
        }
        dir.mirrord(&args).run()
    };
    let near = format!("near={}", dir.image("near.img", SIZE).display());
    let (a, b) = (unix(&one), unix(&two));
    create(&[&near, &format!("far={a},{a}")]).fails("mirrord", 2, "this address is given twice");
    create(&[&near, "far=/x,nbd://h/x"]).fails("mirrord", 2, "only a leg behind NBD has several addresses");
    create(&[&format!("a={a},{b}"), &format!("b={b}")]).fails("mirrord", 2, "are the same device");
    create(&[&near, &format!("far={a},{b}")]).fails("mirrord", 3, "it is not the same device as");
    assert!(!dir.state().join("vol").exists());
    let file = dir.path("c.toml");
    std::fs::write(&file, format!("[volume.v]\n[[volume.v.leg]]\nname='a'\ndevice=['{a}','{a}']\n"))
        .expect("file");
    let check = Tool::new(bin("mirrord")).args(&["check-config", text(&file)]).run();
    check.fails("mirrord", 2, "this address is given twice");
}
