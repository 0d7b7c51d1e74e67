//! Connecting by libssh2: the configuration, the way there (ProxyJump), whether it is the host that is meant, and
//! who one is there.

use super::config::{Settings, expand_home, expand_tokens, read_files};
use super::hosts::{Key, Known, Verdict, name_of};
use super::pump::Pump;
use super::target::Target;
use super::{Ending, Link, failed, halves};
use crate::base::{Address, Class, Error, Result, limits};
use crate::transport::{self, stream};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rustix::event::PollFlags;
use ssh2::{CheckResult, HashType, HostKeyType, KnownHostFileKind, MethodType, Session};
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most hosts to go through.
const JUMPS: usize = 8;
/// Most keys that are offered: servers end a connection after a few (`MaxAuthTries`).
const KEYS: usize = 6;

/// Keys that are tried when none is configured, in the order of `ssh_config(5)`.
const DEFAULT_KEYS: [&str; 3] = ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"];

/// Where one host is, and who one is there.
struct Place {
    /// The address as it was given, for messages.
    name: String,
    /// The name that was given.
    alias: String,
    host: String,
    port: u16,
    user: String,
    settings: Settings,
    home: PathBuf,
}

impl Place {
    /// Reads the configuration.
    fn of(target: &Target) -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let home =
            home.ok_or_else(|| failed(target, "reading the configuration of ssh", "HOME is not set"))?;
        let files = [home.join(".ssh/config"), PathBuf::from("/etc/ssh/ssh_config")];
        let settings = Settings::of(&target.host, &files, &home, &read_files);
        if let Some(what) = settings.not_read.first() {
            let why = format!("{what} is not understood here");
            return Err(
                failed(target, "reading the configuration of ssh", why).hint("the same with --rsh ssh")
            );
        }
        let host = match &settings.host_name {
            Some(name) => expand_tokens(name, &[('h', &target.host)])
                .ok_or_else(|| failed(target, "reading its HostName", "only %h is understood"))?,
            None => target.host.clone(),
        };
        if host.starts_with('-') {
            return Err(Error::new(
                Class::Usage,
                format!("{target}: a host that begins with '-' is refused"),
            ));
        }
        let user = target.user.clone().or_else(|| settings.user.clone()).or_else(own_name);
        let user = user.ok_or_else(|| failed(target, "finding out who one is there", "USER is not set"))?;
        let port = target.port.or(settings.port).unwrap_or(22);
        Ok(Self { name: target.to_string(), alias: target.host.clone(), host, port, user, settings, home })
    }

    /// The name in the files of known hosts.
    fn known_as(&self) -> String {
        match &self.settings.host_key_alias {
            Some(alias) => alias.to_ascii_lowercase(),
            None => name_of(&self.host, self.port),
        }
    }

    fn known_hosts(&self) -> Vec<PathBuf> {
        let or = |given: &Option<Vec<String>>, usual: [&str; 2]| {
            given.clone().unwrap_or_else(|| usual.map(ToOwned::to_owned).to_vec())
        };
        let own = or(&self.settings.user_known_hosts, ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]);
        let all =
            or(&self.settings.global_known_hosts, ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]);
        own.iter().chain(&all).map(|file| expand_home(file, &self.home)).collect()
    }

    /// Private keys to try, and whether they were asked for by name.
    fn keys(&self) -> Vec<PathBuf> {
        let given = &self.settings.identity_files;
        let names: Vec<String> =
            if given.is_empty() { DEFAULT_KEYS.map(ToOwned::to_owned).to_vec() } else { given.clone() };
        let home = self.home.to_string_lossy();
        let tokens = [('h', &self.host[..]), ('n', &self.alias), ('r', &self.user), ('d', &home)];
        let expand = |name: &String| expand_tokens(name, &tokens).map(|name| expand_home(&name, &self.home));
        names.iter().filter_map(expand).filter(|path| path.is_file()).take(KEYS).collect()
    }
}

/// One's own name here.
fn own_name() -> Option<String> {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named
        .filter(|name| !name.is_empty())
        .or_else(|| rustix::process::getuid().is_root().then(|| "root".to_owned()))
}

