//! Flags over file over what `create` stored. Pure.

use super::{MapDurability, ReadPolicy, Settings, VolumeConfig};
use crate::base::{BlockSize, Class, Error, Result, limits};
use crate::leg::{LegSpec, LegText};

/// The configuration of a volume from up to three writings, the strongest first.
///
/// A leg is laid over the one of the same name: its device, and the options that were written. Over a `stored`
/// volume a leg must have a name that is stored, and the block of the maps cannot change. Without a stored
/// volume (a throw-away mirror) the legs are those of the file, then those of the flags.
pub fn merge(flags: Settings, file: Option<Settings>, stored: Option<Settings>) -> Result<VolumeConfig> {
    let config = lay(flags, file, stored, false)?;
    config.check()?;
    Ok(config)
}

/// The same for the start of a stored volume, where the file may name legs that the volume does not have (a reload has
/// refused to add them): these apart. Whether it may start without them is [`crate::volume`]'s to say; a floor above
/// the number of the other legs is laid at it, as a reload lays it.
pub fn merge_start(
    flags: Settings,
    file: Option<Settings>,
    stored: Option<Settings>,
) -> Result<(VolumeConfig, Vec<LegSpec>)> {
    let mut file = file;
    let mut strangers = Vec::new();
    if let (Some(file), Some(stored)) = (&mut file, &stored) {
        let is_member =
            |leg: &LegText| leg.name.is_none() || stored.legs.iter().any(|member| member.name == leg.name);
        let (members, others): (Vec<_>, Vec<_>) = file.legs.drain(..).partition(is_member);
        file.legs = members;
        strangers = others.into_iter().map(|leg| leg.spec(0)).collect::<Result<_>>()?;
    }
    let mut config = lay(flags, file, stored, false)?;
    if !strangers.is_empty() {
        config.min_legs = config.min_legs.min(u32::try_from(config.legs.len()).unwrap_or(u32::MAX));
    }
    config.check()?;
    Ok((config, strangers))
}

/// The same of a configuration that is read again while the volume is served: the file may name new legs, and
/// whether the whole is possible is known only when it is compared with the legs there are ([`super::legs::check`]).
pub fn merge_again(
    flags: Settings,
    file: Option<Settings>,
    stored: Option<Settings>,
) -> Result<VolumeConfig> {
    lay(flags, file, stored, true)
}

fn lay(
    flags: Settings,
    file: Option<Settings>,
    stored: Option<Settings>,
    again: bool,
) -> Result<VolumeConfig> {
    let file = file.unwrap_or_default();
    let legs = match &stored {
        Some(stored) => over_stored(&stored.legs, [file.legs, flags.legs], again)?,
        None => collect([file.legs, flags.legs])?,
    };
    if let Some(fixed) = stored.as_ref().map(|s| s.map_block.unwrap_or(BlockSize::DEFAULT)) {
        let other = flags.map_block.into_iter().chain(file.map_block).find(|block| *block != fixed);
        if let Some(block) = other {
            return Err(Error::new(
                Class::Refused,
                format!(
                    "map-block is {} bytes, the volume was created with {} bytes",
                    block.bytes(),
                    fixed.bytes()
                ),
            ));
        }
    }
    let stored = stored.unwrap_or_default();
    // An address given at one level replaces both kinds of address of the levels below it.
    let levels = [(flags.listen, flags.unix), (file.listen, file.unix), (stored.listen, stored.unix)];
    let (listen, unix) =
        levels.into_iter().find(|(listen, unix)| listen.is_some() || unix.is_some()).unwrap_or_default();
    Ok(VolumeConfig {
        listen: listen.unwrap_or_default(),
        unix,
        insecure: flags.insecure.or(file.insecure).or(stored.insecure).unwrap_or(false),
        allow: flags.allow.or(file.allow).or(stored.allow).unwrap_or_default(),
        tls_dir: flags.tls_dir.or(file.tls_dir).or(stored.tls_dir),
        metrics: flags.metrics.or(file.metrics).or(stored.metrics),
        on_event: flags.on_event.or(file.on_event).or(stored.on_event),
        min_legs: flags.min_legs.or(file.min_legs).or(stored.min_legs).unwrap_or(1),
        map_block: flags.map_block.or(file.map_block).or(stored.map_block).unwrap_or(BlockSize::DEFAULT),
        map_durability: flags
            .map_durability
            .or(file.map_durability)
            .or(stored.map_durability)
            .unwrap_or(MapDurability::Process),
        read_policy: flags
            .read_policy
            .or(file.read_policy)
            .or(stored.read_policy)
            .unwrap_or(ReadPolicy::Local),
        spin_us: flags.spin_us.or(file.spin_us).or(stored.spin_us).unwrap_or(limits::SPIN_DEFAULT_US),
        legs,
    })
}

fn over_stored(stored: &[LegText], given: [Vec<LegText>; 2], again: bool) -> Result<Vec<LegSpec>> {
    let mut legs = collect([stored.to_vec(), Vec::new()])?;
    for text in given.into_iter().flatten() {
        let known = || legs.iter().map(|l| l.name.to_string()).collect::<Vec<_>>().join(", ");
        let Some(name) = text.name.clone() else {
            return Err(Error::new(
                Class::Usage,
                format!(
                    "{}: a leg of a created volume is given as NAME=DEVICE; its legs are {}",
                    text.device,
                    known()
                ),
            ));
        };
        let Some(at) = legs.iter().position(|leg| leg.name == name) else {
            // A flag can name one that has been removed since.
            if again {
                legs.push(text.spec(0)?);
                continue;
            }
            return Err(Error::new(
                Class::Usage,
                format!("{name}: the volume has no leg of this name; its legs are {}", known()),
            ));
        };
        legs[at] = text.over(legs[at].clone());
    }
    Ok(legs)
}

