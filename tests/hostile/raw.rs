//! An NBD client without scruples: it sends what it is told, legal or not, and reads replies byte by byte.

use crate::support::{Dir, Volume, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const MIB: u64 = 1 << 20;
/// No reply takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What ends only with the deadline of a handshake, 10 seconds, takes longer.
const SOON: Duration = Duration::from_secs(8);

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const ZEROES: u16 = 6;
pub const STATUS: u16 = 7;

pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;

pub const LIST: u32 = 3;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED: u32 = 8;
pub const SET_META: u32 = 10;
pub const ACK: u32 = 1;

/// Where a daemon listens.
#[derive(Clone, Debug)]
pub enum At {
    Unix(PathBuf),
    Tcp(String),
}

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// One connection.
pub struct Raw {
    socket: Box<dyn Socket>,
    cookie: u64,
}

/// One chunk of a structured reply, or a simple reply (`kind` is `None`).
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    pub kind: Option<u16>,
    pub done: bool,
    /// Of a simple reply, or of an error chunk.
    pub error: u32,
    pub body: Vec<u8>,
}

/// A request as it is on the wire.
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// An option as it is on the wire.
pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// The data of GO or INFO that asks for nothing more.
pub fn export(name: &str) -> Vec<u8> {
    [counted(name.as_bytes()), vec![0, 0]].concat()
}

/// The data of `SET_META_CONTEXT`.
pub fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend(counted(query.as_bytes()));
    }
    data
}

/// Everything an honest client sends before its first request.
pub fn handshake() -> Vec<u8> {
    [vec![0, 0, 0, 3], option(STRUCTURED, &[]), option(SET_META, &contexts("vol", &["base:allocation"]))]
        .into_iter()
        .chain([option(GO, &export("vol"))])
        .collect::<Vec<_>>()
        .concat()
}

impl Raw {
    /// A connection; nothing read or sent.
    pub fn connect(at: &At) -> Self {
        Self::patient(at, PATIENCE)
    }

    fn patient(at: &At, sending: Duration) -> Self {
        match at {
            At::Unix(path) => {
                let socket = UnixStream::connect(path).expect("connect");
                socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
                socket.set_write_timeout(Some(sending)).expect("timeout");
                Self { socket: Box::new(socket), cookie: 1 << 40 }
            }
            At::Tcp(address) => {
                let socket = TcpStream::connect(address).expect("connect");
                socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
                socket.set_write_timeout(Some(sending)).expect("timeout");
                socket.set_nodelay(true).expect("nodelay");
                Self { socket: Box::new(socket), cookie: 1 << 40 }
            }
        }
    }

    /// A conversation that goes on over another socket: what was said before is over.
    pub fn over(socket: impl Read + Write + Send + 'static) -> Self {
        Self { socket: Box::new(socket), cookie: 1 << 40 }
    }

    /// The greeting taken and answered; options come next.
    pub fn greeted(at: &At) -> Self {
        Self::connect(at).greet()
    }

    /// Simple replies, no contexts.
    pub fn simple(at: &At) -> Self {
        Self::greeted(at).gone()
    }

    /// The same for one that gives up sending after a second of standstill.
    pub fn short(at: &At) -> Self {
        Self::patient(at, Duration::from_secs(1)).greet().gone()
    }

    /// Greeted, and gives up sending at once.
    pub fn hasty(at: &At) -> Self {
        Self::patient(at, Duration::from_millis(5)).greet()
    }

    fn gone(mut self) -> Self {
        self.ask(GO, &export("vol"));
        self
    }

    fn greet(mut self) -> Self {
        assert_eq!(self.read(18), *b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&[0, 0, 0, 3]);
        self
    }

    /// Structured replies and these contexts, whose ids are 1, 2, ….
    pub fn structured(at: &At, queries: &[&str]) -> Self {
        let mut raw = Self::greeted(at);
        raw.ask(STRUCTURED, &[]);
        if !queries.is_empty() {
            raw.ask(SET_META, &contexts("vol", queries));
        }
        raw.ask(GO, &export("vol"));
        raw
    }

    /// Sends an option and takes its replies up to the last, whose type is given back.
    pub fn option(&mut self, number: u32, data: &[u8]) -> u32 {
        self.send(&option(number, data));
        loop {
            let (answered, kind, _) = self.option_reply();
            assert_eq!(answered, number);
            if kind == ACK || kind >> 31 == 1 {
                return kind;
            }
        }
    }

