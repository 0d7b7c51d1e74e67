//! Step 4 of a reload: what the configuration asks of the legs, one after the other, each as an administrator's
//! command would do it. A leg that the volume cannot do without stays; that is told with what to type next.

use super::Driver;
use crate::base::{Error, Name, Result, limits};
use crate::config::legs::LegChange;
use crate::control::EventKind;
use crate::volume::core::{Command, Event};
use crate::volume::options::ServeNotice;
use std::collections::VecDeque;

/// What a reload has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Settings, of the volume and of legs.
    pub(super) changed: usize,
    /// What needs a restart or a new volume.
    pub(super) more: usize,
    /// Legs that stay as they are.
    pub(super) refused: usize,
}

/// What is left to be done.
#[derive(Debug)]
pub(super) struct Relegs {
    todo: VecDeque<LegChange>,
    /// What the present task does.
    doing: Option<LegChange>,
    told: Told,
    /// The floor as the configuration wants it.
    min_legs: u32,
    /// Until then a state that is not durable yet is waited for.
    patience_ms: Option<u64>,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if (self.changed, self.more, self.refused) == (0, 0, 0) {
            return f.write_str("nothing differs");
        }
        write!(f, "{} changed", self.changed)?;
        if self.more > 0 {
            write!(f, ", {} need more than a reload", self.more)?;
        }
        if self.refused > 0 {
            write!(f, ", {} refused", self.refused)?;
        }
        Ok(())
    }
}

impl Driver<'_> {
    /// Begins. `named` are the legs that the configuration names now.
    pub(super) fn change_legs(&mut self, plan: Vec<LegChange>, named: Vec<Name>, told: Told) {
        let min_legs = self.config.min_legs;
        // A floor for legs that are yet to come is laid when they are there.
        self.config.min_legs = min_legs.min(u32::try_from(self.specs().len()).unwrap_or(min_legs));
        self.tune();
        // A leg that is to go and cannot is asked for again at the next reload.
        let staying = plan.iter().filter(|change| matches!(change, LegChange::Remove(_)));
        let staying: Vec<Name> = staying.map(|change| change.leg().clone()).collect();
        self.named = named.into_iter().chain(staying).collect();
        self.relegs = Some(Relegs { todo: plan.into(), doing: None, told, min_legs, patience_ms: None });
        self.change_next_leg();
    }

    /// Goes on with the next leg, if none is just being changed for somebody else; the last one ends the reload.
    pub(super) fn change_next_leg(&mut self) {
        if self.has_task() {
            return;
        }
        let now_ms = self.now_ms();
        let durable = self.core.status().state_durable;
        let Some(relegs) = self.relegs.as_mut().filter(|relegs| relegs.doing.is_none()) else { return };
        if self.stopping {
            relegs.todo.clear();
        }
        // A leg that has just come back counts once its record says so: while another one leaves, writes would fail.
        let leaves = matches!(relegs.todo.front(), Some(LegChange::Move(_) | LegChange::Remove(_)));
        let until = *relegs.patience_ms.get_or_insert(now_ms + limits::TASK_RETRY_MS);
        if leaves && !durable && now_ms < until {
            return;
        }
        relegs.patience_ms = None;
        if let Some(change) = relegs.todo.pop_front() {
            relegs.doing = Some(change.clone());
            return self.change_leg(&change);
        }
        let Some(Relegs { told, min_legs, .. }) = self.relegs.take() else { return };
        let told = self.raise_floor(min_legs, told);
        let text = format!("reload: {told}");
        (self.notify)(ServeNotice::Note(text.clone()));
        self.event(EventKind::Reload, None, &text);
        self.reload_over();
    }

    /// A leg has been changed, or stays as it is.
    pub(super) fn leg_changed(&mut self, result: Result<()>) {
        let Some(relegs) = &mut self.relegs else { return };
        let Some(change) = relegs.doing.take() else { return };
        match result {
            Ok(()) => {
                relegs.told.changed += 1;
                self.say_of(change.leg(), &change.to_string());
            }
            Err(error) => {
                relegs.told.refused += 1;
                let what = match &change {
                    LegChange::Add(leg) => format!("adding {leg}"),
                    LegChange::Fixed(leg, _)
                    | LegChange::Set(leg)
                    | LegChange::Move(leg)
                    | LegChange::Exchange(leg, _) => format!("setting {leg}"),
                    LegChange::Remove(_) => "removing it".to_owned(),
                };
                self.say_refused(change.leg(), &what, &error);
            }
        }
    }

    fn say_refused(&mut self, leg: &Name, what: &str, error: &Error) {
        self.say_of(leg, &format!("refused: {what}: {}", error.message));
        if let Some(hint) = &error.hint {
            self.say_of(leg, &format!("try: {hint}"));
        }
    }

    fn say_of(&mut self, leg: &Name, text: &str) {
        (self.notify)(ServeNotice::Note(format!("reload: leg {leg}: {text}")));
        let ix = self.leg_named(leg);
        self.event(EventKind::Reload, ix, &format!("leg {leg}: {text}"));
    }

    /// The floor that the configuration wants, if there are legs enough.
    fn raise_floor(&mut self, min_legs: u32, mut told: Told) -> Told {
        let legs = self.specs().len();
        if legs < min_legs as usize {
            told.refused += 1;
            let text = format!("reload: min-legs: refused: {min_legs} with {legs} legs");
            (self.notify)(ServeNotice::Note(text.clone()));
            self.event(EventKind::Reload, None, &text);
        } else if self.config.min_legs != min_legs {
            self.config.min_legs = min_legs;
            self.tune();
        }
        told
    }

    /// Tells the core of the settings that are its own.
    fn tune(&mut self) {
        let command = Command::Tune {
            min_legs: self.config.min_legs as usize,
            read_policy: super::reload::read_policy(self.config.read_policy),
        };
        self.events.push(Event::Command { id: super::control::BY_SIGNAL, command });
    }
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn a_reload_ends_with_how_much_it_did_and_what_it_could_not_do() {
        for (changed, more, refused, text) in [
            (0, 0, 0, "nothing differs"),
            (3, 0, 0, "3 changed"),
            (0, 2, 0, "0 changed, 2 need more than a reload"),
            (1, 2, 3, "1 changed, 2 need more than a reload, 3 refused"),
            (0, 0, 1, "0 changed, 1 refused"),
        ] {
            assert_eq!(Told { changed, more, refused }.to_string(), text);
        }
    }
}
