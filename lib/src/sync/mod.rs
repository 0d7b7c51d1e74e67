//! Floor 4: what differs between two devices, and copying it.

pub mod copy;
pub mod digest;
pub mod end;
pub mod ends;
pub mod far;
pub mod feed;
pub mod memory;
pub mod ordered;
pub mod outgoing;
pub mod pace;
pub mod plan;
pub mod reader;
pub mod run;
pub mod stage;

pub use digest::{Side, diff, digest};
pub use end::{End, Facts, Opening, Piece};
pub use reader::Device;
