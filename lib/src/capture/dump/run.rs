//! What changed since the round that a standby has, with the data, as one stream.
//!
//! 1. The store is locked; the base is the index of the round that the standby acknowledged, or the empty tree.
//! 2. Barrier, phase `pre-dump`: the tree becomes quiet. `syncfs`. Phase `dump`. A recorder, if there is one, begins
//!    the log that follows this round ([`live`]).
//! 3. The tree is walked; everything that differs from the base is read once, and goes into the stream. Inside a
//!    barrier large files are cloned instead, where the file system can, and read after it. With a snapshot the
//!    barrier is left as soon as there is one, and all of this is done to the snapshot.
//! 4. Barrier, phase `post-dump`: the tree may change again.
//! 5. The log and the index of the new round are written and synced.
//! 6. The end of the stream and its digest are written.
//!
//! Snapshots that are kept for the next dump have an order of their own ([`crate::capture::btrfs::kept`]).
//!
//! Recovery: (a) a crash before 5 leaves nothing but a stream without an end, which nobody applies; (b) between 5
//! and 6 a round that no standby has: its number is not used again, and its index goes with the next
//! acknowledgement; (c) whoever has a whole stream can acknowledge it. Without an acknowledgement the next dump
//! begins at the same base.

use super::stream::{Writer, write_names};
use crate::base::{Id, Name, Result};
use crate::capture::barrier::Barrier;
use crate::capture::btrfs::kept;
use crate::capture::btrfs::snapshot::{PASSING, Snapshot};
use crate::capture::live;
use crate::capture::scan::clones::Clones;
use crate::capture::scan::follow::{Followed, Seen, follow, follow_seen};
use crate::capture::scan::{Fresh, begin, now};
use crate::capture::store::{Store, save_index};
use crate::capture::tree::Root;
use crate::capture::tree::mapped::Mapped;
use crate::capture::watch::{Phase, Watch};
use crate::device::durable::replace;
use crate::fslog::derive::{Difference, Operation, between};
use crate::fslog::dump::finish;
use crate::fslog::meta::{Kind, differs};
use crate::fslog::record::{Identity, Record};
use crate::fslog::{Header, Index, State, index, logfile};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

/// How to dump.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// The tree.
    pub root: PathBuf,
    /// The directory of the source.
    pub log: PathBuf,
    /// Who it is for.
    pub standby: Name,
    /// Everything, whatever the standby has acknowledged.
    pub full: bool,
    /// `trusted.*` and `security.*` belong to the tree.
    pub privileged: bool,
    /// Times of last access belong to the tree.
    pub atime: bool,
    /// What makes the tree quiet.
    pub barrier: Option<String>,
    /// Look at nothing but what a recorder has seen, unless something of it is lost.
    pub no_scan: bool,
    /// Read a snapshot of the tree: it must be a subvolume of btrfs.
    pub snapshot: bool,
    /// The same, and keep it for the next dump: look at nothing but what differs between the two, unless the earlier
    /// one is lost.
    pub compare: bool,
    /// Who watches.
    pub watch: Watch,
}

impl DumpOptions {
    /// Everything of a tree as it is, for this standby.
    pub fn new(root: PathBuf, log: PathBuf, standby: Name) -> Self {
        Self {
            root,
            log,
            standby,
            full: false,
            privileged: false,
            atime: false,
            barrier: None,
            no_scan: false,
            snapshot: false,
            compare: false,
            watch: Watch::default(),
        }
    }

    /// What belongs to the tree ([`Index::options`]).
    pub fn bits(&self) -> u32 {
        let bit = |so: bool, bit: u32| if so { bit } else { 0 };
        bit(self.privileged, index::PRIVILEGED) | bit(self.atime, index::ATIME)
    }
}

/// What was dumped, or would be.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DumpReport {
    /// `cfor-dump/1`
    pub schema: &'static str,
    /// The round that the standby must have; 0 for none.
    pub base: u64,
    /// The round that it will have.
    pub round: u64,
    /// Objects that are new.
    pub new: usize,
    /// Objects that are gone.
    pub gone: usize,
    /// Objects that differ.
    pub changed: usize,
    /// Names that come or go.
    pub names: usize,
    /// Bytes of data in it.
    pub data: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Why the tree was scanned although the log was to do; nothing if it did, or was not asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned: Option<String>,
    /// Processes whose mappings could not be looked at: what they store is seen once they unmap it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unseen: BTreeSet<u32>,
}

