//! A delta applied as a whole or not at all, and rolled back if a person wants it (`--stage`, `--undo`).
//!
//! Everything lies in one directory of the machine that the target is on, named after the target:
//!
//! ```text
//! stage   a delta that is being received, or was, and is not decided upon
//! undo    what the target held where the delta changes it: a delta too
//! expect  digests of what the delta makes of these ranges
//! redo    the delta, decided upon: it is or will be applied
//! ```
//!
//! 1. The delta is written to `stage`, to its end and checked; synced.
//! 2. `expect` and `undo` are written from the delta and the target; synced. Space for them is looked for first.
//! 3. `stage` is renamed to `redo`, the directory is synced. This is the decision.
//! 4. `redo` is applied to the target; the target is flushed.
//! 5. `redo` is removed, the directory is synced. `undo` stays until the next delta.
//!
//! Recovery, by the next run on this target: (a) before 3 the target was not touched, `stage` is written anew;
//! (b) from 3 to 5 `redo` is applied again from its beginning, before anything else is done; `undo` is still what
//! was there before, and is never made again from a target that is half new; (c) after 5 nothing is to be done.

use super::copy::{Copier, Mode, Sink};
use super::end::End;
use super::feed::Records;
use super::pace::Pace;
use super::plan::{Method, Plan, Zeroes, segments};
use super::run::{Report, Supply, Watch, run};
use crate::base::{ByteRange, Class, Error, Id, Result};
use crate::delta::{Change, DeltaHeader, DeltaReader, DeltaWriter};
use crate::device::durable::{self, Draft};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Bytes read from a delta at once.
const BUFFER: usize = 1 << 20;
/// What a file of digests begins with.
const EXPECT: [u8; 8] = *b"MIRREXP\0";

/// A delta as it is read from anywhere.
pub type AnyDelta = DeltaReader<Box<dyn Read + Send>>;

/// What was just done; a crash may come after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `stage` is whole and synced.
    Staged,
    /// `undo` and `expect` are whole and synced.
    Undoable,
    /// `redo` is there: it will be applied whatever happens.
    Decided,
    /// The target holds it, flushed.
    Applied,
}

/// Where a target's deltas are staged.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
}

