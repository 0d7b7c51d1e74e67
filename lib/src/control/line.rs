//! Bounded lines out of a stream of bytes, for both sides of the socket.

use crate::base::{Class, Error, Result, limits};

/// Collects bytes and gives back whole lines, without their newline. Holds at most `limit` bytes of a line.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Lines before this have been given out.
    start: usize,
    /// No newline before this.
    searched: usize,
    limit: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new(limits::CONTROL_LINE)
    }
}

impl Lines {
    /// Lines of at most `limit` bytes without the newline.
    pub const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, limit }
    }

    /// Adds what was read. Feed at most a few KiB at a time, and take every line before the next.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line; `None` if there is none yet; an error (close the connection) if it is too long.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let end = self.buffer[self.searched..].iter().position(|b| *b == b'\n').map(|at| self.searched + at);
        let len = end.unwrap_or(self.buffer.len()) - self.start;
        if len > self.limit {
            return Err(Error::new(
                Class::Usage,
                format!("control: a line of {len} bytes or more: at most {} are allowed", self.limit),
            ));
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let start = self.start;
        self.start = end + 1;
        self.searched = end + 1;
        Ok(Some(&self.buffer[start..end]))
    }

    /// Whether a line has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            bytes in proptest::collection::vec(proptest::prop_oneof![any::<u8>(), proptest::prelude::Just(b'\n')], 0..200),
            cut in 1usize..20,
        ) {
            let mut lines = Lines::new(1000);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                lines.push(piece);
                while let Some(line) = lines.next_line().expect("short") {
                    got.push(line.to_vec());
                }
            }
            let mut expected: Vec<_> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            let rest = expected.pop().unwrap_or_default();
            proptest::prop_assert_eq!(got, expected);
            proptest::prop_assert_eq!(lines.is_partial(), !rest.is_empty());
        }
    }

    #[test]
    fn a_line_past_the_limit_is_an_error_before_it_ends() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n12345");
        assert_eq!(lines.next_line().expect("first"), Some(&b"1234"[..]));
        assert!(lines.next_line().is_err());
    }
}
