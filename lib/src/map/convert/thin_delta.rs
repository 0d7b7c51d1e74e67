//! XML of `thin_delta`: how two thin devices differ, in blocks of their pool. Everything is dirty that is not
//! `same`.

use super::text::bad;
use super::xml::{Node, walk};
use super::{Foreign, each_run};
use crate::base::{BlockSize, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

/// Bytes of a sector, in which the block of the pool is counted.
const SECTOR: u64 = 512;

/// Reads the document, with or without `--verbose`. The size of the device is not in it.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    let mut unit = 0;
    let mut dirty = None;
    walk(input, &["superblock"], &mut |node| {
        match node {
            Node::Open(element) => match element.name {
                "superblock" => {
                    unit = element.needed("data_block_size")?.checked_mul(SECTOR).unwrap_or_default();
                    if unit == 0 {
                        return Err(bad("<superblock> data_block_size: no size of a block"));
                    }
                    foreign.block = BlockSize::new(unit).ok();
                }
                name @ ("same" | "different" | "left_only" | "right_only") => {
                    dirty = Some(name != "same");
                    if let (Some(begin), true) = (element.number("begin")?, name != "same") {
                        foreign.push_units(begin, element.needed("length")?, unit)?;
                    }
                }
                "range" => match dirty {
                    Some(true) => {
                        foreign.push_units(element.needed("begin")?, element.needed("length")?, unit)?;
                    }
                    Some(false) => {}
                    None => return Err(bad("a <range> of nothing")),
                },
                "diff" => {}
                name => return Err(bad(&format!("<{}> is not known in a thin_delta", name.escape_debug()))),
            },
            Node::Close("same" | "different" | "left_only" | "right_only") => dirty = None,
            Node::Close(_) => {}
            Node::Text(_) => return Err(bad("text in it: not of thin_delta")),
        }
        Ok(())
    })
}

/// Writes what differs, in blocks of the map.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let identity = source.header().identity;
    out.text(&format!(
        "<superblock uuid=\"\" time=\"0\" transaction=\"0\" data_block_size=\"{}\" nr_data_blocks=\"{}\">\n  \
         <diff left=\"0\" right=\"1\">\n",
        identity.block.bytes() / SECTOR,
        identity.blocks()
    ))?;
    each_run(source, &mut |run| {
        out.text(&format!("    <different begin=\"{}\" length=\"{}\"/>\n", run.start, run.end - run.start))
    })?;
    out.text("  </diff>\n</superblock>\n")
}
