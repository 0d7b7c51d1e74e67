//! What `mirror-sync` reads from others: deltas, and both sides of the protocol of `--serve`.

use super::Seen;
use super::mutate::hash;
use mirror::base::{BlockSize, ByteRange, Class, Error, Id, Result, limits};
use mirror::delta::manifest::Digest;
use mirror::delta::stream::{Change, DeltaHeader, DeltaWriter, HEADER_LEN, RECORD_LEN, check};
use mirror::device::fields::checksum;
use mirror::remote::message::PING;
use mirror::remote::wire::{self, HELLO_LEN, Hello, read_all};
use mirror::remote::{
    Call, Client, DeviceFacts, FarDevice, FarStream, FarTree, How, Pipe, Reply, Request, Service, serve,
};
use mirror::sync::ends::SshEnd;
use mirror::sync::{End as _, Opening};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};

/// The kind of an error, which has one line.
fn kind(error: &Error) -> Seen {
    assert!(!error.message.chars().any(char::is_control), "an error has one line: {error:?}");
    assert_ne!(error.class, Class::Internal, "nobody else is a bug of ours: {error:?}");
    let tail = error.message.rsplit(": ").next().unwrap_or_default();
    // What stands between quotes was said by the input.
    let tail = tail.rsplit('\'').next().unwrap_or_default();
    hash(tail.chars().filter(|c| !c.is_ascii_hexdigit()).collect::<String>().as_bytes())
}

/// A delta as it is, and with its checksums made right.
pub fn delta(input: &[u8]) -> Seen {
    let seen = |bytes: &[u8]| match check(bytes) {
        Ok(totals) => totals.records.wrapping_mul(31) ^ u64::from(totals.zero > 0),
        Err(error) => {
            assert!(matches!(error.class, Class::Damaged | Class::Refused), "{error}");
            kind(&error)
        }
    };
    seen(input).wrapping_mul(31) ^ seen(&sealed(input))
}

/// The sums of header, payloads, records and of all of them.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    let Some(header) = out.get_mut(..HEADER_LEN) else { return out };
    let sum = checksum(&header[..HEADER_LEN - 8]);
    header[HEADER_LEN - 8..].copy_from_slice(&sum.to_le_bytes());
    let id: [u8; 16] = header[40..56].try_into().expect("an id");
    let (mut at, mut records) = (HEADER_LEN, Vec::new());
    while let Some(record) = out.get(at..at + RECORD_LEN) {
        let mut record = record.to_vec();
        let len = u32::from_le_bytes(record[4..8].try_into().expect("four bytes")) as usize;
        let rest = at + RECORD_LEN;
        let Some(payload) = out.get_mut(rest..rest.saturating_add(len)) else { break };
        let end = record[0] == 4;
        if end && len == 32 {
            payload.copy_from_slice(&mirror::fslog::content::digest(&records).unwrap_or_default().0);
        }
        let sum = checksum(payload);
        record[32..40].copy_from_slice(&sum.to_le_bytes());
        let sum = checksum(&[&id, &record[..48]].concat());
        record[48..].copy_from_slice(&sum.to_le_bytes());
        out[at..rest].copy_from_slice(&record);
        records.extend_from_slice(&record);
        at = rest + len;
        if end {
            break;
        }
    }
    out
}

pub fn deltas() -> Vec<Vec<u8>> {
    let id = |n: u8| Id([n; 16]);
    let (size, block) = (1 << 20, BlockSize::DEFAULT);
    let header =
        DeltaHeader { id: id(1), volume: id(2), base: id(3), target: id(4), size, block, partial: true };
    let changes = [
        Change::data(0, b"some data", false),
        Change::zero(ByteRange { offset: 9, len: 4096 }),
        Change::data(1 << 16, &[7; 3000], true),
    ];
    [&changes[..], &[]]
        .iter()
        .map(|changes| {
            let mut writer = DeltaWriter::new(&header);
            let mut out = header.encode().to_vec();
            for change in *changes {
                out.extend(writer.record(change));
                out.extend(change.payload());
            }
            [out, writer.end()].concat()
        })
        .collect()
}

const DEVICE: u64 = 1 << 16;

/// A device in memory that notices what must not reach it.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    write: bool,
}

impl FarDevice for Memory {
    fn facts(&self) -> DeviceFacts {
        DeviceFacts {
            size: DEVICE,
            align: 1,
            flushes: true,
            identity: "machine/what".into(),
            ..DeviceFacts::default()
        }
    }

