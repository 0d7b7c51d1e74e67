//! `dirtymap` on files and pipes, and beside a running daemon.

use crate::support::{Dir, Output, Tool, Volume, bin};
use mirror::nbd::client::{Blocking, ClientOptions};
use std::path::Path;
use std::time::Duration;

/// `dirtymap` in a test's directory.
fn dirtymap(dir: &Dir, args: &[&str]) -> Tool {
    Tool::new(bin("dirtymap")).args(args).dir(&dir.path("")).env("MIRROR_STATE_DIR", dir.state())
}

/// What it prints when it succeeds.
#[track_caller]
fn says(dir: &Dir, args: &[&str]) -> String {
    let out = dirtymap(dir, args).run().expect(0);
    assert_eq!(out.stderr, "");
    out.stdout
}

#[track_caller]
fn fails(dir: &Dir, args: &[&str], code: i32, why: &str) -> Output {
    dirtymap(dir, args).run().fails("dirtymap", code, why)
}

/// The dirty ranges of a map as lines.
#[track_caller]
fn list(dir: &Dir, map: &str) -> String {
    says(dir, &["show", map, "--list"])
}

#[test]
fn done_every_verb_works_on_files() {
    let dir = Dir::new();
    assert_eq!(says(&dir, &["create", "--size", "10M", "a"]), "");
    says(&dir, &["create", "--size", "10M", "--all", "b"]);
    says(&dir, &["set", "a", "1M+1", "3M..4M"]);
    says(&dir, &["clear", "b", "1..2M"]);
    assert_eq!(list(&dir, "a"), "1048576 65536\n3145728 1048576\n");
    assert_eq!(list(&dir, "b"), "0 65536\n2097152 8388608\n");
    says(&dir, &["or", "a", "b", "-o", "or"]);
    assert_eq!(list(&dir, "or"), "0 65536\n1048576 65536\n2097152 8388608\n");
    says(&dir, &["and", "a", "b", "-o", "and"]);
    assert_eq!(list(&dir, "and"), "3145728 1048576\n");
    says(&dir, &["sub", "a", "b", "-o", "sub"]);
    assert_eq!(list(&dir, "sub"), "1048576 65536\n");
    says(&dir, &["xor", "a", "b", "or", "-o", "xor"]);
    assert_eq!(list(&dir, "xor"), "3145728 1048576\n");
    says(&dir, &["invert", "b", "-o", "invert"]);
    assert_eq!(list(&dir, "invert"), "65536 2031616\n");
    says(&dir, &["grow", "a", "--block", "1M", "-o", "grow"]);
    assert_eq!(list(&dir, "grow"), "1048576 1048576\n3145728 1048576\n");
    says(&dir, &["resize", "a", "11M", "-o", "resize"]);
    assert_eq!(list(&dir, "resize"), "1048576 65536\n3145728 1048576\n10485760 1048576\n");
    says(&dir, &["shift", "a", "-1M", "-o", "shift"]);
    assert_eq!(list(&dir, "shift"), "0 65536\n2097152 1048576\n");
    says(&dir, &["shift", "a", "+1", "--size", "20M", "-o", "shifted"]);
    assert_eq!(list(&dir, "shifted"), "1048576 131072\n3145728 1114112\n");
    assert!(
        says(&dir, &["stat", "a", "b"]).contains("a: 10 MiB in blocks of 64 KiB: dirty: 1.1 MiB (10.6 %)")
    );
    let stat: serde_json::Value = serde_json::from_str(&says(&dir, &["stat", "a", "--json"])).expect("json");
    assert_eq!((&stat["schema"], &stat["dirty"]), (&"dirtymap-stat/1".into(), &1_114_112.into()));
    assert!(says(&dir, &["show", "a"]).contains("................#..............................."));
    assert_eq!(says(&dir, &["show", "a", "--list", "--range", "0..2M"]), "1048576 65536\n");
    assert_eq!(
        says(&dir, &["show", "a", "--bitmap"]).lines().next().map(|l| l.matches('#').count()),
        Some(17)
    );
    assert_eq!(dirtymap(&dir, &["check", "a"]).run().expect(1).stderr, "");
    assert_eq!(dirtymap(&dir, &["-q", "check", "a"]).run().expect(1).stdout, "");
    says(&dir, &["clear", "a", "0..10M"]);
    assert_eq!(says(&dir, &["check", "a"]), "a: clean\n");
    assert!(says(&dir, &["size", "--size", "16T", "--block", "64K"]).contains("32 MiB"));
    let sizes: serde_json::Value =
        serde_json::from_str(&says(&dir, &["size", "--like", "a", "--json"])).expect("json");
    assert_eq!(sizes["schema"], "dirtymap-size/1");
}

