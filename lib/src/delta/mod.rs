//! What one copy has that another has not: the manifest of digests, the stream of changed blocks, and which
//! generation a copy holds.

pub mod lineage;
pub mod manifest;
pub mod stream;

pub use lineage::Lineage;
pub use manifest::{Digest, Manifest, ManifestHeader, TreeWriter};
pub use stream::{Change, DeltaHeader, DeltaReader, DeltaWriter};
