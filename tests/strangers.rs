//! A leg that the configuration names and the volume does not have, at a start.

use crate::support::{Dir, Volume, need, run, wait_for};
use std::time::Duration;

const SIZE: u64 = 4 << 20;
const SOON: Duration = Duration::from_secs(30);

fn created(dir: &Dir) -> Volume<'_> {
    let legs = ["a", "b"].map(|name| format!("{name}={}", dir.image(name, SIZE).display()));
    Volume::create(dir, SIZE, &[&legs[0], &legs[1]], &["--known-zero"])
}

/// The configuration with these legs.
fn write(dir: &Dir, rest: &str, legs: &[&str]) {
    let mut text = format!("[volume.vol]\nunix = '{}'\n{rest}", dir.path("vol.sock").display());
    for leg in legs {
        let device = dir.path(leg);
        text.extend(["[[volume.vol.leg]]\nname = '", leg, "'\n"]);
        text.extend(["device = '", device.to_str().expect("path"), "'\n"]);
    }
    std::fs::write(dir.path("c.toml"), text).expect("configuration");
}

fn check_config(dir: &Dir) -> crate::support::Output {
    dir.mirrord(&["check-config", dir.path("c.toml").to_str().expect("path")]).run()
}

#[test]
fn done_a_volume_starts_without_a_leg_that_a_reload_refused_and_says_so_until_it_is_added() {
    if !need(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    let mut volume = created(&dir);
    write(&dir, "min-legs = 1\n", &["a", "b"]);
    check_config(&dir).expect(0);
    volume.serve_config(&dir.path("c.toml"));
    volume.wait_synced();
    write(&dir, "min-legs = 3\n", &["a", "b", "c"]);
    volume.server().signal("HUP");
    wait_for("the refusal", SOON, || volume.server().log().contains("leg c: refused: adding c="));
    wait_for("its end", SOON, || volume.server().log().contains("min-legs: refused: 3 with 2 legs"));
    let said = |volume: &Volume<'_>| {
        let status = volume.status();
        (
            status["reason"].as_str().unwrap_or_default().to_owned(),
            status["next"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let add = format!("mirrord leg add vol 'c={}'", dir.path("c").display());
    assert!(
        said(&volume).0.contains("leg c is in the configuration and is no member"),
        "{:?}",
        said(&volume)
    );
    volume.stop();
    // Now the machine boots again.
    volume.serve_config(&dir.path("c.toml"));
    volume.wait_synced();
    let (reason, next) = said(&volume);
    assert!(reason.contains("leg c is in the configuration and is no member"), "{reason}");
    assert_eq!(next, add);
    assert_eq!(volume.status()["min-legs"], 2, "every leg there is has to acknowledge");
    assert!(volume.server().log().contains(&format!("try: {add}")), "{}", volume.server().log());
    volume.mirrord(&["check", "vol"]).expect(1);
    let checked = check_config(&dir).fails("mirrord", 1, "leg c is no member");
    assert!(checked.stderr.contains(&format!("try: {add}")), "{}", checked.stderr);
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 0 64k", "-c", "flush", &volume.uri()]).expect(0);
    // Its disk is there: a reload adds it, and nothing is left to say.
    dir.image("c", SIZE);
    volume.server().signal("HUP");
    wait_for("the leg", SOON, || volume.status()["legs"].as_array().is_some_and(|legs| legs.len() == 3));
    volume.wait_synced();
    wait_for("the floor", SOON, || volume.status()["min-legs"] == 3);
    wait_for("nothing to say", SOON, || said(&volume) == (String::new(), String::new()));
    check_config(&dir).expect(0);
    volume.mirrord(&["check", "vol"]).expect(0);
    volume.stop();
    crate::support::assert_equal(&dir.path("a"), &dir.path("c"));
}

#[test]
fn done_a_volume_does_not_start_without_a_leg_that_may_hold_the_good_data() {
    let dir = Dir::new();
    let mut volume = created(&dir);
    volume.serve(&[]);
    volume.wait_synced();
    let image = dir.image("c", SIZE);
    volume.mirrord(&["leg", "add", "vol", &format!("c={}", image.display())]).expect(0);
    volume.wait_synced();
    let state = dir.state().join("vol");
    let stored = std::fs::read_to_string(state.join("volume.toml")).expect("stored");
    volume.stop();
    let serve = || {
        let file = dir.path("c.toml");
        dir.mirrord(&["serve", "vol", "--config", file.to_str().expect("path")]).run()
    };
    // volume.toml is one of before: out of a backup. The leg's record says what it is.
    let at = stored.find("\n[[volume.\"vol\".leg]]\nname = \"c\"").expect("leg c");
    std::fs::write(state.join("volume.toml"), &stored[..at]).expect("older");
    write(&dir, "", &["a", "b", "c"]);
    serve().fails("mirrord", 3, "its record in the state directory says that it is in sync");
    check_config(&dir).fails("mirrord", 3, "the good data may be there");
    let record = state.join("c.record");
    let bytes = std::fs::read(&record).expect("record");
    std::fs::write(&record, b"damaged").expect("damage");
    serve().fails("mirrord", 3, "cannot be read");
    // Without it the records of the others tell.
    std::fs::remove_file(&record).expect("remove");
    serve().fails("mirrord", 3, "knows of a leg in sync");
    // A file of another volume.
    std::fs::write(&record, bytes).expect("record");
    write(&dir, "", &["x", "y"]);
    serve().fails("mirrord", 3, "the file names none of the legs that the volume has");
    // Nothing was changed: with the whole of volume.toml all is as it was.
    std::fs::write(state.join("volume.toml"), &stored).expect("whole");
    write(&dir, "", &["a", "b", "c"]);
    volume.serve_config(&dir.path("c.toml"));
    volume.wait_synced();
    assert_eq!(volume.leg("c", "resynced"), 0);
    volume.stop();
}
