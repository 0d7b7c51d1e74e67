//! A volume of a test: created, served, killed, asked.

use super::{Dir, Output, Server, bin, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The volume `vol` in a test's directory.
pub struct Volume<'d> {
    dir: &'d Dir,
    socket: PathBuf,
    server: Option<Server>,
}

impl<'d> Volume<'d> {
    /// `mirrord create vol` with these legs and options; not served yet.
    pub fn create(dir: &'d Dir, size: u64, legs: &[&str], options: &[&str]) -> Self {
        let size = size.to_string();
        let mut args = vec!["create", "vol", "--size", &size];
        for leg in legs {
            args.extend(["--leg", leg]);
        }
        args.extend(options);
        dir.mirrord(&args).run().expect(0);
        Self { dir, socket: dir.path("vol.sock"), server: None }
    }

    /// Serves it; returns when its socket takes connections.
    pub fn serve(&mut self, options: &[&str]) {
        let mut command = Command::new(bin("mirrord"));
        command.env("MIRROR_STATE_DIR", self.dir.state()).args(["serve", "vol", "--unix"]).arg(&self.socket);
        command.args(options);
        let log = self.dir.path("mirrord.log");
        self.server = Some(Server::start_on(&mut command, &log, &self.socket));
    }

    /// Serves it on a port of the loopback interface.
    pub fn serve_tcp(&mut self, address: &str) {
        let mut command = Command::new(bin("mirrord"));
        command.env("MIRROR_STATE_DIR", self.dir.state()).args(["serve", "vol", "--listen", address]);
        self.server = Some(Server::start(&mut command, &self.dir.path("mirrord.log")));
        wait_for("its port", Duration::from_secs(20), || std::net::TcpStream::connect(address).is_ok());
    }

    /// Serves it on its socket and on a port of the loopback interface, as a configuration can say.
    pub fn serve_both(&mut self, address: &str) {
        let file = self.dir.path("volume.toml");
        let text = format!("[volume.vol]\nlisten = ['{address}']\nunix = '{}'\n", self.socket.display());
        std::fs::write(&file, text).expect("configuration");
        self.serve_config(&file);
    }

    /// Serves it as a configuration says, in which its socket is.
    pub fn serve_config(&mut self, file: &Path) {
        let mut command = Command::new(bin("mirrord"));
        command.env("MIRROR_STATE_DIR", self.dir.state()).args(["serve", "vol", "--config"]).arg(file);
        let log = self.dir.path("mirrord.log");
        self.server = Some(Server::start_on(&mut command, &log, &self.socket));
    }

    /// Where clients connect to.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///vol?socket={}", self.socket.display())
    }

    /// The socket of its clients.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The running daemon.
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("served")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server().kill();
        self.server = None;
    }

    /// SIGTERM; it must end with 0.
    #[track_caller]
    pub fn stop(&mut self) {
        let server = self.server.take().expect("served");
        assert_eq!(server.stop(), Some(0), "a clean stop ends with 0");
    }

    /// `mirrord` with these arguments.
    pub fn mirrord(&self, args: &[&str]) -> Output {
        self.dir.mirrord(args).run()
    }

    /// `mirrord status vol --json`.
    pub fn status(&self) -> serde_json::Value {
        let out = self.mirrord(&["status", "vol", "--json"]).expect(0);
        serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", out.stdout))
    }

    /// A figure of a leg in the status.
    #[track_caller]
    pub fn leg(&self, name: &str, key: &str) -> serde_json::Value {
        let status = self.status();
        let legs = status["legs"].as_array().expect("legs").clone();
        let leg =
            legs.into_iter().find(|leg| leg["name"] == name).unwrap_or_else(|| panic!("{name}: {status}"));
        assert!(!leg[key].is_null(), "{key}: {leg}");
        leg[key].clone()
    }

    /// Bytes that a leg misses.
    pub fn dirty(&self, leg: &str) -> u64 {
        self.leg(leg, "dirty").as_u64().expect("bytes")
    }

    /// Waits until a leg has this disk state.
    #[track_caller]
    pub fn wait_state(&self, leg: &str, state: &str) {
        wait_for(&format!("{leg} is {state}: {}", self.status()), Duration::from_secs(40), || {
            self.leg(leg, "disk-state") == state
        });
    }

    /// `mirrord wait vol --until synced`.
    #[track_caller]
    pub fn wait_synced(&self) {
        let out = self.mirrord(&["wait", "vol", "--until", "synced", "--timeout", "50s"]);
        assert_eq!(out.code, 0, "{}\n{}", out.stderr, self.status());
    }

    /// Where the map of a leg is.
    pub fn map(&self, leg: &str) -> PathBuf {
        self.dir.state().join("vol").join(format!("{leg}.map"))
    }
}

/// `nbdkit` in the foreground on this socket with these arguments; plugin `file` wants the path among them.
pub fn nbdkit(dir: &Dir, socket: &Path, args: &[&str]) -> Server {
    // A killed one leaves its socket and its PID file behind.
    let _ = std::fs::remove_file(socket);
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--unix"]).arg(socket).args(args);
    Server::start_on(&mut command, &dir.path("nbdkit.log"), socket)
}

/// Whether two files hold the same bytes.
#[track_caller]
pub fn assert_equal(a: &Path, b: &Path) {
    let out = super::run("cmp", &[&a.to_string_lossy(), &b.to_string_lossy()]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
}
