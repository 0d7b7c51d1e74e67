//! What a run has done, for people and for programs.

use super::SyncArgs;
use crate::base::units::show_size;
use crate::cli::output;
use crate::sync::copy::Counts;
use crate::sync::run::Report;
use std::time::Duration;

/// The `schema` of the summary.
pub const SCHEMA: &str = "mirror-sync/1";

/// What a run has done (`mirror-sync(1)`, section JSON).
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    schema: &'static str,
    source: String,
    target: String,
    choice: &'static str,
    dry_run: bool,
    size: u64,
    planned: u64,
    durable: u64,
    #[serde(flatten)]
    counts: Counts,
    sent: u64,
    received: u64,
    failed_bytes: u64,
    failed_ranges: u64,
    stopped: bool,
    verified: Option<bool>,
    equal: bool,
    seconds: f64,
}

/// What is known of a run besides its report.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Bytes that went out and came in over the wire, of source and target.
    pub(super) traffic: [Option<(u64, u64)>; 2],
    /// Whether what was read back was equal.
    pub(super) verified: Option<bool>,
    /// Both ends hold the same if the run came to its end.
    pub(super) equal: bool,
    /// Nothing was written.
    pub(super) dry_run: bool,
    /// How long it took.
    pub(super) time: Duration,
}

impl Summary {
    /// From how a run ended.
    pub(super) fn new(
        [source, target]: [String; 2],
        choice: &'static str,
        size: u64,
        report: &Report,
        outcome: &Outcome,
    ) -> Self {
        let counts = report.standing.counts;
        let [from, to] = outcome.traffic;
        let whole = report.verdict().is_ok() && !report.stopped && !outcome.dry_run;
        Self {
            schema: SCHEMA,
            source,
            target,
            choice,
            dry_run: outcome.dry_run,
            size,
            planned: report.total,
            durable: report.standing.durable,
            counts,
            sent: to.map_or(counts.written, |(out, _)| out) + from.map_or(0, |(out, _)| out),
            received: from.map_or(counts.read, |(_, into)| into) + to.map_or(0, |(_, into)| into),
            failed_bytes: report.failed_bytes,
            failed_ranges: report.failed,
            stopped: report.stopped,
            verified: outcome.verified,
            equal: whole && outcome.equal && outcome.verified != Some(false),
            seconds: (outcome.time.as_secs_f64() * 1000.0).round() / 1000.0,
        }
    }

    /// Prints it: JSON to standard output, a line for people.
    pub fn tell(&self, args: &SyncArgs) -> anyhow::Result<()> {
        if args.json {
            output::print_json(self)?;
        }
        if !args.quiet && !args.json {
            output::tell(&format!("mirror-sync: {}\n", output::one_line(&self.line())));
        }
        Ok(())
    }

    fn line(&self) -> String {
        let Counts { read, written, zeroed, skipped } = self.counts;
        let would = if self.dry_run { "would be " } else { "" };
        let mut parts = vec![format!("{} {would}written", show_size(written))];
        for (bytes, what) in [(zeroed, "zeroed"), (skipped, "left alone"), (self.failed_bytes, "failed")] {
            if bytes > 0 {
                parts.push(format!("{} {what}", show_size(bytes)));
            }
        }
        parts.push(format!("{} read", show_size(read)));
        parts.push(format!("{:.1} s", self.seconds));
        let end = match (self.verified, self.equal) {
            (Some(true), _) => ", verified",
            (_, true) => ", equal",
            _ => "",
        };
        format!("{}: {}{end}", self.target, parts.join(", "))
    }
}