/// Connects, directly or through other hosts, and starts the command.
pub(super) fn open(target: &Target, line: &str) -> Result<Link> {
    let place = Place::of(target)?;
    let (session, fd) = connect(&place, 0)?;
    let fail = |doing: &str, e: &ssh2::Error| failed(target, doing, e.message());
    let mut channel = session.channel_session().map_err(|e| fail("opening a channel", &e))?;
    channel.exec(line).map_err(|e| fail("starting mirror-sync over there", &e))?;
    let (ours, socket) = UnixStream::pair().map_err(|e| failed(target, "making a socket", e))?;
    let ending = Ending::default();
    Pump { session, fd, channel, socket, name: target.to_string(), ending: ending.clone() }.start()?;
    let (reader, writer) = halves(ours).map_err(|e| failed(target, "making a socket", e))?;
    Ok(Link { reader, writer, ending })
}

/// A session with somebody who is the host that is meant, and lets us in.
fn connect(place: &Place, depth: usize) -> Result<(Session, OwnedFd)> {
    let jumps = place.settings.proxy_jump.as_deref().filter(|jump| !jump.eq_ignore_ascii_case("none"));
    match jumps {
        None => login(place, dial(place)?),
        Some(_) if depth >= JUMPS => {
            Err(failed(&place.name, "going through its ProxyJump", "too many of them"))
        }
        Some(jumps) => login(place, through(place, jumps, depth)?),
    }
}

/// A socket that other hosts carry on: `[USER@]HOST[:PORT]` with commas between them, the nearest first.
fn through(place: &Place, jumps: &str, depth: usize) -> Result<OwnedFd> {
    let (before, last) = match jumps.rsplit_once(',') {
        Some((before, last)) => (Some(before.to_owned()), last),
        None => (None, jumps),
    };
    let text = format!("ssh://{}/", last.trim().trim_start_matches("ssh://").trim_end_matches('/'));
    let target: Target =
        text.parse().map_err(|error: Error| failed(&place.name, "reading its ProxyJump", error.message))?;
    let mut jump = Place::of(&target)?;
    if before.is_some() {
        jump.settings.proxy_jump = before;
    }
    let (session, fd) = connect(&jump, depth + 1)?;
    let channel = session
        .channel_direct_tcpip(&place.host, place.port, None)
        .map_err(|e| failed(&jump.name, &format!("going on to {}", place.host), e.message()))?;
    let (ours, socket) = UnixStream::pair().map_err(|e| failed(&place.name, "making a socket", e))?;
    let name = jump.name.clone();
    Pump { session, fd, channel, socket, name, ending: Ending::default() }.start()?;
    Ok(ours.into())
}

/// A TCP connection.
fn dial(place: &Place) -> Result<OwnedFd> {
    let named = |error: Error| Error { message: format!("{}: {}", place.name, error.message), ..error };
    let address = Address::Tcp { host: place.host.clone(), port: place.port };
    let mut last = None;
    for endpoint in transport::resolve(&address).map_err(named)? {
        let begun = transport::connect(&endpoint).map_err(named)?;
        let patience = Duration::from_millis(limits::REMOTE_HELLO_MS);
        match stream::ready(begun.as_fd(), PollFlags::OUT, patience) {
            Ok(true) => match transport::finish(&begun) {
                Ok(()) => return Ok(begun),
                Err(e) => last = Some(named(e)),
            },
            Ok(false) => {
                let text = format!("{}: connecting to {endpoint}: no answer", place.name);
                last = Some(Error::new(Class::Timeout, text));
            }
            Err(e) => last = Some(failed(&place.name, "connecting", e)),
        }
    }
    Err(last.unwrap_or_else(|| failed(&place.name, "connecting", "it has no address")))
}

