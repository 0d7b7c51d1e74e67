//! The stream of a dump, as it is written: what a scan finds, then names, and what is gone.

use super::DumpReport;
use crate::base::Result;
use crate::capture::scan::{Changes, Sink};
use crate::fslog::derive::Difference;
use crate::fslog::{FrameWriter, Header, Index, Magic, Meta, ObjectId, Part};
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;

/// The stream that a scan writes.
pub struct Writer<'a, W: Write> {
    pub frames: FrameWriter<W>,
    pub(super) base: &'a Index,
    file: ObjectId,
    told: BTreeSet<ObjectId>,
    data: u64,
    pub number: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    /// The stream from a base to a tree that was walked.
    pub fn new(base: &'a Index, fresh: &Index, number: u64, object: &str, out: W) -> Result<Self> {
        let (tree, options, time) = (base.tree, fresh.options, fresh.time);
        let header = Header { magic: Magic::Dump, options, tree, base: base.round, round: number, time };
        let frames = FrameWriter::new(object, out, &header)?;
        Ok(Self { frames, base, file: ObjectId::ROOT, told: BTreeSet::new(), data: 0, number })
    }

    pub(super) fn report(&self, difference: &Difference, round: u64) -> DumpReport {
        DumpReport {
            schema: "cfor-dump/1",
            base: self.base.round.number,
            round,
            new: difference.new.len(),
            gone: difference.gone.len(),
            changed: difference.changed.len(),
            names: difference.named.len() + difference.unnamed.len(),
            data: self.data,
            bytes: self.frames.written(),
            scanned: None,
            unseen: BTreeSet::new(),
        }
    }
}

impl<W: Write> Sink for Writer<'_, W> {
    fn object(&mut self, id: ObjectId, meta: &Meta, changed: bool) -> Result<()> {
        let boxed = || Box::new(meta.clone());
        let Some(before) = self.base.objects.get(&id) else {
            self.told.insert(id);
            return Part::New { id, meta: boxed() }.write(&mut self.frames);
        };
        if !changed && before.meta == *meta {
            return Ok(());
        }
        self.told.insert(id);
        if before.meta.size != meta.size {
            Part::Limit { id, at: before.meta.size.min(meta.size) }.write(&mut self.frames)?;
        }
        Part::Changed { id, meta: boxed() }.write(&mut self.frames)
    }

    fn changes(&mut self, id: ObjectId) -> &mut dyn Changes {
        self.file = id;
        self
    }
}

impl<W: Write> Changes for Writer<'_, W> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.data += bytes.len() as u64;
        Part::Data { id: self.file, offset, bytes }.write(&mut self.frames)
    }

    fn hole(&mut self, range: Range<u64>) -> Result<()> {
        Part::Hole { id: self.file, range }.write(&mut self.frames)
    }
}

/// The names, and what is gone; hints for people about the directories.
pub fn write_names<W: Write>(
    writer: &mut Writer<'_, W>,
    index: &Index,
    difference: &Difference,
) -> Result<()> {
    let (old, new) = (writer.base.names(), index.names());
    let dirs: BTreeSet<_> =
        difference.named.keys().chain(difference.unnamed.keys()).map(|(dir, _)| *dir).collect();
    for id in dirs.iter().chain(&writer.told).copied().collect::<BTreeSet<_>>() {
        let path = if index.objects.contains_key(&id) { new.path(id) } else { old.path(id) };
        Part::Hint { id, path: &path }.write(&mut writer.frames)?;
    }
    for ((dir, name), id) in &difference.unnamed {
        Part::Unname { dir: *dir, name, id: *id }.write(&mut writer.frames)?;
    }
    for ((dir, name), id) in &difference.named {
        Part::Name { dir: *dir, name, id: *id }.write(&mut writer.frames)?;
    }
    // Told, and then it vanished together with the directory it was in.
    let vanished = writer.told.iter().filter(|id| !index.objects.contains_key(id));
    let gone: BTreeSet<_> = difference.gone.iter().chain(vanished).copied().collect();
    gone.iter().try_for_each(|id| Part::Gone { id: *id }.write(&mut writer.frames))
}
