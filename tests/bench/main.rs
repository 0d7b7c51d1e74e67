//! Speed, as ratios: each row runs ours and a peer on the same files in turn, and prints the median of the ratios.
//! Never a test: a figure depends on the machine and on what else it does.
//!
//! ```text
//! cargo bench --bench bench                               all rows, five runs of ten seconds of each
//! cargo bench --bench bench -- --only mirror --seconds 3  rows whose name holds the word, shorter
//! cargo bench --bench bench -- --only sync                copies by mirror-sync, each side timed
//! cargo bench --bench bench -- --list
//! cargo bench --bench bench -- --only mirror-write-4k-d16 --profile     where the time goes
//! ```
//!
//! The peers are nbdkit, qemu-storage-daemon and ourselves; fio is the client. Copies are compared with nbdcopy,
//! qemu-img, rsync and bdsync, where they are installed. Needs nothing but them (and perf and strace for
//! `--profile`), no privileges. `--dir` should be a tmpfs, or the disk is measured.

mod copies;
mod load;
mod peers;
mod profile;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod table;

use clap::Parser;
use std::path::PathBuf;

/// Take the rows of the speed table
#[derive(Parser)]
#[command(name = "bench")]
pub struct Options {
    /// Only rows whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Length of a run, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Runs of each side of a row, in turn
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the images are; a tmpfs
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Size of the images in MiB
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Print the names of the rows
    #[arg(long)]
    list: bool,
    /// Print where the time of ours goes, instead of a ratio
    #[arg(long)]
    profile: bool,
    /// What `cargo bench` says by itself
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.name.contains(&options.only)).collect();
    let copies: Vec<_> = copies::all().into_iter().filter(|row| row.name.contains(&options.only)).collect();
    if options.list {
        for name in rows.iter().map(|row| row.name).chain(copies.iter().map(|row| row.name)) {
            println!("{name}");
        }
        return;
    }
    if rows.is_empty() && copies.is_empty() {
        eprintln!("bench: --only {}: no row has this in its name", options.only);
        std::process::exit(2);
    }
    if options.profile {
        for row in &rows {
            profile::show(row, &options);
        }
        return;
    }
    table::head(&options);
    for row in &rows {
        table::line(row.name, row.peer, (row.must, row.aim), &row.take(&options));
    }
    for row in &copies {
        table::line(row.name, row.peer, (row.must, row.aim), &row.take(&options));
    }
}
