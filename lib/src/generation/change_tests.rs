use super::*;
use crate::base::BlockSize;

fn id(n: u8) -> Id {
    Id([n; 16])
}

/// Leg `n`, at generation 100.
fn leg(n: u8) -> Record {
    let mut record =
        Record::new(id(1), id(n), format!("leg{n}").parse().expect("name"), 1 << 30, BlockSize::DEFAULT);
    record.current = Generation { id: id(100), term: 1, minted_by: id(10), clock: 0 };
    record.max_term = 2;
    record
}

fn past(record: &Record) -> Vec<Id> {
    record.history.iter().map(|a| a.id).collect()
}

#[test]
fn minting_adds_the_old_generation_where_the_peer_may_be_at_it() {
    let far = id(11);
    for (base, needs, after) in [
        (vec![], true, vec![id(100)]),
        (vec![id(50)], false, vec![id(50)]),
        (vec![id(50), id(100)], true, vec![id(50), id(100)]),
    ] {
        let mut record = leg(10);
        record.peer_mut(far).expect("peer").base.clone_from(&base);
        assert_eq!(needs_mint(&record, &[far]), needs, "{base:?}");
        mint(&mut record, id(101), 77, &[far]).expect("mint");
        assert_eq!(record.base_of(far), after);
        assert_eq!(record.current, Generation { id: id(101), term: 2, minted_by: id(10), clock: 77 });
        assert_eq!(record.history, [Ancestor { id: id(100), term: 1 }]);
        assert_eq!(record.peer(far).expect("peer").map_state, MapState::Valid);
        assert!(!needs_mint(&record, &[far]), "once is enough");
    }
}

#[test]
fn minting_is_refused_where_it_would_lie() {
    let mut record = leg(10);
    let before = record.clone();
    for used in [Id::NONE, id(100)] {
        assert_eq!(mint(&mut record, used, 0, &[]).expect_err("not new").class, Class::Internal);
    }
    assert_eq!(record, before);
    record.flags.insert(Flags::INCONSISTENT);
    assert_eq!(mint(&mut record, id(101), 0, &[]).expect_err("inconsistent").class, Class::Refused);
    let mut virgin = leg(10);
    virgin.current = Generation::default();
    mint(&mut virgin, id(101), 0, &[id(11)]).expect("the first generation");
    assert!(virgin.base_of(id(11)).is_empty() && virgin.history.is_empty() && virgin.in_sync());
}

#[test]
fn a_fifth_base_generation_makes_the_map_all_dirty_and_keeps_the_direction() {
    let far = id(11);
    let mut record = leg(10);
    record.peer_mut(far).expect("peer").base = vec![id(1), id(2), id(3), id(100)];
    mint(&mut record, id(101), 0, &[far]).expect("mint");
    assert_eq!(record.peer(far).expect("peer").map_state, MapState::Valid);
    let mut target = leg(11);
    target.current.id = id(3);
    finish_f1(&mut record, &target).expect("f1");
    let peer = record.peer(far).expect("peer");
    assert_eq!(peer.base, [id(2), id(3), id(100), id(101)]);
    assert_eq!(peer.map_state, MapState::AllDirty);
    assert!(record.remembers(id(1)));
    map_filled(&mut record, far).expect("filled");
    assert_eq!(record.peer(far).expect("peer").map_state, MapState::Valid);
}

#[test]
fn a_whole_resync_ends_with_two_equal_legs() {
    let (mut a, mut b) = (leg(10), leg(11));
    a.seq = 5;
    b.seq = 9;
    leave(&mut b);
    assert!(!b.in_sync());
    mint(&mut a, id(101), 0, &[b.leg]).expect("mint");
    b.flags.insert(Flags::FAILED);
    begin_resync(&mut a, &mut b).expect("begin");
    assert_eq!(b.sync_from, id(101));
    assert!(b.flags.contains(Flags::INCONSISTENT) && b.flags.contains(Flags::OUTDATED));
    assert!(!b.flags.contains(Flags::FAILED));
    assert_eq!(a.base_of(b.leg), [id(100)]);
    assert_eq!(finish_f2(&a, &mut b.clone()).expect_err("no f1").class, Class::Internal);
    finish_f1(&mut a, &b).expect("f1");
    assert_eq!(a.base_of(b.leg), [id(100), id(101)]);
    assert_eq!(finish_f3(&mut a.clone(), &b).expect_err("no f2").class, Class::Internal);
    finish_f2(&a, &mut b).expect("f2");
    assert!(b.in_sync() && b.current == a.current && b.sync_from.is_none());
    assert_eq!(past(&b), [id(100)]);
    finish_f3(&mut a, &b).expect("f3");
    assert!(a.base_of(b.leg).is_empty());
    assert_eq!(past(&a), [id(100)], "the current generation is not its own past");
    assert_eq!((a.peer(b.leg).expect("peer").seq, b.peer(a.leg).expect("peer").seq), (9, 5));
}

