//! A log folded up: a state that joins, not a list of operations.
//!
//! Per file it is a pair (L, R) with R within [0, L), and everything from L on counts as changed:
//!
//! (L1, R1) + (L2, R2) = (min L, (R1 and R2 together) within [0, min L))
//!
//! Names, metadata and mappings join as sets. So folding is commutative, associative and idempotent, and folding
//! two logs is folding one that has the records of both.

use super::record::{Identity, Lost, Mapping, Record};
use super::{ObjectId, Ranges};
use std::collections::{BTreeMap, BTreeSet};

/// No limit was seen.
pub const NO_LIMIT: u64 = u64::MAX;
/// A limit that no file reaches: nothing but the ranges may have changed.
pub const KNOWN: u64 = NO_LIMIT - 1;

/// What may have changed of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Everything from here on.
    pub limit: u64,
    /// And these ranges below it.
    pub ranges: Ranges,
    /// Why it was given up on as a whole; 0 if it was not.
    pub why: u32,
    /// Shared writable mappings; true while mapped.
    pub maps: BTreeMap<Mapping, bool>,
    /// Metadata ([`super::meta::differs`]).
    pub meta: u32,
}

impl Default for FileChange {
    fn default() -> Self {
        Self { limit: NO_LIMIT, ranges: Ranges::default(), why: 0, maps: BTreeMap::new(), meta: 0 }
    }
}

impl FileChange {
    fn join(&mut self, other: &Self) {
        self.ranges.extend(&other.ranges);
        self.lower(other.limit);
        self.why |= other.why;
        for (mapping, live) in &other.maps {
            self.map(mapping, *live);
        }
        self.meta |= other.meta;
        self.ranges.bound();
    }

    fn lower(&mut self, limit: u64) {
        self.limit = self.limit.min(limit);
        self.ranges.clip(self.limit);
    }

    /// That a mapping ended is known for good.
    fn map(&mut self, mapping: &Mapping, live: bool) {
        let known = self.maps.entry(mapping.clone()).or_insert(live);
        *known &= live;
    }

    /// The ranges below the limit that may have changed, mappings among them.
    pub fn dirty(&self) -> Ranges {
        let mut ranges = self.ranges.clone();
        self.maps.keys().for_each(|mapping| ranges.insert(mapping.range.0..mapping.range.1));
        ranges.clip(self.limit);
        ranges
    }
}

/// A log, folded up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What may have changed, by object.
    pub files: BTreeMap<ObjectId, FileChange>,
    /// Who the objects are.
    pub identities: BTreeMap<ObjectId, BTreeSet<Identity>>,
    /// Names to be looked at again.
    pub names: BTreeSet<(ObjectId, Vec<u8>)>,
    /// Subtrees to be scanned.
    pub trees: BTreeSet<ObjectId>,
    /// Why everything is to be scanned; empty if it is not.
    pub lost: BTreeSet<Lost>,
}

impl State {
    /// Folds one record in.
    pub fn add(&mut self, record: &Record) {
        match record {
            // What says nothing leaves nothing.
            Record::Open { .. }
            | Record::Barrier { .. }
            | Record::Close { .. }
            | Record::Limit { at: NO_LIMIT, .. }
            | Record::Meta { mask: 0, .. } => {}
            Record::Ino { id, identity } => {
                self.identities.entry(*id).or_default().insert(identity.clone());
            }
            Record::Name { dir, name } => {
                self.names.insert((*dir, name.clone()));
            }
            Record::Data { id, range } => {
                let file = self.file(*id);
                file.ranges.insert(range.start..range.end.min(file.limit));
                file.ranges.bound();
            }
            Record::Limit { id, at } => self.file(*id).lower(*at),
            Record::All { id, why } => {
                let file = self.file(*id);
                file.lower(0);
                file.why |= why;
            }
            Record::Map { id, mapping, live } => self.file(*id).map(mapping, *live),
            Record::Meta { id, mask } => self.file(*id).meta |= mask,
            Record::Tree { dir } => {
                self.trees.insert(*dir);
            }
            Record::Lost { why } => {
                self.lost.insert(*why);
            }
        }
    }

    fn file(&mut self, id: ObjectId) -> &mut FileChange {
        self.files.entry(id).or_default()
    }

    /// Folds another log in.
    pub fn join(&mut self, other: &Self) {
        for (id, change) in &other.files {
            self.file(*id).join(change);
        }
        for (id, identities) in &other.identities {
            self.identities.entry(*id).or_default().extend(identities.iter().cloned());
        }
        self.names.extend(other.names.iter().cloned());
        self.trees.extend(&other.trees);
        self.lost.extend(&other.lost);
    }

    /// The records that fold up to this state.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (id, identities) in &self.identities {
            let ino = |identity: &Identity| Record::Ino { id: *id, identity: identity.clone() };
            records.extend(identities.iter().map(ino));
        }
        records.extend(self.names.iter().map(|(dir, name)| Record::Name { dir: *dir, name: name.clone() }));
        for (id, file) in &self.files {
            let id = *id;
            records.extend(file.ranges.iter().map(|range| Record::Data { id, range }));
            if file.why != 0 {
                records.push(Record::All { id, why: file.why });
            } else if file.limit != NO_LIMIT {
                records.push(Record::Limit { id, at: file.limit });
            }
            let map = |(mapping, live): (&Mapping, &bool)| Record::Map {
                id,
                mapping: mapping.clone(),
                live: *live,
            };
            records.extend(file.maps.iter().map(map));
            if file.meta != 0 {
                records.push(Record::Meta { id, mask: file.meta });
            }
        }
        records.extend(self.trees.iter().map(|dir| Record::Tree { dir: *dir }));
        records.extend(self.lost.iter().map(|why| Record::Lost { why: *why }));
        records
    }

    /// What a new generation begins with: live mappings, because their stores are seen by nobody.
    #[must_use]
    pub fn inherited(&self) -> Self {
        let mut next = Self::default();
        for (id, file) in &self.files {
            for mapping in file.maps.iter().filter(|(_, live)| **live).map(|(mapping, _)| mapping) {
                next.file(*id).map(mapping, true);
                if let Some(identities) = self.identities.get(id) {
                    next.identities.insert(*id, identities.clone());
                }
            }
        }
        next
    }

    /// Whether nothing changed.
    pub fn is_clean(&self) -> bool {
        self.files.is_empty() && self.names.is_empty() && self.trees.is_empty() && self.lost.is_empty()
    }

    /// A path that an object was seen at, or its number.
    pub fn hint(&self, id: ObjectId) -> Vec<u8> {
        let hint = self.identities.get(&id).and_then(|set| set.iter().find(|i| !i.hint.is_empty()));
        match hint {
            Some(identity) => identity.hint.clone(),
            None if id == ObjectId::ROOT => b".".to_vec(),
            None => id.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
