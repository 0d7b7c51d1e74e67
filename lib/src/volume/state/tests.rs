use super::*;
use crate::base::{Class, Name};
use crate::config::VolumeConfig;
use crate::control::StateDir;
use crate::leg::LegSpec;
use crate::volume::core::LegStart;
use crate::volume::{CreateOptions, Trust, create};

const SIZE: u64 = 10 << 20;
const SYNC: LegRecord =
    LegRecord { in_sync: true, inconsistent: false, detached: false, failed: false, gone: false };
const OUT: LegRecord = LegRecord { in_sync: false, ..SYNC };
const TARGET: LegRecord = LegRecord { inconsistent: true, ..OUT };

struct Home {
    dir: tempfile::TempDir,
    options: CreateOptions,
}

fn home(legs: &[&str], trust: Trust) -> Home {
    let dir = tempfile::tempdir().expect("dir");
    let specs = legs.iter().map(|leg| {
        let path = dir.path().join(format!("{leg}.img"));
        std::fs::File::create(&path).expect("file").set_len(SIZE).expect("size");
        format!("{leg}={}", path.display()).parse::<LegSpec>().expect("leg")
    });
    let options = CreateOptions {
        state_dir: StateDir::new(dir.path().join("state")),
        name: "v".parse().expect("name"),
        size: Some(SIZE),
        like: None,
        config: VolumeConfig::new(specs.collect()),
        trust,
        dry_run: false,
    };
    Home { dir, options }
}

impl Home {
    fn open(&self) -> super::open::Opened {
        open(&self.options.volume_dir(), &self.options.config.legs).expect("open")
    }

    /// Opens, makes these states durable one after the other, and ends as a crash does, or cleanly.
    fn run(&self, states: &[(&[LegRecord], bool)], clean: bool) -> Vec<LegStart> {
        let opened = self.open();
        let records = Mutex::new(opened.records);
        for (wanted, mint) in states {
            write(&records, &opened.maps, wanted, *mint).expect("persist");
            write(&records, &opened.maps, wanted, *mint).expect("persist again");
        }
        if clean {
            for map in opened.maps {
                map.close_clean().expect("close");
            }
        }
        opened.starts
    }
}

/// Makes a state durable whose legs are in the order of the records.
fn write(records: &Mutex<Records>, maps: &[MapHandle], wanted: &[LegRecord], mint: bool) -> Result<()> {
    let ids: Vec<Id> = lock(records).records.iter().map(|record| record.leg).collect();
    let wanted: Vec<_> = ids.into_iter().zip(wanted.iter().copied()).collect();
    persist(records, maps, &wanted, mint)
}

fn states(starts: &[LegStart]) -> Vec<LegRecord> {
    starts.iter().map(|start| start.record).collect()
}

#[test]
fn a_new_volume_opens_as_it_was_made() {
    let from = home(&["a", "b"], Trust::From("a".parse().expect("name")));
    let report = create(&from.options).expect("create");
    assert_eq!((report.size, report.legs[1].dirty), (SIZE, SIZE));
    let starts = from.run(&[], true);
    assert_eq!(states(&starts), [SYNC, TARGET]);
    assert_eq!((starts[0].marks.count(), starts[1].marks.count()), (0, SIZE >> 16));
    assert!(starts.iter().all(|start| start.clean));

    let again = create(&from.options).expect_err("exists");
    assert_eq!(again.class, Class::Refused);
    let equal = home(&["a", "b"], Trust::KnownEqual);
    create(&equal.options).expect("create");
    assert_eq!(states(&equal.run(&[], true)), [SYNC, SYNC]);
}

