//! A leg as it was written: on a command line, or as a table of the configuration. What was not written is
//! `None`, so that a later writing can be laid over an earlier one.
//!
//! ```text
//! LEG := [NAME=]DEVICE[,URI]…[,mode=sync][,read=prefer|allow|avoid][,flush=unsafe][,timeout=T][,retries=N]
//!        [,rate=auto|SIZE]
//! ```
//!
//! Further URIs are addresses of the same server. A comma inside DEVICE is written twice. What stands before the first `=` is a name if it has a name's shape
//! (design.md section 11), so that `nbd+unix:///x?socket=/s` needs no quoting; a path such as `a=b` is written
//! `./a=b`.

use super::{LegDevice, LegSpec, Mode, ReadPreference};
use crate::base::units::{parse_duration_ms, parse_size};
use crate::base::{Class, Error, Name, Result, limits};
use std::str::FromStr;

/// A leg as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegText {
    /// The name, if one was written.
    pub name: Option<Name>,
    /// The device: always there.
    pub device: LegDevice,
    /// Its further addresses.
    pub others: Vec<LegDevice>,
    /// `mode=`
    pub mode: Option<Mode>,
    /// `read=`
    pub read: Option<ReadPreference>,
    /// `flush=unsafe`
    pub flush_unsafe: Option<bool>,
    /// `timeout=`, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `retries=`
    pub retries: Option<u32>,
    /// `rate=`, bytes a second; `Some(None)` is `auto`.
    pub rate: Option<Option<u64>>,
    /// `replaces=`, written by `leg replace`.
    pub replaces: Option<Name>,
}

impl LegText {
    /// Only a device.
    pub const fn of(device: LegDevice) -> Self {
        Self {
            name: None,
            device,
            others: Vec::new(),
            mode: None,
            read: None,
            flush_unsafe: None,
            timeout_ms: None,
            retries: None,
            rate: None,
            replaces: None,
        }
    }

    /// With other addresses: `URI,URI…`, or one device of any kind. A comma inside is written twice; a single one
    /// that no URI follows is meant as one, too.
    pub fn set_device(&mut self, value: &str) -> Result<()> {
        let mut texts: Vec<String> = Vec::new();
        for field in fields(value) {
            match texts.last_mut() {
                Some(last) if !LegDevice::is_uri(&field) => last.extend([",", &field]),
                _ => texts.push(field),
            }
        }
        let mut devices = texts.iter().map(|text| text.parse());
        self.device = devices.next().unwrap_or_else(|| "".parse())?;
        self.others = devices.collect::<Result<_>>()?;
        Ok(())
    }

    /// The same with an absolute path, so that it means the same from every working directory.
    pub fn absolute(self) -> Result<Self> {
        Ok(Self { device: self.device.absolute()?, ..self })
    }

    /// Sets one `key=value`; used by the command line and by the configuration alike.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "mode" => once(&mut self.mode, key, mode(value)?),
            "read" => once(&mut self.read, key, value.parse()?),
            "flush" if value == "unsafe" => once(&mut self.flush_unsafe, key, true),
            "flush" => Err(bad(key, value, "only 'unsafe' can be written here")),
            "timeout" => {
                let ms = parse_duration_ms(value)?;
                if ms == 0 || ms > limits::LEG_TIMEOUT_MAX_MS {
                    let why = format!("must be from 1 ms to {} ms", limits::LEG_TIMEOUT_MAX_MS);
                    return Err(bad(key, value, &why));
                }
                once(&mut self.timeout_ms, key, ms)
            }
            "retries" => match value.parse() {
                Ok(n) if n <= limits::LEG_RETRIES_MAX => once(&mut self.retries, key, n),
                _ => Err(bad(key, value, &format!("must be a number from 0 to {}", limits::LEG_RETRIES_MAX))),
            },
            "rate" => once(&mut self.rate, key, rate(value)?),
            "replaces" => once(&mut self.replaces, key, value.parse()?),
            _ => Err(Error::new(
                Class::Usage,
                format!(
                    "{}: unknown key of a leg; known are mode, read, flush, timeout, retries, rate",
                    key.escape_default()
                ),
            )),
        }
    }

    /// The leg with defaults for what was not written; without a name it is called `leg` and `index`.
    pub fn spec(self, index: usize) -> Result<LegSpec> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => format!("leg{index}").parse()?,
        };
        let base = LegSpec::new(name, self.device.clone());
        Ok(self.over(base))
    }

    /// What was written here over `lower`: the device with all its addresses always, the options that were written. The name stays.
    pub fn over(self, lower: LegSpec) -> LegSpec {
        LegSpec {
            name: lower.name,
            device: self.device,
            others: self.others,
            mode: self.mode.unwrap_or(lower.mode),
            read: self.read.unwrap_or(lower.read),
            flush_unsafe: self.flush_unsafe.unwrap_or(lower.flush_unsafe),
            timeout_ms: self.timeout_ms.unwrap_or(lower.timeout_ms),
            retries: self.retries.unwrap_or(lower.retries),
            rate: self.rate.unwrap_or(lower.rate),
            replaces: self.replaces.or(lower.replaces),
        }
    }
}

fn mode(value: &str) -> Result<Mode> {
    if value == "async" {
        return Err(bad("mode", value, "asynchronous legs are not supported; the only mode is sync"));
    }
    value.parse()
}

