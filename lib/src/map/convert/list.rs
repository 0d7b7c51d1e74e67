//! `OFFSET LENGTH`, in bytes, a line for each dirty range. Empty lines and those that begin with `#` are skipped.

use super::text::{bad, each_line, number};
use super::{Foreign, each_run};
use crate::base::Result;
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

/// Reads lines in any order. The size of the volume is not in them.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    each_line(input, &mut |words| match words {
        [offset, length] => foreign.push(number(offset)?, number(length)?),
        _ => Err(bad("not an offset and a length")),
    })
}

/// Writes a line for each run.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let (size, block) = (source.header().identity.size, source.header().identity.block);
    each_run(source, &mut |run| {
        let range = block.range(&run, size);
        out.text(&format!("{} {}\n", range.offset, range.len))
    })
}