#[test]
fn legs_leave_come_back_and_every_state_survives_a_crash() {
    let home = home(&["a", "b", "c"], Trust::KnownZero);
    create(&home.options).expect("create");
    let detached = LegRecord { detached: true, ..OUT };
    home.run(&[(&[SYNC, SYNC, detached], true)], false);
    let starts = home.run(&[(&[SYNC, OUT, TARGET], true)], false);
    assert_eq!(states(&starts), [SYNC, SYNC, detached]);
    assert!(!starts[0].clean, "it was not closed");
    assert!(starts.iter().all(|start| start.marks.count() == 0), "same boot: the maps are believed");
    let starts = home.run(&[(&[SYNC, TARGET, SYNC], false), (&[SYNC, SYNC, SYNC], false)], true);
    assert_eq!(states(&starts), [SYNC, OUT, TARGET]);
    let opened = home.open();
    assert_eq!(states(&opened.starts), [SYNC, SYNC, SYNC]);
    assert!(opened.starts.iter().all(|start| start.clean));
    let generations: Vec<Id> = opened.records.records.iter().map(|record| record.current.id).collect();
    assert!(generations.iter().all(|id| *id == generations[0] && !id.is_none()));
    let owed =
        opened.records.records.iter().any(|record| record.peers.iter().any(|peer| !peer.base.is_empty()));
    assert!(!owed, "everybody is in sync");
}

#[test]
fn a_leg_that_is_left_behind_sees_a_new_generation_and_the_maps_follow() {
    let home = home(&["a", "b"], Trust::KnownEqual);
    create(&home.options).expect("create");
    let opened = home.open();
    let before = opened.records.generation();
    let records = Mutex::new(opened.records);
    write(&records, &opened.maps, &[OUT, SYNC], true).expect("persist");
    let after = records.lock().expect("lock").generation();
    assert_ne!(before, after);
    opened.maps[0].mark(3..5);
    let records = records.into_inner().expect("records");
    assert!(records.records[1].base_of(records.records[0].leg).contains(&before));
    assert!(records.records[1].flags.contains(Flags::PRIMARY));
    assert!(!records.records[0].flags.contains(Flags::PRIMARY));
    drop((records, opened.maps, opened.lock));
    let opened = home.open();
    assert_eq!(opened.starts[0].marks.iter().collect::<Vec<_>>(), [3, 4]);
    assert_eq!(opened.widened, 0);
}

#[test]
fn a_lost_map_counts_as_all_dirty_and_a_second_daemon_is_refused() {
    let home = home(&["a", "b"], Trust::KnownEqual);
    create(&home.options).expect("create");
    let name: Name = "b".parse().expect("name");
    std::fs::remove_file(home.options.volume_dir().map(&name)).expect("remove");
    let opened = home.open();
    assert_eq!((opened.widened, opened.starts[1].marks.count()), (SIZE, SIZE >> 16));
    assert!(!opened.starts[1].clean && opened.notes[0].contains("widened by 10485760 bytes"));
    let second = open(&home.options.volume_dir(), &home.options.config.legs).expect_err("locked");
    assert_eq!(second.class, Class::Busy);
}

#[test]
fn create_refuses_before_it_changes_anything() {
    let too_small = home(&["a", "b"], Trust::KnownEqual);
    let mut options = too_small.options.clone();
    options.size = Some(SIZE + 1);
    let error = create(&options).expect_err("small");
    assert_eq!(error.class, Class::Refused);
    assert!(error.message.contains("10485760") && error.message.contains("10485761"), "{error}");
    let twice = home(&["a"], Trust::KnownEqual);
    let mut options = twice.options.clone();
    let link = twice.dir.path().join("link");
    std::os::unix::fs::symlink(twice.dir.path().join("a.img"), &link).expect("link");
    options.config.legs.push(format!("b={}", link.display()).parse().expect("leg"));
    let error = create(&options).expect_err("twice");
    assert!(error.message.contains("legs a and b are the same file"), "{error}");
    assert!(!options.volume_dir().path().exists(), "nothing is left behind");
}

#[test]
fn somebody_is_in_sync_at_every_instant_also_when_the_set_changes_hands_in_one_state() {
    let home = home(&["a", "b"], Trust::From("a".parse().expect("name")));
    create(&home.options).expect("create");
    let starts = home.run(&[(&[SYNC, TARGET], false), (&[OUT, SYNC], true)], false);
    assert_eq!(states(&starts), [SYNC, TARGET]);
    let opened = home.open();
    assert_eq!(states(&opened.starts), [OUT, SYNC]);
    assert!(opened.records.reference().is_some());
}
