//! Whether the server at one of several addresses holds the leg that it is asked for.
//!
//! Metadata lies beside a leg and never in it, so that a plain NBD server cannot say who it is. What it holds can: a
//! block that the map of a leg does not mark is there what a read of the volume returns (invariant 1), and so is the
//! same block of every other leg whose map does not mark it. Before a leg with several addresses is taken, some such
//! blocks are read from it, over the very connection that is to be used, and compared: with another leg that can be
//! read now, else with what the leg itself was seen to hold on an earlier connection. One that differs is another
//! device, or an older copy of this one: it is refused, and the next address is tried.
//!
//! 1. The blocks are chosen: the last ones whose marks were cleared, which an older copy lacks, and some anywhere.
//! 2. They are read at both sides. Clients go on meanwhile: whatever they write is marked *before* it reaches any leg
//!    (invariant 2), and nothing is cleared of a leg that is not taken yet.
//! 3. Those that are still marked at neither side count. So a difference is never a write under way.
//!
//! A leg with one address is not compared: an administrator who starts another server there, says so with `leg reset`.
//! Where nothing can be compared (a leg that misses everything, the first connection of the only leg), the server is
//! taken; that is said in the event of its connection.

use super::legs::{LegIo, Offer};
use super::{Completion, Driver};
use crate::base::{ByteRange, Class, Error, limits};
use crate::control::EventKind;
use crate::volume::core::{Caps, IoId, LegIx};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Of the bytes of a block.
pub(super) type Digest = blake3::Hash;

/// What is known of a leg beside its map.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Blocks whose marks were cleared last: it was seen to have flushed them.
    recent: VecDeque<u64>,
    /// What it held on an earlier connection, of blocks that were not written since.
    held: Vec<(u64, Digest)>,
}

impl Known {
    /// Marks of the leg were cleared: these blocks may have been written.
    pub(super) fn cleared(&mut self, blocks: &Range<u64>) {
        self.held.retain(|(block, _)| !blocks.contains(block));
        if self.recent.back() == Some(&blocks.start) {
            return;
        }
        if self.recent.len() >= limits::VOUCH_BLOCKS {
            self.recent.pop_front();
        }
        self.recent.push_back(blocks.start);
    }

    fn digest(&self, block: u64) -> Option<Digest> {
        self.held.iter().find(|(known, _)| *known == block).map(|(_, digest)| *digest)
    }
}

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Vouching {
    serial: u32,
    caps: Caps,
    offer: Offer,
    /// Until then another leg is waited for; then what was asked is.
    until_ms: u64,
    /// The other leg, and its session; `None` while none was chosen, or where there is none.
    with: Option<(LegIx, u32)>,
    /// Empty before they are chosen.
    blocks: Vec<Look>,
}

/// One block.
#[derive(Clone, Copy, Debug)]
struct Look {
    block: u64,
    here: Seen,
    there: Seen,
}

/// What was seen of a block at one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is being read.
    NotYet,
    /// It could not be read, or nobody knows.
    Nothing,
    /// This.
    Bytes(Digest),
}

impl Seen {
    fn of(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self::Nothing, |bytes| Self::Bytes(blake3::hash(bytes)))
    }
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// So many blocks are equal, and none differs.
    Same(usize),
    /// This block differs.
    Foreign(u64),
    /// None of its blocks could be read.
    Unreadable,
}

/// Step 3; `still` says whether nobody has marked a block meanwhile.
fn judge(looks: &[Look], still: impl Fn(u64) -> bool) -> Verdict {
    let mut same = 0;
    for look in looks.iter().filter(|look| still(look.block)) {
        match (look.here, look.there) {
            (Seen::Bytes(here), Seen::Bytes(there)) if here != there => return Verdict::Foreign(look.block),
            (Seen::Bytes(_), Seen::Bytes(_)) => same += 1,
            _ => {}
        }
    }
    if !looks.is_empty() && looks.iter().all(|look| look.here == Seen::Nothing) {
        return Verdict::Unreadable;
    }
    Verdict::Same(same)
}

