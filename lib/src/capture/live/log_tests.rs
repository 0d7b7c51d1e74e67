use super::*;
use crate::fslog::Kind;
use crate::fslog::record::Identity;

/// What a recorder writes of a file that was made.
fn made(name: &[u8]) -> Vec<Record> {
    let ino = |kind, handle: &[u8], hint: &[u8]| {
        let identity = Identity { kind, handle: handle.to_vec(), hint: hint.to_vec() };
        Record::Ino { id: number_of(handle), identity }
    };
    let (dir, file) = (number_of(b"dir"), number_of(b"file"));
    vec![
        ino(Kind::Dir, b"dir", b""),
        ino(Kind::File, b"file", name),
        Record::Meta { id: file, mask: METADATA },
        Record::Name { dir, name: name.to_vec() },
    ]
}

#[test]
fn a_live_log_holds_everything_once_and_knows_its_gaps() {
    let dir = tempfile::tempdir().expect("dir");
    let write = |log: &mut Log, name: &[u8]| log.add(&made(name)).expect("add");
    let mut log = Log::open(dir.path(), 3, true).expect("log");
    write(&mut log, b"a");
    let once = log.bytes;
    write(&mut log, b"a");
    assert_eq!(log.bytes, once, "what is known is not written again");
    log.close().expect("close");
    let since = |from, to| since(dir.path(), from, to);
    assert!(since(3, 4).expect_err("it began late").contains("nobody recorded"));
    let mut log = Log::open(dir.path(), 4, false).expect("log");
    write(&mut log, b"b");
    log.close().expect("close");
    assert!(since(4, 5).is_err(), "no log of round 5");
    let mut last = Log::open(dir.path(), 5, false).expect("log");
    assert_eq!(since(4, 5).expect("whole").names.len(), 1);
    write(&mut last, b"c");
    assert_eq!(since(4, 5).expect("a dump that is tried again").names.len(), 2);
    drop(Log::open(dir.path(), 6, false).expect("log"));
    assert!(since(4, 6).expect_err("5 is open").contains("did not close"));
    assert!(since(0, 5).is_err(), "no round");
    // One that died, and was started again.
    Log::open(dir.path(), 6, true).expect("log").close().expect("close");
    assert!(since(6, 6).is_err());
}
