//! Runs a command whose system calls are recorded ([`super::notified`]), and keeps what a recorder needs while it is
//! replaced: the keeper holds the listener, the log's lock and the socket, and does nothing with them. It is the process
//! that the user started; it waits, passes signals on, and ends as the command does.
//!
//! ```text
//!   keeper ── waits, holds the listener
//!     ├── recorder ── looks, writes the log, lets calls go on         replaced whenever it dies
//!     └── command ── and all that it starts; orphans become children of the keeper
//! ```
//!
//! 1. The tree, the lock, the socket and the log are opened: whatever is wrong with them is known before the command runs.
//! 2. The command's process loads the filter, hands its listener over, and waits.
//! 3. The first recorder is started.
//! 4. The command is executed.
//! 5. The recorder ends when nothing is left that the filter holds for; then the keeper ends, as the command did.
//!
//! Recovery: (a) a recorder that dies, killed or by a bug, is replaced by a fork of the keeper; the notification that it was
//! at is in memory that both share, because the kernel tells it once only. Who waits for its answer goes on waiting, and
//! notices nothing. (b) If the keeper is killed the recorder goes on alone, and from then on each dump scans: whose
//! children the command's are is not known any more. (c) If both are killed, calls that change something are answered
//! with ENOSYS by the kernel.
//!
//! Unsafe code: `fork` and `prctl`, which rustix leaves to libc, and memory that is shared between the two.
#![allow(unsafe_code)]

use super::inspect::device_of;
use super::live::{Answer, identity};
use super::notified::{BACKEND, Notified, run_blind};
use super::notify::{Listener, Notification, install, is_there};
use super::record::{Log, claim, listen};
use super::root::Root;
use super::{store, tracee};
use crate::base::{Class, Error, Result, limits};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Passed on to the command.
const PASSED: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// How a person is told that nothing is recorded any more, while the command goes on.
pub type Tell<'a> = &'a dyn Fn(&Error);

/// What outlives a recorder. One recorder at a time uses it; the keeper does not.
#[derive(Debug)]
#[repr(C)]
struct Inner {
    /// The notification that is being answered; none if its process is 0.
    pending: Notification,
    /// How many recorders began to answer it.
    attempts: AtomicU32,
    /// The round whose log is written.
    round: AtomicU64,
}

/// Memory that a recorder shares with the one after it.
#[derive(Debug)]
pub struct Memory(NonNull<Inner>);

impl Memory {
    fn new() -> Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let (len, prot) = (size_of::<Inner>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping, at an address of the kernel's choice; it is never unmapped.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::SHARED) };
        let at = at.map_err(|e| Error::os(Class::Internal, "seccomp", "sharing memory", e))?;
        // All zero is a value of `Inner`, and a page is aligned for it.
        NonNull::new(at.cast())
            .map(Self)
            .ok_or_else(|| Error::new(Class::Internal, "seccomp: sharing memory: none"))
    }

    fn inner(&self) -> &Inner {
        // SAFETY: it lives as long as the process; whoever else has it mapped and writes to it died before we began
        // (recorders follow each other) or writes nothing (the keeper).
        unsafe { self.0.as_ref() }
    }

    /// The notification that is being answered.
    pub fn pending(&mut self) -> &mut Notification {
        // SAFETY: as above, and `self` is borrowed for as long as the reference lives.
        unsafe { &mut self.0.as_mut().pending }
    }

    /// Whether there is one.
    pub fn is_pending(&self) -> bool {
        self.inner().pending != Notification::default()
    }

    /// Counts a beginning to answer it.
    pub fn attempt(&self) -> u32 {
        self.inner().attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// It is answered.
    pub fn clear(&mut self) {
        *self.pending() = Notification::default();
        self.inner().attempts.store(0, Ordering::Relaxed);
    }

    /// The round whose log is written.
    pub fn round(&self) -> u64 {
        self.inner().round.load(Ordering::Relaxed)
    }

    /// Another one is, from now on.
    pub fn set_round(&self, round: u64) {
        self.inner().round.store(round, Ordering::Relaxed);
    }
}

/// What recorders take over.
#[derive(Debug)]
pub struct Prepared {
    /// Where the log is.
    pub dir: PathBuf,
    /// The tree.
    pub tree: Root,
    /// The device of its file system.
    pub device: (u32, u32),
    /// What it is known by ([`identity`]).
    pub identity: String,
    /// Where dumps ask.
    pub socket: UnixListener,
    /// The process that keeps this.
    pub keeper: u32,
    proc: OwnedFd,
    memory_round: u64,
    _lock: File,
}

impl Prepared {
    /// Step 1. Errors: class `Refused` where the kernel has no notifications, `Busy` if somebody records into `dir`.
    pub fn open(at: &Path, dir: &Path) -> Result<Self> {
        let shown = at.display().to_string();
        if !is_there() {
            let text = format!("{shown}: recording: this kernel has no user notification for system calls");
            return Err(Error::new(Class::Refused, text)
                .hint("cfor-log dump LOG --root DIR: scanning needs nothing of this"));
        }
        let scope = std::fs::read_to_string(YAMA).unwrap_or_default();
        if !may_read(&scope, rustix::process::geteuid().is_root()) {
            let text =
                format!("{shown}: recording: {YAMA} is {}: without root no paths can be read", scope.trim());
            return Err(Error::new(Class::Refused, text).hint("sysctl kernel.yama.ptrace_scope=0"));
        }
        let (tree, lock) = claim(at, dir)?;
        let identity = identity(&tree)?;
        let device = device_of(tree.fd()).map_err(|e| Error::io(&shown, "looking at it", e))?;
        let round = store::rounds(dir)?.last().copied().unwrap_or(0);
        drop(Log::open(dir, round, true)?);
        let proc = tracee::proc().map_err(|e| Error::io("/proc", "opening it", e))?;
        let keeper = std::process::id();
        let socket = listen(dir)?;
        let dir = dir.to_owned();
        Ok(Self { dir, tree, device, identity, socket, keeper, proc, memory_round: round, _lock: lock })
    }

