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
            let b = b.message.replacen(&format!("{object}: "), "", 1);
            Err(Error::new(Class::Damaged, format!("{a}; {b}")))
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
