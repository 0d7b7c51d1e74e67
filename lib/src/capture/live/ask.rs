//! How a recorder is asked, and what it answers: a line each, over its socket.

use super::claim::{SOCKET, socket_path};
use crate::base::{Class, Error, Result, limits};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The backend that sees one command, and knows itself what it has mapped ([`Answer::backend`]).
pub const SECCOMP: &str = "seccomp";

/// What a recorder says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// `cfor-recorder/1`
    pub schema: String,
    /// Its backend.
    pub backend: String,
    /// The round whose log it writes.
    pub round: u64,
    /// The tree that it watches (`identity`).
    pub root: String,
    /// Events since it began.
    pub events: u64,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
    /// Why what it writes is not complete.
    #[serde(default)]
    pub lost: Option<String>,
    /// How it sees byte ranges of big files; nothing if it was told not to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<RangesAnswer>,
}

/// How a recorder sees byte ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RangesAnswer {
    /// Of files of at least so many bytes.
    pub from: u64,
    /// Files that are marked.
    pub files: usize,
    /// Files of these whose ranges are believed; the others are read whole if they are written to.
    pub believed: usize,
    /// The process that notes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
}

impl std::fmt::Display for RangesAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = crate::base::units::show_size(self.from);
        match &self.off {
            Some(why) => write!(f, "no byte ranges: {why}"),
            None => write!(
                f,
                "byte ranges of files of {from} and more: {} of {} known",
                self.believed, self.files
            ),
        }
    }
}

/// Milliseconds since the machine started, the same for all processes.
fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// What a question asks for: the number to rotate to, and whether it is answered too late. Who asked has begun to scan
/// by then, and what was seen meanwhile is in the log before: the one that begins now does not have it.
pub fn rotation(question: &str) -> Option<(u64, bool)> {
    let mut words = question.trim().strip_prefix("rotate ")?.split(' ');
    let number = words.next()?.parse().ok()?;
    let deadline: u64 = words.next()?.parse().ok()?;
    Some((number, clock() > deadline))
}

/// Who asks a recorder gets so long for a line.
const QUESTION: Duration = Duration::from_secs(2);

/// What a recorder is asked. Who does not ask in time, or not in one line, asks nothing.
pub fn question(stream: &UnixStream) -> Option<String> {
    let timed =
        stream.set_read_timeout(Some(QUESTION)).and_then(|()| stream.set_write_timeout(Some(QUESTION)));
    let mut line = String::new();
    timed.ok()?;
    BufReader::new(stream.take(limits::RECORDER_LINE as u64)).read_line(&mut line).ok()?;
    Some(line)
}

/// Answers it. Who asked and went away does not end the recorder.
pub fn reply(mut stream: &UnixStream, answer: &Answer) {
    if let Ok(mut text) = serde_json::to_string(answer) {
        text.push('\n');
        let _ = stream.write_all(text.as_bytes());
    }
}

/// Asks the recorder to begin the log of a round.
pub fn rotate(dir: &Path, number: u64) -> Result<Option<Answer>> {
    ask(dir, &format!("rotate {number} {}", clock() + limits::RECORDER_REPLY_MS))
}

/// Asks the recorder: `rotate N DEADLINE` or `status`. `None` if there is none; a dead one is none. Errors: class `Timeout`
/// for one that does not answer.
pub fn ask(dir: &Path, question: &str) -> Result<Option<Answer>> {
    ask_within(dir, question, Duration::from_millis(limits::RECORDER_REPLY_MS))
}

fn ask_within(dir: &Path, question: &str, limit: Duration) -> Result<Option<Answer>> {
    let path = dir.join(SOCKET);
    let fail = |doing: &str, e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let text = format!("{}: {doing}: the recorder does not answer", path.display());
            Error::new(Class::Timeout, text)
        }
        _ => Error::io(path.display(), doing, e),
    };
    if !path.exists() {
        return Ok(None);
    }
    let (_open, short) = socket_path(dir)?;
    let mut stream = match UnixStream::connect(short) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => return Ok(None),
        Err(e) => return Err(fail("asking the recorder", e)),
    };
    let limit = Some(limit);
    stream
        .set_read_timeout(limit)
        .and_then(|()| stream.set_write_timeout(limit))
        .map_err(|e| fail("asking the recorder", e))?;
    stream.write_all(format!("{question}\n").as_bytes()).map_err(|e| fail("asking the recorder", e))?;
    let mut text = String::new();
    stream
        .take(limits::RECORDER_LINE as u64)
        .read_to_string(&mut text)
        .map_err(|e| fail("waiting for the recorder", e))?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong =
        |e| Error::new(Class::Damaged, format!("{}: reading the recorder's answer: {e}", path.display()));
    serde_json::from_str(text.trim()).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_is_answered_late_is_known() {
        let late = clock().saturating_sub(1000);
        assert_eq!(rotation(&format!("rotate 7 {}\n", clock() + 60_000)), Some((7, false)));
        assert_eq!(rotation(&format!("rotate 7 {late}\n")), Some((7, true)));
        assert_eq!((rotation("rotate 7"), rotation("status"), rotation("rotate x 1")), (None, None, None));
    }

    #[test]
    fn a_recorder_that_does_not_answer_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().expect("dir");
        let ask = || ask_within(dir.path(), "status", Duration::from_millis(50));
        assert_eq!(ask().expect("none"), None);
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).expect("listen");
        let error = ask().expect_err("stopped");
        assert!(error.class == Class::Timeout && error.message.contains("does not answer"), "{error}");
        drop(listener);
        assert_eq!(ask().expect("dead"), None, "a socket that nobody listens on");
    }
}
