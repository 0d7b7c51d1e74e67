//! Devices that are read from many threads: files, block devices, NBD exports.

use crate::base::{ByteRange, Class, Error, Result, limits};
use crate::delta::manifest::Digest;
use crate::device::{FileDevice, Window};
use crate::leg::LegDevice;
use crate::leg::dial::Dial;
use crate::leg::far::Reach;
use crate::nbd::client::{Blocking, ClientOptions};
use crate::nbd::uri::NbdUri;
use crate::sync::end::{End as _, Opening};
use crate::sync::ends::SshEnd;
use crate::transport::ssh::Target;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The context that tells zeroes from data.
const ALLOCATION: &str = "base:allocation";
/// The flag in it for what reads as zeroes.
const ZERO: u32 = 2;
/// Most pieces of data and zeroes that are looked at in one part of a file.
const EXTENTS: usize = 4096;

/// A device that can be opened by each thread for itself.
#[derive(Clone, Debug)]
pub struct Device {
    name: String,
    size: u64,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    File(Arc<FileDevice>),
    Nbd(NbdUri, Dial),
    Far(Arc<SshEnd>),
}

/// One thread's way to a device.
#[derive(Debug)]
pub enum Reader {
    /// A file is shared. What lies before the last field, from where it was last looked at, is data.
    File(Arc<FileDevice>, PathBuf, u64),
    /// Each thread has a connection of its own; whether it tells zeroes from data.
    Nbd(Box<Blocking>, bool),
    /// All threads share a connection; the far side hashes.
    Far(Arc<SshEnd>),
}

impl Device {
    /// Opens a device to read it, mounted or not: what is being changed meanwhile is read as it happens to be.
    pub fn open(device: &LegDevice) -> Result<Self> {
        Self::open_over(device, &Dial::default())
    }

    /// The same; this is how NBD servers are reached.
    pub fn open_over(device: &LegDevice, dial: &Dial) -> Result<Self> {
        let name = device.to_string();
        Ok(match device {
            LegDevice::File(path) => {
                let file = FileDevice::open_forced(path, false)?;
                Self { name, size: file.size(), how: How::File(Arc::new(file)) }
            }
            LegDevice::Nbd(uri) => {
                let uri: NbdUri = uri.parse()?;
                let client = connect(&uri, dial)?;
                let size = client.info().size;
                // It is opened again by each thread.
                let _ = client.disconnect();
                Self { name, size, how: How::Nbd(uri, dial.clone()) }
            }
        })
    }

    /// Opens a device on another machine, to read it.
    pub fn open_far(target: &Target, how: &Reach) -> Result<Self> {
        // What is being changed is read as it happens to be, as everywhere here.
        let opening = Opening { write: false, mounted: true, live: true, connections: 1, depth: 1 };
        let end = SshEnd::open(target, how, opening)?;
        let (name, size) = (end.facts().name.clone(), end.facts().size);
        Ok(Self { name, size, how: How::Far(Arc::new(end)) })
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// A way to it for one thread.
    pub fn reader(&self) -> Result<Reader> {
        Ok(match &self.how {
            How::File(file) => Reader::File(Arc::clone(file), PathBuf::from(&self.name), 0),
            How::Nbd(uri, dial) => {
                let client = connect(uri, dial)?;
                if client.info().size != self.size {
                    let text = format!(
                        "{uri}: opening it again: {} bytes now, {} before",
                        client.info().size,
                        self.size
                    );
                    return Err(Error::new(Class::Io, text));
                }
                let tells = client.info().contexts.iter().any(|(_, name)| name == ALLOCATION);
                Reader::Nbd(Box::new(client), tells)
            }
            How::Far(end) => Reader::Far(Arc::clone(end)),
        })
    }
}

fn connect(uri: &NbdUri, dial: &Dial) -> Result<Blocking> {
    let options =
        ClientOptions { export: uri.export.clone(), contexts: vec![ALLOCATION.to_owned()], structured: true };
    dial.blocking(uri, options, Duration::from_millis(limits::LEG_TIMEOUT_MS))
}

impl Reader {
    /// Fills `buf` from `offset`.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file, path, _) => file
                .pread_exact(buf, offset)
                .map_err(|e| Error::io(path.display(), &format!("reading {offset}+{}", buf.len()), e)),
            Self::Nbd(client, _) => client.read(offset, buf),
            Self::Far(end) => {
                let most = end.facts().request_max;
                let mut piece = Vec::new();
                for (at, part) in (offset..).step_by(most).zip(buf.chunks_mut(most)) {
                    piece.resize(part.len(), 0);
                    end.read(at, &mut piece)?;
                    part.copy_from_slice(&piece);
                }
                Ok(())
            }
        }
    }

    /// A part that is in memory anyway, to be read where it is.
    pub fn window(&self, part: ByteRange) -> Option<Window> {
        match self {
            Self::File(file, ..) => Window::cached(file, part),
            Self::Nbd(..) | Self::Far(_) => None,
        }
    }

    /// The digest of each `step` bytes, where the other side computes them.
    pub fn digests(&mut self, range: ByteRange, step: u64) -> Result<Option<Vec<Digest>>> {
        let Self::Far(end) = self else { return Ok(None) };
        let mut digests = Vec::new();
        end.digests(range, step, &mut digests)?;
        Ok(Some(digests))
    }

    /// Whether reading it costs more than hashing it over there.
    pub const fn is_far(&self) -> bool {
        matches!(self, Self::Far(_))
    }

    /// The pieces of a range that read as zeroes, in order. Where nobody can tell, there are none.
    pub fn zeroes(&mut self, range: ByteRange) -> Result<Vec<ByteRange>> {
        let mut at = range.offset;
        let mut zeroes = Vec::new();
        let mut piece = |len: u64, zero: bool| {
            if zero {
                zeroes.push(ByteRange { offset: at, len });
            }
            at += len;
            at
        };
        match self {
            // Parts come in order. Some file systems look at every page up to the next hole: they are asked once.
            Self::File(_, _, data_until) if range.end() <= *data_until => {}
            Self::File(file, path, data_until) => {
                let fail = |e| Error::io(path.display(), "looking for holes", e);
                let rest = ByteRange { offset: range.offset, len: file.size().saturating_sub(range.offset) };
                // The first one is looked for beyond this part: all of it may be data.
                let first = file.extents(rest, 1).map_err(fail)?;
                match first.first() {
                    Some(extent) if !extent.hole && extent.len >= range.len => {
                        *data_until = range.offset + extent.len;
                    }
                    _ => {
                        for extent in file.extents(range, EXTENTS).map_err(fail)? {
                            piece(extent.len, extent.hole);
                        }
                    }
                }
            }
            Self::Nbd(client, true) => {
                let mut next = range.offset;
                while next < range.end() {
                    let ask = (range.end() - next).min(1 << 30) as u32;
                    for (len, flags) in client.block_status(ALLOCATION, next, ask)? {
                        next = piece(u64::from(len), flags & ZERO != 0);
                    }
                }
            }
            Self::Nbd(..) => {}
            Self::Far(end) => {
                let mut pieces = Vec::new();
                end.extents(range, &mut pieces)?;
                zeroes.extend(pieces.iter().filter(|piece| piece.zero).map(|piece| piece.range));
            }
        }
        Ok(zeroes)
    }
}
