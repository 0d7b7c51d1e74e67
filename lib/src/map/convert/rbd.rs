//! What `rbd diff --format json` prints: an array of `{"offset", "length", "exists"}`. What exists no longer was
//! discarded since, so it is dirty too.

use super::json::each_item;
use super::{Foreign, each_run};
use crate::base::Result;
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

#[derive(serde::Deserialize)]
struct Item {
    offset: u64,
    length: u64,
}

/// Reads the array. The size of the image is not in it.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    each_item(input, &mut |item: Item| foreign.push(item.offset, item.length))
}

/// Writes the array.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let (size, block) = (source.header().identity.size, source.header().identity.block);
    let mut comma = "";
    out.text("[")?;
    each_run(source, &mut |run| {
        let range = block.range(&run, size);
        let item =
            format!("{comma}{{\"offset\":{},\"length\":{},\"exists\":\"true\"}}", range.offset, range.len);
        comma = ",";
        out.text(&item)
    })?;
    out.text("]\n")
}
