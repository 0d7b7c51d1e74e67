//! The NBD protocol (`doc/proto.md` of the NBD project): bytes in, bytes out.
//!
//! Nothing here does I/O except `client::Blocking`, which command line tools use. The daemon feeds what it
//! received to the parsers and sends what they wrote. Everything on the wire is big-endian.

pub mod client;
mod fields;
pub mod server;
mod text;
pub mod uri;
pub mod wire;

pub use uri::{NbdUri, UriTls};
pub use wire::{Command, CommandFlags, Errno, Request, TransmissionFlags};

#[cfg(test)]
mod tests;
