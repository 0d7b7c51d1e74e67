//! What goes into the core and what comes out of it. Everything the driver and the simulator must know.
//!
//! # What the driver promises
//!
//! 1. Actions are performed in the order of the list. [`Action::Mark`] has taken effect (survives a kill of this
//!    process) before any later action of the list, or of a later list, begins.
//! 2. Every I/O action is answered by exactly one [`Event::Done`] carrying the leg's session at issue, unless the
//!    session ends first: after [`Event::Down`] of a session, or after [`Action::Disconnect`], no `Done` of that
//!    session is delivered any more. (The core counts and ignores what breaks this.)
//! 3. [`Event::Up`] of a local leg is only sent when no I/O of an earlier session is still being executed by
//!    anybody in this process. For remote legs the core itself waits ([`super::super::core`], *held*).
//! 4. Data of a completed read stays with the driver under its [`IoId`] until [`Action::Release`], or until
//!    the [`Action::Reply`] that hands it to the client.
//! 5. The payload of a client's write stays with the driver under its token until the reply; a leg's queue that
//!    still needs it keeps it alive by itself.
//! 6. [`Event::Tick`] comes first in each batch and at least every [`TICK_MS`] milliseconds; time never runs
//!    backwards.

use crate::base::ByteRange;
use std::ops::Range;

/// Longest time between two ticks, in milliseconds.
pub const TICK_MS: u64 = 50;

/// Number of a leg: its place in the configured order.
pub type LegIx = usize;

/// Number of a tracker: the driver's choice, used again when the tracker is gone.
pub type TrackerIx = usize;

/// A map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapIx {
    /// Of this leg.
    Leg(LegIx),
    /// Of this tracker.
    Tracker(TrackerIx),
}

/// One I/O request to one leg; unique while unresolved. Opaque outside the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoId(pub u64);

impl IoId {
    /// Where the number of the leg stands in a name that the core gives; it never reaches [`OUTSIDE`].
    const LEG: u32 = super::op::SLOT_BITS;

    /// A name for I/O that the driver does for itself: the core never gives it and must not hear of it.
    pub const fn outside(serial: u32, leg: LegIx, n: u16) -> Self {
        let (leg, marker) = ((leg & 0xff) as u64, OUTSIDE << Self::LEG);
        Self(n as u64 | marker | leg << (Self::LEG + 8) | (serial as u64) << (Self::LEG + 16))
    }

    /// What such a name was made of; `None` for one of the core's.
    pub const fn inside(self) -> Option<(u32, LegIx, u16)> {
        if self.0 >> Self::LEG & 0xff != OUTSIDE || self.0 == u64::MAX {
            return None;
        }
        let leg = (self.0 >> (Self::LEG + 8) & 0xff) as LegIx;
        Some(((self.0 >> (Self::LEG + 16)) as u32, leg, self.0 as u16))
    }
}

/// In place of the number of a leg.
const OUTSIDE: u64 = 0xfe;
const _: () = assert!(crate::base::limits::LEGS < OUTSIDE as usize);

/// A client request as the driver knows it. Opaque to the core.
pub type Token = u64;

/// Why a request failed: the errors of NBD (specification, "Error values").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Input or output failed.
    Io,
    /// No space left on the leg.
    NoSpace,
    /// Not offered, or cannot be done fast (only answers a fast zero).
    NotSupported,
    /// The request itself is wrong.
    Invalid,
    /// The server is going away.
    Shutdown,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the range.
    Read,
    /// Write the range; the payload is with the driver.
    Write {
        /// Answer only when it is on stable storage.
        fua: bool,
    },
    /// Make the range read as zeroes. TRIM is this with `no_hole` false (invariant 12).
    Zero {
        /// Answer only when it is on stable storage.
        fua: bool,
        /// Keep the space allocated.
        no_hole: bool,
        /// Fail with [`Fault::NotSupported`] when it is not faster than writing.
        fast: bool,
    },
    /// Make everything answered so far durable. The range is ignored.
    Flush,
    /// Which parts of the range are holes (answered through a read-like I/O, [`Action::Extents`]).
    Extents,
}

