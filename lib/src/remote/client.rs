//! The near end: sends requests, several in flight, and gives each its answer or the reason why there is none.

use super::message::{self, Call, DeviceFacts, Digest, Reply, Request};
use super::server::How;
use super::talk::{Sender, lock};
use super::wire::{self, Agreed, HELLO_LEN, Head, Hello, broken};
use crate::base::{ByteRange, Class, Error, Result, limits};
use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for the far end to go when it is not needed any more, in milliseconds.
const GOODBYE_MS: u64 = 5_000;

/// The channel of bytes to a far end. Both halves have the deadline of [`limits::REMOTE_SILENCE_MS`].
pub struct Pipe {
    /// What the far end is called in messages.
    pub name: String,
    /// Its bytes.
    pub reader: Box<dyn Read + Send>,
    /// Bytes for it.
    pub writer: Box<dyn Write + Send>,
    /// What the transport knows about why it ended: `None` if it ended as it should, or still goes on.
    pub why: Box<dyn Fn() -> Option<Error> + Send + Sync>,
}

/// A connection to a far end. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    pinger: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    agreed: Agreed,
    sender: Sender,
    received: AtomicU64,
    pending: Mutex<Pending>,
    /// Something was answered, or the connection died.
    answered: Condvar,
    why: Box<dyn Fn() -> Option<Error> + Send + Sync>,
}

#[derive(Default)]
struct Pending {
    /// Each request that was sent and whose answer was not taken, and what it weighs.
    slots: HashMap<u64, (usize, Slot)>,
    bytes: usize,
    next: u64,
    dead: Option<Error>,
}

enum Slot {
    InFlight,
    /// In flight, and nobody waits for it any more.
    Dropped,
    Answered(Reply),
}

impl Pending {
    /// What becomes of an answer. False if nobody asked.
    fn answer(&mut self, id: u64, reply: Reply) -> bool {
        match self.slots.get_mut(&id) {
            Some((_, slot @ Slot::InFlight)) => *slot = Slot::Answered(reply),
            Some((_, Slot::Dropped)) => self.forget(id),
            _ => return false,
        }
        true
    }

    fn forget(&mut self, id: u64) {
        if let Some((weight, _)) = self.slots.remove(&id) {
            self.bytes -= weight;
        }
    }

    /// The answer, if it is there.
    fn take(&mut self, id: u64) -> Option<Reply> {
        if !matches!(self.slots.get(&id), Some((_, Slot::Answered(_)))) {
            return None;
        }
        let (weight, slot) = self.slots.remove(&id)?;
        self.bytes -= weight;
        match slot {
            Slot::Answered(reply) => Some(reply),
            _ => None,
        }
    }
}

/// A request in flight. Dropped, its answer is thrown away when it comes.
pub struct Ticket {
    shared: Arc<Shared>,
    id: u64,
    deadline: Instant,
}

impl Client {
    /// Exchanges hellos. Class `Connect`, or `Timeout`, if there is nobody who speaks this; what was said instead is
    /// told, since it is mostly the greeting of a login shell or the reason why there is no mirror-sync.
    pub fn start(pipe: Pipe, zstd: bool) -> Result<Self> {
        let Pipe { name, mut reader, mut writer, why } = pipe;
        let named = |error: Error| name_it(&name, error);
        let ours = Hello::ours(zstd);
        // A far side that ended at once has said why; that nobody takes this is only what follows.
        let greeted = writer.write_all(&ours.encode()).and_then(|()| writer.flush());
        let heard = hear_hello(&mut reader);
        let theirs = match heard {
            Ok(theirs) => theirs,
            Err(error) => return Err(why().unwrap_or_else(|| named(error))),
        };
        greeted.map_err(|e| named(wire::lost(&e)))?;
        let agreed = ours.agree(&theirs).map_err(named)?;
        let shared = Arc::new(Shared {
            name,
            agreed,
            sender: Sender::new(writer, agreed.zstd, HELLO_LEN as u64),
            received: AtomicU64::new(HELLO_LEN as u64),
            pending: Mutex::default(),
            answered: Condvar::new(),
            why,
        });
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        let reader = std::thread::spawn(move || one.read(&mut *reader));
        let pinger = std::thread::spawn(move || other.sender.keep_alive());
        Ok(Self(Arc::new(Inner { shared, reader: Some(reader), pinger: Some(pinger) })))
    }

