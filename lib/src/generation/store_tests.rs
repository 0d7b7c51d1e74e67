use super::super::record::{Ancestor, HISTORY, PEERS, Peer};
use super::*;
use crate::base::{BlockSize, Id};
use crate::device::FrozenStore;

fn record() -> Record {
    Record::new(Id([1; 16]), Id([2; 16]), "a".parse().expect("name"), 1 << 30, BlockSize::DEFAULT)
}

fn image(record: &Record) -> Vec<u8> {
    let slot = encode(record).expect("encode");
    [slot, slot].concat()
}

fn open(image: Vec<u8>) -> Result<(RecordStore<FrozenStore>, Record)> {
    RecordStore::over(FrozenStore::new(image, usize::MAX), "r".into())
}

/// Changes every 512 bytes of a record.
fn stir(record: &mut Record, term: u64) {
    record.max_term = term;
    record.history = vec![Ancestor { id: Id([1; 16]), term }; HISTORY];
    record.peers =
        (0..PEERS as u8).map(|n| Peer { leg: Id([n; 16]), seq: term, ..Peer::default() }).collect();
}

/// Opens, then writes terms 1 to 3; the last one that was answered with success.
fn three_writes(store: &FrozenStore) -> Result<u64, u64> {
    let (mut store, mut current) = RecordStore::over(store, "r".into()).map_err(|_| 0u64)?;
    for term in 1..=3 {
        stir(&mut current, term);
        store.write(&mut current).map_err(|_| term - 1)?;
    }
    Ok(3)
}

#[test]
fn a_crash_at_every_sync_leaves_the_old_record_or_the_new_one() {
    let mut images = 0;
    for fail_at in 0.. {
        let frozen = FrozenStore::new(image(&record()), fail_at);
        let done = three_writes(&frozen);
        let written = done.unwrap_or_else(|written| written);
        for image in frozen.after_crash() {
            images += 1;
            let (mut again, mut found) = open(image).expect("never neither");
            assert!((written..=written + 1).contains(&found.max_term), "sync {fail_at}: {found:?}");
            if done.is_err() && fail_at > 0 && fail_at.is_multiple_of(2) {
                assert_eq!(found.max_term, written + 1, "durable from its first sync on");
            }
            let seq = found.seq;
            found.max_term = 99;
            again.write(&mut found).expect("write");
            assert_eq!((found.seq, found.max_term), (seq + 1, 99));
            assert_eq!(open(again.get_ref().current()).expect("open").1, found);
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(images > 6 * 256, "every subset of torn pieces at every sync");
}

#[test]
fn a_slot_that_its_dead_writer_did_not_sync_is_synced_before_the_other_is_touched() {
    let unsynced = Record { seq: 1, max_term: 7, ..record() };
    for slot in [0, SLOT] {
        for fail_at in 0..4 {
            let frozen = FrozenStore::new(image(&record()), fail_at);
            frozen.write_at(slot as u64, &encode(&unsynced).expect("encode")).expect("write");
            let _ = three_writes(&frozen);
            for image in frozen.after_crash() {
                open(image).expect("never neither");
            }
        }
    }
}

/// The same, each write tried again once; the last one answered with success, and the last one tried.
fn three_stubborn_writes(store: &FrozenStore) -> (u64, u64) {
    let Ok((mut store, mut current)) =
        RecordStore::over(store, "r".into()).or_else(|_| RecordStore::over(store, "r".into()))
    else {
        return (0, 0);
    };
    let mut done = 0;
    for term in 1..=3 {
        current.max_term = term;
        if store.write(&mut current).is_err() && store.write(&mut current).is_err() {
            return (done, term);
        }
        done = term;
    }
    (done, done)
}

#[test]
fn a_sync_that_failed_once_and_then_a_crash_leave_a_whole_record() {
    for hiccup in 0..8 {
        for fail_at in hiccup..12 {
            let frozen = FrozenStore::new(image(&record()), fail_at).hiccup(hiccup);
            let (done, tried) = three_stubborn_writes(&frozen);
            for image in frozen.after_crash() {
                let found = open(image).expect("never neither").1.max_term;
                assert!((done..=tried).contains(&found), "syncs {hiccup} and {fail_at}: {found}");
            }
        }
    }
}

#[test]
fn a_failed_write_is_tried_again_over_the_same_slot() {
    let frozen = FrozenStore::new(image(&record()), 1);
    let (mut store, mut current) = RecordStore::over(frozen, "r".into()).expect("open");
    current.max_term = 5;
    let before = current.clone();
    let slot = store.newer;
    assert!(store.write(&mut current).is_err());
    assert!(store.write(&mut current).is_err());
    assert_eq!((store.newer, current), (slot, before));
}

#[test]
fn two_bad_slots_are_damaged_and_one_is_not_missed() {
    let good = image(&record());
    for torn in [0, SLOT] {
        let mut bytes = good.clone();
        bytes[torn + 600] ^= 1;
        assert_eq!(open(bytes.clone()).expect("one slot").1, record());
        bytes[(torn + SLOT) % (2 * SLOT)] ^= 1;
        assert_eq!(open(bytes).expect_err("no slot").class, Class::Damaged);
    }
    assert_eq!(open(vec![0; SLOT]).expect_err("short").class, Class::Damaged);
    assert_eq!(open(vec![]).expect_err("empty").class, Class::Damaged);
}

#[test]
fn a_slot_of_a_newer_program_is_not_passed_over() {
    for slot in [0, SLOT] {
        let mut bytes = image(&record());
        bytes[slot + 8] = 2;
        let error = open(bytes).expect_err("version 2");
        assert!(error.class == Class::Refused && error.message.contains("version 2"), "{error}");
    }
}

#[test]
fn slots_that_cannot_both_be_ours_are_damaged() {
    let mut other = record();
    other.max_term = 1;
    let pair = |a: &Record, b: &Record| [encode(a).expect("a"), encode(b).expect("b")].concat();
    assert_eq!(open(pair(&record(), &other)).expect_err("same sequence").class, Class::Damaged);
    other.seq = 1;
    assert_eq!(open(pair(&record(), &other)).expect("newer").1, other);
    assert_eq!(open(pair(&other, &record())).expect("newer").1, other);
    other.leg = Id([9; 16]);
    assert_eq!(open(pair(&record(), &other)).expect_err("another leg").class, Class::Damaged);
}

#[test]
fn a_record_file_is_owned_by_one_and_read_by_all() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("record");
    let mut first = record();
    let mut store = RecordStore::create(&path, &mut first).expect("create");
    assert_eq!(first.seq, 1);
    assert_eq!(RecordStore::open(&path).expect_err("second").class, Class::Busy);
    assert_eq!(RecordStore::create(&path, &mut first).expect_err("exists").class, Class::Refused);
    first.max_term = 3;
    store.write(&mut first).expect("write");
    assert_eq!(RecordStore::read(&path).expect("read"), first);
    drop(store);
    assert_eq!(RecordStore::open(&path).expect("open").1, first);
    assert_eq!(first.seq, 2);
}

#[test]
fn unknown_read_only_features_may_be_read_and_not_written() {
    let mut newer = record();
    newer.features.ro_compat = 1;
    let (mut store, mut found) = open(image(&newer)).expect("open");
    assert_eq!(store.write(&mut found).expect_err("write").class, Class::Refused);
}