/// What a leg can do, as found when it was opened or connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Caps {
    /// FLUSH makes answered writes durable. Without it the leg must be configured `flush=unsafe`.
    pub flush: bool,
    /// Writes can carry FUA.
    pub fua: bool,
    /// Zeroes can be asked to fail when slow.
    pub fast_zero: bool,
    /// Extents can be asked for.
    pub extents: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time, in milliseconds of a monotonic clock.
    Tick {
        /// Now.
        now_ms: u64,
    },
    /// A client asks. Ranges are inside the volume, never empty except for a flush.
    Client {
        /// The driver's name of the request.
        token: Token,
        /// What is asked.
        ask: Ask,
        /// Where.
        range: ByteRange,
    },
    /// A leg has answered.
    Done {
        /// Which leg.
        leg: LegIx,
        /// Its session when the request was issued.
        session: u32,
        /// Which request.
        io: IoId,
        /// How it ended.
        result: Result<(), Fault>,
    },
    /// A leg is open: identity, size and flags were checked by the driver.
    Up {
        /// Which leg.
        leg: LegIx,
        /// Names this connection; greater than every earlier one of the leg.
        session: u32,
        /// What it can do.
        caps: Caps,
    },
    /// The connection of a leg is lost (any of them, for whatever cause).
    Down {
        /// Which leg.
        leg: LegIx,
        /// The session that ended.
        session: u32,
    },
    /// An attempt to open or connect a leg failed; the driver does not repeat it by itself.
    Unreachable {
        /// Which leg.
        leg: LegIx,
    },
    /// [`Action::Persist`] ended.
    Persisted {
        /// The state it was.
        seq: u64,
        /// Whether it is on stable storage now. Otherwise it may be there, or the one before.
        ok: bool,
    },
    /// [`Action::SyncMaps`] ended.
    MapsSynced {
        /// Which one.
        seq: u64,
        /// Every mark of these maps is on stable storage that was made before the action. Otherwise nothing is
        /// known of those since the sync before, and a later one makes them durable all the same: the driver has
        /// them written again.
        ok: bool,
    },
    /// [`Action::Compare`] ended.
    Compared {
        /// The first of its reads.
        io: IoId,
        /// The blocks in which the reads are not all the same, each with a number for each read, in their order:
        /// the same number where they hold the same. [`super::verify::compare`] makes it.
        differ: Vec<(u64, Vec<u8>)>,
    },
    /// An administrator asks; answered with [`Action::Answer`].
    Command {
        /// The driver's name of the command.
        id: u64,
        /// What is asked.
        command: Command,
    },
}

