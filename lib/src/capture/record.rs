//! The recorder: events in, records out. One thread, one queue, no clock in its decisions.

use super::big::{Big, BigOptions, Taken};
use super::fanotify::{Event, Queue};
use super::live::{
    Answer, LOCK, RangesAnswer, SOCKET, identity, live_path, question, reply, rotation, socket_path,
};
use super::root::Root;
use super::store;
use crate::base::{Class, Error, Id, Result, limits};
use crate::device::lock;
use crate::fslog::meta::differs;
use crate::fslog::record::{Identity, Lost};
use crate::fslog::{Kind, ObjectId, Record, Round, State, logfile};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A recorder looks so often whether it is to end.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Bit of [`Record::All`]: a backend that sees no ranges saw a write.
pub const WRITTEN: u32 = 1;
/// The file is, or was, mapped so that it may be stored into.
pub const MAPPED: u32 = 2;
/// Its ranges are not known: by descriptors of before it was marked, or because nobody notes them any more.
pub const BLIND: u32 = 4;

/// Mask of [`Record::Meta`]: a backend does not say which metadata.
pub const METADATA: u32 = differs::MODE | differs::OWNER | differs::TIMES | differs::XATTRS;

/// The number of an object in a live log: the beginning of the digest of its handle. Two objects with one number
/// are both looked at.
pub fn number_of(handle: &[u8]) -> ObjectId {
    let digest = blake3::hash(handle);
    ObjectId(crate::device::fields::get_u64(digest.as_bytes(), 0))
}

/// The records of an event. With `noted` the ranges of a write are noted elsewhere.
pub fn records_of(event: &Event, noted: bool) -> Vec<Record> {
    if event.is_overflow() {
        return vec![Record::Lost { why: Lost::Overflow }];
    }
    let mut records = Vec::new();
    let mut ino = |handle: &[u8], kind, hint: &[u8]| {
        let id = number_of(handle);
        let identity = Identity { kind, handle: handle.to_vec(), hint: hint.to_vec() };
        records.push(Record::Ino { id, identity });
        id
    };
    let (mut named, mut touched) = (Vec::new(), Vec::new());
    for (dir, name) in &event.names {
        let dir = ino(dir, Kind::Dir, b"");
        if &name[..] == b"." { touched.push(dir) } else { named.push((dir, name.to_vec())) }
    }
    if let Some(target) = &event.target {
        let kind = if event.is_dir() { Kind::Dir } else { Kind::File };
        let hint = event.names.last().map_or(&b""[..], |(_, name)| name);
        touched.push(ino(target, kind, if hint == b"." { b"" } else { hint }));
    }
    for id in touched {
        records.push(if event.is_write() && !noted {
            Record::All { id, why: WRITTEN }
        } else {
            Record::Meta { id, mask: METADATA }
        });
    }
    records.extend(named.into_iter().map(|(dir, name)| Record::Name { dir, name }));
    records
}

/// The log that a recorder writes: what is in it already is not written again.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    /// Since which round.
    pub(super) round: u64,
    generation: u64,
    bytes: u64,
    known: HashSet<[u8; 32]>,
    /// Why it is not complete.
    pub(super) lost: Option<Lost>,
}

impl Log {
    /// Goes on with the log of a round, or begins it. `gap`: what was before is not known.
    pub(super) fn open(dir: &Path, round: u64, gap: bool) -> Result<Self> {
        let path = live_path(dir, round);
        let mut generation = 1;
        if path.exists() {
            match logfile::read(&path) {
                Ok(log) if log.torn == 0 => generation = log.generations + 1,
                // What is not whole is of no use to anybody; the gap says that it is not there.
                _ => std::fs::remove_file(&path).map_err(|e| Error::io(path.display(), "removing it", e))?,
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(path.display(), "opening it", e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path.display(), "opening it", e))?.len();
        let mut log = Self { file, path, round, generation, bytes, known: HashSet::new(), lost: None };
        if bytes == 0 {
            let base = Round { number: round, ..Round::default() };
            log.write(&logfile::header(Id::NONE, base).encode())?;
        }
        log.write(&logfile::encode(&[Record::Open { generation }]))?;
        if gap {
            log.add(&[Record::Lost { why: Lost::Gap }])?;
        }
        Ok(log)
    }

    /// Goes on with the log of a recorder that died while everybody who changes something waits for an answer: nothing
    /// is missing. What it was just writing is cut off, and will be written again. Also gives what is in it.
    pub(super) fn resume(dir: &Path, round: u64) -> Result<(Self, State)> {
        let path = live_path(dir, round);
        let fail = |e| Error::io(path.display(), "going on with it", e);
        let mut log = logfile::read(&path)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len() - log.torn;
        if log.torn > 0 {
            file.set_len(bytes).map_err(fail)?;
            log.state.lost.remove(&Lost::Torn);
        }
        let generation = log.open.unwrap_or(log.generations + 1);
        let lost = log.state.lost.first().copied();
        let mut resumed = Self { file, path, round, generation, bytes, known: HashSet::new(), lost };
        if log.open.is_none() {
            resumed.write(&logfile::encode(&[Record::Open { generation }]))?;
        }
        Ok((resumed, log.state))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| Error::io(self.path.display(), "writing it", e))
    }

