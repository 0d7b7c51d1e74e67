//! Tasks of administrators that take several steps: what stands on disk is changed by a worker, the core is told
//! before or after, and one who asked is answered at the end. One task at a time.

use super::legs::{Slot, core_leg};
use super::watch::Watch;
use super::{Completion, Driver};
use crate::base::{Class, Error, Id, Name, Result, limits};
use crate::config::legs::LegChange;
use crate::control::{EventKind, Reply};
use crate::leg::LegSpec;
use crate::map::{Durability, MapFile};
use crate::volume::core::{Command, Event as CoreEvent, LegIx, LegState};
use crate::volume::members::{self, Kept, through};
use crate::volume::options::ServeNotice;
use crate::volume::resize::{self, Growth};
use crate::volume::state::{self, MapHandle};
use std::sync::{Arc, PoisonError};

/// The command of the present task: its answer goes to the task, not to a connection.
pub(super) const OF_TASK: u64 = 1 << 62;

/// Where the present task stands.
#[derive(Debug)]
pub(super) struct Task {
    asker: Asker,
    step: Step,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// Somebody on the control socket.
    Control(u64),
    /// The configuration, read again.
    Reload,
    /// Nobody: it goes on by itself.
    Itself,
}

#[derive(Debug)]
enum Step {
    /// A worker makes record and map of a new leg; then the core takes it in.
    Enlisting(LegSpec, Kept),
    /// The core takes it in.
    Taking,
    /// The core takes a leg out, durably; then a worker removes what stands on disk.
    Retiring(LegIx),
    /// A worker removes what stands on disk; then the core forgets it.
    Dismissing(LegIx),
    /// A worker writes the settings of a leg; then the core and the driver take them.
    Setting(LegIx, LegSpec, Kept),
    /// The core takes them.
    Changing(LegIx, LegSpec),
    /// A worker looks at the legs, announces the growth, and grows the maps; then the core grows.
    Growing(Option<u64>),
    /// The core grows, and other legs than the source leave, durably; then a worker writes the records.
    Widening(Growth, LegIx),
    /// A worker writes the records; then clients are offered the new size.
    Recording(Growth),
}

/// What the worker of a task brought.
#[derive(Debug)]
pub(super) enum Brought {
    /// Nothing but the fact.
    Done,
    /// The growth that has been prepared on disk; none if the volume has that size already.
    Growth(Option<Growth>),
    /// A new leg's id, and its map in use.
    Leg(Id, MapHandle),
}

