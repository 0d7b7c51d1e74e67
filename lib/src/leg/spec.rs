//! A leg as the volume uses it: every field has a value.

use super::LegDevice;
use super::state::words;
use crate::base::{Class, Error, Name, Result, limits};
use std::fmt;
use std::str::FromStr;

words! {
    /// When a write counts as done for a leg.
    Mode, "a mode" {
        /// The client waits for this leg.
        Sync = "sync",
    }
}

words! {
    /// How a leg takes part in reads.
    ReadPreference, "a read preference" {
        /// Read it first.
        Prefer = "prefer",
        /// Read it as the policy says.
        Allow = "allow",
        /// Read it only when no other leg can answer.
        Avoid = "avoid",
    }
}

/// One leg: its name, what stands behind it, and how it is used. Prints as the LEG of a command line that reads
/// back as the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegSpec {
    /// Unique in its volume.
    pub name: Name,
    /// What stands behind it.
    pub device: LegDevice,
    /// When a write counts as done for it.
    pub mode: Mode,
    /// How it takes part in reads.
    pub read: ReadPreference,
    /// Its server has no FLUSH: used all the same, never counted for durability.
    pub flush_unsafe: bool,
    /// The longest a request to it may stay unanswered, in milliseconds.
    pub timeout_ms: u64,
    /// Attempts to reach it again, or to repeat a failed request, before it leaves the set.
    pub retries: u32,
    /// Most bytes a second that a resync or a comparison moves; `None` (`auto`): as fast as clients leave room.
    pub rate: Option<u64>,
    /// This leg takes the place of the one of that name as soon as it is `UpToDate` (`leg replace`).
    pub replaces: Option<Name>,
}

impl LegSpec {
    /// A leg with the default of every option.
    pub const fn new(name: Name, device: LegDevice) -> Self {
        Self {
            name,
            device,
            mode: Mode::Sync,
            read: ReadPreference::Allow,
            flush_unsafe: false,
            timeout_ms: limits::LEG_TIMEOUT_MS,
            retries: limits::LEG_RETRIES,
            rate: None,
            replaces: None,
        }
    }
}

impl FromStr for LegSpec {
    type Err = Error;

    /// Reads a LEG; one without a name is called `leg0`.
    fn from_str(text: &str) -> Result<Self> {
        text.parse::<super::LegText>()?.spec(0)
    }
}

impl fmt::Display for LegSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.to_string().replace(',', ",,");
        write!(f, "{}={device}", self.name)?;
        if self.read != ReadPreference::Allow {
            write!(f, ",read={}", self.read)?;
        }
        if self.flush_unsafe {
            f.write_str(",flush=unsafe")?;
        }
        if self.timeout_ms != limits::LEG_TIMEOUT_MS {
            write!(f, ",timeout={}ms", self.timeout_ms)?;
        }
        if self.retries != limits::LEG_RETRIES {
            write!(f, ",retries={}", self.retries)?;
        }
        if let Some(rate) = self.rate {
            write!(f, ",rate={rate}")?;
        }
        if let Some(old) = &self.replaces {
            write!(f, ",replaces={old}")?;
        }
        Ok(())
    }
}

/// Refuses a set of legs that no volume can have: none, too many, one name or one device twice.
pub fn check_set(legs: &[LegSpec]) -> Result<()> {
    let usage = |text: String| Err(Error::new(Class::Usage, text));
    if legs.is_empty() {
        return usage("no leg is given".into());
    }
    if legs.len() > limits::LEGS {
        return usage(format!("{} legs are given, a volume has at most {}", legs.len(), limits::LEGS));
    }
    for (at, leg) in legs.iter().enumerate() {
        for earlier in &legs[..at] {
            if earlier.name == leg.name {
                return usage(format!("{}: two legs have this name", leg.name));
            }
            if earlier.device == leg.device {
                return usage(format!(
                    "{}: legs {} and {} are the same device",
                    leg.device, earlier.name, leg.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    fn devices() -> impl Strategy<Value = LegDevice> {
        prop_oneof![
            "[a-z/,=:.?-]{1,40}".prop_map(|p| LegDevice::File(p.into())),
            "/[a-zé ,=:/-]{0,40}".prop_map(|p| LegDevice::File(p.into())),
            "nbd://[a-z0-9]{1,9}(:[0-9]{1,5})?/[a-zA-Z0-9,=%._-]{0,20}".prop_map(LegDevice::Nbd),
            "nbd\\+unix:///[a-z,=]{0,9}\\?socket=/[a-z,=]{1,9}".prop_map(LegDevice::Nbd),
        ]
    }

    proptest! {
        #[test]
        fn a_leg_reads_back_as_it_prints(
            name in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}",
            device in devices(),
            read in prop_oneof![
                Just(ReadPreference::Prefer), Just(ReadPreference::Allow), Just(ReadPreference::Avoid)
            ],
            flush_unsafe in any::<bool>(),
            timeout_ms in 1..=limits::LEG_TIMEOUT_MAX_MS,
            retries in 0..=limits::LEG_RETRIES_MAX,
            rate in proptest::option::of(1..=limits::RATE_MAX),
        ) {
            proptest::prop_assume!(name != "meta");
            let name: Name = name.parse().expect("name");
            let leg = LegSpec { read, flush_unsafe, timeout_ms, retries, rate, ..LegSpec::new(name, device) };
            proptest::prop_assert_eq!(leg.to_string().parse::<LegSpec>().expect("parse"), leg);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            if let Ok(leg) = text.parse::<LegSpec>() {
                proptest::prop_assert_eq!(leg.to_string().parse::<LegSpec>().expect("again"), leg);
            }
        }
    }

    #[test]
    fn sets_of_legs_that_no_volume_can_have_are_refused() {
        let leg = |text: &str| text.parse::<LegSpec>().expect(text);
        assert!(check_set(&[leg("a=/x"), leg("b=/y")]).is_ok());
        for (legs, why) in [
            (vec![], "no leg"),
            (vec![leg("a=/x"), leg("a=/y")], "two legs have this name"),
            (vec![leg("a=/x"), leg("b=/x")], "legs a and b are the same device"),
        ] {
            let error = check_set(&legs).expect_err(why);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
