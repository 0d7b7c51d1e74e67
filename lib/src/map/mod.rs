//! What one leg may lack, a bit per block: the set in memory and its file.
//!
//! [`BlockSet`] is the algebra, [`format`](mod@format) the bytes of a map file, [`MapFile`] the file in use. Every
//! procedure that must survive a crash is a numbered list in [`seal`].

pub mod file;
pub mod format;
mod mapped;
pub mod seal;
pub mod set;

pub use file::MapFile;
pub use format::{Durability, Header, Identity};
pub use seal::{Belief, Doubt, Expect};
pub use set::BlockSet;
