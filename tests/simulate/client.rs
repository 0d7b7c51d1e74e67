//! Clients on several connections: what they asked, and what they make of the answers.

use crate::plan::{CELL, Moment};
use crate::state::{Check, Entry, Phase};
use crate::world::World;
use mirror::base::ByteRange;
use mirror::volume::core::{Answer, Ask, Event, Fault};
use std::collections::VecDeque;

/// One request of a client. Its number, plus one, is its token and the content that it writes.
#[derive(Clone, Debug)]
pub struct Asked {
    /// On which connection.
    pub connection: usize,
    /// What.
    pub ask: Ask,
    /// First cell.
    pub from: usize,
    /// Number of cells.
    pub count: usize,
    /// Stamp of the question; 0: still in the client.
    pub since: u64,
    /// Answered, or its connection died.
    pub over: bool,
    /// Most legs in sync since it was asked.
    pub most_in_sync: usize,
    /// [`World::leaves`] when it was asked.
    pub leaves: u64,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    /// Every request.
    pub asked: Vec<Asked>,
    waiting: Vec<VecDeque<usize>>,
    /// Requests asked and not answered, by connection.
    pub open: Vec<usize>,
    /// By cell, the zero request that is being executed.
    pub zero: Vec<Option<u32>>,
    /// Requests answered with success.
    pub successes: u64,
    /// The last flush: its number, and the answer.
    pub last_flush: Option<(usize, Option<bool>)>,
}

impl Clients {
    /// Nobody has asked anything.
    pub fn new(connections: usize, cells: usize) -> Self {
        Self {
            asked: Vec::new(),
            waiting: vec![VecDeque::new(); connections],
            open: vec![0; connections],
            zero: vec![None; cells],
            successes: 0,
            last_flush: None,
        }
    }

    /// A client wants something.
    pub fn queue(&mut self, connection: usize, ask: Ask, from: usize, count: usize) -> usize {
        let ix = self.asked.len();
        self.asked.push(Asked {
            connection,
            ask,
            from,
            count,
            since: 0,
            over: false,
            most_in_sync: 0,
            leaves: 0,
        });
        self.waiting[connection].push_back(ix);
        ix
    }

    /// Whether nobody waits for anything.
    pub fn idle(&self) -> bool {
        self.open.iter().all(|n| *n == 0) && self.waiting.iter().all(VecDeque::is_empty)
    }

    /// The request of a token.
    pub fn of(&mut self, token: u64) -> Option<&mut Asked> {
        self.asked.get_mut((token as usize).wrapping_sub(1))
    }
}