    /// Writes those records that are new, all at once.
    pub(super) fn add(&mut self, records: &[Record]) -> Result<()> {
        let mut new = Vec::new();
        for record in records {
            if let Record::Lost { why } = record {
                self.lost.get_or_insert(*why);
            }
            let bytes = logfile::encode(std::slice::from_ref(record));
            if self.known.insert(*blake3::hash(&bytes).as_bytes()) {
                new.extend(bytes);
            }
        }
        if self.bytes + new.len() as u64 > limits::LIVE_LOG {
            if self.lost.replace(Lost::Overflow) != Some(Lost::Overflow) {
                self.write(&logfile::encode(&[Record::Lost { why: Lost::Overflow }]))?;
            }
            return Ok(());
        }
        if new.is_empty() { Ok(()) } else { self.write(&new) }
    }

    /// Everything up to here is in it.
    pub(super) fn close(&mut self) -> Result<()> {
        let generation = self.generation;
        self.write(&logfile::encode(&[Record::Barrier { generation }, Record::Close { generation }]))
    }
}

const BIG_GONE: &str = "byte ranges: the noting process is gone";

/// Starts to see ranges, or finds out why not.
fn start(tree: &Root, options: Option<BigOptions>) -> Result<(Option<Big>, Option<RangesAnswer>)> {
    let Some(options) = options else { return Ok((None, None)) };
    let mut answer = RangesAnswer { from: options.least, ..RangesAnswer::default() };
    match Big::start(tree, options)? {
        Ok(mut big) => {
            // What is not marked now is once it was written.
            let marked = big.mark_tree(tree);
            if big.is_gone() {
                marked?;
            }
            Ok((Some(big), Some(answer)))
        }
        Err(why) => {
            answer.off = Some(why);
            Ok((None, Some(answer)))
        }
    }
}

/// Whether the ranges of an event are noted. Files that were closed, and are not noted, are to be looked at.
fn note(big: &mut Big, event: &Event, closed: &mut BTreeSet<Box<[u8]>>) -> bool {
    let Some(target) = event.target.as_ref().filter(|_| !event.is_dir()) else { return false };
    let noted = big.is_noted(target, event.pid, event.is_modify());
    if !noted
        && event.is_write()
        && let Some(raw) = &event.raw
    {
        big.wrote(target, raw);
        if event.is_close() {
            closed.insert(target.clone());
        }
    }
    noted
}

/// A recorder that runs.
pub struct Recorder {
    dir: PathBuf,
    queue: Queue,
    log: Log,
    listener: UnixListener,
    root: String,
    events: u64,
    pid: i32,
    big: Option<Big>,
    ranges: Option<RangesAnswer>,
    /// What a person is to be told.
    news: Option<String>,
    /// Held as long as it lives.
    _lock: File,
    _root: Root,
}

impl Recorder {
    /// Begins to record the file system that a tree is on. Errors: class `Busy` if another one records into `dir`.
    pub fn open(at: &Path, dir: &Path, ranges: Option<BigOptions>) -> Result<Self> {
        let (tree, held) = claim(at, dir)?;
        let queue = Queue::open(&tree)?;
        let root = identity(&tree)?;
        let round = store::rounds(dir)?.last().copied().unwrap_or(0);
        let log = Log::open(dir, round, true)?;
        let listener = listen(dir)?;
        let (big, ranges) = start(&tree, ranges)?;
        Ok(Self {
            dir: dir.to_owned(),
            big,
            ranges,
            news: None,
            queue,
            log,
            listener,
            root,
            events: 0,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            _lock: held,
            _root: tree,
        })
    }

    /// Takes everything that is in the queue now.
    fn drain(&mut self) -> Result<()> {
        let mut quiet = Vec::new();
        loop {
            let closed = self.empty()?;
            // What these had was in the queue when they were found quiet, and is in the log by now.
            if let Some(big) = &mut self.big {
                big.believe(&quiet);
            }
            if closed.is_empty() {
                return Ok(());
            }
            quiet = self.with_big(|big| big.look(Some(&closed)))?.unwrap_or_default();
        }
    }

