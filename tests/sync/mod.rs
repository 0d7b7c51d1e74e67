//! `mirror-sync`: copies, deltas, what is told and what is refused, and what survives a kill.

mod copy; // mirror-sync between files, servers, streams: what is copied, refused, told
mod crash; // mirror-sync killed at random moments, and what it may have claimed
mod delta; // deltas made, sent, applied, staged, rolled back
mod ends; // one end by itself: several connections, and the loss of one
mod life; // what a terminal shows, what signals do, servers killed in the middle
mod order; // the order of syncs, renames and writes, as the kernel sees it
mod refuse; // what is in use, and the source under another name
mod sparse; // what a copy costs depends on what is dirty, not on the size
mod tracker; // increments from a tracker of a running volume
