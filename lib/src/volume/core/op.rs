//! Requests under way and the one set of ranges in flight (invariant 5).
//!
//! Every request that touches bytes of the volume, whoever causes it, enters [`Ops`] before anything is read or
//! written for it. Entering finds the earlier requests that it must wait for; when the last of them ends, it
//! becomes *ready*. Reads share a range, writes have it alone; only a copy of a resync lets client writes go past.

use super::api::{IoId, LegIx, Token};
use crate::base::ByteRange;
use crate::base::limits::LEGS;
use std::ops::Range;

/// Legs as bits.
pub(super) type Mask = u32;

pub(super) const fn bit(leg: LegIx) -> Mask {
    1 << leg
}

/// The legs of a mask.
pub(super) fn legs_of(mut mask: Mask) -> impl Iterator<Item = LegIx> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let leg = mask.trailing_zeros() as LegIx;
            mask &= mask - 1;
            leg
        })
    })
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read {
        token: Token,
    },
    Extents {
        token: Token,
    },
    Write {
        token: Token,
        fua: bool,
    },
    Zero {
        token: Token,
        fua: bool,
        no_hole: bool,
        fast: bool,
    },
    /// Resync: from some good leg to the target.
    Copy {
        target: LegIx,
    },
    /// A read failed on the target; good data goes back to it.
    Repair {
        target: LegIx,
    },
    /// The leg may have lost its cache: read and write back in place.
    Rewrite {
        target: LegIx,
    },
    /// Verify: every leg is read, and compared; a second look has its range alone.
    Look {
        exact: bool,
        run: u32,
    },
}

/// How two requests on one range get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Shared,
    Client,
    Copy,
    Internal,
    Look,
    Exact,
}

impl Kind {
    pub(super) const fn class(self) -> Class {
        match self {
            Self::Read { .. } | Self::Extents { .. } => Class::Shared,
            Self::Write { .. } | Self::Zero { .. } => Class::Client,
            Self::Copy { .. } => Class::Copy,
            Self::Repair { .. } | Self::Rewrite { .. } => Class::Internal,
            Self::Look { exact: false, .. } => Class::Look,
            Self::Look { exact: true, .. } => Class::Exact,
        }
    }

    /// The client's name of it, if a client asked.
    pub(super) const fn token(self) -> Option<Token> {
        match self {
            Self::Read { token }
            | Self::Extents { token }
            | Self::Write { token, .. }
            | Self::Zero { token, .. } => Some(token),
            Self::Copy { .. } | Self::Repair { .. } | Self::Rewrite { .. } | Self::Look { .. } => None,
        }
    }

    pub(super) const fn fua(self) -> bool {
        matches!(self, Self::Write { fua: true, .. } | Self::Zero { fua: true, .. })
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// For earlier requests on its range.
    Waiting,
    /// For a leg to come back, or for a time ([`Op::not_before`]), to be started again from its beginning.
    Parked,
    /// For the marks to be on stable storage.
    Marking,
    /// A leg is being read.
    Reading,
    /// Legs are being written.
    Writing,
    /// All legs have been read; the driver compares.
    Comparing,
    /// Done on all legs; the answer waits for the state to be durable.
    Gated,
}

/// One request.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) serial: u32,
    pub(super) kind: Kind,
    pub(super) range: ByteRange,
    pub(super) blocks: Range<u64>,
    pub(super) phase: Phase,
    /// Earlier requests that must end first.
    blockers: u32,
    /// Later requests that wait for this one.
    waiters: Vec<u16>,
    /// Legs asked, not answered.
    pub(super) pending: Mask,
    /// Of these: written, waiting for a flush of the leg (FUA).
    pub(super) flushing: Mask,
    /// Legs to ask (again) when they are connected and [`Op::not_before`] has passed.
    pub(super) parked: Mask,
    /// Legs that acknowledged.
    pub(super) acked: Mask,
    /// Legs that refused a fast zero.
    pub(super) refused: Mask,
    /// Legs tried for a read that failed there.
    pub(super) tried: Mask,
    /// Rounds of tries.
    pub(super) rounds: u32,
    /// First error that the client will be told.
    pub(super) failed: Option<super::api::Fault>,
    /// The leg read from, and its era then.
    pub(super) source: Option<(LegIx, u32)>,
    pub(super) target_era: u32,
    /// The completed read whose data is held.
    pub(super) data: Option<IoId>,
    /// Copy: blocks that client writes went past, counted from the first block.
    pub(super) overtaken: u64,
    /// When the present I/O was issued.
    pub(super) issued_ms: u64,
    pub(super) not_before_ms: u64,
    /// Parked: when it gives up.
    pub(super) deadline_ms: u64,
    /// The state that must be durable before the answer.
    pub(super) gate: u64,
    attempt: [u8; LEGS],
    lane: usize,
}

struct Lane {
    range: ByteRange,
    slot: u16,
    class: Class,
}

