//! The shape of the TOML, and how its values are read. Errors get their line from the parser.

use super::{Cidr, Listen, MapDurability, MetricsTo, ReadPolicy, Settings};
use crate::base::units::parse_size;
use crate::base::{BlockSize, Class, Error, Name, Result, limits};
use crate::leg::{LegDevice, LegText};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(default)]
    pub volume: BTreeMap<Name, Volume>,
}

/// `[volume.NAME]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Volume {
    #[serde(default, deserialize_with = "listen")]
    listen: Option<Vec<Listen>>,
    unix: Option<PathBuf>,
    insecure: Option<bool>,
    #[serde(default, deserialize_with = "allow")]
    allow: Option<Vec<Cidr>>,
    tls_dir: Option<PathBuf>,
    #[serde(default, deserialize_with = "metrics")]
    metrics: Option<MetricsTo>,
    on_event: Option<String>,
    min_legs: Option<u32>,
    #[serde(default, deserialize_with = "map_block")]
    map_block: Option<BlockSize>,
    #[serde(default, deserialize_with = "map_durability")]
    map_durability: Option<MapDurability>,
    #[serde(default, deserialize_with = "read_policy")]
    read_policy: Option<ReadPolicy>,
    spin: Option<u64>,
    #[serde(default)]
    leg: Vec<Leg>,
}

/// `[[volume.NAME.leg]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leg {
    name: Option<Name>,
    #[serde(deserialize_with = "addresses")]
    device: Vec<String>,
    #[serde(default)]
    mode: Option<Value>,
    #[serde(default)]
    read: Option<Value>,
    #[serde(default)]
    flush: Option<Value>,
    #[serde(default)]
    timeout: Option<Value>,
    #[serde(default)]
    retries: Option<Value>,
    #[serde(default)]
    rate: Option<Value>,
    #[serde(default)]
    replaces: Option<Value>,
}

/// A value that may be written as text or as a number; means the same as after `=` on the command line.
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Value;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text or a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Value, E> {
                Ok(Value(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> std::result::Result<Value, E> {
                Ok(Value(number.to_string()))
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// One device, or the addresses of one.
fn addresses<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<String>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a device, or a list of addresses")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut texts: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = texts.next_element()? {
                all.push(text);
                if all.len() > limits::LEG_ADDRESSES {
                    let most = limits::LEG_ADDRESSES;
                    return Err(A::Error::custom(format!(
                        "more addresses than the {most} that are possible"
                    )));
                }
            }
            Ok(all)
        }
    }
    d.deserialize_any(Visitor)
}

fn read<'de, D: Deserializer<'de>, T>(
    d: D,
    parse: impl FnOnce(&str) -> Result<T>,
) -> std::result::Result<Option<T>, D::Error> {
    parse(&Value::deserialize(d)?.0).map(Some).map_err(D::Error::custom)
}

fn listen<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Vec<Listen>>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    if texts.is_empty() || texts.len() > limits::LISTENERS {
        return Err(D::Error::custom(format!(
            "listen has {} addresses: from 1 to {} are possible",
            texts.len(),
            limits::LISTENERS
        )));
    }
    texts.iter().map(|t| t.parse()).collect::<Result<_>>().map(Some).map_err(D::Error::custom)
}

fn allow<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Vec<Cidr>>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    if texts.is_empty() {
        return Err(D::Error::custom("allow is empty: leave it out to let everybody in"));
    }
    texts.iter().map(|t| t.parse()).collect::<Result<_>>().map(Some).map_err(D::Error::custom)
}

fn metrics<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<MetricsTo>, D::Error> {
    read(d, str::parse)
}

fn map_block<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<BlockSize>, D::Error> {
    read(d, |text| BlockSize::new(parse_size(text)?))
}

fn map_durability<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<MapDurability>, D::Error> {
    read(d, str::parse)
}

fn read_policy<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<ReadPolicy>, D::Error> {
    read(d, str::parse)
}

impl Volume {
    /// The settings written in the section of `name`.
    pub fn settings(self, name: &Name) -> Result<Settings> {
        let legs = self.leg.into_iter().enumerate().map(|(at, leg)| {
            let called = leg.name.as_ref().map_or_else(|| format!("number {}", at + 1), ToString::to_string);
            leg.text().map_err(|e| Error::new(e.class, format!("volume.{name}: leg {called}: {e}")))
        });
        let legs: Vec<LegText> = legs.collect::<Result<_>>()?;
        if legs.len() > limits::LEGS {
            return Err(Error::new(
                Class::Usage,
                format!("volume.{name}: {} legs, at most {} are possible", legs.len(), limits::LEGS),
            ));
        }
        Ok(Settings {
            listen: self.listen,
            unix: self.unix,
            insecure: self.insecure,
            allow: self.allow,
            tls_dir: self.tls_dir,
            metrics: self.metrics,
            on_event: self.on_event,
            min_legs: self.min_legs,
            map_block: self.map_block,
            map_durability: self.map_durability,
            read_policy: self.read_policy,
            spin_us: self.spin,
            legs,
        })
    }
}

impl Leg {
    fn text(self) -> Result<LegText> {
        let addresses: Vec<LegDevice> = self.device.iter().map(|text| text.parse()).collect::<Result<_>>()?;
        let Some((device, others)) = addresses.split_first() else {
            return Err(Error::new(Class::Usage, "device: no address is written"));
        };
        let others = others.to_vec();
        let mut text = LegText { name: self.name, others, ..LegText::of(device.clone()) };
        let options = [
            ("mode", self.mode),
            ("read", self.read),
            ("flush", self.flush),
            ("timeout", self.timeout),
            ("retries", self.retries),
            ("rate", self.rate),
            ("replaces", self.replaces),
        ];
        for (key, value) in options {
            if let Some(Value(value)) = value {
                text.set(key, &value)?;
            }
        }
        Ok(text)
    }
}
