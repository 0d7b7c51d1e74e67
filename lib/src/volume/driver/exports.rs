//! What clients are offered: one export, its flags and sizes, its metadata contexts and their extents.

use super::legs::Slot;
use crate::base::{ByteRange, Name, limits};
use crate::device::Extent;
use crate::nbd::TransmissionFlags;
use crate::nbd::server::{ExportInfo, Exports};

/// The context of holes.
pub(super) const ALLOCATION: &str = "base:allocation";
/// Before the name of a leg: what it misses.
const DIRTY: &str = "x-mirror:dirty/";
/// Before the name of a tracker: what has changed; the name that QEMU gave it.
const BITMAP: &str = "qemu:dirty-bitmap:";
/// `NBD_STATE_HOLE | NBD_STATE_ZERO`: our holes read as zeroes.
const HOLE: u32 = 3;
/// The bit of `x-mirror:dirty/LEG` and of `qemu:dirty-bitmap:TRACKER`.
const IS_DIRTY: u32 = 1;

/// The volume as the handshake shows it.
pub(super) struct Table {
    name: String,
    info: ExportInfo,
    contexts: Vec<String>,
}

/// No export: for connections whose handshake is over.
pub(super) struct Nothing;

impl Table {
    /// As the legs are now.
    pub(super) fn new<'a>(
        name: &Name,
        size: u64,
        legs: &[Slot],
        trackers: impl Iterator<Item = &'a Name>,
    ) -> Self {
        let mut flags = [
            TransmissionFlags::SEND_FLUSH,
            TransmissionFlags::SEND_FUA,
            TransmissionFlags::SEND_WRITE_ZEROES,
            TransmissionFlags::SEND_CACHE,
            TransmissionFlags::CAN_MULTI_CONN,
        ]
        .into_iter()
        .fold(TransmissionFlags::HAS_FLAGS, TransmissionFlags::with);
        let members = || legs.iter().filter(|leg| !leg.gone);
        if members().all(|leg| leg.offer.is_some_and(|offer| offer.zeroes)) {
            flags = flags.with(TransmissionFlags::SEND_TRIM);
        }
        if members().all(|leg| leg.offer.is_some_and(|offer| offer.fast_zero)) {
            flags = flags.with(TransmissionFlags::SEND_FAST_ZERO);
        }
        let offers = || members().filter_map(|leg| leg.offer);
        let min_block = offers().map(|offer| offer.min_block).max().unwrap_or(1).clamp(1, 65536);
        let preferred = offers().map(|offer| offer.preferred_block).max().unwrap_or(4096);
        let info = ExportInfo {
            size,
            flags,
            description: String::new(),
            min_block,
            preferred_block: preferred.clamp(4096.max(min_block), limits::NBD_PAYLOAD),
            max_block: limits::NBD_PAYLOAD,
        };
        let dirty = members().map(|leg| format!("{DIRTY}{}", leg.spec.name));
        let bitmaps = trackers.map(|tracker| format!("{BITMAP}{tracker}"));
        let contexts = std::iter::once(ALLOCATION.to_owned()).chain(dirty).chain(bitmaps).collect();
        Self { name: name.to_string(), info, contexts }
    }

    /// The unit that clients are promised.
    pub(super) const fn min_block(&self) -> u32 {
        self.info.min_block
    }

    fn is(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }
}

impl Exports for Table {
    fn list(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        self.is(name).then(|| self.info.clone())
    }

    fn contexts(&self, name: &str) -> Vec<String> {
        if self.is(name) { self.contexts.clone() } else { Vec::new() }
    }
}

impl Exports for Nothing {
    fn list(&self) -> Vec<String> {
        Vec::new()
    }

    fn find(&self, _name: &str) -> Option<ExportInfo> {
        None
    }

    fn contexts(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }
}

/// Whether a context is that of what this leg misses.
pub(super) fn is_dirty_of(context: &str, leg: &Name) -> bool {
    context.strip_prefix(DIRTY).is_some_and(|name| name == leg.as_str())
}

/// The name of the tracker that a context is of, if it is one of a tracker.
pub(super) fn bitmap_of(context: &str) -> Option<&str> {
    context.strip_prefix(BITMAP)
}

/// What extents are cut to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The request; begins with a unit.
    pub(super) range: ByteRange,
    /// Most extents.
    pub(super) most: usize,
    /// The smallest unit of the export: where an extent ends the client must be able to go on.
    pub(super) unit: u32,
}

/// The extents of `base:allocation`: what was found, cut to the request; one of data if nothing was. A unit that
/// is partly data is data.
pub(super) fn allocation(found: Option<&[Extent]>, cut: Cut) -> Vec<(u64, u32)> {
    let found = found.unwrap_or_default().iter().map(|e| (e.len, if e.hole { HOLE } else { 0 }));
    cut.cut(found, 0)
}

