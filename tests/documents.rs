//! Man pages and completions say what `--help` says. `MIRROR_REGENERATE=1` writes the completions anew.

use crate::support::{bins, man_page, root};
use clap::{Command, CommandFactory as _};
use mirror::cli::Shell;
use std::collections::BTreeSet;

// The programs' own command lines; their `main` is not called here.
#[path = "../bins/cfor-log.rs"]
#[allow(dead_code)]
mod cfor_log;
#[path = "../bins/dirtymap.rs"]
#[allow(dead_code)]
mod dirtymap;
#[path = "../bins/mirror-sync.rs"]
#[allow(dead_code)]
mod mirror_sync;
#[path = "../bins/mirrord.rs"]
#[allow(dead_code)]
mod mirrord;

/// The command line of each program.
fn commands() -> Vec<(&'static str, Command)> {
    let all = vec![
        ("cfor-log", cfor_log::Cli::command()),
        ("dirtymap", dirtymap::Cli::command()),
        ("mirror-sync", mirror_sync::Cli::command()),
        ("mirrord", mirrord::Cli::command()),
    ];
    assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), bins(), "every program is documented");
    all
}

#[test]
fn completions_are_those_of_the_command_line() {
    for (name, mut command) in commands() {
        for (shell, suffix) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            let script = mirror::cli::completion(shell, &mut command);
            let path = root().join("completions").join(format!("{name}.{suffix}"));
            if std::env::var_os("MIRROR_REGENERATE").is_some() {
                std::fs::write(&path, &script).expect("write");
            }
            let stored = std::fs::read(&path).unwrap_or_default();
            assert!(
                stored == script,
                "{}: run MIRROR_REGENERATE=1 cargo test completions",
                path.strip_prefix(root()).expect("inside").display()
            );
        }
    }
}

/// Every long option of a command and its subcommands, and every name of a subcommand.
fn words(command: &Command, options: &mut BTreeSet<String>, verbs: &mut BTreeSet<String>) {
    options.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")));
    for sub in command.get_subcommands() {
        verbs.insert(sub.get_name().to_owned());
        words(sub, options, verbs);
    }
}

/// The text of a page of the manual without its macros and escapes.
fn page(name: &str) -> String {
    let path = man_page(name).unwrap_or_else(|| panic!("man/{name}.[18]: there is none"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
}

#[test]
fn each_option_of_help_is_in_the_man_page_and_the_reverse() {
    for (name, mut command) in commands() {
        command.build();
        let (mut options, mut verbs) = (BTreeSet::new(), BTreeSet::new());
        words(&command, &mut options, &mut verbs);
        let page = page(name);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let in_page: BTreeSet<String> = page
            .split(|c| !is_word(c))
            .filter(|word| {
                word.strip_prefix("--").is_some_and(|w| w.starts_with(|c: char| c.is_ascii_lowercase()))
            })
            .map(ToOwned::to_owned)
            .collect();
        assert_eq!(options, in_page, "{name}: --help (left) and man page (right)");
        for verb in verbs {
            assert!(
                page.split(|c| !is_word(c)).any(|word| word == verb),
                "{name}: {verb} is not in the page"
            );
        }
    }
}

#[test]
fn a_man_page_has_its_sections_in_order() {
    for name in bins() {
        let page = page(&name);
        let found: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(found[..3], ["NAME", "SYNOPSIS", "EXAMPLES"], "{name}");
        for section in ["DESCRIPTION", "EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"] {
            assert!(found.contains(&section), "{name}: no section {section}");
        }
        for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "70", "75"] {
            let line = format!("\n.B {code}\n");
            assert!(page.contains(&line), "{name}: exit status {code} is not explained");
        }
    }
}

#[test]
fn the_readme_names_every_program_and_the_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for words in ["sh examples/quickstart.sh", "sh tests/all.sh"] {
        assert!(readme.contains(words), "{words}");
    }
    for name in bins() {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in the table of tools");
    }
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("sh tests/all.sh"), ".ci/run calls the test command of the README");
}

#[test]
fn the_readme_gives_the_reason_for_every_dependency() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let table = manifest.split("[workspace.dependencies]").nth(1).expect("dependencies");
    let table = table.split("\n[").next().expect("table");
    let crates = table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for name in crates.filter(|name| *name != "mirror" && !name.starts_with('#')) {
        let explained = |line: &str| line.starts_with("| ") && line.contains(&format!("`{name}`"));
        assert!(readme.lines().any(explained), "{name} is not in the table of dependencies");
    }
}