/// What an administrator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take the leg out; it stays out, also after a restart, until it is attached.
    Detach(LegIx),
    /// Let it come back.
    Attach(LegIx),
    /// Declare it failed: it stays out until it is attached.
    Fail(LegIx),
    /// Reach for the leg now (all legs that are out if none is named); with `full`, everything is copied.
    Resync {
        /// Which leg.
        leg: Option<LegIx>,
        /// Forget the map: copy all of it.
        full: bool,
    },
    /// Other settings of the volume; requests that are under way keep the old ones.
    Tune {
        /// With fewer legs in sync writes are refused.
        min_legs: usize,
        /// Which leg answers reads.
        read_policy: super::ReadPolicy,
    },
    /// Copies to the leg (to all legs if none is named) wait until [`Command::Resume`]; forgotten at a restart.
    Pause(Option<LegIx>),
    /// They go on.
    Resume(Option<LegIx>),
    /// Take the leg out like [`Command::Detach`], and answer only when that is durable: the first step of a removal.
    Retire(LegIx),
    /// A retired leg stays, because its removal could not be finished: it is detached, and may be attached.
    Retain(LegIx),
    /// A retired leg is no member of the volume any more; its number may be used again.
    Forget(LegIx),
    /// A new leg: its record says durably that it is INCONSISTENT, its map that everything is missing. Its number is
    /// the next one, or that of a forgotten leg.
    Enlist {
        /// Its number.
        leg: LegIx,
        /// What it is.
        config: super::LegConfig,
    },
    /// Other settings of a leg; with `moved` it is reached at another address from now on.
    Set {
        /// Which leg.
        leg: LegIx,
        /// All its settings.
        config: super::LegConfig,
        /// What is connected is not it any more.
        moved: bool,
    },
    /// The volume has grown: the maps have room, and say that the new area is missing on all legs but the source.
    /// Answered when the leaving of the others is durable.
    Grow {
        /// In bytes, from now on.
        size: u64,
        /// The leg whose contents the new area has.
        source: LegIx,
    },
    /// Forget what is known of the contents of a leg, and its failures: everything is copied to it.
    Reset(LegIx),
    /// Something about a tracker; at any time.
    Tracker {
        /// Which one.
        tracker: TrackerIx,
        /// What is asked.
        ask: TrackerAsk,
    },
    /// Compare the legs in sync; answered at the end, when [`super::Core::verify_report`] says what was found.
    Verify {
        /// Only blocks in which this leg differs from another count.
        only: Option<LegIx>,
        /// Blocks that differ are copied from this leg afterwards.
        from: Option<LegIx>,
    },
    /// Let nothing be written for so long at most; answered when all is quiet and flushed.
    Barrier {
        /// Milliseconds from now on.
        for_ms: u64,
    },
    /// It may go on, or whoever asked has gone. An error if it went on before.
    EndBarrier {
        /// The command that began it.
        barrier: u64,
    },
    /// Whoever wanted a verify does not want it any more; it is answered with an error, if it runs.
    EndVerify,
    /// Drain, flush, and end: answered when it is done, followed by [`Action::Stopped`].
    Stop,
}

/// What can be asked of a tracker. How a rotation goes: `control::tracker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerAsk {
    /// From now on it marks; its map has room for every block, all marked.
    Add,
    /// It marks no more; its map is gone, durably.
    Remove,
    /// Close its marks and go on with those that are not settled.
    Take,
    /// These blocks of what was taken need not go back.
    Copied {
        /// The first.
        from: u64,
        /// Past the last.
        to: u64,
    },
    /// What was taken is dropped.
    Confirm,
    /// What was taken goes back, if something was.
    GiveBack,
}