impl Driver<'_> {
    /// The number of a leg by its name.
    pub(super) fn leg_named(&self, name: &Name) -> Option<LegIx> {
        self.legs.iter().position(|slot| !slot.gone && slot.spec.name == *name)
    }

    /// The legs there are.
    pub(super) fn specs(&self) -> Vec<LegSpec> {
        self.legs.iter().filter(|slot| !slot.gone).map(|slot| slot.spec.clone()).collect()
    }

    /// Begins a task for somebody, or refuses it.
    fn begin(&mut self, asker: Asker, task: Result<Step>) {
        let busy = || Error::new(Class::Busy, format!("{}: its legs are being changed", self.name));
        let step = if self.task.is_some() { Err(busy()) } else { task };
        match step {
            Ok(step) => {
                if let Asker::Control(key) = asker {
                    self.occupy_control(key);
                }
                self.task = Some(Task { asker, step });
                self.go_on();
            }
            Err(error) => match asker {
                Asker::Control(key) => self.reply_control(key, &error.into()),
                Asker::Reload | Asker::Itself => self.task_over(asker, Err(error)),
            },
        }
    }

    /// Whether legs are just being changed for somebody.
    pub(super) fn has_task(&self) -> bool {
        self.task.is_some()
    }

    fn serving_only(&self) -> Result<()> {
        if self.serving && !self.stopping {
            return Ok(());
        }
        let text = format!("{}: the volume is starting or stopping", self.name);
        Err(Error::new(Class::Busy, text).hint(format!("mirrord status {}", self.name)))
    }

    fn member(&self, name: &Name) -> Result<LegIx> {
        self.serving_only()?;
        self.leg_named(name).ok_or_else(|| self.unknown_leg(name))
    }

    /// `leg add`, `leg replace`
    pub(super) fn add_leg(&mut self, key: u64, leg: &str, replaces: Option<Name>) {
        let step = leg.parse::<crate::leg::LegText>().and_then(|text| {
            let spec = LegSpec { replaces, ..text.spec(self.legs.len())? };
            self.adding(spec, Kept::All)
        });
        self.begin(Asker::Control(key), step);
    }

    fn adding(&self, spec: LegSpec, kept: Kept) -> Result<Step> {
        self.serving_only()?;
        if let Some(old) = &spec.replaces {
            self.member(old)?;
        }
        crate::leg::spec::check_set(&[self.specs(), vec![spec.clone()]].concat())?;
        Ok(Step::Enlisting(spec, kept))
    }

    /// `leg remove`
    pub(super) fn remove_leg(&mut self, asker: Asker, name: &Name) {
        let step = self.removing(name);
        self.begin(asker, step);
    }

    fn removing(&self, name: &Name) -> Result<Step> {
        let leg = self.member(name)?;
        if self.specs().len() == 1 || self.core.is_last_good(leg) {
            return Err(members::last_copy(&self.dir, name));
        }
        let mut config = self.config.clone();
        config.legs = self.specs();
        members::check_dismissal(&config, name)?;
        Ok(Step::Retiring(leg))
    }

    /// `leg set`
    pub(super) fn set_leg(&mut self, key: u64, name: &Name, pairs: &[String]) {
        let step = self.member(name).and_then(|leg| {
            let spec = members::set_over(&self.legs[leg].spec, pairs)?;
            self.setting(leg, spec, Kept::Said(pairs.to_vec()))
        });
        self.begin(Asker::Control(key), step);
    }

    fn setting(&self, leg: LegIx, spec: LegSpec, kept: Kept) -> Result<Step> {
        if !spec.meets(&self.legs[leg].spec) && self.core.is_last_good(leg) {
            return Err(members::last_copy(&self.dir, &spec.name));
        }
        Ok(Step::Setting(leg, spec, kept))
    }

    /// What a configuration that was read again asks of one leg.
    pub(super) fn change_leg(&mut self, change: &LegChange) {
        let step = match change {
            LegChange::Fixed(leg, key) => Err(members::fixed(&self.name, &leg.name, key)),
            LegChange::Exchange(leg, other) => Err(members::exchange(&self.name, &leg.name, other)),
            LegChange::Add(leg) => self.adding(leg.clone(), Kept::Address),
            LegChange::Set(leg) => {
                self.member(&leg.name).and_then(|ix| self.setting(ix, leg.clone(), Kept::Address))
            }
            LegChange::Move(leg) => self.member(&leg.name).and_then(|ix| {
                self.may_leave(ix).and_then(|()| self.setting(ix, leg.clone(), Kept::Address))
            }),
            LegChange::Remove(name) => {
                self.member(name).and_then(|ix| self.may_leave(ix).and_then(|()| self.removing(name)))
            }
        };
        self.begin(Asker::Reload, step);
    }

    /// Whether the volume can do without this leg for now: what is asked for a person, is not done by a file.
    fn may_leave(&self, leg: LegIx) -> Result<()> {
        let good = |ix: LegIx| self.core.leg_state(ix) == Some(LegState::UpToDate);
        let counts = |&ix: &LegIx| ix != leg && self.core.counts(ix) && self.legs[ix].up;
        let others = (0..self.legs.len()).filter(counts).count();
        members::may_leave(&self.name, &self.legs[leg].spec.name, good(leg), others, self.config.min_legs)
    }

    /// `resize`
    pub(super) fn resize(&mut self, key: u64, to: Option<u64>) {
        let good = (0..self.legs.len()).filter(|&leg| self.core.leg_state(leg) == Some(LegState::UpToDate));
        let good = good.count();
        let step = self.serving_only().and_then(|()| {
            if !self.changing.is_empty() {
                let text = format!("{}: resizing it: its trackers are being changed", self.name);
                return Err(Error::new(Class::Busy, text).hint(format!("mirrord tracker ls {}", self.name)));
            }
            if good > 1 && self.config.min_legs > 1 {
                let least = self.config.min_legs;
                let text = format!(
                    "{}: resizing it: one leg is in sync until the others have the new area, min-legs is {least}: \
                     writes would be refused",
                    self.name
                );
                return Err(Error::new(Class::Refused, text)
                    .hint(format!("stop it, and mirrord serve {} --min-legs 1", self.name)));
            }
            Ok(Step::Growing(to))
        });
        self.begin(Asker::Control(key), step);
    }

    /// Whether a growth is under way: maps and core may have different sizes.
    pub(super) fn grows(&self) -> bool {
        let step = self.task.as_ref().map(|task| &task.step);
        matches!(step, Some(Step::Growing(_) | Step::Widening(..) | Step::Recording(_)))
    }

    /// Bytes that a leg must have to be taken: while the volume grows those that it is going to have.
    pub(super) fn size_of_legs(&self) -> u64 {
        match &self.task {
            Some(Task { step: Step::Widening(growth, _) | Step::Recording(growth), .. }) => growth.to,
            _ => self.size,
        }
    }

    /// The leg whose contents the new area is to have, and all legs with what is known of their sizes.
    fn survey(&self) -> (Option<LegIx>, Vec<(LegSpec, Option<u64>)>) {
        let mut source: Option<LegIx> = None;
        let mut legs = Vec::new();
        for (leg, slot) in self.legs.iter().enumerate() {
            let Some(state) = self.core.leg_state(leg) else { continue };
            if matches!(state, LegState::Detached | LegState::Failed) {
                continue;
            }
            let known = slot.present_size();
            if state == LegState::UpToDate && slot.up {
                let rank = |leg: LegIx| self.legs[leg].present_size();
                source = source.filter(|&other| rank(other) >= known).or(Some(leg));
            }
            legs.push((slot.spec.clone(), known));
        }
        (source, legs)
    }

    /// The worker's part of a growth, steps 1 and 2 of `resize`.
    fn prepare_growth(&self, asked: Option<u64>) -> impl FnOnce() -> Result<Option<Growth>> + Send + 'static {
        let (dir, size, block) = (self.dir.clone(), self.size, self.config.map_block);
        let (source, legs) = self.survey();
        let dial = self.dial();
        let source = source.map(|leg| self.legs[leg].spec.name.clone());
        let of_legs = (self.legs.iter().zip(&self.maps))
            .filter(|(slot, _)| !slot.gone)
            .map(|(slot, map)| (map.clone(), Some(&slot.spec.name) == source.as_ref()));
        // In a tracker the new area has changed.
        let of_trackers = self.trackers.iter().flatten().map(|slot| (slot.map.clone(), false));
        let maps: Vec<(MapHandle, bool)> = of_legs.chain(of_trackers).collect();
        move || {
            let name = dir.name();
            let Some(source) = source else {
                return Err(Error::new(
                    Class::Refused,
                    format!("{name}: resizing it: no good leg is connected"),
                ));
            };
            let mut sizes = Vec::new();
            for (leg, known) in legs {
                // What is connected has a size; more than that is found out beside that connection.
                let enough = known.filter(|known| asked.is_some_and(|asked| *known >= asked));
                let found = match (enough, known) {
                    (Some(size), _) => size,
                    (None, known) => {
                        super::super::probe::present_size(&leg, &dial).or_else(|e| known.ok_or(e))?
                    }
                };
                sizes.push((leg.name.clone(), known, found));
            }
            let legs: Vec<(Name, u64)> =
                sizes.iter().map(|(name, _, found)| (name.clone(), *found)).collect();
            let to = resize::fitting(name, size, asked, &legs)?;
            let seen = sizes.iter().find(|leg| leg.0 == source).and_then(|leg| leg.1);
            if seen.is_none_or(|seen| seen < to) {
                let text = format!(
                    "{name}: resizing it: leg {source} is connected with its old size, and cannot be let go of"
                );
                return Err(Error::new(Class::Refused, text)
                    .hint(format!("stop its mirrord, then mirrord resize {name} {to}")));
            }
            let growth = Growth::new(name, size, to, &source)?;
            if growth.to == growth.from {
                return Ok(None);
            }
            resize::announce(&dir, &growth)?;
            resize::grow_maps(&dir, &maps, &growth, block)?;
            Ok(Some(growth))
        }
    }

    /// A leg that replaces another one does so once it is UpToDate, or at once where the other has failed.
    pub(super) fn replace_legs(&mut self) {
        if self.task.is_some() || self.serving_only().is_err() || self.now_ms() < self.replace_at_ms {
            return;
        }
        let due = self.legs.iter().enumerate().find_map(|(new, slot)| {
            let old = self.leg_named(slot.spec.replaces.as_ref().filter(|_| !slot.gone)?)?;
            let ready = self.core.is_durably_good(new);
            let failed = self.core.leg_state(old) == Some(LegState::Failed);
            (ready || failed).then(|| self.legs[old].spec.name.clone())
        });
        if let Some(old) = due {
            self.remove_leg(Asker::Itself, &old);
        }
    }

    /// Does what the present step asks for.
    fn go_on(&mut self) {
        let Some(task) = &self.task else { return };
        let (dir, records, size) = (self.dir.clone(), Arc::clone(&self.records), self.size);
        let durability = state::durability(&self.config);
        match &task.step {
            Step::Enlisting(spec, kept) => {
                let (spec, kept, others) = (spec.clone(), kept.of(spec), self.specs());
                let dial = self.dial();
                self.workers.submit(move || Completion::Task {
                    result: members::look_at(&dir, &others, &spec, &dial, size).and_then(|()| {
                        let records = &mut *records.lock().unwrap_or_else(PoisonError::into_inner);
                        let (id, map) = members::enlist(&dir, records, &kept, &mut through)?;
                        Ok(Brought::Leg(id, put_to_use(map, durability)?))
                    }),
                });
            }
            Step::Dismissing(leg) => {
                let name = self.legs[*leg].spec.name.clone();
                self.workers.submit(move || {
                    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                    let result = members::dismiss(&dir, &mut records, &name, &mut through);
                    Completion::Task { result: result.map(|()| Brought::Done) }
                });
            }
            Step::Setting(_, spec, kept) => {
                let (spec, kept) = (spec.clone(), kept.clone());
                self.workers.submit(move || Completion::Task {
                    result: members::set(&dir, &spec, &kept).map(|()| Brought::Done),
                });
            }
            Step::Retiring(leg) => {
                let command = Command::Retire(*leg);
                self.events.push(CoreEvent::Command { id: OF_TASK, command });
            }
            Step::Changing(leg, spec) => {
                let moved = !spec.meets(&self.legs[*leg].spec);
                let command = Command::Set { leg: *leg, config: core_leg(spec), moved };
                self.events.push(CoreEvent::Command { id: OF_TASK, command });
            }
            Step::Growing(asked) => {
                let prepare = self.prepare_growth(*asked);
                self.workers.submit(move || Completion::Task { result: prepare().map(Brought::Growth) });
            }
            Step::Widening(growth, source) => {
                let command = Command::Grow { size: growth.to, source: *source };
                self.events.push(CoreEvent::Command { id: OF_TASK, command });
            }
            Step::Recording(growth) => {
                let growth = growth.clone();
                self.workers.submit(move || {
                    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                    let result = resize::record(&mut records, &growth).and_then(|()| resize::done(&dir));
                    Completion::Task { result: result.map(|()| Brought::Done) }
                });
            }
            Step::Taking => {}
        }
    }

    /// A worker is done with its part.
    pub(super) fn task_worked(&mut self, result: Result<Brought>) {
        let Some(Task { asker, step }) = self.task.take() else { return };
        let brought = match result {
            Ok(brought) => brought,
            Err(error) => {
                if let Step::Dismissing(leg) = step {
                    let id = super::control::BY_SIGNAL;
                    self.events.push(CoreEvent::Command { id, command: Command::Retain(leg) });
                }
                return self.task_over(asker, Err(error));
            }
        };
        let next = match (step, brought) {
            (Step::Enlisting(spec, _), Brought::Leg(id, map)) => match self.take_in(&spec, id, map) {
                Ok(()) => Step::Taking,
                Err(error) => return self.task_over(asker, Err(error)),
            },
            (Step::Dismissing(leg), _) => {
                self.events.push(CoreEvent::Command { id: OF_TASK, command: Command::Forget(leg) });
                self.let_go(leg);
                Step::Taking
            }
            (Step::Setting(leg, spec, _), _) => Step::Changing(leg, spec),
            (Step::Growing(_), Brought::Growth(None)) => return self.task_over(asker, Ok(())),
            (Step::Growing(_), Brought::Growth(Some(growth))) => {
                let source = growth.source.parse().ok().and_then(|name| self.leg_named(&name));
                Step::Widening(growth, source.unwrap_or(self.legs.len()))
            }
            (Step::Recording(growth), _) => {
                self.size = growth.to;
                let text =
                    format!("the volume has {} bytes; clients see it when they connect again", growth.to);
                self.event(EventKind::Resized, None, &text);
                (self.notify)(ServeNotice::Note(text));
                return self.task_over(asker, Ok(()));
            }
            (step, _) => step,
        };
        self.task = Some(Task { asker, step: next });
        self.go_on();
    }

    /// The core has answered the task's command.
    pub(super) fn task_answered(&mut self, result: Result<(), &'static str>) {
        let Some(Task { asker, step }) = self.task.take() else { return };
        if let Err(why) = result {
            let error = Error::new(Class::Refused, format!("{}: {why}", self.name));
            let error = error.hint(format!("mirrord status {}", self.name));
            return self.task_over(asker, Err(error));
        }
        match step {
            Step::Retiring(leg) => {
                self.task = Some(Task { asker, step: Step::Dismissing(leg) });
                self.go_on();
            }
            Step::Changing(leg, spec) => {
                let slot = &mut self.legs[leg];
                let moved = !spec.meets(&slot.spec);
                slot.moved |= moved;
                let other = !spec.is_at(&slot.spec);
                slot.spec = spec;
                if other && !slot.moved {
                    self.readdress(leg);
                }
                self.task_over(asker, Ok(()));
            }
            Step::Widening(growth, _) => {
                self.task = Some(Task { asker, step: Step::Recording(growth) });
                self.go_on();
            }
            _ => self.task_over(asker, Ok(())),
        }
    }

    fn task_over(&mut self, asker: Asker, result: Result<()>) {
        match (asker, result) {
            (Asker::Control(key), result) => self.release_control(key, &Reply::from(result)),
            (Asker::Reload, result) => self.leg_changed(result),
            (Asker::Itself, Err(error)) => {
                self.complain(&error);
                self.replace_at_ms = self.now_ms() + limits::TASK_RETRY_MS;
            }
            (Asker::Itself, Ok(())) => {}
        }
        self.change_next_leg();
    }

    /// A new leg has its place among the others.
    fn take_in(&mut self, spec: &LegSpec, id: Id, map: MapHandle) -> Result<()> {
        let mut slot = Slot::new(spec, id, &self.pool)?;
        slot.watch = Watch::since(self.now_ms());
        let leg = self.legs.iter().position(Slot::is_free).unwrap_or(self.legs.len());
        if leg == self.legs.len() {
            self.legs.push(slot);
            self.maps.push(map);
        } else {
            slot.session = self.legs[leg].session;
            self.legs[leg] = slot;
            self.maps[leg] = map;
        }
        let command = Command::Enlist { leg, config: core_leg(spec) };
        self.events.push(CoreEvent::Command { id: OF_TASK, command });
        Ok(())
    }

    /// A leg is no member any more.
    fn let_go(&mut self, leg: LegIx) {
        let slot = &mut self.legs[leg];
        slot.say_goodbye();
        (slot.gone, slot.trying) = (true, false);
        let name = slot.spec.name.clone();
        for slot in &mut self.legs {
            slot.spec.replaces = slot.spec.replaces.take().filter(|old| *old != name);
        }
    }
}

/// A new map is used from now on: not clean, durably.
fn put_to_use(mut map: MapFile, durability: Durability) -> Result<MapHandle> {
    let header = map.header();
    map.begin_use(&state::expectation(&header.identity, header.generation, durability))?;
    MapHandle::new(map)
}
