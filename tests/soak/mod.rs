//! Long runs, of which the test command makes a short one each.
//!
//!     MIRROR_SOAK=20m cargo test --release --test tests -- soak:: --nocapture --test-threads 1
//!
//! `MIRROR_SOAK` is how long each takes (`s`, `m`, `h`), `MIRROR_SEED` a number that a failing run has printed.

mod follow; // a tree under load is recorded, dumped and applied
mod legs; // fio verifies a volume whose far legs are killed at random

use crate::support::Random;
use std::time::Duration;

/// How long each run takes where nobody says so: what CI can afford.
const SHORT: Duration = Duration::from_secs(20);

/// How long a run takes.
pub fn duration() -> Duration {
    std::env::var("MIRROR_SOAK").map_or(SHORT, |text| {
        let ms = mirror::base::units::parse_duration_ms(&text);
        Duration::from_millis(ms.unwrap_or_else(|e| panic!("MIRROR_SOAK={text}: {e}")))
    })
}

/// The chance of a run; its seed is printed.
pub fn random() -> Random {
    let given = std::env::var("MIRROR_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.unwrap_or_else(|| now.expect("a clock after 1970").as_nanos() as u64);
    println!("MIRROR_SEED={seed}");
    Random(seed)
}
