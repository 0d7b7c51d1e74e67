//! What a leg behind NBD offers, before it is one: its size, its flags, and whether all its addresses lead to one device.

use crate::base::{Class, Error, Result, limits};
use crate::leg::dial::Dial;
use crate::leg::{LegDevice, LegSpec};
use crate::nbd::client::ClientOptions;
use crate::nbd::{NbdUri, TransmissionFlags};
use std::time::Duration;

/// Bytes of one sample: what every server reads at once.
const SAMPLE: u64 = 64 << 10;
/// Samples at the very beginning, where labels and superblocks are.
const FIRST_SAMPLES: u64 = 4;

/// What was found at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The address.
    pub(super) uri: String,
    /// Bytes of the export.
    pub(super) size: u64,
    /// What it can do.
    pub(super) flags: TransmissionFlags,
    /// Some of its bytes, where [`sample_offsets`] says; none of a leg with one address.
    samples: Vec<Vec<u8>>,
}

/// Bytes of an export.
pub(super) fn size(uri: &str, dial: &Dial, timeout_ms: u64) -> Result<u64> {
    Ok(look(uri, dial, timeout_ms, false)?.size)
}

/// Bytes of a leg now, whoever uses it.
pub(super) fn present_size(leg: &LegSpec, dial: &Dial) -> Result<u64> {
    match &leg.device {
        LegDevice::File(path) => std::fs::File::open(path)
            .and_then(|mut file| std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)))
            .map_err(|e| Error::io(path.display(), "reading its size", e)),
        // Nothing is compared: somebody writes meanwhile.
        LegDevice::Nbd(_) => first(leg, |uri| size(uri, dial, leg.timeout_ms)),
    }
}

/// What the first address that answers says.
fn first<T>(leg: &LegSpec, mut ask: impl FnMut(&str) -> Result<T>) -> Result<T> {
    let mut failed = None;
    for address in leg.addresses() {
        match ask(&address.to_string()) {
            Ok(found) => return Ok(found),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Class::Connect, format!("leg {}: it has no address", leg.name))))
}

/// What the first address that answers offers. Further ones that answer must offer the same size, and the same bytes
/// wherever it is looked: two devices under one name are refused before anything is written to either. That one does
/// not answer now is what several are for. Nobody may be writing to it.
pub(super) fn leg(leg: &LegSpec, dial: &Dial) -> Result<Found> {
    let several = !leg.others.is_empty();
    let found = first(leg, |uri| look(uri, dial, leg.timeout_ms, several))?;
    let behind = leg.addresses().map(ToString::to_string).skip_while(|uri| *uri != found.uri).skip(1);
    for uri in behind {
        if let Ok(other) = look(&uri, dial, leg.timeout_ms, several) {
            same(leg, &found, &other)?;
        }
    }
    Ok(found)
}

fn look(uri: &str, dial: &Dial, timeout_ms: u64, samples: bool) -> Result<Found> {
    let parsed: NbdUri = uri.parse()?;
    let options = ClientOptions { export: parsed.export.clone(), contexts: Vec::new(), structured: true };
    let mut client = dial.blocking(&parsed, options, Duration::from_millis(timeout_ms.max(1)))?;
    let (size, flags) = (client.info().size, client.info().flags);
    let mut found = Found { uri: uri.to_owned(), size, flags, samples: Vec::new() };
    for offset in sample_offsets(size).into_iter().filter(|_| samples) {
        let mut bytes = vec![0; SAMPLE as usize];
        client.read(offset, &mut bytes)?;
        found.samples.push(bytes);
    }
    client.disconnect()?;
    Ok(found)
}

/// Where the samples of an export of this size are: at its beginning, and spread over the whole.
fn sample_offsets(size: u64) -> Vec<u64> {
    let units = size / SAMPLE;
    let count = limits::VOUCH_BLOCKS as u64;
    let mut all: Vec<u64> = (0..units.min(FIRST_SAMPLES)).collect();
    all.extend((0..count.min(units)).map(|n| n * units / count.min(units)));
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|unit| unit * SAMPLE).collect()
}

/// Refuses two addresses behind which there are two devices.
fn same(leg: &LegSpec, one: &Found, other: &Found) -> Result<()> {
    let refuse = |what: String| {
        let text = format!(
            "{}: checking leg {}: it is not the same device as {}: {what}",
            other.uri, leg.name, one.uri
        );
        Err(Error::new(Class::Refused, text))
    };
    if one.size != other.size {
        return refuse(format!("it has {} bytes, the other one {}", other.size, one.size));
    }
    let pairs = one.samples.iter().zip(&other.samples);
    let differs = sample_offsets(one.size).into_iter().zip(pairs).find(|(_, (a, b))| a != b);
    differs.map_or(Ok(()), |(offset, _)| refuse(format!("its bytes at {offset} differ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_inside_the_export_and_reach_from_its_beginning_to_its_end() {
        assert!(sample_offsets(0).is_empty() && sample_offsets(SAMPLE - 1).is_empty());
        for size in [SAMPLE, 5 * SAMPLE + 1, 1 << 20, 1 << 40] {
            let offsets = sample_offsets(size);
            assert_eq!(offsets[0], 0);
            assert!(offsets.len() <= limits::VOUCH_BLOCKS + FIRST_SAMPLES as usize, "{size}");
            assert!(offsets.iter().all(|offset| offset + SAMPLE <= size), "{size}");
            assert!(offsets.last().is_some_and(|last| *last >= size / 2 || size < 2 * SAMPLE), "{size}");
        }
    }

    #[test]
    fn two_devices_under_one_name_are_told_apart_by_size_or_by_bytes() {
        let spec: LegSpec = "far=nbd://h/x,nbd://i/x".parse().expect("leg");
        let found = |size, byte| Found {
            uri: "nbd://h/x".into(),
            size,
            flags: TransmissionFlags::HAS_FLAGS,
            samples: sample_offsets(size).iter().map(|_| vec![byte; 4]).collect(),
        };
        assert!(same(&spec, &found(1 << 20, 1), &found(1 << 20, 1)).is_ok());
        for (other, why) in
            [(found(2 << 20, 1), "has 2097152 bytes"), (found(1 << 20, 2), "bytes at 0 differ")]
        {
            let error = same(&spec, &found(1 << 20, 1), &other).expect_err(why);
            assert!(error.class == Class::Refused && error.message.contains(why), "{error}");
        }
    }
}
