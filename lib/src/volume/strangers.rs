//! Legs that the configuration file names and the volume does not have: may it be served without them?
//!
//! A reload may refuse to add a leg (its server was away, its disk is too small); the file goes on naming it. At three
//! in the morning the machine boots again, and the data that all other legs hold is wanted, not the word of the file.
//! But what `volume.toml` does not name may also be a leg that it *should* name: the state directory is an old one out of
//! a backup, or of another machine, or lost a file; then the good data may be on the leg that is missing here, and
//! serving without it would show an older moment and lay new writes over it: two histories, and no way back.
//!
//! What tells these apart is who is durably known when. A leg becomes a member in an order ([`super::members`]): its
//! record (INCONSISTENT), the records of every leg in sync (which then know it as one that lacks something), and last
//! `volume.toml`; it is in sync only much later. It goes in the other order: it leaves the set durably, then
//! `volume.toml`, then the others forget it, then its record goes. So at no step of any procedure, and after a crash at
//! none, does something in the directory take a leg for good that `volume.toml` does not name. Where something does, the
//! directory is not what this volume wrote. The rules, each of which refuses the start; the first that holds is told:
//!
//! 1. The file names legs, and none of them is a member: file and directory are of two volumes, or of two times.
//! 2. No member is in sync: the good data is somewhere else.
//! 3. The directory holds a record of that leg which says that it is in sync, or which cannot be read.
//! 4. A member in sync knows a leg as being in sync that is no member.
//!
//! Otherwise every member in sync says of itself that it holds all that was acknowledged, and nobody knows of another
//! leg that does: the leg can hold nothing that is missed. It stays out, which is said in the log, in the event of the
//! start, in the status, and by `mirrord check`, until it is added (by the next reload, or by `leg add`) or the file does
//! not name it any more. A floor (`min-legs`) above the number of legs there are is laid at that number, as a reload lays
//! it: every leg there is has to acknowledge.

use crate::base::{Class, Error, Id, Name, Result};
use crate::config::{Settings, VolumeConfig, file, merge_start};
use crate::control::{StateDir, VolumeDir};
use crate::generation::{Record, RecordStore};
use crate::leg::LegSpec;
use std::path::Path;

/// What the state directory knows of a leg that is no member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// A record that says that it lacks something, of this id.
    Out(Id),
    /// A record that says that it is in sync.
    Good,
    /// A record that cannot be read.
    Unreadable,
}

/// Why the volume must not be served without a leg; `None` if it may be.
fn why_not(left: Left, members: &[Record], names_a_member: bool) -> Option<String> {
    let mut good = members.iter().filter(|record| record.in_sync()).peekable();
    if !names_a_member {
        return Some("the file names none of the legs that the volume has".to_owned());
    }
    if good.peek().is_none() {
        return Some("none of the legs that the volume has is in sync".to_owned());
    }
    match left {
        Left::Good => return Some("its record in the state directory says that it is in sync".to_owned()),
        Left::Unreadable => return Some("its record in the state directory cannot be read".to_owned()),
        Left::Nothing | Left::Out(_) => {}
    }
    let known = |id: Id| members.iter().any(|record| record.leg == id) || left == Left::Out(id);
    good.find_map(|record| {
        let other = record.peers.iter().find(|peer| peer.base.is_empty() && !known(peer.leg))?;
        Some(format!(
            "leg {} knows of a leg in sync, {}, that the volume does not have",
            record.name, other.leg
        ))
    })
}

/// Looks at the directory, and changes nothing. An error, of class `Refused`, if the volume must not be served without
/// these legs; records of members that cannot be read are left to whoever opens them.
pub(super) fn check(
    dir: &VolumeDir,
    config: &VolumeConfig,
    strangers: &[LegSpec],
    named: &[Name],
) -> Result<()> {
    if strangers.is_empty() {
        return Ok(());
    }
    let members: Result<Vec<Record>> =
        config.legs.iter().map(|leg| RecordStore::read(&dir.record(&leg.name))).collect();
    let Ok(members) = members else { return Ok(()) };
    let names_a_member = named.iter().any(|name| config.legs.iter().any(|leg| leg.name == *name));
    for leg in strangers {
        let path = dir.record(&leg.name);
        let left = match RecordStore::read(&path) {
            Ok(record) if record.in_sync() => Left::Good,
            Ok(record) => Left::Out(record.leg),
            Err(_) if !path.exists() => Left::Nothing,
            Err(_) => Left::Unreadable,
        };
        if let Some(why) = why_not(left, &members, names_a_member) {
            let (volume, name) = (dir.name(), &leg.name);
            let text = format!(
                "{volume}: serving it without leg {name}, which the configuration names and the volume does not \
                 have: {why}: the good data may be there; if it is not, take it out of the configuration"
            );
            return Err(Error::new(Class::Refused, text).hint(format!("mirrord status {volume}")));
        }
    }
    Ok(())
}

