use super::*;
use crate::fslog::meta::tests::file;

/// An object of a kind.
pub(crate) fn object(kind: Kind) -> Object {
    let mut meta = Meta { kind, ..file(0) };
    if kind == Kind::Symlink {
        (meta.mode, meta.link) = (0, b"to".to_vec());
    }
    Object { meta, content: Content::default(), entries: Entries::new(), stamp: Stamp::default() }
}

/// A tree of these objects; entries are given as (directory, name, object).
pub(crate) fn tree(objects: &[(u64, Kind)], entries: &[(u64, &str, u64)]) -> Index {
    let mut index = Index { next: 100, ..Index::empty(Id([7; 16])) };
    index.round.number = 1;
    for (id, kind) in objects {
        index.objects.insert(ObjectId(*id), object(*kind));
    }
    for (dir, name, id) in entries {
        let dir = index.objects.get_mut(&ObjectId(*dir)).expect("directory");
        dir.entries.insert(name.as_bytes().into(), ObjectId(*id));
    }
    index
}

#[test]
fn an_index_reads_back_as_it_was_written() {
    let mut index = tree(
        &[(1, Kind::Dir), (2, Kind::Dir), (3, Kind::File), (4, Kind::Symlink)],
        &[(1, "d", 2), (2, "f", 3), (1, "also", 3), (1, "s", 4)],
    );
    let file = index.objects.get_mut(&ObjectId(3)).expect("file");
    file.meta.size = 3 << 20;
    file.content.push(1, Digest([1; 32]));
    file.content.push(20, Digest([2; 32]));
    file.stamp =
        Stamp { handle: [1, 2].into(), ctime: Time { seconds: 9, nanos: 8 }, unsure: true, unlisted: false };
    index.seal().expect("root");
    let bytes = index.write("x", Vec::new()).expect("write");
    assert_eq!(Index::read("x", &bytes[..]).expect("read"), index);
    for cut in [0, 100, 192, 200, bytes.len() - 40, bytes.len() - 1] {
        assert_eq!(Index::read("x", &bytes[..cut]).expect_err("cut").class, Class::Damaged, "{cut}");
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(Index::read("x", &bad[..]).is_err(), "byte {at}");
    }
    let more = [&bytes[..], b"x"].concat();
    assert!(Index::read("x", &more[..]).is_err());
}

#[test]
fn what_is_no_tree_is_refused() {
    let dir = [(1, Kind::Dir), (2, Kind::Dir), (3, Kind::Dir), (4, Kind::File)];
    for (why, objects, entries) in [
        ("a directory with two names", &dir[..2], &[(1, "a", 2), (1, "b", 2)][..]),
        ("a cycle beside the root", &dir[..3], &[(2, "a", 3), (3, "b", 2)]),
        ("the root beneath itself", &dir[..2], &[(1, "a", 2), (2, "b", 1)]),
        ("a name that leads out", &dir[..2], &[(1, "..", 2)]),
        ("a name with a slash", &dir[..2], &[(1, "a/b", 2)]),
        ("an object that is not there", &dir[..1], &[(1, "a", 2)]),
        ("an object without a name", &dir[..2], &[]),
        (
            "entries of a file",
            &[(1, Kind::Dir), (4, Kind::File), (5, Kind::File)],
            &[(1, "a", 4), (4, "b", 5)],
        ),
        ("a root that is a file", &[(1, Kind::File)], &[]),
    ] {
        assert!(tree(objects, entries).check("x").is_err(), "{why}");
    }
    tree(&dir, &[(1, "a", 2), (2, "a", 3), (3, "a", 4), (1, "b", 4)]).check("x").expect("a tree");
}

#[test]
fn paths_are_told_from_the_root() {
    let index = tree(&[(1, Kind::Dir), (2, Kind::Dir), (3, Kind::File)], &[(1, "a", 2), (2, "b", 3)]);
    let names = index.names();
    assert_eq!(names.path(ObjectId(3)), b"a/b");
    assert_eq!(names.path(ObjectId::ROOT), b".");
    assert_eq!(names.entry(ObjectId::ROOT, b"x"), b"x");
}