/// The index that the dump begins at.
fn base_of(options: &DumpOptions, store: &Store) -> Result<Index> {
    let base = store.base_for(&options.standby)?;
    Ok(if options.full { Index::empty(base.tree) } else { base })
}

/// What a dump would do, and how large it would be: everything is read, nothing is written, no barrier is passed.
pub fn plan(options: &DumpOptions) -> Result<(DumpReport, Vec<Operation>)> {
    let root = Root::open(&options.root)?;
    let (base, number) = if options.log.exists() {
        let store = Store::open(&options.log)?;
        (base_of(options, &store)?, store.next_round()?)
    } else {
        (Index::empty(Id::random()?), 1)
    };
    root.sync()?;
    let fresh = begin(&root, &base, options.bits(), now(), &options.watch)?;
    let mut writer = Writer::new(&base, &fresh.index, number, "the plan", std::io::sink())?;
    let (index, difference) = read(options, fresh, &root, &mut writer, None)?;
    Ok((writer.report(&difference, number), between(&base, &index)))
}

/// Dumps into `out`, which is `object` in messages. The order is that of the module's page.
pub fn dump<W: Write>(options: &DumpOptions, object: &str, out: W) -> Result<(DumpReport, W)> {
    let store = Store::open(&options.log)?;
    let root = Root::open(&options.root)?;
    let base = base_of(options, &store)?;
    let number = store.next_round()?;
    let facts = vec![
        ("MIRROR_ROOT", options.root.display().to_string()),
        ("MIRROR_STANDBY", options.standby.to_string()),
        ("MIRROR_ROUND", number.to_string()),
    ];
    let mut barrier = Barrier::new(options.barrier.as_deref(), "dump", facts);
    barrier.enter()?;
    root.sync()?;
    barrier.inside()?;
    let recorder = live::rotate(&options.log, number);
    let time = now();
    let mut snapshot = match (options.compare, options.snapshot) {
        (true, _) => Some(kept::take(&root, &options.log, number)?),
        (false, true) => Some(Snapshot::take(&root, &options.log, PASSING)?),
        (false, false) => None,
    };
    if snapshot.is_some() {
        barrier.leave()?;
    }
    let seen = snapshot.as_ref().map_or(&root, Snapshot::root);
    let followed = if let (true, Some(snapshot)) = (options.compare, &snapshot) {
        follow_snapshots(options, snapshot, &base, number, time)?.map_err(Some)
    } else if options.no_scan {
        follow_recorder(options, seen, &base, recorder, number, time)?.map_err(Some)
    } else {
        Err(None)
    };
    let (fresh, unseen, scanned) = match followed {
        Ok((fresh, unseen)) => (fresh, unseen, None),
        Err(why) => (begin(seen, &base, options.bits(), time, &options.watch)?, BTreeSet::new(), why),
    };
    let mut writer = Writer::new(&base, &fresh.index, number, object, out)?;
    let (index, difference) = read(options, fresh, seen, &mut writer, Some((&mut barrier, &store)))?;
    options.watch.check()?;
    options.watch.enter(Phase::Commit, 0);
    let state = log_of(&base, &index, &difference);
    let log = Header { round: number, ..logfile::header(base.tree, base.round) };
    replace(&store.log_path(number), &logfile::whole(&log, number, &state, true))?;
    save_index(&store.round_path(number), &index)?;
    if let Some(snapshot) = snapshot.as_mut().filter(|_| options.compare) {
        snapshot.keep();
    }
    drop(snapshot);
    store.prune()?;
    let report = DumpReport { scanned, unseen, ..writer.report(&difference, number) };
    Ok((report, finish(writer.frames, index.round.root, index.next)?))
}

