//! Bytes thrown at every importer of maps: a small corpus, each file as it is, cut at every place, and changed at
//! random. `tests/corpus/make.sh` made the good ones; what a fuzzer finds is added under a name that says what it is.
//! For more: `MIRROR_SOAK=10m cargo test --release --test tests corpus::`.

use crate::support::{Random, root};
use mirror::map::convert::{FORMATS, target};
use std::time::{Duration, Instant};

/// How long each format is tried where nobody says so.
const SHORT: Duration = Duration::from_millis(150);

fn duration() -> Duration {
    std::env::var("MIRROR_SOAK").map_or(SHORT, |text| {
        let ms = mirror::base::units::parse_duration_ms(&text).expect("MIRROR_SOAK");
        Duration::from_millis(ms) / FORMATS.len() as u32
    })
}

#[test]
fn done_no_bytes_make_an_importer_fail_but_with_one_line() {
    for (name, format) in FORMATS {
        let dir = root().join("tests/corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort();
        assert!(files.len() >= 2, "{name}: a good one and a bad one at least");
        let corpus: Vec<_> = files.iter().map(|path| std::fs::read(path).expect("read")).collect();
        for (path, bytes) in files.iter().zip(&corpus) {
            try_it(format, bytes, &|| path.display().to_string());
            let step = (bytes.len() / 200).max(1);
            for len in (0..bytes.len()).step_by(step) {
                try_it(format, &bytes[..len], &|| format!("{}, cut at {len}", path.display()));
            }
        }
        let seed = std::process::id().into();
        let mut random = Random(seed);
        let end = Instant::now() + duration();
        while Instant::now() < end {
            let bytes = changed(&corpus, &mut random);
            try_it(format, &bytes, &|| {
                format!("{name}, seed {seed}: {:?}", bytes.escape_ascii().to_string())
            });
        }
    }
}

/// Shows the bytes that did it.
fn try_it(format: mirror::map::convert::Format, bytes: &[u8], what: &dyn Fn() -> String) {
    let done = std::panic::catch_unwind(|| target::target(format, bytes));
    assert!(done.is_ok(), "{}", what());
}

/// One of the corpus with a few changes: bytes, numbers at their bounds, pieces of others.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len() as u64) as usize].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let piece: Vec<u8> = match random.below(5) {
            0 => vec![random.below(256) as u8],
            1 => b"18446744073709551615".to_vec(),
            2 => b"0x7fffffffffffffff".to_vec(),
            3 => random.next().to_le_bytes().to_vec(),
            _ => {
                let other = &corpus[random.below(corpus.len() as u64) as usize];
                let from = random.below(other.len() as u64 + 1) as usize;
                other[from..other.len().min(from + 40)].to_vec()
            }
        };
        let gone = random.below(30) as usize;
        let end = bytes.len().min(at + gone);
        bytes.splice(at..end, piece);
    }
    bytes
}
