//! The verbs of `cfor-log` that read logs, indexes and dumps: `show`, `stat`, `merge`, `rotate`.

use super::output;
use crate::base::{Class, Error, Result};
use crate::capture::{apply, live, store};
use crate::device::durable::replace;
use crate::fslog::derive::{between, of_log};
use crate::fslog::logfile::{self, Log};
use crate::fslog::{Index, Magic, Operation, State, listing};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

/// What a path holds.
enum Kept {
    Log(Box<Log>),
    Index(Box<Index>),
    Dump(listing::Listing),
}

/// Reads what is at a path, whatever it is.
fn read(path: &Path) -> Result<Kept> {
    let fail = |doing: &str, e| Error::io(path.display(), doing, e);
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|e| fail("opening it", e))?;
    let mut magic = Vec::new();
    file.by_ref().take(8).read_to_end(&mut magic).map_err(|e| fail("reading it", e))?;
    let again = || File::open(path).map(BufReader::new).map_err(|e| fail("opening it", e));
    match Magic::of(&magic) {
        Some(Magic::Log) => logfile::read(path).map(|log| Kept::Log(Box::new(log))),
        Some(Magic::Index) => Index::read(&name, again()?).map(|index| Kept::Index(Box::new(index))),
        Some(Magic::Dump) => listing::list(&name, again()?).map(Kept::Dump),
        None => {
            Err(Error::new(Class::Damaged, format!("{name}: reading it: it is no log, no index and no dump")))
        }
    }
}

/// The logs of a path: a log file, or those of the rounds that a directory keeps.
pub(super) fn logs(path: &Path) -> Result<Vec<(String, Log)>> {
    if !path.is_dir() {
        return match read(path)? {
            Kept::Log(log) => Ok(vec![(path.display().to_string(), *log)]),
            _ => Err(Error::new(Class::Damaged, format!("{}: reading it: it is no log", path.display()))),
        };
    }
    let numbers = store::rounds(path)?;
    let paths =
        numbers.iter().map(|number| path.join(format!("round.{number}.log"))).filter(|path| path.exists());
    paths.map(|path| Ok((path.display().to_string(), logfile::read(&path)?))).collect()
}

#[derive(serde::Serialize)]
struct Shown {
    schema: &'static str,
    operations: Vec<Operation>,
}

/// `cfor-log show`
pub fn show(paths: &[PathBuf], base: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let mut operations = Vec::new();
    if let Some(base) = base {
        let base = store::load_index(base)?;
        for path in paths {
            operations.extend(between(&base, &store::load_index(path)?));
        }
    } else {
        let mut merged = Vec::new();
        for path in paths {
            if path.is_dir() {
                merged.extend(logs(path)?);
                continue;
            }
            match read(path)? {
                Kept::Log(log) => merged.push((path.display().to_string(), *log)),
                Kept::Dump(dump) => operations.extend(dump.operations),
                Kept::Index(index) => operations.extend(between(&Index::empty(index.tree), &index)),
            }
        }
        if !merged.is_empty() {
            operations.extend(of_log(&logfile::merge(&merged)?.1));
        }
    }
    if json {
        return output::print_json(&Shown { schema: "cfor-show/1", operations });
    }
    let lines: Vec<_> = operations.iter().map(|operation| format!("{operation}\n")).collect();
    Ok(output::print(&lines.concat())?)
}

#[derive(Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
struct Stat {
    schema: &'static str,
    path: String,
    what: &'static str,
    tree: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<live::RangesAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applying: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rounds: Vec<u64>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    acknowledged: std::collections::BTreeMap<String, String>,
    objects: u64,
    names: u64,
    dirty: u64,
    bytes: u64,
    generations: u64,
    records: u64,
    torn: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
}

impl Stat {
    fn state(&mut self, state: &State) {
        self.objects = state.files.len() as u64;
        self.names = state.names.len() as u64;
        self.dirty = state.files.values().map(|file| file.dirty().bytes()).sum();
        self.lost = state.lost.iter().map(ToString::to_string).collect();
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |name: &str, value: String| parts.push(format!("{name} {value}"));
        for (name, value) in [("base", &self.base), ("round", &self.round), ("applying", &self.applying)] {
            if let Some(value) = value {
                add(name, value.clone());
            }
        }
        for (name, value) in [
            ("objects", self.objects),
            ("names", self.names),
            ("dirty", self.dirty),
            ("bytes", self.bytes),
            ("generations", self.generations),
            ("records", self.records),
            ("torn", self.torn),
        ] {
            if value > 0 {
                add(name, value.to_string());
            }
        }
        for (standby, round) in &self.acknowledged {
            add(standby, format!("has {round}"));
        }
        if let Some(recorder) = &self.recorder {
            add("recorder:", recorder.clone());
        }
        if let Some(ranges) = &self.ranges {
            add("with", ranges.to_string());
        }
        for why in &self.lost {
            add("lost:", why.clone());
        }
        format!("{}: {}: {}\n", self.path, self.what, parts.join(", "))
    }
}

