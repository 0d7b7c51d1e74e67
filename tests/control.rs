//! The verbs that ask a daemon, against one made of a thread: what goes over the socket, and how it ends in the
//! shell.

use crate::support::{Dir, Server, wait_for};
use mirror::base::{Class, Error, Name};
use mirror::control::request::{from_line, to_line};
use mirror::control::{Event, EventKind, LegStatus, Reply, Request, Status};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked, in order.
type Asked = Arc<Mutex<Vec<Request>>>;

/// A daemon of volume `v` whose status is `status`, and who refuses to detach.
fn daemon(dir: &Dir, status: Status) -> Asked {
    let volume = dir.state().join("v");
    std::fs::create_dir(&volume).expect("mkdir");
    let listener = UnixListener::bind(volume.join("control.sock")).expect("bind");
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.expect("accept"), &status, &heard);
        }
    });
    asked
}

fn answer(mut stream: &UnixStream, status: &Status, heard: &Asked) {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("line");
    let request = from_line(line.as_bytes()).expect("request");
    let reply = match &request {
        Request::Status => Reply::value(status),
        Request::Leg { .. } => Error::new(Class::Refused, "v: detaching far: it is the last copy")
            .hint("mirrord wait v --until synced")
            .into(),
        _ => Reply::ok(),
    };
    let mut bytes = to_line(&reply).expect("reply");
    if matches!(request, Request::Events { .. }) {
        let name: Name = "v".parse().expect("name");
        for seq in 1..=2000 {
            let event = Event::new(seq, EventKind::State, &name, None, "as it was");
            bytes.extend(to_line(&event).expect("event"));
        }
    }
    heard.lock().expect("heard").push(request);
    // A client may have gone away.
    let _ = stream.write_all(&bytes);
}

fn status(connection: &str, disk: &str, dirty: u64) -> Status {
    let leg = LegStatus {
        name: "far".into(),
        connection_state: connection.into(),
        disk_state: disk.into(),
        dirty,
        reason: Some("connection refused".into()),
        ..LegStatus::default()
    };
    let name: Name = "v".parse().expect("name");
    Status { running: true, role: "primary".into(), size: 1 << 30, legs: vec![leg], ..Status::new(&name) }
}

#[test]
fn status_is_text_for_people_and_a_document_a_line_for_scripts() {
    let dir = Dir::new();
    daemon(&dir, status("Connecting", "Outdated", 65536));
    let out = dir.mirrord(&["status", "v"]).run().expect(0);
    for words in ["v  primary  degraded  1 GiB", "Connecting Outdated", "64 KiB", "why: connection refused"] {
        assert!(out.stdout.contains(words), "{words}: {}", out.stdout);
    }
    let out = dir.mirrord(&["status", "--json"]).run().expect(0);
    assert!(out.stdout.starts_with("{\"schema\":\"mirrord-status/1\",\"name\":\"v\""), "{}", out.stdout);
    let value: serde_json::Value = serde_json::from_str(&out.stdout).expect("one document");
    assert_eq!(value["legs"][0]["out-of-sync"], 0);
    assert_eq!(value["legs"][0]["dirty"], 65536);
}

#[test]
fn a_refusal_of_the_daemon_keeps_its_status_and_its_way_out() {
    let dir = Dir::new();
    let asked = daemon(&dir, status("Connected", "UpToDate", 0));
    let out = dir.mirrord(&["leg", "detach", "v", "far"]).run().fails("mirrord", 3, "it is the last copy");
    assert!(out.stderr.ends_with("\ntry: mirrord wait v --until synced\n"), "{}", out.stderr);
    dir.mirrord(&["resync", "v", "far", "--full"]).run().expect(0);
    dir.mirrord(&["resync", "v"]).run().expect(0);
    let far: Name = "far".parse().expect("name");
    // After each it looks whether the leg is reached.
    let asked = asked.lock().expect("asked");
    assert_eq!(asked[1], Request::Resync { leg: Some(far), full: true });
    assert_eq!(asked[3], Request::Resync { leg: None, full: false });
}

#[test]
fn waiting_ends_with_0_7_or_8() {
    for (connection, disk, dirty, until, code) in [
        ("Connected", "UpToDate", 0, "synced", 0),
        ("Connected", "SyncTarget", 5, "connected", 0),
        ("Connected", "UpToDate", 5, "synced", 7),
        ("Connecting", "Outdated", 0, "connected", 7),
        ("StandAlone", "Failed", 0, "connected", 8),
    ] {
        let dir = Dir::new();
        daemon(&dir, status(connection, disk, dirty));
        let out = dir.mirrord(&["wait", "v", "--until", until, "--timeout", "300ms"]).run();
        if code == 0 {
            out.expect(0);
        } else {
            out.fails("mirrord", code, "far");
        }
    }
}

#[test]
fn sigusr1_makes_wait_say_how_far_it_is() {
    let dir = Dir::new();
    daemon(&dir, status("Connected", "SyncTarget", 5));
    let log = dir.path("log");
    let mut tool = dir.mirrord(&["wait", "v", "--until", "synced"]);
    let mut server = Server::start(tool.command(), &log);
    // It must have taken the signal before it gets one: a line of progress comes by itself only after 5 s.
    std::thread::sleep(Duration::from_millis(500));
    server.signal("USR1");
    wait_for("a line of progress", Duration::from_secs(4), || {
        server.log().contains("v/far Connected SyncTarget (connection refused)")
    });
    assert!(server.is_running());
    server.kill();
}

#[test]
fn events_come_one_a_line_and_a_closed_pipe_ends_them_in_silence() {
    let dir = Dir::new();
    daemon(&dir, status("Connected", "UpToDate", 0));
    let out = dir.mirrord(&["events", "v", "--json"]).run().expect(0);
    assert_eq!(out.stdout.lines().count(), 2000);
    let event: Event = serde_json::from_str(out.stdout.lines().last().expect("line")).expect("event");
    assert_eq!((event.seq, event.event), (2000, EventKind::State));
    let out = dir.mirrord(&["events", "--now"]).run().expect(0);
    assert!(out.stdout.lines().next().expect("line").ends_with(" v state: as it was"), "{}", out.stdout);

    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let out = dir.mirrord(&["events", "v"]).run_into(writer.into()).expect(0);
    assert_eq!(out.stderr, "");
}
