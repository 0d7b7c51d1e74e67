//! The far end: reads requests, has them done by a few threads, answers as they are done.
//!
//! What is in flight is bounded by number and by bytes; past it nothing is read, so that whoever sends more waits.
//! Requests in flight at once are done in any order, but what is pushed into an object arrives in order.

use super::message::{self, Call, DeviceFacts, Digest, Reply, Request};
use super::talk::{Sender, lock};
use super::wire::{self, Agreed, HELLO_LEN, Head, Hello, broken};
use crate::base::{ByteRange, Class, Error, Result, limits};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Threads that do requests: enough to keep a disk busy, and every core hashing.
const THREADS: usize = 8;

/// A device that the far end has opened. Called from several threads at once.
pub trait FarDevice: Send + Sync {
    /// What is true of it. No request reaches beyond its size.
    fn facts(&self) -> DeviceFacts;
    /// Bytes, as of opening.
    fn size(&self) -> u64;
    /// Fills `buf`, as long as it is.
    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()>;
    /// Writes all of `data`.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Makes a range read as zeroes; a hole will do if `holes`; at once or not at all if `fast`.
    fn zero(&self, range: ByteRange, holes: bool, fast: bool) -> Result<()>;
    /// Makes durable what has returned before.
    fn flush(&self) -> Result<()>;
    /// Data and holes in order, at most `most` of them.
    fn extents(&self, range: ByteRange, most: usize) -> Result<Vec<(u64, bool)>>;
    /// The digest of each `step` bytes, and of what is left at the end.
    fn digests(&self, range: ByteRange, step: u64) -> Result<Vec<Digest>>;
}

/// A tree that was read.
pub trait FarTree: Send + Sync {
    /// Number of its objects.
    fn objects(&self) -> u64;
    /// The digest of all.
    fn digest(&self) -> Digest;
    /// One object, as the engines pack it, with its entries from one on: as many as an answer holds.
    fn node(&self, id: u64, from: u64) -> Result<Vec<u8>>;
}

/// A dump that is being taken in.
pub trait FarStream: Send + Sync {
    /// The next bytes; called in order. May wait until there is room.
    fn push(&self, bytes: Vec<u8>) -> Result<()>;
    /// It was all. Waits until it is applied; gives a report.
    fn finish(&self) -> Result<Vec<u8>>;
}

/// How a device is to be opened ([`Request::Open`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// To write it too.
    pub write: bool,
    /// Even if it is mounted or otherwise in use.
    pub mounted: bool,
    /// Even if somebody writes to it.
    pub live: bool,
}

/// What a far end offers.
pub trait Service: Sync {
    /// Opens a device.
    fn device(&self, path: &[u8], how: How) -> Result<Box<dyn FarDevice>>;
    /// Begins to apply a dump.
    fn apply(&self, call: &Call) -> Result<Box<dyn FarStream>>;
    /// Reads a tree.
    fn scan(&self, call: &Call) -> Result<Box<dyn FarTree>>;
    /// The round that a standby is at, as text.
    fn round(&self, call: &Call) -> Result<Vec<u8>>;
}

/// An open object.
#[derive(Clone)]
pub enum Opened {
    /// A device, and whether it may be written.
    Device(Arc<dyn FarDevice>, bool),
    /// A tree.
    Tree(Arc<dyn FarTree>),
    /// A dump on its way in.
    Stream(Arc<dyn FarStream>),
}

/// What is waiting and what is being done.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Head, Request)>,
    ids: HashSet<u64>,
    bytes: usize,
    over: bool,
}

struct Far<'s> {
    service: &'s dyn Service,
    sender: Sender,
    queue: Mutex<Queue>,
    /// Something is waiting, or it is over.
    more: Condvar,
    /// Something was answered.
    room: Condvar,
    objects: Mutex<HashMap<u16, Opened>>,
}

