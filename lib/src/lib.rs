//! The library under the mirror toolkit.

pub mod base;
