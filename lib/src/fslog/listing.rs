//! What a dump says, for a person: read to its end and checked, without a base.

use super::derive::{Operation, Path};
use super::frame::{FrameReader, Header, Magic};
use super::meta::Kind;
use super::{ObjectId, Part, Ranges};
use crate::base::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// A dump, without its data.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Its head.
    pub header: Header,
    /// What it does.
    pub operations: Vec<Operation>,
    /// Bytes of data.
    pub data: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

#[derive(Default)]
struct Seen {
    hints: BTreeMap<ObjectId, Vec<u8>>,
    new: BTreeMap<ObjectId, (Kind, u64)>,
    changed: BTreeMap<ObjectId, u64>,
    limits: BTreeSet<ObjectId>,
    written: BTreeMap<ObjectId, Ranges>,
    unnamed: BTreeMap<ObjectId, Vec<(ObjectId, Vec<u8>)>>,
    named: BTreeMap<ObjectId, Vec<(ObjectId, Vec<u8>)>>,
    gone: BTreeSet<ObjectId>,
}

/// Reads a dump and says what it does.
pub fn list(object: &str, from: impl Read) -> Result<Listing> {
    let mut frames = FrameReader::new(object, Magic::Dump, from)?;
    let header = frames.header;
    let (mut seen, mut data) = (Seen::default(), 0);
    loop {
        let (kind, payload) = frames.take_frame()?;
        match Part::unpack(object, kind, payload)? {
            Part::End { .. } => break,
            Part::Hint { id, path } => drop(seen.hints.insert(id, path.to_vec())),
            Part::New { id, meta } => drop(seen.new.insert(id, (meta.kind, meta.size))),
            Part::Changed { id, meta } => drop(seen.changed.insert(id, meta.size)),
            Part::Limit { id, .. } => drop(seen.limits.insert(id)),
            Part::Data { id, offset, bytes } => {
                data += bytes.len() as u64;
                seen.written.entry(id).or_default().insert(offset..offset.saturating_add(bytes.len() as u64));
            }
            Part::Hole { id, range } => seen.written.entry(id).or_default().insert(range),
            Part::Unname { dir, name, id } => seen.unnamed.entry(id).or_default().push((dir, name.to_vec())),
            Part::Name { dir, name, id } => seen.named.entry(id).or_default().push((dir, name.to_vec())),
            Part::Gone { id } => drop(seen.gone.insert(id)),
        }
    }
    let bytes = frames.offset();
    frames.finish()?;
    Ok(Listing { header, operations: seen.operations(), data, bytes })
}

impl Seen {
    fn hint(&self, id: ObjectId) -> Path {
        Path(self.hints.get(&id).cloned().unwrap_or_else(|| id.to_string().into_bytes()))
    }

    fn path(&self, (dir, name): &(ObjectId, Vec<u8>)) -> Path {
        match self.hint(*dir) {
            Path(above) if above == b"." => Path(name.clone()),
            Path(above) => Path([&above[..], name].join(&b'/')),
        }
    }

    fn operations(&self) -> Vec<Operation> {
        let mut list = Vec::new();
        for id in self.unnamed.keys().chain(self.named.keys()).collect::<BTreeSet<_>>() {
            self.names(*id, &mut list);
        }
        let none = Ranges::default();
        for (id, size) in self.new.iter().map(|(id, (_, size))| (id, size)).chain(&self.changed) {
            let path = || self.hint(*id);
            let ranges: Vec<_> = self.written.get(id).unwrap_or(&none).iter().collect();
            if !ranges.is_empty() {
                list.push(Operation::Write { path: path(), ranges });
            }
            if self.limits.contains(id) {
                list.push(Operation::Resize { path: path(), size: *size });
            }
            if self.changed.contains_key(id) {
                list.push(Operation::Meta { path: path(), what: vec!["all"] });
            }
        }
        list
    }

    fn names(&self, id: ObjectId, told: &mut Vec<Operation>) {
        let of =
            |map: &BTreeMap<ObjectId, Vec<(ObjectId, Vec<u8>)>>| map.get(&id).cloned().unwrap_or_default();
        let (lost, won) = (of(&self.unnamed), of(&self.named));
        if self.gone.contains(&id) {
            told.extend(lost.iter().map(|name| Operation::Remove { path: self.path(name) }));
            return;
        }
        for (from, to) in lost.iter().zip(&won) {
            told.push(Operation::Rename { from: self.path(from), to: self.path(to) });
        }
        told.extend(lost.iter().skip(won.len()).map(|name| Operation::Unlink { path: self.path(name) }));
        for (at, name) in won.iter().enumerate().skip(lost.len()) {
            let path = self.path(name);
            told.push(match self.new.get(&id) {
                Some((kind, _)) if at == 0 => Operation::Create { path, kind: *kind },
                _ => Operation::Link { path, to: self.hint(id) },
            });
        }
    }
}
