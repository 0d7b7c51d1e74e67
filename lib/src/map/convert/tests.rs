use super::*;
use crate::map::stream::{each_chunk, load};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::rc::Rc;

/// What was written to it can be seen by others.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn map(size: u64, block: BlockSize, runs: &[(u64, u64)]) -> Boxed {
    let mut ranges = Ranges::default();
    for (offset, len) in runs {
        let offset = offset % size;
        ranges.push(ByteRange { offset, len: (*len).min(size - offset) }).expect("few");
    }
    let identity = Identity { volume: Id([1; 16]), leg: Id::NONE, size, block };
    Box::new(RangeSource::new("m", Header::new(identity, Id([2; 16])), ranges.into_sorted()).expect("inside"))
}

fn written(format: Format, source: &mut dyn Source, given: &Given) -> Vec<u8> {
    let shared = Shared::default();
    let mut out = Output::stream("m", Box::new(shared.clone()));
    export(format, source, given, &mut out).and_then(|()| out.finish()).expect("export");
    shared.0.take()
}

fn read(format: Format, bytes: &[u8], given: &Given) -> Result<Boxed> {
    import(format, "m", Box::new(Cursor::new(bytes.to_vec())), given)
}

fn format() -> impl Strategy<Value = Format> {
    (0..FORMATS.len()).prop_map(|at| FORMATS[at].1)
}

fn dirt() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0u64..1 << 30, 1u64..3 << 20), 0..40)
}

