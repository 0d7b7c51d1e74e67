use super::*;
use crate::base::BlockSize;
use crate::sync::end::Opening;
use crate::sync::ends::FileEnd;
use std::sync::atomic::Ordering;

const SIZE: usize = 1 << 20;

fn header() -> DeltaHeader {
    let id = |byte| Id([byte; 16]);
    DeltaHeader {
        id: id(1),
        volume: Id::NONE,
        base: id(2),
        target: id(3),
        size: SIZE as u64,
        block: BlockSize::DEFAULT,
        partial: true,
    }
}

fn delta() -> AnyDelta {
    let changes = [
        Change::data(100, &[1; 5000], false),
        Change::zero(ByteRange { offset: 65536, len: 200_000 }),
        Change::data(300_000, &vec![2; 70_000], true),
    ];
    let mut bytes = header().encode().to_vec();
    let mut writer = DeltaWriter::new(&header());
    for change in &changes {
        bytes.extend_from_slice(&writer.record(change));
        bytes.extend_from_slice(change.payload());
    }
    bytes.extend(writer.end());
    DeltaReader::new(Box::new(std::io::Cursor::new(bytes)) as Box<dyn Read + Send>, "x").expect("delta")
}

fn new_bytes() -> Vec<u8> {
    let mut bytes = vec![9; SIZE];
    bytes[100..5100].fill(1);
    bytes[65536..265_536].fill(0);
    bytes[300_000..370_000].fill(2);
    bytes
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("target"), vec![9; SIZE]).expect("target");
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn target(&self) -> FileEnd {
        let opening = Opening { write: true, mounted: false, live: false, connections: 1, depth: 2 };
        FileEnd::open(&self.path(), opening).expect("open")
    }

    fn stage(&self) -> Stage {
        Stage::open(self.dir.path(), "target").expect("stage")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("read")
    }

    /// The whole procedure as a run does it; `crash` after a step.
    fn run(&self, crash: Option<Step>) -> Result<Report> {
        let (stage, target, stop) = (self.stage(), self.target(), AtomicBool::new(false));
        let watch = || Watch {
            stop: &stop,
            told: Box::leak(Box::new(|_: &_| {})),
            settle: Box::leak(Box::new(|_: &[ByteRange]| Ok(()))),
        };
        let mut after = |step| {
            if crash == Some(step) { Err(Error::new(Class::Internal, "crash")) } else { Ok(()) }
        };
        if stage.is_unfinished() {
            return stage.redo(&target, watch(), &mut after);
        }
        stage.receive(delta(), 0)?;
        stage.apply(&target, watch(), &mut after)
    }
}

#[test]
fn after_a_crash_at_each_step_the_target_is_old_or_becomes_new_and_can_be_rolled_back() {
    for step in [Step::Staged, Step::Undoable, Step::Decided, Step::Applied] {
        let world = World::new();
        world.run(Some(step)).expect_err("crash");
        let undecided = matches!(step, Step::Staged | Step::Undoable);
        assert_eq!(world.stage().is_unfinished(), !undecided, "{step:?}");
        if undecided {
            assert!(world.bytes() == vec![9; SIZE], "{step:?}: the target was touched before the decision");
        } else if step == Step::Decided {
            // The power went in the middle of the writing: some is new, some is not.
            let mut half = world.bytes();
            half[100..3000].fill(1);
            std::fs::write(world.path(), half).expect("half");
        }
        world.run(None).expect("again").verdict().expect("done");
        assert!(!world.stage().is_unfinished());
        assert!(world.bytes() == new_bytes(), "{step:?}");
        let log = world.stage().undo_log();
        undo(&world.target(), &log, &AtomicBool::new(false)).expect("undo").verdict().expect("done");
        assert!(world.bytes() == vec![9; SIZE], "{step:?}: rolled back");
        assert!(!log.exists());
    }
}

#[test]
fn a_target_that_has_changed_since_is_not_rolled_back() {
    let world = World::new();
    world.run(None).expect("run").verdict().expect("done");
    let log = world.stage().undo_log();
    let changed = |at: usize| {
        let mut bytes = new_bytes();
        bytes[at] ^= 1;
        std::fs::write(world.path(), &bytes).expect("write");
        undo(&world.target(), &log, &AtomicBool::new(false)).map(drop)
    };
    for at in [100, 70_000, 369_999] {
        assert_eq!(changed(at).expect_err("changed").class, Class::Refused, "{at}");
        assert!(log.exists());
    }
    // What the delta did not touch is not undone, and does not count. An undo that was interrupted goes on.
    let mut bytes = new_bytes();
    bytes[500_000] = 77;
    bytes[65536..265_536].fill(9);
    std::fs::write(world.path(), &bytes).expect("write");
    undo(&world.target(), &log, &AtomicBool::new(false)).expect("undo").verdict().expect("done");
    let mut model = vec![9; SIZE];
    model[500_000] = 77;
    assert!(world.bytes() == model);
}

#[test]
fn a_damaged_log_and_a_lack_of_space_are_refused_before_the_target_is_touched() {
    let world = World::new();
    let error = world.stage().receive(delta(), u64::MAX).expect_err("space");
    assert_eq!(error.class, Class::Refused);
    world.run(None).expect("run").verdict().expect("done");
    let log = world.stage().undo_log();
    for file in [log.with_file_name("expect"), log.clone()] {
        let whole = std::fs::read(&file).expect("read");
        let mut bad = whole.clone();
        let at = bad.len() - 40;
        bad[at] ^= 1;
        std::fs::write(&file, bad).expect("write");
        let stop = AtomicBool::new(false);
        assert_eq!(undo(&world.target(), &log, &stop).expect_err("damaged").class, Class::Damaged);
        assert!(!stop.load(Ordering::Relaxed) && world.bytes() == new_bytes());
        std::fs::write(&file, whole).expect("write");
    }
}
