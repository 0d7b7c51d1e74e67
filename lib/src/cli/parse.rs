//! The command line: clap's reading of it, our wording. Usage errors are one line and a `try:`, exit 2.

use super::{output, run};
use crate::base::{Class, Error};
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;

/// Reads the command line. The error is the exit status after help, version or a usage error was told.
pub fn parse_from<T: clap::Parser>(tool: &str, words: Vec<OsString>) -> Result<T, ExitCode> {
    T::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render().to_string();
            run::run(tool, || Ok(output::print(&text)?))
        }
        _ => run::fail(tool, &usage(tool, &error)),
    })
}

/// The first paragraph of clap's text as one line.
pub(super) fn usage(tool: &str, error: &clap::Error) -> Error {
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command is given".to_owned()
        }
        _ => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
            let line = lines.collect::<Vec<_>>().join(" ");
            line.strip_prefix("error: ").map(ToOwned::to_owned).unwrap_or(line)
        }
    };
    Error::new(Class::Usage, message).hint(format!("{tool} --help"))
}

/// A completion script for one shell: `bash`, `zsh` or `fish`.
pub fn completion(shell: clap_complete::Shell, command: &mut clap::Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    #[test]
    fn usage_errors_are_one_line_with_a_way_out() {
        let command = || {
            Command::new("x").arg(Arg::new("size").long("size").required(true)).subcommand(Command::new("y"))
        };
        for (args, why) in [
            (&["x", "--colour"][..], "unexpected argument '--colour' found"),
            (&["x"], "the following required arguments were not provided: --size <size>"),
            (&["x", "--size"], "a value is required for '--size <size>' but none was supplied"),
        ] {
            let error = usage("x", &command().try_get_matches_from(args).expect_err(why));
            assert_eq!((error.message.as_str(), error.class), (why, Class::Usage));
            assert_eq!(error.hint.as_deref(), Some("x --help"));
        }
    }
}
