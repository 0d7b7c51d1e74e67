//! Floor 0: the words everything else is written in. Imports nothing of ours.

pub mod address;
pub mod error;
pub mod id;
pub mod limits;
pub mod name;
pub mod units;

pub use address::Address;
pub use error::{Class, Error, Result};
pub use id::Id;
pub use name::Name;
pub use units::{BlockSize, ByteRange};
