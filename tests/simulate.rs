//! Simulation: seeded histories of clients, legs, crashes, power loss and lost messages against the volume core.
//! The checker holds the invariants of the crate documentation; a failing seed prints itself and is made shorter.
//!
//! ```text
//! cargo test --test simulate                                        the usual run: all rules, then without each
//! cargo test --test simulate -- --seed 7 --histories 100000         more, or others
//! cargo test --test simulate -- --survey                            one line for each seed that fails
//! cargo test --test simulate -- --profile CopyEra --survey          all rules, with the troubles of one rule
//! cargo test --test simulate -- --rule Hold                         without a rule: which seed shows it
//! cargo test --test simulate -- --seed 7 --histories 1 --trace      everything that happens in one history
//! ```

#[path = "simulate/barrier.rs"]
mod barrier;
#[path = "simulate/checker.rs"]
mod checker;
#[path = "simulate/client.rs"]
mod client;
#[path = "simulate/driver.rs"]
mod driver;
#[path = "simulate/grow.rs"]
mod grow;
#[path = "simulate/leg.rs"]
mod leg;
#[path = "simulate/members.rs"]
mod members;
#[path = "simulate/plan.rs"]
mod plan;
#[path = "simulate/profile.rs"]
mod profile;
#[path = "simulate/random.rs"]
mod random;
#[path = "simulate/register.rs"]
mod register;
#[path = "simulate/report.rs"]
mod report;
#[path = "simulate/settle.rs"]
mod settle;
#[path = "simulate/state.rs"]
mod state;
#[path = "simulate/storage.rs"]
mod storage;
#[path = "simulate/tracker.rs"]
mod tracker;
#[path = "simulate/trouble.rs"]
mod trouble;
#[path = "simulate/verify.rs"]
mod verify;
#[path = "simulate/world.rs"]
mod world;

use mirror::volume::core::{Rule, Rules};
use profile::Profile;
use std::process::ExitCode;

/// Histories of the usual run.
const HISTORIES: u64 = 3_000;
/// Histories in which a rule that is switched off must show.
const WITHOUT: u64 = 3_000;
/// Lines of a trace that are printed unasked.
const LINES: usize = 120;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Options {
    seed: Option<u64>,
    histories: Option<u64>,
    rule: Option<Rule>,
    /// Troubles as for this rule, with all rules on.
    profile: Option<Rule>,
    trace: bool,
    /// Every failing seed in one line.
    survey: bool,
    /// Libtest's filters name something else, or only a list is wanted.
    nothing: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut filters = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = |name: &str| args.next().ok_or(format!("{name}: needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: not a number"));
        match arg.as_str() {
            "--seed" => options.seed = Some(number(value("--seed")?)?),
            "--histories" => options.histories = Some(number(value("--histories")?)?),
            "--rule" => {
                let name = value("--rule")?;
                options.rule = Some(report::rule(&name).ok_or(format!("{name}: no such rule"))?);
            }
            "--survey" => options.survey = true,
            "--profile" => {
                let name = value("--profile")?;
                options.profile = Some(report::rule(&name).ok_or(format!("{name}: no such rule"))?);
            }
            "--trace" => options.trace = true,
            "--list" | "--ignored" => options.nothing = true,
            // Flags of libtest with a value of their own.
            "--test-threads" | "--skip" | "--color" | "--format" | "--logfile" | "-Z" => drop(value(&arg)),
            _ if arg.starts_with('-') => {}
            _ => filters.push(arg),
        }
    }
    options.nothing |= !filters.is_empty() && !filters.iter().any(|f| "simulate".contains(f.as_str()));
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("simulate: {text}");
            return ExitCode::from(2);
        }
    };
    if options.nothing {
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    // A panic inside a history is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let (passed, failed) = match options.rule {
        None if options.survey => {
            let count = options.histories.unwrap_or(HISTORIES);
            report::survey(options.seed.unwrap_or(0), count, Rules::default(), &profile(&options))
        }
        Some(rule) => without(rule, &options),
        None => with_all(&options),
    };
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn profile(options: &Options) -> Profile {
    options.profile.map_or_else(Profile::default, Profile::of)
}

/// All rules on; and in the usual run, each of them off in turn.
fn with_all(options: &Options) -> (u64, u64) {
    let profile = profile(options);
    let from = options.seed.unwrap_or(0);
    let count = options.histories.unwrap_or(if options.seed.is_some() { 1 } else { HISTORIES });
    let rules = Rules::default();
    let (found, mut passed, successes) = report::hunt(from, count, rules, &profile);
    println!("all rules: {passed} histories, {successes} requests answered with success");
    let mut failed = 0;
    if let Some((seed, violation)) = found {
        failed += 1;
        let lines = if options.trace { usize::MAX } else { LINES };
        report::explain(seed, rules, &profile, &violation, lines);
    } else if options.trace {
        for line in report::run(&plan::Plan::new(from, &profile), rules, true).1 {
            println!("{line}");
        }
    }
    if options.seed.is_none() && options.histories.is_none() {
        for rule in Rule::ALL {
            let (found, missed) = without(rule, &Options::default());
            passed += found;
            failed += missed;
        }
    }
    (passed, failed)
}

/// One rule off: passes if some history shows it.
fn without(rule: Rule, options: &Options) -> (u64, u64) {
    let profile = Profile::of(rule);
    let rules = Rules::without(rule);
    let from = options.seed.unwrap_or(0);
    let (found, histories, _) = report::hunt(from, options.histories.unwrap_or(WITHOUT), rules, &profile);
    let Some((seed, violation)) = found else {
        println!("without {rule:?}: {histories} histories show nothing");
        return (0, 1);
    };
    println!("without {rule:?}: history {} violates \"{}\"", histories + 1, violation.invariant);
    if options.trace {
        report::explain(seed, rules, &profile, &violation, usize::MAX);
    }
    (1, 0)
}
