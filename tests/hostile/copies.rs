//! C-cases: what `mirror-sync` and `dirtymap` make of servers that fail, stop, or come back as another. What they believe
//! of single replies is tested beside the client (`lib/src/nbd/tests/liars.rs`).

use super::fake::{Fake, Peer};
use super::raw::MIB;
use crate::support::{Dir, Output, Server, Tool, assert_equal, bin, nbdkit, need};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SIZE: u64 = 8 * MIB;
const BLOCK: usize = 64 << 10;

fn tool(dir: &Dir, name: &str, args: &[&str]) -> Tool {
    Tool::new(bin(name)).args(args).env("MIRROR_STATE_DIR", dir.state())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///x?socket={}", socket.display())
}

/// A source without zeroes, a target of zeroes, and a map that marks all.
struct Copy<'d> {
    dir: &'d Dir,
    source: PathBuf,
    target: PathBuf,
    map: PathBuf,
}

impl<'d> Copy<'d> {
    fn new(dir: &'d Dir) -> Self {
        let (source, map) = (dir.path("source.img"), dir.path("map"));
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 4096 % 255) as u8 + 1).collect();
        std::fs::write(&source, bytes).expect("source");
        let copy = Self { dir, target: dir.image("target.img", SIZE), source, map };
        copy.mark();
        copy
    }

    /// Marks everything again.
    fn mark(&self) {
        let args = ["create", "--all", "--replace", "--like", text(&self.source), text(&self.map)];
        tool(self.dir, "dirtymap", &args).run().expect(0);
    }

    /// Copies what is marked.
    fn run(&self, from: &str, to: &str, more: &[&str]) -> Output {
        let args = [&["-q", "--dirty-only", "--map", text(&self.map)], more, &[from, to]].concat();
        tool(self.dir, "mirror-sync", &args).run()
    }

    /// Offset and length of what is still marked.
    fn marked(&self) -> Vec<(usize, usize)> {
        let list = tool(self.dir, "dirtymap", &["show", "--list", text(&self.map)]).run().expect(0).stdout;
        let number = |word: &str| word.parse().expect(word);
        let line = |line: &str| line.split_once(' ').map(|(at, len)| (number(at), number(len)));
        list.lines().filter_map(line).collect()
    }

    /// Something is left to do, and whatever is not marked is equal.
    #[track_caller]
    fn is_told_right(&self, out: &Output) {
        assert!(matches!(out.code, 5 | 8), "{}: {}", out.code, out.stderr);
        let marked = self.marked();
        assert!(!marked.is_empty(), "it failed, and nothing is marked: {}", out.stderr);
        let (source, target) = (&self.source, &self.target);
        let [source, target] = [source, target].map(|path| std::fs::read(path).expect("image"));
        for at in (0..SIZE as usize).step_by(BLOCK) {
            let clean = !marked.iter().any(|(start, len)| (*start..start + len).contains(&at));
            assert!(!clean || source[at..at + BLOCK] == target[at..at + BLOCK], "{at} is marked clean");
        }
    }
}

/// CVE-2022-0485 (nbdcopy): errors of asynchronous requests were not looked at, and the copy was called a success.
#[test]
fn c6_what_could_not_be_read_or_written_stays_marked_and_the_exit_says_so() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let copy = Copy::new(&dir);
    let socket = dir.path("s");
    for (image, rate, is_target) in [
        (&copy.target, "error-pwrite-rate=50%", true),
        (&copy.target, "error-pwrite-rate=100%", true),
        (&copy.source, "error-pread-rate=50%", false),
        (&copy.source, "error-pread-rate=100%", false),
    ] {
        copy.mark();
        let server = nbdkit(&dir, &socket, &["--filter=error", "file", text(image), "error=EIO", rate]);
        let far = uri(&socket);
        let (from, to) =
            if is_target { (text(&copy.source), &far[..]) } else { (&far[..], text(&copy.target)) };
        copy.is_told_right(&copy.run(from, to, &[]));
        drop(server);
    }
    // What is left goes with a server that does not fail.
    let _server = nbdkit(&dir, &socket, &["file", text(&copy.target)]);
    copy.run(text(&copy.source), &uri(&socket), &[]).expect(0);
    assert_eq!(copy.marked(), []);
    assert_equal(&copy.source, &copy.target);
}

/// A server that takes every write and cannot make any of them durable.
fn forgetful(dir: &Dir, socket: &Path, image: &Path, write: &str, flush: &str) -> Server {
    let image = text(image);
    nbdkit(
        dir,
        socket,
        &[
            "eval",
            &format!("get_size=echo {SIZE}"),
            &format!("pread=dd if={image} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none"),
            &format!(
                "pwrite={write} dd of={image} bs=65536 oflag=seek_bytes seek=$4 conv=notrunc status=none"
            ),
            "can_write=exit 0",
            "can_flush=exit 0",
            &format!("flush={flush}"),
        ],
    )
}