    /// Writes what is in the queue into the log, and gives which files were closed.
    fn empty(&mut self) -> Result<BTreeSet<Box<[u8]>>> {
        let mut closed = BTreeSet::new();
        loop {
            let events = match self.queue.read() {
                Ok(events) => events,
                Err(error) if error.class == Class::Internal => {
                    self.log.add(&[Record::Lost { why: Lost::Overflow }])?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            if events.is_empty() {
                return Ok(closed);
            }
            self.events += events.len() as u64;
            let mut records = Vec::new();
            // What the recorder itself writes, on the same file system perhaps, is no change of the tree.
            for event in events.iter().filter(|event| event.pid != self.pid) {
                let noted = self.big.as_mut().is_some_and(|big| note(big, event, &mut closed));
                records.extend(records_of(event, noted));
            }
            self.log.add(&records)?;
        }
    }

    /// Does something with the ranges. If that fails there are none any more, and the log says what is not known.
    fn with_big<T>(&mut self, work: impl FnOnce(&mut Big) -> Result<T>) -> Result<Option<T>> {
        let Some(mut big) = self.big.take() else { return Ok(None) };
        let error = match work(&mut big) {
            Ok(done) => {
                self.big = Some(big);
                return Ok(Some(done));
            }
            Err(error) => error,
        };
        let why = if big.is_gone() { BIG_GONE.to_owned() } else { error.message };
        self.log.add(&big.give_up())?;
        if let Some(ranges) = &mut self.ranges {
            ranges.off = Some(why.clone());
        }
        self.news = Some(format!("{why}: big files are read whole from now on"));
        Ok(None)
    }

    /// Ends the generation, and begins that of a round.
    fn rotate(&mut self, number: u64, late: bool) -> Result<()> {
        let quiet = self.with_big(|big| big.look(None))?.unwrap_or_default();
        self.empty()?;
        if let Some(big) = &mut self.big {
            big.believe(&quiet);
        }
        let taken = self.take()?;
        self.log.close()?;
        self.log = Log::open(&self.dir, number, late)?;
        if let Some(taken) = taken {
            self.with_big(|big| big.settle(&taken))?;
        }
        Ok(())
    }

    /// Writes what was noted in this generation into the log.
    fn take(&mut self) -> Result<Option<Taken>> {
        let Some(mut taken) = self.with_big(Big::take)? else { return Ok(None) };
        self.empty()?;
        if let Some(records) = self.with_big(|big| big.records(&mut taken))? {
            self.log.add(&records)?;
        }
        Ok(Some(taken))
    }

    fn ranges(&self) -> Option<RangesAnswer> {
        let mut ranges = self.ranges.clone();
        if let (Some(ranges), Some(big)) = (&mut ranges, &self.big) {
            (ranges.files, ranges.believed) = big.counts();
            ranges.process = Some(big.process());
        }
        ranges
    }

    /// What it says of itself.
    pub fn answer(&self) -> Answer {
        Answer {
            schema: "cfor-recorder/1".to_owned(),
            backend: "fanotify".to_owned(),
            round: self.log.round,
            root: self.root.clone(),
            events: self.events,
            pid: self.pid.cast_unsigned(),
            lost: self.log.lost.map(|why| why.to_string()),
            ranges: self.ranges(),
        }
    }

    /// Answers one question. Who does not ask what can be answered gets nothing.
    fn serve(&mut self, stream: &UnixStream) -> Result<()> {
        let Some(line) = question(stream) else { return Ok(()) };
        self.drain()?;
        if let Some((number, late)) = rotation(&line) {
            if number > self.log.round {
                self.rotate(number, late)?;
            }
        } else if line.trim() != "status" {
            return Ok(());
        }
        reply(stream, &self.answer());
        Ok(())
    }

    /// Notices that the noting process is gone.
    fn check_big(&mut self) -> Result<()> {
        let gone = |big: &mut Big| if big.is_gone() { Err(Error::new(Class::Io, BIG_GONE)) } else { Ok(()) };
        self.with_big(gone).map(drop)
    }

    /// Records until `end` says so; then what is in the queue is written, and the generation closed. `tell` is for
    /// people.
    pub fn run(mut self, mut end: impl FnMut() -> bool, mut tell: impl FnMut(&str)) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.queue, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut fds, Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("fanotify", "waiting for events", e)),
            }
            let asked = fds[1].revents().contains(PollFlags::IN);
            self.drain()?;
            if asked && let Ok((stream, _)) = self.listener.accept() {
                self.serve(&stream)?;
            }
            self.check_big()?;
            if let Some(news) = self.news.take() {
                tell(&news);
            }
            if end() {
                self.drain()?;
                self.take()?;
                return self.log.close();
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A socket that nobody listens on says the same.
        let _ = std::fs::remove_file(self.dir.join(SOCKET));
    }
}

/// Opens the tree, and takes the directory of the source for one recorder. Errors: class `Busy` if it has one.
pub(super) fn claim(at: &Path, dir: &Path) -> Result<(Root, File)> {
    super::apply::check_apart(at, dir)?;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io(dir.display(), "creating it", e));
        }
        _ => {}
    }
    let tree = Root::open(at)?;
    let path = dir.join(LOCK);
    let held = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io(path.display(), "opening it", e))?;
    lock::lock(&held, &path, true)?;
    Ok((tree, held))
}

pub(super) fn listen(dir: &Path) -> Result<UnixListener> {
    let (_open, short) = socket_path(dir)?;
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(path.display(), "removing it", e)),
        _ => {}
    }
    UnixListener::bind(short).map_err(|e| Error::io(path.display(), "listening on it", e))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
