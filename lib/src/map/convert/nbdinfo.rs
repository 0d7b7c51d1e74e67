//! What `nbdinfo --map=CONTEXT --json` prints: an array of `{"offset", "length", "type", "description"}` that
//! covers the export. With the descriptions of `base:allocation` (data, hole, zero) everything is dirty that does
//! not read as zeroes; otherwise a type that is not 0, as in `qemu:dirty-bitmap:` and `x-mirror:dirty/`.

use super::json::each_item;
use super::text::bad;
use super::{Foreign, each_piece};
use crate::base::{ByteRange, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

/// The flag of `base:allocation` for what reads as zeroes (NBD specification, `NBD_STATE_ZERO`).
const ZERO: u64 = 2;

#[derive(serde::Deserialize)]
struct Item {
    offset: u64,
    length: u64,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    description: Option<String>,
}

/// Reads the array, whose items are in order without a gap.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    let mut at = 0u64;
    each_item(input, &mut |item: Item| {
        if item.offset != at {
            return Err(bad(&format!("an item begins at {}, the last one ends at {at}", item.offset)));
        }
        let allocation = matches!(item.description.as_deref(), Some("data" | "hole" | "zero" | "hole,zero"));
        let dirty = if allocation { item.kind & ZERO == 0 } else { item.kind != 0 };
        if dirty {
            foreign.push(item.offset, item.length)?;
        }
        at = at.checked_add(item.length).ok_or_else(|| bad("an item does not end below 2^64"))?;
        foreign.covered = Some(at);
        Ok(())
    })
}

/// Writes the array as of a dirty bitmap.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let mut comma = "[\n";
    each_piece(source, &mut |ByteRange { offset, len }, dirty| {
        let (kind, description) = if dirty { (1, "dirty") } else { (0, "clean") };
        let item = format!(
            "{comma}{{ \"offset\": {offset}, \"length\": {len}, \"type\": {kind}, \"description\": \"{description}\" }}"
        );
        comma = ",\n";
        out.text(&item)
    })?;
    out.text("\n]\n")
}
