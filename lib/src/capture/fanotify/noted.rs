//! What was noted of the accesses to files, from one question of the recorder to the next: a generation.
//!
//! An access is noted before it happens. It may happen, or go on, in a later generation than it was noted in; so
//! what may still be under way when a generation ends is noted in the next one too:
//!
//! - accesses of threads that are still in the system call that they were noted in;
//! - accesses whose end nobody sees (`io_uring`, `io_submit`), for one generation and
//!   [`limits::RANGES_LASTING_MS`] at least;
//! - mappings.
//!
//! All of that ends when the recorder found that nobody could write the file at a moment after the last of them
//! ([`Book::settle`]); only what is truncated by its path, or opened, needs nobody who has it open.

use super::access::{Change, Effect, Judged};
use crate::base::limits;
use crate::capture::live::MAPPED;
use crate::fslog::state::NO_LIMIT;
use crate::fslog::{ObjectId, Record};
use std::collections::{HashMap, VecDeque};

/// Which inode a file is, as long as it lives: device and number.
pub type Key = (u64, u64);

/// What a thread did last.
#[derive(Debug)]
struct Operation {
    /// The line of `/proc/TID/syscall`.
    call: String,
    change: Change,
}

/// What was noted of one file.
#[derive(Debug)]
struct Noted {
    number: ObjectId,
    /// The last access that changed anything.
    last: u64,
    now: Change,
    mapped: bool,
    operations: HashMap<i32, Operation>,
    /// Accesses without an end in this generation, and in earlier ones with the time when those ended.
    lasting: Change,
    earlier: VecDeque<(u64, Change)>,
}

/// All files.
#[derive(Debug, Default)]
pub struct Book {
    files: HashMap<Key, Noted>,
    numbers: HashMap<ObjectId, Key>,
    /// Accesses that changed anything: a clock.
    accesses: u64,
}

impl Book {
    /// A file is noted from now on. False if another one has its number.
    pub fn add(&mut self, key: Key, number: ObjectId) -> bool {
        if self.numbers.get(&number).is_some_and(|known| *known != key) {
            return false;
        }
        // An inode number that is used again is that of another file; the one before is gone.
        if let Some(before) = self.files.get(&key).filter(|noted| noted.number != number) {
            self.numbers.remove(&before.number);
            self.files.remove(&key);
        }
        self.numbers.insert(number, key);
        self.files.entry(key).or_insert_with(|| Noted {
            number,
            last: 0,
            now: Change::default(),
            mapped: false,
            operations: HashMap::new(),
            lasting: Change::default(),
            earlier: VecDeque::new(),
        });
        true
    }

    /// A file is gone.
    pub fn remove(&mut self, number: ObjectId) {
        if let Some(key) = self.numbers.remove(&number) {
            self.files.remove(&key);
        }
    }

    /// Notes an access. One to a file that is not known is of no interest.
    pub fn note(&mut self, key: Key, thread: i32, call: &str, judged: &Judged) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if judged.effect == Effect::Nothing {
            return;
        }
        self.accesses += 1;
        file.last = self.accesses;
        let Effect::Bytes(change) = &judged.effect else {
            file.mapped = true;
            return;
        };
        file.now.join(change);
        if judged.lasting {
            file.lasting.join(change);
            return;
        }
        // Two accesses of one call belong together.
        match file.operations.get_mut(&thread) {
            Some(operation) if operation.call == call => operation.change.join(change),
            _ => {
                let operation = Operation { call: call.to_owned(), change: change.clone() };
                file.operations.insert(thread, operation);
            }
        }
        if file.operations.len() > limits::RANGES_THREADS {
            for (_, operation) in file.operations.drain() {
                file.lasting.join(&operation.change);
            }
        }
    }

    /// Events were lost: everything may have changed.
    pub fn note_all(&mut self) {
        self.accesses += 1;
        for file in self.files.values_mut() {
            file.last = self.accesses;
            file.now.join(&Change::from(0));
            file.lasting.join(&Change::from(0));
        }
    }

    /// Ends a generation at a time in milliseconds: what was noted in it, and the number of the last access.
    /// `under_way` says whether a thread may still be in a system call.
    pub fn take(&mut self, time: u64, under_way: impl Fn(i32, &str) -> bool) -> (Vec<Record>, u64) {
        let mut records = Vec::new();
        for file in self.files.values_mut() {
            let now = std::mem::take(&mut file.now);
            records.extend(now.records(file.number));
            if file.mapped {
                records.push(Record::All { id: file.number, why: MAPPED });
            }
            file.operations.retain(|thread, operation| under_way(*thread, &operation.call));
            file.earlier.retain(|(ended, _)| time.saturating_sub(*ended) < limits::RANGES_LASTING_MS);
            let lasting = std::mem::take(&mut file.lasting);
            if !lasting.is_nothing() {
                file.earlier.push_back((time, lasting));
            }
            while file.earlier.len() > limits::RANGES_GENERATIONS {
                if let Some((_, oldest)) = file.earlier.pop_front()
                    && let Some((_, next)) = file.earlier.front_mut()
                {
                    next.join(&oldest);
                }
            }
            let earlier = file.earlier.iter().map(|(_, change)| change);
            let changes = file.operations.values().map(|operation| &operation.change);
            changes.chain(earlier).for_each(|change| file.now.join(change));
        }
        (records, self.accesses)
    }

    /// Nobody could write a file at a moment after this access: what is noted of earlier ones has happened, or will
    /// not.
    pub fn settle(&mut self, number: ObjectId, access: u64) {
        let file = self.numbers.get(&number).and_then(|key| self.files.get_mut(key));
        let Some(file) = file.filter(|file| file.last <= access) else { return };
        file.mapped = false;
        file.lasting = Change::default();
        file.earlier.clear();
        file.operations.retain(|_, operation| operation.change.limit != NO_LIMIT);
        file.now = Change::default();
        file.operations.values().for_each(|operation| file.now.join(&operation.change));
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }
}

#[cfg(test)]
#[path = "noted_tests.rs"]
mod tests;
