use super::*;
use crate::map::stream::{Tally, each_chunk, each_run, load};
use crate::map::{BlockSet, RangeSource, Ranges};
use proptest::prelude::*;

/// Bytes that the model has a bit for.
const UNIT: u64 = 512;

fn id(n: u8) -> Id {
    Id([n; 16])
}

fn header(size: u64, block: BlockSize) -> Header {
    Header::new(Identity { volume: id(1), leg: Id::NONE, size, block }, id(2))
}

/// A map with these blocks dirty, by their order from the first to the last.
fn map(size: u64, block: BlockSize, dirty: &[bool]) -> Boxed {
    let mut ranges = Ranges::default();
    for (at, _) in dirty.iter().enumerate().take(block.count(size) as usize).filter(|(_, dirty)| **dirty) {
        ranges.push(block.range(&(at as u64..at as u64 + 1), size)).expect("few");
    }
    Box::new(RangeSource::new("m", header(size, block), ranges.into_sorted()).expect("inside"))
}

/// Whether each unit of a volume is dirty.
fn units(source: &mut dyn Source) -> Vec<bool> {
    let Identity { size, block, .. } = source.header().identity;
    let set = load(source).expect("load");
    (0..size.div_ceil(UNIT)).map(|unit| set.contains(unit * UNIT / block.bytes())).collect()
}

/// The blocks of a map that is dirty wherever the model is.
fn blocks_of(units: &[bool], size: u64, block: BlockSize) -> Vec<bool> {
    let each = (block.bytes() / UNIT) as usize;
    assert_eq!(units.len() as u64, size.div_ceil(UNIT));
    units.chunks(each).map(|units| units.contains(&true)).collect()
}

fn blocks(source: &mut dyn Source) -> Vec<bool> {
    let set = load(source).expect("load");
    (0..set.blocks()).map(|block| set.contains(block)).collect()
}

fn block_size() -> impl Strategy<Value = BlockSize> {
    (12u32..=17).prop_map(|shift| BlockSize::new(1 << shift).expect("block"))
}

/// Long runs and single blocks alike.
fn dirt() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec((any::<bool>(), 1usize..90), 0..60)
        .prop_map(|runs| runs.into_iter().flat_map(|(dirty, len)| std::iter::repeat_n(dirty, len)).collect())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![Just(Op::Or), Just(Op::And), Just(Op::Sub), Just(Op::Xor)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn combining_is_exact_until_the_result_grows(
        op in op(),
        inputs in prop::collection::vec((block_size(), dirt()), 1..5),
        sectors in 1u64..20_000,
        to in prop::option::of(block_size()),
    ) {
        let size = sectors * UNIT;
        let parts = || inputs.iter().map(|(block, dirty)| map(size, *block, dirty));
        let mut model: Option<Vec<bool>> = None;
        for mut part in parts() {
            let part = units(&mut part);
            model = Some(match model {
                None => part,
                Some(model) => model.into_iter().zip(part).map(|(a, b)| match op {
                    Op::Or => a || b,
                    Op::And => a && b,
                    Op::Sub => a && !b,
                    Op::Xor => a ^ b,
                }).collect(),
            });
        }
        let coarsest = inputs.iter().map(|(block, _)| *block).max().expect("one");
        let block = to.unwrap_or(coarsest);
        let mut found = combine(op, parts().collect(), to, Force::default()).expect("combine");
        prop_assert_eq!(found.header(), &header(size, block));
        // In smaller blocks than the finest input the model is exact as well.
        prop_assert_eq!(blocks(&mut found), blocks_of(&model.expect("one"), size, block));
    }

    #[test]
    fn inverting_twice_is_the_same_and_once_is_all_the_rest(
        block in block_size(), dirty in dirt(), sectors in 1u64..20_000,
    ) {
        let size = sectors * UNIT;
        let plain = blocks(&mut map(size, block, &dirty));
        let once = blocks(&mut invert(map(size, block, &dirty)));
        prop_assert!(plain.iter().zip(&once).all(|(a, b)| a != b));
        prop_assert_eq!(blocks(&mut invert(invert(map(size, block, &dirty)))), plain);
    }

    #[test]
    fn shifting_and_resizing_move_marks_outwards_and_lose_none_silently(
        block in block_size(),
        dirty in dirt(),
        sectors in 1u64..20_000,
        by in -9_000i64..9_000,
        new in prop::option::of(1u64..30_000),
        cut in any::<bool>(),
        aligned in any::<bool>(),
    ) {
        let by = if aligned { by / 256 * 256 } else { by };
        let size = sectors * UNIT;
        let force = Force { cut, ..Force::default() };
        let old = units(&mut map(size, block, &dirty));
        let moved = old.iter().enumerate().filter(|(_, d)| **d).map(|(at, _)| at as u64).map(|at| at.cast_signed() + by);
        let done = shift(map(size, block, &dirty), by * 512, new.map(|n| n * UNIT), force);
        let new_size = new.unwrap_or(0).cast_signed().max(if new.is_some() { 0 } else { sectors.cast_signed() + by });
        if new_size <= 0 {
            prop_assert!(done.is_err());
            return Ok(());
        }
        let mut done = done.expect("shift");
        let mut model = vec![false; new_size.cast_unsigned() as usize];
        let mut lost = false;
        for at in moved {
            match usize::try_from(at).ok().filter(|at| *at < model.len()) {
                Some(at) => model[at] = true,
                None => lost = true,
            }
        }
        if lost && !cut {
            let mut all = |_: &[u64], _| Ok(());
            prop_assert_eq!(each_chunk(&mut done, &mut all).expect_err("lost").class, Class::Refused);
        } else {
            let (is, must) = (blocks(&mut done), blocks_of(&model, new_size.cast_unsigned() * UNIT, block));
            // Cut off inside a block: what is left of the block may still be marked.
            let widened = lost && is.iter().zip(&must).all(|(is, must)| *is || !must);
            prop_assert!(is == must || widened && is.len() == must.len());
        }

        let new = new.unwrap_or(sectors);
        let mut model = old;
        let lost = model.iter().skip(new as usize).any(|dirty| *dirty);
        model.resize(new as usize, true);
        let mut done = resize(map(size, block, &dirty), new * UNIT, force).expect("resize");
        if lost && !cut {
            let mut all = |_: &[u64], _| Ok(());
            prop_assert_eq!(each_chunk(&mut done, &mut all).expect_err("lost").class, Class::Refused);
        } else {
            prop_assert_eq!(blocks(&mut done), blocks_of(&model, new * UNIT, block));
        }
    }

    #[test]
    fn runs_and_ranges_are_those_of_the_set(block in block_size(), dirty in dirt(), sectors in 1u64..20_000) {
        let size = sectors * UNIT;
        let set = load(&mut map(size, block, &dirty)).expect("load");
        let (mut runs, mut tally) = (Vec::new(), Tally::default());
        each_run(&mut map(size, block, &dirty), &mut |run| {
            tally.add(&run, size, block);
            runs.push(run);
            Ok(())
        }).expect("runs");
        prop_assert!(set.runs(u64::MAX).eq(runs.iter().cloned()));
        prop_assert_eq!((tally.bytes, tally.blocks), (set.bytes(size, block), set.count()));
    }
}

