//! `mirror-sync`: copies what differs, only that, and never claims what is not durable.

#![forbid(unsafe_code)]

use clap::Parser;
use mirror::cli::{self, sync};
use std::process::ExitCode;

/// Copy what differs between two devices, and only that
#[derive(Parser)]
#[command(name = "mirror-sync", version, max_term_width = 100)]
#[command(after_help = "\
Run it again to resume. Sizes take K M G T P. See mirror-sync(1).")]
pub struct Cli {
    #[command(flatten)]
    args: sync::SyncArgs,
}

fn main() -> ExitCode {
    let words = sync::join_brackets(std::env::args_os());
    cli::main_with("mirror-sync", words, |cli: Cli| sync::sync(&cli.args))
}
