//! Table of contents: one line per module.

#![forbid(unsafe_code)]

mod addresses; // a leg with several addresses: tried in order, compared, never hammered
mod admin; // what an administrator asks of a running daemon: pause, legs, size, comparison, barrier
mod barrier; // writes held for a snapshot, and let go whoever dies
mod cfor_blind; // what a recorder cannot see, and what real programs do
mod cfor_btrfs; // snapshots that btrfs compares; what it says against what the recorder saw
mod cfor_crash; // a standby whose apply is killed at every step
mod cfor_far; // trees on another machine: dumps sent there, compared there, seeded
mod cfor_fuzz; // dumps, indexes, logs and events of every kind of bytes
mod cfor_life; // long work on trees: plans, progress, signals, snapshots, times of access
mod cfor_log; // what changed in a tree, dumped and applied; what is refused
mod cfor_power; // the power fails at every sync of an apply
mod cfor_ranges; // byte ranges of big files: each way to change them
mod cfor_ranges_trouble; // byte ranges when processes die, stop, were there before, or write while a generation ends
mod cfor_received; // streams of btrfs send applied to standbys on other file systems
mod cfor_record; // changes seen as they happen, by the recorder
mod cfor_seccomp; // a command whose own system calls are recorded
mod cfor_sent; // dumps as streams that btrfs receive takes
mod cfor_trees; // random trees on four file systems end identical
mod contract; // what every program must do: help, version, bad input, closed pipes, one line per error
mod control; // the verbs that ask a daemon, against one made of a thread
mod corpus; // bytes thrown at every importer of maps
mod crash; // what survives a kill of client, leg, daemon, or two of them
mod daemon; // mirrord as others start it: activation, standard input, a parent that ends
mod dirtymap; // the maps of dirtymap on files, in pipes, beside a running daemon
mod documents; // man pages and completions against --help
mod hostile; // hostile peers by the numbers of the checklist: clients, legs, floods
mod interop; // the programs of others as clients and as legs
mod json; // every JSON document and each of its keys is in mirror-json(5)
mod judges; // maps judged by the programs whose formats they are translated to
mod legacy; // the nbd crate as an old client and an old leg
mod many_legs; // three legs and thirty-two, who is read, how many are required
mod monitor; // how others watch a volume: check, metrics, commands for events, units
mod outage; // a leg goes away and comes back
mod readme; // what a newcomer types first: quickstart, the session of the README
mod recipes; // every block of mirror-recipes(7), as it stands
mod reload; // the configuration read again while the volume is served; what systemd hears
mod salvage; // records and maps damaged or lost, and the way out that the error line names
mod soak; // long runs under load, of which CI makes a short one each
mod ssh; // a real sshd: who it is, who one is there, the way there, a forced command
mod ssh_sync; // copies to and from another machine: what travels, what survives a kill of either side
mod strangers; // a leg that the configuration names and the volume does not have
mod support; // own directory per test, run programs, start and reap servers, skip loudly
mod sync_copy; // mirror-sync between files, servers, streams: what is copied, refused, told
mod sync_crash; // mirror-sync killed at random moments, and what it may have claimed
mod sync_delta; // deltas made, sent, applied, staged, rolled back
mod sync_ends; // one end by itself: several connections, and the loss of one
mod sync_life; // what a terminal shows, what signals do, servers killed in the middle
mod sync_order; // the order of syncs, renames and writes, as the kernel sees it
mod sync_refuse; // what is in use, and the source under another name
mod sync_sparse; // what a copy costs depends on what is dirty, not on the size
mod sync_tracker; // increments from a tracker of a running volume
mod tidy; // floors, sizes, banned words
mod trackers;
mod verify; // legs compared while clients work: found, shown, repaired // what changed since a moment: kept, shown, rotated under load and under kills
