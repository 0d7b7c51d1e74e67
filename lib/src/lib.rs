//! The library under the mirror toolkit.

/// Floor 0: words, units, limits, errors.
pub mod base;

/// Floor 1: files and block devices, durable small files, stores for crash tests.
pub mod device;

/// Floor 2: the daemon's control socket: JSON lines, requests, events, status.
pub mod control;

/// Floor 2: what changed in a tree of files: log, index, dump.
pub mod fslog;

/// Floor 2: the record of a leg: which contents it holds, and what its peers may hold.
pub mod generation;

/// Floor 2: what one leg may lack, a bit per block: the set in memory and its file.
pub mod map;

/// Floor 2: the NBD protocol, server and client, bytes in and bytes out.
pub mod nbd;

/// Floor 2: a channel of bytes to the other side: TCP and Unix sockets.
pub mod transport;

/// Floor 3: settings of a volume: flags, TOML, what is stored.
pub mod config;

/// Floor 3: one copy of a volume: the LEG grammar, the words for its states.
pub mod leg;

/// Floor 4: changes of a tree of files: seen, dumped, applied on a standby.
pub mod capture;

/// Floor 4: the volume: its deterministic core and the driver around it.
pub mod volume;

/// Floor 5: the face of the programs: exit codes, progress, JSON, signals.
#[cfg(feature = "cli")]
pub mod cli;
