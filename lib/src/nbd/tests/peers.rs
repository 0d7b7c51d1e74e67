//! Each half against the programs of the ecosystem. A program that is not installed is skipped, loudly.

use super::{PATIENCE, options, unix};
use crate::base::Class;
use crate::nbd::client::Blocking;
use crate::nbd::server::reply::To;
use crate::nbd::server::tests::{Hundred, Shelf};
use crate::nbd::server::{Exports, Handshake, Progress, check, payload_len, reply};
use crate::nbd::uri::NbdUri;
use crate::nbd::wire::{self, TransmissionFlags};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A server process that ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Past the test harness, which hides what a passing test prints.
fn skip(program: &str, error: &std::io::Error) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {program} does not run: {error}");
}

/// Starts a server and waits for its socket; `None`, loudly, if it is not installed.
fn serve(program: &str, arguments: &[&str], socket: &Path) -> Option<Served> {
    serve_until(program, arguments, || UnixStream::connect(socket).is_ok())
}

fn serve_until(program: &str, arguments: &[&str], up: impl Fn() -> bool) -> Option<Served> {
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut served = match started {
        Ok(child) => Served(child),
        Err(error) => {
            skip(program, &error);
            return None;
        }
    };
    let until = Instant::now() + PATIENCE;
    while !up() {
        let ended = served.0.try_wait().expect("wait");
        assert!(ended.is_none() && Instant::now() < until, "{program} did not come up: {ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(served)
}

fn socket_in(dir: &tempfile::TempDir) -> (PathBuf, String) {
    let path = dir.path().join("s");
    let text = path.to_str().expect("a path").to_owned();
    (path, text)
}

/// Writes, reads back, zeroes and asks, over more than one request each way.
fn exercise(mut client: Blocking) {
    let size = client.info().size as usize;
    let pattern: Vec<u8> = (0..size - 1000).map(|i| (i % 251) as u8).collect();
    client.write(1000, &pattern, false).expect("write");
    client.zeroes(2000, 3000, true, false).expect("zeroes");
    client.flush().expect("flush");
    let mut back = vec![0xff; size];
    client.read(0, &mut back).expect("read");
    let mut expected = [vec![0; 1000], pattern].concat();
    expected[2000..5000].fill(0);
    assert!(back == expected, "what was read is not what was written");
    if client.info().contexts.is_empty() {
        assert_eq!(client.block_status("base:allocation", 0, 4096).expect_err("none").class, Class::Refused);
    } else {
        let extents = client.block_status("base:allocation", 0, 1 << 20).expect("extents");
        assert!(!extents.is_empty() && extents.iter().map(|e| u64::from(e.0)).sum::<u64>() <= 1 << 20);
    }
    assert!(client.read(size as u64, &mut [0]).is_err());
    client.disconnect().expect("disconnect");
}

#[test]
fn the_blocking_client_gets_on_with_nbdkit() {
    for (extra, structured) in
        [(&[][..], true), (&["--no-sr"][..], true), (&["--mask-handshake=0"], true), (&[], false)]
    {
        let dir = tempfile::tempdir().expect("directory");
        let (path, socket) = socket_in(&dir);
        let arguments = [&["-f", "-U", &socket][..], extra, &["memory", "66M"]].concat();
        let Some(_server) = serve("nbdkit", &arguments, &path) else { return };
        let client = Blocking::connect(&unix(&path, ""), options("", structured), PATIENCE).expect("connect");
        exercise(client);
    }
}

#[test]
fn the_blocking_client_gets_on_with_an_oldstyle_nbdkit() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, socket) = socket_in(&dir);
    let Some(_server) = serve("nbdkit", &["-f", "-o", "-U", &socket, "memory", "33M"], &path) else { return };
    let mut client = Blocking::connect(&unix(&path, ""), options("", true), PATIENCE).expect("connect");
    // nbdkit 1.32 offers FLUSH, FUA, TRIM and WRITE_ZEROES to an oldstyle client and then refuses them (libnbd
    // sees the same): only reads and writes are tried.
    client.write(1000, &[7; 5000], false).expect("write");
    let mut back = [0; 7000];
    client.read(0, &mut back).expect("read");
    assert!(back[..1000] == [0; 1000] && back[1000..6000] == [7; 5000] && back[6000..] == [0; 1000]);
    client.disconnect().expect("disconnect");
}

#[test]
fn the_blocking_client_gets_on_with_qemu_nbd() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, socket) = socket_in(&dir);
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(33 << 20)).expect("image");
    let image = image.to_str().expect("a path");
    let arguments = ["-f", "raw", "-k", &socket, "-x", "vol", "-t", "-e", "4", image];
    let Some(_server) = serve("qemu-nbd", &arguments, &path) else { return };
    let error = Blocking::connect(&unix(&path, "no"), options("no", true), PATIENCE).expect_err("unknown");
    assert_eq!(error.class, Class::Connect);
    exercise(Blocking::connect(&unix(&path, "vol"), options("vol", true), PATIENCE).expect("connect"));
}