impl Stage {
    /// The directory of a target in the state directory; made if it is not there.
    pub fn open(state: &Path, target: &str) -> Result<Self> {
        let name = blake3::hash(target.as_bytes()).to_hex();
        let directory = state.join("stage").join(&name[..16]);
        let fail = |e| Error::io(directory.display(), "making it", e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(fail)?;
        Ok(Self { directory })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The log by which the last delta can be rolled back.
    pub fn undo_log(&self) -> PathBuf {
        self.file("undo")
    }

    /// Whether a delta was decided upon and is not applied to its end.
    pub fn is_unfinished(&self) -> bool {
        self.file("redo").exists()
    }

    /// The draft of `stage`, for a delta that is made here.
    pub fn draft(&self) -> Result<Draft> {
        Draft::new(&self.file("stage"))
    }

    /// Step 1 for a delta that comes from elsewhere.
    pub fn receive(&self, mut delta: AnyDelta, most: u64) -> Result<()> {
        self.space("staging the delta", most)?;
        let draft = self.draft()?;
        let fail = |e| Error::io(self.file("stage").display(), "writing it", e);
        let header = *delta.header();
        let mut out = BufWriter::with_capacity(BUFFER, draft.file());
        let mut writer = DeltaWriter::new(&header);
        out.write_all(&header.encode()).map_err(fail)?;
        let mut buf = Vec::new();
        while let Some(found) = delta.next(&mut buf)? {
            let change = if found.zero {
                Change::zero(found.range)
            } else {
                Change::data(found.range.offset, &buf, false)
            };
            out.write_all(&writer.record(&change)).map_err(fail)?;
            out.write_all(change.payload()).map_err(fail)?;
        }
        out.write_all(&writer.end()).map_err(fail)?;
        out.flush().map_err(fail)?;
        drop(out);
        draft.publish(true).map(drop)
    }

    /// The staged delta.
    pub fn staged(&self) -> Result<AnyDelta> {
        open_delta(&self.file("stage"))
    }

    /// Steps 2 to 5 for what is staged. `after` is called after each step; an error of it ends the procedure
    /// there, as a crash would.
    pub fn apply(
        &self,
        target: &dyn End,
        watch: Watch<'_>,
        after: &mut dyn FnMut(Step) -> Result<()>,
    ) -> Result<Report> {
        after(Step::Staged)?;
        self.remember(target)?;
        after(Step::Undoable)?;
        let (stage, redo) = (self.file("stage"), self.file("redo"));
        std::fs::rename(&stage, &redo).map_err(|e| Error::io(redo.display(), "deciding upon it", e))?;
        durable::sync_dir(&self.directory)?;
        after(Step::Decided)?;
        self.redo(target, watch, after)
    }

    /// Steps 4 and 5, also after a crash.
    pub fn redo(
        &self,
        target: &dyn End,
        watch: Watch<'_>,
        after: &mut dyn FnMut(Step) -> Result<()>,
    ) -> Result<Report> {
        let redo = self.file("redo");
        let report = write(target, open_delta(&redo)?, watch);
        if report.verdict().is_err() || report.stopped {
            return Ok(report);
        }
        after(Step::Applied)?;
        std::fs::remove_file(&redo).map_err(|e| Error::io(redo.display(), "removing it", e))?;
        durable::sync_dir(&self.directory)?;
        Ok(report)
    }

    /// Step 2: what the target holds where the staged delta changes it.
    fn remember(&self, target: &dyn End) -> Result<()> {
        let mut delta = self.staged()?;
        let mut buf = Vec::new();
        while delta.next(&mut buf)?.is_some() {}
        let totals = delta.totals();
        self.space("keeping what the target holds", totals.data + totals.zero)?;

        let mut delta = self.staged()?;
        let header = *delta.header();
        let undo = DeltaHeader { id: Id::random()?, base: header.target, target: header.base, ..header };
        let (undo_draft, expect_draft) = (Draft::new(&self.undo_log())?, Draft::new(&self.file("expect"))?);
        let fail = |e| Error::io(self.undo_log().display(), "writing it", e);
        let mut out = BufWriter::with_capacity(BUFFER, undo_draft.file());
        let mut writer = DeltaWriter::new(&undo);
        out.write_all(&undo.encode()).map_err(fail)?;
        let mut expect = [&EXPECT[..], &undo.id.0].concat();
        let mut old = Vec::new();
        while let Some(found) = delta.next(&mut buf)? {
            for part in parts(found.range) {
                if found.zero {
                    buf.clear();
                    buf.resize(part.len as usize, 0);
                    expect.extend_from_slice(blake3::hash(&buf).as_bytes());
                } else {
                    let at = (part.offset - found.range.offset) as usize;
                    expect.extend_from_slice(blake3::hash(&buf[at..at + part.len as usize]).as_bytes());
                }
                old.resize(part.len as usize, 0);
                target.read(part.offset, &mut old)?;
                let zero = matches!(segments(&old, Zeroes::Detect, 1)[..], [(_, true)]);
                let change = if zero { Change::zero(part) } else { Change::data(part.offset, &old, false) };
                out.write_all(&writer.record(&change)).map_err(fail)?;
                out.write_all(change.payload()).map_err(fail)?;
            }
        }
        out.write_all(&writer.end()).map_err(fail)?;
        out.flush().map_err(fail)?;
        drop(out);
        let sum = blake3::hash(&expect);
        expect.extend_from_slice(sum.as_bytes());
        let mut file = expect_draft.file();
        file.write_all(&expect).map_err(fail)?;
        expect_draft.publish(true)?;
        undo_draft.publish(true).map(drop)
    }

    /// Refuses when the file system of the directory has no room for so many bytes.
    fn space(&self, doing: &str, bytes: u64) -> Result<()> {
        let name = self.directory.display();
        let fs = rustix::fs::statvfs(&self.directory).map_err(|e| Error::io(name.to_string(), doing, e))?;
        let free = fs.f_bavail.saturating_mul(fs.f_frsize);
        if bytes <= free {
            return Ok(());
        }
        Err(Error::new(
            Class::Refused,
            format!("{name}: {doing}: it has {free} bytes free, {bytes} are needed"),
        ))
    }
}

/// Pieces of a range that are read at once.
fn parts(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let step = BUFFER as u64;
    (range.offset..range.end())
        .step_by(BUFFER)
        .map(move |offset| ByteRange { offset, len: step.min(range.end() - offset) })
}

/// Opens a delta in a file.
pub fn open_delta(path: &Path) -> Result<AnyDelta> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Error::io(&name, "opening it", e))?;
    DeltaReader::new(Box::new(BufReader::with_capacity(BUFFER, file)) as Box<dyn Read + Send>, &name)
}

