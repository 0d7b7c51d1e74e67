//! The barrier, by hand.

use super::super::tests::Rig;
use super::super::{Answer, Command, Event, Fault};
use super::*;

fn begin(rig: &mut Rig, for_ms: u64) {
    rig.step(Event::Command { id: 7, command: Command::Barrier { for_ms } });
}

fn end(rig: &mut Rig) -> Option<Result<(), &'static str>> {
    rig.step(Event::Command { id: 8, command: Command::EndBarrier { barrier: 7 } });
    answered(rig, 8)
}

fn answered(rig: &Rig, wanted: u64) -> Option<Result<(), &'static str>> {
    rig.out.iter().find_map(|a| match a {
        Action::Answer { id, result } if *id == wanted => Some(*result),
        _ => None,
    })
}

#[test]
fn writes_under_way_end_then_legs_are_flushed_then_it_is_held_until_its_end() {
    let mut rig = Rig::pair();
    let before = rig.write(1);
    begin(&mut rig, 5000);
    let after = rig.write(2);
    let flush = rig.ask(Ask::Flush, 0);
    assert!(rig.take(0, "flush").is_none(), "a write is under way");
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert_eq!(rig.replied(before), Some(Answer::Done));
    rig.answer(0, "flush", Ok(()));
    assert_eq!(answered(&rig, 7), None);
    rig.answer(1, "flush", Ok(()));
    assert_eq!(answered(&rig, 7), Some(Ok(())));
    // Reads go on; writes wait.
    let read = rig.ask(Ask::Read, 1);
    rig.answer(0, "read", Ok(()));
    assert!(matches!(rig.replied(read), Some(Answer::Data(_))));
    rig.tick(1000);
    assert!(rig.take(0, "write").is_none() && rig.replied(flush).is_none());
    assert_eq!(end(&mut rig), Some(Ok(())));
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert_eq!(rig.replied(after), Some(Answer::Done));
    rig.answer(0, "flush", Ok(()));
    rig.answer(1, "flush", Ok(()));
    assert_eq!(rig.replied(flush), Some(Answer::Done));
}

#[test]
fn its_time_over_it_is_broken_and_its_end_says_so() {
    let mut rig = Rig::pair();
    begin(&mut rig, 1000);
    rig.answer(0, "flush", Ok(()));
    rig.answer(1, "flush", Ok(()));
    assert_eq!(answered(&rig, 7), Some(Ok(())));
    rig.write(2);
    assert!(rig.take(0, "write").is_none());
    rig.tick(1001);
    assert!(rig.take(0, "write").is_some(), "clients go on");
    assert_eq!(end(&mut rig), Some(Err(BROKEN)));
}

#[test]
fn a_flush_that_fails_or_comes_late_holds_nothing() {
    let mut rig = Rig::pair();
    rig.step(Event::Command { id: 9, command: Command::Detach(1) });
    rig.persisted();
    rig.write(1);
    begin(&mut rig, 1000);
    rig.answer(0, "write", Ok(()));
    rig.answer(0, "flush", Err(Fault::Io));
    assert_eq!(answered(&rig, 7), Some(Err(UNFLUSHED)));
    rig.out.clear();
    // It will be told to a client; a barrier does not swallow it.
    begin(&mut rig, 1000);
    rig.tick(1001);
    assert!(matches!(answered(&rig, 7), Some(Err(why)) if why == LATE || why == UNFLUSHED));

    let mut rig = Rig::pair();
    rig.write(1);
    begin(&mut rig, 1000);
    rig.tick(1001);
    assert_eq!(answered(&rig, 7), Some(Err(LATE)));
    let write = rig.write(2);
    assert!(rig.take(0, "write").is_some(), "{write}");
}

#[test]
fn one_at_a_time_and_one_that_is_called_off_holds_nothing() {
    let mut rig = Rig::pair();
    rig.write(1);
    begin(&mut rig, 1000);
    rig.step(Event::Command { id: 9, command: Command::Barrier { for_ms: 10 } });
    assert_eq!(answered(&rig, 9), Some(Err("another barrier holds writes already")));
    assert_eq!(end(&mut rig), Some(Ok(())));
    assert_eq!(answered(&rig, 7), Some(Err("it was called off")));
    rig.write(2);
    assert!(rig.take(0, "write").is_some() && rig.take(0, "write").is_some());
}
