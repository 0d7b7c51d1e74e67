//! The bytes of a record (`mirror-formats(5)`, section RECORD): 4 KiB, two of them in a file.
//!
//! ```text
//!        0        160             248            1016    1048           3864        4088   4096
//!        ┌────────┬───────────────┬──────────────┬───────┬──────────────┬───────────┬──────┐
//!        │ what   │ current,      │ history      │ peer  │ peers        │ reserved  │ sum  │
//!        │ it is  │ terms, counts │ 32 × 24      │ state │ 32 × 88      │           │      │
//!        └────────┴───────────────┴──────────────┴───────┴──────────────┴───────────┴──────┘
//! ```
//!
//! All numbers little-endian. Magic, version, features and geometry lie in the first 512 bytes: even of a torn
//! slot they are the old ones or the new ones.

use super::record::{Ancestor, BASE, Flags, Generation, HISTORY, MapState, PEERS, Peer, Record};
use crate::base::{BlockSize, Class, Error, Id, Name, Result, limits};
use crate::device::Features;
use crate::device::fields::{
    FEATURES_LEN, check_version, checksum, differs, get_id, get_u32, get_u64, put_id, put_u32, put_u64,
};

/// What a record begins with.
pub const MAGIC: [u8; 8] = *b"MIRRREC\0";
/// The version this program writes and reads. 1: the first.
pub const VERSION: u32 = 1;
/// Incompatible features this program knows: none yet.
pub const KNOWN_INCOMPAT: u64 = 0;
/// Read-only compatible features this program knows: none yet.
pub const KNOWN_RO_COMPAT: u64 = 0;
/// Bytes of a record: one slot.
pub const SLOT: usize = 4096;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 8;
const AT_FLAGS: usize = AT_VERSION + 4;
const AT_FEATURES: usize = AT_FLAGS + 4;
const AT_VOLUME: usize = AT_FEATURES + FEATURES_LEN;
const AT_LEG: usize = AT_VOLUME + 16;
const AT_SIZE: usize = AT_LEG + 16;
const AT_BLOCK: usize = AT_SIZE + 8;
const AT_SEQ: usize = AT_BLOCK + 8;
const AT_NAME: usize = AT_SEQ + 8;
const AT_CURRENT: usize = AT_NAME + limits::NAME_LEN;
const AT_CURRENT_TERM: usize = AT_CURRENT + 16;
const AT_MINTED_BY: usize = AT_CURRENT_TERM + 8;
const AT_CLOCK: usize = AT_MINTED_BY + 16;
const AT_SYNC_FROM: usize = AT_CLOCK + 8;
const AT_MAX_TERM: usize = AT_SYNC_FROM + 16;
const AT_LAST_PRIMARY_TERM: usize = AT_MAX_TERM + 8;
const AT_PEER_COUNT: usize = AT_LAST_PRIMARY_TERM + 8;
const AT_HISTORY_COUNT: usize = AT_PEER_COUNT + 4;
const AT_HISTORY: usize = AT_HISTORY_COUNT + 4;
const ANCESTOR_LEN: usize = 16 + 8;
const AT_PEER_STATE: usize = AT_HISTORY + HISTORY * ANCESTOR_LEN;
const AT_PEERS: usize = AT_PEER_STATE + PEERS;
const PEER_LEN: usize = 16 + 8 + BASE * 16;
const AT_RESERVED: usize = AT_PEERS + PEERS * PEER_LEN;
const AT_CHECKSUM: usize = SLOT - 8;
/// Bytes without a meaning yet.
pub(super) const RESERVED: usize = AT_CHECKSUM - AT_RESERVED;
const _: () = assert!(AT_CURRENT == 160 && AT_HISTORY == 248 && AT_PEER_STATE == 1016);
const _: () = assert!(AT_PEERS == 1048 && AT_RESERVED == 3864 && RESERVED == 224);
const _: () = assert!(AT_RESERVED <= AT_CHECKSUM && AT_HISTORY <= 512, "the geometry lies in one sector");

/// In a peer's state byte: its map counts as all dirty. The low bits count its base.
const ALL_DIRTY: u8 = 0x80;

/// The bytes of a record. Class `Internal` if a list is longer than its place.
pub fn encode(record: &Record) -> Result<[u8; SLOT]> {
    let too_long = |what: &str, len: usize, max: usize| {
        let message = format!("leg {}: writing its record: {len} {what}, at most {max} fit", record.name);
        Err(Error::new(Class::Internal, message))
    };
    if record.peers.len() > PEERS {
        return too_long("peers", record.peers.len(), PEERS);
    }
    if record.history.len() > HISTORY {
        return too_long("generations of the past", record.history.len(), HISTORY);
    }
    if let Some(peer) = record.peers.iter().find(|p| p.base.len() > BASE) {
        return too_long("base generations", peer.base.len(), BASE);
    }
    let mut out = [0; SLOT];
    out[AT_MAGIC..AT_VERSION].copy_from_slice(&MAGIC);
    put_u32(&mut out, AT_VERSION, VERSION);
    put_u32(&mut out, AT_FLAGS, record.flags.0);
    record.features.put(&mut out, AT_FEATURES);
    put_id(&mut out, AT_VOLUME, record.volume);
    put_id(&mut out, AT_LEG, record.leg);
    put_u64(&mut out, AT_SIZE, record.size);
    put_u64(&mut out, AT_BLOCK, record.block.bytes());
    put_u64(&mut out, AT_SEQ, record.seq);
    let name = record.name.as_str().as_bytes();
    out[AT_NAME..AT_NAME + name.len()].copy_from_slice(name);
    put_id(&mut out, AT_CURRENT, record.current.id);
    put_u64(&mut out, AT_CURRENT_TERM, record.current.term);
    put_id(&mut out, AT_MINTED_BY, record.current.minted_by);
    put_u64(&mut out, AT_CLOCK, record.current.clock);
    put_id(&mut out, AT_SYNC_FROM, record.sync_from);
    put_u64(&mut out, AT_MAX_TERM, record.max_term);
    put_u64(&mut out, AT_LAST_PRIMARY_TERM, record.last_primary_term);
    put_u32(&mut out, AT_PEER_COUNT, record.peers.len() as u32);
    put_u32(&mut out, AT_HISTORY_COUNT, record.history.len() as u32);
    for (i, ancestor) in record.history.iter().enumerate() {
        put_id(&mut out, AT_HISTORY + i * ANCESTOR_LEN, ancestor.id);
        put_u64(&mut out, AT_HISTORY + i * ANCESTOR_LEN + 16, ancestor.term);
    }
    for (i, peer) in record.peers.iter().enumerate() {
        put_peer(&mut out, i, peer);
    }
    out[AT_RESERVED..AT_CHECKSUM].copy_from_slice(&record.reserved);
    let sum = checksum(&out[..AT_CHECKSUM]);
    put_u64(&mut out, AT_CHECKSUM, sum);
    Ok(out)
}