    /// What the far end is called in messages.
    pub fn name(&self) -> &str {
        &self.0.shared.name
    }

    /// Bytes sent so far, before the transport encrypts them.
    pub fn sent(&self) -> u64 {
        self.0.shared.sender.sent.load(Ordering::Relaxed)
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.0.shared.received.load(Ordering::Relaxed)
    }

    /// Most bytes of one request.
    pub fn payload(&self) -> u64 {
        self.0.shared.agreed.payload.into()
    }

    /// Sends a request. Waits for room where too many are in flight.
    pub fn submit(&self, object: u16, request: Request) -> Result<Ticket> {
        self.0.shared.submit(object, request)
    }

    /// Writes, from where the bytes are.
    pub fn write(&self, object: u16, offset: u64, data: &[u8]) -> Result<()> {
        let (head, patience) = (message::write_head(object, offset, data.len()), limits::REMOTE_ANSWER_MS);
        self.0.shared.send(head, data, (data.len(), patience))?.done()
    }

    /// Why the connection is of no use any more.
    pub fn dead(&self) -> Option<Error> {
        lock(&self.0.shared.pending).dead.clone()
    }

    /// Sends a request and waits for its answer. An answer that is an error is one here.
    pub fn ask(&self, object: u16, request: Request) -> Result<Reply> {
        self.submit(object, request)?.wait()
    }

    /// Opens a device: its number, and what is true of it.
    pub fn open(&self, path: &[u8], how: How) -> Result<(u16, DeviceFacts)> {
        let How { write, mounted, live } = how;
        match self.ask(0, Request::Open { path: path.to_owned(), write, mounted, live })? {
            Reply::Device { object, facts } => Ok((object, facts)),
            _ => Err(self.odd("opening")),
        }
    }

    /// Reads a tree: its number, its objects, and its digest.
    pub fn scan(&self, call: Call) -> Result<(u16, u64, Digest)> {
        match self.ask(0, Request::Scan(call))? {
            Reply::Opened { object, count, digest } => Ok((object, count, digest)),
            _ => Err(self.odd("reading a tree")),
        }
    }

    /// Begins to send a dump: its number.
    pub fn apply(&self, call: Call) -> Result<u16> {
        match self.ask(0, Request::Apply(call))? {
            Reply::Opened { object, .. } => Ok(object),
            _ => Err(self.odd("applying a dump")),
        }
    }

    /// Fills `buf`.
    pub fn read(&self, object: u16, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = ByteRange { offset, len: buf.len() as u64 };
        self.submit(object, Request::Read(range))?.fill(buf)
    }

    /// Data and holes from the start of a range; at least one byte of it.
    pub fn extents(&self, object: u16, range: ByteRange) -> Result<Vec<(u64, bool)>> {
        let Reply::Extents(list) = self.ask(object, Request::Extents(range))? else {
            return Err(self.odd("looking for holes"));
        };
        let sum = list.iter().try_fold(0u64, |sum, (len, _)| sum.checked_add(*len).filter(|_| *len > 0));
        match sum {
            Some(sum) if sum > 0 && sum <= range.len => Ok(list),
            _ => Err(self.odd("looking for holes")),
        }
    }

    /// A request for digests; [`Ticket::digests`] takes its answer.
    pub fn ask_digests(&self, object: u16, range: ByteRange, step: u64) -> Result<Ticket> {
        self.submit(object, Request::Digests { range, step })
    }

    /// A request whose answer is that it was done.
    pub fn done(&self, object: u16, request: Request) -> Result<()> {
        self.submit(object, request)?.done()
    }

