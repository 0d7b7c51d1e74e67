//! From options to a running driver, and the clean end after it.

use super::driver::{self, Setup, Source};
use super::entrance::{self, Doors, Remove};
use super::members;
use super::metrics::Metrics;
use super::options::{CreateOptions, Entrance, ServeNotice, ServeOptions};
use super::state::{self, MapHandle};
use super::strangers;
use crate::base::{Class, Error, Result, limits};
use crate::control::{StateDir, VolumeDir};
use crate::transport::{self, Bound};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Serves a volume until it is told to stop, by a signal or over its control socket.
///
/// 1. Addresses and certificates are looked at; records and maps are opened for use (`state::open`), then listeners.
/// 2. The driver serves; `READY=1` is told to systemd when requests are admitted.
/// 3. At the end maps that the core calls clean are closed as such, and no leg says PRIMARY any more.
///
/// Classes: `Busy` if another daemon serves it, `Damaged`, `Refused`, `Io`.
pub fn serve(options: &ServeOptions, notice: &mut dyn FnMut(ServeNotice)) -> Result<()> {
    if options.exit_with_parent {
        end_with_parent(options)?;
    }
    let Some(trust) = &options.ephemeral else { return serve_in(options, notice) };
    let scratch = Scratch::new(&options.state_dir)?;
    let state_dir = StateDir::new(&scratch.0);
    super::create::create(&CreateOptions {
        state_dir: state_dir.clone(),
        name: options.name.clone(),
        size: None,
        like: Some(smallest(options)?),
        config: options.config.clone(),
        trust: trust.clone(),
        dry_run: false,
    })?;
    // The sockets stay where administrators look for them.
    let dir = options.volume_dir();
    std::fs::create_dir_all(dir.path())
        .map_err(|e| Error::io(dir.path().display(), "creating the volume's directory", e))?;
    let inner = ServeOptions { state_dir, ..options.clone() };
    let result = serve_with(&inner, &dir, notice);
    for path in [dir.pid(), dir.lock()] {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_dir(dir.path());
    result
}

/// Asks for SIGTERM, a clean stop, when the process that started this one ends (`PR_SET_PDEATHSIG(2const)`). One that
/// ended before this was asked for is noticed by the change of the parent.
fn end_with_parent(options: &ServeOptions) -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|e| Error::os(Class::Internal, &options.name, "asking for the end of the parent", e))?;
    if getppid() == parent {
        return Ok(());
    }
    Err(Error::new(Class::Refused, format!("{}: serving it: the process that asked has ended", options.name)))
}

/// A directory that goes with the process.
struct Scratch(PathBuf);

impl Scratch {
    fn new(state_dir: &StateDir) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let id = crate::base::Id::random()?;
        let path = state_dir.path().join(format!(".ephemeral-{id}"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|e| Error::io(path.display(), "creating a temporary directory", e))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A throw-away mirror is as large as its first leg: the others are checked against it.
fn smallest(options: &ServeOptions) -> Result<crate::leg::LegDevice> {
    let leg = options.config.legs.first();
    leg.map(|leg| leg.device.clone())
        .ok_or_else(|| Error::new(Class::Usage, format!("{}: serving it: no leg is given", options.name)))
}

fn serve_in(options: &ServeOptions, notice: &mut dyn FnMut(ServeNotice)) -> Result<()> {
    serve_with(options, &options.volume_dir(), notice)
}

/// Serves what stands in the directory of `options`, with sockets in `sockets`.
fn serve_with(
    options: &ServeOptions,
    sockets: &VolumeDir,
    notice: &mut dyn FnMut(ServeNotice),
) -> Result<()> {
    let mut config = options.config.clone();
    config.check()?;
    let named = options.reread.as_ref().map_or(&[][..], super::options::Reread::named);
    if options.ephemeral.is_none() {
        members::check_places(&options.volume_dir(), &config.legs)?;
    }
    strangers::check(&options.volume_dir(), &config, &options.strangers, named)?;
    entrance::check(options, sockets)?;
    let opened = state::open(&options.volume_dir(), &config.legs, state::durability(&config))?;
    if config.map_block != opened.block {
        let text = format!(
            "{}: serving it: map-block is {}, it was created with {}",
            options.name,
            config.map_block.bytes(),
            opened.block.bytes()
        );
        return Err(Error::new(Class::Refused, text));
    }
    config.map_block = opened.block;
    let _lock = opened.lock;
    let (signals, hangups) = signals()?;
    let control_path = sockets.control_socket()?;
    let control = transport::listen_unix(&control_path, entrance::SOCKET_MODE)?;
    let _control_file = Remove(control_path);
    let Doors { listeners: doors, tls, stdio, drained } = entrance::open(options, sockets)?;
    let tcp_was_given = options.entrance == Entrance::Activated
        && doors.iter().any(|door| matches!(transport::bound(&door.fd), Some(Bound::Tcp(_))));
    let metrics = Metrics::open(&config, sockets)?;
    if let Some(metrics) = &metrics {
        notice(metrics.notice());
    }
    let pid = sockets.pid();
    crate::device::durable::replace(&pid, format!("{}\n", std::process::id()).as_bytes())?;
    let _pid_file = Remove(pid);
    let records = Arc::new(Mutex::new(opened.records));
    let setup = Setup {
        name: options.name.clone(),
        dir: options.volume_dir(),
        id: opened.id,
        size: opened.size,
        config,
        strangers: options.strangers.clone(),
        starts: opened.starts,
        maps: opened.maps,
        trackers: opened.trackers,
        records: Arc::clone(&records),
        widened: opened.widened,
        notes: opened.notes,
        doors,
        tls,
        stdio,
        control,
        metrics,
        source: Source {
            reread: options.reread.clone(),
            sockets: sockets.clone(),
            entrance: options.entrance,
            tcp_was_given,
        },
        signals,
        hangups,
    };
    let maps = driver::run(setup, notice)?;
    if let Some(drained) = drained {
        drained.wait(Duration::from_millis(limits::LINGER_MS));
    }
    close(maps)?;
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    // Whatever the legs have lost: the marks of trackers are all there.
    for (_, map) in std::mem::take(&mut records.trackers) {
        map.close_clean()?;
    }
    records.demote()
}

/// Step 3.
fn close(maps: Vec<(MapHandle, bool)>) -> Result<()> {
    let mut result = Ok(());
    for (map, clean) in maps {
        if clean {
            result = result.and(map.close_clean());
        }
    }
    result
}

/// The mask of ignored signals is the `SigIgn` of `/proc/self/status` (proc(5)); SIGHUP is its lowest bit.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Streams that become readable, the first at SIGTERM and SIGINT, the second at SIGHUP. Whoever had SIGHUP ignored, as
/// nohup(1) has, still does.
fn signals() -> Result<(UnixStream, Option<UnixStream>)> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ends = stream_of(&[SIGTERM, SIGINT])?;
    let hangups = if hangups_are_ignored() { None } else { Some(stream_of(&[SIGHUP])?) };
    Ok((ends, hangups))
}

/// A stream that gets a byte at each of these signals, as far as there is room.
fn stream_of(signals: &[i32]) -> Result<UnixStream> {
    let fail = |e| Error::os(Class::Internal, "signals", "setting up their handling", e);
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    ours.set_nonblocking(true).map_err(fail)?;
    for signal in signals {
        let pipe = theirs.try_clone().map_err(fail)?;
        signal_hook::low_level::pipe::register(*signal, pipe).map_err(fail)?;
    }
    Ok(ours)
}