/// Serves one near end until it ends the connection. `Ok` only if it did so between two frames. Both halves have
/// the deadline of [`limits::REMOTE_SILENCE_MS`]. What was begun is finished before it returns, and everything
/// that was open is closed.
pub fn serve(mut input: impl Read, output: Box<dyn Write + Send>, service: &dyn Service) -> Result<()> {
    let mut output = output;
    let agreed = greet(&mut input, &mut output)?;
    let sender = Sender::new(output, agreed.zstd, HELLO_LEN as u64);
    let far = Far {
        service,
        sender,
        queue: Mutex::default(),
        more: Condvar::new(),
        room: Condvar::new(),
        objects: Mutex::default(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| far.sender.keep_alive());
        for _ in 0..THREADS {
            scope.spawn(|| far.work());
        }
        let end = far.read(&mut input, agreed);
        lock(&far.queue).over = true;
        far.more.notify_all();
        far.sender.end();
        // Whoever waits for more of a dump learns that there is none.
        lock(&far.objects).clear();
        end
    })
}

/// The hellos, both at once.
fn greet(input: &mut impl Read, output: &mut dyn Write) -> Result<Agreed> {
    let ours = Hello::ours(true);
    output.write_all(&ours.encode()).and_then(|()| output.flush()).map_err(|e| wire::lost(&e))?;
    let mut bytes = [0; HELLO_LEN];
    input.read_exact(&mut bytes).map_err(|e| wire::lost(&e))?;
    ours.agree(&Hello::decode(&bytes)?)
}