#[test]
fn maps_larger_than_a_piece_are_the_same_as_small_ones() {
    let block = BlockSize::new(4096).expect("block");
    let size = (CHUNK as u64 * 64 * 2 + 777) * 4096 - 100;
    let set = |from: u64, to: u64| {
        let ranges = vec![block.range(&(from..to), size)];
        Box::new(RangeSource::new("m", header(size, block), ranges).expect("inside")) as Boxed
    };
    let edge = CHUNK as u64 * 64;
    let all = block.count(size);
    let count = |mut source: Boxed| {
        let set = load(&mut source).expect("load");
        set.runs(u64::MAX).map(|run| (run.start, run.end)).collect::<Vec<_>>()
    };
    let ahead = |source| Box::new(crate::map::ahead::Ahead::new(source)) as Boxed;
    assert_eq!(count(ahead(set(edge - 3, all))), [(edge - 3, all)]);
    drop(ahead(set(0, all)));
    let (a, b) = (|| set(edge - 3, 2 * edge + 5), || set(edge + 1, all));
    let force = Force { cut: true, ..Force::default() };
    let combined = |op| combine(op, vec![a(), b()], None, Force::default()).expect("combine");
    assert_eq!(count(combined(Op::Or)), [(edge - 3, all)]);
    assert_eq!(count(combined(Op::And)), [(edge + 1, 2 * edge + 5)]);
    assert_eq!(count(combined(Op::Sub)), [(edge - 3, edge + 1)]);
    assert_eq!(count(invert(a())), [(0, edge - 3), (2 * edge + 5, all)]);
    let moved = |by| shift(a(), by, Some(size), force).expect("shift");
    assert_eq!(count(moved(-4096)), [(edge - 4, 2 * edge + 4)]);
    assert_eq!(count(moved(100)), [(edge - 3, 2 * edge + 6)]);
    let coarse = rescale(a(), BlockSize::DEFAULT).expect("grow");
    assert_eq!(count(coarse), [((edge - 3) / 16, (2 * edge + 5).div_ceil(16))]);
    let back = rescale(rescale(a(), BlockSize::DEFAULT).expect("grow"), block).expect("split");
    assert_eq!(count(back), [((edge - 3) / 16 * 16, (2 * edge + 5).div_ceil(16) * 16)]);
}

#[test]
fn maps_that_do_not_belong_together_are_refused_with_both_values() {
    let make = |volume, generation, size| {
        let identity = Identity { volume, leg: Id::NONE, size, block: BlockSize::DEFAULT };
        Box::new(RangeSource::new("m", Header::new(identity, generation), Vec::new()).expect("map")) as Boxed
    };
    let both =
        |a: Boxed, b: Boxed, force| combine(Op::Or, vec![a, b], None, force).map(|m| m.header().clone());
    let none = Force::default();
    let base = || make(id(1), id(2), 1 << 20);
    for (other, force, words) in [
        (make(id(3), id(2), 1 << 20), Force { volume: true, ..none }, [id(1).to_string(), id(3).to_string()]),
        (
            make(id(1), id(3), 1 << 20),
            Force { generation: true, ..none },
            [id(2).to_string(), id(3).to_string()],
        ),
        (make(id(1), id(2), 1 << 21), Force { size: true, ..none }, ["1048576".into(), "2097152".into()]),
    ] {
        let identity = other.header().clone();
        let error = both(base(), other, none).expect_err("refused");
        assert!(error.class == Class::Damaged && words.iter().all(|w| error.message.contains(w)), "{error}");
        let again = make(identity.identity.volume, identity.generation, identity.identity.size);
        both(base(), again, force).expect("forced");
    }
    let header = both(base(), make(Id::NONE, Id::NONE, 1 << 20), none).expect("made by hand");
    assert_eq!((header.identity.volume, header.generation), (id(1), id(2)));
    assert_eq!(BlockSet::new(16), load(&mut base()).expect("load"));
}
