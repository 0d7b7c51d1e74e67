//! Whether a file or block device is in use by the kernel: mounted, swapped to, under a loop device, or held by
//! another block device.

use super::identity::parse_device;
use crate::base::{Class, Error, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Refuses (class `Refused`) a block device that is mounted, swapped to or held by another one, and a file that
/// is swapped to or backs a loop device; the partitions of a disk count as the disk.
///
/// Facts: `/proc/self/mountinfo` and `/proc/swaps` (`proc(5)`), `/sys/dev/block/M:N/{holders,*/dev}`,
/// `/sys/block/loop*/loop/backing_file`. What cannot be read is not a reason to refuse; another mount namespace
/// is seen by `O_EXCL` at opening instead. A path that does not exist is not in use.
pub fn check_not_in_use(path: &Path) -> Result<()> {
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let reason = if meta.file_type().is_block_device() {
        device_in_use(meta.rdev(), &real)
    } else if meta.is_file() {
        swap_on(&read("/proc/swaps"), |p| p == real).or_else(|| loop_on(&real))
    } else {
        None
    };
    match reason {
        None => Ok(()),
        Some(why) => Err(Error::new(
            Class::Refused,
            format!("{}: checking that nothing else uses it: it is {why}", path.display()),
        )),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn device_in_use(rdev: u64, real: &Path) -> Option<String> {
    let mut devices = vec![(rustix::fs::major(rdev), rustix::fs::minor(rdev))];
    let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", devices[0].0, devices[0].1));
    if let Ok(entries) = std::fs::read_dir(&sys) {
        devices.extend(entries.flatten().filter_map(|e| {
            let dev = std::fs::read_to_string(e.path().join("dev")).ok()?;
            parse_device(dev.trim())
        }));
    }
    let is_ours = |p: &Path| {
        p == real
            || std::fs::metadata(p).is_ok_and(|m| {
                m.file_type().is_block_device()
                    && devices.contains(&(rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev())))
            })
    };
    mount_of(&read("/proc/self/mountinfo"), &devices, is_ours)
        .or_else(|| swap_on(&read("/proc/swaps"), is_ours))
        .or_else(|| {
            let holder = std::fs::read_dir(sys.join("holders")).ok()?.flatten().next()?;
            Some(format!("held by the block device {}", holder.file_name().display()))
        })
}

/// The mount of one of `devices`, by number, or by source where the file system has numbers of its own (btrfs).
fn mount_of(mountinfo: &str, devices: &[(u32, u32)], is_ours: impl Fn(&Path) -> bool) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (fields, tail) = line.split_once(" - ")?;
        let mut fields = fields.split(' ');
        let number = fields.nth(2).and_then(parse_device)?;
        let place = fields.nth(1)?;
        let source = tail.split(' ').nth(1).map(unescape)?;
        let ours = devices.contains(&number) || (source.is_absolute() && is_ours(&source));
        ours.then(|| format!("mounted on {}", unescape(place).display()))
    })
}

fn swap_on(swaps: &str, is_ours: impl Fn(&Path) -> bool) -> Option<String> {
    let mut lines = swaps.lines().skip(1).filter_map(|l| l.split_whitespace().next());
    lines.any(|p| is_ours(&unescape(p))).then(|| "used as swap space".to_owned())
}

fn loop_on(real: &Path) -> Option<String> {
    std::fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        (Path::new(backing.trim_end_matches('\n')) == real)
            .then(|| format!("attached to the loop device {}", entry.file_name().display()))
    })
}

/// Undoes the octal escapes of `/proc` tables (space, tab, newline, backslash).
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'\\').then(|| text.get(i + 1..i + 4)).flatten();
        if let Some(byte) = code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            out.push(byte);
            i += 4;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        31 22 0:27 / /my\\040disk rw - btrfs /dev/disk\\0401 rw,space_cache\n";

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let nobody = |_: &Path| false;
        assert_eq!(mount_of(MOUNTS, &[(254, 0)], nobody).expect("mounted"), "mounted on /");
        assert!(mount_of(MOUNTS, &[(254, 1)], nobody).is_none());
        let found = mount_of(MOUNTS, &[(8, 0)], |p| p == Path::new("/dev/disk 1"));
        assert_eq!(found.expect("mounted"), "mounted on /my disk");
    }

    #[test]
    fn swap_is_found_and_a_plain_file_is_free() {
        let swaps = "Filename\tType\tSize\n/swap\\040file  file 100 0 -2\n";
        assert!(swap_on(swaps, |p| p == Path::new("/swap file")).is_some());
        assert!(swap_on(swaps, |p| p == Path::new("/other")).is_none());
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        check_not_in_use(&path).expect("missing");
        std::fs::write(&path, "x").expect("write");
        check_not_in_use(&path).expect("free");
    }

    #[test]
    fn the_device_of_the_root_file_system_is_in_use_where_it_can_be_seen() {
        let mounts = read("/proc/self/mountinfo");
        let Some(source) = mounts.lines().find_map(|l| {
            let source = l.split_once(" - ")?.1.split(' ').nth(1)?;
            std::fs::metadata(source).is_ok_and(|m| m.file_type().is_block_device()).then_some(source)
        }) else {
            return;
        };
        assert_eq!(check_not_in_use(Path::new(source)).expect_err("mounted").class, Class::Refused);
    }
}
