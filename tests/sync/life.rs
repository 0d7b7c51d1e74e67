//! A copy while it goes on: what a terminal shows, what signals do, and servers that are killed in the middle.

use super::crash::assert_clean_is_equal;
use crate::support::{Dir, Server, Tool, assert_equal, bin, nbdkit, need, run, sync, text, wait_for};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SIZE: usize = 12 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn dirtymap(args: &[&str]) {
    Tool::new(bin("dirtymap")).args(args).run().expect(0);
}

/// Bytes that are all different from zero, and differ from block to block.
fn image(dir: &Dir, name: &str, seed: usize) -> PathBuf {
    let path = dir.path(name);
    let bytes: Vec<u8> = (0..SIZE).map(|at| ((at + seed) / 997) as u8 | 1).collect();
    std::fs::write(&path, bytes).expect("write");
    path
}

fn written(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.blocks() > 0)
}

/// What a terminal of 80 columns shows in the end, and how far to the right anything ever was.
fn screen(bytes: &str) -> (Vec<String>, usize) {
    let (mut lines, mut row, mut column, mut widest) = (vec![Vec::<char>::new()], 0, 0, 0);
    let mut chars = bytes.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(chars.next(), Some('['), "{bytes:?}");
                let mut number = String::new();
                let end = loop {
                    match chars.next().expect("the end of a sequence") {
                        c if c.is_ascii_alphabetic() => break c,
                        c => number.push(c),
                    }
                };
                match end {
                    'K' if number == "2" => lines[row].clear(),
                    'K' => lines[row].truncate(column),
                    'A' => row -= number.parse().unwrap_or(1).min(row),
                    'J' => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    'm' | 'l' | 'h' => {}
                    other => panic!("unknown sequence {number}{other} in {bytes:?}"),
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
                widest = widest.max(column);
            }
        }
    }
    (
        lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect(),
        widest,
    )
}

#[test]
fn a_terminal_shows_one_line_that_fits_and_nothing_else_does() {
    if !need(&["script"]) {
        return;
    }
    let dir = Dir::new();
    let long = "a-name-that-is-much-too-long-for-a-terminal-of-eighty-columns";
    let (a, b) = (image(&dir, long, 1), dir.image(&format!("{long}-too"), SIZE as u64));
    let words = |more: &str| {
        let tool = bin("mirror-sync").display().to_string();
        format!("{tool} --full {more} --bwlimit 16M '{}' '{}'", a.display(), b.display())
    };
    // Long enough for a flush on the way: what is durable is what moves the bar.
    let typed = format!("stty cols 80 rows 24; {}", words("").replace("16M", "1600K"));
    let shown = Tool::new("script")
        .args(&["-qec", &typed, "/dev/null"])
        .env("TERM", "xterm")
        .env("MIRROR_STATE_DIR", dir.state())
        .run()
        .expect(0)
        .stdout;
    // The summary may be longer than a line; the bar is what is drawn before.
    let (bar, summary) = shown.split_once("mirror-sync: /").expect("a summary");
    assert!(bar.contains("mirror-sync: [=") && bar.contains(" MiB/s"), "{bar:?}");
    let (lines, widest) = screen(bar);
    assert!(widest <= 80, "{widest} columns: {bar:?}");
    assert!(lines.iter().all(String::is_empty), "something of the bar is left: {lines:?}");
    assert_eq!(bar.matches('\n').count(), 0, "the bar stays in its line: {bar:?}");
    assert!(summary.ends_with("equal\r\n"), "{summary:?}");
    assert_equal(&a, &b);
    // A failure leaves its line and no more.
    let typed = format!("stty cols 80; {} ; echo ended with $?", words("").replace("-too'", "-none'"));
    let failed = Tool::new("script").args(&["-qec", &typed, "/dev/null"]).env("TERM", "xterm").run().stdout;
    let (lines, _) = screen(&failed);
    let lines: Vec<_> = lines.iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1] == "ended with 5", "{lines:?}");
    // Elsewhere there is neither a bar nor a sequence.
    let out = Tool::new("sh").args(&["-c", &words("")]).env("MIRROR_STATE_DIR", dir.state()).run().expect(0);
    assert!(!out.stderr.contains(['\u{1b}', '\r']) && out.stderr.lines().count() == 1, "{:?}", out.stderr);
    assert_eq!(out.stdout, "");
}

/// Starts a slow copy with standard error in a pipe.
fn slow(dir: &Dir, args: &[&str]) -> Child {
    let mut tool = sync(dir, &[&["--bwlimit", "3M"], args].concat());
    let command = tool.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("spawn")
}

