//! The command line of `dirtymap`.

use super::Named;
use crate::base::units::parse_size;
use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result};
use crate::cli::far::{FarArgs, Place, TlsArgs};
use crate::cli::{ProgressTo, value};
use crate::leg::LegDevice;
use crate::map::convert::ddrescue::Statuses;
use crate::map::convert::{FORMATS, Format, Given};
use crate::map::ops;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a result goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutArgs {
    /// Where the result goes [default: standard output]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub replace: bool,
}

/// What a person says to override.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ForceArgs {
    /// Override a refusal: volume, generation, size, cut, leg; several with commas
    #[arg(long = "force", value_name = "WHAT", value_delimiter = ',')]
    force: Vec<Forced>,
}

/// One thing to override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Forced {
    /// Maps of different volumes
    Volume,
    /// Maps relative to different generations
    Generation,
    /// Maps of different sizes
    Size,
    /// Dirty blocks would be cut off
    Cut,
    /// Marks are taken out of the map of a leg
    Leg,
}

impl ForceArgs {
    /// What the algebra knows of.
    pub fn ops(&self) -> ops::Force {
        let has = |what| self.force.contains(&what);
        ops::Force {
            volume: has(Forced::Volume),
            generation: has(Forced::Generation),
            size: has(Forced::Size),
            cut: has(Forced::Cut),
        }
    }

    /// Whether marks may be taken out of the map of a leg.
    pub fn leg(&self) -> bool {
        self.force.contains(&Forced::Leg)
    }
}

/// A RANGE, read when the map is known.
#[derive(Clone, Debug)]
pub struct RangeText(ByteRange);

impl RangeText {
    /// The bytes.
    pub fn range(&self) -> Result<ByteRange> {
        Ok(self.0)
    }
}

impl FromStr for RangeText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            |why: &str| Error::new(Class::Usage, format!("{}: reading a range: {why}", text.escape_debug()));
        let range = if let Some((offset, end)) = text.split_once("..") {
            let (offset, end) = (parse_size(offset)?, parse_size(end)?);
            let len = end.checked_sub(offset).ok_or_else(|| bad("it ends before it begins"))?;
            ByteRange::new(offset, len)
        } else if let Some((offset, len)) = text.split_once('+') {
            ByteRange::new(parse_size(offset)?, parse_size(len)?)
        } else {
            return Err(bad("not OFFSET+LENGTH or OFFSET..END"));
        };
        range.map(Self).ok_or_else(|| bad("it does not end below 2^64"))
    }
}

/// A FORMAT by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatArg(pub Format);

impl fmt::Display for FormatArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMATS.iter().find(|(_, format)| *format == self.0).map_or("", |(name, _)| name))
    }
}

impl clap::ValueEnum for FormatArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [FormatArg; FORMATS.len()] = {
            let mut all = [FormatArg(Format::Map); FORMATS.len()];
            let mut at = 0;
            while at < FORMATS.len() {
                all[at] = FormatArg(FORMATS[at].1);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        FORMATS.iter().find(|(_, format)| *format == self.0).map(|(name, _)| (*name).into())
    }
}

/// `dirtymap create`
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// The new map; - is standard output
    pub map: PathBuf,
    /// Size of the volume
    #[arg(long, value_parser = value::size, required_unless_present = "like", conflicts_with = "like")]
    pub size: Option<u64>,
    /// As large as this device
    #[arg(long, value_name = "DEVICE", value_parser = value::device)]
    pub like: Option<LegDevice>,
    /// A bit stands for so many bytes [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Of which volume it is: 32 hexadecimal digits [default: none]
    #[arg(long, value_name = "ID")]
    pub volume: Option<Id>,
    /// Every block is dirty
    #[arg(long)]
    pub all: bool,
    /// Replace MAP if it exists
    #[arg(long)]
    pub replace: bool,
}

/// `dirtymap show`
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The map
    pub map: Named,
    /// Print a JSON document, dirtymap-extents/1
    #[arg(long, group = "how")]
    pub json: bool,
    /// Print OFFSET LENGTH, a line for each run
    #[arg(long, group = "how")]
    pub list: bool,
    /// Print a character for each block
    #[arg(long, group = "how")]
    pub bitmap: bool,
    /// Only what is dirty in this range
    #[arg(long, value_name = "RANGE")]
    pub range: Option<RangeText>,
}

/// `dirtymap stat`
#[derive(Clone, Debug, clap::Args)]
pub struct StatArgs {
    /// The maps
    #[arg(required = true, value_name = "MAP")]
    pub maps: Vec<Named>,
    /// Print a JSON document a line for each, dirtymap-stat/1
    #[arg(long)]
    pub json: bool,
}

/// `dirtymap set` and `dirtymap clear`
#[derive(Clone, Debug, clap::Args)]
pub struct MarkArgs {
    /// The map; - reads standard input and writes standard output
    pub map: Named,
    /// OFFSET+LENGTH or OFFSET..END
    #[arg(required = true, value_name = "RANGE")]
    pub ranges: Vec<RangeText>,
    #[command(flatten)]
    pub(super) force: ForceArgs,
}

/// `dirtymap rotate`
#[derive(Clone, Debug, clap::Args)]
pub struct RotateArgs {
    /// VOLUME:TRACKER of a running mirrord
    #[arg(value_name = "VOLUME:TRACKER")]
    pub from: Named,
    /// The new map
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Replace OUT if it exists
    #[arg(long)]
    pub replace: bool,
}

/// `dirtymap or`, `and`, `sub`, `xor`
#[derive(Clone, Debug, clap::Args)]
pub struct CombineArgs {
    /// The maps; - is standard input
    #[arg(required = true, value_name = "MAP")]
    pub maps: Vec<Named>,
    /// Blocks of the result [default: the largest of the maps]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    #[command(flatten)]
    pub(super) force: ForceArgs,
    #[command(flatten)]
    pub(super) out: OutArgs,
}

