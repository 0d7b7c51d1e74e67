//! TLS: clients before it, in the middle of it, and without it. What the parser alone shows is in
//! `lib/src/nbd/server/tls_tests.rs`, what the tunnel alone shows in `lib/src/transport/tls/tests.rs`.

use super::raw::{
    ACK, At, GO, INFO, LIST, MIB, Raw, SET_META, STRUCTURED, contexts, export, option, pattern, port,
};
use crate::support::pki::{Authority, Wanted, complete};
use crate::support::{Dir, Volume, need, run, wait_for};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::Read as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SIZE: u64 = 16 * MIB;
const STARTTLS: u32 = 5;
const EXTENDED: u32 = 11;
const TLS_REQD: u32 = 1 << 31 | 5;
const INVALID: u32 = 1 << 31 | 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// A volume that is served on its socket, and over TLS on a port.
struct Place<'d> {
    volume: Volume<'d>,
    unix: At,
    tcp: At,
    address: String,
    pki: PathBuf,
    authority: Authority,
}

impl<'d> Place<'d> {
    fn new(dir: &'d Dir) -> Self {
        let leg = format!("a={}", dir.image("a.img", SIZE).display());
        let mut volume = Volume::create(dir, SIZE, &[&leg], &["--known-zero"]);
        let pki = dir.path("pki");
        let authority = complete(&pki);
        let address = format!("127.0.0.1:{}", port());
        volume.serve_config(&config(dir, &volume, &address));
        volume.wait_synced();
        let unix = At::Unix(volume.socket().to_owned());
        Self { volume, unix, tcp: At::Tcp(address.clone()), address, pki, authority }
    }

    /// The daemon is the same, and serves over both ways.
    #[track_caller]
    fn ends_well(mut self) {
        assert!(self.volume.server().is_running(), "{}", self.volume.server().log());
        let mut plain = Raw::simple(&self.unix);
        plain.pwrite(0, &pattern(0, 4096));
        let mut secure = self.secure();
        assert_eq!(secure.option(GO, &export("vol")), ACK);
        assert_eq!(secure.pread(0, 4096), pattern(0, 4096));
        drop((plain, secure));
        self.volume.stop();
    }

    /// A client past STARTTLS and the handshake of TLS.
    fn secure(&self) -> Raw {
        Raw::over(shaken(asked(&self.address), &self.pki).expect("TLS"))
    }

    fn clients(&self) -> u64 {
        self.volume.status()["clients"].as_u64().expect("clients")
    }
}

/// The configuration: a socket, a port, a directory of certificates.
fn config(dir: &Dir, volume: &Volume<'_>, address: &str) -> PathBuf {
    let file = dir.path("volume.toml");
    let (socket, pki) = (volume.socket().display(), dir.path("pki"));
    let text =
        format!("[volume.vol]\nlisten = ['{address}']\nunix = '{socket}'\ntls-dir = '{}'\n", pki.display());
    std::fs::write(&file, text).expect("configuration");
    file
}

/// A connection that has been told that TLS may begin.
fn asked(address: &str) -> TcpStream {
    use std::io::Write as _;
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting).expect("greeting");
    socket.write_all(&[&[0, 0, 0, 3][..], &option(STARTTLS, &[])].concat()).expect("ask");
    let mut reply = [0; 20];
    socket.read_exact(&mut reply).expect("reply");
    assert_eq!(reply[12..], [0, 0, 0, 1, 0, 0, 0, 0], "acknowledged");
    socket
}

/// What a client goes by that believes the authority of this directory, and shows the certificate in it, if any.
fn believing(pki: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(pki.join("ca-cert.pem")).expect("authority");
    roots.add(authority).expect("authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    let certificate = CertificateDer::from_pem_file(pki.join("client-cert.pem"));
    Arc::new(match certificate {
        Ok(certificate) => {
            let key = PrivateKeyDer::from_pem_file(pki.join("client-key.pem")).expect("key");
            builder.with_client_auth_cert(vec![certificate], key).expect("certificate")
        }
        Err(_) => builder.with_no_client_auth(),
    })
}

fn shaken(mut socket: TcpStream, pki: &Path) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").expect("name");
    let mut tls = ClientConnection::new(believing(pki), name).expect("client");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(tls, socket))
}

