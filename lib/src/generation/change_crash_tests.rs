//! A whole leave → mint → rejoin cycle over two records, with a crash at every step, again and again: every
//! state can be classified by the next start, and no mark is lost.

use super::*;
use crate::base::BlockSize;

const B: Id = Id([11; 16]);

/// What is durable, and, known only to the test, whether B lacks anything.
#[derive(Clone, Debug)]
struct World {
    a: Record,
    b: Record,
    /// The map that A keeps of what B lacks: a mark, and the generations of its header.
    marked: bool,
    label: (Id, Id),
    lacks: bool,
    /// Known only to the test: B is part old, part new.
    mixed: bool,
    minted: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    UpToDate,
    Partial,
    Full,
    Refuse,
}

/// One durable step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Leave,
    PrepareMap,
    Mint,
    FinishMap,
    Mark,
    Write,
    TargetBegins,
    FillMap,
    SourceBegins,
    SourceBeginsFull,
    CopyBegins,
    CopyEnds,
    F1,
    F2,
    F3,
}

impl World {
    fn new() -> Self {
        let record = |n: u8| {
            let name = format!("leg{n}").parse().expect("name");
            let mut record = Record::new(Id([1; 16]), Id([n; 16]), name, 1 << 30, BlockSize::DEFAULT);
            record.current.id = Id([100; 16]);
            record
        };
        let label = (Id([100; 16]), Id::NONE);
        Self { a: record(10), b: record(11), marked: false, label, lacks: false, mixed: false, minted: 100 }
    }

    /// What the next start finds, from durable facts only (`promotion.md` section 4, for A and B as they are).
    fn classify(&self) -> Verdict {
        let believed = self.label.0 == self.a.current.id || self.label.1 == self.a.current.id;
        let base = self.a.base_of(B);
        if !self.a.in_sync() || !self.b.base_of(self.a.leg).is_empty() {
            return Verdict::Refuse;
        }
        let known = base.contains(&self.b.current.id)
            || self.b.current.id == self.a.current.id
            || (self.b.sync_from == self.a.current.id && !base.is_empty());
        let equal = self.b.in_sync() && base.is_empty() && self.b.current.id == self.a.current.id;
        if equal && believed && !self.marked {
            Verdict::UpToDate
        } else if !known && !self.a.remembers(self.b.current.id) {
            Verdict::Refuse
        } else if !known || !believed || self.a.peer(B).is_some_and(|p| p.map_state == MapState::AllDirty) {
            Verdict::Full
        } else {
            Verdict::Partial
        }
    }

    fn check(&self, story: &[Step]) {
        let verdict = self.classify();
        assert_ne!(verdict, Verdict::Refuse, "{story:?}: {self:#?}");
        assert!(!self.mixed || !self.b.in_sync(), "a mixture passes for a copy: {story:?}");
        let overflowed = self.a.peer(B).is_some_and(|p| p.map_state == MapState::AllDirty);
        assert!(verdict != Verdict::Full || overflowed, "a full resync for nothing: {story:?}: {self:#?}");
        if self.lacks {
            assert!(
                verdict == Verdict::Full || (verdict == Verdict::Partial && self.marked),
                "{story:?}: {self:#?}"
            );
        }
    }