    /// A request whose answer is bytes.
    pub fn bytes(&self, object: u16, request: Request) -> Result<Vec<u8>> {
        match self.ask(object, request)? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => Err(self.odd("asking it")),
        }
    }

    fn odd(&self, doing: &str) -> Error {
        self.0.shared.odd(doing)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.name()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.sender.close();
        // The far end finishes what was begun and goes. One that does not is left alone: what it holds is the
        // transport's, which ends with this process.
        let patience = Duration::from_millis(GOODBYE_MS);
        let (pending, _) = self
            .shared
            .answered
            .wait_timeout_while(lock(&self.shared.pending), patience, |pending| pending.dead.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let gone = pending.dead.is_some();
        drop(pending);
        for thread in [self.reader.take(), self.pinger.take()].into_iter().flatten().filter(|_| gone) {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
    }
}

/// What is called `the other end` in a message gets its name.
fn name_it(name: &str, error: Error) -> Error {
    let message = match error.message.strip_prefix("the other end: ") {
        Some(rest) => format!("{name}: {rest}"),
        None => format!("{name}: its far end says: {}", error.message),
    };
    Error { message, ..error }
}

/// Waits for a hello. What comes before it is told: the first line that holds anything.
fn hear_hello(reader: &mut dyn Read) -> Result<Hello> {
    let mut bytes = [0; HELLO_LEN];
    let mut got = 0;
    while got < HELLO_LEN {
        match reader.read(&mut bytes[got..]) {
            Ok(0) if got == 0 => return Err(broken("it ended before it said anything")),
            Ok(0) => break,
            Ok(len) => got += len,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(wire::lost(&e)),
        }
        if bytes[..got.min(8)] != wire::MAGIC[..got.min(8)] {
            break;
        }
    }
    if got == HELLO_LEN && bytes[..8] == wire::MAGIC {
        return Hello::decode(&bytes);
    }
    let mut chatter = bytes[..got].to_vec();
    while chatter.len() < limits::REMOTE_CHATTER && !chatter.trim_ascii_start().contains(&b'\n') {
        match reader.read(&mut bytes) {
            Ok(len) if len > 0 => chatter.extend_from_slice(&bytes[..len]),
            _ => break,
        }
    }
    let line = chatter.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii_end()).escape_debug().to_string();
    Err(broken(format_args!("'{line}' where a hello was expected")))
}

impl Shared {
    fn odd(&self, doing: &str) -> Error {
        let error = broken(format_args!("an answer that fits no request, {doing}"));
        name_it(&self.name, error)
    }

    /// Takes answers until the end.
    fn read(&self, reader: &mut dyn Read) {
        let mut reader = Counted { reader, bytes: &self.received };
        let error = loop {
            let frame = match wire::read_frame(&mut reader, self.agreed.zstd) {
                Ok(Some(frame)) => frame,
                Ok(None) => break broken("it ended the connection"),
                Err(error) => break error,
            };
            if frame.head.kind == message::PING.kind {
                continue;
            }
            let reply = match Reply::decode(&frame.head, frame.payload) {
                Ok(reply) => reply,
                Err(error) => break error,
            };
            let mut pending = lock(&self.pending);
            // What was answered is not in flight any more, so a second answer is to nothing, too.
            if !pending.answer(frame.head.id, reply) {
                break broken(format_args!("an answer to {}, which nobody asked", frame.head.id));
            }
            drop(pending);
            self.answered.notify_all();
        };
        self.sender.end();
        let error = (self.why)().unwrap_or_else(|| name_it(&self.name, error));
        lock(&self.pending).dead.get_or_insert(error);
        self.answered.notify_all();
    }

    fn submit(self: &Arc<Self>, object: u16, request: Request) -> Result<Ticket> {
        let limits = (request.weight(), request.patience_ms());
        let (head, payload) = request.encode(0, object);
        self.send(head, &payload, limits)
    }

