//! How often what goes wrong. The default asks for everything; each rule has a profile that raises the rates of
//! what the rule is there for, so that switching it off shows within a bounded number of seeds.

use crate::plan::{Kind, Moment, Setup, Trouble};
use crate::random::Random;
use mirror::volume::core::{Command, Rule};

/// Rates.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Number of legs, from and to.
    pub legs: (u64, u64),
    /// A leg is remote, of 1000.
    pub remote: u64,
    /// A leg begins out of sync, of 1000.
    pub late_leg: u64,
    /// `min-legs` is 2, of 1000.
    pub min_legs: u64,
    /// Client requests, from and to.
    pub asks: (u64, u64),
    /// Weight of reads (writes have 50).
    pub reads: u64,
    /// Weight of flushes.
    pub flushes: u64,
    /// Requests to the hot cells, of 1000.
    pub hot: u64,
    /// Number of troubles, from and to.
    pub troubles: (u64, u64),
    /// A trouble lies in wait for a moment, of 1000.
    pub ambush: u64,
    /// Weights: process killed, power lost, stopped, far server restarted, connection cut.
    pub crashes: [u64; 5],
    /// A far server restarts while the process is down, of 1000.
    pub restart_meanwhile: u64,
    /// Weights: reads fail, writes fail, flushes fail.
    pub errors: [u64; 3],
    /// Weights: slow, persist fails, strays.
    pub nuisances: [u64; 3],
    /// Durability is `power`, of 1000.
    pub power: u64,
    /// Weights: detach, attach, fail, resync, pause, resume, remove, add, reset.
    pub admin: [u64; 9],
    /// Rotations of the tracker, from and to.
    pub rotations: (u64, u64),
    /// Barriers, from and to.
    pub barriers: (u64, u64),
    /// The volume grows, of 1000.
    pub grows: u64,
    /// Comparisons of the legs, from and to.
    pub verifies: (u64, u64),
    /// A leg is corrupted at the end, and the process may die in the repair; of 1000.
    pub corrupt: (u64, u64),
    /// Longest time a leg is away.
    pub away_ms: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            legs: (2, 4),
            remote: 550,
            late_leg: 120,
            min_legs: 100,
            asks: (200, 280),
            reads: 35,
            flushes: 9,
            hot: 650,
            troubles: (3, 9),
            ambush: 350,
            crashes: [12, 6, 3, 12, 12],
            restart_meanwhile: 300,
            errors: [4, 8, 8],
            nuisances: [5, 3, 2],
            power: 300,
            admin: [3, 3, 2, 4, 1, 1, 2, 3, 1],
            rotations: (2, 10),
            barriers: (0, 2),
            grows: 250,
            verifies: (0, 2),
            corrupt: (150, 400),
            away_ms: 1200,
        }
    }
}

/// The kinds of trouble, for drawing.
#[derive(Clone, Copy)]
enum Draw {
    Crash(bool),
    Stop,
    Restart,
    Cut,
    Errors(Kind),
    Slow,
    BadPersist,
    Strays,
    Detach,
    Attach,
    Fail,
    Resync,
    Pause,
    Resume,
    Remove,
    Add,
    Reset,
}

impl Profile {
    /// The profile that shows this rule fastest.
    pub fn of(rule: Rule) -> Self {
        let base = Self::default();
        match rule {
            // A target from the start, and a source whose cache goes while it is copied.
            Rule::CopyEra | Rule::LastLegSpreads => Self {
                legs: (2, 3),
                remote: 700,
                late_leg: 600,
                troubles: (6, 14),
                ambush: 600,
                crashes: [2, 1, 0, 20, 8],
                errors: [0, 2, 25],
                nuisances: [6, 0, 0],
                away_ms: 300,
                ..base
            },
            // Errors for clients, then the leg that reads were served from leaves or the process dies.
            Rule::ErrorPins => Self {
                legs: (2, 3),
                troubles: (8, 16),
                errors: [2, 40, 2],
                crashes: [10, 4, 1, 8, 12],
                ..base
            },
            // Deaths of the process, far servers that restart meanwhile, flushes that failed just before.
            Rule::ElectionUnion | Rule::SourceRewrite => Self {
                remote: 750,
                crashes: [40, 2, 0, 6, 6],
                restart_meanwhile: 600,
                errors: [0, 2, 20],
                ambush: 600,
                troubles: (5, 12),
                ..base
            },
            // Losses of the last leg's cache, and deaths of the process, between rotations.
            Rule::TrackerReverts | Rule::TrackerElection => Self {
                legs: (2, 3),
                remote: 700,
                crashes: [30, 6, 0, 20, 6],
                restart_meanwhile: 600,
                errors: [0, 2, 20],
                ambush: 500,
                troubles: (5, 12),
                rotations: (10, 30),
                ..base
            },
            Rule::MapSyncFirst | Rule::MapSyncJoins | Rule::MapSyncFails | Rule::CoolHeats => {
                Self { power: 1000, crashes: [8, 20, 3, 8, 8], ..base }
            }
            // Comparisons beside many writes of the same blocks.
            Rule::VerifyLocks | Rule::VerifySecondLook => Self { verifies: (10, 30), hot: 850, ..base },
            Rule::BarrierHolds | Rule::BarrierFlushes => Self { barriers: (10, 20), ..base },
            Rule::GrowMissing | Rule::GrowTracks => Self { grows: 1000, rotations: (10, 30), ..base },
            // Copies under way everywhere.
            Rule::GrowSpoils => Self {
                grows: 1000,
                legs: (3, 4),
                late_leg: 500,
                hot: 100,
                admin: [1, 1, 1, 30, 0, 0, 0, 0, 0],
                troubles: (8, 16),
                ..base
            },
            // Deaths in repairs.
            Rule::VerifyLeavesFirst => Self { corrupt: (1000, 1000), min_legs: 0, ..base },
            Rule::TrackerFirst | Rule::TrackerInFlight => Self { rotations: (10, 30), ..base },
            _ => base,
        }
    }

