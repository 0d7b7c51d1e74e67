//! Byte ranges of big files, beside a recorder that sees names and objects ([`super::recorder`]): which files another
//! process notes the accesses to ([`super::noting`]), and which of them its notes are believed for.
//!
//! A file of at least the size that was asked for is *marked* when recording begins, or when it was written and is
//! closed, or at the end of the generation. Descriptors opened before that have no events, so its notes are
//! *believed* only once nobody could write it at a moment after it was marked ([`lease`]): from then on every access
//! that changes it is noted. Until then it is as without marks: a write that the recorder sees means all of it.
//!
//! What changes a believed file and is not an access of a program (an NFS server sets a size) is told by the recorder's
//! own events: of a thread of the kernel, or with no range noted, they mean all of it.
//!
//! A generation ends so:
//!
//! 1. The recorder empties its queue.
//! 2. The noting process is asked for what it noted. Everything that happened before is in the answer; what was under
//!    way is noted in the next generation too.
//! 3. The recorder empties its queue again: a write that was noted before has its event in this generation too, unless
//!    it is still under way.
//! 4. Records of believed files go into the log; anything noted of others means all of them, and so does a write that
//!    an event told of, if nothing was noted.
//! 5. After the next generation has begun, files that something was noted of are looked at: what nobody could write
//!    has nothing under way.
//!
//! When the noting process is gone, or does not answer in time (it is killed then), every believed file that was
//! touched in this generation, or that somebody may be writing, counts as changed all over; from then on nothing is
//! marked. A file that nobody can write and that no event named has not changed.

use super::lease;
use super::noting::{Noting, Question};
use crate::base::{Class, Error, Result, limits};
use crate::capture::live::{BLIND, number_of};
use crate::capture::tree::Root;
use crate::capture::tree::handle;
use crate::capture::tree::inspect::open_quiet;
use crate::capture::tree::walk::{Found, walk};
use crate::device::fields::get_u64;
use crate::fslog::record::Identity;
use crate::fslog::state::KNOWN;
use crate::fslog::{Kind, ObjectId, Record, logfile};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Which files, and how to start the other process.
#[derive(Debug)]
pub struct BigOptions {
    /// Files of at least so many bytes.
    pub least: u64,
    /// A program that calls [`super::noter::run`] with its standard input.
    pub noter: Command,
}

/// A file that is marked.
#[derive(Debug)]
struct Marked {
    number: ObjectId,
    identity: Identity,
    /// Opens it: a handle as the kernel gave it.
    raw: Box<[u8]>,
    believed: bool,
    /// An event named it in this generation.
    touched: bool,
    /// An event told of a write.
    written: bool,
}

/// The noting process, and what it notes.
pub struct Big {
    least: u64,
    tree: OwnedFd,
    path: PathBuf,
    noting: Noting,
    files: HashMap<Box<[u8]>, Marked>,
    /// Files that were written, are not marked, and may have become big: by identity, with the handle that opens them.
    grown: HashMap<Box<[u8]>, Box<[u8]>>,
    /// Whether a process is a thread of the kernel, in this generation.
    kernel: HashMap<i32, bool>,
    /// The next file to be looked whether it is gone.
    sweep: usize,
}

