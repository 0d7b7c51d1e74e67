//! Nine rules by hand: each a short history, with the one line that falls when just that rule is switched off.
//!
//! A history is a table of lines: what happens, what is seen, and (once) what the rule promises. With all rules on
//! every line holds; the last test switches each rule off and looks that the promise, and no line before it, falls.

use super::tests::{BLOCK, Rig};
use super::*;

/// What happens to the core, or what must be seen of it.
enum Line {
    /// A client writes the block.
    Write(u64),
    /// The same with FUA.
    Force(u64),
    /// A client reads the block.
    Read(u64),
    /// A client flushes.
    Flush,
    /// The leg has done the oldest request of this kind.
    Did(LegIx, &'static str),
    /// The same with an error.
    Failed(LegIx, &'static str),
    /// A connection of the leg is there, is lost, cannot be had.
    Up(LegIx),
    Down(LegIx),
    Unreachable(LegIx),
    /// What was to be durable is.
    Persisted,
    /// It holds, with this rule or without.
    See(Fact),
    /// It holds because of the rule.
    Promise(Fact),
}

enum Fact {
    /// Exactly these blocks.
    Missing(LegIx, &'static [u64]),
    /// The leg has been asked for this, or has not, and not answered.
    Asked(LegIx, &'static str),
    Idle(LegIx, &'static str),
    /// The request of this number (from 1 on) has been answered so, or not at all.
    Told(Token, Answer),
    Untold(Token),
    State(LegIx, LegState),
}

use Fact::{Asked, Idle, Missing, State, Told, Untold};
use Line::{Did, Down, Failed, Flush, Force, Persisted, Promise, Read, See, Unreachable, Up, Write as Put};

/// Legs at the beginning.
enum Before {
    /// Two that are up to date, the second one remote.
    Pair,
    /// One that is, and one that lacks block 9; both are local, the second one is not connected.
    Target,
}

struct History {
    rule: Rule,
    before: Before,
    lines: &'static [Line],
}

const MARK_SKIPPED: History = History {
    rule: Rule::MarkSkipped,
    before: Before::Pair,
    lines: &[
        Down(1),
        Unreachable(1),
        Persisted,
        See(Missing(1, &[])),
        Put(3),
        Did(0, "write"),
        See(Told(1, Answer::Done)),
        Promise(Missing(1, &[3])),
    ],
};

const LOSS_VOIDS_CACHE: History = History {
    rule: Rule::LossVoidsCache,
    before: Before::Pair,
    lines: &[
        Put(3),
        Did(0, "write"),
        Did(1, "write"),
        See(Told(1, Answer::Done)),
        Down(1),
        Promise(Missing(1, &[3])),
        See(State(1, LegState::Outdated)),
    ],
};

const FAILED_FLUSH_VOIDS_CACHE: History = History {
    rule: Rule::FailedFlushVoidsCache,
    before: Before::Pair,
    lines: &[
        Put(3),
        Did(0, "write"),
        Did(1, "write"),
        Flush,
        Did(0, "flush"),
        Failed(1, "flush"),
        Promise(Missing(1, &[3])),
        See(Untold(2)),
        Persisted,
        See(Told(2, Answer::Done)),
    ],
};

/// The block is read from the source, which then loses its connection, and perhaps what it had just shown.
const COPY_ERA: History = History {
    rule: Rule::CopyEra,
    before: Before::Target,
    lines: &[
        Put(9),
        Did(0, "write"),
        Up(1),
        Persisted,
        Did(0, "read"),
        See(Asked(1, "write")),
        Down(0),
        Did(1, "write"),
        Promise(Missing(1, &[9])),
    ],
};

const COPY_WAITS: History = History {
    rule: Rule::CopyWaits,
    before: Before::Target,
    lines: &[
        Put(9),
        See(Idle(1, "write")),
        Up(1),
        Persisted,
        Promise(Idle(0, "read")),
        Did(0, "write"),
        Did(0, "read"),
        Did(1, "write"),
        See(Missing(1, &[])),
    ],
};

const NO_MISSING_READ: History = History {
    rule: Rule::NoMissingRead,
    before: Before::Target,
    lines: &[Up(1), Persisted, Read(9), Promise(Idle(1, "read")), See(Asked(0, "read"))],
};

const FUA_FLUSHES: History = History {
    rule: Rule::FuaFlushes,
    before: Before::Pair,
    lines: &[
        Force(3),
        Did(0, "write"),
        Did(1, "write"),
        Promise(Untold(1)),
        Did(0, "flush"),
        See(Untold(1)),
        Did(1, "flush"),
        See(Told(1, Answer::Done)),
    ],
};

/// The target has the new bytes, the source may have the old ones; the client was told of an error.
const ERROR_PINS: History = History {
    rule: Rule::ErrorPins,
    before: Before::Target,
    lines: &[
        Up(1),
        Persisted,
        Put(3),
        Failed(0, "write"),
        See(Untold(1)),
        Did(1, "write"),
        See(Told(1, Answer::Failed(Fault::Io))),
        Promise(Missing(1, &[3, 9])),
        See(State(0, LegState::UpToDate)),
    ],
};

/// The target has the new bytes; the source, whose bytes every read shows, may have gone back to the old ones.
const LAST_LEG_SPREADS: History = History {
    rule: Rule::LastLegSpreads,
    before: Before::Target,
    lines: &[
        Up(1),
        Persisted,
        Put(3),
        Did(0, "write"),
        Did(1, "write"),
        See(Told(1, Answer::Done)),
        See(Missing(1, &[9])),
        Down(0),
        See(State(0, LegState::UpToDate)),
        Promise(Missing(1, &[3, 9])),
    ],
};

impl Before {
    fn rig(&self) -> Rig {
        let good = LegRecord { in_sync: true, ..LegRecord::default() };
        let out = LegRecord { inconsistent: true, ..LegRecord::default() };
        match self {
            Self::Pair => Rig::pair(),
            Self::Target => {
                let mut rig = Rig::new(&[false, false], &[good, out], &[&[], &[9]], true);
                rig.up(0);
                rig.persisted();
                rig.tick(1);
                assert!(rig.core.status().serving);
                rig.out.clear();
                rig
            }
        }
    }
}

impl Fact {
    fn holds(&self, rig: &Rig) -> bool {
        let asked = |leg: LegIx, what: &str| {
            rig.out.iter().any(|action| match action {
                Action::Read { leg: to, .. } => what == "read" && *to == leg,
                Action::Write { leg: to, .. } => what == "write" && *to == leg,
                Action::Flush { leg: to, .. } => what == "flush" && *to == leg,
                _ => false,
            })
        };
        match *self {
            Missing(leg, blocks) => rig.core.legs[leg].missing.iter().eq(blocks.iter().copied()),
            Asked(leg, what) => asked(leg, what),
            Idle(leg, what) => !asked(leg, what),
            Told(token, answer) => rig.replied(token) == Some(answer),
            Untold(token) => rig.replied(token).is_none(),
            State(leg, state) => rig.core.leg_state(leg) == Some(state),
        }
    }
}

impl History {
    /// Plays it; the first line that does not hold, by number, and whether it is the promise.
    fn play(&self, rules: Rules) -> Result<(), (usize, bool)> {
        let mut rig = self.before.rig();
        rig.core.rules = rules;
        for (number, line) in self.lines.iter().enumerate() {
            let mut answer = |leg, what, result| {
                let io = rig.take(leg, what).ok_or((number, false))?;
                rig.finish(leg, io, result);
                Ok(())
            };
            match line {
                Did(leg, what) => answer(*leg, what, Ok(()))?,
                Failed(leg, what) => answer(*leg, what, Err(Fault::Io))?,
                Put(block) => _ = rig.write(*block),
                Force(block) => _ = rig.ask(Ask::Write { fua: true }, *block),
                Read(block) => _ = rig.ask(Ask::Read, *block),
                Flush => _ = rig.ask(Ask::Flush, 0),
                Up(leg) => rig.up(*leg),
                Down(leg) => rig.down(*leg),
                Unreachable(leg) => rig.step(Event::Unreachable { leg: *leg }),
                Persisted => rig.persisted(),
                See(fact) if !fact.holds(&rig) => return Err((number, false)),
                Promise(fact) if !fact.holds(&rig) => return Err((number, true)),
                See(_) | Promise(_) => {}
            }
        }
        Ok(())
    }

    fn holds(&self) {
        assert_eq!(self.play(Rules::default()), Ok(()), "{:?}: the line of this number falls", self.rule);
        assert_eq!(BLOCK, BlockSize::DEFAULT.bytes(), "the histories count in blocks of this size");
    }
}

#[test]
fn a_write_that_is_not_sent_to_a_leg_is_missing_there() {
    MARK_SKIPPED.holds();
}

#[test]
fn what_was_not_flushed_is_missing_when_the_connection_is_lost() {
    LOSS_VOIDS_CACHE.holds();
}

#[test]
fn what_was_not_flushed_is_missing_when_the_flush_fails() {
    FAILED_FLUSH_VOIDS_CACHE.holds();
}

#[test]
fn a_copy_whose_source_lost_its_connection_meanwhile_clears_nothing() {
    COPY_ERA.holds();
}

#[test]
fn a_copy_reads_its_source_only_after_the_writes_that_are_in_flight_there() {
    COPY_WAITS.holds();
}

#[test]
fn a_read_never_goes_to_a_leg_that_is_being_copied_to() {
    NO_MISSING_READ.holds();
}

#[test]
fn a_forced_write_is_answered_when_every_leg_has_flushed_it() {
    FUA_FLUSHES.holds();
}

#[test]
fn a_write_that_ended_in_an_error_is_missing_on_all_legs_but_the_one_that_is_read() {
    ERROR_PINS.holds();
}

#[test]
fn what_the_last_good_leg_may_have_lost_is_missing_on_the_others() {
    LAST_LEG_SPREADS.holds();
}

#[cfg(feature = "simulate")]
#[test]
fn each_of_these_histories_falls_at_its_promise_when_just_its_rule_is_switched_off() {
    let histories = [
        MARK_SKIPPED,
        LOSS_VOIDS_CACHE,
        FAILED_FLUSH_VOIDS_CACHE,
        COPY_ERA,
        COPY_WAITS,
        NO_MISSING_READ,
        FUA_FLUSHES,
        ERROR_PINS,
        LAST_LEG_SPREADS,
    ];
    for history in histories {
        let fell = history.play(Rules::without(history.rule));
        assert!(matches!(fell, Err((_, true))), "{:?} is not guarded: {fell:?}", history.rule);
        // Without an error that is owed nothing is known to be lost, so that nothing spreads either.
        let wider = (Rule::LastLegSpreads, Rule::LastLegOwesError);
        let alone = |other: &Rule| *other != history.rule && (history.rule, *other) != wider;
        for other in Rule::ALL.into_iter().filter(alone) {
            let fell = history.play(Rules::without(other));
            assert!(!matches!(fell, Err((_, true))), "{:?} is blamed for {other:?}", history.rule);
        }
    }
}
