//! One end of a copy: something with bytes that many threads read, or write, at once.
//!
//! Files, NBD exports and the far side of an SSH channel are all the same to the engine. It starts about
//! [`Facts::lanes`] threads; each calls [`End::read`], [`End::write`] and so on and waits for the answer, so that
//! as many requests are in flight as there are threads. An end that talks to somebody else sends requests in the
//! order of the calls and matches the answers: one call never waits for the answer of another.

use crate::base::{ByteRange, Class, Error, Result};
use crate::delta::manifest::Digest;
use crate::device::FileDevice;
use std::fmt::Debug;

/// Longest range of one call of [`End::digests`]: bounded work, so that a deadline on its answer means something.
pub const DIGEST_RANGE: u64 = 64 << 20;
/// Longest range of one call of [`End::zero`].
pub const ZERO_RANGE: u64 = 1 << 30;

/// What is true of an end, found out when it is opened. The engine decides from these alone whether a copy is
/// refused, before the first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How it is called in messages: a path, a URI, a command.
    pub name: String,
    /// Bytes. A target without an end of its own (`null:`) has [`crate::base::limits::VOLUME_SIZE`].
    pub size: u64,
    /// Equal for two names of the same device, and different for different ones; `None` where it is not known.
    /// A device of this machine: what [`crate::device::identity_of`] says. Elsewhere the text names the machine.
    pub identity: Option<String>,
    /// Whether every write will be refused.
    pub read_only: bool,
    /// What else uses it, in words that follow "it is": mounted on /srv, held by another process.
    pub in_use: Option<String>,
    /// Whether it may be written to by somebody else while it is read: mounted read-write, served by a mirrord.
    pub live: bool,
    /// Whether [`End::flush`] means anything. Without it nothing that was written is ever known to be durable.
    pub flushes: bool,
    /// Whether [`End::zero`] is cheaper than writing so many zeroes.
    pub zeroes: bool,
    /// Whether [`End::extents`] can tell zeroes from data.
    pub tells_zeroes: bool,
    /// Whether [`End::digests`] costs less than [`End::read`]: its own side computes them.
    pub hashes: bool,
    /// Whether [`End::write_from`] works, and saves a copy of the bytes.
    pub takes_files: bool,
    /// Offsets and lengths of reads and writes are multiples of this, but for the end of the device.
    pub align: u64,
    /// Longest read or write in one call.
    pub request_max: usize,
    /// Calls that are worth having in flight at the same time.
    pub lanes: usize,
}

/// A piece of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub range: ByteRange,
    /// It is known to read as zeroes. `false`: it must be read to know.
    pub zero: bool,
}

/// One end of a copy. All methods take `&self` and are called from many threads; each waits for its answer, at
/// most so long as the end's own deadline allows.
///
/// # Errors
///
/// An error says nothing about other ranges, unless [`End::gone`] is set afterwards: then every further call
/// fails. After a failed write or zero the range holds anything. Classes: `Io`; `Connect` and `Timeout` for a
/// peer that has gone or does not answer.
///
/// # Durability
///
/// What [`End::write`] and [`End::zero`] acknowledge is durable when a [`End::flush`] that was *called
/// afterwards* has returned without error, and not before. If a flush fails, or the end is gone, nothing that was
/// acknowledged since the last good flush may be believed, whatever a later flush says: an implementation keeps
/// failing once it has failed, and never reconnects behind the caller's back.
pub trait End: Send + Sync + Debug {
    /// What is true of it, as of opening.
    fn facts(&self) -> &Facts;

    /// Fills `buf`, as long as it is, from `offset`; the range lies in the device. The vector may be exchanged
    /// for another of the same length. On an error its contents mean nothing: never old bytes taken for new.
    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()>;

    /// Writes all of `data` at `offset`; the range lies in the device.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Writes at `range`, at most [`Facts::request_max`] bytes, what `file` holds there, without a copy of it here.
    /// The file should be in memory there. What arrives is what it holds by then, not what it held at the call.
    fn write_from(&self, file: &FileDevice, range: ByteRange) -> Result<()> {
        let _ = (file, range);
        Err(misuse(self.facts(), "writing", "it takes no files"))
    }

    /// The file of this machine that it is, if it is one.
    fn file(&self) -> Option<&FileDevice> {
        None
    }

    /// Makes a range of at most [`ZERO_RANGE`] bytes read as zeroes; a hole where that is possible and `punch`
    /// is set. Works everywhere, if need be by writing zeroes.
    fn zero(&self, range: ByteRange, punch: bool) -> Result<()>;

    /// See the section on durability. Covers every thread's writes that were acknowledged before this call.
    fn flush(&self) -> Result<()>;

    /// Appends pieces that cover `range` exactly and in order, neighbours of different kinds. Where nobody can
    /// tell, all is data. An answer may be old by the time it is read if somebody else writes.
    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()>;

    /// Appends the BLAKE3 digest of each `step` bytes of a range of at most [`DIGEST_RANGE`] bytes; of the last
    /// step what there is of it. The range begins at a multiple of `step`. This default reads the bytes here.
    fn digests(&self, range: ByteRange, step: u64, digests: &mut Vec<Digest>) -> Result<()> {
        let mut buf = Vec::new();
        let mut at = range.offset;
        while at < range.end() {
            let len = step.min(range.end() - at);
            digests.push(self.digest(ByteRange { offset: at, len }, &mut buf)?);
            at += len;
        }
        Ok(())
    }

    /// The digest of one range, through this side's own reads.
    fn digest(&self, range: ByteRange, buf: &mut Vec<u8>) -> Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        let mut at = range.offset;
        while at < range.end() {
            let len = (range.end() - at).min(self.facts().request_max.min(DIGEST_READ) as u64);
            buf.resize(len as usize, 0);
            self.read(at, buf)?;
            hasher.update(buf);
            at += len;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Drops what the kernel here holds of it in memory, as far as that is on stable storage, so that the next reads
    /// come from there. Says nothing about caches further away.
    fn forget(&self) {}

    /// Why every further call will fail; `None` while it works.
    fn gone(&self) -> Option<Error> {
        None
    }

    /// Bytes that went out to the other side and came in from it, headers and all; `None` where there is no wire
    /// or nobody counts.
    fn traffic(&self) -> Option<(u64, u64)> {
        None
    }

    /// Ends the use: says goodbye, stops helpers, waits for them within the deadline. Does **not** flush. An end
    /// that is dropped without it lets go as well, without a goodbye.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Bytes read at a time where digests are computed: they stay in a core's cache.
const DIGEST_READ: usize = 256 << 10;

/// The error for a call that the caller should not have made.
pub fn misuse(facts: &Facts, doing: &str, why: &str) -> Error {
    Error::new(Class::Internal, format!("{}: {doing}: {why}", facts.name))
}

/// How an end is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// To write to it; it is locked against other writers. Otherwise to read only.
    pub write: bool,
    /// Even if it is mounted or claimed by the kernel.
    pub mounted: bool,
    /// A source that somebody else may write to, so that no lock can be had.
    pub live: bool,
    /// Most connections to a server.
    pub connections: usize,
    /// Most requests in flight, all connections together.
    pub depth: usize,
}
