//! A recorder of one command and all that it starts (`seccomp_unotify(2)`): no privileges.
//!
//! `cfor-log record -- COMMAND` takes what is `prepared`, and the `keeper` runs the command behind a `filter` made
//! of the table of `calls`. Each call that may change something is a notification (`notify`) for the `recorder`,
//! which waits in a process of its own: it finds what the call leads to (`seen`, with the eyes of the `tracee`), and
//! which files are `opened` when a round begins. What the next recorder needs of one that died is in `memory`.
//!
//! Promised: a call goes on after what it may change is in the log, whatever came of looking; the command never notices
//! a recorder that dies; what cannot be followed is lost, in the log, and then a dump scans.

mod calls;
mod filter;
mod keeper;
mod memory;
mod notify;
mod opened;
mod prepared;
mod recorder;
mod seen;
mod tracee;

pub use keeper::Tell;
pub use prepared::Prepared;
