//! `cfor-log` from the shell: what it says, what it refuses, and that no crafted dump leaves the root.

use crate::support::{Dir, Disk, Pair, Tool, bin, need};
use mirror::base::{Class, Id};
use mirror::fslog::dump::finish;
use mirror::fslog::meta::{Kind, Time, Xattrs};
use mirror::fslog::record::Identity;
use mirror::fslog::{
    FrameWriter, Header, Index, Magic, Meta, ObjectId, Part, Record, Round, State, logfile, merkle,
};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

fn tool(args: &[&str]) -> Tool {
    Tool::new(bin("cfor-log")).args(args)
}

/// A directory with trees `a` and `b`, and paths as text.
fn trees() -> (Dir, impl Fn(&str) -> String) {
    let dir = Dir::new();
    for name in ["a", "b"] {
        std::fs::create_dir(dir.path(name)).expect("mkdir");
    }
    let base = dir.path("x").parent().expect("parent").to_owned();
    (dir, move |name: &str| base.join(name).to_string_lossy().into_owned())
}

#[test]
fn cfor_log_names_what_is_missing() {
    let (dir, path) = trees();
    let (a, none, file) = (path("a"), path("none"), dir.image("file", 5).to_string_lossy().into_owned());
    for (args, code, why) in [
        (&["scan"][..], 2, "--root"),
        (&["scan", "--root", &a], 2, "--output"),
        (&["scan", "--root", &none, "-o", &path("i")], 5, "No such file"),
        (&["scan", "--root", &file, "-o", &path("i")], 2, "Not a directory"),
        (&["scan", "--root", &a, "-o", &path("a/i")], 2, "it is inside"),
        (&["show"], 2, "<LOG>"),
        (&["show", &none], 5, "No such file"),
        (&["show", &file], 9, "no log, no index and no dump"),
        (&["stat", &file], 9, "no log, no index and no dump"),
        (&["merge", &file], 9, "no log, no index and no dump"),
        (&["rotate", &file, &path("o")], 9, "found something else, expected a log"),
        (&["dump", &path("l")], 2, "--root"),
        (&["dump", &path("l"), "--root", &none], 5, "No such file"),
        (&["dump", &path("a/l"), "--root", &a], 2, "it is inside"),
        (&["dump", &path("l"), "--root", &a, "--standby", "../x"], 2, "checking a name"),
        (&["dump", &path("l"), "--root", &a, "--json"], 2, "cannot both go"),
        (&["dump", &path("l"), "--root", &a, "-o", "/dev/null"], 3, "no regular file"),
        (&["ack", &path("l"), "x", "5"], 9, "not kept"),
        (&["ack", &path("l"), "x", "5:"], 2, "not NUMBER:DIGEST"),
        (&["ack", &none, "x", &Round::default().to_string()], 2, "no directory of a source"),
        (&["ack", &path("state"), "x", &Round::default().to_string()], 9, "not kept"),
        (&["ack", &path("state"), "x"], 1, "nothing was applied"),
        (&["apply", &none, "--root", &a, "--log", &path("s")], 5, "No such file"),
        (&["apply", &file, "--root", &a, "--log", &path("s")], 9, "found something else, expected a dump"),
        (&["apply", "--root", &a, "--log", &path("a/s")], 2, "it is inside"),
        (&["verify", "--root", &a, "--log", &none], 5, "No such file"),
        (&["verify", "--root", &a, "--against", &file], 9, "found something else, expected an index"),
        (&["seed", "--root", &a, "--log", &path("l")], 2, "<TARGET>"),
        (&["seed", "--root", &a, "--log", &path("l"), &path("a/b")], 2, "it is inside"),
    ] {
        tool(args).run().fails("cfor-log", code, why);
    }
    assert_eq!(std::fs::read_dir(&a).expect("a").count(), 0, "nothing was made");
}