#[test]
fn a_virgin_target_leaves_none_in_the_base_and_never_in_the_history() {
    let (mut a, mut b) = (leg(10), leg(11));
    b.current = Generation::default();
    begin_resync(&mut a, &mut b).expect("begin");
    assert_eq!(a.base_of(b.leg), [Id::NONE]);
    assert!(!needs_mint(&a, &[b.leg]), "a virgin leg never takes itself for this one");
    finish_f1(&mut a, &b).expect("f1");
    finish_f2(&a, &mut b).expect("f2");
    finish_f3(&mut a, &b).expect("f3");
    assert!(a.history.is_empty() && b.history.is_empty() && b.in_sync());
}

#[test]
fn wrong_pairs_and_bad_sources_are_refused_and_change_nothing() {
    type Spoil = fn(&mut Record, &mut Record);
    let cases: [(Spoil, Class); 6] = [
        (|a, _| a.flags.insert(Flags::INCONSISTENT), Class::Refused),
        (|a, _| a.current = Generation::default(), Class::Refused),
        (|a, b| b.leg = a.leg, Class::Refused),
        (|_, b| b.volume = id(9), Class::Damaged),
        (|_, b| b.size = 5, Class::Damaged),
        (|a, b| a.peer_mut(b.leg).expect("peer").seq = 3, Class::Damaged),
    ];
    for (i, (spoil, class)) in cases.into_iter().enumerate() {
        let (mut a, mut b) = (leg(10), leg(11));
        spoil(&mut a, &mut b);
        let before = (a.base_of(b.leg).to_vec(), b.clone());
        assert_eq!(begin_resync(&mut a, &mut b).expect_err("refused").class, class, "case {i}");
        assert_eq!((a.base_of(b.leg).to_vec(), b), before, "case {i}");
    }
}

#[test]
fn history_is_a_ring_and_lists_a_generation_once() {
    let mut record = leg(10);
    for n in 0..40 {
        mint(&mut record, id(110 + n), 0, &[]).expect("mint");
    }
    assert_eq!(record.history.len(), super::super::record::HISTORY);
    assert_eq!(past(&record).last(), Some(&id(148)));
    assert_eq!(past(&record)[0], id(117));
    assert_eq!(mint(&mut record, id(148), 0, &[]).expect_err("old").class, Class::Internal);
}

#[test]
fn in_sync_is_a_matter_of_flags() {
    for (flag, in_sync) in [
        (Flags::PRIMARY, true),
        (Flags::TAIL, true),
        (Flags::INCONSISTENT, false),
        (Flags::OUTDATED, false),
        (Flags::DETACHED, false),
        (Flags::FAILED, false),
    ] {
        let mut record = leg(10);
        record.flags.insert(flag);
        assert_eq!(record.in_sync(), in_sync, "{flag:?}");
    }
}

#[test]
fn lost_maps_are_full_resyncs_until_the_target_is_in_sync_again() {
    let (mut a, mut b) = (leg(10), leg(11));
    mint(&mut a, id(101), 0, &[b.leg]).expect("mint");
    maps_lost(&mut a);
    assert_eq!(a.peer(b.leg).expect("peer").map_state, MapState::AllDirty);
    begin_resync(&mut a, &mut b).expect("begin");
    assert_eq!(a.peer(b.leg).expect("peer").map_state, MapState::AllDirty, "only the caller fills maps");
    finish_f1(&mut a, &b).expect("f1");
    finish_f2(&a, &mut b).expect("f2");
    finish_f3(&mut a, &b).expect("f3");
    assert_eq!(a.peer(b.leg).expect("peer").map_state, MapState::Valid);
}
