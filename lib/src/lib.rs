//! The library under the mirror toolkit.

pub mod base;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod control;
pub mod leg;
pub mod map;
pub mod volume;
