//! The bytes of a delta (`mirror-formats(5)`, section DELTA): changed blocks with their data, in one pass.
//!
//! ```text
//!        0                512
//!        ┌────────────────┬──────────────┬─────────┬──────────────┬─ … ─┬──────────────┬────────┐
//!        │ header         │ record  (56) │ payload │ record  (56) │     │ end     (56) │ digest │
//!        └────────────────┴──────────────┴─────────┴──────────────┴─ … ─┴──────────────┴────────┘
//! ```
//!
//! Written and read without seeking. Every record carries the number that it has in the stream and a checksum over
//! the id of the delta, its own fields and the checksum of its payload: what is cut, repeated, out of order or from
//! another delta is noticed at that record. Offsets ascend, so that no record overwrites another.

use crate::base::{BlockSize, ByteRange, Class, Error, Id, Result, limits};
use crate::device::Features;
use crate::device::fields::{
    FEATURES_LEN, check_version, checksum, differs, get_id, get_u32, get_u64, put_id, put_u32, put_u64,
};
use std::io::{ErrorKind, Read};

/// What a delta begins with.
pub const MAGIC: [u8; 8] = *b"MIRRDEL\0";
/// The version this program writes and reads. 1: the first.
pub const VERSION: u32 = 1;
/// Bytes of the header: one sector.
pub const HEADER_LEN: usize = 512;
/// Bytes of a record before its payload.
pub const RECORD_LEN: usize = 56;

const AT_VERSION: usize = 8;
const AT_FLAGS: usize = AT_VERSION + 4;
const AT_FEATURES: usize = AT_FLAGS + 4;
const AT_ID: usize = AT_FEATURES + FEATURES_LEN;
const AT_VOLUME: usize = AT_ID + 16;
const AT_BASE: usize = AT_VOLUME + 16;
const AT_TARGET: usize = AT_BASE + 16;
const AT_SIZE: usize = AT_TARGET + 16;
const AT_BLOCK: usize = AT_SIZE + 8;
const AT_CHECKSUM: usize = HEADER_LEN - 8;
const _: () = assert!(AT_BLOCK == 112 && AT_BLOCK + 8 < AT_CHECKSUM);

const AT_KIND: usize = 0;
const AT_PAYLOAD: usize = AT_KIND + 4;
const AT_NUMBER: usize = AT_PAYLOAD + 4;
const AT_OFFSET: usize = AT_NUMBER + 8;
const AT_LEN: usize = AT_OFFSET + 8;
const AT_DATA_SUM: usize = AT_LEN + 8;
const AT_RESERVED: usize = AT_DATA_SUM + 8;
const AT_RECORD_SUM: usize = AT_RESERVED + 8;
const _: () = assert!(AT_RECORD_SUM + 8 == RECORD_LEN);

/// What a delta is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHeader {
    /// This delta.
    pub id: Id,
    /// The volume; none for a device that was named by hand.
    pub volume: Id,
    /// The generation that it is applied to; none if it holds everything, or nobody keeps account.
    pub base: Id,
    /// The generation that it makes of it; none where nobody keeps account.
    pub target: Id,
    /// Bytes of the device.
    pub size: u64,
    /// Bytes of the blocks that it was made of.
    pub block: BlockSize,
    /// It lacks what had not changed: without a base it does not say since when.
    pub partial: bool,
}

/// Flag: [`DeltaHeader::partial`].
const PARTIAL: u32 = 1;