#[test]
fn done_every_verb_that_reads_a_map_reads_a_pipe() {
    let dir = Dir::new();
    let sh = |script: &str| {
        let script = script.replace("dirtymap", bin("dirtymap").to_str().expect("path"));
        Tool::new("sh").args(&["-c", &script]).dir(&dir.path("")).run().expect(0).stdout
    };
    sh("dirtymap create --size 100M - | dirtymap set - 5M+1M 64M+1 > m");
    let all = sh("dirtymap clear - 5M+512K < m |
        dirtymap or - m | dirtymap and m - | dirtymap xor - | dirtymap sub - | dirtymap invert - | dirtymap invert - |
        dirtymap grow - --block 128K | dirtymap resize - 101M | dirtymap resize - 100M --force=cut |
        dirtymap shift - +1M | dirtymap shift - -1M | dirtymap convert --from map --to extents |
        dirtymap convert --from extents --to list");
    assert_eq!(all, "5242880 1048576\n67108864 131072\n");
    assert_eq!(
        sh("dirtymap stat - < m; dirtymap show - < m | grep -c volume; dirtymap check - < m || true")
            .matches("1.1 MiB")
            .count(),
        2
    );
    fails(&dir, &["or", "-", "-"], 2, "only once");
}

#[test]
fn what_is_there_is_not_replaced_by_accident() {
    let dir = Dir::new();
    says(&dir, &["create", "--size", "1M", "--all", "a"]);
    fails(&dir, &["create", "--size", "1M", "a"], 3, "it exists");
    fails(&dir, &["invert", "a", "-o", "a"], 3, "it exists");
    assert_eq!(list(&dir, "a"), "0 1048576\n");
    says(&dir, &["invert", "a", "-o", "a", "--replace"]);
    assert_eq!(list(&dir, "a"), "");
    fails(&dir, &["invert", "a", "-o", "."], 3, "something else than a file");
    says(&dir, &["invert", "a", "-o", "/dev/null"]);
    fails(&dir, &["invert", "a", "-o", "none/a"], 5, "No such file");
}

#[test]
fn what_does_not_belong_together_is_refused_unless_forced() {
    let dir = Dir::new();
    let (one, two) = ("1".repeat(32), "2".repeat(32));
    says(&dir, &["create", "--size", "1M", "--volume", &one, "a"]);
    says(&dir, &["create", "--size", "1M", "--volume", &two, "--all", "b"]);
    says(&dir, &["create", "--size", "2M", "c"]);
    let out = fails(&dir, &["or", "a", "b"], 9, &format!("of volume {one} and of {two}"));
    assert!(out.stderr.contains("try: the same with --force=volume"), "{}", out.stderr);
    fails(&dir, &["or", "a", "c"], 9, "of 1048576 bytes and of 2097152 bytes");
    says(&dir, &["or", "a", "b", "c", "--force=volume,size", "-o", "d"]);
    assert_eq!(list(&dir, "d"), "0 1048576\n");
    fails(&dir, &["resize", "d", "512K", "-o", "e"], 3, "cut off");
    assert!(!dir.path("e").exists());
    says(&dir, &["resize", "d", "512K", "--force=cut", "-o", "e"]);
    fails(&dir, &["grow", "a", "--block", "4K"], 2, "from 65536 to 4096");
    fails(&dir, &["set", "a", "1M+1"], 2, "ends at 1048577, the map at 1048576");
    fails(&dir, &["set", "a", "2..1"], 2, "ends before it begins");
}

#[test]
fn damaged_cut_foreign_and_missing_maps_are_one_line_each() {
    let dir = Dir::new();
    says(&dir, &["create", "--size", "10M", "good"]);
    let good = std::fs::read(dir.path("good")).expect("read");
    let cases: [(&str, Vec<u8>, i32, &str); 5] = [
        ("empty", Vec::new(), 9, "it has 0 bytes, expected 4096"),
        ("short", good[..4100].to_vec(), 9, "expected 4120"),
        ("foreign", vec![b'x'; 8192], 9, "magic"),
        (
            "flipped",
            {
                let mut b = good.clone();
                b[45] ^= 1;
                b
            },
            9,
            "checksum",
        ),
        (
            "newer",
            {
                let mut b = good.clone();
                b[8] = 9;
                b
            },
            3,
            "version 9",
        ),
    ];
    for (name, bytes, code, why) in cases {
        std::fs::write(dir.path(name), &bytes).expect("write");
        for args in [&["show", name][..], &["or", "good", name], &["set", name, "0+1"], &["check", name]] {
            fails(&dir, args, code, why);
        }
        assert_eq!(std::fs::read(dir.path(name)).expect("read"), bytes, "{name} is as it was");
        let out = dirtymap(&dir, &["or", "-", "good", "-o", "out"]).input(&bytes).run();
        out.fails("dirtymap", code, why);
        assert!(!dir.path("out").exists());
    }
    fails(&dir, &["show", "none"], 5, "No such file");
    fails(&dir, &["show", "."], 2, "not a regular file");
    fails(&dir, &["convert", "--from", "list", "--to", "map", "--size", "1M", "."], 5, "Is a directory");
    fails(&dir, &["convert", "--from", "nbdinfo", "--to", "map", "good"], 9, "good: reading it");
    fails(&dir, &["show", "v:leg/a"], 2, "no such volume");
}

#[test]
fn a_map_that_was_not_closed_counts_as_all_dirty_and_a_legs_map_is_not_cleared() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a.img", 1 << 20), dir.image("b.img", 1 << 20));
    let legs = [format!("a={}", a.display()), format!("b={}", b.display())];
    let volume = Volume::create(&dir, 1 << 20, &[&legs[0], &legs[1]], &["--known-zero"]);
    let map = volume.map("b");
    let path = map.to_str().expect("path");
    assert_eq!(says(&dir, &["check", path]), format!("{path}: clean\n"));
    fails(&dir, &["clear", path, "0+64K"], 3, "the map of leg");
    fails(&dir, &["invert", path, "-o", path, "--replace"], 3, "the map of leg");
    // As a crash of the machine leaves it: not closed, and of another boot.
    let mut bytes = std::fs::read(&map).expect("read");
    bytes[12] &= !1;
    bytes[120..136].fill(7);
    let sum = blake3_of(&bytes[..504]);
    bytes[504..512].copy_from_slice(&sum);
    std::fs::write(dir.path("crashed"), &bytes).expect("write");
    let out = dirtymap(&dir, &["show", "crashed", "--list"]).run().expect(0);
    assert_eq!(out.stdout, "0 1048576\n");
    assert!(out.stderr.contains("every block counts as dirty"), "{}", out.stderr);
}

