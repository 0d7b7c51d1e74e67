//! Devices as the far end of a copy offers them: opened beneath a root, read and hashed here.

use super::end::{End, Opening, Piece};
use super::ends::FileEnd;
use crate::base::{ByteRange, Class, Error, Result};
use crate::delta::manifest::Digest;
use crate::device::beneath::{Confined, Found};
use crate::device::boot_id;
use crate::remote::{DeviceFacts, FarDevice, How};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Bytes read and hashed at a time: they stay in a core's cache.
const PIECE: u64 = 256 << 10;
/// Digests of zeroes that are remembered, one for each length that was asked for.
const ZEROES: usize = 64;
static ZERO: [u8; PIECE as usize] = [0; PIECE as usize];

/// A device of this machine, for somebody else.
#[derive(Debug)]
pub struct Served {
    end: Box<dyn End>,
    found: Found,
    zeroes: Mutex<HashMap<u64, Digest>>,
}

/// Opens a device for a near end. Classes: those of opening a file; `Refused` for a write where only reading is
/// allowed, and for a path that leads out of the root.
pub fn open(confined: &Confined, read_only: bool, path: &[u8], how: How) -> Result<Served> {
    let found = confined.find(path)?;
    if how.write && read_only {
        let text = format!("{}: opening it to write: only reading is allowed here", found.shown.display());
        return Err(Error::new(Class::Refused, text));
    }
    let How { write, mounted, live } = how;
    let opening = Opening { write, mounted, live, connections: 1, depth: 1 };
    let end = FileEnd::open(&found.path(), opening).map_err(|error| found.name(error))?;
    Ok(Served { end: Box::new(end), found, zeroes: Mutex::default() })
}

impl Served {
    fn name<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.found.name(error))
    }

    fn pieces(&self, range: ByteRange) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        self.name(self.end.extents(range, &mut pieces))?;
        Ok(pieces)
    }

    /// The digest of so many zeroes.
    fn zero(&self, len: u64) -> Digest {
        let known = |zeroes: &HashMap<u64, Digest>| zeroes.get(&len).copied();
        if let Some(digest) = known(&self.zeroes.lock().unwrap_or_else(PoisonError::into_inner)) {
            return digest;
        }
        let mut hasher = blake3::Hasher::new();
        feed_zeroes(&mut hasher, len);
        let digest = *hasher.finalize().as_bytes();
        let mut zeroes = self.zeroes.lock().unwrap_or_else(PoisonError::into_inner);
        if zeroes.len() < ZEROES {
            zeroes.insert(len, digest);
        }
        digest
    }

    fn hash(&self, range: ByteRange, zeroes: &[ByteRange], buf: &mut Vec<u8>) -> Result<Digest> {
        if zeroes.iter().any(|zero| zero.contains(&range)) {
            return Ok(self.zero(range.len));
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = range.offset;
        while at < range.end() {
            let hole = zeroes.iter().find(|zero| zero.offset <= at && at < zero.end());
            if let Some(hole) = hole {
                let end = hole.end().min(range.end());
                feed_zeroes(&mut hasher, end - at);
                at = end;
                continue;
            }
            let next = zeroes.iter().map(|zero| zero.offset).find(|offset| *offset > at);
            let end = range.end().min(next.unwrap_or(u64::MAX)).min(at + PIECE);
            buf.resize((end - at) as usize, 0);
            self.name(self.end.read(at, buf))?;
            hasher.update(buf);
            at = end;
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

fn feed_zeroes(hasher: &mut blake3::Hasher, mut len: u64) {
    while len > 0 {
        let here = len.min(PIECE);
        hasher.update(&ZERO[..here as usize]);
        len -= here;
    }
}

impl FarDevice for Served {
    fn facts(&self) -> DeviceFacts {
        let facts = self.end.facts();
        let identity = facts.identity.as_ref().map(|what| format!("{}/{what}", boot_id()));
        DeviceFacts {
            size: facts.size,
            read_only: facts.read_only,
            live: facts.live,
            flushes: facts.flushes,
            zeroes: facts.zeroes,
            tells_zeroes: facts.tells_zeroes,
            align: facts.align as u32,
            identity: identity.unwrap_or_default(),
            in_use: facts.in_use.clone(),
        }
    }

    fn size(&self) -> u64 {
        self.end.facts().size
    }

    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        self.name(self.end.read(offset, buf))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.name(self.end.write(offset, data))
    }

    fn zero(&self, range: ByteRange, holes: bool, _: bool) -> Result<()> {
        self.name(self.end.zero(range, holes))
    }

    fn flush(&self) -> Result<()> {
        self.name(self.end.flush())
    }

    fn extents(&self, range: ByteRange, most: usize) -> Result<Vec<(u64, bool)>> {
        let pieces = self.pieces(range)?;
        Ok(pieces.iter().take(most).map(|piece| (piece.range.len, piece.zero)).collect())
    }

    fn digests(&self, range: ByteRange, step: u64) -> Result<Vec<Digest>> {
        let pieces = self.pieces(range)?;
        let zeroes: Vec<_> = pieces.iter().filter(|piece| piece.zero).map(|piece| piece.range).collect();
        let (mut digests, mut buf) = (Vec::new(), Vec::new());
        let (mut at, mut first) = (range.offset, 0);
        while at < range.end() {
            let here = ByteRange { offset: at, len: step.min(range.end() - at) };
            first += zeroes[first..].iter().take_while(|zero| zero.end() <= at).count();
            let many = zeroes[first..].iter().take_while(|zero| zero.offset < here.end()).count();
            digests.push(self.hash(here, &zeroes[first..first + many], &mut buf)?);
            at = here.end();
        }
        Ok(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn digests_are_those_of_the_bytes_wherever_holes_are() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("image");
        let file = std::fs::File::create(&path).expect("create");
        file.set_len(5_000_000).expect("size");
        for (at, byte) in [(0, 1u8), (700_000, 2), (1 << 20, 3), (2_500_001, 4), (4_999_990, 5)] {
            file.write_all_at(&[byte; 10], at).expect("write");
        }
        let how = How { write: false, mounted: false, live: false };
        let served =
            open(&Confined::nowhere(), true, path.as_os_str().as_encoded_bytes(), how).expect("open");
        let bytes = std::fs::read(&path).expect("read");
        for (offset, len, step) in [
            (0u64, 5_000_000u64, 4096u64),
            (0, 5_000_000, 65536),
            (0, 5_000_000, 1 << 20),
            (0, 5_000_000, 1 << 26),
            (1 << 20, 3 << 20, 1 << 20),
            (5 << 16, 100_000, 1 << 16),
            (12345 * 3, 12345 * 20 + 7, 12345),
        ] {
            let part = &bytes[offset as usize..][..len as usize];
            let expected: Vec<_> = part.chunks(step as usize).map(|p| *blake3::hash(p).as_bytes()).collect();
            assert_eq!(served.digests(ByteRange { offset, len }, step).expect("digests"), expected, "{step}");
        }
        assert_eq!(served.facts().size, 5_000_000);
        let write = How { write: true, ..how };
        let refused = open(&Confined::nowhere(), true, path.as_os_str().as_encoded_bytes(), write);
        assert_eq!(refused.expect_err("read-only").class, Class::Refused);
    }
}
