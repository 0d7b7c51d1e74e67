//! What a copy costs depends on what is dirty, not on how large the device is; and what need not be copied twice is
//! not.

use crate::support::{Dir, Tool, bin, nbdkit, need, text};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

const LARGE: u64 = 1 << 40;
const DIRTY: u64 = 1 << 30;
/// Pieces that are dirty, spread evenly.
const PIECE: u64 = 1 << 20;
/// Runs of each, in turn, before an answer is taken; and after so many it is no.
const RUNS: std::ops::RangeInclusive<u32> = 3..=15;
const LIMIT: Duration = Duration::from_secs(300);

fn dirtymap(args: &[&str]) {
    Tool::new(bin("dirtymap")).args(args).run().expect(0);
}

/// A file of this size with `DIRTY` bytes in pieces at equal distances.
fn source(dir: &Dir, name: &str, size: u64) {
    let file = File::options().write(true).open(dir.image(name, size)).expect("open");
    let mut data = vec![7; PIECE as usize];
    for piece in 0..DIRTY / PIECE {
        data[..8].copy_from_slice(&(piece + 1).to_le_bytes());
        file.write_all_at(&data, piece * (size / (DIRTY / PIECE))).expect("write");
    }
}

/// How long a copy to a new target takes.
fn copy(dir: &Dir, source: &str, size: u64, choice: &[&str]) -> Duration {
    let target = dir.image("target", size);
    let source = dir.path(source);
    let words = [&["-q"], choice, &[text(&source), text(&target)]].concat();
    let command =
        Tool::new(bin("mirror-sync")).args(&words).env("MIRROR_STATE_DIR", dir.state()).limit(LIMIT);
    let begun = Instant::now();
    command.run().expect(0);
    let took = begun.elapsed();
    // Each piece has arrived where it belongs; memory is given back before the next one.
    let file = File::open(&target).expect("open");
    for piece in 0..DIRTY / PIECE {
        let mut found = [0; 9];
        file.read_exact_at(&mut found, piece * (size / (DIRTY / PIECE))).expect("read");
        assert_eq!(found[..8], (piece + 1).to_le_bytes(), "piece {piece}");
        assert_eq!(found[8], 7, "piece {piece}");
    }
    std::fs::remove_file(&target).expect("remove");
    took
}

#[test]
fn done_dirty_only_of_a_sparse_tebibyte_costs_what_is_dirty() {
    // Two sources and one target: 3 GiB of memory, and no disk whose speed would be measured.
    let dir = Dir::new_in(Path::new("/dev/shm"));
    source(&dir, "large", LARGE);
    source(&dir, "small", DIRTY);
    let (map, all) = (dir.path("map"), dir.path("all"));
    dirtymap(&["create", "--like", text(&dir.path("large")), text(&all)]);
    let ranges = (0..DIRTY / PIECE).map(|piece| format!("{}+{PIECE}", piece * (LARGE / (DIRTY / PIECE))));
    let set: Vec<_> = ["set".to_owned(), text(&all).to_owned()].into_iter().chain(ranges).collect();
    Tool::new(bin("dirtymap")).args(&set).run().expect(0);
    let (mut large, mut small) = (Duration::MAX, Duration::MAX);
    for turn in 1..=*RUNS.end() {
        std::fs::copy(&all, &map).expect("map");
        large = large.min(copy(&dir, "large", LARGE, &["--dirty-only", "--map", text(&map)]));
        dirtymap(&["check", text(&map)]);
        small = small.min(copy(&dir, "small", DIRTY, &["--full"]));
        // Others use the machine: it is asked again, and the best of each side counts.
        if turn >= *RUNS.start() && large <= small.mul_f64(1.15) {
            return;
        }
    }
    panic!("{large:?} for what is dirty in a tebibyte, {small:?} for a file that is all dirty");
}

#[test]
fn what_is_in_memory_is_sent_from_where_it_is_and_zeroes_in_it_become_holes_all_the_same() {
    const SIZE: u64 = 8 << 20;
    const ZEROES: std::ops::Range<u64> = (5 << 20) + 12288..(5 << 20) + 12288 + 65536;
    if !need(&["nbdkit", "strace"]) {
        return;
    }
    for dir in [Dir::new(), Dir::new_in(Path::new("/dev/shm"))] {
        let (source, target) = (dir.path("source"), dir.path("target"));
        let zero = |at| ZEROES.contains(&at);
        let data: Vec<u8> = (0..SIZE).map(|at| if zero(at) { 0 } else { (at % 251) as u8 | 1 }).collect();
        std::fs::write(&source, &data).expect("write");
        std::fs::write(&target, vec![0xff; SIZE as usize]).expect("write");
        let socket = dir.path("s");
        let _kit = nbdkit(&dir, &socket, &["file", text(&target)]);
        let (log, uri) = (dir.path("strace"), format!("nbd+unix:///?socket={}", text(&socket)));
        let tool = bin("mirror-sync");
        let strace = ["-f", "-qq", "-e", "trace=sendfile", "-o", text(&log), text(&tool)];
        let words = [&strace[..], &["--full", text(&source), &uri]].concat();
        Tool::new("strace").args(&words).env("MIRROR_STATE_DIR", dir.state()).run().expect(0);
        assert!(std::fs::read(&target).expect("read") == data, "equal");
        let log = std::fs::read_to_string(&log).expect("log");
        let sent = log.lines().filter_map(|line| line.rsplit_once("= ")?.1.parse::<u64>().ok());
        let sent: u64 = sent.sum();
        assert!((SIZE - (2 << 20)..SIZE).contains(&sent), "{sent} bytes, and not the piece with the zeroes");
        let held = std::fs::metadata(&target).expect("metadata").blocks() * 512;
        assert!(held <= SIZE - 32768, "{held} bytes are allocated");
    }
}
