//! `mirrord tracker`: asked of the daemon, or done to what is stored when nobody serves the volume.

use super::ask::{REPLY, request};
use super::output;
use crate::base::units::show_size;
use crate::base::{Class, Error, Name, Result};
use crate::config::file::load_stored;
use crate::config::{Settings, merge};
use crate::control::{Request, TrackerAction, TrackerStatus, VolumeDir, client};
use crate::volume::trackers;

/// The `schema` of a line of `tracker ls --json`.
const SCHEMA: &str = "mirrord-tracker/1";

/// `tracker add`, `tracker remove`
pub fn change(volume: &VolumeDir, action: TrackerAction, tracker: &Name) -> Result<()> {
    let served = request(volume, &Request::Tracker { action, tracker: tracker.clone() });
    let Some(error) = served.as_ref().err().filter(|error| error.class == Class::Connect) else {
        return served;
    };
    let stored = || merge(Settings::default(), None, Some(load_stored(&volume.config(), volume.name())?));
    match action {
        TrackerAction::Add => trackers::add(volume, &stored()?, tracker),
        TrackerAction::Remove => trackers::remove(volume, &stored()?, tracker),
        _ => Err(error.clone()),
    }
}

#[derive(serde::Serialize)]
struct Line<'a> {
    schema: &'static str,
    volume: &'a Name,
    name: &'a str,
    /// `null` where nobody serves the volume.
    dirty: Option<u64>,
    taken: Option<u64>,
}

/// `tracker ls`
pub fn list(volume: &VolumeDir, only: Option<&Name>, json: bool) -> anyhow::Result<()> {
    let (mut found, served) = match client::status(volume, REPLY) {
        Ok(status) => (status.trackers, true),
        Err(error) if error.class == Class::Connect => {
            let names = volume.trackers()?;
            let of = |name: Name| TrackerStatus { name: name.to_string(), ..TrackerStatus::default() };
            (names.into_iter().map(of).collect(), false)
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(only) = only {
        found.retain(|tracker| tracker.name == only.as_str());
        if found.is_empty() {
            let text = format!("{}: no tracker {only}", volume.name());
            let error = Error::new(Class::Usage, text);
            return Err(error.hint(format!("mirrord tracker add {} {only}", volume.name())).into());
        }
    }
    for tracker in &found {
        let dirty = served.then_some(tracker.dirty);
        if json {
            let name = &tracker.name;
            let volume = volume.name();
            output::print_json(&Line { schema: SCHEMA, volume, name, dirty, taken: tracker.taken })?;
            continue;
        }
        let dirty = dirty.map_or_else(|| "not served".to_owned(), show_size);
        let taken = tracker
            .taken
            .map_or_else(String::new, |taken| format!("  {} taken and not confirmed", show_size(taken)));
        output::print(&format!("{}  {dirty}{taken}\n", output::one_line(&tracker.name)))?;
    }
    Ok(())
}
