use super::*;
use crate::control::StateDir;
use crate::volume::core::LegRecord;
use crate::volume::state::{self, Records};
use crate::volume::{CreateOptions, Trust, create};

const SIZE: u64 = 10 << 20;

struct Home {
    dir: tempfile::TempDir,
    volume: VolumeDir,
}

impl Home {
    fn new(legs: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let specs: Vec<LegSpec> = legs.iter().map(|leg| image(&dir, leg)).collect();
        let options = CreateOptions {
            state_dir: StateDir::new(dir.path().join("state")),
            name: "v".parse().expect("name"),
            size: Some(SIZE),
            like: None,
            config: VolumeConfig::new(specs),
            trust: Trust::KnownEqual,
            dry_run: false,
        };
        create(&options).expect("create");
        Self { volume: options.volume_dir(), dir }
    }

    fn leg(&self, name: &str) -> LegSpec {
        image(&self.dir, name)
    }

    fn records(&self) -> Records {
        let config = stored(&self.volume).expect("config");
        Records::open(&self.volume, config.legs.iter().map(|leg| &leg.name)).expect("records")
    }

    /// What a start finds: the members, their records, and how many blocks of each are marked.
    fn start(&self) -> Vec<(String, LegRecord, u64)> {
        let config = stored(&self.volume).expect("config");
        let opened = state::open(&self.volume, &config.legs, state::durability(&config)).expect("open");
        let found = config.legs.iter().zip(&opened.starts);
        let found = found.map(|(leg, start)| (leg.name.to_string(), start.record, start.marks.count()));
        let found = found.collect();
        for map in opened.maps {
            map.close_clean().expect("close");
        }
        found
    }
}

fn image(dir: &tempfile::TempDir, name: &str) -> LegSpec {
    let path = dir.path().join(format!("{name}.img"));
    if !path.exists() {
        std::fs::File::create(&path).expect("file").set_len(SIZE).expect("size");
    }
    format!("{name}={}", path.display()).parse().expect("leg")
}

/// Ends a procedure before this step, as a kill does.
fn killed_at(wanted: u32) -> impl FnMut(u32) -> Result<()> {
    move |step| if step == wanted { Err(Error::new(Class::Internal, "killed")) } else { Ok(()) }
}

fn names(start: &[(String, LegRecord, u64)]) -> Vec<&str> {
    start.iter().map(|(name, ..)| name.as_str()).collect()
}

#[test]
fn done_an_addition_killed_at_any_step_leaves_a_member_that_misses_everything_or_none() {
    for step in 1..=6 {
        let home = Home::new(&["a", "b"]);
        let new = home.leg("c");
        let result = enlist(&home.volume, &mut home.records(), &new, &mut killed_at(step)).map(|_| ());
        assert_eq!(result.is_ok(), step == 6, "step {step}");
        let start = home.start();
        let good = |at: usize| start[at].1.in_sync && start[at].2 == 0;
        assert!(good(0) && good(1), "step {step}: {start:?}");
        if step == 6 {
            let (name, record, marks) = &start[2];
            assert_eq!((name.as_str(), *marks), ("c", SIZE >> 16));
            assert!(record.inconsistent && !record.in_sync, "{record:?}");
            continue;
        }
        assert_eq!(names(&start), ["a", "b"], "step {step}");
        // Asked for again, it succeeds, and nothing of the first time is left in the records.
        enlist(&home.volume, &mut home.records(), &new, &mut through).expect("again");
        assert_eq!(names(&home.start()), ["a", "b", "c"], "step {step}");
        let records = home.records();
        assert!(records.records.iter().all(|record| record.peers.len() <= 2), "step {step}");
    }
}

