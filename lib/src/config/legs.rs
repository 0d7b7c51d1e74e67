//! What the legs of a configuration that is read again ask of the legs that a volume has. Pure.
//!
//! A file may name only some of the legs, so that a leg which it has never named is none of its business: only one
//! that it named at an earlier reading, and names no more, is to go.

use super::VolumeConfig;
use crate::base::{Name, Result};
use crate::leg::LegSpec;
use std::fmt;

/// One thing to be done about one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegChange {
    /// It has a setting that was fixed when it was added (the name of the key).
    Fixed(LegSpec, &'static str),
    /// Other settings, the same device.
    Set(LegSpec),
    /// It is new.
    Add(LegSpec),
    /// It is reached at another address.
    Move(LegSpec),
    /// It is to be reached where another leg is, which is to be reached where it is, or where a third one is, and so on.
    Exchange(LegSpec, Name),
    /// It is to be a member no more.
    Remove(Name),
}

impl LegChange {
    /// Which leg.
    pub const fn leg(&self) -> &Name {
        match self {
            Self::Fixed(leg, _)
            | Self::Set(leg)
            | Self::Add(leg)
            | Self::Move(leg)
            | Self::Exchange(leg, _) => &leg.name,
            Self::Remove(name) => name,
        }
    }
}

impl fmt::Display for LegChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(leg, _) | Self::Set(leg) | Self::Move(leg) | Self::Exchange(leg, _) => {
                write!(f, "now {leg}")
            }
            Self::Add(leg) => write!(f, "added: {leg}"),
            Self::Remove(_) => f.write_str("removed"),
        }
    }
}

/// What is to be done, in the order in which the copies are safest: settings, additions, moves, removals.
///
/// `members` are the legs as they are, `named` the names of the reading before, `wanted` the legs of this one, each
/// with all its settings. A leg that another one is to replace goes by itself when that one is up to date.
pub fn plan(members: &[LegSpec], named: &[Name], wanted: &[LegSpec]) -> Vec<LegChange> {
    let member = |name: &Name| members.iter().find(|leg| leg.name == *name);
    let goes_anyhow =
        |name: &Name| wanted.iter().chain(members).any(|leg| leg.replaces.as_ref() == Some(name));
    let mut changes = Vec::new();
    for leg in wanted {
        let Some(is) = member(&leg.name) else {
            // The one that it replaces may have gone already.
            let replaces = leg.replaces.clone().filter(|old| member(old).is_some());
            changes.push(LegChange::Add(LegSpec { replaces, ..leg.clone() }));
            continue;
        };
        let replaces = leg.replaces.as_ref().filter(|old| member(old).is_some());
        let leg = LegSpec { replaces: is.replaces.clone(), ..leg.clone() };
        if leg.flush_unsafe != is.flush_unsafe {
            changes.push(LegChange::Fixed(leg, "flush"));
        } else if leg.mode != is.mode {
            changes.push(LegChange::Fixed(leg, "mode"));
        } else if replaces.is_some() && replaces != is.replaces.as_ref() {
            changes.push(LegChange::Fixed(leg, "replaces"));
        } else if !leg.meets(is) {
            changes.push(LegChange::Move(leg));
        } else if leg != *is {
            changes.push(LegChange::Set(leg));
        }
    }
    let gone = members.iter().map(|leg| &leg.name).filter(|name| {
        named.contains(name) && wanted.iter().all(|leg| leg.name != **name) && !goes_anyhow(name)
    });
    changes.extend(gone.cloned().map(LegChange::Remove));
    let mut changes = sort_moves(changes, members);
    changes.sort_by_key(|change| match change {
        LegChange::Fixed(..) | LegChange::Exchange(..) => 0,
        LegChange::Set(_) => 1,
        LegChange::Add(_) => 2,
        LegChange::Move(_) => 3,
        LegChange::Remove(_) => 4,
    });
    changes
}

/// Moves in an order in which the place that one moves to has been left by the other: in a chain the last one first.
/// Those in a ring have none: whoever leaves first finds its new place taken, by a leg that may be the last good one.
fn sort_moves(changes: Vec<LegChange>, members: &[LegSpec]) -> Vec<LegChange> {
    let (mut moves, mut sorted): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| matches!(change, LegChange::Move(_)));
    let at = |leg: &LegSpec| members.iter().find(|is| is.name != leg.name && is.meets(leg));
    while !moves.is_empty() {
        let taken = |change: &LegChange| match change {
            LegChange::Move(leg) => {
                at(leg).filter(|other| moves.iter().any(|change| *change.leg() == other.name))
            }
            _ => None,
        };
        let Some(free) = moves.iter().position(|change| taken(change).is_none()) else {
            let others: Vec<Option<Name>> =
                moves.iter().map(|change| taken(change).map(|other| other.name.clone())).collect();
            sorted.extend(moves.drain(..).zip(others).map(|(change, other)| match (change, other) {
                (LegChange::Move(leg), Some(other)) => LegChange::Exchange(leg, other),
                (change, _) => change,
            }));
            break;
        };
        sorted.push(moves.remove(free));
    }
    sorted
}

