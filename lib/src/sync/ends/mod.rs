//! The ends that there are.

pub mod command;
pub mod file;
pub mod nbd;
pub mod null;
pub mod ssh;

pub use file::FileEnd;
pub use nbd::NbdEnd;
pub use null::NullEnd;
pub use ssh::SshEnd;

#[cfg(test)]
mod tests;
