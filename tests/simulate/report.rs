//! Running many histories, making a failing one shorter, and saying so.

use crate::plan::Plan;
use crate::profile::Profile;
use crate::state::Violation;
use crate::world::World;
use mirror::volume::core::{Rule, Rules};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Most runs to make one history shorter.
const SHRINK_RUNS: u64 = 1500;

/// Runs a plan once. A panic of the core is a violation like any other.
pub fn run(plan: &Plan, rules: Rules, trace: bool) -> (Result<u64, Violation>, Vec<String>) {
    let mut world = World::new(plan, rules, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|cause| {
        let text = cause
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Err(Violation { invariant: "no panic", text, at_ms: 0 })
    });
    let at = world.now;
    let result = result.map_err(|mut v| {
        v.at_ms = at;
        v
    });
    (result, world.trace.take().unwrap_or_default())
}

/// The first failing seed of a range, over several threads, with what it violates; and the number of histories
/// that passed.
pub fn hunt(from: u64, count: u64, rules: Rules, profile: &Profile) -> (Option<(u64, Violation)>, u64, u64) {
    let next = AtomicU64::new(from);
    let stop = AtomicU64::new(from + count);
    let successes = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let found: Vec<(u64, Violation)> = std::thread::scope(|scope| {
        let work = || {
            let mut found = None;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= stop.load(Ordering::Relaxed) {
                    return found;
                }
                match run(&Plan::new(seed, profile), rules, false).0 {
                    Ok(n) => {
                        successes.fetch_add(n, Ordering::Relaxed);
                    }
                    Err(violation) => {
                        // Seeds below are finished, so that the first one is the same with any number of threads.
                        stop.fetch_min(seed, Ordering::Relaxed);
                        found = Some((seed, violation));
                        return found;
                    }
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|h| h.join().ok().flatten()).collect()
    });
    let first = found.into_iter().min_by_key(|f| f.0);
    let passed = first.as_ref().map_or(count, |f| f.0 - from);
    (first, passed, successes.into_inner())
}

/// One line for each failing seed, without making it shorter.
pub fn survey(from: u64, count: u64, rules: Rules, profile: &Profile) -> (u64, u64) {
    let mut at = from;
    let (mut passed, mut failed) = (0, 0);
    while at < from + count {
        let (found, before, _) = hunt(at, from + count - at, rules, profile);
        passed += before;
        let Some((seed, violation)) = found else { break };
        failed += 1;
        println!("seed {seed}: \"{}\" {} ms: {}", violation.invariant, violation.at_ms, violation.text);
        at = seed + 1;
    }
    (passed, failed)
}

/// Leaves out what is not needed for the same violation: halves first, single things last.
pub fn shrink(plan: &Plan, rules: Rules, invariant: &str) -> Plan {
    let mut best = plan.clone();
    let mut runs = 0;
    let mut size = best.things.len() / 2;
    while size > 0 && runs < SHRINK_RUNS {
        let mut at = 0;
        let mut shorter = false;
        while at < best.things.len() && runs < SHRINK_RUNS {
            let mut plan = best.clone();
            plan.things.drain(at..(at + size).min(best.things.len()));
            runs += 1;
            match run(&plan, rules, false).0 {
                Err(v) if v.invariant == invariant => {
                    best = plan;
                    shorter = true;
                }
                _ => at += size,
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    best
}

/// Prints what failed, made shorter.
pub fn explain(seed: u64, rules: Rules, profile: &Profile, violation: &Violation, lines: usize) {
    println!("seed {seed}: invariant \"{}\" is violated at {} ms", violation.invariant, violation.at_ms);
    println!("  {}", violation.text);
    let plan = Plan::new(seed, profile);
    let short = shrink(&plan, rules, violation.invariant);
    println!("  made shorter: {} of {} things; {:?}", short.things.len(), plan.things.len(), short.setup);
    for (at, thing) in &short.things {
        println!("  {at:>6} {thing:?}");
    }
    let (result, trace) = run(&short, rules, true);
    let from = trace.len().saturating_sub(lines);
    if from > 0 {
        println!("  … {from} lines of the trace before (--trace shows them)");
    }
    for line in &trace[from..] {
        println!("  {line}");
    }
    if let Err(violation) = result {
        println!("  {}: {}", violation.invariant, violation.text);
    }
}

/// A rule by its name.
pub fn rule(name: &str) -> Option<Rule> {
    Rule::ALL.into_iter().find(|r| format!("{r:?}").eq_ignore_ascii_case(name))
}
