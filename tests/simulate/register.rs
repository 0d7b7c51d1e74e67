//! What clients know: for each cell the writes and reads, and what may be read next.
//!
//! Every write has a number of its own, so each cell is a register with unique values, and linearizability is
//! decided exactly by pairs (Gibbons and Korach): value *v* comes before *w* if some request that wrote or read
//! *v* was answered before some request that wrote or read *w* was asked. Two values that come before each other
//! are a violation. Decisions beyond that:
//!
//! * A write that ended in an error, or died with the server, may show at any later time, or never (design.md
//!   section 4), but it comes before every write that is asked after its end (invariant 5): a late write that
//!   lands on top of a younger one is a violation.
//! * A loss (power failure of our machine; the last copy lost its cache) makes everything unwritten that was not
//!   flushed and is not where the copies stand now. Such a write may be announced by a failed flush and only
//!   then may a later flush succeed.
//! * A read that was asked before a loss and answered after it says nothing about that cell.

/// One value of one cell.
#[derive(Clone, Debug)]
pub struct Value {
    /// Number of the request that wrote it.
    pub id: u32,
    /// Stamp of the question.
    pub asked: u64,
    /// Stamp of the end, by whatever answer, or of the server's death. `MAX` while it runs.
    pub ended: u64,
    /// Stamp of the answer "done".
    pub done: u64,
    /// First answer of any request that wrote or read it.
    first_answer: u64,
    /// Last question of any request that wrote or read it.
    last_question: u64,
    /// A flush that covers it was answered with success.
    pub durable: bool,
    /// Stamp of the loss that took it away; `u64::MAX` if none did.
    pub lost: u64,
}

impl Value {
    fn before(&self, other: &Self) -> bool {
        self.first_answer < other.last_question || self.ended < other.asked
    }

    fn is_lost(&self) -> bool {
        self.lost != u64::MAX
    }
}

/// One cell as the clients know it.
#[derive(Clone, Debug)]
pub struct Register {
    values: Vec<Value>,
    /// Counts changes.
    pub changes: u64,
    last_loss: u64,
}

impl Default for Register {
    fn default() -> Self {
        let zero = Value {
            id: 0,
            asked: 0,
            ended: 0,
            done: 0,
            first_answer: 0,
            last_question: 0,
            durable: true,
            lost: u64::MAX,
        };
        Self { values: vec![zero], changes: 1, last_loss: 0 }
    }
}

impl Register {
    /// Nobody has written here: any of these may be read, one of them for good.
    pub fn holding(any: Vec<u32>) -> Self {
        let mut register = Self::default();
        let zero = register.values.remove(0);
        for id in any {
            if register.values.iter().all(|value| value.id != id) {
                register.values.push(Value { id, ..zero.clone() });
            }
        }
        register
    }

    fn find(&mut self, id: u32) -> Option<&mut Value> {
        self.changes += 1;
        self.values.iter_mut().rev().find(|v| v.id == id)
    }

    /// A write is asked.
    pub fn ask(&mut self, id: u32, stamp: u64) {
        self.changes += 1;
        self.values.push(Value {
            id,
            asked: stamp,
            ended: u64::MAX,
            done: u64::MAX,
            first_answer: u64::MAX,
            last_question: stamp,
            durable: false,
            lost: u64::MAX,
        });
    }

    /// It was answered with success.
    pub fn done(&mut self, id: u32, stamp: u64, durable: bool) {
        if let Some(value) = self.find(id) {
            value.ended = stamp;
            value.done = stamp;
            value.durable |= durable;
            if !value.is_lost() || durable {
                value.lost = u64::MAX;
                value.first_answer = value.first_answer.min(stamp);
            }
        }
    }

    /// It was answered with an error, or its connection died. With `unseen`, what reads showed of it does not
    /// bind (the documented residual: the leg that showed it has left).
    pub fn failed(&mut self, id: u32, stamp: u64, unseen: bool) {
        if let Some(value) = self.find(id) {
            value.ended = stamp;
            if unseen {
                value.first_answer = u64::MAX;
                value.last_question = value.asked;
            }
        }
    }

    /// The process died while its record lacked a leg that had left: what it showed of writes that were not
    /// acknowledged does not bind the next one.
    pub fn unsee(&mut self) {
        for value in self.values.iter_mut().filter(|v| v.done == u64::MAX) {
            value.first_answer = u64::MAX;
            value.last_question = value.asked;
            self.changes += 1;
        }
    }

