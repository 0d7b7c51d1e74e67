use super::*;

const MIB: u64 = 1 << 20;

fn device(dir: &Path, size: u64) -> FileDevice {
    let path = dir.join("leg");
    File::create(&path).expect("create").set_len(size).expect("size");
    FileDevice::open(&path, true).expect("open")
}

#[test]
fn a_leg_is_never_created_and_only_files_and_block_devices_are_opened() {
    let dir = tempfile::tempdir().expect("dir");
    let missing = dir.path().join("none");
    assert_eq!(FileDevice::open(&missing, true).expect_err("missing").class, Class::Io);
    assert!(!missing.exists());
    for write in [false, true] {
        assert_eq!(FileDevice::open(dir.path(), write).expect_err("directory").class, Class::Usage);
        assert_eq!(FileDevice::open(Path::new("/dev/null"), write).expect_err("null").class, Class::Usage);
    }
}

#[test]
fn one_writer_or_many_readers() {
    let dir = tempfile::tempdir().expect("dir");
    let writer = device(dir.path(), MIB);
    let path = writer.path().to_owned();
    assert_eq!(FileDevice::open(&path, true).expect_err("second").class, Class::Busy);
    assert_eq!(FileDevice::open_forced(&path, true).expect_err("forced").class, Class::Busy);
    drop(writer);
    let _a = FileDevice::open(&path, false).expect("reader");
    let _b = FileDevice::open(&path, false).expect("reader");
    assert_eq!(FileDevice::open(&path, true).expect_err("writer").class, Class::Busy);
}

#[test]
fn reads_and_writes_keep_the_errno_and_the_size() {
    let dir = tempfile::tempdir().expect("dir");
    let device = device(dir.path(), MIB);
    assert_eq!((device.size(), device.is_block()), (MIB, false));
    device.pwrite_all(b"hello", 4096).expect("write");
    device.sync().expect("sync");
    let mut buf = [0; 5];
    device.pread_exact(&mut buf, 4096).expect("read");
    assert_eq!(&buf, b"hello");
    let error = device.pread_exact(&mut buf, MIB - 2).expect_err("past the end");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let path = device.path().to_owned();
    drop(device);
    let reader = FileDevice::open(&path, false).expect("reader");
    let error = reader.pwrite_all(b"x", 0).expect_err("read only");
    assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
}

#[test]
fn zeroing_works_with_and_without_holes_and_where_nothing_is_supported() {
    let dir = tempfile::tempdir().expect("dir");
    let device = device(dir.path(), 4 * MIB);
    let ones = vec![1u8; 4 * MIB as usize];
    for (may_punch, unsupported) in [(true, false), (false, false), (true, true)] {
        device.no_punch.store(unsupported, Ordering::Relaxed);
        device.no_zero_range.store(unsupported, Ordering::Relaxed);
        device.pwrite_all(&ones, 0).expect("fill");
        let range = ByteRange { offset: 100, len: 3 * MIB };
        if unsupported {
            let error = device.zero(range, may_punch, true).expect_err("fast");
            assert_eq!(error.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
        }
        device.zero(range, may_punch, false).expect("zero");
        let mut all = vec![9; 4 * MIB as usize];
        device.pread_exact(&mut all, 0).expect("read");
        for (i, byte) in all.iter().enumerate() {
            let inside = (100..100 + 3 * MIB).contains(&(i as u64));
            assert_eq!(*byte, u8::from(!inside), "byte {i}");
        }
        assert_eq!(device.current_size().expect("size"), 4 * MIB);
    }
}

#[test]
fn extents_cover_the_range_and_their_number_is_bounded() {
    let dir = tempfile::tempdir().expect("dir");
    let device = device(dir.path(), 8 * MIB);
    device.pwrite_all(&vec![1; 65536], 2 * MIB).expect("write");
    device.pwrite_all(&vec![1; 65536], 5 * MIB).expect("write");
    device.sync().expect("sync");
    let whole = ByteRange { offset: 0, len: 8 * MIB };
    let found = device.extents(whole, 100).expect("extents");
    assert_eq!(found.iter().map(|e| e.len).sum::<u64>(), 8 * MIB);
    let mut at = 0;
    for e in &found {
        let mut bytes = vec![0; e.len as usize];
        device.pread_exact(&mut bytes, at).expect("read");
        assert!(!e.hole || bytes.iter().all(|b| *b == 0));
        at += e.len;
    }
    if found.len() > 2 {
        assert_eq!(device.extents(whole, 2).expect("bounded"), found[..2]);
    }
}
