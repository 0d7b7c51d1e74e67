//! A delta on its way out: changes from many threads, in the order of the work.

use super::ordered::Ordered;
use crate::base::{ByteRange, Error, Result, limits};
use crate::delta::{Change, DeltaHeader, DeltaWriter};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// A delta that is being written.
#[derive(Debug)]
pub struct Outgoing {
    out: Ordered<'static>,
    writer: Mutex<DeltaWriter>,
    pack: bool,
}

impl Outgoing {
    /// Writes the header.
    pub fn new(name: &str, mut out: Box<dyn Write + Send>, header: &DeltaHeader, pack: bool) -> Result<Self> {
        out.write_all(&header.encode()).map_err(|e| super::ordered::failed(name, e))?;
        let writer = Mutex::new(DeltaWriter::new(header));
        Ok(Self { out: Ordered::new(name, out), writer, pack })
    }

    /// The changes that data at `offset` makes; what costs time is done here, by whoever calls.
    pub fn changes(&self, offset: u64, data: &[u8], changes: &mut Vec<Change>) {
        let parts = (offset..).step_by(limits::DELTA_RECORD).zip(data.chunks(limits::DELTA_RECORD));
        changes.extend(parts.map(|(at, part)| Change::data(at, part, self.pack)));
    }

    /// Waits for the turn of `number` and writes its changes, if any. Bytes that were written.
    pub fn put(&self, number: u64, changes: &[Change]) -> Result<u64> {
        let mut written = 0;
        self.out.put_with(number, |out| {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                let record = writer.record(change);
                out.write_all(&record)?;
                out.write_all(change.payload())?;
                written += (record.len() + change.payload().len()) as u64;
            }
            Ok(())
        })?;
        Ok(written)
    }

    /// A piece of work failed: the delta would lack it, so there is none.
    pub fn fail(&self, error: Error) {
        self.out.fail(error);
    }

    /// Why nothing more can be written.
    pub fn gone(&self) -> Option<Error> {
        self.out.gone()
    }

    /// Writes the end; without it a delta is damaged. `next`: the number of the piece of work after the last.
    pub fn finish(self, next: u64) -> Result<()> {
        let writer = self.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let end = writer.end();
        self.out.put(next, &end)?;
        self.out.flush()
    }
}

/// A range that reads as zeroes, as changes.
pub fn zero(range: ByteRange, changes: &mut Vec<Change>) {
    match changes.last_mut() {
        Some(last) if last.is_zero() && last.range().end() == range.offset => {
            let offset = last.range().offset;
            *last = Change::zero(ByteRange { offset, len: range.end() - offset });
        }
        _ => changes.push(Change::zero(range)),
    }
}
