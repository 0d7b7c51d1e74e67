//! What is wrong, and what to type: every state has an answer (invariant 9). Pure; the words of the status.

use crate::base::Name;
use crate::volume::core::{Halt, LegState, LegStatus, Status};

/// Why something is not as it should be, and the command to type. Both are absent where all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) reason: Option<String>,
    pub(super) next: Option<String>,
}

fn say(reason: impl Into<String>, next: String) -> Advice {
    Advice { reason: Some(reason.into()), next: Some(next) }
}

/// The words of a halt: of `halt` in the status, and for a person.
pub(super) fn halt_words(halt: Halt) -> (&'static str, String) {
    let seconds = |ms: u64| ms.div_ceil(1000);
    match halt {
        Halt::Paused => ("paused", "paused by an administrator".to_owned()),
        Halt::WaitingForHold(ms) => (
            "waiting-for-hold",
            format!("waiting for hold: late writes to the source may come for {} s", seconds(ms)),
        ),
        Halt::Record => ("record", "its record is being written".to_owned()),
        Halt::NoSource => ("no-source", "no source: no good leg is connected".to_owned()),
        Halt::Retry(ms) => ("retry", format!("a copy failed; tried again in {} s", seconds(ms))),
        Halt::TargetStalled(ms) => {
            ("target-stalled", format!("target stalled: nothing answered for {} s", seconds(ms)))
        }
        Halt::SourceStalled(ms) => {
            ("source-stalled", format!("source stalled: nothing answered for {} s", seconds(ms)))
        }
        Halt::Held(ms) => ("held", format!("held for {} s: late writes may still come", seconds(ms))),
        Halt::Rewrite => ("rewrite", "the source rewrites these blocks first".to_owned()),
        Halt::Rate => ("rate", "rate: its ceiling is reached".to_owned()),
    }
}

/// Of one leg; `trouble` is what its connection last said.
pub(super) fn leg(volume: &Name, name: &Name, leg: &LegStatus, trouble: Option<&str>) -> Advice {
    let because = |what: &str| match trouble {
        Some(trouble) => format!("{what}: {trouble}"),
        None => what.to_owned(),
    };
    let attach = format!("mirrord leg attach {volume} {name}");
    let resync = format!("mirrord resync {volume} {name}");
    let wait = format!("mirrord wait {volume} --until synced");
    match (leg.state, leg.halt) {
        // Nobody may attach it, and it goes by itself.
        _ if leg.retiring => say("it is being removed", wait),
        (LegState::UpToDate, _) if leg.connected => Advice::default(),
        (LegState::Detached | LegState::Gone, _) => say("detached by an administrator", attach),
        (LegState::Failed, _) => say(because("it failed"), attach),
        _ if !leg.connected => say(because("not connected"), resync),
        (_, Some(halt)) => {
            let next = match halt {
                Halt::Paused => format!("mirrord resume {volume} {name}"),
                Halt::TargetStalled(_) => format!("mirrord leg detach {volume} {name}"),
                Halt::NoSource | Halt::SourceStalled(_) | Halt::Record => {
                    format!("mirrord events {volume} --now")
                }
                Halt::Rate => format!("mirrord leg set {volume} {name} rate=auto"),
                Halt::WaitingForHold(_) | Halt::Retry(_) | Halt::Held(_) | Halt::Rewrite => wait,
            };
            say(halt_words(halt).1, next)
        }
        _ if leg.resync.is_some() => Advice { reason: None, next: Some(wait) },
        _ => say(because("waiting for its resync"), resync),
    }
}

/// What the driver knows of the volume besides the core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) stopping: bool,
    pub(super) good: usize,
    pub(super) min_legs: usize,
}

