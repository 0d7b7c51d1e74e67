//! Mapfiles of GNU ddrescue (its manual, "Mapfile structure"): a status line, then `POS SIZE STATUS` for
//! neighbouring pieces. What is not finished (`+`) is dirty, unless other statuses are named.

use super::text::{bad, each_line, number};
use super::{Foreign, Given, each_piece};
use crate::base::{ByteRange, Class, Error, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;
use std::str::FromStr;

/// Every status that a piece can have: not tried, not trimmed, not scraped, bad, finished.
const ALL: &str = "?*/-+";

/// Statuses that count as dirty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(String);

impl Default for Statuses {
    fn default() -> Self {
        Self("?*/-".into())
    }
}

impl FromStr for Statuses {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text.chars().any(|c| !ALL.contains(c)) {
            let text = format!("{}: reading statuses of ddrescue: some of {ALL}", text.escape_debug());
            return Err(Error::new(Class::Usage, text));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads a mapfile. Pieces are in order; what none of them covers counts as not tried.
pub(super) fn import(input: &mut dyn BufRead, given: &Given, foreign: &mut Foreign) -> Result<()> {
    let dirty = given.statuses.clone().unwrap_or_default().0;
    let mut begun = false;
    let mut at = 0;
    each_line(input, &mut |words| match words {
        [pos, status] | [pos, status, _] if !begun => {
            begun = true;
            let known = status.len() == 1 && "?*/-FG+".contains(status);
            number(pos)?;
            if known { Ok(()) } else { Err(bad("not the status line of a mapfile: POS STATUS [PASS]")) }
        }
        [pos, size, status] if begun && status.len() == 1 && ALL.contains(status) => {
            let (pos, size) = (number(pos)?, number(size)?);
            if pos < at || size == 0 {
                return Err(bad(&format!("the piece at {pos} is out of order: the last one ends at {at}")));
            }
            if dirty.contains('?') {
                foreign.push(at, pos - at)?;
            }
            at = pos.checked_add(size).ok_or_else(|| bad("the piece does not end below 2^64"))?;
            if dirty.contains(status) { foreign.push(pos, size) } else { Ok(()) }
        }
        _ if !begun => Err(bad("not the status line of a mapfile: POS STATUS [PASS]")),
        _ => Err(bad("not a piece of a mapfile: POS SIZE STATUS")),
    })?;
    if !begun {
        return Err(bad("not a mapfile: there is no status line"));
    }
    if let Some(size) = given.size.filter(|size| *size > at && dirty.contains('?')) {
        foreign.push(at, size - at)?;
    }
    foreign.covered = Some(at).filter(|at| *at > 0);
    Ok(())
}

/// Writes a mapfile: dirty pieces with the first of the named statuses (`?`), the others as finished, or, where
/// finished is what is dirty, as not tried.
pub fn export(source: &mut dyn Source, given: &Given, out: &mut Output) -> Result<()> {
    let statuses = given.statuses.clone().unwrap_or_default().0;
    let dirty = statuses.chars().next().unwrap_or('?');
    let clean = if dirty == '+' { '?' } else { '+' };
    out.text(concat!("# Mapfile. Created by dirtymap ", env!("CARGO_PKG_VERSION"), "\n"))?;
    out.text("# current_pos  current_status  current_pass\n0x00000000     ?               1\n")?;
    out.text("#      pos        size  status\n")?;
    each_piece(source, &mut |ByteRange { offset, len }, is| {
        out.text(&format!("0x{offset:08X}  0x{len:08X}  {}\n", if is { dirty } else { clean }))
    })
}
