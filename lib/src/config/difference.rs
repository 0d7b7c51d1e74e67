//! What another reading of the configuration would change, but for the legs ([`super::legs`]). Pure.

use super::VolumeConfig;
use std::fmt;

/// How a difference is brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// By the running daemon, at once.
    Now,
    /// By a restart.
    Restart,
    /// Not at all: it was fixed when the volume was created.
    Never,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What: a key of the configuration.
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
    let tls = |config: &VolumeConfig| option(config.tls_dir.as_ref().map(|path| path.display()));
    found.compare("tls-dir", Effect::Now, &tls(old), &tls(new));
    found.compare("metrics", Effect::Now, &option(old.metrics.as_ref()), &option(new.metrics.as_ref()));
    found.compare("on-event", Effect::Now, &option(old.on_event.as_ref()), &option(new.on_event.as_ref()));
    found.compare("min-legs", Effect::Now, &old.min_legs, &new.min_legs);
    found.compare("map-block", Effect::Never, &old.map_block.bytes(), &new.map_block.bytes());
    found.compare("map-durability", Effect::Restart, &old.map_durability, &new.map_durability);
    found.compare("read-policy", Effect::Now, &old.read_policy, &new.read_policy);
    found.compare("spin", Effect::Now, &old.spin_us, &new.spin_us);
    found.0
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
        let table: [(VolumeConfig, &[&str]); 13] = [
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
            (with(legs, |c| c.tls_dir = Some("/t".into())), &["tls-dir: none, now /t"]),
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
            (with(legs, |c| c.spin_us = 10), &["spin: 20, now 10"]),
            (with(&["a=/x"], |_| ()), &[]),
        ];
        for (new, texts) in table {
            let found: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
            assert_eq!(found, texts);
        }
    }
}
