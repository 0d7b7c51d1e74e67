//! What people and files say. What is understood is written again and must then be understood the same.

use super::Seen;
use super::mutate::hash;
use mirror::base::Class;
use mirror::config::{Cidr, Listen, MetricsTo, Settings, file, merge, to_toml};
use mirror::control::request::{from_line, to_line};
use mirror::control::{Lines, Status, Thresholds, judge, metrics};
use mirror::leg::LegText;
use mirror::nbd::NbdUri;
use std::fmt::Display;
use std::str::FromStr;

/// The kind of an error: its text without what came from the input.
fn kind(error: &impl Display) -> Seen {
    let text = error.to_string();
    assert!(!text.contains('\n'), "an error has one line: {text}");
    let tail: String =
        text.rsplit(": ").next().unwrap_or_default().chars().filter(|c| !c.is_numeric()).collect();
    hash(tail.as_bytes())
}

/// Reads, writes, reads: the same.
fn again<T: FromStr<Err = mirror::base::Error> + Display + PartialEq + std::fmt::Debug>(text: &str) -> Seen {
    match text.parse::<T>() {
        Err(error) => kind(&error),
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(shown.parse::<T>().unwrap_or_else(|e| panic!("{shown}: {e}")), value, "{shown}");
            let shape: String = shown.chars().filter(|c| !c.is_alphanumeric()).take(12).collect();
            hash(shape.as_bytes())
        }
    }
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn all(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn uri(input: &[u8]) -> Seen {
    text(input).map_or(1, again::<NbdUri>)
}

pub fn uris() -> Vec<Vec<u8>> {
    all(&[
        "nbd://host/vol",
        "nbd://[::1]:10809//disk",
        "nbds://user@host:1/x%20y?tls-type=x509",
        "nbd+unix:///vol?socket=/run/s",
        "nbd+unix:///?socket=%00abstract&x-mine=1",
    ])
}

pub fn leg(input: &[u8]) -> Seen {
    let Some(text) = text(input) else { return 1 };
    match text.parse::<LegText>().and_then(|leg| leg.spec(3)) {
        Err(error) => kind(&error),
        Ok(spec) => {
            let shown = spec.to_string();
            let read = shown.parse::<LegText>().and_then(|leg| leg.spec(5));
            assert_eq!(read.unwrap_or_else(|e| panic!("{shown}: {e}")), spec, "{shown}");
            let shape: String = shown.chars().filter(|c| !c.is_alphanumeric()).take(12).collect();
            hash(shape.as_bytes())
        }
    }
}

pub fn legs() -> Vec<Vec<u8>> {
    all(&[
        "here=/srv/a,,b,read=avoid",
        "far=nbd://h:1/x,mode=sync,flush=unsafe,timeout=5s,retries=9",
        "nbd+unix:///v?socket=/s,read=prefer",
        "file:a=b",
        "./a=b",
    ])
}

pub fn config(input: &[u8]) -> Seen {
    let Some(text) = text(input) else { return 1 };
    let volumes = match file::parse("x.toml", text, Class::Usage) {
        Err(error) => return kind(&error),
        Ok(volumes) => volumes,
    };
    let mut seen = volumes.len() as u64;
    for (name, settings) in volumes {
        let config = match merge(Settings::default(), Some(settings), None) {
            Err(error) => {
                seen = seen.wrapping_mul(31) ^ kind(&error);
                continue;
            }
            Ok(config) => config,
        };
        let written = to_toml(&name, &config);
        let mut read =
            file::parse("y.toml", &written, Class::Damaged).unwrap_or_else(|e| panic!("{e}: {written}"));
        let read =
            merge(Settings::default(), None, read.remove(&name)).unwrap_or_else(|e| panic!("{e}: {written}"));
        assert_eq!(read, config, "{written}");
        seen = seen.wrapping_mul(31) ^ written.lines().count() as u64;
    }
    seen
}

pub fn configs() -> Vec<Vec<u8>> {
    all(&[
        "[volume.vol0]\nlisten = [\":1\", \"[::1]:2\"]\nmin-legs = 1\nmap-block = \"128K\"\nread-policy = \"round-robin\"\n\
         allow = [\"10.0.0.0/8\"]\nmetrics = \":9942\"\non-event = \"logger x\"\ninsecure = true\n\
         [[volume.vol0.leg]]\nname = \"here\"\ndevice = \"/srv/a,b\"\n\
         [[volume.vol0.leg]]\nname = \"far\"\ndevice = \"nbd://h/x\"\nread = \"avoid\"\ntimeout = 5\nretries = 9\n",
        "[volume.a]\nunix = \"/s\"\nmap-durability = \"process\"\n[[volume.a.leg]]\ndevice = \"/x\"\nflush = \"unsafe\"\n",
    ])
}

/// The small values: addresses, ranges, where metrics go; the first byte chooses.
pub fn values(input: &[u8]) -> Seen {
    let Some((choice, rest)) = input.split_first() else { return 0 };
    let Some(text) = text(rest) else { return 1 };
    let seen = match choice % 5 {
        0 => again::<Listen>(text),
        1 => again::<Cidr>(text),
        2 => again::<MetricsTo>(text),
        3 => mirror::base::units::parse_size(text).map_or_else(|e| kind(&e), |n| n.leading_zeros().into()),
        _ => mirror::base::units::parse_duration_ms(text)
            .map_or_else(|e| kind(&e), |n| n.leading_zeros().into()),
    };
    seen.wrapping_mul(5) ^ u64::from(choice % 5)
}

pub fn value_seeds() -> Vec<Vec<u8>> {
    all(&[
        "\0localhost:1",
        "\0[::1]",
        "\x01",
        "\x0110.0.0.0/8",
        "\x01fd00::/8",
        "\x02:9942",
        "\x02unix:/s",
        "\x02/x/y",
        "\x031.5G",
        "\x0430s",
    ])
}

/// A stream of lines to the control socket, in pieces of a size that the first byte says.
pub fn control(input: &[u8]) -> Seen {
    let Some((piece, rest)) = input.split_first() else { return 0 };
    let mut lines = Lines::new(4096);
    let mut seen = Vec::new();
    for part in rest.chunks(usize::from(*piece).max(1)) {
        lines.push(part);
        loop {
            match lines.next_line() {
                Ok(None) => break,
                Err(_) => return hash(b"too long"),
                Ok(Some(line)) => match from_line(line) {
                    Err(error) => seen.extend(kind(&error).to_be_bytes()),
                    Ok(request) => {
                        let written = to_line(&request).expect("line");
                        assert_eq!(from_line(&written).expect("ours"), request);
                        seen.extend(hash(&written).to_be_bytes());
                    }
                },
            }
        }
        if seen.len() > 64 {
            break;
        }
    }
    hash(&seen)
}

pub fn control_seeds() -> Vec<Vec<u8>> {
    all(&[
        "\x07{\"request\":\"ping\"}\n{\"request\":\"status\"}\n",
        "@{\"request\":\"leg\",\"action\":\"detach\",\"leg\":\"a\"}\n{\"request\":\"resync\",\"leg\":\"a\",\"full\":true}\n",
        "@{\"request\":\"events\",\"now\":true}\n{\"request\":\"stop\"}\n",
    ])
}

/// A status as another version may write it: judged and shown without a panic.
pub fn status(input: &[u8]) -> Seen {
    let Ok(status) = serde_json::from_slice::<Status>(input) else { return 1 };
    let limits =
        Thresholds { behind_bytes: Some(1 << 20), behind_seconds: Some(60.0), stall_seconds: Some(60.0) };
    let judgement = judge(&status, &limits);
    let page = metrics::render(&status);
    assert!(page.lines().count() > 20);
    let shown = mirror::cli::status::render(&status);
    assert!(!shown.contains('\x1b'), "nothing drives a terminal");
    judgement.verdict as u64 * 31
        + status.legs.len() as u64 * 7
        + u64::from(judgement.text.matches(';').count() as u32)
}

pub fn statuses() -> Vec<Vec<u8>> {
    all(&[
        "{\"schema\":\"mirrord-status/1\",\"name\":\"v\",\"running\":true,\"min-legs\":1,\"suspended\":false,\"legs\":[{\"name\":\"a\",\
         \"disk-state\":\"UpToDate\",\"connection-state\":\"Connected\",\"dirty\":0}]}",
        "{\"name\":\"v\",\"running\":true,\"reason\":\"x\",\"legs\":[{\"name\":\"b\",\"disk-state\":\"SyncTarget\",\"dirty\":65536,\
         \"stalled_seconds\":99.5,\"resync\":{\"done\":1,\"total\":2,\"percent-in-sync\":50.0}}]}",
    ])
}
