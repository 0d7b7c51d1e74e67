//! What is opened before a command runs, and what its recorders take over from one another.

use super::{notify, tracee};
use crate::base::{Class, Error, Result};
use crate::capture::live::{Answer, Log, SECCOMP, claim, identity, listen};
use crate::capture::store;
use crate::capture::tree::Root;
use crate::capture::tree::inspect::device_of;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// What recorders take over.
#[derive(Debug)]
pub struct Prepared {
    /// Where the log is.
    pub dir: PathBuf,
    /// The tree.
    pub tree: Root,
    /// The device of its file system.
    pub device: (u32, u32),
    /// What it is known by (`identity`).
    pub identity: String,
    /// Where dumps ask.
    pub socket: UnixListener,
    /// The process that keeps this.
    pub keeper: u32,
    proc: OwnedFd,
    pub(super) memory_round: u64,
    _lock: File,
}

impl Prepared {
    /// Step 1. Errors: class `Refused` where the kernel has no notifications, `Busy` if somebody records into `dir`.
    pub fn open(at: &Path, dir: &Path) -> Result<Self> {
        let shown = at.display().to_string();
        if !notify::is_there() {
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
            backend: SECCOMP.to_owned(),
            round: self.memory_round,
            root: self.identity.clone(),
            pid: self.keeper,
            ..Answer::default()
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
}
