//! Where the time of ours goes: system calls for each request, and the functions that take most.

use crate::Options;
use crate::rows::Row;
use crate::support::{Tool, run};
use std::process::{Command, Stdio};

/// Lines of each list.
const LINES: usize = 30;

/// Runs our side of a row three times: alone, under `strace -c`, under `perf record`.
pub fn show(row: &Row, options: &Options) {
    println!("# {}", row.name);
    let (dir, peer) = row.ours(options);
    let pid = peer.server.pid().to_string();
    let load = || row.load.run(&peer.uri, row.mib.unwrap_or(options.mib), options.seconds);
    println!("{:.0} requests/s alone", load());

    let counts = dir.path("strace");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-q", "-o"]).arg(&counts).args(["-p", &pid]).stderr(Stdio::null());
    let mut strace = strace.spawn().unwrap_or_else(|e| panic!("strace: {e}"));
    let requests = load() * f64::from(options.seconds);
    run("kill", &["-INT", &strace.id().to_string()]).expect(0);
    strace.wait().expect("strace");
    println!("system calls over {requests:.0} requests:");
    let counts = std::fs::read_to_string(counts).expect("counts of strace");
    counts.lines().take(LINES).for_each(|line| println!("    {line}"));

    let data = dir.path("perf.data").display().to_string();
    let seconds = options.seconds.to_string();
    let record = ["record", "-q", "-g", "-o", &data, "-p", &pid, "--", "sleep", &seconds];
    let mut perf = Tool::new("perf").args(&record);
    let mut perf = perf.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("perf");
    load();
    perf.wait().expect("perf");
    let report = run("perf", &["report", "--stdio", "--no-children", "-g", "none", "-i", &data]);
    println!("time by function:");
    let lines = report.stdout.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.take(LINES).for_each(|line| println!("    {line}"));
}
