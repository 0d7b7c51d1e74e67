//! `create` and `serve`: their flags, and the way from flags to the options of the library.

use super::{output, value};
use crate::base::units::show_size;
use crate::base::{BlockSize, Class, Error, Name, Result};
use crate::config::file::{load_stored, load_volume};
use crate::config::{Cidr, Listen, MapDurability, MetricsTo, ReadPolicy, Settings, VolumeConfig};
use crate::config::{merge, merge_again, merge_start};
use crate::control::{StateDir, VolumeDir};
use crate::leg::{DiskState, LegDevice, LegText};
use crate::transport;
use crate::volume::{
    self, CreateOptions, CreateReport, Entrance, Reading, Reread, ServeNotice, ServeOptions, Trust,
};
use std::path::PathBuf;

/// What can be said of a volume on the command line; the configuration file says the same.
#[derive(Clone, Debug, clap::Args)]
pub struct VolumeArgs {
    /// One copy of the volume; may be repeated
    #[arg(long = "leg", value_name = "LEG", value_parser = value::leg)]
    legs: Vec<LegText>,
    /// This leg holds the data; it is copied to all others
    #[arg(long, value_name = "LEG")]
    from: Option<Name>,
    /// All legs hold the same data already
    #[arg(long)]
    known_equal: bool,
    /// All legs read as zeroes
    #[arg(long)]
    known_zero: bool,
    /// Listen on HOST:PORT; may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Listen>,
    /// Listen on a Unix socket [default: nbd.sock beside the maps]
    #[arg(long, value_name = "PATH", conflicts_with = "listen", value_parser = value::path)]
    unix: Option<PathBuf>,
    /// Listen beyond this machine though nothing asks who connects
    #[arg(long)]
    insecure: bool,
    /// Only these addresses may connect over TCP: a range, or one; may be repeated
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Cidr>,
    /// Certificates: TCP listeners speak TLS only, and nbds legs find theirs here
    #[arg(long, value_name = "DIR", value_parser = value::path)]
    tls_dir: Option<PathBuf>,
    /// Offer figures for Prometheus: HOST:PORT or unix:PATH answer HTTP, a path with a / is a file written anew
    #[arg(long, value_name = "ADDR|FILE", value_parser = value::metrics)]
    metrics: Option<MetricsTo>,
    /// Run this by the shell at each event; facts are in the environment
    #[arg(long, value_name = "COMMAND")]
    on_event: Option<String>,
    /// Refuse writes with fewer legs in sync [default: 1]
    #[arg(long, value_name = "N")]
    min_legs: Option<u32>,
    /// A bit of a map stands for so many bytes [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    map_block: Option<BlockSize>,
    /// What marks survive: process (a kill) or power (a power cut) [default: process]
    #[arg(long, value_name = "DURABILITY")]
    map_durability: Option<MapDurability>,
    /// Which leg answers reads: local, least-pending, round-robin [default: local]
    #[arg(long, value_name = "POLICY")]
    read_policy: Option<ReadPolicy>,
    /// With at most two requests in flight, ask the sockets for so long before sleeping [default: 20]
    #[arg(long, value_name = "MICROSECONDS")]
    spin: Option<u64>,
}

/// The command line of `mirrord create`.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// Name of the new volume
    name: Name,
    /// Size of the volume
    #[arg(long, value_parser = value::size, conflicts_with = "like")]
    #[arg(required_unless_present_any = ["like", "salvage"])]
    size: Option<u64>,
    /// As large as this device
    #[arg(long, value_name = "DEVICE", value_parser = value::device)]
    like: Option<LegDevice>,
    /// What this leg holds is the volume: its old records are damaged or lost
    #[arg(long, value_name = "LEG", value_parser = value::leg)]
    #[arg(conflicts_with_all = ["from", "known_equal", "known_zero"])]
    salvage: Option<LegText>,
    /// Check everything, print what would be made, change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    volume: VolumeArgs,
}

/// The command line of `mirrord serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Name of the volume
    name: Name,
    /// Read [volume.NAME] of this file; flags are stronger
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A throw-away mirror of the legs that are given: nothing is stored
    #[arg(long)]
    ephemeral: bool,
    /// One client on standard input and output; stop when it has gone
    #[arg(short = 's', long, conflicts_with_all = ["listen", "unix"])]
    stdio: bool,
    /// Stop when the process that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl VolumeArgs {
    fn settings(&self) -> Settings {
        Settings {
            listen: (!self.listen.is_empty()).then(|| self.listen.clone()),
            unix: self.unix.clone(),
            insecure: self.insecure.then_some(true),
            allow: (!self.allow.is_empty()).then(|| self.allow.clone()),
            tls_dir: self.tls_dir.clone(),
            metrics: self.metrics.clone(),
            on_event: self.on_event.clone(),
            min_legs: self.min_legs,
            map_block: self.map_block,
            map_durability: self.map_durability,
            read_policy: self.read_policy,
            spin_us: self.spin,
            legs: self.legs.clone(),
        }
    }

    fn trust(&self, config: &VolumeConfig) -> Result<Trust> {
        Trust::from_flags(self.from.clone(), self.known_equal, self.known_zero, config)
    }

    const fn says_trust(&self) -> bool {
        self.from.is_some() || self.known_equal || self.known_zero
    }
}

impl CreateArgs {
    fn options(&self, state_dir: StateDir) -> Result<CreateOptions> {
        let mut settings = self.volume.settings();
        settings.legs.splice(0..0, self.salvage.clone());
        let config = merge(settings, None, None)?;
        let trust = match (&self.salvage, config.legs.first()) {
            (Some(_), Some(first)) => Trust::Salvage(first.name.clone()),
            _ => self.volume.trust(&config)?,
        };
        Ok(CreateOptions {
            state_dir,
            name: self.name.clone(),
            size: self.size,
            like: self.like.clone(),
            config,
            trust,
            dry_run: self.dry_run,
        })
    }
}