/// Where the bytes of a write come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The payload of this client request.
    Client(Token),
    /// The data that this completed read brought.
    Read(IoId),
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It is done; the data (or the extents) that this I/O brought is the payload.
    Data(IoId),
    /// It failed.
    Failed(Fault),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set bits of a leg's map.
    Mark {
        /// Whose map.
        leg: LegIx,
        /// Block numbers.
        blocks: Range<u64>,
    },
    /// Clear bits of a leg's map; may be done late or never.
    Clear {
        /// Whose map.
        leg: LegIx,
        /// Block numbers.
        blocks: Range<u64>,
    },
    /// Set bits of a tracker's map; counts among [`Action::Mark`].
    TrackerMark {
        /// Whose map.
        tracker: TrackerIx,
        /// Block numbers.
        blocks: Range<u64>,
    },
    /// Make the marks of these maps durable, those made before this action; answered with [`Event::MapsSynced`].
    /// One at a time; only where durability is `power`.
    SyncMaps {
        /// Names it.
        seq: u64,
        /// Of these maps.
        maps: Vec<MapIx>,
    },
    /// Clear in a tracker's map what is not in [`super::Core::tracker_image`]; may be done late or never.
    TrackerTidy {
        /// Whose map.
        tracker: TrackerIx,
    },
    /// Read from a leg.
    Read {
        /// Which leg.
        leg: LegIx,
        /// The request.
        io: IoId,
        /// Where.
        range: ByteRange,
    },
    /// Write to a leg.
    Write {
        /// Which leg.
        leg: LegIx,
        /// The request.
        io: IoId,
        /// Where.
        range: ByteRange,
        /// Which bytes.
        source: Source,
        /// Answer only when durable; only where [`Caps::fua`].
        fua: bool,
    },
    /// Make a range of a leg read as zeroes.
    Zero {
        /// Which leg.
        leg: LegIx,
        /// The request.
        io: IoId,
        /// Where.
        range: ByteRange,
        /// Keep the space allocated.
        no_hole: bool,
        /// Answer [`Fault::NotSupported`] when slow, having changed nothing.
        fast: bool,
        /// Answer only when durable; only where [`Caps::fua`].
        fua: bool,
    },
    /// Make all answered writes of a leg durable.
    Flush {
        /// Which leg.
        leg: LegIx,
        /// The request.
        io: IoId,
    },
    /// Find holes of a leg.
    Extents {
        /// Which leg.
        leg: LegIx,
        /// The request.
        io: IoId,
        /// Where.
        range: ByteRange,
    },
    /// Compare what these completed reads brought, block by block; answered with [`Event::Compared`], also after the
    /// end of the sessions that they were read in.
    Compare {
        /// The range of all of them: it begins and ends with a block, or with the volume.
        range: ByteRange,
        /// At least two.
        reads: Vec<(LegIx, IoId)>,
    },
    /// The data of this read is not needed any more. To be ignored if there is none (the request was no read, or
    /// has failed).
    Release {
        /// The read.
        io: IoId,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        token: Token,
        /// With what.
        answer: Answer,
    },
    /// Make this state durable, and where durability is `power` all marks before it; answered with [`Event::Persisted`]. One at a time.
    Persist {
        /// Names the state.
        seq: u64,
        /// For each leg.
        legs: Vec<LegRecord>,
        /// Contents are about to differ from those of legs that left: a new generation is needed (W2).
        mint: bool,
    },
    /// Open or connect a leg, not before the given time (milliseconds, the clock of the ticks).
    Connect {
        /// Which leg.
        leg: LegIx,
        /// When.
        at_ms: u64,
    },
    /// End the connection of a leg now; nothing of it is reported any more.
    Disconnect {
        /// Which leg.
        leg: LegIx,
        /// Which session.
        session: u32,
    },
    /// Tell an administrator.
    Answer {
        /// Which command.
        id: u64,
        /// `Err` is a refusal: one line for a person.
        result: Result<(), &'static str>,
    },
    /// Something worth an event line.
    Note {
        /// Which leg, if one.
        leg: Option<LegIx>,
        /// What.
        note: Note,
    },
    /// The core has stopped; the legs whose maps may be closed as clean.
    Stopped {
        /// By leg number.
        clean: Vec<bool>,
    },
}

/// What stands in a leg's record, as far as the core decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LegRecord {
    /// A member of the in-sync set. Otherwise OUTDATED at least.
    pub in_sync: bool,
    /// A resync into it has begun and not ended: part old, part new.
    pub inconsistent: bool,
    /// Out by an administrator's word.
    pub detached: bool,
    /// Out because it failed, or was declared so.
    pub failed: bool,
    /// There is no leg of this number: nothing is to be written.
    pub gone: bool,
}

/// Events for people and hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The volume serves; the source elected at an unclean start, if there was one.
    Serving,
    /// This leg was elected as the source after an unclean start.
    Elected,
    /// A leg is connected.
    Connected,
    /// A leg's connection is lost.
    Lost,
    /// A leg left the in-sync set.
    Left,
    /// A resync of this many bytes begins.
    SyncStarted(u64),
    /// A resync ended: the leg is UpToDate.
    SyncDone,
    /// A flush of this leg failed.
    FlushFailed,
    /// Nothing of its resync has been answered for [`crate::base::limits::STALL_MS`].
    Stalled,
    /// A stalled resync has moved again for [`crate::base::limits::STALL_CALM_MS`].
    Moving,
    /// A read failed on this leg and is to be repaired.
    ReadRepair,
    /// The leg failed and stays out until an administrator attaches it.
    Failed,
    /// The state could not be made durable.
    PersistFailed,
    /// The last good leg cannot be reached; requests wait.
    Suspended,
    /// Requests go on.
    Resumed,
    /// A barrier is held: nothing is written.
    BarrierHeld,
    /// It went on because its time was over.
    BarrierBroken,
    /// It ended, or was not reached.
    BarrierEnded,
    /// Replies that nobody waits for passed the threshold.
    Strays,
}
