//! A ceiling on bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep at once: a run that is stopped is not held up for longer.
const NAP: Duration = Duration::from_millis(200);
/// How much may be made up for after a pause.
const BURST: Duration = Duration::from_millis(500);

/// A ceiling on bytes a second, shared by threads.
#[derive(Debug, Default)]
pub struct Pace {
    rate: Option<u64>,
    /// When everything that was taken so far may have been sent.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many bytes a second; `None` is no ceiling.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), due: Mutex::new(None) }
    }

    /// Waits until so many more bytes may be sent, each time at most a moment: whoever wants to send a lot takes
    /// it in parts.
    pub fn take(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = due.map_or(now, |due| due.max(now.checked_sub(BURST).unwrap_or(now)));
            let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
            let next = begin + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX >> 12));
            *due = Some(next);
            next
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_share_one_ceiling() {
        let pace = Pace::new(Some(1 << 20));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| pace.take(16 << 10)));
            }
        });
        // 256 KiB at 1 MiB a second.
        assert!(start.elapsed() >= Duration::from_millis(240), "{:?}", start.elapsed());
        let start = Instant::now();
        Pace::new(None).take(u64::MAX);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
