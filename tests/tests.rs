//! Table of contents: one line per module.

#![forbid(unsafe_code)]

mod contract; // what every program must do: help, version, bad input, closed pipes, one line per error
mod documents; // man pages and completions against --help
mod support; // own directory per test, run programs, start and reap servers, skip loudly
mod tidy; // floors, sizes, banned words
