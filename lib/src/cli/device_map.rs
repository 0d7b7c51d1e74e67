//! `cfor-log map`: where the changed bytes of a log are on the device underneath, as a dirty map of it.

use super::{filelog, output, value};
use crate::base::units::show_size;
use crate::base::{BlockSize, Class, Error, Id, Result};
use crate::capture::tree::Root;
use crate::capture::{store, tree::extents};
use crate::device::{FileDevice, Output};
use crate::fslog::logfile;
use crate::map::RangeSource;
use crate::map::format::{Header, Identity};
use crate::map::stream::write_map;
use std::path::{Path, PathBuf};

/// The command line of `cfor-log map`.
#[derive(Clone, Debug, clap::Args)]
pub struct MapArgs {
    /// The directory where the source remembers its rounds
    log: PathBuf,
    /// The device that the file system of the tree is on
    device: PathBuf,
    /// The tree
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where the map goes
    #[arg(short, long, value_name = "MAP", default_value = "-")]
    output: PathBuf,
    /// Bytes of a block of the map
    #[arg(long, value_name = "SIZE", value_parser = value::block)]
    block: Option<BlockSize>,
    /// Print what was found as JSON; needs a file for the map
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Mapped {
    schema: &'static str,
    map: String,
    #[serde(flatten)]
    found: extents::Found,
}

/// `cfor-log map`
pub fn map(args: &MapArgs, quiet: bool) -> anyhow::Result<()> {
    let standard = args.output == Path::new("-");
    if args.json && standard {
        let text = "--json and a map cannot both go to standard output";
        return Err(Error::new(Class::Usage, text).hint("cfor-log map --json -o MAP").into());
    }
    let root = Root::open(&args.root)?;
    let Some(newest) = store::rounds(&args.log)?.last().copied() else {
        let text = format!("{}: mapping its rounds: it has none", args.log.display());
        return Err(Error::new(Class::Usage, text).into());
    };
    let index = store::load_index(&args.log.join(format!("round.{newest}")))?;
    let (_, state) = logfile::merge(&filelog::logs(&args.log)?)?;
    let device = FileDevice::open_forced(&args.device, false)?;
    let (ranges, found) = extents::places(&root, &args.device, &index, &state)?;
    let block = args.block.unwrap_or(BlockSize::DEFAULT);
    let identity = Identity { volume: Id::NONE, leg: Id::NONE, size: device.size(), block };
    let name = args.device.display().to_string();
    identity.check(&name)?;
    let mut source = RangeSource::new(&name, Header::new(identity, Id::NONE), ranges.into_sorted())?;
    let mut out = open(&args.output, standard)?;
    write_map(&mut source, &mut out)?;
    out.finish()?;
    if args.json {
        let map = args.output.display().to_string();
        return output::print_json(&Mapped { schema: "cfor-map/1", map, found });
    }
    if !quiet {
        let extents::Found { files, bytes, placeless, gone } = found;
        let bytes = show_size(bytes);
        output::tell(&format!(
            "{files} files, {bytes}; {placeless} extents without a place, {gone} files gone\n"
        ));
    }
    Ok(())
}

fn open(path: &Path, standard: bool) -> Result<Output> {
    if standard {
        return Ok(Output::stream("standard output", Box::new(std::io::stdout())));
    }
    Output::file(path, false)
}
