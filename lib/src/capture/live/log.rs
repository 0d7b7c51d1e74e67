//! The log itself: how a recorder writes it, and what a dump reads out of it.

use crate::base::{Error, Id, Result, limits};
use crate::fslog::meta::differs;
use crate::fslog::record::Lost;
use crate::fslog::{ObjectId, Record, Round, State, logfile};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bit of [`Record::All`]: a backend that sees no ranges saw a write.
pub const WRITTEN: u32 = 1;
/// The file is, or was, mapped so that it may be stored into.
pub const MAPPED: u32 = 2;
/// Its ranges are not known: by descriptors of before it was marked, or because nobody notes them any more.
pub const BLIND: u32 = 4;

/// Mask of [`Record::Meta`]: a backend does not say which metadata.
pub const METADATA: u32 = differs::MODE | differs::OWNER | differs::TIMES | differs::XATTRS;

/// The number of an object in a live log: the beginning of the digest of its handle. Two objects with one number
/// are both looked at.
pub fn number_of(handle: &[u8]) -> ObjectId {
    let digest = blake3::hash(handle);
    ObjectId(crate::device::fields::get_u64(digest.as_bytes(), 0))
}

/// The log that collects since a round.
pub fn live_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("live.{number}"))
}

/// The log that a recorder writes: what is in it already is not written again.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    /// Since which round.
    pub round: u64,
    generation: u64,
    bytes: u64,
    known: HashSet<[u8; 32]>,
    /// Why it is not complete.
    pub lost: Option<Lost>,
}

impl Log {
    /// Goes on with the log of a round, or begins it. `gap`: what was before is not known.
    pub fn open(dir: &Path, round: u64, gap: bool) -> Result<Self> {
        let path = live_path(dir, round);
        let mut generation = 1;
        if path.exists() {
            match logfile::read(&path) {
                Ok(log) if log.torn == 0 => generation = log.generations + 1,
                // What is not whole is of no use to anybody; the gap says that it is not there.
                _ => std::fs::remove_file(&path).map_err(|e| Error::io(path.display(), "removing it", e))?,
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(path.display(), "opening it", e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path.display(), "opening it", e))?.len();
        let mut log = Self { file, path, round, generation, bytes, known: HashSet::new(), lost: None };
        if bytes == 0 {
            let base = Round { number: round, ..Round::default() };
            log.write(&logfile::header(Id::NONE, base).encode())?;
        }
        log.write(&logfile::encode(&[Record::Open { generation }]))?;
        if gap {
            log.add(&[Record::Lost { why: Lost::Gap }])?;
        }
        Ok(log)
    }

    /// Goes on with the log of a recorder that died while everybody who changes something waits for an answer: nothing
    /// is missing. What it was just writing is cut off, and will be written again. Also gives what is in it.
    pub fn resume(dir: &Path, round: u64) -> Result<(Self, State)> {
        let path = live_path(dir, round);
        let fail = |e| Error::io(path.display(), "going on with it", e);
        let mut log = logfile::read(&path)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len() - log.torn;
        if log.torn > 0 {
            file.set_len(bytes).map_err(fail)?;
            log.state.lost.remove(&Lost::Torn);
        }
        let generation = log.open.unwrap_or(log.generations + 1);
        let lost = log.state.lost.first().copied();
        let mut resumed = Self { file, path, round, generation, bytes, known: HashSet::new(), lost };
        if log.open.is_none() {
            resumed.write(&logfile::encode(&[Record::Open { generation }]))?;
        }
        Ok((resumed, log.state))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| Error::io(self.path.display(), "writing it", e))
    }

    /// Writes those records that are new, all at once.
    pub fn add(&mut self, records: &[Record]) -> Result<()> {
        let mut new = Vec::new();
        for record in records {
            if let Record::Lost { why } = record {
                self.lost.get_or_insert(*why);
            }
            let bytes = logfile::encode(std::slice::from_ref(record));
            if self.known.insert(*blake3::hash(&bytes).as_bytes()) {
                new.extend(bytes);
            }
        }
        if self.bytes + new.len() as u64 > limits::LIVE_LOG {
            if self.lost.replace(Lost::Overflow) != Some(Lost::Overflow) {
                self.write(&logfile::encode(&[Record::Lost { why: Lost::Overflow }]))?;
            }
            return Ok(());
        }
        if new.is_empty() { Ok(()) } else { self.write(&new) }
    }

    /// Everything up to here is in it.
    pub fn close(&mut self) -> Result<()> {
        let generation = self.generation;
        self.write(&logfile::encode(&[Record::Barrier { generation }, Record::Close { generation }]))
    }
}

/// What may have changed since round `base`, up to the rotation to `now`; or why nobody knows.
pub fn since(dir: &Path, base: u64, now: u64) -> Result<State, String> {
    let mut state = State::default();
    if base == 0 {
        return Err("the standby has no round yet".to_owned());
    }
    for number in base..=now {
        let path = live_path(dir, number);
        let log = match logfile::read(&path) {
            Ok(log) => log,
            // Not every number is a round; but the first log must be there, and each ends where the next begins.
            Err(_) if !path.exists() => return Err(format!("nobody recorded since round {number}")),
            Err(error) => return Err(error.message),
        };
        // The last one is still written. It belongs here if an earlier dump asked for the same number and failed;
        // what is torn at its end came after this dump asked.
        let (ends, torn) = (number < now, number == now && log.torn > 0);
        if ends && log.open.is_some() || log.generations == 0 {
            return Err(format!("{}: {}", path.display(), Lost::NotClosed));
        }
        if let Some(why) = log.state.lost.iter().find(|why| !(torn && **why == Lost::Torn)) {
            return Err(format!("{}: {why}", path.display()));
        }
        state.join(&log.state);
    }
    Ok(state)
}

/// Removes the logs that no kept round needs any more.
pub fn prune(dir: &Path, oldest: u64) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir.display(), "listing it", e))? {
        let entry = entry.map_err(|e| Error::io(dir.display(), "listing it", e))?;
        let name = entry.file_name();
        let number: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("live.")?.parse().ok());
        if number.is_some_and(|number| number < oldest) {
            match std::fs::remove_file(entry.path()) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(entry.path().display(), "removing it", e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
