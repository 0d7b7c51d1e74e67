//! Byte ranges of big files when something goes wrong, or other than one thinks: processes that die or are stopped,
//! descriptors of before, writes that are under way while a generation ends. Never is a change missed.

use super::ranges::{BIG, BLOCK, MIB, create, has_ranges, is_there, judged, ranges, sh};
use crate::support::{
    CFOR_TOOLS, Disk, Pair, Random, Recording, Tool, bin, mutate_with_events, need, recorded, round, run,
    wait_for, wanted,
};
use mirror::capture::dump::{DumpOptions, DumpReport, dump};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// A pair with a big file that is known, and who records it.
struct Known {
    disk: Disk,
    pair: Pair,
    recorder: Recording,
}

impl Known {
    fn new(kind: &str) -> Option<Self> {
        let disk = Disk::new(kind);
        let pair = recorded(&disk);
        create(&pair.source.root.join("big"), 16 * MIB, false);
        let recorder = Recording::with(&pair, &BIG);
        if !has_ranges(&pair) {
            return None;
        }
        round(&pair);
        round(&pair);
        Some(Self { disk, pair, recorder })
    }

    fn writer(&self) -> File {
        OpenOptions::new().write(true).open(self.pair.source.root.join("big")).expect("open")
    }

    fn noter(&self) -> Pid {
        let id = ranges(&self.pair).process.expect("a process");
        Pid::from_raw(id.cast_signed()).expect("an id")
    }

    /// A round that scans nothing, judged.
    #[track_caller]
    fn round(&self, what: &str) -> DumpReport {
        let report = round(&self.pair);
        assert_eq!(report.scanned, None, "{what}");
        self.pair.judge(what);
        report
    }

    /// A process that another test starts has our descriptors until it runs its program; and what was closed late is
    /// read whole once.
    fn wait_until_believed(&self, files: usize) {
        wait_for("that nobody writes it", Duration::from_secs(20), || {
            round(&self.pair);
            ranges(&self.pair).believed == files
        });
        round(&self.pair);
    }

    #[track_caller]
    fn read(&self, what: &str) -> u64 {
        judged(&self.disk, &self.pair, what)
    }
}

fn histories(kind: &str) {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let (runs, seed) = wanted(14);
    let disk = Disk::new(kind);
    let pair = recorded(&disk);
    let mut random = Random(seed ^ 0x7a_0000);
    let _recorder = Recording::with(&pair, &["--ranges", "4K"]);
    if !has_ranges(&pair) {
        return;
    }
    for run in 0..runs {
        mutate_with_events(&pair.source.root, &mut random, if run == 0 { 60 } else { 25 });
        let what = format!("{kind}, seed {seed}, run {run}");
        let report = round(&pair);
        assert_eq!(report.scanned.is_some(), run == 0, "{what}: {report:?}");
        pair.judge(&what);
    }
    let ranges = ranges(&pair);
    assert!(ranges.believed > 0 && ranges.off.is_none(), "{ranges:?}");
}

#[test]
fn done_histories_with_ranges_end_identical_on_ext4() {
    histories("ext4");
}

#[test]
fn done_histories_with_ranges_end_identical_on_xfs() {
    histories("xfs");
}

#[test]
fn done_histories_with_ranges_end_identical_on_btrfs() {
    histories("btrfs");
}

#[test]
fn what_kernel_and_file_system_can_do_is_said_when_recording_begins() {
    if !need(&CFOR_TOOLS) {
        return;
    }
    let disk = Disk::new("tmpfs");
    let pair = recorded(&disk);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let record = |more: &[&str]| {
        let args = ["record", "--root", &text(&pair.source.root), "--log", &text(&pair.source.log)];
        Tool::new(bin("cfor-log")).args(&args).args(more).args(&["--", "true"]).run().expect(0)
    };
    let out = record(&["--json"]);
    let answer: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(answer["schema"], "cfor-recorder/1");
    assert_eq!(answer["ranges"]["off"], "this file system does not offer them");
    assert!(out.stderr.contains("; no byte ranges: this file system"), "{}", out.stderr);
    assert!(!record(&["--ranges", "0"]).stderr.contains("byte ranges"));
}

