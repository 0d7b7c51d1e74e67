//! What stands on disk: what is believed was written so, and is written again as the same bytes.

use super::Seen;
use super::mutate::hash;
use mirror::base::{BlockSize, Id};
use mirror::device::fields::checksum;
use mirror::generation::Record;
use mirror::generation::format::{SLOT, decode, encode};
use mirror::map::format::HEADER_LEN;
use mirror::map::{Header, Identity};

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