/// Also the socket once more, for whoever waits on it.
fn login(place: &Place, socket: OwnedFd) -> Result<(Session, OwnedFd)> {
    let fail = |doing: &str, e: &ssh2::Error| failed(&place.name, doing, e.message());
    let mut session = Session::new().map_err(|e| fail("beginning SSH", &e))?;
    session.set_timeout(limits::REMOTE_HELLO_MS as u32);
    let fd = socket.try_clone().map_err(|e| failed(&place.name, "beginning SSH", e))?;
    session.set_tcp_stream(socket);
    let known = read_known(place, &session)?;
    // A host with several keys is asked for one that is known.
    let wanted: Vec<_> = known.kinds().into_iter().flat_map(algorithms).copied().collect();
    if !wanted.is_empty() {
        session.method_pref(MethodType::HostKey, &wanted.join(",")).map_err(|e| fail("beginning SSH", &e))?;
    }
    session.handshake().map_err(|e| {
        let kinds = known.kinds().join(", ");
        let known = if kinds.is_empty() { kinds } else { format!(" (it is known by {kinds})") };
        failed(&place.name, "beginning SSH", format_args!("{}{known}", e.message()))
    })?;
    verify(place, &session, &known)?;
    authenticate(place, &session)?;
    Ok((session, fd))
}

/// The signatures of one type of host key.
fn algorithms(kind: &str) -> &'static [&'static str] {
    match kind {
        "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
        "ssh-ed25519" => &["ssh-ed25519"],
        "ecdsa-sha2-nistp256" => &["ecdsa-sha2-nistp256"],
        "ecdsa-sha2-nistp384" => &["ecdsa-sha2-nistp384"],
        "ecdsa-sha2-nistp521" => &["ecdsa-sha2-nistp521"],
        _ => &[],
    }
}

fn kind_of(key: HostKeyType) -> Option<&'static str> {
    Some(match key {
        HostKeyType::Rsa => "ssh-rsa",
        HostKeyType::Dss => "ssh-dss",
        HostKeyType::Ecdsa256 => "ecdsa-sha2-nistp256",
        HostKeyType::Ecdsa384 => "ecdsa-sha2-nistp384",
        HostKeyType::Ecdsa521 => "ecdsa-sha2-nistp521",
        HostKeyType::Ed25519 => "ssh-ed25519",
        HostKeyType::Unknown => return None,
    })
}

/// What the files know of a host. Names that are hashed there are compared by libssh2, a line at a time.
fn read_known(place: &Place, session: &Session) -> Result<Known> {
    let name = place.known_as();
    let hashed = |line: &str| {
        let Some(key) = line.split_whitespace().nth(2).and_then(|text| STANDARD.decode(text).ok()) else {
            return false;
        };
        let Ok(mut one) = session.known_hosts() else { return false };
        one.read_str(line, KnownHostFileKind::OpenSSH).is_ok()
            && matches!(one.check(&name, &key), CheckResult::Match)
    };
    let mut known = Known::default();
    for file in place.known_hosts() {
        match std::fs::read(&file) {
            Ok(text) => known.read(&file, &String::from_utf8_lossy(&text), &name, &hashed),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::os(Class::Connect, file.display(), "reading the known hosts", e)),
        }
    }
    Ok(known)
}

/// Nothing is said to a host, and nothing believed, before this.
fn verify(place: &Place, session: &Session, known: &Known) -> Result<()> {
    let doing = "verifying its host key";
    let (blob, kind) = session.host_key().ok_or_else(|| failed(&place.name, doing, "it has shown none"))?;
    let kind = kind_of(kind).ok_or_else(|| failed(&place.name, doing, "a key of an unknown type"))?;
    let key = Key { kind: kind.to_owned(), base64: STANDARD.encode(blob) };
    let print = session.host_key_hash(HashType::Sha256).map(|hash| STANDARD_NO_PAD.encode(hash));
    let shown = format!("{kind} SHA256:{}", print.unwrap_or_default());
    let own = place.known_hosts().into_iter().next().unwrap_or_default();
    let at = |file: &Path, line: usize| format!("{}, line {line}", file.display());
    match known.judge(&key) {
        Verdict::Known => Ok(()),
        Verdict::Unknown => {
            let why = format!("{shown} is not in {}; if it is the right one", own.display());
            let line = format!("{} {} {}", place.known_as(), key.kind, key.base64);
            Err(failed(&place.name, doing, why).hint(format!("echo '{line}' >> {}", own.display())))
        }
        Verdict::Changed { file, line } => {
            let why =
                format!("it is {shown}, and another one stands in {}; somebody may listen", at(&file, line));
            let line = format!("ssh-keygen -f {} -R '{}'", file.display(), place.known_as());
            Err(failed(&place.name, doing, why).hint(format!("{line}   # only if the host was made anew")))
        }
        Verdict::Revoked { file, line } => {
            Err(failed(&place.name, doing, format!("{shown} is revoked in {}", at(&file, line))))
        }
    }
}

