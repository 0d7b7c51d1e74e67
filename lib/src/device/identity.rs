//! Which storage a path leads to, whatever it is called: what two names of the same bytes have in common.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Between the name of a whole and that of a part of it.
const PART: char = '@';

/// The storage behind a path: `inode:DEVICE:NUMBER` or `dev:MAJOR:MINOR`; a part of one (a partition, a loop device
/// with an offset or a limit) is `WHOLE@PART`. A loop device is the file beneath it. `None` if it is not there.
///
/// Facts: `/sys/dev/block/M:N/{partition,loop/*}` (`sysfs-block`, `sysfs-block-loop` of the kernel's ABI).
pub fn identity_of(path: &Path) -> Option<String> {
    let data = std::fs::metadata(path).ok()?;
    Some(if data.file_type().is_block_device() {
        of_block((rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev())), 0)
    } else {
        format!("inode:{}:{}", data.dev(), data.ino())
    })
}

/// A loop device over a partition of a loop device, and so on; deeper is not looked for.
const DEPTH: u32 = 4;

fn of_block((major, minor): (u32, u32), depth: u32) -> String {
    let plain = format!("dev:{major}:{minor}");
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let text = |name: &str| std::fs::read_to_string(sys.join(name)).ok();
    let beneath =
        |whole: Option<(u32, u32)>| whole.filter(|_| depth < DEPTH).map(|of| of_block(of, depth + 1));
    if text("partition").is_some() {
        let whole =
            sys.canonicalize().ok().and_then(|sys| std::fs::read_to_string(sys.parent()?.join("dev")).ok());
        let whole = beneath(whole.as_deref().and_then(|dev| parse_device(dev.trim())));
        return whole.map_or(plain, |whole| format!("{whole}{PART}{major}:{minor}"));
    }
    let Some(file) = text("loop/backing_file") else { return plain };
    let Ok(data) = std::fs::metadata(file.trim_end_matches('\n')) else { return plain };
    let whole = if data.file_type().is_block_device() {
        beneath(Some((rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()))))
    } else {
        Some(format!("inode:{}:{}", data.dev(), data.ino()))
    };
    let number = |name: &str| text(name).map_or_else(|| "0".to_owned(), |text| text.trim().to_owned());
    match (whole, number("loop/offset"), number("loop/sizelimit")) {
        (None, ..) => plain,
        (Some(whole), offset, limit) if offset == "0" && limit == "0" => whole,
        (Some(whole), offset, limit) => format!("{whole}{PART}{offset}+{limit}"),
    }
}

/// `MAJOR:MINOR`, as sysfs writes it.
pub(super) fn parse_device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether two identities are one storage, or one is a part of the other. Two parts of one whole are two: a
/// partition is copied to another of the same disk.
pub fn overlap(a: &str, b: &str) -> bool {
    let part = |whole: &str, part: &str| part.strip_prefix(whole).is_some_and(|rest| rest.starts_with(PART));
    a == b || part(a, b) || part(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_its_whole_and_two_parts_are_two() {
        for (a, b, same) in [
            ("dev:8:0", "dev:8:0", true),
            ("dev:8:0", "dev:8:0@8:1", true),
            ("dev:8:0@8:1", "dev:8:0", true),
            ("dev:8:0@8:1", "dev:8:0@8:2", false),
            ("dev:8:1", "dev:8:16", false),
            ("dev:8:1", "dev:8:16@8:17", false),
            ("inode:1:2@512+0", "inode:1:2", true),
            ("inode:1:2@512+0", "inode:1:2@0+512", false),
            ("far:a/inode:1:2", "inode:1:2", false),
        ] {
            assert_eq!(overlap(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn links_are_the_file_they_lead_to() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "x").expect("write");
        std::fs::write(path("b"), "x").expect("write");
        std::fs::hard_link(path("a"), path("hard")).expect("link");
        std::os::unix::fs::symlink(path("a"), path("soft")).expect("link");
        let of = |name: &str| identity_of(&path(name));
        assert!(of("a").is_some() && of("a") == of("hard") && of("a") == of("soft") && of("a") != of("b"));
        assert_eq!(of("none"), None);
    }
}
