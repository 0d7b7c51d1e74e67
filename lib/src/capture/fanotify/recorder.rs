//! The recorder: events in, records out. One thread, one queue, no clock in its decisions.

use super::big::{Big, BigOptions, Taken};
use super::events::{Event, Queue};
use crate::base::{Class, Error, Result};
use crate::capture::live::{
    Answer, Log, METADATA, RangesAnswer, SOCKET, WRITTEN, claim, identity, listen, number_of, question,
    reply, rotation,
};
use crate::capture::store;
use crate::capture::tree::Root;
use crate::fslog::record::{Identity, Lost};
use crate::fslog::{Kind, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A recorder looks so often whether it is to end.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

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

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
