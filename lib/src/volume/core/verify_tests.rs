//! Verify, by hand.

use super::super::tests::{BLOCK, Rig};
use super::super::{Answer, Ask, Command, Event};
use super::*;

fn begin(rig: &mut Rig, from: Option<LegIx>) {
    rig.step(Event::Command { id: 7, command: Command::Verify { only: None, from } });
}

/// The comparison that is asked for, answered.
fn compared(rig: &mut Rig, differ: &[(u64, Vec<u8>)]) -> ByteRange {
    let at = rig.out.iter().position(|a| matches!(a, Action::Compare { .. })).expect("a comparison");
    let Action::Compare { range, reads } = rig.out.remove(at) else { unreachable!() };
    rig.step(Event::Compared { io: reads[0].1, differ: differ.to_vec() });
    range
}

fn both(rig: &mut Rig) {
    for leg in 0..2 {
        rig.answer(leg, "read", Ok(()));
    }
}

fn answered(rig: &Rig) -> Option<Result<(), &'static str>> {
    rig.out.iter().find_map(|a| match a {
        Action::Answer { id: 7, result } => Some(*result),
        _ => None,
    })
}

/// Goes through what is left, all of it equal.
fn rest(rig: &mut Rig) {
    for _ in 0..64 {
        if answered(rig).is_some() || rig.core.verify_running().is_none() {
            return;
        }
        while let Some(io) = rig.take(0, "read") {
            rig.finish(0, io, Ok(()));
        }
        while let Some(io) = rig.take(1, "read") {
            rig.finish(1, io, Ok(()));
        }
        while rig.out.iter().any(|a| matches!(a, Action::Compare { .. })) {
            compared(rig, &[]);
        }
        rig.tick(1);
    }
}

#[test]
fn a_difference_is_one_after_a_second_look_that_is_alone_with_its_range() {
    let mut rig = Rig::pair();
    begin(&mut rig, None);
    first_looks(&mut rig, &[(3, vec![0, 1])]);
    // The second look: block 3 alone.
    let late = rig.write(3);
    assert!(rig.take(0, "write").is_none(), "a write of that range waits for the second look");
    both(&mut rig);
    let range = compared(&mut rig, &[(3, vec![0, 1])]);
    assert_eq!((range.offset, range.len), (3 * BLOCK, BLOCK));
    assert!(rig.take(0, "write").is_some(), "{late}: it goes on");
    assert_eq!(answered(&rig), Some(Ok(())));
    let report = rig.core.verify_report().expect("report");
    assert_eq!((report.differing, report.done, report.is_partial()), (BLOCK, report.total, false));
    assert_eq!(report.ranges[0].classes, [(0, 0), (1, 1)]);
}

/// All first looks, which find this; the reads of a second look are left.
fn first_looks(rig: &mut Rig, differ: &[(u64, Vec<u8>)]) {
    let first = |a: &Action| match a {
        Action::Read { leg, io, range } if range.len != BLOCK => Some((*leg, *io)),
        _ => None,
    };
    for _ in 0..64 {
        while let Some(at) = rig.out.iter().position(|a| first(a).is_some()) {
            let (leg, io) = first(&rig.out.remove(at)).expect("a read");
            rig.finish(leg, io, Ok(()));
        }
        while rig.out.iter().any(|a| matches!(a, Action::Compare { .. })) {
            compared(rig, differ);
        }
        rig.tick(1);
    }
    assert!(rig.out.iter().any(|a| matches!(a, Action::Read { .. })), "no second look");
}

#[test]
fn writes_go_past_a_first_look_and_a_difference_that_is_gone_is_none() {
    let mut rig = Rig::pair();
    begin(&mut rig, None);
    let write = rig.write(2);
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert_eq!(rig.replied(write), Some(Answer::Done), "the look does not hold it");
    both(&mut rig);
    compared(&mut rig, &[(2, vec![0, 1])]);
    rest(&mut rig);
    assert_eq!(answered(&rig), Some(Ok(())));
    let report = rig.core.verify_report().expect("report");
    assert_eq!((report.differing, report.is_partial()), (0, false));
}

#[test]
fn a_look_waits_for_the_writes_under_way() {
    let mut rig = Rig::pair();
    rig.write(0);
    begin(&mut rig, None);
    assert!(!rig.out.iter().any(|a| matches!(a, Action::Read { range, .. } if range.offset == 0)));
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert!(rig.out.iter().any(|a| matches!(a, Action::Read { range, .. } if range.offset == 0)));
}