#[test]
fn c6_a_flush_that_fails_leaves_every_mark() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let copy = Copy::new(&dir);
    let socket = dir.path("s");
    let _server = forgetful(&dir, &socket, &copy.target, "", "echo EIO not durable >&2; exit 1");
    let out = copy.run(text(&copy.source), &uri(&socket), &[]);
    assert!(matches!(out.code, 5 | 8), "{}: {}", out.code, out.stderr);
    assert!(out.stderr.contains("flushing"), "{}", out.stderr);
    assert_eq!(copy.marked(), [(0, SIZE as usize)]);
}

/// More threads than places, and every place holds a failed request; and an error in the very last request only.
#[test]
fn c29_errors_in_all_places_and_in_the_last_request_end_a_copy_in_time() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let copy = Copy::new(&dir);
    let socket = dir.path("s");
    for depth in ["1", "4", "64"] {
        let args = ["--filter=error", "file", text(&copy.target), "error=EIO", "error-pwrite-rate=100%"];
        let _server = nbdkit(&dir, &socket, &args);
        let started = Instant::now();
        let out = copy.run(text(&copy.source), &uri(&socket), &["--queue-depth", depth]);
        copy.is_told_right(&out);
        assert_eq!(copy.marked(), [(0, SIZE as usize)]);
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
    let last = SIZE as usize - BLOCK;
    let write = format!("[ $(( $4 + $3 )) -gt {last} ] && {{ sleep 0.5; echo EIO last >&2; exit 1; }};");
    let _server = forgetful(&dir, &socket, &copy.target, &write, "exit 0");
    copy.is_told_right(&copy.run(text(&copy.source), &uri(&socket), &[]));
    assert_eq!(copy.marked(), [(last, BLOCK)]);
}

/// It stands still in the middle of the copy; what it has not made durable stays marked.
#[test]
fn c22_a_stopped_nbdkit_ends_a_copy_at_its_deadline() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let copy = Copy::new(&dir);
    let socket = dir.path("s");
    let server = nbdkit(&dir, &socket, &["file", text(&copy.target)]);
    let far = uri(&socket);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| copy.run(text(&copy.source), &far, &["--bwlimit", "1M"]));
        std::thread::sleep(Duration::from_secs(2));
        server.signal("STOP");
        let out = run.join().expect("its end");
        let why = format!("mirror-sync: {far}: receiving: no answer within 15 s");
        assert!(out.code == 7 && out.stderr.contains(&why), "{}: {}", out.code, out.stderr);
    });
    server.signal("CONT");
    assert!(!copy.marked().is_empty());
    copy.run(text(&copy.source), &far, &[]).expect(0);
    assert_equal(&copy.source, &copy.target);
}

/// The honest handshake, with requests of at most 4096 bytes.
fn open(peer: &mut Peer, size: u64) -> io::Result<()> {
    peer.greet()?;
    loop {
        match peer.option()?.0 {
            7 => break,
            other => peer.option_reply(other, 1 << 31 | 1, &[])?,
        }
    }
    let blocks = [1u32, 4096, 4096].map(u32::to_be_bytes).concat();
    peer.option_reply(7, 3, &[&[0, 3][..], &blocks].concat())?;
    let info = [&[0, 0][..], &size.to_be_bytes(), &super::fake::FLAGS.to_be_bytes()].concat();
    peer.option_reply(7, 3, &info)?;
    peer.option_reply(7, 1, &[])
}

/// It is connected to again in the course of the work, and is another disk by then.
#[test]
fn c27_a_server_that_has_another_size_when_it_is_opened_again_is_not_read_on() {
    for size in [SIZE - 4096, SIZE + 4096] {
        for (name, args) in [
            ("dirtymap", &["-q", "digest", "-o", "digests"][..]),
            ("mirror-sync", &["-q", "--full", "--connections", "4", "null:"]),
        ] {
            let dir = Dir::new();
            let fake = Fake::start(&dir, SIZE + 4096);
            fake.on_connect(move |peer, _| {
                let size = if peer.count == 1 { SIZE } else { size };
                open(peer, size).map(|()| true)
            });
            let leg = fake.leg("");
            let (_, far) = leg.split_once('=').expect("an address");
            let mut args = args.to_vec();
            args.insert(args.len() - usize::from(name == "mirror-sync"), far);
            let out = tool(&dir, name, &args).dir(&dir.path("")).run();
            let told = format!("opening it again: {size} bytes now, {SIZE} before");
            assert!(out.code != 0 && out.stderr.contains(&told), "{name}: {}: {}", out.code, out.stderr);
        }
    }
}
