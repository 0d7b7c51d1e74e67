//! How others watch a volume: `mirrord check`, metrics for Prometheus, a command for each event, units of systemd.

use crate::support::{Dir, Volume, nbdkit, need, root, run, wait_for};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SIZE: u64 = 4 << 20;
const SOON: Duration = Duration::from_secs(30);

fn two_files(dir: &Dir) -> [String; 2] {
    ["a", "b"].map(|name| format!("{name}={}", dir.image(name, SIZE).display()))
}

#[test]
fn done_check_ends_with_0_1_2_or_3_and_says_why_in_one_line() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let far = dir.path("far.sock");
    let mut server = nbdkit(&dir, &far, &["memory", "4M"]);
    let here = format!("here={}", dir.image("here", SIZE).display());
    let leg = format!("far=nbd+unix:///?socket={},timeout=1s,retries=0", far.display());
    let mut volume = Volume::create(&dir, SIZE, &[&here, &leg], &["--known-zero"]);
    let check = |args: &[&str]| {
        let out = dir.mirrord(&[&["check"], args].concat()).run();
        assert_eq!((out.stdout.lines().count(), out.stderr.as_str()), (1, ""), "{}", out.stdout);
        (out.code, out.stdout)
    };
    let says = |args: &[&str], code: i32, word: &str, why: &str| {
        let (is, line) = check(args);
        assert!(
            is == code && line.starts_with(&format!("MIRROR {word} - ")) && line.contains(why),
            "{is} {line}"
        );
    };
    for (args, why) in [
        (&[][..], "<NAME>"),
        (&["vol", "--colour"], "--colour"),
        (&["vol", "--behind", "x"], "reading a size"),
        (&["vol", "--behind", ","], "neither bytes nor seconds"),
        (&["vol", "--stall", "0"], "longer"),
        (&["../vol"], "checking a name"),
        (&["no-such"], "no such volume"),
        (&["vol"], "no mirrord serves it"),
    ] {
        says(args, 3, "UNKNOWN", why);
    }
    volume.serve(&[]);
    volume.wait_synced();
    says(&["vol", "--behind", "0,1", "--stall", "1"], 0, "OK", "2 legs UpToDate | behind=0B;;0;0 ");
    server.kill();
    run("qemu-io", &["-f", "raw", "-c", "write 0 64k", &volume.uri()]);
    volume.wait_state("far", "Outdated");
    says(&["vol"], 1, "WARNING", "leg far is Outdated, Connecting, misses 64 KiB");
    says(&["vol", "--behind", "64K"], 1, "WARNING", "leg far");
    says(&["vol", "--behind", "1K"], 2, "CRITICAL", "behind by 64 KiB, more than 1 KiB");
    wait_for("a second to pass", SOON, || check(&["vol", "--behind", ",1"]).0 == 2);
    says(&["vol", "--behind", ",1"], 2, "CRITICAL", "more than 1 s");
    wait_for("it stands still", SOON, || check(&["vol", "--stall", "1"]).1.contains("nothing moved for"));
    // A daemon that does not answer: UNKNOWN before the patience of a monitoring system ends.
    volume.server().signal("STOP");
    let start = Instant::now();
    says(&["vol"], 3, "UNKNOWN", "no answer in time");
    assert!(start.elapsed() < Duration::from_secs(10));
    volume.server().signal("CONT");
}

/// What a scraper gets.
fn get(mut stream: impl std::io::Read + std::io::Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("reply");
    reply
}

