//! What changed since the round that a standby has, with the data, as one stream.
//!
//! `cfor-log dump`, a seed and an export call [`dump`]; its order of steps, and what is there after a crash at each of
//! them, are in `run`. Who knows what changed is asked in turn: a recorder's log, two snapshots, or the tree itself;
//! whatever is lost of the first two is a scan. `stream` writes what is found.
//!
//! Promised: the tree is only read; the stream leads from the base to a round whose number was never used before; who
//! has all of it can have it acknowledged, and who has not cannot apply it.

mod run;
mod stream;

pub use run::{DumpOptions, DumpReport, dump, plan};
pub(super) use stream::{Writer, write_names};
