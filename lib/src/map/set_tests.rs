use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(u64),
    InsertRange(Range<u64>),
    RemoveRange(Range<u64>),
    Union(Vec<u64>),
    Clear,
}

fn op(blocks: u64) -> impl Strategy<Value = Op> {
    let range = (0..=blocks, 0..=blocks).prop_map(|(a, b)| a.min(b)..a.max(b));
    prop_oneof![
        8 => (0..blocks).prop_map(Op::Insert),
        4 => (0..blocks).prop_map(Op::Remove),
        4 => range.clone().prop_map(Op::InsertRange),
        4 => range.prop_map(Op::RemoveRange),
        1 => prop::collection::vec(0..blocks, 0..40).prop_map(Op::Union),
        1 => Just(Op::Clear),
    ]
}

fn set_of(blocks: u64, members: &[u64]) -> BlockSet {
    let mut set = BlockSet::new(blocks);
    for b in members {
        set.insert(*b);
    }
    set
}

fn apply(set: &mut BlockSet, model: &mut BTreeSet<u64>, op: Op) {
    let before = model.len() as u64;
    let blocks = set.blocks();
    let grown = |model: &BTreeSet<u64>| model.len() as u64 - before;
    let shrunk = |model: &BTreeSet<u64>| before - model.len() as u64;
    match op {
        Op::Insert(b) => assert_eq!(set.insert(b), model.insert(b)),
        Op::Remove(b) => assert_eq!(set.remove(b), model.remove(&b)),
        Op::InsertRange(r) => {
            model.extend(r.clone());
            assert_eq!(set.insert_range(r), grown(model));
        }
        Op::RemoveRange(r) => {
            model.retain(|b| !r.contains(b));
            assert_eq!(set.remove_range(r), shrunk(model));
        }
        Op::Union(v) => {
            model.extend(&v);
            assert_eq!(set.union_with(&set_of(blocks, &v)), grown(model));
        }
        Op::Clear => {
            model.clear();
            set.clear();
        }
    }
}

fn check(set: &BlockSet, model: &BTreeSet<u64>, from: u64, max: u64) {
    assert_eq!(set.count(), model.len() as u64);
    assert!(set.iter().eq(model.iter().copied()));
    let next = model.range(from..).next().copied();
    assert_eq!(set.next_set(from), next);
    assert_eq!(set.next_clear(from), (from..set.blocks()).find(|b| !model.contains(b)));
    let run = next.map(|start| {
        let end = (start..start + max).take_while(|b| model.contains(b)).last().expect("start") + 1;
        start..end
    });
    assert_eq!(set.next_run(from, max), run);
    assert_eq!(set.any_in(from..from + max), model.range(from..from + max).next().is_some());
    assert!(set.runs(max).flatten().eq(model.iter().copied()));
    assert_eq!(set.bits().count_ones() as u64, set.count());
    assert_eq!(&BlockSet::from_words(set.words().to_vec(), set.blocks()), set);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_block_set_behaves_like_a_set(
        (blocks, ops) in (1u64..400).prop_flat_map(|n| (Just(n), prop::collection::vec(op(n), 1..60))),
        from in 0u64..420,
        max in 1u64..200,
    ) {
        let mut set = BlockSet::new(blocks);
        let mut model = BTreeSet::new();
        for op in ops {
            apply(&mut set, &mut model, op);
            check(&set, &model, from, max);
        }
        set.grow(blocks + 100);
        check(&set, &model, from, max);
    }
}

#[test]
fn a_full_set_has_no_bits_beyond_the_volume() {
    for blocks in [0, 1, 63, 64, 65, 128, 1000] {
        let set = BlockSet::full(blocks);
        assert!(set.is_full());
        assert_eq!(set.iter().count() as u64, blocks);
        assert_eq!(set, BlockSet::from_words(vec![u64::MAX; set.words().len() + 1], blocks));
        assert!(!set.contains(blocks));
    }
}

#[test]
fn bytes_count_a_short_last_block_as_it_is() {
    let block = BlockSize::DEFAULT;
    let size = 2 * 65536 + 100;
    let mut set = BlockSet::new(block.count(size));
    assert_eq!(set.bytes(size, block), 0);
    set.insert(0);
    assert_eq!(set.bytes(size, block), 65536);
    set.insert(2);
    assert_eq!(set.bytes(size, block), 65536 + 100);
    assert_eq!(BlockSet::full(3).bytes(size, block), size);
    assert_eq!(BlockSet::full(2).bytes(2 * 65536, block), 2 * 65536);
}

#[test]
fn a_set_of_2_to_the_28_blocks_is_searched_by_words() {
    let blocks = 1 << 28;
    let mut set = BlockSet::new(blocks);
    assert_eq!(set.next_set(0), None);
    assert!(set.insert(blocks - 1));
    assert_eq!(set.next_run(0, 10), Some(blocks - 1..blocks));
    assert_eq!(set.union_with(&BlockSet::full(blocks)), blocks - 1);
    assert_eq!(set.next_run(5, u64::MAX), Some(5..blocks));
}
