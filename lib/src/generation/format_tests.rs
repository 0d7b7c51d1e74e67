use super::*;

fn id(n: u8) -> Id {
    Id([n; 16])
}

fn largest() -> Record {
    let name = "x".repeat(limits::NAME_LEN).parse().expect("name");
    let mut record = Record::new(id(1), id(2), name, 10 << 30, BlockSize::DEFAULT);
    record.seq = 7;
    record.current = Generation { id: id(3), term: 4, minted_by: id(5), clock: 6 };
    record.sync_from = id(7);
    record.flags = Flags(0x3f);
    record.max_term = 8;
    record.last_primary_term = 9;
    record.history = (0..HISTORY as u8).map(|n| Ancestor { id: id(100 + n), term: n.into() }).collect();
    let peer = |n: u8| Peer {
        leg: id(50 + n),
        seq: 1000 + u64::from(n),
        base: (0..n % 5).map(|k| id(200 + k)).collect(),
        map_state: if n.is_multiple_of(2) { MapState::Valid } else { MapState::AllDirty },
    };
    record.peers = (0..PEERS as u8).map(peer).collect();
    record
}

fn resealed(mut bytes: [u8; SLOT]) -> [u8; SLOT] {
    let sum = checksum(&bytes[..AT_CHECKSUM]);
    put_u64(&mut bytes, AT_CHECKSUM, sum);
    bytes
}

#[test]
fn the_largest_record_reads_back_and_its_offsets_are_those_of_the_man_page() {
    let bytes = encode(&largest()).expect("encode");
    assert_eq!(decode("r", &bytes).expect("decode"), largest());
    assert_eq!(&bytes[..16], b"MIRRREC\0\x01\0\0\0\x3f\0\0\0");
    assert_eq!((bytes[40], bytes[56], get_u64(&bytes, 72), get_u64(&bytes, 80)), (1, 2, 10 << 30, 65536));
    assert_eq!((get_u64(&bytes, 88), bytes[96], bytes[160], get_u64(&bytes, 176)), (7, b'x', 3, 4));
    assert_eq!((bytes[184], get_u64(&bytes, 200), bytes[208]), (5, 6, 7));
    assert_eq!((get_u64(&bytes, 224), get_u64(&bytes, 232)), (8, 9));
    assert_eq!((get_u32(&bytes, 240), get_u32(&bytes, 244), bytes[248], bytes[1016]), (32, 32, 100, 0));
    assert_eq!(
        (bytes[1017], bytes[1048], get_u64(&bytes, 1064), bytes[1048 + 88 + 24]),
        (0x81, 50, 1000, 200)
    );
}

#[test]
fn a_virgin_record_reads_back() {
    let record = Record::new(id(1), id(2), "a".parse().expect("name"), 1, BlockSize::DEFAULT);
    assert!(record.is_virgin() && !record.in_sync());
    assert_eq!(decode("r", &encode(&record).expect("encode")).expect("decode"), record);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = encode(&largest()).expect("encode");
    for bit in 0..SLOT * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode("r", &bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn unknown_features_are_refused_or_kept_and_errors_name_both_values() {
    let good = encode(&largest()).expect("encode");
    let with = |at: usize, value: u64| {
        let mut bytes = good;
        put_u64(&mut bytes, at, value);
        resealed(bytes)
    };
    let kept = with(AT_FEATURES, 0xff);
    let mut kept = kept;
    kept[AT_RESERVED + 3] = 9;
    let kept = resealed(kept);
    let record = decode("r", &kept).expect("compat");
    assert_eq!(encode(&record).expect("encode"), kept);
    assert_eq!(decode("r", &with(AT_FEATURES + 16, 2)).expect_err("incompat").class, Class::Refused);
    for (at, value, found, expected) in [
        (AT_MAGIC, 0, "\\x00", "MIRRREC"),
        (AT_SIZE, u64::MAX, "18446744073709551615", "1152921504606846976"),
        (AT_BLOCK, 3000, "3000", "4096"),
        (AT_PEER_COUNT, 33, "33", "32"),
        (AT_NAME, 0x2f, "/", "a name"),
    ] {
        let error = decode("r", &with(at, value)).expect_err("damaged");
        assert_eq!(error.class, Class::Damaged);
        assert!(error.message.contains(found) && error.message.contains(expected), "{error}");
    }
    let mut record = largest();
    record.peers[0].base = vec![id(1); BASE + 1];
    assert_eq!(encode(&record).expect_err("too long").class, Class::Internal);
}
