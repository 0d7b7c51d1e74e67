//! The battery that every program must pass.

use crate::support::{Dir, Tool, bin, bins};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

#[test]
fn help_and_version_go_to_standard_output() {
    for name in bins() {
        for flag in ["--help", "-h"] {
            let out = Tool::new(bin(&name)).args(&[flag]).run().expect(0);
            assert!(out.stdout.contains("Usage:") && out.stdout.contains(&name), "{}", out.stdout);
            assert_eq!(out.stderr, "");
        }
        let out = Tool::new(bin(&name)).args(&["--version"]).run().expect(0);
        assert_eq!(out.stdout, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    for name in bins() {
        let with = |args: &[&str]| Tool::new(bin(&name)).args(args).run();
        with(&[]).fails(&name, 2, "");
        with(&["--no-such-option"]).fails(&name, 2, "'--no-such-option'");
        with(&["no-such-verb"]).fails(&name, 2, "no-such-verb");
    }
}

#[test]
fn a_closed_pipe_is_silence() {
    for name in bins() {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let out = Tool::new(bin(&name)).args(&["--help"]).run_into(Stdio::from(writer)).expect(0);
        assert_eq!(out.stderr, "");
    }
}

#[test]
fn a_full_standard_output_is_an_error_of_one_line() {
    for name in bins() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let out = Tool::new(bin(&name)).args(&["--help"]).run_into(Stdio::from(full));
        out.fails(&name, 5, "standard output: writing: No space left on device");
    }
}

#[test]
fn mirrord_names_what_is_missing() {
    let dir = Dir::new();
    for (args, why) in [
        (&["create", "v"][..], "--size"),
        (&["create", "--size", "1M"], "<NAME>"),
        (&["create", "v", "--size", "1M"], "no leg is given"),
        (&["create", "v", "--size", "1M", "--like", "/x", "--leg", "/y"], "cannot be used with"),
        (&["create", "v", "--size", "1X", "--leg", "/y"], "K M G T P"),
        (&["create", "../v", "--size", "1M", "--leg", "/y"], "checking a name"),
        (&["create", "meta", "--size", "1M", "--leg", "/y"], "reserved"),
        (&["create", "v", "--size", "1M", "--leg", "a=/x,colour=red"], "colour: unknown key"),
        (&["create", "v", "--size", "1M", "--leg", "a=/x,mode=async"], "not supported"),
        (&["create", "v", "--size", "1M", "--leg", "nbd://-x/y"], "begins with '-'"),
        (&["create", "v", "--size", "1M", "--leg", "/a", "--leg", "/b"], "need exactly one of --from LEG"),
        (&["create", "v", "--size", "1M", "--leg", "/a", "--leg", "/a", "--known-zero"], "same device"),
        (&["create", "v", "--size", "1M", "--leg", "/a", "--min-legs", "2"], "min-legs is 2"),
        (&["create", "v", "--size", "1M", "--leg", "/a", "--map-block", "3000"], "block size 3000"),
        (&["serve"], "<NAME>"),
        (&["serve", "v"], "no such volume"),
        (&["serve", "v", "--ephemeral"], "no leg is given"),
        (&["status", "v"], "no such volume"),
        (&["wait", "v"], "--until"),
        (&["wait", "v", "--until", "synced"], "no such volume"),
        (&["wait", "v", "--until", "happy"], "happy"),
        (&["events", "v"], "no such volume"),
        (&["leg"], "no command is given"),
        (&["leg", "detach", "v"], "<LEG>"),
        (&["leg", "detach", "v", "a"], "no such volume"),
        (&["resync"], "<NAME>"),
        (&["resync", "v"], "no such volume"),
        (&["check-config"], "<FILE>"),
    ] {
        dir.mirrord(args).run().fails("mirrord", 2, why);
    }
    assert_eq!(std::fs::read_dir(dir.state()).expect("state").count(), 0, "nothing was made");
}

#[test]
fn a_damaged_or_unreadable_volume_is_told_apart_from_a_missing_one() {
    let dir = Dir::new();
    let volume = dir.state().join("v");
    std::fs::create_dir(&volume).expect("mkdir");
    let config = volume.join("volume.toml");
    for (bytes, why) in [
        (&b"[volume.v"[..], "line 1"),
        (b"", "no [volume.v] in it"),
        (b"[volume.v]\ncolour = 1\n", "unknown field `colour`"),
        (b"[volume.v]\n[[volume.v.leg]]\nname = \"a\"\ndevice = \"-\"\n", "leg a"),
    ] {
        std::fs::write(&config, bytes).expect("write");
        dir.mirrord(&["serve", "v"]).run().fails("mirrord", 9, why);
    }
    std::fs::remove_file(&config).expect("rm");
    std::fs::create_dir(&config).expect("mkdir");
    dir.mirrord(&["serve", "v"]).run().fails("mirrord", 5, "Is a directory");
}

#[test]
fn a_volume_that_nobody_serves_says_how_to_serve_it() {
    let dir = Dir::new();
    let volume = dir.state().join("v");
    std::fs::create_dir(&volume).expect("mkdir");
    let toml = "[volume.v]\n[[volume.v.leg]]\nname = \"here\"\ndevice = \"/srv/a\"\n";
    std::fs::write(volume.join("volume.toml"), toml).expect("write");
    for args in [
        &["status", "v"][..],
        &["events", "v"],
        &["events"],
        &["leg", "detach", "v", "here"],
        &["resync", "v"],
    ] {
        let out = dir.mirrord(args).run().fails("mirrord", 6, "");
        assert!(out.stderr.contains("\ntry: mirrord "), "{}", out.stderr);
    }
    let out = dir.mirrord(&["status"]).run().expect(0);
    assert!(out.stdout.contains("v  not served") && out.stdout.contains("/srv/a"), "{}", out.stdout);
    let out = dir.mirrord(&["status", "--json"]).run().expect(0);
    let value: serde_json::Value = serde_json::from_str(&out.stdout).expect("json");
    assert!(out.stdout.starts_with("{\"schema\":\"mirrord-status/1\""), "{}", out.stdout);
    assert_eq!(value["running"], false);
}

#[test]
fn a_state_directory_that_is_a_file_is_an_error_of_its_own() {
    let dir = Dir::new();
    let file = dir.image("file", 0);
    for args in [&["status"][..], &["status", "v"], &["serve", "v"], &["events"]] {
        let out = dir.mirrord(args).env("MIRROR_STATE_DIR", &file).run();
        out.fails("mirrord", 5, "Not a directory");
    }
}

#[test]
fn a_state_directory_that_is_too_deep_for_sockets_says_both_lengths() {
    let dir = Dir::new();
    let deep = format!("/tmp/{}", "x".repeat(100));
    dir.mirrord(&["status", "v"]).env("MIRROR_STATE_DIR", deep).run().fails("mirrord", 2, "at most 107");
}

#[test]
fn a_state_directory_that_cannot_be_read_is_an_error_of_its_own() {
    let dir = Dir::new();
    std::fs::set_permissions(dir.state(), std::fs::Permissions::from_mode(0o000)).expect("chmod");
    if std::fs::read_dir(dir.state()).is_ok() {
        return; // root reads everything
    }
    dir.mirrord(&["status"]).run().fails("mirrord", 5, "Permission denied");
}

#[test]
fn check_config_says_nothing_when_it_is_right() {
    let dir = Dir::new();
    let file = dir.path("mirrord.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("write");
        dir.mirrord(&["check-config", file.to_str().expect("path")]).run()
    };
    let leg = "[[volume.v.leg]]\nname = \"a\"\ndevice = \"/x\"\n";
    let out = check(&format!("[volume.v]\nlisten = [\"127.0.0.1\"]\n{leg}")).expect(0);
    assert_eq!((out.stdout, out.stderr), (String::new(), String::new()));
    check("[volume.v]\nlisten-to = 1\n").fails("mirrord", 2, "line 2: unknown field `listen-to`");
    check(&format!("{leg}{leg}")).fails("mirrord", 2, "two legs have this name");
    check("[volume.v]\nmap-durability = \"disk\"\n").fails("mirrord", 2, "line 2");
    std::fs::remove_file(&file).expect("rm");
    let path = file.to_str().expect("path");
    dir.mirrord(&["check-config", path]).run().fails("mirrord", 5, "No such file");
    dir.mirrord(&["check-config", "/"]).run().fails("mirrord", 5, "Is a directory");
}
