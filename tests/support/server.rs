//! Servers that run beside a test and never outlive it.

use super::run::wait;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No server takes longer to start or to stop.
const LIMIT: Duration = Duration::from_secs(30);

/// A running server; killed and reaped when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Server {
    /// Starts it; its output goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("log");
        let err = out.try_clone().expect("log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, log: log.to_owned(), name }
    }

    /// Starts it and waits until this socket takes connections.
    pub fn start_on(command: &mut Command, log: &Path, socket: &Path) -> Self {
        let mut server = Self::start(command, log);
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(
                server.child.try_wait().expect("wait").is_none(),
                "{}: ended: {}",
                server.name,
                server.log()
            );
            assert!(start.elapsed() < LIMIT, "{}: no socket: {}", server.name, server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// How it ended by itself: its exit status, unless it still runs or was killed.
    pub fn code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("wait").and_then(|status| status.code())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("reap");
    }

    /// Sends a signal by its name (`TERM`, `STOP`, `CONT`, `USR1`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill").success(), "{}: kill -{name}", self.name);
    }

    /// SIGTERM, then waits for its end; its exit status.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        let status = wait(&mut self.child, LIMIT);
        status.unwrap_or_else(|| panic!("{}: does not stop: {}", self.name, self.log())).code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so; panics with `what` when it does not become so.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "not after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