/// Legs of several levels: a later one is laid over an earlier one of the same name. Twice the same name at one
/// level is left to the check of the whole set.
fn collect(levels: [Vec<LegText>; 2]) -> Result<Vec<LegSpec>> {
    let mut legs: Vec<LegSpec> = Vec::new();
    for level in levels {
        let below = legs.len();
        for text in level {
            let name = text.name.clone();
            match legs[..below].iter().position(|leg| Some(&leg.name) == name.as_ref()) {
                Some(at) => legs[at] = text.over(legs[at].clone()),
                None => legs.push(text.spec(legs.len())?),
            }
        }
    }
    Ok(legs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legs(texts: &[&str]) -> Settings {
        Settings { legs: texts.iter().map(|t| t.parse().expect(t)).collect(), ..Settings::default() }
    }

    #[test]
    fn legs_merge_by_name() {
        let none = legs(&[]);
        let ok = |flags: &Settings, file: &Settings, stored: Option<&Settings>| {
            let config = merge(flags.clone(), Some(file.clone()), stored.cloned()).expect("merge");
            config.legs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let stored = legs(&["a=/a", "b=/b,read=avoid"]);
        assert_eq!(ok(&none, &none, Some(&stored)), ["a=/a", "b=/b,read=avoid"]);
        assert_eq!(
            ok(&legs(&["b=/x"]), &legs(&["b=/y,retries=1"]), Some(&stored))[1],
            "b=/x,read=avoid,retries=1"
        );
        assert_eq!(ok(&legs(&["/x", "/y"]), &none, None), ["leg0=/x", "leg1=/y"]);
        assert_eq!(ok(&legs(&["b=/z", "/y"]), &stored, None), ["a=/a", "b=/z,read=avoid", "leg2=/y"]);
    }

    #[test]
    fn what_does_not_fit_the_stored_volume_is_refused() {
        let block = |bytes| Settings { map_block: BlockSize::new(bytes).ok(), ..Settings::default() };
        let min = Settings { min_legs: Some(3), ..Settings::default() };
        let stored = || Some(legs(&["a=/a", "b=/b"]));
        for (flags, stored, class, why) in [
            (legs(&["c=/c"]), stored(), Class::Usage, "no leg of this name; its legs are a, b"),
            (legs(&["/c"]), stored(), Class::Usage, "NAME=DEVICE"),
            (legs(&["a=/b"]), stored(), Class::Usage, "same device"),
            (legs(&["a=/x", "a=/y"]), None, Class::Usage, "two legs have this name"),
            (legs(&[]), None, Class::Usage, "no leg is given"),
            (block(4096), stored(), Class::Refused, "4096 bytes, the volume was created with 65536 bytes"),
            (min, stored(), Class::Usage, "min-legs is 3: must be from 1 to the number of legs, 2"),
        ] {
            let error = merge(flags, None, stored).expect_err(why);
            assert_eq!(error.class, class, "{error}");
            assert!(error.message.contains(why), "{error}");
        }
    }

    #[test]
    fn legs_of_a_file_that_a_stored_volume_does_not_have_stand_apart_at_its_start() {
        let three = Settings { min_legs: Some(3), ..legs(&["b=/x", "c=/c,read=avoid"]) };
        let stored = || Some(legs(&["a=/a", "b=/b"]));
        let (config, strangers) = merge_start(legs(&[]), Some(three.clone()), stored()).expect("merge");
        let texts = |legs: &[LegSpec]| legs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((texts(&config.legs), config.min_legs), (vec!["a=/a".into(), "b=/x".into()], 2));
        assert_eq!(texts(&strangers), ["c=/c,read=avoid"]);
        // A person who types a name now means it; so does a file with a floor and without a stranger.
        assert!(merge_start(legs(&["c=/c"]), None, stored()).is_err());
        assert!(merge_start(legs(&[]), Some(Settings { min_legs: Some(3), ..legs(&[]) }), stored()).is_err());
        // Without a stored volume all of them are its legs.
        let two = Settings { min_legs: Some(2), ..three };
        let (config, strangers) = merge_start(legs(&[]), Some(two), None).expect("merge");
        assert_eq!((config.legs.len(), strangers.len()), (2, 0));
    }

    #[test]
    fn options_come_from_the_strongest_place_that_names_them() {
        let level = |n: Option<u32>, unix: Option<&str>| Settings {
            min_legs: n,
            unix: unix.map(Into::into),
            ..legs(&[])
        };
        let listen = Settings { listen: Some(vec![":1".parse().expect("listen")]), ..level(None, None) };
        for (flags, file, stored, is) in [
            (None, None, None, 1),
            (None, None, Some(2), 2),
            (None, Some(1), Some(2), 1),
            (Some(2), Some(1), Some(1), 2),
        ] {
            let stored = Settings { legs: legs(&["a=/a", "b=/b"]).legs, ..level(stored, Some("/s")) };
            let config =
                merge(level(flags, None), Some(level(file, None)), Some(stored.clone())).expect("merge");
            assert_eq!((config.min_legs, config.unix), (is, Some("/s".into())));
            let config = merge(listen.clone(), None, Some(stored)).expect("merge");
            assert_eq!((config.listen.len(), config.unix), (1, None), "an address replaces the other kind");
        }
    }
}
