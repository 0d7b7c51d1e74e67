//! The recipes for trees of files.

use super::{World, recipe};
use crate::support::{SSH, Server, Tool, need, run, wait_for};
use std::process::{Command, Stdio};
use std::time::Duration;

/// No difference that rsync can see.
#[track_caller]
fn identical(world: &World, a: &str, b: &str) {
    let (a, b) = (world.path(a).display().to_string(), world.path(b).display().to_string());
    let args = ["-naHAX", "--checksum", "--delete", "--itemize-changes", &format!("{a}/"), &format!("{b}/")];
    let out = run("rsync", &args).expect(0);
    assert_eq!(out.stdout, "");
}

fn directories(world: &World, names: &[&str]) {
    for name in names {
        std::fs::create_dir(world.path(name)).expect("directory");
    }
}

#[test]
fn home_directories_every_night() {
    if !need(&[&SSH[..], &["rsync"]].concat()) {
        return;
    }
    let world = World::new();
    let [script, cron, verify] = recipe("Home directories, every night, to a standby");
    directories(&world, &["/srv/home", "/srv/home/ann", "/srv/standby/home"]);
    world.script(&script);
    let nightly = || {
        let told = world.cron(&cron);
        assert_eq!((told[0].code, &*told[0].stdout, &*told[0].stderr), (0, "", ""), "success is silence");
        identical(&world, "/srv/home", "/srv/standby/home");
    };
    std::fs::write(world.path("/srv/home/ann/letter"), "dear").expect("write");
    nightly();
    std::fs::rename(world.path("/srv/home/ann"), world.path("/srv/home/anna")).expect("rename");
    std::fs::write(world.path("/srv/home/anna/more"), vec![1; 100_000]).expect("write");
    nightly();
    nightly();
    world.typed(&verify).expect(0);
    std::fs::write(world.path("/srv/home/new"), "not there yet").expect("write");
    world.typed(&verify).expect(1);
    // A night without a network is told, and nothing is acknowledged; the next one brings both days.
    let keys = std::fs::read_to_string(world.path("authorized_keys")).expect("keys");
    std::fs::write(world.path("authorized_keys"), "").expect("keys");
    let told = world.cron(&cron);
    assert!(told[0].stdout.contains("home-standby: ended with 1"), "{}{}", told[0].stdout, told[0].stderr);
    std::fs::write(world.path("authorized_keys"), keys).expect("keys");
    nightly();
}

#[test]
fn a_web_root_every_minute() {
    if !need(&[&SSH[..], &["rsync", "root", "flock"]].concat()) {
        return;
    }
    let world = World::new();
    let [record, script, cron] = recipe("A web root, every minute");
    directories(&world, &["/srv/www", "/srv/standby/www"]);
    std::fs::write(world.path("/srv/www/index.html"), "one").expect("write");
    world.script(&script);
    let minute = || {
        let told = world.cron(&cron);
        assert_eq!(told[0].code, 0, "{}", told[0].stderr);
        identical(&world, "/srv/www", "/srv/standby/www");
    };
    minute();
    let words = world.here(&record);
    let mut words = words.split(' ');
    let mut command = Command::new(crate::support::bin(words.next().expect("a program")));
    let log = world.path("recorder");
    let recorder = Server::start(command.args(words), &log);
    wait_for("the recorder watches", Duration::from_secs(30), || {
        world.path("/var/lib/offsite/www.log/recorder.sock").exists()
    });
    minute();
    for turn in 0..3 {
        std::fs::write(world.path("/srv/www/index.html"), format!("page {turn}")).expect("write");
        std::fs::write(world.path(&format!("/srv/www/{turn}")), "new").expect("write");
        minute();
    }
    // While one round runs, cron's next one leaves it alone.
    let lock = world.path("/run/www-standby.lock").display().to_string();
    let held = world.here("/usr/local/sbin/www-standby");
    Tool::new("flock").args(&[&lock, "sh", "-c", &format!("! {held} && true")]).run().expect(0);
    // Without the recorder everything is looked at, and nothing is missed.
    recorder.stop();
    std::fs::write(world.path("/srv/www/unseen"), "written while nobody looked").expect("write");
    minute();
}

