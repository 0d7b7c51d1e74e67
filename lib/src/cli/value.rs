//! Readers of values for clap: the grammar of `cli.md`, as in the configuration.

use crate::base::units::{parse_duration_ms, parse_size};
use crate::base::{BlockSize, Class, Error, Result};
use crate::leg::{LegDevice, LegText};
use std::time::Duration;

/// `512`, `64K`, `1.5G`, …
pub fn size(text: &str) -> Result<u64> {
    parse_size(text)
}

/// A map block: a size that is a power of two.
pub fn block(text: &str) -> Result<BlockSize> {
    BlockSize::new(parse_size(text)?)
}

/// `500ms`, `5s`, `2m`, `1h`, or seconds; not zero.
pub fn duration(text: &str) -> Result<Duration> {
    match parse_duration_ms(text)? {
        0 => Err(Error::new(Class::Usage, "0: reading a duration: it must be longer")),
        ms => Ok(Duration::from_millis(ms)),
    }
}

/// A LEG, with an absolute path.
pub fn leg(text: &str) -> Result<LegText> {
    text.parse::<LegText>()?.absolute()
}

/// A DEVICE, with an absolute path.
pub fn device(text: &str) -> Result<LegDevice> {
    text.parse::<LegDevice>()?.absolute()
}

/// Where metrics go, with an absolute path.
pub fn metrics(text: &str) -> Result<crate::config::MetricsTo> {
    text.parse::<crate::config::MetricsTo>()?.absolute()
}

/// A path, made absolute.
pub fn path(text: &str) -> Result<std::path::PathBuf> {
    std::path::absolute(text).map_err(|e| Error::io(text.escape_debug(), "finding its absolute path", e))
}
