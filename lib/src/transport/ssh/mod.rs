//! A channel to a command on another machine, over SSH: by libssh2 ([`session`]), or by a program of the user's
//! own (`--rsh`, [`command`]). Knows nothing of what is said on it.
//!
//! The command line on the far side is always the same, whatever is copied: paths travel inside the protocol that
//! is spoken on the channel, so that a key can be bound to one command.

pub mod command;
pub mod config;
pub mod hosts;
pub mod pattern;
mod pump;
mod session;
pub mod target;

pub use target::Target;

use super::stream::Timed;
use crate::base::{Class, Error, Result, limits};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most bytes of what the far side says on its standard error that are kept: the last ones.
const STDERR: usize = 4096;
/// Longest wait for the exit status of a command whose channel has ended.
const ENDING: Duration = Duration::from_secs(3);

/// How to get there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A program, and arguments, that is run instead of libssh2.
    pub rsh: Option<String>,
    /// The program over there; `mirror-sync` on its PATH otherwise.
    pub remote_path: Option<String>,
}

/// A channel to a running command.
#[derive(Debug)]
pub struct Link {
    /// What the command says.
    pub reader: Timed,
    /// What it is told. Dropped, the command sees the end of its input.
    pub writer: Timed,
    /// How it ended.
    pub ending: Ending,
}

/// How a command ended, for whoever wonders why there is nothing more to read.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    over: bool,
    stderr: Vec<u8>,
    /// The exit status, or the reason why there is none.
    status: Option<std::result::Result<i32, Error>>,
}

impl Ending {
    fn said(&self, bytes: &[u8]) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.stderr.extend_from_slice(bytes);
        let excess = state.stderr.len().saturating_sub(STDERR);
        state.stderr.drain(..excess);
    }

    fn over(&self, status: std::result::Result<i32, Error>) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.over, state.status) = (true, Some(status));
        self.0.1.notify_all();
    }

    /// Why it ended; `None` if it ended well, or has not ended within a few seconds. Class `Connect`.
    pub fn why(&self, name: &str) -> Option<Error> {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, ENDING, |state| !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        let said = last_line(&state.stderr);
        match state.status.as_ref()? {
            Ok(0) => None,
            Ok(status) => Some(explain(name, *status, &said)),
            Err(error) => Some(error.clone()),
        }
    }
}

/// The last line that holds anything, made harmless.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn explain(name: &str, status: i32, said: &str) -> Error {
    let colon = if said.is_empty() { "" } else { ": " };
    let text = match status {
        // sh(1), COMMAND NOT FOUND; ssh(1), EXIT STATUS
        126 | 127 => {
            let text = format!("{name}: starting mirror-sync over there: it is not to be had{colon}{said}");
            return Error::new(Class::Connect, text).hint("the same with --remote-path /PATH/OF/mirror-sync");
        }
        255 => format!("{name}: connecting{colon}{said}"),
        _ => format!("{name}: the far end has ended with {status}{colon}{said}"),
    };
    Error::new(Class::Connect, text)
}

/// The command line over there.
fn command_line(options: &Options) -> String {
    let program = options.remote_path.as_deref().unwrap_or("mirror-sync");
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if program.chars().all(harmless) {
        return format!("{program} --serve");
    }
    // It is read by the login shell.
    format!("'{}' --serve", program.replace('\'', "'\\''"))
}

/// Starts the far end. Class `Connect` if it cannot be reached, is not whom `known_hosts` knows, or lets nobody in;
/// `Usage` for an `--rsh` that cannot be read. Waits at most [`limits::REMOTE_HELLO_MS`] for each step.
pub fn open(target: &Target, options: &Options) -> Result<Link> {
    let line = command_line(options);
    match &options.rsh {
        Some(rsh) => command::open(target, rsh, &line),
        None => session::open(target, &line),
    }
}

/// Both halves of a socket, with the deadline of a side that says nothing.
fn halves(socket: UnixStream) -> std::io::Result<(Timed, Timed)> {
    let patience = Duration::from_millis(limits::REMOTE_SILENCE_MS);
    Ok((Timed::new(socket.try_clone()?.into(), patience)?, Timed::writer(socket.into(), patience)?))
}

fn failed(name: impl fmt::Display, doing: &str, why: impl fmt::Display) -> Error {
    Error::new(Class::Connect, format!("{name}: {doing}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_over_there_never_changes_with_what_is_copied() {
        let line = |path: Option<&str>| {
            command_line(&Options { remote_path: path.map(ToOwned::to_owned), ..Options::default() })
        };
        assert_eq!(line(None), "mirror-sync --serve");
        assert_eq!(line(Some("/opt/bin/mirror-sync")), "/opt/bin/mirror-sync --serve");
        assert_eq!(line(Some("/o p/m;rm 'x'")), r"'/o p/m;rm '\''x'\''' --serve");
    }

    #[test]
    fn an_end_is_explained_by_what_was_said_last() {
        let ending = Ending::default();
        ending.said(b"one\n\nbash: mirror-sync: \x1b[1mnot found\r\n\n");
        ending.over(Ok(127));
        let error = ending.why("ssh://far").expect("it failed");
        let expected = "ssh://far: starting mirror-sync over there: it is not to be had: bash: mirror-sync:  [1mnot found";
        assert_eq!(error.message, expected);
        let ending = Ending::default();
        ending.over(Ok(0));
        assert_eq!(ending.why("x"), None);
        let ending = Ending::default();
        ending.said(&[b'x'; 10_000]);
        ending.over(Ok(255));
        assert_eq!(ending.why("n").expect("error").message.len(), "n: connecting: ".len() + STDERR);
    }
}