/// The first eight bytes of a digest, as map headers have them.
fn blake3_of(bytes: &[u8]) -> [u8; 8] {
    mirror::device::fields::checksum(bytes).to_le_bytes()
}

#[test]
fn done_a_map_in_use_is_left_alone_and_read_through_its_daemon() {
    let dir = Dir::new();
    let (a, b) = (dir.image("a.img", 8 << 20), dir.image("b.img", 8 << 20));
    let legs = [format!("a={}", a.display()), format!("b={}", b.display())];
    let mut volume = Volume::create(&dir, 8 << 20, &[&legs[0], &legs[1]], &["--known-zero"]);
    volume.serve(&[]);
    let map = volume.map("b");
    let path = map.to_str().expect("path");
    for args in [
        &["show", path][..],
        &["set", path, "0+1"],
        &["clear", path, "0+1", "--force=leg"],
        &["create", "--size", "1M", "--replace", path],
    ] {
        fails(&dir, args, 75, "another process holds it");
    }
    fails(&dir, &["set", "vol:leg/b", "0+1"], 75, "owns it");
    fails(&dir, &["show", "vol:leg/c"], 2, "the legs are a, b");
    assert_eq!(says(&dir, &["check", "vol:leg/b"]), "vol:leg/b: clean\n");
    volume.mirrord(&["leg", "detach", "vol", "b"]).expect(0);
    let uri: mirror::nbd::uri::NbdUri = volume.uri().parse().expect("uri");
    let options = ClientOptions { export: "vol".into(), ..ClientOptions::default() };
    let mut client = Blocking::connect(&uri, options, Duration::from_secs(10)).expect("connect");
    client.write(1 << 20, &[1; 4096], false).expect("write");
    client.write(5 << 20, &vec![1; 70_000], false).expect("write");
    assert_eq!(list(&dir, "vol:leg/b"), "1048576 65536\n5242880 131072\n");
    let context = ["fetch", &volume.uri(), "--context", "x-mirror:dirty/b", "-o", "fetched"];
    says(&dir, &context);
    assert_eq!(list(&dir, "fetched"), list(&dir, "vol:leg/b"));
    // What a daemon says is of its volume, and combines with nothing else.
    says(&dir, &["create", "--size", "8M", "--volume", &"1".repeat(32), "other"]);
    fails(&dir, &["or", "vol:leg/b", "other"], 9, "of volume");
    fails(&dir, &["fetch", &volume.uri(), "--context", "x-mirror:dirty/c"], 6, "the server has no");
    client.disconnect().expect("disconnect");
    volume.stop();
    assert_eq!(list(&dir, path), "1048576 65536\n5242880 131072\n");
    fails(&dir, &["show", "vol:leg/b"], 6, "no mirrord serves it");
}