    fn ask(&mut self, number: u32, data: &[u8]) {
        assert_eq!(self.option(number, data), ACK, "option {number}");
    }

    /// One reply to an option: option, type, data.
    pub fn option_reply(&mut self) -> (u32, u32, Vec<u8>) {
        let head = self.read(20);
        assert_eq!(head[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        let len = number(&head[16..20]) as usize;
        let data = self.read(len);
        (number(&head[8..12]) as u32, number(&head[12..16]) as u32, data)
    }

    /// Sends bytes; panics if the daemon has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("send");
    }

    /// Sends bytes to a daemon that may close the connection meanwhile.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Some bytes, or whatever comes in their place.
    pub fn try_read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(bytes)
    }

    /// So many bytes.
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap_or_else(|e| panic!("reading {len} bytes: {e}"));
        bytes
    }

    /// The daemon closes the connection; what it still sends before that.
    #[track_caller]
    pub fn end(&mut self) -> Vec<u8> {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 65536]);
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return bytes,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                // Closed while bytes of ours were unread.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return bytes;
                }
                Err(e) => panic!("the connection is still open: {e}"),
            }
        }
    }

    /// The same, where the daemon does it for what was sent and not because the time of a handshake is over.
    #[track_caller]
    pub fn closed(&mut self) -> Vec<u8> {
        let start = Instant::now();
        let rest = self.end();
        assert!(start.elapsed() < SOON, "only its deadline closed it: {:?}", start.elapsed());
        rest
    }

    /// Sends a request with a fresh cookie.
    pub fn ask_for(&mut self, flags: u16, command: u16, offset: u64, len: u32) -> u64 {
        self.cookie += 1;
        self.send(&request(flags, command, self.cookie, offset, len));
        self.cookie
    }

    /// Takes one simple reply or chunk. `len` bytes of payload follow a simple one without error.
    pub fn reply(&mut self, len: usize) -> Reply {
        let magic = number(&self.read(4));
        if magic == 0x6744_6698 {
            let head = self.read(12);
            let (error, cookie) = (number(&head[..4]) as u32, number(&head[4..]));
            let body = if error == 0 { self.read(len) } else { Vec::new() };
            return Reply { cookie, kind: None, done: true, error, body };
        }
        assert_eq!(magic, 0x668e_33ef, "{magic:x}");
        let head = self.read(16);
        let (done, kind) = (head[1] & 1 == 1, number(&head[2..4]) as u16);
        let body = self.read(number(&head[12..]) as usize);
        let error = if kind >> 15 == 1 { number(&body[..4]) as u32 } else { 0 };
        Reply { cookie: number(&head[4..12]), kind: Some(kind), done, error, body }
    }

    /// A request that has one reply without content: its error, 0 for success.
    #[track_caller]
    pub fn outcome(&mut self, flags: u16, command: u16, offset: u64, len: u32, payload: &[u8]) -> u32 {
        let cookie = self.ask_for(flags, command, offset, len);
        self.send(payload);
        let reply = self.reply(0);
        assert_eq!((reply.cookie, reply.done), (cookie, true), "{reply:?}");
        reply.error
    }

    /// Bytes of the volume; simple or structured.
    #[track_caller]
    pub fn pread(&mut self, offset: u64, len: u32) -> Vec<u8> {
        let cookie = self.ask_for(0, READ, offset, len);
        let reply = self.reply(len as usize);
        assert_eq!((reply.cookie, reply.error, reply.done), (cookie, 0, true));
        match reply.kind {
            None => reply.body,
            Some(kind) => {
                assert_eq!((kind, number(&reply.body[..8])), (1, offset));
                reply.body[8..].to_vec()
            }
        }
    }

    /// Writes bytes of the volume.
    #[track_caller]
    pub fn pwrite(&mut self, offset: u64, bytes: &[u8]) {
        assert_eq!(self.outcome(0, WRITE, offset, bytes.len() as u32, bytes), 0);
    }

    /// Extents (length, flags) of the only context.
    #[track_caller]
    pub fn extents(&mut self, flags: u16, offset: u64, len: u32) -> Vec<(u64, u32)> {
        let cookie = self.ask_for(flags, STATUS, offset, len);
        let reply = self.reply(0);
        assert_eq!((reply.cookie, reply.kind, reply.done), (cookie, Some(5), true), "{reply:?}");
        assert_eq!((number(&reply.body[..4]), reply.body.len() % 8), (1, 4));
        reply.body[4..].chunks(8).map(|e| (number(&e[..4]), number(&e[4..]) as u32)).collect()
    }
}

