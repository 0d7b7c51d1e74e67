//! Marks over the control socket: pages of a map, and a tracker's marks on loan.
//!
//! # Rotating a tracker
//!
//! Marks leave a tracker in steps, so that a crash of either side at any of them loses none:
//!
//! 1. [`Taken::take`]: the daemon closes the marks. In its memory they are apart from those of later writes; the
//!    blocks of every write in flight are in both. On its disk nothing changes: all of them stand there.
//! 2. [`Taken::marks`]: they are read. What they are needed for is made durable: a map is written and synced, or
//!    the blocks are copied and the target is flushed. [`Taken::copied`] may say on the way what is done.
//! 3. [`Taken::confirm`]: the daemon drops them.
//!
//! Recovery: (a) the asking side ends before 3, however: its connection ends, and what was not [`Taken::copied`]
//! goes back; (b) the daemon ends: at its next start it reads its disk, where everything stands that was not
//! confirmed; (c) the answer to 3 is lost: the marks may be in the tracker once more, which is never wrong.
//!
//! One connection at a time can have the marks of a tracker; others get class `Busy`.

use super::client::Connection;
use super::{MapOf, Request, TrackerAction, VolumeDir};
use crate::base::{BlockSize, ByteRange, Class, Error, Id, Name, Result, limits};
use std::fmt::Write as _;
use std::time::Duration;

/// Some words of a map, and what it is a map of.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Page {
    /// Identity of the volume.
    pub volume: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Number of the first word; those before it, from the one that was asked for, are zero.
    pub first: u64,
    /// Words of 64 blocks, the lowest block in the lowest bit, 16 hexadecimal digits each.
    pub words: String,
    /// What follows is zero.
    pub last: bool,
}

impl Page {
    /// Puts words into a page that is otherwise filled in: from `first` on, at most [`limits::CONTROL_WORDS`] of
    /// them, beginning with the next that is not zero. `word` gives each of the `len` words of the map.
    #[must_use]
    pub fn with(mut self, len: usize, first: u64, word: impl Fn(usize) -> u64) -> Self {
        let from = usize::try_from(first).unwrap_or(usize::MAX).min(len);
        let at = (from..len).find(|at| word(*at) != 0).unwrap_or(len);
        let end = len.min(at + limits::CONTROL_WORDS);
        self.first = at as u64;
        self.words = String::with_capacity((end - at) * 16);
        for at in at..end {
            // Writing into a string does not fail.
            let _ = write!(self.words, "{:016x}", word(at));
        }
        self.last = (end..len).all(|at| word(at) == 0);
        self
    }

    /// Its words.
    fn decode(&self) -> Option<Vec<u64>> {
        let digits = self.words.as_bytes();
        if !digits.len().is_multiple_of(16) || digits.len() / 16 > limits::CONTROL_WORDS {
            return None;
        }
        let word = |digits: &[u8]| {
            let plain = digits.iter().all(u8::is_ascii_hexdigit);
            std::str::from_utf8(digits)
                .ok()
                .filter(|_| plain)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        };
        digits.chunks(16).map(word).collect()
    }
}

/// All marks of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The volume; `NONE` for a throw-away one.
    pub volume: Id,
    /// Its size in bytes.
    pub size: u64,
    /// A bit stands for so many bytes.
    pub block: BlockSize,
    /// A bit for each block, the lowest first; bits past the volume are zero.
    pub words: Vec<u64>,
}

/// The marks of a map of a served volume as they are now. Marks that are made meanwhile may be among them or not.
pub fn marks(volume: &VolumeDir, of: &MapOf, deadline: Duration) -> Result<Marks> {
    read(&mut Connection::open(volume, deadline)?, volume.name(), of, deadline)
}

/// Marks that were taken out of a tracker, and go back when this is dropped (see the module).
///
/// ```no_run
/// # use mirror::control::{StateDir, Taken};
/// # fn main() -> mirror::base::Result<()> {
/// let volume = StateDir::from_environment()?.volume(&"vol0".parse()?);
/// let mut taken = Taken::take(&volume, &"weekly".parse()?, std::time::Duration::from_secs(60))?;
/// let marks = taken.marks()?;
/// // Copy the blocks of `marks.words`; flush the target; then:
/// taken.confirm()
/// # }
/// ```
#[derive(Debug)]
pub struct Taken {
    connection: Connection,
    volume: Name,
    tracker: Name,
    deadline: Duration,
}

impl Taken {
    /// Step 1. Every question over this connection is answered within `deadline`. Classes: `Busy` if somebody
    /// else has the marks, `Usage` if there is no such tracker, `Connect` if nobody serves the volume.
    pub fn take(volume: &VolumeDir, tracker: &Name, deadline: Duration) -> Result<Self> {
        let connection = Connection::open(volume, deadline)?;
        let (volume, tracker) = (volume.name().clone(), tracker.clone());
        let mut taken = Self { connection, volume, tracker, deadline };
        taken.ask(TrackerAction::Take)?;
        Ok(taken)
    }

    /// Step 2: the marks that were taken, less what is [`Taken::copied`].
    pub fn marks(&mut self) -> Result<Marks> {
        read(&mut self.connection, &self.volume, &MapOf::Taken(self.tracker.clone()), self.deadline)
    }