#[test]
fn done_maps_of_16_tib_combine_by_words_and_stay_sparse() {
    let dir = Dir::new();
    says(&dir, &["create", "--size", "16T", "a"]);
    says(&dir, &["create", "--size", "16T", "b"]);
    says(&dir, &["set", "a", "1T+1G"]);
    says(&dir, &["set", "b", "15T+1G", "1T+2G"]);
    says(&dir, &["or", "a", "b", "-o", "c"]);
    assert_eq!(list(&dir, "c"), "1099511627776 2147483648\n16492674416640 1073741824\n");
    assert_eq!(std::fs::metadata(dir.path("c")).expect("map").len(), 4096 + (32 << 20));
    assert!(allocated(&dir.path("c")) < 1 << 20, "{}", allocated(&dir.path("c")));
}

#[test]
fn done_digests_and_devices_differ_where_their_bytes_do() {
    use std::os::unix::fs::FileExt as _;
    let dir = Dir::new();
    let paths = [dir.image("a.img", (20 << 20) + 100), dir.image("b.img", (20 << 20) + 100)];
    let write = |at: usize, offset, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new().write(true).open(&paths[at]).expect("open");
        file.write_all_at(bytes, offset).expect("write");
    };
    for at in 0..2 {
        write(at, 3 << 20, b"both");
    }
    let root = says(&dir, &["digest", "a.img", "-o", "a.digest"]);
    assert_eq!(root.split_whitespace().next().map(str::len), Some(64));
    assert!(
        dirtymap(&dir, &["digest", "b.img", "-o", "b.digest"])
            .run()
            .expect(0)
            .stdout
            .starts_with(&root[..64])
    );
    for (a, b) in [("a.digest", "b.digest"), ("a.img", "b.digest"), ("a.digest", "b.img"), ("a.img", "b.img")]
    {
        says(&dir, &["diff", a, b, "-o", "/dev/null"]);
    }
    write(1, 5 << 20, b"only");
    write(1, (20 << 20) + 99, b"x");
    says(&dir, &["-q", "digest", "b.img", "-o", "b.digest", "--replace"]);
    for (a, b) in [("a.digest", "b.digest"), ("a.img", "b.digest"), ("a.digest", "b.img"), ("a.img", "b.img")]
    {
        dirtymap(&dir, &["-q", "diff", a, b, "-o", "d", "--replace"]).run().expect(1);
        assert_eq!(list(&dir, "d"), "5242880 65536\n20971520 100\n", "{a} {b}");
    }
    let progress = dirtymap(&dir, &["digest", "a.img", "--progress=2", "-o", "/dev/null"]).run().expect(0);
    assert!(
        progress.stderr.contains("\"schema\":\"mirror-progress/1\",\"done\":20971620"),
        "{}",
        progress.stderr
    );
    dir.image("c.img", 1 << 20);
    fails(&dir, &["diff", "a.img", "c.img"], 9, "20971620 bytes and 1048576 bytes");
    fails(&dir, &["diff", "a.digest", "b.digest", "--block", "4K"], 9, "digests of blocks of 65536");
    let mut bytes = std::fs::read(dir.path("b.digest")).expect("read");
    let end = bytes.len() - 40;
    bytes[end] ^= 1;
    std::fs::write(dir.path("b.digest"), bytes).expect("write");
    fails(&dir, &["diff", "a.digest", "b.digest"], 9, "does not match");
    fails(&dir, &["digest", "none"], 5, "No such file");
    fails(&dir, &["digest", "."], 2, "a directory");
}

#[test]
fn an_nbd_export_is_digested_like_the_file_behind_it() {
    if !crate::support::need(&["nbdkit"]) {
        return;
    }
    let dir = Dir::new();
    let image = dir.image("a.img", 30 << 20);
    std::fs::write(dir.path("data"), vec![7; 3 << 20]).expect("write");
    Tool::new("dd")
        .args(&["if=data", "of=a.img", "bs=1M", "seek=9", "conv=notrunc", "status=none"])
        .dir(&dir.path(""))
        .run()
        .expect(0);
    let socket = dir.path("s");
    let _server = crate::support::nbdkit(&dir, &socket, &["file", image.to_str().expect("path")]);
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let of = |device: &str| says(&dir, &["digest", device, "-o", "m", "--replace"])[..64].to_owned();
    assert_eq!(of(&uri), of("a.img"));
    says(&dir, &["diff", &uri, "m", "-o", "/dev/null"]);
    says(&dir, &["diff", &uri, "a.img", "-o", "/dev/null"]);
    assert!(says(&dir, &["size", "--like", &uri]).contains("64 KiB"));
    says(&dir, &["fetch", &uri, "-o", "allocated"]);
    assert_eq!(list(&dir, "allocated"), "9437184 3145728\n");
}

fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).expect("file").blocks() * 512
}
