//! What survives a kill: of the client, a leg, the daemon, or any two of them, at any moment.
//!
//! A writer stamps every block it writes with a number of its own and remembers what was acknowledged and what
//! was flushed. The far leg is nbdkit with a write-back cache of its own, which loses what was not flushed when
//! it is killed.

use crate::support::{Dir, Server, Volume, assert_equal, nbdkit, need};
use mirror::map::MapFile;
use mirror::nbd::client::{Blocking, ClientOptions};
use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SIZE: u64 = 64 << 20;
const BLOCK: u64 = 65536;
/// The writer's part of the volume; fio has the rest.
const STAMPED: u64 = 32 << 20;
const CELL: u64 = 4096;

/// A small generator: tests need a seed they can print.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// What the client knows of its cells.
#[derive(Default)]
struct Known {
    /// Highest stamp that was acknowledged.
    acked: HashMap<u64, u64>,
    /// Highest stamp that was issued.
    issued: HashMap<u64, u64>,
    stamp: u64,
}

fn stamped(cell: u64, stamp: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; CELL as usize];
    for chunk in bytes.chunks_exact_mut(16) {
        chunk[..8].copy_from_slice(&cell.to_le_bytes());
        chunk[8..].copy_from_slice(&stamp.to_le_bytes());
    }
    bytes
}

/// The stamp of a cell; `None` if it is torn or of another cell. A cell never written is zero: stamp 0.
fn stamp_of(cell: u64, bytes: &[u8]) -> Option<u64> {
    let stamp = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    let whole = stamped(cell, stamp) == bytes || bytes.iter().all(|&b| b == 0);
    whole.then_some(stamp)
}

fn connect(volume: &Volume<'_>) -> Option<Blocking> {
    let options = ClientOptions { export: "vol".into(), contexts: Vec::new(), structured: true };
    Blocking::connect(&volume.uri().parse().expect("uri"), options, Duration::from_secs(30)).ok()
}

/// Writes random cells until told to stop or the connection ends.
fn write_cells(client: &mut Blocking, known: &mut Known, random: &mut Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        known.stamp += 1;
        let (cell, stamp) = (random.next(STAMPED / CELL), known.stamp);
        known.issued.insert(cell, stamp);
        let fua = random.next(16) == 0;
        if client.write(cell * CELL, &stamped(cell, stamp), fua).is_err() {
            return;
        }
        known.acked.insert(cell, stamp);
        if random.next(40) == 0 && client.flush().is_err() {
            return;
        }
    }
}

/// Everything acknowledged is there, and nothing that was never written. What the daemon's kill interrupted may be
/// old or new.
fn check_cells(client: &mut Blocking, known: &Known) {
    let mut bytes = vec![0u8; CELL as usize];
    for (&cell, &issued) in &known.issued {
        client.read(cell * CELL, &mut bytes).expect("read");
        let acked = known.acked.get(&cell).copied().unwrap_or(0);
        let found =
            stamp_of(cell, &bytes).unwrap_or_else(|| panic!("cell {cell} is torn: {:x?}", &bytes[..32]));
        assert!(
            acked <= found && found <= issued,
            "cell {cell}: acknowledged {acked}, found {found}, issued {issued}"
        );
    }
}

/// Blocks where the images differ are marked in at least one of the maps (invariant 1).
fn check_marks(dir: &Dir, volume: &Volume<'_>) {
    let near = std::fs::read(dir.path("near.img")).expect("near");
    let far = std::fs::read(dir.path("far.img")).expect("far");
    let marks: Vec<_> = ["near", "far"].map(|leg| MapFile::read(&volume.map(leg)).expect("map").1).into();
    for block in 0..SIZE / BLOCK {
        let range = (block * BLOCK) as usize..((block + 1) * BLOCK) as usize;
        let marked = marks.iter().any(|map| map.contains(block));
        assert!(marked || near[range.clone()] == far[range], "block {block} differs and is marked nowhere");
    }
}

/// The far leg with a write-back cache of its own.
fn far_server(dir: &Dir) -> Server {
    let image = dir.path("far.img").display().to_string();
    nbdkit(dir, &dir.path("far.sock"), &["--filter=cache", "file", &image, "cache=writeback"])
}

struct Scene<'d> {
    dir: &'d Dir,
    volume: Volume<'d>,
    far: Option<Server>,
}

