//! Operations that a person reads. They are derived, never recorded: the base place of every object against its final
//! place, so that what was made and removed in between leaves nothing, and a chain of renames is one.

use super::index::Index;
use super::meta::{Kind, differs};
use super::state::{KNOWN, State};
use super::{ObjectId, show_path};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// A path in an operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<u8>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_path(&self.0))
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What happened to one path, in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[allow(missing_docs)] // of the fields: each is what its variant says
pub enum Operation {
    /// A new object.
    Create { path: Path, kind: Kind },
    /// A new object under a name that another one had.
    Replace { path: Path, kind: Kind },
    /// An object lost its last name.
    Remove { path: Path },
    /// An object has another name or place; a directory takes everything beneath it along.
    Rename { from: Path, to: Path },
    /// Two objects have each other's place.
    Exchange { a: Path, b: Path },
    /// One more name of an object.
    Link { path: Path, to: Path },
    /// One name less of an object that has others.
    Unlink { path: Path },
    /// Bytes written.
    Write { path: Path, ranges: Vec<Range<u64>> },
    /// Everything from here on is different.
    Truncate { path: Path, at: u64 },
    /// The size in the end.
    Resize { path: Path, size: u64 },
    /// The contents as a whole, because the ranges are not known.
    All { path: Path, why: u32 },
    /// Metadata.
    Meta { path: Path, what: Vec<&'static str> },
    /// A name to be looked at again.
    Name { path: Path },
    /// A subtree to be scanned.
    Tree { path: Path },
    /// Everything to be scanned.
    Lost { why: String },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { path, kind } => write!(f, "create {path} ({kind})"),
            Self::Replace { path, kind } => write!(f, "replace {path} ({kind})"),
            Self::Remove { path } => write!(f, "remove {path}"),
            Self::Rename { from, to } => write!(f, "rename {from} -> {to}"),
            Self::Exchange { a, b } => write!(f, "exchange {a} <-> {b}"),
            Self::Link { path, to } => write!(f, "link {path} = {to}"),
            Self::Unlink { path } => write!(f, "unlink {path}"),
            Self::Write { path, ranges } => {
                write!(f, "write {path}")?;
                ranges.iter().try_for_each(|range| write!(f, " {}..{}", range.start, range.end))
            }
            Self::Truncate { path, at } => write!(f, "truncate {path} {at}.."),
            Self::Resize { path, size } => write!(f, "resize {path} {size}"),
            Self::All { path, .. } => write!(f, "write {path} 0.."),
            Self::Meta { path, what } => write!(f, "meta {path} {}", what.join(",")),
            Self::Name { path } => write!(f, "name {path}"),
            Self::Tree { path } => write!(f, "tree {path}"),
            Self::Lost { why } => write!(f, "lost: {why}"),
        }
    }
}

/// What a log says.
pub fn of_log(state: &State) -> Vec<Operation> {
    let path = |id| Path(state.hint(id));
    let mut list: Vec<_> = state.lost.iter().map(|why| Operation::Lost { why: why.to_string() }).collect();
    list.extend(state.trees.iter().map(|dir| Operation::Tree { path: path(*dir) }));
    for (dir, name) in &state.names {
        let name = match path(*dir) {
            Path(dir) if dir == b"." => name.clone(),
            Path(dir) => [&dir[..], name].join(&b'/'),
        };
        list.push(Operation::Name { path: Path(name) });
    }
    for (id, file) in &state.files {
        let ranges: Vec<_> = file.dirty().iter().collect();
        if !ranges.is_empty() {
            list.push(Operation::Write { path: path(*id), ranges });
        }
        if file.why != 0 {
            list.push(Operation::All { path: path(*id), why: file.why });
        } else if file.limit < KNOWN {
            list.push(Operation::Truncate { path: path(*id), at: file.limit });
        }
        if file.meta != 0 {
            list.push(Operation::Meta { path: path(*id), what: differs::words(file.meta) });
        }
    }
    list
}

/// A name: directory and entry.
pub type Name = (ObjectId, Vec<u8>);

