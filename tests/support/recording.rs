//! A recorder of cfor-log that runs, and rounds that look at nothing but what it saw.

use super::{Disk, Output, Pair, Tool, bin, wait_for};
use mirror::capture::dump::{DumpReport, dump};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What most tests of recorders need.
pub const CFOR_TOOLS: [&str; 6] = ["root", "rsync", "loop", "mkfs.xfs", "mkfs.btrfs", "mkfs.ext4"];

/// A recorder, killed when dropped.
pub struct Recording(Child);

impl Recording {
    /// With the usual options.
    pub fn start(pair: &Pair) -> Self {
        Self::with(pair, &[])
    }

    /// With more options.
    pub fn with(pair: &Pair, args: &[&str]) -> Self {
        let socket = pair.source.log.join("recorder.sock");
        // A dead one leaves its socket.
        let _ = fs::remove_file(&socket);
        let mut child = Command::new(bin("cfor-log"))
            .args(["-q", "record", "--log"])
            .arg(&pair.source.log)
            .arg("--root")
            .arg(&pair.source.root)
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .expect("start");
        wait_for("the recorder", Duration::from_secs(20), || {
            assert!(matches!(child.try_wait(), Ok(None)), "the recorder ended");
            socket.exists()
        });
        Self(child)
    }

    /// A signal for it.
    pub fn send(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).expect("kill");
    }

    /// Ends it by a signal, and gives how it ended.
    pub fn kill(mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).expect("kill");
        self.0.wait().expect("reap")
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A round that is to look at nothing but the log.
pub fn round(pair: &Pair) -> DumpReport {
    let (report, bytes) = dump(&pair.source, "the dump", Vec::new()).expect("dump");
    pair.apply(&bytes).expect("apply");
    report
}

/// Dumps into `dump` beside the disk, by the program, and counts the bytes of files that it reads.
pub fn bytes_read(disk: &Disk, pair: &Pair, args: &[&str]) -> (Output, u64) {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (trace, to) = (disk.beside("trace"), disk.beside("dump"));
    let out = Tool::new("strace")
        .args(&["-f", "-e", "trace=pread64", "-o", &text(&trace), &text(&bin("cfor-log")), "dump"])
        .args(&[&text(&pair.source.log), "--root", &text(&pair.source.root), "--standby", "far"])
        .args(args)
        .args(&["-o", &text(&to)])
        .limit(Duration::from_secs(300))
        .run()
        .expect(0);
    let trace = fs::read_to_string(trace).expect("trace");
    let count = |line: &str| line.rsplit(" = ").next().and_then(|number| number.parse::<u64>().ok());
    let reads = trace.lines().filter(|line| line.contains("pread64("));
    (out, reads.filter_map(count).sum())
}

/// Two empty trees whose dumps look at nothing but the log.
pub fn recorded(disk: &Disk) -> Pair {
    let mut pair = Pair::new(disk);
    pair.source.no_scan = true;
    pair
}
