//! The process that holds accesses to big files back until it has noted them (`noted`). It does nothing else,
//! and opens nothing but files of `/proc`, so that it never waits for itself:
//!
//! - whatever ends it closes the descriptor of the events, and the kernel allows everything that waits;
//! - if it does not come round within [`limits::RANGES_STALL_MS`], be it stopped, a timer kills it (`DeadMan`);
//! - it ends with the recorder.
//!
//! The recorder asks through a socket, which is the standard input here (`noting`). Every question has one
//! answer, in order; so an answer proves that all accesses that happened before the question are noted.

use super::access::{Access, Caller, Descriptor, call_of, frames_of, judge};
use super::noted::{Book, Key};
use super::noting::{QUESTION, Question};
use super::permission::{DeadMan, Group, Waiting};
use crate::base::{Class, Error, Result, limits};
use crate::device::fields::get_u64;
use crate::fslog::{ObjectId, logfile};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Wound up so often at least.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// A thread that waits is not yet asleep when its event is read, and where all processors are busy it takes its turn
/// first: so often, and so long, it is waited for, half a second at least.
const LOOKS: u32 = 2500;
const PAUSE: Duration = Duration::from_micros(200);

/// A thread, by its files in `/proc`.
struct Thread(i32);

impl Thread {
    fn read(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(format!("/proc/{}/{name}", self.0)).ok()?;
        // Text of the kernel, of which the beginning is enough.
        file.take(limits::RANGES_TEXT).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Caller for Thread {
    fn descriptor(&self, number: u64) -> Option<Descriptor> {
        // A descriptor is an int; the upper half of a register may have anything.
        let info = self.read(&format!("fdinfo/{}", number as u32))?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = i32::from_str_radix(field("flags:")?, 8).ok()?;
        Some(Descriptor {
            inode: field("ino:")?.parse().ok()?,
            writable: flags & libc::O_ACCMODE != libc::O_RDONLY,
        })
    }

    fn open_flags(&self, address: u64) -> Option<u64> {
        let mut flags = [0; 8];
        File::open(format!("/proc/{}/mem", self.0)).ok()?.read_exact_at(&mut flags, address).ok()?;
        Some(get_u64(&flags, 0))
    }
}

/// The line of `/proc/TID/syscall`, once the thread sleeps; `None` for one that does not, or cannot be seen.
fn line_of(thread: &Thread) -> Option<String> {
    for _ in 0..LOOKS {
        let line = thread.read("syscall")?;
        if !line.starts_with("running") {
            return Some(line);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Notes what an access does.
fn note(book: &mut Book, waiting: &Waiting) -> Result<(), Errno> {
    let stat = fstat(&waiting.file)?;
    let key: Key = (stat.st_dev, stat.st_ino);
    let thread = Thread(waiting.thread);
    let line = line_of(&thread);
    let stack = line.as_ref().and_then(|_| thread.read("stack")).unwrap_or_default();
    let access = Access { inode: stat.st_ino, open: waiting.open, range: waiting.range };
    let call = line.as_deref().and_then(call_of);
    let judged = judge(&access, call.as_ref(), &frames_of(&stack), &thread);
    book.note(key, waiting.thread, line.as_deref().unwrap_or_default(), &judged);
    Ok(())
}

/// Whether a thread may still be in a system call: one that runs may.
fn is_under_way(thread: i32, call: &str) -> bool {
    Thread(thread).read("syscall").is_some_and(|now| now.starts_with("running") || now == call)
}

fn milliseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

struct Noter {
    socket: UnixStream,
    group: Group,
    book: Book,
    asked: Vec<u8>,
    file: Option<OwnedFd>,
    answers: Vec<u8>,
}

/// Runs until the recorder closes its end of the socket. Errors: it cannot go on, and must end.
pub fn run(socket: UnixStream) -> Result<()> {
    let wrong =
        |doing: &str, cause: &str| Error::new(Class::Internal, format!("byte ranges: {doing}: {cause}"));
    let system = |doing: &'static str| move |e: Errno| wrong(doing, &e.to_string());
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(system("asking to end with the recorder"))?;
    socket.set_nonblocking(true).map_err(|e| wrong("preparing the socket", &e.to_string()))?;
    let clock = DeadMan::new().map_err(system("making a timer"))?;
    clock.wind_up().map_err(system("winding up a timer"))?;
    let group = match Group::open() {
        Ok(group) => group,
        // The first question is answered by that; there is nothing else to do here.
        Err(e) => return refuse(&socket, e).map_err(|e| wrong("answering", &e.to_string())),
    };
    let (book, asked, answers) = (Book::default(), Vec::new(), Vec::new());
    let mut noter = Noter { socket, group, book, asked, file: None, answers };
    loop {
        let out = if noter.answers.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds =
            [PollFd::new(&noter.group, PollFlags::IN), PollFd::new(&noter.socket, PollFlags::IN | out)];
        match poll(&mut fds, Some(&TICK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(system("waiting")(e)),
        }
        let spoken = fds[1].revents();
        clock.wind_up().map_err(system("winding up a timer"))?;
        noter.accesses(&clock).map_err(|cause| wrong("noting accesses", cause))?;
        if !spoken.is_empty() && !noter.talk().map_err(|e| wrong("answering", &e.to_string()))? {
            return Ok(());
        }
    }
}

/// Answers the first question by an error.
fn refuse(socket: &UnixStream, why: Errno) -> std::io::Result<()> {
    let mut answer = 4u32.to_le_bytes().to_vec();
    answer.extend(why.raw_os_error().to_le_bytes());
    let mut to = socket;
    to.write_all(&answer)
}

impl Noter {
    /// Notes and allows everything that waits.
    fn accesses(&mut self, clock: &DeadMan) -> Result<(), &'static str> {
        let read = self.group.read()?;
        if read.lost {
            self.book.note_all();
        }
        for waiting in read.waiting {
            // First noted, then allowed: what happens is in the book.
            if note(&mut self.book, &waiting).is_err() {
                self.book.note_all();
            }
            self.group.allow(&waiting)?;
            clock.wind_up().map_err(|_| "winding up a timer")?;
        }
        Ok(())
    }

    /// Takes a question, and gives answers; false once the recorder has gone.
    fn talk(&mut self) -> std::io::Result<bool> {
        let mut bytes = [0; QUESTION];
        let room = QUESTION - self.asked.len();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes[..room])];
        let got = match recvmsg(&self.socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return self.send().map(|()| true),
            Err(e) => return Err(e.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.file = files.last();
            }
        }
        if got == 0 {
            return Ok(false);
        }
        self.asked.extend_from_slice(&bytes[..got]);
        if self.asked.len() == QUESTION {
            let asked = std::mem::take(&mut self.asked);
            let Some(question) = Question::of(asked[0]) else { return Ok(false) };
            let answer = self.answer(question, ObjectId(get_u64(&asked, 1)), get_u64(&asked, 9));
            self.answers.extend((answer.len() as u32).to_le_bytes());
            self.answers.extend(answer);
            self.file = None;
        }
        self.send().map(|()| true)
    }

    fn send(&mut self) -> std::io::Result<()> {
        while !self.answers.is_empty() {
            let mut to = &self.socket;
            match to.write(&self.answers) {
                Ok(sent) => drop(self.answers.drain(..sent)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn answer(&mut self, question: Question, number: ObjectId, access: u64) -> Vec<u8> {
        let number_of = |done: Result<(), Errno>| {
            let error = done.err().map_or(0, Errno::raw_os_error);
            error.to_le_bytes().to_vec()
        };
        match question {
            Question::Probe => number_of(self.file().and_then(|file| {
                self.group.mark(file)?;
                self.group.unmark(file)
            })),
            Question::Mark => number_of(self.mark(number)),
            Question::Forget => {
                self.book.remove(number);
                number_of(Ok(()))
            }
            Question::Take => {
                let (records, last) = self.book.take(milliseconds(), is_under_way);
                let mut answer = logfile::encode(&records);
                answer.extend(last.to_le_bytes());
                answer
            }
            Question::Settle => {
                self.book.settle(number, access);
                number_of(Ok(()))
            }
        }
    }

    fn file(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.as_ref().map(OwnedFd::as_fd).ok_or(Errno::BADF)
    }

    fn mark(&mut self, number: ObjectId) -> Result<(), Errno> {
        let file = self.file()?;
        let stat = fstat(file)?;
        let key: Key = (stat.st_dev, stat.st_ino);
        // In the book before anything can happen to it.
        if self.book.count() >= limits::RANGES_FILES {
            return Err(Errno::NOSPC);
        }
        if !self.book.add(key, number) {
            return Err(Errno::EXIST);
        }
        self.group.mark(self.file()?).inspect_err(|_| self.book.remove(number))
    }
}