    fn size(&self) -> u64 {
        DEVICE
    }

    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        let (at, len) = (offset as usize, buf.len());
        buf.copy_from_slice(&self.bytes.lock().expect("lock")[at..at + len]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        assert!(self.write, "it was opened to read");
        let at = offset as usize;
        self.bytes.lock().expect("lock")[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&self, range: ByteRange, _: bool, _: bool) -> Result<()> {
        self.write(range.offset, &vec![0; range.len as usize])
    }

    fn flush(&self) -> Result<()> {
        assert!(self.write, "it was opened to read");
        Ok(())
    }

    fn extents(&self, range: ByteRange, most: usize) -> Result<Vec<(u64, bool)>> {
        assert!(range.end() <= DEVICE && most > 0);
        Ok(vec![(range.len, false)])
    }

    fn digests(&self, range: ByteRange, step: u64) -> Result<Vec<Digest>> {
        assert!(range.end() <= DEVICE);
        Ok(vec![[7; 32]; range.len.div_ceil(step) as usize])
    }
}

struct Dump;

impl FarStream for Dump {
    fn push(&self, bytes: Vec<u8>) -> Result<()> {
        assert!(bytes.len() <= limits::REMOTE_PAYLOAD as usize);
        Ok(())
    }

    fn finish(&self) -> Result<Vec<u8>> {
        Ok(b"{}".to_vec())
    }
}

struct Tree;

impl FarTree for Tree {
    fn objects(&self) -> u64 {
        3
    }

    fn digest(&self) -> Digest {
        [1; 32]
    }

    fn node(&self, id: u64, from: u64) -> Result<Vec<u8>> {
        if id > 3 { Err(Error::new(Class::Usage, "no such object")) } else { Ok(vec![from as u8; 4]) }
    }
}

struct Far;

impl Service for Far {
    fn device(&self, path: &[u8], how: How) -> Result<Box<dyn FarDevice>> {
        if path.len() > 3 {
            return Err(Error::new(Class::Io, "no such file"));
        }
        Ok(Box::new(Memory { bytes: Mutex::new(vec![1; DEVICE as usize]), write: how.write }))
    }

    fn apply(&self, _: &Call) -> Result<Box<dyn FarStream>> {
        Ok(Box::new(Dump))
    }

    fn scan(&self, _: &Call) -> Result<Box<dyn FarTree>> {
        Ok(Box::new(Tree))
    }