#[test]
fn s12_before_tls_every_option_is_refused_and_the_conversation_stays_in_step() {
    let dir = Dir::new();
    let place = Place::new(&dir);
    let mut raw = Raw::greeted(&place.tcp);
    let inside = [option(GO, &export("vol")), vec![7; 5000]].concat();
    for number in [LIST, INFO, GO, STRUCTURED, SET_META, EXTENDED, 9, 99] {
        for data in [&[][..], &inside, &export("vol")] {
            assert_eq!(raw.option(number, data), TLS_REQD, "option {number}");
        }
    }
    assert_eq!(raw.option(STARTTLS, b"data"), INVALID);
    assert_eq!(raw.option(GO, &export("vol")), TLS_REQD);
    // EXPORT_NAME cannot be refused; ABORT is heard.
    raw.send(&option(1, b"vol"));
    assert_eq!(raw.end(), [0; 0]);
    let mut raw = Raw::greeted(&place.tcp);
    assert_eq!(raw.option(2, &[]), ACK);
    assert_eq!(raw.end(), [0; 0]);
    // The socket is plain, as ever, and knows no TLS.
    let mut raw = Raw::greeted(&place.unix);
    assert_eq!(raw.option(STARTTLS, &[]), 1 << 31 | 1);
    assert_eq!(raw.option(GO, &export("vol")), ACK);
    drop(raw);
    place.ends_well();
}

#[test]
fn s11_nothing_said_in_the_clear_means_anything_after_starttls() {
    let dir = Dir::new();
    let place = Place::new(&dir);
    let mut raw = Raw::greeted(&place.tcp);
    for (number, data) in
        [(STRUCTURED, vec![]), (SET_META, contexts("vol", &["base:allocation"])), (EXTENDED, vec![])]
    {
        assert_eq!(raw.option(number, &data), TLS_REQD);
    }
    drop(raw);
    // Over TLS a client that has not asked for structured replies gets simple ones, and no extents.
    let mut secure = place.secure();
    assert_eq!(secure.option(STARTTLS, &[]), INVALID, "TLS is there already");
    assert_eq!(secure.option(GO, &export("vol")), ACK);
    let cookie = secure.ask_for(0, super::raw::READ, 0, 512);
    let reply = secure.reply(512);
    assert_eq!((reply.kind, reply.cookie, reply.error), (None, cookie, 0), "a simple reply");
    assert_eq!(secure.outcome(0, super::raw::STATUS, 0, 512, &[]), super::raw::EINVAL);
    drop(secure);
    // Over TLS everything is there that there is without.
    let mut secure = place.secure();
    assert_eq!(secure.option(STRUCTURED, &[]), ACK);
    assert_eq!(secure.option(SET_META, &contexts("vol", &["base:allocation"])), ACK);
    assert_eq!(secure.option(GO, &export("vol")), ACK);
    assert!(!secure.extents(0, 0, 1 << 20).is_empty());
    drop(secure);
    place.ends_well();
}

#[test]
fn s11_plaintext_behind_starttls_is_never_taken_for_an_option() {
    let dir = Dir::new();
    let place = Place::new(&dir);
    let behind = [option(STRUCTURED, &[]), option(GO, &export("vol")), vec![0; 28]].concat();
    for pause in [0, 100] {
        let mut raw = Raw::greeted(&place.tcp);
        raw.send(&option(STARTTLS, &[]));
        std::thread::sleep(Duration::from_millis(pause));
        raw.try_send(&behind);
        let mut all = raw.end();
        // The acknowledgement, and perhaps an alert of TLS (RFC 8446 section 6); no reply to an option.
        if all.starts_with(&0x0003_e889_0455_65a9_u64.to_be_bytes()) {
            assert_eq!(all[8..20], [0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0]);
            all.drain(..20);
        }
        assert!(all.is_empty() || all[0] == 21, "{all:?}");
    }
    wait_for("the clients are gone", PATIENCE, || place.clients() == 0);
    place.ends_well();
}

#[test]
fn s12_a_client_without_a_certificate_of_the_authority_is_not_served() {
    let dir = Dir::new();
    let place = Place::new(&dir);
    let (none, strange) = (dir.path("none"), dir.path("strange"));
    for other in [&none, &strange] {
        std::fs::create_dir(other).expect("directory");
        place.authority.write(other);
    }
    Authority::new("a stranger").sign(&strange, &Wanted::client());
    for other in [&none, &strange] {
        // In TLS 1.3 the client may believe for a moment that it is served.
        let Ok(stream) = shaken(asked(&place.address), other) else { continue };
        let mut raw = Raw::over(stream);
        raw.try_send(&option(GO, &export("vol")));
        let mut bytes = [0; 20];
        let answer = raw.try_read(&mut bytes);
        assert!(!matches!(answer, Ok(n) if n > 0), "{answer:?} {bytes:?}");
    }
    wait_for("they are gone", PATIENCE, || place.clients() == 0);
    place.ends_well();
}

/// Processor time of a process, in ticks of 10 ms (proc(5)).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let behind = stat.rsplit(')').next().expect("fields");
    behind.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum()
}

