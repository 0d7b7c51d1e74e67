//! Floor 4: what changed in a tree of files is seen, dumped, and made so on a standby.
//!
//! | room | what is in it |
//! |---|---|
//! | [`tree`] | the only way to anything in a tree, and looking at it |
//! | [`live`] | the log that a recorder writes and dumps read, and how they talk |
//! | [`scan`] | a tree as it is now, against what an index remembers |
//! | [`btrfs`] | snapshots, and what `btrfs send` says of them |
//! | [`store`] | what the source remembers of its rounds |
//! | [`fanotify`] | a recorder of all processes, with byte ranges of big files |
//! | [`seccomp`] | a recorder of one command, without privileges |
//! | [`dump`] | what changed, as one stream |
//! | [`apply`] | a standby is made identical, and remembers its round |
//! | [`export`], [`seed`], [`far`] | whole errands: to `btrfs receive`, the first synchronisation, another machine |
//!
//! A room uses those above it. [`barrier`] (the command that makes a tree quiet) and [`watch`] (how far work is, and
//! whether it is to end) are used by all. The two recorders do not know each other, and dumps know neither: what one of
//! them saw is in the log.
//!
//! Every access goes through [`tree::Root`], and so stays beneath the directory that was named.

pub mod apply;
pub mod barrier;
pub mod btrfs;
pub mod dump;
pub mod export;
pub mod fanotify;
pub mod far;
pub mod live;
pub mod scan;
pub mod seccomp;
pub mod seed;
pub mod store;
pub mod tree;
pub mod watch;

/// The directory in the root of a standby where new and detached objects are while a dump is applied. No scan sees
/// it, and no dump may name it.
pub const STAGE: &[u8] = b".cfor-log.stage";
