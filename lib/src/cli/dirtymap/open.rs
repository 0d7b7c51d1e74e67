//! How maps are named and opened: a path, `-`, or `VOLUME:TRACKER` and `VOLUME:leg/LEG` of a running mirrord.

use crate::base::{ByteRange, Class, Error, Id, Name, Result, limits};
use crate::cli::ask::REPLY;
use crate::control::{self, MapOf, StateDir};
use crate::leg::dial::Dial;
use crate::map::ahead::Ahead;
use crate::map::format::{Header, Identity};
use crate::map::ops::Boxed;
use crate::map::{MapReader, RangeSource, Ranges, SetSource, Source as _};
use crate::nbd::client::{Blocking, ClientOptions};
use crate::nbd::uri::NbdUri;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Bytes that one request for extents asks about.
const ASK: u64 = 1 << 30;

/// Maps from so many bytes on are read ahead; smaller ones are done before a thread has begun.
const AHEAD: u64 = 4 << 20;

/// The name of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `-`
    Standard,
    /// A file.
    Path(PathBuf),
    /// What a leg of a running volume lacks, read-only.
    Leg {
        /// The volume.
        volume: Name,
        /// Its leg.
        leg: Name,
    },
    /// What a tracker of a running volume holds.
    Tracker {
        /// The volume.
        volume: Name,
        /// Its tracker.
        tracker: Name,
    },
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Standard);
        }
        if let Some((volume, leg)) = text.split_once(":leg/")
            && !volume.contains('/')
        {
            return Ok(Self::Leg { volume: volume.parse()?, leg: leg.parse()? });
        }
        // As with scp(1): a colon before any slash is no part of a path.
        if let Some((volume, tracker)) = text.split_once(':')
            && !text.contains('/')
        {
            return Ok(Self::Tracker { volume: volume.parse()?, tracker: tracker.parse()? });
        }
        Ok(Self::Path(text.into()))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard input"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Leg { volume, leg } => write!(f, "{volume}:leg/{leg}"),
            Self::Tracker { volume, tracker } => write!(f, "{volume}:{tracker}"),
        }
    }
}

/// Opens a map.
pub fn open_map(name: &Named) -> Result<Boxed> {
    match (open_reader(name)?, name) {
        // A pipe is read by whoever needs it: a thread that waits for one could not be ended.
        (Some(reader), Named::Path(_)) if reader.header().identity.bits_len() >= AHEAD => {
            Ok(Box::new(Ahead::new(Box::new(reader))))
        }
        (Some(reader), _) => Ok(Box::new(reader)),
        (None, Named::Leg { volume, leg }) => of_daemon(volume, &MapOf::Leg(leg.clone())),
        (None, Named::Tracker { volume, tracker }) => of_daemon(volume, &MapOf::Tracker(tracker.clone())),
        (None, _) => Err(Error::new(Class::Internal, format!("{name}: opening it: no way to"))),
    }
}

/// Opens the map file or stream of a name; `None` for what a daemon has to be asked for. Says so if it is not
/// believed.
pub fn open_reader(name: &Named) -> Result<Option<MapReader>> {
    let reader = match name {
        Named::Standard => MapReader::stream("standard input", Box::new(std::io::stdin()))?,
        Named::Path(path) => MapReader::open(path)?,
        Named::Leg { .. } | Named::Tracker { .. } => return Ok(None),
    };
    if reader.is_doubted() {
        super::note(&format!(
            "{name}: it was in use when the machine went down: every block counts as dirty"
        ));
    }
    Ok(Some(reader))
}

/// Opens a file of a foreign format. FIFOs are waited for, as everywhere in a shell.
pub fn open_file(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).map_err(|e| Error::io(path.display(), "opening it", e))?;
    Ok(Box::new(file))
}

