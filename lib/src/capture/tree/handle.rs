//! The identity of an inode: its file handle (`name_to_handle_at(2)`), that is inode number and generation, so that
//! a number used again is another inode. rustix has no such call. The only unsafe code of this room.
#![allow(unsafe_code)]

use crate::base::limits;
use rustix::fs::Statx;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};

/// `MAX_HANDLE_SZ`.
const HANDLE_MAX: usize = 128;
/// `AT_HANDLE_FID` (Linux 6.5): a handle to compare, not to open; more file systems have it.
const AT_HANDLE_FID: libc::c_int = 0x200;
const _: () = assert!(4 + HANDLE_MAX <= limits::FILE_HANDLE);

#[repr(C)]
struct FileHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; HANDLE_MAX],
}

/// The identity of an entry, which is not followed; an empty name means the directory itself. Where the file
/// system has no handles it is the inode number and the time of birth of `stat`.
pub fn identity(dir: BorrowedFd<'_>, name: &CStr, stat: &Statx) -> std::io::Result<Box<[u8]>> {
    let empty = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    for flags in [empty, empty | AT_HANDLE_FID] {
        match name_to_handle(dir, name, flags) {
            Ok(handle) => return Ok(handle),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EOVERFLOW)) => {
            }
            Err(e) => return Err(e),
        }
    }
    let birth = stat.stx_btime;
    let mut bytes = u32::MAX.to_le_bytes().to_vec();
    bytes.extend_from_slice(&stat.stx_ino.to_le_bytes());
    bytes.extend_from_slice(&birth.tv_sec.to_le_bytes());
    bytes.extend_from_slice(&birth.tv_nsec.to_le_bytes());
    Ok(bytes.into())
}

/// The types of a file handle of btrfs (`FILEID_BTRFS_*`).
const BTRFS: std::ops::RangeInclusive<i32> = 0x4d..=0x4f;

/// In a handle of btrfs the number of the subvolume stands behind that of the inode. It is left out, so that an
/// object is the same in a snapshot; a tree is never more than one subvolume.
pub fn forget_subvolume(identity: &mut [u8]) {
    if let Some((kind, rest)) = identity.split_first_chunk_mut()
        && BTRFS.contains(&i32::from_le_bytes(*kind))
        && let Some(subvolume) = rest.get_mut(8..16)
    {
        subvolume.fill(0);
    }
}

/// The handle of an open file as the kernel gives it, which [`open`] takes.
pub fn raw(file: BorrowedFd<'_>) -> std::io::Result<Box<[u8]>> {
    raw_handle(file, c"", libc::AT_EMPTY_PATH)
}

/// The identity of the file behind a path, which is followed: one of `/proc/PID/map_files`.
pub fn identity_of_path(dir: BorrowedFd<'_>, path: &std::path::Path) -> std::io::Result<Box<[u8]>> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    name_to_handle(dir, &path, libc::AT_SYMLINK_FOLLOW)
}

/// Opens the file that a handle names: four bytes of its type, then its own, as the kernel gave them. Errors: `ESTALE`
/// if there is no such file any more.
pub fn open(tree: BorrowedFd<'_>, raw: &[u8], flags: libc::c_int) -> std::io::Result<OwnedFd> {
    let wrong = || std::io::Error::from_raw_os_error(libc::EINVAL);
    let (kind, bytes) = raw.split_first_chunk().ok_or_else(wrong)?;
    let mut handle = FileHandle {
        bytes: bytes.len() as libc::c_uint,
        kind: i32::from_le_bytes(*kind),
        handle: [0; HANDLE_MAX],
    };
    handle.handle.get_mut(..bytes.len()).ok_or_else(wrong)?.copy_from_slice(bytes);
    // SAFETY: the descriptor lives for the whole call; `handle` is laid out as `struct file_handle`, and the kernel
    // reads as many bytes as it says, which are there.
    let done = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            tree.as_raw_fd(),
            &raw const handle,
            flags | libc::O_CLOEXEC,
        )
    };
    if done < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(done as libc::c_int) })
}

fn name_to_handle(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> std::io::Result<Box<[u8]>> {
    let mut identity = raw_handle(dir, name, flags)?;
    forget_subvolume(&mut identity);
    Ok(identity)
}

fn raw_handle(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> std::io::Result<Box<[u8]>> {
    let mut handle = FileHandle { bytes: HANDLE_MAX as libc::c_uint, kind: 0, handle: [0; HANDLE_MAX] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the descriptor and the string live for the whole call; `handle` is laid out as `struct file_handle`
    // with room for `bytes` bytes behind it, which is all that the kernel writes; `mount` is an int of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            flags,
        )
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut bytes = handle.kind.to_le_bytes().to_vec();
    bytes.extend_from_slice(&handle.handle[..HANDLE_MAX.min(handle.bytes as usize)]);
    Ok(bytes.into())
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