#[test]
fn a_noting_process_that_is_killed_leaves_whole_files() {
    if !is_there() {
        return;
    }
    let Some(known) = Known::new("ext4") else { return };
    let open = known.writer();
    // A dump that nobody applied: what the next one looks at begins with ranges that are known.
    open.write_all_at(&[6; 4096], 3 * MIB).expect("write");
    dump(&known.pair.source, "x", Vec::new()).expect("dump");
    open.write_all_at(&[7; 4096], 5 * MIB).expect("write");
    kill_process(known.noter(), Signal::KILL).expect("kill");
    // Nobody waits, and nobody notes it.
    open.write_all_at(&[8; 4096], 9 * MIB).expect("write");
    known.round("killed");
    let off = ranges(&known.pair).off.unwrap_or_default();
    assert!(off.contains("noting process"), "{off}");
    open.write_all_at(&[9; 4096], 11 * MIB).expect("write");
    known.round("and after that");
    // The way back.
    let Known { disk, pair, recorder } = known;
    drop((recorder, open));
    let known = Known { recorder: Recording::with(&pair, &BIG), disk, pair };
    round(&known.pair);
    known.writer().write_all_at(&[10; 4096], 13 * MIB).expect("write");
    assert!(known.read("started again") <= BLOCK);
}

#[test]
fn a_noting_process_that_was_killed_unnoticed_is_noticed_by_the_dump() {
    if !is_there() {
        return;
    }
    let Some(known) = Known::new("ext4") else { return };
    let (noter, open) = (known.noter(), known.writer());
    open.write_all_at(&[5; 4096], 6 * MIB).expect("write");
    // The recorder does not come round between the kill and the question.
    known.recorder.send(Signal::STOP);
    kill_process(noter, Signal::KILL).expect("kill");
    open.write_all_at(&[6; 4096], 7 * MIB).expect("write");
    known.recorder.send(Signal::CONT);
    known.round("killed while the recorder was stopped");
}

#[test]
fn a_noting_process_that_is_stopped_holds_nobody_back_for_long() {
    if !is_there() {
        return;
    }
    let Some(known) = Known::new("xfs") else { return };
    kill_process(known.noter(), Signal::STOP).expect("stop");
    // A process of its own, so that this one can give up.
    let mut writer = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "count=3", "seek=7", "conv=notrunc", "status=none"])
        .arg(format!("of={}", known.pair.source.root.join("big").display()))
        .spawn()
        .expect("dd");
    // Five seconds; the rest is for a machine that is busy.
    wait_for("the writer", Duration::from_secs(60), || !matches!(writer.try_wait(), Ok(None)));
    known.round("stopped");
    assert!(ranges(&known.pair).off.is_some());
}

#[test]
fn a_recorder_that_is_killed_takes_the_noting_process_with_it() {
    if !is_there() {
        return;
    }
    let Some(known) = Known::new("btrfs") else { return };
    let process = format!("/proc/{}/exe", known.noter().as_raw_nonzero());
    assert!(fs::read_link(&process).is_ok());
    known.recorder.send(Signal::KILL);
    wait_for("the noting process", Duration::from_secs(20), || fs::read_link(&process).is_err());
    known.writer().write_all_at(&[7; 4096], 5 * MIB).expect("write");
    let report = round(&known.pair);
    assert_eq!(report.scanned.as_deref(), Some("nobody records"));
    known.pair.judge("scanned");
}

#[test]
fn what_is_written_by_descriptors_of_before_is_seen_and_ranges_begin_when_they_are_closed() {
    if !is_there() {
        return;
    }
    for kind in ["ext4", "btrfs"] {
        let disk = Disk::new(kind);
        let pair = recorded(&disk);
        let path = pair.source.root.join("big");
        create(&path, 16 * MIB, false);
        let old = OpenOptions::new().write(true).open(&path).expect("open");
        let recorder = Recording::with(&pair, &BIG);
        if !has_ranges(&pair) {
            return;
        }
        assert_eq!((ranges(&pair).files, ranges(&pair).believed), (1, 0), "{kind}");
        round(&pair);
        let known = Known { disk, pair, recorder };
        for turn in 0..3 {
            // One of whom there are ranges, and one of whom there are none.
            known.writer().write_all_at(&[turn + 3; 4096], 3 * MIB).expect("write");
            old.write_all_at(&[turn + 5; 4096], 7 * MIB).expect("write");
            known.round(&format!("{kind}: an old descriptor, {turn}"));
        }
        drop(old);
        known.round(&format!("{kind}: closed"));
        known.wait_until_believed(1);
        // What is closed late, see there, is read whole once more.
        let by_range = (0..5).any(|turn| {
            known.writer().write_all_at(&[9 + turn; 4096], 3 * MIB).expect("write");
            known.read("known by now") <= BLOCK
        });
        assert!(by_range, "{kind}");
    }
}

