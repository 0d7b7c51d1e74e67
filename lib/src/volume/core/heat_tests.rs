use super::super::tests::{BLOCK, Rig};
use super::super::{Answer, Ask, Command, Event, LegRecord, TrackerAsk};
use super::*;

const GOOD: LegRecord =
    LegRecord { in_sync: true, inconsistent: false, detached: false, failed: false, gone: false };

/// Two good legs and tracker 0, durability `power`, runs of four blocks.
fn powerful() -> Rig {
    let mut rig = Rig::new(&[false, false], &[GOOD, GOOD], &[&[], &[]], true);
    let power = Power { run_blocks: 4, cool_ms: 1000 };
    rig.with_power(power);
    rig.up(0);
    rig.up(1);
    rig.persisted();
    rig.tick(limits::YIELD_MS);
    rig.step(Event::Command { id: 9, command: Command::Tracker { tracker: 0, ask: TrackerAsk::Add } });
    rig.out.clear();
    rig
}

/// The sync that was asked for.
fn sync(rig: &mut Rig) -> Option<(u64, Vec<MapIx>)> {
    let at = rig.out.iter().position(|action| matches!(action, Action::SyncMaps { .. }))?;
    let Action::SyncMaps { seq, maps } = rig.out.remove(at) else { unreachable!() };
    Some((seq, maps))
}

fn synced(rig: &mut Rig, ok: bool) {
    let (seq, _) = sync(rig).expect("a sync");
    rig.step(Event::MapsSynced { seq, ok });
}

fn writes(rig: &Rig) -> usize {
    rig.out.iter().filter(|action| matches!(action, Action::Write { .. })).count()
}

/// A write to both legs, all the way.
fn written(rig: &mut Rig, block: u64) {
    let token = rig.write(block);
    if sync_wanted(rig) {
        synced(rig, true);
    }
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert_eq!(rig.replied(token), Some(Answer::Done));
}

fn sync_wanted(rig: &Rig) -> bool {
    rig.out.iter().any(|action| matches!(action, Action::SyncMaps { .. }))
}

/// All legs are flushed, nothing is unflushed.
fn flushed(rig: &mut Rig) {
    let token = rig.ask(Ask::Flush, 0);
    rig.answer(0, "flush", Ok(()));
    rig.answer(1, "flush", Ok(()));
    assert_eq!(rig.replied(token), Some(Answer::Done));
}

#[test]
fn a_write_waits_for_its_marks_on_all_maps_and_a_hot_run_for_nothing() {
    let mut rig = powerful();
    rig.write(5);
    for mark in [Action::Mark { leg: 0, blocks: 4..8 }, Action::TrackerMark { tracker: 0, blocks: 4..8 }] {
        assert!(rig.out.contains(&mark), "the whole run: {:?}", rig.out);
    }
    assert_eq!(writes(&rig), 0);
    let (seq, maps) = sync(&mut rig).expect("a sync");
    assert_eq!(maps, [MapIx::Leg(0), MapIx::Leg(1), MapIx::Tracker(0)]);
    rig.step(Event::MapsSynced { seq, ok: true });
    assert_eq!(writes(&rig), 2);
    rig.out.clear();
    rig.write(6);
    assert_eq!((writes(&rig), sync(&mut rig)), (2, None), "its run is hot");
}

#[test]
fn a_second_write_into_a_run_that_is_being_synced_joins_and_others_share_the_next() {
    let mut rig = powerful();
    rig.write(5);
    let (first, _) = sync(&mut rig).expect("a sync");
    rig.write(6);
    rig.write(9);
    rig.write(13);
    assert_eq!((writes(&rig), sync(&mut rig)), (0, None), "one at a time");
    rig.step(Event::MapsSynced { seq: first, ok: true });
    assert_eq!(writes(&rig), 4, "both of the first run, to both legs");
    rig.out.retain(|action| !matches!(action, Action::Write { .. }));
    synced(&mut rig, true);
    assert_eq!((writes(&rig), sync(&mut rig)), (4, None));
}

#[test]
fn a_mark_that_cannot_be_made_durable_fails_the_write_before_any_leg_sees_it() {
    let mut rig = powerful();
    let token = rig.write(5);
    synced(&mut rig, false);
    assert_eq!((rig.replied(token), writes(&rig)), (Some(Answer::Failed(Fault::Io)), 0));
    assert_eq!(sync(&mut rig), None, "not at once");
    let token = rig.write(5);
    assert_eq!(writes(&rig), 0, "it is not durable yet");
    synced(&mut rig, true);
    assert_eq!(writes(&rig), 2);
    rig.answer(0, "write", Ok(()));
    rig.answer(1, "write", Ok(()));
    assert_eq!(rig.replied(token), Some(Answer::Done));
}

#[test]
fn what_failed_is_tried_again_without_anybody_asking() {
    let mut rig = powerful();
    rig.write(5);
    synced(&mut rig, false);
    rig.tick(limits::PERSIST_RETRY_MS);
    synced(&mut rig, true);
    rig.out.clear();
    rig.write(5);
    assert_eq!(writes(&rig), 2);
}

