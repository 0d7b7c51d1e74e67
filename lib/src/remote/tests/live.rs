//! Both ends over a pair of sockets.

use crate::base::{ByteRange, Class, Error, Result};
use crate::remote::client::{Client, Pipe};
use crate::remote::message::{Call, DeviceFacts, Digest, Request};
use crate::remote::server::{FarDevice, FarStream, FarTree, How, Service, serve};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A far end in memory: one device, a stream that is kept, a tree of one object.
#[derive(Default)]
pub struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    pushed: Arc<Mutex<Vec<u8>>>,
}

struct Device(Arc<Mutex<Vec<u8>>>);

impl FarDevice for Device {
    fn size(&self) -> u64 {
        self.0.lock().expect("lock").len() as u64
    }
    fn facts(&self) -> DeviceFacts {
        DeviceFacts { size: self.size(), flushes: true, align: 1, ..DeviceFacts::default() }
    }
    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        if offset == 13 {
            return Err(Error::new(Class::Io, "the image: reading 13+1: bad luck"));
        }
        let len = buf.len();
        buf.copy_from_slice(&self.0.lock().expect("lock")[offset as usize..][..len]);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.lock().expect("lock")[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero(&self, range: ByteRange, _: bool, _: bool) -> Result<()> {
        self.0.lock().expect("lock")[range.offset as usize..range.end() as usize].fill(0);
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn extents(&self, range: ByteRange, _: usize) -> Result<Vec<(u64, bool)>> {
        Ok(vec![(range.len, false)])
    }
    fn digests(&self, range: ByteRange, step: u64) -> Result<Vec<Digest>> {
        let bytes = self.0.lock().expect("lock");
        let part = &bytes[range.offset as usize..range.end() as usize];
        Ok(part.chunks(step as usize).map(|block| *blake3::hash(block).as_bytes()).collect())
    }
}

struct Tree;

impl FarTree for Tree {
    fn objects(&self) -> u64 {
        1
    }
    fn digest(&self) -> Digest {
        [7; 32]
    }
    fn node(&self, id: u64, _: u64) -> Result<Vec<u8>> {
        Ok(id.to_le_bytes().to_vec())
    }
}

struct Stream(Arc<Mutex<Vec<u8>>>);

impl FarStream for Stream {
    fn push(&self, bytes: Vec<u8>) -> Result<()> {
        self.0.lock().expect("lock").extend(bytes);
        Ok(())
    }
    fn finish(&self) -> Result<Vec<u8>> {
        Ok(b"{}".to_vec())
    }
}

impl Service for Memory {
    fn device(&self, path: &[u8], _: How) -> Result<Box<dyn FarDevice>> {
        if path != b"/image" {
            return Err(Error::new(Class::Io, "/none: opening it: No such file or directory"));
        }
        Ok(Box::new(Device(Arc::clone(&self.bytes))))
    }
    fn apply(&self, _: &Call) -> Result<Box<dyn FarStream>> {
        Ok(Box::new(Stream(Arc::clone(&self.pushed))))
    }
    fn scan(&self, _: &Call) -> Result<Box<dyn FarTree>> {
        Ok(Box::new(Tree))
    }
    fn round(&self, _: &Call) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

const READ: How = How { write: false, mounted: false, live: false };
const WRITE: How = How { write: true, ..READ };

/// A writer whose other side learns when it is dropped.
pub struct Half(pub UnixStream);

impl std::io::Write for Half {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// A pair of sockets with short deadlines.
pub fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("pair");
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_millis(500))).expect("deadline");
    }
    (near, far)
}

pub fn pipe(near: UnixStream) -> Pipe {
    let writer = Half(near.try_clone().expect("clone"));
    Pipe {
        name: "ssh://far".into(),
        reader: Box::new(near),
        writer: Box::new(writer),
        why: Box::new(|| None),
    }
}

/// A far end in a thread, and the near end that talks to it.
fn start(memory: Memory, zstd: bool) -> (Client, JoinHandle<Result<()>>) {
    let (near, far) = pair();
    let output = Half(far.try_clone().expect("clone"));
    let server = std::thread::spawn(move || serve(far, Box::new(output), &memory));
    (Client::start(pipe(near), zstd).expect("hello"), server)
}