fn put_peer(out: &mut [u8; SLOT], i: usize, peer: &Peer) {
    let at = AT_PEERS + i * PEER_LEN;
    let dirty = if peer.map_state == MapState::AllDirty { ALL_DIRTY } else { 0 };
    out[AT_PEER_STATE + i] = dirty | peer.base.len() as u8;
    put_id(out, at, peer.leg);
    put_u64(out, at + 16, peer.seq);
    for (j, id) in peer.base.iter().enumerate() {
        put_id(out, at + 24 + j * 16, *id);
    }
}

/// Reads a record in the order of trust: magic, version, features, geometry, checksum, then what the checksum
/// covers. `object` names the slot for messages. Classes: `Refused` for a version or features this program does
/// not know, `Damaged` for everything else, both values named.
pub fn decode(object: &str, bytes: &[u8; SLOT]) -> Result<Record> {
    if bytes[AT_MAGIC..AT_VERSION] != MAGIC {
        return Err(differs(object, "magic", bytes[..AT_VERSION].escape_ascii(), MAGIC.escape_ascii()));
    }
    check_version(object, get_u32(bytes, AT_VERSION), VERSION)?;
    let features = Features::get(bytes, AT_FEATURES);
    features.check_readable(object, KNOWN_INCOMPAT)?;
    let (size, block) = (get_u64(bytes, AT_SIZE), get_u64(bytes, AT_BLOCK));
    if size == 0 || size > limits::VOLUME_SIZE {
        return Err(differs(object, "size", size, format!("1 to {}", limits::VOLUME_SIZE)));
    }
    let block = BlockSize::new(block)
        .map_err(|_| differs(object, "block size", block, "a power of two from 4096 to 33554432"))?;
    let (found, expected) = (get_u64(bytes, AT_CHECKSUM), checksum(&bytes[..AT_CHECKSUM]));
    if found != expected {
        return Err(differs(object, "checksum", format!("{found:016x}"), format!("{expected:016x}")));
    }
    let peers = count(object, "number of peers", get_u32(bytes, AT_PEER_COUNT), PEERS)?;
    let history = count(object, "length of the history", get_u32(bytes, AT_HISTORY_COUNT), HISTORY)?;
    Ok(Record {
        features,
        volume: get_id(bytes, AT_VOLUME),
        leg: get_id(bytes, AT_LEG),
        name: get_name(object, &bytes[AT_NAME..AT_CURRENT])?,
        size,
        block,
        seq: get_u64(bytes, AT_SEQ),
        current: Generation {
            id: get_id(bytes, AT_CURRENT),
            term: get_u64(bytes, AT_CURRENT_TERM),
            minted_by: get_id(bytes, AT_MINTED_BY),
            clock: get_u64(bytes, AT_CLOCK),
        },
        sync_from: get_id(bytes, AT_SYNC_FROM),
        flags: Flags(get_u32(bytes, AT_FLAGS)),
        max_term: get_u64(bytes, AT_MAX_TERM),
        last_primary_term: get_u64(bytes, AT_LAST_PRIMARY_TERM),
        peers: (0..peers).map(|i| get_peer(object, bytes, i)).collect::<Result<_>>()?,
        history: (0..history)
            .map(|i| AT_HISTORY + i * ANCESTOR_LEN)
            .map(|at| Ancestor { id: get_id(bytes, at), term: get_u64(bytes, at + 16) })
            .collect(),
        reserved: bytes[AT_RESERVED..AT_CHECKSUM].to_vec(),
    })
}

fn count(object: &str, what: &str, found: u32, max: usize) -> Result<usize> {
    let found = found as usize;
    if found <= max { Ok(found) } else { Err(differs(object, what, found, format!("at most {max}"))) }
}

fn get_name(object: &str, bytes: &[u8]) -> Result<Name> {
    let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    std::str::from_utf8(&bytes[..len])
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| differs(object, "leg name", bytes[..len].escape_ascii(), "a name"))
}

fn get_peer(object: &str, bytes: &[u8; SLOT], i: usize) -> Result<Peer> {
    let at = AT_PEERS + i * PEER_LEN;
    let state = bytes[AT_PEER_STATE + i];
    let base = count(object, "base of a peer", u32::from(state & !ALL_DIRTY), BASE)?;
    let base: Vec<Id> = (0..base).map(|j| get_id(bytes, at + 24 + j * 16)).collect();
    let map_state = if state & ALL_DIRTY == 0 { MapState::Valid } else { MapState::AllDirty };
    Ok(Peer { leg: get_id(bytes, at), seq: get_u64(bytes, at + 16), base, map_state })
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
