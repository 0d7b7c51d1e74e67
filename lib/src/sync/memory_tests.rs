use super::*;

const BLOCK: u64 = 65536;

fn range(block: u64) -> ByteRange {
    ByteRange { offset: block * BLOCK, len: BLOCK }
}

fn bytes(value: u8) -> Vec<u8> {
    vec![value; BLOCK as usize]
}

/// A run over four blocks that holds `values` of the source, of which `settled` become durable.
fn run(path: &Path, values: [u8; 4], settled: &[u64]) -> Vec<bool> {
    let memory = Memory::open(path, 4 * BLOCK, None).expect("open");
    memory.begin().expect("begin");
    assert!(!path.exists());
    let mut differ = Vec::new();
    for (at, value) in (0..).zip(values) {
        let (digests, marks) = memory.compare(range(at), &bytes(value)).expect("compare");
        memory.learn(range(at), &digests).expect("learn");
        differ.extend(marks);
    }
    memory.settle(&settled.iter().map(|at| range(*at)).collect::<Vec<_>>());
    memory.finish().expect("finish");
    differ
}

#[test]
fn only_what_was_settled_is_remembered() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("m");
    assert_eq!(run(&path, [1, 2, 3, 4], &[0, 1, 2, 3]), [true; 4], "nothing is known");
    assert_eq!(run(&path, [1, 9, 3, 8], &[0, 1, 2]), [false, true, false, true]);
    // Block 3 was written and never known to be durable: neither what it was nor what it should be is believed.
    for value in [4, 8] {
        let memory = Memory::open(&path, 4 * BLOCK, None).expect("open");
        assert_eq!(memory.compare(range(3), &bytes(value)).expect("compare").1, [true]);
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 1, "nothing is left over");
}

#[test]
fn a_run_that_did_not_end_leaves_nothing_to_believe() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("m");
    run(&path, [1; 4], &[0, 1, 2, 3]);
    let memory = Memory::open(&path, 4 * BLOCK, None).expect("open");
    assert!(memory.is_known());
    memory.begin().expect("begin");
    drop(memory);
    assert!(!Memory::open(&path, 4 * BLOCK, None).expect("open").is_known());
    run(&path, [1; 4], &[0, 1, 2, 3]);
    assert!(Memory::open(&path, 4 * BLOCK, None).expect("open").is_known());
}

#[test]
fn a_manifest_of_another_size_or_damaged_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("m");
    run(&path, [1; 4], &[0, 1, 2, 3]);
    assert_eq!(Memory::open(&path, 3 * BLOCK, None).expect_err("size").class, Class::Damaged);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(b"x", 4096 + 40).expect("damage");
    let memory = Memory::open(&path, 4 * BLOCK, None).expect("open");
    assert_eq!(memory.compare(range(0), &bytes(1)).expect_err("damaged").class, Class::Damaged);
}
