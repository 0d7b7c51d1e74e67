//! Whether a tree is what an index says: all of it is read, and compared by the Merkle tree, so that only subtrees
//! that differ are gone through.

use super::{nothing, scan};
use crate::base::Result;
use crate::capture::tree::Root;
use crate::fslog::merkle::{Hashes, link_groups};
use crate::fslog::meta::differs;
use crate::fslog::{Index, ObjectId, derive::Path};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "differs", rename_all = "kebab-case")]
pub enum Mismatch {
    /// Only the manifest has it.
    Missing {
        /// Where.
        path: Path,
    },
    /// Only the tree has it.
    Extra {
        /// Where.
        path: Path,
    },
    /// Both have it, differently.
    Object {
        /// Where.
        path: Path,
        /// In what.
        what: Vec<&'static str>,
    },
    /// These paths are one object in one of them, and not in the other.
    Links {
        /// The paths.
        paths: Vec<Path>,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "missing {path}"),
            Self::Extra { path } => write!(f, "extra {path}"),
            Self::Object { path, what } => write!(f, "differs {path} {}", what.join(",")),
            Self::Links { paths } => {
                f.write_str("links")?;
                paths.iter().try_for_each(|path| write!(f, " {path}"))
            }
        }
    }
}

/// Reads a whole tree, as one without a past.
pub fn read_tree(root: &Root, options: u32) -> Result<Index> {
    scan(root, &nothing()?, options)
}

/// In what a tree differs from what is expected.
pub fn compare(expected: &Index, found: &Index) -> Result<Vec<Mismatch>> {
    let (left, right) = (Hashes::of(expected)?, Hashes::of(found)?);
    let mut list = Vec::new();
    if left.root == right.root {
        return Ok(list);
    }
    let mut pairs = vec![(ObjectId::ROOT, ObjectId::ROOT, Vec::new())];
    while let Some((a, b, path)) = pairs.pop() {
        if left.objects.get(&a) == right.objects.get(&b) {
            continue;
        }
        let (Some(a), Some(b)) = (expected.objects.get(&a), found.objects.get(&b)) else { continue };
        let bits = a.meta.differs(&b.meta) | if a.content == b.content { 0 } else { differs::CONTENT };
        if bits != 0 {
            let path = if path.is_empty() { b".".to_vec() } else { path.clone() };
            list.push(Mismatch::Object { path: Path(path), what: differs::words(bits) });
        }
        let below = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [&path[..], name].join(&b'/') };
        for (name, id) in &a.entries {
            match b.entries.get(name) {
                Some(other) => pairs.push((*id, *other, below(name))),
                None => list.push(Mismatch::Missing { path: Path(below(name)) }),
            }
        }
        let extra = b.entries.keys().filter(|name| !a.entries.contains_key(*name));
        list.extend(extra.map(|name| Mismatch::Extra { path: Path(below(name)) }));
    }
    let (left, right) = (link_groups(expected), link_groups(found));
    let only = |these: &[Vec<Vec<u8>>], those: &[Vec<Vec<u8>>]| -> Vec<Mismatch> {
        let odd = these.iter().filter(|group| those.binary_search(group).is_err());
        odd.map(|group| Mismatch::Links { paths: group.iter().cloned().map(Path).collect() }).collect()
    };
    list.extend(only(&left, &right));
    list.extend(only(&right, &left));
    Ok(list)
}
