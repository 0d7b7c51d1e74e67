//! What a seed makes: the volume, its legs, what clients ask and what goes wrong. A plan is data, so that a
//! failing one can be made shorter and run again.

use crate::profile::Profile;
use crate::random::Random;
use mirror::volume::core::{Ask, Caps, Command, Power, ReadPolicy, ReadWish};

/// Bytes of one cell: what a disk writes whole, in the model.
pub const CELL: u64 = 1024;
/// Cells of one block of the maps.
pub const BLOCK_CELLS: usize = 4;

/// One leg.
#[derive(Clone, Debug)]
pub struct LegPlan {
    /// On another machine, behind a connection.
    pub remote: bool,
    /// For reads.
    pub read: ReadWish,
    /// What it can do.
    pub caps: Caps,
    /// Longest wait for an answer.
    pub timeout_ms: u64,
    /// Attempts.
    pub retries: u32,
    /// Ceiling of resyncs, bytes a second.
    pub rate: Option<u64>,
    /// Whether it begins in sync; otherwise everything is missing there.
    pub in_sync: bool,
    /// Usual latency.
    pub latency_ms: u64,
}

/// The volume and its surroundings.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Size in cells.
    pub cells: usize,
    /// Cells that it may grow by.
    pub room: usize,
    /// The legs in the configured order.
    pub legs: Vec<LegPlan>,
    /// Floor of the in-sync set.
    pub min_legs: usize,
    /// For reads.
    pub policy: ReadPolicy,
    /// Hold time.
    pub hold_ms: u64,
    /// Durability `power`.
    pub power: Option<Power>,
    /// Client connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// At the end a leg is corrupted, found out and repaired.
    pub corrupt: bool,
    /// The process may die in the repair; otherwise clients go on beside it.
    pub corrupt_crash: bool,
}

/// What to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes and zeroes.
    Write,
    /// Flushes.
    Flush,
}

/// A moment to lie in wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A flush is sent to a leg.
    Flush,
    /// A copy is written to a leg.
    Copy,
    /// A client's write is sent to a leg.
    Write,
    /// A state is to be persisted.
    Persist,
    /// A leg's flush has failed.
    FailedFlush,
    /// A client was told of an error.
    Refusal,
}

/// What goes wrong, or what an administrator does.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The process ends (with the machine, if `power`), far servers of these legs restart meanwhile, and it
    /// begins again.
    Crash {
        /// The whole machine.
        power: bool,
        /// Until the process runs again.
        down_ms: u64,
        /// Far servers that lose their cache meanwhile.
        restarts: Vec<usize>,
    },
    /// A clean stop and a new start.
    Stop {
        /// Until the process runs again.
        down_ms: u64,
    },
    /// The far server restarts and loses its cache; nobody says so but the lost connection.
    Restart {
        /// Which leg.
        leg: usize,
        /// Until it can be reached.
        away_ms: u64,
    },
    /// The connection is lost.
    Cut {
        /// Which leg.
        leg: usize,
        /// Until it can be reached.
        away_ms: u64,
    },
    /// Requests fail.
    Errors {
        /// Which leg.
        leg: usize,
        /// Which requests.
        kind: Kind,
        /// How many of 1000.
        permille: u64,
        /// How long.
        for_ms: u64,
    },
    /// A leg gets slow.
    Slow {
        /// Which leg.
        leg: usize,
        /// By this factor.
        by: u64,
        /// How long.
        for_ms: u64,
    },
    /// The state cannot be persisted.
    BadPersist {
        /// How long.
        for_ms: u64,
    },
    /// Completions that nobody waits for.
    Strays {
        /// From which leg.
        leg: usize,
        /// How many.
        count: u64,
    },
    /// Maps cannot be synced.
    BadMaps {
        /// How long.
        for_ms: u64,
    },
    /// An administrator removes a leg.
    Remove {
        /// Which leg.
        leg: usize,
    },
    /// An administrator adds a leg where one was removed.
    Add {
        /// Which leg.
        leg: usize,
    },
    /// Somebody takes the marks of the tracker.
    Rotate {
        /// Until they are confirmed or given back.
        wait_ms: u64,
    },
    /// An administrator makes the volume larger.
    Grow {
        /// By so many cells.
        cells: usize,
    },
    /// Somebody lets nothing be written.
    Barrier {
        /// At most.
        for_ms: u64,
        /// Once it is held.
        hold_ms: u64,
    },
    /// An administrator compares the legs.
    Verify {
        /// The leg to repair from.
        from: Option<usize>,
    },
    /// An administrator's command.
    Admin(Command),
    /// The next time this happens, that follows within milliseconds.
    Ambush {
        /// What to wait for.
        moment: Moment,
        /// So many milliseconds later.
        after_ms: u64,
        /// What follows.
        then: Box<Trouble>,
    },
}

/// One thing that happens at a time.
#[derive(Clone, Debug)]
pub enum Thing {
    /// A client asks.
    Ask {
        /// On which connection.
        connection: usize,
        /// What.
        ask: Ask,
        /// First cell.
        from: usize,
        /// Number of cells.
        count: usize,
    },
    /// Something goes wrong.
    Trouble(Trouble),
}

