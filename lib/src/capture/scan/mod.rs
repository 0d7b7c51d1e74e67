//! A tree as it is now, against what an index remembers of it.
//!
//! Dumps and standbys call this, the first to find what is to be sent, the second to find what others changed. First a
//! tree is looked at (`Fresh`: all of it by `begin`, or by `follow` nothing but what a log names), then
//! what may have changed is read (`Fresh::read`): whole files block by block (`contents`), or the `parts` that a
//! log knows of, at once or from `clones`.
//!
//! Promised: what is taken from the index is as it was, by its identity and its times; everything is compared for
//! inequality, never for younger or older; what cannot be known for certain now is looked at again next time. Nothing
//! in the tree is written. [`verify`] believes no index, and reads all of it.

pub(super) mod clones;
mod contents;
pub(super) mod follow;
mod fresh;
mod parts;
mod read;
pub mod verify;

pub(super) use contents::{Changes, read_block};
pub use fresh::nothing;
pub(super) use fresh::{Fresh, begin, now};
pub(super) use read::Sink;
pub use read::{scan, scan_watched};
