//! The library under the mirror toolkit.

pub mod base;

/// Floor 1: files and block devices, durable small files, stores for crash tests.
pub mod device;