/// One history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seeds the latencies and fates.
    pub seed: u64,
    /// The volume.
    pub setup: Setup,
    /// What happens, with the time in milliseconds, in order.
    pub things: Vec<(u64, Thing)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, profile: &Profile) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let mut setup = setup(random, profile);
        // From chance of its own: what else happens does not depend on it.
        let mut own = Random::new(seed ^ 0x07A7);
        if own.chance(profile.power) {
            setup.power = Some(Power { run_blocks: own.between(1, 4), cool_ms: own.between(20, 500) });
        }
        let mut things = Vec::new();
        let mut at = 0;
        let gap = random.between(4, 30);
        let hot = random.index(setup.cells - BLOCK_CELLS);
        for _ in 0..random.between(profile.asks.0, profile.asks.1) {
            at += random.below(gap);
            if random.chance(15) {
                at += random.below(1500);
            }
            things.push((at, some_ask(random, &setup, profile, hot)));
        }
        for _ in 0..random.between(profile.troubles.0, profile.troubles.1) {
            let when = random.below(at + 1);
            things.push((when, Thing::Trouble(profile.trouble(random, &setup))));
        }
        for _ in 0..own.between(profile.rotations.0, profile.rotations.1) {
            let wait_ms = if own.chance(600) { own.below(20) } else { own.below(400) };
            things.push((own.below(at + 1), Thing::Trouble(Trouble::Rotate { wait_ms })));
        }
        if setup.power.is_some() {
            for _ in 0..own.below(4) {
                let for_ms = own.between(5, 300);
                things.push((own.below(at + 1), Thing::Trouble(Trouble::BadMaps { for_ms })));
            }
        }
        let mut verifies = Random::new(seed ^ 0x5EE5);
        for _ in 0..verifies.between(profile.verifies.0, profile.verifies.1) {
            let from = verifies.chance(300).then(|| verifies.index(setup.legs.len()));
            things.push((verifies.below(at + 1), Thing::Trouble(Trouble::Verify { from })));
        }
        let mut barriers = Random::new(seed ^ 0xBA22);
        for _ in 0..barriers.between(profile.barriers.0, profile.barriers.1) {
            let (for_ms, hold_ms) = (barriers.between(50, 1500), barriers.below(600));
            things.push((barriers.below(at + 1), Thing::Trouble(Trouble::Barrier { for_ms, hold_ms })));
        }
        let mut grows = Random::new(seed ^ 0x6203);
        if grows.chance(profile.grows) {
            for _ in 0..grows.between(1, 3) {
                let cells = grows.between(1, 12) as usize;
                setup.room += cells;
                things.push((grows.below(at + 1), Thing::Trouble(Trouble::Grow { cells })));
            }
            // Some of it is asked for before it is there, and is not asked then.
            for _ in 0..grows.between(10, 60) {
                let from = setup.cells + grows.index(setup.room);
                let count = (grows.between(1, 6) as usize).min(setup.cells + setup.room - from);
                let ask = grows.weighted(&[(3, Ask::Read), (2, Ask::Write { fua: false })]);
                let connection = grows.index(setup.connections);
                things.push((grows.below(at + 1), Thing::Ask { connection, ask, from, count }));
            }
        }
        setup.corrupt = verifies.chance(profile.corrupt.0);
        setup.corrupt_crash = verifies.chance(profile.corrupt.1);
        things.sort_by_key(|t| t.0);
        Self { seed, setup, things }
    }
}

fn setup(random: &mut Random, profile: &Profile) -> Setup {
    let count = random.between(profile.legs.0, profile.legs.1) as usize;
    let fast_zero = random.chance(300);
    let legs = (0..count)
        .map(|ix| {
            let remote = random.chance(profile.remote);
            LegPlan {
                remote,
                read: random.weighted(&[(6, ReadWish::Allow), (1, ReadWish::Prefer), (1, ReadWish::Avoid)]),
                caps: Caps { flush: true, fua: random.chance(500), fast_zero, extents: random.chance(700) },
                timeout_ms: random.between(150, 1500),
                retries: random.below(4) as u32,
                rate: random.chance(100).then(|| random.between(20, 400) << 10),
                in_sync: ix == 0 || !random.chance(profile.late_leg),
                latency_ms: if remote { random.between(1, 16) } else { random.between(1, 4) },
            }
        })
        .collect();
    Setup {
        cells: random.between(24, 64) as usize,
        room: 0,
        legs,
        min_legs: if random.chance(profile.min_legs) { 2 } else { 1 },
        policy: random.weighted(&[
            (1, ReadPolicy::Local),
            (1, ReadPolicy::LeastPending),
            (1, ReadPolicy::RoundRobin),
        ]),
        hold_ms: random.between(60, 600),
        power: None,
        connections: random.between(2, 4) as usize,
        depth: random.between(1, 5) as usize,
        corrupt: false,
        corrupt_crash: false,
    }
}

fn some_ask(random: &mut Random, setup: &Setup, profile: &Profile, hot: usize) -> Thing {
    let fua = random.chance(150);
    let write = Ask::Write { fua };
    let fast = random.chance(300) && setup.legs.iter().all(|l| l.caps.fast_zero);
    let zero = Ask::Zero { fua, no_hole: random.chance(500), fast };
    let extents = setup.legs.iter().all(|l| l.caps.extents);
    let ask = random.weighted(&[
        (profile.reads, Ask::Read),
        (50, write),
        (8, zero),
        (profile.flushes, Ask::Flush),
        (if extents { 5 } else { 0 }, Ask::Extents),
    ]);
    let count = random.between(1, 6) as usize;
    let from = if random.chance(profile.hot) {
        hot + random.index(BLOCK_CELLS + 2)
    } else {
        random.index(setup.cells)
    };
    let from = from.min(setup.cells - 1);
    let count = count.min(setup.cells - from);
    let (from, count) = if ask == Ask::Flush { (0, 0) } else { (from, count) };
    Thing::Ask { connection: random.index(setup.connections), ask, from, count }
}
