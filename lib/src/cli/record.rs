//! `cfor-log record`: sees changes as they happen, until it is told to end, or as long as a command runs.

use super::{output, value};
use crate::base::{Class, Error, Result};
use crate::capture::fanotify::BigOptions;
use crate::capture::fanotify::Recorder;
use crate::capture::fanotify::noter;
use crate::capture::seccomp::Prepared;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

/// What sees the changes. What is not here is not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Events of the whole file system, from all processes; needs root
    Fanotify,
    /// System calls of a command, and of nobody else; needs no privileges
    Seccomp,
}

/// The command line of `cfor-log record`.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// The directory where the source remembers its rounds
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// What sees the changes
    #[arg(long, value_enum, default_value_t = Backend::Fanotify)]
    backend: Backend,
    /// See byte ranges of files of at least this size: dumps read these, not the whole file; 0 for none
    #[arg(long, value_name = "SIZE", value_parser = value::size, default_value = "256M")]
    ranges: u64,
    /// Print one JSON document when recording has begun
    #[arg(long)]
    json: bool,
    /// Record as long as this command runs, and end as it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `cfor-log record`
pub fn record(args: &RecordArgs, quiet: bool) -> anyhow::Result<()> {
    if args.backend == Backend::Seccomp {
        return record_command(args, quiet);
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|e| Error::os(Class::Internal, "signals", "taking them", e))?;
    let mut noter = Command::new("/proc/self/exe");
    noter.arg(NOTER);
    let ranges = (args.ranges > 0).then_some(BigOptions { least: args.ranges, noter });
    let recorder = Recorder::open(&args.root, &args.log, ranges)?;
    let (root, log) = (args.root.display(), args.log.display());
    if args.json {
        output::print_json(&recorder.answer())?;
    }
    if !quiet {
        let ranges = recorder.answer().ranges.map(|ranges| format!("; {ranges}"));
        output::tell(&format!("{root}: recording into {log}{}\n", ranges.unwrap_or_default()));
    }
    // Whoever started it may not be systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut child = start(&args.command)?;
    let (mut signal, mut status): (Option<i32>, Option<ExitStatus>) = (None, None);
    let end = || {
        for caught in signals.pending() {
            match &child {
                // The command is told, and ends or not; what it does until then is recorded.
                Some(child) => tell(child, caught),
                None => signal = Some(caught),
            }
        }
        if let Some(child) = &mut child
            && let Ok(Some(ended)) = child.try_wait()
        {
            status = Some(ended);
        }
        signal.is_some() || status.is_some()
    };
    // Not less than an error, so it is told to who wants quiet too.
    recorder.run(end, |news| output::tell(&format!("cfor-log: {root}: {news}\n")))?;
    let signal = signal.or_else(|| status.and_then(|status| status.signal()));
    end_as(signal, status.and_then(|status| status.code()))
}

/// The same for a command whose own calls are seen.
fn record_command(args: &RecordArgs, quiet: bool) -> anyhow::Result<()> {
    let log = args.log.display();
    if args.command.is_empty() {
        let error =
            Error::new(Class::Usage, format!("{log}: recording: a command is needed whose calls are seen"));
        let try_this = format!(
            "cfor-log record --backend seccomp --log {log} --root {} -- COMMAND",
            args.root.display()
        );
        return Err(error.hint(try_this).into());
    }
    let prepared = Prepared::open(&args.root, &args.log)?;
    if args.json {
        output::print_json(&prepared.answer())?;
    }
    if !quiet {
        output::tell(&format!("{}: recording into {log}\n", args.root.display()));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let status = prepared.run(&args.command, &|error| {
        output::tell(&format!(
            "cfor-log: {error}\ncfor-log: the command goes on unrecorded; the next dump scans\n"
        ));
    })?;
    end_as(status.terminating_signal(), status.exit_status())
}

/// Ends as the command did.
fn end_as(signal: Option<i32>, code: Option<i32>) -> anyhow::Result<()> {
    if let Some(signal) = signal {
        // It fails only for signals that do not end a process.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    match code {
        None | Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
    }
}

/// The verb that [`note`] is; nobody types it.
pub const NOTER: &str = "note-ranges";

/// `cfor-log note-ranges`: the process that a recorder starts to note accesses to big files.
pub fn note() -> anyhow::Result<()> {
    let input = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
    let input = input.map_err(|e| Error::io("standard input", "taking it", e))?;
    rustix::net::sockopt::socket_domain(&input)
        .map_err(|_| Error::new(Class::Usage, "note-ranges: only cfor-log record starts it"))?;
    Ok(noter::run(input.into())?)
}

fn start(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program)
        .args(arguments)
        .spawn()
        .map_err(|e| Error::os(Class::Usage, program.to_string_lossy().escape_debug(), "starting it", e))?;
    Ok(Some(child))
}

fn tell(child: &Child, signal: i32) {
    let signal = if signal == SIGINT { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
    // It may have ended just now.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
}