    /// A leg has executed it (again): it is not lost any more.
    pub fn executed(&mut self, id: u32) {
        if let Some(value) = self.values.iter_mut().rev().find(|v| v.id == id)
            && value.is_lost()
        {
            value.lost = u64::MAX;
            self.changes += 1;
        }
    }

    /// A read asked at `asked` and answered at `stamp` returned this value.
    pub fn read(&mut self, id: u32, asked: u64, stamp: u64) -> Result<(), String> {
        if self.last_loss > asked {
            return Ok(());
        }
        self.changes += 1;
        let Some(at) = self.values.iter().rposition(|v| v.id == id) else {
            return Err(format!("a read returned {id}, which was never written there"));
        };
        let value = &mut self.values[at];
        value.first_answer = value.first_answer.min(stamp);
        value.last_question = value.last_question.max(asked);
        let value = &self.values[at];
        for other in &self.values {
            if other.id != id && other.before(value) && value.before(other) {
                return Err(format!(
                    "a read (asked {asked}) returned {id} (asked {}, ended {}), which is older than {} (asked {}, \
                     ended {}, first answer {}, last question {})",
                    value.asked,
                    show(value.ended),
                    other.id,
                    other.asked,
                    show(other.ended),
                    show(other.first_answer),
                    other.last_question
                ));
            }
        }
        Ok(())
    }

    /// Why a read asked now must not return this value, if it must not.
    pub fn stale(&self, id: u32) -> Option<u32> {
        let value = self.values.iter().rfind(|v| v.id == id)?;
        self.values
            .iter()
            .find(|w| w.id != id && w.first_answer != u64::MAX && !w.is_lost() && value.before(w))
            .map(|w| w.id)
    }

    /// The acknowledged write that a leg with this value lacks.
    pub fn lacks_done(&self, id: u32) -> Option<u32> {
        let value = self.values.iter().rfind(|v| v.id == id)?;
        self.values
            .iter()
            .find(|w| w.id != id && w.done != u64::MAX && !w.is_lost() && value.before(w))
            .map(|w| w.id)
    }

    /// The flushed write that a leg with this value lacks.
    pub fn lacks_durable(&self, id: u32) -> Option<u32> {
        let value = self.values.iter().rfind(|v| v.id == id)?;
        self.values.iter().find(|w| w.id != id && w.durable && value.before(w)).map(|w| w.id)
    }

    /// A flush asked at `asked` succeeded; the last announcement was at `announced`; the legs in sync hold
    /// `held`. Returns the write that it claims although it is lost.
    pub fn flushed(&mut self, asked: u64, announced: u64, held: &[u32]) -> Option<u32> {
        let mut claimed = None;
        for at in 0..self.values.len() {
            let value = &self.values[at];
            if value.durable || value.done >= asked {
                continue;
            }
            if value.is_lost() {
                let lacking = self.values.iter().any(|s| held.contains(&s.id) && s.before(value));
                let superseded = self
                    .values
                    .iter()
                    .any(|w| w.id != value.id && w.done != u64::MAX && !w.is_lost() && value.before(w));
                if value.lost > announced && lacking && !superseded {
                    claimed = Some(value.id);
                }
                continue;
            }
            self.values[at].durable = true;
            self.changes += 1;
        }
        claimed
    }

    /// The copies went back to `survivors`; everything not flushed that they lack is unwritten. `since` is the
    /// stamp of the cause.
    pub fn lose(&mut self, survivors: &[u32], since: u64, stamp: u64) {
        self.last_loss = stamp;
        self.changes += 1;
        for at in 0..self.values.len() {
            let value = &self.values[at];
            // What was asked at the same time as a survivor may have been overwritten by it.
            let newer =
                self.values.iter().any(|s| s.id != value.id && survivors.contains(&s.id) && s.before(value));
            if value.durable || value.is_lost() || !newer {
                continue;
            }
            let value = &mut self.values[at];
            value.lost = since;
            value.first_answer = u64::MAX;
            value.last_question = value.asked;
        }
    }

    /// What is known, for a person.
    pub fn describe(&self) -> String {
        let from = self.values.len().saturating_sub(8);
        let one = |v: &Value| {
            format!(
                "{}[{}..{}{}{}]",
                v.id,
                v.asked,
                show(v.ended),
                if v.durable {
                    " durable"
                } else if v.done == u64::MAX {
                    " no"
                } else {
                    " done"
                },
                if v.is_lost() { " lost" } else { "" }
            )
        };
        self.values[from..].iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

fn show(stamp: u64) -> String {
    if stamp == u64::MAX { "-".to_owned() } else { stamp.to_string() }
}
