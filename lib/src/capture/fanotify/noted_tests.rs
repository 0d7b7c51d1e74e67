use super::*;
use crate::fslog::State;

const FILE: ObjectId = ObjectId(9);
const KEY: Key = (1, 2);

fn book() -> Book {
    let mut book = Book::default();
    assert!(book.add(KEY, FILE));
    book
}

fn bytes(start: u64, lasting: bool) -> Judged {
    Judged { effect: Effect::Bytes(Change::range(start..start + 1)), lasting }
}

/// The generation: first bytes of ranges, limit, whether all of it.
fn taken(book: &mut Book, time: u64, busy: &[(i32, &str)]) -> (Vec<u64>, u64, bool) {
    let (records, _) = book.take(time, |thread, call| busy.contains(&(thread, call)));
    let mut state = State::default();
    for record in &records {
        state.add(record);
    }
    let file = state.files.remove(&FILE).unwrap_or_default();
    (file.ranges.iter().map(|range| range.start).collect(), file.limit, file.why != 0)
}

const NONE: u64 = u64::MAX;

#[test]
fn what_is_under_way_is_in_the_next_generation_too() {
    let mut book = book();
    book.note(KEY, 5, "18 a", &bytes(10, false));
    book.note(KEY, 6, "18 b", &bytes(20, false));
    book.note(KEY, 6, "18 c", &bytes(30, false));
    let busy = [(6, "18 c")];
    assert_eq!(taken(&mut book, 0, &busy), (vec![10, 20, 30], NONE, false));
    assert_eq!(taken(&mut book, 0, &busy), (vec![30], NONE, false));
    assert_eq!(taken(&mut book, 0, &[]), (vec![30], NONE, false), "it may have ended in this one");
    assert_eq!(taken(&mut book, 0, &busy), (vec![], NONE, false));
    // Two accesses of one call, such as a copy within a file.
    book.note(KEY, 6, "326 x", &bytes(40, false));
    book.note(KEY, 6, "326 x", &bytes(50, false));
    let busy = [(6, "326 x")];
    taken(&mut book, 0, &busy);
    assert_eq!(taken(&mut book, 0, &busy), (vec![40, 50], NONE, false));
}

#[test]
fn what_has_no_end_is_in_later_generations_until_it_is_old_or_nobody_writes() {
    let mut book = book();
    let old = limits::RANGES_LASTING_MS;
    book.note(KEY, 5, "426", &bytes(10, true));
    assert_eq!(taken(&mut book, 0, &[]), (vec![10], NONE, false));
    book.note(KEY, 5, "426", &bytes(20, true));
    assert_eq!(taken(&mut book, old - 1, &[]), (vec![10, 20], NONE, false));
    assert_eq!(taken(&mut book, old, &[]), (vec![10, 20], NONE, false), "and the generation after");
    assert_eq!(taken(&mut book, old, &[]), (vec![20], NONE, false));
    let (_, last) = book.take(old, |_, _| false);
    book.settle(FILE, last);
    assert_eq!(taken(&mut book, old, &[]), (vec![], NONE, false));
    // Many generations within the time: none is forgotten.
    for at in 0..40 {
        book.note(KEY, 5, "426", &bytes(100 + 2 * at, true));
        taken(&mut book, old + at, &[]);
    }
    assert_eq!(taken(&mut book, old + 40, &[]).0.len(), 40);
}

#[test]
fn a_mapping_is_all_of_the_file_until_nobody_writes() {
    let mut book = book();
    book.note(KEY, 5, "9", &Judged { effect: Effect::Mapped, lasting: false });
    for _ in 0..3 {
        assert_eq!(taken(&mut book, 0, &[]), (vec![], 0, true));
    }
    let (_, last) = book.take(0, |_, _| false);
    // Mapped again between the question and the look: that look says nothing.
    book.note(KEY, 5, "9", &Judged { effect: Effect::Mapped, lasting: false });
    book.settle(FILE, last);
    assert!(taken(&mut book, 0, &[]).2);
    let (_, last) = book.take(0, |_, _| false);
    book.settle(FILE, last);
    assert!(!taken(&mut book, 0, &[]).2);
}

#[test]
fn who_truncates_needs_nobody_who_has_it_open() {
    let mut book = book();
    let truncate = Judged { effect: Effect::Bytes(Change::from(7)), lasting: false };
    book.note(KEY, 5, "76 x", &truncate);
    let (_, last) = book.take(0, |_, _| true);
    book.settle(FILE, last);
    assert_eq!(taken(&mut book, 0, &[]), (vec![], 7, false));
}

#[test]
fn a_number_that_is_used_again_is_another_file() {
    let mut book = book();
    book.note(KEY, 5, "18", &bytes(10, false));
    assert!(book.add(KEY, ObjectId(10)));
    assert_eq!(taken(&mut book, 0, &[]), (vec![], NONE, false));
    assert!(!book.add((1, 3), ObjectId(10)), "two files of one number");
    book.note((8, 8), 5, "18", &bytes(10, false));
    book.remove(ObjectId(10));
    assert_eq!(book.count(), 0);
    // More threads than are kept apart.
    assert!(book.add(KEY, FILE));
    for thread in 0..1100 {
        book.note(KEY, thread, "18", &bytes(2 * u64::from(thread.unsigned_abs()), false));
    }
    let all = taken(&mut book, 0, &[]).0.len();
    assert!(taken(&mut book, 0, &[]).0.len() > limits::RANGES_THREADS && all > limits::RANGES_THREADS);
    book.note_all();
    assert_eq!(taken(&mut book, 0, &[]).1, 0);
}
