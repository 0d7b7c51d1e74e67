use super::*;
use crate::config::VolumeConfig;
use crate::control::StateDir;
use crate::leg::LegSpec;
use crate::map::Durability;
use crate::volume::core::LegRecord;
use crate::volume::{CreateOptions, Trust, create, state};

const SIZE: u64 = (10 << 20) + 1000;
const GROWN: u64 = 12 << 20;
const FIRST: u64 = SIZE >> 16;
const NEW: u64 = (GROWN >> 16) - FIRST;

fn volume(dir: &tempfile::TempDir) -> (VolumeDir, Vec<LegSpec>) {
    let legs: Vec<LegSpec> = ["a", "b"]
        .map(|name| {
            let path = dir.path().join(format!("{name}.img"));
            std::fs::File::create(&path).expect("file").set_len(GROWN).expect("size");
            format!("{name}={}", path.display()).parse().expect("leg")
        })
        .into();
    let options = CreateOptions {
        state_dir: StateDir::new(dir.path().join("state")),
        name: "v".parse().expect("name"),
        size: Some(SIZE),
        like: None,
        config: VolumeConfig::new(legs.clone()),
        trust: Trust::KnownEqual,
        dry_run: false,
    };
    create(&options).expect("create");
    (options.volume_dir(), legs)
}

fn growth(dir: &VolumeDir) -> Growth {
    Growth::new(dir.name(), SIZE, GROWN, &"a".parse().expect("name")).expect("growth")
}

/// What a start finds: the size, and of each leg its record and its marks.
fn start(dir: &VolumeDir, legs: &[LegSpec]) -> (u64, Vec<(LegRecord, Vec<u64>)>) {
    let opened = state::open(dir, legs, Durability::Process).expect("open");
    let starts = opened.starts.iter().map(|start| (start.record, start.marks.iter().collect()));
    (opened.size, starts.collect())
}

#[test]
fn done_a_growth_that_is_interrupted_at_any_step_is_resumed_by_the_next_start() {
    // Steps 2 to 5 of `go_on` in its order, and an end after each; 6 is none.
    for (kill, steps) in [(3, 0), (2, 1), (4, 2), (5, 3), (6, 4)] {
        let dir = tempfile::tempdir().expect("dir");
        let (volume, legs) = volume(&dir);
        announce(&volume, &growth(&volume)).expect("announce");
        {
            let mut records = Records::open(&volume, legs.iter().map(|leg| &leg.name)).expect("records");
            let mut count = 0;
            let mut at = |step: u32| {
                count += 1;
                if step == kill { Err(Error::new(Class::Internal, "killed")) } else { Ok(()) }
            };
            let result = go_on(&volume, &mut records, &growth(&volume), &mut at);
            assert_eq!((result.is_ok(), count), (kill == 6, (steps + 1).min(4)));
        }
        for _ in 0..2 {
            let (size, starts) = start(&volume, &legs);
            assert_eq!(size, GROWN, "killed at {kill}");
            assert!(starts[0].0.in_sync && starts[0].1.is_empty(), "killed at {kill}: {starts:?}");
            assert!(!starts[1].0.in_sync && starts[1].0.inconsistent, "killed at {kill}");
            let new: Vec<u64> = (FIRST..GROWN >> 16).collect();
            assert_eq!(starts[1].1, new, "killed at {kill}: the block at the old end too");
            assert!(!volume.resize().exists());
        }
    }
}

#[test]
fn a_growth_while_the_maps_are_in_use_keeps_every_mark_and_can_be_done_again() {
    let dir = tempfile::tempdir().expect("dir");
    let (volume, legs) = volume(&dir);
    let opened = state::open(&volume, &legs, Durability::Process).expect("open");
    let maps: Vec<_> = opened.maps.iter().cloned().zip([true, false]).collect();
    maps[0].0.mark(FIRST - 1..FIRST + 1);
    announce(&volume, &growth(&volume)).expect("announce");
    for _ in 0..2 {
        grow_maps(&volume, &maps, &growth(&volume), opened.block).expect("grow");
    }
    maps[1].0.mark(3..4);
    maps[1].0.clear(FIRST..FIRST + 1);
    drop((opened, maps));
    let (size, starts) = start(&volume, &legs);
    assert_eq!(size, GROWN);
    assert_eq!(starts[0].1, [FIRST - 1, FIRST], "marks of the source at the old end stay");
    // Nobody knows whether it was cleared for its old part or for all of it.
    assert_eq!(
        starts[1].1.len() as u64,
        NEW + 1,
        "block 3, and the new area with the block that was cleared"
    );
}