impl<'d> Scene<'d> {
    fn new(dir: &'d Dir) -> Self {
        dir.image("far.img", SIZE);
        let near = format!("near={}", dir.image("near.img", SIZE).display());
        let far = format!("far=nbd+unix:///?socket={}", dir.path("far.sock").display());
        let server = far_server(dir);
        let volume = Volume::create(dir, SIZE, &[&near, &far], &["--known-zero"]);
        let mut scene = Self { dir, volume, far: Some(server) };
        scene.volume.serve(&[]);
        scene.volume.wait_synced();
        scene
    }

    fn start_far(&mut self) {
        self.far = Some(far_server(self.dir));
    }

    fn kill_far(&mut self) {
        if let Some(mut far) = self.far.take() {
            far.kill();
        }
    }

    fn fio(&self) -> Server {
        let mut command = Command::new("fio");
        let uri = format!("--uri={}", self.volume.uri());
        let args = "--name=load --ioengine=nbd --rw=randwrite --bs=4k-64k --size=32M --offset=32M --iodepth=8 \
                    --fsync=64 --time_based --runtime=60";
        command.args(args.split_whitespace()).arg(uri);
        Server::start(&mut command, &self.dir.path("fio.log"))
    }

    /// Stops everything cleanly; both images are equal.
    fn finish(mut self) {
        self.volume.wait_synced();
        self.volume.stop();
        if let Some(far) = self.far.take() {
            far.stop();
        }
        assert_equal(&self.dir.path("near.img"), &self.dir.path("far.img"));
    }
}

/// Which of them are killed in one round.
#[derive(Clone, Copy, Debug)]
struct Kill {
    daemon: bool,
    far: bool,
    client: bool,
}

fn rounds(seed: u64, kills: &[Kill]) {
    if !need(&["nbdkit", "fio"]) {
        return;
    }
    let dir = Dir::new();
    let mut scene = Scene::new(&dir);
    let mut known = Known::default();
    let mut random = Random(seed);
    for (round, kill) in kills.iter().enumerate() {
        eprintln!("seed {seed} round {round}: {kill:?}");
        let mut fio = scene.fio();
        let stop = AtomicBool::new(false);
        let wait = 150 + random.next(700);
        let mut client = connect(&scene.volume).expect("connect");
        std::thread::scope(|scope| {
            let (stop, known, random) = (&stop, &mut known, &mut random);
            let writer = scope.spawn(move || {
                write_cells(&mut client, known, random, stop);
                client
            });
            std::thread::sleep(Duration::from_millis(wait));
            if kill.client {
                fio.kill();
            }
            if kill.far {
                scene.kill_far();
                if !kill.daemon {
                    // Back within the retry deadline, without what its cache held.
                    scene.start_far();
                }
            }
            if kill.daemon {
                scene.volume.kill();
            }
            if !kill.daemon {
                std::thread::sleep(Duration::from_millis(200));
            }
            stop.store(true, Ordering::Relaxed);
            drop(writer.join().expect("writer"));
        });
        fio.kill();
        if kill.daemon {
            if kill.far {
                check_marks(&dir, &scene.volume);
            }
            if scene.far.is_none() {
                scene.start_far();
            }
            scene.volume.serve(&[]);
        }
        let mut client = connect(&scene.volume).expect("connect");
        check_cells(&mut client, &known);
        client.disconnect().expect("disconnect");
        scene.volume.wait_synced();
    }
    let mut client = connect(&scene.volume).expect("connect");
    check_cells(&mut client, &known);
    client.disconnect().expect("disconnect");
    scene.finish();
}

const DAEMON: Kill = Kill { daemon: true, far: false, client: false };
const FAR: Kill = Kill { daemon: false, far: true, client: false };
const CLIENT: Kill = Kill { daemon: false, far: false, client: true };

#[test]
fn done_killing_the_daemon_loses_nothing_acknowledged() {
    rounds(11, &[DAEMON; 3]);
}

#[test]
fn done_killing_the_far_leg_with_its_cache_loses_nothing_acknowledged() {
    rounds(22, &[FAR; 3]);
}

#[test]
fn done_killing_daemon_and_far_leg_together_loses_nothing_acknowledged() {
    rounds(33, &[Kill { client: false, ..BOTH }; 3]);
}

const BOTH: Kill = Kill { daemon: true, far: true, client: true };

#[test]
fn done_killing_the_client_and_any_other_loses_nothing_acknowledged() {
    rounds(44, &[CLIENT, Kill { far: true, ..CLIENT }, Kill { daemon: true, ..CLIENT }]);
}