/// Holds the writes to a file system back.
struct Frozen<'a>(&'a Disk);

impl<'a> Frozen<'a> {
    fn new(disk: &'a Disk) -> Self {
        run("fsfreeze", &["-f", &disk.path("").to_string_lossy()]).expect(0);
        Self(disk)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", &self.0.path("").to_string_lossy()]);
    }
}

/// Its write, or what else it does, waits in the kernel, and is noted already.
fn wait_until_it_waits(child: &Child) {
    let stack = format!("/proc/{}/stack", child.id());
    wait_for("the access", Duration::from_secs(20), || {
        let stack = fs::read_to_string(&stack).unwrap_or_default();
        stack.contains("percpu_rwsem_wait") || stack.contains("percpu_down_read")
    });
}

#[test]
fn done_a_write_that_is_noted_in_one_generation_and_happens_in_a_later_one_is_seen() {
    if !is_there() || !need(&["fsfreeze", "perl", "fio"]) {
        return;
    }
    let perl = |script: &str| vec!["perl".to_owned(), "-e".to_owned(), script.to_owned()];
    let ring = "fio --name=j --filename=big --offset=5m --size=4k --bs=4k --rw=write --output=/dev/null \
                --ioengine=io_uring --overwrite=1";
    let ways = [
        perl("open(B,'+<','big');sysseek(B,5<<20,0);syswrite(B,'new' x 1000)"),
        perl("truncate('big', 12000000)"),
        ring.split_ascii_whitespace().map(ToOwned::to_owned).collect(),
    ];
    for (kind, command) in
        ["ext4", "xfs"].into_iter().flat_map(|kind| ways.iter().map(move |way| (kind, way)))
    {
        let disk = Disk::new(kind);
        // The standby is elsewhere, so that it can be changed meanwhile.
        let (root, far) = (disk.path("a"), disk.beside("b"));
        for dir in [&root, &far] {
            fs::create_dir(dir).expect("mkdir");
        }
        let mut pair = Pair::at(root.clone(), disk.beside("source"), far, disk.beside("standby"));
        pair.source = DumpOptions { no_scan: true, ..pair.source };
        create(&root.join("big"), 16 * MIB, false);
        let recorder = Recording::with(&pair, &BIG);
        if !has_ranges(&pair) {
            return;
        }
        let known = Known { disk, pair, recorder };
        round(&known.pair);
        round(&known.pair);
        let frozen = Frozen::new(&known.disk);
        let mut writer = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start");
        if command[0] == "fio" {
            wait_for("a worker", Duration::from_secs(20), || worker_waits(&writer));
        } else {
            wait_until_it_waits(&writer);
        }
        // Twice: whatever is noted belongs to the first.
        known.round(&format!("{kind}: frozen"));
        known.round(&format!("{kind}: still frozen"));
        drop(frozen);
        writer.wait().expect("reap");
        let size = fs::metadata(root.join("big")).expect("size").len();
        // There is something else in this generation, and the size is what it was.
        let open = known.writer();
        open.write_all_at(&[9; 4096], 3 * MIB).expect("write");
        open.set_len(size.max(16 * MIB)).expect("size");
        drop(open);
        known.round(&format!("{kind}: {command:?}"));
    }
}

