//! `[ COMMAND … ]`: a server that is started for one copy by socket activation (`sd_listen_fds(3)`), as nbdcopy
//! does it.

use crate::base::{Address, Class, Error, Id, Result};
use crate::nbd::uri::NbdUri;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server gets the socket as descriptor 3. The shell moves it there and tells the server its own number; the
/// words of the command are its arguments, never its text.
const SHELL: &str = "export LISTEN_PID=$$ LISTEN_FDS=1; unset LISTEN_FDNAMES; exec \"$@\" 3<&0 </dev/null";

/// How long a server may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server and its socket. Dropped, it is told to end and waited for.
#[derive(Debug)]
pub struct Started {
    child: Child,
    directory: PathBuf,
}

impl Started {
    /// Starts a server; the URI of its default export. Connections wait in the socket until it takes them.
    pub fn new(command: &[String]) -> Result<(Self, NbdUri)> {
        let program = command.first().map_or("", String::as_str);
        if program.is_empty() {
            return Err(Error::new(Class::Usage, "[ ]: starting a server: no command in the brackets"));
        }
        let fail = |doing: &str, e: std::io::Error| Error::os(Class::Connect, program, doing, e);
        let directory = std::env::temp_dir().join(format!("mirror-sync-{}", Id::random()?));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|e| fail("making its socket", e))?;
        let path = directory.join("s");
        let listener = UnixListener::bind(&path).map_err(|e| fail("making its socket", e));
        let started = listener.and_then(|listener| {
            Command::new("/bin/sh")
                .args(["-c", SHELL, "sh"])
                .args(command)
                .stdin(Stdio::from(OwnedFd::from(listener)))
                // Data alone goes to standard output, and it is not the server's to write.
                .stdout(Stdio::null())
                .spawn()
                .map_err(|e| fail("starting it", e))
        });
        let child = started.inspect_err(|_| drop(std::fs::remove_dir_all(&directory)))?;
        let uri = NbdUri { address: Address::Unix(path), export: String::new(), tls: None };
        Ok((Self { child, directory }, uri))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended already; the number is ours until it is waited for.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its name is random and ours; nothing else is in it.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
