//! Trees as the far end of a copy offers them: a standby that takes dumps in, and a tree that is read and asked for
//! its objects one by one. What an answer holds is packed in [`super::node`].

use super::node::{pack_groups, pack_node};
use crate::base::{Class, Error, Result};
use crate::capture::apply::standby::Standby;
use crate::capture::apply::{ApplyOptions, apply};
use crate::capture::scan::verify::read_tree;
use crate::capture::tree::Root;
use crate::device::beneath::{Confined, Found};
use crate::fslog::index::{ATIME, PRIVILEGED};
use crate::fslog::merkle::{Hashes, link_groups};
use crate::fslog::{Index, ObjectId};
use crate::remote::{Call, FarStream, FarTree};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// Pieces of a dump that wait to be spooled.
const AHEAD: usize = 4;

/// Which trees may be touched, and where standbys remember their rounds.
pub struct Trees<'a> {
    /// Where paths may lead.
    pub confined: &'a Confined,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Where the standby of a tree remembers its round, by the path of the tree.
    pub usual_log: fn(&Path) -> Result<PathBuf>,
}

/// What belongs to a tree.
pub const fn options(call: &Call) -> u32 {
    (if call.privileged { PRIVILEGED } else { 0 }) | (if call.atime { ATIME } else { 0 })
}

impl Trees<'_> {
    fn found(&self, call: &Call) -> Result<(Found, ApplyOptions)> {
        let found = self.confined.find(&call.root)?;
        if !call.log.is_empty() && self.confined.is_confined() {
            let shown = found.shown.display();
            let text = format!("{shown}: where it remembers its round: under --root that cannot be chosen");
            return Err(Error::new(Class::Refused, text));
        }
        let log = if call.log.is_empty() {
            (self.usual_log)(&found.path()).map_err(|error| found.name(error))?
        } else {
            PathBuf::from(OsStr::from_bytes(&call.log))
        };
        let options = ApplyOptions { privileged: call.privileged, ..ApplyOptions::new(found.path(), log) };
        Ok((found, options))
    }

    /// What may be done to a tree: not where only reading is allowed, not where a new link would be believed, and
    /// by a confined near end nothing that could lead it out, such as a device node.
    fn may_write(&self, found: &Found, call: &Call) -> Result<()> {
        let why = match self.confined.is_confined() {
            _ if self.read_only => "only reading is allowed here",
            true if call.privileged => "what is privileged is not allowed under --root",
            true if found.is_of_devices() => "it is among the devices",
            _ => return Ok(()),
        };
        Err(Error::new(Class::Refused, format!("{}: changing it: {why}", found.shown.display())))
    }

    /// Begins to apply a dump; the tree is touched when all of it has arrived, as everywhere.
    pub fn apply(&self, call: &Call) -> Result<Intake> {
        let (found, options) = self.found(call)?;
        self.may_write(&found, call)?;
        let (sender, pieces) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new().name("apply".into()).spawn(move || {
            let mut pieces = Pieces { source: pieces, piece: Vec::new(), at: 0, whole: false };
            let report = apply(&options, Some(("the dump", &mut pieces)), &mut |_| Ok(()));
            let report = report.and_then(|report| {
                serde_json::to_vec(&report)
                    .map_err(|e| Error::new(Class::Internal, format!("writing the report: {e}")))
            });
            report.map_err(|error| found.name(error))
        });
        let thread =
            thread.map_err(|e| Error::os(Class::Internal, "a thread", "starting it to apply a dump", e))?;
        Ok(Intake(Mutex::new(Some((sender, thread)))))
    }

    /// Reads a whole tree.
    pub fn scan(&self, call: &Call) -> Result<TreeRead> {
        let found = self.confined.find(&call.root)?;
        let read = || {
            let index = read_tree(&Root::open(&found.path())?, options(call))?;
            let hashes = Hashes::of(&index)?;
            Ok(TreeRead { groups: link_groups(&index), index, hashes })
        };
        read().map_err(|error| found.name(error))
    }

    /// The round that a standby is at; an interrupted apply is finished first. Empty before the first round.
    pub fn round(&self, call: &Call) -> Result<Vec<u8>> {
        let (found, options) = self.found(call)?;
        let round = || {
            if Standby::open(&options.log)?.applying()?.is_some() {
                self.may_write(&found, call)?;
                apply(&options, None, &mut |_| Ok(()))?;
            }
            let index = Standby::open(&options.log)?.index()?;
            Ok(index.map_or_else(Vec::new, |index| index.round.to_string().into_bytes()))
        };
        round().map_err(|error| found.name(error))
    }
}

/// A dump on its way in: `None` says that it was all.
type Piece = Option<Vec<u8>>;

/// A dump that is being taken in by a thread.
pub struct Intake(Mutex<Option<(SyncSender<Piece>, Applying)>>);

/// The thread that applies; its report.
type Applying = JoinHandle<Result<Vec<u8>>>;

impl Intake {
    /// How it ended.
    fn end(&self, how: Piece) -> Result<Vec<u8>> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, thread)) = taken else {
            return Err(Error::new(Class::Connect, "the dump: it has ended already"));
        };
        // A thread that has given up does not listen any more, and says why.
        let _ = sender.send(how);
        drop(sender);
        thread.join().unwrap_or_else(|_| Err(Error::new(Class::Internal, "the thread that applies panicked")))
    }
}

impl FarStream for Intake {
    fn push(&self, bytes: Vec<u8>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(to, _)| to.clone());
        match sender.map(|sender| sender.send(Some(bytes))) {
            Some(Ok(())) => Ok(()),
            // It has ended early, mostly because it refuses the dump.
            _ => self.end(None).and(Err(Error::new(Class::Damaged, "the dump: more bytes behind its end"))),
        }
    }

    fn finish(&self) -> Result<Vec<u8>> {
        self.end(None)
    }
}

/// What is read of a dump. A near end that vanishes is an error, never the end.
struct Pieces {
    source: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    whole: bool,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.whole {
                return Ok(0);
            }
            match self.source.recv() {
                Ok(Some(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(None) => self.whole = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let len = buf.len().min(self.piece.len() - self.at);
        buf[..len].copy_from_slice(&self.piece[self.at..][..len]);
        self.at += len;
        Ok(len)
    }
}

/// A tree that was read for somebody else.
pub struct TreeRead {
    index: Index,
    hashes: Hashes,
    groups: Vec<Vec<Vec<u8>>>,
}

impl FarTree for TreeRead {
    fn objects(&self) -> u64 {
        self.index.objects.len() as u64
    }

    fn digest(&self) -> [u8; 32] {
        self.hashes.root.0
    }

    fn node(&self, id: u64, from: u64) -> Result<Vec<u8>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if id == 0 {
            return Ok(pack_groups(&self.groups, from).0);
        }
        pack_node(&self.index, &self.hashes, ObjectId(id), from).map(|pack| pack.0)
    }
}
