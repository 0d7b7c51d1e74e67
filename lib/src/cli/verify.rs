//! `mirrord verify`: asks the daemon to compare the legs, tells how far it has come, says what was found.

use super::ask::REPLY;
use super::output;
use super::progress::{Meter, Progress, ProgressTo};
use crate::base::units::show_size;
use crate::base::{Class, Error, Name, Result};
use crate::control::{Request, StateDir, VerifyResult, VolumeDir, client};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The status is asked for so often.
const POLL: Duration = Duration::from_millis(200);
/// Ranges that are shown to a person; `--json` has more.
const SHOWN: usize = 20;

/// The command line of `mirrord verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Which volume
    name: Name,
    /// Only what differs between this leg and another
    leg: Option<Name>,
    /// Copy the blocks that differ from this leg to those that hold something else
    #[arg(long, value_name = "LEG")]
    repair_from: Option<Name>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// Write progress as JSON lines to this open file descriptor
    #[arg(long, value_name = "FD")]
    progress: Option<ProgressTo>,
}

/// Compares. Errors: [`Class::Differs`] without a text; [`Class::Partial`] when a leg left or could not be read.
pub fn verify(args: &VerifyArgs, quiet: bool) -> anyhow::Result<()> {
    let volume = StateDir::from_environment()?.volume(&args.name);
    let otherwise = if quiet { ProgressTo::Nobody } else { ProgressTo::People };
    let found = ask(&volume, args, args.progress.unwrap_or(otherwise))?;
    if args.json {
        output::print_json(&found)?;
    } else if !quiet {
        output::print(&render(&found))?;
    }
    match found.class() {
        None => Ok(()),
        Some(Class::Differs) => Err(Error::new(Class::Differs, "").into()),
        Some(class) => Err(partial(&found, class).into()),
    }
}

/// One question over a connection of its own; meanwhile the status says how far it is.
fn ask(volume: &VolumeDir, args: &VerifyArgs, to: ProgressTo) -> Result<VerifyResult> {
    let mut meter = Meter::new("mirrord", to)?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked))
        .map_err(|e| Error::os(Class::Internal, "SIGUSR1", "taking the signal", e))?;
    let request = Request::Verify { leg: args.leg.clone(), repair_from: args.repair_from.clone() };
    let (sender, answer) = mpsc::sync_channel(1);
    let dir = volume.clone();
    // It ends with the answer, with the daemon, or with this process.
    std::thread::spawn(move || sender.send(client::call_long(&dir, &request, REPLY)));
    loop {
        match answer.recv_timeout(POLL) {
            Ok(value) => {
                return serde_json::from_value(value?).map_err(|e| {
                    Error::new(Class::Internal, format!("{}: reading what was found: {e}", volume.name()))
                });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(
                    Class::Internal,
                    format!("{}: asking for it: no answer", volume.name()),
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // What the answer cannot be is not worth an error here.
        if let Ok(status) = client::status(volume, REPLY)
            && let Some(verify) = status.verify
        {
            let text = match verify.differing {
                0 => format!("{} verify", status.name),
                bytes => format!("{} verify, {} differ", status.name, show_size(bytes)),
            };
            let now = Progress {
                done: verify.done,
                total: verify.total,
                rate: verify.rate,
                estimated_seconds_to_finish: verify.estimated_seconds_to_finish,
                text,
            };
            meter.update(&now, asked.swap(false, Ordering::Relaxed));
        }
    }
}

fn partial(found: &VerifyResult, class: Class) -> Error {
    let legs: Vec<String> = found
        .legs
        .iter()
        .filter(|leg| leg.left || leg.unread > 0)
        .map(|leg| {
            let left = || format!("{} left the set", leg.name);
            let unread = || format!("{} could not be read in {}", leg.name, show_size(leg.unread));
            if leg.left { left() } else { unread() }
        })
        .collect();
    let text = format!("{}: verifying it: not everything was compared: {}", found.name, legs.join(", "));
    Error::new(class, text).hint(format!("mirrord status {}", found.name))
}

/// For a person: each leg, the ranges, and what to type.
fn render(found: &VerifyResult) -> String {
    let mut text = format!(
        "{}: {} of {} compared, {} in blocks that differ\n",
        found.name,
        show_size(found.done),
        show_size(found.size),
        show_size(found.differing)
    );
    for leg in &found.legs {
        let mut words = vec![format!("{} compared", show_size(leg.compared))];
        for (bytes, what) in [
            (leg.unread, "not readable"),
            (leg.outvoted, "unlike most"),
            (leg.repaired, "copied to it again"),
        ] {
            if bytes > 0 {
                words.push(format!("{} {what}", show_size(bytes)));
            }
        }
        if leg.left {
            words.push("left before the end".to_owned());
        }
        let _ = writeln!(text, "  {}: {}", output::one_line(&leg.name), words.join(", "));
    }
    for range in found.ranges.iter().take(SHOWN) {
        let groups: Vec<String> = range.groups.iter().map(|group| group.join(" = ")).collect();
        let _ = writeln!(
            text,
            "  {}+{}  {}",
            range.offset,
            range.length,
            output::one_line(&groups.join("  differs from  "))
        );
    }
    if found.ranges.len() > SHOWN || found.is_cut() {
        text.push_str("  and more\n");
    }
    if found.differing > 0 {
        let next = match &found.repair_from {
            None => format!("mirrord verify --repair-from LEG {}", found.name),
            Some(_) => format!("mirrord wait {} --until synced", found.name),
        };
        let _ = writeln!(text, "  try: {next}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::verify::{VerifiedLeg, VerifiedRange};

    #[test]
    fn what_was_found_reads_as_lines_that_say_which_leg_differs_from_which() {
        let leg = |name: &str, outvoted| VerifiedLeg {
            name: name.into(),
            compared: 1 << 20,
            outvoted,
            ..VerifiedLeg::default()
        };
        let found = VerifyResult {
            name: "vol0".into(),
            size: 1 << 20,
            done: 1 << 20,
            differing: 65536,
            listed: 65536,
            legs: vec![leg("near", 0), leg("far", 65536)],
            ranges: vec![VerifiedRange {
                offset: 131_072,
                length: 65536,
                groups: vec![vec!["near".into(), "third".into()], vec!["far".into()]],
            }],
            ..VerifyResult::default()
        };
        assert_eq!(
            render(&found),
            "vol0: 1 MiB of 1 MiB compared, 64 KiB in blocks that differ\n\
             \x20 near: 1 MiB compared\n\
             \x20 far: 1 MiB compared, 64 KiB unlike most\n\
             \x20 131072+65536  near = third  differs from  far\n\
             \x20 try: mirrord verify --repair-from LEG vol0\n"
        );
        assert_eq!(found.class(), Some(Class::Differs));
    }
}
