//! How a record changes: each rule of `promotion.md` section 3 as a function from records to records. None of
//! them writes anything: the caller makes every changed record durable, in the order that is numbered here,
//! before it goes on. Nothing here clears a map (rule V1): only the caller does, after f2.

use super::record::{Ancestor, BASE, Flags, Generation, MapState, Peer, Record};
use crate::base::{Class, Error, Id, Result};
use crate::device::fields::differs;

/// W2, the question: whether a new generation must be minted before the next write is answered, because one of
/// the legs left behind could take itself for this one: its base is empty or contains the current generation.
pub fn needs_mint(record: &Record, left_behind: &[Id]) -> bool {
    left_behind.iter().any(|leg| may_be_at_current(record, *leg))
}

fn may_be_at_current(record: &Record, leg: Id) -> bool {
    let base = record.base_of(leg);
    base.is_empty() || base.contains(&record.current.id)
}

/// W2 (and P2, D1): the leg's contents become those of a new generation `id`, minted by it at `clock` (seconds
/// since 1970), because `left_behind` will lack what is written next.
///
/// For each of these whose base is empty or contains the old generation, the old one is added to it; the old
/// one joins the history; maps keep their bits. Legs that stay must be given the new generation as well: name
/// *all* peers here, and finish (f1 to f3) those that stay, so that a crash in between costs a small resync.
///
/// 1. Every map that the record vouches for is prepared for `id`, durable.
/// 2. The record, durable.
/// 3. The maps are relabelled. Only then the first write is answered.
///
/// Recovery: (a) before 2: the old generation, nothing was written under the new one; (b) from 2 on the peers
/// are at a generation of their base, and the maps cover the difference.
///
/// Class `Refused` for an INCONSISTENT leg.
pub fn mint(record: &mut Record, id: Id, clock: u64, left_behind: &[Id]) -> Result<()> {
    if record.flags.contains(Flags::INCONSISTENT) {
        return Err(refuse(record, "minting a generation", "it is inconsistent"));
    }
    if id.is_none() || id == record.current.id || record.remembers(id) {
        let message = format!("leg {}: minting a generation: {id} is not a new one", record.name);
        return Err(Error::new(Class::Internal, message));
    }
    let old = record.current;
    let mut new = record.clone();
    for leg in left_behind.iter().filter(|leg| **leg != record.leg) {
        if !old.id.is_none() && may_be_at_current(record, *leg) {
            add_base(&mut new, *leg, old.id)?;
        }
    }
    new.current = Generation { id, term: record.max_term, minted_by: record.leg, clock };
    new.remember(Ancestor { id: old.id, term: old.term });
    *record = new;
    Ok(())
}

/// S1: a resync from `source` to `target` begins. The target has left the in-sync set of the arbiter before.
///
/// 1. The target's record, durable: INCONSISTENT, sync-from; DETACHED and FAILED end here.
/// 2. The maps of the source for the target take in the target's own marks (all of them for a full resync, then
///    [`map_filled`]), durable.
/// 3. The source's record, durable: the target's generation joins its base. Only then the first block is copied.
///
/// Recovery: (a) before 1 nothing happened; (b) from 1 on the target is known to be behind: by its flag, and
/// its generation is the source's, or in the source's base, or its sync-from is the source's.
///
/// Class `Refused` if the source is virgin or INCONSISTENT, `Damaged` if the legs are not of one volume.
pub fn begin_resync(source: &mut Record, target: &mut Record) -> Result<()> {
    check_pair(source, target)?;
    if source.is_virgin() || source.flags.contains(Flags::INCONSISTENT) {
        let why = if source.is_virgin() { "it is virgin" } else { "it is inconsistent" };
        return Err(refuse(source, "being the source of a resync", why));
    }
    note(source, target)?;
    add_base(source, target.leg, target.current.id)?;
    target.flags.insert(Flags::INCONSISTENT);
    target.flags.remove(Flags::DETACHED);
    target.flags.remove(Flags::FAILED);
    target.sync_from = source.current.id;
    Ok(())
}

/// S1, for a full resync: every bit of the source's map for `target` is set, durably, so that it covers the
/// difference from anything; from now on it is believed again, and an interrupted full resync goes on.
pub fn map_filled(source: &mut Record, target: Id) -> Result<()> {
    source.peer_mut(target)?.map_state = MapState::Valid;
    Ok(())
}

/// S3 f1: everything is copied and flushed, writes are held. The source's record, durable: the target may be at
/// the source's own generation from now on.
///
/// Recovery: the target is INCONSISTENT still, its generation is in the base: partial again.
pub fn finish_f1(source: &mut Record, target: &Record) -> Result<()> {
    check_pair(source, target)?;
    add_base(source, target.leg, source.current.id)
}