/// A start that had to take another source found maps that were long enough, and left them as they were: nothing said
/// that the first source misses the new area. Found by the simulator.
#[test]
fn a_start_that_takes_another_source_marks_the_new_area_on_the_first_one_and_in_trackers() {
    let dir = tempfile::tempdir().expect("dir");
    let (volume, legs) = volume(&dir);
    {
        let opened = state::open(&volume, &legs, Durability::Process).expect("open");
        let maps: Vec<_> = opened.maps.iter().cloned().zip([true, false]).collect();
        announce(&volume, &growth(&volume)).expect("announce");
        grow_maps(&volume, &maps, &growth(&volume), opened.block).expect("grow");
        // It was copied to, and its cache may lose it.
        maps[1].0.mark(FIRST + 2..FIRST + 3);
    }
    let names = legs.iter().map(|leg| &leg.name);
    let mut records = Records::open(&volume, names.clone()).expect("records");
    let mut from = records.records[1].clone();
    records.change(0, |record| change::begin_resync(&mut from, record)).expect("a leaves");
    let mut target = records.records[0].clone();
    records.change(1, |record| change::begin_resync(record, &mut target)).expect("b knows");
    drop(records);
    let (size, starts) = start(&volume, &legs);
    assert_eq!(size, GROWN);
    let new: Vec<u64> = (FIRST..GROWN >> 16).collect();
    assert_eq!(starts[0].1, new, "missing on the first source");
    assert!(starts[1].0.in_sync && starts[1].1.contains(&(FIRST + 2)), "{starts:?}");
}

/// A tracker's confirmation while the volume grew ended the daemon: the map had its new length, the core did not.
#[test]
fn a_map_that_is_longer_than_a_set_keeps_what_the_set_does_not_know() {
    let dir = tempfile::tempdir().expect("dir");
    let (volume, legs) = volume(&dir);
    let opened = state::open(&volume, &legs, Durability::Process).expect("open");
    let maps: Vec<_> = opened.maps.iter().cloned().zip([true, false]).collect();
    grow_maps(&volume, &maps, &growth(&volume), opened.block).expect("grow");
    maps[1].0.mark(5..6);
    let old = FIRST + 1;
    let mut set = crate::map::BlockSet::new(old);
    set.insert(7);
    maps[1].0.store(&set);
    drop((opened, maps));
    let map = MapFile::open(&volume.map(&legs[1].name)).expect("map");
    let marks: Vec<u64> = map.load().iter().collect();
    let expected: Vec<u64> = std::iter::once(7).chain(old..GROWN >> 16).collect();
    assert_eq!(marks, expected);
}

#[test]
fn what_is_no_growth_is_refused_and_damage_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let (volume, legs) = volume(&dir);
    let name = "a".parse().expect("name");
    let error = Growth::new(volume.name(), SIZE, SIZE - 1, &name).expect_err("shrinks");
    assert!(error.class == Class::Refused && error.hint.is_some(), "{error}");
    assert_eq!(Growth::new(volume.name(), SIZE, 1 << 61, &name).expect_err("huge").class, Class::Usage);
    let legs_of =
        |sizes: [u64; 2]| [("a".parse().expect("a"), sizes[0]), ("b".parse().expect("b"), sizes[1])];
    assert_eq!(fitting(volume.name(), 5, None, &legs_of([9, 7])).expect("smallest"), 7);
    assert_eq!(fitting(volume.name(), 5, Some(6), &legs_of([9, 7])).expect("asked"), 6);
    assert_eq!(fitting(volume.name(), 8, None, &legs_of([9, 7])).expect_err("small").class, Class::Refused);
    for text in ["", "{}", "{\"schema\":\"x\",\"from\":1,\"to\":2,\"source\":\"a\"}"] {
        std::fs::write(volume.resize(), text).expect("write");
        assert_eq!(state::open(&volume, &legs, Durability::Process).expect_err(text).class, Class::Damaged);
    }
    let other = Growth { from: 1, ..growth(&volume) };
    announce(&volume, &Growth { to: 2, ..other }).expect("announce");
    assert_eq!(
        state::open(&volume, &legs, Durability::Process).expect_err("of another size").class,
        Class::Damaged
    );
}
