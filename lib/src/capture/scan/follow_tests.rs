//! What a dump of a tree that moves leaves to the next one.

use super::super::{nothing, scan};
use super::*;
use std::fs;
use std::path::Path;

fn index_of(path: &Path) -> (Root, Index) {
    let root = Root::open(path).expect("root");
    let index = scan(&root, &nothing().expect("base"), 0).expect("scan");
    (root, index)
}

fn id_of(index: &Index, path: &[&[u8]]) -> ObjectId {
    path.iter().fold(ObjectId::ROOT, |dir, name| index.objects[&dir].entries[*name])
}

/// Follows an empty log, and reads what it owes.
fn followed(root: &Root, base: &Index) -> Index {
    let watch = Watch::default();
    let state = State::default();
    let (mut fresh, _) =
        follow(root, base, &state, 0, super::super::now(), &watch).expect("followed").expect("no scan");
    fresh.read(root, base, &mut super::super::contents::Nobody, None, &watch).expect("read");
    fresh.index
}

#[test]
fn a_directory_that_could_not_be_listed_is_listed_by_the_next_round() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir_all(dir.path().join("d/below/deep")).expect("mkdir");
    fs::write(dir.path().join("d/below/file"), "x").expect("write");
    let (root, whole) = index_of(dir.path());
    let d = id_of(&whole, &[b"d"]);
    // As a scan leaves it that found the directory, and not what is in it.
    let mut partly = whole.clone();
    for gone in [&[&b"d"[..], b"below", b"deep"][..], &[b"d", b"below", b"file"], &[b"d", b"below"]] {
        partly.objects.remove(&id_of(&whole, gone));
    }
    let object = partly.objects.get_mut(&d).expect("d");
    object.entries.clear();
    assert!(!followed(&root, &partly).objects[&d].entries.contains_key(&b"below"[..]), "nothing tells of it");
    partly.objects.get_mut(&d).expect("d").stamp.unlisted = true;
    let mended = followed(&root, &partly);
    assert_eq!(mended.objects.len(), whole.objects.len());
    id_of(&mended, &[b"d", b"below", b"file"]);
    assert!(mended.objects.values().all(|object| !object.stamp.unlisted), "listed");
}

#[test]
fn the_directory_of_what_vanished_while_it_was_read_is_listed_again() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir_all(dir.path().join("from/d")).expect("mkdir");
    fs::create_dir(dir.path().join("to")).expect("mkdir");
    fs::write(dir.path().join("from/d/file"), "x").expect("write");
    let root = Root::open(dir.path()).expect("root");
    let (base, watch) = (nothing().expect("base"), Watch::default());
    let mut fresh = super::super::begin(&root, &base, 0, 0, &watch).expect("walked");
    // It moves between the walk and the reading: neither it nor the file is where it was seen.
    fs::rename(dir.path().join("from/d"), dir.path().join("to/d")).expect("rename");
    fresh.read(&root, &base, &mut super::super::contents::Nobody, None, &watch).expect("read");
    let from = id_of(&fresh.index, &[b"from"]);
    assert!(fresh.index.objects[&from].stamp.unlisted);
    assert!(fresh.index.objects[&from].entries.is_empty());
}
