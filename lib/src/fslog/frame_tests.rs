use super::*;
use crate::fslog::logfile;

fn round() -> Header {
    let (tree, base) = (Id([7; 16]), Round::default());
    Header { magic: Magic::Dump, options: 0, tree, base, round: 1, time: 0 }
}

#[test]
fn what_is_short_is_empty_or_cut_or_foreign() {
    let foreign = |name: &str| format!("x: checking its magic: found something else, expected {name}");
    let early = || "x: reading it: it ends early".to_owned();
    let whole = round().encode();
    let other = Header { magic: Magic::Index, ..round() }.encode();
    let sent = crate::fslog::sent::MAGIC;
    let index = || "x: checking its magic: found an index, expected a dump".to_owned();
    let table: [(&[u8], Magic, String); 15] = [
        (b"", Magic::Dump, "x: reading it: it is empty".to_owned()),
        (b"", Magic::Log, "x: reading it: it is empty".to_owned()),
        (b"hello", Magic::Dump, foreign("a dump")),
        (b"hello", Magic::Index, foreign("an index")),
        (b"hello", Magic::Log, foreign("a log")),
        (&[b'x'; 191], Magic::Dump, foreign("a dump")),
        (&[b'x'; 192], Magic::Dump, foreign("a dump")),
        (b"M", Magic::Dump, early()),
        (&whole[..8], Magic::Dump, early()),
        (&whole[..191], Magic::Dump, early()),
        (&other[..4], Magic::Dump, early()),
        (&other[..8], Magic::Dump, index()),
        (&other[..191], Magic::Dump, index()),
        (&sent[..9], Magic::Dump, early()),
        (&sent[..9], Magic::Index, foreign("an index")),
    ];
    for (bytes, magic, expected) in table {
        let shown = bytes.escape_ascii();
        let error = Header::read("x", magic, &mut &*bytes).expect_err("short");
        assert_eq!((error.class, &error.message), (Class::Damaged, &expected), "{shown}");
        let error = FrameReader::new("x", magic, bytes).expect_err("short");
        assert_eq!(error.message, expected, "frames: {shown}");
        if magic == Magic::Log {
            assert_eq!(logfile::decode("x", bytes).expect_err("short").message, expected, "a log: {shown}");
        }
    }
    assert_eq!(Header::read("x", Magic::Dump, &mut &whole[..]).expect("whole"), round());
}
