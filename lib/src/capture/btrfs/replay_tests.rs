//! Names played through on top of an index.

use super::*;
use crate::fslog::index::Object;
use crate::fslog::meta::{Kind, Meta, Time, Xattrs};
use crate::fslog::{Content, Stamp};

const DIR: ObjectId = ObjectId(2);
const FILE: ObjectId = ObjectId(3);

fn object(kind: Kind, handle: u8, entries: &[(&[u8], ObjectId)]) -> Object {
    let meta = Meta {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        atime: Time::default(),
        size: 0,
        device: (0, 0),
        flags: 0,
        link: Vec::new(),
        xattrs: Xattrs::new(),
    };
    let stamp = Stamp { handle: Box::new([handle]), ctime: Time::default(), unsure: false, unlisted: false };
    let entries = entries.iter().map(|(name, id)| ((*name).into(), *id)).collect();
    Object { meta, content: Content::default(), entries, stamp }
}

/// `d/f` and an empty `e`.
fn base() -> Index {
    let mut base = Index::empty(crate::base::Id([1; 16]));
    base.objects.insert(ObjectId::ROOT, object(Kind::Dir, 1, &[(b"d", DIR), (b"e", ObjectId(4))]));
    base.objects.insert(DIR, object(Kind::Dir, 2, &[(b"f", FILE)]));
    base.objects.insert(FILE, object(Kind::File, 3, &[]));
    base.objects.insert(ObjectId(4), object(Kind::Dir, 4, &[]));
    base.next = 5;
    base
}

fn path(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: path(from), to: path(to) }
}

fn make(at: &str, kind: Kind) -> Change {
    Change::Make { path: path(at), kind }
}

fn number(id: ObjectId) -> ObjectId {
    number_of(&[id.0 as u8])
}

#[test]
fn paths_are_those_of_their_moment() {
    let base = base();
    let mut replay = Replay::new(&base);
    let range = 5..9;
    for change in [
        // Both directories exchange names, by way of the root.
        rename("e", "o4-1-0"),
        rename("d", "e"),
        rename("o4-1-0", "d"),
        Change::Data { path: path("e/f"), range: range.clone() },
        make("o9-1-0", Kind::File),
        rename("o9-1-0", "d/new"),
        Change::Data { path: path("d/new"), range: 0..1 },
        Change::Link { path: path("d/g"), of: path("e/f") },
        Change::Unlink { path: path("e/f") },
        Change::Truncate { path: path("d/g"), size: 7 },
    ] {
        replay.add(&change).expect("played");
    }
    let place = |dir, name: &str| (dir, name.as_bytes().into());
    let expected = BTreeMap::from([
        (place(ObjectId::ROOT, "d"), Some(ObjectId(4))),
        (place(ObjectId::ROOT, "e"), Some(DIR)),
        (place(DIR, "f"), None),
        (place(ObjectId(4), "g"), Some(FILE)),
        (place(ObjectId(4), "new"), Some(ObjectId(5))),
    ]);
    assert_eq!(replay.renamed(), expected);
    let state = replay.into_state();
    assert_eq!(state.files.keys().copied().collect::<Vec<_>>(), [number(FILE)], "what is new has no record");
    let file = &state.files[&number(FILE)];
    assert_eq!((file.limit, file.ranges.iter().next(), file.ranges.count()), (7, Some(5..7), 1));
    assert!(state.names.contains(&(number(DIR), path("f"))));
    assert!(state.names.contains(&(number(ObjectId(4)), path("new"))));
}

#[test]
fn a_path_that_is_not_there_belongs_to_another_snapshot() {
    let base = base();
    for change in [
        rename("x", "y"),
        rename("d", "x/y"),
        Change::Unlink { path: path("d/x") },
        Change::Link { path: path("l"), of: path("x") },
        Change::Data { path: path("d/f/x"), range: 0..1 },
        Change::Meta { path: path("x"), mask: 1 },
        make("x/y", Kind::Dir),
    ] {
        let error = Replay::new(&base).add(&change).expect_err("not there");
        assert!(error.class == Class::Damaged && error.message.contains("not in the snapshot"), "{error}");
    }
}

#[test]
fn a_stream_that_is_not_of_two_snapshots_is_refused() {
    use crate::fslog::sent::{Raw, encode};
    let base = base();
    let attributes: &[(u16, &[u8])] = &[(15, b"s")];
    let play = |commands: &[Raw<'_>]| {
        let bytes = encode(1, commands);
        let mut sent = Sent::new("x", &bytes[..]).expect("stream");
        Replay::new(&base).play(&mut sent, || Ok(()))
    };
    play(&[(2, attributes), (21, &[])]).expect("of two");
    assert!(play(&[(1, attributes), (21, &[])]).is_err(), "a whole subvolume");
    assert!(play(&[(11, &[(15, b"d/f")]), (21, &[])]).is_err(), "no beginning");
    assert!(play(&[(2, attributes), (2, attributes), (21, &[])]).is_err(), "two of them");
}
