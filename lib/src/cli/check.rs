//! `mirrord check`: speaks as a plugin of a monitoring system does. One line on standard output, and 0, 1, 2 or 3;
//! whatever goes wrong in finding out is 3, wrong usage too.

use super::{output, parse, run, value};
use crate::base::{Class, Error, Name, Result, limits};
use crate::control::{Judgement, StateDir, Thresholds, Verdict, client, judge};
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// The command line of `mirrord check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Which volume
    name: Name,
    /// CRITICAL when a copy lacks more bytes, or for longer; either may be left out (1G or ,60s)
    #[arg(long, value_name = "BYTES,SECONDS", value_parser = behind)]
    behind: Option<Behind>,
    /// CRITICAL when a copy that has to be brought back stands still for longer
    #[arg(long, value_name = "SECONDS", value_parser = value::duration)]
    stall: Option<Duration>,
}

/// The value of `--behind`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Behind {
    bytes: Option<u64>,
    seconds: Option<Duration>,
}

/// Reads `1G,60s`, `1G` or `,60s`.
fn behind(text: &str) -> Result<Behind> {
    let (bytes, seconds) = text.split_once(',').unwrap_or((text, ""));
    if bytes.is_empty() && seconds.is_empty() {
        return Err(Error::new(Class::Usage, "neither bytes nor seconds: as in 1G,60s"));
    }
    let given = |text: &'_ str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Behind {
        bytes: given(bytes).map(|text| value::size(&text)).transpose()?,
        seconds: given(seconds).map(|text| value::duration(&text)).transpose()?,
    })
}

impl CheckArgs {
    fn thresholds(&self) -> Thresholds {
        Thresholds {
            behind_bytes: self.behind.and_then(|behind| behind.bytes),
            behind_seconds: self.behind.and_then(|behind| behind.seconds).map(|s| s.as_secs_f64()),
            stall_seconds: self.stall.map(|stall| stall.as_secs_f64()),
        }
    }
}

/// Whether the command line asks for a check, right or wrong: the first word that is no option.
pub fn is_asked(args: impl IntoIterator<Item = OsString>) -> bool {
    let mut words = args.into_iter().skip(1).filter(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    words.next().is_some_and(|word| word == "check")
}

/// The whole life of `mirrord check`; `args` finds its arguments in the command line.
pub fn main<T: clap::Parser>(tool: &'static str, args: impl FnOnce(T) -> Option<CheckArgs>) -> ExitCode {
    run::catch_panics(tool, Verdict::Unknown as u8);
    let unknown = |error: &Error| told("", &unknown(error));
    match T::try_parse() {
        Ok(parsed) => match args(parsed) {
            Some(args) => {
                check(&args).unwrap_or_else(|error| told(args.name.as_str(), &self::unknown(&error)))
            }
            None => unknown(&Error::new(Class::Usage, "no check is asked for")),
        },
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let text = error.render().to_string();
            run::run(tool, || Ok(output::print(&text)?))
        }
        Err(error) => unknown(&parse::usage(tool, &error)),
    }
}

fn check(args: &CheckArgs) -> Result<ExitCode> {
    let volume = StateDir::from_environment()?.volume(&args.name);
    let status = client::status(&volume, Duration::from_millis(limits::CHECK_REPLY_MS))?;
    Ok(told(args.name.as_str(), &judge(&status, &args.thresholds())))
}

fn unknown(error: &Error) -> Judgement {
    let way_out = error.hint.as_ref().map_or_else(String::new, |hint| format!(" (try: {hint})"));
    Judgement {
        verdict: Verdict::Unknown,
        text: format!("{}{way_out}", error.message),
        performance: String::new(),
    }
}

/// The line, and the exit status. Nobody can be told that the line could not be printed but by the status.
fn told(name: &str, judgement: &Judgement) -> ExitCode {
    let printed = output::print(&line(name, judgement));
    ExitCode::from(if printed.is_ok() { judgement.verdict as u8 } else { Verdict::Unknown as u8 })
}

fn line(name: &str, judgement: &Judgement) -> String {
    let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
    // What stands behind a bar is read as performance data.
    let text = output::one_line(&judgement.text).replace('|', "/");
    // What keeps it from finding out often names the volume itself.
    let text = text.strip_prefix(&name).unwrap_or(&text);
    let bar = if judgement.performance.is_empty() { "" } else { " | " };
    format!("MIRROR {} - {name}{text}{bar}{}\n", judgement.verdict, judgement.performance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_recognised_before_the_command_line_is_read() {
        for (args, is) in [
            (&["mirrord", "check"][..], true),
            (&["mirrord", "-q", "check", "--wrong"], true),
            (&["mirrord"], false),
            (&["check", "status", "check"], false),
            (&["mirrord", "status", "check"], false),
        ] {
            assert_eq!(is_asked(args.iter().map(OsString::from)), is, "{args:?}");
        }
    }

    #[test]
    fn thresholds_read_as_a_pair_of_which_one_may_be_left_out() {
        let of = |bytes, seconds: Option<u64>| Behind { bytes, seconds: seconds.map(Duration::from_secs) };
        for (text, is) in [
            ("1G,60s", of(Some(1 << 30), Some(60))),
            ("0", of(Some(0), None)),
            (",2m", of(None, Some(120))),
            ("1K,", of(Some(1024), None)),
        ] {
            assert_eq!(behind(text).expect(text), is);
        }
        for bad in ["", ",", "60s,1G", "1G,60s,1", "1G,0"] {
            assert!(behind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_line_is_one_line_and_only_ours_is_behind_the_bar() {
        let judgement = Judgement {
            verdict: Verdict::Critical,
            text: "leg a (no route | to\nhost)".into(),
            performance: "behind=1B".into(),
        };
        assert_eq!(
            line("vol0", &judgement),
            "MIRROR CRITICAL - vol0: leg a (no route / to host) | behind=1B\n"
        );
    }
}