impl DeltaHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..AT_VERSION].copy_from_slice(&MAGIC);
        put_u32(&mut out, AT_VERSION, VERSION);
        put_u32(&mut out, AT_FLAGS, if self.partial { PARTIAL } else { 0 });
        Features::default().put(&mut out, AT_FEATURES);
        put_id(&mut out, AT_ID, self.id);
        put_id(&mut out, AT_VOLUME, self.volume);
        put_id(&mut out, AT_BASE, self.base);
        put_id(&mut out, AT_TARGET, self.target);
        put_u64(&mut out, AT_SIZE, self.size);
        put_u64(&mut out, AT_BLOCK, self.block.bytes());
        let sum = checksum(&out[..AT_CHECKSUM]);
        put_u64(&mut out, AT_CHECKSUM, sum);
        out
    }

    /// In the order of trust: magic, version, features, geometry, checksum.
    fn decode(object: &str, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if bytes[..AT_VERSION] != MAGIC {
            let found = bytes[..AT_VERSION].escape_ascii();
            return Err(differs(object, "magic", found, MAGIC.escape_ascii()));
        }
        check_version(object, get_u32(bytes, AT_VERSION), VERSION)?;
        Features::get(bytes, AT_FEATURES).check_readable(object, 0)?;
        let (size, block) = (get_u64(bytes, AT_SIZE), get_u64(bytes, AT_BLOCK));
        if size > limits::VOLUME_SIZE {
            return Err(differs(object, "size", size, format!("at most {}", limits::VOLUME_SIZE)));
        }
        let block = BlockSize::new(block)
            .map_err(|_| differs(object, "block size", block, "a power of two from 4096 to 33554432"))?;
        let (found, expected) = (get_u64(bytes, AT_CHECKSUM), checksum(&bytes[..AT_CHECKSUM]));
        if found != expected {
            return Err(differs(object, "checksum", format!("{found:016x}"), format!("{expected:016x}")));
        }
        let id = |at| get_id(bytes, at);
        Ok(Self {
            id: id(AT_ID),
            volume: id(AT_VOLUME),
            base: id(AT_BASE),
            target: id(AT_TARGET),
            size,
            block,
            partial: get_u32(bytes, AT_FLAGS) & PARTIAL != 0,
        })
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Data = 1,
    Zero = 2,
    /// Data, compressed by zstd.
    Packed = 3,
    End = 4,
}

/// One changed range, before it has a number: what is costly was done by whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    range: ByteRange,
    kind: Kind,
    payload: Vec<u8>,
    sum: u64,
}

impl Change {
    /// New bytes, at most [`limits::DELTA_RECORD`]; `pack` compresses them where that helps.
    pub fn data(offset: u64, data: &[u8], pack: bool) -> Self {
        let range = ByteRange { offset, len: data.len() as u64 };
        let packed = if pack { zstd::bulk::compress(data, LEVEL).ok() } else { None };
        let (kind, payload) = match packed.filter(|packed| packed.len() < data.len() / 8 * 7) {
            Some(packed) => (Kind::Packed, packed),
            None => (Kind::Data, data.to_owned()),
        };
        let sum = checksum(&payload);
        Self { range, kind, payload, sum }
    }

    /// A range that reads as zeroes now.
    pub const fn zero(range: ByteRange) -> Self {
        Self { range, kind: Kind::Zero, payload: Vec::new(), sum: 0 }
    }
}

/// The level of zstd: faster than most wires.
const LEVEL: i32 = 1;

/// What a delta holds altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records, without the end.
    pub records: u64,
    /// Bytes that change to data.
    pub data: u64,
    /// Bytes that change to zeroes.
    pub zero: u64,
}

/// Gives records their numbers and checksums: bytes for whoever writes them.
#[derive(Debug)]
pub struct DeltaWriter {
    id: Id,
    totals: Totals,
    /// Over the checksums of all records.
    whole: blake3::Hasher,
}

impl DeltaWriter {
    /// After the header of this delta.
    pub fn new(header: &DeltaHeader) -> Self {
        Self { id: header.id, totals: Totals::default(), whole: blake3::Hasher::new() }
    }

    /// What was written so far.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// The record of a change; its payload, which follows, is the change's.
    pub fn record(&mut self, change: &Change) -> [u8; RECORD_LEN] {
        let Change { range, kind, payload, sum } = change;
        match kind {
            Kind::Zero => self.totals.zero += range.len,
            _ => self.totals.data += range.len,
        }
        let record = seal(self.id, *kind, payload.len() as u32, self.totals.records, *range, *sum);
        self.whole.update(&record);
        self.totals.records += 1;
        record
    }

