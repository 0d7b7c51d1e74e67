//! What a standby remembers, in a directory outside its tree:
//!
//! ```text
//! DIR/lock        held by the program that uses it
//! DIR/index       the round that the tree is at, and how its objects are found again
//! DIR/spool       a dump that is being applied, whole
//! DIR/applying    there is a dump that was begun and not committed: its round
//! DIR/staged      the identities of its new objects, once all of them are in the stage
//! DIR/received    a stream of btrfs send that is being turned into a dump ([`super::receive`])
//! DIR/snapshots   the snapshots that rounds were received as, a line each: NUMBER:DIGEST UUID TRANSACTION
//! ```

use crate::base::{Class, Error, Result};
use crate::capture::store::{load_index, open_locked_dir, save_index};
use crate::capture::tree::handle::hex;
use crate::capture::watch::Watch;
use crate::device::durable::{replace, sync_dir};
use crate::fslog::command::Moment;
use crate::fslog::{Index, ObjectId, Round};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

/// The directory of a standby, locked.
#[derive(Debug)]
pub struct Standby {
    dir: PathBuf,
    /// Held as long as the standby is.
    _lock: File,
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path.display(), "reading it", e)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path.display(), "removing it", e)),
        _ => Ok(()),
    }
}

/// An empty file, in place of what is there.
pub(in crate::capture) fn create(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).map_err(|e| Error::io(path.display(), "creating it", e))
}

/// Copies all of an input into a file, and syncs it.
fn take_in(path: &Path, object: &str, input: &mut dyn Read, watch: &Watch) -> Result<File> {
    let mut file = create(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        watch.check()?;
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                file.write_all(&buffer[..len]).map_err(|e| Error::io(path.display(), "writing it", e))?;
                watch.add(len as u64);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(object, "reading it", e)),
        }
    }
    file.sync_all().map_err(|e| Error::io(path.display(), "syncing it", e))?;
    Ok(file)
}

/// The round of a dump that was begun on a standby and not committed.
pub fn applying(dir: &Path) -> Result<Option<Round>> {
    let path = dir.join("applying");
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let round = text.trim().parse().map_err(|e: Error| {
        Error::new(Class::Damaged, format!("{}: reading it: {}", path.display(), e.message))
    })?;
    Ok(Some(round))
}

impl Standby {
    /// Opens the directory of a standby, and makes it if need be. What an apply left behind that ended before it
    /// touched anything, or after its commit, is removed.
    pub fn open(dir: &Path) -> Result<Self> {
        let standby = Self { dir: dir.to_owned(), _lock: open_locked_dir(dir, true)? };
        if standby.applying()?.is_none() {
            remove(&standby.staged_path())?;
            remove(&standby.spool_path())?;
        }
        remove(&standby.received_path())?;
        Ok(standby)
    }

    fn staged_path(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// Where the dump is that is being applied.
    pub fn spool_path(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// Where a stream of btrfs send is, until it is a dump.
    pub fn received_path(&self) -> PathBuf {
        self.dir.join("received")
    }

    /// The snapshot that a round was received as.
    pub fn snapshot_of(&self, round: Round) -> Result<Option<Moment>> {
        let path = self.dir.join("snapshots");
        let Some(text) = read_text(&path)? else { return Ok(None) };
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let (round, uuid, ctransid) = (word().parse().ok()?, word().parse().ok()?, word().parse().ok()?);
            Some((round, Moment { uuid, ctransid }))
        };
        let all: Option<Vec<(Round, Moment)>> = text.lines().map(parse).collect();
        let damaged = || {
            Error::new(
                Class::Damaged,
                format!("{}: reading it: not a round and a snapshot a line", path.display()),
            )
        };
        Ok(all.ok_or_else(damaged)?.into_iter().find(|(of, _)| *of == round).map(|(_, moment)| moment))
    }

    /// Remembers which snapshot a round will be, once it is committed; and of the round before, if it was one.
    pub fn remember_snapshot(&self, base: Round, round: Round, moment: Moment) -> Result<()> {
        let line = |round: Round, moment: Moment| format!("{round} {} {}\n", moment.uuid, moment.ctransid);
        let before = self.snapshot_of(base)?.map(|moment| line(base, moment)).unwrap_or_default();
        let text = before + &line(round, moment);
        replace(&self.dir.join("snapshots"), text.as_bytes())
    }

    /// The round that is being applied.
    pub fn applying(&self) -> Result<Option<Round>> {
        applying(&self.dir)
    }

    /// The round that the tree is at; `None` before the first.
    pub fn index(&self) -> Result<Option<Index>> {
        let path = self.dir.join("index");
        if path.exists() { load_index(&path).map(Some) } else { Ok(None) }
    }

    /// Takes a dump in, to its end, and syncs it. Nothing is believed of it yet.
    pub fn spool(&self, object: &str, input: &mut dyn Read, watch: &Watch) -> Result<File> {
        take_in(&self.spool_path(), object, input, watch)
    }

    /// Takes a stream of btrfs send in, to its end.
    pub fn receive(&self, object: &str, input: &mut dyn Read, watch: &Watch) -> Result<File> {
        take_in(&self.received_path(), object, input, watch)
    }
    /// The spool of an apply that is to be done again.
    pub fn spooled(&self) -> Result<File> {
        let path = self.spool_path();
        File::open(&path).map_err(|e| Error::io(path.display(), "opening it", e))
    }

    /// From now on the tree is neither at one round nor at the other.
    pub fn mark(&self, round: Round) -> Result<()> {
        sync_dir(&self.dir)?;
        replace(&self.dir.join("applying"), format!("{round}\n").as_bytes())
    }

    /// Remembers the identities of the new objects in the stage.
    pub fn stage(&self, handles: &BTreeMap<ObjectId, Box<[u8]>>) -> Result<()> {
        let lines: Vec<_> =
            handles.iter().map(|(id, handle)| format!("{} {}\n", id.0, hex(handle))).collect();
        let text = lines.concat();
        replace(&self.staged_path(), text.as_bytes())
    }

    /// The identities of the new objects, if all of them were in the stage.
    pub fn staged(&self) -> Result<Option<BTreeMap<ObjectId, Box<[u8]>>>> {
        let path = self.staged_path();
        let Some(text) = read_text(&path)? else { return Ok(None) };
        let parse = |line: &str| {
            let (id, hex) = line.split_once(' ')?;
            let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            let handle: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
            Some((ObjectId(id.parse().ok()?), handle?.into_boxed_slice()))
        };
        let all: Option<_> = text.lines().map(parse).collect();
        let damaged =
            || Error::new(Class::Damaged, format!("{}: reading it: not an identity a line", path.display()));
        all.map(Some).ok_or_else(damaged)
    }

    /// The commit: from now on the tree is at the round of this index. Then what was kept for redoing is removed.
    pub fn commit(&self, index: &Index) -> Result<()> {
        save_index(&self.dir.join("index"), index)?;
        self.forget()
    }

    /// Removes what was kept for redoing.
    pub fn forget(&self) -> Result<()> {
        remove(&self.staged_path())?;
        remove(&self.dir.join("applying"))?;
        sync_dir(&self.dir)?;
        remove(&self.spool_path())
    }

    /// Removes a stream of btrfs send that is a dump now, or was refused.
    pub fn received(&self) -> Result<()> {
        remove(&self.received_path())
    }

    /// Removes a spool that was refused.
    pub fn refuse(&self) -> Result<()> {
        self.received()?;
        remove(&self.spool_path())
    }
}
