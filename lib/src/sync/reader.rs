//! Devices that are read from many threads: files, block devices, NBD exports.

use crate::base::{ByteRange, Class, Error, Result, limits};
use crate::device::FileDevice;
use crate::leg::LegDevice;
use crate::nbd::client::{Blocking, ClientOptions};
use crate::nbd::uri::NbdUri;
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
    Nbd(NbdUri),
}

/// One thread's way to a device.
#[derive(Debug)]
pub enum Reader {
    /// A file is shared.
    File(Arc<FileDevice>, PathBuf),
    /// Each thread has a connection of its own; whether it tells zeroes from data.
    Nbd(Box<Blocking>, bool),
}

impl Device {
    /// Opens a device to read it, mounted or not: what is being changed meanwhile is read as it happens to be.
    pub fn open(device: &LegDevice) -> Result<Self> {
        let name = device.to_string();
        Ok(match device {
            LegDevice::File(path) => {
                let file = FileDevice::open_forced(path, false)?;
                Self { name, size: file.size(), how: How::File(Arc::new(file)) }
            }
            LegDevice::Nbd(uri) => {
                let uri: NbdUri = uri.parse()?;
                let client = connect(&uri)?;
                let size = client.info().size;
                // It is opened again by each thread.
                let _ = client.disconnect();
                Self { name, size, how: How::Nbd(uri) }
            }
        })
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
            How::File(file) => Reader::File(Arc::clone(file), PathBuf::from(&self.name)),
            How::Nbd(uri) => {
                let client = connect(uri)?;
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
        })
    }
}

fn connect(uri: &NbdUri) -> Result<Blocking> {
    let options =
        ClientOptions { export: uri.export.clone(), contexts: vec![ALLOCATION.to_owned()], structured: true };
    Blocking::connect(uri, options, Duration::from_millis(limits::LEG_TIMEOUT_MS))
}

impl Reader {
    /// Fills `buf` from `offset`.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file, path) => file
                .pread_exact(buf, offset)
                .map_err(|e| Error::io(path.display(), &format!("reading {offset}+{}", buf.len()), e)),
            Self::Nbd(client, _) => client.read(offset, buf),
        }
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
            Self::File(file, path) => {
                let extents = file.extents(range, EXTENTS);
                let extents = extents.map_err(|e| Error::io(path.display(), "looking for holes", e))?;
                for extent in extents {
                    piece(extent.len, extent.hole);
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
        }
        Ok(zeroes)
    }
}
