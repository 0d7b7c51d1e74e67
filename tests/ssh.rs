//! The way to another machine, against a real sshd on loopback: whether it is the one that is meant, who one is
//! there, through which others, and what a forced command lets one do.

use crate::support::{Dir, SSH, Sshd, Tool, bin, need, run};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// A sparse file with some bytes in it.
fn image(path: &Path, size: u64, writes: &[(u64, u8)]) {
    let file = std::fs::File::create(path).expect("image");
    file.set_len(size).expect("size");
    for (at, byte) in writes {
        file.write_all_at(&[*byte; 1000], *at).expect("write");
    }
}

/// Two images, one on the far side, that differ in two blocks.
fn images(sshd: &Sshd) -> (String, String) {
    let (here, there) = (sshd.dir.path("here"), sshd.dir.path("far/image"));
    image(&here, 40 << 20, &[(0, 1), (9 << 20, 2), (33 << 20, 3)]);
    image(&there, 40 << 20, &[(0, 1), (9 << 20, 7), (33 << 20, 3), (39 << 20, 4)]);
    (here.display().to_string(), sshd.far("image"))
}

#[test]
fn devices_are_compared_and_digested_where_they_are() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let (here, there) = images(&sshd);
    let local = sshd.dir.path("far/image").display().to_string();
    let rsh = sshd.rsh();
    let expected = sshd.tool("dirtymap", &["-q", "diff", &here, &local]).run().expect(1);
    assert!(!expected.stdout.is_empty() || expected.stderr.is_empty());
    let digest = sshd.tool("dirtymap", &["-q", "digest", &local]).run_into(std::process::Stdio::null());
    digest.expect(0);
    for way in [&[][..], &["--rsh", &rsh]] {
        let args = |verb: &'static str, rest: &[&str]| {
            let words = [&["-q", verb], rest, way].concat();
            words.into_iter().map(ToOwned::to_owned).collect::<Vec<String>>()
        };
        let (one, other) = (sshd.dir.path("one.map"), sshd.dir.path("other.map"));
        for (out, theirs) in [(&one, &local), (&other, &there)] {
            let out = out.display().to_string();
            let args = args("diff", &[&here, theirs, "--replace", "-o", &out]);
            sshd.tool("dirtymap", &args.iter().map(String::as_str).collect::<Vec<_>>()).run().expect(1);
        }
        let maps = [one, other].map(|path| {
            sshd.tool("dirtymap", &["show", "--list", &path.display().to_string()]).run().expect(0).stdout
        });
        assert_eq!(maps[0], maps[1]);
        assert_eq!(maps[0].lines().count(), 2, "{}", maps[0]);
        let manifests = [("a", &local), ("b", &there)].map(|(name, device)| {
            let out = sshd.dir.path(name).display().to_string();
            let args = args("digest", &[device, "--replace", "-o", &out]);
            sshd.tool("dirtymap", &args.iter().map(String::as_str).collect::<Vec<_>>()).run().expect(0);
            std::fs::read(out).expect("manifest")
        });
        assert!(manifests[0] == manifests[1], "the manifest of a device is the same from everywhere");
    }
}

