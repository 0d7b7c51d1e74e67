//! Where a result goes: a file that is there whole or not at all, or a stream.

use super::durable::Draft;
use super::lock;
use crate::base::{Class, Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 18;
/// Zeroes for streams, which have no holes.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// A result on its way. Dropped without [`Output::finish`] a file is not there, or is the old one.
pub struct Output {
    name: String,
    to: To,
    buffer: Vec<u8>,
    written: u64,
}

enum To {
    New { draft: Draft, path: PathBuf, replace: bool },
    Stream(Box<dyn Write>),
}

impl Output {
    /// A file that will be made. An existing one is refused (class `Refused`) unless `replace`, and then it must
    /// be a regular file that nobody holds (class `Busy`). A FIFO or a character device is written to as it is; a
    /// block device or directory is refused.
    pub fn file(path: &Path, replace: bool) -> Result<Self> {
        let name = path.display().to_string();
        let refuse = |why: &str| Err(Error::new(Class::Refused, format!("{name}: creating it: {why}")));
        match std::fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&name, "creating it", e)),
            Ok(data) if data.file_type().is_fifo() || data.file_type().is_char_device() => {
                let file = File::options().write(true).open(path);
                let file = file.map_err(|e| Error::io(&name, "opening it", e))?;
                return Ok(Self::stream(&name, Box::new(file)));
            }
            Ok(data) if !data.is_file() => return refuse("something else than a file has this name"),
            Ok(_) if !replace => {
                return refuse("it exists").map_err(|e| e.hint("the same with --replace"));
            }
            // Shared: who makes this result may be reading the old one still.
            Ok(_) => drop(lock::open_locked(path, false)?),
        }
        let draft = Draft::new(path)?;
        let to = To::New { draft, path: path.to_owned(), replace };
        Ok(Self { name, to, buffer: Vec::new(), written: 0 })
    }

    /// A stream, such as standard output.
    pub fn stream(name: &str, stream: Box<dyn Write>) -> Self {
        Self { name: name.to_owned(), to: To::Stream(stream), buffer: Vec::new(), written: 0 }
    }

    /// Writes bytes. A closed pipe is [`Error::silent`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.drain()?;
        }
        if bytes.len() >= BUFFER {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes text.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.put(text.as_bytes())
    }

    /// Writes so many zeroes: a hole in a file.
    pub fn put_zeroes(&mut self, len: u64) -> Result<()> {
        self.drain()?;
        if matches!(self.to, To::New { .. }) {
            self.written += len;
            return Ok(());
        }
        let mut left = len;
        while left > 0 {
            let here = left.min(ZEROES.len() as u64);
            self.write(&ZEROES[..here as usize])?;
            left -= here;
        }
        Ok(())
    }

    /// The result is complete: a file is synced and appears under its name, a stream is flushed.
    pub fn finish(mut self) -> Result<()> {
        self.drain()?;
        let (name, written) = (self.name, self.written);
        match self.to {
            To::Stream(mut stream) => stream.flush().map_err(|e| failed(&name, e)),
            To::New { draft, path, replace } => {
                draft.file().set_len(written).map_err(|e| failed(&name, e))?;
                // Somebody may have begun to use the old one meanwhile; the lock is held until it is replaced.
                let held =
                    if replace && path.exists() { Some(lock::open_locked(&path, true)?) } else { None };
                draft.publish(held.is_some())?;
                Ok(())
            }
        }
    }

    fn drain(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.write(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.to {
            To::New { draft, .. } => draft.file().write_all_at(bytes, self.written),
            To::Stream(stream) => stream.write_all(bytes),
        };
        self.written += bytes.len() as u64;
        done.map_err(|e| failed(&self.name, e))
    }
}

fn failed(name: &str, error: io::Error) -> Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return Error::silent(Class::Io);
    }
    Error::io(name, "writing", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_finished_and_not_before() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        let mut out = Output::file(&path, false).expect("new");
        out.text("ab").and_then(|()| out.put_zeroes(3)).and_then(|()| out.text("c")).expect("write");
        assert!(!path.exists());
        out.finish().expect("finish");
        assert_eq!(std::fs::read(&path).expect("read"), b"ab\0\0\0c");
        drop(Output::file(&path, true).expect("replace"));
        assert_eq!(std::fs::read(&path).expect("read"), b"ab\0\0\0c");
        Output::file(&path, true).expect("replace").finish().expect("finish");
        assert_eq!(std::fs::read(&path).expect("read"), b"");
    }

    #[test]
    fn what_exists_is_replaced_on_request_only_and_never_while_it_is_held() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        std::fs::write(&path, "x").expect("write");
        assert_eq!(Output::file(&path, false).err().map(|e| e.class), Some(Class::Refused));
        assert_eq!(Output::file(dir.path(), true).err().map(|e| e.class), Some(Class::Refused));
        let held = lock::open_locked(&path, true).expect("hold");
        assert_eq!(Output::file(&path, true).err().map(|e| e.class), Some(Class::Busy));
        drop(held);
        assert!(Output::file(&path, true).is_ok());
        Output::file(Path::new("/dev/null"), false).expect("null").finish().expect("finish");
    }
}
