//! The library under the mirror toolkit: a volume kept in two or more copies, entirely in userspace.
//!
//! # Words
//!
//! A **volume** is the device that a client sees; a **leg** is one copy of it, *local* (a file or block device
//! here) or *remote* (behind NBD). A leg is *dumb* when nothing at its side refuses a second writer. A **map** says
//! what one leg may lack, a bit for each **block**; in memory it is two sets: **missing** (must be copied to the
//! leg) and **unflushed** (sent to it, not yet known to be on its stable storage). On disk stands their union, read
//! back as missing. A **generation** names the contents of a leg; its **record** says which one it holds. *In sync*
//! are the legs that hold everything that was acknowledged; the others are brought back by a **resync**.
//!
//! # Floors
//!
//! A file imports only lower floors; rooms of floors 2 and 4 are strangers to each other.
//!
//! | floor | rooms |
//! |---|---|
//! | 5 | [`cli`]: exit status, wording, progress |
//! | 4 | [`volume`]: the deterministic core ([`volume::core`]) and the driver around it; [`sync`]; [`capture`] |
//! | 3 | [`leg`], [`config`]: one side of a mirror; settings |
//! | 2 | [`nbd`], [`map`], [`delta`], [`generation`], [`fslog`], [`control`], [`remote`], [`transport`]: one format or protocol each |
//! | 1 | [`device`]: things with bytes |
//! | 0 | [`base`]: words, units, limits, errors |
//!
//! # Invariants
//!
//! What must be true at every instant and after any crash. Each is checked in `tests/simulate.rs` over thousands
//! of random histories, where every single rule that keeps it ([`volume::core::Rule`]) is also switched off once
//! and must be missed; each also has a test by hand beside the core (`volume/core/*tests.rs`).
//!
//! 1. **Superset.** Where a leg differs from what a read of the volume may return, its map is marked; writes
//!    that ended in an error are included. A crash may widen a map, never void it; by how much is told.
//! 2. **Mark first.** The marks of all legs precede the first write to any of them.
//! 3. **Flush before clear.** A mark goes only after a flush that was issued after the write was acknowledged, if
//!    no write to that block was in flight since. A lost connection or a failed flush turns everything unflushed
//!    into missing.
//! 4. **Acknowledged is kept.** What was answered is on every leg in sync, and that a leg left is durable before
//!    the answer. What was flushed is on stable storage of all of them.
//! 5. **One order.** All writes, clients' and internal ones, enter one set of ranges in flight before their
//!    source is read; overlapping ones go one after the other.
//! 6. **No old reads.** A read never runs beside a write of the same bytes; the missing part of a leg is never
//!    read.
//! 7. **A way out.** Every state says which command to type next.
//! 8. **Bounds.** Every queue, buffer, name, count and time has a limit in [`base::limits`].
//! 9. **Legs stay plain.** Metadata lives beside a leg, never in it.
//! 10. **TRIM is defined.** It is `WRITE_ZEROES` on every leg, so that legs stay equal.
//!
//! # How a write goes
//!
//! The driver ([`volume`]) receives requests of all clients in batches and hands them to the core as events; the
//! core answers with actions: mark, write to each leg, flush, persist, reply. The driver performs them in that
//! order: marks are stores into a mapped file, remote legs are sent to first, local I/O follows, replies come last,
//! and the payload is never copied on the way. What may take long (fsync, cold reads, records) is done by workers.
//!
//! # Beside the writes
//!
//! A map survives the death of the process because it is mapped; with durability `power` the first mark in a quiet
//! *run* of 64 blocks waits for a sync of the map, shared by all that wait, and on disk the whole run counts as dirty
//! until it has cooled ([`volume::core`], `heat`). A **tracker** is a map that no leg clears: it marks what a reader may
//! see changed, for backups; only who takes it empties it. A *verify* reads the same range of every leg under its lock,
//! and a difference is believed only at the second look. A *barrier* drains and flushes, and holds new writes for a
//! bounded time. All three are states of the core, and histories of the simulator.

// Floor 0: words, units, limits, errors.
pub mod base;

// Floor 1: files and block devices, durable small files, stores for crash tests.
pub mod device;

// Floor 2: the daemon's control socket: JSON lines, requests, events, status.
pub mod control;

// Floor 2: digests of a device, block by block.
pub mod delta;

// Floor 2: what changed in a tree of files: log, index, dump.
pub mod fslog;

// Floor 2: the record of a leg: which contents it holds, and what its peers may hold.
pub mod generation;

// Floor 2: what one leg may lack, a bit per block: the set in memory and its file.
pub mod map;

// Floor 2: the NBD protocol, server and client, bytes in and bytes out.
pub mod nbd;

// Floor 2: what the far end of a copy speaks: blocks, digests, trees.
pub mod remote;

// Floor 2: a channel of bytes to the other side: TCP and Unix sockets, TLS, SSH.
pub mod transport;

// Floor 3: settings of a volume: flags, TOML, what is stored.
pub mod config;

// Floor 3: one copy of a volume: the LEG grammar, the words for its states.
pub mod leg;

// Floor 4: what differs between two devices, read on all cores, and copying it.
pub mod sync;

// Floor 4: changes of a tree of files: seen, dumped, applied on a standby.
pub mod capture;

// Floor 4: the volume: its deterministic core and the driver around it.
pub mod volume;

// Floor 5: the face of the programs: exit codes, progress, JSON, signals.
#[cfg(feature = "cli")]
pub mod cli;