/// The difference of two trees, as a dump needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Objects that only the new one has.
    pub new: BTreeSet<ObjectId>,
    /// Objects that only the old one has.
    pub gone: BTreeSet<ObjectId>,
    /// Names that the old one has and the new one has not, or for another object.
    pub unnamed: BTreeMap<Name, ObjectId>,
    /// Names that the new one has and the old one has not, or for another object.
    pub named: BTreeMap<Name, ObjectId>,
    /// Objects of both that differ, and in what ([`differs`]).
    pub changed: BTreeMap<ObjectId, u32>,
}

impl Difference {
    /// What leads from one tree to another one with the same numbers of objects.
    pub fn of(old: &Index, new: &Index) -> Self {
        let mut difference = Self::default();
        for (id, object) in &new.objects {
            let Some(before) = old.objects.get(id) else {
                difference.new.insert(*id);
                difference.name(*id, object.entries.iter());
                continue;
            };
            let content = if before.content == object.content { 0 } else { differs::CONTENT };
            let bits = before.meta.differs(&object.meta) | content;
            if bits != 0 {
                difference.changed.insert(*id, bits);
            }
            if before.entries != object.entries {
                let added =
                    object.entries.iter().filter(|(name, child)| before.entries.get(*name) != Some(child));
                difference.name(*id, added);
                let lost =
                    before.entries.iter().filter(|(name, child)| object.entries.get(*name) != Some(child));
                difference.unname(*id, lost);
            }
        }
        for (id, object) in old.objects.iter().filter(|(id, _)| !new.objects.contains_key(id)) {
            difference.gone.insert(*id);
            difference.unname(*id, object.entries.iter());
        }
        difference
    }

    fn name<'a>(&mut self, dir: ObjectId, entries: impl Iterator<Item = (&'a Box<[u8]>, &'a ObjectId)>) {
        self.named.extend(entries.map(|(name, id)| ((dir, name.to_vec()), *id)));
    }

    fn unname<'a>(&mut self, dir: ObjectId, entries: impl Iterator<Item = (&'a Box<[u8]>, &'a ObjectId)>) {
        self.unnamed.extend(entries.map(|(name, id)| ((dir, name.to_vec()), *id)));
    }
}

/// What leads from one tree to another: names first, then contents and metadata.
pub fn between(old: &Index, new: &Index) -> Vec<Operation> {
    let difference = Difference::of(old, new);
    let mut list = names(old, new, &difference);
    let paths = new.names();
    let objects = difference.changed.keys().chain(&difference.new);
    for id in objects {
        let path = || Path(paths.path(*id));
        let (Some(now), before) = (new.objects.get(id), old.objects.get(id)) else { continue };
        let none = super::Content::default();
        let (base, size) = before.map_or((&none, 0), |before| (&before.content, before.meta.size));
        let ranges: Vec<_> = now.content.changed_since(base, now.meta.size).iter().collect();
        if !ranges.is_empty() {
            list.push(Operation::Write { path: path(), ranges });
        }
        if now.meta.size != size {
            list.push(Operation::Resize { path: path(), size: now.meta.size });
        }
        let bits = difference.changed.get(id).copied().unwrap_or_default();
        let what = differs::words(bits & !(differs::CONTENT | differs::SIZE));
        if !what.is_empty() {
            list.push(Operation::Meta { path: path(), what });
        }
    }
    list
}

