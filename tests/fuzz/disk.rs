//! What stands on disk: what is believed was written so, and is written again as the same bytes.

use super::Seen;
use super::mutate::hash;
use mirror::base::{BlockSize, Id};
use mirror::capture::replay::Replay;
use mirror::device::fields::checksum;
use mirror::fslog::Index;
use mirror::fslog::sent::{self, Raw, Sent};
use mirror::generation::Record;
use mirror::generation::format::{SLOT, decode, encode};
use mirror::map::format::HEADER_LEN;
use mirror::map::{Header, Identity};

/// A stream of btrfs send, as it is, and with the checksums of its commands made right.
pub fn stream(input: &[u8]) -> Seen {
    let mut right = input.to_vec();
    let mut at = 17;
    while let Some(head) = right.get(at..at + 10) {
        let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let end = at.saturating_add(10).saturating_add(len);
        let Some(command) = right.get_mut(at..end) else { break };
        command[6..10].fill(0);
        let sum = sent::checksum(command);
        command[6..10].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
    play(input).wrapping_mul(31) ^ play(&right)
}

/// Reads a stream and plays it on top of an empty tree.
fn play(input: &[u8]) -> Seen {
    let base = Index::empty(Id([7; 16]));
    let mut replay = Replay::new(&base);
    let mut count = 0;
    let played = Sent::new("stream", input).and_then(|mut sent| {
        replay.play(&mut sent, || {
            count += 1;
            Ok(())
        })
    });
    if let Err(error) = played {
        return kind(&error).wrapping_add(count);
    }
    assert!(replay.renamed().keys().all(|(dir, _)| base.objects.contains_key(dir)));
    let state = replay.into_state();
    assert!(state.files.keys().all(|number| state.identities.contains_key(number)));
    count
}

pub fn stream_seeds() -> Vec<Vec<u8>> {
    let n = |n: u64| n.to_le_bytes();
    let (at, len, mode) = (n(4096), n(9), n(0o060_644));
    let begin: Raw<'_> = (2, &[(15, b"s")]);
    let some: &[Raw<'_>] = &[
        begin,
        (4, &[(15, b"o257-7-0")]),
        (9, &[(15, b"o257-7-0"), (16, b"d")]),
        (3, &[(15, b"d/f")]),
        (22, &[(15, b"d/f"), (18, &at), (4, &len)]),
        (10, &[(15, b"g"), (17, b"d/f")]),
        (15, &[(15, b"g"), (18, &at), (19, b"some data")]),
        (17, &[(15, b"g"), (4, &len)]),
        (5, &[(15, b"node"), (5, &mode)]),
        (18, &[(15, b""), (5, &mode)]),
        (11, &[(15, b"d/f")]),
        (21, &[]),
    ];
    vec![sent::encode(1, some), sent::encode(2, some), sent::encode(1, &[begin, (21, &[])])]
}

fn kind(error: &mirror::base::Error) -> Seen {
    let text: String = error.message.chars().filter(|c| !c.is_ascii_hexdigit()).take(80).collect();
    hash(text.as_bytes())
}

/// Some bytes of a slot; the rest is zeroes.
fn padded<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let len = input.len().min(N);
    bytes[..len].copy_from_slice(&input[..len]);
    bytes
}

/// With the checksum made right, which stands in the last eight bytes: what a bug of ours could have written.
fn sealed<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let sum = checksum(&bytes[..N - 8]);
    bytes[N - 8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

pub fn record(input: &[u8]) -> Seen {
    let slot = padded::<SLOT>(input);
    let seen = |slot| match decode("record", slot) {
        Err(error) => kind(&error),
        Ok(record) => {
            let again = encode(&record).unwrap_or_else(|e| panic!("{e}: {record:?}"));
            assert_eq!(decode("again", &again).expect("ours"), record);
            record.peers.len() as u64
        }
    };
    seen(&slot).wrapping_mul(31) ^ seen(&sealed(slot))
}

pub fn records() -> Vec<Vec<u8>> {
    let id = |n: u8| Id([n; 16]);
    let block = BlockSize::DEFAULT;
    let fresh = Record::new(id(1), id(2), "far".parse().expect("name"), 1 << 30, block);
    vec![encode(&fresh).expect("record").to_vec()]
}

pub fn map_header(input: &[u8]) -> Seen {
    let bytes = padded::<HEADER_LEN>(input);
    let seen = |bytes| match Header::decode("map", bytes) {
        Err(error) => kind(&error),
        Ok(header) => {
            let again = header.encode();
            assert_eq!(Header::decode("again", &again).expect("ours"), header);
            let identity = &header.identity;
            assert!(identity.file_len() >= HEADER_LEN as u64 + identity.bits_len());
            identity.block.bytes()
        }
    };
    seen(&bytes).wrapping_mul(31) ^ seen(&sealed(bytes))
}

pub fn map_headers() -> Vec<Vec<u8>> {
    let id = |n: u8| Id([n; 16]);
    let identity = Identity { volume: id(1), leg: id(2), size: 1 << 30, block: BlockSize::DEFAULT };
    vec![Header::new(identity, id(3)).encode().to_vec()]
}
