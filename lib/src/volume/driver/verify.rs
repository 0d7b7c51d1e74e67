//! A verify inside the loop: who asked for it, what is compared, what it found.

use super::Driver;
use crate::base::{ByteRange, Class, Error, Name, units::show_size};
use crate::control::verify::{VerifiedLeg, VerifiedRange, VerifyResult, VerifyStatus};
use crate::control::{EventKind, Reply};
use crate::volume::core::{Command, Event, IoId, LegIx, VerifyReport, verify};

/// Who asked for the verify that runs: the command, and the connection.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    key: u64,
    from: Option<LegIx>,
}

impl Driver<'_> {
    /// `verify`; answered at its end, or never if the connection ends before.
    pub(super) fn begin_verify(&mut self, key: u64, only: Option<&Name>, from: Option<&Name>) {
        let number = |name: Option<&Name>| match name {
            None => Ok(None),
            Some(name) => self.leg_named(name).map(Some).ok_or_else(|| self.unknown_leg(name)),
        };
        let legs = number(only).and_then(|only| Ok((only, number(from)?)));
        let (only, from) = match legs {
            Ok(legs) => legs,
            Err(error) => return self.reply_control(key, &error.into()),
        };
        if self.verify.is_some() {
            let text = format!("{}: verifying it: somebody else does so already", self.name);
            let error = Error::new(Class::Busy, text).hint(format!("mirrord status {}", self.name));
            return self.reply_control(key, &error.into());
        }
        let id = self.command_id(key);
        self.verify = Some(Asked { id, key, from });
        self.events.push(Event::Command { id, command: Command::Verify { only, from } });
    }

    /// Compares what these reads brought.
    pub(super) fn compare(&mut self, range: ByteRange, reads: &[(LegIx, IoId)]) {
        let Some(&(_, io)) = reads.first() else { return };
        let contents: Vec<&[u8]> =
            reads.iter().map(|(_, io)| self.reads.get(io).map_or(&[][..], |slice| slice.bytes())).collect();
        let block = self.config.map_block;
        let parts = block.cover(&range).map(|at| {
            let part = block.range(&(at..at + 1), range.end());
            let from = (part.offset - range.offset) as usize;
            (at, from..from + part.len as usize)
        });
        let differ = verify::compare(&contents, parts);
        self.events.push(Event::Compared { io, differ });
    }

    /// The core has answered a command: if it was the verify, the answer is what was found.
    pub(super) fn verify_answered(&mut self, id: u64, result: Result<(), &'static str>) -> Option<Reply> {
        let asked = self.verify.take_if(|asked| asked.id == id)?;
        result.ok()?;
        let report = self.core.verify_report()?.clone();
        let found = self.verify_result(&report, asked.from);
        let text = found.describe();
        self.event(EventKind::Verified, None, &text);
        Some(Reply::value(&found))
    }

    /// Its connection has ended: nobody wants the answer.
    pub(super) fn abandon_verify(&mut self, key: u64) {
        if self.verify.as_ref().is_some_and(|asked| asked.key == key) {
            self.verify = None;
            let id = super::control::BY_SIGNAL;
            self.events.push(Event::Command { id, command: Command::EndVerify });
            let text = "stopped: whoever asked for it has gone".to_owned();
            self.event(EventKind::Verified, None, &text);
        }
    }

    fn leg_name(&self, leg: LegIx) -> String {
        self.legs.get(leg).map_or_else(|| leg.to_string(), |slot| slot.spec.name.to_string())
    }

    fn verify_result(&self, report: &VerifyReport, from: Option<LegIx>) -> VerifyResult {
        let legs = report.legs.iter().map(|(ix, leg)| VerifiedLeg {
            name: self.leg_name(*ix),
            compared: leg.compared,
            unread: leg.unread,
            outvoted: leg.outvoted,
            left: leg.left,
            repaired: leg.repaired,
        });
        let mut ranges: Vec<VerifiedRange> = report
            .ranges
            .iter()
            .map(|found| {
                let mut groups: Vec<(u8, Vec<String>)> = Vec::new();
                for (leg, class) in &found.classes {
                    match groups.iter_mut().find(|group| group.0 == *class) {
                        Some(group) => group.1.push(self.leg_name(*leg)),
                        None => groups.push((*class, vec![self.leg_name(*leg)])),
                    }
                }
                let groups = groups.into_iter().map(|group| group.1).collect();
                VerifiedRange { offset: found.range.offset, length: found.range.len, groups }
            })
            .collect();
        ranges.sort_by_key(|range| range.offset);
        let listed: u64 = ranges.iter().map(|range| range.length).sum();
        VerifyResult {
            name: self.name.to_string(),
            size: report.total,
            done: report.done,
            differing: report.differing,
            listed,
            partial: report.is_partial(),
            repair_from: from.map(|leg| self.leg_name(leg)),
            legs: legs.collect(),
            ranges,
            ..VerifyResult::default()
        }
    }

    /// For the status.
    pub(super) fn verify_status(&self) -> Option<VerifyStatus> {
        let report = self.core.verify_running()?;
        let millis = self.now_ms().saturating_sub(report.since_ms).max(1);
        let rate = report.done.saturating_mul(1000) / millis;
        let left = report.total.saturating_sub(report.done);
        Some(VerifyStatus {
            done: report.done,
            total: report.total,
            differing: report.differing,
            rate,
            estimated_seconds_to_finish: (rate > 0).then(|| left.div_ceil(rate)),
        })
    }
}

impl VerifyResult {
    /// One line for a person.
    fn describe(&self) -> String {
        let what = match (self.differing, self.partial) {
            (0, false) => "all legs in sync are equal".to_owned(),
            (0, true) => "no difference was found, but not everything was compared".to_owned(),
            (bytes, _) => format!("legs differ in {}", show_size(bytes)),
        };
        match &self.repair_from {
            Some(from) if self.differing > 0 => format!("{what}; what differs is copied from {from}"),
            _ => what,
        }
    }
}
