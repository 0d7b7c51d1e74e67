//! A recorder of all processes (`fanotify(7)`): root, one file system, two processes.
//!
//! `cfor-log record` runs a [`Recorder`]: `events` of names and objects go into the log. Of files that are `big` the
//! byte ranges are known too: another process ([`noter`]; `noting` from the recorder's side) holds each access back until
//! it is noted (`permission`: the events and a clock that ends it all; `access`: what an access does; `noted`: the
//! book of a generation), and `lease` says when notes can be believed.
//!
//! Promised: who writes goes on, whatever becomes of either process, after a bounded wait; what is not seen for certain
//! is in the log as changed all over, or as lost, and then a dump scans.

mod access;
mod big;
mod events;
mod lease;
mod noted;
pub mod noter;
mod noting;
mod permission;
mod recorder;

pub use big::BigOptions;
pub use events::{Event, parse};
pub use recorder::{Recorder, records_of};