    fn round(&self, call: &Call) -> Result<Vec<u8>> {
        Ok(call.root.clone())
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A near end that says anything: what it is answered is well-formed, and no more than it asked for.
pub fn requests(input: &[u8]) -> Seen {
    let out = Shared::default();
    let end = serve(input, Box::new(out.clone()), &Far);
    let bytes = std::mem::take(&mut *out.0.lock().expect("lock"));
    let (hello, frames) = bytes.split_at(HELLO_LEN);
    assert_eq!(Hello::decode(hello.try_into().expect("a hello")), Ok(Hello::ours(true)));
    let (answers, error) = read_all(frames, true);
    assert!(error.is_none(), "{error:?}");
    let asked = input.get(HELLO_LEN..).map_or(0, |bytes| read_all(bytes, true).0.len());
    assert!(answers.len() <= asked + 1, "{} answers to {asked} requests", answers.len());
    // They come in any order; what they are is what was seen.
    let mut kinds: Vec<_> = answers
        .into_iter()
        .map(|frame| match Reply::decode(&frame.head, frame.payload).expect("an answer") {
            Reply::Error(error) => kind(&error),
            _ => u64::from(frame.head.kind),
        })
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_le_bytes()).collect();
    hash(&kinds) ^ end.map_or_else(|error| kind(&error), |()| 1)
}

fn talk(frames: impl IntoIterator<Item = (wire::Head, Vec<u8>)>) -> Vec<u8> {
    let mut out = Hello::ours(true).encode().to_vec();
    for (head, payload) in frames {
        let (head, small) = wire::encode(&head, &payload, true);
        out.extend(head);
        out.extend(small.unwrap_or(payload));
    }
    out
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let range = ByteRange { offset: 4096, len: 8192 };
    let call = || Call { root: b"/r".to_vec(), log: b"/l".to_vec(), privileged: false, atime: true };
    let device = [
        (Request::Open { path: b"/d".to_vec(), write: true, mounted: false, live: false }, 0),
        (Request::Write { offset: 100, data: vec![5; 600] }, 1),
        (Request::Read(range), 1),
        (Request::Zero { range, holes: true, fast: false }, 1),
        (Request::Flush, 1),
        (Request::Extents(range), 1),
        (Request::Digests { range, step: 4096 }, 1),
        (Request::Close, 1),
    ];
    let tree = [
        (Request::Scan(call()), 0),
        (Request::Node { id: 1, from: 0 }, 1),
        (Request::Apply(call()), 0),
        (Request::Push(vec![1; 700]), 2),
        (Request::Finish, 2),
        (Request::Round(call()), 0),
    ];
    let frames = |list: Vec<(Request, u16)>| {
        let requests = list.into_iter().zip(1..).map(|((request, object), id)| request.encode(id, object));
        talk(requests.chain([(PING, Vec::new())]))
    };
    vec![frames(device.into()), frames(tree.into()), frames(Vec::new())]
}

/// A far end whose answers are written down beforehand: each is given when it was asked for.
struct Script {
    bytes: Vec<u8>,
    at: usize,
    /// So far it may be read.
    until: usize,
    turn: Arc<Turn>,
}

#[derive(Default)]
struct Turn {
    /// Requests that were sent and not yet answered, and whether there will be more.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.until && self.at < self.bytes.len() {
            let head = &self.bytes[self.at..];
            let len = head.first_chunk::<4>().map_or(usize::MAX, |len| u32::from_le_bytes(*len) as usize);
            if head.get(4) != Some(&PING.kind) {
                let state = self.turn.state.lock().expect("lock");
                let waiting = |state: &mut (usize, bool)| state.0 == 0 && !state.1;
                let mut state = self.turn.changed.wait_while(state, waiting).expect("lock");
                if state.0 == 0 {
                    return Ok(0);
                }
                state.0 -= 1;
            }
            self.until = self.at.saturating_add(len).saturating_add(wire::HEADER_LEN).min(self.bytes.len());
        }
        let len = buf.len().min(self.until - self.at);
        buf[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// Where requests go: each is told to the script when it is whole.
struct Told(Arc<Turn>, bool);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // The first is the hello.
        if std::mem::replace(&mut self.1, true) {
            self.0.state.lock().expect("lock").0 += 1;
            self.0.changed.notify_all();
        }
        Ok(())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.state.lock().expect("lock").1 = true;
        self.0.changed.notify_all();
    }
}

/// A far end that says anything: whatever the near end makes of it is what was asked for, or an error.
pub fn replies(input: &[u8]) -> Seen {
    let turn = Arc::new(Turn::default());
    // What is no hello is said without being asked.
    let until = if input.starts_with(&wire::MAGIC) { input.len().min(HELLO_LEN) } else { input.len() };
    let script = Script { bytes: input.to_vec(), at: 0, until, turn: Arc::clone(&turn) };
    let pipe = Pipe {
        name: "far".into(),
        reader: Box::new(script),
        writer: Box::new(Told(turn, false)),
        why: Box::new(|| None),
    };
    let opening = Opening { write: true, mounted: false, live: false, connections: 1, depth: 1 };
    let client = match Client::start(pipe, true) {
        Ok(client) => client,
        Err(error) => return kind(&error),
    };
    let end = match SshEnd::over(client, b"/d", opening) {
        Ok(end) => end,
        Err(error) => return kind(&error),
    };
    let facts = end.facts().clone();
    assert!(
        facts.size <= limits::VOLUME_SIZE && facts.align.is_power_of_two() && facts.request_max >= 1 << 16
    );
    let mut seen = HashSet::new();
    let mut note = |what: u64, result: Result<()>| {
        seen.insert(what ^ result.map_or_else(|error| kind(&error), |()| 1));
    };
    let range = ByteRange { offset: 4096, len: 16384 };
    let mut buf = vec![9; 8192];
    note(1, end.read(0, &mut buf));
    assert_eq!(buf.len(), 8192);
    let mut pieces = Vec::new();
    let done = end.extents(range, &mut pieces);
    if done.is_ok() {
        let last = pieces.iter().fold(range.offset, |at, piece| {
            assert!(piece.range.offset == at && piece.range.len > 0);
            piece.range.end()
        });
        assert_eq!(last, range.end());
    }
    note(2, done);
    let mut digests = Vec::new();
    let done = end.digests(range, 4096, &mut digests);
    assert_eq!(digests.len(), if done.is_ok() { 4 } else { 0 });
    note(3, done);
    note(4, end.write(0, &[1; 512]));
    note(5, end.zero(range, true));
    note(6, end.flush());
    note(7, Box::new(end).close());
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_unstable();
    hash(&seen.iter().flat_map(|what| what.to_le_bytes()).collect::<Vec<u8>>())
}

pub fn reply_seeds() -> Vec<Vec<u8>> {
    let facts = DeviceFacts {
        size: DEVICE,
        align: 512,
        flushes: true,
        identity: "m/w".into(),
        ..DeviceFacts::default()
    };
    let fails = || Reply::Error(Error::new(Class::Io, "it is broken"));
    let good = [
        Reply::Device { object: 1, facts: facts.clone() },
        Reply::Data(vec![3; 8192]),
        Reply::Extents(vec![(4096, true), (12288, false)]),
        Reply::Digests(vec![[4; 32]; 4]),
        Reply::Done,
        Reply::Done,
        Reply::Done,
        Reply::Done,
    ];
    let bad = [
        Reply::Device { object: 1, facts: DeviceFacts { in_use: Some("mounted on /".into()), ..facts } },
        Reply::Zeroes,
        fails(),
        fails(),
        fails(),
        Reply::Done,
        fails(),
        Reply::Done,
    ];
    [good.to_vec(), bad.to_vec()]
        .into_iter()
        .map(|replies| {
            let frames = replies.into_iter().zip(1..).map(|(reply, id)| reply.encode(id));
            talk([(PING, Vec::new())].into_iter().chain(frames))
        })
        .collect()
}
