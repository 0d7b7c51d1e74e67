//! The Merkle tree of an index: what is identical has the same digest, whoever scanned it and whatever numbers its
//! objects have there.
//!
//! - leaf: digest of the packed metadata and of the root of the content;
//! - directory: digest of its packed metadata and of every name with the digest behind it, in order;
//! - root: digest of the root directory and of the groups of hard links, as sorted lists of paths.

use super::meta::Kind;
use super::pack::Pack;
use super::{Digest, Index, ObjectId};
use crate::base::{Class, Error, Result};
use std::collections::HashMap;

/// The digests of all objects of an index.
#[derive(Clone, Debug)]
pub struct Hashes {
    /// Of each object.
    pub objects: HashMap<ObjectId, Digest>,
    /// Of the tree.
    pub root: Digest,
}

impl Hashes {
    /// Computes them. The index must be a tree ([`Index::check`]).
    pub fn of(index: &Index) -> Result<Self> {
        let mut objects = HashMap::with_capacity(index.objects.len());
        let mut dirs = vec![ObjectId::ROOT];
        let mut at = 0;
        while let Some(dir) = dirs.get(at).and_then(|id| index.objects.get(id)) {
            dirs.extend(dir.entries.values().filter(|id| is_dir(index, **id)));
            at += 1;
            if dirs.len() > index.objects.len() {
                return Err(Error::new(Class::Internal, "index: hashing it: its directories form a cycle"));
            }
        }
        for (id, object) in index.objects.iter().filter(|(_, object)| object.meta.kind != Kind::Dir) {
            let mut pack = Pack::default();
            object.meta.pack(&mut pack);
            if object.meta.kind == Kind::File {
                pack.raw(&object.content.root(object.meta.size).0);
            }
            objects.insert(*id, hash(b"leaf", &pack));
        }
        for id in dirs.iter().rev() {
            let Some(dir) = index.objects.get(id) else { continue };
            let mut pack = Pack::default();
            dir.meta.pack(&mut pack);
            for (name, child) in &dir.entries {
                let digest = objects.get(child).copied().unwrap_or_default();
                pack.string(name).raw(&digest.0);
            }
            objects.insert(*id, hash(b"dir", &pack));
        }
        let mut pack = Pack::default();
        pack.raw(&objects.get(&ObjectId::ROOT).copied().unwrap_or_default().0);
        for group in link_groups(index) {
            pack.u32(group.len() as u32);
            for path in group {
                pack.string(&path);
            }
        }
        let root = hash(b"tree", &pack);
        Ok(Self { objects, root })
    }
}

fn is_dir(index: &Index, id: ObjectId) -> bool {
    index.objects.get(&id).is_some_and(|object| object.meta.kind == Kind::Dir)
}

fn hash(what: &[u8], pack: &Pack) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what).update(&[0]).update(&pack.0);
    Digest(*hasher.finalize().as_bytes())
}

/// The paths of each object that has several, sorted.
pub fn link_groups(index: &Index) -> Vec<Vec<Vec<u8>>> {
    let mut count: HashMap<ObjectId, u32> = HashMap::with_capacity(index.objects.len());
    for id in index.objects.values().flat_map(|object| object.entries.values()) {
        *count.entry(*id).or_default() += 1;
    }
    count.retain(|_, names| *names > 1);
    if count.is_empty() {
        return Vec::new();
    }
    let names = index.names();
    let paths = |id| {
        let mut paths: Vec<_> = names.of(id).iter().map(|(dir, name)| names.entry(*dir, name)).collect();
        paths.sort();
        paths
    };
    let mut groups: Vec<_> = count.keys().map(|id| paths(*id)).collect();
    groups.sort();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fslog::index::tests::tree;

    #[test]
    fn the_root_depends_on_what_is_identical_and_on_nothing_else() {
        let root = |index: &Index| Hashes::of(index).expect("hashes").root;
        let objects = [(1, Kind::Dir), (2, Kind::Dir), (3, Kind::File)];
        let a = tree(&objects, &[(1, "a", 2), (2, "b", 3), (1, "c", 3)]);
        let renumbered = tree(
            &[(1, Kind::Dir), (9, Kind::Dir), (5, Kind::File)],
            &[(1, "a", 9), (9, "b", 5), (1, "c", 5)],
        );
        assert_eq!(root(&a), root(&renumbered));
        let mut stamped = a.clone();
        stamped.objects.get_mut(&ObjectId(3)).expect("file").stamp.unsure = true;
        assert_eq!(root(&a), root(&stamped));

        let unlinked = tree(
            &[(1, Kind::Dir), (2, Kind::Dir), (3, Kind::File), (4, Kind::File)],
            &[(1, "a", 2), (2, "b", 3), (1, "c", 4)],
        );
        assert_ne!(root(&a), root(&unlinked), "two files with the same contents are no hard link");
        let mut mode = a.clone();
        mode.objects.get_mut(&ObjectId(2)).expect("dir").meta.mode = 0o700;
        assert_ne!(root(&a), root(&mode));
        let mut content = a.clone();
        content.objects.get_mut(&ObjectId(3)).expect("file").content.push(0, Digest([1; 32]));
        assert_ne!(root(&a), root(&content));
    }
}
