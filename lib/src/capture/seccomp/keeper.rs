//! Runs a command whose system calls are recorded ([`super::recorder`]), and keeps what a recorder needs while it is
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

use super::memory::Memory;
use super::notify::{Listener, install};
use super::prepared::Prepared;
use super::recorder::{Notified, run_blind};
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
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Passed on to the command.
const PASSED: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// How a person is told that nothing is recorded any more, while the command goes on.
pub type Tell<'a> = &'a dyn Fn(&Error);

impl Prepared {
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
    fn no_process_is_made_of_one_with_threads() {
        // The harness has more than one.
        assert_eq!(fork().expect_err("threads").class, Class::Internal);
    }
}