/// All requests under way.
#[derive(Default)]
pub(super) struct Ops {
    slots: Vec<Option<Box<Op>>>,
    free: Vec<u16>,
    /// Boxes of ended requests, used again.
    #[expect(clippy::vec_box, reason = "the boxes themselves are used again")]
    spare: Vec<Box<Op>>,
    lanes: Vec<Lane>,
    serial: u32,
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ops({})", self.lanes.len())
    }
}

/// What a new request does about an earlier one on its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meet {
    Ignore,
    Wait,
}

pub(super) const SLOT_BITS: u32 = 16;

impl Ops {
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn get(&self, slot: u16) -> Option<&Op> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut Op> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Slots in use, for rare walks over all requests.
    pub(super) fn slots(&self) -> Vec<u16> {
        self.lanes.iter().map(|lane| lane.slot).collect()
    }

    /// Requests in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Op> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// Whether another one can enter.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.len() < usize::from(u16::MAX)
    }

    /// Enters a request. `meet` is asked for each earlier request whose range overlaps. Returns its slot and
    /// whether it is ready at once.
    pub(super) fn enter(
        &mut self,
        kind: Kind,
        range: ByteRange,
        blocks: Range<u64>,
        mut meet: impl FnMut(&mut Op, Class) -> Meet,
    ) -> (u16, bool) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u16
        });
        let mut blockers = 0;
        for lane in &self.lanes {
            if lane.range.overlaps(&range)
                && let Some(earlier) = self.slots[lane.slot as usize].as_deref_mut()
                && meet(earlier, lane.class) == Meet::Wait
            {
                earlier.waiters.push(slot);
                blockers += 1;
            }
        }
        self.serial = self.serial.wrapping_add(1);
        let mut op = self.spare.pop().unwrap_or_else(|| Box::new(Op::blank()));
        op.reset(self.serial, kind, range, blocks, blockers, self.lanes.len());
        self.lanes.push(Lane { range, slot, class: kind.class() });
        self.slots[slot as usize] = Some(op);
        (slot, blockers == 0)
    }

    /// Ends a request; appends to `ready` those that waited for nothing else.
    pub(super) fn leave(&mut self, slot: u16, ready: &mut Vec<u16>) {
        let Some(mut op) = self.slots[slot as usize].take() else { return };
        self.lanes.swap_remove(op.lane);
        if let Some(moved) = self.lanes.get(op.lane)
            && let Some(moved) = self.slots[moved.slot as usize].as_deref_mut()
        {
            moved.lane = op.lane;
        }
        for waiter in op.waiters.drain(..) {
            if let Some(later) = self.slots[waiter as usize].as_deref_mut() {
                later.blockers -= 1;
                if later.blockers == 0 {
                    ready.push(waiter);
                }
            }
        }
        self.free.push(slot);
        if self.spare.len() < 256 {
            self.spare.push(op);
        }
    }

    /// The request of an I/O that a leg answered, if it is the one that is waited for.
    pub(super) fn resolve(&mut self, leg: LegIx, io: IoId) -> Option<(u16, &mut Op)> {
        let slot = (io.0 & 0xffff) as u16;
        let op = self.get_mut(slot)?;
        let expected = op.io(slot, leg);
        (expected == io && op.pending & bit(leg) != 0 && op.flushing & bit(leg) == 0).then_some((slot, op))
    }
}

impl Op {
    fn blank() -> Self {
        Self {
            serial: 0,
            kind: Kind::Read { token: 0 },
            range: ByteRange::default(),
            blocks: 0..0,
            phase: Phase::Waiting,
            blockers: 0,
            waiters: Vec::new(),
            pending: 0,
            flushing: 0,
            parked: 0,
            acked: 0,
            refused: 0,
            tried: 0,
            rounds: 0,
            failed: None,
            source: None,
            target_era: 0,
            data: None,
            overtaken: 0,
            issued_ms: 0,
            not_before_ms: 0,
            deadline_ms: 0,
            gate: 0,
            attempt: [0; LEGS],
            lane: 0,
        }
    }

    fn reset(
        &mut self,
        serial: u32,
        kind: Kind,
        range: ByteRange,
        blocks: Range<u64>,
        blockers: u32,
        lane: usize,
    ) {
        let waiters = std::mem::take(&mut self.waiters);
        *self = Self { serial, kind, range, blocks, blockers, waiters, lane, ..Self::blank() };
    }

    /// The name of the present I/O of this request to a leg.
    pub(super) fn io(&self, slot: u16, leg: LegIx) -> IoId {
        IoId(
            u64::from(slot)
                | (leg as u64) << SLOT_BITS
                | u64::from(self.attempt[leg]) << (SLOT_BITS + 8)
                | u64::from(self.serial) << (SLOT_BITS + 16),
        )
    }

    /// A new I/O to the leg: earlier ones of this request to it are not waited for any more.
    pub(super) fn next_io(&mut self, slot: u16, leg: LegIx) -> IoId {
        self.attempt[leg] = self.attempt[leg].wrapping_add(1);
        self.io(slot, leg)
    }

    /// How often the leg was asked.
    pub(super) fn attempts(&self, leg: LegIx) -> u32 {
        u32::from(self.attempt[leg])
    }
}