/// Refuses a plan whose end no volume can have.
pub fn check(config: &VolumeConfig, members: &[LegSpec], plan: &[LegChange]) -> Result<()> {
    let mut legs = members.to_vec();
    for change in plan {
        match change {
            LegChange::Add(leg) => legs.push(leg.clone()),
            LegChange::Set(leg) | LegChange::Move(leg) => {
                legs.iter_mut().filter(|is| is.name == leg.name).for_each(|is| *is = leg.clone());
            }
            LegChange::Remove(name) => legs.retain(|leg| leg.name != *name),
            LegChange::Fixed(..) | LegChange::Exchange(..) => {}
        }
    }
    VolumeConfig { legs, ..config.clone() }.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legs(texts: &[&str]) -> Vec<LegSpec> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn text(change: &LegChange) -> String {
        match change {
            LegChange::Fixed(leg, key) => format!("fixed {key}: {leg}"),
            LegChange::Set(leg) => format!("set {leg}"),
            LegChange::Add(leg) => format!("add {leg}"),
            LegChange::Move(leg) => format!("move {leg}"),
            LegChange::Exchange(leg, other) => format!("exchange {leg} with {other}"),
            LegChange::Remove(name) => format!("remove {name}"),
        }
    }

    #[test]
    fn what_a_file_asks_is_planned_in_the_order_that_is_safest_for_the_copies() {
        // Members, named before, wanted now: what is done.
        type Row = (
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
        );
        const TWO: &[&str] = &["a=/a", "b=/b"];
        let table: [Row; 19] = [
            (TWO, &[], &[], &[]),
            (TWO, &["a", "b"], TWO, &[]),
            (TWO, &[], &["b=/b"], &[]),
            (TWO, &[], &["c=/c"], &["add c=/c"]),
            (TWO, &["b"], &[], &["remove b"]),
            (TWO, &["z"], &[], &[]),
            (TWO, &["a", "b"], &["a=/a", "b=/b,read=avoid"], &["set b=/b,read=avoid"]),
            (TWO, &[], &["b=/x,read=avoid"], &["move b=/x,read=avoid"]),
            // Another way to the same leg is no move.
            (&["a=/a", "b=nbd://h/x"], &[], &["b=nbd://i/x,nbd://h/x"], &["set b=nbd://i/x,nbd://h/x"]),
            (&["a=/a", "b=nbd://h/x,nbd://i/x"], &[], &["b=nbd://i/x"], &["set b=nbd://i/x"]),
            (&["a=/a", "b=nbd://h/x,nbd://i/x"], &[], &["b=nbd://j/x"], &["move b=nbd://j/x"]),
            (TWO, &[], &["b=/b,flush=unsafe"], &["fixed flush: b=/b,flush=unsafe"]),
            (TWO, &["a", "b"], &["a=/x", "c=/c"], &["add c=/c", "move a=/x", "remove b"]),
            // Places change hands: in a chain the last one first, in a ring nobody.
            (TWO, &[], &["a=/b", "b=/c"], &["move b=/c", "move a=/b"]),
            (TWO, &[], &["a=/b", "b=/a"], &["exchange a=/b with b", "exchange b=/a with a"]),
            (
                &["a=/a", "b=/b", "c=/c", "d=/d"],
                &[],
                &["a=/b", "b=/c", "c=/a", "d=/x"],
                &["exchange a=/b with b", "exchange b=/c with c", "exchange c=/a with a", "move d=/x"],
            ),
            // A replacement: the old one goes by itself; afterwards the word stays in the file and says nothing.
            (TWO, &["a", "b"], &["a=/a", "c=/c,replaces=b"], &["add c=/c,replaces=b"]),
            (&["a=/a", "c=/c,replaces=b", "b=/b"], &["a", "c", "b"], &["a=/a", "c=/c,replaces=b"], &[]),
            (&["a=/a", "c=/c"], &["a", "c"], &["a=/a", "c=/c,replaces=b"], &[]),
        ];
        for (members, named, wanted, done) in table {
            let plan = plan(&legs(members), &names(named), &legs(wanted));
            let texts: Vec<_> = plan.iter().map(text).collect();
            assert_eq!(texts, done, "{members:?} {named:?} {wanted:?}");
        }
        let set = plan(&legs(TWO), &[], &legs(&["b=/b,replaces=a"]));
        assert_eq!(set.iter().map(text).collect::<Vec<_>>(), ["fixed replaces: b=/b"]);
    }

    #[test]
    fn a_plan_whose_end_no_volume_can_have_is_refused_as_a_whole() {
        let members = legs(&["a=/a", "b=/b"]);
        let config = |min_legs| VolumeConfig { min_legs, ..VolumeConfig::new(members.clone()) };
        for (min_legs, wanted, named, why) in [
            (1, vec!["c=/a"], vec![], "same device"),
            (1, vec!["b=/a"], vec![], "same device"),
            (2, vec![], vec!["b"], "min-legs is 2"),
            (4, vec!["c=/c"], vec![], "min-legs is 4"),
            (1, vec![], vec!["a", "b"], "no leg"),
        ] {
            let plan = plan(&members, &names(&named), &legs(&wanted));
            let error = check(&config(min_legs), &members, &plan).expect_err(why);
            assert!(error.message.contains(why), "{error}");
        }
        let swap = plan(&members, &names(&["b"]), &legs(&["c=/c"]));
        assert!(check(&config(2), &members, &swap).is_ok());
    }
}