#[test]
fn the_blocking_client_gets_on_with_nbd_server_over_tcp() {
    let dir = tempfile::tempdir().expect("directory");
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(33 << 20)).expect("image");
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        free.local_addr().expect("address")
    };
    let image = image.to_str().expect("a path");
    let listen = format!("{}@{}", address.ip(), address.port());
    let arguments = ["-d", "-C", "/dev/null", &listen, image];
    let uri: NbdUri = format!("nbd://{address}/").parse().expect("a URI");
    // In the foreground it serves a single connection, so the first must be the client's own.
    let connected = RefCell::new(None);
    let up = || {
        connected.replace(Blocking::connect(&uri, options("", true), PATIENCE).ok());
        connected.borrow().is_some()
    };
    let Some(_server) = serve_until("nbd-server", &arguments, up) else { return };
    let mut client = connected.take().expect("connected");
    assert_eq!(client.info().size, 33 << 20);
    client.write(1000, &[7; 5000], false).expect("write");
    let mut back = [0; 7000];
    client.read(0, &mut back).expect("read");
    assert!(back[..1000] == [0; 1000] && back[1000..6000] == [7; 5000] && back[6000..] == [0; 1000]);
    if !client.info().flags.has(TransmissionFlags::SEND_FLUSH) {
        assert_eq!(client.flush().expect_err("nothing can be claimed").class, Class::Refused);
    }
    client.disconnect().expect("disconnect");
}

/// Serves one client from memory, one request at a time: the smallest use of the server's half.
fn serve_memory(mut stream: UnixStream, exports: &dyn Exports, disk: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let (mut shake, mut out) = Handshake::new();
    let mut received = Vec::new();
    let session = loop {
        stream.write_all(&out)?;
        out.clear();
        let mut part = [0; 777];
        let got = stream.read(&mut part)?;
        received.extend_from_slice(&part[..got]);
        let (consumed, progress) = shake.feed(&received, exports, &mut out);
        received.drain(..consumed);
        match progress {
            Progress::More if got > 0 => {}
            Progress::Transmission(session) => break session,
            _ => return stream.write_all(&out),
        }
    };
    let mut input = std::io::Cursor::new(received).chain(stream.try_clone()?);
    loop {
        stream.write_all(&out)?;
        out.clear();
        let mut header = vec![0; session.header_len()];
        input.read_exact(&mut header)?;
        let Some(request) = session.parse(&header) else { return Ok(()) };
        let mut payload = vec![0; payload_len(&request, session.extended) as usize];
        input.read_exact(&mut payload)?;
        let crate::nbd::Request { cookie, offset, length, .. } = request;
        let to = To { style: session.style(), cookie, offset };
        if let Err(errno) = check(&request, &session) {
            reply::error(&mut out, to, errno, Some("refused"));
            continue;
        }
        let range = offset as usize..offset as usize + length as usize;
        let mut disk = disk.lock().expect("disk");
        match request.command {
            wire::Command::Disc => return Ok(()),
            wire::Command::Read => {
                reply::read_ok_header(&mut out, to, length as u32);
                out.extend_from_slice(&disk[range]);
            }
            wire::Command::BlockStatus => {
                for (i, (id, name)) in session.contexts.iter().enumerate() {
                    let extents = [(4096.min(length), u32::from(name.starts_with("x-")))];
                    reply::block_status(&mut out, to, *id, &extents, i + 1 == session.contexts.len());
                }
            }
            command => {
                if command == wire::Command::Write {
                    disk[range].copy_from_slice(&payload);
                }
                reply::done(&mut out, to);
            }
        }
    }
}

/// Runs a client to its end; `None`, loudly, if it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Err(error) => {
            skip(program, &error);
            None
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {text}{complaint}");
            Some(text)
        }
    }
}

/// Serves these exports from a disk of 1 MiB until the end of the tests' process.
fn serve_at(path: &Path, exports: &'static (dyn Exports + Sync)) {
    let disk = Arc::new(Mutex::new(vec![0; 1 << 20]));
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || serve_memory(stream.expect("accept"), exports, &disk));
        }
    });
}

#[test]
fn s34_nbdinfo_lists_a_hundred_exports() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, socket) = socket_in(&dir);
    serve_at(&path, &Hundred);
    if let Some(list) = run("nbdinfo", &["--list", "--json", &format!("nbd+unix:///?socket={socket}")]) {
        assert_eq!(list.matches("\"export-name\":").count(), 100, "{}", &list[..list.len().min(2000)]);
        assert!(list.contains("x-mirror:dirty/far") && list.contains("\"export-size\": 1048576"));
    }
}

#[test]
fn libnbd_and_qemu_get_on_with_the_server_half() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, socket) = socket_in(&dir);
    serve_at(&path, &Shelf);
    let uri = format!("nbd+unix:///vol?socket={socket}");
    if let Some(text) = run("nbdinfo", &[&uri]) {
        for part in ["1048576", "base:allocation", "x-mirror:dirty/far", "can_fua: true", "can_df: true"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        let list = run("nbdinfo", &["--list", &format!("nbd+unix:///?socket={socket}")]).unwrap_or_default();
        assert!(list.contains("export=\"vol\"") && list.contains("export=\"other\""), "{list}");
        let map = run("nbdinfo", &["--map=x-mirror:dirty/far", &uri]).unwrap_or_default();
        assert!(map.contains("1048576"), "{map}");
    }
    let commands = [
        "write -P 0xab 0 64k",
        "write -f -P 1 100k 4k",
        "write -P 7 1023k 1k",
        "flush",
        "read -P 0xab 0 64k",
        "read -P 1 100k 4k",
        "read -P 0 64k 36k",
        "read -P 7 1023k 1k",
    ];
    let mut arguments = vec!["-f", "raw"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(&uri);
    if let Some(text) = run("qemu-io", &arguments) {
        assert!(!text.contains("failed"), "{text}");
    }
}