/// A number that is as good as any other, from one that is not.
const fn scatter(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
}

impl Driver<'_> {
    /// A leg is connected at one of its addresses: it is taken once it was compared.
    pub(super) fn vouch(&mut self, leg: LegIx, caps: Caps, offer: Offer) {
        let now_ms = self.now_ms();
        self.looks = self.looks.wrapping_add(1);
        let slot = &mut self.legs[leg];
        slot.vouching = Some(Box::new(Vouching {
            serial: self.looks,
            caps,
            offer,
            until_ms: now_ms + limits::VOUCH_WAIT_MS.min(slot.spec.timeout_ms),
            with: None,
            blocks: Vec::new(),
        }));
        self.begin_look(leg, now_ms);
    }

    /// Another leg can be read: those that waited for one go on.
    pub(super) fn look_again(&mut self) {
        let now_ms = self.now_ms();
        for leg in 0..self.legs.len() {
            if self.legs[leg].vouching.as_ref().is_some_and(|vouching| vouching.blocks.is_empty()) {
                self.begin_look(leg, now_ms);
            }
        }
    }

    /// Another leg to compare with, the best first; whether one may come soon.
    fn witness(&self, leg: LegIx) -> (Option<LegIx>, bool) {
        let others = || (0..self.legs.len()).filter(|&ix| ix != leg && !self.legs[ix].gone);
        let readable = |&ix: &LegIx| match &self.legs[ix].io {
            LegIo::Local(local) => self.legs[ix].up && local.device().is_some(),
            LegIo::Remote(remote) => remote.peek().is_some(),
        };
        let rank = |&ix: &LegIx| {
            let local = matches!(self.legs[ix].io, LegIo::Local(_));
            (!self.legs[ix].up, !self.core.holds_all(ix), !local, ix)
        };
        let best = others().filter(readable).min_by_key(rank);
        let soon = others().any(|ix| self.legs[ix].trying && self.legs[ix].reason.is_none());
        (best, soon)
    }

    /// Steps 1 and 2.
    fn begin_look(&mut self, leg: LegIx, now_ms: u64) {
        let (with, soon) = self.witness(leg);
        let size = self.size;
        let shift = self.config.map_block.shift();
        let Some(vouching) = &self.legs[leg].vouching else { return };
        if with.is_none() && soon && now_ms < vouching.until_ms {
            return;
        }
        let serial = vouching.serial;
        let mut blocks = self.choose(leg, with, serial);
        if blocks.is_empty() {
            return self.vouched(leg, 0);
        }
        let len = |block: u64| (1u64 << shift).min(limits::VOUCH_BYTES).min(size - (block << shift));
        let range = |block: u64| ByteRange { offset: block << shift, len: len(block) };
        if with.is_none() {
            let known = &self.legs[leg].known;
            for look in &mut blocks {
                look.there = known.digest(look.block).map_or(Seen::Nothing, Seen::Bytes);
            }
        }
        let ranges: Vec<ByteRange> = blocks.iter().map(|look| range(look.block)).collect();
        let session = with.map(|ix| (ix, self.legs[ix].session));
        let slot = &mut self.legs[leg];
        let Some(vouching) = &mut slot.vouching else { return };
        (vouching.with, vouching.blocks) = (session, blocks);
        vouching.until_ms = now_ms + slot.spec.timeout_ms;
        for ix in std::iter::once(leg).chain(with) {
            match &mut self.legs[ix].io {
                LegIo::Remote(remote) => {
                    let Some(link) = remote.link() else { continue };
                    for (n, range) in ranges.iter().enumerate() {
                        link.read(IoId::outside(serial, leg, n as u16), *range);
                    }
                }
                LegIo::Local(local) => {
                    let Some(device) = local.device().map(Arc::clone) else { continue };
                    let ranges = ranges.clone();
                    self.workers.submit(move || {
                        let read = |range: &ByteRange| {
                            let mut bytes = vec![0; range.len as usize];
                            device.pread_exact(&mut bytes, range.offset).ok().map(|()| blake3::hash(&bytes))
                        };
                        let blocks = ranges.iter().map(read).collect();
                        Completion::Looked { leg, serial, of: ix, blocks }
                    });
                }
            }
        }
    }

    /// Step 1.
    fn choose(&self, leg: LegIx, with: Option<LegIx>, serial: u32) -> Vec<Look> {
        let count = self.config.map_block.count(self.size);
        let known = &self.legs[leg].known;
        let held =
            |block: u64| self.core.holds(leg, block) && with.is_none_or(|with| self.core.holds(with, block));
        let anywhere = (0..limits::VOUCH_BLOCKS as u64).filter_map(|n| {
            let from = scatter(u64::from(serial) << 32 | n) % count.max(1);
            self.core.next_held(leg, from)
        });
        // Without another leg only what was seen before can be compared.
        let seen = known.held.iter().map(|(block, _)| *block).filter(|_| with.is_none());
        let mut blocks: Vec<u64> = Vec::new();
        for block in known.recent.iter().rev().copied().chain(seen).chain(anywhere) {
            if !blocks.contains(&block) && held(block) && blocks.len() < 2 * limits::VOUCH_BLOCKS {
                blocks.push(block);
            }
        }
        let look = |block| Look { block, here: Seen::NotYet, there: Seen::NotYet };
        blocks.into_iter().map(look).collect()
    }

    /// A block was read over the network, or could not be: from leg `from`, to vouch for leg `of`.
    pub(super) fn looked(
        &mut self,
        of: LegIx,
        serial: u32,
        n: u16,
        from: LegIx,
        data: Option<&super::buffers::Slice>,
    ) {
        self.see(of, serial, usize::from(n), from, Seen::of(data.map(super::buffers::Slice::bytes)));
        self.end_look(of);
    }

    /// A worker has read the blocks of a local leg.
    pub(super) fn looked_at(&mut self, of: LegIx, serial: u32, from: LegIx, blocks: &[Option<Digest>]) {
        for (n, digest) in blocks.iter().enumerate() {
            self.see(of, serial, n, from, digest.map_or(Seen::Nothing, Seen::Bytes));
        }
        self.end_look(of);
    }

    fn see(&mut self, of: LegIx, serial: u32, n: usize, from: LegIx, seen: Seen) {
        let vouching = self.legs.get_mut(of).and_then(|slot| slot.vouching.as_mut());
        let Some(vouching) = vouching.filter(|vouching| vouching.serial == serial) else { return };
        if let Some(look) = vouching.blocks.get_mut(n) {
            if from == of {
                look.here = seen;
            } else {
                look.there = seen;
            }
        }
    }

    /// Step 3, once everything was read.
    fn end_look(&mut self, leg: LegIx) {
        let Some(vouching) = self.legs.get(leg).and_then(|slot| slot.vouching.as_ref()) else { return };
        let looks = &vouching.blocks;
        let open = |look: &Look| look.here == Seen::NotYet || look.there == Seen::NotYet;
        if looks.is_empty() || looks.iter().any(open) {
            return;
        }
        let with = vouching.with.map(|(with, _)| with);
        let still =
            |block: u64| self.core.holds(leg, block) && with.is_none_or(|with| self.core.holds(with, block));
        let refuse = |text: String| Error::new(Class::Refused, text);
        let error = match judge(looks, still) {
            Verdict::Same(compared) => return self.vouched(leg, compared),
            Verdict::Unreadable => {
                refuse("refused: none of the blocks that it should hold can be read".into())
            }
            Verdict::Foreign(block) => {
                let whose = match with.and_then(|with| self.legs.get(with)) {
                    Some(other) => format!("those of leg {}", other.spec.name),
                    None => "what the leg held before".to_owned(),
                };
                refuse(format!(
                    "refused: its bytes at {} differ from {whose}, though nothing was written there since: another \
                     device, or an older copy",
                    block << self.config.map_block.shift()
                ))
            }
        };
        self.no_way(leg, &error);
    }

    /// It is what it should be, as far as anybody can tell.
    fn vouched(&mut self, leg: LegIx, compared: usize) {
        let slot = &mut self.legs[leg];
        let Some(vouching) = slot.vouching.take() else { return };
        let seen = vouching.blocks.iter().filter_map(|look| match look.here {
            Seen::Bytes(digest) if self.core.holds(leg, look.block) => Some((look.block, digest)),
            _ => None,
        });
        slot.known.held = seen.collect();
        let LegIo::Remote(remote) = &slot.io else { return };
        let way = remote.ways().get(remote.present_way()).map_or("", |way| way.text.as_str());
        let text = match compared {
            0 => format!("{way}: taken uncompared: nothing is known that it must hold"),
            n => format!("{way}: taken: {n} blocks are what they should be"),
        };
        let (caps, offer) = (vouching.caps, vouching.offer);
        self.event(EventKind::Address, Some(leg), &text);
        self.up(leg, caps, offer);
    }

    /// Nothing is waited for without an end.
    pub(super) fn sweep_looks(&mut self, now_ms: u64) {
        self.look_again();
        for leg in 0..self.legs.len() {
            let Some(vouching) = &self.legs[leg].vouching else { continue };
            let late = now_ms >= vouching.until_ms;
            let with = vouching.with;
            let lost = with.is_some_and(|(ix, session)| {
                let slot = &self.legs[ix];
                slot.gone || slot.session != session || !(slot.up || slot.vouching.is_some())
            });
            if !late && !lost {
                continue;
            }
            let Some(vouching) = &mut self.legs[leg].vouching else { continue };
            for look in vouching.blocks.iter_mut().filter(|look| look.there == Seen::NotYet) {
                look.there = Seen::Nothing;
            }
            if late && vouching.blocks.iter().any(|look| look.here == Seen::NotYet) {
                let error = Error::new(Class::Timeout, "comparing it: no answer in time");
                self.no_way(leg, &error);
            } else {
                self.end_look(leg);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_that_differs_and_was_not_written_meanwhile_is_enough_to_refuse() {
        let seen = |text: &str| match text {
            "?" => Seen::Nothing,
            text => Seen::of(Some(text.as_bytes())),
        };
        // Here, there, whether it is still unmarked.
        for (looks, verdict) in [
            (&[][..], Verdict::Same(0)),
            (&[("a", "a", true), ("b", "b", true)], Verdict::Same(2)),
            (&[("a", "a", true), ("b", "c", true)], Verdict::Foreign(1)),
            (&[("a", "a", true), ("b", "c", false)], Verdict::Same(1)),
            (&[("?", "a", true), ("b", "b", true), ("c", "?", true)], Verdict::Same(1)),
            (&[("?", "a", true), ("?", "?", true)], Verdict::Unreadable),
            (&[("a", "?", true)], Verdict::Same(0)),
        ] {
            let all: Vec<Look> = looks
                .iter()
                .enumerate()
                .map(|(at, (here, there, _))| Look { block: at as u64, here: seen(here), there: seen(there) })
                .collect();
            assert_eq!(judge(&all, |block| looks[block as usize].2), verdict, "{looks:?}");
        }
    }

    #[test]
    fn what_was_seen_is_believed_until_it_may_have_been_written() {
        let digest = blake3::hash(b"x");
        let mut known = Known { held: vec![(3, digest), (9, digest)], ..Known::default() };
        known.cleared(&(2..5));
        assert_eq!((known.digest(3), known.digest(9)), (None, Some(digest)));
        for block in 10..200 {
            known.cleared(&(block..block + 1));
            known.cleared(&(block..block + 1));
        }
        assert_eq!(known.recent.len(), limits::VOUCH_BLOCKS);
        assert_eq!((known.recent.front(), known.recent.back()), (Some(&176), Some(&199)));
    }
}