#[test]
fn a_round_goes_through_pipes_and_is_acknowledged() {
    let (dir, path) = trees();
    let (a, b, source, standby) = (path("a"), path("b"), path("source"), path("standby"));
    std::fs::write(dir.path("a").join("toto"), "one").expect("write");
    let round = |options: &str| {
        let script = format!(
            "cfor-log dump {source} --root {a} | cfor-log apply --root {b} --log {standby} {options} | cfor-log ack {source} standby"
        );
        let paths = format!("{}:/usr/bin:/bin", bin("cfor-log").parent().expect("directory").display());
        Tool::new("/bin/sh").args(&["-c", &script]).env("PATH", paths).run()
    };
    round("--verify").expect(0);
    assert_eq!(std::fs::read(dir.path("b").join("toto")).expect("toto"), b"one");
    tool(&["verify", "--root", &b, "--against", &a]).run().expect(0);
    std::fs::rename(dir.path("a").join("toto"), dir.path("a").join("tata")).expect("rename");
    round("").expect(0);
    let out = tool(&["stat", &source, "--json"]).run().expect(0);
    let stat: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    assert_eq!((&stat["schema"], &stat["what"]), (&"cfor-stat/1".into(), &"source".into()));
    assert_eq!(stat["round"], stat["acknowledged"]["standby"]);
    let held = tool(&["stat", &standby, "--json"]).run().expect(0);
    let held: serde_json::Value = serde_json::from_str(&held.stdout).expect("json");
    assert_eq!(held["round"], stat["round"], "both sides name the same round");
}

#[test]
fn an_edited_standby_and_another_base_are_refused() {
    let (dir, path) = trees();
    let (a, b, source, standby, dump) = (path("a"), path("b"), path("source"), path("standby"), path("dump"));
    let (make, apply) = (
        || tool(&["dump", &source, "--root", &a, "-o", &dump]).run().expect(0),
        || tool(&["apply", &dump, "--root", &b, "--log", &standby]).run(),
    );
    std::fs::write(dir.path("a").join("f"), "one").expect("write");
    make();
    let first = std::fs::read(dir.path("dump")).expect("dump");
    let out = apply().expect(0);
    tool(&["ack", &source, "standby", out.stdout.trim()]).run().expect(0);
    assert_eq!(apply().expect(0).stdout, out.stdout, "the same dump again is no error");

    std::fs::write(dir.path("a").join("f"), "two").expect("write");
    make();
    std::fs::write(dir.path("b").join("mine"), "x").expect("edit");
    let refused = apply().fails("cfor-log", 4, "changed by others");
    assert!(refused.stderr.contains("try: "), "{}", refused.stderr);
    assert_eq!(std::fs::read(dir.path("b").join("f")).expect("f"), b"one");
    let differs = tool(&["verify", "--root", &b, "--log", &standby]).run().expect(1);
    assert!(differs.stdout.contains("extra mine"), "{}", differs.stdout);

    let (c, other) = (path("c"), path("other"));
    std::fs::create_dir(&c).expect("mkdir");
    tool(&["apply", &dump, "--root", &c, "--log", &other]).run().fails("cfor-log", 9, "begins at round 1:");
    tool(&["apply", "--root", &b, "--log", &other]).input(&first).run().fails("cfor-log", 3, "is not empty");
}

#[test]
fn privileged_contents_need_leave() {
    let (dir, path) = trees();
    let (a, b, source, dump) = (path("a"), path("b"), path("source"), path("dump"));
    let file = dir.path("a").join("su");
    std::fs::write(&file, "x").expect("write");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).expect("chmod");
    tool(&["dump", &source, "--root", &a, "-o", &dump]).run().expect(0);
    let args = ["apply", &dump, "--root", &b, "--log", &path("standby")];
    let out = tool(&args).run().fails("cfor-log", 3, "su: applying: it has mode 4755 (set-uid or set-gid)");
    assert!(out.stderr.contains("--privileged"), "{}", out.stderr);
    assert_eq!(std::fs::read_dir(&b).expect("b").count(), 0);
    tool(&args).args(&["--privileged"]).run().expect(0);
    tool(&["verify", "--root", &b, "--against", &a]).run().expect(0);
}

