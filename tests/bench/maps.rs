//! Speed of `dirtymap`, as ratios against a peer in the same run. Never a test: a figure depends on the machine and
//! on what else it does.
//!
//! ```text
//! cargo bench --bench maps                       all rows; each figure the median of 21 alternating runs
//! cargo bench --bench maps -- or --runs 5        rows whose name holds the word, fewer runs
//! ```
//!
//! | row | ours | peer |
//! |---|---|---|
//! | or | `dirtymap or` of two maps of 16 TiB in blocks of 64 KiB, one block in 64 dirty | a copy of as many bytes in memory |
//! | start | `dirtymap --version` | `true` |
//! | digest | `dirtymap digest` of 1 GiB in the page cache | `b3sum`, or `cksum` (CRC32) where there is none |

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MS: f64 = 1000.0;

/// One row: what both sides do, and what must come of it.
struct Row {
    name: &'static str,
    must: &'static str,
    /// Whether a pair of medians in milliseconds, ours and the peer's, is good enough.
    good: fn(f64, f64) -> bool,
    run: fn(&Path) -> (Side, Side),
}

/// One side of a row, run again and again.
type Side = Box<dyn FnMut() -> Duration>;

const ROWS: [Row; 3] = [
    Row { name: "or", must: "at most 30 ms", good: |ours, _| ours <= 30.0, run: or },
    Row { name: "start", must: "at most 5 ms", good: |ours, _| ours <= 5.0, run: start },
    Row { name: "digest", must: "faster", good: |ours, peer| ours < peer, run: digest },
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let mut runs = 21;
    let mut only = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--runs" {
            runs = args.next().and_then(|n| n.parse().ok()).expect("--runs N");
        } else {
            only.push(arg);
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cpus} processors, load {}, median of {runs} runs in turn", load.trim());
    println!("{:8} {:>10} {:>10} {:>8}  must", "row", "ours", "peer", "ratio");
    for row in ROWS.iter().filter(|row| only.is_empty() || only.iter().any(|word| row.name.contains(word))) {
        let dir = tempfile::Builder::new().tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("directory");
        let (mut ours, mut peer) = (row.run)(dir.path());
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            a.push(ours().as_secs_f64() * MS);
            b.push(peer().as_secs_f64() * MS);
        }
        let (a, b) = (median(a), median(b));
        let verdict = if (row.good)(a, b) { "yes" } else { "NO" };
        println!("{:8} {a:>7.2} ms {b:>7.2} ms {:>8.2}  {}: {verdict}", row.name, a / b, row.must);
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How long a program takes, which must end with 0.
fn timed(program: &str, args: &[&str], dir: &Path) -> Duration {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {args:?}: {status}");
    begun.elapsed()
}

const DIRTYMAP: &str = env!("CARGO_BIN_EXE_dirtymap");

fn or(dir: &Path) -> (Side, Side) {
    let fine = (1u64 << 44) / 65536 / 8;
    for (name, at) in [("a", 0u8), ("b", 3)] {
        // One bit of each word: no word is zero, so that nothing is skipped.
        let word = (1u64 << (at * 7)).to_le_bytes();
        let bits: Vec<u8> = word.iter().copied().cycle().take(fine as usize).collect();
        std::fs::write(dir.join("bits"), bits).expect("write");
        let made = ["convert", "--from", "bitmap-le", "--to", "map", "--size", "16T", "bits", name];
        timed(DIRTYMAP, &made, dir);
    }
    let ours = {
        let dir = dir.to_owned();
        move || timed(DIRTYMAP, &["or", "a", "b", "-o", "c", "--replace"], &dir)
    };
    let source = vec![1u8; 3 * fine as usize];
    let mut target = vec![0u8; source.len()];
    let peer = move || {
        let begun = Instant::now();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&target);
        begun.elapsed()
    };
    (Box::new(ours), Box::new(peer))
}

fn start(dir: &Path) -> (Side, Side) {
    let (a, b) = (dir.to_owned(), dir.to_owned());
    (Box::new(move || timed(DIRTYMAP, &["--version"], &a)), Box::new(move || timed("true", &[], &b)))
}

fn digest(dir: &Path) -> (Side, Side) {
    let mut bytes = vec![0u8; 64 << 20];
    let mut state = 1u64;
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    std::fs::write(dir.join("data"), bytes.repeat(16)).expect("write");
    let ours = {
        let dir = dir.to_owned();
        move || timed(DIRTYMAP, &["-q", "digest", "data", "-o", "/dev/null"], &dir)
    };
    let has = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let program = if has("b3sum") { "b3sum" } else { "cksum" };
    let dir = dir.to_owned();
    (Box::new(ours), Box::new(move || timed(program, &["data"], &dir)))
}
