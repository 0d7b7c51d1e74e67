//! Dirty maps: which blocks of a leg may differ.

pub mod set;

pub use set::BlockSet;