    /// `/proc`
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// What the recorder is going to say of itself; the process is the keeper, as long as there is none.
    pub fn answer(&self) -> Answer {
        Answer {
            schema: "cfor-recorder/1".to_owned(),
            backend: BACKEND.to_owned(),
            round: self.memory_round,
            root: self.identity.clone(),
            pid: self.keeper,
            ..Answer::default()
        }
    }

    /// Steps 2 to 5: runs the command, and gives how it ended. A recorder that cannot go on tells why. Errors: class `Usage` if it cannot be executed.
    pub fn run(self, command: &[OsString], tell: Tell<'_>) -> Result<WaitStatus> {
        let internal = |doing: &str, e: std::io::Error| Error::os(Class::Internal, "seccomp", doing, e);
        let mut signals =
            Signals::new(PASSED.into_iter().chain([SIGCHLD])).map_err(|e| internal("taking signals", e))?;
        // SAFETY: takes numbers. Without it orphans of the command would not be found when a round begins.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        let mut memory = Memory::new()?;
        memory.set_round(self.memory_round);
        let (ours, theirs) = pair()?;
        let Some(child) = fork()? else { become_command(command, &theirs) };
        drop(theirs);
        let listener = Listener::new(take_listener(&ours, command)?);
        let mut recorder = start_recorder(&self, &listener, &mut memory, true, tell)?;
        sendmsg(&ours, &[IoSlice::new(b"go")], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
            .map_err(|e| internal("starting the command", e.into()))?;
        let executed = executed(&ours, command);
        let mut begun = Instant::now();
        let (mut status, mut done) = (None, false);
        loop {
            for signal in signals.wait() {
                if let (true, None, Some(signal)) =
                    (PASSED.contains(&signal), status, Signal::from_named_raw(signal))
                {
                    // It may have ended just now.
                    let _ = kill_process(child, signal);
                }
            }
            while let Ok(Some((pid, how))) = wait(WaitOptions::NOHANG) {
                if pid == child {
                    status = Some(how);
                } else if pid == recorder && how.exit_status() == Some(0) {
                    done = true;
                } else if pid == recorder {
                    if begun.elapsed() < Duration::from_secs(1) {
                        std::thread::sleep(Duration::from_millis(limits::RECORDER_PAUSE_MS));
                    }
                    recorder = start_recorder(&self, &listener, &mut memory, false, tell)?;
                    begun = Instant::now();
                }
            }
            // A process gives its filter up before it can be waited for: the recorder may end first.
            if let (true, Some(status)) = (done, status) {
                return executed.map(|()| status);
            }
        }
    }
}

/// Where the Yama module, if the kernel has it, says who may read another's memory.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Whether a recorder may read the memory of a process that is not its child: from 1 on only root may, from 3 on nobody.
fn may_read(scope: &str, root: bool) -> bool {
    match scope.trim().parse().unwrap_or(0) {
        0 => true,
        1 | 2 => root,
        _ => false,
    }
}

/// Two ends of a channel of messages; closed by exec.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::os(Class::Internal, "seccomp", "making a channel", e))
}

/// A second process like this one; `None` in it. Errors: class `Internal` if this process has other threads, whose locks
/// the second one would have for ever.
fn fork() -> Result<Option<Pid>> {
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|e| Error::io("/proc", "listing threads", e))?;
    if tasks.count() != 1 {
        return Err(Error::new(Class::Internal, "seccomp: starting a process: there are other threads"));
    }
    // SAFETY: there is one thread, so that the child finds everything as we left it.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(Error::os(Class::Io, "seccomp", "starting a process", std::io::Error::last_os_error())),
    }
}

/// What is left of a child that did what it was to do. Nothing of the parent's is run, such as what removes files at exit.
fn leave(code: i32) -> ! {
    // SAFETY: takes a number and does not come back.
    unsafe { libc::_exit(code) }
}

