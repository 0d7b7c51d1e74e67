//! `mirror-sync` between files, servers and streams: what is copied, what is refused, what is told.

use crate::support::{Dir, Tool, assert_equal, bin, nbdkit, need, run, sync, text};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

/// A sparse image of 20 MiB and 1000 bytes with data in some places.
fn image(dir: &Dir, name: &str, seed: u8) -> PathBuf {
    let path = dir.image(name, (20 << 20) + 1000);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    let data = |len: usize| (0..len).map(|at| (at / 7) as u8 ^ seed | 1).collect::<Vec<u8>>();
    for (at, len) in [(0, 100_000), (3 << 20, 2 << 20), ((9 << 20) + 12_345, 70_000), ((20 << 20) + 10, 990)]
    {
        file.write_all_at(&data(len), at).expect("write");
    }
    path
}

fn summary(text: &str) -> serde_json::Value {
    assert!(text.starts_with("{\"schema\":\"mirror-sync/1\","), "{text}");
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).expect("metadata").blocks() * 512
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

#[test]
fn files_become_equal_and_stay_sparse_and_a_second_run_writes_nothing() {
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), dir.image("b", (20 << 20) + 1000));
    for choice in ["--full", "--compare"] {
        let b = if choice == "--full" { b.clone() } else { image(&dir, "c", 9) };
        let out = sync(&dir, &[choice, "--json", text(&a), text(&b)]).run().expect(0);
        let told = summary(&out.stdout);
        assert_eq!((&told["equal"], &told["durable"]), (&true.into(), &told["size"]), "{told}");
        assert_equal(&a, &b);
        assert!(allocated(&b) < 6 << 20, "{} bytes are allocated", allocated(&b));
        let again = summary(&sync(&dir, &["--json", text(&a), text(&b)]).run().expect(0).stdout);
        assert_eq!((&again["written"], &again["zeroed"]), (&0.into(), &0.into()), "{again}");
    }
}

#[test]
fn old_data_under_a_hole_of_the_source_is_gone_afterwards() {
    let dir = Dir::new();
    let a = dir.image("a", 4 << 20);
    for choice in
        [&["--full"][..], &["--compare"], &["--full", "--zero", "off"], &["--full", "--zero", "trust"]]
    {
        let b = dir.path("b");
        std::fs::write(&b, vec![7; 4 << 20]).expect("write");
        sync(&dir, &[choice, &[text(&a), text(&b)]].concat()).run().expect(0);
        assert_equal(&a, &b);
        assert_eq!(allocated(&b) == 0, choice.last() != Some(&"off"), "{choice:?}");
    }
}

#[test]
fn servers_are_sources_and_targets_by_socket_and_by_activation() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b, c) = (image(&dir, "a", 1), image(&dir, "b", 2), image(&dir, "c", 3));
    let socket = dir.path("s");
    let _server = nbdkit(&dir, &socket, &["file", text(&b)]);
    for choice in ["--compare", "--full"] {
        sync(&dir, &[choice, "--verify", text(&a), &uri(&socket)]).run().expect(0);
        assert_equal(&a, &b);
    }
    let (from, to) = (uri(&socket), text(&c));
    sync(&dir, &["--full", &from, "[", "nbdkit", "-f", "file", to, "]"]).run().expect(0);
    assert_equal(&a, &c);
    let d = image(&dir, "d", 4);
    sync(&dir, &["[", "nbdkit", "-f", "--filter=noextents", "file", to, "]", text(&d)]).run().expect(0);
    assert_equal(&a, &d);
    // The shell says why, and then we do.
    sync(&dir, &["[", "no-such-program", "]", text(&d)]).run().expect(6);
}

#[test]
fn a_discarded_range_travels_as_zeroes_and_never_as_data() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (dir.image("a", 64 << 20), dir.path("b"));
    std::fs::write(&b, vec![7; 64 << 20]).expect("write");
    let socket = dir.path("s");
    let _server = nbdkit(&dir, &socket, &["file", text(&b)]);
    let map = dir.path("m");
    let made = Tool::new(bin("dirtymap")).args(&["create", "--all", "--size", "64M", text(&map)]).run();
    made.expect(0);
    let out =
        sync(&dir, &["--json", "--dirty-only", "--map", text(&map), text(&a), &uri(&socket)]).run().expect(0);
    let told = summary(&out.stdout);
    assert_eq!(
        (&told["written"], &told["read"], &told["zeroed"]),
        (&0.into(), &0.into(), &(64 << 20).into())
    );
    assert_equal(&a, &b);
}

