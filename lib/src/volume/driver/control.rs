//! The control socket inside the loop: lines of JSON in, answers and events out.

use super::output::{Output, Sent};
use super::slab::Slab;
use super::{CONTROL, Driver};
use crate::base::{Class, Error, limits};
use crate::control::request::{from_line, to_line};
use crate::control::{Event, EventKind, LegAction, Lines, Reply, Request};
use crate::transport;
use crate::volume::core::{Command, Event as CoreEvent, LegIx};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};

/// The command of a signal: nobody waits for its answer.
pub(super) const BY_SIGNAL: u64 = 0;
/// Bytes read at a time.
const PIECE: usize = 8 << 10;

/// All control connections, and the events that are kept.
#[derive(Debug)]
pub(super) struct Control {
    listener: OwnedFd,
    conns: Slab<Conn>,
    /// Who waits for the answer to a command, and the leg that it is about.
    waiting: HashMap<u64, (u64, Option<LegIx>)>,
    last_id: u64,
    kept: VecDeque<Event>,
    seq: u64,
}

#[derive(Debug)]
struct Conn {
    fd: OwnedFd,
    lines: Lines,
    out: Output,
    /// A command of it has not been answered: the next one waits.
    busy: bool,
    subscribed: bool,
    /// Events that were not sent because it does not read.
    lost: u64,
    ending: bool,
    interest: EventFlags,
}

impl Control {
    /// Nobody connected.
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            conns: Slab::default(),
            waiting: HashMap::new(),
            last_id: BY_SIGNAL,
            kept: VecDeque::new(),
            seq: 0,
        }
    }

    /// Whether somebody still has to be told something.
    pub(super) fn is_busy(&self) -> bool {
        self.conns.iter().any(|(_, conn)| !conn.out.is_empty())
    }
}

impl Conn {
    fn send<T: serde::Serialize>(&mut self, value: &T) {
        match to_line(value) {
            Ok(line) => self.out.head(|out| out.extend_from_slice(&line)),
            Err(_) => self.ending = true,
        }
    }

    /// An event, unless too much waits already.
    fn tell(&mut self, event: &Event) {
        if self.out.queued() - self.out.sent() > limits::CONTROL_LINE as u64 {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let text = format!("{lost} events were not sent: the reader is too slow");
            let notice = Event { event: EventKind::Lost, leg: None, text, ..event.clone() };
            self.send(&notice);
        }
        self.send(event);
    }
}

