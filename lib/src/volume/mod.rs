//! The volume: its deterministic core and the driver around it.

pub mod core;
mod create;
mod driver;
mod members;
pub mod offline;
pub mod options;
mod resize;
mod serve;
mod state;

pub use create::create;
pub use options::{CreateOptions, CreateReport, CreatedLeg, ServeNotice, ServeOptions, Trust};
pub use serve::serve;
