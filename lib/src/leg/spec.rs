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
    /// Further addresses of the same server, over other networks; tried in this order when `device` is not reached.
    pub others: Vec<LegDevice>,
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
            others: Vec::new(),
            mode: Mode::Sync,
            read: ReadPreference::Allow,
            flush_unsafe: false,
            timeout_ms: limits::LEG_TIMEOUT_MS,
            retries: limits::LEG_RETRIES,
            rate: None,
            replaces: None,
        }
    }

    /// Everywhere it can be reached, in the order in which it is tried.
    pub fn addresses(&self) -> impl Iterator<Item = &LegDevice> {
        std::iter::once(&self.device).chain(&self.others)
    }

    /// Whether the other one is reached at the same places, in the same order.
    pub fn is_at(&self, other: &Self) -> bool {
        self.addresses().eq(other.addresses())
    }

    /// Whether the other one has an address of this one, so that it is the same leg over another way and not a leg
    /// that has moved.
    pub fn meets(&self, other: &Self) -> bool {
        self.addresses().any(|one| other.addresses().any(|two| one.is_same(two)))
    }

    /// Its addresses, for people.
    pub fn places(&self) -> String {
        let texts: Vec<String> = self.addresses().map(ToString::to_string).collect();
        texts.join(" or ")
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
        write!(f, "{}=", self.name)?;
        for (at, address) in self.addresses().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", address.to_string().replace(',', ",,"))?;
        }
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

/// Refuses a set of legs that no volume can have: none, too many, one name or one device twice, two legs that share
/// an address.
pub fn check_set(legs: &[LegSpec]) -> Result<()> {
    let usage = |text: String| Err(Error::new(Class::Usage, text));
    if legs.is_empty() {
        return usage("no leg is given".into());
    }
    if legs.len() > limits::LEGS {
        return usage(format!("{} legs are given, a volume has at most {}", legs.len(), limits::LEGS));
    }
    for (at, leg) in legs.iter().enumerate() {
        check_addresses(leg)?;
        for earlier in &legs[..at] {
            if earlier.name == leg.name {
                return usage(format!("{}: two legs have this name", leg.name));
            }
            let twin = leg.addresses().find(|one| earlier.addresses().any(|two| one.is_same(two)));
            if let Some(twin) = twin {
                return usage(format!("{twin}: legs {} and {} are the same device", earlier.name, leg.name));
            }
        }
    }
    Ok(())
}

/// Refuses addresses that no leg can have: several of something that is not behind NBD, too many, one twice.
fn check_addresses(leg: &LegSpec) -> Result<()> {
    let usage = |text: String| Err(Error::new(Class::Usage, format!("leg {}: {text}", leg.name)));
    let all: Vec<&LegDevice> = leg.addresses().collect();
    if all.len() > limits::LEG_ADDRESSES {
        return usage(format!("{} addresses, at most {} are possible", all.len(), limits::LEG_ADDRESSES));
    }
    if all.len() > 1
        && let Some(file) = all.iter().find(|address| address.is_local())
    {
        return usage(format!("{file}: only a leg behind NBD has several addresses"));
    }
    for (at, address) in all.iter().enumerate() {
        if all[..at].iter().any(|earlier| earlier.is_same(address)) {
            return usage(format!("{address}: this address is given twice"));
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
            uris(),
        ]
    }

    fn uris() -> impl Strategy<Value = LegDevice> {
        prop_oneof![
            "nbd://[a-z0-9]{1,9}(:[0-9]{1,5})?/[a-zA-Z0-9,=%._-]{0,20}".prop_map(LegDevice::Nbd),
            "nbd\\+unix:///[a-z,=]{0,9}\\?socket=/[a-z,=]{1,9}".prop_map(LegDevice::Nbd),
        ]
    }

    proptest! {
        #[test]
        fn a_leg_reads_back_as_it_prints(
            name in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}",
            device in devices(),
            others in proptest::collection::vec(uris(), 0..4),
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
            let others = if leg.device.is_local() { Vec::new() } else { others };
            let leg = LegSpec { others, ..leg };
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
            (
                vec![leg("a=nbd://h/x,nbd://i/x"), leg("b=nbd://j/x,nbd://i/x")],
                "nbd://i/x: legs a and b are the",
            ),
            (
                vec![leg("a=nbd://h/x"), leg("b=nbd://j/x,nbd://h:10809/x")],
                "legs a and b are the same device",
            ),
            (vec![leg("a=nbd://h/x,nbd://h:10809/x")], "leg a: nbd://h:10809/x: this address is given twice"),
            (vec![leg("a=/x,nbd://h/x")], "leg a: /x: only a leg behind NBD has several addresses"),
            (
                vec![leg("a=nbd://h/1,nbd://h/2,nbd://h/3,nbd://h/4,nbd://h/5")],
                "leg a: 5 addresses, at most 4 are possible",
            ),
        ] {
            let error = check_set(&legs).expect_err(why);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
