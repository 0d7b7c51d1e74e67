use super::*;
use crate::leg::LegDevice;
use proptest::prelude::*;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A sparse file with some bytes in it.
fn image(path: &Path, size: u64, writes: &[(u64, u8)]) {
    let file = std::fs::File::create(path).expect("image");
    file.set_len(size).expect("size");
    for (at, byte) in writes {
        file.write_all_at(&[*byte; 100][..100.min((size - at % size) as usize)], at % size).expect("write");
    }
}

fn open(path: &Path) -> Device {
    Device::open(&LegDevice::File(path.to_owned())).expect("open")
}

fn manifest(image: &Path, to: &Path, block: BlockSize) -> Manifest {
    let out = Output::file(to, true).expect("new");
    let root = digest(&open(image), block, Id::NONE, out, &mut |_, _| {}).expect("digest");
    let manifest = Manifest::open(to).expect("manifest");
    assert_eq!(manifest.root().expect("root"), root);
    manifest
}

fn writes() -> impl Strategy<Value = Vec<(u64, u8)>> {
    prop::collection::vec((0u64..40 << 20, 0u8..3), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn devices_and_manifests_differ_where_their_bytes_do(
        size in 1u64..40 << 20,
        shared in writes(),
        (more_a, more_b) in (writes(), writes()),
        shift in 12u32..=21,
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let block = BlockSize::new(1 << shift).expect("block");
        let path = |name: &str| dir.path().join(name);
        image(&path("a"), size, &[shared.clone(), more_a].concat());
        image(&path("b"), size, &[shared, more_b].concat());
        let bytes = |name| std::fs::read(path(name)).expect("read");
        let (a, b) = (bytes("a"), bytes("b"));
        let chunks = |bytes: &[u8]| bytes.chunks(1 << shift).map(blake3::hash).collect::<Vec<_>>();
        let model: Vec<_> =
            chunks(&a).iter().zip(chunks(&b)).enumerate().filter(|(_, (a, b))| **a != *b).map(|(at, _)| at as u64).collect();
        let sides = |name: &str| {
            [Side::Device(open(&path(name))), Side::Manifest(manifest(&path(name), &path(&format!("{name}.m")), block))]
        };
        let (left, right) = (sides("a"), sides("b"));
        for a in &left {
            for b in &right {
                let found = diff(a, b, block, &mut |_, _| {}).expect("diff");
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), model.clone());
            }
        }
        let mut leaves = Vec::new();
        manifest(&path("a"), &path("m"), block).each(&mut |_, leaf| { leaves.push(*leaf); Ok(()) }).expect("each");
        prop_assert!(chunks(&a).iter().map(blake3::Hash::as_bytes).eq(&leaves));
    }
}

#[test]
fn a_piece_is_all_zeroes_or_none() {
    let block = BlockSize::new(4096).expect("block");
    let range = |offset, len| ByteRange { offset, len };
    let zeroes = [range(100, 4096), range(8192, 8192), range(20000, 480)];
    let found = pieces(&zeroes, range(0, 20480), block);
    assert_eq!(found, [(range(0, 8192), false), (range(8192, 8192), true), (range(16384, 4096), false)]);
    assert_eq!(both_zero(&zeroes, &[range(0, 9000)]), [range(100, 4096), range(8192, 808)]);
    assert_eq!(zero_digest(5000), *blake3::hash(&[0; 5000]).as_bytes());
}