/// Refuses to replace the map that a volume goes by.
pub fn not_of_a_leg(path: &Path) -> Result<()> {
    let is_file = std::fs::metadata(path).is_ok_and(|data| data.is_file());
    match is_file.then(|| MapReader::open(path)) {
        Some(Err(error)) if error.class == Class::Busy => Err(error),
        Some(Ok(reader)) if !crate::map::Source::header(&reader).identity.leg.is_none() => {
            let leg = crate::map::Source::header(&reader).identity.leg;
            let text = format!("{}: replacing it: it is the map of leg {leg}", path.display());
            Err(Error::new(Class::Refused, text).hint("the same with another name"))
        }
        _ => Ok(()),
    }
}

/// Connects to an NBD server and asks for contexts.
pub fn connect(uri: &str, contexts: &[&str], dial: &Dial) -> Result<Blocking> {
    let uri: NbdUri = uri.parse()?;
    let contexts: Vec<_> = contexts.iter().map(|&name| name.to_owned()).collect();
    let options = ClientOptions { export: uri.export.clone(), structured: !contexts.is_empty(), contexts };
    dial.blocking(&uri, options, Duration::from_millis(limits::LEG_TIMEOUT_MS))
}

/// What a metadata context says about an export. Dirty is what does not read as zeroes (`base:allocation`), and
/// what has any other flag than 0 (all others). Class `Connect` if the server does not have it.
pub fn fetch(uri: &str, context: &str, dial: &Dial, identity: impl FnOnce(u64) -> Identity) -> Result<Boxed> {
    let mut client = connect(uri, &[context], dial)?;
    let size = client.info().size;
    let identity = identity(size);
    identity.check(uri)?;
    if !client.info().contexts.iter().any(|(_, name)| name == context) {
        let text = format!("{uri}: asking for extents: the server has no '{}'", context.escape_debug());
        return Err(Error::new(Class::Connect, text).hint(format!("nbdinfo '{uri}'")));
    }
    let mut ranges = Ranges::default();
    let mut at = 0;
    while at < size {
        let ask = (size - at).min(ASK) as u32;
        for (len, flags) in client.block_status(context, at, ask)? {
            let dirty = if context == "base:allocation" { flags & 2 == 0 } else { flags != 0 };
            if dirty {
                ranges.push(ByteRange { offset: at, len: u64::from(len) })?;
            }
            at += u64::from(len);
        }
    }
    // It has said everything; that the goodbye is not heard does no harm.
    let _ = client.disconnect();
    Ok(Box::new(RangeSource::new(uri, Header::new(identity, Id::NONE), ranges.into_sorted())?))
}

/// A map of a running volume, through the volume's own socket.
fn of_daemon(volume: &Name, of: &MapOf) -> Result<Boxed> {
    let marks = control::tracker::marks(&StateDir::from_environment()?.volume(volume), of, REPLY)?;
    // The leg's id stays out: what comes of this is a copy, not the map that the volume goes by.
    let identity = Identity { volume: marks.volume, leg: Id::NONE, size: marks.size, block: marks.block };
    Ok(Box::new(SetSource::new(Header::new(identity, Id::NONE), marks.words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_named_by_path_dash_or_leg() {
        let named = |text: &str| text.parse::<Named>();
        assert_eq!(named("-").expect("dash"), Named::Standard);
        assert_eq!(named("./v:leg/a").expect("path"), Named::Path("./v:leg/a".into()));
        let tracker =
            Named::Tracker { volume: "a".parse().expect("name"), tracker: "b".parse().expect("name") };
        assert_eq!(named("a:b").expect("tracker"), tracker);
        assert_eq!(named("./a:b").expect("path"), Named::Path("./a:b".into()));
        assert_eq!(named("a:").expect_err("name").class, Class::Usage);
        let leg = Named::Leg { volume: "v".parse().expect("name"), leg: "a".parse().expect("name") };
        assert_eq!(named("v:leg/a").expect("leg"), leg);
        assert_eq!(named("v:leg/a/b").expect_err("name").class, Class::Usage);
    }
}
