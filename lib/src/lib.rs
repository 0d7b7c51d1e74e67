//! The library under the mirror toolkit.

pub mod base;
pub mod config;
pub mod control;
pub mod leg;
pub mod map;
pub mod volume;
