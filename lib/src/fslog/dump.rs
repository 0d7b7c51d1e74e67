//! The pieces of a dump: what takes a tree from its base round to the next one, with the data. One pass, no seeking.
//! All are absolute: doing them twice is doing them once.

use super::frame::{END, FrameWriter};
use super::meta::Meta;
use super::pack::{Pack, Unpack};
use super::{Digest, ObjectId};
use crate::base::{Result, limits};
use std::io::Write;
use std::ops::Range;

/// One piece of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The path of an object, for people only.
    Hint {
        /// The object.
        id: ObjectId,
        /// Its path.
        path: &'a [u8],
    },
    /// An object that the base has not.
    New {
        /// The object.
        id: ObjectId,
        /// How it is in the end.
        meta: Box<Meta>,
    },
    /// An object that the base has, and that differs.
    Changed {
        /// The object.
        id: ObjectId,
        /// How it is in the end.
        meta: Box<Meta>,
    },
    /// Whatever the base has from here on is void.
    Limit {
        /// The file.
        id: ObjectId,
        /// First void byte.
        at: u64,
    },
    /// Bytes of a file.
    Data {
        /// The file.
        id: ObjectId,
        /// Where they go.
        offset: u64,
        /// What they are.
        bytes: &'a [u8],
    },
    /// Zeroes, to be stored as a hole.
    Hole {
        /// The file.
        id: ObjectId,
        /// First byte and end.
        range: Range<u64>,
    },
    /// A name that the base has, and that goes.
    Unname {
        /// The directory.
        dir: ObjectId,
        /// The entry.
        name: &'a [u8],
        /// The object that has it in the base.
        id: ObjectId,
    },
    /// A name that comes.
    Name {
        /// The directory.
        dir: ObjectId,
        /// The entry.
        name: &'a [u8],
        /// The object that has it in the end.
        id: ObjectId,
    },
    /// An object of the base that has no name any more.
    Gone {
        /// The object.
        id: ObjectId,
    },
    /// The end.
    End {
        /// The Merkle root of the tree that results.
        root: Digest,
        /// No object has this number or a higher one.
        next: u64,
    },
}

impl<'a> Part<'a> {
    /// Writes it as one frame. [`Part::End`] is for [`finish`].
    pub fn write<W: Write>(&self, to: &mut FrameWriter<W>) -> Result<()> {
        let mut pack = Pack::default();
        let kind = match self {
            Self::Hint { id, path } => (pack.u64(id.0).string(path), 1).1,
            Self::New { id, meta } => {
                meta.pack(pack.u64(id.0));
                2
            }
            Self::Changed { id, meta } => {
                meta.pack(pack.u64(id.0));
                3
            }
            Self::Limit { id, at } => (pack.u64(id.0).u64(*at), 4).1,
            Self::Data { id, offset, bytes } => {
                pack.u64(id.0).u64(*offset);
                return to.frame(5, &[&pack.0, bytes]);
            }
            Self::Hole { id, range } => (pack.u64(id.0).u64(range.start).u64(range.end), 6).1,
            Self::Unname { dir, name, id } => (pack.u64(dir.0).string(name).u64(id.0), 7).1,
            Self::Name { dir, name, id } => (pack.u64(dir.0).string(name).u64(id.0), 8).1,
            Self::Gone { id } => (pack.u64(id.0), 9).1,
            Self::End { root, next } => (pack.raw(&root.0).u64(*next), END).1,
        };
        to.frame(kind, &[&pack.0])
    }

