//! What one copy has that another has not. So far its manifest of digests.

pub mod manifest;

pub use manifest::{Digest, Manifest, ManifestHeader, TreeWriter};