fn block() -> impl Strategy<Value = BlockSize> {
    (12u32..=17).prop_map(|shift| BlockSize::new(1 << shift).expect("block"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_format_reads_back_what_it_wrote(
        format in format(), block in block(), size in 1u64..40 << 20, runs in dirt(),
    ) {
        let given = Given { size: Some(size), block: Some(block), ..Given::default() };
        let bytes = written(format, &mut map(size, block, &runs), &given);
        let mut back = read(format, &bytes, &given).expect("import");
        prop_assert_eq!(back.header().identity.size, size);
        prop_assert_eq!(back.header().identity.block, block);
        prop_assert_eq!(load(&mut back).expect("load"), load(&mut map(size, block, &runs)).expect("load"));
    }

    #[test]
    fn formats_that_say_the_size_need_not_be_told(block in block(), size in 1u64..40 << 20, runs in dirt()) {
        use Format::{Bmap, Ddrescue, Extents, Map, Nbdinfo, QemuBitmap, QemuMap};
        for format in [Map, Extents, Ddrescue, Bmap, Nbdinfo, QemuMap, QemuBitmap] {
            let bytes = written(format, &mut map(size, block, &runs), &Given::default());
            let back = read(format, &bytes, &Given::default()).expect("import");
            prop_assert_eq!(back.header().identity.size, size);
        }
    }

    #[test]
    fn importing_into_other_blocks_only_widens(
        format in format(), fine in block(), coarse in block(), size in 1u64..40 << 20, runs in dirt(),
    ) {
        let given = Given { size: Some(size), unit: Some(fine.bytes()), ..Given::default() };
        let bytes = written(format, &mut map(size, fine, &runs), &given);
        let given = Given { block: Some(coarse), ..given };
        let mut back = read(format, &bytes, &given).expect("import");
        let mut model = rescale(map(size, fine, &runs), coarse).expect("rescale");
        prop_assert_eq!(load(&mut back).expect("load"), load(&mut model).expect("load"));
    }

    #[test]
    fn broken_input_is_one_line_of_the_right_class(
        format in format(),
        runs in dirt(),
        cut in 0usize..6000,
        changes in prop::collection::vec((0usize..6000, any::<u8>()), 0..6),
        noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        size in prop::option::of(1u64..40 << 20),
    ) {
        let block = BlockSize::DEFAULT;
        let given = Given { size, block: Some(block), since: Some(1), ..Given::default() };
        let mut bytes = written(format, &mut map(20 << 20, block, &runs), &given);
        bytes.truncate(cut);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let bytes = noise.unwrap_or(bytes);
        let read_all = |source: Boxed| {
            let mut source = source;
            // A size that was changed into a huge one is not read to its end here.
            if source.header().identity.blocks() > 1 << 20 {
                return Ok(());
            }
            each_chunk(&mut source, &mut |_, _| Ok(()))
        };
        if let Err(error) = read(format, &bytes, &given).and_then(read_all) {
            prop_assert!(
                matches!(error.class, Class::Damaged | Class::Usage | Class::Refused),
                "{:?} {}", error.class, error
            );
            prop_assert!(error.message.starts_with("m: "), "{}", error);
        }
    }
}

#[test]
fn ranges_out_of_order_and_past_the_size_are_told_apart() {
    let given = Given { size: Some(1 << 20), ..Given::default() };
    let list = |text: &str| read(Format::List, text.as_bytes(), &given);
    let mut source = list("# comment\n\n131072 1\n0x0 65537\n").expect("any order");
    assert_eq!(load(&mut source).expect("load").iter().collect::<Vec<_>>(), [0, 1, 2]);
    for (text, why) in [
        ("0 1048577\n", "reaches past it"),
        ("18446744073709551615 1\n", "64 bits"),
        ("18446744073709551616 1\n", "below 2^64"),
        ("0 1 2\n", "line 1: not an offset and a length"),
        ("-1 5\n", "'-1' is not a number"),
        ("0 \u{fffd}\n", "line 1"),
    ] {
        let error = list(text).err().unwrap_or_else(|| panic!("{text}"));
        assert!(error.class == Class::Damaged && error.message.contains(why), "{error}");
    }
    let long = "1".repeat(limits::MAP_LINE + 5);
    assert!(list(&long).err().expect("long").message.contains("longer than"));
    let unsized_list = read(Format::List, b"0 1\n", &Given::default()).err().expect("no size");
    assert_eq!(unsized_list.class, Class::Usage);
}

#[test]
fn foreign_json_is_not_guessed() {
    let given = Given { size: Some(1 << 20), ..Given::default() };
    let nbdinfo = br#"[{"offset":0,"length":1048576,"type":1,"description":"dirty"}]"#;
    let qemu = br#"[{"start":0,"length":1048576,"data":true}]"#;
    let ours = written(Format::Extents, &mut map(1 << 20, BlockSize::DEFAULT, &[(0, 1)]), &given);
    for (format, bytes) in [
        (Format::Nbdinfo, &qemu[..]),
        (Format::QemuMap, nbdinfo),
        (Format::Extents, nbdinfo),
        (Format::Nbdinfo, &ours),
        (Format::Rbd, qemu),
    ] {
        assert_eq!(read(format, bytes, &given).err().expect("refused").class, Class::Damaged);
    }
    let newer = String::from_utf8(ours).expect("text").replace("extents/1", "extents/2");
    let error = read(Format::Extents, newer.as_bytes(), &given).err().expect("newer");
    assert!(error.message.contains("extents/2") && error.message.contains("extents/1"), "{error}");
}

#[test]
fn what_nbdinfo_says_of_an_allocation_is_dirty_unless_it_reads_as_zeroes() {
    let text = br#"[
        { "offset": 0, "length": 65536, "type": 0, "description": "data" },
        { "offset": 65536, "length": 65536, "type": 3, "description": "hole,zero" },
        { "offset": 131072, "length": 65536, "type": 1, "description": "hole" },
        { "offset": 196608, "length": 65536, "type": 2, "description": "zero" },
        { "offset": 262144, "length": 65536, "type": 1 },
        { "offset": 327680, "length": 65536, "type": 0 }]"#;
    let mut source = read(Format::Nbdinfo, text, &Given::default()).expect("read");
    assert_eq!(load(&mut source).expect("load").iter().collect::<Vec<_>>(), [0, 2, 4]);
}

#[test]
fn a_size_that_an_input_says_is_not_overridden() {
    let bytes = written(Format::Bmap, &mut map(1 << 20, BlockSize::DEFAULT, &[]), &Given::default());
    let given = Given { size: Some(2 << 20), ..Given::default() };
    let error = read(Format::Bmap, &bytes, &given).err().expect("two sizes");
    assert!(error.message.contains("1048576") && error.message.contains("2097152"), "{error}");
}