    /// Reads it from a frame.
    pub fn unpack(object: &'a str, kind: u8, payload: &'a [u8]) -> Result<Self> {
        let mut from = Unpack::new(object, payload);
        if kind == END {
            let end = Self::End { root: from.digest()?, next: from.u64()? };
            return from.end().map(|()| end);
        }
        let id = ObjectId(from.u64()?);
        let part = match kind {
            1 => Self::Hint { id, path: from.string(limits::FSLOG_FRAME)? },
            2 => Self::New { id, meta: Box::new(Meta::unpack(&mut from)?) },
            3 => Self::Changed { id, meta: Box::new(Meta::unpack(&mut from)?) },
            4 => Self::Limit { id, at: from.u64()? },
            5 => {
                let offset = from.u64()?;
                let bytes = from.rest();
                if bytes.is_empty() || bytes.len() > limits::FSLOG_CHUNK {
                    return Err(from.damaged(&format!("{} bytes of data", bytes.len())));
                }
                return Ok(Self::Data { id, offset, bytes });
            }
            6 => Self::Hole { id, range: from.range()? },
            7 => Self::Unname { dir: id, name: from.string(limits::FILE_NAME)?, id: ObjectId(from.u64()?) },
            8 => Self::Name { dir: id, name: from.string(limits::FILE_NAME)?, id: ObjectId(from.u64()?) },
            9 => Self::Gone { id },
            _ => return Err(from.damaged(&format!("a part of kind {kind}"))),
        };
        from.end()?;
        Ok(part)
    }
}

/// Writes the end of a dump, and flushes it.
pub fn finish<W: Write>(to: FrameWriter<W>, root: Digest, next: u64) -> Result<W> {
    let mut end = Pack::default();
    end.raw(&root.0).u64(next);
    to.finish(&end.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Class, Id};
    use crate::fslog::frame::{FrameReader, HEADER_LEN, Header, Magic, Round};
    use crate::fslog::meta::tests::file;

    fn stream() -> Vec<u8> {
        let round = Round { number: 3, root: Digest([9; 32]) };
        let header =
            Header { magic: Magic::Dump, options: 0, tree: Id([1; 16]), base: round, round: 4, time: 5 };
        let mut to = FrameWriter::new("x", Vec::new(), &header).expect("header");
        for part in parts() {
            part.write(&mut to).expect("write");
        }
        finish(to, Digest([4; 32]), 10).expect("finish")
    }

    fn parts() -> Vec<Part<'static>> {
        let (id, dir) = (ObjectId(5), ObjectId(1));
        vec![
            Part::Hint { id, path: b"a/b" },
            Part::New { id, meta: Box::new(file(7)) },
            Part::Changed { id, meta: Box::new(file(8)) },
            Part::Limit { id, at: 6 },
            Part::Data { id, offset: 7, bytes: b"data" },
            Part::Hole { id, range: 8..9 },
            Part::Unname { dir, name: b"old", id },
            Part::Name { dir, name: b"new", id },
            Part::Gone { id },
        ]
    }

    fn read(bytes: &[u8]) -> Result<Digest> {
        let mut frames = FrameReader::new("x", Magic::Dump, bytes)?;
        let mut expected = parts().into_iter();
        loop {
            let (kind, payload) = frames.take_frame()?;
            let part = Part::unpack("x", kind, payload)?;
            if matches!(part, Part::End { .. }) {
                return frames.finish();
            }
            assert_eq!(Some(part), expected.next());
        }
    }

    #[test]
    fn a_dump_reads_back_as_it_was_written() {
        read(&stream()).expect("whole");
    }

    #[test]
    fn a_dump_that_is_damaged_truncated_or_reordered_is_refused() {
        let bytes = stream();
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]).expect_err("cut").class, Class::Damaged, "{cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        let mut frames = FrameReader::new("x", Magic::Dump, &bytes[..]).expect("header");
        let mut ends = vec![HEADER_LEN];
        for _ in 0..2 {
            frames.take_frame().expect("frame");
            ends.push(frames.offset() as usize);
        }
        let (first, second) = (&bytes[ends[0]..ends[1]], &bytes[ends[1]..ends[2]]);
        let swapped = [&bytes[..ends[0]], second, first, &bytes[ends[2]..]].concat();
        let mut frames = FrameReader::new("x", Magic::Dump, &swapped[..]).expect("header");
        while frames.take_frame().expect("each frame is whole").0 != END {}
        assert!(frames.finish().expect_err("order").message.contains("digest"));
    }

    #[test]
    fn header_bytes_are_pinned() {
        let bytes = stream();
        assert_eq!(&bytes[..16], b"MIRRDMP\0\x01\0\0\0\0\0\0\0");
        assert_eq!(bytes[40..56], [1; 16]);
        assert_eq!((bytes[56], bytes[64], bytes[96], bytes[104]), (3, 9, 4, 5));
    }
}