#[test]
fn metrics_answer_http_and_slow_clients_cost_only_themselves() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&["--metrics", "127.0.0.1:0"]);
    let log = volume.server().log();
    let address =
        log.split("metrics: http://").nth(1).and_then(|rest| rest.split('/').next()).expect("address");
    let connect = || TcpStream::connect(address).expect("metrics");
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let reply = get(connect(), ask);
    assert!(
        reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.contains("text/plain; version=0.0.4"),
        "{reply}"
    );
    let (head, body) = reply.split_once("\r\n\r\n").expect("body");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(body.contains("mirror_running{volume=\"vol\"} 1\n"), "{body}");
    assert!(
        body.contains("mirror_leg_disk_state{volume=\"vol\",leg=\"a\",state=\"UpToDate\"} 1\n"),
        "{body}"
    );
    assert!(get(connect(), "POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(get(connect(), "HEAD / HTTP/1.0\n\n").ends_with("\r\n\r\n"));
    // As many silent ones as there is room for, and one that talks too much: then the next is served again.
    let mut silent: Vec<_> = (0..20).map(|_| connect()).collect();
    let start = Instant::now();
    wait_for("metrics for others", SOON, || {
        let mut stream = connect();
        let mut reply = String::new();
        stream.write_all(ask.as_bytes()).is_ok()
            && stream.read_to_string(&mut reply).is_ok()
            && reply.starts_with("HTTP/1.1 200")
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    for stream in &mut silent {
        // The end, or a reset: nothing is answered.
        let _ = stream.read(&mut [0; 1]);
    }
    let mut talker = connect();
    let _ = talker.write_all(&[b'x'; 9000]);
    let mut none = Vec::new();
    let _ = talker.read_to_end(&mut none);
    assert!(none.is_empty());
    assert_eq!(volume.status()["clients"], 0, "scrapers are no clients of the volume");
    volume.stop();
}

#[test]
fn metrics_on_a_unix_socket_and_beyond_this_machine() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let socket = dir.path("m.sock");
    for wide in [&["--metrics", "0.0.0.0:0"][..], &["--listen", "0.0.0.0:0"]] {
        let out = volume.mirrord(&[&["serve", "vol"], wide].concat());
        let out = out.fails("mirrord", 3, "can be reached from other machines by anybody");
        assert!(out.stderr.contains("--allow CIDR"), "{}", out.stderr);
    }
    volume.serve(&["--metrics", &format!("unix:{}", socket.display())]);
    let mode = std::fs::metadata(&socket).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let reply = get(UnixStream::connect(&socket).expect("connect"), "GET / HTTP/1.0\r\n\r\n");
    assert!(reply.contains("mirror_legs{volume=\"vol\"} 2"), "{reply}");
    volume.stop();
    assert!(!socket.exists());
}

/// It was taken for a crash by the next start.
#[test]
fn a_start_that_is_refused_for_its_address_leaves_the_volume_as_it_was() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    for (refused, code) in
        [(&["--listen", "0.0.0.0:0"][..], 3), (&["--listen", "127.0.0.1:0", "--tls-dir", "/nowhere"], 2)]
    {
        let out = volume.mirrord(&[&["serve", "vol"], refused].concat());
        assert_eq!(out.code, code, "{}", out.stderr);
    }
    volume.serve(&[]);
    volume.wait_synced();
    assert!(!volume.server().log().contains("unclean"), "{}", volume.server().log());
    volume.stop();
}

#[test]
fn a_metrics_file_is_whole_readable_by_others_and_says_when_the_volume_has_stopped() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let file = dir.path("vol.prom");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    volume.serve(&["--metrics", file.to_str().expect("UTF-8")]);
    wait_for("the first figures", SOON, || text().contains("mirror_running{volume=\"vol\"} 1\n"));
    assert_eq!(std::fs::metadata(&file).expect("file").permissions().mode() & 0o777, 0o644);
    volume.stop();
    assert!(text().contains("mirror_running{volume=\"vol\"} 0\n"), "{}", text());
    assert!(!text().contains("mirror_clients"), "no figures of the past: {}", text());
    let out = volume.mirrord(&["serve", "vol", "--metrics", "/proc/none/vol.prom"]);
    out.fails("mirrord", 5, "/proc/none");
}

