//! `cfor-log`: what changed in a tree of files, seen, dumped, and applied on a standby.
//!
//! What most of these begin with (a pair of trees and its judges, a recorder) is in [`crate::support`].

mod blind; // what a recorder cannot see, and what real programs do
mod btrfs; // snapshots that btrfs compares; what it says against what the recorder saw
mod crash; // a standby whose apply is killed at every step
mod far; // trees on another machine: dumps sent there, compared there, seeded
mod fuzz; // dumps, indexes, logs and events of every kind of bytes
mod life; // long work on trees: plans, progress, signals, snapshots, times of access
mod log; // what changed in a tree, dumped and applied; what is refused
mod power; // the power fails at every sync of an apply
mod ranges; // byte ranges of big files: each way to change them
mod ranges_trouble; // byte ranges when processes die, stop, were there before, or write while a generation ends
mod received; // streams of btrfs send applied to standbys on other file systems
mod record; // changes seen as they happen, by the recorder
mod seccomp; // a command whose own system calls are recorded
mod sent; // dumps as streams that btrfs receive takes
mod trees; // random trees on four file systems end identical