/// The tree as btrfs says that it differs from the snapshot of the base, or why it does not say.
fn follow_snapshots(
    options: &DumpOptions,
    snapshot: &Snapshot,
    base: &Index,
    number: u64,
    time: i64,
) -> Result<Followed> {
    options.watch.enter(Phase::Look, 0);
    match kept::changes(&options.log, base, snapshot, number, &options.watch)? {
        Ok(state) => {
            let (tree, bits) = (snapshot.root(), options.bits());
            follow_seen(tree, base, &state, Seen::Compared, bits, time, &options.watch)
        }
        Err(why) => Ok(Err(why)),
    }
}

/// The tree as the recorder's logs say, or why they are not enough.
fn follow_recorder(
    options: &DumpOptions,
    tree: &Root,
    base: &Index,
    recorder: Result<Option<live::Answer>>,
    number: u64,
    time: i64,
) -> Result<Followed> {
    let answer = match recorder {
        Ok(Some(answer)) => answer,
        Ok(None) => return Ok(Err("nobody records".to_owned())),
        Err(error) => return Ok(Err(error.message)),
    };
    if answer.root != live::identity(tree)? || answer.round != number {
        return Ok(Err("the recorder watches another tree".to_owned()));
    }
    match live::since(&options.log, base.round.number, number) {
        // This one knows itself what is mapped, of the only processes that it sees.
        Ok(state) if answer.backend == live::SECCOMP => {
            let nothing = Seen::Recorded(Mapped::default());
            follow_seen(tree, base, &state, nothing, options.bits(), time, &options.watch)
        }
        Ok(state) => follow(tree, base, &state, options.bits(), time, &options.watch),
        Err(why) => Ok(Err(why)),
    }
}

/// Steps 3 and 4, up to the names: gives the new round, and in what it differs.
fn read<W: Write>(
    options: &DumpOptions,
    mut fresh: Fresh,
    root: &Root,
    writer: &mut Writer<'_, W>,
    within: Option<(&mut Barrier<'_>, &Store)>,
) -> Result<(Index, Difference)> {
    let base = writer.base;
    let mut clones = match &within {
        Some((barrier, store)) if barrier.is_closed() => Some(Clones::new(store.dir())?),
        _ => None,
    };
    fresh.read(root, base, writer, clones.as_mut(), &options.watch)?;
    if let Some((barrier, _)) = within {
        barrier.leave()?;
    }
    if let Some(clones) = clones {
        fresh.read_clones(&clones, base, writer, &options.watch)?;
    }
    let mut index = fresh.index;
    index.round.number = writer.number;
    index.seal()?;
    let difference = Difference::of(base, &index);
    write_names(writer, &index, &difference)?;
    Ok((index, difference))
}

/// The difference as a log: what was changed, without the data.
pub fn log_of(base: &Index, index: &Index, difference: &Difference) -> State {
    let mut state = State::default();
    let (old, new) = (base.names(), index.names());
    for (dir, name) in difference.unnamed.keys().chain(difference.named.keys()) {
        state.add(&Record::Name { dir: *dir, name: name.clone() });
    }
    let dirs = state.names.iter().map(|(dir, _)| *dir);
    let ids: BTreeSet<_> =
        dirs.chain(difference.new.iter().chain(difference.changed.keys()).copied()).collect();
    for id in ids {
        let Some(object) = index.objects.get(&id).or_else(|| base.objects.get(&id)) else { continue };
        let hint = if index.objects.contains_key(&id) { new.path(id) } else { old.path(id) };
        let identity = Identity { kind: object.meta.kind, handle: object.stamp.handle.to_vec(), hint };
        state.add(&Record::Ino { id, identity });
        let bits = difference.changed.get(&id).copied().unwrap_or_default();
        let mask = bits & !(differs::CONTENT | differs::SIZE);
        if mask != 0 {
            state.add(&Record::Meta { id, mask });
        }
        if object.meta.kind != Kind::File {
            continue;
        }
        match base.objects.get(&id) {
            None => state.add(&Record::Limit { id, at: 0 }),
            Some(before) => {
                for range in object.content.changed_since(&before.content, object.meta.size).iter() {
                    state.add(&Record::Data { id, range });
                }
                if before.meta.size != object.meta.size {
                    state.add(&Record::Limit { id, at: before.meta.size.min(object.meta.size) });
                }
            }
        }
    }
    state
}