/// What is said of such a leg, and what to type.
pub(super) fn warning(volume: &Name, leg: &LegSpec) -> (String, String) {
    let text =
        format!("leg {} is in the configuration and is no member: the volume is served without it", leg.name);
    (text, format!("mirrord leg add {volume} '{leg}'"))
}

/// `check-config`: the file by itself, then against the volumes that are stored here. Class `Differs` if one would be
/// served without a leg that the file names, `Refused` if it would not be served.
pub fn check_config(state: &StateDir, path: &Path) -> Result<()> {
    file::check(path)?;
    let mut differs = Ok(());
    for (name, settings) in file::load(path)? {
        let dir = state.volume(&name);
        if !dir.config().exists() {
            continue;
        }
        let named: Vec<Name> = settings.legs.iter().filter_map(|leg| leg.name.clone()).collect();
        let stored = file::load_stored(&dir.config(), &name)?;
        let (config, strangers) = merge_start(Settings::default(), Some(settings), Some(stored))?;
        check(&dir, &config, &strangers, &named)?;
        if let Some(leg) = strangers.first() {
            let text = format!(
                "{}: volume.{name}: leg {} is no member: a reload adds it, a start serves the volume without it",
                path.display(),
                leg.name
            );
            let error = Error::new(Class::Differs, text).hint(warning(&name, leg).1);
            differs = differs.and(Err(error));
        }
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockSize;
    use crate::generation::{Flags, Generation, Peer};

    fn record(n: u128, good: bool, peers: &[(u128, bool)]) -> Record {
        let id = |n: u128| Id(n.to_le_bytes());
        let name = format!("leg{n}").parse().expect("name");
        let mut record = Record::new(id(99), id(n), name, 1 << 20, BlockSize::DEFAULT);
        record.current = Generation { id: id(77), ..Generation::default() };
        if !good {
            record.flags.insert(Flags::OUTDATED);
        }
        let base = |in_sync: bool| if in_sync { Vec::new() } else { vec![id(77)] };
        let peer = |&(n, in_sync)| Peer { leg: id(n), base: base(in_sync), ..Peer::default() };
        record.peers = peers.iter().map(peer).collect();
        record
    }

    #[test]
    fn done_no_volume_is_served_without_a_leg_that_may_hold_the_good_data() {
        let id = |n: u128| Id(n.to_le_bytes());
        let pair = [record(1, true, &[(2, true)]), record(2, true, &[(1, true)])];
        let half = [record(1, true, &[(2, false)]), record(2, false, &[])];
        let none = [record(1, false, &[]), record(2, false, &[])];
        // Members of which one knows leg 3 as lacking something, or as being in sync.
        let begun = [record(1, true, &[(3, false)]), record(2, true, &[(3, false)])];
        let lost = [record(1, true, &[(3, true)]), record(2, true, &[])];
        // What the volume that went on without them says.
        let stale = [record(1, false, &[(3, true)]), record(2, true, &[])];
        for (members, left, names, why) in [
            (&pair, Left::Nothing, true, None),
            (&half, Left::Nothing, true, None),
            (&pair, Left::Out(id(3)), true, None),
            (&begun, Left::Out(id(3)), true, None),
            (&begun, Left::Nothing, true, None),
            (&lost, Left::Out(id(3)), true, None),
            (&stale, Left::Nothing, true, None),
            (&pair, Left::Nothing, false, Some("names none of the legs")),
            (&none, Left::Nothing, true, Some("none of the legs that the volume has is in sync")),
            (&none, Left::Out(id(3)), true, Some("none of the legs that the volume has is in sync")),
            (&pair, Left::Good, true, Some("says that it is in sync")),
            (&pair, Left::Unreadable, true, Some("cannot be read")),
            (&lost, Left::Nothing, true, Some("leg leg1 knows of a leg in sync, 03000000")),
            (&lost, Left::Out(id(4)), true, Some("leg leg1 knows of a leg in sync")),
        ] {
            let said = why_not(left, members, names);
            match why {
                None => assert_eq!(said, None, "{left:?}"),
                Some(why) => assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{said:?}: {why}"),
            }
        }
    }
}