/// A map that a run holds gets no marks of others: they would be taken out unseen.
#[test]
fn a_map_that_is_being_copied_takes_no_marks_meanwhile() {
    let dir = Dir::new();
    let (a, b, map) = (image(&dir, "a", 1), dir.image("b", SIZE as u64), dir.path("map"));
    dirtymap(&["create", "--like", text(&a), text(&map)]);
    dirtymap(&["set", text(&map), "0+6M"]);
    let mut child = slow(&dir, &["--dirty-only", "--map", text(&map), text(&a), text(&b)]);
    wait_for("the first bytes", PATIENCE, || written(&b));
    let set = || Tool::new(bin("dirtymap")).args(&["set", text(&map), "0+12M"]).run();
    set().fails("dirtymap", 75, "another process holds it");
    let out = sync(&dir, &["-q", "--dirty-only", "--map", text(&map), text(&a), "null:"]).run();
    out.fails("mirror-sync", 75, "another process holds it");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    dirtymap(&["check", text(&map)]);
    set().expect(0);
    assert_eq!(Tool::new(bin("dirtymap")).args(&["check", text(&map)]).run().code, 1);
}

fn signal(child: &Child, name: &str) {
    run("kill", &[&format!("-{name}"), &child.id().to_string()]).expect(0);
}

#[test]
fn a_user_signal_prints_one_line_and_the_copy_goes_on() {
    let dir = Dir::new();
    let a = image(&dir, "a", 1);
    for (at, more) in [&[][..], &["-q"], &["--progress", "1"]].iter().enumerate() {
        let b = dir.image(&format!("b{at}"), SIZE as u64);
        let mut child = slow(&dir, &[*more, &["--full", text(&a), text(&b)]].concat());
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
        wait_for("the first bytes", PATIENCE, || written(&b));
        signal(&child, "USR1");
        let mut line = String::new();
        stderr.read_line(&mut line).expect("read");
        assert!(line.contains(" of 12 MiB") && line.contains(text(&b)), "{line:?}");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("read");
        assert_eq!(child.wait().expect("wait").code(), Some(0), "{rest}");
        // The summary, and on a slow machine the line that comes every five seconds.
        let asked = rest.lines().filter(|line| !line.contains(" of 12 MiB")).count();
        assert_eq!(asked, usize::from(at != 1), "{rest:?}");
        assert_equal(&a, &b);
    }
}

#[test]
fn a_copy_that_is_stopped_keeps_every_mark_it_has_not_earned_and_no_lock() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, map, digest) = (image(&dir, "a", 1), dir.path("map"), dir.path("digest"));
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        for mode in ["map", "digest", "stage", "nbd"] {
            let b = dir.path(&format!("b-{name}-{mode}"));
            std::fs::File::create(&b).and_then(|file| file.set_len(SIZE as u64)).expect("image");
            dirtymap(&["create", "--replace", "--all", "--like", text(&a), text(&map)]);
            let socket = dir.path("s");
            let server = (mode == "nbd").then(|| nbdkit(&dir, &socket, &["file", text(&b)]));
            let uri = format!("nbd+unix:///?socket={}", socket.display());
            let target = if mode == "nbd" { uri.as_str() } else { text(&b) };
            let marked = ["--dirty-only", "--map", text(&map)];
            let how: Vec<&str> = match mode {
                "digest" => vec!["--digest", text(&digest)],
                "stage" => [&["--stage"], &marked[..]].concat(),
                _ => marked.to_vec(),
            };
            let args = [&how[..], &[text(&a), target]].concat();
            // A shell says how it ended.
            let tool = bin("mirror-sync").display().to_string();
            let line = format!("echo $$; exec {tool} --bwlimit 3M {}", args.join(" "));
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("sh -c '{line}'; echo \"code $?\"")]);
            shell.env("MIRROR_STATE_DIR", dir.state()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = shell.spawn().expect("spawn");
            let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
            let mut pid = String::new();
            stdout.read_line(&mut pid).expect("pid");
            let begun = |b: &Path| match mode {
                // What is staged is written beside the target.
                "stage" => std::fs::read_dir(dir.state().join("stage")).is_ok_and(|mut dirs| {
                    dirs.any(|at| std::fs::read_dir(at.expect("entry").path()).is_ok_and(|d| d.count() > 0))
                }),
                _ => written(b),
            };
            wait_for("the first bytes", PATIENCE, || begun(&b));
            run("kill", &[&format!("-{name}"), pid.trim()]).expect(0);
            let (mut out, mut told) = (String::new(), String::new());
            stdout.read_to_string(&mut out).expect("stdout");
            child.stderr.take().expect("stderr").read_to_string(&mut told).expect("stderr");
            child.wait().expect("wait");
            assert_eq!(out, format!("code {code}\n"), "{mode}: {told}");
            assert!(
                told.contains("stopped by a signal") && told.contains("try: the same command again"),
                "{told}"
            );
            if mode != "digest" {
                assert_clean_is_equal(&map, &a, &b);
            }
            if mode == "stage" {
                assert!(!written(&b), "it was not decided upon");
            }
            // No lock is left, and it goes on.
            sync(&dir, &[&["-q"], &args[..]].concat()).run().expect(0);
            assert_equal(&a, &b);
            if mode != "digest" {
                dirtymap(&["check", text(&map)]);
            }
            drop(server);
            let _ = std::fs::remove_file(&digest);
            let _ = std::fs::remove_dir_all(dir.state().join("stage"));
        }
    }
}

