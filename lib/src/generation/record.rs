//! The record of a leg: what it is, what it holds, and what its peers may hold.

use crate::base::{BlockSize, Class, Error, Id, Name, Result, limits};
use crate::device::Features;
use crate::device::fields::differs;

/// Generations that a peer may be at; one more, and only a full resync is right.
pub const BASE: usize = 4;
/// Generations remembered of the past.
pub const HISTORY: usize = 32;
/// Peers of a leg.
pub const PEERS: usize = limits::LEGS;

/// The identity of a leg's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Random; `NONE`: the leg is virgin.
    pub id: Id,
    /// The fencing term under which it was minted. Never decides direction.
    pub term: u64,
    /// The leg that minted it.
    pub minted_by: Id,
    /// Seconds since 1970 when it was minted; for people only.
    pub clock: u64,
}

/// A generation of the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ancestor {
    /// Its id.
    pub id: Id,
    /// Its term; 0 where only the id is known.
    pub term: u64,
}

/// What a leg is, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Serves clients: durable before the first client write, cleared by a clean demote only.
    pub const PRIMARY: Self = Self(1);
    /// Part old, part new: the target of a resync ([`Record::sync_from`]) that did not finish.
    pub const INCONSISTENT: Self = Self(1 << 1);
    /// Consistent, but a newer copy is known.
    pub const OUTDATED: Self = Self(1 << 2);
    /// Asynchronous: the peer may hold less than clients were told.
    pub const TAIL: Self = Self(1 << 3);
    /// An administrator detached it.
    pub const DETACHED: Self = Self(1 << 4);
    /// It failed.
    pub const FAILED: Self = Self(1 << 5);

    /// With any of these a leg is not in sync.
    const AWAY: Self = Self(Self::INCONSISTENT.0 | Self::OUTDATED.0 | Self::DETACHED.0 | Self::FAILED.0);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears `other`.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// Whether the map of what a peer lacks says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapState {
    /// It covers the difference from every generation in the peer's base.
    #[default]
    Valid,
    /// It does not (overflowed, lost): every partial resync of this peer is a full one, in the same direction.
    AllDirty,
}

/// What a leg knows of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The other leg.
    pub leg: Id,
    /// The highest sequence number seen in its record: a lower one later is a peer that was rolled back.
    pub seq: u64,
    /// Generations that the peer may be at; empty: it is in sync. At most [`BASE`]. May hold `NONE`: the peer
    /// was virgin when a resync of it began; that is no common generation of anything.
    pub base: Vec<Id>,
    /// Whether the map of what it lacks is to be believed.
    pub map_state: MapState,
}

/// The record of a leg. Written through [`super::RecordStore`] only; changed by [`super::change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Feature words; unknown compatible bits are kept.
    pub features: Features,
    /// The volume.
    pub volume: Id,
    /// The leg.
    pub leg: Id,
    /// The leg's name.
    pub name: Name,
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes of a block of its maps.
    pub block: BlockSize,
    /// +1 at every write, kept by the store.
    pub seq: u64,
    /// What the leg holds.
    pub current: Generation,
    /// With [`Flags::INCONSISTENT`]: the source's generation when the resync began.
    pub sync_from: Id,
    /// What the leg is.
    pub flags: Flags,
    /// The highest fencing token ever accepted.
    pub max_term: u64,
    /// The term under which this leg was last primary.
    pub last_primary_term: u64,
    /// At most [`PEERS`].
    pub peers: Vec<Peer>,
    /// Oldest first, at most [`HISTORY`].
    pub history: Vec<Ancestor>,
    /// Bytes without a meaning yet; kept when the record is written.
    pub(super) reserved: Vec<u8>,
}

impl Record {
    /// The record of a virgin leg.
    pub fn new(volume: Id, leg: Id, name: Name, size: u64, block: BlockSize) -> Self {
        Self {
            features: Features::default(),
            volume,
            leg,
            name,
            size,
            block,
            seq: 0,
            current: Generation::default(),
            sync_from: Id::NONE,
            flags: Flags::default(),
            max_term: 0,
            last_primary_term: 0,
            peers: Vec::new(),
            history: Vec::new(),
            reserved: vec![0; super::format::RESERVED],
        }
    }

    /// Whether the leg never held anything of the volume.
    pub fn is_virgin(&self) -> bool {
        self.current.id.is_none()
    }

    /// Whether the leg holds all that its generation says, and was not told that there is more: neither virgin
    /// nor INCONSISTENT, OUTDATED, DETACHED or FAILED. A peer may still know better: [`Record::base_of`].
    pub fn in_sync(&self) -> bool {
        !self.is_virgin() && !self.flags.intersects(Flags::AWAY)
    }

    /// What is known of a peer.
    pub fn peer(&self, leg: Id) -> Option<&Peer> {
        self.peers.iter().find(|p| p.leg == leg)
    }

    /// What is known of a peer, to be changed; nothing yet for a new one. Class `Refused` for the 33rd.
    pub fn peer_mut(&mut self, leg: Id) -> Result<&mut Peer> {
        if let Some(at) = self.peers.iter().position(|p| p.leg == leg) {
            return Ok(&mut self.peers[at]);
        }
        if self.peers.len() == PEERS {
            return Err(Error::new(
                Class::Refused,
                format!("leg {}: adding the peer {leg}: it has {PEERS} peers already", self.name),
            ));
        }
        self.peers.push(Peer { leg, ..Peer::default() });
        let last = self.peers.len() - 1;
        Ok(&mut self.peers[last])
    }

    /// Generations that a peer may be at; empty for one in sync, and for one never heard of.
    pub fn base_of(&self, leg: Id) -> &[Id] {
        self.peer(leg).map_or(&[], |p| &p.base)
    }

    /// Whether a generation is remembered as one of the past.
    pub fn remembers(&self, id: Id) -> bool {
        !id.is_none() && self.history.iter().any(|a| a.id == id)
    }

    /// Adds to the history: never `NONE`, the current generation, or what is there already. The oldest goes.
    pub(super) fn remember(&mut self, ancestor: Ancestor) {
        if ancestor.id.is_none() || ancestor.id == self.current.id {
            return;
        }
        if let Some(known) = self.history.iter_mut().find(|a| a.id == ancestor.id) {
            known.term = known.term.max(ancestor.term);
            return;
        }
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(ancestor);
    }

    /// Refuses (class `Damaged`) the record of another volume or leg, naming both.
    pub fn check_identity(&self, object: &str, volume: Id, leg: Id) -> Result<()> {
        if self.volume != volume {
            return Err(differs(object, "volume", self.volume, volume));
        }
        if self.leg != leg {
            return Err(differs(object, "leg", self.leg, leg));
        }
        Ok(())
    }
}
