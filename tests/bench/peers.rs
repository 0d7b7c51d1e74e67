//! The servers that are compared, each on its own socket over the same images.

use crate::support::{Dir, Server, bin, nbdkit};
use std::path::Path;
use std::process::Command;

/// Where far copies are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// nbdkit on a Unix socket.
    NbdkitUnix,
    /// nbdkit on a port of the loopback interface.
    NbdkitTcp,
    /// Ourselves, a throw-away mirror of one leg, on a Unix socket.
    MirrordUnix,
}

/// A server under load and the servers behind it.
pub struct Peer {
    /// What fio connects to.
    pub uri: String,
    /// The process that is measured.
    pub server: Server,
    _behind: Vec<Server>,
    /// What is kept on a disk until the servers have gone.
    disk: Option<Dir>,
}

/// Size of an image over which marks are spread, in MiB.
pub const WIDE: u64 = 64 << 10;

const SIZE_OPTION: &str = "--known-equal";

fn unix(path: &Path) -> String {
    format!("nbd+unix:///vol?socket={}", path.display())
}

/// A port nobody listens on: the kernel's choice, free again.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("address").port()
}

/// nbdkit over the near image.
pub fn nbdkit_file(dir: &Dir) -> Peer {
    let socket = dir.path("nbdkit.sock");
    let server = nbdkit(dir, &socket, &["file", &dir.path("near.img").to_string_lossy()]);
    Peer { uri: unix(&socket), server, _behind: Vec::new(), disk: None }
}

/// The far copy: its server, and how a client names it.
fn far(dir: &Dir, kind: Far) -> (Server, String) {
    let (socket, image) = (dir.path("far.sock"), dir.path("far.img").display().to_string());
    match kind {
        Far::NbdkitUnix => {
            (nbdkit(dir, &socket, &["file", &image]), format!("nbd+unix:///?socket={}", socket.display()))
        }
        Far::NbdkitTcp => {
            let port = free_port();
            let mut command = Command::new("nbdkit");
            command.args(["--foreground", "-i", "127.0.0.1", "-p", &port.to_string(), "file", &image]);
            let server = Server::start(&mut command, &dir.path("nbdkit.log"));
            crate::support::wait_for("nbdkit's port", std::time::Duration::from_secs(10), || {
                std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            (server, format!("nbd://127.0.0.1:{port}/"))
        }
        Far::MirrordUnix => {
            let mut command = Command::new(bin("mirrord"));
            command.env("MIRROR_STATE_DIR", dir.path("farstate"));
            command.args(["serve", "vol", "--ephemeral", "--leg", &image, "--unix"]).arg(&socket);
            let server = Server::start_on(&mut command, &dir.path("far.log"), &socket);
            (server, unix(&socket))
        }
    }
}

/// mirrord with a map, over the near image alone: a second leg is configured and out, so that marks are made.
pub fn one_leg(dir: &Dir) -> Peer {
    mirrord(dir, &format!("far={}", dir.path("far.img").display()), Some("far"), Vec::new())
}

/// The same over an image of [`WIDE`] MiB that is a hole at first, its state on a disk, its marks that durable and
/// none of them made yet.
pub fn durable(dir: &Dir, durability: &str) -> Peer {
    for name in ["near.img", "far.img"] {
        let image = std::fs::File::create(dir.path(name)).expect("image");
        image.set_len(WIDE << 20).expect("image");
    }
    let disk = Dir::new_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let far = format!("far={}", dir.path("far.img").display());
    let options = ["--map-durability", durability];
    let mut peer = mirrord_with(dir, &disk, &far, Some("far"), &options, Vec::new());
    peer.disk = Some(disk);
    peer
}

/// mirrord over the near image and a far one.
pub fn mirror(dir: &Dir, kind: Far) -> Peer {
    let (server, uri) = far(dir, kind);
    mirrord(dir, &format!("far={uri}"), None, vec![server])
}

fn mirrord(dir: &Dir, far: &str, out: Option<&str>, behind: Vec<Server>) -> Peer {
    mirrord_with(dir, dir, far, out, &[], behind)
}

/// mirrord over images in `dir`, its state in `at`.
fn mirrord_with(
    dir: &Dir,
    at: &Dir,
    far: &str,
    out: Option<&str>,
    options: &[&str],
    behind: Vec<Server>,
) -> Peer {
    let near = format!("near={}", dir.path("near.img").display());
    let size = std::fs::metadata(dir.path("near.img")).expect("image").len().to_string();
    let _ = std::fs::remove_dir_all(at.state().join("vol"));
    let mut create = vec!["create", "vol", "--size", &size, "--leg", &near, "--leg", far, SIZE_OPTION];
    create.extend(options);
    at.mirrord(&create).run().expect(0);
    let socket = dir.path("vol.sock");
    let mut command = Command::new(bin("mirrord"));
    command.env("MIRROR_STATE_DIR", at.state()).args(["serve", "vol", "--unix"]).arg(&socket);
    let server = Server::start_on(&mut command, &dir.path("mirrord.log"), &socket);
    at.mirrord(&["wait", "vol", "--until", "synced", "--timeout", "60s"]).run().expect(0);
    if let Some(leg) = out {
        at.mirrord(&["leg", "detach", "vol", leg]).run().expect(0);
    }
    Peer { uri: unix(&socket), server, _behind: behind, disk: None }
}

/// qemu-storage-daemon: a quorum of two over the near image and an NBD child, both of which must answer.
pub fn quorum(dir: &Dir, kind: Far) -> Peer {
    let (behind, uri) = far(dir, kind);
    let server = match uri.strip_prefix("nbd://127.0.0.1:") {
        Some(rest) => {
            format!("server.type=inet,server.host=127.0.0.1,server.port={}", rest.trim_end_matches('/'))
        }
        None => format!("server.type=unix,server.path={}", dir.path("far.sock").display()),
    };
    let export = if kind == Far::MirrordUnix { "vol" } else { "" };
    let socket = dir.path("quorum.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new("qemu-storage-daemon");
    command
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=near,filename={}", dir.path("near.img").display()))
        .args(["--blockdev", &format!("driver=nbd,node-name=far,export={export},{server}")])
        .args([
            "--blockdev",
            "driver=quorum,node-name=both,vote-threshold=2,children.0=near,children.1=far",
            "--nbd-server",
            &format!("addr.type=unix,addr.path={}", socket.display()),
            "--export",
            "type=nbd,id=e,node-name=both,writable=on,name=vol",
        ]);
    let server = Server::start_on(&mut command, &dir.path("quorum.log"), &socket);
    Peer { uri: unix(&socket), server, _behind: vec![behind], disk: None }
}