#[test]
fn a_host_that_is_not_known_is_refused_until_its_line_is_typed() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let (here, there) = images(&sshd);
    let diff = || sshd.tool("dirtymap", &["-q", "diff", &here, &there]).run();
    std::fs::remove_file(sshd.home(".ssh/known_hosts")).expect("remove");
    let refused = diff().fails("dirtymap", 6, "verifying its host key: ssh-ed25519 SHA256:");
    let print = run("ssh-keygen", &["-lf", &sshd.dir.path("host.pub").display().to_string()]).stdout;
    let print = print.split(' ').nth(1).expect("fingerprint").to_owned();
    assert!(refused.stderr.contains(&print), "{} {print}", refused.stderr);
    let hint =
        refused.stderr.lines().find_map(|line| line.strip_prefix("try: ")).expect("what to type").to_owned();
    assert_eq!(run("sh", &["-c", &hint]).code, 0, "{hint}");
    diff().expect(1);
    // The same, hashed as ssh-keygen -H does it.
    let known = sshd.home(".ssh/known_hosts").display().to_string();
    assert_eq!(run("ssh-keygen", &["-H", "-f", &known]).code, 0);
    assert!(std::fs::read_to_string(&known).expect("known").starts_with("|1|"));
    diff().expect(1);
    // Another key of the same type: somebody may listen.
    let stranger = sshd.dir.path("stranger").display().to_string();
    assert_eq!(run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &stranger]).code, 0);
    let key = std::fs::read_to_string(format!("{stranger}.pub")).expect("key");
    let key: Vec<_> = key.split_whitespace().take(2).collect();
    std::fs::write(&known, format!("[127.0.0.1]:{} {}\n", sshd.port(), key.join(" "))).expect("known");
    diff().fails("dirtymap", 6, "another one stands in");
    // A key that is marked as revoked, although its host is known by it.
    let line = sshd.line();
    let revoked = format!("{line}@revoked * {}", line.split_once(' ').expect("line").1);
    std::fs::write(&known, revoked).expect("known");
    diff().fails("dirtymap", 6, "is revoked in");
}

#[test]
fn keys_of_files_and_of_an_agent_let_one_in_and_nothing_is_ever_asked() {
    if !need(&[&SSH[..], &["ssh-agent"]].concat()) {
        return;
    }
    let sshd = Sshd::start("");
    let (here, there) = images(&sshd);
    let key = sshd.home(".ssh/id_ed25519");
    let elsewhere = sshd.dir.path("key");
    std::fs::rename(&key, &elsewhere).expect("rename");
    let diff = || sshd.tool("dirtymap", &["-q", "diff", &here, &there]);
    let refused = diff().run().fails("dirtymap", 6, "no key to show");
    assert!(refused.stderr.contains("try: ssh-copy-id"), "{}", refused.stderr);
    // An agent that holds it.
    let socket = sshd.dir.path("agent").display().to_string();
    let elsewhere_text = elsewhere.display().to_string();
    let script = format!("ssh-add -q {elsewhere_text} && exec \"$@\"");
    let tool = crate::support::bin("dirtymap").display().to_string();
    let words = ["-a", &socket, "sh", "-c", &script, "sh", &tool, "-q", "diff", &here, &there];
    let with_agent = crate::support::Tool::new("ssh-agent").args(&words).env("HOME", sshd.dir.path("home"));
    with_agent.run().expect(1);
    // Named in the configuration.
    std::fs::write(sshd.home(".ssh/config"), format!("IdentityFile {elsewhere_text}\n"))
        .expect("configuration");
    diff().run().expect(1);
    // With a passphrase.
    let change = ["-p", "-q", "-P", "", "-N", "secret", "-f", &elsewhere_text];
    assert_eq!(run("ssh-keygen", &change).code, 0);
    diff().run().fails("dirtymap", 6, "is encrypted (ssh-add it)");
}

#[test]
fn the_configuration_says_where_a_name_leads_and_through_whom() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let (here, _) = images(&sshd);
    let there = format!("ssh://standby{}", sshd.dir.path("far/image").display());
    let config = |text: &str| std::fs::write(sshd.home(".ssh/config"), text).expect("configuration");
    let diff = || sshd.tool("dirtymap", &["-q", "diff", &here, &there]).run();
    let place = format!("Host standby\n  HostName 127.0.0.1\n  Port {}\n", sshd.port());
    config(&place);
    diff().expect(1);
    // Through another host, which here is the same one.
    config(&format!("{place}  ProxyJump gate\nHost gate\n  HostName 127.0.0.1\n  Port {}\n", sshd.port()));
    diff().expect(1);
    config(&format!("{place}  ProxyJump 127.0.0.1:{}\n", sshd.port()));
    diff().expect(1);
    config(&format!("{place}  ProxyCommand nc %h %p\n"));
    let told = diff().fails("dirtymap", 6, "ProxyCommand");
    assert!(
        told.stderr.contains("is not understood here")
            && told.stderr.contains("try: the same with --rsh ssh")
    );
    for bad in ["ssh://-oProxyCommand=x/y", "ssh://-l@h/y", "ssh://h"] {
        sshd.tool("dirtymap", &["digest", bad]).run().fails("dirtymap", 2, "reading an ssh:// address");
    }
    config("Host standby\n  HostName -oProxyCommand=x\n");
    diff().fails("dirtymap", 2, "begins with '-'");
}