#[test]
fn streams_come_in_and_go_out_byte_for_byte() {
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let bytes = std::fs::read(&a).expect("read");
    let out = std::fs::File::create(dir.path("out")).expect("create");
    sync(&dir, &["--full", text(&a), "-"]).run_into(out.into()).expect(0);
    assert_equal(&a, &dir.path("out"));
    for choice in ["--full", "--compare"] {
        let b = if choice == "--full" { b.clone() } else { image(&dir, "c", 3) };
        let out = sync(&dir, &[choice, "--json", "-", text(&b)]).input(&bytes).run().expect(0);
        assert_eq!(summary(&out.stdout)["durable"], bytes.len());
        assert_equal(&a, &b);
    }
    let small = dir.image("small", 1 << 20);
    let why = "more than the 1048576 bytes of the target";
    sync(&dir, &["--full", "-q", "-", text(&small)]).input(&bytes).run().fails("mirror-sync", 8, why);
}

#[test]
fn a_stream_that_nobody_reads_to_its_end_is_silence() {
    let dir = Dir::new();
    let a = image(&dir, "a", 1);
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let out = sync(&dir, &["--full", "-q", text(&a), "-"]).run_into(writer.into()).expect(0);
    assert_eq!(out.stderr, "");
}

#[test]
fn what_must_not_be_begun_is_refused_before_the_first_byte() {
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let before = std::fs::read(&b).expect("read");
    let link = dir.path("link");
    std::os::unix::fs::symlink(&a, &link).expect("link");
    let small = dir.image("small", 1 << 20);
    let missing = dir.path("missing");
    for (args, code, why) in [
        (&[text(&a), text(&a)][..], 3, "the same device"),
        (&[text(&a), text(&link)], 3, "the same device"),
        (&[text(&a), text(&small)], 3, "it has 1048576 bytes, 20972520 are needed"),
        (&[text(&a), text(&missing)], 5, "No such file"),
        (&[text(&missing), text(&b)], 5, "No such file"),
        (&[text(&a), "/tmp"], 2, "a directory"),
        (&["null:", text(&b)], 2, "nothing to read"),
        (&["-", "-"], 2, "cat(1)"),
        (&[text(&a), "-"], 2, "cannot be compared with"),
        (&[text(&a), "null:"], 2, "cannot be compared with"),
        (&["--full", text(&a), "nbd://-oProxyCommand=x/y"], 2, "begins with '-'"),
        (&["--full", text(&a), "nbd+unix:///?socket=/none"], 6, "connecting"),
        (&["--dirty-only", text(&a), text(&b)], 2, "--map"),
        (&["--map", "x", text(&a), text(&b)], 2, "--dirty-only"),
        (&["--full", "--compare", text(&a), text(&b)], 2, "cannot be used with"),
        (&["[", "nbdkit", text(&b)], 2, "']' is missing"),
    ] {
        sync(&dir, args).run().fails("mirror-sync", code, why);
    }
    assert!(!missing.exists(), "nothing is created");
    assert!(std::fs::read(&b).expect("read") == before, "nothing was written");
}

