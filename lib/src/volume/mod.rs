//! The volume: its deterministic core and the driver around it.

pub mod core;
mod create;
mod driver;
mod entrance;
mod members;
mod metrics;
pub mod offline;
pub mod options;
mod probe;
mod resize;
mod salvage;
mod serve;
mod state;
mod strangers;
pub mod trackers;

pub use create::create;
pub use options::{
    CreateOptions, CreateReport, CreatedLeg, Entrance, Reading, Reread, ServeNotice, ServeOptions, Trust,
};
pub use serve::serve;
pub use strangers::check_config;