#[test]
fn s17_addresses_outside_the_allow_list_are_kept_out() {
    if !need(&["nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
    let config = dir.path("c.toml");
    // Wide, because somebody asks who connects.
    let text = format!(
        "[volume.vol]\nlisten = [\"0.0.0.0:{port}\"]\nunix = '{}'\nallow = [\"127.0.0.2\", \"192.0.2.0/24\"]\n",
        volume.socket().display()
    );
    std::fs::write(&config, text).expect("configuration");
    // A socket of the volume and a port.
    volume.serve_config(&config);
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let mut greeting = [0; 18];
    assert!(!matches!(stranger.read(&mut greeting), Ok(n) if n > 0), "not a byte");
    assert_eq!(volume.status()["refused"], 1);
    // 127.0.0.1 is not in the list, 127.0.0.2 is: on Linux all of 127/8 is this machine.
    let bound = format!(
        "import socket\ns = socket.create_connection(('127.0.0.2', {port}), 10, ('127.0.0.2', 0))\n\
         assert s.recv(18)[:8] == b'NBDMAGIC'\n"
    );
    run("python3", &["-c", &bound]).expect(0);
    // CVE-2013-6410: neither does a longer one that begins like it.
    let stranger =
        bound.replace("('127.0.0.2', 0)", "('127.0.0.20', 0)").replace("[:8] == b'NBDMAGIC'", " == b''");
    assert_ne!(stranger, bound);
    run("python3", &["-c", &stranger]).expect(0);
    assert_eq!(volume.status()["refused"], 2);
    let size = run("nbdinfo", &["--size", &volume.uri()]).expect(0).stdout;
    assert_eq!(size, format!("{SIZE}\n"), "a Unix socket has permissions, and no address");
}

#[test]
fn each_event_runs_the_command_with_facts_in_the_environment_alone() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let log = dir.path("events");
    let command = format!(
        "echo \"$MIRROR_EVENT/$MIRROR_VOLUME/$MIRROR_LEG/$MIRROR_LOST\" >> {}; env | grep -c LISTEN_ >&2; exit 3",
        log.display()
    );
    volume.serve(&["--on-event", &command]);
    volume.wait_synced();
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    let events = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("the event of the leg", SOON, || events().contains("leave/vol/b/0\n"));
    assert!(events().starts_with("connect/vol/") || events().starts_with("start/vol//0\n"), "{}", events());
    assert!(events().contains("start/vol//0\n"), "{}", events());
    volume.stop();
    assert!(events().ends_with("stop/vol//0\n"), "the last one is waited for: {}", events());
}

#[test]
fn a_command_that_hangs_or_fails_or_floods_holds_nothing_up() {
    let dir = Dir::new();
    let legs = two_files(&dir);
    let mut volume = Volume::create(&dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"]);
    let log = dir.path("pids");
    volume.serve(&["--on-event", &format!("echo $$ >> {}; sleep 1000", log.display())]);
    volume.wait_synced();
    let start = Instant::now();
    for _ in 0..50 {
        volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
        volume.mirrord(&["leg", "attach", "vol", "b"]).expect(0);
    }
    assert!(start.elapsed() < Duration::from_secs(25), "commands of administrators are answered");
    let pids = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    assert_eq!(pids(), 1, "one at a time");
    let start = Instant::now();
    volume.stop();
    assert!(start.elapsed() < Duration::from_secs(20), "and the end does not wait for it");
    let group = std::fs::read_to_string(&log).expect("pid").trim().parse().ok();
    let group = group.and_then(rustix::process::Pid::from_raw).expect("a number");
    // It may have been killed by its deadline already. Not by kill(1): some take `-1234` for `-1`, which is everybody.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
}

#[test]
fn the_units_of_systemd_are_right() {
    if !need(&["systemd-analyze"]) {
        return;
    }
    // The program of the units need not be installed: it is one that is there.
    let dir = Dir::new();
    let mut instances = Vec::new();
    for entry in std::fs::read_dir(root().join("examples/systemd")).expect("units") {
        let path = entry.expect("entry").path();
        let text = std::fs::read_to_string(&path).expect("unit");
        assert!(text.contains("[Unit]") && text.starts_with('#'), "{}", path.display());
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        let unit = dir.path(&name);
        std::fs::write(&unit, text.replace("/usr/bin/mirrord", "/bin/true")).expect("unit");
        instances.push(unit.display().to_string().replace("@.", "@vol0."));
    }
    assert_eq!(instances.len(), 4);
    for instance in &instances {
        // The template must stand beside its instance.
        let out = run("systemd-analyze", &["verify", "--man=no", instance]);
        let ours: Vec<_> = out.stderr.lines().filter(|line| line.contains("mirrord")).collect();
        assert!(out.code == 0 && ours.is_empty(), "{instance}: {}", out.stderr);
    }
}

#[test]
fn every_alert_is_about_figures_that_there_are() {
    let rules = std::fs::read_to_string(root().join("examples/alerts.yml")).expect("alerts");
    let page = mirror::control::metrics::render(&mirror::control::Status {
        legs: vec![mirror::control::LegStatus::default()],
        ..mirror::control::Status::default()
    });
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: Vec<_> = rules.split(|c| !is_word(c)).filter(|word| word.starts_with("mirror_")).collect();
    assert!(named.len() > 10);
    for name in named {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
    }
    for state in rules.split("state=\"").skip(1).map(|rest| rest.split('"').next().expect("state")) {
        assert!(page.contains(&format!("state=\"{state}\"")), "{state}");
    }
    if need(&["promtool"]) {
        let file = root().join("examples/alerts.yml");
        let out = run("promtool", &["check", "rules", &file.to_string_lossy()]).expect(0);
        assert!(out.stdout.contains("SUCCESS: 11 rules found"), "{}", out.stdout);
    }
}