#[test]
fn a_second_run_on_one_target_and_a_map_in_use_are_busy() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let held = std::fs::File::open(&b).expect("open");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    sync(&dir, &[text(&a), text(&b)]).run().fails("mirror-sync", 75, "another process holds it");
    drop(held);

    let socket = dir.path("s");
    let _server = nbdkit(&dir, &socket, &["file", text(&b)]);
    let uri = uri(&socket);
    let slow = || sync(&dir, &["--full", "--bwlimit", "200K", text(&a), &uri]);
    let second = || sync(&dir, &["--full", "-q", text(&a), &uri]).run();
    let locked = || {
        let names = std::fs::read_dir(dir.state()).expect("state").flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".lock"))
    };
    let mut met = false;
    for _ in 0..5 {
        let mut first = slow().command().stderr(std::process::Stdio::null()).spawn().expect("spawn");
        crate::support::wait_for("the lock", std::time::Duration::from_secs(20), locked);
        let out = second();
        if out.code == 75 {
            out.fails("mirror-sync", 75, "another mirror-sync writes to it");
            met = true;
        } else {
            // It was faster than the first one, who then is the second.
            assert_eq!(first.wait().expect("wait").code(), Some(75), "{}", out.stderr);
        }
        // It may have ended.
        let _ = first.kill();
        first.wait().expect("reap");
        if met {
            break;
        }
    }
    assert!(met);
    // The lock is gone with the process.
    sync(&dir, &["--full", "-q", text(&a), &uri]).run().expect(0);
    assert_equal(&a, &b);
}

#[test]
fn a_server_that_is_read_only_or_cannot_flush_is_refused() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let to = |more: &[&str]| -> Vec<String> {
        let words = [&["--full", text(&a), "[", "nbdkit", "-f"], more, &["file", text(&b), "]"]].concat();
        words.into_iter().map(ToOwned::to_owned).collect()
    };
    let with = |words: Vec<String>| sync(&dir, &words.iter().map(String::as_str).collect::<Vec<_>>()).run();
    with(to(&["-r"])).fails("mirror-sync", 3, "read-only");
    let no_flush =
        ["eval", "get_size=echo 20972520", "pwrite=cat >/dev/null", "pread=exit 1", "can_write=exit 0"];
    let mut words = vec!["--full", text(&a), "[", "nbdkit", "-f"];
    words.extend(no_flush);
    words.push("]");
    sync(&dir, &words).run().fails("mirror-sync", 3, "cannot be flushed");
    let forced = [&["--force", "unflushed", "-q"], &words[..]].concat();
    sync(&dir, &forced).run().expect(0);
}

#[test]
fn marks_go_when_their_blocks_are_durable_and_only_these() {
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), dir.image("b", (20 << 20) + 1000));
    let map = dir.path("m");
    let dirtymap = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    dirtymap(&["create", "--like", text(&a), text(&map)]).expect(0);
    dirtymap(&["set", text(&map), "3M+2M", "20M+1"]).expect(0);
    let args = ["--json", "--dirty-only", "--map", text(&map), text(&a), text(&b)];
    sync(&dir, &[&["-n"], &args[..]].concat()).run().expect(0);
    sync(&dir, &[&["--keep-map"], &args[..]].concat()).run().expect(0);
    dirtymap(&["check", text(&map)]).expect(1);
    let told = summary(&sync(&dir, &args).run().expect(0).stdout);
    assert_eq!((&told["planned"], &told["equal"]), (&((2 << 20) + 1000).into(), &false.into()), "{told}");
    dirtymap(&["check", text(&map)]).expect(0);
    let (a, b) = (std::fs::read(&a).expect("read"), std::fs::read(&b).expect("read"));
    assert!(a[3 << 20..5 << 20] == b[3 << 20..5 << 20] && a[20 << 20..] == b[20 << 20..]);
    assert!(b[..3 << 20].iter().all(|byte| *byte == 0), "what is not marked is not copied");

    // From a pipe; and what does not belong is refused.
    let all = dirtymap(&["create", "--all", "--like", text(&dir.path("a")), "--replace", text(&map)]);
    all.expect(0);
    let bytes = std::fs::read(&map).expect("read");
    let (a, b) = (dir.path("a"), dir.path("b"));
    sync(&dir, &["--dirty-only", "--map", "-", text(&a), text(&b)]).input(&bytes).run().expect(0);
    assert_equal(&a, &b);
    let other = dir.image("other", 1 << 20);
    let wrong = ["--dirty-only", "--map", text(&map), text(&other), text(&b)];
    sync(&dir, &wrong).run().fails("mirror-sync", 9, "it is of 20972520 bytes");
    sync(&dir, &["--dirty-only", "--map", text(&other), text(&a), text(&b)]).run().fails(
        "mirror-sync",
        9,
        "magic",
    );
}

