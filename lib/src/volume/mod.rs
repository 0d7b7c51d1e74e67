//! The volume: its deterministic core and the driver around it.

pub mod core;
pub mod options;

pub use options::{CreateOptions, CreateReport, CreatedLeg, ServeNotice, ServeOptions, Trust};

use crate::base::{Class, Error, Result};

/// Makes a volume: checks its legs, then writes records, maps and `volume.toml`.
pub fn create(options: &CreateOptions) -> Result<CreateReport> {
    Err(Error::new(Class::Internal, format!("{}: creating it: not written yet", options.name)))
}

/// Serves a volume until it is told to stop.
pub fn serve(options: &ServeOptions, notice: &mut dyn FnMut(ServeNotice)) -> Result<()> {
    notice(ServeNotice::Stopping);
    Err(Error::new(Class::Internal, format!("{}: serving it: not written yet", options.name)))
}
