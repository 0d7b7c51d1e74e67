//! A client that checks everything it reads, over a volume whose far legs die and come back all the time.
//!
//! The client must never see an error or an old byte: one leg is always there. At the end all copies are equal.

use super::{duration, random};
use crate::support::{Dir, Random, Server, Volume, assert_equal, nbdkit, need, run};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 64 << 20;

/// A far leg: a server that is killed and started again.
struct Far<'d> {
    dir: &'d Dir,
    image: PathBuf,
    socket: PathBuf,
    server: Option<Server>,
    kills: u64,
}

impl<'d> Far<'d> {
    fn new(dir: &'d Dir, name: &str) -> Self {
        let image = dir.image(&format!("{name}.img"), SIZE);
        let mut far = Self { dir, image, socket: dir.path(&format!("{name}.sock")), server: None, kills: 0 };
        far.start();
        far
    }

    fn start(&mut self) {
        if self.server.is_none() {
            self.server = Some(nbdkit(self.dir, &self.socket, &["file", &self.image.to_string_lossy()]));
        }
    }

    fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
            self.kills += 1;
        }
    }

    fn leg(&self, name: &str) -> String {
        format!("{name}=nbd+unix:///?socket={}", self.socket.display())
    }
}

/// Kills and starts the legs at random moments until it is told to stop.
fn torment(legs: &mut [Far<'_>], mut random: Random, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let leg = random.below(legs.len() as u64) as usize;
        match legs[leg].server {
            Some(_) => legs[leg].kill(),
            None => legs[leg].start(),
        }
        // Short waits meet a leg in the middle of its handshake, long ones at the end of its resync.
        let wait_ms = if random.below(3) == 0 { random.below(2_000) } else { random.below(200) };
        std::thread::sleep(Duration::from_millis(wait_ms));
    }
}

/// Says that the client is over, also when it failed: or the other thread goes on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes all of the volume in random order and sizes, reads all of it back, and compares.
fn verify(uri: &str, seed: u64) {
    let size = format!("--size={SIZE}");
    let seed = format!("--randseed={seed}");
    let uri = format!("--uri={uri}");
    let fixed = ["--name=soak", "--ioengine=nbd", "--rw=randwrite", "--bsrange=4k-128k", "--iodepth=16"];
    let check = [
        "--verify=crc32c",
        "--verify_state_save=0",
        "--do_verify=1",
        "--verify_fatal=1",
        "--fsync=200",
        "--output-format=terse",
    ];
    // The engine comes before its options.
    let mut args = fixed.to_vec();
    args.extend([size.as_str(), &seed, &uri]);
    args.extend(check);
    let out = run("fio", &args);
    assert_eq!(out.code, 0, "{}\n{}", out.stdout, out.stderr);
}

#[test]
fn done_fio_verify_with_random_sigkill_of_legs_ends_with_equal_legs() {
    if !need(&["fio", "nbdkit"]) {
        return;
    }
    let (mut random, dir) = (random(), Dir::new());
    let mut legs = [Far::new(&dir, "far1"), Far::new(&dir, "far2")];
    let near = format!("near={}", dir.image("near.img", SIZE).display());
    let specs = [near, legs[0].leg("far1"), legs[1].leg("far2")];
    let specs: Vec<_> = specs.iter().map(String::as_str).collect();
    let mut volume = Volume::create(&dir, SIZE, &specs, &["--known-zero"]);
    volume.serve(&[]);
    volume.wait_synced();
    let (over, until) = (AtomicBool::new(false), Instant::now() + duration());
    let (mut rounds, mut seeds) = (0u64, Random(random.next()));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let _end = Over(&over);
            while Instant::now() < until {
                verify(&volume.uri(), seeds.next() >> 1);
                rounds += 1;
            }
        });
        // Here and not in the other thread: nbdkit has itself ended when the thread that started it ends.
        torment(&mut legs, random, &over);
        client.join().expect("the client");
    });
    let kills = legs[0].kills + legs[1].kills;
    legs.iter_mut().for_each(Far::start);
    println!("{rounds} rounds of {SIZE} bytes, {kills} kills");
    assert!(rounds > 0 && kills > 1, "{rounds} rounds, {kills} kills");
    volume.wait_synced();
    volume.stop();
    assert_equal(&dir.path("near.img"), &dir.path("far1.img"));
    assert_equal(&dir.path("near.img"), &dir.path("far2.img"));
}
