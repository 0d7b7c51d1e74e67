//! What the source remembers, in a directory outside the tree:
//!
//! ```text
//! DIR/lock             held by the program that uses it
//! DIR/round.N          index of round N, from before its dump was complete
//! DIR/round.N.log      what round N changed, without the data
//! DIR/acknowledged     the round that each standby has, a line each: NAME NUMBER:DIGEST
//! ```

use crate::base::{Class, Error, Id, Name, Result, limits};
use crate::device::durable::{Draft, replace};
use crate::device::lock;
use crate::fslog::{Index, Round};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The directory of a source, locked.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held as long as the store is.
    _lock: File,
}

/// Makes a directory if need be, mode 0700, and locks it. Class `Busy` while another process holds it.
pub(super) fn open_locked_dir(dir: &Path, create: bool) -> Result<File> {
    if create {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io(dir.display(), "creating it", e));
            }
            _ => {}
        }
    }
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io(path.display(), "opening it", e))?;
    // With some patience: a program that is just being started by another thread may hold a copy for a moment.
    lock::lock_device(&file, &path, true)?;
    Ok(file)
}

/// Reads an index file.
pub fn load_index(path: &Path) -> Result<Index> {
    let file = File::open(path).map_err(|e| Error::io(path.display(), "opening it", e))?;
    if file.metadata().is_ok_and(|data| data.is_dir()) {
        return Err(Error::io(path.display(), "reading it", std::io::Error::from(ErrorKind::IsADirectory)));
    }
    Index::read(&path.display().to_string(), BufReader::with_capacity(1 << 20, file))
}

/// Writes an index file, old or new after a crash. What is there and no regular file is refused.
pub fn save_index(path: &Path, index: &Index) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        let text = format!("{}: writing an index: it exists and is no regular file", path.display());
        return Err(Error::new(Class::Refused, text));
    }
    let draft = Draft::new(path)?;
    let out = BufWriter::with_capacity(1 << 20, draft.file());
    let mut out = index.write(&path.display().to_string(), out)?;
    out.flush().map_err(|e| Error::io(path.display(), "writing it", e))?;
    drop(out);
    draft.publish(true).map(drop)
}

impl Store {
    /// Opens the directory of a source, and makes it if need be.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), _lock: open_locked_dir(dir, true)? })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the index of a round is.
    pub fn round_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("round.{number}"))
    }

    /// Where the log of a round is.
    pub fn log_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("round.{number}.log"))
    }

    /// The rounds whose index is kept, oldest first.
    pub fn rounds(&self) -> Result<Vec<u64>> {
        rounds(&self.dir)
    }

    /// The index of a round.
    pub fn load(&self, number: u64) -> Result<Index> {
        load_index(&self.round_path(number))
    }

    /// The round that each standby has acknowledged.
    pub fn acknowledged(&self) -> Result<BTreeMap<String, Round>> {
        acknowledged(&self.dir)
    }

    /// The index that a dump for this standby begins at: of the round it has acknowledged; the empty tree if it
    /// has none, or if its index is not kept any more.
    pub fn base_for(&self, standby: &Name) -> Result<Index> {
        let rounds = self.rounds()?;
        if let Some(round) = self.acknowledged()?.get(standby.as_str())
            && rounds.contains(&round.number)
        {
            let index = self.load(round.number)?;
            if index.round == *round {
                return Ok(index);
            }
        }
        let tree = match rounds.last() {
            Some(last) => self.load(*last)?.tree,
            None => Id::random()?,
        };
        Ok(Index::empty(tree))
    }

    /// The number of the next round: no number is used twice, whatever became of its dump.
    pub fn next_round(&self) -> Result<u64> {
        let acknowledged = self.acknowledged()?.into_values().map(|round| round.number);
        Ok(self.rounds()?.into_iter().chain(acknowledged).max().unwrap_or(0) + 1)
    }

    /// Remembers that a standby has a round; indexes that nobody needs any more are removed. Errors: class
    /// `Damaged` for a round that was never dumped here.
    pub fn acknowledge(&self, standby: &Name, round: Round) -> Result<()> {
        let path = self.round_path(round.number);
        let known = if path.exists() { Some(self.load(round.number)?.round) } else { None };
        if known != Some(round) {
            let known = known.map_or_else(|| "not kept".to_owned(), |known| known.to_string());
            let text = format!(
                "{}: acknowledging for {standby}: it has round {round}, ours of that number is {known}",
                self.dir.display()
            );
            return Err(Error::new(Class::Damaged, text));
        }
        let mut all = self.acknowledged()?;
        all.insert(standby.to_string(), round);
        let lines: Vec<_> = all.iter().map(|(name, round)| format!("{name} {round}\n")).collect();
        let text = lines.concat();
        replace(&self.dir.join("acknowledged"), text.as_bytes())?;
        self.prune()
    }

    /// Removes indexes and live logs older than what every standby has, and the oldest past the limit: then a full dump is owed.
    pub fn prune(&self) -> Result<()> {
        let rounds = self.rounds()?;
        let acknowledged = self.acknowledged()?;
        let needed = acknowledged.values().map(|round| round.number).min().unwrap_or(0);
        let kept = &rounds[rounds.len().saturating_sub(limits::ROUNDS_KEPT)..];
        let oldest = kept.iter().find(|number| **number >= needed);
        super::live::prune(&self.dir, oldest.copied().unwrap_or(0))?;
        let has: Vec<_> = acknowledged.values().map(|round| round.number).collect();
        super::btrfs::kept::prune(&self.dir, &rounds, &has)?;
        let surplus = rounds.len().saturating_sub(limits::ROUNDS_KEPT);
        for (at, number) in rounds.iter().enumerate() {
            if at >= surplus && *number >= needed {
                break;
            }
            for path in [self.log_path(*number), self.round_path(*number)] {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => {
                        return Err(Error::io(path.display(), "removing it", e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The rounds whose index is kept in a directory, oldest first.
pub fn rounds(dir: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir.display(), "listing it", e))?;
    let mut rounds = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Error::io(dir.display(), "listing it", e))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix("round.")).and_then(|n| n.parse().ok());
        rounds.extend(number);
    }
    rounds.sort_unstable();
    Ok(rounds)
}

/// The round that each standby has acknowledged, by the directory of its source.
pub fn acknowledged(dir: &Path) -> Result<BTreeMap<String, Round>> {
    let path = dir.join("acknowledged");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::io(path.display(), "reading it", e)),
    };
    text.lines()
        .map(|line| {
            let (name, round) = line.split_once(' ').unwrap_or((line, ""));
            let round = round.parse().map_err(|e: Error| {
                Error::new(Class::Damaged, format!("{}: reading it: {}", path.display(), e.message))
            })?;
            Ok((name.to_owned(), round))
        })
        .collect()
}
