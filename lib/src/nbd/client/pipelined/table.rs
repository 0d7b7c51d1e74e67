//! Who waits for which answer. The receiver takes a request out while it works on it, so that no lock is held
//! while payload comes in.

use super::super::assembly::{PlainAssembly, ReadAssembly};
use super::super::extents::StatusAssembly;
use crate::base::{Error, Result};
use crate::nbd::wire::Errno;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What was asked, and what has come of it so far.
#[derive(Debug)]
pub(super) enum Asked {
    /// A request whose answer has no content.
    Plain(PlainAssembly),
    /// A READ and where its bytes go.
    Read { buf: Vec<u8>, offset: u64, assembly: ReadAssembly },
    /// A `BLOCK_STATUS`.
    Status(StatusAssembly),
}

/// A request that the receiver is working on.
#[derive(Debug)]
pub(super) struct Taken {
    at: usize,
    pub(super) asked: Asked,
}

/// What the server said in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was done.
    Success,
    /// It was not.
    Error(Errno),
}

/// How a request ended: with an answer, or with the connection.
type Outcome = Result<Answer>;

#[derive(Debug, Default)]
struct Slot {
    cookie: u64,
    deadline: Option<Instant>,
    asked: Option<Asked>,
    outcome: Option<Outcome>,
    /// Somebody sleeps until it is answered: to wake nobody costs a system call as well.
    awaited: bool,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// How many wait for a place.
    queued: usize,
    /// Requests sent so far; a cookie is never used twice.
    count: u64,
    broken: Option<Error>,
}

/// Requests in flight: a fixed number of places.
#[derive(Debug)]
pub(super) struct Table {
    state: Mutex<State>,
    answered: Vec<Condvar>,
    room: Condvar,
}

impl Table {
    pub(super) fn new(depth: usize) -> Self {
        let depth = depth.max(1);
        let slots = std::iter::repeat_with(Slot::default).take(depth).collect();
        let state = State { slots, free: (0..depth).rev().collect(), queued: 0, count: 0, broken: None };
        let answered = std::iter::repeat_with(Condvar::new).take(depth).collect();
        Self { state: Mutex::new(state), answered, room: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place and takes it: the place and the cookie. It is always answered or failed by
    /// [`Table::wait`]'s end.
    pub(super) fn enter(&self, asked: Asked, deadline: Instant) -> Result<(usize, u64), Box<(Error, Asked)>> {
        let mut state = self.lock();
        let at = loop {
            if let Some(error) = &state.broken {
                return Err(Box::new((error.clone(), asked)));
            }
            if let Some(at) = state.free.pop() {
                break at;
            }
            state.queued += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.queued -= 1;
        };
        state.count += 1;
        let cookie = state.count * self.answered.len() as u64 + at as u64;
        state.slots[at] = Slot { cookie, deadline: Some(deadline), asked: Some(asked), ..Slot::default() };
        Ok((at, cookie))
    }

    /// Waits for the answer and gives the place back.
    pub(super) fn wait(&self, at: usize) -> (Outcome, Asked) {
        let mut state = self.lock();
        loop {
            // While the receiver works on it, what was asked is not here: it comes back before the end.
            if state.slots[at].asked.is_some()
                && let Some(outcome) = state.slots[at].outcome.take()
            {
                let asked = state.slots[at].asked.take();
                state.slots[at] = Slot::default();
                state.free.push(at);
                let queued = state.queued > 0;
                drop(state);
                if queued {
                    self.room.notify_one();
                }
                return (outcome, asked.unwrap_or(Asked::Plain(PlainAssembly::default())));
            }
            state.slots[at].awaited = true;
            state = self.answered[at].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The request of a cookie, if it is in flight.
    pub(super) fn take(&self, cookie: u64) -> Option<Taken> {
        let mut state = self.lock();
        let at = (cookie % self.answered.len() as u64) as usize;
        let slot = &mut state.slots[at];
        if slot.cookie != cookie || slot.outcome.is_some() {
            return None;
        }
        slot.asked.take().map(|asked| Taken { at, asked })
    }

    /// Gives a request back; with an outcome it is answered.
    pub(super) fn put_back(&self, taken: Taken, outcome: Option<Answer>) {
        let mut state = self.lock();
        let slot = &mut state.slots[taken.at];
        slot.asked = Some(taken.asked);
        if let Some(outcome) = outcome {
            slot.deadline = None;
            // A failure that came meanwhile stands.
            slot.outcome.get_or_insert(Ok(outcome));
        }
        let wake = slot.outcome.is_some() && slot.awaited;
        drop(state);
        if wake {
            self.answered[taken.at].notify_one();
        }
    }

    /// Whether any request is past its deadline.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.lock().slots.iter().any(|slot| slot.deadline.is_some_and(|deadline| deadline < now))
    }

    /// Ends everything in flight, and everything to come, with this error; the first one stands. What the
    /// receiver holds is lost with it: its place is filled again so that nobody waits for ever.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.broken.get_or_insert_with(|| error.clone());
        for slot in state.slots.iter_mut().filter(|slot| slot.cookie != 0) {
            slot.outcome.get_or_insert(Err(error.clone()));
            slot.deadline = None;
        }
        drop(state);
        self.answered.iter().for_each(Condvar::notify_all);
        self.room.notify_all();
    }

    /// After the receiver has ended: a request that it held is given back empty.
    pub(super) fn receiver_ended(&self) {
        let mut state = self.lock();
        for slot in state.slots.iter_mut().filter(|slot| slot.cookie != 0 && slot.asked.is_none()) {
            slot.asked = Some(Asked::Plain(PlainAssembly::default()));
        }
        drop(state);
        self.answered.iter().for_each(Condvar::notify_all);
    }

    pub(super) fn broken(&self) -> Option<Error> {
        self.lock().broken.clone()
    }
}
