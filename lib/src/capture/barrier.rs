//! The command that makes a tree quiet while it is read or switched: freeze a control group, checkpoint a process,
//! put a database into backup mode. It gets facts in its environment only.

use crate::base::{Class, Error, Result};
use std::process::{Command, Stdio};

/// A barrier that is passed in phases. One that was entered and not left is aborted when it is dropped.
#[derive(Debug)]
pub struct Barrier<'a> {
    command: Option<&'a str>,
    what: &'static str,
    facts: Vec<(&'static str, String)>,
    entered: bool,
}

impl<'a> Barrier<'a> {
    /// A barrier around `what` (`dump`, `restore`) with these facts for the command; without one it does nothing.
    pub fn new(command: Option<&'a str>, what: &'static str, facts: Vec<(&'static str, String)>) -> Self {
        Self { command, what, facts, entered: false }
    }

    /// Phase `pre-WHAT`: from now on the tree is quiet.
    pub fn enter(&mut self) -> Result<()> {
        self.run(&format!("pre-{}", self.what))?;
        self.entered = true;
        Ok(())
    }

    /// Phase `WHAT`: it is about to be read, or switched.
    pub fn inside(&mut self) -> Result<()> {
        self.run(self.what)
    }

    /// Phase `post-WHAT`: it may change again.
    pub fn leave(&mut self) -> Result<()> {
        let entered = std::mem::take(&mut self.entered);
        if entered { self.run(&format!("post-{}", self.what)) } else { Ok(()) }
    }

    /// Whether there is one, and it was entered and not left.
    pub const fn is_closed(&self) -> bool {
        self.entered && self.command.is_some()
    }

    fn run(&self, phase: &str) -> Result<()> {
        let Some(command) = self.command else { return Ok(()) };
        let facts = self.facts.iter().map(|(name, value)| (*name, value.as_str()));
        // Standard output carries data alone: what the command says goes to standard error.
        let stderr = rustix::io::dup(std::io::stderr())
            .map_err(|e| Error::os(Class::Internal, "standard error", "duplicating it", e))?;
        let status = Command::new("/bin/sh")
            .args(["-c", command])
            .env("MIRROR_PHASE", phase)
            .envs(facts)
            .stdin(Stdio::null())
            .stdout(Stdio::from(stderr))
            .status()
            .map_err(|e| Error::io(command.escape_debug(), &format!("running it in phase {phase}"), e))?;
        if status.success() {
            return Ok(());
        }
        let text = format!("{}: running it in phase {phase}: {status}", command.escape_debug());
        Err(Error::new(Class::Refused, text))
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        if self.entered {
            // The failure that led here is the one that is told.
            let _ = self.run(&format!("abort-{}", self.what));
        }
    }
}