/// One map in, one out.
#[derive(Clone, Debug, clap::Args)]
pub struct OneArgs {
    /// The map; - is standard input
    pub map: Named,
    #[command(flatten)]
    pub(super) out: OutArgs,
}

/// `dirtymap resize`
#[derive(Clone, Debug, clap::Args)]
pub struct ResizeArgs {
    #[command(flatten)]
    pub(super) one: OneArgs,
    /// The new size; what is new is dirty
    #[arg(value_parser = value::size)]
    pub size: u64,
    #[command(flatten)]
    pub(super) force: ForceArgs,
}

/// `dirtymap shift`
#[derive(Clone, Debug, clap::Args)]
pub struct ShiftArgs {
    #[command(flatten)]
    pub(super) one: OneArgs,
    /// How far marks move, like +1M or -512K
    #[arg(value_name = "BYTES", value_parser = signed, allow_hyphen_values = true)]
    pub by: i64,
    /// Size of the result [default: as much more or less]
    #[arg(long, value_parser = value::size)]
    pub size: Option<u64>,
    #[command(flatten)]
    pub(super) force: ForceArgs,
}

/// `+1M`, `-512K`
fn signed(text: &str) -> Result<i64> {
    let (size, minus) = match text.strip_prefix('-') {
        Some(size) => (size, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let by = i64::try_from(parse_size(size)?)
        .map_err(|_| Error::new(Class::Usage, format!("{text}: reading a distance: larger than 63 bits")))?;
    Ok(if minus { -by } else { by })
}

/// `dirtymap convert`
#[derive(Clone, Debug, clap::Args)]
pub struct ConvertArgs {
    /// Format of IN
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub from: FormatArg,
    /// Format of OUT
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: FormatArg,
    /// What is read [default: standard input]
    #[arg(value_name = "IN")]
    pub input: Option<Named>,
    /// What is written [default: standard output]
    #[arg(value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Size of the volume, where IN does not say it
    #[arg(long, value_parser = value::size, conflicts_with = "like")]
    pub size: Option<u64>,
    /// The size of this device
    #[arg(long, value_name = "DEVICE", value_parser = value::device)]
    pub like: Option<LegDevice>,
    /// Blocks of OUT [default: those of IN, or 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Blocks of IN, where it counts them without saying how large they are [default: --block]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub unit: Option<u64>,
    /// Of which volume the map is: 32 hexadecimal digits
    #[arg(long, value_name = "ID")]
    pub volume: Option<Id>,
    /// Statuses of ddrescue that are dirty [default: ?*/-]
    #[arg(long, value_name = "STATUSES", allow_hyphen_values = true)]
    pub statuses: Option<Statuses>,
    /// Of an era dump, blocks are dirty that were written in this era or later
    #[arg(long, value_name = "ERA")]
    pub since: Option<u64>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub replace: bool,
}

impl ConvertArgs {
    /// What is added to what IN says.
    pub fn given(&self, size: Option<u64>) -> Given {
        Given {
            size: self.size.or(size),
            block: self.block,
            unit: self.unit,
            volume: self.volume,
            statuses: self.statuses.clone(),
            since: self.since,
        }
    }
}

/// `dirtymap fetch`
#[derive(Clone, Debug, clap::Args)]
pub struct FetchArgs {
    /// Certificates.
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// The export of any NBD server
    #[arg(value_name = "NBD-URI")]
    pub uri: String,
    /// Which metadata context [default: base:allocation]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// A bit stands for so many bytes [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Of which volume the map is: 32 hexadecimal digits [default: none]
    #[arg(long, value_name = "ID")]
    pub volume: Option<Id>,
    #[command(flatten)]
    pub(super) out: OutArgs,
}

/// `dirtymap digest`
#[allow(rustdoc::broken_intra_doc_links)] // brackets as in every usage line
#[derive(Clone, Debug, clap::Args)]
pub struct DigestArgs {
    /// A file, a block device, an NBD export, or ssh://[USER@]HOST/PATH, which is read over there
    pub device: Place,
    #[command(flatten)]
    pub(super) far: FarArgs,
    /// Certificates.
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// A digest is of so many bytes [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Of which volume the device is: 32 hexadecimal digits [default: none]
    #[arg(long, value_name = "ID")]
    pub volume: Option<Id>,
    /// Write progress as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    pub progress: Option<ProgressTo>,
    #[command(flatten)]
    pub(super) out: OutArgs,
}

/// `dirtymap diff`
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// A device or a manifest
    pub a: String,
    /// A device or a manifest
    pub b: String,
    #[command(flatten)]
    pub(super) far: FarArgs,
    /// Certificates.
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// Blocks of the map [default: those of a manifest, or 64K]
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Write progress as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    pub progress: Option<ProgressTo>,
    #[command(flatten)]
    pub(super) force: ForceArgs,
    #[command(flatten)]
    pub(super) out: OutArgs,
}

/// `dirtymap size`
#[derive(Clone, Debug, clap::Args)]
pub struct SizeArgs {
    /// Size of the volume
    #[arg(long, value_parser = value::size, required_unless_present = "like", conflicts_with = "like")]
    pub size: Option<u64>,
    /// As large as this device
    #[arg(long, value_name = "DEVICE", value_parser = value::device)]
    pub like: Option<LegDevice>,
    /// Only in blocks of this size
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    pub block: Option<BlockSize>,
    /// Print a JSON document, dirtymap-size/1
    #[arg(long)]
    pub json: bool,
}
