//! Skipping what cannot run here, so that nobody misses it.

use std::io::Write as _;

/// Whether every one of these programs is there. If not: says so, writes it down in the file that
/// `tests/all.sh` shows at its end, and fails where a skip is not allowed: as root or with CI set, unless the
/// missing one is named in `MIRROR_SKIP` (words with commas or spaces between them).
///
/// ```ignore
/// if !need(&["nbdkit", "nbdinfo"]) { return; }
/// ```
#[must_use]
#[track_caller]
pub fn need(programs: &[&str]) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    for program in &missing {
        let line = format!("SKIPPED: {test}: missing {program}\n");
        // Past the capture of the test harness.
        std::io::stderr().write_all(line.as_bytes()).expect("stderr");
        if let Some(file) = std::env::var_os("MIRROR_SKIPPED") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("MIRROR_SKIPPED");
        }
        assert!(may_skip(program), "{program} is missing; install it or name it in MIRROR_SKIP");
    }
    missing.is_empty()
}

fn is_there(program: &str) -> bool {
    let skipped = std::env::var("MIRROR_SKIP").unwrap_or_default();
    if skipped.split([',', ' ']).any(|word| word == program) {
        return false;
    }
    match program {
        "fuse" => std::path::Path::new("/dev/fuse").exists(),
        "loop" => std::path::Path::new("/dev/loop-control").exists(),
        "root" => is_root(),
        "python3-libnbd" => {
            let mut python = std::process::Command::new("/usr/bin/python3");
            python.args(["-c", "import nbd"]).output().is_ok_and(|out| out.status.success())
        }
        _ => {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let more = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
            std::env::split_paths(&paths).chain(more).any(|dir| dir.join(program).is_file())
        }
    }
}

fn may_skip(program: &str) -> bool {
    let strict = is_root() || std::env::var_os("CI").is_some();
    let named = std::env::var("MIRROR_SKIP").unwrap_or_default();
    !strict || named.split([',', ' ']).any(|word| word == program)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}