#[test]
fn a_database_behind_a_barrier_is_of_one_moment() {
    if !need(&[&SSH[..], &["rsync", "sqlite3"]].concat()) {
        return;
    }
    let world = World::new();
    let [barrier, script] = recipe("A database, with a barrier");
    directories(&world, &["/srv/db", "/srv/standby/db", "/srv/look"]);
    let (barrier, script) = (world.script(&barrier), world.script(&script));
    let db = world.path("/srv/db/data.sqlite").display().to_string();
    let sql = |db: &str, text: &str| run("sqlite3", &["-bail", db, text]);
    sql(&db, "pragma journal_mode=wal; create table a(n); create table b(n);").expect(0);
    // Somebody writes all the time; each transaction puts the same number into both tables.
    let stop = world.path("stop");
    let loop_ = format!(
        "n=0; while [ ! -e {} ]; do n=$((n + 1)); \
         sqlite3 -cmd '.timeout 20000' {db} \"begin immediate; insert into a values($n); insert into b values($n); commit;\" \
         || exit 1; done",
        stop.display()
    );
    let mut writer = Command::new("sh");
    let mut writer = Server::start(writer.args(["-c", &loop_]), &world.path("writer"));
    let mut last = 0;
    for _ in 0..4 {
        world.shell(&script).run().expect(0);
        // Not the standby itself: who opens a database changes it.
        let look = world.here("rm -rf /srv/look && cp -a /srv/standby/db /srv/look");
        world.shell(&look).run().expect(0);
        let copy = world.path("/srv/look/data.sqlite").display().to_string();
        let text = "pragma integrity_check; select (select count(*) from a) - (select count(*) from b), count(*) from a;";
        let found = sql(&copy, text).expect(0).stdout;
        let (whole, rest) = found.split_once('\n').expect("two lines");
        let (difference, count) = rest.trim().split_once('|').expect("two numbers");
        assert_eq!((whole, difference), ("ok", "0"), "{found}");
        let count: u64 = count.parse().expect("a number");
        assert!(count >= last, "{count} after {last}");
        last = count;
        assert!(writer.is_running(), "{}", writer.log());
    }
    assert!(last > 0, "somebody wrote");
    std::fs::write(&stop, "").expect("stop");
    wait_for("the writer ends", Duration::from_secs(60), || !writer.is_running());
    // What was committed last is there too. The files need not be the same: the barrier's own connection is the
    // last one now, and folds the log into the database as it goes.
    world.shell(&script).run().expect(0);
    world.shell(&world.here("rm -rf /srv/look && cp -a /srv/standby/db /srv/look")).run().expect(0);
    let all = |db: &str| sql(db, "select n from a; select n from b;").expect(0).stdout;
    assert_eq!(all(&world.path("/srv/look/data.sqlite").display().to_string()), all(&db));
    refusals(&world, &barrier, &script, &db);
}

/// A barrier that cannot be had, and one that did not hold, give no round.
fn refusals(world: &World, barrier: &str, script: &str, db: &str) {
    let acknowledged = || std::fs::read(world.path("/var/lib/offsite/db.log/acknowledged")).expect("rounds");
    let before = acknowledged();
    let away = format!("{db}.away");
    std::fs::rename(db, &away).expect("rename");
    std::fs::write(db, "this is no database, however long one looks at it".repeat(100)).expect("write");
    let out = world.shell(script).run();
    assert!(out.code == 1 && out.stderr.contains("pre-dump"), "{}: {}", out.code, out.stderr);
    std::fs::rename(&away, db).expect("rename");
    // It was given back in the middle.
    let expires = format!(
        "{barrier} && {{ [ $MIRROR_PHASE != dump ] || touch {}/expired; }}",
        world.path("/run/db-barrier").display()
    );
    let text = std::fs::read_to_string(script).expect("script");
    let text = text.replace(&format!("--barrier {barrier}"), &format!("--barrier '{expires}'"));
    std::fs::write(script, text).expect("script");
    let out = world.shell(script).run();
    assert!(out.code == 1 && out.stderr.contains("post-dump"), "{}: {}", out.code, out.stderr);
    assert_eq!(before, acknowledged(), "no round is acknowledged");
    // Nobody holds the right to write any more.
    let mut free = Command::new("sqlite3");
    free.args(["-bail", db, "begin immediate; rollback;"]).stdin(Stdio::null());
    assert!(free.status().expect("sqlite3").success());
}
