//! Table of contents: one line per module.

#![forbid(unsafe_code)]

mod addresses; // a leg with several addresses: tried in order, compared, never hammered
mod admin; // what an administrator asks of a running daemon: pause, legs, size, comparison, barrier
mod barrier; // writes held for a snapshot, and let go whoever dies
mod cfor; // what changed in a tree of files: seen, dumped, applied
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
mod sync; // mirror-sync: copies, deltas, what is told, what survives a kill
mod tidy; // floors, sizes, banned words
mod trackers; // what changed since a moment: kept, shown, rotated under load and under kills
mod verify; // legs compared while clients work: found, shown, repaired
