//! Rounds that are remembered as snapshots, and what `btrfs send --no-data` says of two of them. Nobody has to record:
//! the file system remembers what it wrote when.
//!
//! ```text
//! DIR/snapshot.N       the tree as the index of round N has it, read-only
//! DIR/snapshot.N.id    which snapshot that is, and in which state: UUID, number of the transaction
//! ```
//!
//! 1. The snapshot of a new round is made inside the barrier.
//! 2. Its id is written and synced. It is compared with the snapshot of the round that the standby has, and read.
//! 3. The index of the round is written ([`crate::capture::dump`], step 5), and the snapshot is kept from then on.
//! 4. It is removed with its index, or earlier if no standby has acknowledged the round and
//!    [`limits::SNAPSHOTS_KEPT`] younger ones are there.
//!
//! Recovery: (a) after a crash before 3 there is a snapshot of a round without an index: no standby has it, and the
//! next dump, of the same number, makes it anew; (b) a snapshot that is not there, or that somebody has made writable
//! or replaced, is not compared with: a scan is owed.

use super::ioctl::{self, Subvolume};
use super::replay::Replay;
use super::snapshot::{Snapshot, remove};
use crate::base::{Class, Error, Result, limits};
use crate::capture::tree::Root;
use crate::capture::watch::Watch;
use crate::device::durable::replace;
use crate::fslog::sent::Sent;
use crate::fslog::{Index, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

/// So often a reader of a stream looks whether it is to end.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

fn name_of(round: u64) -> String {
    format!("snapshot.{round}")
}

fn line_of(subvolume: &Subvolume) -> String {
    format!("{} {}\n", subvolume.uuid, subvolume.changed)
}

/// Step 1. Errors: class `Refused` where the tree is no subvolume of btrfs, `dir` is elsewhere, or another subvolume
/// is beneath the tree: in a snapshot that is an empty directory.
pub fn take(tree: &Root, dir: &Path, round: u64) -> Result<Snapshot> {
    let snapshot = Snapshot::take(tree, dir, &name_of(round))?;
    // Asked of the tree: the snapshot has no subvolumes any more.
    let beneath = ioctl::has_subvolumes(tree.fd());
    if beneath.map_err(|e| Error::io(tree.path().display(), "looking for subvolumes in it", e))? {
        let text = format!("{}: comparing snapshots: a subvolume is beneath it", tree.path().display());
        return Err(Error::new(Class::Refused, text));
    }
    Ok(snapshot)
}

fn info(root: &Root) -> Result<Subvolume> {
    ioctl::info(root.fd()).map_err(|e| Error::io(root.path().display(), "asking which snapshot it is", e))
}

/// The snapshot of a round, if it is the one that was made, as it was made.
fn parent(dir: &Path, round: u64) -> Result<u64, String> {
    let path = dir.join(name_of(round));
    let line = std::fs::read_to_string(dir.join(format!("{}.id", name_of(round))));
    let (Ok(line), true) = (line, path.exists()) else {
        return Err(format!("no snapshot is kept of round {round}"));
    };
    let found = Root::open(&path).and_then(|root| info(&root)).map_err(|error| error.message)?;
    if line != line_of(&found) || !found.read_only {
        return Err(format!("{}: it is another snapshot than that of the round", path.display()));
    }
    Ok(found.number)
}

/// Step 2: what changed between the snapshot of the base and this one, of round `round`; or why nobody knows.
pub fn changes(
    dir: &Path,
    base: &Index,
    now: &Snapshot,
    round: u64,
    watch: &Watch,
) -> Result<Result<State, String>> {
    let id = info(now.root())?;
    replace(&dir.join(format!("{}.id", name_of(round))), line_of(&id).as_bytes())?;
    if base.round.number == 0 {
        return Ok(Err("the standby has no round yet".to_owned()));
    }
    let parent = match parent(dir, base.round.number) {
        Ok(parent) => parent,
        Err(why) => return Ok(Err(why)),
    };
    let object = now.path().display().to_string();
    let (from, to) = std::io::pipe().map_err(|e| Error::os(Class::Internal, "a pipe", "making it", e))?;
    let mut replay = Replay::new(base);
    let (sent, played) = std::thread::scope(|scope| {
        let root = now.root();
        let sending = scope.spawn(move || ioctl::send(root.fd(), parent, to.as_fd()));
        let from = Patient { from, watch };
        // Once it is dropped, sending ends, whatever is left.
        let reading = std::io::BufReader::with_capacity(1 << 16, from);
        let played =
            Sent::new(&object, reading).and_then(|mut sent| replay.play(&mut sent, || watch.check()));
        (sending.join().unwrap_or(Err(Errno::IO)), played)
    });
    watch.check()?;
    Ok(match (sent, played) {
        // What ended it is the reason, not the early end of the stream.
        (Err(e), _) if e != Errno::PIPE => Err(format!("{object}: btrfs send: {e}")),
        (_, Err(error)) => Err(error.message),
        _ => Ok(replay.into_state()),
    })
}

/// Reads from a pipe, and looks now and then whether it is to go on.
struct Patient<'a> {
    from: PipeReader,
    watch: &'a Watch,
}

impl Read for Patient<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.watch.stopped().is_some() {
                return Err(std::io::Error::other("it is to end"));
            }
            match poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&TICK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.from.read(to),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Step 4. `rounds` are those whose index is kept, oldest first; `acknowledged` are those that standbys have: older
/// ones than all of these nobody needs.
pub fn prune(dir: &Path, rounds: &[u64], acknowledged: &[u64]) -> Result<()> {
    let young = &rounds[rounds.len().saturating_sub(limits::SNAPSHOTS_KEPT)..];
    let needed = acknowledged.iter().min().copied().unwrap_or(0);
    let newest = rounds.last().copied().unwrap_or(0);
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir.display(), "listing it", e))? {
        let name = entry.map_err(|e| Error::io(dir.display(), "listing it", e))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snapshot.")?.parse().ok());
        let Some(number) = number else { continue };
        // One that is younger than every index belongs to a dump that goes on, or is made anew by the next.
        let wanted = rounds.contains(&number) && (young.contains(&number) || acknowledged.contains(&number));
        if number > newest || wanted && number >= needed {
            continue;
        }
        remove(dir, &name_of(number))?;
        let id = dir.join(format!("{}.id", name_of(number)));
        match std::fs::remove_file(&id) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(id.display(), "removing it", e));
            }
            _ => {}
        }
    }
    Ok(())
}