/// Whether one of the threads of a process, or of its children, waits to write.
fn worker_waits(child: &Child) -> bool {
    let mut processes = vec![child.id().to_string()];
    let below = format!("/proc/{0}/task/{0}/children", child.id());
    processes
        .extend(fs::read_to_string(below).unwrap_or_default().split_ascii_whitespace().map(str::to_owned));
    let mut stacks =
        processes.iter().filter_map(|process| fs::read_dir(format!("/proc/{process}/task")).ok()).flatten();
    stacks.any(|task| {
        let stack = task.map(|task| fs::read_to_string(task.path().join("stack")).unwrap_or_default());
        stack.is_ok_and(|stack| stack.contains("percpu_rwsem_wait") && stack.contains("io_"))
    })
}

#[test]
fn stores_into_a_mapping_are_seen_in_every_generation_until_it_is_gone() {
    if !is_there() {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let Some(known) = Known::new(kind) else { return };
        let file = known.pair.source.root.join("big");
        let mut mapper = Command::new("xfs_io")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("xfs_io");
        let mut say = mapper.stdin.take().expect("stdin");
        let at = 6 * MIB;
        let store = |say: &mut ChildStdin, value: u8| {
            writeln!(say, "mwrite -S {value} {at} 5000").expect("say");
            let shown = || {
                let mut byte = [0];
                File::open(&file).and_then(|open| open.read_exact_at(&mut byte, at)).expect("read");
                byte[0] == value
            };
            wait_for("the store", Duration::from_secs(20), shown);
        };
        writeln!(say, "mmap -rw 0 8388608").expect("say");
        for value in 10..13 {
            store(&mut say, value);
            // Somewhere else there are ranges.
            known.writer().write_all_at(&[value; 10], 9 * MIB).expect("write");
            known.round(&format!("{kind}: store {value}"));
        }
        store(&mut say, 20);
        drop(say);
        mapper.wait().expect("reap");
        known.writer().write_all_at(&[3; 10], 9 * MIB).expect("write");
        known.round(&format!("{kind}: gone before the dump"));
        known.writer().write_all_at(&[4; 10], 9 * MIB).expect("write");
        assert!(known.read("known again") <= BLOCK, "{kind}");
    }
}

#[test]
fn a_file_of_more_than_two_gibibytes_is_accessed_and_noted_as_any() {
    if !is_there() {
        return;
    }
    let disk = Disk::new("xfs");
    let pair = recorded(&disk);
    let path = pair.source.root.join("huge");
    File::create_new(&path).and_then(|file| file.set_len(5 << 30)).expect("create");
    let recorder = Recording::with(&pair, &BIG);
    if !has_ranges(&pair) {
        return;
    }
    round(&pair);
    let open = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    open.write_all_at(&[7; 4096], 4 << 30).expect("write");
    let mut byte = [0];
    open.read_exact_at(&mut byte, 4 << 30).expect("read");
    assert_eq!(byte, [7]);
    let report = round(&pair);
    assert_eq!((report.scanned, report.data), (None, BLOCK));
    let far = File::open(pair.standby.root.join("huge")).expect("open");
    far.read_exact_at(&mut byte, 4 << 30).expect("read");
    assert_eq!((byte, far.metadata().expect("size").len()), ([7], 5 << 30));
    drop(recorder);
}

#[test]
fn files_that_become_big_are_known_from_then_on() {
    if !is_there() {
        return;
    }
    let Some(known) = Known::new("ext4") else { return };
    let root = &known.pair.source.root;
    sh(root, "head -c 9000000 /dev/urandom > grown; mkdir d; head -c 9000000 /dev/urandom > d/x");
    // One outside of the tree, and one that stays open.
    create(&known.disk.path("outside"), 9 * MIB, false);
    let open = File::create_new(root.join("open")).expect("create");
    open.write_all_at(&vec![5; 9 << 20], 0).expect("write");
    known.round("grown");
    assert_eq!((ranges(&known.pair).files, ranges(&known.pair).believed), (4, 3));
    for name in ["grown", "d/x", "open"] {
        let file = OpenOptions::new().write(true).open(root.join(name)).expect("open");
        file.write_all_at(b"something", 4 * MIB).expect("write");
    }
    drop(open);
    assert!(known.read("two by ranges, one that was open") <= 75 * BLOCK);
    known.wait_until_believed(4);
    // Gone again, and forgotten in the end.
    sh(root, "rm grown d/x open");
    known.round("removed");
    known.round("removed");
    assert_eq!(ranges(&known.pair).files, 1);
}
