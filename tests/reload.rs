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
        ("[[volume.vol.leg]]\ndevice = '/c'\n".to_owned(), "NAME=DEVICE"),
        ("min-legs = 4\n".to_owned(), "min-legs is 4"),
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
    let said = || std::fs::read_to_string(&page).expect("metrics");
    wait_for("its last page", Duration::from_secs(20), || {
        said().contains("mirror_running{volume=\"vol\"} 0")
    });
    volume.stop();
}

/// A volume whose configuration names its legs, under the load of fio.
struct Loaded<'d> {
    dir: &'d Dir,
    volume: Volume<'d>,
    load: Server,
}

impl<'d> Loaded<'d> {
    fn new(dir: &'d Dir) -> Self {
        let volume = created(dir);
        let load = Command::new("true");
        let mut loaded = Self { dir, volume, load: Server::start(&mut { load }, &dir.path("fio.out")) };
        loaded.write("", &["a", "b"]);
        loaded.volume.serve_config(&dir.path("c.toml"));
        loaded.volume.wait_synced();
        // If this test is killed nobody ends it, and it tells of every request that fails: it ends at so many bytes.
        let mut fio = Command::new("prlimit");
        fio.args(["--fsize=16777216", "fio"]);
        fio.args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k", "--iodepth=8"])
            .args([&format!("--uri={}", loaded.volume.uri()), &format!("--size={SIZE}"), "--time_based"])
            .args(["--runtime=300", "--refill_buffers", "--thinktime=500us", "--fsync=64"])
            .current_dir(dir.path(""));
        loaded.load = Server::start(&mut fio, &dir.path("fio.out"));
        loaded
    }

    /// The configuration with these legs: each a name, or a name, a colon, and further lines of TOML. A leg lies in
    /// the file of its name unless a `device` is among them.
    fn write(&self, rest: &str, legs: &[&str]) {
        let mut text = format!("[volume.vol]\nunix = '{}'\n{rest}", self.dir.path("vol.sock").display());
        for leg in legs {
            let (name, more) = leg.split_once(':').unwrap_or((leg, ""));
            let device = format!("device = '{}'", self.dir.path(name).display());
            let device = if more.contains("device") { "" } else { &device };
            text.extend(["[[volume.vol.leg]]\n", &format!("name = '{name}'\n"), more, "\n", device, "\n"]);
        }
        std::fs::write(self.dir.path("c.toml"), text).expect("configuration");
    }

