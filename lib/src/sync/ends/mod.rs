//! The ends that there are.

pub mod command;
pub mod file;
pub mod nbd;
pub mod null;

pub use file::FileEnd;
pub use nbd::NbdEnd;
pub use null::NullEnd;

#[cfg(test)]
mod tests;