/// CVE-2025-14946 (libnbd): a host that begins with `-o` became an option of ssh, and so a command of a stranger. Wherever
/// a host can come from, nothing is started, and no name is looked up.
#[test]
fn c10_no_host_that_looks_like_an_option_reaches_a_command_line() {
    let dir = Dir::new();
    let (rsh, argv) = (dir.path("rsh"), dir.path("argv"));
    std::fs::write(&rsh, format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\nexit 1\n", argv.display()))
        .expect("script");
    std::fs::set_permissions(&rsh, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    image(&dir.path("here"), 1 << 20, &[]);
    std::fs::create_dir(dir.path(".ssh")).expect("directory");
    let (rsh, here) = (rsh.display().to_string(), dir.path("here").display().to_string());
    let tool = |name: &str, args: &[&str]| {
        Tool::new(bin(name)).args(args).env("HOME", dir.path("")).env("MIRROR_STATE_DIR", dir.state()).run()
    };
    let started = || std::fs::read_to_string(&argv).ok();
    for address in [
        "ssh://-oProxyCommand=touch/x",
        "ssh://[-oProxyCommand=touch]/x",
        "ssh://-oProxyCommand=touch@far/x",
        "ssh://me@-oProxyCommand=touch/x",
        "ssh://me@-oProxyCommand=touch:22/x",
        "nbd://-oProxyCommand=touch/x",
        "nbd://-oProxyCommand/x",
        "nbd://%2doProxyCommand/x",
        "nbd+ssh://-oProxyCommand=touch/x",
    ] {
        let far = address.starts_with("ssh:");
        let way = if far { &["--rsh", &rsh[..]][..] } else { &[] };
        for (name, args) in [
            ("dirtymap", &["-q", "digest", address][..]),
            ("mirror-sync", &["-q", "--full", &here, address]),
            ("mirror-sync", &["-q", "--full", address, "null:"]),
        ] {
            let out = tool(name, &[args, way].concat());
            assert_eq!(out.code, 2, "{name} {address}: {}", out.stderr);
            assert_eq!(started(), None, "{name} {address}");
        }
        let legs = [&["create", "v", "--size", "1M"][..], &[&format!("a={here}"), &format!("b={address}")]];
        let out = tool("mirrord", &legs.concat());
        assert_eq!(out.code, 2, "{address}: {}", out.stderr);
    }
    // An honest one does reach it, so that the above proves something.
    tool("dirtymap", &["-q", "digest", "ssh://far/x", "--rsh", &rsh]);
    assert!(started().is_some_and(|words| words.starts_with("far\n")), "{:?}", started());
    for line in ["HostName -oProxyCommand=touch", "ProxyJump -oProxyCommand=touch", "ProxyJump me@-l,gate"] {
        std::fs::write(dir.path(".ssh/config"), format!("Host far\n  {line}\n")).expect("configuration");
        let out = tool("dirtymap", &["-q", "digest", "ssh://far/x"]);
        assert!(out.code != 0 && out.stderr.contains("begins with '-'"), "{line}: {}", out.stderr);
    }
}

#[test]
fn what_goes_wrong_over_there_is_told_in_one_line() {
    if !need(&SSH) {
        return;
    }
    let sshd = Sshd::start("");
    let (_, there) = images(&sshd);
    let rsh = sshd.rsh();
    for way in [&[][..], &["--rsh", &rsh]] {
        let digest = |args: &[&str]| sshd.tool("dirtymap", &[&["-q", "digest"], args, way].concat()).run();
        let missing = digest(&[&there, "--remote-path", "/nowhere/mirror-sync"]);
        let missing = missing.fails("dirtymap", 6, "starting mirror-sync over there");
        assert!(missing.stderr.contains("try: the same with --remote-path"), "{}", missing.stderr);
        digest(&[&there, "--remote-path", "/bin/true"]).fails("dirtymap", 6, "ended before it said anything");
        digest(&[&there, "--remote-path", "/bin/echo"]).fails(
            "dirtymap",
            6,
            "'--serve' where a hello was expected",
        );
        let none = digest(&[&sshd.far("none")]).fails("dirtymap", 5, "No such file");
        assert!(none.stderr.contains("its far end says"), "{}", none.stderr);
        digest(&[&sshd.far("")]).fails("dirtymap", 2, "a directory");
    }
    let closed = "ssh://127.0.0.1:1/x";
    sshd.tool("dirtymap", &["digest", closed]).run().fails("dirtymap", 6, "Connection refused");
    sshd.tool("dirtymap", &["digest", closed, "--rsh", &rsh]).run().fails("dirtymap", 6, "connecting");
    sshd.tool("dirtymap", &["digest", closed, "--rsh", "/none"]).run().fails(
        "dirtymap",
        6,
        "--rsh /none: starting it",
    );
    // The far end of a copy does not talk to people.
    let dir = Dir::new();
    let script = crate::support::run(
        "script",
        &[
            "-qec",
            &format!("{} --serve", crate::support::bin("mirror-sync").display()),
            &dir.path("log").display().to_string(),
        ],
    );
    assert_eq!(script.code, 2, "{}", script.stdout);
}

#[test]
fn a_forced_command_confines_to_its_root_and_to_reading() {
    if !need(&SSH) {
        return;
    }
    let tool = crate::support::bin("mirror-sync").display().to_string();
    let root = Dir::new();
    let options =
        |more: &str| format!("restrict,command=\"{tool} --serve --root {}{more}\"", root.path("").display());
    let sshd = Sshd::start(&options(" --read-only"));
    image(&root.path("image"), 1 << 20, &[(0, 1)]);
    image(&sshd.dir.path("secret"), 1 << 20, &[(0, 1)]);
    symlink(sshd.dir.path("secret"), root.path("out")).expect("symlink");
    symlink("image", root.path("in")).expect("symlink");
    let digest =
        |path: &str| sshd.tool("dirtymap", &["-q", "digest", "-o", "/dev/null", &sshd.uri(path)]).run();
    digest("/image").expect(0);
    digest("/in").expect(0);
    let secret = sshd.dir.path("secret").display().to_string();
    for bad in [
        "/out".to_owned(),
        format!("/../{}", secret.trim_start_matches("/tmp/")),
        "/../../etc/passwd".to_owned(),
    ] {
        digest(&bad).fails("dirtymap", 3, "it leads out of the root");
    }
    // An absolute path is one beneath the root.
    digest(&secret).fails("dirtymap", 5, "No such file");
    // Whatever else is asked of the server, the same command runs.
    let ssh = sshd.rsh();
    let words: Vec<_> = ssh
        .split(' ')
        .skip(1)
        .map(ToOwned::to_owned)
        .chain(["-p".into(), sshd.port().to_string(), "127.0.0.1".into(), "id".into()])
        .collect();
    let other = run("ssh", &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!other.stdout.contains("uid="), "{}", other.stdout);
    // A standby there cannot be changed by a key that only reads.
    std::fs::create_dir(root.path("tree")).expect("mkdir");
    std::fs::set_permissions(root.path("tree"), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let tree = Dir::new();
    std::fs::create_dir(tree.path("here")).expect("mkdir");
    let here = tree.path("here").display().to_string();
    let log = tree.path("log").display().to_string();
    let seed =
        sshd.tool("cfor-log", &["-q", "seed", "--root", &here, "--log", &log, &sshd.uri("/tree")]).run();
    seed.fails("cfor-log", 3, "only reading is allowed here");
}
