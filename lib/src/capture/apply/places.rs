//! Where each object of a standby is at the moment: in the tree or in the stage, by the number of its directory, so
//! that a place stays right when a directory above it moves.

use crate::capture::STAGE;
use crate::capture::tree::walk::Walked;
use crate::fslog::{Index, ObjectId};
use std::collections::{BTreeSet, HashMap};

/// A directory that holds entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// The stage.
    Stage,
    /// A directory of the tree, wherever it is.
    Object(ObjectId),
}

/// A directory and an entry in it.
pub type Place = (Dir, Box<[u8]>);

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub struct Places {
    by_id: HashMap<ObjectId, BTreeSet<Place>>,
    by_place: HashMap<Place, ObjectId>,
}

impl Places {
    /// Everything is where an index has it.
    pub fn of_index(index: &Index) -> Self {
        let mut places = Self::default();
        for (dir, object) in &index.objects {
            for (name, id) in &object.entries {
                places.add((Dir::Object(*dir), name.clone()), *id);
            }
        }
        places
    }

    /// Everything is where a walk found it, by its identity. The error is the path of something that is not known.
    pub fn of_walk(mut walked: Walked, known: &HashMap<Box<[u8]>, ObjectId>) -> Result<Self, Vec<u8>> {
        let mut places = Self::default();
        let mut dirs = vec![(Dir::Object(ObjectId::ROOT), 0, Vec::new())];
        while let Some((dir, number, path)) = dirs.pop() {
            for found in std::mem::take(&mut walked.dirs[number]) {
                let mut below: Vec<u8> = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&found.name);
                if number == 0 && &found.name[..] == STAGE {
                    dirs.extend(found.dir.map(|number| (Dir::Stage, number, below)));
                    continue;
                }
                let Some(id) = known.get(&found.look.stamp.handle) else { return Err(below) };
                dirs.extend(found.dir.map(|number| (Dir::Object(*id), number, below)));
                places.add((dir, found.name), *id);
            }
        }
        Ok(places)
    }

    /// An object has one more place.
    pub fn add(&mut self, place: Place, id: ObjectId) {
        self.by_id.entry(id).or_default().insert(place.clone());
        self.by_place.insert(place, id);
    }

    /// Nothing is at this place any more.
    pub fn remove(&mut self, place: &Place) {
        if let Some(id) = self.by_place.remove(place)
            && let Some(places) = self.by_id.get_mut(&id)
        {
            places.remove(place);
        }
    }

    /// What is at a place.
    pub fn at(&self, place: &Place) -> Option<ObjectId> {
        self.by_place.get(place).copied()
    }

    /// A place of an object in the stage.
    pub fn staged(&self, id: ObjectId) -> Option<&Place> {
        self.by_id.get(&id)?.iter().find(|(dir, _)| *dir == Dir::Stage)
    }

    /// A place of an object, rather in the tree than in the stage.
    pub fn of(&self, id: ObjectId) -> Option<&Place> {
        self.by_id.get(&id)?.last()
    }

    /// The path of a directory from the root; `None` if it is nowhere.
    pub fn components(&self, dir: Dir) -> Option<Vec<&[u8]>> {
        let mut path = Vec::new();
        let mut at = dir;
        while let Dir::Object(id) = at {
            if id == ObjectId::ROOT {
                path.reverse();
                return Some(path);
            }
            let (above, name) = self.of(id)?;
            path.push(&name[..]);
            at = *above;
        }
        path.push(STAGE);
        path.reverse();
        Some(path)
    }

    /// The path of an entry, for messages.
    pub fn path(&self, (dir, name): &Place) -> Vec<u8> {
        let mut path = self.components(*dir).unwrap_or_default();
        path.push(name);
        path.join(&b'/')
    }
}
