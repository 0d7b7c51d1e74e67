//! The identity of the running kernel: what was written to the page cache under it is still there.

use crate::base::Id;
use std::path::Path;

/// Where the kernel publishes it (`random(4)`).
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot, or [`Id::NONE`] where it cannot be read. `NONE` never equals a boot: who compares
/// treats it as another one.
pub fn boot_id() -> Id {
    boot_id_from(Path::new(BOOT_ID))
}

/// The same, from another file (for tests).
pub fn boot_id_from(path: &Path) -> Id {
    let Ok(text) = std::fs::read_to_string(path) else { return Id::NONE };
    text.trim().replace('-', "").parse().unwrap_or(Id::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_stable_and_an_unreadable_one_is_none() {
        assert!(!boot_id().is_none());
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id_from(Path::new("/nonexistent")).is_none());
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("boot");
        std::fs::write(&path, "not an id\n").expect("write");
        assert!(boot_id_from(&path).is_none());
        std::fs::write(&path, "01234567-89ab-cdef-0123-456789abcdef\n").expect("write");
        assert_eq!(boot_id_from(&path).to_string(), "0123456789abcdef0123456789abcdef");
    }
}
