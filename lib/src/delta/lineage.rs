//! A file beside a copy that says which generation it holds, so that a delta is applied once, in its turn, and to
//! what it was made for.
//!
//! ```text
//! mirror-generation/1
//! now 32 hexadecimal digits
//! applying 32 hexadecimal digits      (only while a delta is being applied, or after that was interrupted)
//! ```

use super::stream::DeltaHeader;
use crate::base::{Class, Error, Id, Result};
use crate::device::durable;
use std::path::{Path, PathBuf};

/// The first line.
const FIRST: &str = "mirror-generation/1";

/// Which generation a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    path: PathBuf,
    /// What it holds; none before the first delta.
    pub now: Id,
    /// What a delta that was begun makes of it.
    pub applying: Id,
}

impl Lineage {
    /// Reads the file; one that is not there means a copy that no delta was applied to, or made from.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), now: Id::NONE, applying: Id::NONE });
            }
            Err(e) => return Err(Error::io(name, "reading it", e)),
        };
        let mut lines = text.lines();
        let damaged =
            || Error::new(Class::Damaged, format!("{name}: reading it: not a file of a generation"));
        if lines.next() != Some(FIRST) {
            return Err(damaged());
        }
        let mut this = Self { path: path.to_owned(), now: Id::NONE, applying: Id::NONE };
        for line in lines {
            let (key, value) = line.split_once(' ').ok_or_else(damaged)?;
            let id = value.parse().map_err(|_| damaged())?;
            match key {
                "now" => this.now = id,
                "applying" => this.applying = id,
                _ => return Err(damaged()),
            }
        }
        Ok(this)
    }

    fn store(&self) -> Result<()> {
        let begun =
            if self.applying.is_none() { String::new() } else { format!("applying {}\n", self.applying) };
        let text = format!("{FIRST}\nnow {}\n{begun}", self.now);
        durable::replace(&self.path, text.as_bytes())
    }

    /// Whether a delta may be applied now: pure. One that holds everything may always; one that was begun may
    /// again, and no other until it has ended. Class `Damaged` otherwise, saying what is wrong.
    pub fn check(&self, name: &str, delta: &DeltaHeader) -> Result<()> {
        let refuse =
            |why: String| Err(Error::new(Class::Damaged, format!("{name}: checking its base: {why}")));
        let (file, now) = (self.path.display(), self.now);
        if delta.base.is_none() && delta.partial {
            return refuse("it does not say what it is for".into());
        }
        if delta.base.is_none() || (self.applying == delta.target && !delta.target.is_none()) {
            return Ok(());
        }
        if !self.applying.is_none() {
            let begun = self.applying;
            return refuse(format!("the delta to {begun} was begun and has not ended; apply that one again"));
        }
        if now == delta.target {
            return refuse(format!("{file} holds its result {now}: it was applied already"));
        }
        if now != delta.base {
            return refuse(format!("it is for {}, {file} holds {now}", delta.base));
        }
        Ok(())
    }

    /// Before the first write: from now on only this delta may be applied. Durable.
    pub fn begin(&mut self, delta: &DeltaHeader) -> Result<()> {
        self.applying = delta.target;
        self.store()
    }

    /// After the target's last flush: it holds the result. Durable.
    pub fn finish(&mut self, target: Id) -> Result<()> {
        (self.now, self.applying) = (target, Id::NONE);
        self.store()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockSize;

    const A: Id = Id([1; 16]);
    const B: Id = Id([2; 16]);
    const C: Id = Id([3; 16]);

    fn delta(base: Id, target: Id) -> DeltaHeader {
        let (id, volume, size, block) = (Id([9; 16]), Id::NONE, 1 << 20, BlockSize::DEFAULT);
        DeltaHeader { id, volume, base, target, size, block, partial: !base.is_none() }
    }

    #[test]
    fn a_delta_is_applied_once_in_its_turn_to_what_it_was_made_for() {
        let table = [
            (Id::NONE, Id::NONE, Id::NONE, A, None),
            (A, Id::NONE, A, B, None),
            (A, Id::NONE, Id::NONE, C, None),
            (B, Id::NONE, A, B, Some("applied already")),
            (B, Id::NONE, A, C, Some("it is for")),
            (Id::NONE, Id::NONE, A, B, Some("it is for")),
            (A, B, A, B, None),
            (A, B, A, C, Some("has not ended")),
            (A, B, Id::NONE, C, None),
        ];
        let lineage = Lineage { path: "g".into(), now: A, applying: Id::NONE };
        let unknown = DeltaHeader { partial: true, ..delta(Id::NONE, Id::NONE) };
        assert!(lineage.check("d", &unknown).expect_err("partial").message.contains("does not say"));
        for (now, applying, base, target, why) in table {
            let lineage = Lineage { path: "g".into(), now, applying };
            match (lineage.check("d", &delta(base, target)), why) {
                (Ok(()), None) => {}
                (Err(error), Some(why)) => assert!(error.message.contains(why), "{error}"),
                (found, _) => panic!("{now} {applying} {base} {target}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_file_keeps_what_was_begun_and_what_has_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("g");
        let mut lineage = Lineage::open(&path).expect("none yet");
        lineage.finish(A).expect("store");
        lineage.begin(&delta(A, B)).expect("store");
        let again = Lineage::open(&path).expect("open");
        assert_eq!((again.now, again.applying), (A, B));
        lineage.finish(B).expect("store");
        assert_eq!(Lineage::open(&path).expect("open"), lineage);
        for bad in ["", "x", "mirror-generation/1\nnow x", "mirror-generation/1\nthen 00\n"] {
            std::fs::write(&path, bad).expect("write");
            assert_eq!(Lineage::open(&path).expect_err(bad).class, Class::Damaged);
        }
    }
}