    fn take(&mut self, step: Step) {
        let next = Id([self.minted + 1; 16]);
        match step {
            Step::Leave => leave(&mut self.b),
            Step::PrepareMap => self.label = (self.a.current.id, next),
            Step::Mint => {
                mint(&mut self.a, next, 0, &[B]).expect("mint");
                self.minted += 1;
            }
            Step::FinishMap => self.label = (self.a.current.id, Id::NONE),
            Step::Mark => self.marked = true,
            Step::Write => self.lacks = true,
            Step::TargetBegins => begin_resync(&mut self.a.clone(), &mut self.b).expect("S1"),
            Step::FillMap => {
                self.marked = true;
                self.label = (self.a.current.id, Id::NONE);
            }
            Step::SourceBegins => begin_resync(&mut self.a, &mut self.b.clone()).expect("S1"),
            Step::SourceBeginsFull => {
                begin_resync(&mut self.a, &mut self.b.clone()).expect("S1");
                map_filled(&mut self.a, B).expect("S1");
            }
            Step::CopyBegins => self.mixed = true,
            Step::CopyEnds => {
                self.mixed = false;
                self.lacks = false;
                self.marked = false;
            }
            Step::F1 => finish_f1(&mut self.a, &self.b).expect("f1"),
            Step::F2 => finish_f2(&self.a, &mut self.b).expect("f2"),
            Step::F3 => finish_f3(&mut self.a, &self.b).expect("f3"),
        }
    }

    /// A serves alone and writes; B may have been told.
    fn alone(&self, told: bool) -> Vec<Step> {
        let mut steps = if told { vec![Step::Leave] } else { vec![] };
        if needs_mint(&self.a, &[B]) {
            steps.extend([Step::PrepareMap, Step::Mint, Step::FinishMap]);
        }
        steps.extend([Step::Mark, Step::Write]);
        steps
    }

    /// B comes back.
    fn rejoin(&self) -> Vec<Step> {
        match self.classify() {
            Verdict::UpToDate | Verdict::Refuse => vec![],
            Verdict::Partial => {
                vec![
                    Step::TargetBegins,
                    Step::SourceBegins,
                    Step::CopyBegins,
                    Step::CopyEnds,
                    Step::F1,
                    Step::F2,
                    Step::F3,
                ]
            }
            Verdict::Full => vec![
                Step::TargetBegins,
                Step::FillMap,
                Step::SourceBeginsFull,
                Step::CopyBegins,
                Step::CopyEnds,
                Step::F1,
                Step::F2,
                Step::F3,
            ],
        }
    }
}

/// From `world`, every course with a crash after every step of it, `depth` crashes deep; whole states counted.
fn explore(world: &World, depth: usize, story: &mut Vec<Step>) -> u64 {
    let mut seen = 0;
    for course in [world.alone(false), world.alone(true), world.rejoin()] {
        let mut now = world.clone();
        let before = story.len();
        for step in &course {
            story.push(*step);
            now.take(*step);
            now.check(story);
            seen += 1;
            if depth > 1 {
                seen += explore(&now, depth - 1, story);
            }
        }
        if course.last() == Some(&Step::F3) {
            assert_eq!(now.classify(), Verdict::UpToDate, "{story:?}");
            assert_eq!(now.a.current, now.b.current);
        }
        story.truncate(before);
    }
    seen
}

#[test]
fn every_crash_point_of_leaving_minting_and_rejoining_can_be_classified_without_losing_marks() {
    let seen = explore(&World::new(), 4, &mut Vec::new());
    assert!(seen > 20_000, "{seen}");
}

#[test]
fn long_histories_of_unfinished_resyncs_never_lose_the_direction() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut full = 0;
    for _ in 0..2000 {
        let mut world = World::new();
        let mut story = Vec::new();
        for _ in 0..20 {
            let course = match random(4) {
                0 => world.alone(false),
                1 => world.alone(true),
                _ => world.rejoin(),
            };
            // Half of the crashes come between f1 and f2, where a base grows.
            let after_f1 = course.iter().position(|s| *s == Step::F1).map(|at| at + 1);
            let end = match (random(4), after_f1) {
                (0, _) => course.len(),
                (1 | 2, Some(end)) => end,
                _ => random(course.len() + 1),
            };
            for step in &course[..end] {
                story.push(*step);
                world.take(*step);
                world.check(&story);
            }
            full += u32::from(world.classify() == Verdict::Full);
        }
        for step in world.rejoin() {
            world.take(step);
        }
        assert_eq!(world.classify(), Verdict::UpToDate, "{story:?}");
    }
    assert!(full > 0, "the histories reach an overflowing base");
}