#[test]
fn a_context_of_a_server_says_what_is_copied() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), dir.image("b", (20 << 20) + 1000));
    let socket = dir.path("s");
    let _server = nbdkit(&dir, &socket, &["file", text(&a)]);
    let uri = uri(&socket);
    sync(&dir, &["--dirty-only", "--map", &uri, &uri, text(&b)]).run().expect(0);
    assert_equal(&a, &b);
    let wrong = format!("{uri}#qemu:dirty-bitmap:day");
    sync(&dir, &["--dirty-only", "--map", &wrong, &uri, text(&b)]).run().fails("mirror-sync", 6, "has no");
}

#[test]
fn one_bad_block_does_not_stop_the_others_and_stays_marked() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let size = 8 << 20;
    let a = dir.path("a");
    std::fs::write(&a, vec![5; size]).expect("write");
    let b = dir.image("b", size as u64);
    // Writes that touch one place fail.
    let script = format!(
        "[ $4 -le 3000000 ] && [ $(( $4 + $3 )) -gt 3000000 ] && {{ echo EIO bad >&2; exit 1; }}; \
         dd of={} bs=65536 oflag=seek_bytes seek=$4 conv=notrunc status=none",
        b.display()
    );
    let server = |words: &mut Vec<String>| {
        words.extend(["[", "nbdkit", "-f", "eval"].map(ToOwned::to_owned));
        words.push(format!("get_size=echo {size}"));
        words.push(format!("pwrite={script}"));
        let read = format!("dd if={} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none", b.display());
        words.push(format!("pread={read}"));
        words.extend(["can_write=exit 0", "can_flush=exit 0", "flush=exit 0", "]"].map(ToOwned::to_owned));
    };
    let map = dir.path("m");
    let dirtymap = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    dirtymap(&["create", "--all", "--like", text(&a), text(&map)]).expect(0);
    let mut words: Vec<String> =
        ["--json", "--dirty-only", "--map", text(&map), text(&a)].map(ToOwned::to_owned).to_vec();
    server(&mut words);
    let out = sync(&dir, &words.iter().map(String::as_str).collect::<Vec<_>>()).run().expect(8);
    let told = summary(&out.stdout);
    assert_eq!((&told["failed-ranges"], &told["failed-bytes"]), (&1.into(), &65536.into()), "{told}");
    assert!(
        out.stderr.contains("writing 2949120+65536: the server says: input/output error"),
        "{}",
        out.stderr
    );
    let list = dirtymap(&["show", "--list", text(&map)]).expect(0).stdout;
    assert_eq!(list.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), ["2949120 65536"]);
    let mut model = vec![5; size];
    model[2_949_120..2_949_120 + 65536].fill(0);
    assert!(std::fs::read(&b).expect("read") == model);
}

#[test]
fn a_server_whose_every_write_fails_or_that_is_full_leaves_every_mark() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let a = dir.path("a");
    std::fs::write(&a, vec![5; 4 << 20]).expect("write");
    let map = dir.path("m");
    let dirtymap = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    dirtymap(&["create", "--all", "--like", text(&a), text(&map)]).expect(0);
    for (error, why) in [("EIO", "input/output error"), ("ENOSPC", "no space left")] {
        let fail = format!("error={error}");
        let socket = dir.path("s");
        let args = ["--filter=error", "memory", "4M", &fail, "error-pwrite-rate=100%"];
        let _server = nbdkit(&dir, &socket, &args);
        let words = ["-q", "--dirty-only", "--map", text(&map), text(&a), &uri(&socket)];
        sync(&dir, &words).run().fails("mirror-sync", 5, why);
        let marked = dirtymap(&["stat", "--json", text(&map)]).expect(0).stdout;
        assert!(marked.contains(&(4 << 20).to_string()), "{marked}");
    }
}