/// The extents of what a leg misses. A unit that is partly missing is missing.
pub(super) fn dirty(runs: &[(u64, bool)], cut: Cut) -> Vec<(u64, u32)> {
    cut.cut(runs.iter().map(|&(len, dirty)| (len, if dirty { IS_DIRTY } else { 0 })), IS_DIRTY)
}

impl Cut {
    /// At least one extent, none empty, none past the request, all of whole units but the last of the export;
    /// `wins` is the status of a unit that has two.
    fn cut(self, extents: impl Iterator<Item = (u64, u32)>, wins: u32) -> Vec<(u64, u32)> {
        let (whole, unit) = (self.range.len, u64::from(self.unit.max(1)));
        let mut kept: Vec<(u64, u32)> = Vec::new();
        // How far the extents go, and those that are kept.
        let (mut end, mut until) = (0, 0);
        for (len, status) in extents {
            end = whole.min(end + len);
            let to = match status == wins {
                _ if end == whole => whole,
                true => whole.min(end.next_multiple_of(unit)),
                false => end - end % unit,
            };
            if to <= until {
                continue;
            }
            let more = to - until;
            let room = kept.len() < self.most;
            match kept.last_mut() {
                Some((len, last)) if *last == status => *len += more,
                _ if room => kept.push((more, status)),
                _ => return kept,
            }
            until = to;
        }
        if kept.is_empty() {
            // Nothing is known, or less than a unit.
            kept.push(if end == 0 { (whole, 0) } else { (whole.min(unit), wins) });
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_extents_stay_inside_the_request_and_there_is_at_least_one() {
        let range = ByteRange { offset: 4096, len: 10_000 };
        let nine = Cut { range, most: 9, unit: 1 };
        let one = Cut { most: 1, ..nine };
        assert_eq!(allocation(None, nine), [(10_000, 0)]);
        let found = [Extent { len: 4096, hole: true }, Extent { len: 1 << 40, hole: false }];
        assert_eq!(allocation(Some(&found), nine), [(4096, 3), (5904, 0)]);
        assert_eq!(allocation(Some(&found), one), [(4096, 3)]);
        // CVE-2025-47711: one extent that is longer than what was asked for.
        for (hole, status) in [(true, 3), (false, 0)] {
            let found = [Extent { len: 1 << 40, hole }];
            assert_eq!(allocation(Some(&found), one), [(10_000, status)]);
            assert_eq!(dirty(&[(1 << 40, hole)], nine), [(10_000, u32::from(hole))]);
        }
        assert_eq!(dirty(&[(0, true), (10, true), (20, false)], nine), [(10, 1), (20, 0)]);
        assert_eq!(dirty(&[], one), [(10_000, 0)]);
    }

    #[test]
    fn s14_units_are_counted_in_64_bits() {
        let of = |len: u64| Cut { range: ByteRange { offset: 0, len }, most: 9, unit: 4096 };
        let last = 0xffff_fe00;
        let found = [Extent { len: last - 100, hole: true }, Extent { len: 10, hole: false }];
        assert_eq!(allocation(Some(&found), of(last)), [(last - 3584, 3), (3584, 0)]);
        // What ends 100 bytes before 4 GiB ends with it, not with nothing.
        let found =
            [Extent { len: (1 << 32) - 100, hole: false }, Extent { len: (1 << 33) + 100, hole: true }];
        assert_eq!(allocation(Some(&found), of(3 << 32)), [(1 << 32, 0), (1 << 33, 3)]);
    }

    #[test]
    fn s38_extents_are_whole_units_and_a_unit_with_two_statuses_has_the_safe_one() {
        let cut = Cut { range: ByteRange { offset: 512, len: 3000 }, most: 9, unit: 512 };
        let found = |runs: &[(u64, bool)]| -> Vec<Extent> {
            runs.iter().map(|&(len, hole)| Extent { len, hole }).collect()
        };
        for (runs, expected) in [
            (vec![(100, true), (1, false), (2899, true)], vec![(512, 0), (2488, 3)]),
            (vec![(600, true), (1, false), (2399, true)], vec![(512, 3), (512, 0), (1976, 3)]),
            (
                vec![(512, true), (1, false), (1023, true), (1, false)],
                vec![(512, 3), (512, 0), (512, 3), (512, 0)],
            ),
            (vec![(100, true)], vec![(512, 0)]),
            (vec![(100, false)], vec![(512, 0)]),
            (vec![(1000, true)], vec![(512, 3)]),
            (vec![(2999, true), (9, false)], vec![(2560, 3), (440, 0)]),
        ] {
            assert_eq!(allocation(Some(&found(&runs)), cut), expected, "{runs:?}");
            let dirty_runs: Vec<_> = runs.iter().map(|&(len, hole)| (len, !hole)).collect();
            let expected: Vec<_> =
                expected.iter().map(|&(len, status)| (len, u32::from(status == 0))).collect();
            assert_eq!(dirty(&dirty_runs, cut), expected, "{runs:?}");
        }
    }
}