fn rate(value: &str) -> Result<Option<u64>> {
    if value == "auto" {
        return Ok(None);
    }
    match parse_size(value)? {
        bytes @ 1..=limits::RATE_MAX => Ok(Some(bytes)),
        _ => Err(bad(
            "rate",
            value,
            &format!("must be auto, or from 1 to {} bytes a second", limits::RATE_MAX),
        )),
    }
}

fn bad(key: &str, value: &str, why: &str) -> Error {
    Error::new(Class::Usage, format!("{key}={}: {why}", value.escape_debug()))
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(Class::Usage, format!("{key}: written twice for one leg"))),
    }
}

/// Splits at single commas; a double one is a comma of the text.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields
}

impl FromStr for LegText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > 2 * limits::DEVICE_TEXT {
            return Err(Error::new(
                Class::Usage,
                format!("a leg of {} bytes: at most {} are allowed", text.len(), 2 * limits::DEVICE_TEXT),
            ));
        }
        let mut fields = fields(text).into_iter();
        let first = fields.next().unwrap_or_default();
        let (name, device) = match first.split_once('=') {
            Some((name, device)) if name_shaped(name) => (Some(name.parse()?), device),
            _ => (None, first.as_str()),
        };
        let mut leg = Self { name, ..Self::of(device.parse()?) };
        for field in fields {
            if LegDevice::is_uri(&field) {
                leg.others.push(field.parse()?);
                continue;
            }
            let (key, value) = field.split_once('=').ok_or_else(|| {
                Error::new(
                    Class::Usage,
                    format!(
                        "{}: not key=value in a leg; a comma of the device is written ,,",
                        field.escape_debug()
                    ),
                )
            })?;
            leg.set(key, value)?;
        }
        Ok(leg)
    }
}

/// Whether the text before the first `=` is meant as a name. A longer or reserved one is, too, and then refused.
fn name_shaped(text: &str) -> bool {
    text.is_empty()
        || text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legs_read_as_the_grammar_says() {
        let leg: LegText = "far=nbd://h/x,read=avoid,flush=unsafe,timeout=5s,retries=9".parse().expect("leg");
        assert_eq!(leg.name.as_ref().map(Name::as_str), Some("far"));
        assert_eq!(leg.device, LegDevice::Nbd("nbd://h/x".into()));
        let spec = leg.spec(3).expect("spec");
        assert_eq!((spec.timeout_ms, spec.retries, spec.flush_unsafe), (5000, 9, true));

        let plain: LegText = "/a,,b,,".parse().expect("plain");
        assert_eq!(plain.device, LegDevice::File("/a,b,".into()));
        assert_eq!(plain.spec(3).expect("spec").name.as_str(), "leg3");

        let unix: LegText = "nbd+unix:///x?socket=/s".parse().expect("unix");
        assert_eq!(unix.name, None);
    }

    #[test]
    fn further_addresses_stand_behind_the_first_and_a_later_writing_replaces_all_of_them() {
        let leg: LegText =
            "far=nbd://h/x,nbd+unix:///a,,b?socket=/s,timeout=5s,nbd://j/x".parse().expect("leg");
        let others: Vec<_> = leg.others.iter().map(ToString::to_string).collect();
        assert_eq!(others, ["nbd+unix:///a,b?socket=/s", "nbd://j/x"]);
        assert_eq!(leg.timeout_ms, Some(5000));
        let spec = leg.spec(0).expect("spec");
        assert_eq!(spec.to_string(), "far=nbd://h/x,nbd+unix:///a,,b?socket=/s,nbd://j/x,timeout=5000ms");
        let later: LegText = "far=nbd://k/x".parse().expect("later");
        assert_eq!(later.over(spec.clone()).to_string(), "far=nbd://k/x,timeout=5000ms");
        let mut set = LegText::of(spec.device);
        set.set_device("nbd://k/x,nbd://l/x").expect("device");
        assert_eq!(
            (set.device.to_string(), set.others[0].to_string()),
            ("nbd://k/x".into(), "nbd://l/x".into())
        );
        for (text, why) in [("a=nbd://h/x,http://h/x", "unknown scheme"), ("a=nbd://h/x,nbd://-o/x", "'-'")] {
            let error = text.parse::<LegText>().expect_err(text);
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_a_leg_is_refused_and_the_key_is_named() {
        for (text, why) in [
            ("", "it is empty"),
            ("a=", "it is empty"),
            ("=/x", "checking a name"),
            ("meta=/x", "reserved"),
            ("a=/x,colour=red", "colour: unknown key"),
            ("a=/x,mode=async", "not supported"),
            ("a=/x,mode=later", "not one of sync"),
            ("a=/x,read=never", "prefer, allow, avoid"),
            ("a=/x,flush=safe", "flush=safe"),
            ("a=/x,timeout=0", "timeout=0"),
            ("a=/x,retries=-1", "retries=-1"),
            ("a=/x,retries=1,retries=2", "retries: written twice"),
            ("a=/x,y", "not key=value"),
            ("a=/x,", "not key=value"),
        ] {
            let error = text.parse::<LegText>().expect_err(text);
            assert_eq!(error.class, Class::Usage, "{text}");
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_later_writing_changes_only_what_it_says() {
        let stored: LegSpec = "far=nbd://old/x,read=avoid,timeout=2s".parse().expect("stored");
        let given: LegText = "far=nbd://new/x,retries=1".parse().expect("given");
        assert_eq!(given.over(stored).to_string(), "far=nbd://new/x,read=avoid,timeout=2000ms,retries=1");
    }
}
