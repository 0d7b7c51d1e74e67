//! A standby is made identical to the tree that a dump was taken of, and remembers its round.
//!
//! `cfor-log apply`, a seed and the far end of a connection call [`apply`]; its order, and what is there after a crash at
//! each point of it, are in `run`. A stream of `btrfs send` is made a dump of first (`receive`). The `plan` is what
//! a dump would do, read and checked whole before anything is touched; `steps` do it, object by object (`make`,
//! `restore`), and `places` know where each object is meanwhile. `standby` is the directory where all of this is
//! remembered.
//!
//! Promised: the tree ends at the round of the dump, down to its Merkle root, or stays as it was; an apply that was
//! interrupted anywhere is finished by the next one.

mod make;
pub(super) mod places;
pub(super) mod plan;
mod receive;
mod restore;
mod run;
pub(super) mod standby;
mod steps;

pub use plan::Plan;
pub use run::{ApplyOptions, ApplyReport, apply, plan};
pub use standby::applying;
pub use steps::{Step, Stop};