#[test]
fn the_barrier_is_told_its_phases() {
    let (dir, path) = trees();
    let (a, source, dump, said) = (path("a"), path("source"), path("dump"), path("said"));
    let dump_with =
        |command: &str| tool(&["dump", &source, "--root", &a, "-o", &dump, "--barrier", command]).run();
    dump_with(&format!("echo $MIRROR_PHASE >> {said}")).expect(0);
    assert_eq!(std::fs::read_to_string(dir.path("said")).expect("said"), "pre-dump\ndump\npost-dump\n");
    std::fs::remove_file(dir.path("said")).expect("rm");
    let out = dump_with(&format!("echo $MIRROR_PHASE >> {said}; [ $MIRROR_PHASE != dump ]"));
    out.fails("cfor-log", 3, "running it in phase dump: exit status: 1");
    assert_eq!(std::fs::read_to_string(dir.path("said")).expect("said"), "pre-dump\ndump\nabort-dump\n");
}

#[test]
fn each_standby_has_a_round_of_its_own() {
    let (dir, path) = trees();
    std::fs::create_dir(dir.path("c")).expect("mkdir");
    let (a, source) = (path("a"), path("source"));
    let round = |name: &str| {
        let (root, log, dump) = (path(name), path(&format!("{name}.log")), path("dump"));
        tool(&["dump", &source, "--root", &a, "-o", &dump, "--standby", name]).run().expect(0);
        let out = tool(&["apply", &dump, "--root", &root, "--log", &log]).run().expect(0);
        tool(&["ack", &source, name, out.stdout.trim()]).run().expect(0);
        tool(&["verify", "--root", &root, "--against", &a]).run().expect(0);
    };
    for step in 0..20 {
        std::fs::write(dir.path("a").join(format!("f{}", step % 3)), format!("{step}")).expect("write");
        round("b");
        if step % 6 == 0 {
            round("c");
        }
    }
    let kept = std::fs::read_dir(dir.path("source")).expect("list").count();
    assert!(kept < 40, "{kept} files are kept");
}

#[test]
fn seed_leaves_an_identical_tree() {
    let (dir, path) = trees();
    std::fs::write(dir.path("a").join("f"), "x".repeat(300_000)).expect("write");
    let (a, b) = (path("a"), path("b"));
    let args =
        ["seed", "--root", &a, "--log", &path("source"), "--target-log", &path("standby"), &b, "--json"];
    let out = tool(&args).run().expect(0);
    let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    assert_eq!((&report["schema"], &report["rounds"][0]["base"]), (&"cfor-seed/1".into(), &0.into()));
    tool(&["verify", "--root", &b, "--against", &a]).run().expect(0);
}

#[test]
fn done_the_log_shows_merges_and_rotates() {
    let dir = Dir::new();
    let id = ObjectId(2);
    let log = |name: &str, ranges: &[(u64, u64)]| {
        let mut state = State::default();
        let identity = Identity { kind: Kind::File, handle: vec![1], hint: b"toto".to_vec() };
        state.add(&Record::Ino { id, identity });
        for (start, end) in ranges {
            state.add(&Record::Data { id, range: *start..*end });
        }
        let header = logfile::header(Id([1; 16]), Round::default());
        let bytes = logfile::whole(&header, 1, &state, true);
        std::fs::write(dir.path(name), bytes).expect("write");
        dir.path(name).to_string_lossy().into_owned()
    };
    let (one, two) = (log("one", &[(20, 500), (400, 9000)]), log("two", &[(8000, 30_030)]));
    assert_eq!(tool(&["show", &one, &two]).run().expect(0).stdout, "write toto 20..30030\n");
    let merged = dir.path("merged").to_string_lossy().into_owned();
    tool(&["merge", &two, &one, "-o", &merged]).run().expect(0);
    let out = tool(&["show", &merged, "--json"]).run().expect(0);
    let shown: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    assert_eq!(shown["schema"], "cfor-show/1");
    assert_eq!(shown["operations"][0]["ranges"][0], serde_json::json!({"start": 20, "end": 30030}));
    let rotated = dir.path("rotated").to_string_lossy().into_owned();
    tool(&["rotate", &merged, &rotated]).run().expect(0);
    assert_eq!(tool(&["show", &merged]).run().expect(0).stdout, "");
    assert_eq!(tool(&["show", &rotated]).run().expect(0).stdout, "write toto 20..30030\n");
    tool(&["rotate", &merged, &rotated]).run().fails("cfor-log", 3, "File exists");

    let mut torn = std::fs::read(&one).expect("read");
    torn.truncate(torn.len() - 3);
    std::fs::write(dir.path("torn"), torn).expect("write");
    let torn = dir.path("torn").to_string_lossy().into_owned();
    let out = tool(&["stat", &torn]).run().expect(1);
    assert!(out.stdout.contains("lost: the end of the log is torn"), "{}", out.stdout);
}

