//! The command that is run for each event (`--on-event`): one after the other, in a thread of its own, with a
//! deadline. The facts are in its environment and never in its text.

use super::workers::Workers;
use super::{Completion, Driver};
use crate::base::limits;
use crate::control::Event;
use crate::volume::options::ServeNotice;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The command, and the events that wait for it.
pub(super) struct Hook {
    command: Option<String>,
    waiting: VecDeque<Event>,
    running: bool,
    /// Events that found no room since the last one that did.
    lost: u64,
    workers: Workers<Completion>,
}

impl Hook {
    /// No command runs yet.
    pub(super) fn new(command: Option<String>, workers: Workers<Completion>) -> Self {
        Self { command, waiting: VecDeque::new(), running: false, lost: 0, workers }
    }

    /// Another command from now on.
    pub(super) fn set(&mut self, command: Option<String>) {
        self.command = command;
    }

    /// Whether an event has not been told to the end.
    pub(super) fn is_busy(&self) -> bool {
        self.running
    }

    /// An event.
    pub(super) fn tell(&mut self, event: &Event) {
        if self.command.is_none() {
            return;
        }
        if self.waiting.len() >= limits::HOOK_EVENTS {
            self.lost += 1;
            return;
        }
        self.waiting.push_back(event.clone());
        self.next();
    }

    fn next(&mut self) {
        if self.running {
            return;
        }
        let (Some(event), Some(text)) = (self.waiting.pop_front(), self.command.clone()) else { return };
        let lost = std::mem::take(&mut self.lost);
        self.running = true;
        self.workers.submit(move || Completion::Hooked { problem: run(&text, &event, lost) });
    }
}

impl Driver<'_> {
    /// The command has ended, or was ended.
    pub(super) fn hooked(&mut self, problem: Option<String>) {
        self.hook.running = false;
        if let Some(problem) = problem {
            (self.notify)(ServeNotice::Note(format!("on-event: {problem}")));
        }
        self.hook.next();
    }
}

/// Runs the command for one event. Says what went wrong, if anything did.
fn run(text: &str, event: &Event, lost: u64) -> Option<String> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(text).envs(facts(event, lost)).process_group(0);
    // What is meant for this process alone.
    for name in
        ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
    {
        command.env_remove(name);
    }
    // Standard output may be a client's; errors go where ours go.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.map_or_else(|_| Stdio::null(), Stdio::from));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Some(format!("starting it for {}: {}", event.event, crate::base::error::plain(&e))),
    };
    let until = Instant::now() + Duration::from_millis(limits::HOOK_MS);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return None,
            Ok(Some(status)) => return Some(format!("for {}: {status}", event.event)),
            Ok(None) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(limits::HOOK_LOOK_MS));
            }
            Ok(None) => break,
            Err(e) => return Some(format!("waiting for it: {}", crate::base::error::plain(&e))),
        }
    }
    // Everything that it started, too.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // It is dead: this does not wait for long.
    let _ = child.wait();
    Some(format!("for {}: killed after {} seconds", event.event, limits::HOOK_MS / 1000))
}

/// The environment of the command. What came from elsewhere holds no control characters, and no empty promise: a
/// variable without a fact is empty, never that of an earlier event.
fn facts(event: &Event, lost: u64) -> [(&'static str, String); 7] {
    let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    [
        ("MIRROR_EVENT", event.event.to_string()),
        ("MIRROR_VOLUME", plain(&event.volume)),
        ("MIRROR_LEG", plain(event.leg.as_deref().unwrap_or_default())),
        ("MIRROR_TIME", event.time.clone()),
        ("MIRROR_SEQ", event.seq.to_string()),
        ("MIRROR_TEXT", plain(&event.text)),
        ("MIRROR_LOST", lost.to_string()),
    ]
}
