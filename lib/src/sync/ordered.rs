//! A stream that many threads write to, each in its turn.

use crate::base::{Class, Error, Result};
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};

/// A stream whose pieces are written in the order of their numbers.
pub struct Ordered<'a> {
    state: Mutex<State<'a>>,
    turn: Condvar,
    name: String,
}

struct State<'a> {
    out: Box<dyn Write + Send + 'a>,
    next: u64,
    failed: Option<Error>,
}

impl std::fmt::Debug for Ordered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl<'a> Ordered<'a> {
    /// A stream at its beginning.
    pub fn new(name: &str, out: Box<dyn Write + Send + 'a>) -> Self {
        let state = Mutex::new(State { out, next: 0, failed: None });
        Self { state, turn: Condvar::new(), name: name.to_owned() }
    }

    /// Waits for the turn of `number` and writes; every number comes exactly once, or the stream has failed.
    /// A closed pipe is [`Error::silent`].
    pub fn put(&self, number: u64, data: &[u8]) -> Result<()> {
        self.put_with(number, |out| out.write_all(data))
    }

    /// The same with something to write that is made in its turn.
    pub fn put_with(
        &self,
        number: u64,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.failed.is_none() && state.next != number {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let done = write(&mut *state.out);
        if let Err(error) = done {
            let error = failed(&self.name, error);
            state.failed = Some(error.clone());
            drop(state);
            self.turn.notify_all();
            return Err(error);
        }
        state.next += 1;
        drop(state);
        self.turn.notify_all();
        Ok(())
    }

    /// A piece will never come: nothing after it can be written.
    pub fn fail(&self, error: Error) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.get_or_insert(error);
        self.turn.notify_all();
    }

    /// Hands over what is buffered.
    pub fn flush(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.out.flush().map_err(|error| failed(&self.name, error))
    }

    /// Why nothing more can be written.
    pub fn gone(&self) -> Option<Error> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }
}

/// A closed pipe is silence.
pub(super) fn failed(name: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Error::silent(Class::Io);
    }
    Error::io(name, "writing", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_whoever_is_first() {
        let mut bytes = Vec::new();
        let out = Ordered::new("x", Box::new(&mut bytes));
        std::thread::scope(|scope| {
            for number in (0..20).rev() {
                let out = &out;
                scope.spawn(move || out.put(number, &[number as u8]).expect("put"));
            }
        });
        out.flush().expect("flush");
        drop(out);
        assert_eq!(bytes, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn nobody_waits_for_a_piece_that_does_not_come() {
        let out = Ordered::new("x", Box::new(std::io::sink()));
        std::thread::scope(|scope| {
            let later = scope.spawn(|| out.put(1, b"later"));
            out.fail(Error::new(Class::Io, "lost"));
            assert_eq!(later.join().expect("thread").expect_err("failed").message, "lost");
        });
        assert!(out.gone().is_some() && out.flush().is_err());
    }
}