fn stat_dir(path: &Path, stat: &mut Stat) -> Result<()> {
    stat.rounds = store::rounds(path)?;
    stat.applying = apply::applying(path)?.map(|round| round.to_string());
    let acknowledged = store::acknowledged(path)?;
    stat.acknowledged = acknowledged.into_iter().map(|(name, round)| (name, round.to_string())).collect();
    stat.recorder = match live::ask(path, "status") {
        Ok(Some(answer)) => {
            stat.ranges = answer.ranges;
            Some(format!("{}, {} events", answer.backend, answer.events))
        }
        Ok(None) if path.join(live::SOCKET).exists() => Some("dead: a scan is owed".to_owned()),
        Ok(None) => None,
        Err(error) => Some(error.message),
    };
    let index = path.join("index");
    let newest = stat.rounds.last().map(|number| path.join(format!("round.{number}")));
    let (what, index) = match newest {
        Some(newest) => ("source", newest),
        None if index.exists() => ("standby", index),
        None => {
            stat.what = "nothing yet";
            return Ok(());
        }
    };
    let index = store::load_index(&index)?;
    stat.what = what;
    stat.tree = Some(index.tree.to_string());
    stat.round = Some(index.round.to_string());
    stat.objects = index.objects.len() as u64;
    stat.bytes = index.objects.values().map(|object| object.meta.size).sum();
    Ok(())
}

/// `cfor-log stat`: 1 if a scan is owed or an apply was interrupted.
pub fn stat(paths: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let mut owed = Vec::new();
    for path in paths {
        let mut stat = Stat { schema: "cfor-stat/1", path: path.display().to_string(), ..Stat::default() };
        if path.is_dir() {
            stat_dir(path, &mut stat)?;
        } else {
            let header = match read(path)? {
                Kept::Log(log) => {
                    (stat.what, stat.generations, stat.records) = ("log", log.generations, log.records);
                    stat.torn = log.torn;
                    stat.state(&log.state);
                    log.header
                }
                Kept::Dump(dump) => {
                    (stat.what, stat.dirty, stat.bytes) = ("dump", dump.data, dump.bytes);
                    stat.records = dump.operations.len() as u64;
                    dump.header
                }
                Kept::Index(index) => {
                    stat.what = "index";
                    stat.objects = index.objects.len() as u64;
                    stat.bytes = index.objects.values().map(|object| object.meta.size).sum();
                    stat.round = Some(index.round.to_string());
                    logfile::header(index.tree, crate::fslog::Round::default())
                }
            };
            stat.tree = Some(header.tree.to_string());
            if stat.what != "index" {
                stat.base = Some(header.base.to_string());
                stat.round = Some(header.round.to_string());
            }
        }
        if !stat.lost.is_empty() || stat.applying.is_some() {
            owed.push(stat.path.clone());
        }
        if json { output::print_json(&stat)? } else { output::print(&stat.line())? }
    }
    match owed.first() {
        None => Ok(()),
        Some(path) => {
            let text = format!("{path}: a scan is owed, or an apply was interrupted");
            Err(Error::new(Class::Differs, text).into())
        }
    }
}

/// What `merge` and `rotate` wrote.
#[derive(serde::Serialize)]
struct Written {
    schema: &'static str,
    path: String,
    tree: String,
    generation: u64,
    objects: usize,
    names: usize,
    dirty: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
}

impl Written {
    fn new(schema: &'static str, path: &Path, tree: crate::base::Id, generation: u64, state: &State) -> Self {
        Self {
            schema,
            path: path.display().to_string(),
            tree: tree.to_string(),
            generation,
            objects: state.files.len(),
            names: state.names.len(),
            dirty: state.files.values().map(|file| file.dirty().bytes()).sum(),
            lost: state.lost.iter().map(ToString::to_string).collect(),
        }
    }
}

/// `cfor-log merge`
pub fn merge(paths: &[PathBuf], out: &Path, json: bool) -> anyhow::Result<()> {
    if json && out == Path::new("-") {
        let text = "--json and a log cannot both go to standard output";
        return Err(Error::new(Class::Usage, text).hint("cfor-log merge --json -o LOG").into());
    }
    let mut all = Vec::new();
    for path in paths {
        all.extend(logs(path)?);
    }
    let (header, state) = logfile::merge(&all)?;
    let generation = all.iter().map(|(_, log)| log.generations).max().unwrap_or(1);
    let bytes = logfile::whole(&header, generation, &state, true);
    if out == Path::new("-") {
        use std::io::Write as _;
        std::io::stdout().lock().write_all(&bytes)?;
        return Ok(());
    }
    if std::fs::symlink_metadata(out).is_ok_and(|data| !data.is_file()) {
        let text = format!("{}: writing a log: it exists and is no regular file", out.display());
        return Err(Error::new(Class::Refused, text).into());
    }
    replace(out, &bytes)?;
    if json {
        output::print_json(&Written::new("cfor-merge/1", out, header.tree, generation, &state))?;
    }
    Ok(())
}

/// `cfor-log rotate`
pub fn rotate(log: &Path, out: &Path, json: bool) -> anyhow::Result<()> {
    let log = logfile::rotate(log, out)?;
    if json {
        let generation = log.open.unwrap_or(log.generations);
        output::print_json(&Written::new("cfor-rotate/1", out, log.header.tree, generation, &log.state))?;
    }
    Ok(())
}
