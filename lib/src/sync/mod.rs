//! Floor 4: what differs between two devices, and copying it.

pub mod digest;
pub mod end;
pub mod ends;
pub mod far;
pub mod reader;

pub use digest::{Side, diff, digest};
pub use end::{End, Facts, Opening, Piece};
pub use reader::Device;