/// How many threads of a process are tunnels.
fn tunnels(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let name =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks
        .filter_map(Result::ok)
        .filter(|task| std::fs::metadata(task.path()).is_ok())
        .map(name)
        .filter(|name| name.trim() == "tls")
        .count()
}

/// What a thread that never waits gets of the processor in this time, however loaded the machine is.
fn running_in_circles(window: Duration) -> Duration {
    let had = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    };
    let (before, until) = (had(), std::time::Instant::now() + window);
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
    had().saturating_sub(before)
}

#[test]
fn s29_a_peer_that_closes_in_any_way_leaves_no_thread_and_no_busy_loop() {
    let dir = Dir::new();
    let mut place = Place::new(&dir);
    let pid = place.volume.server().pid();
    let mut kept = Vec::new();
    for round in 0..24 {
        let socket = asked(&place.address);
        let half = socket.try_clone().expect("clone");
        match round % 4 {
            // Before the first byte of TLS; in the middle of the conversation; half of it; behind a request.
            0 => drop(socket),
            1 => drop(shaken(socket, &place.pki).expect("TLS")),
            2 => {
                let stream = shaken(socket, &place.pki).expect("TLS");
                half.shutdown(std::net::Shutdown::Write).expect("shutdown");
                kept.push(stream);
            }
            _ => {
                let mut raw = Raw::over(shaken(socket, &place.pki).expect("TLS"));
                assert_eq!(raw.option(GO, &export("vol")), ACK);
                raw.ask_for(0, super::raw::READ, 0, 1 << 20);
                half.shutdown(std::net::Shutdown::Both).expect("shutdown");
            }
        }
    }
    wait_for("the clients are gone", PATIENCE, || place.clients() == 0);
    wait_for("the tunnels are gone", PATIENCE, || tunnels(pid) == 0);
    drop(kept);
    // And one that stays without a word costs nothing.
    let idle = place.secure();
    assert_eq!(tunnels(pid), 1);
    let before = ticks(pid);
    let running = running_in_circles(Duration::from_secs(2));
    let cost = Duration::from_millis(10) * u32::try_from(ticks(pid) - before).expect("ticks");
    assert!(cost < running / 4, "{cost:?}, while a thread that never waits had {running:?}");
    drop(idle);
    place.ends_well();
}

#[test]
fn s8_clients_that_stop_in_the_middle_of_tls_do_not_keep_the_daemon() {
    let dir = Dir::new();
    let mut place = Place::new(&dir);
    let pid = place.volume.server().pid();
    // Asked for and never begun; begun and never ended; ended and never said anything.
    let silent: Vec<_> = (0..40).map(|_| asked(&place.address)).collect();
    let begun: Vec<_> = (0..20)
        .map(|_| {
            let mut socket = asked(&place.address);
            let name = ServerName::try_from("localhost").expect("name");
            let mut tls = ClientConnection::new(believing(&place.pki), name).expect("client");
            tls.write_tls(&mut socket).expect("hello");
            (tls, socket)
        })
        .collect();
    let shaken: Vec<_> = (0..20).map(|_| place.secure()).collect();
    wait_for("80 tunnels", PATIENCE, || tunnels(pid) == 80);
    let start = std::time::Instant::now();
    place.volume.stop();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop((silent, begun, shaken));
}

#[test]
fn files_that_are_no_good_are_told_at_the_start_and_by_a_reload_and_new_ones_are_taken() {
    let dir = Dir::new();
    let mut place = Place::new(&dir);
    let key = place.pki.join("server-key.pem");
    let log = |place: &mut Place<'_>| place.volume.server().log();
    // A reload with a bad file changes nothing.
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("mode");
    place.volume.server().signal("HUP");
    wait_for("it is told", PATIENCE, || log(&mut place).contains("reload: nothing is changed"));
    assert!(log(&mut place).contains("others than its owner can read it"), "{}", log(&mut place));
    drop(place.secure());
    // Renewed, by another authority: from now on its clients only.
    let old = dir.path("old");
    std::fs::rename(&place.pki, &old).expect("rename");
    place.authority = complete(&place.pki);
    place.volume.server().signal("HUP");
    wait_for("the new ones are taken", PATIENCE, || shaken(asked(&place.address), &place.pki).is_ok());
    assert!(shaken(asked(&place.address), &old).is_err(), "the old authority is not believed any more");
    place.volume.stop();
    // At a start it is an error, before anybody can connect.
    for (spoil, code, why) in [
        (Spoil::Expired, 3, "expired on 2001-01-01"),
        (Spoil::Readable, 3, "others than its owner can read it (its mode is 0644)"),
        (Spoil::Mismatch, 2, "the private key beside it belongs to another certificate"),
        (Spoil::Missing, 2, "server-cert.pem: reading the server's certificate: No such file"),
    ] {
        place.authority = complete(&place.pki);
        match spoil {
            Spoil::Expired => {
                let expired = Wanted { expired: true, ..Wanted::server(&["localhost"]) };
                place.authority.sign(&place.pki, &expired);
            }
            Spoil::Readable => {
                std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                    .expect("mode");
            }
            Spoil::Mismatch => drop(std::fs::copy(place.pki.join("client-key.pem"), &key).expect("copy")),
            Spoil::Missing => {
                std::fs::remove_file(&key).expect("remove");
                std::fs::remove_file(place.pki.join("server-cert.pem")).expect("remove");
            }
        }
        let file = dir.path("volume.toml");
        let out = place.volume.mirrord(&["serve", "vol", "--config", &file.to_string_lossy()]);
        assert_eq!(out.code, code, "{}", out.stderr);
        assert!(out.stderr.contains(why), "{}", out.stderr);
        assert!(out.stderr.lines().filter(|line| !line.starts_with("try:")).count() == 1, "{}", out.stderr);
    }
}

