//! A barrier inside the loop: who asked for it, and what it is told.

use super::Driver;
use crate::base::{Class, Error, limits};
use crate::control::Reply;
use crate::volume::core::{Command, Event, barrier};

/// Who asked for the barrier.
#[derive(Debug)]
pub(super) struct Asked {
    /// The command that began it.
    begun: u64,
    /// The command that ends it.
    ended: Option<u64>,
    key: u64,
}

impl Driver<'_> {
    /// `snapshot-barrier`, its first half; answered when writes are held.
    pub(super) fn begin_barrier(&mut self, key: u64, for_ms: u64) {
        if self.barrier.is_some() {
            let text = format!("{}: holding writes: somebody else does so already", self.name);
            let error = Error::new(Class::Busy, text).hint(format!("mirrord status {}", self.name));
            return self.reply_control(key, &error.into());
        }
        if for_ms == 0 || for_ms > limits::BARRIER_MAX_MS {
            let most = limits::BARRIER_MAX_MS / 1000;
            let text = format!("{}: holding writes: for more than 0 and at most {most} seconds", self.name);
            return self.reply_control(key, &Error::new(Class::Usage, text).into());
        }
        let id = self.command_id(key);
        self.barrier = Some(Asked { begun: id, ended: None, key });
        self.events.push(Event::Command { id, command: Command::Barrier { for_ms } });
    }

    /// Its second half.
    pub(super) fn end_barrier(&mut self, key: u64) {
        let begun = self.barrier.as_ref().filter(|asked| asked.key == key).map(|asked| asked.begun);
        let Some(begun) = begun else {
            let text = format!("{}: letting writes go on: this connection holds none", self.name);
            return self.reply_control(key, &Error::new(Class::Refused, text).into());
        };
        let id = self.command_id(key);
        if let Some(asked) = &mut self.barrier {
            asked.ended = Some(id);
        }
        self.events.push(Event::Command { id, command: Command::EndBarrier { barrier: begun } });
    }

    /// The core has answered a command: if it was of the barrier, this is what is said.
    pub(super) fn barrier_answered(&mut self, id: u64, result: Result<(), &'static str>) -> Option<Reply> {
        let asked = self.barrier.as_ref().filter(|asked| asked.begun == id || asked.ended == Some(id))?;
        if asked.ended == Some(id) || result.is_err() {
            self.barrier = None;
        }
        let Err(why) = result else { return Some(Reply::ok()) };
        let class = match why {
            barrier::LATE | barrier::BROKEN => Class::Timeout,
            barrier::UNFLUSHED => Class::Io,
            _ => Class::Refused,
        };
        let error = Error::new(class, format!("{}: holding writes: {why}", self.name));
        Some(error.hint(format!("mirrord status {}", self.name)).into())
    }

    /// Its connection has ended: writes go on.
    pub(super) fn abandon_barrier(&mut self, key: u64) {
        if let Some(asked) = self.barrier.take_if(|asked| asked.key == key) {
            let id = super::control::BY_SIGNAL;
            self.events.push(Event::Command { id, command: Command::EndBarrier { barrier: asked.begun } });
        }
    }
}
