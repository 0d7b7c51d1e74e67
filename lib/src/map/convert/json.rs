//! JSON arrays that are read item by item, whatever their length.

use crate::base::{Class, Error, Result};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::io::BufRead;
use std::marker::PhantomData;

/// Calls `take` with each item of an array, which must be all that there is.
pub fn each_item<T: DeserializeOwned>(
    input: &mut dyn BufRead,
    take: &mut dyn FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut json = serde_json::Deserializer::from_reader(input);
    let done = Items { take, item: PhantomData }.deserialize(&mut json);
    done.and_then(|()| json.end()).map_err(|e| error(&e))
}

/// An error of the JSON reader as one of ours.
pub fn error(error: &serde_json::Error) -> Error {
    let class = if error.is_io() && !error.to_string().starts_with("it is longer") {
        Class::Io
    } else {
        Class::Damaged
    };
    Error::new(class, error.to_string())
}

/// An array whose items are given away one by one.
pub struct Items<'f, T> {
    /// Takes an item.
    pub take: &'f mut dyn FnMut(T) -> Result<()>,
    /// What it is.
    pub item: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Items<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Items<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.take)(item).map_err(|e| serde::de::Error::custom(e.message))?;
        }
        Ok(())
    }
}