#[allow(clippy::unnecessary_box_returns)] // as parts take it
fn meta(kind: Kind, link: &str) -> Box<Meta> {
    Box::new(Meta {
        kind,
        mode: if kind == Kind::Symlink { 0 } else { 0o755 },
        uid: 0,
        gid: 0,
        mtime: Time { seconds: 1, nanos: 0 },
        atime: Time::default(),
        size: if kind == Kind::File { 4 } else { 0 },
        device: (0, 0),
        flags: 0,
        link: link.as_bytes().to_vec(),
        xattrs: Xattrs::new(),
    })
}

/// A whole, well-formed dump of these parts onto this base.
fn crafted(base: &Index, parts: &[Part<'_>]) -> Vec<u8> {
    let header = Header {
        magic: Magic::Dump,
        options: 0,
        tree: base.tree,
        base: base.round,
        round: base.round.number + 1,
        time: 0,
    };
    let mut to = FrameWriter::new("crafted", Vec::new(), &header).expect("header");
    for part in parts {
        part.write(&mut to).expect("part");
    }
    let root = merkle::Hashes::of(base).expect("hashes").root;
    finish(to, root, 1000).expect("finish")
}

fn untouched(outside: &Path) {
    let names: Vec<_> =
        std::fs::read_dir(outside).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["keep"], "something was written outside the root");
    assert_eq!(std::fs::read(outside.join("keep")).expect("keep"), b"keep");
}

