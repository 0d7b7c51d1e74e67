//! What one leg may lack, a bit per block: the set in memory and its file.
//!
//! [`BlockSet`] is the set in memory, [`format`](mod@format) the bytes of a map file, [`MapFile`] the file in use.
//! Every procedure that must survive a crash is a numbered list in [`seal`]. Maps that nobody has in use are read
//! from front to back ([`stream`]), combined ([`ops`]), changed ([`edit`]), emptied as they are copied ([`held`]) and
//! translated ([`convert`]).

pub mod ahead;
pub mod convert;
pub mod edit;
pub mod file;
pub mod format;
pub mod held;
mod mapped;
pub mod ops;
pub mod ranges;
pub mod seal;
pub mod set;
pub mod stream;

pub use file::MapFile;
pub use format::{Durability, Header, Identity};
pub use held::HeldMap;
pub use ranges::{RangeSource, Ranges};
pub use seal::{Belief, Doubt, Expect};
pub use set::BlockSet;
pub use stream::{MapReader, SetSource, Source};