    /// A trouble.
    pub fn trouble(&self, random: &mut Random, setup: &Setup) -> Trouble {
        let plain = self.plain(random, setup);
        if !random.chance(self.ambush) {
            return plain;
        }
        let moment = random.weighted(&[
            (4, Moment::Flush),
            (3, Moment::Copy),
            (3, Moment::Write),
            (2, Moment::Persist),
            (3, Moment::FailedFlush),
            (2, Moment::Refusal),
        ]);
        let after_ms = if random.chance(700) { random.below(12) } else { random.below(200) };
        Trouble::Ambush { moment, after_ms, then: Box::new(plain) }
    }

    fn plain(&self, random: &mut Random, setup: &Setup) -> Trouble {
        let leg = random.index(setup.legs.len());
        let draw = random.weighted(&[
            (self.crashes[0], Draw::Crash(false)),
            (self.crashes[1], Draw::Crash(true)),
            (self.crashes[2], Draw::Stop),
            (self.crashes[3], Draw::Restart),
            (self.crashes[4], Draw::Cut),
            (self.errors[0], Draw::Errors(Kind::Read)),
            (self.errors[1], Draw::Errors(Kind::Write)),
            (self.errors[2], Draw::Errors(Kind::Flush)),
            (self.nuisances[0], Draw::Slow),
            (self.nuisances[1], Draw::BadPersist),
            (self.nuisances[2], Draw::Strays),
            (self.admin[0], Draw::Detach),
            (self.admin[1], Draw::Attach),
            (self.admin[2], Draw::Fail),
            (self.admin[3], Draw::Resync),
            (self.admin[4], Draw::Pause),
            (self.admin[5], Draw::Resume),
            (self.admin[6], Draw::Remove),
            (self.admin[7], Draw::Add),
            (self.admin[8], Draw::Reset),
        ]);
        let away_ms = if random.chance(500) { random.below(60) } else { random.below(self.away_ms) };
        let for_ms = random.between(20, 800);
        match draw {
            Draw::Crash(power) => {
                let down_ms = if random.chance(600) { random.below(80) } else { random.below(1500) };
                let mut restarts = Vec::new();
                for (ix, leg) in setup.legs.iter().enumerate() {
                    if leg.remote && random.chance(self.restart_meanwhile) {
                        restarts.push(ix);
                    }
                }
                Trouble::Crash { power, down_ms, restarts }
            }
            Draw::Stop => Trouble::Stop { down_ms: random.below(300) },
            Draw::Restart if setup.legs[leg].remote => Trouble::Restart { leg, away_ms },
            Draw::Restart | Draw::Cut => Trouble::Cut { leg, away_ms },
            Draw::Errors(kind) => {
                Trouble::Errors { leg, kind, permille: if random.chance(500) { 1000 } else { 300 }, for_ms }
            }
            Draw::Slow => Trouble::Slow { leg, by: random.between(5, 200), for_ms },
            Draw::BadPersist => Trouble::BadPersist { for_ms },
            Draw::Strays => Trouble::Strays { leg, count: random.between(1, 24) },
            Draw::Detach => Trouble::Admin(Command::Detach(leg)),
            Draw::Pause => Trouble::Admin(Command::Pause(Some(leg))),
            Draw::Resume => Trouble::Admin(Command::Resume(Some(leg))),
            Draw::Remove => Trouble::Remove { leg },
            Draw::Add => Trouble::Add { leg },
            Draw::Reset => Trouble::Admin(Command::Reset(leg)),
            Draw::Attach => Trouble::Admin(Command::Attach(leg)),
            Draw::Fail => Trouble::Admin(Command::Fail(leg)),
            Draw::Resync => Trouble::Admin(Command::Resync {
                leg: if random.chance(500) { Some(leg) } else { None },
                full: random.chance(250),
            }),
        }
    }
}
