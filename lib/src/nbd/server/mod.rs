//! The server's half: the handshake, what requests are legal, how replies look.

pub mod handshake;
mod options;
pub mod reply;
pub mod request;

pub use handshake::{ExportInfo, Exports, Handshake, Progress, Session};
pub use request::{check, payload_len};

#[cfg(test)]
pub(in crate::nbd) mod tests;
#[cfg(test)]
mod tls_tests;
