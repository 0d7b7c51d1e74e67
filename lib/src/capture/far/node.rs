//! What an answer about a tree on another machine holds: packed by the far end, read by the near one, nowhere else.

use crate::base::{Class, Error, Result, limits};
use crate::fslog::index::is_name;
use crate::fslog::merkle::Hashes;
use crate::fslog::pack::{Pack, Unpack};
use crate::fslog::{Digest, Index, Kind, Meta, ObjectId};

/// Bytes of entries in one answer; the rest of a large directory is asked for again.
const ANSWER: usize = limits::REMOTE_PAYLOAD as usize / 2;
/// Most entries of one directory, or groups of links, that are believed.
const ENTRIES: u32 = 1 << 26;

pub(super) fn pack_groups(groups: &[Vec<Vec<u8>>], from: usize) -> Pack {
    let mut pack = Pack::default();
    pack.u32(groups.len() as u32);
    for group in groups.iter().skip(from) {
        pack.u32(group.len() as u32);
        for path in group {
            pack.string(path);
        }
        if pack.0.len() > ANSWER {
            break;
        }
    }
    pack
}

/// Metadata, digest of the content, number of entries, and the entries from one on: name, object, digest.
pub(super) fn pack_node(index: &Index, hashes: &Hashes, id: ObjectId, from: usize) -> Result<Pack> {
    let Some(object) = index.objects.get(&id) else {
        return Err(Error::new(Class::Connect, format!("object {id}: it is not in the tree")));
    };
    let mut pack = Pack::default();
    object.meta.pack(&mut pack);
    let content = if object.meta.kind == Kind::File {
        object.content.root(object.meta.size)
    } else {
        Digest::default()
    };
    pack.raw(&content.0).u32(object.entries.len() as u32);
    for (name, id) in object.entries.iter().skip(from) {
        let digest = hashes.objects.get(id).copied().unwrap_or_default();
        pack.string(name).u64(id.0).raw(&digest.0);
        if pack.0.len() > ANSWER {
            break;
        }
    }
    Ok(pack)
}

/// One object of a tree somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What makes it identical, but for its content.
    pub meta: Meta,
    /// Digest of the content of a file.
    pub content: Digest,
    /// Entries of a directory in order, with their objects and digests.
    pub entries: Vec<(Box<[u8]>, ObjectId, Digest)>,
}

impl Node {
    /// Asks for an object, as often as it takes to have all of its entries. `ask` gives the answer from an entry on.
    pub fn read(object: &str, ask: &mut dyn FnMut(u64) -> Result<Vec<u8>>) -> Result<Self> {
        let mut whole: Option<Self> = None;
        loop {
            let have = whole.as_ref().map_or(0, |node| node.entries.len());
            let answer = ask(have as u64)?;
            let mut from = Unpack::new(object, &answer);
            let (meta, content, count) = (Meta::unpack(&mut from)?, from.digest()?, from.u32()?);
            let node = whole.get_or_insert_with(|| Self { meta, content, entries: Vec::new() });
            if count > ENTRIES {
                return Err(from.damaged(&format!("{count} entries, at most {ENTRIES}")));
            }
            while node.entries.len() < count as usize && !from.rest().is_empty() {
                let name = from.string(limits::FILE_NAME)?;
                if !is_name(name) || node.entries.last().is_some_and(|(last, ..)| **last >= *name) {
                    return Err(from.damaged("a name that cannot stand there"));
                }
                let entry = (name.into(), ObjectId(from.u64()?), from.digest()?);
                node.entries.push(entry);
            }
            if node.entries.len() == count as usize {
                from.end()?;
                break;
            }
            if node.entries.len() == have {
                return Err(from.damaged("an answer without entries"));
            }
        }
        whole.ok_or_else(|| Error::new(Class::Internal, format!("{object}: reading an object: nothing")))
    }
}

/// Asks for the groups of hard links.
pub fn read_groups(object: &str, ask: &mut dyn FnMut(u64) -> Result<Vec<u8>>) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    loop {
        let answer = ask(groups.len() as u64)?;
        let mut from = Unpack::new(object, &answer);
        let (count, have) = (from.u32()?, groups.len());
        if count > ENTRIES {
            return Err(from.damaged(&format!("{count} groups, at most {ENTRIES}")));
        }
        while groups.len() < count as usize && !from.rest().is_empty() {
            let names = from.u32()?;
            let group: Result<Vec<_>> =
                (0..names).map(|_| from.string(limits::FSLOG_FRAME).map(<[u8]>::to_vec)).collect();
            groups.push(group?);
        }
        if groups.len() == count as usize {
            from.end()?;
            return Ok(groups);
        }
        if groups.len() == have {
            return Err(from.damaged("an answer without groups"));
        }
    }
}
