//! Who holds which contents: the record of a leg, the file that keeps it, and the rules by which it changes
//! (`promotion.md` sections 2 and 3).

pub mod change;
pub mod format;
pub mod record;
pub mod store;

pub use record::{Ancestor, Flags, Generation, MapState, Peer, Record};
pub use store::RecordStore;