#[test]
fn a_repair_takes_the_leg_out_durably_then_marks_it_then_copies() {
    let mut rig = Rig::pair();
    begin(&mut rig, Some(0));
    first_looks(&mut rig, &[(3, vec![0, 1])]);
    both(&mut rig);
    compared(&mut rig, &[(3, vec![0, 1])]);
    assert_eq!(rig.core.leg_state(1), Some(LegState::Outdated));
    let marked =
        |rig: &Rig| rig.out.iter().any(|a| matches!(a, Action::Mark { leg: 1, blocks } if *blocks == (3..4)));
    assert!(!marked(&rig), "not before its record says that it is out");
    assert_eq!(answered(&rig), None);
    rig.persisted();
    assert!(marked(&rig));
    assert_eq!(answered(&rig), Some(Ok(())));
    assert_eq!(rig.core.status().legs[1].missing_bytes, BLOCK);
    rig.out.clear();
    rig.up(1);
    rig.persisted();
    rig.answer(0, "read", Ok(()));
    rig.answer(1, "write", Ok(()));
    rig.answer(1, "flush", Ok(()));
    assert_eq!(rig.core.leg_state(1), Some(LegState::UpToDate));
}

#[test]
fn a_leg_that_leaves_or_cannot_be_read_makes_it_partial() {
    let mut rig = Rig::pair();
    begin(&mut rig, None);
    rig.step(Event::Command { id: 8, command: Command::Detach(1) });
    assert_eq!(answered(&rig), None, "its read of the other leg is waited for");
    while let Some(io) = rig.take(0, "read") {
        rig.finish(0, io, Ok(()));
    }
    rig.tick(1);
    assert_eq!(answered(&rig), Some(Ok(())));
    assert!(rig.core.verify_report().expect("report").is_partial());

    let mut rig = Rig::pair();
    begin(&mut rig, None);
    rig.answer(0, "read", Ok(()));
    rig.answer(1, "read", Err(Fault::Io));
    for _ in 0..200 {
        while let Some(io) = rig.take(0, "read") {
            rig.finish(0, io, Ok(()));
        }
        while let Some(io) = rig.take(1, "read") {
            rig.finish(1, io, Err(Fault::Io));
        }
        rig.tick(1);
    }
    assert_eq!(answered(&rig), Some(Ok(())));
    let report = rig.core.verify_report().expect("report");
    assert_eq!((report.legs[1].1.unread, report.done), (report.total, report.total));
}

#[test]
fn a_leg_that_is_away_is_waited_for_and_read_again() {
    let mut rig = Rig::pair();
    begin(&mut rig, None);
    rig.answer(0, "read", Ok(()));
    rig.down(1);
    rig.tick(10);
    assert_eq!(rig.core.leg_state(1), Some(LegState::UpToDate));
    // What was to be read of it is not answered any more.
    rig.out.retain(|a| !matches!(a, Action::Read { leg: 1, .. }));
    rig.up(1);
    rig.tick(1);
    rest(&mut rig);
    assert_eq!(answered(&rig), Some(Ok(())));
    assert!(!rig.core.verify_report().expect("report").is_partial());
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let mut rig = Rig::pair();
    begin(&mut rig, None);
    rig.out.clear();
    rig.step(Event::Command { id: 7, command: Command::Verify { only: None, from: None } });
    assert_eq!(answered(&rig), Some(Err("a verify is running already")));
    rig.step(Event::Command { id: 9, command: Command::EndVerify });
    rig.out.clear();
    rig.step(Event::Command { id: 8, command: Command::Detach(1) });
    begin(&mut rig, None);
    assert!(matches!(answered(&rig), Some(Err(why)) if why.contains("fewer than two")));
    begin(&mut rig, Some(1));
    let _ = rig.ask(Ask::Read, 0);
}

#[test]
fn contents_are_put_into_classes() {
    let blocks = |n: u64| (0..n).map(|at| (at + 5, at as usize * 2..at as usize * 2 + 2));
    let (a, b, c) = ([1, 1, 2, 2, 3, 3], [1, 1, 2, 9, 3, 3], [1, 1, 2, 2, 4, 3]);
    assert_eq!(compare(&[&a[..], &a[..]], blocks(3)), []);
    assert_eq!(compare(&[&a[..], &b[..]], blocks(3)), [(6, vec![0, 1])]);
    assert_eq!(compare(&[&a[..], &b[..], &c[..]], blocks(3)), [(6, vec![0, 1, 0]), (7, vec![0, 0, 2])]);
    assert_eq!(compare(&[&a[..], &[][..]], blocks(1)), [(5, vec![0, 1])], "nothing is no content");
}
