//! Every JSON document that a program prints is in `mirror-json(5)`, with every key it has.

use crate::support::{Dir, Tool, bin, root};
use mirror::capture::live::{Answer, RangesAnswer};
use mirror::control::verify::{VerifiedLeg, VerifiedRange, VerifyResult, VerifyStatus};
use mirror::control::{AddressStatus, Event, EventKind, LegStatus, ResyncStatus, Status, TrackerStatus};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// For each schema of the page the keys that are explained there.
fn page() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("man/mirror-json.5")).expect("man/mirror-json.5");
    let text = text.replace("\\-", "-");
    let sections = text.split("\n.SH ").skip(1).filter_map(|section| section.split_once('\n'));
    let keys = |body: &str| {
        let lines: Vec<_> = body.lines().collect();
        let pairs = lines.windows(2).filter(|pair| pair[0] == ".TP");
        pairs.filter_map(|pair| pair[1].strip_prefix(".B ")).map(str::to_owned).collect()
    };
    sections
        .filter(|(title, _)| title.contains('/'))
        .map(|(title, body)| (title.to_owned(), keys(body)))
        .collect()
}

/// All keys of a document; those of `acknowledged` are names of standbys.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.insert(key.clone());
                if key != "acknowledged" {
                    keys(value, into);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

/// The strings in the sources of the library that are names of schemas.
fn schemas(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("sources") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            schemas(&path, into);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("source");
        let strings = text.split('"').filter(|word| {
            let name = word.strip_suffix("/1").unwrap_or_default();
            name.contains('-') && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        });
        into.extend(strings.map(str::to_owned));
    }
}

/// Forms of files and of a socket, which no program prints: `mirror-formats(5)` is about those.
const INSIDE: [&str; 2] = ["mirror-generation/1", "mirror-resize/1"];

#[test]
fn every_schema_of_the_programs_has_its_section() {
    let mut found = BTreeSet::new();
    schemas(&root().join("lib/src"), &mut found);
    found.retain(|schema| !INSIDE.contains(&schema.as_str()));
    let page: BTreeSet<_> = page().into_keys().collect();
    assert_eq!(found, page, "in the sources (left) and in man/mirror-json.5 (right)");
}

/// Documents as the programs print them.
fn documents() -> Vec<Value> {
    let dir = Dir::new();
    let (resync, addresses) = (Some(ResyncStatus::default()), vec![AddressStatus::default()]);
    let leg = LegStatus { resync, addresses, ..LegStatus::default() };
    let volume = "vol".parse().expect("name");
    let trackers = vec![TrackerStatus::default()];
    let verify = Some(VerifyStatus { estimated_seconds_to_finish: Some(1), ..VerifyStatus::default() });
    let status = Status { legs: vec![leg], trackers, verify, ..Status::new(&volume) };
    let found = VerifyResult {
        legs: vec![VerifiedLeg::default()],
        ranges: vec![VerifiedRange::default()],
        ..VerifyResult::default()
    };
    let event = Event::new(1, EventKind::Leave, &volume, Some(&volume), "text");
    let mut all = vec![
        serde_json::to_value(&status).expect("status"),
        serde_json::to_value(&event).expect("event"),
        serde_json::to_value(&found).expect("found"),
    ];
    let mut take = |program: &str, args: &[&str], code: i32| {
        let tool = Tool::new(bin(program)).args(args).env("MIRROR_STATE_DIR", dir.state());
        let out = tool.run().expect(code).stdout;
        let lines =
            out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        all.extend(lines.collect::<Vec<Value>>());
    };
    let path = |name: &str| dir.path(name).to_str().expect("UTF-8").to_owned();
    let (image, map) = (dir.image("a", 1 << 20), path("map"));
    let leg = format!("a={}", image.display());
    take("mirrord", &["create", "vol", "--size", "1M", "--leg", &leg, "--json"], 0);
    take("dirtymap", &["create", "--size", "1M", "--all", &map], 0);
    take("dirtymap", &["stat", "--json", &map], 0);
    take("dirtymap", &["show", "--json", &map], 0);
    take("dirtymap", &["size", "--size", "1M", "--json"], 0);
    let (tree, standby, log, held) = (path("tree"), path("standby"), path("log"), path("held"));
    for name in [&tree, &standby] {
        std::fs::create_dir(name).expect("directory");
    }
    std::fs::write(Path::new(&tree).join("file"), "data").expect("file");
    let (dump, changed) = (path("dump"), path("changed"));
    take("cfor-log", &["dump", &log, "--root", &tree, "-o", &dump, "--json"], 0);
    take("cfor-log", &["apply", &dump, "--root", &standby, "--log", &held, "--json"], 0);
    std::fs::write(Path::new(&standby).join("extra"), "").expect("file");
    take("cfor-log", &["verify", "--root", &standby, "--log", &held, "--json"], 1);
    std::fs::hard_link(Path::new(&tree).join("file"), Path::new(&tree).join("link")).expect("link");
    take("cfor-log", &["dump", &log, "--root", &tree, "-o", &changed, "--full", "--json"], 0);
    take("cfor-log", &["show", &changed, "--json"], 0);
    take("cfor-log", &["stat", &changed, &log, &held, "--json"], 0);
    let (copy, summary) = (dir.image("copy", 1 << 20), path("a"));
    take("mirror-sync", &["--full", "--json", &summary, copy.to_str().expect("UTF-8")], 0);
    let (fresh, fresh_log, fresh_held) = (path("fresh"), path("fresh.log"), path("fresh.held"));
    std::fs::create_dir(&fresh).expect("directory");
    let seed = ["seed", &fresh, "--root", &tree, "--log", &fresh_log, "--target-log", &fresh_held, "--json"];
    take("cfor-log", &seed, 0);
    all
}

#[test]
fn every_key_that_is_printed_is_explained() {
    let page = page();
    let mut printed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in documents() {
        let schema = document["schema"].as_str().expect("a schema").to_owned();
        let first = document.to_string();
        assert!(first.contains("\"schema\""), "{first}");
        keys(&document, printed.entry(schema).or_default());
    }
    let progress = mirror::cli::Progress { estimated_seconds_to_finish: Some(1), ..Default::default() };
    let progress = serde_json::to_value(progress).expect("progress");
    keys(&progress, printed.entry("mirror-progress/1".to_owned()).or_default());
    let recorder = Answer {
        schema: "cfor-recorder/1".to_owned(),
        ranges: Some(RangesAnswer { process: Some(1), off: Some(String::new()), ..Default::default() }),
        ..Answer::default()
    };
    let recorder = serde_json::to_value(recorder).expect("recorder");
    keys(&recorder, printed.entry("cfor-recorder/1".to_owned()).or_default());
    for (schema, keys) in &printed {
        let explained = page.get(schema).unwrap_or_else(|| panic!("{schema} is not in man/mirror-json.5"));
        let missing: Vec<_> = keys.difference(explained).collect();
        assert!(missing.is_empty(), "{schema}: not in man/mirror-json.5: {missing:?}");
    }
    // What a status and an event hold is known in full: nothing is explained that is not there.
    for schema in [
        "mirrord-status/1",
        "mirrord-event/1",
        "mirrord-verify/1",
        "mirrord-create/1",
        "dirtymap-stat/1",
        "cfor-apply/1",
        "cfor-recorder/1",
    ] {
        assert_eq!(page[schema], printed[schema], "{schema}: in the page (left), printed (right)");
    }
}
