//! A device on another machine, behind `mirror-sync --serve`.

use crate::base::{ByteRange, Error, Result};
use crate::delta::manifest::Digest;
use crate::device::boot_id;
use crate::leg::far::{Reach, reach};
use crate::remote::{Client, How, Request};
use crate::sync::end::{End, Facts, Opening, Piece, ZERO_RANGE};
use crate::transport::ssh::Target;
use std::sync::OnceLock;

/// Bytes of one read or write: several of them in flight fill a long link, and none keeps the others waiting.
const REQUEST: u64 = 1 << 20;

/// A device on another machine.
#[derive(Debug)]
pub struct SshEnd {
    client: Client,
    object: u16,
    facts: Facts,
    /// A flush that failed, or whose answer never came, is never believed when it is repeated.
    gone: OnceLock<Error>,
}

impl SshEnd {
    /// Connects and opens it over there.
    pub fn open(target: &Target, how: &Reach, opening: Opening) -> Result<Self> {
        Self::over(reach(target, how)?, &target.path, opening)
    }

    /// Opens a device over a connection that stands.
    pub fn over(client: Client, path: &[u8], opening: Opening) -> Result<Self> {
        let Opening { write, mounted, live, depth, .. } = opening;
        let (object, found) = client.open(path, How { write, mounted, live })?;
        let facts = Facts {
            name: client.name().to_owned(),
            size: found.size,
            identity: identity(&found.identity, &boot_id().to_string()),
            read_only: found.read_only,
            in_use: found.in_use,
            live: found.live,
            flushes: found.flushes,
            zeroes: true,
            tells_zeroes: found.tells_zeroes,
            hashes: true,
            takes_files: false,
            align: found.align.into(),
            request_max: client.payload().min(REQUEST) as usize,
            lanes: depth,
        };
        Ok(Self { client, object, facts, gone: OnceLock::new() })
    }

    fn usable(&self) -> Result<()> {
        self.gone().map_or(Ok(()), Err)
    }
}

/// Its far end says `MACHINE/WHAT`. On this very machine that is what a path here would be called.
fn identity(said: &str, here: &str) -> Option<String> {
    match said.split_once('/') {
        Some((machine, what)) if machine == here && !what.is_empty() => Some(what.to_owned()),
        Some((_, what)) if !what.is_empty() => Some(format!("far:{said}")),
        _ => None,
    }
}

impl End for SshEnd {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, offset: u64, buf: &mut Vec<u8>) -> Result<()> {
        self.usable()?;
        let range = ByteRange { offset, len: buf.len() as u64 };
        match self.client.submit(self.object, Request::Read(range))?.data(buf.len())? {
            Some(data) => *buf = data,
            None => buf.fill(0),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.usable()?;
        self.client.write(self.object, offset, data)
    }

    fn zero(&self, range: ByteRange, punch: bool) -> Result<()> {
        self.usable()?;
        debug_assert!(range.len <= ZERO_RANGE);
        self.client.done(self.object, Request::Zero { range, holes: punch, fast: false })
    }

    fn flush(&self) -> Result<()> {
        self.usable()?;
        self.client.done(self.object, Request::Flush).inspect_err(|error| {
            let _ = self.gone.set(error.clone());
        })
    }

    fn extents(&self, range: ByteRange, pieces: &mut Vec<Piece>) -> Result<()> {
        self.usable()?;
        let first = pieces.len();
        let mut at = range.offset;
        while at < range.end() {
            let rest = ByteRange { offset: at, len: range.end() - at };
            for (len, zero) in self.client.extents(self.object, rest)? {
                match pieces[first..].last_mut() {
                    Some(last) if last.zero == zero => last.range.len += len,
                    _ => pieces.push(Piece { range: ByteRange { offset: at, len }, zero }),
                }
                at += len;
            }
        }
        Ok(())
    }

    fn digests(&self, range: ByteRange, step: u64, digests: &mut Vec<Digest>) -> Result<()> {
        self.usable()?;
        let ticket = self.client.ask_digests(self.object, range, step)?;
        digests.extend(ticket.digests(range.len.div_ceil(step))?);
        Ok(())
    }

    fn gone(&self) -> Option<Error> {
        self.gone.get().cloned().or_else(|| self.client.dead())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.usable()?;
        self.client.done(self.object, Request::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_over_ssh_to_this_machine_is_known_to_be_the_same() {
        assert_eq!(identity("abc/inode:1:2", "abc").as_deref(), Some("inode:1:2"));
        assert_eq!(identity("def/inode:1:2", "abc").as_deref(), Some("far:def/inode:1:2"));
        assert_eq!(
            (identity("", "abc"), identity("abc/", "abc"), identity("abc", "abc")),
            (None, None, None)
        );
    }
}
