use super::*;
use std::os::unix::fs::symlink;
use std::path::Path;

fn look(base: &Path, path: &[u8], follow: bool) -> Result<Place> {
    let proc = proc().expect("/proc");
    let own = Tracee { proc: proc.as_fd(), tid: std::process::id() };
    let start = openat(CWD, base, PLACE, Mode::empty()).expect("open");
    own.walk(start, path, follow)
}

fn shown(place: Result<Place>) -> String {
    let path = |fd: OwnedFd| {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        std::fs::read_link(link).expect("link").to_string_lossy().into_owned()
    };
    match place {
        Ok(Place::Name(dir, name)) => format!("{} + {}", path(dir), String::from_utf8_lossy(&name)),
        Ok(Place::Itself(fd)) => format!("{} itself", path(fd)),
        Err(failed) => format!("{failed:?}"),
    }
}

#[test]
fn a_path_is_walked_as_its_process_walks_it() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().canonicalize().expect("path");
    std::fs::create_dir_all(dir.join("a/b")).expect("mkdir");
    std::fs::write(dir.join("a/f"), "x").expect("write");
    symlink("a/b", dir.join("short")).expect("symlink");
    symlink(dir.join("a"), dir.join("whole")).expect("symlink");
    symlink("../f", dir.join("a/b/up")).expect("symlink");
    symlink("nowhere", dir.join("dangling")).expect("symlink");
    symlink("round", dir.join("round")).expect("symlink");
    let at = dir.to_string_lossy().into_owned();
    let table = [
        ("f", false, format!("{at} + f")),
        ("a/f", true, format!("{at}/a + f")),
        ("a//b///", false, format!("{at}/a + b")),
        ("a/b/..", false, format!("{at}/a itself")),
        (".", false, format!("{at} itself")),
        ("./a/./f", false, format!("{at}/a + f")),
        ("short/x", false, format!("{at}/a/b + x")),
        ("short", false, format!("{at} + short")),
        ("short", true, format!("{at}/a + b")),
        ("whole/b/../f", true, format!("{at}/a + f")),
        ("short/up", true, format!("{at}/a + f")),
        ("short/up", false, format!("{at}/a/b + up")),
        ("dangling", true, format!("{at} + nowhere")),
        ("round", true, "Nothing".to_owned()),
        ("a/f/x", false, "Nothing".to_owned()),
        ("none/x", false, "Nothing".to_owned()),
    ];
    for (path, follow, expected) in table {
        assert_eq!(shown(look(&dir, path.as_bytes(), follow)), expected, "{path} {follow}");
    }
}

#[test]
fn what_proc_says_of_itself_is_of_the_process_that_asks() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().canonicalize().expect("path").join("f");
    let child = std::process::Command::new("sleep")
        .arg("60")
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&file).expect("create"))
        .current_dir(dir.path())
        .spawn()
        .expect("start");
    let proc = proc().expect("/proc");
    let of = Tracee { proc: proc.as_fd(), tid: child.id() };
    let expected = format!("{} itself", file.display());
    for path in ["/proc/self/fd/1", "/dev/fd/1", "/dev/stdout", "/proc/thread-self/fd/1"] {
        assert_eq!(shown(of.place(None, path.as_bytes(), true)), expected, "{path}");
    }
    assert_eq!(
        shown(of.place(None, b"/proc/self/cwd/x", false)),
        format!("{} + x", file.parent().expect("dir").display())
    );
    assert_eq!(shown(of.place(Some(1), b"x/y", false)), "Nothing", "a file is no directory");
    assert_eq!(shown(of.place(Some(77), b"x", false)), "Nothing");
    let mut child = child;
    child.kill().expect("kill");
    child.wait().expect("reap");
    assert_eq!(shown(of.place(None, b"x", false)), "Nothing", "it is gone");
}
