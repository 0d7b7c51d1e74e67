//! Threads for what may take long: fsync, cold or slow local files, records. They are started when they are
//! first needed; completions come back in batches, one wake-up of the loop for each batch.

use crate::base::{Class, Error, Result};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Where the results of all workers are collected; its descriptor becomes readable (edge-triggered).
#[derive(Debug)]
pub(super) struct Results<T> {
    done: Arc<Done<T>>,
}

#[derive(Debug)]
struct Done<T> {
    results: Mutex<Vec<T>>,
    wake: OwnedFd,
}

/// A group of threads with one queue. The queue is bounded by the limits on what is in flight.
pub(super) struct Workers<T> {
    queue: Arc<Queue<T>>,
    name: &'static str,
    most: usize,
}

struct Queue<T> {
    state: Mutex<State<T>>,
    more: Condvar,
    done: Arc<Done<T>>,
}

struct State<T> {
    jobs: VecDeque<Job<T>>,
    threads: usize,
    idle: usize,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Results<T> {
    /// No results yet.
    pub(super) fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::os(Class::Internal, "workers", "making their event descriptor", e))?;
        Ok(Self { done: Arc::new(Done { results: Mutex::new(Vec::new()), wake }) })
    }

    /// To wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.done.wake.as_fd()
    }

    /// Takes what has come.
    pub(super) fn take(&self, into: &mut Vec<T>) {
        into.append(&mut lock(&self.done.results));
    }

    /// A group of at most `most` threads that report here.
    pub(super) fn workers(&self, name: &'static str, most: usize) -> Workers<T> {
        let state = State { jobs: VecDeque::new(), threads: 0, idle: 0, closed: false };
        let queue = Queue { state: Mutex::new(state), more: Condvar::new(), done: Arc::clone(&self.done) };
        Workers { queue: Arc::new(queue), name, most }
    }
}

impl<T: Send + 'static> Workers<T> {
    /// Has a job done. Should no thread be had at all, it is done here and now.
    pub(super) fn submit(&self, job: impl FnOnce() -> T + Send + 'static) {
        let mut state = lock(&self.queue.state);
        state.jobs.push_back(Box::new(job));
        let start = state.idle < state.jobs.len() && state.threads < self.most;
        if start {
            state.threads += 1;
        }
        drop(state);
        self.queue.more.notify_one();
        if start {
            let queue = Arc::clone(&self.queue);
            let started = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || queue.work());
            if started.is_err() {
                self.without_thread();
            }
        }
    }

    fn without_thread(&self) {
        let mut state = lock(&self.queue.state);
        state.threads -= 1;
        let job = if state.threads == 0 { state.jobs.pop_front() } else { None };
        drop(state);
        if let Some(job) = job {
            self.queue.report(job());
        }
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.more.notify_all();
    }
}

impl<T> Queue<T> {
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                self.report(job());
                state = lock(&self.state);
                continue;
            }
            if state.closed {
                return;
            }
            state.idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn report(&self, result: T) {
        let first = {
            let mut results = lock(&self.done.results);
            results.push(result);
            results.len() == 1
        };
        if first {
            #[allow(clippy::host_endian_bytes, reason = "eventfd(2) counts in the host's order")]
            let one = 1u64.to_ne_bytes();
            // Full only after 2^64 batches nobody took; then it is readable anyway.
            let _ = rustix::io::write(&self.done.wake, &one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn results_of_all_groups_come_to_one_place() {
        let results = Results::new().expect("results");
        let (a, b) = (results.workers("a", 2), results.workers("b", 1));
        for i in 0..50 {
            a.submit(move || i);
            b.submit(move || 100 + i);
        }
        let mut got = Vec::new();
        let end = Instant::now() + Duration::from_secs(10);
        while got.len() < 100 && Instant::now() < end {
            results.take(&mut got);
            std::thread::yield_now();
        }
        got.sort_unstable();
        assert_eq!(got, (0..50).chain(100..150).collect::<Vec<_>>());
    }
}