    /// The end of the stream.
    pub fn end(self) -> Vec<u8> {
        let Totals { records, data, zero } = self.totals;
        let digest = self.whole.finalize();
        let range = ByteRange { offset: data, len: zero };
        let mut end = seal(self.id, Kind::End, 32, records, range, checksum(digest.as_bytes())).to_vec();
        end.extend_from_slice(digest.as_bytes());
        end
    }
}

impl Change {
    /// What follows its record.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Which bytes change.
    pub const fn range(&self) -> ByteRange {
        self.range
    }

    /// Whether they read as zeroes.
    pub fn is_zero(&self) -> bool {
        self.kind == Kind::Zero
    }
}

fn seal(id: Id, kind: Kind, payload: u32, number: u64, range: ByteRange, sum: u64) -> [u8; RECORD_LEN] {
    let mut out = [0; RECORD_LEN];
    put_u32(&mut out, AT_KIND, kind as u32);
    put_u32(&mut out, AT_PAYLOAD, payload);
    put_u64(&mut out, AT_NUMBER, number);
    put_u64(&mut out, AT_OFFSET, range.offset);
    put_u64(&mut out, AT_LEN, range.len);
    put_u64(&mut out, AT_DATA_SUM, sum);
    let sum = record_sum(id, &out);
    put_u64(&mut out, AT_RECORD_SUM, sum);
    out
}

fn record_sum(id: Id, record: &[u8; RECORD_LEN]) -> u64 {
    let mut bytes = [0; 16 + AT_RECORD_SUM];
    bytes[..16].copy_from_slice(&id.0);
    bytes[16..].copy_from_slice(&record[..AT_RECORD_SUM]);
    checksum(&bytes)
}

/// One record that was read and is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which bytes change.
    pub range: ByteRange,
    /// They read as zeroes now; otherwise they are in the caller's buffer.
    pub zero: bool,
}

/// Reads a delta from front to back. Nothing is allocated that a limit does not bound.
pub struct DeltaReader<R> {
    input: R,
    name: String,
    header: DeltaHeader,
    totals: Totals,
    whole: blake3::Hasher,
    /// Where the last record ended.
    at: u64,
    packed: Vec<u8>,
    over: bool,
}

