//! Files of others and of `cfor-log`, told apart by the first byte of an input.

use super::mutate::hash;
use super::{Seen, trees};
use mirror::fslog::frame::{FRAME_HEAD, HEADER_LEN, frame_ends};
use mirror::map::convert::{FORMATS, Given, import, target};
use std::io::Cursor;

/// One of the formats that maps are imported from.
pub fn map_import(input: &[u8]) -> Seen {
    let Some((first, bytes)) = input.split_first() else { return 0 };
    let (_, format) = FORMATS[usize::from(*first) % FORMATS.len()];
    target::target(format, bytes);
    // What it was is looked up once more.
    let given = Given { size: Some(1 << 20), unit: Some(4096), since: Some(1), ..Given::default() };
    let found = match import(format, "input", Box::new(Cursor::new(bytes.to_vec())), &given) {
        Ok(source) => {
            let identity = source.header().identity;
            identity.blocks().min(64) ^ identity.block.bytes()
        }
        Err(error) => {
            let tail = error.message.rsplit(": ").next().unwrap_or_default();
            hash(tail.chars().filter(|c| c.is_alphabetic()).collect::<String>().as_bytes())
        }
    };
    found.wrapping_mul(31) ^ (u64::from(*first) % FORMATS.len() as u64)
}

pub fn map_imports() -> Vec<Vec<u8>> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let seed = |(at, (name, _)): (usize, &(&str, _))| {
        let good = std::fs::read(corpus.join(name).join("good")).unwrap_or_else(|e| panic!("{name}: {e}"));
        [vec![at as u8], good].concat()
    };
    FORMATS.iter().enumerate().map(seed).collect()
}

/// A dump, an index or a log: as it is, and with the checksums of its frames and its digest made right.
pub fn fslog(input: &[u8]) -> Seen {
    let Some((first, bytes)) = input.split_first() else { return 0 };
    let (read, digest): (fn(&[u8]), bool) = match first % 3 {
        0 => (trees::dump_stream, true),
        1 => (trees::index, true),
        _ => (trees::log_file, false),
    };
    read(bytes);
    let (framed, count) = framed(bytes, digest);
    read(&framed);
    let whole = match first % 3 {
        0 => mirror::fslog::listing::list("fuzz", &framed[..]).err(),
        1 => mirror::fslog::Index::read("fuzz", &framed[..]).err(),
        _ => mirror::fslog::logfile::decode("fuzz", &framed).err(),
    };
    let why = whole.map(|error| error.message).unwrap_or_default();
    let why: String = why.chars().filter(|c| !c.is_ascii_hexdigit()).take(80).collect();
    hash(why.as_bytes()).wrapping_mul(31) ^ u64::from(first % 3) ^ (count << 2)
}

/// The same frames, each with its ends made anew, and how many there are.
fn framed(bytes: &[u8], digest: bool) -> (Vec<u8>, u64) {
    let mut out = bytes[..HEADER_LEN.min(bytes.len())].to_vec();
    let (mut at, mut count) = (HEADER_LEN, 0);
    while let Some(head) = bytes.get(at..at + FRAME_HEAD) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let start = at + FRAME_HEAD;
        let Some(payload) = bytes.get(start..start.saturating_add(len)) else { break };
        let (ends, crc) = frame_ends(head[4], &[payload]);
        out.extend([&ends[..], payload, &crc].concat());
        at = start + len + 4;
        count += 1;
        if head[4] == 0xff {
            break;
        }
    }
    if digest {
        let sum = mirror::fslog::content::digest(&out).unwrap_or_default().0;
        out.extend(sum);
    }
    (out, count)
}

pub fn fslogs() -> Vec<Vec<u8>> {
    let of = |first: u8, bytes: Vec<u8>| [vec![first], bytes].concat();
    vec![of(0, trees::a_dump()), of(1, trees::an_index()), of(2, trees::a_log())]
}
