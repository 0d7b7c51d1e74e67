//! Style that a machine can see (style.md sections 1 and 2): floors, sizes, banned words, dead files.

use crate::support::{bins, man_page, root};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longer files are to be split.
const LINES_MAX: usize = 800;
/// Longer files are named, so that somebody thinks about them.
const LINES_WARN: usize = 400;

/// The floor of each room. A file imports only lower floors; rooms of floors 2 and 4 are strangers.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["base"]),
    (1, &["device"]),
    (2, &["nbd", "map", "journal", "generation", "delta", "fslog", "control", "remote", "transport"]),
    (3, &["leg", "config"]),
    (4, &["volume", "sync", "promote", "capture"]),
    (5, &["cli"]),
];

/// The rooms inside `capture`, lowest first; those of one line are strangers. A file imports only lower ones.
const CAPTURE: &[&[&str]] = &[
    &["watch", "barrier"],
    &["tree"],
    &["live", "scan"],
    &["btrfs"],
    &["store"],
    &["fanotify", "seccomp", "dump"],
    &["apply"],
    &["export", "far"],
    &["seed"],
];

/// One Rust file.
struct Source {
    /// From the root of the checkout.
    path: String,
    text: String,
    /// The room of the library it belongs to.
    room: Option<String>,
}

impl Source {
    /// Its code without line comments, and without the unit tests at its end.
    fn code_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().count();
        self.code().take(lines)
    }

    /// Its code without line comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    fn is_test(&self) -> bool {
        let shipped = self.path.starts_with("lib/src/") || self.path.starts_with("bins/");
        !shipped || self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in ["lib", "bins", "tests", "examples"] {
        walk(&root().join(dir), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("source");
            let path = path.strip_prefix(root()).expect("inside").to_str().expect("UTF-8").to_owned();
            let room = path.strip_prefix("lib/src/").and_then(|inside| inside.split_once('/'));
            let room = room.map(|(room, _)| room.to_owned());
            Source { path, text, room }
        })
        .collect()
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            walk(&path, paths);
        } else if path.is_file() {
            paths.push(path);
        }
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// The rooms that a line of code names through `crate::`.
fn imports(code: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(text.len());
    let named = code.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
        // use crate::{base::Name, map::Map}: the first word of each part outside inner braces
        Some(list) => top_level(list),
        None => vec![rest],
    });
    named.map(|text| &text[..word(text)]).filter(|room| !room.is_empty()).collect()
}

fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(list[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

/// Fails with every complaint at once.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_file_imports_only_lower_floors() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = &source.room else { continue };
        let Some(own) = floor(room) else {
            wrong.push(format!("{}: room {room} is on no floor; name it in tests/tidy.rs", source.path));
            continue;
        };
        // Statements, so that an import over several lines is seen whole.
        let code: Vec<_> = source.code().map(|(_, line)| line.trim()).collect();
        for statement in code.join(" ").split(';') {
            for other in imports(statement).into_iter().filter(|other| *other != room) {
                let bad = match floor(other) {
                    // `crate::` also stands before macros and items of lib.rs: none of these is a room.
                    None => root().join("lib/src").join(other).is_dir(),
                    // Leg and config are neighbours that know each other; other rooms are strangers.
                    Some(floor) => floor > own || floor == own && own != 3,
                };
                if bad {
                    wrong.push(format!("{}: {room} (floor {own}) imports {other}", source.path));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn a_file_of_capture_imports_only_lower_rooms() {
    let place = |room: &str| CAPTURE.iter().position(|rooms| rooms.contains(&room));
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let Some((room, _)) = source.path.strip_prefix("lib/src/capture/").and_then(|path| {
            path.split_once('/').or_else(|| path.strip_suffix(".rs").map(|name| (name, "")))
        }) else {
            continue;
        };
        if room == "mod" {
            continue;
        }
        let Some(own) = place(room) else {
            wrong.push(format!("{}: room {room} has no place; name it in tests/tidy.rs", source.path));
            continue;
        };
        seen.insert(room.to_owned());
        let code: Vec<_> = source.code().map(|(_, line)| line.trim()).collect();
        // A file of its own, such as store.rs, names its neighbours through `super` as well.
        let code = match source.path.matches('/').count() {
            3 => code.join(" ").replace("super::", "crate::capture::"),
            _ => code.join(" "),
        };
        // As if the rooms of capture were those of the crate.
        for other in imports(
            &code.replace("crate::capture::", "\u{0}").replace("crate::", "").replace('\u{0}', "crate::"),
        ) {
            if other != room && place(other).is_some_and(|other| other >= own) {
                wrong.push(format!("{}: {room} imports {other}", source.path));
            }
        }
    }
    none(&wrong);
    let named: BTreeSet<_> =
        CAPTURE.iter().flat_map(|rooms| rooms.iter().map(|room| (*room).to_owned())).collect();
    assert_eq!(named, seen, "tests/tidy.rs (left) and the rooms (right)");
}

#[test]
fn every_room_is_a_directory_that_lib_rs_names() {
    let lib = std::fs::read_to_string(root().join("lib/src/lib.rs")).expect("lib.rs");
    let named: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(ToOwned::to_owned)
        .collect();
    let entries = std::fs::read_dir(root().join("lib/src")).expect("lib/src");
    let found: BTreeSet<_> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.join("mod.rs").is_file())
        .map(|path| path.file_name().expect("name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(named, found, "lib.rs (left) and the directories (right)");
}

#[test]
fn no_file_is_a_warehouse() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", source.path));
        } else if lines > LINES_WARN {
            println!("{}: {lines} lines: does it hold one thing?", source.path);
        }
        if let Some((at, _)) = source.text.lines().enumerate().find(|(_, line)| line.ends_with(' ')) {
            wrong.push(format!("{}:{}: a space at the end of the line", source.path, at + 1));
        }
    }
    none(&wrong);
}

#[test]
fn banned_words_stay_out() {
    // Split, so that this file does not complain about itself.
    let anywhere = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO")];
    let code = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let library = ["println!(", "eprintln!(", "print!(", "eprint!("];
    let exit = "process::exit(";
    let mut wrong = Vec::new();
    for source in sources() {
        let mut complain = |at: usize, word: &str| wrong.push(format!("{}:{at}: {word}", source.path));
        for (at, line) in source.text.lines().enumerate() {
            let words: Vec<_> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            anywhere.iter().filter(|word| words.contains(word)).for_each(|word| complain(at + 1, word));
            code.iter().filter(|word| line.contains(**word)).for_each(|word| complain(at + 1, word));
            let import = line.trim_start().trim_start_matches("pub ");
            // What unit tests are written with.
            let usual = ["use super::*;", "use proptest::prelude::*;"].contains(&import);
            if !usual && import.starts_with("use ") && (import.contains("::*") || import.contains(", *}")) {
                complain(at + 1, "a glob import");
            }
        }
        let Some(room) = source.room.as_deref().filter(|_| !source.is_test()) else { continue };
        for (at, line) in source.code_without_tests() {
            if room != "cli" {
                library.iter().filter(|word| line.contains(**word)).for_each(|word| complain(at, word));
                if line.contains(exit) {
                    complain(at, exit);
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_file_of_the_library_is_reached() {
    let sources = sources();
    let mut dead = Vec::new();
    for source in sources.iter().filter(|s| s.path.starts_with("lib/src/") && s.path != "lib/src/lib.rs") {
        let path = Path::new(&source.path);
        let stem = path.file_stem().and_then(|s| s.to_str()).expect("stem");
        let dir = path.parent().expect("directory");
        let (name, dir) = match stem {
            "mod" => (dir.file_name().and_then(|n| n.to_str()).expect("name"), dir.parent().expect("parent")),
            _ => (stem, dir),
        };
        // `x/y.rs` is declared in `x/mod.rs`, in `x.rs`, or by a `#[path]` of a neighbour.
        let above = dir.parent().expect("parent");
        let declared = sources.iter().filter(|s| Path::new(&s.path).starts_with(above)).any(|s| {
            let file = path.file_name().and_then(|n| n.to_str()).expect("name");
            let names = |line: &str| {
                line.trim_end().ends_with(&format!("mod {name};"))
                    || line.contains(&format!("#[path = \"{file}\"]"))
            };
            s.text.lines().any(names)
        });
        if !declared {
            dead.push(format!("{}: no module declares it", path.display()));
        }
    }
    none(&dead);
}

#[test]
fn every_program_has_its_page_and_completions() {
    let mut wrong = Vec::new();
    for name in bins() {
        if man_page(&name).is_none() {
            wrong.push(format!("{name} has no page in man/"));
        }
        for file in [
            format!("completions/{name}.bash"),
            format!("completions/{name}.zsh"),
            format!("completions/{name}.fish"),
        ] {
            if !root().join(&file).is_file() {
                wrong.push(format!("{file} is missing"));
            }
        }
        if man_page(&name).is_none() {
            wrong.push(format!("man/{name}.[18] is missing"));
        }
        let source = std::fs::read_to_string(root().join("bins").join(format!("{name}.rs"))).expect("bin");
        let lines = source.lines().count();
        if lines > 200 {
            wrong.push(format!("bins/{name}.rs: {lines} lines: parse, call once, print"));
        }
        if !source.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("bins/{name}.rs does not forbid unsafe code"));
        }
    }
    none(&wrong);
}

#[test]
fn names_of_tests_are_sentences() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<_> = source.text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[test]") {
            let name =
                pair[1].strip_prefix("fn ").and_then(|rest| rest.split_once('(')).map(|(name, _)| name);
            if let Some(name) = name.filter(|name| name.starts_with("test_") || name.split('_').count() < 3) {
                wrong.push(format!("{}: {name}: not a sentence", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_floors_are_read_out_of_imports() {
    assert_eq!(imports("use crate::base::Name"), ["base"]);
    assert_eq!(imports("use crate::{base::{Name, Id}, map::Map}"), ["base", "map"]);
    assert_eq!(imports("let x = crate::nbd::PORT + crate::map::SIZE"), ["nbd", "map"]);
    assert_eq!(imports("use std::fmt"), Vec::<&str>::new());
}
