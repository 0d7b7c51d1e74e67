use super::super::copy::Sink;
use super::super::end::{Facts, Piece};
use super::super::pace::Pace;
use super::super::plan::{Method, Zeroes};
use super::*;
use crate::base::BlockSize;
use crate::map::BlockSet;

const BLOCK: u64 = 65536;
const SIZE: u64 = 40 * BLOCK + 1000;

/// A device in memory that can be told to fail.
#[derive(Debug)]
struct Memory {
    facts: Facts,
    bytes: Mutex<Vec<u8>>,
    /// What the last good flush found.
    durable: Mutex<Vec<u8>>,
    bad: Vec<u64>,
    gone_after: Option<usize>,
    bad_flush: bool,
    calls: std::sync::atomic::AtomicUsize,
}

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        let facts = Facts {
            name: "memory".into(),
            size: bytes.len() as u64,
            identity: None,
            read_only: false,
            in_use: None,
            live: false,
            flushes: true,
            zeroes: true,
            tells_zeroes: false,
            hashes: false,
            takes_files: false,
            align: 1,
            request_max: 100_000,
            lanes: 4,
        };
        let durable = Mutex::new(bytes.clone());
        let bytes = Mutex::new(bytes);
        Self { facts, bytes, durable, bad: Vec::new(), gone_after: None, bad_flush: false, calls: 0.into() }
    }

    fn check(&self, at: u64, len: u64) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = self.gone() {
            return Err(error);
        }
        if self.bad.iter().any(|bad| at < (bad + 1) * BLOCK && bad * BLOCK < at + len) {
            return Err(Error::new(Class::Io, format!("memory: {at}+{len}: bad")));
        }
        Ok(())
    }
}