impl Driver<'_> {
    pub(super) fn accept_control(&mut self) {
        while let Ok(Some((fd, _))) = transport::accept(&self.control.listener) {
            let ours = rustix::process::geteuid();
            let allowed = rustix::net::sockopt::socket_peercred(&fd)
                .is_ok_and(|peer| peer.uid == ours || peer.uid.is_root());
            if !allowed || self.control.conns.len() >= limits::CONTROL_CLIENTS {
                continue;
            }
            let interest = EventFlags::IN;
            let key = self.control.conns.insert(Conn {
                fd,
                lines: Lines::default(),
                out: Output::default(),
                busy: false,
                subscribed: false,
                lost: 0,
                ending: false,
                interest,
            });
            let Some(conn) = self.control.conns.get(key) else { return };
            if epoll::add(&self.epoll, &conn.fd, EventData::new_u64(key | CONTROL), interest).is_err() {
                self.control.conns.remove(key);
            }
        }
    }

    pub(super) fn control_ready(&mut self, key: u64, flags: EventFlags) {
        let Some(conn) = self.control.conns.get_mut(key) else { return };
        if flags.contains(EventFlags::IN) {
            let mut piece = [0; PIECE];
            match rustix::io::read(&conn.fd, &mut piece) {
                Ok(0) if !conn.busy && conn.out.is_empty() => return self.hang_up(key),
                // Only its sending half may be closed: it is still answered.
                Ok(0) => conn.ending = true,
                Ok(n) => conn.lines.push(&piece[..n]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return self.hang_up(key),
            }
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.hang_up(key);
        }
        self.take_lines(key);
        self.send_control(key);
    }

    fn hang_up(&mut self, key: u64) {
        self.control.conns.remove(key);
        self.give_back(key);
        self.abandon_verify(key);
        self.abandon_barrier(key);
    }

    fn take_lines(&mut self, key: u64) {
        loop {
            let Some(conn) = self.control.conns.get_mut(key) else { return };
            if conn.busy || conn.ending {
                return;
            }
            let request = match conn.lines.next_line() {
                Ok(None) => return,
                Ok(Some(line)) => from_line(line),
                Err(error) => {
                    conn.ending = true;
                    Err(error)
                }
            };
            match request {
                Ok(request) => self.take_request(key, request),
                Err(error) => conn.send(&Reply::from(error)),
            }
        }
    }

    fn take_request(&mut self, key: u64, request: Request) {
        let reply = match request {
            Request::Ping => Reply::ok(),
            Request::Status => Reply::value(&self.status()),
            Request::Events { now } => return self.subscribe(key, now),
            Request::Leg { action, leg } => {
                let Some(at) = self.leg_named(&leg) else {
                    return self.reply_control(key, &self.unknown_leg(&leg).into());
                };
                let command = match action {
                    LegAction::Detach => Command::Detach(at),
                    LegAction::Attach => Command::Attach(at),
                    LegAction::Fail => Command::Fail(at),
                    LegAction::Reset => Command::Reset(at),
                };
                return self.command(key, command);
            }
            Request::Resync { leg, full } => {
                return self.command_leg(key, leg, |leg| Command::Resync { leg, full });
            }
            Request::LegAdd { leg, replaces } => return self.add_leg(key, &leg, replaces),
            Request::LegRemove { leg } => return self.remove_leg(super::admin::Asker::Control(key), &leg),
            Request::LegSet { leg, set } => return self.set_leg(key, &leg, &set),
            Request::Resize { size } => return self.resize(key, size),
            Request::Pause { leg } => return self.command_leg(key, leg, Command::Pause),
            Request::Resume { leg } => return self.command_leg(key, leg, Command::Resume),
            Request::Barrier { for_ms } => return self.begin_barrier(key, for_ms),
            Request::EndBarrier => return self.end_barrier(key),
            Request::Verify { leg, repair_from } => {
                return self.begin_verify(key, leg.as_ref(), repair_from.as_ref());
            }
            Request::Tracker { action, tracker } => return self.ask_tracker(key, action, tracker),
            Request::Copied { tracker, ranges } => self.tracker_copied(key, &tracker, &ranges).into(),
            Request::Marks { of, first } => match self.page(key, &of, first) {
                Ok(page) => Reply::value(&page),
                Err(error) => error.into(),
            },
            Request::Stop => {
                let id = self.command_id(key);
                return self.stop(id);
            }
        };
        self.reply_control(key, &reply);
    }

    /// A command about one leg, or all of them.
    fn command_leg(
        &mut self,
        key: u64,
        leg: Option<crate::base::Name>,
        command: impl FnOnce(Option<usize>) -> Command,
    ) {
        let at = leg.as_ref().map(|leg| self.leg_named(leg));
        match (leg, at) {
            (Some(leg), Some(None)) => self.reply_control(key, &self.unknown_leg(&leg).into()),
            (_, at) => self.command(key, command(at.flatten())),
        }
    }

    pub(super) fn unknown_leg(&self, leg: &crate::base::Name) -> Error {
        let names: Vec<_> = self.specs().iter().map(|leg| leg.name.to_string()).collect();
        Error::new(Class::Usage, format!("{}: no leg {leg}: the legs are {}", self.name, names.join(", ")))
    }

    pub(super) fn command_id(&mut self, key: u64) -> u64 {
        self.control.last_id += 1;
        self.control.waiting.insert(self.control.last_id, (key, None));
        self.occupy_control(key);
        self.control.last_id
    }

    /// Its next request waits until this one is answered.
    pub(super) fn occupy_control(&mut self, key: u64) {
        if let Some(conn) = self.control.conns.get_mut(key) {
            conn.busy = true;
        }
    }

    /// Answers the request that occupied the connection.
    pub(super) fn release_control(&mut self, key: u64, reply: &Reply) {
        if let Some(conn) = self.control.conns.get_mut(key) {
            conn.busy = false;
        }
        self.reply_control(key, reply);
        self.take_lines(key);
        self.send_control(key);
    }

    fn command(&mut self, key: u64, command: Command) {
        let id = self.command_id(key);
        let about = match command {
            Command::Detach(leg) | Command::Attach(leg) | Command::Fail(leg) | Command::Reset(leg) => {
                Some(leg)
            }
            Command::Resync { leg, .. } => leg,
            _ => None,
        };
        self.control.waiting.insert(id, (key, about));
        self.events.push(CoreEvent::Command { id, command });
    }

    /// The core has answered a command.
    pub(super) fn answer_command(&mut self, id: u64, result: Result<(), &'static str>) {
        if id == super::admin::OF_TASK {
            return self.task_answered(result);
        }
        if let Some(reply) = self.barrier_answered(id, result) {
            return self.answer(id, &reply);
        }
        if let Some(reply) = self.verify_answered(id, result) {
            return self.answer(id, &reply);
        }
        let reply = Reply::from(result.map_err(|why| self.refused(id, why)));
        self.answer(id, &reply);
    }

    /// A refusal names the leg, and the way out of its state.
    fn refused(&self, id: u64, why: &str) -> Error {
        let about = self.control.waiting.get(&id).and_then(|(_, leg)| *leg);
        let leg = about.and_then(|leg| self.legs.get(leg)).map(|slot| slot.spec.name.as_str());
        let next = leg.and_then(|leg| self.status().legs.into_iter().find(|status| status.name == leg)?.next);
        let leg = leg.map_or_else(String::new, |leg| format!("leg {leg}: "));
        Error::new(Class::Refused, format!("{}: {leg}{why}", self.name))
            .hint(next.unwrap_or_else(|| format!("mirrord status {}", self.name)))
    }

    /// Whoever waits for a command is answered, and may ask again.
    pub(super) fn answer(&mut self, id: u64, reply: &Reply) {
        if let Some((key, _)) = self.control.waiting.remove(&id) {
            self.release_control(key, reply);
        }
    }

    pub(super) fn reply_control(&mut self, key: u64, reply: &Reply) {
        if let Some(conn) = self.control.conns.get_mut(key) {
            conn.send(reply);
        }
    }

    fn subscribe(&mut self, key: u64, now: bool) {
        let present = if now { self.present_state() } else { Vec::new() };
        let Some(conn) = self.control.conns.get_mut(key) else { return };
        conn.send(&Reply::ok());
        if now {
            for event in &present {
                conn.tell(event);
            }
            conn.ending = true;
        } else {
            for event in &self.control.kept {
                conn.tell(event);
            }
            conn.subscribed = true;
        }
    }

    /// An event: kept, and told to whoever listens.
    pub(super) fn event(&mut self, kind: EventKind, leg: Option<usize>, text: &str) {
        self.control.seq += 1;
        let name = leg.and_then(|leg| self.legs.get(leg)).map(|slot| &slot.spec.name);
        let event = Event::new(self.control.seq, kind, &self.name, name, text);
        for key in self.control.conns.keys() {
            if let Some(conn) = self.control.conns.get_mut(key)
                && conn.subscribed
            {
                conn.tell(&event);
                self.send_control(key);
            }
        }
        self.hook.tell(&event);
        if self.control.kept.len() == limits::EVENTS {
            self.control.kept.pop_front();
        }
        self.control.kept.push_back(event);
    }

    fn present_state(&self) -> Vec<Event> {
        let status = self.status();
        let legs = self.legs.iter().filter(|slot| !slot.gone).zip(&status.legs).map(|(slot, leg)| {
            let text = format!("{} {}", leg.disk_state, leg.connection_state);
            Event::new(self.control.seq, EventKind::State, &self.name, Some(&slot.spec.name), text)
        });
        let volume = if status.suspended { "suspended" } else { "serving" };
        let volume = Event::new(self.control.seq, EventKind::State, &self.name, None, volume);
        std::iter::once(volume).chain(legs).collect()
    }

    fn send_control(&mut self, key: u64) {
        let Some(conn) = self.control.conns.get_mut(key) else { return };
        let sent = conn.out.flush(conn.fd.as_fd());
        if sent == Sent::Broken || (sent == Sent::All && conn.ending && !conn.busy) {
            return self.hang_up(key);
        }
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !conn.busy && !conn.ending);
        wanted.set(EventFlags::OUT, sent == Sent::Blocked);
        if wanted != conn.interest {
            conn.interest = wanted;
            if epoll::modify(&self.epoll, &conn.fd, EventData::new_u64(key | CONTROL), wanted).is_err() {
                self.hang_up(key);
            }
        }
    }
}
