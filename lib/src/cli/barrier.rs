//! `mirrord snapshot-barrier`: holds writes, runs a command of the user's, lets them go on.

use super::ask::REPLY;
use super::{output, value};
use crate::base::{Class, Error, Name, Result, error::plain, limits};
use crate::control::{Barrier, StateDir};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Exit status of a command that cannot be run, and of one that is not there, as of env(1) and timeout(1).
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The command line of `mirrord snapshot-barrier`.
#[derive(Clone, Debug, clap::Args)]
pub struct BarrierArgs {
    /// Which volume
    name: Name,
    /// Let writes go on after so long, whatever the command does [default: 10s]
    #[arg(long, value_name = "T", value_parser = value::duration)]
    timeout: Option<Duration>,
    /// What is run while nothing is written
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Holds writes, runs the command, lets writes go on. Ends the process with the status of a command that failed.
/// Errors: that with which nothing was held, and the command was not run; [`Class::Timeout`], whatever the command
/// said, if writes went on before its end.
pub fn snapshot_barrier(args: &BarrierArgs, quiet: bool) -> Result<()> {
    let volume = StateDir::from_environment()?.volume(&args.name);
    let limit = args.timeout.unwrap_or(Duration::from_millis(limits::BARRIER_MS));
    let held = Barrier::begin(&volume, limit, REPLY)
        .map_err(|error| Error { message: format!("{}; the command was not run", error.message), ..error })?;
    let ran = run(args, limit);
    held.end()?;
    let (code, said) = match ran {
        Ok(status) => (code_of(status), format!("the command ended with {}", code_of(status))),
        Err(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
            let program = args.command[0].to_string_lossy();
            (code, format!("{}: running it: {}", program.escape_debug(), plain(&error)))
        }
    };
    if code == 0 {
        return Ok(());
    }
    if !quiet {
        output::tell(&format!("mirrord: {}: {}\n", args.name, output::one_line(&said)));
    }
    std::process::exit(i32::from(code))
}

fn run(args: &BarrierArgs, limit: Duration) -> std::io::Result<ExitStatus> {
    Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("MIRROR_VOLUME", args.name.as_str())
        .env("MIRROR_PHASE", "snapshot")
        .env("MIRROR_TIMEOUT", limit.as_secs_f64().to_string())
        .status()
}

/// As a shell says it: 128 and its number for a signal.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(Class::Internal.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_as_a_shell_says_it() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code_of(ExitStatus::from_raw(raw)), code);
        }
    }
}
