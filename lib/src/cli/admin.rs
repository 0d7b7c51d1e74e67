//! `mirrord leg …`: asked of the daemon that serves the volume, or done here where nobody does.

use super::ask::{REPLY, request};
use super::{output, value};
use crate::base::{Class, Error, Name, Result};
use crate::control::{LegAction, LegStatus, Request, StateDir, VolumeDir, client};
use crate::leg::{LegDevice, LegSpec, LegText};
use crate::volume::offline;

/// What can be done with legs.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LegVerb {
    /// Add a leg: everything is missing there, and is copied while the volume goes on
    Add {
        /// Which volume
        name: Name,
        /// The new leg
        #[arg(value_parser = value::leg)]
        leg: LegText,
    },
    /// Make a leg a member no more; its device is not touched
    Remove {
        /// Which volume
        name: Name,
        /// Which leg
        leg: Name,
        /// Override what the refusal named: last-copy (only while nobody serves the volume)
        #[arg(long, value_name = "WHAT")]
        force: Option<Force>,
    },
    /// Take a leg out until it is attached; its map collects what it misses
    Detach(LegArgs),
    /// Take a leg back; what it missed is copied
    Attach(LegArgs),
    /// Declare a leg failed, without waiting for its deadline
    Fail(LegArgs),
    /// Put a new leg in the place of an old one, which leaves when the new one is up to date
    Replace {
        /// Which volume
        name: Name,
        /// The leg that leaves; at once where it has failed
        old: Name,
        /// The leg that comes
        #[arg(value_parser = value::leg)]
        new: LegText,
    },
    /// Change settings of a leg
    Set {
        /// Which volume
        name: Name,
        /// Which leg
        leg: Name,
        /// device=, read=, timeout=, retries=, rate=
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<String>,
    },
    /// Forget what a leg holds, and its failures: everything is copied to it
    Reset(LegArgs),
}

/// What `--force` can name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Force {
    /// The last good copy
    LastCopy,
}

/// A leg of a volume.
#[derive(Clone, Debug, clap::Args)]
pub struct LegArgs {
    /// Which volume
    name: Name,
    /// Which leg
    leg: Name,
}

/// A setting; the path of a device is made absolute here, where it was typed.
fn setting(text: &str) -> Result<String> {
    match text.split_once('=') {
        Some(("device", device)) => {
            let mut leg = LegText::of(LegDevice::File("/".into()));
            leg.set_device(device)?;
            let spec = leg.absolute()?.over(LegSpec::new("leg".parse()?, LegDevice::File("/".into())));
            let texts: Vec<_> = spec.addresses().map(|one| one.to_string().replace(',', ",,")).collect();
            Ok(format!("device={}", texts.join(",")))
        }
        Some(_) => Ok(text.to_owned()),
        None => Err(Error::new(Class::Usage, format!("{}: not key=value", text.escape_debug()))),
    }
}

/// Whether a daemon is there to be asked.
pub(super) fn is_served(dir: &VolumeDir) -> Result<bool> {
    match client::call(dir, &Request::Ping, REPLY) {
        Ok(_) => Ok(true),
        Err(error) if error.class == Class::Connect => dir.must_exist().map(|()| false),
        Err(error) => Err(error),
    }
}

fn add(dir: &VolumeDir, leg: LegText, replaces: Option<Name>) -> Result<()> {
    let Some(name) = leg.name.clone() else {
        let text = format!("{}: adding a leg: it needs a name, as in NAME={}", leg.device, leg.device);
        return Err(Error::new(Class::Usage, text));
    };
    let device = leg.device.clone();
    let spec = leg.over(LegSpec::new(name, device));
    if is_served(dir)? {
        return request(dir, &Request::LegAdd { leg: spec.to_string(), replaces });
    }
    offline::add(dir, &LegSpec { replaces, ..spec })
}

/// `mirrord leg …`
pub fn leg(verb: LegVerb, quiet: bool) -> Result<()> {
    let state = StateDir::from_environment()?;
    match verb {
        LegVerb::Add { name, leg } => add(&state.volume(&name), leg, None),
        LegVerb::Replace { name, old, new } => add(&state.volume(&name), new, Some(old)),
        LegVerb::Detach(LegArgs { name, leg }) => plain(&state.volume(&name), LegAction::Detach, leg),
        LegVerb::Attach(LegArgs { name, leg }) => plain(&state.volume(&name), LegAction::Attach, leg),
        LegVerb::Fail(LegArgs { name, leg }) => plain(&state.volume(&name), LegAction::Fail, leg),
        LegVerb::Reset(LegArgs { name, leg }) => {
            let dir = state.volume(&name);
            if is_served(&dir)? { plain(&dir, LegAction::Reset, leg) } else { offline::reset(&dir, &leg) }
        }
        LegVerb::Set { name, leg, settings } => {
            let dir = state.volume(&name);
            if is_served(&dir)? {
                request(&dir, &Request::LegSet { leg, set: settings })
            } else {
                offline::set(&dir, &leg, &settings)
            }
        }
        LegVerb::Remove { name, leg, force } => remove(&state.volume(&name), leg, force.is_some(), quiet),
    }
}

/// `mirrord resize`
pub fn resize(name: &Name, size: Option<u64>, quiet: bool) -> Result<()> {
    let dir = StateDir::from_environment()?.volume(name);
    let served = is_served(&dir)?;
    let before = if served { client::status(&dir, REPLY)?.size } else { offline::size(&dir)? };
    let now = if served {
        request(&dir, &Request::Resize { size })?;
        client::status(&dir, REPLY)?.size
    } else {
        offline::resize(&dir, size)?
    };
    if !quiet {
        let what = match (now == before, served) {
            (true, _) if size.is_none() => {
                ", as before: its smallest leg has no more, and has to be extended first"
            }
            (true, _) => ", as before",
            (false, true) => "; clients see it when they connect again",
            (false, false) => "",
        };
        output::tell(&format!("mirrord: {name}: it has {now} bytes{what}\n"));
    }
    Ok(())
}

/// `mirrord resync`: says of a leg that cannot be reached that it was tried, and what came of it so far.
pub fn resync(name: &Name, leg: Option<&Name>, full: bool, quiet: bool) -> Result<()> {
    let dir = StateDir::from_environment()?.volume(name);
    request(&dir, &Request::Resync { leg: leg.cloned(), full })?;
    if quiet {
        return Ok(());
    }
    let asked = |status: &&LegStatus| leg.is_none_or(|leg| status.name == leg.as_str());
    for leg in client::status(&dir, REPLY)?.legs.iter().filter(asked) {
        if let (Some(why), "Connecting") = (&leg.reason, leg.connection_state.as_str()) {
            let why = output::one_line(why);
            output::tell(&format!("mirrord: {name}: leg {}: {why}; it is tried again by itself\n", leg.name));
        }
    }
    Ok(())
}

fn plain(dir: &VolumeDir, action: LegAction, leg: Name) -> Result<()> {
    request(dir, &Request::Leg { action, leg })
}

fn remove(dir: &VolumeDir, leg: Name, force: bool, quiet: bool) -> Result<()> {
    if is_served(dir)? {
        if force {
            let text = format!("{}: removing the last copy: the volume is served", dir.name());
            return Err(Error::new(Class::Refused, text).hint("stop its mirrord first"));
        }
        return request(dir, &Request::LegRemove { leg });
    }
    if let Some(said) = offline::remove(dir, &leg, force)?
        && !quiet
    {
        output::tell(&format!("mirrord: {said}\n"));
    }
    Ok(())
}