enum Spoil {
    Expired,
    Readable,
    Mismatch,
    Missing,
}

#[test]
fn a_listener_that_asks_for_certificates_may_be_reached_from_everywhere() {
    let dir = Dir::new();
    let leg = format!("a={}", dir.image("a.img", SIZE).display());
    let volume = Volume::create(&dir, SIZE, &[&leg], &["--known-zero"]);
    let pki = dir.path("pki");
    complete(&pki);
    let pki_text = pki.to_string_lossy().into_owned();
    let address = format!("0.0.0.0:{}", port());
    // Without an authority nothing asks who comes.
    std::fs::remove_file(pki.join("ca-cert.pem")).expect("remove");
    let out = volume.mirrord(&["serve", "vol", "--listen", &address, "--tls-dir", &pki_text]);
    assert_eq!(out.code, 3, "{}", out.stderr);
    assert!(out.stderr.contains("can be reached from other machines by anybody"), "{}", out.stderr);
    complete(&pki);
    let mut command = std::process::Command::new(crate::support::bin("mirrord"));
    command.env("MIRROR_STATE_DIR", dir.state());
    command.args(["serve", "vol", "--listen", &address, "--tls-dir", &pki_text]);
    let server = crate::support::Server::start(&mut command, &dir.path("wide.log"));
    wait_for("its URI", PATIENCE, || server.log().contains("nbds://0.0.0.0:"));
    let reachable = address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(Raw::over(shaken(asked(&reachable), &pki).expect("TLS")).option(GO, &export("vol")), ACK);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn libnbd_and_qemu_are_clients_over_tls() {
    if !need(&["python3-libnbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let place = Place::new(&dir);
    let (_, number) = place.address.rsplit_once(':').expect("port");
    let script = format!(
        "import nbd; h = nbd.NBD(); h.set_tls(nbd.TLS_REQUIRE); h.set_tls_certificates('{pki}')\n\
         h.set_export_name('vol'); h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\n\
         h.connect_tcp('localhost', '{number}')\n\
         assert h.get_tls_negotiated() and h.get_structured_replies_negotiated()\n\
         d = bytes(range(256)) * 16384; h.pwrite(d, 65536); h.flush(); assert h.pread(len(d), 65536) == d\n\
         h.shutdown()",
        pki = place.pki.display()
    );
    let out = run("/usr/bin/python3", &["-c", &script]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    let creds = format!("tls-creds-x509,id=t,dir={},endpoint=client", place.pki.display());
    let image = format!("driver=nbd,host=localhost,port={number},export=vol,tls-creds=t");
    let writes = ["-c", "write -P 0xab 8M 2M", "-c", "flush", "-c", "read -P 0xab 8M 2M"];
    let args = [&["--object", &creds, "--image-opts", &image][..], &writes].concat();
    let out = run("qemu-io", &args);
    assert!(out.code == 0 && !out.stdout.contains("failed"), "{}{}", out.stdout, out.stderr);
    let copy = dir.path("copy.img");
    let args = ["convert", "--object", &creds, "--image-opts", &image, "-O", "raw", &copy.to_string_lossy()];
    let out = run("qemu-img", &args);
    assert_eq!(out.code, 0, "{}", out.stderr);
    place.volume.mirrord(&["status", "vol"]).expect(0);
    crate::support::assert_equal(&copy, &dir.path("a.img"));
    // Without TLS neither is served.
    let out = run("qemu-img", &["info", &format!("nbd://{}/vol", place.address)]);
    assert!(out.code != 0 && out.stderr.contains("TLS"), "{}", out.stderr);
    place.ends_well();
}
