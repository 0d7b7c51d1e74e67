//! Whether another process has a file open for writing: the kernel counts them, and says so to whoever asks for a
//! lease (`fcntl(2)`, Leases). rustix has no such call. The only unsafe code of this room beside `window`.
#![allow(unsafe_code)]

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// What is said of such a file, after "it is".
pub const OPEN_ELSEWHERE: &str = "open for writing in another process";

/// `F_SETSIG` of `asm-generic/fcntl.h`, which no architecture changes.
const F_SETSIG: libc::c_int = 10;

/// How often it is looked again: a process that was just started holds what its parent had open until it is another
/// program.
const ATTEMPTS: u32 = 10;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(30);

/// Whether a regular file is open, or mapped, for writing by anybody, this process included. `false` where nobody can
/// tell: a file that is somebody else's (without `CAP_LEASE`), a file system without leases, anything but a file; and
/// where a lock says more: who holds one is met when it is opened.
pub fn is_open_for_writing(path: &Path) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return false;
    }
    // Who opens it for writing in this moment waits for the end of the lease, and we are told by a signal: one that
    // means nothing, in place of SIGIO, which kills.
    if control(&file, F_SETSIG, libc::SIGURG).is_err() {
        return false;
    }
    for attempt in 1..=ATTEMPTS {
        // While a lock of ours could be had, no other program of ours holds it.
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return false;
        }
        // A lease to read is given when nobody has it open for writing; the descriptor is ours alone, and reads.
        match control(&file, libc::F_SETLEASE, libc::F_RDLCK) {
            Err(e) if e.raw_os_error() != Some(libc::EAGAIN) => return false,
            Err(_) if attempt == ATTEMPTS => return true,
            Err(_) => {
                let _ = flock(&file, FlockOperation::Unlock);
                std::thread::sleep(PAUSE);
            }
            Ok(()) => {
                // Closing it would end the lease as well.
                let _ = control(&file, libc::F_SETLEASE, libc::F_UNLCK);
                return false;
            }
        }
    }
    false
}

fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> std::io::Result<()> {
    // SAFETY: these commands of fcntl take an int and touch no memory of ours; the descriptor is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_and_a_reader_is_none() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        std::fs::write(&path, "x").expect("write");
        assert!(!is_open_for_writing(&path), "nobody");
        let reader = File::open(&path).expect("open");
        assert!(!is_open_for_writing(&path), "a reader");
        let writer = OpenOptions::new().append(true).open(&path).expect("open");
        assert!(is_open_for_writing(&path), "a writer");
        // Who has locked it is told so by the lock.
        let locked = OpenOptions::new().write(true).open(&path).expect("open");
        flock(&locked, FlockOperation::LockExclusive).expect("lock");
        assert!(!is_open_for_writing(&path), "locked");
        drop((reader, writer, locked));
        assert!(!is_open_for_writing(&path), "gone");
        assert!(!is_open_for_writing(dir.path()) && !is_open_for_writing(&dir.path().join("none")));
        // It can be opened for writing at once: no lease is left behind.
        OpenOptions::new().write(true).open(&path).expect("open");
    }
}
