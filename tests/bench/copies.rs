//! Copies by `mirror-sync`, timed: against nbdcopy, qemu-img, rsync, bdsync, and ourselves.

use crate::Options;
use crate::rows::Figures;
use crate::support::{Dir, Server, Tool, bin, nbdkit};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Bytes of the images, whatever `--mib` says: what a row asks for is said of this size.
const SIZE: u64 = (MIB as u64) << 20;
/// The same in MiB.
const MIB: u32 = 1024;
/// Bytes of a block that differs or is dirty.
const PIECE: u64 = 64 << 10;
const LIMIT: Duration = Duration::from_secs(300);

/// One row: how long each side takes for the same bytes.
pub struct Row {
    /// To choose it by.
    pub name: &'static str,
    /// Against whom, by the program that must be there.
    pub peer: &'static str,
    /// The ratio of speeds that is asked for, and the one hoped for.
    pub must: f64,
    /// See `must`.
    pub aim: f64,
    /// `source` and `target` as they are before each side.
    prepare: fn(&Dir),
    theirs: fn(&Dir) -> Tool,
    ours: fn(&Dir) -> Tool,
}

/// All rows whose peer is installed.
pub fn all() -> Vec<Row> {
    let full = |name, peer, theirs| Row {
        name,
        peer,
        must: 1.0,
        aim: 1.2,
        prepare: |dir| drop(dir.image("target", SIZE)),
        theirs,
        ours: |dir| sync(dir, &["--full"], &uri(dir)),
    };
    let compare = |name, peer, theirs| Row {
        prepare: |dir| differ(dir, 100),
        ours: |dir| sync(dir, &["--compare"], &path(dir, "target")),
        ..full(name, peer, theirs)
    };
    let rows = vec![
        full("sync-full-nbdcopy", "nbdcopy", |dir| {
            Tool::new("nbdcopy").args(&["--flush", &path(dir, "source"), &uri(dir)])
        }),
        full("sync-full-qemu-img", "qemu-img", |dir| {
            let from = path(dir, "source");
            Tool::new("qemu-img").args(&["convert", "-W", "-n", "-f", "raw", "-O", "raw", &from, &uri(dir)])
        }),
        // A ratio of speeds is the inverse of one of times.
        Row {
            must: 1.0 / 0.07,
            aim: 1.0 / 0.055,
            prepare: |dir| differ(dir, 20),
            ours: |dir| sync(dir, &["--dirty-only", "--map", &path(dir, "map")], &uri(dir)),
            ..full("sync-dirty-only-5%", "mirror-sync", |dir| sync(dir, &["--full"], &uri(dir)))
        },
        compare("sync-compare-rsync", "rsync", |dir| {
            let options = ["--inplace", "--no-whole-file", "--checksum"];
            Tool::new("rsync").args(&options).args(&[path(dir, "source"), path(dir, "target")])
        }),
        compare("sync-compare-bdsync", "bdsync", |dir| {
            let (from, to) = (path(dir, "source"), path(dir, "target"));
            let script = format!("bdsync 'bdsync --server' {from} {to} | bdsync --patch={to}");
            Tool::new("sh").args(&["-c", &script])
        }),
    ];
    rows.into_iter().filter(|row| is_there(row.peer)).collect()
}

/// Whether a row's peer can be run.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program == "mirror-sync" || std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn path(dir: &Dir, name: &str) -> String {
    dir.path(name).display().to_string()
}

/// nbdkit over the target.
fn uri(dir: &Dir) -> String {
    format!("nbd+unix:///?socket={}", path(dir, "target.sock"))
}

fn sync(dir: &Dir, choice: &[&str], target: &str) -> Tool {
    let tool = Tool::new(bin("mirror-sync")).env("MIRROR_STATE_DIR", dir.state());
    tool.args(&["-q"]).args(choice).args(&[&*path(dir, "source"), target])
}

/// Writes into one of so many blocks of the target, which else is the source, and marks them in `map`.
fn differ(dir: &Dir, one_in: u64) {
    std::fs::copy(dir.path("source"), dir.path("target")).expect("target");
    let file = File::options().write(true).open(dir.path("target")).expect("target");
    let other = vec![0; PIECE as usize];
    let mut set = vec!["set".to_owned(), path(dir, "map")];
    for at in (0..SIZE / PIECE).step_by(one_in as usize).map(|block| block * PIECE) {
        file.write_all_at(&other, at).expect("target");
        set.push(format!("{at}+{PIECE}"));
    }
    let like = path(dir, "source");
    let create = ["create", "--replace", "--like", &like, &path(dir, "map")];
    Tool::new(bin("dirtymap")).args(&create).run().expect(0);
    Tool::new(bin("dirtymap")).args(&set).run().expect(0);
}

/// Bytes that do not repeat, all there.
fn source(dir: &Dir) {
    let file = File::create(dir.path("source")).expect("source");
    let mut state = 1u64;
    let mut piece = vec![0u8; 1 << 20];
    for at in (0..SIZE).step_by(piece.len()) {
        for word in piece.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all_at(&piece, at).expect("source");
    }
}

impl Row {
    /// Runs both sides in turn; MiB of the image a second.
    pub fn take(&self, options: &Options) -> Figures {
        let dir = Dir::new_in(&options.dir);
        source(&dir);
        let mut figures = Figures::default();
        for _ in 0..options.runs {
            figures.theirs.push(self.speed(&dir, self.theirs));
            figures.ours.push(self.speed(&dir, self.ours));
        }
        figures
    }

    fn speed(&self, dir: &Dir, side: fn(&Dir) -> Tool) -> f64 {
        (self.prepare)(dir);
        let _server: Server = nbdkit(dir, &dir.path("target.sock"), &["file", &path(dir, "target")]);
        let command = side(dir).limit(LIMIT);
        let begun = Instant::now();
        command.run().expect(0);
        let took = begun.elapsed();
        let equal = Tool::new("cmp").args(&[path(dir, "source"), path(dir, "target")]).run();
        assert_eq!(equal.code, 0, "{}: {}", self.name, equal.stdout);
        f64::from(MIB) / took.as_secs_f64()
    }
}
