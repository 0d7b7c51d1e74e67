//! What a stream of `btrfs send` says, as records of the objects of an index: it begins at the snapshot that the index
//! was made of.
//!
//! Paths in the stream are those at that point of it: directories move, and names that are in the way are moved to
//! `o257-10-0` in the root first. So the names are played through, on top of the index, which stays as it is.

use crate::base::{Class, Error, Result};
use crate::capture::live::number_of;
use crate::fslog::record::Identity;
use crate::fslog::sent::{Change, Sent};
use crate::fslog::{Index, ObjectId, Record, State};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

/// An entry of a directory.
pub type Place = (ObjectId, Box<[u8]>);

/// An index, and what a stream has done to its names so far.
pub struct Replay<'a> {
    base: &'a Index,
    /// Entries that are others than in the index; nothing where none is any more.
    names: HashMap<Place, Option<ObjectId>>,
    next: u64,
    state: State,
}

fn wrong(path: &[u8], what: &str) -> Error {
    let shown = crate::fslog::show_path(path);
    Error::new(Class::Damaged, format!("the stream of btrfs send: {shown}: {what}"))
}

impl<'a> Replay<'a> {
    /// Nothing has happened yet.
    pub fn new(base: &'a Index) -> Self {
        Self { base, names: HashMap::new(), next: base.next, state: State::default() }
    }

    /// Plays a stream through to its end. `go_on` is asked at every command.
    pub fn play<R: Read>(&mut self, sent: &mut Sent<R>, mut go_on: impl FnMut() -> Result<()>) -> Result<()> {
        let mut first = true;
        while let Some(change) = sent.next_change()? {
            go_on()?;
            match (&change, first) {
                (Change::Begin { parent: true, .. }, true) => {}
                (Change::Begin { parent: false, .. }, true) => {
                    return Err(wrong(b".", "it is of a whole subvolume, not of what changed"));
                }
                (Change::Begin { .. }, false) => return Err(wrong(b".", "it begins twice")),
                (_, true) => return Err(wrong(b".", "it does not say what it is about")),
                _ => self.add(&change)?,
            }
            first = false;
        }
        Ok(())
    }

    /// Plays one command.
    pub fn add(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Begin { .. } | Change::End => {}
            Change::Make { path, .. } => {
                let id = ObjectId(self.next);
                self.next += 1;
                self.put(path, Some(id))?;
            }
            Change::Link { path, of } => {
                let id = self.find(of)?;
                self.put(path, Some(id))?;
            }
            Change::Unlink { path } => {
                self.find(path)?;
                self.put(path, None)?;
            }
            Change::Rename { from, to } => {
                let id = self.find(from)?;
                self.put(from, None)?;
                self.put(to, Some(id))?;
            }
            Change::Data { path, range } => {
                let id = self.find(path)?;
                self.note(id, |id| Record::Data { id, range: range.clone() });
            }
            Change::Truncate { path, size } => {
                let id = self.find(path)?;
                self.note(id, |id| Record::Limit { id, at: *size });
            }
            Change::Meta { path, mask } => {
                let id = self.find(path)?;
                self.note(id, |id| Record::Meta { id, mask: *mask });
            }
        }
        Ok(())
    }

    fn entry(&self, place: &Place) -> Option<ObjectId> {
        match self.names.get(place) {
            Some(id) => *id,
            None => self.base.objects.get(&place.0)?.entries.get(&place.1).copied(),
        }
    }

    fn find(&self, path: &[u8]) -> Result<ObjectId> {
        let mut id = ObjectId::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            id = self
                .entry(&(id, name.into()))
                .ok_or_else(|| wrong(path, "it is not in the snapshot before"))?;
        }
        Ok(id)
    }

    fn put(&mut self, path: &[u8], id: Option<ObjectId>) -> Result<()> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let dir = self.find(above)?;
        self.names.insert((dir, name.into()), id);
        let name = name.to_vec();
        self.note(dir, |dir| Record::Name { dir, name });
        Ok(())
    }

    /// A record of an object, if the index has it. What is new is found by its names.
    fn note(&mut self, id: ObjectId, record: impl FnOnce(ObjectId) -> Record) {
        if let Some(object) = self.base.objects.get(&id) {
            let number = number_of(&object.stamp.handle);
            let handle = object.stamp.handle.to_vec();
            let identity = Identity { kind: object.meta.kind, handle, hint: Vec::new() };
            self.state.add(&Record::Ino { id: number, identity });
            self.state.add(&record(number));
        }
    }

    /// What may have changed, as a recorder would have written it.
    pub fn into_state(self) -> State {
        self.state
    }

    /// The same, to look at.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The entries of directories of the index that are others in the end: what has the name now.
    pub fn renamed(&self) -> BTreeMap<Place, Option<ObjectId>> {
        let before = |(dir, name): &Place| self.base.objects.get(dir)?.entries.get(name).copied();
        let known = |(place, now): &(&Place, &Option<ObjectId>)| {
            self.base.objects.contains_key(&place.0) && before(place) != **now
        };
        self.names.iter().filter(known).map(|(place, now)| (place.clone(), *now)).collect()
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
