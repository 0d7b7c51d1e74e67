//! The file of a record: two slots of 4 KiB, of which one is whole at every instant.

use super::format::{KNOWN_RO_COMPAT, SLOT, decode, encode};
use super::record::Record;
use crate::base::{Class, Error, Result};
use crate::device::durable::create_new;
use crate::device::lock::open_locked;
use crate::device::{FileSlots, SlotStore};
use std::fs::File;
use std::io;
use std::path::Path;

/// How often a reader without a lock reads again when a slot is bad: the owner may be writing it.
const READ_AGAIN: usize = 3;

/// The owner's handle of a record file.
#[derive(Debug)]
pub struct RecordStore<S: SlotStore = FileSlots> {
    store: S,
    object: String,
    /// The slot that holds the newest durable record.
    newer: usize,
    /// The highest sequence number that may be in the file.
    seq: u64,
}

impl RecordStore {
    /// Makes the file of a record, in both slots, with sequence number 1; class `Refused` if it exists.
    pub fn create(path: &Path, record: &mut Record) -> Result<Self> {
        let new = Record { seq: 1, ..record.clone() };
        let slot = encode(&new)?;
        create_new(path, &[slot, slot].concat())?;
        *record = new;
        Ok(Self::open(path)?.0)
    }

    /// Opens and locks the file. Classes: `Busy` if another process holds it, `Damaged` if both slots are bad,
    /// `Refused` if a slot is of a version or has features that this program does not know.
    pub fn open(path: &Path) -> Result<(Self, Record)> {
        let file = open_locked(path, true)?;
        Self::over(FileSlots(file), path.display().to_string())
    }

    /// Reads the record without a lock, also while its owner changes it: an answer that was true during the
    /// call.
    pub fn read(path: &Path) -> Result<Record> {
        let object = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io(&object, "opening it", e))?;
        let store = FileSlots(file);
        for _ in 0..READ_AGAIN {
            if let [Ok(a), Ok(b)] = slots(&store, &object)?
                && a.seq == b.seq
            {
                return Ok(a);
            }
        }
        let slots = slots(&store, &object)?;
        Ok(choose(slots, &object)?.1)
    }
}

impl<S: SlotStore> RecordStore<S> {
    /// The same over any store; `object` names it in messages.
    ///
    /// What is read may be in the page cache only: its writer may have died before its sync, or its sync may
    /// have failed. Before the other slot is ever touched, the winner is made durable:
    ///
    /// 1. The winner is written over itself and synced.
    /// 2. If the other slot differs, the winner is written there too and synced.
    ///
    /// Recovery: (a) before 1 the other slot is untouched; a winner that was durable is so throughout, because
    /// equal bytes over equal bytes cannot tear; (b) from 1 on the winner is whole.
    pub fn over(store: S, object: String) -> Result<(Self, Record)> {
        let slots = slots(&store, &object)?;
        let same = matches!(&slots, [Ok(a), Ok(b)] if a == b);
        let (newer, record) = choose(slots, &object)?;
        let this = Self { store, object, newer, seq: record.seq };
        if record.features.check_writable(&this.object, KNOWN_RO_COMPAT).is_ok() {
            let bytes = encode(&record)?;
            this.put(newer, &bytes)?;
            if !same {
                this.put(1 - newer, &bytes)?;
            }
        }
        Ok((this, record))
    }

    /// The store underneath.
    pub fn get_ref(&self) -> &S {
        &self.store
    }

    /// Writes a record, with the next sequence number.
    ///
    /// 1. The older slot is written.
    /// 2. It is synced. Now the new record is durable.
    /// 3. The newer slot is written.
    /// 4. It is synced. Now it is durable twice.
    ///
    /// Recovery, at opening: (a) both slots whole: the higher sequence wins; (b) one is torn: the other wins.
    /// Before 2 that is the old record or the new one, from 2 on the new one.
    ///
    /// After an error the file holds the old record or the new one; `record` is unchanged, the caller tries
    /// again or stops. A second try has a higher number and never touches the slot that is known to be whole.
    pub fn write(&mut self, record: &mut Record) -> Result<()> {
        record.features.check_writable(&self.object, KNOWN_RO_COMPAT)?;
        self.seq = self.seq.checked_add(1).ok_or_else(|| {
            Error::new(Class::Internal, format!("{}: writing it: no sequence number is left", self.object))
        })?;
        let new = Record { seq: self.seq, ..record.clone() };
        let bytes = encode(&new)?;
        let older = 1 - self.newer;
        self.put(older, &bytes)?;
        self.newer = older;
        self.put(1 - older, &bytes)?;
        *record = new;
        Ok(())
    }

    fn put(&self, slot: usize, bytes: &[u8; SLOT]) -> Result<()> {
        self.store
            .write_at((slot * SLOT) as u64, bytes)
            .and_then(|()| self.store.sync())
            .map_err(|e| Error::io(&self.object, "writing the record", e))
    }
}

type Slots = [Result<Record>; 2];

fn slots<S: SlotStore>(store: &S, object: &str) -> Result<Slots> {
    let mut bytes = [0; 2 * SLOT];
    store.read_at(0, &mut bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(
            Class::Damaged,
            format!("{object}: checking its length: it is shorter than {} bytes", 2 * SLOT),
        ),
        _ => Error::io(object, "reading the record", e),
    })?;
    let mut slot = [0; SLOT];
    Ok([0, 1].map(|i| {
        slot.copy_from_slice(&bytes[i * SLOT..][..SLOT]);
        decode(&format!("{object}: slot {i}"), &slot)
    }))
}

/// The slot that counts. One that this program cannot understand is not passed over in favour of an older one
/// that it can: a newer program may have begun to write.
fn choose(slots: Slots, object: &str) -> Result<(usize, Record)> {
    let [a, b] = slots;
    for slot in [&a, &b] {
        if let Err(e) = slot
            && e.class == Class::Refused
        {
            return Err(e.clone());
        }
    }
    match (a, b) {
        (Ok(a), Ok(b)) if a.seq == b.seq && a != b => Err(Error::new(
            Class::Damaged,
            format!("{object}: reading the record: both slots have sequence {}, and differ", a.seq),
        )),
        (Ok(a), Ok(b)) if (a.volume, a.leg) != (b.volume, b.leg) => Err(Error::new(
            Class::Damaged,
            format!(
                "{object}: reading the record: slot 0 is of leg {} of volume {}, slot 1 of leg {} of volume {}",
                a.leg, a.volume, b.leg, b.volume
            ),
        )),
        (Ok(a), Ok(b)) => Ok(if a.seq >= b.seq { (0, a) } else { (1, b) }),
        (Ok(a), Err(_)) => Ok((0, a)),
        (Err(_), Ok(b)) => Ok((1, b)),
        (Err(a), Err(b)) => {
            Err(Error::new(Class::Damaged, format!("{a}; {}", b.message.replacen(object, "", 1))))
        }
    }
}

#[cfg(test)]
mod tests {
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

    /// Opens, then writes terms 1 to 3; the last one that was answered with success.
    fn three_writes(store: &FrozenStore) -> Result<u64, u64> {
        let (mut store, mut current) = RecordStore::over(store, "r".into()).map_err(|_| 0u64)?;
        for term in 1..=3 {
            current.max_term = term;
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
}
