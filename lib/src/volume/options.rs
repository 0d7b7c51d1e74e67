//! What `create` and `serve` are asked, and what they answer.

use crate::base::{Class, Error, Id, Name, Result};
use crate::config::VolumeConfig;
use crate::control::{StateDir, VolumeDir};
use crate::leg::{DiskState, LegDevice, LegSpec};
use std::sync::Arc;

/// How it is known what the legs of a new volume hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// There is only one leg: it is the volume.
    Single,
    /// This leg holds the data; everything is missing on all others (`--from`).
    From(Name),
    /// The same, and the leg was of a volume whose records are damaged or lost (`--salvage`).
    Salvage(Name),
    /// All legs hold the same data already (`--known-equal`).
    KnownEqual,
    /// All legs read as zeroes (`--known-zero`).
    KnownZero,
}

impl Trust {
    /// The trust that the three flags express for these legs. Two or more legs need exactly one of them.
    pub fn from_flags(
        from: Option<Name>,
        known_equal: bool,
        known_zero: bool,
        config: &VolumeConfig,
    ) -> Result<Self> {
        let usage = |text: String| Err(Error::new(Class::Usage, text));
        let given = usize::from(from.is_some()) + usize::from(known_equal) + usize::from(known_zero);
        if given > 1 {
            return usage("only one of --from, --known-equal and --known-zero can be given".into());
        }
        if let Some(name) = from {
            if config.legs.iter().any(|leg| leg.name == name) {
                return Ok(if config.legs.len() == 1 { Self::Single } else { Self::From(name) });
            }
            let known: Vec<_> = config.legs.iter().map(|leg| leg.name.to_string()).collect();
            return usage(format!("--from {name}: no leg has this name; the legs are {}", known.join(", ")));
        }
        match (known_equal, known_zero, config.legs.len()) {
            (true, _, _) => Ok(Self::KnownEqual),
            (_, true, _) => Ok(Self::KnownZero),
            (_, _, 0 | 1) => Ok(Self::Single),
            (_, _, legs) => usage(format!(
                "{legs} legs need exactly one of --from LEG, --known-equal and --known-zero: which of them holds \
                 the data?"
            )),
        }
    }
}

/// What `mirrord create` is asked.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Where the volume's directory is made.
    pub state_dir: StateDir,
    /// The new volume.
    pub name: Name,
    /// Its size in bytes. Exactly one of this and `like` is set.
    pub size: Option<u64>,
    /// As large as this device.
    pub like: Option<LegDevice>,
    /// Its legs (with absolute paths) and options, checked; stored as `volume.toml`
    /// ([`crate::config::to_toml`]).
    pub config: VolumeConfig,
    /// What the legs hold.
    pub trust: Trust,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

impl CreateOptions {
    /// The volume's directory.
    pub fn volume_dir(&self) -> VolumeDir {
        self.state_dir.volume(&self.name)
    }
}

/// The `schema` of a [`CreateReport`].
pub const CREATE_SCHEMA: &str = "mirrord-create/1";

/// What `create` did, or with `dry_run` would do.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CreateReport {
    /// [`CREATE_SCHEMA`].
    pub schema: &'static str,
    /// The new volume.
    pub name: Name,
    /// Its identity; none in a dry run.
    pub id: Id,
    /// In bytes.
    pub size: u64,
    /// A bit of a map stands for so many bytes.
    pub block: u64,
    /// Nothing was changed.
    pub dry_run: bool,
    /// In the configured order.
    pub legs: Vec<CreatedLeg>,
}

/// One leg of a [`CreateReport`].
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CreatedLeg {
    /// Its name.
    pub name: Name,
    /// What stands behind it.
    pub device: LegDevice,
    /// Its further addresses.
    pub others: Vec<LegDevice>,
    /// [`DiskState::UpToDate`] or [`DiskState::SyncTarget`].
    pub disk_state: DiskState,
    /// Bytes that must be copied to it.
    pub dirty: u64,
    /// Its server has no FLUSH and it is used all the same.
    #[serde(rename = "flush_unsafe")]
    pub flush_unsafe: bool,
}

