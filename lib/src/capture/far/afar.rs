//! A standby, or another tree, on another machine: dumps are sent to it, and only what differs of it is looked at.

use super::node::{Node, read_groups};
use crate::base::{Class, Error, Result};
use crate::capture::apply::ApplyReport;
use crate::capture::scan::verify::Mismatch;
use crate::fslog::derive::Path;
use crate::fslog::merkle::{Hashes, link_groups};
use crate::fslog::meta::differs;
use crate::fslog::{Digest, Index, Kind, ObjectId, Round};
use crate::remote::{Call, Client, Request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;

/// Bytes of a dump that are sent at a time.
const PIECE: usize = 1 << 20;
/// Pieces on their way at once: they fill a long link.
const IN_FLIGHT: usize = 8;

/// A tree that was read over there, and waits for questions.
#[derive(Clone, Copy, Debug)]
pub struct Scanned {
    object: u16,
    digest: Digest,
}

/// A tree on another machine.
#[derive(Clone, Debug)]
pub struct AfarTree {
    /// The way there.
    pub client: Client,
    /// Which tree.
    pub call: Call,
}

impl AfarTree {
    /// The round that it is at; an interrupted apply over there is finished first.
    pub fn round(&self) -> Result<Option<Round>> {
        let text = self.client.bytes(0, Request::Round(self.call.clone()))?;
        if text.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&text);
        text.trim().parse().map(Some).map_err(|error: Error| self.odd(&error.message))
    }

    /// Sends a dump and waits until it is applied. It is applied whole or not at all: a connection that breaks
    /// leaves the tree as it was, or at the new round.
    pub fn apply(&self, object: &str, input: &mut dyn Read) -> Result<ApplyReport> {
        let stream = self.client.apply(self.call.clone())?;
        let mut tickets = VecDeque::new();
        let mut ended = false;
        while !ended {
            let mut piece = Vec::with_capacity(PIECE);
            let read = input.take(PIECE as u64).read_to_end(&mut piece);
            read.map_err(|e| Error::io(object, "reading it", e))?;
            ended = piece.len() < PIECE;
            while tickets.len() >= IN_FLIGHT
                && let Some(ticket) = tickets.pop_front()
            {
                crate::remote::Ticket::done(ticket)?;
            }
            tickets.push_back(self.client.submit(stream, Request::Push(piece))?);
        }
        tickets.into_iter().try_for_each(crate::remote::Ticket::done)?;
        let report = self.client.bytes(stream, Request::Finish)?;
        read_report(&report).ok_or_else(|| self.odd("a report that cannot be read"))
    }

    fn odd(&self, what: &str) -> Error {
        Error::new(Class::Connect, format!("{}: reading what it says: {what}", self.client.name()))
    }

    /// Has it read over there.
    pub fn scan(&self) -> Result<Scanned> {
        let (object, _, digest) = self.client.scan(self.call.clone())?;
        Ok(Scanned { object, digest: Digest(digest) })
    }

    /// In what a tree here differs from this one, which is what is expected. Only subtrees whose digests differ are
    /// asked for.
    pub fn compare(&self, theirs: &Scanned, found: &Index) -> Result<Vec<Mismatch>> {
        let (hashes, tree) = (Hashes::of(found)?, theirs.object);
        let mut list = Vec::new();
        if theirs.digest == hashes.root {
            return Ok(list);
        }
        let name = self.client.name().to_owned();
        let node =
            |id: u64| Node::read(&name, &mut |from| self.client.bytes(tree, Request::Node { id, from }));
        let mut pairs = vec![(ObjectId::ROOT, ObjectId::ROOT, Vec::new())];
        while let Some((theirs, ours, path)) = pairs.pop() {
            let (a, Some(b)) = (node(theirs.0)?, found.objects.get(&ours)) else { continue };
            let content =
                if b.meta.kind == Kind::File { b.content.root(b.meta.size) } else { Digest::default() };
            let bits = a.meta.differs(&b.meta) | if a.content == content { 0 } else { differs::CONTENT };
            if bits != 0 {
                let path = if path.is_empty() { b".".to_vec() } else { path.clone() };
                list.push(Mismatch::Object { path: Path(path), what: differs::words(bits) });
            }
            let below =
                |name: &[u8]| if path.is_empty() { name.to_vec() } else { [&path[..], name].join(&b'/') };
            let mut extra: BTreeMap<_, _> = b.entries.iter().collect();
            for (name, id, digest) in &a.entries {
                match extra.remove(name) {
                    Some(other) if hashes.objects.get(other) == Some(digest) => {}
                    Some(other) => pairs.push((*id, *other, below(name))),
                    None => list.push(Mismatch::Missing { path: Path(below(name)) }),
                }
            }
            list.extend(extra.keys().map(|name| Mismatch::Extra { path: Path(below(name)) }));
        }
        let theirs = read_groups(&name, &mut |from| self.client.bytes(tree, Request::Node { id: 0, from }))?;
        let ours = link_groups(found);
        let mut only = |these: &[Vec<Vec<u8>>], those: &[Vec<Vec<u8>>]| {
            let those: BTreeSet<_> = those.iter().collect();
            for group in these.iter().filter(|group| !those.contains(group)) {
                list.push(Mismatch::Links { paths: group.iter().cloned().map(Path).collect() });
            }
        };
        only(&theirs, &ours);
        only(&ours, &theirs);
        Ok(list)
    }
}

/// What the far side says of an apply; believed only as what it must be.
fn read_report(bytes: &[u8]) -> Option<ApplyReport> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let number = |key: &str| value.get(key)?.as_u64();
    let count = |key: &str| usize::try_from(number(key)?).ok();
    let round: Round = value.get("round")?.as_str()?.parse().ok()?;
    Some(ApplyReport {
        schema: "cfor-apply/1",
        round: round.to_string(),
        redone: value.get("redone")?.as_bool()?,
        new: count("new")?,
        gone: count("gone")?,
        changed: count("changed")?,
        data: number("data")?,
    })
}