impl std::fmt::Debug for Big {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Big").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// Why there are no ranges.
pub type Ended = String;

impl Big {
    /// Starts the other process, and asks the kernel. `Err` in the result: what it cannot do, in words.
    pub fn start(tree: &Root, options: BigOptions) -> Result<Result<Self, Ended>> {
        let fail = |doing: &'static str| move |e| Error::os(Class::Internal, "byte ranges", doing, e);
        // Somebody waits for a lease: it is given back at once anyway. A handler, because what is ignored would be
        // ignored by a command too.
        signal_hook::flag::register(signal_hook::consts::SIGIO, Arc::new(AtomicBool::new(false)))
            .map_err(fail("taking a signal"))?;
        let BigOptions { least, noter } = options;
        let noting = Noting::start(noter)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", tree.fd().as_raw_fd()));
        let big = Self {
            least,
            tree: tree.fd().try_clone_to_owned().map_err(fail("keeping the tree"))?,
            path: path.map_err(fail("finding the tree"))?,
            noting,
            files: HashMap::new(),
            grown: HashMap::new(),
            kernel: HashMap::new(),
            sweep: 0,
        };
        let asked = big.noting.ask(Question::Probe, ObjectId::ROOT, 0, Some(tree.fd()));
        Ok(match asked.as_deref().map(number) {
            Ok(0) => Ok(big),
            Ok(error) => Err(match Errno::from_raw_os_error(error) {
                Errno::INVAL | Errno::NOSYS => "Linux 6.14 or newer is needed".to_owned(),
                Errno::OPNOTSUPP => "this file system does not offer them".to_owned(),
                Errno::PERM => "it needs root (CAP_SYS_ADMIN)".to_owned(),
                other => other.to_string(),
            }),
            Err(e) => Err(format!("the noting process does not answer: {e}")),
        })
    }

    /// Marks the big files that there are, before anybody opens them.
    pub fn mark_tree(&mut self, tree: &Root) -> Result<()> {
        let walked = walk(tree, false)?;
        let mut waiting = vec![(0, Vec::<Box<[u8]>>::new())];
        while let Some((at, path)) = waiting.pop() {
            let Some(found) = walked.dirs.get(at) else { continue };
            for below in found.iter().filter_map(|found| Some((found.dir?, found))) {
                let mut path = path.clone();
                path.push(below.1.name.clone());
                waiting.push((below.0, path));
            }
            let is_big =
                |found: &&Found| found.look.meta.kind == Kind::File && found.look.meta.size >= self.least;
            let big: Vec<_> = found.iter().filter(is_big).collect();
            if big.is_empty() {
                continue;
            }
            let parts: Vec<_> = path.iter().map(|name| &name[..]).collect();
            let Ok(dir) = tree.dir(&parts) else { continue };
            for found in big {
                // One that is gone, or not the one any more, is marked once it is written.
                let Ok(file) = open_quiet(dir.as_fd(), &found.name, Kind::File) else {
                    continue;
                };
                let Ok(raw) = handle::raw(file.as_fd()) else { continue };
                self.mark(file.as_fd(), &raw, &found.name)?;
            }
        }
        // What was written before is not known to the log anyway.
        let quiet: Vec<_> = self.files.keys().cloned().collect();
        let quiet: Vec<_> = quiet.into_iter().filter(|handle| !self.may_be_written(handle)).collect();
        self.believe(&quiet);
        Ok(())
    }

    /// How many files are marked, and how many of these are believed.
    pub fn counts(&self) -> (usize, usize) {
        (self.files.len(), self.files.values().filter(|file| file.believed).count())
    }

    /// The id of the noting process.
    pub fn process(&self) -> u32 {
        self.noting.id()
    }

    /// Marks a file that is open. False if it cannot be.
    fn mark(&mut self, file: BorrowedFd<'_>, raw: &[u8], hint: &[u8]) -> Result<bool> {
        let mut identity: Box<[u8]> = raw.into();
        handle::forget_subvolume(&mut identity);
        let number = number_of(&identity);
        let answer = self.noting.ask(Question::Mark, number, 0, Some(file)).map_err(silent)?;
        if self::number(&answer) != 0 {
            return Ok(false);
        }
        let told = Identity { kind: Kind::File, handle: identity.to_vec(), hint: hint.to_vec() };
        let raw = raw.into();
        let marked = Marked { number, identity: told, raw, believed: false, touched: true, written: false };
        self.files.insert(identity, marked);
        Ok(true)
    }

    /// Opens a file as the kernel knows it.
    fn open(&self, raw: &[u8]) -> std::io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOATIME | libc::O_NOCTTY;
        handle::open(self.tree.as_fd(), raw, flags)
    }