#[test]
fn a_full_disk_ends_the_run_and_what_is_done_is_told() {
    if !need(&["root", "mount"]) {
        return;
    }
    let dir = Dir::new();
    let a = dir.path("a");
    std::fs::write(&a, vec![5; 8 << 20]).expect("write");
    let mount = dir.path("mnt");
    std::fs::create_dir(&mount).expect("mkdir");
    if run("mount", &["-t", "tmpfs", "-o", "size=4M", "tmpfs", text(&mount)]).code != 0 {
        eprintln!("no mount here");
        return;
    }
    let b = mount.join("b");
    std::fs::File::create(&b).and_then(|file| file.set_len(8 << 20)).expect("image");
    let out = sync(&dir, &["-q", "--full", "--queue-depth", "1", text(&a), text(&b)]).run();
    run("umount", &[text(&mount)]).expect(0);
    out.fails("mirror-sync", 8, "No space left on device");
}

#[test]
fn remembered_digests_spare_the_target_and_find_every_change() {
    if !need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let digest = dir.path("digest");
    let stats = dir.path("stats");
    let socket = dir.path("s");
    let stats_file = format!("statsfile={}", text(&stats));
    let server = nbdkit(&dir, &socket, &["--filter=stats", "file", text(&b), &stats_file]);
    let args = ["--json", "--digest", text(&digest), text(&a), &uri(&socket)];
    sync(&dir, &args).run().expect(0);
    assert_equal(&a, &b);
    drop(server);
    let server = nbdkit(&dir, &socket, &["--filter=stats", "file", text(&b), &stats_file]);
    let file = std::fs::OpenOptions::new().write(true).open(&a).expect("open");
    file.write_all_at(b"changed", (5 << 20) - 3).expect("write");
    drop(file);
    let told = summary(&sync(&dir, &args).run().expect(0).stdout);
    let moved = |key: &str| told[key].as_u64().expect("bytes");
    assert_eq!(moved("written") + moved("zeroed"), 2 * 65536, "{told}");
    assert_equal(&a, &b);
    server.stop();
    let counted = std::fs::read_to_string(&stats).expect("stats");
    assert!(!counted.contains("read:"), "the target was read: {counted}");
    assert!(!dir.path("digest.open").exists());
}

#[test]
fn progress_goes_to_a_descriptor_and_counts_what_is_durable() {
    let dir = Dir::new();
    let (a, b) = (image(&dir, "a", 1), image(&dir, "b", 2));
    let told = dir.path("told");
    let script = format!(
        "exec '{}' --full --progress 3 -q '{}' '{}' 3>'{}'",
        bin("mirror-sync").display(),
        a.display(),
        b.display(),
        told.display()
    );
    Tool::new("sh").args(&["-c", &script]).env("MIRROR_STATE_DIR", dir.state()).run().expect(0);
    let lines = std::fs::read_to_string(&told).expect("told");
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("json");
    assert_eq!((&last["schema"], &last["done"]), (&"mirror-progress/1".into(), &last["total"]), "{last}");
}

#[test]
fn a_signal_stops_it_where_the_same_command_goes_on() {
    let dir = Dir::new();
    let (a, b) = (dir.path("a"), dir.image("b", 8 << 20));
    std::fs::write(&a, vec![5; 8 << 20]).expect("write");
    let map = dir.path("m");
    let dirtymap = |args: &[&str]| Tool::new(bin("dirtymap")).args(args).run();
    dirtymap(&["create", "--all", "--like", text(&a), text(&map)]).expect(0);
    let args = ["-q", "--dirty-only", "--map", text(&map), text(&a), text(&b)];
    let mut slow = sync(&dir, &[&["--bwlimit", "2M"], &args[..]].concat());
    let mut child = slow.command().stderr(std::process::Stdio::null()).spawn().expect("spawn");
    crate::support::wait_for("the first bytes", std::time::Duration::from_secs(20), || allocated(&b) > 0);
    run("kill", &["-INT", &child.id().to_string()]).expect(0);
    assert_eq!(child.wait().expect("wait").signal(), Some(2));
    let left = dirtymap(&["show", "--list", text(&map)]).expect(0).stdout;
    assert!(left.lines().count() > 0);
    sync(&dir, &args).run().expect(0);
    assert_equal(&a, &b);
    dirtymap(&["check", text(&map)]).expect(0);
}