/// The operations on names.
fn names(old: &Index, new: &Index, difference: &Difference) -> Vec<Operation> {
    let (before, after) = (old.names(), new.names());
    let mut lost: BTreeMap<ObjectId, Vec<&Name>> = BTreeMap::new();
    let mut won: BTreeMap<ObjectId, Vec<&Name>> = BTreeMap::new();
    difference.unnamed.iter().for_each(|(name, id)| lost.entry(*id).or_default().push(name));
    difference.named.iter().for_each(|(name, id)| won.entry(*id).or_default().push(name));
    let old_path = |name: &Name| Path(before.entry(name.0, &name.1));
    let new_path = |name: &Name| Path(after.entry(name.0, &name.1));
    let mut told = Vec::new();
    let mut moves: BTreeMap<&Name, &Name> = BTreeMap::new();
    for id in lost.keys().chain(won.keys()).collect::<BTreeSet<_>>() {
        let (lost, won) =
            (lost.get(id).map_or(&[][..], Vec::as_slice), won.get(id).map_or(&[][..], Vec::as_slice));
        let Some(object) = new.objects.get(id) else {
            told.extend(lost.iter().map(|name| Operation::Remove { path: old_path(name) }));
            continue;
        };
        let fresh = difference.new.contains(id);
        moves.extend(lost.iter().copied().zip(won.iter().copied()));
        told.extend(lost.iter().skip(won.len()).map(|name| Operation::Unlink { path: old_path(name) }));
        for (at, name) in won.iter().enumerate().skip(lost.len()) {
            let (path, kind) = (new_path(name), object.meta.kind);
            told.push(match (fresh && at == 0, difference.unnamed.contains_key(*name)) {
                (true, true) => Operation::Replace { path, kind },
                (true, false) => Operation::Create { path, kind },
                (false, _) => Operation::Link { path, to: Path(after.path(*id)) },
            });
        }
    }
    for (from, to) in &moves {
        if moves.get(to) == Some(from) {
            if from < to {
                told.push(Operation::Exchange { a: old_path(from), b: old_path(to) });
            }
        } else {
            told.push(Operation::Rename { from: old_path(from), to: new_path(to) });
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fslog::Record;
    use crate::fslog::index::tests::tree;
    use crate::fslog::record::Identity;

    fn told(old: &[(u64, &str, u64)], new: &[(u64, &str, u64)]) -> Vec<String> {
        let index = |entries: &[(u64, &str, u64)]| {
            let mut objects = vec![(1, Kind::Dir)];
            objects.extend(
                entries.iter().map(|(_, _, id)| (*id, if *id < 10 { Kind::Dir } else { Kind::File })),
            );
            tree(&objects, entries)
        };
        between(&index(old), &index(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn base_places_against_final_places() {
        let base = [(1, "a", 10), (1, "b", 11), (1, "d", 2), (2, "x", 12)];
        assert_eq!(told(&base, &base), [""; 0]);
        let exchanged = [(1, "b", 10), (1, "a", 11), (1, "d", 2), (2, "x", 12)];
        assert_eq!(told(&base, &exchanged), ["exchange a <-> b"]);
        let moved = [(1, "a", 10), (1, "b", 11), (1, "e", 2), (2, "x", 12)];
        assert_eq!(told(&base, &moved), ["rename d -> e"], "a directory takes along what is beneath it");
        let replaced = [(1, "a", 13), (1, "b", 11), (1, "d", 2), (2, "x", 12)];
        assert_eq!(told(&base, &replaced), ["remove a", "replace a (file)"]);
        let over = [(1, "a", 11), (1, "d", 2), (2, "x", 12)];
        assert_eq!(told(&base, &over), ["remove a", "rename b -> a"]);
        let linked = [(1, "a", 10), (1, "c", 10), (1, "b", 11), (1, "d", 2), (2, "x", 12)];
        assert_eq!(told(&base, &linked), ["link c = a"]);
        assert_eq!(told(&linked, &base), ["unlink c"]);
        let cycle = [(1, "b", 10), (1, "c", 11), (1, "a", 2), (2, "x", 12)];
        assert_eq!(told(&base, &cycle), ["rename a -> b", "rename b -> c", "rename d -> a"]);
    }

    #[test]
    fn the_example_of_the_source_reads_as_it_stands_there() {
        let id = ObjectId(2);
        let mut state = State::default();
        let identity = Identity { kind: Kind::File, handle: Vec::new(), hint: b"toto".to_vec() };
        state.add(&Record::Ino { id, identity });
        for range in [20..5000, 4000..30_030, 100..200] {
            state.add(&Record::Data { id, range });
        }
        let told: Vec<_> = of_log(&state).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["write toto 20..30030"]);
    }
}
