//! `mirrord` as others start it: sockets that are open already, standard input and output, a parent that ends.

use crate::support::{Dir, Server, Tool, Volume, assert_equal, bin, nbdkit, need, run, wait_for};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: u64 = 8 << 20;
const SOON: Duration = Duration::from_secs(30);

/// A volume of two legs in files.
fn created(dir: &Dir) -> [String; 2] {
    let legs = ["a", "b"].map(|name| format!("{name}={}", dir.image(name, SIZE).display()));
    Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    legs
}

/// `program`, which starts `mirrord` with these arguments and opens its socket.
fn starter(dir: &Dir, program: &str, before: &[&str], mirrord: &[&str], after: &[&str]) -> Tool {
    let bin = bin("mirrord");
    let args = [before, &["[", bin.to_str().expect("UTF-8")], mirrord, &["]"], after].concat();
    Tool::new(program).args(&args).env("MIRROR_STATE_DIR", dir.state())
}

/// Nothing serves the volume any more, and it ended cleanly.
#[track_caller]
fn ended(dir: &Dir) {
    let volume = dir.state().join("vol");
    wait_for("the end of mirrord", SOON, || !volume.join("mirrord.pid").exists());
    assert!(!volume.join("control.sock").exists());
}

#[test]
fn nbdinfo_starts_mirrord_and_asks_it() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    created(&dir);
    let out = starter(&dir, "nbdinfo", &["--size"], &["serve", "vol"], &[]).run().expect(0);
    assert_eq!(out.stdout, format!("{SIZE}\n"), "nothing of ours is on its standard output");
    ended(&dir);
    let out = starter(&dir, "nbdinfo", &["--json", "--"], &["serve", "vol", "--exit-with-parent"], &[])
        .run()
        .expect(0);
    assert!(out.stdout.contains("\"can_multi_conn\": true"), "{}", out.stdout);
    ended(&dir);
}

#[test]
fn done_nbdcopy_fills_a_throw_away_mirror_that_it_started_and_both_legs_are_equal() {
    if !need(&["nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b, data) = (dir.image("a", SIZE), dir.image("b", SIZE), dir.path("data"));
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    std::fs::write(&data, &bytes).expect("data");
    let legs = [format!("a={}", a.display()), format!("b={}", b.display())];
    let serve = ["serve", "vol", "--ephemeral", "--leg", &legs[0], "--leg", &legs[1], "--known-zero"];
    let from = data.to_str().expect("UTF-8");
    starter(&dir, "nbdcopy", &["--flush", "--", from], &serve, &[]).run().expect(0);
    wait_for("the end of mirrord", SOON, || !dir.state().join("vol").exists());
    for leg in [&a, &b] {
        assert_equal(leg, &data);
    }
    // And back, out of a mirror whose legs are known to be equal.
    let equal = ["serve", "vol", "--ephemeral", "--leg", &legs[0], "--leg", &legs[1], "--known-equal"];
    let copy = dir.path("copy");
    starter(&dir, "nbdcopy", &["--"], &equal, &[copy.to_str().expect("UTF-8")]).run().expect(0);
    assert_equal(&copy, &data);
    let left: Vec<_> = std::fs::read_dir(dir.state()).expect("state").collect();
    assert!(left.is_empty(), "a throw-away mirror leaves nothing: {left:?}");
}

#[test]
fn several_sockets_of_an_activator_are_served_unix_and_tcp() {
    if !need(&["systemd-socket-activate", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    created(&dir);
    let socket = dir.path("s");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
    let tcp = format!("127.0.0.1:{port}");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&socket).args(["-l", &tcp, "-E"]);
    command.arg(format!("MIRROR_STATE_DIR={}", dir.state().display()));
    command.arg(bin("mirrord")).args(["serve", "vol"]);
    let mut server = Server::start_on(&mut command, &dir.path("log"), &socket);
    for uri in [format!("nbd+unix:///vol?socket={}", socket.display()), format!("nbd://{tcp}/vol")] {
        assert_eq!(run("nbdinfo", &["--size", &uri]).expect(0).stdout, format!("{SIZE}\n"));
    }
    let status = dir.mirrord(&["status", "vol", "--json"]).run().expect(0).stdout;
    assert!(status.contains(&format!("nbd://{tcp}/vol")) && status.contains("nbd+unix:///vol"), "{status}");
    assert!(server.is_running(), "the sockets are the activator's: it stays when a client goes");
    assert_eq!(server.stop(), Some(0));
    assert!(socket.exists(), "a socket that others opened is not removed");
}

#[test]
fn what_is_no_listening_socket_is_refused_and_what_is_for_another_process_is_ignored() {
    let dir = Dir::new();
    created(&dir);
    let bin = bin("mirrord").display().to_string();
    let shell = |script: String| {
        Tool::new("sh").args(&["-c", &script]).env("MIRROR_STATE_DIR", dir.state()).limit(SOON)
    };
    let activate = |pid: &str, count: &str, rest: &str| {
        shell(format!("LISTEN_PID={pid} LISTEN_FDS={count} exec {bin} serve vol {rest}")).run()
    };
    activate("$$", "1", "3</dev/null").fails("mirrord", 2, "descriptor 3: not a socket");
    activate("$$", "1", "--stdio 3</dev/null").fails("mirrord", 2, "cannot be used with");
    activate("$$", "1", "--listen :0 3</dev/null").fails("mirrord", 2, "cannot be used with");
    activate("$$", "1", "3<&-").fails("mirrord", 2, "LISTEN_FDS");
    activate("$$", "many", "3</dev/null").fails("mirrord", 2, "LISTEN_FDS");
    activate("$$", "17", "3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3").fails("mirrord", 2, "LISTEN_FDS");
    // Not for us: it serves at its own socket.
    let mut command = Command::new(&bin);
    command.env("MIRROR_STATE_DIR", dir.state()).envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]);
    command.args(["serve", "vol"]);
    let socket = dir.state().join("vol/nbd.sock");
    assert_eq!(Server::start_on(&mut command, &dir.path("log"), &socket).stop(), Some(0));
}

#[test]
fn one_client_on_standard_input_is_served_and_its_end_is_a_clean_stop() {
    if !need(&["python3-libnbd"]) {
        return;
    }
    let dir = Dir::new();
    created(&dir);
    // As libnbd starts a server by a command: one socket is both standard input and output.
    let script = format!(
        "import nbd\nh = nbd.NBD()\nh.set_export_name('vol')\n\
         h.connect_command(['sh', '-c', '{} serve vol --stdio; echo $? > {}'])\n\
         h.pwrite(b'x' * 65536, 4096)\nh.flush()\nassert h.pread(65536, 4096) == b'x' * 65536\nh.shutdown()\n",
        bin("mirrord").display(),
        dir.path("code").display()
    );
    Tool::new("/usr/bin/python3").args(&["-c", &script]).env("MIRROR_STATE_DIR", dir.state()).run().expect(0);
    let code = || std::fs::read_to_string(dir.path("code")).unwrap_or_default();
    wait_for("the end of mirrord", SOON, || code().ends_with('\n'));
    assert_eq!(code(), "0\n");
    ended(&dir);
    assert_equal(&dir.path("a"), &dir.path("b"));
    assert_eq!(std::fs::read(dir.path("a")).expect("leg")[4096], b'x');
}

/// `mirrord serve vol --stdio` on two pipes, as ssh(1) starts it.
fn on_pipes(dir: &Dir) -> std::process::Child {
    let mut command = Command::new(bin("mirrord"));
    command.args(["serve", "vol", "--stdio"]).env("MIRROR_STATE_DIR", dir.state());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("mirrord")
}

#[test]
fn two_pipes_serve_as_well_as_one_socket() {
    let dir = Dir::new();
    created(&dir);
    let mut child = on_pipes(&dir);
    let (mut to, mut from) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let mut greeting = [0; 18];
    from.read_exact(&mut greeting).expect("greeting");
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    // Flags, then GO to "vol", then READ of 1 MiB and DISC.
    let mut bytes = vec![0, 0, 0, 3];
    bytes.extend(b"IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x03vol\0\0");
    bytes.extend(*b"\x25\x60\x95\x13\0\0\0\0cookie01\0\0\0\0\0\0\0\0\0\x10\0\0");
    bytes.extend(*b"\x25\x60\x95\x13\0\0\0\x02cookie02\0\0\0\0\0\0\0\0\0\0\0\0");
    to.write_all(&bytes).expect("requests");
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).expect("replies");
    let header = rest.windows(8).position(|w| w == b"cookie01").expect("the reply to the READ");
    assert_eq!(rest.len() - header - 8, 1 << 20, "all of it has come before the end");
    assert_eq!(child.wait().expect("end").code(), Some(0));
    ended(&dir);
}

