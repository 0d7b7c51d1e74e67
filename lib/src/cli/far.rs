//! What the programs share about other machines: how they are reached, and names that may be there.

use crate::base::{Error, Result};
use crate::leg::LegDevice;
use crate::leg::dial::Dial;
use crate::leg::far::{Reach, target};
use crate::transport::ssh::{Options, Target};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How other machines are reached.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FarArgs {
    /// Reach ssh:// by this command, such as 'ssh -4', instead of libssh2
    #[arg(long, value_name = "COMMAND")]
    rsh: Option<String>,
    /// Where mirror-sync is on the other machine [default: on its PATH]
    #[arg(long, value_name = "PATH")]
    remote_path: Option<String>,
}

impl FarArgs {
    /// The same, and whether what travels is compressed.
    pub fn reach(&self, zstd: bool) -> Reach {
        Reach {
            ssh: Options { rsh: self.rsh.clone(), remote_path: self.remote_path.clone() },
            zstd,
            dial: Dial::default(),
        }
    }
}

/// Certificates for NBD servers.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// Certificates for nbds:// where the URI names none
    #[arg(long, value_name = "DIR", value_parser = crate::cli::value::path)]
    tls_dir: Option<PathBuf>,
}

impl TlsArgs {
    /// How NBD servers are reached.
    pub fn dial(&self) -> Dial {
        Dial { tls_dir: self.tls_dir.clone() }
    }
}

/// A device, here or there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// As a leg is named.
    Here(LegDevice),
    /// On another machine.
    Far(Target),
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match target(text)? {
            Some(target) => Ok(Self::Far(target)),
            None => text.parse().map(Self::Here),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(device) => device.fmt(f),
            Self::Far(target) => target.fmt(f),
        }
    }
}
