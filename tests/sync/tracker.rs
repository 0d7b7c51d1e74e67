//! Increments from a tracker of a running volume: marks are handed over, and come back if they are not copied.

use crate::support::{Dir, Random, Volume, assert_equal, sync, text, wait_for};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

const SIZE: u64 = 16 << 20;

/// Bytes that changed since the tracker was emptied.
fn dirty(volume: &Volume<'_>) -> u64 {
    let line = volume.mirrord(&["tracker", "ls", "vol", "day", "--json"]).expect(0).stdout;
    let value: serde_json::Value = serde_json::from_str(&line).expect("json");
    value["dirty"].as_u64().expect("bytes")
}

/// Changes the image and writes it through the volume: what differs, and only that.
fn write(dir: &Dir, volume: &Volume<'_>, random: &mut Random, times: u64) {
    let image = dir.path("image");
    let file = std::fs::OpenOptions::new().write(true).open(&image).expect("open");
    for _ in 0..times {
        let at = random.below(SIZE - 5000);
        file.write_all_at(&vec![random.below(255) as u8 + 1; 5000], at).expect("write");
    }
    drop(file);
    sync(dir, &["-q", text(&image), &volume.uri()]).run().expect(0);
}

#[test]
fn done_a_third_target_follows_by_a_tracker_and_a_killed_run_loses_no_mark() {
    let dir = Dir::new();
    let (leg, third) = (dir.image("leg", SIZE), dir.image("third", SIZE));
    let image = dir.image("image", SIZE);
    let mut volume = Volume::create(&dir, SIZE, &[&format!("here={}", leg.display())], &[]);
    volume.serve(&[]);
    volume.mirrord(&["tracker", "add", "vol", "day"]).expect(0);
    let uri = volume.uri();
    let args = ["-q", "--dirty-only", "--map", "vol:day", &uri, text(&third)];
    let mut random = Random(1);
    for round in 0..4 {
        write(&dir, &volume, &mut random, 30);
        let marked = dirty(&volume);
        assert!(marked > 0);
        // A look changes nothing.
        let kept = [&["--keep-map"], &args[..]].concat();
        if round == 0 {
            sync(&dir, &kept).run().expect(0);
        }
        assert_eq!(dirty(&volume), marked);
        let slow = [&["--bwlimit", "8M"], &args[..]].concat();
        let mut tool = sync(&dir, &slow);
        let mut child = tool.command().stderr(std::process::Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_millis(random.below(200)));
        child.kill().expect("kill");
        child.wait().expect("reap");
        // They come back when the daemon has seen that the connection ended.
        wait_for("the marks are back", Duration::from_secs(20), || {
            [marked, 0].contains(&dirty(&volume))
                && sync(&dir, &["-n", "-q", "--dirty-only", "--map", "vol:day", &uri, text(&third)])
                    .run()
                    .code
                    == 0
        });
        wait_for("a run to the end", Duration::from_secs(20), || {
            let out = sync(&dir, &args).run();
            assert!(matches!(out.code, 0 | 75), "{}", out.stderr);
            out.code == 0
        });
        assert_eq!(dirty(&volume), 0);
        assert_equal(&image, &third);
    }
    sync(&dir, &["--dirty-only", "--map", "vol:none", &uri, text(&third)]).run().fails(
        "mirror-sync",
        2,
        "no tracker none",
    );
}
