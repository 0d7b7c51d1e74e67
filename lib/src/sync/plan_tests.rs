use super::*;
use proptest::prelude::*;

fn facts(name: &str) -> Facts {
    Facts {
        name: name.into(),
        size: 100,
        identity: Some(name.into()),
        read_only: false,
        in_use: None,
        live: false,
        flushes: true,
        zeroes: true,
        tells_zeroes: true,
        hashes: false,
        takes_files: false,
        align: 1,
        request_max: 1 << 20,
        lanes: 1,
    }
}

#[test]
fn what_must_not_be_begun_is_refused_before_the_first_byte() {
    type Change = fn(&mut Facts, &mut Facts, &mut Permit);
    let table: [(Change, Option<&str>); 15] = [
        (|_, _, _| (), None),
        (|s, t, _| t.identity.clone_from(&s.identity), Some("same device")),
        (|s, t, _| (s.identity, t.identity) = (None, None), None),
        (|_, t, _| t.identity = Some("a@1".into()), Some("on the same storage as a")),
        (|s, t, _| (s.identity, t.identity) = (Some("d@1".into()), Some("d@2".into())), None),
        (|_, t, p| (t.in_use, p.mounted) = (Some(OPEN_ELSEWHERE.into()), true), Some("open for writing")),
        (|_, t, p| (t.in_use, p.busy) = (Some(OPEN_ELSEWHERE.into()), true), None),
        (|_, t, _| t.in_use = Some("mounted on /srv".into()), Some("mounted on /srv")),
        (|_, t, p| (t.in_use, p.mounted) = (Some("mounted".into()), true), None),
        (|_, t, _| t.read_only = true, Some("read-only")),
        (|_, t, _| t.size = 99, Some("it has 99 bytes, 100 are needed")),
        (|_, t, _| t.size = 101, None),
        (|_, t, _| t.flushes = false, Some("cannot be flushed")),
        (|s, _, _| (s.in_use, s.live) = (Some("mounted on /".into()), true), Some("may change meanwhile")),
        (|s, _, p| (s.in_use, s.live, p.live) = (Some("mounted".into()), true, true), None),
    ];
    for (at, (change, why)) in table.iter().enumerate() {
        let (mut source, mut target, mut permit) = (facts("a"), facts("b"), Permit::default());
        change(&mut source, &mut target, &mut permit);
        match (check(Some(&source), &target, 100, permit), why) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) => {
                assert_eq!(error.class, Class::Refused, "{at}");
                assert!(error.message.contains(why), "{at}: {error}");
            }
            (found, _) => panic!("case {at}: {found:?}"),
        }
    }
}

#[test]
fn zeroes_are_cut_out_of_data_where_it_is_worth_it() {
    let mut data = vec![0; 256 << 10];
    assert_eq!(segments(&data, Zeroes::Detect, 1), [(0..256 << 10, true)]);
    assert_eq!(segments(&data, Zeroes::Trust, 1), [(0..256 << 10, false)]);
    data[0] = 1;
    data[100 << 10] = 1;
    let found = segments(&data, Zeroes::Detect, 1);
    let model = [(0..4 << 10, false), (4 << 10..100 << 10, true), (100 << 10..104 << 10, false)];
    assert_eq!(found[..3], model);
    assert_eq!(found[3], (104 << 10..256 << 10, true));
    assert_eq!(
        segments(&data, Zeroes::Detect, 65536)[0],
        (0..131_072, false),
        "aligned as the server wants it"
    );
    // A short hole in the middle, and a short piece of zeroes that is all there is.
    assert_eq!(
        segments(&[&[1; 4096][..], &[0; 4096], &[1; 4096]].concat(), Zeroes::Detect, 1),
        [(0..12288, false)]
    );
    assert_eq!(segments(&[0; 100], Zeroes::Detect, 1), [(0..100, true)]);
}

proptest! {
    #[test]
    fn segments_cover_everything_and_what_is_called_zero_is(
        pieces in prop::collection::vec((1usize..90_000, any::<bool>()), 1..8),
    ) {
        let data: Vec<u8> =
            pieces.iter().flat_map(|(len, zero)| std::iter::repeat_n(u8::from(!zero), *len)).collect();
        let cut = segments(&data, Zeroes::Detect, 1);
        prop_assert_eq!(cut.first().map(|(range, _)| range.start), Some(0));
        prop_assert_eq!(cut.last().map(|(range, _)| range.end), Some(data.len()));
        prop_assert!(cut.windows(2).all(|pair| pair[0].0.end == pair[1].0.start && pair[0].1 != pair[1].1));
        for (range, zero) in cut.iter().filter(|(_, zero)| *zero) {
            prop_assert!(data[range.clone()].iter().all(|byte| *byte == 0), "{zero}");
        }
    }

    #[test]
    fn zeroes_that_are_cut_out_show_in_a_sample(
        pieces in prop::collection::vec((1usize..70_000, any::<bool>()), 1..8),
        offset in 0u64..9,
    ) {
        let data: Vec<u8> =
            pieces.iter().flat_map(|(len, zero)| std::iter::repeat_n(u8::from(!zero), *len)).collect();
        let range = ByteRange { offset: offset * 512, len: data.len() as u64 };
        let seen = samples(range).any(|at| {
            let at = (at - range.offset) as usize;
            is_zero(&data[at..data.len().min(at + 64)])
        });
        for align in [1, 4096, 65536] {
            let cut = segments(&data, Zeroes::Detect, align).iter().any(|(_, zero)| *zero);
            prop_assert!(seen || !cut);
        }
    }

    #[test]
    fn differences_are_those_of_a_naive_model(
        mut a in prop::collection::vec(0u8..2, 1..300),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        block in 1usize..64,
    ) {
        let b = a.clone();
        for flip in flips {
            let at = flip.index(a.len());
            a[at] ^= 1;
        }
        let found = differences(&a, &b, block);
        prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
        for at in 0..a.len() {
            let first = at / block * block;
            let end = (first + block).min(a.len());
            prop_assert_eq!(found.iter().any(|run| run.contains(&at)), a[first..end] != b[first..end]);
        }
    }

    #[test]
    fn a_plan_goes_over_every_marked_byte_once(
        size in 1u64..(3 << 20),
        marks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let block = BlockSize::DEFAULT;
        let blocks = block.count(size);
        let mut only = BlockSet::new(blocks);
        for mark in &marks {
            only.insert(mark.index(blocks as usize) as u64);
        }
        let plan =
            Plan { size, block, method: Method::Copy, only: Some(only.clone()), zeroes: Zeroes::Detect };
        let (mut at, mut bytes) = (0, 0);
        while let Some(range) = plan.next(at) {
            prop_assert!(range.offset >= at && range.end() <= size && range.len > 0);
            prop_assert!(block.cover(&range).all(|block| only.contains(block)));
            // It may be taken in parts.
            let part = (range.len / 2).max(1);
            bytes += part;
            at = range.offset + part;
        }
        prop_assert_eq!(bytes, plan.bytes());
    }
}