#[test]
fn a_client_on_standard_input_that_is_gone_or_silent_does_not_keep_the_volume() {
    let dir = Dir::new();
    created(&dir);
    let mut child = on_pipes(&dir);
    drop((child.stdin.take(), child.stdout.take()));
    assert_eq!(child.wait().expect("end").code(), Some(0), "gone at once");
    let mut child = on_pipes(&dir);
    let _silent = (child.stdin.take(), child.stdout.take());
    // The deadline of the handshake.
    wait_for("its end", SOON, || child.try_wait().expect("wait").is_some());
    assert_eq!(child.wait().expect("end").code(), Some(0));
    ended(&dir);
}

#[test]
fn mirrord_ends_cleanly_with_its_parent() {
    let dir = Dir::new();
    created(&dir);
    let script = format!("{} serve vol --exit-with-parent & wait", bin("mirrord").display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("MIRROR_STATE_DIR", dir.state());
    let socket = dir.state().join("vol/nbd.sock");
    let mut shell = Server::start_on(&mut command, &dir.path("log"), &socket);
    // It is written after the socket is there.
    let file = dir.state().join("vol/mirrord.pid");
    let pid = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for("its PID", SOON, || pid().ends_with('\n'));
    assert!(Path::new("/proc").join(pid().trim()).exists());
    shell.kill();
    ended(&dir);
    assert!(shell.log().contains("stopping"), "a clean stop: {}", shell.log());
}

#[test]
fn a_loop_that_asks_before_it_sleeps_serves_the_same() {
    if !need(&["nbdkit", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.image("far.img", SIZE);
    let _server = nbdkit(&dir, &dir.path("far.sock"), &["file", &far.to_string_lossy()]);
    let legs = [
        format!("near={}", dir.image("near.img", SIZE).display()),
        format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display()),
    ];
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.mirrord(&["serve", "vol", "--spin", "101"]).fails("mirrord", 2, "at most 100");
    volume.serve(&["--spin", "10"]);
    volume.wait_synced();
    let out = run("qemu-io", &["-f", "raw", "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M", &volume.uri()]);
    assert!(out.code == 0 && !out.stdout.contains("failed"), "{}{}", out.stdout, out.stderr);
    volume.stop();
    assert_equal(&dir.path("near.img"), &far);
}
