//! A source and a standby of cfor-log, and the judges of what came of them.

use super::{Disk, Tool};
use mirror::capture::apply::{ApplyOptions, ApplyReport, apply};
use mirror::capture::dump::{DumpOptions, dump};
use mirror::capture::scan::verify;
use mirror::capture::store::{Store, load_index};
use mirror::capture::tree::Root;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A source and a standby on one disk.
pub struct Pair {
    pub source: DumpOptions,
    pub standby: ApplyOptions,
}

impl Pair {
    /// Two empty trees.
    pub fn new(disk: &Disk) -> Self {
        for name in ["a", "b"] {
            std::fs::create_dir(disk.path(name)).expect("mkdir");
        }
        Self::at(disk.path("a"), disk.beside("source"), disk.path("b"), disk.beside("standby"))
    }

    /// These trees, and where both sides remember their rounds.
    pub fn at(a: PathBuf, source: PathBuf, b: PathBuf, standby: PathBuf) -> Self {
        let far = "far".parse().expect("name");
        let standby = ApplyOptions { privileged: true, ..ApplyOptions::new(b, standby) };
        Self { source: DumpOptions::new(a, source, far), standby }
    }

    /// The bytes of the next dump.
    pub fn dump(&self) -> Vec<u8> {
        dump(&self.source, "the dump", Vec::new()).expect("dump").1
    }

    /// Applies a dump, and acknowledges it.
    pub fn apply(&self, bytes: &[u8]) -> mirror::base::Result<ApplyReport> {
        let report = apply(&self.standby, Some(("the dump", &mut &bytes[..])), &mut |_| Ok(()))?;
        self.acknowledge(&report);
        Ok(report)
    }

    /// The source knows what the standby has.
    pub fn acknowledge(&self, report: &ApplyReport) {
        let store = Store::open(&self.source.log).expect("store");
        store.acknowledge(&self.source.standby, report.round.parse().expect("round")).expect("acknowledged");
    }

    /// In what rsync thinks the trees differ.
    pub fn rsync(&self) -> String {
        let dir = |path: &Path| format!("{}/", path.display());
        let args = ["-naHAX", "--devices", "--specials", "--checksum", "--delete", "--itemize-changes"];
        // ACLs once, by -A: as attributes they are others on each file system. The first rule is what rsync does anyway.
        let args = [&args[..], &["--filter=-x system.*", "--filter=-x trusted.SGI_ACL_*"]].concat();
        let (a, b) = (dir(&self.source.root), dir(&self.standby.root));
        let out =
            Tool::new("rsync").args(&args).args(&[&a, &b]).limit(Duration::from_secs(300)).run().expect(0);
        out.stdout
    }

    /// In what we think they differ; both are read from end to end.
    pub fn differences(&self) -> Vec<String> {
        let read = |path: &PathBuf| verify::read_tree(&Root::open(path).expect("root"), 0).expect("read");
        let (a, b) = (read(&self.source.root), read(&self.standby.root));
        let all = verify::compare(&a, &b).expect("compare");
        all.iter().map(ToString::to_string).collect()
    }

    /// Both judges, and the standby's own memory.
    #[track_caller]
    pub fn judge(&self, what: &str) {
        assert_eq!(self.rsync(), "", "{what}: rsync");
        assert_eq!(self.differences(), [""; 0], "{what}: verify");
        let remembered = load_index(&self.standby.log.join("index")).expect("index");
        let found = verify::read_tree(&Root::open(&self.standby.root).expect("root"), 0).expect("read");
        let all = verify::compare(&remembered, &found).expect("compare");
        assert!(all.is_empty(), "{what}: the index of the standby: {}", all[0]);
    }
}

/// How many runs on each file system, and from which seed.
pub fn wanted(usual: u64) -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("MIRROR_CFOR_RUNS").unwrap_or(usual), number("MIRROR_CFOR_SEED").unwrap_or(1))
}