/// Where the clients of `mirrord serve` come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entrance {
    /// At the addresses of the configuration; without any at a Unix socket in the volume's directory.
    #[default]
    Configured,
    /// At the sockets that systemd(1), or a program like nbdinfo(1), opened before it started this one.
    Activated,
    /// On standard input and output: one client, and the end when it has gone.
    Stdio,
}

/// A configuration that was read again: flags, file, what is stored.
#[derive(Clone, Debug)]
pub struct Reading {
    /// All of it. Its legs are those that are stored, and those that the file names.
    pub config: VolumeConfig,
    /// The legs that the file names.
    pub named: Vec<Name>,
}

/// Reads the configuration again.
#[derive(Clone)]
pub struct Reread {
    named: Vec<Name>,
    read: Arc<dyn Fn() -> Result<Reading> + Send + Sync>,
}

impl Reread {
    /// By this function, which is called by another thread. `named` are the legs that the file named at the start.
    pub fn new(named: Vec<Name>, read: impl Fn() -> Result<Reading> + Send + Sync + 'static) -> Self {
        Self { named, read: Arc::new(read) }
    }

    /// The legs that the file named at the start.
    pub fn named(&self) -> &[Name] {
        &self.named
    }

    /// Now.
    pub fn read(&self) -> Result<Reading> {
        (self.read)()
    }
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread")
    }
}

/// What `mirrord serve` is asked.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where the volume's directory is.
    pub state_dir: StateDir,
    /// Which volume.
    pub name: Name,
    /// Its legs (with absolute paths) and options: flags over file over what is stored; checked.
    pub config: VolumeConfig,
    /// Legs that the configuration names and the volume does not have.
    pub strangers: Vec<LegSpec>,
    /// A throw-away mirror: nothing is stored, and this says what its legs hold. `None` for a created volume.
    pub ephemeral: Option<Trust>,
    /// Where clients come in.
    pub entrance: Entrance,
    /// A clean stop as soon as the process that started this one ends.
    pub exit_with_parent: bool,
    /// How SIGHUP reads the configuration again; without it SIGHUP changes nothing.
    pub reread: Option<Reread>,
}

impl ServeOptions {
    /// The volume's directory.
    pub fn volume_dir(&self) -> VolumeDir {
        self.state_dir.volume(&self.name)
    }
}

/// What `serve` has to say while it runs; the caller decides who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeNotice {
    /// It listens; clients can connect to each of these.
    Ready {
        /// NBD URIs, the first one the best from this machine.
        uris: Vec<String>,
    },
    /// Something an administrator should read: a map widened after a crash, a source elected, a leg lost.
    Note(String),
    /// A clean stop has begun: requests drain, legs are flushed, maps are closed.
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_legs_need_exactly_one_statement_of_what_they_hold() {
        let legs = |texts: &[&str]| VolumeConfig::new(texts.iter().map(|t| t.parse().expect(t)).collect());
        let (one, two) = (legs(&["a=/a"]), legs(&["a=/a", "b=/b"]));
        let name = |n: &str| Some(n.parse::<Name>().expect(n));
        for (from, equal, zero, config, is) in [
            (None, false, false, &one, Some(Trust::Single)),
            (name("a"), false, false, &one, Some(Trust::Single)),
            (None, false, true, &one, Some(Trust::KnownZero)),
            (None, false, false, &two, None),
            (None, true, true, &two, None),
            (name("a"), true, false, &two, None),
            (name("c"), false, false, &two, None),
            (name("b"), false, false, &two, name("b").map(Trust::From)),
            (None, true, false, &two, Some(Trust::KnownEqual)),
            (None, false, true, &two, Some(Trust::KnownZero)),
        ] {
            let trust = Trust::from_flags(from.clone(), equal, zero, config);
            assert!(trust.as_ref().err().is_none_or(|e| e.class == Class::Usage));
            assert_eq!(trust.ok(), is, "{from:?} {equal} {zero}");
        }
    }
}
