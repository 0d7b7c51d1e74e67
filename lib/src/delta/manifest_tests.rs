use super::*;
use proptest::prelude::*;

fn header(blocks: u64) -> ManifestHeader {
    ManifestHeader { volume: Id([1; 16]), block: BlockSize::DEFAULT, size: blocks * 65536 - 100 }
}

fn make(path: &Path, digests: &[Digest]) -> Digest {
    let mut tree =
        TreeWriter::new(header(digests.len() as u64), Output::file(path, true).expect("new")).expect("begin");
    digests.iter().try_for_each(|digest| tree.push(digest)).expect("push");
    tree.finish().expect("finish")
}

fn digests(seeds: &[u8]) -> Vec<Digest> {
    seeds.iter().map(|seed| *blake3::hash(&[*seed]).as_bytes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn two_manifests_differ_where_their_blocks_do(
        a in prop::collection::vec(0u8..3, 1..600), changes in prop::collection::vec((0usize..600, 3u8..6), 0..5),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let mut b = a.clone();
        for (at, to) in changes {
            if let Some(place) = b.get_mut(at) {
                *place = to;
            }
        }
        let (a, b) = (digests(&a), digests(&b));
        let roots = [make(&dir.path().join("a"), &a), make(&dir.path().join("b"), &b)];
        prop_assert_eq!(roots[0] == roots[1], a == b);
        let open = |name| Manifest::open(&dir.path().join(name)).expect("open");
        prop_assert_eq!(open("a").root().expect("root"), roots[0]);
        let mut found = Vec::new();
        open("a").each_difference(&open("b"), &mut |at| { found.push(at); Ok(()) }).expect("compare");
        let model: Vec<_> = (0..a.len()).filter(|at| a[*at] != b[*at]).map(|at| at as u64).collect();
        prop_assert_eq!(found, model);
        let mut all = Vec::new();
        open("b").each(&mut |_, digest| { all.push(*digest); Ok(()) }).expect("each");
        prop_assert_eq!(all, b);
    }
}

#[test]
fn every_flipped_bit_of_a_manifest_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("m");
    make(&path, &digests(&[1; 130]));
    let good = std::fs::read(&path).expect("read");
    assert_eq!(&good[..12], b"MIRRDIG\0\x01\0\0\0");
    assert_eq!((good[40], get_u64(&good, 56), get_u64(&good, 64)), (1, 65536, 130 * 65536 - 100));
    let places = (0..HEADER_LEN * 8).step_by(7).chain((LEAVES_AT as usize * 8..good.len() * 8).step_by(101));
    for bit in places {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).expect("write");
        let read = Manifest::open(&path).and_then(|m| m.each(&mut |_, _| Ok(())));
        assert!(matches!(read.expect_err("noticed").class, Class::Damaged | Class::Refused), "bit {bit}");
    }
    for len in [0, 100, 4096, good.len() - 1] {
        std::fs::write(&path, &good[..len]).expect("write");
        assert_eq!(Manifest::open(&path).expect_err("cut").class, Class::Damaged);
    }
}
