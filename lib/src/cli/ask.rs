//! The verbs that ask running daemons: `status`, `events`, and everything that is one request.

use super::{output, status};
use crate::base::{Class, Error, Name, Result, limits};
use crate::config::file::load_stored;
use crate::control::{AddressStatus, Event, LegStatus, Request, StateDir, Status, VolumeDir, client};
use crate::leg::LegDevice;
use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::Duration;

/// How long a daemon may take to answer.
pub const REPLY: Duration = Duration::from_millis(limits::CONTROL_REPLY_MS);

/// One request to the daemon of a volume, answered without a value.
pub fn request(volume: &VolumeDir, request: &Request) -> Result<()> {
    client::call(volume, request, REPLY).map(|_| ())
}

/// Prints the status of one volume, or of all of the state directory; again each `watch`.
pub fn show_status(
    state: &StateDir,
    name: Option<&Name>,
    json: bool,
    watch: Option<Duration>,
) -> anyhow::Result<()> {
    loop {
        let volumes = match name {
            Some(name) => vec![client::status(&state.volume(name), REPLY)?],
            None => all(state)?,
        };
        if json {
            volumes.iter().try_for_each(output::print_json)?;
        } else {
            if watch.is_some() && std::io::stdout().is_terminal() {
                output::print("\x1b[H\x1b[2J")?;
            }
            output::print(&volumes.iter().map(status::render).collect::<Vec<_>>().join("\n"))?;
        }
        let Some(pause) = watch else { return Ok(()) };
        std::thread::sleep(pause);
    }
}

fn all(state: &StateDir) -> Result<Vec<Status>> {
    state.volumes()?.iter().map(|name| status_or_stored(&state.volume(name))).collect()
}

/// The status of a served volume; otherwise what is stored of it, and how to serve it.
fn status_or_stored(volume: &VolumeDir) -> Result<Status> {
    let error = match client::status(volume, REPLY) {
        Err(error) if error.class == Class::Connect => error,
        status => return status,
    };
    let mut status = Status { reason: Some(error.message), next: error.hint, ..Status::new(volume.name()) };
    match load_stored(&volume.config(), volume.name()) {
        Ok(stored) => {
            for (at, leg) in stored.legs.into_iter().enumerate() {
                let leg = leg.spec(at)?;
                let (name, device) = (leg.name.to_string(), leg.device.to_string());
                let address =
                    |device: &LegDevice| AddressStatus { device: device.to_string(), ..Default::default() };
                let addresses = leg.addresses().filter(|_| !leg.others.is_empty()).map(address).collect();
                status.legs.push(LegStatus { name, device, addresses, ..LegStatus::default() });
            }
        }
        Err(error) => {
            status.reason = Some(error.message);
            status.next = error.hint;
        }
    }
    Ok(status)
}

/// Prints the events of one volume, or of all that are served; with `now` only their present state.
pub fn show_events(state: &StateDir, name: Option<&Name>, now: bool, json: bool) -> anyhow::Result<()> {
    let volumes: Vec<_> = match name {
        Some(name) => vec![state.volume(name)],
        None => state.volumes()?.iter().map(|name| state.volume(name)).collect(),
    };
    let mut streams = Vec::new();
    for volume in &volumes {
        match client::events(volume, now, REPLY) {
            Err(error) if name.is_none() && error.class == Class::Connect => {}
            stream => streams.push(stream?),
        }
    }
    if streams.is_empty() {
        let error = Error::new(Class::Connect, format!("{}: no volume is served", state.path().display()));
        return Err(error.hint("mirrord status").into());
    }
    let (sender, events) = mpsc::sync_channel::<Result<Event>>(limits::EVENTS);
    for stream in streams {
        let sender = sender.clone();
        // The threads end with their daemons, or with this process.
        std::thread::spawn(move || {
            for event in stream {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    for event in events {
        let event = event?;
        if json {
            output::print_json(&event)?;
        } else {
            output::print(&format!("{}\n", output::one_line(&event.to_string())))?;
        }
    }
    Ok(())
}
