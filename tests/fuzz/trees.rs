//! What stands in the files of `cfor-log`: dumps, indexes, logs. Used by the fuzzer, and by the tests that frame such
//! bytes anew.

use mirror::base::Id;
use mirror::capture::apply::Plan;
use mirror::fslog::dump::finish;
use mirror::fslog::meta::{Time, Xattrs};
use mirror::fslog::record::{Identity, Mapping};
use mirror::fslog::{
    FrameWriter, Header, Index, Kind, Magic, Meta, ObjectId, Part, Record, Round, State, listing, logfile,
};

/// Reads a dump twice: for people, and against the empty tree.
pub fn dump_stream(bytes: &[u8]) {
    let _ = listing::list("fuzz", bytes);
    let _ = Plan::read("fuzz", bytes, &Index::empty(Id::NONE));
}

/// Reads a log, folds it, and writes it again.
pub fn log_file(bytes: &[u8]) {
    let Ok(log) = logfile::decode("fuzz", bytes) else { return };
    let again = logfile::whole(&log.header, 1, &log.state, true);
    let again = logfile::decode("fuzz", &again).expect("what was written reads back");
    assert_eq!(again.state, log.state);
    let _ = mirror::fslog::derive::of_log(&log.state);
}

/// Reads an index; what is believed can be hashed and written again.
pub fn index(bytes: &[u8]) {
    let Ok(index) = Index::read("fuzz", bytes) else { return };
    let again = index.write("fuzz", Vec::new()).expect("write");
    assert_eq!(Index::read("fuzz", &again[..]).expect("what was written reads back"), index);
    let _ = mirror::fslog::merkle::Hashes::of(&index);
    let _ = mirror::fslog::derive::between(&Index::empty(index.tree), &index);
}

fn meta(kind: Kind, size: u64) -> Meta {
    Meta {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Time { seconds: 3, nanos: 4 },
        atime: Time::default(),
        size,
        device: (0, 0),
        flags: 0,
        link: Vec::new(),
        xattrs: Xattrs::from([(b"user.a".to_vec(), b"b".to_vec())]),
    }
}

fn header(magic: Magic) -> Header {
    Header { magic, options: 0, tree: Id([1; 16]), base: Round::default(), round: 1, time: 5 }
}

/// A dump with a part of each kind.
pub fn a_dump() -> Vec<u8> {
    let mut to = FrameWriter::new("seed", Vec::new(), &header(Magic::Dump)).expect("header");
    let (root, dir, file) = (ObjectId::ROOT, ObjectId(2), ObjectId(3));
    let parts = [
        Part::New { id: root, meta: Box::new(meta(Kind::Dir, 0)) },
        Part::New { id: dir, meta: Box::new(meta(Kind::Dir, 0)) },
        Part::New { id: file, meta: Box::new(meta(Kind::File, 5)) },
        Part::Hint { id: file, path: b"d/f" },
        Part::Data { id: file, offset: 0, bytes: b"bytes" },
        Part::Limit { id: file, at: 5 },
        Part::Name { dir: root, name: b"d", id: dir },
        Part::Name { dir, name: b"f", id: file },
        Part::Name { dir, name: b"g", id: file },
        Part::Unname { dir, name: b"h", id: file },
        Part::Gone { id: ObjectId(9) },
    ];
    for part in parts {
        part.write(&mut to).expect("part");
    }
    finish(to, mirror::fslog::Digest([7; 32]), 10).expect("finish")
}

/// An index with a directory in a directory, a hard link and a large file.
pub fn an_index() -> Vec<u8> {
    let mut index = Index::empty(Id([1; 16]));
    let object = |meta| mirror::fslog::Object {
        meta,
        content: mirror::fslog::Content::default(),
        entries: mirror::fslog::index::Entries::new(),
        stamp: mirror::fslog::Stamp::default(),
    };
    let (dir, file) = (ObjectId(2), ObjectId(3));
    let mut root = object(meta(Kind::Dir, 0));
    root.entries.insert(b"d"[..].into(), dir);
    let mut below = object(meta(Kind::Dir, 0));
    below.entries.extend([(b"f"[..].into(), file), (b"g"[..].into(), file)]);
    let mut last = object(meta(Kind::File, 300_000));
    last.content.push(1, mirror::fslog::Digest([3; 32]));
    index.objects.extend([(ObjectId::ROOT, root), (dir, below), (file, last)]);
    index.next = 4;
    index.seal().expect("seal");
    index.write("seed", Vec::new()).expect("write")
}

/// A log with a record of each kind.
pub fn a_log() -> Vec<u8> {
    let id = ObjectId(3);
    let mut state = State::default();
    for record in [
        Record::Ino { id, identity: Identity { kind: Kind::File, handle: vec![1; 12], hint: b"f".to_vec() } },
        Record::Name { dir: ObjectId::ROOT, name: b"f".to_vec() },
        Record::Data { id, range: 5..900 },
        Record::Limit { id, at: 700 },
        Record::Map { id, mapping: Mapping { range: (0, 4096), serial: 2 }, live: true },
        Record::Meta { id, mask: 5 },
        Record::Tree { dir: ObjectId(8) },
    ] {
        state.add(&record);
    }
    logfile::whole(&header(Magic::Log), 4, &state, true)
}
