//! The clean end: no request is taken any more, those in flight are answered, and everybody is told.

use super::Driver;
use super::control::BY_SIGNAL;
use crate::base::limits;
use crate::control::EventKind;
use crate::volume::core::{Command, Event};
use crate::volume::options::ServeNotice;
use rustix::event::epoll;

impl Driver<'_> {
    /// SIGTERM or SIGINT has come.
    pub(super) fn signalled(&mut self) {
        use std::io::Read as _;
        let mut bytes = [0; 64];
        while matches!(self.signals.read(&mut bytes), Ok(n) if n > 0) {}
        self.stop(BY_SIGNAL);
    }

    /// The clean end: no request is taken any more, those in flight are answered.
    pub(super) fn stop(&mut self, id: u64) {
        if !self.stopping {
            self.stopping = true;
            (self.notify)(ServeNotice::Stopping);
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            self.listen(false);
        }
        self.events.push(Event::Command { id, command: Command::Stop });
    }

    /// After the core has stopped: legs are told, replies are sent for a while.
    pub(super) fn end(&mut self, ready: &mut Vec<epoll::Event>) {
        for leg in &mut self.legs {
            leg.say_goodbye();
        }
        self.event(EventKind::Stop, None, "stopped");
        let began_ms = self.now_ms();
        self.end_clients();
        while self.lingers(self.now_ms() - began_ms) {
            if self.round(ready).is_err() {
                return;
            }
            self.end_clients();
        }
    }

    /// Whether somebody has to be told something still, so long after the core has stopped.
    fn lingers(&self, ms: u64) -> bool {
        let replies = self.clients.len() > 0 || self.control.is_busy();
        replies && ms < limits::LINGER_MS || self.hook.is_busy() && ms < limits::HOOK_LINGER_MS
    }
}