impl Far<'_> {
    /// Reads requests until the end.
    fn read(&self, input: &mut impl Read, agreed: Agreed) -> Result<()> {
        while let Some(frame) = wire::read_frame(input, agreed.zstd)? {
            if frame.head.kind == message::PING.kind {
                continue;
            }
            let head = frame.head;
            let request = match Request::decode(&head, frame.payload) {
                Ok(request) => request,
                Err(error) => {
                    self.answer(&head, Reply::Error(error.clone()))?;
                    return Err(error);
                }
            };
            if !self.admit(head.id, &request)? {
                let error = broken(format_args!("the id {} twice", head.id));
                self.answer(&head, Reply::Error(error.clone()))?;
                return Err(error);
            }
            if let Request::Push(bytes) = request {
                // Here, because they must not overtake each other; the near end waits as long as this does.
                let weight = bytes.len();
                let done = self.stream(head.object).and_then(|stream| stream.push(bytes));
                self.finish(&head, weight, done.map_or_else(Reply::Error, |()| Reply::Done))?;
            } else {
                lock(&self.queue).waiting.push_back((head, request));
                self.more.notify_one();
            }
        }
        // It has gone away on purpose; what it still asked for is done all the same.
        Ok(())
    }

    /// Waits for room. False if this id is in flight already.
    fn admit(&self, id: u64, request: &Request) -> Result<bool> {
        let mut queue = lock(&self.queue);
        while queue.ids.len() >= limits::REMOTE_REQUESTS
            || queue.bytes + request.weight() > limits::REMOTE_BYTES
        {
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.over {
            return Err(broken("it does not take its answers"));
        }
        queue.bytes += request.weight();
        Ok(queue.ids.insert(id))
    }

    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let (head, request) = loop {
                if let Some(next) = queue.waiting.pop_front() {
                    break next;
                }
                if queue.over {
                    return;
                }
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            let weight = request.weight();
            let reply = self.perform(&head, request).unwrap_or_else(Reply::Error);
            if self.finish(&head, weight, reply).is_err() {
                // Nobody takes answers any more: whoever reads is told, and the rest is still done.
                lock(&self.queue).over = true;
            }
        }
    }

    /// An answer, and room for the next request.
    fn finish(&self, head: &Head, weight: usize, reply: Reply) -> Result<()> {
        // Before the answer: with it the id may be used again.
        {
            let mut queue = lock(&self.queue);
            queue.ids.remove(&head.id);
            queue.bytes -= weight;
        }
        let done = self.answer(head, reply);
        self.room.notify_all();
        done
    }

    fn answer(&self, head: &Head, reply: Reply) -> Result<()> {
        let (mut reply, mut payload) = reply.encode(head.id);
        if payload.len() > limits::REMOTE_PAYLOAD as usize {
            let text = format!("an answer of {} bytes does not fit in a frame", payload.len());
            (reply, payload) = Reply::Error(Error::new(Class::Internal, text)).encode(head.id);
        }
        self.sender.send(&reply, &payload)
    }

    fn object(&self, number: u16) -> Result<Opened> {
        let found = lock(&self.objects).get(&number).cloned();
        found.ok_or_else(|| broken(format_args!("object {number}, which is not open")))
    }

    fn stream(&self, number: u16) -> Result<Arc<dyn FarStream>> {
        match self.object(number)? {
            Opened::Stream(stream) => Ok(stream),
            _ => Err(broken(format_args!("object {number}, which takes no dump"))),
        }
    }

    /// A device, if the range is in it.
    fn device(&self, number: u16, range: ByteRange, write: bool) -> Result<Arc<dyn FarDevice>> {
        match self.object(number)? {
            Opened::Device(_, false) if write => {
                Err(Error::new(Class::Refused, format!("object {number}: writing it: it was opened to read")))
            }
            Opened::Device(device, _) if range.end() <= device.size() => Ok(device),
            Opened::Device(device, _) => {
                let size = device.size();
                Err(Error::new(Class::Usage, format!("object {number}: {range} of {size} bytes")))
            }
            _ => Err(broken(format_args!("object {number}, which is no device"))),
        }
    }

    fn keep(&self, opened: Opened) -> Result<u16> {
        let mut objects = lock(&self.objects);
        let number = (1..=limits::REMOTE_OBJECTS as u16).find(|number| !objects.contains_key(number));
        let number = number.ok_or_else(|| {
            Error::new(Class::Busy, format!("opening it: {} are open already", limits::REMOTE_OBJECTS))
        })?;
        objects.insert(number, opened);
        Ok(number)
    }

    fn perform(&self, head: &Head, request: Request) -> Result<Reply> {
        let number = head.object;
        let of = |range, write| self.device(number, range, write);
        Ok(match request {
            Request::Open { path, write, mounted, live } => {
                let how = How { write, mounted, live };
                let device: Arc<dyn FarDevice> = self.service.device(&path, how)?.into();
                let facts = device.facts();
                Reply::Device { object: self.keep(Opened::Device(device, write))?, facts }
            }
            Request::Close => match lock(&self.objects).remove(&number) {
                Some(_) => Reply::Done,
                None => return Err(broken(format_args!("object {number}, which is not open"))),
            },
            Request::Read(range) => {
                let mut data = vec![0; range.len as usize];
                of(range, false)?.read(range.offset, &mut data)?;
                if data.iter().all(|byte| *byte == 0) { Reply::Zeroes } else { Reply::Data(data) }
            }
            Request::Write { offset, data } => {
                of(ByteRange { offset, len: data.len() as u64 }, true)?.write(offset, &data)?;
                Reply::Done
            }
            Request::Zero { range, holes, fast } => {
                of(range, true)?.zero(range, holes, fast)?;
                Reply::Done
            }
            Request::Flush => {
                of(ByteRange::default(), true)?.flush()?;
                Reply::Done
            }
            Request::Extents(range) => Reply::Extents(of(range, false)?.extents(range, message::EXTENTS)?),
            Request::Digests { range, step } => Reply::Digests(of(range, false)?.digests(range, step)?),
            Request::Apply(call) => {
                let stream = self.service.apply(&call)?.into();
                self.opened(Opened::Stream(stream), 0, [0; 32])?
            }
            Request::Push(_) => return Err(broken("a dump out of order")),
            Request::Finish => {
                let report = self.stream(number)?.finish();
                lock(&self.objects).remove(&number);
                Reply::Bytes(report?)
            }
            Request::Scan(call) => {
                let tree: Arc<dyn FarTree> = self.service.scan(&call)?.into();
                let (size, digest) = (tree.objects(), tree.digest());
                self.opened(Opened::Tree(tree), size, digest)?
            }
            Request::Node { id, from } => match self.object(number)? {
                Opened::Tree(tree) => Reply::Bytes(tree.node(id, from)?),
                _ => return Err(broken(format_args!("object {number}, which is no tree"))),
            },
            Request::Round(call) => Reply::Bytes(self.service.round(&call)?),
        })
    }

    fn opened(&self, opened: Opened, count: u64, digest: Digest) -> Result<Reply> {
        Ok(Reply::Opened { object: self.keep(opened)?, count, digest })
    }
}
