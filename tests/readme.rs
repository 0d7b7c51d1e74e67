//! What a newcomer types first.

use crate::support::{Dir, Tool, bin, need, root};
use std::time::Duration;

#[test]
fn done_the_quickstart_ends_with_equal_images_and_a_clean_fsck() {
    if !need(&["cargo", "nbdkit", "nbdinfo", "nbdcopy", "mkfs.ext4", "fsck.ext4"]) {
        return;
    }
    let limit = Duration::from_secs(20 * 60);
    let out = Tool::new("sh").args(&["examples/quickstart.sh"]).dir(root()).limit(limit).run().expect(0);
    assert!(out.stdout.contains("The mirror worked."), "{}", out.stdout);
    assert!(out.stdout.contains("equal, byte for byte"), "{}", out.stdout);
}

#[test]
fn the_example_of_a_tree_and_its_standby_ends_identical() {
    if !need(&["cargo", "rsync"]) {
        return;
    }
    let limit = Duration::from_secs(20 * 60);
    let out = Tool::new("sh").args(&["examples/tree-standby.sh"]).dir(root()).limit(limit).run().expect(0);
    assert!(out.stderr.contains("identical"), "{}", out.stderr);
    assert!(
        out.stdout.contains("rename lib -> library") || out.stdout.contains("name library"),
        "{}",
        out.stdout
    );
}

#[test]
fn the_example_of_an_off_site_copy_ends_equal() {
    if !need(&["cargo", "sshd", "ssh-keygen", "mkfs.ext4", "fsck.ext4"]) {
        return;
    }
    let limit = Duration::from_secs(20 * 60);
    let out = Tool::new("sh").args(&["examples/offsite.sh"]).dir(root()).limit(limit).run().expect(0);
    assert!(out.stdout.contains("The off-site copy worked"), "{}", out.stdout);
    assert!(out.stdout.contains("refused with 3"), "{}", out.stdout);
}

#[test]
fn the_session_of_the_readme_works_as_it_stands() {
    if !need(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README");
    let (_, session) = readme.split_once("## Sixty seconds").expect("the session");
    let (session, _) = session.split_once("\n## ").expect("its end");
    let dir = Dir::new();
    let here = dir.path("").display().to_string();
    // Elsewhere than in /tmp itself, and with the programs of this build; nbdkit goes into the background.
    let programs = bin("mirrord").parent().expect("a directory").display().to_string();
    let script = session
        .replace("/tmp/", &here)
        .replace("$PWD/target/release", &programs)
        .replace("nbdkit ", &format!("nbdkit -P {here}pid "));
    let script = format!("set -eu\ntrap 'kill $(cat {here}pid)' EXIT\n{script}\n");
    let out = Tool::new("bash").args(&["-c", &script]).dir(root()).run();
    assert_eq!(out.code, 0, "{script}\n{}{}", out.stdout, out.stderr);
}
