//! Floor 4: what differs between two devices, and (later) copying it.

pub mod digest;
pub mod reader;

pub use digest::{Side, diff, digest};
pub use reader::Device;
