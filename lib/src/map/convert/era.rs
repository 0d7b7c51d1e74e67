//! XML about dm-era: what `era_invalidate` prints (blocks written since an era, the end of a range not included),
//! or what `era_dump` prints (the last era in which each block was written).

use super::text::bad;
use super::xml::{Node, walk};
use super::{Foreign, Given, each_run};
use crate::base::{Class, Error, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

/// Bytes of a sector, in which `era_dump` counts.
const SECTOR: u64 = 512;

fn usage(why: &str, hint: &str) -> Error {
    Error::new(Class::Usage, why).hint(hint)
}

/// Reads either document. `era_invalidate` does not say how large a block is: `given.unit`. Of an `era_dump` the
/// blocks of era `given.since` and later are dirty.
pub(super) fn import(input: &mut dyn BufRead, given: &Given, foreign: &mut Foreign) -> Result<()> {
    let unit = given.unit.or(given.block.map(crate::base::BlockSize::bytes));
    let mut dump = None;
    walk(input, &["blocks", "superblock"], &mut |node| {
        let Node::Open(element) = node else { return Ok(()) };
        match (element.name, dump) {
            ("superblock", _) => {
                let since = given.since.ok_or_else(|| {
                    usage(
                        "an era_dump says when blocks were written: since which era?",
                        "the same with --since ERA",
                    )
                })?;
                let unit = element.needed("block_size")?.checked_mul(SECTOR).filter(|unit| *unit > 0);
                let unit = unit.ok_or_else(|| bad("<superblock> block_size: no size of a block"))?;
                dump = Some((unit, since));
                Ok(())
            }
            ("era", Some((unit, since))) => {
                let block = element.needed("block")?;
                if element.needed("era")? >= since { foreign.push_units(block, 1, unit) } else { Ok(()) }
            }
            ("block" | "range", None) => {
                let unit = unit.filter(|unit| *unit > 0).ok_or_else(|| {
                    usage("era_invalidate does not say how large its blocks are", "the same with --unit SIZE")
                })?;
                if element.name == "block" {
                    return foreign.push_units(element.needed("block")?, 1, unit);
                }
                let (begin, end) = (element.needed("begin")?, element.needed("end")?);
                let count = end.checked_sub(begin).ok_or_else(|| bad("<range> ends before it begins"))?;
                foreign.push_units(begin, count, unit)
            }
            // Bits that have not been digested into the array yet: written in their own era.
            ("writeset", Some(_)) => Err(bad("it has writesets: use era_dump --logical, or era_invalidate")),
            _ => Ok(()),
        }
    })
}

/// Writes what `era_invalidate` would, in blocks of the map.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    out.text("<blocks>\n")?;
    each_run(source, &mut |run| {
        if run.start + 1 == run.end {
            out.text(&format!("  <block block=\"{}\"/>\n", run.start))
        } else {
            out.text(&format!("  <range begin=\"{}\" end = \"{}\"/>\n", run.start, run.end))
        }
    })?;
    out.text("</blocks>\n")
}
