use super::{FileEnd, NullEnd};
use crate::base::{ByteRange, Class};
use crate::sync::end::{End, Opening, Piece};
use std::path::Path;

fn opening(write: bool) -> Opening {
    Opening { write, mounted: false, live: false, connections: 1, depth: 4 }
}

fn open(path: &Path, write: bool) -> FileEnd {
    FileEnd::open(path, opening(write)).expect("open")
}

#[test]
fn a_file_reads_writes_zeroes_tells_its_holes_and_digests_itself() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("f");
    std::fs::File::create(&path).and_then(|file| file.set_len(10 << 20)).expect("image");
    let end = open(&path, true);
    assert_eq!((end.facts().size, end.facts().lanes), (10 << 20, 4));
    end.write(1 << 20, &vec![7; 1 << 20]).expect("write");
    end.zero(ByteRange { offset: 1 << 20, len: 4096 }, true).expect("zero");
    end.flush().expect("flush");
    let mut buf = vec![9; 8192];
    end.read(1 << 20, &mut buf).expect("read");
    assert_eq!(buf, [[0; 4096], [7; 4096]].concat());

    let mut pieces = Vec::new();
    let whole = ByteRange { offset: 0, len: 10 << 20 };
    end.extents(whole, &mut pieces).expect("extents");
    let data: Vec<Piece> = pieces.iter().copied().filter(|piece| !piece.zero).collect();
    let first = ByteRange { offset: (1 << 20) + 4096, len: (1 << 20) - 4096 };
    assert!(data.iter().any(|piece| piece.range.contains(&first)), "{pieces:?}");
    assert!(pieces.windows(2).all(|pair| pair[0].range.end() == pair[1].range.offset));
    assert_eq!(pieces.last().map(|piece| piece.range.end()), Some(10 << 20));

    let mut digests = Vec::new();
    end.digests(whole, 3 << 20, &mut digests).expect("digests");
    let bytes = std::fs::read(&path).expect("bytes");
    let model: Vec<_> = bytes.chunks(3 << 20).map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    assert_eq!(digests, model);
}

#[test]
fn two_writers_of_one_file_are_one_too_many_and_two_names_of_it_are_one() {
    let dir = tempfile::tempdir().expect("dir");
    let (path, other) = (dir.path().join("f"), dir.path().join("g"));
    std::fs::write(&path, "x").expect("image");
    std::fs::hard_link(&path, &other).expect("link");
    let held = open(&path, true);
    assert_eq!(FileEnd::open(&other, opening(true)).expect_err("second").class, Class::Busy);
    let error = FileEnd::open(&other, opening(false)).expect_err("written to");
    assert_eq!((error.class, error.hint.as_deref()), (Class::Busy, Some("the same with --live")));
    let live = FileEnd::open(&other, Opening { live: true, ..opening(false) }).expect("live");
    assert!(live.facts().live && live.facts().identity == held.facts().identity);
}

#[test]
fn what_is_missing_or_no_device_is_told_apart() {
    let dir = tempfile::tempdir().expect("dir");
    assert_eq!(FileEnd::open(&dir.path().join("none"), opening(true)).expect_err("none").class, Class::Io);
    assert_eq!(FileEnd::open(dir.path(), opening(false)).expect_err("directory").class, Class::Usage);
    assert!(!dir.path().join("none").exists(), "nothing is created");
    assert_eq!(NullEnd::new(1).read(0, &mut vec![0; 1]).expect_err("empty").class, Class::Internal);
}

#[test]
fn an_error_of_one_range_says_nothing_about_the_others() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("f");
    std::fs::write(&path, [0; 512]).expect("image");
    let end = open(&path, false);
    let error = end.write(0, &[1; 512]).expect_err("opened to read");
    assert_eq!(error.class, Class::Io);
    assert!(error.message.contains("writing 0+512"), "{error}");
    assert!(end.gone().is_none(), "one range says nothing about the others");
}
