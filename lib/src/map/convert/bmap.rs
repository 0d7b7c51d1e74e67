//! Block maps of bmap-tools: XML with the size of the image, of its blocks, and ranges `FIRST-LAST` of those that
//! are mapped. Written as version 1.2, the last one without checksums: ours are marks, not contents.

use super::text::{bad, number};
use super::xml::{Node, walk};
use super::{Foreign, each_run};
use crate::base::{BlockSize, Result};
use crate::device::Output;
use crate::map::Source;
use std::io::BufRead;

/// Reads a block map of any version; what is mapped is dirty. Checksums are not looked at.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    let (mut inside, mut unit) = (String::new(), None);
    let mut image = None;
    walk(input, &["bmap"], &mut |node| {
        match node {
            Node::Open(element) => element.name.clone_into(&mut inside),
            Node::Close(_) => inside.clear(),
            Node::Text(text) => match inside.as_str() {
                "ImageSize" => image = Some(number(text)?),
                "BlockSize" => {
                    unit = Some(number(text)?).filter(|unit| *unit > 0);
                }
                "Range" => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    let (first, last) = (number(first.trim())?, number(last.trim())?);
                    let (true, Some(unit), Some(image)) = (first <= last, unit, image) else {
                        return Err(bad("a range backwards, or before ImageSize and BlockSize"));
                    };
                    let (start, end) = (first.checked_mul(unit), last.checked_mul(unit));
                    let (Some(start), Some(end)) = (start, end.filter(|end| *end < image)) else {
                        return Err(bad(&format!(
                            "the range {first}-{last} is past the {image} bytes of the image"
                        )));
                    };
                    // The last block may be short.
                    foreign.push(start, end.saturating_add(unit).min(image) - start)?;
                }
                _ => {}
            },
        }
        Ok(())
    })?;
    if image.is_none() || unit.is_none() {
        return Err(bad("ImageSize or BlockSize is missing"));
    }
    foreign.size = image;
    foreign.block = unit.and_then(|unit| BlockSize::new(unit).ok());
    Ok(())
}

/// Writes a block map: what is dirty is mapped.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let identity = source.header().identity;
    out.text(&format!(
        "<?xml version=\"1.0\" ?>\n<bmap version=\"1.2\">\n    <ImageSize> {} </ImageSize>\n    \
         <BlockSize> {} </BlockSize>\n    <BlocksCount> {} </BlocksCount>\n    <BlockMap>\n",
        identity.size,
        identity.block.bytes(),
        identity.blocks()
    ))?;
    let mut mapped = 0;
    each_run(source, &mut |run| {
        mapped += run.end - run.start;
        let last = run.end - 1;
        if run.start == last {
            out.text(&format!("        <Range> {last} </Range>\n"))
        } else {
            out.text(&format!("        <Range> {}-{last} </Range>\n", run.start))
        }
    })?;
    out.text(&format!("    </BlockMap>\n    <MappedBlocksCount> {mapped} </MappedBlocksCount>\n</bmap>\n"))
}
