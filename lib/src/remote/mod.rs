//! Floor 2: what `mirror-sync --serve` speaks with whoever started it (`mirror-protocol(7)`).
//!
//! - [`wire`] is the frame: bytes in and out, pure;
//! - [`message`] is what a frame means: requests and replies;
//! - [`client`] is the near end: several requests in flight, each waited for with a deadline;
//! - [`server`] is the far end: a loop over a [`server::Service`] that somebody on a higher floor provides.
//!
//! Both ends distrust each other: every length, count, object and id is checked before it is believed, and
//! whoever breaks a rule loses the connection.

pub mod client;
pub mod message;
pub mod server;
mod talk;
pub mod wire;

pub use client::{Client, Pipe, Ticket};
pub use message::{Call, DeviceFacts, Reply, Request};
pub use server::{FarDevice, FarStream, FarTree, How, Service, serve};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
