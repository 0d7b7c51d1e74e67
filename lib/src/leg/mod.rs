//! Floor 3: one side of a mirror: how a leg is written on a command line, and the words for its state.

pub mod device;
pub mod dial;
pub mod far;
pub mod spec;
pub mod state;
pub mod text;

pub use device::LegDevice;
pub use spec::{LegSpec, Mode, ReadPreference};
pub use state::{Connection, DiskState, Role};
pub use text::LegText;
