//! What btrfs itself knows: snapshots of a tree, and the streams that `btrfs send` makes of them.
//!
//! - For dumps: a `snapshot` is a moment of a whole tree; `kept` ones are compared by the kernel, and `replay`
//!   makes of what it says a log like that of a recorder.
//! - For standbys: `received` follows a whole stream in memory, and says what it would make of a tree.
//! - [`ioctl`] are the calls.
//!
//! Promised: nothing is changed but snapshots in the directory of the source; a stream is believed only where the kernel
//! would do what it says, whoever wrote it; and whatever is not certain is an answer that a scan is owed.

pub mod ioctl;
pub(super) mod kept;
pub(super) mod received;
mod replay;
pub(super) mod snapshot;

pub use received::Received;
pub use replay::Replay;
