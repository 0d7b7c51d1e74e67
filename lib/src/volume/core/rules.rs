//! The rules of durability, each with a name, so that a test can switch one off and watch the checker fail.
//!
//! Outside the `simulate` feature every rule is always on and the checks cost nothing.

/// A rule that the core obeys (design.md sections 3 and 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Rule {
    /// The mark precedes the write (invariant 2).
    MarkFirst,
    /// A write that is not sent to a leg is missing there (invariant 1).
    MarkSkipped,
    /// A flush clears only what was complete when it was issued (invariant 3, race 1).
    FlushCoversComplete,
    /// A block written while the flush runs is not cleared by it (invariant 3, race 2).
    FlushTouched,
    /// A request for a flush that comes while one runs waits for the next (invariant 3, race 3).
    FlushJoinsNext,
    /// A lost connection turns everything unflushed into missing.
    LossVoidsCache,
    /// A failed flush turns everything unflushed into missing.
    FailedFlushVoidsCache,
    /// A copy overtaken by a lost connection or failed flush of its source or target clears nothing.
    CopyEra,
    /// A copy that a client write went past does not clear that block.
    CopyOvertaken,
    /// A copy waits for the writes that are in flight in its range before it reads its source (invariant 5).
    CopyWaits,
    /// The leg is UpToDate only after a flush issued after its last copy.
    FlushBeforeUpToDate,
    /// Overlapping writes reach every leg one after the other (invariant 5).
    OneOrder,
    /// A read and an overlapping write do not run at the same time (invariant 6).
    ReadsWait,
    /// Missing parts of a leg are never read (invariant 6).
    NoMissingRead,
    /// The client hears of success only after the leaving of a leg is durable (invariant 4).
    LeaveDurableFirst,
    /// A client flush waits for every leg that takes writes (invariant 4).
    FlushAllLegs,
    /// FUA waits for stable storage on every leg (invariant 4).
    FuaFlushes,
    /// A write that ended in an error is missing on all legs but one (section 4).
    ErrorPins,
    /// Blocks with unresolved writes are held before they are copied again (section 4, late writes).
    Hold,
    /// At an unclean start the marks of all in-sync legs become missing on all but the source.
    ElectionUnion,
    /// The source's marks are read and written back before a flush of it is believed.
    SourceRewrite,
    /// When the last leg loses its cache a client flush fails, and the blocks are rewritten in place.
    LastLegOwesError,
    /// When the last leg loses its cache its unflushed blocks are missing on every other leg.
    LastLegSpreads,
    /// The record says INCONSISTENT before the first byte of a resync is written (S1).
    InconsistentFirst,
    /// Writes are refused with fewer legs in sync than `min-legs`.
    MinLegs,
    /// A write marks every tracker before any leg is written (invariant 2).
    TrackerFirst,
    /// A rotation leaves the blocks of writes in flight in the tracker.
    TrackerInFlight,
    /// What may go back to something older, because the last leg lost its cache, is marked in every tracker, and
    /// stays in it until it is settled.
    TrackerReverts,
    /// At an unclean start the marks of all in-sync legs are marked in every tracker.
    TrackerElection,
    /// Durability `power`: a write waits until its marks are on stable storage (invariant 2).
    MapSyncFirst,
    /// A second write into a run whose mark is still being made durable joins that sync (invariant 2).
    MapSyncJoins,
    /// A mark that cannot be made durable fails the write before any leg sees it (invariant 2).
    MapSyncFails,
    /// A write into a run that has cooled heats it again, with a sync of its own.
    CoolHeats,
    /// A second look of a verify is alone with its range, and no look begins beside a write (invariant 5).
    VerifyLocks,
    /// A difference is one only after a second look.
    VerifySecondLook,
    /// Legs that are to be repaired leave the set, durably, before their blocks are marked.
    VerifyLeavesFirst,
    /// While a barrier is held nothing is written to any leg.
    BarrierHolds,
    /// A barrier is held only after a flush of every leg that takes writes.
    BarrierFlushes,
    /// The new area of a volume that grows is missing on all legs but the source.
    GrowMissing,
    /// A copy that began before the volume grew does not clear the block that the old end cut.
    GrowSpoils,
    /// The new area of a volume that grows has changed in all trackers.
    GrowTracks,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 41] = [
        Self::MarkFirst,
        Self::MarkSkipped,
        Self::FlushCoversComplete,
        Self::FlushTouched,
        Self::FlushJoinsNext,
        Self::LossVoidsCache,
        Self::FailedFlushVoidsCache,
        Self::CopyEra,
        Self::CopyOvertaken,
        Self::CopyWaits,
        Self::FlushBeforeUpToDate,
        Self::OneOrder,
        Self::ReadsWait,
        Self::NoMissingRead,
        Self::LeaveDurableFirst,
        Self::FlushAllLegs,
        Self::FuaFlushes,
        Self::ErrorPins,
        Self::Hold,
        Self::ElectionUnion,
        Self::SourceRewrite,
        Self::LastLegOwesError,
        Self::LastLegSpreads,
        Self::InconsistentFirst,
        Self::MinLegs,
        Self::TrackerFirst,
        Self::TrackerInFlight,
        Self::TrackerReverts,
        Self::TrackerElection,
        Self::MapSyncFirst,
        Self::MapSyncJoins,
        Self::MapSyncFails,
        Self::CoolHeats,
        Self::VerifyLocks,
        Self::VerifySecondLook,
        Self::VerifyLeavesFirst,
        Self::BarrierHolds,
        Self::BarrierFlushes,
        Self::GrowMissing,
        Self::GrowSpoils,
        Self::GrowTracks,
    ];
}

/// Which rules are obeyed: all of them, unless a simulation switched one off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(feature = "simulate")]
    off: u64,
}

impl Rules {
    /// All but one.
    #[cfg(feature = "simulate")]
    pub fn without(rule: Rule) -> Self {
        Self { off: 1 << rule as u64 }
    }

    /// Whether this rule is obeyed.
    #[inline]
    #[cfg_attr(
        not(feature = "simulate"),
        allow(clippy::unused_self, reason = "constant outside simulations")
    )]
    pub const fn on(self, rule: Rule) -> bool {
        #[cfg(feature = "simulate")]
        {
            self.off & (1 << rule as u64) == 0
        }
        #[cfg(not(feature = "simulate"))]
        {
            let _ = rule;
            true
        }
    }
}