    /// Whether somebody may be writing a marked file; if nobody can say, somebody may.
    fn may_be_written(&self, handle: &[u8]) -> bool {
        let Some(file) = self.files.get(handle) else { return true };
        self.open(&file.raw).and_then(|file| lease::is_written(file.as_fd())).unwrap_or(true)
    }

    /// Whether what an event tells of is noted by ranges; the file counts as touched, or written, from now on.
    pub fn is_noted(&mut self, handle: &[u8], process: i32, written: bool) -> bool {
        let Some(file) = self.files.get_mut(handle) else { return false };
        file.touched = true;
        file.written |= written;
        file.believed && !*self.kernel.entry(process).or_insert_with(|| is_kernel(process))
    }

    /// A file was written that is not believed: it may have become big, or nobody writes it any more.
    pub fn wrote(&mut self, handle: &[u8], raw: &[u8]) {
        if self.grown.len() < limits::RANGES_FILES && self.files.get(handle).is_none_or(|file| !file.believed)
        {
            self.grown.insert(handle.into(), raw.into());
        }
    }

    /// Looks at files that were written, marks those that are big, and gives those that nobody could write after
    /// that: they are to be believed once the queue was empty again. `closed` are looked at; at the end of a
    /// generation all.
    pub fn look(&mut self, closed: Option<&BTreeSet<Box<[u8]>>>) -> Result<Vec<Box<[u8]>>> {
        let now: Vec<_> = match closed {
            Some(closed) => closed.iter().filter_map(|handle| self.grown.remove_entry(handle)).collect(),
            None => std::mem::take(&mut self.grown).into_iter().collect(),
        };
        let mut quiet = Vec::new();
        for (handle, raw) in now {
            if !self.files.contains_key(&handle) && !self.mark_grown(&raw)? {
                continue;
            }
            if !self.may_be_written(&handle) {
                quiet.push(handle);
            }
        }
        if closed.is_none() {
            let coarse: Vec<_> = self
                .files
                .iter()
                .filter(|(_, file)| !file.believed)
                .map(|(handle, _)| handle.clone())
                .collect();
            quiet.extend(coarse.into_iter().filter(|handle| !self.may_be_written(handle)));
        }
        Ok(quiet)
    }

