//! One object on a standby: made with its content, written to, removed.

use super::plan::Piece;
use crate::base::limits;
use crate::capture::tree::inspect::c_name;
use crate::capture::tree::root::open_beneath;
use crate::capture::tree::walk::entries;
use crate::fslog::{Kind, Meta};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

/// Makes a new object, with its content.
pub(super) fn make(
    dir: BorrowedFd<'_>,
    name: &[u8],
    meta: &Meta,
    pieces: &[Piece],
    spool: &File,
) -> io::Result<()> {
    let own = Mode::from_raw_mode(0o600);
    let node = |kind| {
        let device = makedev(meta.device.0, meta.device.1);
        rustix::fs::mknodat(dir, name, kind, own, device)
    };
    match meta.kind {
        Kind::File => {
            let file = open_beneath(dir, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, own)?;
            rustix::fs::ftruncate(&file, meta.size)?;
            for piece in pieces.iter().filter(|piece| piece.at.is_some()) {
                write(file.as_fd(), piece, spool)?;
            }
        }
        Kind::Dir => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?,
        Kind::Symlink => rustix::fs::symlinkat(c_name(&meta.link)?, dir, name)?,
        Kind::Fifo => node(FileType::Fifo)?,
        Kind::Socket => node(FileType::Socket)?,
        Kind::Char => node(FileType::CharacterDevice)?,
        Kind::Block => node(FileType::BlockDevice)?,
    }
    Ok(())
}

/// Writes one piece into a file.
pub(super) fn write(file: BorrowedFd<'_>, piece: &Piece, spool: &File) -> io::Result<()> {
    let mut bytes = vec![0; piece.len.min(limits::FSLOG_CHUNK as u64) as usize];
    if let Some(at) = piece.at {
        spool.read_exact_at(&mut bytes, at)?;
        return write_all(file, &bytes, piece.offset);
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, punch, piece.offset, piece.len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    let end = piece.offset + piece.len;
    let mut at = piece.offset;
    while at < end {
        let len = bytes.len().min((end - at) as usize);
        write_all(file, &bytes[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => (bytes, at) = (&bytes[len..], at + len as u64),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?),
        done => Ok(done?),
    }
}

pub(super) fn empty(dir: BorrowedFd<'_>) -> io::Result<()> {
    entries(dir)?.iter().try_for_each(|name| remove(dir, name))
}