#[test]
fn a_sync_that_does_not_end_fails_the_write() {
    let mut rig = powerful();
    let token = rig.write(5);
    rig.tick(10_001);
    assert_eq!((rig.replied(token), writes(&rig)), (Some(Answer::Failed(Fault::Io)), 0));
    synced(&mut rig, true);
    assert_eq!(writes(&rig), 0);
}

#[test]
fn a_quiet_run_cools_and_a_write_heats_it_again_with_a_sync_of_its_own() {
    let mut rig = powerful();
    written(&mut rig, 5);
    rig.tick(1001);
    rig.tick(1001);
    assert!(rig.out.contains(&Action::TrackerTidy { tracker: 0 }), "nothing is unflushed in a tracker");
    assert!(!rig.out.iter().any(|a| matches!(a, Action::Clear { .. })), "it is unflushed: {:?}", rig.out);
    flushed(&mut rig);
    rig.out.clear();
    rig.tick(1001);
    rig.tick(1001);
    let cleared = |leg| Action::Clear { leg, blocks: 4..8 };
    assert!(rig.out.contains(&cleared(0)) && rig.out.contains(&cleared(1)), "{:?}", rig.out);
    assert_eq!(rig.core.tracker_image(0).iter().collect::<Vec<_>>(), [5], "exact");
    rig.out.clear();
    rig.write(6);
    assert!(rig.out.contains(&Action::Mark { leg: 0, blocks: 4..8 }));
    assert_eq!(writes(&rig), 0);
    synced(&mut rig, true);
    assert_eq!(writes(&rig), 2);
}

#[test]
fn nothing_cools_before_what_was_marked_is_durable() {
    let mut rig = powerful();
    written(&mut rig, 5);
    flushed(&mut rig);
    rig.tick(1001);
    rig.out.clear();
    rig.write(9);
    rig.tick(1001);
    assert!(!rig.out.iter().any(|a| matches!(a, Action::Clear { .. })), "{:?}", rig.out);
    synced(&mut rig, true);
    assert!(rig.out.contains(&Action::Clear { leg: 0, blocks: 4..8 }), "{:?}", rig.out);
}

#[test]
fn a_flush_waits_for_the_maps_and_fails_with_them() {
    for (ok, answer) in [(true, Answer::Done), (false, Answer::Failed(Fault::Io))] {
        let mut rig = powerful();
        written(&mut rig, 5);
        rig.write(9);
        let (seq, _) = sync(&mut rig).expect("a sync");
        let token = rig.ask(Ask::Flush, 0);
        rig.answer(0, "flush", Ok(()));
        rig.answer(1, "flush", Ok(()));
        assert_eq!(rig.replied(token), None);
        rig.step(Event::MapsSynced { seq, ok });
        assert_eq!(rig.replied(token), Some(answer));
    }
}

#[test]
fn a_clean_stop_leaves_exact_words() {
    let mut rig = powerful();
    rig.step(Event::Command { id: 1, command: Command::Detach(1) });
    rig.persisted();
    rig.write(5);
    synced(&mut rig, true);
    rig.answer(0, "write", Ok(()));
    rig.step(Event::Command { id: 2, command: Command::Stop });
    rig.answer(0, "flush", Ok(()));
    rig.tick(1);
    for clear in [(0, 4..8), (1, 4..5), (1, 6..8)] {
        assert!(rig.out.contains(&Action::Clear { leg: clear.0, blocks: clear.1.clone() }), "{:?}", rig.out);
    }
    assert_eq!(rig.core.tracker_image(0).iter().collect::<Vec<_>>(), [5]);
}

#[test]
fn a_run_that_was_cut_by_the_old_end_is_heated_again() {
    let mut rig = powerful();
    // 256 blocks and a half of one: the last run has two.
    rig.step(Event::Command { id: 3, command: Command::Grow { size: 257 * BLOCK + 4096, source: 0 } });
    while sync_wanted(&rig) {
        synced(&mut rig, true);
    }
    rig.persisted();
    rig.out.clear();
    rig.write(256);
    assert!(rig.out.contains(&Action::Mark { leg: 0, blocks: 256..258 }), "{:?}", rig.out);
    synced(&mut rig, true);
    rig.step(Event::Command { id: 4, command: Command::Grow { size: 300 * BLOCK, source: 0 } });
    while sync_wanted(&rig) {
        synced(&mut rig, true);
    }
    rig.persisted();
    rig.out.clear();
    rig.write(259);
    assert!(rig.out.contains(&Action::Mark { leg: 0, blocks: 256..260 }), "{:?}", rig.out);
}

/// The maps of two legs in one store, whose power fails at a sync; and what each leg may lack when it does.
mod crash {
    use super::*;
    use crate::base::{BlockSize, Id};
    use crate::device::{FrozenStore, SlotStore};
    use crate::map::format::{BITS_AT, Durability, HEADER_LEN, Header, Identity};
    use crate::map::seal::{Belief, Expect, verify};
    use std::collections::BTreeMap;

