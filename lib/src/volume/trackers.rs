//! Trackers of a volume that nobody serves; a daemon is asked over its control socket.

use super::state;
use crate::base::{Name, Result};
use crate::config::VolumeConfig;
use crate::control::VolumeDir;

/// Adds a tracker, durably: it begins with nothing marked. What an unclean end of the last run may have changed is
/// marked by the next start. Classes: `Busy` if somebody serves the volume, `Refused` if the tracker exists.
pub fn add(dir: &VolumeDir, config: &VolumeConfig, tracker: &Name) -> Result<()> {
    state::change_trackers(dir, &config.legs, tracker, true)
}

/// Removes a tracker, durably. Classes: `Busy` if somebody serves the volume, `Usage` if there is none.
pub fn remove(dir: &VolumeDir, config: &VolumeConfig, tracker: &Name) -> Result<()> {
    state::change_trackers(dir, &config.legs, tracker, false)
}