    /// These ranges are on stable storage where they are needed: they do not go back if this run ends without
    /// [`Taken::confirm`]. Only for what was read after [`Taken::take`]. Blocks that lie in a range only in part
    /// stay. Forgotten if the daemon ends, so that these blocks are copied once more.
    pub fn copied(&mut self, ranges: &[ByteRange]) -> Result<()> {
        for ranges in ranges.chunks(limits::CONTROL_RANGES) {
            let ranges = ranges.iter().map(|range| (range.offset, range.len)).collect();
            self.connection.extend(self.deadline);
            self.connection.ask(&Request::Copied { tracker: self.tracker.clone(), ranges })?;
        }
        Ok(())
    }

    /// Step 3: everything that was taken is durable elsewhere.
    pub fn confirm(mut self) -> Result<()> {
        self.ask(TrackerAction::Confirm)
    }

    /// What is not [`Taken::copied`] goes back now; an error means that it goes back by itself.
    pub fn give_back(mut self) -> Result<()> {
        self.ask(TrackerAction::GiveBack)
    }

    fn ask(&mut self, action: TrackerAction) -> Result<()> {
        self.connection.extend(self.deadline);
        self.connection.ask(&Request::Tracker { action, tracker: self.tracker.clone() }).map(drop)
    }
}

/// All pages of a map.
fn read(connection: &mut Connection, volume: &Name, of: &MapOf, deadline: Duration) -> Result<Marks> {
    let bad = |why: &str| Error::new(Class::Connect, format!("{volume}: reading marks: {why}"));
    let mut marks: Option<Marks> = None;
    let mut first = 0;
    loop {
        connection.extend(deadline);
        let value = connection.ask(&Request::Marks { of: of.clone(), first })?;
        let page: Page = serde_json::from_value(value).map_err(|e| bad(&format!("a bad page: {e}")))?;
        let marks = match &mut marks {
            Some(marks) if marks.size == page.size && marks.block.bytes() == page.block => marks,
            Some(_) => return Err(bad("the volume has changed its size meanwhile")),
            None => marks.insert(begin(&page).ok_or_else(|| bad("a bad page: its geometry"))?),
        };
        let words = page.decode().ok_or_else(|| bad("a bad page: its words"))?;
        let place = usize::try_from(page.first).ok().filter(|_| page.first >= first).and_then(|at| {
            let end = at.checked_add(words.len())?;
            marks.words.get_mut(at..end)
        });
        place.ok_or_else(|| bad("a bad page: its place"))?.copy_from_slice(&words);
        if page.last {
            let past = marks.words.len() as u64 * 64 - marks.block.count(marks.size);
            if let Some(word) = marks.words.last_mut() {
                *word &= u64::MAX >> past;
            }
            return Ok(marks.clone());
        }
        if words.is_empty() {
            return Err(bad("a bad page: it is empty"));
        }
        first = page.first + words.len() as u64;
    }
}

/// The geometry that a page names, with nothing marked.
fn begin(page: &Page) -> Option<Marks> {
    let id = |text: &str| if text.is_empty() { Some(Id::NONE) } else { text.parse().ok() };
    let block = BlockSize::new(page.block).ok()?;
    let size = Some(page.size).filter(|size| (1..=limits::VOLUME_SIZE).contains(size))?;
    let words = block.count(size).div_ceil(64);
    // No map has more blocks than the largest volume in the largest blocks.
    let words = Some(words).filter(|words| *words <= limits::VOLUME_SIZE / limits::BLOCK_MAX / 64)?;
    let words = vec![0; usize::try_from(words).ok()?];
    Some(Marks { volume: id(&page.volume)?, size, block, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(words: &[u64]) -> Vec<u64> {
        let mut found = vec![0; words.len()];
        let (mut first, mut asked) = (0, 0);
        loop {
            let page = Page::default().with(words.len(), first, |at| words[at]);
            let part = page.decode().expect("words");
            found[page.first as usize..][..part.len()].copy_from_slice(&part);
            asked += 1;
            if page.last {
                assert!(asked <= words.len().div_ceil(limits::CONTROL_WORDS).max(1), "{asked} pages");
                return found;
            }
            first = page.first + part.len() as u64;
        }
    }

    #[test]
    fn pages_hold_all_words_and_skip_what_is_zero() {
        let long = 5 * limits::CONTROL_WORDS + 3;
        for set in [&[][..], &[0], &[long - 1], &[7, 8191, 8192, 20_000], &[8191, 16_390]] {
            let mut words = vec![0; long];
            for at in set {
                words[*at] = *at as u64 + 1;
            }
            assert_eq!(pages(&words), words, "{set:?}");
        }
        assert_eq!(pages(&vec![u64::MAX; long]), vec![u64::MAX; long]);
        assert_eq!(Page::default().with(0, 9, |_| 1).decode(), Some(Vec::new()));
    }

    #[test]
    fn a_page_with_other_than_words_is_refused() {
        for words in ["0", "00000000000000001", "+000000000000001", "000000000000000g"] {
            assert_eq!(Page { words: words.into(), ..Page::default() }.decode(), None, "{words}");
        }
        assert!(begin(&Page { size: 1, block: 4095, ..Page::default() }).is_none());
        assert!(begin(&Page { size: 1 << 60, block: 4096, ..Page::default() }).is_none());
        assert_eq!(begin(&Page { size: 1, block: 4096, ..Page::default() }).expect("one").words, [0]);
    }
}