impl End for Memory {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        assert!(buf.len() <= self.facts.request_max);
        let len = buf.len();
        buf.copy_from_slice(&lock(&self.bytes)[offset as usize..][..len]);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        assert!(data.len() <= self.facts.request_max);
        lock(&self.bytes)[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero(&self, range: ByteRange, _punch: bool) -> Result<()> {
        self.check(range.offset, range.len)?;
        lock(&self.bytes)[range.offset as usize..range.end() as usize].fill(0);
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        if let Some(error) = self.gone() {
            return Err(error);
        }
        if self.bad_flush {
            return Err(Error::new(Class::Io, "memory: flushing: bad"));
        }
        lock(&self.durable).clone_from(&lock(&self.bytes));
        Ok(())
    }
    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()> {
        pieces.push(Piece { range, zero: false });
        Ok(())
    }
    fn gone(&self) -> Option<Error> {
        let gone = self.gone_after.is_some_and(|after| self.calls.load(Ordering::Relaxed) > after);
        gone.then(|| Error::new(Class::Connect, "memory: gone"))
    }
}

fn pattern(seed: u64) -> Vec<u8> {
    (0..SIZE).map(|at| if at / BLOCK % 5 == 4 { 0 } else { (at / 1000 * 7 + seed) as u8 | 1 }).collect()
}

/// Runs a copy; what was settled, and how it ended.
fn copy(source: &Memory, target: &Memory, method: Method, only: Option<BlockSet>) -> (BlockSet, Report) {
    pass(source, target, method, only, Mode::Perform)
}

fn pass(
    source: &Memory,
    target: &Memory,
    method: Method,
    only: Option<BlockSet>,
    mode: Mode,
) -> (BlockSet, Report) {
    let block = BlockSize::DEFAULT;
    let plan = Plan { size: SIZE, block, method, only, zeroes: Zeroes::Detect };
    let copier = Copier::new(&plan, Some(source), Sink::Device(target), mode, Pace::default());
    let mut settled = BlockSet::new(block.count(SIZE));
    let stop = AtomicBool::new(false);
    let report = run(
        &plan,
        Supply::Device(Feed::new(&plan, source, 300_000, 1 << 20)),
        &copier,
        4,
        Watch {
            stop: &stop,
            told: &mut |_| {},
            settle: &mut |ranges| {
                for range in ranges {
                    settled.insert_range(block.cover(range));
                }
                Ok(())
            },
        },
    );
    (settled, report)
}

/// No block is settled whose durable bytes differ.
#[track_caller]
fn assert_settled_is_durable(source: &Memory, target: &Memory, settled: &BlockSet) {
    let (a, b) = (lock(&source.bytes), lock(&target.durable));
    for block in settled.iter() {
        let range = BlockSize::DEFAULT.range(&(block..block + 1), SIZE);
        let range = range.offset as usize..range.end() as usize;
        assert!(a[range.clone()] == b[range], "block {block} is called done and differs");
    }
}

#[test]
fn a_copy_makes_them_equal_and_settles_everything() {
    for method in [Method::Copy, Method::Compare] {
        let (source, target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
        let (settled, report) = copy(&source, &target, method, None);
        report.verdict().expect("done");
        assert!(settled.is_full());
        assert_eq!(*lock(&source.bytes), *lock(&target.durable));
        assert_eq!((report.standing.durable, report.total), (SIZE, SIZE));
        let counts = report.standing.counts;
        assert_eq!(counts.written + counts.zeroed + counts.skipped, SIZE, "{counts:?}");
        assert_eq!(counts.read, SIZE);
    }
}

#[test]
fn only_marked_blocks_are_touched() {
    let (source, target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
    let mut only = BlockSet::new(41);
    for at in [0, 3, 4, 17, 40] {
        only.insert(at);
    }
    let (settled, report) = copy(&source, &target, Method::Copy, Some(only.clone()));
    report.verdict().expect("done");
    assert_eq!(settled, only);
    let before = pattern(2);
    for block in (0..41).filter(|block| !only.contains(*block)) {
        let range =
            block as usize * BLOCK as usize..((block as usize + 1) * BLOCK as usize).min(SIZE as usize);
        assert_eq!(lock(&target.bytes)[range.clone()], before[range], "block {block}");
    }
}

#[test]
fn one_bad_block_does_not_stop_the_others_and_is_not_settled() {
    for (bad_source, bad_target) in [(vec![7], vec![]), (vec![], vec![7, 40])] {
        let (mut source, mut target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
        (source.bad, target.bad) = (bad_source.clone(), bad_target.clone());
        let (settled, report) = copy(&source, &target, Method::Copy, None);
        let bad = bad_source.len() + bad_target.len();
        assert_eq!(report.verdict().expect_err("bad").class, Class::Partial);
        assert_eq!((settled.count(), report.failed), (41 - bad as u64, bad as u64));
        assert!(!settled.contains(7));
        assert_settled_is_durable(&source, &target, &settled);
    }
}

#[test]
fn nothing_is_settled_by_a_flush_that_failed() {
    let (source, mut target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
    target.bad_flush = true;
    let (settled, report) = copy(&source, &target, Method::Copy, None);
    assert!(settled.is_empty(), "{settled:?}");
    assert_eq!((report.verdict().expect_err("flush").class, report.standing.durable), (Class::Io, 0));
}

#[test]
fn an_end_that_goes_away_ends_the_run_and_settles_nothing_that_was_not_flushed() {
    for after in [0, 1, 5, 20] {
        let (source, mut target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
        target.gone_after = Some(after);
        let (settled, report) = copy(&source, &target, Method::Copy, None);
        assert_eq!(report.verdict().expect_err("gone").class, Class::Connect);
        assert_settled_is_durable(&source, &target, &settled);
        assert!(settled.is_empty());
    }
}

#[test]
fn a_stop_leaves_what_is_settled_and_durable() {
    let (source, target) = (Memory::new(pattern(1)), Memory::new(pattern(2)));
    let block = BlockSize::DEFAULT;
    let plan = Plan { size: SIZE, block, method: Method::Copy, only: None, zeroes: Zeroes::Detect };
    let pace = Pace::new(Some(4 << 20));
    let copier = Copier::new(&plan, Some(&source), Sink::Device(&target), Mode::Perform, pace);
    let (stop, mut settled) = (AtomicBool::new(false), BlockSet::new(block.count(SIZE)));
    let report = run(
        &plan,
        Supply::Device(Feed::new(&plan, &source, BLOCK, 1 << 20)),
        &copier,
        2,
        Watch {
            stop: &stop,
            told: &mut |standing| stop.store(standing.counts.written > 0, Ordering::Relaxed),
            settle: &mut |ranges| {
                for range in ranges {
                    settled.insert_range(block.cover(range));
                }
                Ok(())
            },
        },
    );
    assert!(report.stopped && !settled.is_empty() && !settled.is_full());
    assert_settled_is_durable(&source, &target, &settled);
    assert_eq!(report.standing.durable, settled.bytes(SIZE, block));
}

#[test]
fn what_is_read_back_and_differs_is_an_error_of_that_range_and_changes_nothing() {
    let source = Memory::new(pattern(1));
    let (_, report) = pass(&source, &Memory::new(pattern(1)), Method::Copy, None, Mode::Verify);
    assert!(report.verdict().is_ok());
    let mut bytes = pattern(1);
    bytes[(7 * BLOCK + 5) as usize] ^= 1;
    let target = Memory::new(bytes.clone());
    let (_, report) = pass(&source, &target, Method::Copy, None, Mode::Verify);
    assert!(report.verdict().is_err(), "it differs");
    let texts: Vec<_> = report.failures.iter().map(|error| &error.message).collect();
    assert!(texts.iter().any(|text| text.contains("reading back 458752+65536")), "{texts:?}");
    assert!(*lock(&target.bytes) == bytes, "it was written");
}
