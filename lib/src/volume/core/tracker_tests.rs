use super::super::tests::{BLOCK, Rig};
use super::super::{Answer, Ask, Command, Event, LegRecord};
use super::*;

fn ask(rig: &mut Rig, ask: TrackerAsk) -> Result<(), &'static str> {
    rig.step(Event::Command { id: 9, command: Command::Tracker { tracker: 1, ask } });
    let at = rig.out.iter().position(|action| matches!(action, Action::Answer { .. })).expect("an answer");
    let Action::Answer { result, .. } = rig.out.remove(at) else { unreachable!() };
    result
}

/// Two good legs and tracker 1.
fn tracked() -> Rig {
    let mut rig = Rig::pair();
    ask(&mut rig, TrackerAsk::Add).expect("add");
    rig.out.clear();
    rig
}

fn marks(rig: &Rig) -> Vec<u64> {
    rig.core.tracker_marks(1).iter().collect()
}

fn taken(rig: &Rig) -> Option<Vec<u64>> {
    rig.core.tracker_sets(1).and_then(|(_, taken)| taken).map(|taken| taken.iter().collect())
}

fn finish_write(rig: &mut Rig) {
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
}

#[test]
fn a_write_marks_the_tracker_before_any_leg_is_written() {
    let mut rig = tracked();
    rig.write(3);
    let at = |what: fn(&Action) -> bool| rig.out.iter().position(what).expect("there");
    assert!(
        at(|a| *a == Action::TrackerMark { tracker: 1, blocks: 3..4 })
            < at(|a| matches!(a, Action::Write { .. }))
    );
    finish_write(&mut rig);
    rig.out.clear();
    rig.ask(Ask::Zero { fua: false, no_hole: false, fast: false }, 3);
    rig.ask(Ask::Zero { fua: false, no_hole: true, fast: false }, 5);
    let marked: Vec<_> = rig.out.iter().filter(|a| matches!(a, Action::TrackerMark { .. })).collect();
    assert_eq!(marked, [&Action::TrackerMark { tracker: 1, blocks: 5..6 }], "3 stands on disk already");
    assert_eq!(marks(&rig), [3, 5]);
}

#[test]
fn a_rotation_leaves_writes_in_flight_in_both() {
    let mut rig = tracked();
    rig.write(3);
    finish_write(&mut rig);
    rig.write(7);
    rig.write(7);
    ask(&mut rig, TrackerAsk::Take).expect("take");
    assert_eq!(taken(&rig), Some(vec![3, 7]));
    rig.write(9);
    ask(&mut rig, TrackerAsk::Confirm).expect("confirm");
    assert_eq!(marks(&rig), [7, 9], "7 was in flight, and the second write to it waited");
    assert_eq!(rig.out.last(), Some(&Action::TrackerTidy { tracker: 1 }));
}

#[test]
fn a_tracker_that_is_made_begins_with_writes_in_flight() {
    let mut rig = Rig::pair();
    rig.write(3);
    ask(&mut rig, TrackerAsk::Add).expect("add");
    assert_eq!(marks(&rig), [3]);
}

#[test]
fn what_is_not_confirmed_stands_on_disk_and_goes_back_but_for_what_was_copied() {
    let mut rig = tracked();
    assert!(ask(&mut rig, TrackerAsk::Confirm).is_err(), "nothing was taken");
    for block in [3, 4, 5] {
        rig.write(block);
        finish_write(&mut rig);
    }
    ask(&mut rig, TrackerAsk::Take).expect("take");
    assert_eq!(ask(&mut rig, TrackerAsk::Take), Err("its marks are taken"));
    assert_eq!(marks(&rig), [3, 4, 5]);
    rig.out.clear();
    rig.write(5);
    assert!(!rig.out.iter().any(|a| matches!(a, Action::TrackerMark { .. })), "it stands on disk");
    ask(&mut rig, TrackerAsk::Copied { from: 4, to: 6 }).expect("copied");
    assert_eq!(taken(&rig), Some(vec![3]));
    ask(&mut rig, TrackerAsk::GiveBack).expect("back");
    assert_eq!((marks(&rig), taken(&rig)), (vec![3, 5], None), "5 was written again meanwhile");
    let status = rig.core.status().trackers[1].expect("tracker");
    assert_eq!((status.dirty_bytes, status.taken_bytes), (2 * BLOCK, None));
}

#[test]
fn what_the_last_leg_may_have_lost_is_marked_and_stays_until_it_is_settled() {
    let mut rig = tracked();
    rig.write(3);
    finish_write(&mut rig);
    rig.step(Event::Command { id: 1, command: Command::Detach(1) });
    rig.persisted();
    ask(&mut rig, TrackerAsk::Take).expect("take");
    ask(&mut rig, TrackerAsk::Confirm).expect("confirm");
    assert!(marks(&rig).is_empty());
    let flush = rig.ask(Ask::Flush, 0);
    rig.answer(0, "flush", Err(super::super::Fault::Io));
    assert!(matches!(rig.replied(flush), Some(Answer::Failed(_))));
    assert_eq!(marks(&rig), [3], "it may go back to what it was before");
    ask(&mut rig, TrackerAsk::Take).expect("take");
    ask(&mut rig, TrackerAsk::Confirm).expect("confirm");
    assert_eq!(marks(&rig), [3], "it has not been written back yet");
    rig.answer(0, "read", Ok(()));
    rig.answer(0, "write", Ok(()));
    ask(&mut rig, TrackerAsk::Take).expect("take");
    ask(&mut rig, TrackerAsk::Confirm).expect("confirm");
    assert!(marks(&rig).is_empty());
}

#[test]
fn an_unclean_start_marks_what_any_leg_in_sync_may_have_lost() {
    let good = LegRecord { in_sync: true, ..LegRecord::default() };
    for (clean, expected) in [(false, vec![1, 2]), (true, vec![])] {
        let marked: &[&[u64]] = if clean { &[&[], &[]] } else { &[&[1], &[2]] };
        let mut rig = Rig::new(&[false, false], &[good, good], marked, clean);
        rig.core = std::mem::replace(&mut rig.core, Rig::pair().core)
            .with_trackers(vec![BlockSet::new(256), BlockSet::new(256)]);
        rig.up(0);
        rig.up(1);
        assert_eq!(marks(&rig), expected);
    }
}

#[test]
fn extents_of_a_tracker_cover_what_was_taken_too() {
    let mut rig = tracked();
    for block in [2, 3] {
        rig.write(block);
        finish_write(&mut rig);
    }
    ask(&mut rig, TrackerAsk::Take).expect("take");
    rig.write(4);
    let range = ByteRange { offset: BLOCK, len: 9 * BLOCK };
    let runs = rig.core.tracker_extents(Some(1), range, 9);
    assert_eq!(runs, [(BLOCK, false), (3 * BLOCK, true), (5 * BLOCK, false)]);
    assert_eq!(rig.core.tracker_extents(Some(1), range, 1), [(BLOCK, false)]);
    assert_eq!(
        rig.core.tracker_extents(Some(0), range, 9),
        [(9 * BLOCK, true)],
        "gone: all may have changed"
    );
}