/// S3 f2, after f1 is durable: the target's record, durable: it holds the source's generation, inherits its
/// history, and is in sync. Then the caller clears the target's own maps and relabels them.
///
/// Recovery: the source's base is not empty: a missed finish, partial again with what bits there are.
///
/// Class `Internal` if f1 was left out, `Refused` if the source is INCONSISTENT.
pub fn finish_f2(source: &Record, target: &mut Record) -> Result<()> {
    check_pair(source, target)?;
    if source.flags.contains(Flags::INCONSISTENT) {
        return Err(refuse(source, "finishing a resync from it", "it is inconsistent"));
    }
    let base = source.base_of(target.leg);
    if !base.contains(&source.current.id) {
        return Err(out_of_order(target, "f2", "f1"));
    }
    note(target, source)?;
    let old = std::mem::replace(&mut target.current, source.current);
    for ancestor in &source.history {
        target.remember(*ancestor);
    }
    for id in base {
        target.remember(Ancestor { id: *id, term: 0 });
    }
    target.remember(Ancestor { id: old.id, term: old.term });
    target.history.retain(|a| a.id != source.current.id);
    target.flags = Flags::default();
    target.sync_from = Id::NONE;
    for peer in &mut target.peers {
        peer.base.clear();
        peer.map_state = MapState::Valid;
    }
    Ok(())
}

/// S3 f3, after f2 is durable: the source's record, durable: the target is in sync, what it was at is history.
/// Then writes go on, and the arbiter is asked for `rejoin`.
///
/// Recovery: none is needed.
///
/// Class `Internal` if f2 was left out.
pub fn finish_f3(source: &mut Record, target: &Record) -> Result<()> {
    check_pair(source, target)?;
    if target.current.id != source.current.id || target.flags.contains(Flags::INCONSISTENT) {
        return Err(out_of_order(source, "f3", "f2"));
    }
    note(source, target)?;
    let peer = source.peer_mut(target.leg)?;
    peer.map_state = MapState::Valid;
    for id in std::mem::take(&mut peer.base) {
        source.remember(Ancestor { id, term: 0 });
    }
    Ok(())
}

/// A leg leaves the set while its record can be written: OUTDATED, durable before the first write that it
/// misses. INCONSISTENT stays if it was.
pub fn leave(record: &mut Record) {
    record.flags.insert(Flags::OUTDATED);
}

/// The maps beside the record are lost: every peer that is not in sync needs a full resync.
pub fn maps_lost(record: &mut Record) {
    for peer in &mut record.peers {
        peer.map_state = MapState::AllDirty;
    }
}

/// Remembers how far a peer's durable record has come; refused (class `Damaged`) if it went back.
pub fn note(record: &mut Record, peer: &Record) -> Result<()> {
    let object = format!("leg {}", peer.name);
    let known = record.peer_mut(peer.leg)?;
    if peer.seq < known.seq {
        let seen = format!("at least {}: it was rolled back", known.seq);
        return Err(differs(&object, "sequence number", peer.seq, seen));
    }
    known.seq = peer.seq;
    Ok(())
}

/// Adds a generation that a peer may be at. The fifth drives out the oldest, which becomes history: the
/// direction stays known, the map does not cover the difference any more.
fn add_base(record: &mut Record, leg: Id, id: Id) -> Result<()> {
    let peer: &mut Peer = record.peer_mut(leg)?;
    if peer.base.contains(&id) {
        return Ok(());
    }
    peer.base.push(id);
    if peer.base.len() > BASE {
        peer.map_state = MapState::AllDirty;
        let oldest = peer.base.remove(0);
        record.remember(Ancestor { id: oldest, term: 0 });
    }
    Ok(())
}

fn check_pair(source: &Record, target: &Record) -> Result<()> {
    let object = format!("leg {}", target.name);
    if source.leg == target.leg {
        let message = format!("{object}: checking the pair: both legs have the id {}", source.leg);
        return Err(Error::new(Class::Refused, message));
    }
    target.check_identity(&object, source.volume, target.leg)?;
    if target.size != source.size {
        return Err(differs(&object, "size", target.size, source.size));
    }
    Ok(())
}

fn refuse(record: &Record, doing: &str, why: &str) -> Error {
    Error::new(Class::Refused, format!("leg {}: {doing}: {why}", record.name))
}

fn out_of_order(record: &Record, step: &str, missing: &str) -> Error {
    Error::new(Class::Internal, format!("leg {}: finishing a resync: {step} before {missing}", record.name))
}

#[cfg(test)]
#[path = "change_crash_tests.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