/// Applies a delta to a target, record by record, each checked before it is written.
pub fn write(target: &dyn End, delta: AnyDelta, watch: Watch<'_>) -> Report {
    let header = *delta.header();
    let (size, block) = (header.size, header.block);
    let plan = Plan { size, block, method: Method::Copy, only: None, zeroes: Zeroes::Trust };
    let copier = Copier::new(&plan, None, Sink::Device(target), Mode::Perform, Pace::default());
    let lanes = target.facts().lanes.min(8);
    run(&plan, Supply::Delta(Box::new(Records::new(delta))), &copier, lanes, watch)
}

/// Rolls back the delta whose undo log this is: every range must hold what the delta made of it, or, if an undo
/// was interrupted, what it held before. Class `Refused` if the target has changed since.
///
/// 1. All ranges are read and compared with what is expected.
/// 2. The log is applied; the target is flushed.
/// 3. The log is removed.
///
/// Recovery: a crash in 2 or 3 leaves ranges that hold one or the other: the same command goes on.
pub fn undo(target: &dyn End, log: &Path, stop: &AtomicBool) -> Result<Report> {
    let name = log.display().to_string();
    let mut delta = open_delta(log)?;
    let header = *delta.header();
    let expect_path = log.with_file_name("expect");
    let expect =
        std::fs::read(&expect_path).map_err(|e| Error::io(expect_path.display(), "reading it", e))?;
    let damaged =
        |why: &str| Error::new(Class::Damaged, format!("{}: reading it: {why}", expect_path.display()));
    let sums = expect.len().checked_sub(32).map(|at| expect.split_at(at));
    let Some((body, _)) = sums.filter(|(body, sum)| blake3::hash(body).as_bytes()[..] == **sum) else {
        return Err(damaged("its checksum does not match"));
    };
    let (head, digests) = body.split_at_checked(24).ok_or_else(|| damaged("it is cut"))?;
    if head[..8] != EXPECT || head[8..] != header.id.0 {
        return Err(damaged("it belongs to another undo log"));
    }
    let (mut old, mut now) = (Vec::new(), Vec::new());
    let mut digests = digests.chunks_exact(32);
    while let Some(found) = delta.next(&mut old)? {
        let expected = digests.next().ok_or_else(|| damaged("it is cut"))?;
        if found.zero {
            old.clear();
            old.resize(found.range.len as usize, 0);
        }
        now.resize(found.range.len as usize, 0);
        target.read(found.range.offset, &mut now)?;
        if blake3::hash(&now).as_bytes()[..] != *expected && now != old {
            let text =
                format!("{}: undoing {name}: it has changed since, at {}", target.facts().name, found.range);
            return Err(Error::new(Class::Refused, text));
        }
    }
    let watch = Watch { stop, told: &mut |_| {}, settle: &mut |_| Ok(()) };
    let report = write(target, open_delta(log)?, watch);
    if report.verdict().is_ok() && !report.stopped {
        std::fs::remove_file(log).map_err(|e| Error::io(&name, "removing it", e))?;
    }
    Ok(report)
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
