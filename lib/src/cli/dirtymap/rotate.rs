//! `rotate`: the marks of a tracker become a map of their own.

use super::args::RotateArgs;
use super::{How, Named, described, note, output_to};
use crate::base::{Class, Error, Id, Result};
use crate::cli::ask::REPLY;
use crate::cli::interrupt;
use crate::control::{StateDir, Taken};
use crate::map::format::{Header, Identity};
use crate::map::stream::{SetSource, write_map};

/// `rotate`
///
/// 1. OUT is checked and a draft of it is made beside its name.
/// 2. The daemon closes the tracker's marks ([`Taken::take`]). Nothing changes on its disk.
/// 3. They are written to the draft; it is synced, renamed and its directory is synced: OUT is durable.
/// 4. The daemon drops them ([`Taken::confirm`]).
///
/// Recovery: (a) a crash of either side before 3 has ended leaves all marks in the tracker and no OUT, or the one
/// that was there; (b) between 3 and 4 they are in both, and the next rotation has them once more.
pub fn rotate(args: &RotateArgs, how: How) -> Result<()> {
    let Named::Tracker { volume, tracker } = &args.from else {
        let text = format!("{}: rotating it: it is not the tracker of a volume", args.from);
        return Err(Error::new(Class::Usage, text).hint("dirtymap rotate VOLUME:TRACKER OUT"));
    };
    if args.output.as_os_str() == "-" || is_stream(&args.output) {
        let text =
            format!("{}: rotating into it: it is no file, marks could get lost", args.output.display());
        return Err(Error::new(Class::Usage, text));
    }
    if how.dry_run {
        drop(output_to(Some(&args.output), args.replace, false)?);
        let mut source = super::open_map(&args.from)?;
        return super::plan(&args.output.display().to_string(), &mut source);
    }
    let mut out = output_to(Some(&args.output), args.replace, false)?;
    let dir = StateDir::from_environment()?.volume(volume);
    let mut taken = Taken::take(&dir, tracker, REPLY)?;
    let marks = taken.marks()?;
    let identity = Identity { volume: marks.volume, leg: Id::NONE, size: marks.size, block: marks.block };
    let mut source = SetSource::new(Header::new(identity, Id::NONE), marks.words);
    write_map(&mut source, &mut out)?;
    interrupt::standing("the marks may be in both: run it again into another file, and use both");
    out.finish()?;
    if how.verbose > 0 {
        let tally = super::show::tally(&mut source.rewound())?;
        note(&format!("{}: {}", args.output.display(), described(&identity, &tally)));
    }
    taken.confirm().map_err(|error| {
        let text = format!(
            "{}; {} is whole, the tracker may have its marks too",
            error.message,
            args.output.display()
        );
        Error { message: text, ..error }
    })
}

fn is_stream(path: &std::path::Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}
