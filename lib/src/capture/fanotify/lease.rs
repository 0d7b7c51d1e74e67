//! Whether anybody has a file open for writing, or mapped so: of all processes, in whatever container, by descriptors
//! of whatever age. The kernel knows, and says so to whoever asks for a lease of a reader (`F_SETLEASE`), which it
//! gives only where nobody is. The lease is given back at once; who opens the file for writing in between waits for
//! that, or is told to try again if it does not want to wait.
//!
//! Unsafe code, because rustix has no leases.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Whether somebody may be writing a file, that is open for reading here. The caller must have taken care of `SIGIO`,
/// which tells it that somebody waits for the lease. Errors: nobody can say.
pub fn is_written(file: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: takes a descriptor, which lives for the whole call, and two numbers.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if done < 0 {
        let error = Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EAGAIN) { Ok(true) } else { Err(error) };
    }
    // SAFETY: as above. It fails only if there is no lease any more.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::is_written;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    #[test]
    fn who_has_it_open_for_writing_is_seen() {
        // Not on tmpfs: any file system has leases, but not every sandbox.
        let path = tempfile::NamedTempFile::new().expect("file").into_temp_path();
        let reader = File::open(&path).expect("open");
        assert!(!is_written(reader.as_fd()).expect("ask"));
        let writer = File::options().write(true).open(&path).expect("open");
        assert!(is_written(reader.as_fd()).expect("ask"));
        drop(writer);
        assert!(!is_written(reader.as_fd()).expect("ask"));
    }
}
