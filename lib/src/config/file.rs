//! The configuration file and the stored `volume.toml`: the same TOML.
//!
//! ```toml
//! [volume.vol0]
//! listen = ["127.0.0.1:10809"]
//! min-legs = 1
//!
//! [[volume.vol0.leg]]
//! name = "here"
//! device = "/srv/vol0.img"
//! ```

use super::table::File;
use super::{Settings, VolumeConfig};
use crate::base::{BlockSize, Class, Error, Name, Result, limits};
use crate::leg::spec::check_set;
use crate::leg::{Mode, ReadPreference};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

/// Reads a configuration: the settings of each volume in it. `class` is the class of an error in the text:
/// [`Class::Usage`] for a file of the user's, [`Class::Damaged`] for a stored one.
pub fn parse(object: &str, text: &str, class: Class) -> Result<BTreeMap<Name, Settings>> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|s| 1 + text.get(..s.start).unwrap_or(text).matches('\n').count());
        let message = e.message().lines().next().unwrap_or("not understood");
        let line = line.map_or_else(String::new, |n| format!("line {n}: "));
        Error::new(class, format!("{object}: reading the configuration: {line}{message}"))
    })?;
    file.volume
        .into_iter()
        .map(|(name, volume)| volume.settings(&name).map(|settings| (name, settings)))
        .collect::<Result<_>>()
        .map_err(|e| Error::new(class, format!("{object}: reading the configuration: {e}")))
}

/// Reads a configuration file; with its errors usage errors.
pub fn load(path: &Path) -> Result<BTreeMap<Name, Settings>> {
    parse(&path.display().to_string(), &text(path)?, Class::Usage)
}

/// Reads the settings of one volume out of a configuration file.
pub fn load_volume(path: &Path, name: &Name) -> Result<Settings> {
    load(path)?.remove(name).ok_or_else(|| {
        Error::new(
            Class::Usage,
            format!("{}: reading the configuration: no [volume.{name}] in it", path.display()),
        )
    })
}

/// Checks a configuration file without touching anything else. A section may name only some of the legs of a
/// stored volume, so that what depends on all of them is left to `serve`.
pub fn check(path: &Path) -> Result<()> {
    for (name, settings) in load(path)? {
        let fail = |e: Error| Error::new(e.class, format!("{}: volume.{name}: {e}", path.display()));
        let legs = settings.legs.into_iter().enumerate().map(|(at, leg)| leg.spec(at));
        let legs = legs.collect::<Result<Vec<_>>>().map_err(fail)?;
        if !legs.is_empty() {
            check_set(&legs).map_err(fail)?;
        }
        if settings.min_legs == Some(0) {
            return Err(fail(Error::new(Class::Usage, "min-legs is 0: must be at least 1")));
        }
    }
    Ok(())
}

/// Reads the `volume.toml` that `create` stored; a damaged one is [`Class::Damaged`].
pub fn load_stored(path: &Path, name: &Name) -> Result<Settings> {
    let object = path.display().to_string();
    parse(&object, &text(path)?, Class::Damaged)?.remove(name).ok_or_else(|| {
        Error::new(Class::Damaged, format!("{object}: reading the configuration: no [volume.{name}] in it"))
    })
}

fn text(path: &Path) -> Result<String> {
    let fail = |e| Error::io(path.display(), "reading the configuration", e);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    let bad =
        |why: &str| Error::new(Class::Usage, format!("{}: reading the configuration: {why}", path.display()));
    if bytes.len() as u64 > limits::CONFIG_FILE {
        return Err(bad("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text"))
}

/// The text of `volume.toml`: reads back as the same configuration.
pub fn to_toml(name: &Name, config: &VolumeConfig) -> String {
    let mut lines = vec![
        "# Written by mirrord create; the legs and options of the volume.".to_owned(),
        format!("[volume.{}]", quoted(name.as_str())),
    ];
    if !config.listen.is_empty() {
        let listen: Vec<_> = config.listen.iter().map(|l| quoted(&l.to_string())).collect();
        lines.push(format!("listen = [{}]", listen.join(", ")));
    }
    if let Some(unix) = &config.unix {
        lines.push(format!("unix = {}", quoted(&unix.display().to_string())));
    }
    if config.insecure {
        lines.push("insecure = true".to_owned());
    }
    if !config.allow.is_empty() {
        let allow: Vec<_> = config.allow.iter().map(|a| quoted(&a.to_string())).collect();
        lines.push(format!("allow = [{}]", allow.join(", ")));
    }
    if let Some(dir) = &config.tls_dir {
        lines.push(format!("tls-dir = {}", quoted(&dir.display().to_string())));
    }
    if let Some(metrics) = &config.metrics {
        lines.push(format!("metrics = {}", quoted(&metrics.to_string())));
    }
    if let Some(command) = &config.on_event {
        lines.push(format!("on-event = {}", quoted(command)));
    }
    lines.push(format!("min-legs = {}", config.min_legs));
    lines.push(format!("map-block = {}", BlockSize::bytes(config.map_block)));
    lines.push(format!("map-durability = \"{}\"", config.map_durability));
    lines.push(format!("read-policy = \"{}\"", config.read_policy));
    lines.push(format!("spin = {}", config.spin_us));
    for leg in &config.legs {
        lines.push(String::new());
        lines.push(format!("[[volume.{}.leg]]", quoted(name.as_str())));
        lines.push(format!("name = {}", quoted(leg.name.as_str())));
        let addresses: Vec<_> = leg.addresses().map(|address| quoted(&address.to_string())).collect();
        lines.push(match &addresses[..] {
            [device] => format!("device = {device}"),
            several => format!("device = [{}]", several.join(", ")),
        });
        if leg.mode != Mode::Sync {
            lines.push(format!("mode = \"{}\"", leg.mode));
        }
        if leg.read != ReadPreference::Allow {
            lines.push(format!("read = \"{}\"", leg.read));
        }
        if leg.flush_unsafe {
            lines.push("flush = \"unsafe\"".to_owned());
        }
        lines.push(format!("timeout = \"{}ms\"", leg.timeout_ms));
        lines.push(format!("retries = {}", leg.retries));
        if let Some(rate) = leg.rate {
            lines.push(format!("rate = {rate}"));
        }
        if let Some(old) = &leg.replaces {
            lines.push(format!("replaces = {}", quoted(old.as_str())));
        }
    }
    lines.join("\n") + "\n"
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Infallible: a String takes every write.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
