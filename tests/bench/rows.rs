//! The rows: what is run, against whom, and what is asked of the ratio.

use crate::Options;
use crate::load::Load;
use crate::peers::{self, Far, Peer};
use crate::support::Dir;

/// One row of the table.
pub struct Row {
    /// To choose it by.
    pub name: &'static str,
    /// The requests.
    pub load: Load,
    /// Against whom.
    pub peer: &'static str,
    /// The ratio of requests a second that is asked for, and the one hoped for.
    pub must: f64,
    /// See `must`.
    pub aim: f64,
    /// Size of the images in MiB, if it is not the option's.
    pub mib: Option<u64>,
    theirs: fn(&Dir) -> Peer,
    ours: fn(&Dir) -> Peer,
}

/// Requests a second of both sides, run by run.
#[derive(Debug, Default)]
pub struct Figures {
    /// The peer's.
    pub theirs: Vec<f64>,
    /// Ours, taken straight after.
    pub ours: Vec<f64>,
}

const fn load(pattern: &'static str, block: &'static str, depth: u32) -> Load {
    Load { pattern, block, depth }
}

/// All rows.
pub fn all() -> Vec<Row> {
    let single = |name, load| Row {
        name,
        load,
        peer: "nbdkit file",
        must: 0.9,
        aim: 1.1,
        mib: None,
        theirs: peers::nbdkit_file,
        ours: peers::one_leg,
    };
    let reads = |name, load| Row {
        must: 1.0,
        aim: 1.4,
        ours: |dir| peers::mirror(dir, Far::NbdkitUnix),
        ..single(name, load)
    };
    let mirror = |name, load, must, aim| Row {
        name,
        load,
        peer: "qsd quorum",
        must,
        aim,
        mib: None,
        theirs: |dir| peers::quorum(dir, Far::NbdkitUnix),
        ours: |dir| peers::mirror(dir, Far::NbdkitUnix),
    };
    let tcp = |name, load, must, aim| Row {
        theirs: |dir| peers::quorum(dir, Far::NbdkitTcp),
        ours: |dir| peers::mirror(dir, Far::NbdkitTcp),
        ..mirror(name, load, must, aim)
    };
    let ourselves = |name, load, must, aim| Row {
        theirs: |dir| peers::quorum(dir, Far::MirrordUnix),
        ours: |dir| peers::mirror(dir, Far::MirrordUnix),
        ..mirror(name, load, must, aim)
    };
    // At depth 1 a ratio of requests a second is the inverse of one of times: 0.8 of the time is 1.25.
    let (must_d1, aim_d1) = (1.0 / 0.8, 1.0 / 0.55);
    vec![
        single("one-leg-write-4k-d16", load("randwrite", "4k", 16)),
        single("one-leg-write-4k-d1", load("randwrite", "4k", 1)),
        single("one-leg-read-4k-d16", load("randread", "4k", 16)),
        single("one-leg-read-4k-d1", load("randread", "4k", 1)),
        single("one-leg-write-1m-d4", load("write", "1m", 4)),
        single("one-leg-read-1m-d4", load("read", "1m", 4)),
        mirror("mirror-write-4k-d16", load("randwrite", "4k", 16), 2.0, 2.5),
        mirror("mirror-write-1m-d4", load("write", "1m", 4), 1.6, 2.2),
        mirror("mirror-write-4k-d1", load("randwrite", "4k", 1), must_d1, aim_d1),
        tcp("mirror-tcp-write-4k-d16", load("randwrite", "4k", 16), 2.0, 2.5),
        tcp("mirror-tcp-write-1m-d4", load("write", "1m", 4), 1.6, 2.2),
        tcp("mirror-tcp-write-4k-d1", load("randwrite", "4k", 1), must_d1, aim_d1),
        ourselves("mirror-ours-write-4k-d16", load("randwrite", "4k", 16), 2.0, 3.0),
        ourselves("mirror-ours-write-1m-d4", load("write", "1m", 4), 1.6, 2.2),
        ourselves("mirror-ours-write-4k-d1", load("randwrite", "4k", 1), must_d1, aim_d1),
        reads("mirror-read-4k-d16", load("randread", "4k", 16)),
        reads("mirror-read-4k-d1", load("randread", "4k", 1)),
        reads("mirror-read-1m-d4", load("read", "1m", 4)),
        Row {
            peer: "durability process",
            must: 0.7,
            aim: 0.9,
            mib: Some(peers::WIDE),
            theirs: |dir| peers::durable(dir, "process"),
            ours: |dir| peers::durable(dir, "power"),
            ..single("map-power-write-4k-d16", load("randwrite", "4k", 16))
        },
    ]
}

impl Row {
    /// Runs both sides in turn.
    pub fn take(&self, options: &Options) -> Figures {
        let mut figures = Figures::default();
        let dir = images(options);
        for _ in 0..options.runs {
            let theirs = (self.theirs)(&dir);
            figures.theirs.push(self.load.run(&theirs.uri, self.mib.unwrap_or(options.mib), options.seconds));
            drop(theirs);
            let ours = (self.ours)(&dir);
            figures.ours.push(self.load.run(&ours.uri, self.mib.unwrap_or(options.mib), options.seconds));
        }
        figures
    }

    /// Our side of it, over images of its own.
    pub fn ours(&self, options: &Options) -> (Dir, Peer) {
        let dir = images(options);
        let peer = (self.ours)(&dir);
        (dir, peer)
    }
}

/// A directory with two images that are all there: an allocation would be measured once only.
fn images(options: &Options) -> Dir {
    let dir = Dir::new_in(&options.dir);
    for name in ["near.img", "far.img"] {
        let zeroes = vec![0u8; 1 << 20];
        let mut file = std::fs::File::create(dir.path(name)).expect("image");
        for _ in 0..options.mib {
            std::io::Write::write_all(&mut file, &zeroes).expect("image");
        }
    }
    dir
}