    /// Sends a request that holds so many bytes in memory and may take so many milliseconds.
    fn send(self: &Arc<Self>, mut head: Head, payload: &[u8], (weight, ms): (usize, u64)) -> Result<Ticket> {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let mut pending = lock(&self.pending);
        while pending.dead.is_none()
            && (pending.slots.len() >= limits::REMOTE_REQUESTS - 1
                || !pending.slots.is_empty() && pending.bytes + weight > limits::REMOTE_BYTES / 2)
        {
            pending = self.wait(pending, deadline)?;
        }
        if let Some(error) = &pending.dead {
            return Err(error.clone());
        }
        pending.next += 1;
        head.id = pending.next;
        pending.slots.insert(head.id, (weight, Slot::InFlight));
        pending.bytes += weight;
        drop(pending);
        let ticket = Ticket { shared: Arc::clone(self), id: head.id, deadline };
        match self.sender.send(&head, payload) {
            Ok(()) => Ok(ticket),
            // Why it ended is known to whoever reads, sooner or later.
            Err(error) => Err(self.died(name_it(&self.name, error))),
        }
    }

    /// The reason of a death that was noticed while sending.
    fn died(&self, otherwise: Error) -> Error {
        let patience = Duration::from_secs(2);
        let (pending, _) = self
            .answered
            .wait_timeout_while(lock(&self.pending), patience, |pending| pending.dead.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        pending.dead.clone().unwrap_or(otherwise)
    }

    fn wait<'p>(
        &self,
        pending: std::sync::MutexGuard<'p, Pending>,
        deadline: Instant,
    ) -> Result<std::sync::MutexGuard<'p, Pending>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("{}: waiting for an answer: none came in time", self.name);
            return Err(Error::new(Class::Timeout, text));
        }
        Ok(self.answered.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Ticket {
    /// Whether waiting would not take long: it was answered, or the connection died.
    pub fn is_ready(&self) -> bool {
        let pending = lock(&self.shared.pending);
        pending.dead.is_some() || matches!(pending.slots.get(&self.id), Some((_, Slot::Answered(_))))
    }

    /// Waits for the answer. An answer that is an error is one here; so is a connection that ends before, and one
    /// that takes too long.
    pub fn wait(self) -> Result<Reply> {
        let mut pending = lock(&self.shared.pending);
        loop {
            if let Some(answer) = pending.take(self.id) {
                drop(pending);
                self.shared.answered.notify_all();
                return match answer {
                    Reply::Error(error) => Err(name_it(&self.shared.name, error)),
                    answer => Ok(answer),
                };
            }
            if let Some(error) = &pending.dead {
                return Err(error.clone());
            }
            pending = self.shared.wait(pending, self.deadline)?;
        }
    }

    /// Waits for a request to have been done.
    pub fn done(self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        match self.wait()? {
            Reply::Done => Ok(()),
            _ => Err(shared.odd("waiting for it")),
        }
    }

    /// Waits for what was read.
    pub fn fill(self, buf: &mut [u8]) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        match self.wait()? {
            Reply::Data(data) if data.len() == buf.len() => buf.copy_from_slice(&data),
            Reply::Zeroes => buf.fill(0),
            _ => return Err(shared.odd("reading")),
        }
        Ok(())
    }

    /// Waits for what was read, without copying it; `None` for nothing but zeroes.
    pub fn data(self, len: usize) -> Result<Option<Vec<u8>>> {
        let shared = Arc::clone(&self.shared);
        match self.wait()? {
            Reply::Data(data) if data.len() == len => Ok(Some(data)),
            Reply::Zeroes => Ok(None),
            _ => Err(shared.odd("reading")),
        }
    }

    /// Waits for so many digests.
    pub fn digests(self, count: u64) -> Result<Vec<Digest>> {
        let shared = Arc::clone(&self.shared);
        match self.wait()? {
            Reply::Digests(list) if list.len() as u64 == count => Ok(list),
            _ => Err(shared.odd("asking for digests")),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = lock(&self.shared.pending);
        match pending.slots.get_mut(&self.id) {
            // It keeps its place until it is answered: the far end works on it.
            Some((_, slot @ Slot::InFlight)) => *slot = Slot::Dropped,
            _ => pending.forget(self.id),
        }
    }
}

/// Counts what is read.
struct Counted<'r> {
    reader: &'r mut dyn Read,
    bytes: &'r AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}
