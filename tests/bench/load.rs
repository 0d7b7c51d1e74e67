//! What the client does: fio's NBD engine.

use crate::support::Tool;
use std::time::Duration;

/// A pattern of requests.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// As fio calls it: `randwrite`, `randread`, `write`, `read`.
    pub pattern: &'static str,
    /// Bytes of a request, as fio reads them.
    pub block: &'static str,
    /// Requests in flight.
    pub depth: u32,
}

impl Load {
    /// Requests a second that this server answers, over so many seconds.
    pub fn run(self, uri: &str, mib: u64, seconds: u32) -> f64 {
        let Self { pattern, block, depth } = self;
        let args = [
            // The engine comes before its options.
            "--name=bench".to_owned(),
            "--ioengine=nbd".to_owned(),
            format!("--uri={uri}"),
            format!("--rw={pattern}"),
            format!("--bs={block}"),
            format!("--iodepth={depth}"),
            format!("--size={mib}M"),
            "--time_based".to_owned(),
            format!("--runtime={seconds}"),
            "--norandommap".to_owned(),
            "--randrepeat=1".to_owned(),
            "--output-format=json".to_owned(),
        ];
        let out = Tool::new("fio").args(&args).limit(Duration::from_secs(u64::from(seconds) + 60)).run().expect(0);
        // What it says before the report is not JSON.
        let json = out.stdout.find('{').map_or("", |at| &out.stdout[at..]);
        let report: serde_json::Value =
            serde_json::from_str(json).unwrap_or_else(|e| panic!("fio: {e}: {}", out.stdout));
        let side = if pattern.ends_with("write") { "write" } else { "read" };
        report["jobs"][0][side]["iops"].as_f64().expect("iops")
    }
}
