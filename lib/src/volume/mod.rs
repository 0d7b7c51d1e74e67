//! The volume: its deterministic core and the driver around it.

pub mod core;
