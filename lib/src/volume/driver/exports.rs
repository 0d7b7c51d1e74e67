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
/// `NBD_STATE_HOLE | NBD_STATE_ZERO`: our holes read as zeroes.
const HOLE: u32 = 3;
/// The bit of `x-mirror:dirty/LEG`.
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
    pub(super) fn new(name: &Name, size: u64, legs: &[Slot]) -> Self {
        let mut flags = [
            TransmissionFlags::SEND_FLUSH,
            TransmissionFlags::SEND_FUA,
            TransmissionFlags::SEND_WRITE_ZEROES,
            TransmissionFlags::SEND_CACHE,
            TransmissionFlags::CAN_MULTI_CONN,
        ]
        .into_iter()
        .fold(TransmissionFlags::HAS_FLAGS, TransmissionFlags::with);
        if legs.iter().all(|leg| leg.offer.is_some_and(|offer| offer.zeroes)) {
            flags = flags.with(TransmissionFlags::SEND_TRIM);
        }
        if legs.iter().all(|leg| leg.offer.is_some_and(|offer| offer.fast_zero)) {
            flags = flags.with(TransmissionFlags::SEND_FAST_ZERO);
        }
        let offers = || legs.iter().filter_map(|leg| leg.offer);
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
        let dirty = legs.iter().map(|leg| format!("{DIRTY}{}", leg.spec.name));
        let contexts = std::iter::once(ALLOCATION.to_owned()).chain(dirty).collect();
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

/// The extents of `base:allocation`: what was found, cut to the request; one of data if nothing was.
pub(super) fn allocation(found: Option<&[Extent]>, range: ByteRange, most: usize) -> Vec<(u32, u32)> {
    let found = found.unwrap_or_default().iter().map(|e| (e.len, if e.hole { HOLE } else { 0 }));
    cut(found, range, most)
}

/// The extents of what a leg misses.
pub(super) fn dirty(runs: &[(u64, bool)], range: ByteRange, most: usize) -> Vec<(u32, u32)> {
    cut(runs.iter().map(|&(len, dirty)| (len, if dirty { IS_DIRTY } else { 0 })), range, most)
}

/// At most `most` extents, none empty, none past the request, at least one.
fn cut(extents: impl Iterator<Item = (u64, u32)>, range: ByteRange, most: usize) -> Vec<(u32, u32)> {
    let mut left = range.len;
    let mut kept = Vec::new();
    for (len, status) in extents.take(most) {
        let len = len.min(left);
        if len > 0 {
            kept.push((len as u32, status));
        }
        left -= len;
    }
    if kept.is_empty() {
        kept.push((range.len as u32, 0));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_stay_inside_the_request_and_there_is_at_least_one() {
        let range = ByteRange { offset: 4096, len: 10_000 };
        assert_eq!(allocation(None, range, 9), [(10_000, 0)]);
        let found = [Extent { len: 4096, hole: true }, Extent { len: 1 << 40, hole: false }];
        assert_eq!(allocation(Some(&found), range, 9), [(4096, 3), (5904, 0)]);
        assert_eq!(allocation(Some(&found), range, 1), [(4096, 3)]);
        assert_eq!(dirty(&[(0, true), (10, true), (20, false)], range, 9), [(10, 1), (20, 0)]);
        assert_eq!(dirty(&[], range, 1), [(10_000, 0)]);
    }
}
