//! The recorder of one command: system calls in, records out. Each call that may change something waits until what it
//! may change is in the log; then it goes on as if nobody had looked, whatever came of looking.
//!
//! 1. A notification is received into memory that outlives this process ([`super::keeper`]).
//! 2. What its arguments lead to is looked at: names, and what has them now ([`super::tracee`]).
//! 3. If who waits still waits, the records are written to the log; otherwise what was read may be of another process.
//! 4. The call goes on. It comes *after* its records: a dump that asks in between looks at a tree that it has not yet
//!    changed. So a rotation writes again, into the next log, what every call that may still be under way said.
//! 5. The memory is free for the next one.
//!
//! Files that are open for writing when a round begins ([`super::opened`]) are in its log from its beginning on, because
//! nobody is told of writes.
//!
//! Recovery: a recorder that dies between 1 and 5 has a successor, which does 2 to 5 again: records join. Nothing passes
//! meanwhile, so the log goes on without a gap; what it was writing is cut off. Which calls were under way is forgotten
//! with it: what is in the log by then counts as under way until every thread was seen outside of such a call. A
//! rotation that it was at is asked for again, by a dump that scans.
//!
//! What cannot be followed is LOST, and goes on. If the log cannot be written, all calls go on unseen, and the
//! generation is never closed.

use super::calls::{is_told, touches};
use super::memory::Memory;
use super::notify::{Listener, Notification};
use super::opened::{Of, descendants, opened, threads};
use super::prepared::Prepared;
use super::seen::{Seen, look};
use super::tracee::Failed;
use crate::base::{Error, Result, limits};
use crate::capture::live::{Answer, Log, METADATA, SOCKET, WRITTEN, number_of, question, reply, rotation};
use crate::fslog::record::{Identity, Lost};
use crate::fslog::{Kind, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixStream;

/// Between questions and calls it looks so often whether anything is left to do.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The last call of a thread.
#[derive(Debug)]
struct Last {
    number: i32,
    records: Vec<Record>,
}

/// A recorder that runs.
pub struct Notified<'a> {
    place: &'a Prepared,
    listener: &'a Listener,
    memory: &'a mut Memory,
    log: Log,
    last: HashMap<u32, Last>,
    /// What a recorder before us logged, and the threads that may still be at it.
    before: (Vec<Record>, BTreeSet<u32>),
    calls: u64,
}

/// The records of what was seen.
fn records_of(seen: &Seen) -> Vec<Record> {
    let mut records = Vec::new();
    for object in &seen.objects {
        let id = number_of(&object.handle);
        let identity =
            Identity { kind: object.kind, handle: object.handle.to_vec(), hint: object.hint.clone() };
        records.push(Record::Ino { id, identity });
        records.push(if object.written {
            Record::All { id, why: WRITTEN }
        } else {
            Record::Meta { id, mask: METADATA }
        });
    }
    for (dir, name) in &seen.names {
        let id = number_of(dir);
        let identity = Identity { kind: Kind::Dir, handle: dir.to_vec(), hint: Vec::new() };
        records.push(Record::Ino { id, identity });
        records.push(Record::Name { dir: id, name: name.clone() });
    }
    records
}

/// Whether a thread may still be at a call that went on, by what `/proc/TID/syscall` says: it runs, or it is at a call of
/// that number. Nothing is said of one that ended.
fn is_at(text: std::io::Result<String>, number: impl Fn(i32) -> bool) -> bool {
    match text {
        Ok(text) => match text.split_ascii_whitespace().next().unwrap_or_default() {
            "running" => true,
            at => at.parse().map_or(true, number),
        },
        Err(e) => e.kind() != std::io::ErrorKind::NotFound && e.raw_os_error() != Some(libc::ESRCH),
    }
}

fn syscall_of(tid: u32) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/{tid}/syscall"))
}

impl<'a> Notified<'a> {
    /// Goes on where the log is: at its beginning, or where a recorder before this one died.
    pub fn new(
        place: &'a Prepared,
        listener: &'a Listener,
        memory: &'a mut Memory,
        first: bool,
    ) -> Result<Self> {
        let (log, state) = Log::resume(&place.dir, memory.round())?;
        let mut before = (Vec::new(), BTreeSet::new());
        if !first {
            let pids = descendants(place.keeper, std::process::id()).unwrap_or_default();
            before = (state.records(), pids.into_iter().flat_map(threads).collect());
        }
        Ok(Self { place, listener, memory, log, last: HashMap::new(), before, calls: 0 })
    }

    /// Steps 2 to 5 of the notification in memory.
    fn answer(&mut self) -> Result<()> {
        let call = *self.memory.pending();
        let found = if self.memory.attempt() > limits::CALL_ATTEMPTS {
            Err(Failed::Unseen)
        } else {
            look(&call, touches(call.arch, call.number), self.place.proc(), self.place.device)
        };
        if self.listener.is_valid(call.id) {
            let records = match found {
                Ok(seen) => records_of(&seen),
                Err(Failed::Nothing) => Vec::new(),
                Err(Failed::Unseen) => vec![Record::Lost { why: Lost::Unseen }],
            };
            self.calls += 1;
            self.log.add(&records)?;
            self.remember(&call, records);
            self.go_on(&call)?;
        }
        self.memory.clear();
        Ok(())
    }

    fn go_on(&self, call: &Notification) -> Result<()> {
        self.listener.go_on(call.id).map_err(|e| Error::io("seccomp", "letting a call go on", e))?;
        Ok(())
    }

