//! What comes from elsewhere as bytes: dumps, indexes, logs, events. Each target is a function over bytes that never
//! panics and never asks for more memory than its limits say; it is given well-formed inputs, changed at random and
//! framed anew, so that what stands behind the checksums is reached.
//!
//! `MIRROR_FUZZ=2000000 cargo test cfor_fuzz` tries so many inputs for each target.

use crate::support::Random;
use mirror::fslog::State;
use mirror::fslog::frame::{FRAME_HEAD, HEADER_LEN, frame_ends};
use trees::{a_dump, a_log, an_index, dump_stream, index, log_file};

#[path = "../fuzz/trees.rs"]
mod trees; // what is read, and what it is given to begin with

/// Reads what fanotify sends.
pub fn events(bytes: &[u8]) {
    for event in mirror::capture::fanotify::parse(bytes).unwrap_or_default() {
        let mut state = State::default();
        for record in mirror::capture::fanotify::records_of(&event, false) {
            state.add(&record);
        }
    }
}

/// An event of a rename, as the kernel lays it out.
fn an_event() -> Vec<u8> {
    let info = |kind: u8, name: &[u8]| {
        let mut body = [vec![9; 8], vec![8, 0, 0, 0, 1, 0, 0, 0], vec![5; 8], name.to_vec()].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        [vec![kind, 0, body.len() as u8 + 4, 0], body].concat()
    };
    let infos = [info(10, b"a\0"), info(12, b"b\0"), info(1, b"")].concat();
    let mut event = vec![24 + infos.len() as u8, 0, 0, 0, 3, 0, 24, 0];
    event.extend(0x1000_0000u64.to_le_bytes());
    event.extend([255, 255, 255, 255, 7, 0, 0, 0]);
    [event, infos].concat()
}

/// Changes some bytes: bits, interesting numbers, pieces that move, the end.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, u64::MAX, 1 << 40];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let number = NUMBERS[random.below(8) as usize].to_le_bytes();
                let len = (1 << random.below(4)).min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&number[..len]);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + 1 + random.below(30) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = (at + 1 + random.below(30) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

/// Changes the payloads of some frames, drops, repeats and swaps others, and makes checksums and digest right again.
fn change_frames(bytes: &[u8], random: &mut Random, digest: bool) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut at = HEADER_LEN;
    while let Some(head) = bytes.get(at..at + FRAME_HEAD) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + len) else { break };
        frames.push((head[4], payload.to_vec()));
        at += FRAME_HEAD + len + 4;
        if head[4] == 0xff {
            break;
        }
    }
    for _ in 0..=random.below(3) {
        if frames.is_empty() {
            break;
        }
        let one = random.below(frames.len() as u64) as usize;
        match random.below(8) {
            0 => drop(frames.remove(one)),
            1 => frames.insert(one, frames[one].clone()),
            2 => {
                let other = random.below(frames.len() as u64) as usize;
                frames.swap(one, other);
            }
            3 => frames[one].0 = random.below(14) as u8,
            _ => change(&mut frames[one].1, random),
        }
    }
    let mut out = bytes[..HEADER_LEN.min(bytes.len())].to_vec();
    for (kind, payload) in &frames {
        let (head, crc) = frame_ends(*kind, &[payload]);
        out.extend([&head[..], payload, &crc].concat());
    }
    if digest {
        let hash = digest_of(&out);
        out.extend(hash);
    }
    out
}

/// The digest at the end of a stream, as the writer makes it: that of a block of a file is of its bytes, too.
fn digest_of(bytes: &[u8]) -> [u8; 32] {
    mirror::fslog::content::digest(bytes).unwrap_or_default().0
}

fn campaign(target: fn(&[u8]), seed: &[u8], framed: bool, digest: bool) {
    let tries = std::env::var("MIRROR_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(6000u64);
    let mut random = Random(tries ^ seed.len() as u64);
    target(seed);
    (0..seed.len()).for_each(|end| target(&seed[..end]));
    let mut pool = vec![seed.to_vec()];
    for _ in 0..tries {
        let base = pool[random.below(pool.len() as u64) as usize].clone();
        let mut bytes = base;
        if framed && random.below(4) != 0 {
            bytes = change_frames(&bytes, &mut random, digest);
        } else {
            change(&mut bytes, &mut random);
        }
        target(&bytes);
        // Changes add up in those that are kept.
        if random.below(20) == 0 && bytes.len() > HEADER_LEN && bytes.len() < 4096 {
            let at = random.below(40) as usize;
            if at < pool.len() { pool[at] = bytes } else { pool.push(bytes) }
        }
        pool[0] = seed.to_vec();
    }
}

#[test]
fn no_dump_makes_its_readers_panic() {
    campaign(dump_stream, &a_dump(), true, true);
}

#[test]
fn no_index_makes_its_readers_panic() {
    campaign(index, &an_index(), true, true);
}

#[test]
fn no_log_makes_its_readers_panic() {
    campaign(log_file, &a_log(), true, false);
}

#[test]
fn no_event_makes_its_reader_panic() {
    campaign(events, &an_event().repeat(9), false, false);
}