impl<R: Read> DeltaReader<R> {
    /// Reads the header. Class `Damaged` if it is none.
    pub fn new(mut input: R, name: &str) -> Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        fill(&mut input, &mut bytes, name, "its header")?;
        let header = DeltaHeader::decode(name, &bytes)?;
        Ok(Self {
            input,
            name: name.to_owned(),
            header,
            totals: Totals::default(),
            whole: blake3::Hasher::new(),
            at: 0,
            packed: Vec::new(),
            over: false,
        })
    }

    /// What it is of.
    pub const fn header(&self) -> &DeltaHeader {
        &self.header
    }

    /// What was read so far; everything once the end has been seen.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// The next record, its data in `buf`; `None` at the end, which was checked. Class `Damaged` for what is cut,
    /// changed, repeated, out of order, or followed by anything.
    pub fn next(&mut self, buf: &mut Vec<u8>) -> Result<Option<Found>> {
        if self.over {
            return Ok(None);
        }
        let number = self.totals.records;
        let what = format!("record {number}");
        let mut record = [0; RECORD_LEN];
        fill(&mut self.input, &mut record, &self.name, &what)?;
        let (found, expected) = (get_u64(&record, AT_RECORD_SUM), record_sum(self.header.id, &record));
        if found != expected {
            let (found, expected) = (format!("{found:016x}"), format!("{expected:016x}"));
            return Err(differs(&self.name, &format!("checksum of {what}"), found, expected));
        }
        let is = get_u64(&record, AT_NUMBER);
        if is != number {
            return Err(differs(&self.name, "numbers of records", is, number));
        }
        let payload = get_u32(&record, AT_PAYLOAD);
        let (offset, len) = (get_u64(&record, AT_OFFSET), get_u64(&record, AT_LEN));
        let sum = get_u64(&record, AT_DATA_SUM);
        let kind = get_u32(&record, AT_KIND);
        if kind == Kind::End as u32 {
            self.end(payload, offset, len, sum)?;
            return Ok(None);
        }
        let range = self.place(&what, offset, len)?;
        let zero = kind == Kind::Zero as u32;
        match kind {
            _ if zero && payload == 0 => buf.clear(),
            _ if kind == Kind::Data as u32 && u64::from(payload) == len => {
                self.payload(payload, sum, &what)?;
                buf.clear();
                buf.extend_from_slice(&self.packed);
            }
            _ if kind == Kind::Packed as u32 => {
                self.payload(payload, sum, &what)?;
                buf.resize(len as usize, 0);
                let got = zstd::bulk::decompress_to_buffer(&self.packed, buf.as_mut_slice());
                if got.as_ref().ok() != Some(&buf.len()) {
                    return Err(self.damaged(&what, "it does not unpack to its length"));
                }
            }
            _ => return Err(self.damaged(&what, &format!("kind {kind} with {payload} bytes for {len}"))),
        }
        if zero {
            self.totals.zero += len;
        } else {
            self.totals.data += len;
        }
        self.whole.update(&record);
        self.totals.records += 1;
        self.at = range.end();
        Ok(Some(Found { range, zero }))
    }

    /// Where a record lies, if it may.
    fn place(&self, what: &str, offset: u64, len: u64) -> Result<ByteRange> {
        let range = ByteRange::new(offset, len).filter(|range| range.end() <= self.header.size && len > 0);
        match range {
            Some(range) if range.offset >= self.at => Ok(range),
            Some(_) => {
                Err(self.damaged(what, &format!("{offset}+{len} lies before the end of the last one")))
            }
            None => {
                let size = self.header.size;
                Err(self.damaged(what, &format!("{offset}+{len} is not in a device of {size} bytes")))
            }
        }
    }

    fn payload(&mut self, len: u32, sum: u64, what: &str) -> Result<()> {
        if len as usize > limits::DELTA_RECORD {
            return Err(self.damaged(what, &format!("{len} bytes, at most {}", limits::DELTA_RECORD)));
        }
        self.packed.resize(len as usize, 0);
        fill(&mut self.input, &mut self.packed, &self.name, what)?;
        if checksum(&self.packed) == sum {
            return Ok(());
        }
        Err(self.damaged(what, "its data does not match its checksum"))
    }

    fn end(&mut self, payload: u32, data: u64, zero: u64, sum: u64) -> Result<()> {
        if payload != 32 || (data, zero) != (self.totals.data, self.totals.zero) {
            return Err(self.damaged("the end", "the totals are others"));
        }
        self.payload(payload, sum, "the end")?;
        if self.whole.finalize().as_bytes()[..] != self.packed[..] {
            return Err(self.damaged("the end", "the digest of all records is another"));
        }
        let mut more = [0];
        loop {
            match self.input.read(&mut more) {
                Ok(0) => break,
                Ok(_) => return Err(self.damaged("the end", "something follows it")),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(&self.name, "reading", e)),
            }
        }
        self.over = true;
        Ok(())
    }

    fn damaged(&self, what: &str, why: &str) -> Error {
        Error::new(Class::Damaged, format!("{}: reading {what}: {why}", self.name))
    }
}

/// Fills a buffer; a stream that ends before is damaged.
fn fill(input: &mut impl Read, buf: &mut [u8], name: &str, what: &str) -> Result<()> {
    input.read_exact(buf).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => {
            Error::new(Class::Damaged, format!("{name}: reading {what}: it is cut here"))
        }
        _ => Error::io(name, &format!("reading {what}"), error),
    })
}

/// Reads bytes that anybody may have made to the end: what a fuzzer calls. What is read fits in the device that
/// the header names, and memory stays within the limits.
pub fn check(bytes: &[u8]) -> Result<Totals> {
    let mut reader = DeltaReader::new(bytes, "delta")?;
    let mut buf = Vec::new();
    while let Some(found) = reader.next(&mut buf)? {
        assert!(found.range.end() <= reader.header().size && buf.len() <= limits::DELTA_RECORD);
        assert!(found.zero || buf.len() as u64 == found.range.len);
    }
    Ok(reader.totals())
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
