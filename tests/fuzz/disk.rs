//! What stands on disk: what is believed was written so, and is written again as the same bytes.

use super::Seen;
use super::mutate::hash;
use mirror::base::{BlockSize, Id};
use mirror::capture::btrfs::Received;
use mirror::capture::btrfs::Replay;
use mirror::device::fields::checksum;
use mirror::fslog::command::Moment;
use mirror::fslog::index::{Entries, Object, Stamp};
use mirror::fslog::patchwork::Source;
use mirror::fslog::sent::{self, Raw, Sent};
use mirror::fslog::{Content, Index, Kind, Meta, ObjectId, Time, Xattrs};
use mirror::generation::Record;
use mirror::generation::format::{SLOT, decode, encode};
use mirror::map::format::HEADER_LEN;
use mirror::map::{Header, Identity};

/// A stream of btrfs send, as it is, and with the checksums of its commands made right.
pub fn stream(input: &[u8]) -> Seen {
    play(input).wrapping_mul(31) ^ play(&sealed_stream(input))
}

/// The same, made ready for a standby.
pub fn received(input: &[u8]) -> Seen {
    follow(input).wrapping_mul(31) ^ follow(&sealed_stream(input))
}

fn sealed_stream(input: &[u8]) -> Vec<u8> {
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
    right
}

/// A standby with a file of three blocks, `f`, and the snapshot that it has.
fn standby() -> (Index, Moment) {
    let mut base = Index { next: 3, ..Index::empty(Id([7; 16])) };
    base.round.number = 1;
    let object = |kind, mode, size| {
        let meta = Meta {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: Time::default(),
            size,
            device: (0, 0),
            flags: 0,
            link: Vec::new(),
            xattrs: Xattrs::new(),
        };
        Object { meta, content: Content::default(), entries: Entries::new(), stamp: Stamp::default() }
    };
    let (mut root, mut file) = (object(Kind::Dir, 0o755, 0), object(Kind::File, 0o644, 300_000));
    (0..3).for_each(|number| file.content.push(number, mirror::fslog::Digest([1; 32])));
    root.entries.insert((*b"f").into(), ObjectId(2));
    base.objects.extend([(ObjectId::ROOT, root), (ObjectId(2), file)]);
    (base, Moment { uuid: Id([5; 16]), ctransid: 6 })
}

/// Follows a stream on top of a standby: whatever it says, a tree results, and pieces that can be read.
fn follow(input: &[u8]) -> Seen {
    let (base, held) = standby();
    let mut count = 0;
    let followed = Received::follow("stream", input, &base, Some(held), || {
        count += 1;
        Ok(())
    });
    let mut received = match followed {
        Err(error) => return kind(&error).wrapping_add(count),
        Ok(None) => return 1,
        Ok(Some(received)) => received,
    };
    let _ = received.data();
    // The contents of its index are those of the base until the pieces are read.
    for object in received.index.objects.values_mut() {
        object.content.update(&[], object.meta.size);
    }
    received.index.check("stream").expect("a tree");
    for (id, file) in &received.files {
        let size = received.index.objects[id].meta.size;
        let mut at = 0;
        for (range, source) in file.clone_within(&(0..u64::MAX)) {
            assert!(at <= range.start && range.start < range.end && range.end <= size);
            at = range.end;
            let len = range.end - range.start;
            match source {
                Source::Stream(from) => assert!(from + len <= input.len() as u64),
                Source::Base(id, from) => assert!(from + len <= base.objects[&id].meta.size),
                Source::Packed(number, from) => {
                    let extent = received.packed[number as usize];
                    assert!(u64::from(from) + len <= u64::from(extent.unpacked));
                    assert!(extent.at + u64::from(extent.len) <= input.len() as u64);
                }
            }
        }
    }
    count
}

pub fn received_seeds() -> Vec<Vec<u8>> {
    let n = |n: u64| n.to_le_bytes();
    let (four, zero, at, len, ctransid, next) = (4u32.to_le_bytes(), n(0), n(4096), n(9), n(6), n(7));
    let (mode, device, kind) = (n(0o060_644), n(0x1234), 2u32.to_le_bytes());
    let begin: Raw<'_> = (2, &[(15, b"s"), (1, &[9; 16]), (2, &next), (20, &[5; 16]), (21, &ctransid)]);
    let clone: Raw<'_> =
        (16, &[(15, b"d/g"), (18, &at), (24, &len), (20, &[5; 16]), (21, &ctransid), (22, b"f"), (23, &at)]);
    let own: Raw<'_> =
        (16, &[(15, b"d/g"), (18, &zero), (24, &len), (20, &[9; 16]), (21, &next), (22, b"f"), (23, &at)]);
    let packed: Raw<'_> = (
        25,
        &[
            (15, b"d/g"),
            (18, &at),
            (27, &len),
            (28, &at),
            (29, &len),
            (30, &kind),
            (31, &[0; 4]),
            (19, b"zz"),
        ],
    );
    let time = [0; 12];
    let some: &[Raw<'_>] = &[
        begin,
        (4, &[(15, b"o257-7-0")]),
        (9, &[(15, b"o257-7-0"), (16, b"d")]),
        (3, &[(15, b"d/g")]),
        (15, &[(15, b"f"), (18, &at), (19, b"some data")]),
        own,
        clone,
        packed,
        (23, &[(15, b"f"), (25, &four[..4]), (18, &at), (4, &len)]),
        (23, &[(15, b"f"), (25, &[3, 0, 0, 0]), (18, &at), (4, &len)]),
        (10, &[(15, b"h"), (17, b"f")]),
        (11, &[(15, b"f")]),
        (17, &[(15, b"h"), (4, &at)]),
        (5, &[(15, b"node"), (5, &mode), (8, &device)]),
        (8, &[(15, b"link"), (17, b"to")]),
        (13, &[(15, b"h"), (13, b"user.x"), (14, b"y")]),
        (14, &[(15, b"h"), (13, b"user.x")]),
        (18, &[(15, b""), (5, &mode)]),
        (19, &[(15, b"h"), (6, &zero), (7, &zero)]),
        (20, &[(15, b"h"), (11, &time), (10, &time), (9, &time)]),
        (24, &[(15, b"h"), (26, &len)]),
        (21, &[]),
    ];
    let without = |number: usize| {
        let mut some = some.to_vec();
        some.remove(number);
        sent::encode(2, &some)
    };
    vec![sent::encode(1, some), without(8), without(7), sent::encode(1, &[begin, (21, &[])])]
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