/// A big-endian number of up to 8 bytes.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// A free port of the loopback interface.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port()
}

/// Content that tells where it belongs.
pub fn pattern(offset: u64, len: u32) -> Vec<u8> {
    (offset..offset + u64::from(len)).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// A served volume of one file, a witness that is served all the time, and a look at both at the end.
pub struct Place<'d> {
    pub volume: Volume<'d>,
    pub unix: At,
    pub tcp: At,
    witness: Option<Witness>,
    pub pid: u32,
}

/// The witness reads here what it once wrote; nobody else writes there.
const WITNESS: u64 = MIB;

impl<'d> Place<'d> {
    /// A volume of this size on a file.
    pub fn new(dir: &'d Dir, size: u64) -> Self {
        let leg = format!("a={}", dir.image("a.img", size).display());
        Self::of(dir, size, &[&leg], &["--known-zero"])
    }

    /// A volume of these legs.
    pub fn of(dir: &'d Dir, size: u64, legs: &[&str], options: &[&str]) -> Self {
        let mut volume = Volume::create(dir, size, legs, options);
        let address = format!("127.0.0.1:{}", port());
        volume.serve_both(&address);
        volume.wait_synced();
        let unix = At::Unix(volume.socket().to_owned());
        let pid = volume.server().pid();
        let witness = Some(Witness::start(&unix));
        Self { volume, unix, tcp: At::Tcp(address), witness, pid }
    }

    /// Both ways to reach it.
    pub fn both(&self) -> [At; 2] {
        [self.unix.clone(), self.tcp.clone()]
    }

    /// The daemon is the same, it serves a new client, the witness was served all the time, memory was bounded.
    /// What the witness saw.
    #[track_caller]
    pub fn is_fine(&mut self) -> Seen {
        let seen = self.witness.take().expect("witness").end();
        assert!(self.volume.server().is_running(), "{}", self.volume.server().log());
        let mut other = Raw::simple(&self.unix);
        assert_eq!(other.pread(WITNESS, 4096), pattern(WITNESS, 4096));
        other.send(&request(0, DISC, 0, 0, 0));
        other.end();
        let peak = peak(self.pid);
        assert!(peak <= 256 * MIB, "{} MiB", peak / MIB);
        Seen { peak, ..seen }
    }

    /// Lets the witness read so often that one time in a hundred means something, but not for ever.
    pub fn watch(&self) {
        let reads = || self.witness.as_ref().map_or(usize::MAX, |seen| seen.reads.load(Ordering::Relaxed));
        let (start, before) = (Instant::now(), reads());
        while reads() < before.saturating_add(300) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The same, and then a clean stop.
    #[track_caller]
    pub fn ends_well(mut self) {
        self.is_fine();
        self.volume.stop();
    }
}

/// The most memory that a process ever had resident, in bytes.
pub fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// A figure of a process's memory, in bytes (proc(5)).
pub fn memory(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("number") << 10
}

/// What a client saw that only wants 4 KiB now and then, and what the daemon took meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub reads: usize,
    pub p99: Duration,
    pub worst: Duration,
    pub peak: u64,
}

struct Witness {
    over: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Seen>,
}

impl Witness {
    fn start(at: &At) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut client = Raw::simple(at);
        client.pwrite(WITNESS, &pattern(WITNESS, 4096));
        let reads = Arc::new(AtomicUsize::new(0));
        let (ended, count) = (Arc::clone(&over), Arc::clone(&reads));
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !ended.load(Ordering::Relaxed) || times.is_empty() {
                let start = Instant::now();
                assert_eq!(client.pread(WITNESS, 4096), pattern(WITNESS, 4096));
                times.push(start.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            times.sort();
            let (p99, worst) = (times[times.len() * 99 / 100], times[times.len() - 1]);
            Seen { reads: times.len(), p99, worst, peak: 0 }
        });
        Self { over, reads, thread }
    }

    fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness was not served")
    }
}

/// Waits until the daemon has this many connections, the witness's included; not so long that the deadline of their
/// handshakes ends them.
#[track_caller]
pub fn wait_clients(volume: &Volume<'_>, count: u64) {
    wait_for(&format!("{count} clients"), SOON, || volume.status()["clients"] == count);
}

/// Bytes of an image.
pub fn bytes_of(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; len];
    std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset)).expect("image");
    bytes
}
