//! `mirror-sync` killed at random moments in every mode: run again, both ends are equal, and never is a block
//! called clean that differs.

use crate::support::{Dir, Random, Tool, assert_equal, bin, text};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SIZE: u64 = 12 << 20;
const BLOCK: u64 = 65536;

fn dirtymap(args: &[&str]) -> Tool {
    Tool::new(bin("dirtymap")).args(args)
}

/// Random bytes in random places.
fn scribble(path: &Path, random: &mut Random, times: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("open");
    for _ in 0..times {
        let at = random.below(SIZE - 5000);
        file.write_all_at(&vec![random.below(255) as u8 + 1; 5000], at).expect("write");
    }
}

/// Every block that the map calls clean is equal.
#[track_caller]
pub fn assert_clean_is_equal(map: &Path, a: &Path, b: &Path) {
    let list = dirtymap(&["show", "--list", text(map)]).run().expect(0).stdout;
    let size = std::fs::metadata(a).expect("size").len();
    let mut dirty = vec![false; size.div_ceil(BLOCK) as usize];
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().expect("number"));
        let (at, len) = (numbers.next().expect("offset"), numbers.next().expect("length"));
        dirty[(at / BLOCK) as usize..(at + len).div_ceil(BLOCK) as usize].fill(true);
    }
    let (a, b) = (std::fs::read(a).expect("read"), std::fs::read(b).expect("read"));
    for (block, (x, y)) in a.chunks(BLOCK as usize).zip(b.chunks(BLOCK as usize)).enumerate() {
        assert!(dirty[block] || x == y, "block {block} is called clean and differs");
    }
}

#[test]
fn done_killed_at_random_moments_and_run_again_both_ends_are_equal() {
    let dir = Dir::new();
    let mut random = Random(7);
    let (a, b) = (dir.image("a", SIZE), dir.image("b", SIZE));
    let (map, digest) = (dir.path("m"), dir.path("d"));
    scribble(&a, &mut random, 200);
    for mode in ["--full", "--compare", "--dirty-only", "--digest"] {
        for round in 0..6 {
            // What the map and the digests know is kept true: marks are made before the writes.
            if mode == "--dirty-only" {
                if round == 0 {
                    dirtymap(&["create", "--all", "--replace", "--like", text(&a), text(&map)])
                        .run()
                        .expect(0);
                }
                dirtymap(&["set", text(&map), "0+12M"]).run().expect(0);
            }
            scribble(&a, &mut random, 40);
            let mut args = vec!["-q", "--request-size", "64K"];
            match mode {
                "--dirty-only" => args.extend([mode, "--map", text(&map)]),
                "--digest" => args.extend([mode, text(&digest)]),
                _ => args.push(mode),
            }
            args.extend([text(&a), text(&b)]);
            let slow = [&["--bwlimit", "40M"], &args[..]].concat();
            let run =
                |args: &[&str]| Tool::new(bin("mirror-sync")).args(args).env("MIRROR_STATE_DIR", dir.state());
            let mut child =
                run(&slow).command().stderr(Stdio::null()).stdin(Stdio::null()).spawn().expect("spawn");
            std::thread::sleep(Duration::from_millis(random.below(250)));
            child.kill().expect("kill");
            child.wait().expect("reap");
            if mode == "--dirty-only" {
                assert_clean_is_equal(&map, &a, &b);
            }
            run(&args).run().expect(0);
            assert_equal(&a, &b);
            if mode == "--dirty-only" {
                dirtymap(&["check", text(&map)]).run().expect(0);
            }
        }
    }
}