    fn remember(&mut self, call: &Notification, records: Vec<Record>) {
        self.before.1.remove(&call.pid);
        self.last.insert(call.pid, Last { number: call.number, records });
        if self.last.len() > limits::CALLS_UNDER_WAY {
            self.forget();
        }
    }

    /// Forgets the calls that ended.
    fn forget(&mut self) {
        self.last.retain(|tid, last| is_at(syscall_of(*tid), |number| number == last.number));
    }

    /// What a log that begins now must have although nobody will be told of it: calls that are under way, and files that
    /// are open.
    fn carried(&mut self) -> Vec<Record> {
        self.forget();
        let mut records: Vec<_> = self.last.values().flat_map(|last| last.records.iter().cloned()).collect();
        self.before.1.retain(|tid| is_at(syscall_of(*tid), is_told));
        if self.before.1.is_empty() {
            self.before.0.clear();
        }
        records.extend(self.before.0.iter().filter(|record| !matches!(record, Record::Lost { .. })).cloned());
        let of = Of {
            keeper: self.place.keeper,
            recorder: std::process::id(),
            tree: self.place.tree.fd(),
            device: self.place.device,
        };
        // Without the keeper nobody knows whose children its children are.
        let keeper = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        match opened(of) {
            Ok(handles) if keeper == Some(self.place.keeper) => {
                for handle in handles {
                    let id = number_of(&handle);
                    let identity = Identity { kind: Kind::File, handle: handle.into_vec(), hint: Vec::new() };
                    records.extend([Record::Ino { id, identity }, Record::All { id, why: WRITTEN }]);
                }
            }
            _ => records.push(Record::Lost { why: Lost::Unseen }),
        }
        records
    }

    /// Begins the log of another round. The earlier one is closed last, so that a death in between leaves it open.
    fn rotate(&mut self, number: u64, late: bool) -> Result<()> {
        let mut next = Log::open(&self.place.dir, number, late)?;
        let carried = self.carried();
        next.add(&carried)?;
        self.log.close()?;
        self.memory.set_round(number);
        self.log = next;
        Ok(())
    }

    /// Answers one question. Who does not ask what can be answered gets nothing.
    fn serve(&mut self, stream: &UnixStream) -> Result<()> {
        let Some(line) = question(stream) else { return Ok(()) };
        if let Some((number, late)) = rotation(&line) {
            if number > self.log.round {
                self.rotate(number, late)?;
            }
        } else if line.trim() != "status" {
            return Ok(());
        }
        let answer = Answer {
            round: self.log.round,
            events: self.calls,
            pid: std::process::id(),
            lost: self.log.lost.map(|why| why.to_string()),
            ..self.place.answer()
        };
        reply(stream, &answer);
        Ok(())
    }

    /// Records until no process is left that could change anything; then the generation is closed.
    pub fn run(&mut self) -> Result<()> {
        if self.memory.is_pending() {
            self.answer()?;
        }
        loop {
            let mut fds =
                [PollFd::new(self.listener, PollFlags::IN), PollFd::new(&self.place.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("seccomp", "waiting for calls", e)),
            }
            let (told, asked) = (fds[0].revents(), fds[1].revents().contains(PollFlags::IN));
            if told.contains(PollFlags::IN) {
                let received = self.listener.receive(self.memory.pending());
                if received.map_err(|e| Error::io("seccomp", "receiving a call", e))? {
                    self.answer()?;
                }
            } else if told.contains(PollFlags::HUP) {
                self.log.close()?;
                // A socket that nobody listens on says the same.
                let _ = std::fs::remove_file(self.place.dir.join(SOCKET));
                return Ok(());
            }
            if asked && let Ok((stream, _)) = self.place.socket.accept() {
                self.serve(&stream)?;
            }
        }
    }
}

/// Lets everything go on, and tells whoever asks that nobody records, until no process is left.
pub fn run_blind(place: &Prepared, listener: &Listener, memory: &mut Memory) -> Result<()> {
    loop {
        if memory.is_pending() {
            let id = memory.pending().id;
            listener.go_on(id).map_err(|e| Error::io("seccomp", "letting a call go on", e))?;
            memory.clear();
        }
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&place.socket, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&TICK));
        let (told, asked) = (fds[0].revents(), fds[1].revents().contains(PollFlags::IN));
        if told.contains(PollFlags::IN) {
            let received = listener.receive(memory.pending());
            if !received.map_err(|e| Error::io("seccomp", "receiving a call", e))? {
                memory.clear();
            }
        } else if told.contains(PollFlags::HUP) {
            return Ok(());
        }
        if asked {
            drop(place.socket.accept());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Touch;
    use super::*;
    use std::io::{Error as Io, ErrorKind};

    #[test]
    fn a_call_is_under_way_until_its_thread_is_seen_elsewhere() {
        let say = |text: &str| Ok(text.to_owned());
        let table = [
            (say("running\n"), true),
            (say("257 0xffffff9c 0x7f 0x41\n"), true),
            (say("0 0x3 0x7f 0x400\n"), false),
            (say("-1 0x7ffd 0x7f\n"), false),
            (say(""), true),
            (Err(ErrorKind::PermissionDenied.into()), true),
            (Err(ErrorKind::NotFound.into()), false),
            (Err(Io::from_raw_os_error(libc::ESRCH)), false),
        ];
        for (text, expected) in table {
            let shown = format!("{text:?}");
            assert_eq!(is_at(text, |number| number == 257), expected, "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_lost() {
        assert_eq!(touches(0, 1), [Touch::Untold]);
    }
}
