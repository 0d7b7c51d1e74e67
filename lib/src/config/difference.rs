//! What another reading of the configuration would change. Pure.

use super::VolumeConfig;
use crate::leg::LegSpec;
use std::fmt;

/// How a difference is brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// By the running daemon, at once.
    Now,
    /// By a command about the leg.
    Leg,
    /// By a restart.
    Restart,
    /// Not at all: it was fixed when the volume was created.
    Never,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What: a key of the configuration, or `leg NAME` with one.
    pub key: String,
    /// How it is; `none` where nothing is set.
    pub from: String,
    /// How it is to be.
    pub to: String,
    /// How that is brought about.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to, effect } = self;
        match effect {
            Effect::Now => write!(f, "{key}: {from}, now {to}"),
            Effect::Leg => write!(f, "{key}: stays {from}: {to} needs mirrord leg add, remove or set"),
            Effect::Restart => write!(f, "{key}: stays {from}: {to} needs a restart"),
            Effect::Never => write!(f, "{key}: stays {from}: {to} needs a new volume"),
        }
    }
}

/// Everything that differs, in the order of the manual.
pub fn difference(old: &VolumeConfig, new: &VolumeConfig) -> Vec<Change> {
    let mut found = Found(Vec::new());
    let listen = |config: &VolumeConfig| list(&config.listen);
    found.compare("listen", Effect::Now, &listen(old), &listen(new));
    let unix = |config: &VolumeConfig| option(config.unix.as_ref().map(|path| path.display()));
    found.compare("unix", Effect::Now, &unix(old), &unix(new));
    found.compare("insecure", Effect::Now, &old.insecure, &new.insecure);
    found.compare("allow", Effect::Now, &list(&old.allow), &list(&new.allow));
    found.compare("metrics", Effect::Now, &option(old.metrics.as_ref()), &option(new.metrics.as_ref()));
    found.compare("on-event", Effect::Now, &option(old.on_event.as_ref()), &option(new.on_event.as_ref()));
    found.compare("min-legs", Effect::Now, &old.min_legs, &new.min_legs);
    found.compare("map-block", Effect::Never, &old.map_block.bytes(), &new.map_block.bytes());
    found.compare("map-durability", Effect::Restart, &old.map_durability, &new.map_durability);
    found.compare("read-policy", Effect::Now, &old.read_policy, &new.read_policy);
    found.compare("spin", Effect::Now, &old.spin_us, &new.spin_us);
    legs(&mut found, &old.legs, &new.legs);
    found.0
}

fn legs(found: &mut Found, old: &[LegSpec], new: &[LegSpec]) {
    for was in old {
        let key = format!("leg {}", was.name);
        // As one writes it, all its settings in one.
        let is = new.iter().find(|is| is.name == was.name).map(ToString::to_string);
        found.compare(&key, Effect::Leg, &was.to_string(), &option(is));
    }
    for is in new.iter().filter(|is| old.iter().all(|was| was.name != is.name)) {
        found.compare(&format!("leg {}", is.name), Effect::Leg, &option(None::<String>), &is.to_string());
    }
}

struct Found(Vec<Change>);

impl Found {
    fn compare<T: fmt::Display>(&mut self, key: &str, effect: Effect, from: &T, to: &T) {
        let (from, to) = (from.to_string(), to.to_string());
        if from != to {
            self.0.push(Change { key: key.to_owned(), from, to, effect });
        }
    }
}

fn option(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn list<T: fmt::Display>(values: &[T]) -> String {
    let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockSize;
    use crate::config::ReadPolicy;

    fn with(legs: &[&str], change: impl FnOnce(&mut VolumeConfig)) -> VolumeConfig {
        let legs = legs
            .iter()
            .enumerate()
            .map(|(at, text)| text.parse::<crate::leg::LegText>().expect(text).spec(at).expect(text));
        let mut config = VolumeConfig::new(legs.collect());
        change(&mut config);
        config
    }

    #[test]
    fn each_key_says_how_it_was_how_it_is_and_what_it_needs() {
        let legs = &["a=/a", "b=/b"][..];
        let old = with(legs, |_| ());
        let range = |text: &str| text.parse().expect(text);
        let table: [(VolumeConfig, &[&str]); 14] = [
            (old.clone(), &[]),
            (
                with(legs, |c| c.listen = vec![":1".parse().expect("address")]),
                &["listen: none, now localhost:1"],
            ),
            (with(legs, |c| c.unix = Some("/s".into())), &["unix: none, now /s"]),
            (with(legs, |c| c.insecure = true), &["insecure: false, now true"]),
            (
                with(legs, |c| c.allow = vec![range("10.0.0.0/8"), range("::1")]),
                &["allow: none, now 10.0.0.0/8, ::1/128"],
            ),
            (with(legs, |c| c.metrics = "/x/y".parse().ok()), &["metrics: none, now /x/y"]),
            (with(legs, |c| c.on_event = Some("logger".into())), &["on-event: none, now logger"]),
            (with(legs, |c| c.min_legs = 2), &["min-legs: 1, now 2"]),
            (
                with(legs, |c| c.map_block = BlockSize::new(4096).expect("block")),
                &["map-block: stays 65536: 4096 needs a new volume"],
            ),
            (
                with(legs, |c| c.read_policy = ReadPolicy::RoundRobin),
                &["read-policy: local, now round-robin"],
            ),
            (with(legs, |c| c.spin_us = 10), &["spin: 0, now 10"]),
            (
                with(&["a=/a", "b=/b,read=avoid"], |_| ()),
                &["leg b: stays b=/b: b=/b,read=avoid needs mirrord leg add, remove or set"],
            ),
            (with(&["a=/a"], |_| ()), &["leg b: stays b=/b: none needs mirrord leg add, remove or set"]),
            (
                with(&["c=/c", "a=/a", "b=/b"], |c| c.min_legs = 3),
                &["min-legs: 1, now 3", "leg c: stays none: c=/c needs mirrord leg add, remove or set"],
            ),
        ];
        for (new, texts) in table {
            let found: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
            assert_eq!(found, texts);
        }
    }
}
