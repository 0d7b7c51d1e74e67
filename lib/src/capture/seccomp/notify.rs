//! What the kernel offers for user notification (`seccomp_unotify(2)`): a filter with a listener, notifications, answers,
//! and the memory of who waits for one.
//!
//! Unsafe code, because neither rustix nor libc has these calls. Layouts are those of linux/seccomp.h and are compared
//! with what the kernel says that it uses.
#![allow(unsafe_code)]

use super::filter;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const GET_NOTIF_SIZES: libc::c_uint = 3;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
/// Linux 5.19: once a notification was received, only a signal that kills ends the wait for its answer.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`
const CONTINUE: u32 = 1;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): who waits and who answers take turns on one processor.
const SYNC_WAKE_UP: libc::c_ulong = 1;

// `_IOWR('!', 0, struct seccomp_notif)` and so on.
const RECV: libc::Ioctl = 0xC050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xC018_2101_u32 as libc::Ioctl;
const ID_VALID: libc::Ioctl = 0x4008_2102;
const SET_FLAGS: libc::Ioctl = 0x4008_2104;

/// A call of a process that waits for an answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// Which one.
    pub id: u64,
    /// The thread, by the number that we know it by; 0 if we know none.
    pub pid: u32,
    flags: u32,
    /// The number of the call.
    pub number: i32,
    /// `AUDIT_ARCH_*`
    pub arch: u32,
    instruction: u64,
    /// Its arguments.
    pub args: [u64; 6],
}
const _: () = assert!(size_of::<Notification>() == 80);

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}
const _: () = assert!(size_of::<Response>() == 24);

/// Whether the kernel has notifications, of sizes that we know.
pub fn is_there() -> bool {
    let mut sizes = [0_u16; 3];
    // SAFETY: the kernel writes a `struct seccomp_notif_sizes`, three 16-bit numbers, where we point to.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, GET_NOTIF_SIZES, 0, sizes.as_mut_ptr()) };
    let [notification, response, _] = sizes.map(usize::from);
    done == 0 && notification <= size_of::<Notification>() && response <= size_of::<Response>()
}

/// Loads the filter into this process, for good, and gives its listener. Without `CAP_SYS_ADMIN` the process also gives up
/// to gain privileges by executing a program (`no_new_privs`). Errors: `EBUSY` if a filter of it has a listener already.
///
/// Called between fork and exec, in a process of one thread; allocates nothing but the program.
pub fn install() -> io::Result<OwnedFd> {
    let code = filter::program();
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_ptr().cast_mut() };
    let load = |flags: libc::c_ulong| {
        // SAFETY: `program` and what it points to live for the whole call; the kernel copies them and writes nothing.
        let raw = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
    };
    let newest_or_older = || match load(NEW_LISTENER | WAIT_KILLABLE_RECV) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => load(NEW_LISTENER),
        done => done,
    };
    match newest_or_older() {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
            // SAFETY: takes numbers.
            if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            newest_or_older()
        }
        done => done,
    }
}

/// The descriptor that notifications come from.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes it over, and asks for what makes it faster, where the kernel has that.
    pub fn new(fd: OwnedFd) -> Self {
        // SAFETY: takes numbers. A kernel that does not know it says so, and nothing is lost.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// Receives the next notification into memory that may be shared: once the kernel counts it as received, it is there.
    /// `false`: there was none any more.
    pub fn receive(&self, to: &mut Notification) -> io::Result<bool> {
        *to = Notification::default();
        // SAFETY: the kernel writes a `struct seccomp_notif` of at most the size of `to`, which is all zero, as it asks.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), RECV, &raw mut *to) };
        answered(done)
    }

    /// Whether who waits still waits, so that what was read of it is of it, and of no other process with its number.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads a number where we point to.
        unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID, &raw const id) == 0 }
    }

    /// Lets the call go on. `false`: nobody waits for it any more.
    pub fn go_on(&self, id: u64) -> io::Result<bool> {
        let response = Response { id, value: 0, error: 0, flags: CONTINUE };
        // SAFETY: the kernel reads a `struct seccomp_notif_resp` where we point to.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw const response) };
        answered(done)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `ENOENT`: who waited was killed or interrupted; `EINTR`: we were.
fn answered(done: libc::c_int) -> io::Result<bool> {
    if done == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EINPROGRESS)) => Ok(false),
        e => Err(e),
    }
}

/// Bytes of the memory of a thread, as many as are there up to the end of a page.
fn read_page(tid: u32, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
    let len = to.len().min(PAGE - (address as usize & (PAGE - 1)));
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: len };
    // SAFETY: the kernel writes at most `len` bytes to `to`, which has them; the other address is of another process, and
    // the kernel checks it.
    let done =
        unsafe { libc::process_vm_readv(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(done).map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Pages are at least so large.
const PAGE: usize = 4096;

/// Reads so many bytes of a thread's memory.
pub fn read_memory(tid: u32, mut address: u64, mut to: &mut [u8]) -> Result<(), Errno> {
    while !to.is_empty() {
        match read_page(tid, address, to)? {
            0 => return Err(Errno::FAULT),
            len => {
                address += len as u64;
                to = &mut to[len..];
            }
        }
    }
    Ok(())
}

/// Reads a string of a thread's memory, of at most `limit` bytes with its zero.
pub fn read_string(tid: u32, mut address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    while text.len() < limit {
        let len = read_page(tid, address, &mut buffer)?;
        let piece = buffer.get(..len).filter(|piece| !piece.is_empty()).ok_or(Errno::FAULT)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&piece[..end]);
            return Ok(text);
        }
        text.extend_from_slice(piece);
        address += len as u64;
    }
    Err(Errno::NAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_up_to_its_end() {
        let own = std::process::id();
        let text = c"some/path".to_bytes_with_nul();
        assert_eq!(read_string(own, text.as_ptr() as u64, 4096).expect("read"), b"some/path");
        assert_eq!(read_string(own, text.as_ptr() as u64, 4).map_err(|_| ()), Ok(b"some/path".to_vec()));
        // A string that crosses pages, and one that ends with the memory.
        let mut long = vec![b'x'; 3 * PAGE];
        long.push(0);
        assert_eq!(read_string(own, long.as_ptr() as u64, 4 * PAGE).expect("read").len(), 3 * PAGE);
        assert_eq!(read_string(own, long.as_ptr() as u64, PAGE), Err(Errno::NAMETOOLONG));
        assert_eq!(read_string(own, 8, PAGE), Err(Errno::FAULT));
        let mut number = [0; 8];
        read_memory(own, long.as_ptr() as u64 + PAGE as u64 - 4, &mut number).expect("read");
        assert_eq!(number, [b'x'; 8]);
        assert_eq!(read_memory(own, 8, &mut number), Err(Errno::FAULT));
    }

    #[test]
    fn this_kernel_has_notifications() {
        assert!(is_there());
    }
}
