//! What `qemu-img map --output=json` prints: an array of `{"start", "length", "data", …}` that covers the image.
//! Of an image itself `"data": true` is dirty. Of an NBD export that was opened with `x-dirty-bitmap=` qemu
//! prints the *clean* parts as data, so there `"data": false` is dirty.

use super::json::each_item;
use super::text::bad;
use super::{Foreign, each_piece};
use crate::base::{ByteRange, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

#[derive(serde::Deserialize)]
struct Item {
    start: u64,
    length: u64,
    data: bool,
}

/// Reads the array, whose items are in order without a gap; those whose `data` is `dirty` are.
pub(super) fn import(input: &mut dyn BufRead, dirty: bool, foreign: &mut Foreign) -> Result<()> {
    // qemu counts in sectors.
    foreign.slack = 512;
    let mut at = 0u64;
    each_item(input, &mut |item: Item| {
        if item.start != at {
            return Err(bad(&format!("an item begins at {}, the last one ends at {at}", item.start)));
        }
        if item.data == dirty {
            foreign.push(item.start, item.length)?;
        }
        at = at.checked_add(item.length).ok_or_else(|| bad("an item does not end below 2^64"))?;
        foreign.covered = Some(at);
        Ok(())
    })
}

/// Writes the array; `data` of what is dirty is `dirty`.
pub fn export(source: &mut dyn Source, dirty: bool, out: &mut Output) -> Result<()> {
    let mut comma = "[";
    each_piece(source, &mut |ByteRange { offset, len }, is| {
        let data = is == dirty;
        let item = format!(
            "{comma}{{ \"start\": {offset}, \"length\": {len}, \"depth\": 0, \"present\": {data}, \
             \"zero\": {}, \"data\": {data}}}",
            !data
        );
        comma = ",\n";
        out.text(&item)
    })?;
    out.text("]\n")
}