    /// Reads it again; all of these must be said, and no write may fail.
    #[track_caller]
    fn reload(&mut self, end: &str, lines: &[&str]) {
        let said = reload(&mut self.volume, &format!("reload: {end}\n"));
        for line in lines {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(self.load.is_running(), "a write failed: {}\n{said}", self.load.log());
    }

    fn legs(&self) -> Vec<String> {
        let status = self.volume.status();
        let legs = status["legs"].as_array().expect("legs").iter();
        legs.map(|leg| leg["name"].as_str().expect("name").to_owned()).collect()
    }
}

#[test]
fn done_a_reload_under_load_adds_moves_sets_and_removes_legs_and_says_what_it_refuses() {
    if !need(&["fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut test = Loaded::new(&dir);
    test.reload("nothing differs", &[]);

    dir.image("c", SIZE);
    test.write("", &["a", "b:read = 'avoid'", "c"]);
    test.reload("2 changed", &["leg c: added: c=/", "leg b: now b=/"]);
    assert_eq!(
        (test.legs(), test.volume.leg("b", "read-preference")),
        (names(&["a", "b", "c"]), "avoid".into())
    );
    test.volume.wait_synced();

    // One leg has moved; another one is not there: the rest is done all the same.
    std::fs::rename(dir.path("c"), dir.path("moved")).expect("rename");
    let moved = format!("c:device = '{}'", dir.path("moved").display());
    test.write("", &["a", "b", &moved, "none"]);
    test.reload(
        "2 changed, 1 refused",
        &["leg b: now b=/", "leg none: refused: adding none=/", "No such file", "leg c: now c=/"],
    );
    test.volume.wait_synced();
    assert_eq!(test.volume.leg("c", "device"), dir.path("moved").display().to_string());
    assert_eq!(test.volume.leg("b", "read-preference"), "allow");

    // Two of three go, and two are to stay: nothing is changed. One of three goes.
    test.write("min-legs = 2\n", &["a"]);
    let said = reload(&mut test.volume, "nothing is changed");
    assert!(said.contains("min-legs is 2"), "{said}");
    test.write("min-legs = 2\n", &["a", &moved]);
    test.reload("2 changed", &["leg b: removed"]);
    assert_eq!((test.legs(), test.volume.status()["min-legs"].as_u64()), (names(&["a", "c"]), Some(2)));

    // Another one for the one that goes: it stays until the other one is in sync.
    test.write("min-legs = 2\n", &["a", "b:rate = '1K'"]);
    let why = "leg c: refused: removing it: without leg c 1 would be in sync, min-legs is 2";
    let next = "leg c: try: mirrord wait vol --until synced, and reload again";
    test.reload("1 changed, 1 refused", &["leg b: added: b=/", why, next]);
    test.write("min-legs = 2\n", &["a", "b"]);
    test.reload("1 changed, 1 refused", &["leg b: now b=/", why]);
    test.volume.wait_synced();
    test.reload("1 changed", &["leg c: removed"]);
    assert_eq!(test.legs(), ["a", "b"]);

    // What is fixed is said; a leg that the file never named is none of its business.
    test.write("", &["a:flush = 'unsafe'"]);
    test.volume.mirrord(&["leg", "add", "vol", &format!("d={}", dir.image("d", SIZE).display())]).expect(0);
    test.reload("2 changed, 1 refused", &["leg a: refused: setting a=/", "flush is fixed", "leg b: removed"]);
    test.volume.wait_synced();
    assert_eq!(test.legs(), ["a", "d"]);

    // The last good copy stays, whatever the file says.
    test.volume.mirrord(&["leg", "detach", "vol", "d"]).expect(0);
    test.write("", &[]);
    test.reload("0 changed, 1 refused", &["leg a: refused: removing it: leg a is the last good copy"]);
    test.volume.mirrord(&["leg", "attach", "vol", "d"]).expect(0);
    test.volume.wait_synced();
    assert!(test.load.is_running(), "{}", test.load.log());
    test.load.kill();
    test.volume.stop();
    crate::support::assert_equal(&dir.path("a"), &dir.path("d"));
}

#[test]
fn done_leg_set_stores_what_was_set_and_nothing_that_a_file_lays_over_the_leg() {
    let dir = Dir::new();
    let mut volume = created(&dir);
    let file = dir.path("c.toml");
    let text = format!(
        "[volume.vol]\nunix = '{}'\n[[volume.vol.leg]]\nname = 'b'\ndevice = '{}'\nread = 'avoid'\nrate = '1M'\n",
        dir.path("vol.sock").display(),
        dir.path("b").display()
    );
    std::fs::write(&file, text).expect("configuration");
    volume.serve_config(&file);
    volume.wait_synced();
    volume.mirrord(&["leg", "set", "vol", "b", "timeout=3s", "retries=7"]).expect(0);
    assert_eq!(volume.leg("b", "read-preference"), "avoid", "what the file says holds while it is there");
    let stored = std::fs::read_to_string(dir.state().join("vol/volume.toml")).expect("stored");
    assert!(stored.contains("timeout = \"3000ms\"\nretries = 7\n"), "{stored}");
    assert!(!stored.contains("avoid") && !stored.contains("rate"), "{stored}");
    volume.stop();
    volume.serve(&[]);
    volume.wait_synced();
    assert_eq!(volume.leg("b", "read-preference"), "allow");
    volume.stop();
}

#[test]
fn done_legs_that_change_places_are_refused_by_a_reload_and_by_a_start_while_one_lacks_something() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = created(&dir);
    let file = dir.path("c.toml");
    let write = |a: &str, b: &str| {
        let mut text = format!("[volume.vol]\nunix = '{}'\n", dir.path("vol.sock").display());
        for (name, at) in [("a", a), ("b", b)] {
            let device = dir.path(at).display().to_string();
            text.extend(["[[volume.vol.leg]]\nname = '", name, "'\ndevice = '", &device, "'\n"]);
        }
        std::fs::write(&file, text).expect("configuration");
    };
    write("a", "b");
    volume.serve_config(&file);
    volume.wait_synced();
    write("b", "a");
    let said = reload(&mut volume, "reload: 0 changed, 2 refused");
    assert!(said.contains("leg a: refused: setting a=") && said.contains("leg b is there"), "{said}");
    assert!(said.contains("leg b: refused: setting b=") && said.contains("leg a is there"), "{said}");
    let at = |volume: &Volume<'_>, leg: &str| volume.leg(leg, "device").as_str().expect("device").to_owned();
    assert_eq!(at(&volume, "a"), dir.path("a").display().to_string());
    assert!(
        volume.status()["legs"].as_array().expect("legs").iter().all(|leg| leg["disk-state"] == "UpToDate")
    );
    // One lacks something: a start that takes the other's disk for it would serve what is old.
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 0 64k", "-c", "flush", &volume.uri()]).expect(0);
    volume.stop();
    let serve = dir.mirrord(&["serve", "vol", "--config", file.to_str().expect("path")]).run();
    serve.fails("mirrord", 3, "leg a is to be where leg b was, and leg b lacks something");
    // In sync they are equal, whatever they are called.
    write("a", "b");
    volume.serve_config(&file);
    wait_for("it serves", SOON, || volume.status()["suspended"] == false);
    volume.mirrord(&["leg", "attach", "vol", "b"]).expect(0);
    volume.wait_synced();
    volume.stop();
    write("b", "a");
    volume.serve_config(&file);
    volume.wait_synced();
    assert_eq!(at(&volume, "a"), dir.path("b").display().to_string());
    run("qemu-io", &["-f", "raw", "-c", "read -P 9 0 64k", &volume.uri()]).expect(0);
    volume.stop();
    crate::support::assert_equal(&dir.path("a"), &dir.path("b"));
}

#[test]
fn done_hangups_while_a_leg_is_replaced_and_resynced_change_settings_and_end_with_equal_legs() {
    if !need(&["fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut test = Loaded::new(&dir);
    dir.image("c", SIZE);
    // A replacement that takes some seconds; meanwhile the file is read again and again, with other settings each time.
    let new = format!("c={},rate=1M", dir.path("c").display());
    test.volume.mirrord(&["leg", "replace", "vol", "b", &new]).expect(0);
    for retries in 5..9 {
        let b = format!("b:retries = {retries}");
        test.write("", &["a", &b]);
        test.reload("1 changed", &[&format!("leg b: now b={},retries={retries}", dir.path("b").display())]);
    }
    // Of the target itself, in the middle of its resync; it is of the file's business only once it names it.
    test.write("", &["a", "c:rate = '512K'"]);
    test.reload("1 changed", &["leg c: now c="]);
    test.write("", &["a", "c:rate = 'auto'"]);
    test.reload("1 changed", &["leg c: now c="]);
    wait_for("the replacement", SOON, || test.legs() == ["a", "c"]);
    test.volume.wait_synced();
    // A storm of them while a leg is copied to in full.
    test.volume.mirrord(&["resync", "vol", "c", "--full"]).expect(0);
    for turn in 0..20 {
        test.write("", &["a", if turn % 2 == 0 { "c:rate = '8M'" } else { "c:read = 'avoid'" }]);
        test.volume.server().signal("HUP");
    }
    test.write("", &["a", "c:rate = 'auto'\nread = 'allow'"]);
    test.volume.server().signal("HUP");
    wait_for("the last one", SOON, || {
        let legs = test.volume.status()["legs"].clone();
        legs[1]["read-preference"] == "allow" && legs[1]["rate-limit"].is_null()
    });
    test.volume.wait_synced();
    assert!(test.load.is_running(), "a write failed: {}", test.load.log());
    test.load.kill();
    test.volume.stop();
    crate::support::assert_equal(&dir.path("a"), &dir.path("c"));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
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
