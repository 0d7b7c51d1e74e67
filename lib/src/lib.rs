//! The library under the mirror toolkit.

pub mod base;
/// NBD: the wire, a server's and a client's half of it without I/O, and the URI.
pub mod nbd;
/// Sockets: connecting, listening and accepting without blocking.
pub mod transport;
