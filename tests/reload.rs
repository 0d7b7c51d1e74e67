//! SIGHUP reads the configuration again; systemd is told what goes on.

use crate::support::{Dir, Server, Volume, bin, need, run, wait_for};
use std::io::Read as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

const SIZE: u64 = 4 << 20;
const SOON: Duration = Duration::from_secs(30);

fn created(dir: &Dir) -> Volume<'_> {
    let legs = ["a", "b"].map(|name| format!("{name}={}", dir.image(name, SIZE).display()));
    Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"])
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port()
}

/// Sends SIGHUP and waits until what followed stands in the log.
fn reload(volume: &mut Volume<'_>, until: &str) -> String {
    let before = volume.server().log().len();
    volume.server().signal("HUP");
    let mut said = String::new();
    wait_for(until, SOON, || {
        volume.server().log()[before..].clone_into(&mut said);
        said.contains(until)
    });
    said
}

#[test]
fn done_a_reload_prints_and_performs_what_differs_and_a_bad_file_changes_nothing() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = created(&dir);
    let config = dir.path("c.toml");
    let write = |rest: &str| {
        let text = format!("[volume.vol]\nunix = '{}'\n{rest}", dir.path("vol.sock").display());
        std::fs::write(&config, text).expect("configuration");
    };
    write("");
    volume.serve_config(&config);
    volume.wait_synced();
    let mut client = UnixStream::connect(volume.socket()).expect("client");
    let mut greeting = [0; 18];
    client.read_exact(&mut greeting).expect("greeting");
    assert!(reload(&mut volume, "reload: nothing differs").lines().count() == 1);

    let (port, seen, page) = (free_port(), dir.path("seen"), dir.path("vol.prom"));
    write(&format!(
        "listen = ['127.0.0.1:{port}']\nmin-legs = 2\nread-policy = 'round-robin'\nmetrics = '{}'\n\
         on-event = 'echo $MIRROR_EVENT >> {}'\n",
        page.display(),
        seen.display()
    ));
    let said = reload(&mut volume, "reload: 5 changed\n");
    for line in ["listen: none, now 127.0.0.1:", "min-legs: 1, now 2", "read-policy: local, now round-robin"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let status = volume.status();
    assert_eq!((&status["min-legs"], &status["read-policy"]), (&2.into(), &"round-robin".into()));
    assert_eq!(status["uris"].as_array().expect("uris").len(), 2, "{status}");
    let tcp = format!("nbd://127.0.0.1:{port}/vol");
    assert_eq!(run("nbdinfo", &["--size", &tcp]).expect(0).stdout, format!("{SIZE}\n"));
    wait_for("the command for events", SOON, || {
        std::fs::read_to_string(&seen).is_ok_and(|s| s.contains("reload"))
    });
    wait_for("metrics", SOON, || std::fs::read_to_string(&page).is_ok_and(|s| s.contains("mirror_min_legs")));
    // With min-legs 2 a write is refused as soon as a leg is out: the core has it too.
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    if need(&["qemu-io"]) {
        let out = run("qemu-io", &["-f", "raw", "-c", "write 0 4k", &volume.uri()]);
        assert!(out.stdout.contains("failed") || out.stderr.contains("failed"), "{out:?}");
    }
    volume.mirrord(&["leg", "attach", "vol", "b"]).expect(0);
    volume.wait_synced();

    // A taken port, an unknown key, a listener for everybody: each time all stays as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let taken = taken.local_addr().expect("address").port();
    for (bad, why) in [
        (format!("listen = ['127.0.0.1:{taken}']\nmin-legs = 1\n"), "Address already in use"),
        ("colour = 1\n".to_owned(), "unknown field"),
        ("listen = ['0.0.0.0:0']\n".to_owned(), "by anybody"),
        ("[[volume.vol.leg]]\nname = 'c'\ndevice = '/c'\n".to_owned(), "no leg of this name"),
        ("metrics = '/proc/none/x'\n".to_owned(), "/proc/none"),
    ] {
        write(&bad);
        let said = reload(&mut volume, "nothing is changed");
        assert!(said.contains(why), "{said}");
        assert_eq!(volume.status()["min-legs"], 2);
        assert_eq!(run("nbdinfo", &["--size", &tcp]).expect(0).stdout, format!("{SIZE}\n"));
    }

    // Back again: the port is closed, the client of the beginning is still there.
    write("");
    reload(&mut volume, "reload: 5 changed\n");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(volume.status()["clients"], 1);
    assert!(std::fs::read_to_string(&page).expect("metrics").contains("mirror_running{volume=\"vol\"} 0"));
    volume.stop();
}

#[test]
fn systemd_hears_that_the_volume_is_ready_lives_reloads_and_stops() {
    let dir = Dir::new();
    drop(created(&dir));
    let notify = UnixDatagram::bind(dir.path("notify")).expect("socket");
    notify.set_read_timeout(Some(SOON)).expect("timeout");
    let mut buffer = [0; 4096];
    let mut next = |word: &str| loop {
        let n = notify.recv(&mut buffer).unwrap_or_else(|e| panic!("{word}: {e}"));
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if text.lines().any(|line| line == word) {
            return text;
        }
    };
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", dir.state()).env("NOTIFY_SOCKET", dir.path("notify"));
    command.env("WATCHDOG_USEC", "400000").args(["serve", "vol"]);
    let server = Server::start(&mut command, &dir.path("log"));
    next("READY=1");
    next("WATCHDOG=1");
    next("WATCHDOG=1");
    server.signal("HUP");
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    server.signal("TERM");
    next("STOPPING=1");
    assert_eq!(server.stop(), Some(0));
}