/// Of the volume; `legs` are the advices of its legs.
pub(super) fn volume(volume: &Name, core: &Status, what: Circumstances, legs: &[Advice]) -> Advice {
    let reason = if what.stopping {
        Some("stopping: requests drain".to_owned())
    } else if core.suspended {
        Some("no good leg can be reached; requests wait".to_owned())
    } else if !core.serving {
        Some("starting: legs are being connected".to_owned())
    } else if let Some(left) = core.barrier_left_ms {
        Some(format!("a snapshot barrier holds writes, for {} s at most", left.div_ceil(1000)))
    } else if !core.state_durable {
        Some("the state of the legs is not on stable storage yet".to_owned())
    } else if core.maps_failing {
        Some("marks cannot be made durable in the state directory: writes fail".to_owned())
    } else if what.good < what.min_legs {
        let (good, least) = (what.good, what.min_legs);
        Some(format!("{good} legs are UpToDate, min-legs is {least}: writes are refused"))
    } else {
        None
    };
    let owed = core.flush_error_owed.then(|| format!("mirrord wait {volume} --until synced"));
    let events = reason.is_some().then(|| format!("mirrord events {volume} --now"));
    Advice { reason, next: legs.iter().find_map(|leg| leg.next.clone()).or(events).or(owed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::core::ResyncStatus;

    const STATES: [LegState; 6] = [
        LegState::UpToDate,
        LegState::SyncTarget,
        LegState::Inconsistent,
        LegState::Outdated,
        LegState::Failed,
        LegState::Detached,
    ];
    const HALTS: [Option<Halt>; 11] = [
        None,
        Some(Halt::Paused),
        Some(Halt::WaitingForHold(1)),
        Some(Halt::Record),
        Some(Halt::NoSource),
        Some(Halt::Retry(1)),
        Some(Halt::TargetStalled(1)),
        Some(Halt::SourceStalled(1)),
        Some(Halt::Held(1)),
        Some(Halt::Rewrite),
        Some(Halt::Rate),
    ];

    fn legs() -> Vec<LegStatus> {
        let mut all = Vec::new();
        for state in STATES {
            for halt in HALTS {
                for bits in 0..8u8 {
                    let on = |bit: u8| bits >> bit & 1 == 1;
                    all.push(LegStatus {
                        state,
                        halt,
                        connected: on(0),
                        connecting: on(1),
                        resync: on(2).then_some(ResyncStatus { since_ms: 0, total: 1, done: 0 }),
                        ..LegStatus::default()
                    });
                }
            }
        }
        all
    }

    fn name(text: &str) -> Name {
        text.parse().expect("name")
    }

    #[test]
    fn done_no_state_of_a_leg_is_without_the_next_command_to_type() {
        for status in legs() {
            for trouble in [None, Some("Connection refused")] {
                let advice = leg(&name("vol0"), &name("far"), &status, trouble);
                let well = status.state == LegState::UpToDate && status.connected;
                assert_eq!(advice.next.is_none(), well, "{status:?}");
                let command = advice.next.unwrap_or_default();
                assert!(well || command.starts_with("mirrord ") && command.contains("vol0"), "{command}");
                // A resync that moves needs no reason; its figures say what it does.
                let moves = status.resync.is_some() && status.halt.is_none() && status.connected;
                assert!(well || moves || advice.reason.is_some(), "{status:?}");
            }
        }
    }

    #[test]
    fn done_no_state_of_the_volume_is_without_the_next_command_to_type() {
        for bits in 0..=u8::MAX {
            let on = |bit: u8| bits >> bit & 1 == 1;
            let core = Status {
                legs: Vec::new(),
                trackers: Vec::new(),
                serving: on(0),
                suspended: on(1),
                in_flight: 0,
                flush_error_owed: on(2),
                state_durable: on(3),
                maps_failing: on(6),
                barrier_left_ms: on(7).then_some(1),
            };
            let what = Circumstances { stopping: on(4), good: usize::from(on(5)), min_legs: 1 };
            let well = core.serving
                && !core.suspended
                && !core.flush_error_owed
                && core.state_durable
                && !core.maps_failing
                && core.barrier_left_ms.is_none()
                && !what.stopping
                && what.good == 1;
            let advice = volume(&name("vol0"), &core, what, &[]);
            assert_eq!(advice.next.is_none(), well, "{core:?} {what:?}");
        }
    }

    #[test]
    fn a_leg_that_is_being_removed_is_not_to_be_attached() {
        for state in STATES {
            let status = LegStatus { state, retiring: true, ..LegStatus::default() };
            let advice = leg(&name("vol0"), &name("far"), &status, None);
            assert_eq!(advice.reason.as_deref(), Some("it is being removed"), "{state:?}");
            assert_eq!(advice.next.as_deref(), Some("mirrord wait vol0 --until synced"), "{state:?}");
        }
    }

    #[test]
    fn what_a_person_can_change_is_what_is_offered() {
        let status = |halt| LegStatus {
            state: LegState::SyncTarget,
            connected: true,
            halt: Some(halt),
            ..LegStatus::default()
        };
        for (halt, reason, next) in [
            (Halt::Paused, "paused by", "mirrord resume vol0 far"),
            (Halt::Held(2100), "held for 3 s", "mirrord wait vol0"),
            (Halt::WaitingForHold(900), "waiting for hold: ", "mirrord wait vol0"),
            (Halt::Rate, "rate: ", "mirrord leg set vol0 far rate=auto"),
            (Halt::NoSource, "no source: ", "mirrord events vol0"),
            (Halt::TargetStalled(6000), "target stalled: nothing answered for 6 s", "mirrord leg detach"),
        ] {
            let advice = leg(&name("vol0"), &name("far"), &status(halt), None);
            assert!(advice.reason.expect("reason").starts_with(reason), "{halt:?}");
            assert!(advice.next.expect("next").starts_with(next), "{halt:?}");
        }
    }
}
