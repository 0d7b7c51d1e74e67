//! The configuration read again (SIGHUP), while the volume is served.
//!
//! 1. A worker reads it, compares, and opens what is new: listeners, metrics. If any of it fails, what was opened is
//!    closed again, and nothing has changed.
//! 2. The loop takes all of it over at once. What is not wanted any more is closed; clients stay.
//! 3. What differs is told, also what needs more than this.
//! 4. Legs are changed one after the other ([`super::relegs`]); what of that is refused is told, and the rest is done.

use super::relegs::Told;
use super::{Completion, Driver};
use crate::base::{Name, Result};
use crate::config::difference::{Change, Effect, difference};
use crate::config::legs;
use crate::config::{self, MetricsTo, VolumeConfig};
use crate::control::{EventKind, VolumeDir};
use crate::leg::LegSpec;
use crate::transport::tls::ServerTls;
use crate::volume::core::ReadPolicy;
use crate::volume::entrance::{self, Door, Place};
use crate::volume::metrics::Metrics;
use crate::volume::options::{Entrance, Reread, ServeNotice};
use sd_notify::NotifyState;

/// What is needed to read the configuration again.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Reads it.
    pub(crate) reread: Option<Reread>,
    /// Where sockets are.
    pub(crate) sockets: VolumeDir,
    /// Whether listeners are ours to change.
    pub(crate) entrance: Entrance,
    /// Sockets of socket activation are among them that speak TCP.
    pub(crate) tcp_was_given: bool,
}

/// Step 1, done.
#[derive(Debug)]
pub(super) struct Prepared {
    config: VolumeConfig,
    changes: Vec<Change>,
    /// The legs that the file names, as they are to be, and all names in it.
    legs: Vec<LegSpec>,
    named: Vec<Name>,
    /// All places where clients come in from now on, and which of them were opened for that.
    places: Option<Vec<Place>>,
    opened: Vec<Door>,
    /// Of the files as they are now, also where nothing else has changed.
    tls: Option<ServerTls>,
    metrics: Renewed,
}

/// What becomes of the metrics.
#[derive(Debug)]
enum Renewed {
    /// They stay.
    No,
    /// These take their place, or nothing does.
    By(Option<Metrics>),
}

impl Source {
    /// Step 1.
    fn prepare(
        &self,
        reread: &Reread,
        old: &VolumeConfig,
        named: &[Name],
        open: &[Place],
    ) -> Result<Prepared> {
        let read = reread.read()?;
        let config = read.config;
        let legs: Vec<LegSpec> =
            config.legs.iter().filter(|leg| read.named.contains(&leg.name)).cloned().collect();
        legs::check(&config, &old.legs, &legs::plan(&old.legs, named, &legs))?;
        let changes = difference(old, &config);
        let tcp = match self.entrance {
            Entrance::Configured => !config.listen.is_empty(),
            Entrance::Activated => self.tcp_was_given,
            Entrance::Stdio => false,
        };
        let tls = entrance::tls(&config, tcp)?;
        let (mut places, mut opened) = (None, Vec::new());
        if self.entrance == Entrance::Configured {
            let wanted = entrance::places(&config, tls.as_ref(), &self.sockets)?;
            for place in wanted.iter().filter(|place| !open.contains(place)) {
                opened.push(Door::open(place.clone(), self.sockets.name(), tls.is_some())?);
            }
            places = Some(wanted);
        }
        let differs = config.metrics != old.metrics;
        let metrics = if differs { Renewed::By(Metrics::open(&config, &self.sockets)?) } else { Renewed::No };
        if let Some(MetricsTo::Tcp(stays)) = config.metrics.as_ref().filter(|_| !differs) {
            stays.resolve(config.may_listen_widely())?;
        }
        Ok(Prepared { config, changes, legs, named: read.named, places, opened, tls, metrics })
    }
}

impl Driver<'_> {
    /// SIGHUP has come.
    pub(super) fn reload(&mut self) {
        use std::io::Read as _;
        let mut bytes = [0; 64];
        while matches!(self.hangups.as_mut().map(|hup| hup.read(&mut bytes)), Some(Ok(n)) if n > 0) {}
        let Some(reread) = self.source.reread.clone().filter(|_| !self.stopping) else { return };
        if std::mem::replace(&mut self.reloading, true) {
            self.reload_again = true;
            return;
        }
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            // Without systemd nobody listens.
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        let (source, named) = (self.source.clone(), self.named.clone());
        let old = VolumeConfig { legs: self.specs(), ..self.config.clone() };
        let open: Vec<_> = self.doors.iter().map(|door| door.place.clone()).collect();
        self.workers
            .submit(move || Completion::Reread(Box::new(source.prepare(&reread, &old, &named, &open))));
    }

    /// Steps 2 and 3.
    pub(super) fn reloaded(&mut self, prepared: Result<Prepared>) {
        match prepared {
            Ok(prepared) => self.take_over(prepared),
            Err(error) => {
                let text = format!("reload: nothing is changed: {}", error.message);
                (self.notify)(ServeNotice::Note(text.clone()));
                self.event(EventKind::Reload, None, &text);
                self.reload_over();
            }
        }
    }

    pub(super) fn reload_over(&mut self) {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        self.reloading = false;
        if std::mem::take(&mut self.reload_again) {
            self.reload();
        }
    }

    fn take_over(&mut self, prepared: Prepared) {
        let Prepared { config, changes, legs, named, places, opened, tls, metrics } = prepared;
        self.tls = tls;
        if let Some(places) = places {
            let listening = self.listening;
            self.listen(false);
            self.doors.extend(opened);
            self.doors.retain(|door| places.contains(&door.place));
            self.listen(listening);
        }
        for door in &mut self.doors {
            door.rename(&self.name, self.tls.is_some());
        }
        if let Renewed::By(metrics) = metrics {
            let old = std::mem::replace(&mut self.metrics, metrics);
            // Its thread may be asking this loop, so that it must not be waited for here.
            self.workers.submit(move || {
                drop(old);
                Completion::Closed
            });
        }
        if let Some(metrics) = &self.metrics {
            metrics.allow(&config.allow);
        }
        self.hook.set(config.on_event.clone());
        let count = |effect| changes.iter().filter(|change| change.effect == effect).count();
        let now = count(Effect::Now);
        for change in &changes {
            (self.notify)(ServeNotice::Note(format!("reload: {change}")));
        }
        // What stays as it is must differ again at the next reload.
        let stay = VolumeConfig {
            legs: self.config.legs.clone(),
            map_block: self.config.map_block,
            map_durability: self.config.map_durability,
            ..config
        };
        self.config = stay;
        let plan = legs::plan(&self.specs(), &self.named, &legs);
        self.asked_for.clone_from(&legs);
        self.change_legs(plan, named, Told { changed: now, more: changes.len() - now, refused: 0 });
    }
}

/// The core's word.
pub(super) const fn read_policy(policy: config::ReadPolicy) -> ReadPolicy {
    match policy {
        config::ReadPolicy::Local => ReadPolicy::Local,
        config::ReadPolicy::LeastPending => ReadPolicy::LeastPending,
        config::ReadPolicy::RoundRobin => ReadPolicy::RoundRobin,
    }
}
