//! Floor 3: the configuration of a volume. Flags, a configuration file and the stored `volume.toml` are three
//! writings of the same [`Settings`]; [`merge()`] lays them over each other and gives the [`VolumeConfig`].

pub mod allow;
pub mod difference;
pub mod file;
pub mod legs;
pub mod listen;
pub mod merge;
pub mod metrics;
pub mod settings;
mod table;

pub use allow::Cidr;
pub use file::{load, load_volume, to_toml};
pub use listen::Listen;
pub use merge::{merge, merge_again, merge_start};
pub use metrics::MetricsTo;
pub use settings::{MapDurability, ReadPolicy, Settings, VolumeConfig};