#[test]
fn done_a_removal_killed_at_any_step_leaves_a_member_or_none_and_can_be_asked_for_again() {
    for step in 1..=4 {
        let home = Home::new(&["a", "b", "c"]);
        let name: Name = "c".parse().expect("name");
        let result = dismiss(&home.volume, &mut home.records(), &name, &mut killed_at(step));
        assert_eq!(result.is_ok(), step == 4);
        let start = home.start();
        let left: &[&str] = if step == 1 { &["a", "b", "c"] } else { &["a", "b"] };
        assert_eq!(names(&start), left, "step {step}");
        assert!(start.iter().all(|(_, record, marks)| record.in_sync && *marks == 0), "step {step}");
        if step == 1 {
            dismiss(&home.volume, &mut home.records(), &name, &mut through).expect("again");
        }
        // Its name is free, and its device is as it was.
        enlist(&home.volume, &mut home.records(), &home.leg("c"), &mut through).expect("added again");
        let start = home.start();
        assert_eq!((names(&start), start[2].2), (vec!["a", "b", "c"], SIZE >> 16), "step {step}");
    }
}

#[test]
fn done_a_reset_killed_at_any_step_never_leaves_a_leg_that_is_half_believed() {
    for step in 1..=3 {
        let home = Home::new(&["a", "b"]);
        let result = reset(&home.volume, &mut home.records(), 1, &mut killed_at(step));
        assert_eq!(result.is_ok(), step == 3);
        let start = home.start();
        let (record, marks) = (start[1].1, start[1].2);
        let (believed, all) = (record.in_sync && marks == 0, marks == SIZE >> 16);
        assert!(if step == 1 { believed } else { all }, "step {step}: {start:?}");
        assert!(start[0].1.in_sync && start[0].2 == 0, "step {step}: {start:?}");
    }
}

#[test]
fn a_leg_is_added_and_removed_forty_times_and_the_records_do_not_fill_up() {
    let home = Home::new(&["a"]);
    for _ in 0..40 {
        enlist(&home.volume, &mut home.records(), &home.leg("b"), &mut through).expect("add");
        dismiss(&home.volume, &mut home.records(), &"b".parse().expect("name"), &mut through)
            .expect("remove");
    }
    assert!(home.records().records[0].peers.is_empty());
}

#[test]
fn settings_are_laid_over_a_leg_and_what_is_fixed_is_refused() {
    let leg: LegSpec = "a=/x,read=avoid,rate=5".parse().expect("leg");
    let set = |pairs: &[&str]| set_over(&leg, &pairs.iter().map(ToString::to_string).collect::<Vec<_>>());
    let changed = set(&["device=nbd://h/e,x", "timeout=2s", "rate=auto"]).expect("set");
    assert_eq!(changed.to_string(), "a=nbd://h/e,,x,read=avoid,timeout=2000ms");
    for (pair, why) in [
        ("flush=unsafe", "fixed when a leg is added"),
        ("name=b", "fixed when"),
        ("colour=red", "unknown key"),
        ("rate=0", "rate=0"),
        ("read", "not key=value"),
    ] {
        let error = set(&[pair]).expect_err(pair);
        assert!(error.class == Class::Usage && error.message.contains(why), "{error}");
    }
}

#[test]
fn a_leg_leaves_for_a_file_only_while_enough_others_are_in_sync() {
    let (volume, leg): (Name, Name) = ("v".parse().expect("name"), "b".parse().expect("name"));
    // In sync, how many others are, the floor: what is said.
    for (good, others, min_legs, why) in [
        (true, 1, 1, None),
        (true, 2, 2, None),
        (false, 0, 1, None),
        (false, 1, 2, None),
        (true, 0, 0, Some("leg b is the last good copy")),
        (true, 0, 2, Some("leg b is the last good copy")),
        (true, 1, 2, Some("without leg b 1 would be in sync, min-legs is 2")),
    ] {
        let said = may_leave(&volume, &leg, good, others, min_legs);
        assert_eq!(said.as_ref().err().map(|e| e.message.as_str()), why, "{good} {others} {min_legs}");
        assert!(said.err().is_none_or(|e| e.hint.is_some()));
    }
}