#[test]
fn a_device_is_read_written_zeroed_and_hashed_from_afar() {
    for zstd in [false, true] {
        let memory = Memory::default();
        *memory.bytes.lock().expect("lock") = vec![1; 100_000];
        let bytes = Arc::clone(&memory.bytes);
        let (client, server) = start(memory, zstd);
        let (object, facts) = client.open(b"/image", WRITE).expect("open");
        assert_eq!((facts.size, facts.flushes), (100_000, true));
        client.done(object, Request::Write { offset: 50_000, data: vec![2; 10_000] }).expect("write");
        let range = ByteRange { offset: 70_000, len: 5000 };
        client.done(object, Request::Zero { range, holes: true, fast: false }).expect("zero");
        client.done(object, Request::Flush).expect("flush");
        let mut found = vec![9; 100_000];
        client.read(object, 0, &mut found).expect("read");
        assert_eq!(found, *bytes.lock().expect("lock"));
        assert_eq!((found[49_999], found[50_000], found[70_000]), (1, 2, 0));
        let zeroes = client.submit(object, Request::Read(range)).expect("read").data(5000).expect("read");
        assert_eq!(zeroes, None, "zeroes do not travel");
        let range = ByteRange { offset: 0, len: 100_000 };
        let digests = client.ask_digests(object, range, 4096).expect("ask").digests(25).expect("digests");
        assert_eq!(digests[0], *blake3::hash(&[1; 4096]).as_bytes());
        assert_eq!(client.extents(object, range).expect("extents"), [(100_000, false)]);
        client.done(object, Request::Close).expect("close");
        assert_eq!(client.read(object, 0, &mut found).expect_err("closed").class, Class::Connect);
        if zstd {
            assert!(client.sent() < 1000, "{} bytes for 10000 equal ones", client.sent());
            assert!(client.received() < 3000, "{}", client.received());
        }
        drop(client);
        server.join().expect("thread").expect("a clean end");
    }
}

#[test]
fn many_requests_are_in_flight_and_each_gets_its_own_answer() {
    let memory = Memory::default();
    *memory.bytes.lock().expect("lock") = (0..250_000u32).flat_map(u32::to_le_bytes).collect();
    let (client, _server) = start(memory, false);
    let (object, ..) = client.open(b"/image", READ).expect("open");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let client = client.clone();
            scope.spawn(move || {
                let places: Vec<_> = (0..100).map(|at| (at * 4 + thread) * 2000).collect();
                let ask = |offset: &u64| {
                    client.submit(object, Request::Read(ByteRange { offset: *offset, len: 4 })).expect("ask")
                };
                // More of them than are allowed at once would wait for themselves: as an engine does, in groups.
                for group in places.chunks(10) {
                    let tickets: Vec<_> = group.iter().map(ask).collect();
                    for (offset, ticket) in group.iter().zip(tickets) {
                        let mut word = [0; 4];
                        ticket.fill(&mut word).expect("read");
                        assert_eq!(u64::from(u32::from_le_bytes(word)) * 4, *offset);
                    }
                }
            });
        }
    });
}

#[test]
fn an_error_of_one_request_is_of_its_class_and_harms_no_other() {
    let memory = Memory::default();
    *memory.bytes.lock().expect("lock") = vec![1; 5000];
    let (client, server) = start(memory, false);
    let missing = client.open(b"/none", READ).expect_err("missing");
    assert_eq!(missing.class, Class::Io);
    assert_eq!(missing.message, "ssh://far: its far end says: /none: opening it: No such file or directory");
    let (object, ..) = client.open(b"/image", READ).expect("open");
    let mut buf = [0; 10];
    let bad = client.read(object, 13, &mut buf).expect_err("bad luck");
    assert_eq!((bad.class, bad.message.contains("bad luck")), (Class::Io, true));
    client.read(object, 20, &mut buf).expect("the next");
    assert_eq!(client.read(object, 4995, &mut buf).expect_err("past the end").class, Class::Usage);
    let write = Request::Write { offset: 0, data: vec![0; 10] };
    assert_eq!(client.done(object, write).expect_err("read-only").class, Class::Refused);
    assert_eq!(buf, [1; 10]);
    drop(client);
    server.join().expect("thread").expect("a clean end");
}

#[test]
fn a_dump_arrives_in_order_and_a_tree_is_asked_for_its_nodes() {
    let memory = Memory::default();
    let pushed = Arc::clone(&memory.pushed);
    let (client, _server) = start(memory, true);
    let call = || Call { root: b"/srv".to_vec(), log: Vec::new(), privileged: false, atime: false };
    let object = client.apply(call()).expect("apply");
    let pieces: Vec<Vec<u8>> = (0..200u8).map(|piece| vec![piece; 3000]).collect();
    let mut tickets = Vec::new();
    for piece in &pieces {
        tickets.push(client.submit(object, Request::Push(piece.clone())).expect("push"));
        if tickets.len() == 8 {
            tickets.drain(..).for_each(|ticket| ticket.done().expect("pushed"));
        }
    }
    assert_eq!(client.bytes(object, Request::Finish).expect("finish"), b"{}");
    assert_eq!(*pushed.lock().expect("lock"), pieces.concat());
    let (tree, objects, digest) = client.scan(call()).expect("scan");
    assert_eq!((objects, digest), (1, [7; 32]));
    assert_eq!(client.bytes(tree, Request::Node { id: 5, from: 0 }).expect("node"), 5u64.to_le_bytes());
    assert_eq!(client.bytes(0, Request::Round(call())).expect("round"), b"");
}

#[test]
fn no_more_objects_are_open_than_allowed() {
    let memory = Memory::default();
    *memory.bytes.lock().expect("lock") = vec![1; 5000];
    let (client, _server) = start(memory, false);
    let open = || client.open(b"/image", READ);
    let all: Vec<_> = (0..16).map(|_| open().expect("open").0).collect();
    assert_eq!(open().expect_err("too many").class, Class::Busy);
    client.done(all[3], Request::Close).expect("close");
    assert_eq!(open().expect("open").0, all[3]);
}
