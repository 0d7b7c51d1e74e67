use super::*;
use crate::map::BlockSet;
use crate::sync::end::Opening;
use crate::sync::ends::FileEnd;
use crate::sync::plan::{Method, Zeroes};
use proptest::prelude::*;
use std::os::unix::fs::FileExt as _;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn work_covers_the_plan_once_in_order_and_zeroes_are_zeroes(
        size in 1u64..(6 << 20),
        writes in prop::collection::vec((any::<prop::sample::Index>(), 1u64..200_000), 0..6),
        marks in prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 0..12)),
        step in prop::sample::select(vec![1u64, 65536, 100_000, 1 << 20]),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        let file = std::fs::File::create(&path).expect("image");
        file.set_len(size).expect("size");
        for (at, len) in writes {
            let at = at.index(size as usize) as u64;
            file.write_all_at(&vec![1; len.min(size - at) as usize], at).expect("write");
        }
        let bytes = std::fs::read(&path).expect("read");
        let opening = Opening { write: false, mounted: false, live: false, connections: 1, depth: 1 };
        let source = FileEnd::open(&path, opening).expect("open");
        let block = BlockSize::DEFAULT;
        let only = marks.map(|marks| {
            let mut set = BlockSet::new(block.count(size));
            for at in &marks {
                set.insert(at.index(set.blocks() as usize) as u64);
            }
            set
        });
        let plan = Plan { size, block, method: Method::Copy, only: only.clone(), zeroes: Zeroes::Detect };
        let mut feed = Feed::new(&plan, &source, step, 1 << 20);
        let (mut last, mut total, mut number) = (0, 0, 0);
        while let Some(work) = feed.take().expect("work") {
            prop_assert!(work.range.offset >= last && work.range.len > 0);
            prop_assert_eq!(work.number, number);
            prop_assert_eq!(work.range.offset % block.bytes(), 0);
            prop_assert!(work.range.end() == size || work.range.end() % block.bytes() == 0);
            let here = &bytes[work.range.offset as usize..work.range.end() as usize];
            prop_assert!(!work.zero || here.iter().all(|byte| *byte == 0));
            if let Some(only) = &only {
                prop_assert!(block.cover(&work.range).all(|block| only.contains(block)));
            }
            (last, total, number) = (work.range.end(), total + work.range.len, number + 1);
        }
        prop_assert_eq!(total, plan.bytes());
    }
}

#[test]
fn a_stream_longer_than_the_target_is_an_error_and_a_short_read_is_not_its_end() {
    struct Drip(Vec<u8>);
    impl Read for Drip {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let len = 3.min(buf.len()).min(self.0.len());
            buf[..len].copy_from_slice(&self.0[..len]);
            self.0.drain(..len);
            Ok(len)
        }
    }
    let mut stream = Stream::new(Box::new(Drip((0..10).collect())), "x", 4, 100);
    let (mut buf, mut all) = (Vec::new(), Vec::new());
    while let Some(work) = stream.take(&mut buf).expect("work") {
        assert_eq!(work.range.offset, all.len() as u64);
        all.extend_from_slice(&buf);
    }
    assert_eq!(all, (0..10).collect::<Vec<u8>>());
    let mut stream = Stream::new(Box::new(Drip(vec![0; 10])), "x", 4, 9);
    let mut error = None;
    while error.is_none() {
        error = stream.take(&mut buf).err();
    }
    assert_eq!(error.map(|error| error.class), Some(Class::Io));
}