#[test]
fn done_no_crafted_stream_writes_outside_the_root() {
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    let outside = disk.path("outside");
    std::fs::create_dir(&outside).expect("mkdir");
    std::fs::write(outside.join("keep"), "keep").expect("write");
    // The first step of the attack is lawful: a link that points out, as any tree may have.
    symlink("../outside", pair.source.root.join("x")).expect("symlink");
    std::fs::create_dir(pair.source.root.join("d")).expect("mkdir");
    std::fs::write(pair.source.root.join("d/f"), "f").expect("write");
    pair.apply(&pair.dump()).expect("apply");
    let base = mirror::capture::store::load_index(&pair.standby.log.join("index")).expect("index");
    let names = base.names();
    let find = |path: &[u8]| *base.objects.keys().find(|id| names.path(**id) == path).expect("object");
    let (link, dir, file) = (find(b"x"), find(b"d"), find(b"d/f"));
    let (new, root) = (ObjectId(500), ObjectId::ROOT);
    let data = || Part::Data { id: new, offset: 0, bytes: b"evil" };
    let file_new = || Part::New { id: new, meta: meta(Kind::File, "") };
    let bad_names: [&[u8]; 9] =
        [b"..", b".", b"", b"a/b", b"../outside/f", b"/etc/f", b"x/f", b".cfor-log.stage", b"a\0b"];
    let mut streams: Vec<(String, Vec<u8>)> = bad_names
        .iter()
        .map(|name| {
            let parts = [file_new(), data(), Part::Name { dir: root, name, id: new }];
            (format!("the name {}", name.escape_ascii()), crafted(&base, &parts))
        })
        .collect();
    let mut add = |what: &str, parts: &[Part<'_>]| streams.push((what.to_owned(), crafted(&base, parts)));
    add(
        "the second step: a file in the link",
        &[file_new(), data(), Part::Name { dir: link, name: b"f", id: new }],
    );
    add("the link becomes a directory", &[Part::Changed { id: link, meta: meta(Kind::Dir, "") }]);
    add(
        "data for the link",
        &[
            Part::Changed { id: link, meta: meta(Kind::Symlink, "../outside") },
            Part::Data { id: link, offset: 0, bytes: b"evil" },
        ],
    );
    add(
        "a directory beneath itself",
        &[Part::Unname { dir: root, name: b"d", id: dir }, Part::Name { dir, name: b"loop", id: dir }],
    );
    add("a directory with two names", &[Part::Name { dir: root, name: b"e", id: dir }]);
    add("a name that is taken", &[file_new(), data(), Part::Name { dir: root, name: b"d", id: new }]);
    add("a name that is not there", &[Part::Unname { dir: root, name: b"y", id: file }]);
    add("an object without a name", &[file_new(), data()]);
    add("an object twice", &[file_new(), file_new()]);
    add(
        "data past the end",
        &[
            file_new(),
            Part::Data { id: new, offset: 1 << 40, bytes: b"evil" },
            Part::Name { dir: root, name: b"new", id: new },
        ],
    );
    add("the root is gone", &[Part::Gone { id: root }]);
    add(
        "a full directory is gone",
        &[Part::Unname { dir: root, name: b"d", id: dir }, Part::Gone { id: dir }],
    );
    for (what, bytes) in streams {
        let error = pair.apply(&bytes).expect_err(&what);
        assert_eq!(error.class, Class::Damaged, "{what}: {error}");
        assert!(!error.message.contains("promises"), "{what}: {error}");
        untouched(&outside);
        assert_eq!(pair.differences(), [""; 0], "{what}: nothing was touched");
    }
    // Lawful in all but the digest that it promises.
    let parts = [
        file_new(),
        data(),
        Part::Unname { dir: root, name: b"x", id: link },
        Part::Name { dir: root, name: b"x", id: new },
        Part::Gone { id: link },
    ];
    let error = pair.apply(&crafted(&base, &parts)).expect_err("its digest");
    assert!(error.message.contains("promises"), "{error}");
    untouched(&outside);
    assert_eq!(pair.differences(), [""; 0]);
}

#[test]
fn a_damaged_truncated_or_reordered_dump_touches_nothing() {
    let disk = Disk::plain();
    let pair = Pair::new(&disk);
    for name in ["f", "g"] {
        std::fs::write(pair.source.root.join(name), name.repeat(50)).expect("write");
    }
    let bytes = pair.dump();
    let refused = |bytes: &[u8], what: &str| {
        let error = pair.apply(bytes).expect_err(what);
        assert_eq!(error.class, Class::Damaged, "{what}: {error}");
        assert_eq!(std::fs::read_dir(&pair.standby.root).expect("b").count(), 0, "{what}");
    };
    for at in (0..bytes.len()).step_by(11) {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        if !(8..40).contains(&at) {
            refused(&bad, &format!("byte {at}"));
        }
        refused(&bytes[..at], &format!("cut at {at}"));
    }
    refused(&[&bytes[..], b"x"].concat(), "more behind the end");
    pair.apply(&bytes).expect("whole");
}

#[test]
fn a_full_standby_is_an_error_and_goes_on_when_there_is_room() {
    if !need(&["root"]) {
        return;
    }
    let disk = Disk::new("tmpfs");
    let pair = Pair::new(&disk);
    std::fs::write(pair.source.root.join("f"), vec![7; 100 << 20]).expect("write");
    std::fs::write(disk.path("ballast"), vec![1; 450 << 20]).expect("write");
    let bytes = pair.dump();
    let error = pair.apply(&bytes).expect_err("no room");
    assert!(error.class == Class::Io && error.message.contains("No space left"), "{error}");
    std::fs::remove_file(disk.path("ballast")).expect("rm");
    pair.apply(&bytes).expect("the interrupted one is finished first");
    assert_eq!(pair.differences(), [""; 0]);
}
