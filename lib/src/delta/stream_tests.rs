use super::*;
use proptest::prelude::*;

fn header() -> DeltaHeader {
    let id = |byte| Id([byte; 16]);
    DeltaHeader {
        id: id(1),
        volume: id(2),
        base: id(3),
        target: id(4),
        size: 1 << 20,
        block: BlockSize::DEFAULT,
        partial: true,
    }
}

fn write(header: &DeltaHeader, changes: &[Change]) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    let mut writer = DeltaWriter::new(header);
    for change in changes {
        bytes.extend_from_slice(&writer.record(change));
        bytes.extend_from_slice(change.payload());
    }
    bytes.extend(writer.end());
    bytes
}

fn small() -> Vec<Change> {
    vec![
        Change::data(0, b"first", false),
        Change::zero(ByteRange { offset: 4096, len: 70_000 }),
        Change::data(80_000, &[7; 5000], true),
        Change::data(90_000, b"last", true),
    ]
}

#[test]
fn a_delta_reads_back_and_its_header_is_pinned() {
    let bytes = write(&header(), &small());
    let mut reader = DeltaReader::new(&bytes[..], "x").expect("header");
    assert_eq!(*reader.header(), header());
    let (mut buf, mut found) = (Vec::new(), Vec::new());
    while let Some(one) = reader.next(&mut buf).expect("record") {
        found.push((one.range.offset, one.range.len, one.zero, buf.clone()));
    }
    let model = [
        (0, 5, false, b"first".to_vec()),
        (4096, 70_000, true, vec![]),
        (80_000, 5000, false, vec![7; 5000]),
        (90_000, 4, false, b"last".to_vec()),
    ];
    assert_eq!(found, model);
    assert_eq!(reader.totals(), Totals { records: 4, data: 5009, zero: 70_000 });
    assert_eq!(&bytes[..16], b"MIRRDEL\0\x01\0\0\0\x01\0\0\0");
    assert_eq!((bytes[40], bytes[56], bytes[72], bytes[88], bytes[106]), (1, 2, 3, 4, 0x10));
    assert!(bytes.len() < 512 + 5 * 56 + 200, "zeroes and repetition take no room: {}", bytes.len());
}

#[test]
fn a_delta_that_is_cut_anywhere_is_damaged() {
    let bytes = write(&header(), &small());
    check(&bytes).expect("whole");
    for cut in 0..bytes.len() {
        let error = check(&bytes[..cut]).expect_err("cut");
        assert!(matches!(error.class, Class::Damaged), "{cut}: {error}");
        assert!(!error.message.contains('\n'));
    }
    assert_eq!(check(&[&bytes[..], b"x"].concat()).expect_err("more").class, Class::Damaged);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = write(&header(), &small());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(check(&bytes).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn records_that_are_missing_repeated_swapped_or_foreign_are_noticed() {
    let changes: Vec<_> = (0..4).map(|at| Change::data(at * 100, &[at as u8; 100], false)).collect();
    let bytes = write(&header(), &changes);
    let record = |at: usize| 512 + at * 156..512 + (at + 1) * 156;
    let pick = |order: &[usize]| {
        let mut made = bytes[..512].to_vec();
        for at in order {
            made.extend_from_slice(&bytes[record(*at)]);
        }
        made.extend_from_slice(&bytes[record(3).end..]);
        made
    };
    check(&pick(&[0, 1, 2, 3])).expect("as it was");
    for order in [&[0, 1, 2][..], &[1, 2, 3], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[0, 0, 2, 3], &[]] {
        assert_eq!(check(&pick(order)).expect_err("order").class, Class::Damaged, "{order:?}");
    }
    let other = write(&DeltaHeader { id: Id([9; 16]), ..header() }, &changes);
    let mut mixed = bytes.clone();
    mixed[record(2)].copy_from_slice(&other[record(2)]);
    assert_eq!(check(&mixed).expect_err("foreign").class, Class::Damaged);
}

#[test]
fn ranges_outside_of_the_device_or_over_each_other_are_refused() {
    for changes in [
        vec![Change::zero(ByteRange { offset: 0, len: (1 << 20) + 1 })],
        vec![Change::zero(ByteRange { offset: 5, len: 0 })],
        vec![Change::data(100, b"abc", false), Change::data(102, b"x", false)],
        vec![Change::zero(ByteRange { offset: u64::MAX - 5, len: 5 })],
    ] {
        assert_eq!(check(&write(&header(), &changes)).expect_err("place").class, Class::Damaged);
    }
    let newer = DeltaHeader { size: limits::VOLUME_SIZE + 1, ..header() };
    assert_eq!(check(&write(&newer, &[])).expect_err("size").class, Class::Damaged);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&tail);
        let _ = check(&[&header().encode()[..], &tail].concat());
    }

    #[test]
    fn what_is_sealed_and_hostile_is_bounded(
        kind in 0u32..6,
        payload in prop_oneof![0u32..100, Just(u32::MAX), Just(limits::DELTA_RECORD as u32 + 1)],
        range in (prop_oneof![0u64..(2 << 20), any::<u64>()], prop_oneof![0u64..5000, any::<u64>()]),
        data in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        // A peer that makes right checksums over wrong numbers.
        let kind = match kind { 1 => Kind::Data, 2 => Kind::Zero, 3 => Kind::Packed, _ => Kind::End };
        let range = ByteRange { offset: range.0, len: range.1 };
        let record = seal(header().id, kind, payload, 0, range, checksum(&data));
        let _ = check(&[&header().encode()[..], &record, &data].concat());
    }
}
