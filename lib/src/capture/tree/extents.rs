//! Where the changed bytes of files are on the device underneath (`FIEMAP`), as a map of that device.
//!
//! It has the data of files and nothing else: not the metadata that a file system writes elsewhere on the device, and
//! not where data was before it moved. Unsafe code, because rustix has no `FIEMAP`.
#![allow(unsafe_code)]

use super::inspect::open_quiet;
use super::root::Root;
use crate::base::{ByteRange, Class, Error, Result};
use crate::device::fields::{get_u32, get_u64, put_u32, put_u64};
use crate::fslog::{Index, Kind, State};
use crate::map::Ranges;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// `FS_IOC_FIEMAP`, that is `_IOWR('f', 11, 32 bytes)`.
const FIEMAP: libc::Ioctl = 0xc020_660b;
/// `FIEMAP_FLAG_SYNC`: what is not written back has no place yet.
const SYNC: u32 = 1;
/// `FIEMAP_EXTENT_LAST`
const LAST: u32 = 1;
/// Extents without a place of their own on the device: unknown, delayed, encoded, inside metadata, past the end of
/// one (`FIEMAP_EXTENT_UNKNOWN`, `_DELALLOC`, `_ENCODED`, `_DATA_INLINE`, `_DATA_TAIL`).
const PLACELESS: u32 = 0x2 | 0x4 | 0x8 | 0x200 | 0x400;
const HEAD: usize = 32;
const EXTENT: usize = 56;
/// Extents of one call.
const COUNT: usize = 256;

#[repr(C, align(8))]
struct Call([u8; HEAD + COUNT * EXTENT]);

/// What was found of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// Files with changed bytes.
    pub files: u64,
    /// Changed bytes of files, and so of the device.
    pub bytes: u64,
    /// Changed bytes that are on the device in another form: compressed, or inside metadata.
    pub placeless: u64,
    /// Files of the log that are not there any more.
    pub gone: u64,
}

/// The places of the changed ranges of a log on a device. `index` is the round that the log leads to; the tree must
/// be on the device itself. Errors: class `Refused` if it is on another one.
pub fn places(root: &Root, device: &Path, index: &Index, state: &State) -> Result<(Ranges, Found)> {
    check_device(root, device)?;
    root.sync()?;
    let (mut ranges, mut found) = (Ranges::default(), Found::default());
    let names = index.names();
    for (id, file) in &state.files {
        let Some(object) = index.objects.get(id) else {
            found.gone += 1;
            continue;
        };
        if object.meta.kind != Kind::File {
            continue;
        }
        let mut dirty = file.dirty();
        dirty.insert(file.limit.min(object.meta.size)..object.meta.size);
        let mut path = names.components(*id);
        let Some(name) = path.pop() else { continue };
        let shown = names.path(*id);
        let fail = |e: std::io::Error| root.error(&shown, "asking where it is on the device", e);
        let opened =
            root.dir(&path).map_err(Into::into).and_then(|dir| open_quiet(dir.as_fd(), name, Kind::File));
        let open = match opened {
            Ok(open) => open,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                found.gone += 1;
                continue;
            }
            Err(e) => return Err(fail(e)),
        };
        found.files += u64::from(!dirty.is_empty());
        for range in dirty.iter() {
            found.bytes += range.end - range.start;
            let mut pushed = Ok(());
            extents(open.as_fd(), &range, &mut |place| match place {
                Some(place) if pushed.is_ok() => pushed = ranges.push(place),
                Some(_) => {}
                None => found.placeless += 1,
            })
            .map_err(fail)?;
            pushed?;
        }
    }
    Ok((ranges, found))
}

fn check_device(root: &Root, device: &Path) -> Result<()> {
    let data = std::fs::metadata(device).map_err(|e| Error::io(device.display(), "looking at it", e))?;
    let tree =
        rustix::fs::fstat(root.fd()).map_err(|e| Error::io(root.path().display(), "looking at it", e))?;
    if data.rdev() == tree.st_dev {
        return Ok(());
    }
    let show = |number: u64| format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let text = format!(
        "{}: mapping onto it: it is device {}, and {} is on device {}",
        device.display(),
        show(data.rdev()),
        root.path().display(),
        show(tree.st_dev)
    );
    Err(Error::new(Class::Refused, text))
}

/// Tells the places of a range of a file; `None` for one that has no place of its own.
fn extents(
    file: BorrowedFd<'_>,
    range: &Range<u64>,
    take: &mut dyn FnMut(Option<ByteRange>),
) -> std::io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let mut call = Call([0; HEAD + COUNT * EXTENT]);
        put_u64(&mut call.0, 0, at);
        put_u64(&mut call.0, 8, range.end - at);
        put_u32(&mut call.0, 16, SYNC);
        put_u32(&mut call.0, 24, COUNT as u32);
        // SAFETY: `call` is laid out as `struct fiemap` with room for as many extents as it says, which is all that
        // the kernel writes; it and the descriptor live for the whole call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, std::ptr::from_mut(&mut call)) };
        if done < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let count = (get_u32(&call.0, 20) as usize).min(COUNT);
        let mut last = count == 0;
        for extent in call.0[HEAD..].chunks_exact(EXTENT).take(count) {
            let (logical, physical) = (get_u64(extent, 0), get_u64(extent, 8));
            let (len, flags) = (get_u64(extent, 16), get_u32(extent, 40));
            let end = logical.saturating_add(len);
            let (from, to) = (logical.max(range.start), end.min(range.end));
            if from < to {
                let place = ByteRange::new(physical.saturating_add(from - logical), to - from);
                take(place.filter(|_| flags & PLACELESS == 0));
            }
            at = at.max(end);
            last |= flags & LAST != 0;
        }
        if last {
            break;
        }
    }
    Ok(())
}
