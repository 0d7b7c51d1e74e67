use super::*;
use crate::config::VolumeConfig;
use crate::control::StateDir;
use crate::leg::LegSpec;
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
    let opened = state::open(dir, legs).expect("open");
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
    let opened = state::open(&volume, &legs).expect("open");
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
    assert_eq!(starts[1].1.len() as u64, NEW, "block 3, and the new area without the block that was cleared");
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
        assert_eq!(state::open(&volume, &legs).expect_err(text).class, Class::Damaged);
    }
    let other = Growth { from: 1, ..growth(&volume) };
    announce(&volume, &Growth { to: 2, ..other }).expect("announce");
    assert_eq!(state::open(&volume, &legs).expect_err("of another size").class, Class::Damaged);
}
