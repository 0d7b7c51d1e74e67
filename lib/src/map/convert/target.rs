//! A stable target for whoever throws bytes at the importers: a fuzzer, or the tests that replay what one found.

use super::{Format, Given, export, import};
use crate::base::{BlockSize, Class};
use crate::device::Output;
use crate::map::stream::{Source, load};
use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::rc::Rc;

/// Maps up to so many blocks are looked at bit by bit; larger ones only at their beginning.
const BLOCKS: u64 = 1 << 20;

/// Reads bytes as a format. Whatever they are, they are a map, whose bits lie inside it and which reads back the
/// same when it is written, or an error of one line that is the input's fault. Anything else panics.
pub fn target(format: Format, bytes: &[u8]) {
    for size in [None, Some(1 << 20)] {
        let given = Given { size, unit: Some(4096), since: Some(1), ..Given::default() };
        let mut source = match import(format, "input", Box::new(Cursor::new(bytes.to_vec())), &given) {
            Ok(source) => source,
            Err(error) => {
                let fault = matches!(error.class, Class::Usage | Class::Damaged | Class::Refused);
                assert!(fault && !error.message.chars().any(char::is_control), "{error:?}");
                continue;
            }
        };
        let identity = source.header().identity;
        if identity.blocks() > BLOCKS {
            let mut words = [0; 64];
            // It may still end early, as a map that was cut.
            let _ = source.fill(&mut words);
            continue;
        }
        // A map file that was cut is noticed when its end is read.
        let Ok(set) = load(&mut source) else { continue };
        assert!(set.blocks() == identity.blocks() && set.count() <= identity.blocks());
        again(format, &set, identity.size, identity.block);
    }
}

/// What was read is written and read once more.
fn again(format: Format, set: &crate::map::BlockSet, size: u64, block: BlockSize) {
    let identity =
        crate::map::Identity { volume: crate::base::Id::NONE, leg: crate::base::Id::NONE, size, block };
    let header = crate::map::Header::new(identity, crate::base::Id::NONE);
    let mut source = crate::map::SetSource::new(header, set.words().to_vec());
    let unit = Some(block.bytes());
    let given = Given { size: Some(size), block: Some(block), unit, ..Given::default() };
    let shared = Shared::default();
    let mut out = Output::stream("output", Box::new(shared.clone()));
    let written = export(format, &mut source, &given, &mut out).and_then(|()| out.finish());
    written.expect("what was read can be written");
    let bytes = shared.0.take();
    let mut back =
        import(format, "output", Box::new(Cursor::new(bytes)), &given).expect("what was written is read");
    assert!(
        load(&mut back).expect("and read to its end") == *set,
        "{format:?}: it reads back as something else"
    );
}

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
