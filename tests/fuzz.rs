//! Parsers against bytes of every kind. Each target is a stable function over bytes that panics when a promise is
//! broken; `tests/corpus/TARGET/` holds inputs that once showed something, and every run replays them.
//!
//! ```text
//! cargo test --test fuzz                                         replay, and a moment of mutation with a fixed seed
//! cargo test --test fuzz -- --seconds 1200 --seed 7              more of it, of all targets in turn
//! cargo test --test fuzz -- --seconds 60 nbd-requests            of one target
//! cargo test --test fuzz -- --seconds 60 --keep                  write what was new into tests/corpus
//! ```
//!
//! A target returns what it saw as a number: an input with a number not seen before is kept as a beginning for
//! others, in place of the coverage that an instrumented build would give. To join, add a line to [`TARGETS`].

#![forbid(unsafe_code)]

#[path = "fuzz/disk.rs"]
mod disk; // records and maps
#[path = "fuzz/files.rs"]
mod files; // maps of others, files of cfor-log
#[path = "fuzz/mutate.rs"]
mod mutate; // from one input to the next
#[path = "fuzz/streams.rs"]
mod streams; // deltas, and both sides of `mirror-sync --serve`
#[path = "fuzz/trees.rs"]
mod trees; // dumps, indexes and logs
#[path = "fuzz/wire.rs"]
mod wire; // the NBD protocol, both sides
#[path = "fuzz/words.rs"]
mod words; // what people and files say: URIs, legs, configurations, control lines

use mutate::Mutator;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What an input showed; any number will do.
type Seen = u64;

/// A name, the function, and inputs to begin with.
type Target = (&'static str, fn(&[u8]) -> Seen, fn() -> Vec<Vec<u8>>);

const TARGETS: &[Target] = &[
    ("nbd-server-handshake", wire::server_handshake, wire::server_handshakes),
    ("nbd-client-handshake", wire::client_handshake, wire::client_handshakes),
    ("nbd-requests", wire::requests, wire::request_seeds),
    ("nbd-replies", wire::replies, wire::reply_seeds),
    ("nbd-uri", words::uri, words::uris),
    ("leg-text", words::leg, words::legs),
    ("config-file", words::config, words::configs),
    ("config-values", words::values, words::value_seeds),
    ("control-lines", words::control, words::control_seeds),
    ("status", words::status, words::statuses),
    ("record", disk::record, disk::records),
    ("map-header", disk::map_header, disk::map_headers),
    ("btrfs-send", disk::stream, disk::stream_seeds),
    ("btrfs-receive", disk::received, disk::received_seeds),
    ("delta", streams::delta, streams::deltas),
    ("remote-requests", streams::requests, streams::request_seeds),
    ("remote-replies", streams::replies, streams::reply_seeds),
    ("map-import", files::map_import, files::map_imports),
    ("fslog", files::fslog, files::fslogs),
];

/// Longest input.
const LONGEST: usize = 16 << 10;
/// Inputs that are kept as beginnings, of one target.
const POOL: usize = 2_000;
/// No input takes longer, even on a loaded machine.
const SLOW: Duration = Duration::from_secs(5);
/// Rounds of the usual run, for each target.
const ROUNDS: u64 = 3_000;
/// Inputs that `--keep` leaves in the corpus of one target.
const KEPT: usize = 16;

#[derive(Debug, Default)]
struct Options {
    seconds: Option<u64>,
    seed: u64,
    keep: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("fuzz: {why}");
            return ExitCode::from(2);
        }
    };
    // A panic is told by us, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let asked =
        |name: &str| options.names.is_empty() || options.names.iter().any(|n| name.contains(n.as_str()));
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, ..)| asked(name)).collect();
    if chosen.is_empty() {
        // A filter of `cargo test` that means other tests.
        return ExitCode::SUCCESS;
    }
    let each = options.seconds.map(|s| Duration::from_secs(s) / chosen.len() as u32);
    let mut failed = false;
    for target in chosen {
        match campaign(target, &options, each) {
            Ok(line) => println!("{line}"),
            Err(why) => {
                println!("{why}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn options() -> Result<Options, String> {
    let mut options = Options { seed: 1, ..Options::default() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or_else(|| format!("{arg}: a number is wanting"))?;
            value.parse::<u64>().map_err(|_| format!("{arg}: {value} is not a number"))
        };
        match arg.as_str() {
            "--seconds" => options.seconds = Some(number()?),
            "--seed" => options.seed = number()?,
            "--keep" => options.keep = true,
            // What `cargo test` hands to every test program.
            _ if arg.starts_with('-') => {}
            _ => options.names.push(arg),
        }
    }
    Ok(options)
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// Replays, then mutates for `time`, or for [`ROUNDS`].
fn campaign(target: &Target, options: &Options, time: Option<Duration>) -> Result<String, String> {
    let (name, run, seeds) = *target;
    let start = Instant::now();
    let mut seen = HashSet::new();
    let mut pool = Vec::new();
    let mut stored = 0;
    let mut beginnings = seeds();
    if let Ok(entries) = std::fs::read_dir(corpus(name)) {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            beginnings.push(bytes);
            stored += 1;
        }
    }
    for input in beginnings {
        seen.insert(attempt(name, run, &input)?);
        pool.push(input);
    }
    let known = pool.len();
    let mut mutator = Mutator::new(options.seed ^ mutate::hash(name.as_bytes()));
    let mut rounds = 0u64;
    while time.map_or(rounds < ROUNDS, |time| start.elapsed() < time) {
        let mut input = mutator.next(&pool);
        input.truncate(LONGEST);
        rounds += 1;
        if seen.insert(attempt(name, run, &input)?) && pool.len() < POOL {
            pool.push(input);
        }
    }
    if options.keep {
        keep(name, run, &pool)?;
    }
    let found = pool.len() - known;
    Ok(format!("{name}: {stored} replayed, {rounds} tried, {found} new in {:.1?}", start.elapsed()))
}

/// One run of one input; says how to repeat it when a promise is broken.
fn attempt(name: &str, run: fn(&[u8]) -> Seen, input: &[u8]) -> Result<Seen, String> {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| run(input)));
    let why = match result {
        Ok(_) if start.elapsed() > SLOW => format!("took {:?}", start.elapsed()),
        Ok(seen) => return Ok(seen),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
        }
    };
    let path = corpus(name).join(format!("broken-{:016x}", mutate::hash(input)));
    let stored = std::fs::create_dir_all(corpus(name)).and_then(|()| std::fs::write(&path, input));
    let place = stored.map_or_else(|e| e.to_string(), |()| path.display().to_string());
    Err(format!("{name}: {why}\n  input of {} bytes: {place}", input.len()))
}

/// Writes the shortest input for each thing seen, up to [`KEPT`], in place of what was there.
fn keep(name: &str, run: fn(&[u8]) -> Seen, pool: &[Vec<u8>]) -> Result<(), String> {
    let mut inputs: Vec<_> = pool.iter().filter(|input| input.len() <= 1024).collect();
    inputs.sort_by_key(|input| input.len());
    let mut seen = HashSet::new();
    inputs.retain(|input| seen.insert(run(input)));
    // Evenly from short to long.
    let step = inputs.len().div_ceil(KEPT).max(1);
    let fail = |e: std::io::Error| format!("{name}: keeping inputs: {e}");
    let dir = corpus(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).map_err(fail)?;
    for input in inputs.iter().step_by(step) {
        std::fs::write(dir.join(format!("{:016x}", mutate::hash(input))), input).map_err(fail)?;
    }
    Ok(())
}