impl ServeArgs {
    fn options(&self, state_dir: StateDir) -> Result<ServeOptions> {
        let dir = state_dir.volume(&self.name);
        let file = self.file()?;
        let stored = if self.ephemeral {
            if dir.config().exists() {
                let text =
                    format!("{}: serving a throw-away mirror: a volume of this name is stored", self.name);
                return Err(Error::new(Class::Refused, text).hint(format!("mirrord serve {}", self.name)));
            }
            None
        } else {
            if self.volume.says_trust() {
                return Err(Error::new(
                    Class::Usage,
                    "--from, --known-equal and --known-zero are for create, and for serve --ephemeral",
                ));
            }
            dir.must_exist()?;
            Some(load_stored(&dir.config(), &self.name)?)
        };
        let named = names(file.as_ref());
        let (config, strangers) = merge_start(self.volume.settings(), file, stored)?;
        let ephemeral = if self.ephemeral { Some(self.volume.trust(&config)?) } else { None };
        let entrance = self.entrance(transport::activation()?)?;
        let exit_with_parent = self.exit_with_parent;
        let (again, dir) = (self.clone(), state_dir.volume(&self.name));
        let reread = Some(Reread::new(named, move || again.read_again(&dir)));
        Ok(ServeOptions {
            state_dir,
            name: self.name.clone(),
            config,
            strangers,
            ephemeral,
            entrance,
            exit_with_parent,
            reread,
        })
    }

    /// What the configuration file says, with paths that mean the same from everywhere.
    fn file(&self) -> Result<Option<Settings>> {
        let Some(path) = &self.config else { return Ok(None) };
        let mut file = load_volume(path, &self.name)?;
        for leg in &mut file.legs {
            *leg = leg.clone().absolute()?;
        }
        Ok(Some(file))
    }

    /// The same as at the start, while the volume is served.
    fn read_again(&self, dir: &VolumeDir) -> Result<Reading> {
        let file = self.file()?;
        let stored = if self.ephemeral { None } else { Some(load_stored(&dir.config(), &self.name)?) };
        let named = names(file.as_ref());
        let config = merge_again(self.volume.settings(), file, stored)?;
        Ok(Reading { config, named })
    }

    /// Where clients come in, for so many sockets of socket activation.
    fn entrance(&self, activated: usize) -> Result<Entrance> {
        let addresses = !self.volume.listen.is_empty() || self.volume.unix.is_some();
        match (self.stdio, activated) {
            (false, 0) => Ok(Entrance::Configured),
            (true, 0) => Ok(Entrance::Stdio),
            (false, _) if !addresses => Ok(Entrance::Activated),
            _ => Err(Error::new(
                Class::Usage,
                format!(
                    "{}: serving it: started with {activated} sockets (LISTEN_FDS): --listen, --unix and --stdio \
                     cannot be used with them",
                    self.name
                ),
            )),
        }
    }
}

/// The legs that a file names.
fn names(file: Option<&Settings>) -> Vec<Name> {
    file.iter().flat_map(|file| &file.legs).filter_map(|leg| leg.name.clone()).collect()
}

/// `mirrord create`
pub fn create(args: &CreateArgs, quiet: bool) -> anyhow::Result<()> {
    let report = volume::create(&args.options(StateDir::from_environment()?)?)?;
    if args.json {
        output::print_json(&report)?;
    } else if args.dry_run {
        output::print(&plan(&report))?;
    } else if !quiet {
        output::tell(&plan(&report));
    }
    Ok(())
}

/// What was made, or would be, for a person.
fn plan(report: &CreateReport) -> String {
    let would = if report.dry_run { "would be made" } else { "made" };
    let (size, block) = (show_size(report.size), show_size(report.block));
    let mut lines = vec![format!("{}: {would}: {size}, map block {block}", report.name)];
    for leg in &report.legs {
        let copied = match leg.disk_state {
            DiskState::UpToDate => String::new(),
            _ => format!(", {} to copy", show_size(leg.dirty)),
        };
        let flush = if leg.flush_unsafe { ", never counts for durability (flush=unsafe)" } else { "" };
        let addresses = std::iter::once(&leg.device).chain(&leg.others).map(ToString::to_string);
        let device = addresses.collect::<Vec<_>>().join(" or ");
        lines.push(format!("  {}: {device}: {}{copied}{flush}", leg.name, leg.disk_state));
    }
    lines.join("\n") + "\n"
}

/// `mirrord check-config`
pub fn check_config(path: &std::path::Path) -> anyhow::Result<()> {
    Ok(volume::check_config(&StateDir::from_environment()?, path)?)
}

/// `mirrord serve`: until SIGTERM or SIGINT.
pub fn serve(args: &ServeArgs, quiet: bool) -> anyhow::Result<()> {
    let options = args.options(StateDir::from_environment()?)?;
    let tell = |text: &str| {
        if !quiet {
            output::tell(&format!("mirrord: {}: {}\n", options.name, output::one_line(text)));
        }
    };
    volume::serve(&options, &mut |notice| match notice {
        // Nobody reading the URIs is no reason to stop serving.
        ServeNotice::Ready { uris } if options.entrance == Entrance::Configured => {
            let _ = output::print(&(uris.join("\n") + "\n"));
        }
        // Standard output is the client's, or that of whoever opened the sockets and knows them.
        ServeNotice::Ready { .. } => {}
        ServeNotice::Note(text) => tell(&text),
        ServeNotice::Stopping => tell("stopping: requests drain, legs are flushed"),
    })?;
    Ok(())
}
