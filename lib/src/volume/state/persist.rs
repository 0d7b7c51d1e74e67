//! Making a state of the core durable: the rules of `promotion.md` section 3, derived from what differs.

use super::{MapHandle, Records};
use crate::base::{Class, Error, Id, Result};
use crate::generation::{Flags, change};
use crate::volume::core::LegRecord;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Makes the wanted state durable: that of each leg by its id; legs that have no record (any more) are passed over.
/// Idempotent: what is already so is not written again, so that a state that failed half-way is simply tried
/// again.
///
/// 0. If all that were in sync leave, and others come back, these are finished first (as step 4): somebody is in
///    sync at every instant.
/// 1. Legs that leave are OUTDATED (and DETACHED or FAILED), durable.
/// 2. W2: if a leg that is out could take itself for those that stay, these get a new generation: the maps are
///    prepared for it, one leg is given it, the others follow by f1 to f3, the maps are relabelled.
/// 3. S1: legs whose resync begins are INCONSISTENT, durable; then every leg in sync knows where they were.
/// 4. S3: legs that come back go through f1, f2, f3, each durable before the next.
///
/// Recovery: [`super::open`] goes on from every point; nothing was answered that needed the rest.
pub(crate) fn persist(
    records: &Mutex<Records>,
    maps: &[MapHandle],
    wanted: &[(Id, LegRecord)],
    mint: bool,
) -> Result<()> {
    let records = &mut *records.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted: Vec<Wanted> = wanted
        .iter()
        .filter(|(_, want)| !want.gone)
        .filter_map(|(leg, want)| records.of(*leg).map(|at| (at, *want)))
        .collect();
    let both = |records: &Records| -> Vec<usize> {
        wanted
            .iter()
            .filter(|(at, want)| want.in_sync && records.records[*at].in_sync())
            .map(|w| w.0)
            .collect()
    };
    if both(records).is_empty() {
        let old: Vec<usize> =
            (0..records.records.len()).filter(|&at| records.records[at].in_sync()).collect();
        if !old.is_empty() {
            come_back(records, &wanted, &old)?;
        }
    }
    leave(records, &wanted)?;
    let stays = both(records);
    if mint {
        new_generation(records, maps, &stays)?;
    }
    begin(records, &wanted, &stays)?;
    come_back(records, &wanted, &stays)?;
    make_primary(records)
}

/// The number of a record, and what is wanted of it.
type Wanted = (usize, LegRecord);

/// Step 4.
fn come_back(records: &mut Records, wanted: &[Wanted], stays: &[usize]) -> Result<()> {
    for (leg, _) in wanted.iter().filter(|(_, want)| want.in_sync) {
        if !records.records[*leg].in_sync() {
            finish(records, *leg, stays)?;
        }
    }
    Ok(())
}

/// Step 1.
fn leave(records: &mut Records, wanted: &[Wanted]) -> Result<()> {
    for &(leg, want) in wanted.iter().filter(|(_, want)| !want.in_sync) {
        records.change(leg, |record| {
            change::leave(record);
            record.flags.remove(Flags::PRIMARY);
            for (flag, set) in [(Flags::DETACHED, want.detached), (Flags::FAILED, want.failed)] {
                if set {
                    record.flags.insert(flag);
                } else {
                    record.flags.remove(flag);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Step 2, if it is needed.
fn new_generation(records: &mut Records, maps: &[MapHandle], stays: &[usize]) -> Result<()> {
    let Some(first) = records.reference().filter(|leg| stays.contains(leg)) else { return Ok(()) };
    let out: Vec<Id> = (0..records.records.len())
        .filter(|leg| !stays.contains(leg))
        .map(|leg| records.records[leg].leg)
        .collect();
    if !change::needs_mint(&records.records[first], &out) {
        return Ok(());
    }
    let (current, next) = (records.records[first].current.id, Id::random()?);
    for map in maps.iter().chain(records.trackers.values()) {
        map.seal().prepare_relabel(current, next)?;
    }
    let everybody: Vec<Id> = records.records.iter().map(|record| record.leg).collect();
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    records.change(first, |record| change::mint(record, next, clock, &everybody))?;
    for &leg in stays.iter().filter(|&&leg| leg != first) {
        follow(records, first, leg)?;
    }
    for map in maps.iter().chain(records.trackers.values()) {
        map.seal().finish_relabel(next)?;
    }
    Ok(())
}

/// f1 to f3 for a leg that holds what `source` holds; it then also knows of the others what `source` knows.
pub(super) fn follow(records: &mut Records, source: usize, leg: usize) -> Result<()> {
    let target = records.records[leg].clone();
    records.change(source, |record| change::finish_f1(record, &target))?;
    let from = records.records[source].clone();
    records.change(leg, |record| {
        change::finish_f2(&from, record)?;
        let own = record.leg;
        for peer in from.peers.iter().filter(|peer| peer.leg != own) {
            record.peer_mut(peer.leg)?.base.clone_from(&peer.base);
        }
        Ok(())
    })?;
    let target = records.records[leg].clone();
    records.change(source, |record| change::finish_f3(record, &target))
}

/// Step 3.
fn begin(records: &mut Records, wanted: &[Wanted], stays: &[usize]) -> Result<()> {
    for &(leg, _) in wanted.iter().filter(|(_, want)| want.inconsistent && !want.in_sync) {
        let Some(source) = records.reference() else { return Ok(()) };
        if !records.records[leg].flags.contains(Flags::INCONSISTENT) {
            let mut from = records.records[source].clone();
            records.change(leg, |record| change::begin_resync(&mut from, record))?;
        }
        for &source in stays {
            let mut target = records.records[leg].clone();
            if !records.records[source].base_of(target.leg).contains(&target.current.id) {
                records.change(source, |record| change::begin_resync(record, &mut target))?;
            }
        }
    }
    Ok(())
}

/// f1 to f3 from one of those that stay, f3 for all of them.
fn finish(records: &mut Records, leg: usize, stays: &[usize]) -> Result<()> {
    let Some(source) = records.reference().filter(|leg| stays.contains(leg)) else {
        let name = &records.records[leg].name;
        return Err(Error::new(Class::Internal, format!("leg {name}: finishing a resync: from nobody")));
    };
    follow(records, source, leg)?;
    let target = records.records[leg].clone();
    for &other in stays.iter().filter(|&&other| other != source) {
        records.change(other, |record| change::finish_f3(record, &target))?;
    }
    Ok(())
}

/// Exactly one of the legs in sync says PRIMARY: a crash shows.
pub(super) fn make_primary(records: &mut Records) -> Result<()> {
    let Some(primary) = records.reference() else { return Ok(()) };
    let others = 0..records.records.len();
    for leg in others.filter(|&leg| leg != primary) {
        records.change(leg, |record| {
            record.flags.remove(Flags::PRIMARY);
            Ok(())
        })?;
    }
    records.change(primary, |record| {
        record.flags.insert(Flags::PRIMARY);
        Ok(())
    })
}