/// Step 2, in the process that becomes the command.
fn become_command(command: &[OsString], channel: &OwnedFd) -> ! {
    let listener = install();
    let tell = |e: std::io::Error| {
        let number = e.raw_os_error().unwrap_or(libc::EIO).to_le_bytes();
        let _ = sendmsg(
            channel,
            &[IoSlice::new(&number)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        );
        leave(127)
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(e) => tell(e),
    };
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&fds));
    if let Err(e) = sendmsg(channel, &[IoSlice::new(b"l")], &mut message, SendFlags::NOSIGNAL) {
        tell(e.into());
    }
    drop(listener);
    let mut go = [0; 2];
    let waiting = rustix::net::recv(channel, &mut go[..], RecvFlags::empty());
    if waiting.is_ok_and(|(len, _)| len == 2)
        && let Some((program, arguments)) = command.split_first()
    {
        tell(Command::new(program).args(arguments).exec());
    }
    leave(127)
}

fn refused(e: i32) -> Error {
    let cause = std::io::Error::from_raw_os_error(e);
    let why = match e {
        libc::EBUSY => "somebody listens to its system calls already; recorders cannot be nested".to_owned(),
        _ => cause.to_string(),
    };
    Error::new(Class::Refused, format!("seccomp: loading the filter: {why}"))
}

/// The listener, out of the process that loaded the filter.
fn take_listener(channel: &OwnedFd, command: &[OsString]) -> Result<OwnedFd> {
    let mut bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(channel, &mut into, &mut message, RecvFlags::CMSG_CLOEXEC)
        .map_err(|e| Error::os(Class::Internal, "seccomp", "waiting for the filter", e))?;
    let mut fds = message.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match (fds.next(), received.bytes) {
        (Some(fd), _) => Ok(fd),
        (None, 4) => Err(refused(i32::from_le_bytes(bytes))),
        _ => Err(not_started(command, std::io::ErrorKind::Interrupted.into())),
    }
}

fn not_started(command: &[OsString], e: std::io::Error) -> Error {
    let program = command.first().map(|program| program.to_string_lossy().escape_debug().to_string());
    Error::os(Class::Usage, program.unwrap_or_default(), "starting it", e)
}

/// Whether the command was executed: then its end of the channel is closed without another word.
fn executed(channel: &OwnedFd, command: &[OsString]) -> Result<()> {
    let mut bytes = [0; 4];
    match rustix::net::recv(channel, &mut bytes[..], RecvFlags::empty()) {
        Ok((4, _)) => Err(not_started(command, std::io::Error::from_raw_os_error(i32::from_le_bytes(bytes)))),
        _ => Ok(()),
    }
}

/// Starts a recorder, the first one or a successor.
fn start_recorder(
    place: &Prepared,
    listener: &Listener,
    memory: &mut Memory,
    first: bool,
    tell: Tell<'_>,
) -> Result<Pid> {
    if let Some(pid) = fork()? {
        return Ok(pid);
    }
    for signal in PASSED.into_iter().chain([SIGCHLD]) {
        // SAFETY: takes numbers: signals have their first meaning again, so that none is told to the keeper.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // What a terminal sends to those who use it is not for us; nor are the command's pipes.
    let _ = rustix::process::setsid();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for standard in [0, 1] {
            // SAFETY: takes numbers; nothing of ours uses these two as its own descriptors.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    leave(record(place, listener, memory, first, tell))
}

/// What a recorder does. Whatever happens, calls go on.
fn record(place: &Prepared, listener: &Listener, memory: &mut Memory, first: bool, tell: Tell<'_>) -> i32 {
    let done = Notified::new(place, listener, memory, first).and_then(|mut recorder| recorder.run());
    let done = done.or_else(|error| {
        tell(&error);
        run_blind(place, listener, memory)
    });
    i32::from(done.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read_memory_depends_on_yama() {
        for (scope, user, root) in [
            ("", true, true),
            ("0\n", true, true),
            ("1\n", false, true),
            ("2", false, true),
            ("3", false, false),
        ] {
            assert_eq!((may_read(scope, false), may_read(scope, true)), (user, root), "{scope:?}");
        }
    }

    #[test]
    fn what_a_recorder_was_at_outlives_it() {
        let mut memory = Memory::new().expect("memory");
        assert!(!memory.is_pending());
        memory.pending().id = 7;
        memory.set_round(3);
        assert_eq!((memory.attempt(), memory.attempt()), (1, 2));
        // The next recorder finds it where the kernel put it.
        let next = Memory(memory.0);
        assert!(next.is_pending() && next.round() == 3 && next.attempt() == 3);
        memory.clear();
        assert!(!next.is_pending() && next.attempt() == 1 && next.round() == 3);
    }

    #[test]
    fn no_process_is_made_of_one_with_threads() {
        // The harness has more than one.
        assert_eq!(fork().expect_err("threads").class, Class::Internal);
    }
}
