//! The first synchronisation, without stopping anybody for long: everything while it changes, then what changed
//! meanwhile, under the barrier.
//!
//! 1. Round 1: a full dump of the tree as it is, applied to the empty target, and acknowledged.
//! 2. Rounds that each carry what changed during the one before, as long as they shrink by a third.
//! 3. The last round under the barrier. It is accepted when the target has the digest that was taken inside.
//!
//! With snapshots each round reads one: made, sent, removed; the one of the last round is made inside the barrier,
//! which is left at once.
//!
//! Recovery: run it again. An apply that was interrupted is finished, and a round that was applied and not
//! acknowledged is acknowledged first.

use super::apply::standby::Standby;
use super::apply::{ApplyOptions, ApplyReport, apply};
use super::dump::{DumpOptions, DumpReport, dump};
use super::far::AfarTree;
use super::store::Store;
use super::watch::Watch;
use crate::base::{Class, Error, Result};
use crate::fslog::Round;
use std::io::{BufWriter, Read};

/// Most rounds before the one under the barrier.
const ROUNDS_MAX: usize = 8;

/// What was done.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeedReport {
    /// `cfor-seed/1`
    pub schema: &'static str,
    /// The rounds, the last one under the barrier.
    pub rounds: Vec<DumpReport>,
    /// The round that the target is at.
    pub round: String,
}

/// What is synchronised.
pub trait Target {
    /// The round that it is at, after an interrupted apply is finished.
    fn held(&self, watch: &Watch) -> Result<Option<Round>>;
    /// Applies a dump.
    fn take(&self, dump: &mut dyn Read, watch: &Watch) -> Result<ApplyReport>;
}

impl Target for ApplyOptions {
    fn held(&self, watch: &Watch) -> Result<Option<Round>> {
        let interrupted = Standby::open(&self.log)?.applying()?.is_some();
        if interrupted {
            apply(self, None, &mut |_| watch.check())?;
        }
        Ok(Standby::open(&self.log)?.index()?.map(|index| index.round))
    }

    fn take(&self, dump: &mut dyn Read, watch: &Watch) -> Result<ApplyReport> {
        apply(self, Some(("the dump", dump)), &mut |_| watch.check())
    }
}

impl Target for AfarTree {
    fn held(&self, _: &Watch) -> Result<Option<Round>> {
        self.round()
    }

    fn take(&self, dump: &mut dyn Read, _: &Watch) -> Result<ApplyReport> {
        self.apply("the dump", dump)
    }
}

/// Synchronises a target.
pub fn seed(source: &DumpOptions, target: &dyn Target) -> Result<SeedReport> {
    let held = target.held(&source.watch)?;
    let store = Store::open(&source.log)?;
    if let Some(round) = held
        && store.acknowledged()?.get(source.standby.as_str()) != Some(&round)
    {
        store.acknowledge(&source.standby, round)?;
    }
    drop(store);
    let live = DumpOptions { barrier: None, ..source.clone() };
    let mut rounds: Vec<DumpReport> = Vec::new();
    while rounds.len() < ROUNDS_MAX {
        let (report, _) = one(&live, target)?;
        let bytes = report.bytes;
        let shrinks = rounds.last().is_none_or(|last| bytes < last.bytes / 3 * 2);
        rounds.push(report);
        if !shrinks {
            break;
        }
    }
    let (report, applied) = one(source, target)?;
    rounds.push(report);
    Ok(SeedReport { schema: "cfor-seed/1", rounds, round: applied.round })
}

/// One round: dumped, applied, acknowledged.
fn one(source: &DumpOptions, target: &dyn Target) -> Result<(DumpReport, ApplyReport)> {
    let (mut reader, writer) =
        std::io::pipe().map_err(|e| Error::os(Class::Internal, "a pipe", "making it", e))?;
    let (dumped, applied) = std::thread::scope(|scope| {
        let dumping = scope.spawn(move || {
            dump(source, "the dump", BufWriter::with_capacity(1 << 20, writer)).map(|(report, _)| report)
        });
        let applied = target.take(&mut reader, &source.watch);
        drop(reader);
        let lost = |_| Err(Error::new(Class::Internal, "the thread that dumps panicked"));
        (dumping.join().unwrap_or_else(lost), applied)
    });
    // What ended the dump is the reason, unless that is only that nobody read it any more.
    let (report, applied) = match (dumped, applied) {
        (Ok(report), Ok(applied)) => (report, applied),
        (Err(error), Err(refused)) if refused.class != Class::Damaged => {
            drop(error);
            return Err(refused);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let round: Round = applied.round.parse()?;
    Store::open(&source.log)?.acknowledge(&source.standby, round)?;
    Ok((report, applied))
}
