//! The two calls of btrfs that snapshots need (`btrfs-ioctl(2)`). Unsafe code, because rustix has neither.
#![allow(unsafe_code)]

use crate::device::fields::put_u64;
use rustix::io::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BTRFS_IOC_SNAP_CREATE_V2`, that is `_IOW(0x94, 23, 4096 bytes)`.
const SNAP_CREATE_V2: libc::Ioctl = 0x5000_9417;
/// `BTRFS_IOC_SNAP_DESTROY`, that is `_IOW(0x94, 15, 4096 bytes)`.
const SNAP_DESTROY: libc::Ioctl = 0x5000_940f;
/// `BTRFS_SUBVOL_RDONLY`
const READ_ONLY: u64 = 2;
/// The inode number of the root of every subvolume.
pub const SUBVOLUME_INODE: u64 = 256;

/// Both calls take 4096 bytes: `struct btrfs_ioctl_vol_args_v2` has the descriptor at 0, flags at 16 and the name
/// at 56, `struct btrfs_ioctl_vol_args` the descriptor at 0 and the name at 8.
#[repr(C, align(8))]
struct Arguments([u8; 4096]);

fn call(dir: BorrowedFd<'_>, number: libc::Ioctl, arguments: &Arguments) -> Result<()> {
    // SAFETY: both numbers carry the size 4096 and only read that many bytes, which `arguments` has; it lives for
    // the whole call, and so does the descriptor.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), number, std::ptr::from_ref(arguments)) };
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
