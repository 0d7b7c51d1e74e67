//! A real sshd on loopback: its own host key, its own authorized keys, a home directory for whoever logs in.

use super::{Dir, Server, Tool, bin, run, wait_for};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A port that leads to another one, and counts what passes, both ways together, as it travels.
pub struct Counter {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Counter {
    /// A counter before this port; it takes one connection.
    fn new(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            let Ok((near, _)) = listener.accept() else { return };
            let far = TcpStream::connect(("127.0.0.1", to)).expect("connect");
            let clone = |stream: &TcpStream| stream.try_clone().expect("clone");
            let ways = [(clone(&near), clone(&far)), (far, near)];
            for (mut from, mut to) in ways {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut buf = vec![0; 1 << 16];
                    while let Ok(len) = from.read(&mut buf)
                        && len > 0
                        && to.write_all(&buf[..len]).is_ok()
                    {
                        counted.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        });
        Self { port, bytes }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a test needs for it.
pub const PROGRAMS: [&str; 3] = ["sshd", "ssh", "ssh-keygen"];

/// A running sshd; ends with its test.
pub struct Sshd {
    /// Where everything is: `home/.ssh` of the near side, `far` of the far one.
    pub dir: Dir,
    port: u16,
    _server: Server,
}

fn keygen(args: &[&str]) {
    let out = run("ssh-keygen", args);
    assert_eq!(out.code, 0, "{}", out.stderr);
}

impl Sshd {
    /// One that lets a key in, with these options before it in `authorized_keys`.
    pub fn start(options: &str) -> Self {
        let dir = Dir::new();
        let path = |name: &str| dir.path(name).display().to_string();
        for name in ["home", "home/.ssh", "far", "far-state"] {
            std::fs::create_dir(dir.path(name)).expect("directory");
        }
        for name in ["host", "home/.ssh/id_ed25519"] {
            keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]);
        }
        let public = std::fs::read_to_string(path("home/.ssh/id_ed25519.pub")).expect("key");
        let space = if options.is_empty() { "" } else { " " };
        std::fs::write(path("authorized_keys"), format!("{options}{space}{public}")).expect("keys");
        // Made by a package's own script, which has not run where the machine never started it.
        let _ = std::fs::create_dir_all("/run/sshd");
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
            let bins = bin("mirror-sync").parent().expect("directory").display().to_string();
            let lines = [
                format!("Port {port}"),
                "ListenAddress 127.0.0.1".to_owned(),
                format!("HostKey {}", path("host")),
                format!("AuthorizedKeysFile {}", path("authorized_keys")),
                "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes".to_owned(),
                "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100".to_owned(),
                format!("SetEnv PATH={bins}:/usr/bin:/bin MIRROR_STATE_DIR={}", path("far-state")),
            ];
            std::fs::write(path("sshd_config"), lines.join("\n") + "\n").expect("configuration");
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-D", "-e", "-f", &path("sshd_config")]);
            let mut server = Server::start(&mut command, &dir.path("sshd.log"));
            let mut up = false;
            wait_for("sshd answers or ends", Duration::from_secs(20), || {
                up = TcpStream::connect(("127.0.0.1", port)).is_ok();
                up || !server.is_running()
            });
            if !up {
                // Somebody else took the port meanwhile.
                continue;
            }
            let sshd = Self { dir, port, _server: server };
            sshd.trust();
            let plain = format!(
                "Host *\nUserKnownHostsFile {}\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\n",
                sshd.home(".ssh/known_hosts").display(),
                sshd.home(".ssh/id_ed25519").display()
            );
            std::fs::write(sshd.dir.path("ssh_config"), plain).expect("configuration");
            return sshd;
        }
        panic!("sshd does not start: {}", std::fs::read_to_string(dir.path("sshd.log")).unwrap_or_default());
    }

    /// A path of the near side's home directory.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path("home").join(name)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The line of its host key in `known_hosts`.
    pub fn line(&self) -> String {
        let public = std::fs::read_to_string(self.dir.path("host.pub")).expect("host key");
        let key: Vec<_> = public.split_whitespace().take(2).collect();
        format!("[127.0.0.1]:{} {}\n", self.port, key.join(" "))
    }

    /// Puts it into `known_hosts`.
    pub fn trust(&self) {
        std::fs::write(self.home(".ssh/known_hosts"), self.line()).expect("known hosts");
    }

    /// Something on the far side by its path there.
    pub fn uri(&self, path: &str) -> String {
        format!("ssh://127.0.0.1:{}{path}", self.port)
    }

    /// A file in the directory of the far side, behind a counter.
    pub fn counted(&self, name: &str) -> (String, Counter) {
        let counter = Counter::new(self.port);
        let line = self.line().replace(&format!(":{} ", self.port), &format!(":{} ", counter.port));
        std::fs::write(self.home(".ssh/known_hosts"), self.line() + &line).expect("known hosts");
        (self.far(name).replace(&format!(":{}/", self.port), &format!(":{}/", counter.port)), counter)
    }

    /// A file in the directory of the far side.
    pub fn far(&self, name: &str) -> String {
        self.uri(&self.dir.path("far").join(name).display().to_string())
    }

    /// The user's own ssh.
    pub fn rsh(&self) -> String {
        format!("ssh -F {}", self.dir.path("ssh_config").display())
    }

    /// A program with this home directory, and no agent.
    pub fn tool(&self, name: &str, args: &[&str]) -> Tool {
        let mut tool = Tool::new(bin(name)).args(args).env("HOME", self.dir.path("home"));
        tool.command().env_remove("SSH_AUTH_SOCK");
        tool.env("MIRROR_STATE_DIR", self.dir.state())
    }
}