/// How a server of an image is started on a socket.
type Start = fn(&Dir, &Path, &Path) -> Server;

/// A server that keeps what is written until it is flushed, as a disk with a cache does; killed, it loses the rest.
fn cached(dir: &Dir, socket: &Path, image: &Path) -> Server {
    nbdkit(dir, socket, &["--filter=cache", "file", text(image), "cache=writeback"])
}

fn qemu(dir: &Dir, socket: &Path, image: &Path) -> Server {
    let _ = std::fs::remove_file(socket);
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--format", "raw", "--cache", "writeback", "--socket"]);
    Server::start_on(command.arg(socket).arg(image), &dir.path("qemu.log"), socket)
}

#[test]
fn a_server_killed_in_the_middle_costs_what_was_not_flushed_and_never_a_mark() {
    if !need(&["nbdkit", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    let (a, map, socket) = (image(&dir, "a", 1), dir.path("map"), dir.path("s"));
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    for (kind, start) in [("nbdkit", cached as Start), ("qemu-nbd", qemu as Start)] {
        for mode in ["--full", "--compare", "--dirty-only"] {
            let b = image(&dir, "b", 5000);
            dirtymap(&["create", "--replace", "--all", "--like", text(&a), text(&map)]);
            let marked = ["--map", text(&map)];
            let more = if mode == "--dirty-only" { &marked[..] } else { &[] };
            let args = [&[mode], more, &[text(&a), &uri]].concat();
            let mut server = start(&dir, &socket, &b);
            let told = dir.path("told");
            let progress = std::fs::File::create(&told).expect("create");
            // Fast enough to be durable in part after the first flush, and far from done.
            let mut tool = sync(&dir, &[&["--bwlimit", "1200K", "--progress", "1"], &args[..]].concat());
            let command = tool.command().stdin(Stdio::null()).stdout(progress).stderr(Stdio::piped());
            let mut child = command.spawn().expect("spawn");
            let done = || {
                let lines = std::fs::read_to_string(&told).expect("told");
                let last =
                    lines.lines().rev().find_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
                last.and_then(|line| line["done"].as_u64()).unwrap_or(0)
            };
            // One of them before anything is durable, the others when something is.
            let early = mode == "--compare";
            wait_for("something is done", PATIENCE, || {
                let moved = std::fs::read(&told).is_ok_and(|lines| lines.len() > 1000);
                moved && (early || done() > 0)
            });
            let durable = done();
            server.kill();
            let mut said = String::new();
            child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
            let code = child.wait().expect("wait").code();
            let expected = if durable > 0 { 8 } else { 6 };
            assert_eq!(code, Some(expected), "{kind} {mode}: {said}");
            let errors: Vec<_> = said.lines().filter(|line| line.starts_with("mirror-sync: nbd")).collect();
            assert!(!said.contains("equal") && !errors.is_empty(), "{kind} {mode}: {said}");
            if mode == "--dirty-only" {
                assert!(durable > 0);
                assert_clean_is_equal(&map, &a, &b);
                let left = Tool::new(bin("dirtymap")).args(&["check", text(&map)]).run();
                assert_eq!(left.code, 1, "some are still marked");
            }
            let _server = start(&dir, &socket, &b);
            sync(&dir, &[&["-q"], &args[..]].concat()).run().expect(0);
            assert_equal(&a, &b);
            if mode == "--dirty-only" {
                dirtymap(&["check", text(&map)]);
            }
        }
    }
}
