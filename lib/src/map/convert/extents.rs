//! Our own JSON, `dirtymap-extents/1`: one object with the identity of the map and its dirty ranges in bytes.

use super::json::{Items, error};
use super::{Foreign, each_run};
use crate::base::{BlockSize, Class, Error, Id, Result};
use crate::device::Output;
use crate::map::Source;
use crate::map::stream::Tally;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::fmt;
use std::io::BufRead;
use std::marker::PhantomData;

/// The `schema` of the document.
pub const SCHEMA: &str = "dirtymap-extents/1";

#[derive(serde::Deserialize)]
struct Extent {
    offset: u64,
    length: u64,
}

/// Reads a document; keys that are not known are skipped.
pub(super) fn import(input: &mut dyn BufRead, foreign: &mut Foreign) -> Result<()> {
    let mut json = serde_json::Deserializer::from_reader(input);
    let done = json.deserialize_map(Document(foreign));
    let (schema, extents) = done.and_then(|found| json.end().map(|()| found)).map_err(|e| error(&e))?;
    match schema {
        Some(schema) if schema == SCHEMA => {}
        Some(other) => {
            let text = format!("its schema is '{}', expected '{SCHEMA}'", other.escape_debug());
            return Err(Error::new(Class::Damaged, text));
        }
        None => return Err(Error::new(Class::Damaged, format!("it has no schema, expected '{SCHEMA}'"))),
    }
    if extents && foreign.size.is_some() {
        return Ok(());
    }
    Err(Error::new(Class::Damaged, "size or extents are missing"))
}

struct Document<'f>(&'f mut Foreign);

impl<'de> Visitor<'de> for Document<'_> {
    type Value = (Option<String>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the schema {SCHEMA}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let foreign = self.0;
        let (mut schema, mut extents) = (None, false);
        let id = |text: Option<String>| {
            text.map_or(Ok(Id::NONE), |text| {
                text.parse().map_err(|e: Error| serde::de::Error::custom(e.message))
            })
        };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "schema" => schema = Some(map.next_value()?),
                "size" => foreign.size = Some(map.next_value()?),
                "block" => {
                    let block = BlockSize::new(map.next_value()?);
                    foreign.block = Some(block.map_err(|e| serde::de::Error::custom(e.message))?);
                }
                "volume" => foreign.volume = id(map.next_value()?)?,
                "leg" => foreign.leg = id(map.next_value()?)?,
                "generation" => foreign.generation = id(map.next_value()?)?,
                "extents" => {
                    extents = true;
                    let take = &mut |extent: Extent| foreign.push(extent.offset, extent.length);
                    map.next_value_seed(Items { take, item: PhantomData })?;
                }
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok((schema, extents))
    }
}

/// Writes the document on one line.
pub fn export(source: &mut dyn Source, out: &mut Output) -> Result<()> {
    let header = source.header();
    let (identity, generation) = (header.identity, header.generation);
    out.text(&format!(
        "{{\"schema\":\"{SCHEMA}\",\"volume\":{},\"leg\":{},\"generation\":{},\"size\":{},\"block\":{},\"extents\":[",
        id_json(identity.volume),
        id_json(identity.leg),
        id_json(generation),
        identity.size,
        identity.block.bytes(),
    ))?;
    let mut tally = Tally::default();
    each_run(source, &mut |run| {
        let range = identity.block.range(&run, identity.size);
        let comma = if tally.runs == 0 { "" } else { "," };
        tally.add(&run, identity.size, identity.block);
        out.text(&format!("{comma}{{\"offset\":{},\"length\":{}}}", range.offset, range.len))
    })?;
    out.text(&format!("],\"dirty\":{},\"runs\":{}}}\n", tally.bytes, tally.runs))
}

/// An id as JSON, `null` for none.
pub fn id_json(id: Id) -> String {
    if id.is_none() { "null".to_owned() } else { format!("\"{id}\"") }
}
