//! The client's half: the handshake, the replies, and two clients for command lines: one request at a time, and many.

pub mod assembly;
pub mod blocking;
pub mod extents;
mod handshake;
mod negotiate;
pub mod pipelined;
pub mod replies;
pub mod secure;

pub use assembly::{Assembly, PlainAssembly, ReadAssembly};
pub use blocking::Blocking;
pub use extents::StatusAssembly;
pub use handshake::{ClientHandshake, ClientOptions, ClientProgress, ServerInfo};
pub use pipelined::Pipelined;
pub use replies::{Reply, ReplyParser};
pub use secure::{Ending, Secure, Secured};

use crate::base::{Class, Error};

/// The server broke the protocol: the connection must die. `object` is left to the caller, who knows the
/// address.
fn violation(what: impl std::fmt::Display) -> Error {
    Error::new(Class::Io, format!("the server broke the NBD protocol: {what}"))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
