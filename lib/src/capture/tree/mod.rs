//! A tree of files: the only way to anything in it, and looking at what is there.
//!
//! Everybody who touches a tree comes through here. Promised:
//!
//! - [`Root`] leads nowhere but beneath the directory that was named: past no symbolic link, no mount point;
//! - `inspect` looks at one object without changing it, not even its time of access where that can be avoided, and
//!   never waits for a pipe or a device; `handle` is what an object is known by, whatever its names are;
//! - `walk` sees all of a tree without opening a file;
//! - `mapped` are the files that somebody may change at this moment without any event;
//! - [`extents`] say where files are on the device underneath.

pub mod extents;
pub(super) mod handle;
pub(super) mod inspect;
pub(super) mod mapped;
pub(super) mod root;
pub(super) mod walk;

pub use root::{Root, check_apart};
