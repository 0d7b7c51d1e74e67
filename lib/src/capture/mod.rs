//! Floor 4: what changed in a tree of files is seen, dumped, and made so on a standby.
//!
//! - [`scan`] looks at a tree and compares it with what an index remembers;
//! - [`dump`] turns the difference into a stream, [`store`] keeps the rounds of the source;
//! - [`apply`] makes a standby identical, [`standby`] keeps its side;
//! - [`verify`] compares trees and manifests;
//! - [`record`] sees changes as they happen ([`fanotify`]), and [`follow`] looks at what it saw.
//! - [`big`] has ranges of big files, which [`noter`] notes in a process of its own.
//! - [`kept`] has btrfs compare two snapshots instead; [`parts`] of a file are all that is read, where they are known.
//! - [`keeper`] runs a command whose own system calls are seen, without privileges: [`filter`] says which of them
//!   ([`calls`]), [`notify`] is how the kernel tells of them, [`notified`] the recorder, which looks at what they lead to
//!   ([`seen`], [`tracee`], [`opened`]).
//! - [`receive`] makes dumps of what `btrfs send` wrote, [`export`] what `btrfs receive` takes of dumps.
//! - [`far`] offers trees to another machine, [`afar`] uses them from there.
//!
//! Every access goes through [`root::Root`], and so stays beneath the directory that was named.

pub mod access;
pub mod afar;
pub mod apply;
pub mod barrier;
pub mod big;
pub mod btrfs;
pub mod calls;
pub mod clones;
pub mod contents;
pub mod dump;
pub mod export;
pub mod extents;
pub mod fanotify;
pub mod far;
pub mod filter;
pub mod follow;
pub mod handle;
pub mod inspect;
pub mod keeper;
pub mod kept;
pub mod lease;
pub mod live;
pub mod mapped;
pub mod noted;
pub mod noter;
pub mod notified;
pub mod notify;
pub mod opened;
pub mod parts;
pub mod permission;
pub mod places;
pub mod plan;
pub mod receive;
pub mod received;
pub mod record;
pub mod replay;
pub mod restore;
pub mod root;
pub mod scan;
pub mod seed;
pub mod seen;
pub mod snapshot;
pub mod standby;
pub mod steps;
pub mod store;
pub mod tracee;
pub mod verify;
pub mod walk;
pub mod watch;

/// The directory in the root of a standby where new and detached objects are while a dump is applied. No scan sees
/// it, and no dump may name it.
pub const STAGE: &[u8] = b".cfor-log.stage";
