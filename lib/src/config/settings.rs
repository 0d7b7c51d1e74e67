//! What can be set for a volume.

use super::{Cidr, Listen, MetricsTo};
use crate::base::{BlockSize, Class, Error, Result, limits};
use crate::leg::state::words;
use crate::leg::{LegSpec, LegText};
use std::path::PathBuf;

words! {
    /// What the marks of a map survive.
    MapDurability, "a map durability" {
        /// The death of the daemon by any signal.
        Process = "process",
        /// That, and a power cut: they are on stable storage before the writes that they stand for.
        Power = "power",
    }
}

words! {
    /// Which `UpToDate` leg answers a read.
    ReadPolicy, "a read policy" {
        /// One on this machine.
        Local = "local",
        /// The one with the fewest requests in flight.
        LeastPending = "least-pending",
        /// One after the other.
        RoundRobin = "round-robin",
    }
}

/// Settings as they were written in one place; what was not written there is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `listen`: addresses, each HOST:PORT.
    pub listen: Option<Vec<Listen>>,
    /// `unix`: the path of a socket to listen on.
    pub unix: Option<PathBuf>,
    /// `insecure`: listen beyond this machine though nothing protects it.
    pub insecure: Option<bool>,
    /// `allow`: only these addresses may connect over TCP.
    pub allow: Option<Vec<Cidr>>,
    /// `tls-dir`: the directory of certificates.
    pub tls_dir: Option<PathBuf>,
    /// `metrics`
    pub metrics: Option<MetricsTo>,
    /// `on-event`
    pub on_event: Option<String>,
    /// `min-legs`
    pub min_legs: Option<u32>,
    /// `map-block`
    pub map_block: Option<BlockSize>,
    /// `map-durability`
    pub map_durability: Option<MapDurability>,
    /// `read-policy`
    pub read_policy: Option<ReadPolicy>,
    /// `spin`, in microseconds.
    pub spin_us: Option<u64>,
    /// `leg`
    pub legs: Vec<LegText>,
}

/// Everything that is set for a volume, with a value for each.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeConfig {
    /// TCP addresses to listen on.
    pub listen: Vec<Listen>,
    /// A Unix socket to listen on. Where neither this nor `listen` is set, it is `nbd.sock` in the directory of
    /// the volume.
    pub unix: Option<PathBuf>,
    /// Listen beyond this machine though nothing protects it.
    pub insecure: bool,
    /// Only these addresses may connect over TCP; anybody, if there are none.
    pub allow: Vec<Cidr>,
    /// The directory of certificates: with it TCP listeners speak TLS only.
    pub tls_dir: Option<PathBuf>,
    /// Where figures for monitoring go.
    pub metrics: Option<MetricsTo>,
    /// A command of the shell that is run for each event.
    pub on_event: Option<String>,
    /// With fewer `UpToDate` sync legs, writes are refused. At least 1, at most the number of legs.
    pub min_legs: u32,
    /// A bit of a map stands for so many bytes.
    pub map_block: BlockSize,
    /// What the marks of a map survive.
    pub map_durability: MapDurability,
    /// Which leg answers a read.
    pub read_policy: ReadPolicy,
    /// With at most two requests in flight, sockets are asked for at most so many microseconds before the loop
    /// sleeps, as long as that pays.
    pub spin_us: u64,
    /// In the order of preference.
    pub legs: Vec<LegSpec>,
}

impl VolumeConfig {
    /// A volume of these legs with the default of everything else.
    pub const fn new(legs: Vec<LegSpec>) -> Self {
        Self {
            listen: Vec::new(),
            unix: None,
            insecure: false,
            allow: Vec::new(),
            tls_dir: None,
            metrics: None,
            on_event: None,
            min_legs: 1,
            map_block: BlockSize::DEFAULT,
            map_durability: MapDurability::Process,
            read_policy: ReadPolicy::Local,
            spin_us: limits::SPIN_DEFAULT_US,
            legs,
        }
    }

    /// Whether a listener beyond this machine may be opened: something asks who connects, or nobody has to. One that
    /// asks for certificates may be as well, which is seen in [`Self::tls_dir`].
    pub const fn may_listen_widely(&self) -> bool {
        self.insecure || !self.allow.is_empty()
    }

    /// Refuses what no volume can have.
    pub fn check(&self) -> Result<()> {
        crate::leg::spec::check_set(&self.legs)?;
        let legs = self.legs.len();
        if self.min_legs == 0 || self.min_legs as usize > legs {
            return Err(Error::new(
                Class::Usage,
                format!("min-legs is {}: must be from 1 to the number of legs, {legs}", self.min_legs),
            ));
        }
        if self.spin_us > limits::SPIN_US {
            return Err(Error::new(
                Class::Usage,
                format!("spin is {} microseconds: must be at most {}", self.spin_us, limits::SPIN_US),
            ));
        }
        Ok(())
    }
}