impl World<'_> {
    /// A connection asks its next, if it may.
    pub fn issue(&mut self, connection: usize) {
        let stopping = self.stopping.is_some() && !self.random.chance(100);
        if self.core.is_none() || stopping || self.phase >= Phase::Stopping {
            return;
        }
        while self.clients.open[connection] < self.plan.setup.depth {
            let Some(ix) = self.clients.waiting[connection].pop_front() else { return };
            let stamp = self.next_stamp();
            let in_sync = self.legs_in_sync();
            let asked = &mut self.clients.asked[ix];
            let cells = asked.from..asked.from + asked.count;
            if let Ask::Zero { fua, .. } = asked.ask
                && self.clients.zero[cells.clone()].iter().any(Option::is_some)
            {
                // Two zero requests on one cell could not be told apart on the legs.
                asked.ask = Ask::Write { fua };
            }
            asked.since = stamp;
            asked.most_in_sync = in_sync;
            asked.leaves = self.leaves;
            let id = ix as u32 + 1;
            if let Ask::Zero { .. } = asked.ask {
                self.clients.zero[cells.clone()].fill(Some(id));
            }
            if matches!(asked.ask, Ask::Write { .. } | Ask::Zero { .. }) {
                for register in &mut self.registers[cells] {
                    register.ask(id, stamp);
                }
            }
            let range = ByteRange { offset: asked.from as u64 * CELL, len: asked.count as u64 * CELL };
            self.clients.open[connection] += 1;
            self.inbox.push(Event::Client { token: u64::from(id), ask: asked.ask, range });
        }
    }

    /// An answer reaches its client.
    pub fn reply(&mut self, token: u64, answer: Answer) -> Check {
        let stamp = self.next_stamp();
        let leaves = self.leaves;
        let Some(asked) = self.clients.of(token) else {
            return Err(self.violation("one answer", format!("token {token} was never used")));
        };
        if asked.over || asked.since == 0 {
            return Err(self.violation("one answer", format!("token {token} was answered before")));
        }
        asked.over = true;
        let asked = asked.clone();
        let id = token as u32;
        self.clients.open[asked.connection] -= 1;
        let pause = self.random.below(3);
        self.at(self.now + pause, Entry::Next(asked.connection));
        if let Ask::Zero { .. } = asked.ask {
            self.clients.zero[asked.from..asked.from + asked.count].fill(None);
        }
        let writes = matches!(asked.ask, Ask::Write { .. } | Ask::Zero { .. });
        let forces = matches!(asked.ask, Ask::Flush | Ask::Write { fua: true } | Ask::Zero { fua: true, .. });
        if let Answer::Failed(fault) = answer {
            if forces && fault != Fault::NotSupported {
                self.announced = stamp;
            }
            if writes {
                for register in &mut self.registers[asked.from..asked.from + asked.count] {
                    register.failed(id, stamp, leaves != asked.leaves);
                }
            }
            if let Some((ix, result)) = &mut self.clients.last_flush
                && *ix as u64 + 1 == token
            {
                *result = Some(false);
            }
            self.spring(Moment::Refusal);
            return Ok(());
        }
        self.clients.successes += 1;
        match asked.ask {
            Ask::Read | Ask::Extents => return self.reply_data(&asked, answer, stamp),
            Ask::Flush => {
                self.flushed(asked.since)?;
                if let Some((ix, result)) = &mut self.clients.last_flush
                    && *ix as u64 + 1 == token
                {
                    *result = Some(true);
                }
            }
            Ask::Write { .. } | Ask::Zero { .. } => {
                if asked.most_in_sync < self.plan.setup.min_legs {
                    let text = format!("write {id} succeeded with {} legs in sync", asked.most_in_sync);
                    return Err(self.violation("min-legs", text));
                }
                for register in &mut self.registers[asked.from..asked.from + asked.count] {
                    register.done(id, stamp, forces);
                }
                self.check_minted(id)?;
            }
        }
        Ok(())
    }

    fn reply_data(&mut self, asked: &Asked, answer: Answer, stamp: u64) -> Check {
        let Answer::Data(io) = answer else {
            return Err(self.violation("one answer", format!("a read was answered with {answer:?}")));
        };
        let Some((from, values)) = self.data.remove(&io) else {
            return Err(self.violation("one answer", format!("{io:?} has brought no data")));
        };
        if from != asked.from || values.len() != asked.count {
            let text = format!("{io:?} brought cells {from}+{} for {asked:?}", values.len());
            return Err(self.violation("one answer", text));
        }
        for (at, value) in (from..).zip(values) {
            if let Err(text) = self.registers[at].read(value, asked.since, stamp) {
                let known = self.registers[at].describe();
                return Err(self.violation("6 no old reads", format!("cell {at}: {text}; known: {known}")));
            }
            self.check_tracker_read(at, value)?;
        }
        Ok(())
    }

    /// Everything answered before `asked` is claimed to be durable.
    pub fn flushed(&mut self, asked: u64) -> Check {
        for at in 0..self.registers.len() {
            let held: Vec<u32> = (0..self.legs.len())
                .filter(|leg| self.disk.legs[*leg].in_sync)
                .map(|leg| self.legs[leg].storage.cells[at].visible())
                .collect();
            if let Some(id) = self.registers[at].flushed(asked, self.announced, &held) {
                let text = format!(
                    "cell {at}: a flush succeeded, but write {id} is lost and no flush had failed: {}",
                    self.registers[at].describe()
                );
                return Err(self.violation("4 acknowledged is kept", text));
            }
        }
        Ok(())
    }

    /// All connections die with the server.
    pub fn drop_clients(&mut self) {
        let stamp = self.next_stamp();
        self.announced = stamp;
        for ix in 0..self.clients.asked.len() {
            let asked = &mut self.clients.asked[ix];
            if asked.over || asked.since == 0 {
                continue;
            }
            asked.over = true;
            if matches!(asked.ask, Ask::Write { .. } | Ask::Zero { .. }) {
                let cells = asked.from..asked.from + asked.count;
                for register in &mut self.registers[cells] {
                    register.failed(ix as u32 + 1, stamp, false);
                }
            }
        }
        self.clients.open.fill(0);
        self.clients.zero.fill(None);
    }
}
