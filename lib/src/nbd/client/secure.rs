//! What this room needs of TLS, which is another room's.

use crate::base::{Error, Result};
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Puts TLS over a connection to a server that has agreed to it.
pub trait Secure: fmt::Debug + Send + Sync {
    /// Gives a socket to go on with in place of `socket`, when the server has proved who it is; waits for that at
    /// most so long. Classes: `Connect`, `Timeout`.
    fn secure(&self, socket: OwnedFd, patience: Duration) -> Result<Secured>;
}

/// A connection with TLS over it.
#[derive(Debug)]
pub struct Secured {
    /// A Unix socket with the plain bytes.
    pub socket: OwnedFd,
    /// Dropped after it.
    pub ending: Box<dyn Ending>,
}

/// What becomes of it. Dropped after the socket, it waits for a moment until what was written last is sent.
pub trait Ending: fmt::Debug + Send + Sync {
    /// Why it has ended before its time; `None` as long as it has not.
    fn why(&self) -> Option<Error>;
}
