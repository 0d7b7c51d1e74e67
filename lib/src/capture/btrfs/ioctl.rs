//! The calls of btrfs that snapshots need (`btrfs-ioctl(2)`). Unsafe code, because rustix has none of them.
#![allow(unsafe_code)]

use crate::base::Id;
use crate::device::fields::{get_id, get_u64, put_u64};
use rustix::io::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BTRFS_IOC_SNAP_CREATE_V2`, that is `_IOW(0x94, 23, 4096 bytes)`.
const SNAP_CREATE_V2: libc::Ioctl = 0x5000_9417;
/// `BTRFS_IOC_SNAP_DESTROY`, that is `_IOW(0x94, 15, 4096 bytes)`.
const SNAP_DESTROY: libc::Ioctl = 0x5000_940f;
/// `BTRFS_IOC_SEND`, that is `_IOW(0x94, 38, 72 bytes)`.
const SEND: libc::Ioctl = 0x4048_9426;
/// `BTRFS_IOC_GET_SUBVOL_INFO`, that is `_IOR(0x94, 60, 504 bytes)`.
const SUBVOL_INFO: libc::Ioctl = 0x81f8_943cu32 as libc::Ioctl;
/// `BTRFS_IOC_GET_SUBVOL_ROOTREF`, that is `_IOWR(0x94, 61, 4096 bytes)`.
const SUBVOL_ROOTREF: libc::Ioctl = 0xd000_943du32 as libc::Ioctl;
/// `BTRFS_SEND_FLAG_NO_FILE_DATA`
const NO_FILE_DATA: u64 = 1;
/// `BTRFS_SUBVOL_RDONLY`
const READ_ONLY: u64 = 2;
/// `BTRFS_ROOT_SUBVOL_RDONLY`, as [`info`] gives it.
const READ_ONLY_FLAG: u64 = 1;
/// The inode number of the root of every subvolume.
pub const SUBVOLUME_INODE: u64 = 256;

/// The calls that make and remove take 4096 bytes: `struct btrfs_ioctl_vol_args_v2` has the descriptor at 0, flags at 16 and the name
/// at 56, `struct btrfs_ioctl_vol_args` the descriptor at 0 and the name at 8.
#[repr(C, align(8))]
struct Arguments([u8; 4096]);

fn call(dir: BorrowedFd<'_>, number: libc::Ioctl, arguments: &Arguments) -> Result<()> {
    // SAFETY: both numbers carry the size 4096 and only read that many bytes, which `arguments` has; it lives for
    // the whole call, and so does the descriptor.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), number, std::ptr::from_ref(arguments)) };
    check(done)
}

fn check(done: libc::c_int) -> Result<()> {
    if done < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

fn put_name(arguments: &mut Arguments, at: usize, name: &[u8]) -> Result<()> {
    // Its final zero is there already.
    let place = arguments.0.get_mut(at..at + name.len()).filter(|_| name.len() <= 255);
    place.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
    Ok(())
}

/// Makes a read-only snapshot of the subvolume that `source` is the root of, as `name` in `dir`.
pub fn snapshot(source: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut arguments = Arguments([0; 4096]);
    put_u64(&mut arguments.0, 0, i64::from(source.as_raw_fd()).cast_unsigned());
    put_u64(&mut arguments.0, 16, READ_ONLY);
    put_name(&mut arguments, 56, name)?;
    call(dir, SNAP_CREATE_V2, &arguments)
}

/// Removes a subvolume.
pub fn destroy(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut arguments = Arguments([0; 4096]);
    put_name(&mut arguments, 8, name)?;
    call(dir, SNAP_DESTROY, &arguments)
}

/// Which subvolume one is, and which state of it: nothing of it changed as long as this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number in the file system, which may be used again.
    pub number: u64,
    /// Its UUID.
    pub uuid: Id,
    /// The transaction that changed it last.
    pub changed: u64,
    /// Whether it can be changed.
    pub read_only: bool,
}

/// `struct btrfs_ioctl_get_subvol_info_args`: number at 0, flags at 288, UUID at 296, last change at 344.
#[repr(C, align(8))]
struct Info([u8; 504]);

/// Says which subvolume a directory is of.
pub fn info(dir: BorrowedFd<'_>) -> Result<Subvolume> {
    let mut info = Info([0; 504]);
    // SAFETY: the number carries the size 504, and the kernel writes that many bytes, which `info` has and which may
    // have any value; it lives for the whole call, and so does the descriptor.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), SUBVOL_INFO, &raw mut info) };
    check(done)?;
    let bytes = &info.0;
    Ok(Subvolume {
        number: get_u64(bytes, 0),
        uuid: get_id(bytes, 296),
        changed: get_u64(bytes, 344),
        read_only: get_u64(bytes, 288) & READ_ONLY_FLAG != 0,
    })
}

/// Whether there are subvolumes beneath the subvolume that a directory is of.
pub fn has_subvolumes(dir: BorrowedFd<'_>) -> Result<bool> {
    // `struct btrfs_ioctl_get_subvol_rootref_args`: how many were found stands at 4088.
    let mut found = Arguments([0; 4096]);
    // SAFETY: the number carries the size 4096; the kernel reads and writes that many bytes, which `found` has and
    // which may have any value; it lives for the whole call, and so does the descriptor.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), SUBVOL_ROOTREF, &raw mut found) };
    match check(done) {
        // More than fit.
        Err(Errno::OVERFLOW) => Ok(true),
        Err(e) => Err(e),
        Ok(()) => Ok(found.0[4088] > 0),
    }
}

/// Writes what differs between two read-only snapshots into a pipe, without data, until all of it is written or
/// nobody reads any more (`EPIPE`). Needs root.
pub fn send(snapshot: BorrowedFd<'_>, parent: u64, to: BorrowedFd<'_>) -> Result<()> {
    // `struct btrfs_ioctl_send_args`: descriptor at 0, number and address of sources for clones at 8 and 16, number
    // of the parent at 24, flags at 32, version at 40.
    let mut arguments = [0u64; 9];
    arguments[0] = i64::from(to.as_raw_fd()).cast_unsigned();
    (arguments[3], arguments[4]) = (parent, NO_FILE_DATA);
    // SAFETY: the number carries the size 72, which `arguments` has, and only reads it; there are no sources for
    // clones, so that no address is followed; all of it lives for the whole call.
    let done = unsafe { libc::ioctl(snapshot.as_raw_fd(), SEND, &raw const arguments) };
    check(done)
}