    const BLOCKS: u64 = 256;
    const MAP: u64 = BITS_AT + BLOCKS / 8;

    fn identity(leg: usize) -> Identity {
        let id = |n| Id([n; 16]);
        Identity { volume: id(1), leg: id(2 + leg as u8), size: BLOCKS * BLOCK, block: BlockSize::DEFAULT }
    }

    struct World {
        rig: Rig,
        store: FrozenStore,
        /// Blocks written to each leg and not known to be on its stable storage; with the flush that covers them.
        unsure: [BTreeMap<u64, u64>; 2],
        flushes: u64,
        /// The power has failed.
        off: bool,
    }

    impl World {
        fn new(fail_at: usize) -> Self {
            let mut image = Vec::new();
            for leg in 0..2 {
                let mut header = Header::new(identity(leg), Id([9; 16]));
                (header.clean, header.durability, header.boot) = (false, Durability::Power, Id([5; 16]));
                image.extend(header.encode());
                image.resize((leg + 1) * MAP as usize, 0);
            }
            let mut rig = Rig::new(&[false, false], &[GOOD, GOOD], &[&[], &[]], true);
            rig.with_power(Power { run_blocks: 64, cool_ms: 100 });
            rig.up(0);
            rig.up(1);
            rig.persisted();
            rig.tick(limits::YIELD_MS);
            let store = FrozenStore::new(image, fail_at);
            Self { rig, store, unsure: [BTreeMap::new(), BTreeMap::new()], flushes: 0, off: false }
        }

        fn set(&self, leg: usize, blocks: Range<u64>, value: bool) {
            for block in blocks {
                let at = leg as u64 * MAP + BITS_AT + block / 8;
                let mut byte = [0];
                self.store.read_at(at, &mut byte).expect("read");
                let bit = 1 << (block % 8);
                let new = if value { byte[0] | bit } else { byte[0] & !bit };
                // With the power off nobody writes any more.
                let _ = self.store.write_at(at, &[new]);
            }
        }

        /// Performs what the core wants until it wants nothing more; the legs do as they are told.
        fn settle(&mut self) {
            while !self.rig.out.is_empty() && !self.off {
                for action in std::mem::take(&mut self.rig.out) {
                    if self.off {
                        return;
                    }
                    self.perform(action);
                }
            }
        }

        fn perform(&mut self, action: Action) {
            match action {
                Action::Mark { leg, blocks } => self.set(leg, blocks, true),
                Action::Clear { leg, blocks } => self.set(leg, blocks, false),
                Action::SyncMaps { seq, .. } => match self.store.sync() {
                    Ok(()) => self.rig.step(Event::MapsSynced { seq, ok: true }),
                    Err(_) => self.off = true,
                },
                Action::Write { leg, io, range, .. } => {
                    self.unsure[leg].insert(range.offset / BLOCK, self.flushes);
                    self.rig.finish(leg, io, Ok(()));
                }
                Action::Flush { leg, io } => {
                    self.unsure[leg].clear();
                    self.flushes += 1;
                    self.rig.finish(leg, io, Ok(()));
                }
                _ => {}
            }
        }

        /// Whatever is on the disk after the power cut: believed, and all that is unsure is marked.
        fn check(&self, fail_at: usize) {
            for image in self.store.after_crash() {
                for leg in 0..2 {
                    let map = &image[leg * MAP as usize..][..MAP as usize];
                    let header = Header::decode("m", map[..HEADER_LEN].try_into().expect("header"));
                    let Identity { volume, leg: id, .. } = identity(leg);
                    let expect = Expect {
                        volume,
                        leg: id,
                        generation: Id([9; 16]),
                        boot: Id([6; 16]),
                        durability: Durability::Power,
                    };
                    assert_eq!(verify(&header.expect("header"), &expect), Belief::Believed);
                    for block in self.unsure[leg].keys() {
                        let byte = map[(BITS_AT + block / 8) as usize];
                        let marked = byte >> (block % 8) & 1 == 1;
                        assert!(
                            marked,
                            "sync {fail_at}: block {block} of leg {leg} may differ and has no mark"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn at_every_sync_a_power_cut_leaves_maps_that_have_every_mark() {
        let mut most = 0;
        for fail_at in 0.. {
            let mut world = World::new(fail_at);
            let mut state = 7u64;
            for step in 0..120 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1442);
                match state >> 60 {
                    0..=9 => drop(world.rig.write((state >> 20) % BLOCKS)),
                    10 | 11 => drop(world.rig.ask(Ask::Flush, 0)),
                    _ => world.rig.tick(60 + step % 50),
                }
                world.settle();
                world.check(fail_at);
                if world.off {
                    break;
                }
            }
            most = fail_at;
            if !world.off {
                break;
            }
        }
        assert!(most > 10, "{most} syncs: runs cool and are heated again");
    }
}