    fn mark_grown(&mut self, raw: &[u8]) -> Result<bool> {
        let Ok(path) = handle::open(self.tree.as_fd(), raw, libc::O_PATH) else { return Ok(false) };
        let is_big = fstat(&path).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_size.unsigned_abs() >= self.least
        });
        if !is_big {
            return Ok(false);
        }
        let Ok(place) = std::fs::read_link(format!("/proc/self/fd/{}", path.as_raw_fd())) else {
            return Ok(false);
        };
        if !place.starts_with(&self.path) {
            return Ok(false);
        }
        let Ok(file) = self.open(raw) else { return Ok(false) };
        let hint = place.file_name().map(|name| name.as_encoded_bytes().to_vec());
        self.mark(file.as_fd(), raw, &hint.unwrap_or_default())
    }

    /// What was noted of these files is believed from now on.
    pub fn believe(&mut self, handles: &[Box<[u8]>]) {
        for handle in handles {
            if let Some(file) = self.files.get_mut(handle) {
                file.believed = true;
            }
        }
    }

    /// Step 2: what was noted.
    pub fn take(&mut self) -> Result<Taken> {
        let answer = self.noting.ask(Question::Take, ObjectId::ROOT, 0, None).map_err(silent)?;
        let at = answer.len().checked_sub(8).ok_or_else(unreadable)?;
        let (records, last) = answer.split_at(at);
        let records = logfile::records("what was noted", records)?;
        Ok(Taken { last: get_u64(last, 0), records, numbers: BTreeSet::new() })
    }

    /// Step 4: the records of the generation.
    pub fn records(&mut self, taken: &mut Taken) -> Result<Vec<Record>> {
        let by_number: HashMap<ObjectId, &Marked> =
            self.files.values().map(|file| (file.number, file)).collect();
        let mut records = Vec::new();
        for record in std::mem::take(&mut taken.records) {
            let (Record::Data { id, .. } | Record::Limit { id, .. } | Record::All { id, .. }) = record else {
                return Err(unreadable());
            };
            // Of one that was forgotten: nobody asks for it any more.
            let Some(file) = by_number.get(&id) else { continue };
            if taken.numbers.insert(id) {
                records.push(Record::Ino { id, identity: file.identity.clone() });
            }
            records.push(if file.believed { record } else { Record::All { id, why: BLIND } });
        }
        for file in self.files.values_mut() {
            let (id, identity) = (file.number, file.identity.clone());
            if file.believed && file.touched && !taken.numbers.contains(&id) {
                let nothing = Record::Limit { id, at: KNOWN };
                let more = if file.written { Record::All { id, why: BLIND } } else { nothing };
                records.extend([Record::Ino { id, identity }, more]);
            }
            (file.touched, file.written) = (false, false);
        }
        self.kernel.clear();
        Ok(records)
    }

    /// Step 5, and looks whether some of the files are gone.
    pub fn settle(&mut self, taken: &Taken) -> Result<()> {
        let noted: Vec<_> = self
            .files
            .iter()
            .filter(|(_, file)| taken.numbers.contains(&file.number))
            .map(|(handle, file)| (handle.clone(), file.number))
            .collect();
        for (handle, number) in noted {
            if !self.may_be_written(&handle) {
                self.noting.ask(Question::Settle, number, taken.last, None).map_err(silent)?;
            }
        }
        let some: Vec<_> = self
            .files
            .iter()
            .skip(self.sweep)
            .take(limits::RANGES_SWEEP)
            .map(|(handle, file)| (handle.clone(), file.number, file.raw.clone()))
            .collect();
        self.sweep = if some.len() < limits::RANGES_SWEEP { 0 } else { self.sweep + some.len() };
        for (handle, number, raw) in some {
            let gone = |e: std::io::Error| e.raw_os_error() == Some(libc::ESTALE);
            if handle::open(self.tree.as_fd(), &raw, OFlags::PATH.bits().cast_signed()).is_err_and(gone) {
                self.files.remove(&handle);
                self.noting.ask(Question::Forget, number, 0, None).map_err(silent)?;
            }
        }
        Ok(())
    }

    /// Whether the noting process is gone.
    pub fn is_gone(&mut self) -> bool {
        self.noting.is_gone()
    }

    /// It is no more, or is ended: what is believed of what may have changed is given up.
    pub fn give_up(mut self) -> Vec<Record> {
        self.noting.end();
        let changed = self
            .files
            .iter()
            .filter(|(handle, file)| file.believed && (file.touched || self.may_be_written(handle)));
        changed
            .flat_map(|(_, file)| {
                let identity = file.identity.clone();
                [Record::Ino { id: file.number, identity }, Record::All { id: file.number, why: BLIND }]
            })
            .collect()
    }
}

/// What a generation had.
#[derive(Debug, Default)]
pub struct Taken {
    last: u64,
    records: Vec<Record>,
    numbers: BTreeSet<ObjectId>,
}

fn unreadable() -> Error {
    Error::new(Class::Internal, "byte ranges: what was noted cannot be read")
}

fn number(answer: &[u8]) -> i32 {
    answer.first_chunk().map_or(libc::EIO, |bytes| i32::from_le_bytes(*bytes))
}

fn silent(e: std::io::Error) -> Error {
    Error::os(Class::Timeout, "byte ranges", "asking the noting process", e)
}

/// Whether a process is a thread of the kernel (`PF_KTHREAD`), such as one of an NFS server.
fn is_kernel(process: i32) -> bool {
    const KTHREAD: u64 = 0x0020_0000;
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name stands in brackets, and may have blanks and brackets in it.
    let flags = text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse().ok());
    flags.is_some_and(|flags: u64| flags & KTHREAD != 0)
}
