//! Speed of `cfor-log` on a tree of many small files. Never a test: a figure depends on the machine and on what else it
//! does.
//!
//! ```text
//! cargo bench --bench trees                          all rows; each figure the median of five runs in turn
//! cargo bench --bench trees -- --files 20000 --runs 3 --dir /srv/scratch
//! ```
//!
//! | row | ours | peer |
//! |---|---|---|
//! | scan | `cfor-log scan` of a tree that is in memory and as the index has it | `find` that prints size and times |
//! | dump | `cfor-log dump` after one file in a hundred was changed, to a file | `rsync -a` of the same change to a copy |
//! | apply | `cfor-log apply` of that dump | the same |
//! | untar | what `cfor-log record --backend seccomp` adds to `tar x` of the tree | what `strace` adds that traces the same calls |
//! | events | `tar x` of the tree while `cfor-log record` (fanotify; needs root) sees it | the same while nobody does |

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CFOR: &str = env!("CARGO_BIN_EXE_cfor-log");
/// Files in one directory.
const EACH: usize = 100;

struct Options {
    files: usize,
    runs: usize,
    dir: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options { files: 150_000, runs: 5, dir: None };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{arg} VALUE"));
        match arg.as_str() {
            "--files" => options.files = value.parse().expect("--files N"),
            "--runs" => options.runs = value.parse().expect("--runs N"),
            "--dir" => options.dir = Some(value.into()),
            _ => panic!("{arg}: --files N, --runs N, --dir DIR"),
        }
    }
    options
}

/// The path of a file.
fn file(root: &Path, number: usize) -> PathBuf {
    root.join(format!("d{}/f{}", number / EACH, number % EACH))
}

fn timed(program: &str, args: &[&str], input: Option<&Path>) -> (Duration, String) {
    let input = input.map_or_else(Stdio::null, |path| std::fs::File::open(path).expect("input").into());
    let begun = Instant::now();
    let out = Command::new(program).args(args).stdin(input).output().expect("start");
    let took = begun.elapsed();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    (took, String::from_utf8_lossy(&out.stdout).into_owned())
}

fn median(figures: &mut [Duration]) -> f64 {
    figures.sort();
    figures[figures.len() / 2].as_secs_f64()
}

fn show(row: &str, ours: &mut [Duration], peer: &mut [Duration], must: Option<f64>) {
    let (a, b) = (median(ours), median(peer));
    let verdict = must.map_or_else(String::new, |must| {
        format!("  must be at most {must} s: {}", if a <= must { "yes" } else { "NO" })
    });
    let [least, highest] =
        [ours.first(), ours.last()].map(|figure| figure.map_or(0.0, Duration::as_secs_f64));
    println!("{row:6} {a:>7.2} s ({least:.2}-{highest:.2}) {b:>7.2} s {:>6.2}{verdict}", a / b);
}

fn main() {
    let options = options();
    let dir = options.dir.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let root = dir.path().join("tree");
    for number in 0..options.files {
        let file = file(&root, number);
        if number % EACH == 0 {
            std::fs::create_dir_all(file.parent().expect("above")).expect("mkdir");
        }
        std::fs::write(file, format!("{number} ").repeat(20 + number % 700)).expect("write");
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} files, {cpus} processors, load {}, median of {} runs",
        options.files,
        load.trim(),
        options.runs
    );
    println!("{:6} {:>9} {:>15} {:>9} {:>6}", "row", "ours", "(least-most)", "peer", "ratio");
    let (tree, log, standby, copy) = (path("tree"), path("log"), path("standby"), path("copy"));
    let (dump, state) = (path("dump"), path("state"));
    // Times within a clock's tick of a scan are looked at again: the tree is to be older than that.
    std::thread::sleep(Duration::from_secs(1));
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    timed(CFOR, &["-q", "scan", "--root", &tree, "-o", &path("index")], None);
    for _ in 0..options.runs {
        let args = ["-q", "scan", "--root", &tree, "--base", &path("index"), "-o", &path("index2")];
        ours.push(timed(CFOR, &args, None).0);
        peer.push(timed("find", &[&tree, "-printf", "%s %T@ %C@ %m\n"], None).0);
        std::fs::remove_file(path("index2")).expect("remove");
    }
    show("scan", &mut ours, &mut peer, None);
    std::fs::create_dir(&standby).expect("mkdir");
    let whole = ["-q", "dump", &log, "--root", &tree, "-o", &dump];
    let apply = ["-q", "apply", &dump, "--root", &standby, "--log", &state];
    let acknowledge = || {
        let (took, round) = timed(CFOR, &apply, None);
        std::fs::write(path("round"), round).expect("write");
        timed(CFOR, &["-q", "ack", &log, "standby"], Some(Path::new(&path("round"))));
        std::fs::remove_file(&dump).expect("remove");
        took
    };
    timed(CFOR, &whole, None);
    acknowledge();
    let rsync = ["-a", "--delete", &format!("{tree}/"), &format!("{copy}/")];
    timed("rsync", &rsync, None);
    let (mut dumps, mut applies, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..options.runs {
        for number in (run..options.files).step_by(100) {
            std::fs::write(file(&root, number), format!("{run} changed {number}")).expect("write");
        }
        dumps.push(timed(CFOR, &whole, None).0);
        applies.push(acknowledge());
        peer.push(timed("rsync", &rsync, None).0);
    }
    show("dump", &mut dumps, &mut peer.clone(), Some(3.0));
    show("apply", &mut applies, &mut peer, None);
    untar(&options, &path);
}

/// The calls of `tar` that the recorder is told of.
const TRACED: &str = "trace=openat,open,creat,mkdirat,mkdir,unlinkat,unlink,linkat,symlinkat,renameat,renameat2,\
                      utimensat,fchownat,fchmodat,fchmod,fchown,mknodat";

/// The rows of `tar x`: native, under the recorder, under strace, and beside a recorder of all processes.
fn untar(options: &Options, path: &dyn Fn(&str) -> String) {
    let (archive, tree, to, log) = (path("archive"), path("tree"), path("untarred"), path("untar.log"));
    timed("tar", &["-cf", &archive, "-C", &tree, "."], None);
    let tar = ["tar", "-xf", &archive, "-C", &to];
    let into = |program: &str, before: &[&str]| {
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).expect("mkdir");
        timed(program, &[before, &tar].concat(), None).0
    };
    let record = ["-q", "record", "--root", &to, "--log", &log];
    let (mut native, mut ours, mut peer, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let base = into("env", &[]);
        ours.push(into(CFOR, &[&record[..], &["--backend", "seccomp", "--"]].concat()).saturating_sub(base));
        let traced = ["-f", "--seccomp-bpf", "-o", "/dev/null", "-e", TRACED];
        peer.push(into("strace", &traced).saturating_sub(base));
        events.push(into(CFOR, &[&record[..], &["--ranges", "0", "--"]].concat()));
        native.push(base);
    }
    let must = median(&mut peer.clone()) * 0.6;
    show("untar", &mut ours, &mut peer, Some((must * 1000.0).round() / 1000.0));
    let must = median(&mut native.clone()) * 2.0;
    show("events", &mut events, &mut native, Some((must * 1000.0).round() / 1000.0));
}
