use super::*;
use crate::fslog::meta::Kind;
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    let id = || (1u64..4).prop_map(ObjectId);
    let range = || (0u64..40, 1u64..12).prop_map(|(at, len)| at..at + len);
    prop_oneof![
        8 => (id(), range()).prop_map(|(id, range)| Record::Data { id, range }),
        3 => (id(), 0u64..50).prop_map(|(id, at)| Record::Limit { id, at }),
        1 => (id(), 1u32..8).prop_map(|(id, why)| Record::All { id, why }),
        2 => (id(), range(), 0u64..3, any::<bool>()).prop_map(|(id, range, serial, live)| {
            Record::Map { id, mapping: Mapping { range: (range.start, range.end), serial }, live }
        }),
        2 => (id(), 1u32..64).prop_map(|(id, mask)| Record::Meta { id, mask }),
        2 => (id(), "[ab]").prop_map(|(dir, name)| Record::Name { dir, name: name.into_bytes() }),
        1 => id().prop_map(|dir| Record::Tree { dir }),
        1 => Just(Record::Lost { why: Lost::Overflow }),
        1 => (id(), "[xy]").prop_map(|(id, hint)| {
            let identity = Identity { kind: Kind::File, handle: vec![1], hint: hint.into_bytes() };
            Record::Ino { id, identity }
        }),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 0..30)
}

fn fold(records: &[Record]) -> State {
    let mut state = State::default();
    for record in records {
        state.add(record);
    }
    state
}

fn join(a: &State, b: &State) -> State {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

proptest! {
    #[test]
    fn joining_is_commutative_associative_and_idempotent(a in records(), b in records(), c in records()) {
        let (a, b, c) = (fold(&a), fold(&b), fold(&c));
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&a, &State::default()), a);
    }

    #[test]
    fn merging_two_logs_equals_recording_them_in_one_go(a in records(), b in records()) {
        let both: Vec<_> = a.iter().chain(&b).cloned().collect();
        prop_assert_eq!(join(&fold(&a), &fold(&b)), fold(&both));
    }

    #[test]
    fn order_and_repetition_do_not_matter(list in records().prop_flat_map(|list| {
        (Just(list.clone()), Just(list).prop_shuffle())
    })) {
        let (list, mut shuffled) = list;
        shuffled.extend(list.iter().take(5).cloned());
        prop_assert_eq!(fold(&list), fold(&shuffled));
    }

    #[test]
    fn a_state_is_the_records_it_is_written_as(list in records()) {
        let state = fold(&list);
        prop_assert_eq!(fold(&state.records()), state);
    }

    #[test]
    fn records_read_back_as_they_were_packed(record in record()) {
        let (kind, pack) = record.pack();
        prop_assert_eq!(Record::unpack("x", kind, &pack.0).expect("unpack"), record);
        if let Some((_, short)) = pack.0.split_last() {
            prop_assert!(Record::unpack("x", kind, short).is_err());
        }
    }
}

#[test]
fn what_is_past_a_limit_is_dirty_for_good() {
    let id = ObjectId(2);
    let state = fold(&[
        Record::Data { id, range: 0..10 },
        Record::Data { id, range: 20..30 },
        Record::Limit { id, at: 25 },
        Record::Data { id, range: 22..90 },
    ]);
    let file = &state.files[&id];
    assert_eq!(file.limit, 25);
    assert_eq!(file.dirty().iter().collect::<Vec<_>>(), [0..10, 20..25]);
}

#[test]
fn a_live_mapping_goes_on_into_the_next_generation() {
    let id = ObjectId(2);
    let mapping = |serial| Mapping { range: (0, 4096), serial };
    let state = fold(&[
        Record::Map { id, mapping: mapping(1), live: true },
        Record::Map { id, mapping: mapping(2), live: true },
        Record::Map { id, mapping: mapping(2), live: false },
        Record::Data { id, range: 9000..9001 },
    ]);
    let next = state.inherited();
    assert_eq!(next.records(), [Record::Map { id, mapping: mapping(1), live: true }]);
    assert!(State::default().inherited().is_clean());
}

#[test]
fn a_log_is_bounded_by_its_inodes() {
    let id = ObjectId(2);
    let mut state = State::default();
    for at in 0..3 * crate::base::limits::FSLOG_RANGES as u64 {
        state.add(&Record::Data { id, range: at * 10..at * 10 + 1 });
    }
    let ranges = &state.files[&id].ranges;
    assert!(ranges.count() <= crate::base::limits::FSLOG_RANGES, "{}", ranges.count());
    assert!(ranges.bytes() >= 3 * crate::base::limits::FSLOG_RANGES as u64);
}
