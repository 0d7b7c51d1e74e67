use super::{parse, to_toml};
use crate::base::{BlockSize, Class, Name};
use crate::config::{ReadPolicy, Settings, VolumeConfig, merge};
use crate::leg::LegSpec;
use proptest::prelude::{Strategy, any, proptest};

fn name() -> Name {
    "vol0".parse().expect("name")
}

fn read(text: &str) -> crate::base::Result<Settings> {
    parse("x.toml", text, Class::Usage).map(|mut volumes| volumes.remove(&name()).expect("vol0"))
}

#[test]
fn the_file_means_the_same_as_the_flags() {
    let file = read(
        "[volume.vol0]\nlisten = [\":1\", \"[::1]:2\"]\nmin-legs = 2\nmap-block = \"128K\"\n\
         allow = [\"10.0.0.0/8\", \"::1\"]\ntls-dir = \"/t\"\nmetrics = \":9942\"\non-event = \"logger x\"\n\
         read-policy = \"round-robin\"\nspin = 10\nmap-durability = \"process\"\n\
         [[volume.vol0.leg]]\nname = \"here\"\ndevice = \"/srv/a,b\"\n\
         [[volume.vol0.leg]]\nname = \"far\"\ndevice = \"nbd://h/x\"\nread = \"avoid\"\nflush = \"unsafe\"\n\
         timeout = 5\nretries = 9\nmode = \"sync\"\n",
    )
    .expect("file");
    let legs = ["here=/srv/a,,b", "far=nbd://h/x,read=avoid,flush=unsafe,timeout=5s,retries=9,mode=sync"];
    let flags = Settings {
        listen: Some(vec![":1".parse().expect("listen"), "[::1]:2".parse().expect("listen")]),
        allow: Some(vec!["10.0.0.0/8".parse().expect("range"), "::1".parse().expect("address")]),
        tls_dir: Some("/t".into()),
        metrics: ":9942".parse().ok(),
        on_event: Some("logger x".into()),
        min_legs: Some(2),
        map_block: BlockSize::new(128 << 10).ok(),
        read_policy: Some(ReadPolicy::RoundRobin),
        spin_us: Some(10),
        map_durability: file.map_durability,
        legs: legs.iter().map(|l| l.parse().expect(l)).collect(),
        ..Settings::default()
    };
    assert_eq!(file, flags);
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line() {
    let leg = "[[volume.vol0.leg]]\nname = \"a\"\n";
    for (text, whys) in [
        ("x".to_owned(), &["line 1"][..]),
        ("[volume.vol0]\ncolour = 1\n".to_owned(), &["line 2", "unknown field `colour`"]),
        ("[volumes.vol0]\n".to_owned(), &["line 1", "unknown field `volumes`"]),
        ("[volume.vol0]\nmin-legs = \"x\"\n".to_owned(), &["line 2"]),
        ("[volume.vol0]\n\nmap-block = 3000\n".to_owned(), &["line 3", "block size 3000"]),
        ("[volume.vol0]\nmap-durability = \"disk\"\n".to_owned(), &["line 2", "not one of process, power"]),
        ("[volume.vol0]\nlisten = [\"h:x\"]\n".to_owned(), &["line 2", "h:x", "port"]),
        ("[volume.vol0]\nallow = [\"10.0.0.1/8\"]\n".to_owned(), &["line 2", "one address and a range"]),
        ("[volume.vol0]\nmetrics = \"9942\"\n".to_owned(), &["line 2", "not HOST:PORT"]),
        ("[volume.vol0]\nread-policy = \"any\"\n".to_owned(), &["line 2", "any", "round-robin"]),
        ("[volume.\"a/b\"]\n".to_owned(), &["line 1", "checking a name"]),
        (format!("{leg}device = \"/x\"\ncolour = 1\n"), &["line 4", "unknown field `colour`"]),
        (leg.to_owned(), &["line 1", "missing field `device`"]),
        (format!("{leg}device = \"-\"\n"), &["volume.vol0: leg a", "standard input"]),
        (format!("{leg}device = \"/x\"\nmode = \"async\"\n"), &["leg a", "not supported"]),
    ] {
        let error = parse("x.toml", &text, Class::Usage).expect_err(&text);
        assert_eq!(error.class, Class::Usage);
        assert!(error.message.starts_with("x.toml: reading the configuration: "), "{error}");
        assert!(!error.message.contains('\n'), "{error}");
        for why in whys {
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }
}

proptest! {
    #[test]
    fn a_stored_volume_reads_back_as_the_same(
        paths in proptest::collection::hash_set("/[a-z\"\\\\é ,=$'#-]{1,30}", 1..5),
        unix in proptest::option::of("/[a-z\"]{1,20}"),
        insecure in any::<bool>(),
        tls_dir in proptest::option::of("/[a-z\"é]{1,20}"),
        on_event in proptest::option::of("[ -~\"é]{1,20}"),
        shift in 12u32..25,
        timeout_ms in 1u64..100_000,
        flush_unsafe in any::<bool>(),
    ) {
        let legs = paths.iter().enumerate().map(|(at, path)| {
            let name = format!("leg.{at}").parse().expect("name");
            let device = crate::leg::LegDevice::File(path.into());
            LegSpec { flush_unsafe, timeout_ms, ..LegSpec::new(name, device) }
        });
        let config = VolumeConfig {
            unix: unix.map(Into::into),
            insecure,
            tls_dir: tls_dir.map(Into::into),
            allow: vec!["192.0.2.0/24".parse().expect("range")],
            metrics: "/x y/vol0.prom".parse().ok(),
            on_event,
            map_block: BlockSize::new(1 << shift).expect("block"),
            ..VolumeConfig::new(legs.collect())
        };
        let stored = read(&to_toml(&name(), &config)).expect("read");
        proptest::prop_assert_eq!(merge(Settings::default(), None, Some(stored)).expect("merge"), config);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[volume\\.vol0\\]\n)?.{0,80}".prop_map(|t| t)) {
        let _ = parse("x", &text, Class::Usage);
    }
}
