//! How far long work has come: a bar on a terminal, a line every few seconds otherwise, JSON lines with
//! `--progress=FD`. Counts what is durable, not what was sent.

use super::output;
use crate::base::units::show_size;
use crate::base::{Class, Error, Result, error::plain};
use std::io::{IsTerminal as _, Write as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Without a terminal, a line so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The `schema` of a line of `--progress=FD`.
pub const SCHEMA: &str = "mirror-progress/1";

/// Where progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressTo {
    /// Standard error: a bar on a terminal, a line every few seconds otherwise.
    #[default]
    People,
    /// Nowhere.
    Nobody,
    /// JSON lines to this open file descriptor.
    Fd(u32),
}

impl FromStr for ProgressTo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(fd) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Fd(fd)),
            _ => Err(Error::new(
                Class::Usage,
                format!("{}: reading a file descriptor: not a number", text.escape_debug()),
            )),
        }
    }
}

/// How far it has come, at one moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Bytes that are done and durable.
    pub done: u64,
    /// Bytes to be done altogether.
    pub total: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Seconds left at that rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_seconds_to_finish: Option<u64>,
    /// What is waited for, and why nothing moves if nothing does.
    pub text: String,
}

impl Progress {
    /// One line for a person.
    pub fn line(&self) -> String {
        let (text, numbers) = (output::one_line(&self.text), self.numbers());
        if numbers.is_empty() { text } else { format!("{text}: {numbers}") }
    }

    /// The same for a narrow place, whose end may be cut off: what moves comes first.
    pub fn short_line(&self) -> String {
        let (text, numbers) = (output::one_line(&self.text), self.numbers());
        if numbers.is_empty() { text } else { format!("{numbers}: {text}") }
    }

    fn numbers(&self) -> String {
        let mut parts = Vec::new();
        if self.total > 0 {
            let done = self.done.min(self.total);
            let permille = u128::from(done) * 1000 / u128::from(self.total);
            let (whole, tenth) = (permille / 10, permille % 10);
            parts.push(format!("{whole}.{tenth} %, {} of {}", show_size(done), show_size(self.total)));
        }
        if self.rate > 0 {
            parts.push(format!("{}/s", show_size(self.rate)));
        }
        if let Some(seconds) = self.estimated_seconds_to_finish {
            parts.push(format!("{} left", show_seconds(seconds)));
        }
        parts.join(", ")
    }
}

/// Seconds for a person: `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn show_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Tells progress until it is dropped.
#[derive(Debug)]
pub struct Meter {
    to: Sink,
}

#[derive(Debug)]
enum Sink {
    Bar(indicatif::ProgressBar),
    Lines { last: Instant },
    Json(std::fs::File),
    Nobody,
}

impl Meter {
    /// A meter that tells where it is asked to.
    pub fn new(tool: &'static str, to: ProgressTo) -> Result<Self> {
        let to = match to {
            ProgressTo::Nobody => Sink::Nobody,
            ProgressTo::People if std::io::stderr().is_terminal() => Sink::Bar(bar(tool)),
            ProgressTo::People => Sink::Lines { last: Instant::now() },
            ProgressTo::Fd(fd) => {
                // /dev/fd opens what is behind the descriptor once more; the number needs no trust.
                let path = format!("/dev/fd/{fd}");
                let file = std::fs::OpenOptions::new().append(true).open(&path).map_err(|e| {
                    Error::new(Class::Usage, format!("--progress={fd}: opening it: {}", plain(&e)))
                })?;
                Sink::Json(file)
            }
        };
        Ok(Self { to })
    }

    /// Tells how far it has come; `asked` (SIGUSR1) tells it at once.
    pub fn update(&mut self, now: &Progress, asked: bool) {
        match &mut self.to {
            Sink::Bar(bar) => {
                if now.total > 0 {
                    bar.set_length(now.total);
                    bar.set_position(now.done.min(now.total));
                }
                bar.set_message(now.short_line());
                if asked {
                    // A line that stays, above the bar.
                    bar.suspend(|| output::tell(&format!("{}\n", now.line())));
                }
                bar.tick();
            }
            Sink::Lines { last } if asked || last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                output::tell(&format!("{}\n", now.line()));
            }
            Sink::Json(file) => {
                if asked {
                    output::tell(&format!("{}\n", now.line()));
                }
                if let Ok(mut line) = serde_json::to_vec(&Tagged { schema: SCHEMA, now }) {
                    line.push(b'\n');
                    // Who asked for progress and went away does not stop the work.
                    let _ = file.write_all(&line);
                }
            }
            Sink::Nobody if asked => output::tell(&format!("{}\n", now.line())),
            Sink::Lines { .. } | Sink::Nobody => {}
        }
    }
}

#[derive(serde::Serialize)]
struct Tagged<'a> {
    schema: &'static str,
    #[serde(flatten)]
    now: &'a Progress,
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Sink::Bar(bar) = &self.to {
            bar.finish_and_clear();
        }
    }
}

fn bar(tool: &'static str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(0).with_prefix(tool);
    match indicatif::ProgressStyle::with_template("{prefix}: [{bar:20}] {wide_msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_one_line() {
        let mut now = Progress { text: "vol0/far".into(), ..Progress::default() };
        assert_eq!(now.line(), "vol0/far");
        now = Progress {
            done: 1 << 20,
            total: 4 << 20,
            rate: 1 << 20,
            estimated_seconds_to_finish: Some(3),
            ..now
        };
        assert_eq!(now.line(), "vol0/far: 25.0 %, 1 MiB of 4 MiB, 1 MiB/s, 3 s left");
        assert_eq!(now.short_line(), "25.0 %, 1 MiB of 4 MiB, 1 MiB/s, 3 s left: vol0/far");
        assert_eq!(show_seconds(200), "3 min 20 s");
    }

    #[test]
    fn progress_goes_as_json_to_an_open_descriptor() {
        use std::io::{Read as _, Seek as _};
        use std::os::fd::AsRawFd as _;
        let mut file = tempfile::tempfile().expect("file");
        let to = ProgressTo::Fd(file.as_raw_fd().try_into().expect("fd"));
        Meter::new("x", to).expect("meter").update(&Progress::default(), false);
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("read");
        assert!(text.starts_with(r#"{"schema":"mirror-progress/1","done":0,"#), "{text}");
        assert!(Meter::new("x", ProgressTo::Fd(999)).is_err());
        assert!("-1".parse::<ProgressTo>().is_err());
    }
}