/// What was tried to get in.
#[derive(Default)]
struct Tried(Vec<String>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("no key to show") } else { f.write_str(&self.0.join(", ")) }
    }
}

/// By the keys of an agent, then by those of files. Nothing is ever asked.
fn authenticate(place: &Place, session: &Session) -> Result<()> {
    let methods = session.auth_methods(&place.user).unwrap_or_default().to_owned();
    if session.authenticated() {
        return Ok(());
    }
    let mut tried = Tried::default();
    if !methods.is_empty() && !methods.split(',').any(|method| method == "publickey") {
        let why = format!("it takes {methods}, and only keys can be shown");
        return Err(failed(&place.name, &format!("logging in as {}", place.user), why)
            .hint("the same with --rsh ssh"));
    }
    let keys = place.keys();
    by_agent(place, session, &keys, &mut tried);
    for path in keys.iter().filter(|_| !session.authenticated()).collect::<Vec<_>>() {
        if session.authenticated() {
            break;
        }
        if let Err(e) = session.userauth_pubkey_file(&place.user, None, path, None) {
            let why = match e.code() {
                // LIBSSH2_ERROR_AUTHENTICATION_FAILED, LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED
                ssh2::ErrorCode::Session(-18 | -19) => "is not accepted".to_owned(),
                _ if is_encrypted(path) => "is encrypted (ssh-add it)".to_owned(),
                _ => e.message().to_owned(),
            };
            tried.0.push(format!("{} {why}", path.display()));
        }
    }
    if session.authenticated() {
        return Ok(());
    }
    let doing = format!("logging in as {}", place.user);
    let port = if place.port == 22 { String::new() } else { format!("-p {} ", place.port) };
    let hint = format!("ssh-copy-id {port}{}@{}", place.user, place.alias);
    Err(failed(&place.name, &doing, &tried).hint(hint))
}

fn by_agent(place: &Place, session: &Session, keys: &[PathBuf], tried: &mut Tried) {
    if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        return;
    }
    let agent = session.agent().and_then(|mut agent| {
        agent.connect()?;
        agent.list_identities()?;
        let all = agent.identities()?;
        Ok((agent, all))
    });
    let (agent, mut all) = match agent {
        Ok(found) => found,
        Err(e) => return tried.0.push(format!("the agent: {}", e.message())),
    };
    if place.settings.identities_only == Some(true) {
        let blobs: Vec<_> = keys.iter().filter_map(|key| public_blob(key)).collect();
        all.retain(|identity| blobs.iter().any(|blob| blob == identity.blob()));
    }
    let count = all.len();
    for identity in all.iter().take(KEYS) {
        if agent.userauth(&place.user, identity).is_ok() {
            return;
        }
    }
    tried.0.push(format!("{count} keys of the agent"));
}

/// The public half beside a private key.
fn public_blob(key: &Path) -> Option<Vec<u8>> {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    let text = std::fs::read_to_string(name).ok()?;
    STANDARD.decode(text.split_whitespace().nth(1)?).ok()
}

/// Whether a key needs a passphrase, by what its file says: PEM names it, and what OpenSSH writes begins otherwise
/// without one (PROTOCOL.key, the name of the cipher).
fn is_encrypted(key: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(key) else { return false };
    if text.contains("ENCRYPTED") {
        return true;
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let body = STANDARD.decode(body).unwrap_or_default();
    let cipher = body.strip_prefix(b"openssh-key-v1\0").and_then(|rest| rest.get(4..8));
    cipher.is_some_and(|cipher| cipher != b"none")
}
